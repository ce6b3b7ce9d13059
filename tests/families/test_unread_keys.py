"""What config.json says and the family does not read: passed over, told, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import oracles
from helpers.checkpoints import changed
from quantcli import families
from quantcli.errors import UnsupportedConfig
from quantcli.families.config import Config
from quantcli.families.unread import CHANGING
from quantcli.sources.checkpoint import Checkpoint


def test_config_remembers_what_was_asked_at_any_depth() -> None:
    config = Config({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": {"g": 4}})
    assert config.get("b")["d"]["e"] == 3 and "a" in config and config.get("nothing") is None  # type: ignore[index]
    assert list(config.unread()) == [("b.c", 2), ("f", {"g": 4})]


@pytest.mark.parametrize("name", oracles.names("*"))
def test_published_keys_are_known(name: str) -> None:
    model = families.load_checkpoint(Checkpoint(oracles.folder(name)))
    assert not [note for note in model.notes if "config.json" in note]


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    config = {
        "new_trick": 3,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0, "bend": 1},
        "attention_dropout": 0.5,
    }
    notes = families.load_checkpoint(changed("llama-quirks", tmp_path, config)).notes
    (note,) = [note for note in notes if "config.json" in note]
    assert note.endswith(": new_trick, rope_scaling.bend")


#: on a Llama: key, a value that says what its absence would, one that changes the computation
ON_LLAMA: list[tuple[str, Any, Any]] = [
    ("hidden_act", "silu", "gelu"),
    ("hidden_act", "swish", "relu"),
    ("activation_function", None, "relu2"),
    ("logit_scale", 1.0, 0.5),
    ("logits_scaling", 1, 6.0),
    ("embedding_multiplier", 1.0, 12.0),
    ("residual_multiplier", None, 0.2),
    ("attention_multiplier", 1, 0.01),
    ("attn_logit_softcapping", None, 50.0),
    ("final_logit_softcapping", 0, 30.0),
    ("clip_qkv", None, 8.0),
    ("query_pre_attn_scalar", 16, 24),
    ("alibi", False, True),
    ("partial_rotary_factor", 1.0, 0.5),
    ("no_rope_layers", [1, 1], [1, 0]),
    ("layer_types", ["full_attention", "full_attention"], ["linear_attention", "full_attention"]),
    ("layer_rope_theta", None, [1.0, 2.0]),
    ("attention_chunk_size", None, 8192),
    ("use_bidirectional_attention", False, True),
    ("add_cross_attention", False, True),
    ("position_embedding_type", "rope", "relative_key"),
    ("norm_topk_prob", True, False),
]


@pytest.mark.parametrize(("key", "plain", "other"), ON_LLAMA, ids=[f"{key} {other}" for key, _, other in ON_LLAMA])
def test_keys_that_change_the_computation(key: str, plain: Any, other: Any, tmp_path: Path) -> None:
    passed = families.load_checkpoint(changed("llama-quirks", tmp_path / "a", {key: plain}))
    assert not [note for note in passed.notes if key in note]
    with pytest.raises(UnsupportedConfig, match=f"{key} is") as caught:
        families.load_checkpoint(changed("llama-quirks", tmp_path / "b", {key: other}))
    assert caught.value.where.endswith("config.json") and "llama" in caught.value.hint


def test_a_key_that_the_family_reads_changes_nothing_unseen(tmp_path: Path) -> None:
    """The same keys, where they have a place in the file."""
    families.load_checkpoint(changed("granite", tmp_path / "a", {"logits_scaling": 3.0}))
    families.load_checkpoint(changed("gemma2", tmp_path / "b", {"final_logit_softcapping": 20.0}))


def test_every_key_of_the_table_is_known_by_one_name() -> None:
    keys = [change.key for change in CHANGING]
    assert len(set(keys)) == len(keys)


def test_windows_that_llama_cpp_lacks_are_told(tmp_path: Path) -> None:
    config = {"architectures": ["MistralForCausalLM"], "sliding_window": 16, "num_key_value_heads": 4}
    notes = families.load_checkpoint(changed("llama-quirks", tmp_path, config)).notes
    assert [note for note in notes if note.startswith("layers see 16 positions; llama.cpp has no windows")]


def test_what_an_unknown_class_is_taken_for(tmp_path: Path) -> None:
    config = {"architectures": ["LlammaForCausalLM"], "rope_theta": None, "model_type": "llamma"}
    checkpoint = changed("llama-quirks", tmp_path, config)
    notes = families.load_checkpoint(checkpoint, architecture="llama").notes
    (note,) = [note for note in notes if "LlammaForCausalLM is read as llama" in note]
    assert "rope_theta = 10000.0" in note and "neighbours rotate" in note and "silu" in note
    known = families.load_checkpoint(Checkpoint(oracles.folder("llama-quirks")), architecture="llama").notes
    assert not [note for note in known if "is read as" in note]


def test_what_llama_cpp_computes_otherwise_is_told(tmp_path: Path) -> None:
    told = "llama.cpp uses the windows of EXAONE 4 in models of 64 layers only"
    assert told in families.load_checkpoint(changed("exaone4", tmp_path / "a", {})).notes
