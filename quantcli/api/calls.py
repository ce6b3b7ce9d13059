"""Conversion, inspection and vocabularies as functions.

Here and in the files beside it paths are texts or `Path`, results dataclasses, progress a callback. They are the
commands' own requests and verbs; only what a user meets differs. All raise QuantcliError, and nothing else that is
expected: of files that are missing or full, of options that contradict each other (UsageError).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from quantcli.api import results
from quantcli.api.build import built
from quantcli.api.common import PathLike, Texts, check_names, expected, path, paths, several
from quantcli.api.progress import Callback, Listening
from quantcli.errors import UsageError
from quantcli.report import results as objects

if TYPE_CHECKING:  # these bring numpy and more
    from quantcli.vocab.tokenizer import Tokenizer


class ConvertOptions(TypedDict, total=False):
    """Options of `quantcli convert` under their names there, with ``_`` for ``-``; ``types`` and ``tensor_types`` are
    those that are repeated as ``-t`` and ``--tensor-type``."""

    imatrix: PathLike | None  # a file, or "auto"
    target_size: str | int | None  # in place of types: bytes, or a text such as "4.0G"
    target_bpw: float | None
    like: str | None
    max_kld: float | None
    candidates: str | None
    at_least: Texts
    keep: Texts
    same_type: Texts
    include_weights: Texts
    exclude_weights: Texts
    tensor_types: Texts  # "REGEX=TYPE"
    tensor_type_file: PathLike | None
    output_tensor_type: str | None
    token_embedding_type: str | None
    leave_output_tensor: bool
    pure: bool
    allow_requantize: bool
    search: str | None
    method: str | None
    snap: str | None
    quality: str | None
    transforms: Texts
    calibration: PathLike | Sequence[PathLike]
    sampled_tokens: int | None
    statistics: PathLike | None
    keep_statistics: PathLike | None
    threads: int | None
    dry_run: bool
    force: bool
    resume: bool
    split_max_size: str | int | None
    part: str | None  # "3/16"
    keep_split: bool
    metadata: Texts | Mapping[str, object]  # {"general.name": "..."}, or "KEY=VALUE"
    chat_template: PathLike | None
    strict: bool
    allow_no_imatrix: bool
    architecture: str | None
    pre_tokenizer: str | None
    mmproj: str | None
    mmproj_only: bool
    image_break: bool
    lora_base: PathLike | None
    merge_lora: PathLike | None
    lora_scale: float
    checksums: PathLike | None
    html: PathLike | None
    names: str
    skip_existing: bool


_SIZES = ("target_size", "target_bpw", "like", "max_kld", "candidates", "at_least", "keep", "same_type")
_PATHS = (
    "imatrix", "tensor_type_file", "statistics", "keep_statistics", "chat_template", "lora_base", "merge_lora",
    "checksums", "html",
)  # fmt: skip
_REPEATED = (
    "at_least", "keep", "same_type", "include_weights", "exclude_weights", "tensor_types", "transforms", "metadata",
)  # fmt: skip


def convert(
    source: PathLike,
    types: Texts = (),
    *,
    output: PathLike | None = None,
    engine: str | None = None,
    progress: Callback | None = None,
    **options: Unpack[ConvertOptions],
) -> results.ConvertResult:
    """Convert the checkpoint folder or GGUF file ``source`` to a GGUF file for each of the ``types``, in one pass.

    ``output`` is a file or (ending in "/", or for several types) a folder. ``engine``: who makes the shards, every one
    a part ("local://2", "dask://host:8786"; docs/engines.md). Raises QuantcliError; no file is then new.
    """
    from quantcli.cli.parse import convert_request
    from quantcli.commands import fleet

    with expected(), Listening(progress) as reporter:
        request = convert_request(
            source=Path(source),
            types=several(types),
            output=None if output is None else os.fspath(output),
            **_as_parsed(options),
        )
        return cast(results.ConvertResult, built(objects.ConvertResult, fleet.run(request, engine, reporter)))


def _as_parsed(options: ConvertOptions) -> dict[str, Any]:
    """The options as the command line's parser takes them."""
    from quantcli.cli.parse import SizeTexts

    given: dict[str, Any] = dict(options)
    check_names("convert", given, ConvertOptions)
    metadata = given.get("metadata", ())
    if isinstance(metadata, Mapping):
        given["metadata"] = [f"{key}={_setting(value)}" for key, value in metadata.items()]
    given |= {name: several(given[name]) for name in _REPEATED if name in given}
    given |= {name: Path(given[name]) for name in _PATHS if given.get(name) is not None}
    given |= {name: str(given[name]) for name in ("target_size", "split_max_size") if given.get(name) is not None}
    if "calibration" in given:
        given["calibration"] = paths(given["calibration"])
    size = {name: given.pop(name) for name in _SIZES if name in given}
    return given | {"size": SizeTexts(**size)}


def _setting(value: object) -> str:
    """A value of the metadata as --metadata takes it."""
    if isinstance(value, bool):
        return f"bool:{str(value).lower()}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def inspect(path: PathLike) -> results.GgufResult | results.CheckpointResult | results.MatrixResult:
    """What is in a GGUF file, a checkpoint folder or an importance matrix, from headers alone."""
    from quantcli.commands import inspect as verb

    with expected():
        found = verb.run(Path(path))
        return cast(
            "results.GgufResult", built(objects.GgufResult | objects.CheckpointResult | objects.MatrixResult, found)
        )


def verify(
    files: PathLike | Sequence[PathLike], *, checksums: PathLike | None = None, progress: Callback | None = None
) -> results.VerifyResult:
    """Check structure, finite scales in every block, and sha256 (of a list of ``checksums``). ``ok`` says whether all
    is well, ``problem`` of a file what is not: a bad file is a result here, no exception."""
    from quantcli.commands import verify as verb

    with expected(), Listening(progress) as reporter:
        found = verb.run(paths(files), reporter, checksums=path(checksums))
        return cast(results.VerifyResult, built(objects.VerifyResult, found))


def tokenize(model: PathLike, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
    """Token ids of ``text`` in the vocabulary of a GGUF file or checkpoint folder, as llama.cpp has them.

    ``add_special``: with bos and eos where the model says so; ``parse_special``: texts of special tokens are these.
    """
    with expected():
        return _tokenizer(model).encode(text, add_special=add_special, parse_special=parse_special)


def detokenize(model: PathLike, tokens: Sequence[int]) -> str:
    """The text of token ids."""
    with expected():
        tokenizer = _tokenizer(model)
        wrong = next((token for token in tokens if not 0 <= token < len(tokenizer)), None)
        if wrong is not None:
            raise UsageError(f"there is no token {wrong}", hint=f"the vocabulary has {len(tokenizer):,} tokens")
        return tokenizer.decode(list(tokens))


def _tokenizer(model: PathLike) -> Tokenizer:
    from quantcli.loader import open_model
    from quantcli.vocab.tokenizer import Tokenizer

    with open_model(model) as opened:
        return Tokenizer.from_metadata(opened.metadata)
