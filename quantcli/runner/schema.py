"""The type and the bounds of every number that a graph reads from metadata, and the only way to read one.

A file may say anything: what is not of its key's type, or outside its bounds, is an error that names the key, before
anything is computed or allocated from it. Bounds are wide: they keep results finite, not sensible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal, TypeAlias, TypeGuard

import numpy
from numpy.typing import NDArray

from quantcli.container import Value
from quantcli.errors import BadConfig, UnsupportedGraph

AnyArray: TypeAlias = NDArray[numpy.generic]
Kind = Literal["whole", "real", "flag", "text", "pattern"]
MISSING_KIND = "{what}: not in this runner; convert, inspect and verify take the model"
MOST_LAYERS = 1 << 16
MOST_SIZE = (1 << 31) - 1  # of a count or width: products of three stay below 2^93, which Python's integers hold
LARGE = 1e6


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: the kind of its value, and for numbers the bounds, which belong to what is allowed.

    ``off``: one more number, which says that the key is not used. ``each_layer``: instead of one number the file may
    hold one for every layer (an array of as many). A "pattern" is a whole number, its arrays may hold flags.
    """

    kind: Kind
    least: float = 0
    most: float = MOST_SIZE
    off: float | None = None
    each_layer: bool = False


_WIDTH, _COUNT, _KERNEL = Setting("whole", 1), Setting("whole", 0), Setting("whole", 2, 1 << 12)
_FACTOR, _SIGNED = Setting("real", 0, LARGE), Setting("real", -LARGE, LARGE)
_DIVISOR = Setting("real", 1 / LARGE, LARGE, off=0)
_TURNS = Setting("real", 1 / LARGE, LARGE)
_BASE = Setting("real", 1, 1e30)

