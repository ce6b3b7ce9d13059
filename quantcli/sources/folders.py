"""What a folder holds in place of a checkpoint, by the names of its files, and the command that helps."""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from quantcli import places
from quantcli.container import foreign
from quantcli.errors import MissingFile, PickleCheckpoint, QuantcliError, UnsupportedFile
from quantcli.sources.files import read_small, shown
from quantcli.sources.hub.address import suggestion
from quantcli.sources.jsonfile import SMALL_JSON, parse, text_in

_NO_WEIGHTS = ("training_args.bin", "optimizer.*", "scheduler.*", "rng_state*", "*tokenizer*")
_HF_FORMAT = "take the version in Hugging Face format (model*.safetensors and config.json)"
_SAVE = (
    "take the safetensors version, or save it as one with transformers: "
    "`model.save_pretrained(folder, safe_serialization=True)`"
)
_AGAIN = "let the download finish, or begin it anew: hf download OWNER/NAME --local-dir {folder}"


class Row(NamedTuple):
    """Files with such names show what the folder is. ``message`` may name {name}, the first of them (as in Python),
    ``hint`` {file} and {folder}, quoted for a shell."""

    patterns: tuple[str, ...]
    error: type[QuantcliError]
    message: str
    hint: str


_ROWS = (
    Row(
        ("consolidated*.safetensors",),
        UnsupportedFile,
        "only `consolidated` files are here, with tensor names of the vendor's own",
        _HF_FORMAT,
    ),
    Row(
        ("model_index.json",),
        UnsupportedFile,
        "a diffusers pipeline (pictures, sound or video), not a language model",
        "quantcli converts language models; a pipeline's text encoder may be one: {folder}/text_encoder",
    ),
    Row(
        ("*.incomplete", "*.part", "*.crdownload", "*.aria2", "*.download"),
        MissingFile,
        "a download that was not finished: {name}",
        _AGAIN,
    ),
    Row(("openvino*",), UnsupportedFile, "the weights are there only as {name}, an OpenVINO export", _HF_FORMAT),
    Row(
        ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pkl"),
        PickleCheckpoint,
        "the weights are there only as {name}, a pickle: reading one runs whatever code it contains",
        _SAVE,
    ),
    Row(
        ("*.h5", "*.keras", "*.msgpack", "*.ckpt.index", "*.ckpt-*.index", "saved_model.pb"),
        UnsupportedFile,
        "the weights are there only as {name}, of TensorFlow or Flax",
        _SAVE,
    ),
    Row(("*.onnx", "*.onnx_data"), UnsupportedFile, "the weights are there only as {name}, an ONNX export", _HF_FORMAT),
    Row(
        ("*.tflite", "*.mlmodel", "*.mlpackage", "*.nemo", "*.pte", "*.engine", "*.npz"),
        UnsupportedFile,
        "the weights are there only as {name}, the format of another program",
        _HF_FORMAT,
    ),
    Row(("*.zip",), UnsupportedFile, "only an archive, {name}", "unzip {file} -d {folder}"),
    Row(("*.tar", "*.tar.*", "*.tgz"), UnsupportedFile, "only an archive, {name}", "tar -xf {file} -C {folder}"),
    Row(("*.parquet", "*.arrow", "*.jsonl"), UnsupportedFile, "a data set, not a model: {name}", _HF_FORMAT),
)


def instead_of_weights(folder: Path) -> QuantcliError | None:
    """The error for a folder whose weights are none that can be read; None where its names say nothing."""
    names = names_in(folder)
    for name in names:  # in whatever format: what was not fetched is not there
        near = places.elsewhere(folder / name) is None  # a hub gives what a pointer stands for
        if near and name.endswith((".safetensors", ".bin", ".pth", ".pt", ".gguf", ".onnx")):
            foreign.check_pointer(foreign.beginning(folder / name), folder / name)
    if any(name.startswith("adapter_") for name in names):
        return _adapter(folder)
    for row in _ROWS:
        if row.patterns[0].startswith("consolidated") or not any(name.endswith(".safetensors") for name in names):
            found = next(_matching(names, row.patterns), None)
            if found is not None:
                return _error(row, folder, found)
    return None


