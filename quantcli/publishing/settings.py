"""release.toml: what a release is made from and where it goes. Every key is known and has a kind."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantcli.errors import MissingFile, UsageError
from quantcli.plan import recipes

LIMIT = 1 << 20  # bytes of a release.toml
#: `types = "auto"`: from nearly lossless to the smallest that are of use; the second list needs importance
AUTOMATIC = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M")
AUTOMATIC_WITH_IMPORTANCE = (*AUTOMATIC, "IQ4_XS", "IQ3_M", "IQ2_M")
NAMES = ("default", "convention")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Texts that files are measured on: chunks of ``context`` tokens, at most ``chunks``."""

    texts: tuple[Path, ...] = ()
    chunks: int | None = None
    context: int = 512


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Where to: a repository of the hub."""

    repository: str
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A release. Paths are relative to the folder of the file that names them."""

    path: Path
    source: str
    output: Path
    types: tuple[str, ...]
    imatrix: str | Path | None = None  # "auto", a file, or None
    imatrix_text: Path | None = None  # in place of the bundled text
    imatrix_chunks: int | None = None
    convert: Mapping[str, Any] = field(default_factory=dict)  # further options of convert, as they are typed
    names: str = "default"
    checksums: bool = True
    evaluation: Evaluation = field(default_factory=Evaluation)
    card: bool = True
    card_fields: Mapping[str, Any] = field(default_factory=dict)
    modelfile: bool = False
    attest: bool = False
    sign: str | None = None
    upload: Upload | None = None

    @property
    def with_importance(self) -> bool:
        return self.imatrix is not None


_KINDS: dict[type, str] = {
    str: "a text",
    int: "a number",
    bool: "true or false",
    list: "a list of texts",
    dict: "a table",
}
#: key -> kinds of its value; a table's keys below it
_KEYS: dict[str, tuple[type, ...]] = {
    "source": (str,),
    "output": (str,),
    "types": (list, str),
    "names": (str,),
    "checksums": (bool,),
    "modelfile": (bool,),
    "imatrix": (str, dict),
    "imatrix.text": (str,),
    "imatrix.chunks": (int,),
    "convert": (dict,),
    "evaluate": (dict,),
    "evaluate.texts": (list,),
    "evaluate.chunks": (int,),
    "evaluate.context": (int,),
    "card": (bool, dict),
    "attest": (bool, dict),
    "attest.sign": (str,),
    "upload": (dict,),
    "upload.repository": (str,),
    "upload.private": (bool,),
}
_FREE = ("convert", "card")  # tables whose keys are checked where they are used
#: options of convert that the release itself decides
_OWN = (
    "types",
    "source",
    "output",
    "imatrix",
    "dry_run",
    "force",
    "checksums",
    "resume",
    "mmproj_only",
    "lora_base",
    "part",
    "skip_existing",
    "names",
)


def read(path: Path) -> Settings:
    """The release that the file describes. Raises MissingFile, UsageError naming the key."""
    try:
        raw = path.read_bytes()[: LIMIT + 1]
    except OSError as error:
        raise MissingFile(
            error.strerror or "cannot be read", where=str(path), hint="begin with examples/release.toml"
        ) from error
    if len(raw) > LIMIT:
        raise UsageError("too large for a release.toml", where=str(path))
    try:
        given = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"no TOML: {error}", where=str(path), hint="examples/release.toml shows the format") from error
    _check(given, path)
    return _settings(given, path)


def _check(given: Mapping[str, Any], path: Path, prefix: str = "") -> None:
    for key, value in given.items():
        name = prefix + key
        kinds = _KEYS.get(name)
        if kinds is None:
            below = [one.removeprefix(prefix) for one in _KEYS if one.startswith(prefix)]
            known = [one for one in below if "." not in one]
            raise UsageError(f"there is no key {name!r}", where=str(path), hint=f"known here: {', '.join(known)}")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(_KINDS[kind] for kind in kinds)
            raise UsageError(f"{name} is {wanted}, not {value!r}"[:300], where=str(path))
        if isinstance(value, list) and not all(isinstance(one, str) for one in value):
            raise UsageError(f"{name} is a list of texts", where=str(path))
        if isinstance(value, dict) and name not in _FREE:
            _check(value, path, f"{name}.")


def _settings(given: Mapping[str, Any], path: Path) -> Settings:
    folder = path.parent
    for key in ("source", "types"):
        if not given.get(key):
            raise UsageError(
                f"{key} is missing", where=str(path), hint='source = "DIR" and types = ["Q4_K_M"] are needed'
            )
    imatrix, text, chunks = given.get("imatrix"), None, None
    if isinstance(imatrix, dict):
        text, chunks = imatrix.get("text"), imatrix.get("chunks")
        imatrix = "auto"
    evaluate, card, attest = given.get("evaluate", {}), given.get("card", True), given.get("attest", False)
    upload = given.get("upload")
    if upload is not None and "/" not in upload.get("repository", ""):
        raise UsageError("upload.repository is OWNER/NAME", where=str(path), hint='repository = "me/model-GGUF"')
    names = given.get("names", "default")
    if names not in NAMES:
        raise UsageError(f"there are no names {names!r}", where=str(path), hint=f"known: {', '.join(NAMES)}")
    return Settings(
        path=path,
        source=_source(given["source"], folder),
        output=folder / given.get("output", "out"),
        types=_types(given["types"], imatrix is not None, path),
        imatrix=imatrix if imatrix in (None, "auto") else folder / imatrix,
        imatrix_text=None if text is None else folder / text,
        imatrix_chunks=chunks,
        convert=_convert(given.get("convert", {}), path),
        names=names,
        checksums=given.get("checksums", True),
        evaluation=Evaluation(
            texts=tuple(folder / one for one in evaluate.get("texts", ())),
            chunks=evaluate.get("chunks"),
            context=evaluate.get("context", 512),
        ),
        card=card is not False,
        card_fields=card if isinstance(card, dict) else {},
        modelfile=given.get("modelfile", False),
        attest=attest is not False,
        sign=attest.get("sign") if isinstance(attest, dict) else None,
        upload=None if upload is None else Upload(**upload),
    )


def _source(text: str, folder: Path) -> str:
    """A path relative to the file; what names the hub stays as it is."""
    return text if text.startswith(("hf://", "hf:")) else str(folder / text)


def _types(given: str | list[str], importance: bool, path: Path) -> tuple[str, ...]:
    if given == "auto":
        return AUTOMATIC_WITH_IMPORTANCE if importance else AUTOMATIC
    names = [given] if isinstance(given, str) else given
    try:
        return tuple(dict.fromkeys(recipes.parse(name).name for name in names))
    except UsageError as error:
        error.where = f"{path}: types"
        raise


def _convert(given: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    for name in given:
        if name in _OWN:
            raise UsageError(f"convert.{name} is what the release decides itself", where=str(path), hint="leave it out")
    return given
