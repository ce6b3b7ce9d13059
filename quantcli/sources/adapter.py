"""A folder that the package peft wrote: adapter_config.json and the tensors of a LoRA adapter.

Names: ``base_model.model.<module>.lora_A.weight`` [rank, in], ``lora_B.weight`` [out, rank]; embeddings have
``lora_embedding_A`` [rank, vocabulary] and ``lora_embedding_B`` [width, rank]. The name of the adapter may stand behind
``lora_A``. Everything else in the file are whole tensors (norms, ``modules_to_save``), or belongs to a variant (DoRA,
biases, single tokens). Source: peft 0.17, ``tuners/lora``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from quantcli import places
from quantcli.errors import BadConfig, MissingFile, MissingTensors, PickleCheckpoint, ShapeMismatch, UnsupportedFile
from quantcli.sources import safetensors
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.files import StoredTensor, shown
from quantcli.sources.jsonfile import parse_object, text_in

CONFIG, WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_ROOTS = ("base_model.model.", "base_model.")
_PART = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?!(?:weight|bias)$)[^.]+)?(?:\.(?P<kind>weight|bias))?"
)
_SAVED = re.compile(r"\.modules_to_save(?:\.(?!weight|bias)[^.]+)?(?=\.)")
_BASE = (".base_layer.weight", ".original_module.")  # ends in, holds: the base's own tensors, stored by some tools
_TOKENS = re.compile(r"(?P<module>.+?)\.(?:token_adapter\.)?trainable_tokens_delta(?:\.[^.]+)?")
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")
_LONGEST_PATTERN, _MOST_PATTERNS = 500, 10_000


@dataclass(slots=True)
class Module:
    """What an adapter holds for one matrix of its base: ``name`` is the module's there, parts by their endings."""

    name: str
    parts: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def embedding(self) -> bool:
        return "lora_embedding_A" in self.parts

    @property
    def a(self) -> StoredTensor:
        """[rank, inputs], or [rank, vocabulary] of an embedding."""
        return self.parts["lora_embedding_A" if self.embedding else "lora_A"]

    @property
    def b(self) -> StoredTensor:
        """[outputs, rank], or [width, rank] of an embedding."""
        return self.parts["lora_embedding_B" if self.embedding else "lora_B"]

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def check(self) -> None:
        """Raises MissingTensors, ShapeMismatch, UnsupportedFile."""
        first = next(iter(self.parts.values()))
        kind = "lora_embedding_" if any(part.startswith("lora_embedding_") for part in self.parts) else "lora_"
        for letter in "AB":
            if kind + letter not in self.parts:
                raise MissingTensors(
                    f"{self.name}: {kind}{letter} is missing", where=first.where, hint="get the adapter again"
                )
        if len(self.a.shape) != 2 or len(self.b.shape) != 2:
            raise UnsupportedFile(
                f"{self.name} is no matrix: factors of the shapes {list(self.a.shape)} and {list(self.b.shape)}",
                where=self.a.where,
                hint="quantcli knows adapters of linear layers and embeddings",
            )
        if self.a.shape[0] != self.b.shape[1]:
            raise ShapeMismatch(
                f"{self.name}: the factors {list(self.a.shape)} and {list(self.b.shape)} have different ranks",
                where=self.a.where,
                hint="get the adapter again",
            )


