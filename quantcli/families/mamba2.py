"""Mamba 2: heads of a state each that decays as one; the mixer is shared by the hybrids."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.fields import count
from quantcli.families.mamba import MAMBA
from quantcli.families.transforms import Transform, negative_exp, shaped
from quantcli.vocab import VocabHints

# Facts that a family with this mixer has: inner, state, kernel, groups, ssm_heads; these follow.
MIXER_FACTS = {
    "group_width": lambda facts: facts.quotient("inner", "groups", ("the inner size", "n_groups")),
    "conv": lambda facts: facts.size("inner+2*groups*state"),
}
MIXER_METADATA = (
    Entry("ssm.conv_kernel", "u32", "kernel"),
    Entry("ssm.inner_size", "u32", "inner"),
    Entry("ssm.state_size", "u32", "state"),
    Entry("ssm.time_step_rank", "u32", "ssm_heads"),
    Entry("ssm.group_count", "u32", "groups"),
)


def mixer(
    place: str,
    layers: str | None = None,
    *,
    scale_in: Transform | None = None,
    scale_out: Transform | None = None,
    normed: bool | str = False,
    bias: str = "optional",
) -> tuple[TensorRule, ...]:
    """The tensors of the mixer at ``place`` of a layer.

    ``normed``: whether its norm may be missing (or a fact); ``bias``: that of the convolution (``TensorRule.bias``).
    """
    source, target = f"layers.{{layer}}.{place}.", "blk.{layer}.ssm_"
    columns = shaped("ssm_heads", 1)
    return (
        TensorRule(source + "A_log", target + "a", ("ssm_heads",), columns | negative_exp(), exact=True, layers=layers),
        TensorRule(source + "D", target + "d", ("ssm_heads",), columns, exact=True, layers=layers),
        TensorRule(source + "dt_bias", target + "dt.bias", ("ssm_heads",), exact=True, layers=layers),
        TensorRule(
            source + "conv1d",
            target + "conv1d",
            ("conv", 1, "kernel"),
            shaped("conv", "kernel"),
            bias=bias,
            layers=layers,
        ),
        TensorRule(source + "in_proj", target + "in", ("inner+conv+ssm_heads", "hidden"), scale_in, layers=layers),
        TensorRule(
            source + "norm", target + "norm", ("inner",), shaped("groups", "group_width"), normed, "none", layers=layers
        ),
        TensorRule(source + "out_proj", target + "out", ("hidden", "inner"), scale_out, layers=layers),
    )


MAMBA2 = Family(
    name="mamba2",
    harmless=("num_heads",),
    gguf_arch="mamba2",
    hf_architectures=("Mamba2ForCausalLM",),
    model_types=("mamba2",),
    facts={
        "layers": decoder.LAYERS,
        "context": 2**20,
        "hidden": count("hidden_size", "d_model", "dim", most=decoder.MOST_WIDTH),
        "zero": 0,
        "vocab": decoder.VOCAB,
        "padded": count("pad_vocab_size_multiple", default=16, most=2**16),
        "tokens": lambda facts: -(-facts.vocab // facts.padded) * facts.padded,
        "eps": decoder.layer_eps(1e-5),
        "expand": count("expand", "mamba_expand", default=2, most=1024),
        "expanded": lambda facts: facts.expand * facts.hidden,
        "inner": count("mamba_d_ssm", "intermediate_size", "d_inner", default="=expanded", most=decoder.MOST_WIDTH),
        "state": count("state_size", "d_state", default=128, most=decoder.MOST_WIDTH),
        "kernel": count("conv_kernel", "d_conv", default=4, most=1024),
        "groups": count("n_groups", default=1, most=decoder.MOST_HEADS),
        "ssm_width": count("head_dim", "mamba_d_head", default=64, most=decoder.MOST_WIDTH),
        "ssm_heads": lambda facts: facts.quotient("inner", "ssm_width", ("the inner size", "head_dim")),
        **MIXER_FACTS,
    },
    metadata=(*MAMBA.metadata[:5], *decoder.RMS, *MIXER_METADATA),
    tensors=(*MAMBA.tensors[:4], *mixer("mixer", bias="required")),
    prefixes=("backbone.",),
    vocab=VocabHints("mamba2"),
)

FAMILIES = (MAMBA2,)