def instead_of_checkpoint(folder: Path) -> QuantcliError | None:
    """The same for a folder without config.json, which says more: GGUF files, or a folder above a checkpoint."""
    names = names_in(folder)
    inner = sorted(path.parent for path in folder.glob("*/config.json"))
    inner = sorted(path.parent for path in folder.glob("snapshots/*/config.json")) or inner
    inner = inner or [folder / name for name in names if places.elsewhere(folder / name / "config.json")]
    where, hint = str(folder), gguf_hint(folder)
    if any(name.endswith(".gguf") for name in names):
        return MissingFile("there is no config.json in this folder, but GGUF files", where=where, hint=hint)
    if inner and not any(name.startswith("adapter_") for name in names) and "model_index.json" not in names:
        hint = f"there is one in {inner[-1]}: give that folder"
        return MissingFile("there is no config.json in this folder", where=where, hint=hint)
    has_weights = any(
        name.endswith(".safetensors") and not name.startswith(("adapter_", "consolidated")) for name in names
    )
    return None if has_weights and "model_index.json" not in names else instead_of_weights(folder)


def gguf_hint(folder: Path) -> str | None:
    """What to do where GGUF files lie in a folder that was given; None where none do."""
    names = [name for name in names_in(folder) if name.endswith(".gguf")]
    if not names:
        return None
    return f"to convert a GGUF file, give the file itself: {folder / names[0]}"


def names_in(folder: Path) -> list[str]:
    """The names in ``folder``, sorted. Raises MissingFile."""
    try:
        return places.names(folder)
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be listed", where=str(folder)) from error


def _matching(names: Iterable[str], patterns: Sequence[str]) -> Iterator[str]:
    """The names of weights that fit one of the patterns."""
    weights = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in _NO_WEIGHTS)]
    return (name for name in weights if any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns))


def _error(row: Row, folder: Path, name: str) -> QuantcliError:
    quoted = {"file": shlex.quote(str(folder / name)), "folder": shlex.quote(str(folder))}
    return row.error(row.message.format(name=shown(name)), where=str(folder), hint=row.hint.format_map(quoted))


def _adapter(folder: Path) -> QuantcliError:
    """An adapter of the package peft: which kind, of which model, and how to put both together."""
    try:
        settings = parse(read_small(folder / "adapter_config.json", SMALL_JSON), str(folder / "adapter_config.json"))
    except MissingFile:
        settings = None
    kind = text_in(settings, "peft_type") or "LORA"
    base = text_in(settings, "base_model_name_or_path")
    merged = f"{folder}-merged"
    source = str(folder) if (folder / "tokenizer_config.json").exists() else base or "OWNER/BASE-MODEL"
    code = (
        "from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer as T; "
        f"M.from_pretrained({str(folder)!r}).merge_and_unload().save_pretrained({merged!r}); "
        f"T.from_pretrained({source!r}).save_pretrained({merged!r})"
    )
    ours = kind.upper() == "LORA" and places.exists(folder / "adapter_model.safetensors")
    given, model = shlex.quote(str(folder)), shlex.quote(suggestion(base or "") or base or "BASE")
    what = "a LoRA adapter" if kind.upper() == "LORA" else f"an adapter of kind {shown(kind)}"
    return UnsupportedFile(
        f"{what}, not a model" + (f": its base model is {shown(base)}" if base else ""),
        where=str(folder),
        hint=f"quantcli convert {given} --lora-base {model} writes an adapter for llama.cpp, "
        f"quantcli convert {model} -t Q4_K_M --merge-lora {given} a whole model"
        if ours
        else f"merge it into its base model first: python -c {_quoted(code)}; then convert {shlex.quote(merged)}",
    )


def _quoted(code: str) -> str:
    """Python as one word of a shell, readable where it can be."""
    return shlex.quote(code) if any(c in code for c in '"$`\\!') else f'"{code}"'