class Adapter(Checkpoint):
    """The adapter in ``folder``. ``modules`` by name, ``whole`` tensors by the names that they have in the base,
    ``tokens`` (rows of embeddings that replace those of the base) by module."""

    def __init__(self, folder: Path) -> None:
        """Reads the settings; `sorted` the rest. Raises MissingFile, BadConfig, UnsupportedFile, MalformedFile."""
        super().__init__(folder)
        self._weights = self.folder / WEIGHTS
        self.settings = self._settings()
        self.modules: dict[str, Module] = {}
        self.whole: dict[str, StoredTensor] = {}
        self.tokens: dict[str, StoredTensor] = {}
        if self.settings.initialisation.lower().startswith(_CHANGE_THE_BASE):
            self.notes.append(
                f"the adapter was initialised with {self.settings.initialisation}, which changes the base's weights: "
                "it fits a base that was saved after that"
            )

    def sorted(self) -> Adapter:
        """Opens the tensors and gives every one its place; the adapter itself."""
        self._sort()
        for module in self.modules.values():
            module.check()
        return self

    @cached_property
    def config(self) -> dict[str, object]:
        """adapter_config.json."""
        raw = self.bytes(CONFIG)
        if raw is None:
            raise MissingFile(f"there is no {CONFIG} in this folder", where=str(self.folder), hint=_what(self.folder))
        return parse_object(raw, str(self.folder / CONFIG))

    def _open(self) -> list[safetensors.SafetensorsFile]:
        if self._opened is None:
            if not places.is_file(self._weights) and places.is_file(self.folder / _PICKLE):
                raise PickleCheckpoint(
                    "a pickle: reading one runs whatever code it contains",
                    where=str(self.folder / _PICKLE),
                    hint="save the adapter as safetensors: the package peft does so by default",
                )
            self._opened = [safetensors.SafetensorsFile.open(self._weights)]
        return self._opened

    @property
    def files(self) -> list[str]:
        """Absolute paths of the files that are read."""
        return [str(self.folder / CONFIG), str(self._weights)]

    def _settings(self) -> Settings:
        kind = (text_in(self.config, "peft_type") or "LORA").upper()
        where = str(self.folder / CONFIG)
        if kind != "LORA":
            raise UnsupportedFile(
                f"an adapter of kind {shown(kind)}", where=where, hint="quantcli knows adapters of kind LORA"
            )
        try:
            return Settings(self.config)
        except BadConfig as error:
            error.where = where
            raise

    def _sort(self) -> None:
        """Give every tensor its place. Raises UnsupportedFile for names of no known meaning."""
        for stored, tensor in self.tensors.items():
            root = next((root for root in _ROOTS if stored.startswith(root)), "")
            name = stored.removeprefix(root)
            if name.endswith(_BASE[0]) or _BASE[1] in name:
                continue
            match = _PART.fullmatch(name)
            if match:
                module = self.modules.setdefault(match["module"], Module(match["module"]))
                module.parts[match["part"] + (".bias" if match["kind"] == "bias" else "")] = tensor
            elif tokens := _TOKENS.fullmatch(name):
                self.tokens[tokens["module"]] = tensor
            else:
                self.whole[_SAVED.sub("", name)] = tensor
        for name in self.modules:
            if name.endswith(".base_layer") or re.search(r"\.experts$", name):
                raise UnsupportedFile(
                    f"{name}: an adapter of a parameter, not of a module (target_parameters)",
                    where=str(self._weights),
                    hint="merge it with the package peft first",
                )

    def token_indices(self, module: str) -> Sequence[int]:
        """The rows that single trained tokens replace in the embedding ``module``. Raises BadConfig."""
        try:
            return self.settings.token_indices(module)
        except BadConfig as error:
            error.where = str(self.folder / CONFIG)
            raise

    def scale(self, module: Module) -> float:
        """What the product of the factors is multiplied by: alpha over the rank (its root with rslora)."""
        settings = self.settings
        return settings.alpha_of(module.name) / (math.sqrt(module.rank) if settings.rank_stabilized else module.rank)


class Settings:
    """adapter_config.json as far as it matters, checked. Raises BadConfig."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = config
        self.alpha = self._number("lora_alpha", config.get("lora_alpha", 8))
        self.rank_stabilized = self._flag("use_rslora")
        self.dora = self._flag("use_dora")
        self.transposed = self._flag("fan_in_fan_out")
        patterns = config.get("alpha_pattern") or {}
        if not isinstance(patterns, Mapping) or len(patterns) > _MOST_PATTERNS:
            raise _bad("alpha_pattern", "is no object")
        self._patterns = [(self._pattern(text), self._number("alpha_pattern", x)) for text, x in patterns.items()]
        if config.get("layer_replication"):
            raise _bad("layer_replication", "is set: the adapter's model has layers that its base lacks")
        self.initialisation = text_in(config, "init_lora_weights") or ""
        self.invocation = self._integers("alora_invocation_tokens")

    @property
    def has_alpha_patterns(self) -> bool:
        return bool(self._patterns)

    def alpha_of(self, module: str) -> float:
        return next((alpha for pattern, alpha in self._patterns if pattern.fullmatch(module)), self.alpha)

    def token_indices(self, module: str) -> Sequence[int]:
        """See `Adapter.token_indices`."""
        given = self._config.get("trainable_token_indices")
        if isinstance(given, Mapping):
            given = next((rows for name, rows in given.items() if f".{module}".endswith(f".{name}")), None)
        if not isinstance(given, list) or not all(type(row) is int and row >= 0 for row in given):
            raise _bad("trainable_token_indices", f"does not list the tokens of {module}")
        return given

    def _number(self, name: str, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e30:
            raise _bad(name, f"is {shown(str(value))}, no finite number")
        return float(value)

    def _flag(self, name: str) -> bool:
        value = self._config.get(name) or False
        if not isinstance(value, bool):
            raise _bad(name, f"is {shown(str(value))}; true or false is expected")
        return value

    def _pattern(self, text: str) -> re.Pattern[str]:
        """A pattern of module names, as peft matches it: behind any dot."""
        try:
            if len(text) > _LONGEST_PATTERN:
                raise ValueError("too long")
            return re.compile(rf"(?:.*\.)?(?:{text})")
        except (re.error, ValueError) as error:
            raise _bad("alpha_pattern", f"has {shown(text)}, no usable pattern: {error}") from error

    def _integers(self, name: str) -> list[int]:
        value = self._config.get(name) or []
        if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 2**31 for item in value):
            raise _bad(name, "is no list of token ids")
        return value


def _bad(name: str, problem: str) -> BadConfig:
    return BadConfig(f"{name} {problem}", hint="the adapter's settings are damaged, or of a kind that quantcli lacks")


def _what(folder: Path) -> str:
    if (folder / "config.json").is_file():
        return "that is a model; an adapter's folder holds adapter_config.json and adapter_model.safetensors"
    return f"an adapter's folder holds {CONFIG} and {WEIGHTS}"