SETTINGS: Mapping[str, Setting] = {
    "block_count": Setting("whole", 1, MOST_LAYERS),
    "context_length": _WIDTH,
    "embedding_length": _WIDTH,
    "attention.head_count": Setting("whole", 0, each_layer=True),
    "attention.head_count_kv": Setting("whole", 0, each_layer=True),
    "attention.key_length": _WIDTH,
    "attention.value_length": _WIDTH,
    "attention.layer_norm_rms_epsilon": _FACTOR,
    "attention.layer_norm_epsilon": _FACTOR,
    "attention.scale": _DIVISOR,
    "attention.clamp_kqv": _FACTOR,
    "attention.max_alibi_bias": _FACTOR,
    "attention.sliding_window": _COUNT,
    "attention.sliding_window_pattern": Setting("pattern", each_layer=True),
    "attention.rope_pattern": Setting("pattern", each_layer=True),
    "attention.recurrent_layers": Setting("pattern", each_layer=True),
    "feed_forward_length": Setting("whole", 0, each_layer=True),
    "full_attention_interval": _WIDTH,
    "nextn_predict_layers": Setting("whole", 0, MOST_LAYERS),
    "rope.scaling.finetuned": Setting("flag"),
    "ssm.conv_kernel": _KERNEL,
    "ssm.inner_size": _WIDTH,
    "ssm.state_size": _WIDTH,
    "ssm.time_step_rank": _WIDTH,
    "ssm.group_count": _COUNT,
    "ssm.dt_b_c_rms": Setting("flag"),
    "shortconv.l_cache": _KERNEL,
    "kda.head_dim": _WIDTH,
    "wkv.head_size": _WIDTH,
    "rescale_every_n_layers": _COUNT,
    "time_mix_extra_dim": _WIDTH,
    "time_decay_extra_dim": _WIDTH,
    "attention.decay_lora_rank": _WIDTH,
    "attention.iclr_lora_rank": _WIDTH,
    "attention.value_residual_mix_lora_rank": _WIDTH,
    "attention.gate_lora_rank": _WIDTH,
    "hidden_activation": Setting("text"),
    "attention.key_length_swa": _WIDTH,
    "attention.value_length_swa": _WIDTH,
    "attention.shared_kv_layers": _COUNT,
    "attention.value_scale": _SIGNED,
    "attention.output_scale": _DIVISOR,
    "attention.temperature_length": _COUNT,
    "attention.q_lora_rank": _COUNT,
    "attention.kv_lora_rank": _WIDTH,
    "attention.key_length_mla": _WIDTH,
    "attention.value_length_mla": _WIDTH,
    "attention.indexer.head_count": _WIDTH,
    "attention.indexer.key_length": _WIDTH,
    "attention.indexer.top_k": _WIDTH,
    "attention.indexer.types": Setting("pattern", each_layer=True),
    "embedding_length_per_layer_input": _COUNT,
    "activation_sparsity_scale": Setting("real", -LARGE, LARGE, off=-inf, each_layer=True),
    "swiglu_clamp_exp": Setting("real", 0, LARGE, each_layer=True),
    "swiglu_clamp_shexp": Setting("real", 0, LARGE, each_layer=True),
    "altup.num_inputs": _WIDTH,
    "altup.active_idx": Setting("whole", 0, 3),
    "vocab_size": _COUNT,
    "leading_dense_block_count": _COUNT,
    "rope.dimension_count": Setting("whole", 2, off=0),
    "rope.dimension_count_swa": Setting("whole", 2),
    "attention.relative_buckets_count": Setting("whole", 4, 1 << 16),
    "decoder_block_count": Setting("whole", 0, MOST_LAYERS),
    "decoder_start_token_id": _COUNT,
    "rope.freq_base": _BASE,
    "rope.freq_base_swa": _BASE,
    "rope.scaling.type": Setting("text"),
    "rope.scaling.factor": _DIVISOR,
    "rope.scaling.attn_factor": _FACTOR,
    "rope.scaling.original_context_length": _COUNT,
    "rope.scaling.yarn_ext_factor": _FACTOR,
    "rope.scaling.yarn_attn_factor": _FACTOR,
    "rope.scaling.yarn_beta_fast": _TURNS,
    "rope.scaling.yarn_beta_slow": _TURNS,
    "rope.scaling.yarn_log_multiplier": _SIGNED,
    "attention.causal": Setting("flag"),
    "attention.temperature_scale": _FACTOR,
    "pooling_type": _COUNT,
    "classifier.pooling_type": _COUNT,
    "expert_count": _COUNT,
    "expert_used_count": _COUNT,
    "expert_group_count": _COUNT,
    "expert_group_used_count": _COUNT,
    "expert_gating_func": _COUNT,
    "expert_weights_norm": Setting("flag"),
    "expert_weights_scale": _SIGNED,
    "embedding_scale": _SIGNED,
    "residual_scale": _SIGNED,
    "logit_scale": _SIGNED,
    "attn_logit_softcapping": _DIVISOR,
    "final_logit_softcapping": _DIVISOR,
    "use_parallel_residual": Setting("flag"),
}

WORDS = {"whole": "a whole number", "real": "a finite number", "flag": "true or false", "text": "a text",
         "pattern": "a whole number"}  # fmt: skip


class Reader:
    """The entries below ``<architecture>.``, as their keys' settings say. Every method raises BadConfig."""

    def __init__(self, architecture: str, metadata: Mapping[str, Value]) -> None:
        prefix = f"{architecture}."
        self.architecture = architecture
        self.entries: dict[str, object] = {
            key.removeprefix(prefix): value.data for key, value in metadata.items() if key.startswith(prefix)
        }

    def check(self) -> None:
        """All entries, also those that this graph passes over."""
        for key in self.entries.keys() & SETTINGS.keys():
            self.value(key, None)

    def check_arrays(self) -> None:
        """No array where one value belongs, also below keys that another architecture reads."""
        for key in self.entries.keys() & SETTINGS.keys():
            if _is_array(self.entries[key]) and not SETTINGS[key].each_layer:
                self.value(key, None)

    def value(self, key: str, default: object) -> object:
        """The checked value, a list where the file holds one for every layer; ``default`` where it has no such key."""
        value = self.entries.get(key)
        if value is None:
            return default
        if _is_array(value):
            return self._array(key, value)
        self._check(key, SETTINGS[key], value)
        return value

    def _array(self, key: str, value: Sequence[object] | AnyArray) -> list[object]:
        setting = SETTINGS[key]
        layers = self.whole("block_count") if setting.each_layer else 0
        run = layers - self.whole("nextn_predict_layers", 0) if setting.each_layer else 0
        if not setting.each_layer:
            raise self.bad(key, f"is an array of {len(value)}, it has to be {WORDS[setting.kind]}")
        if len(value) not in (layers, run):
            raise self.bad(key, f"is an array of {len(value)}, the model has {layers} layers")
        found: list[object] = value.tolist() if isinstance(value, numpy.ndarray) else list(value)
        for one in found:
            if setting.kind != "pattern" or not isinstance(one, bool):
                self._check(key, setting, one)
        return found

    def _check(self, key: str, setting: Setting, value: object) -> None:
        if setting.off is not None and type(value) in (int, float) and value == setting.off:
            return
        if not _fits(setting.kind, value):
            raise self.bad(key, f"is {_shown(value)}, it has to be {WORDS[setting.kind]}")
        if isinstance(value, (int, float)) and not setting.least <= value <= setting.most:
            raise self.bad(key, f"is {_shown(value)}, it has to lie from {setting.least:g} to {setting.most:g}")

    # ---- by kind

    def number(self, key: str, default: float | None = None) -> float:
        """One number, also where the file holds as many equal ones as layers. Raises UnsupportedGraph too."""
        value = self.value(key, default)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise self.unsupported(key, "differs between layers", "layers of different kinds")
            value = value[0]
        if not isinstance(value, (int, float)):
            raise self.bad(key, "is missing")
        return value

    def each(self, key: str, layers: int, default: list[int] | None = None) -> list[int]:
        """One whole number for every layer; all the same where the file holds one."""
        value = self.value(key, default)
        if value is None:
            raise self.bad(key, "is missing")
        numbers = value if isinstance(value, list) else [value] * layers
        return [number for number in numbers if isinstance(number, int)][:layers]

    def whole(self, key: str, default: int | None = None) -> int:
        return int(self.number(key, default))

    def real(self, key: str, default: float | None = None) -> float:
        return float(self.number(key, default))

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.value(key, default))

    def text(self, key: str, default: str) -> str:
        return str(self.value(key, default))

    def reals(self, key: str, value: Value | None, count: int) -> list[float]:
        """``count`` finite numbers of an entry whose key the architecture's name does not precede."""
        data = value.data if value is not None else None
        numbers: list[object] = list(data) if _is_array(data) else []
        found = [float(one) for one in numbers if isinstance(one, (int, float, numpy.floating)) and isfinite(one)]
        if len(found) != count or len(numbers) != count or any(abs(one) > LARGE for one in found):
            problem = f"{key} is no array of {count} finite numbers"
            raise BadConfig(problem, where=key, hint="the file does not describe its model: get it again")
        return found

    # ---- errors

    def bad(self, key: str, problem: str) -> BadConfig:
        where = f"{self.architecture}.{key}"
        return BadConfig(f"{key} {problem}", where=where, hint="the file does not describe its model: get it again")

    def unsupported(self, key: str, problem: str, what: str) -> UnsupportedGraph:
        where = f"{self.architecture}.{key}"
        return UnsupportedGraph(f"{key} {problem}", where=where, hint=MISSING_KIND.format(what=what))


def _is_array(value: object) -> TypeGuard[Sequence[object] | AnyArray]:
    return isinstance(value, (numpy.ndarray, Sequence)) and not isinstance(value, (str, bytes))


def _fits(kind: Kind, value: object) -> bool:
    """Whether the value is of the kind; a whole number may stand where any number does."""
    if kind == "text" or kind == "flag":
        return isinstance(value, str if kind == "text" else bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (kind == "real" and isinstance(value, float) and isfinite(value))


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:60] + "..."
