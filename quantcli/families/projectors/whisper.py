"""Whisper's encoder before a language model: two convolutions over the mel spectrum, then layers of a transformer."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector
from quantcli.families.transforms import shaped

LAYER, BLOCK = "layers.{layer}.", "a.blk.{layer}."
COLUMN = shaped("width", 1)  # a bias that is added along the time

ENCODER = (
    TensorRule("conv1.weight", "a.conv1d.1.weight", ("width", "mels", 3), exact=True, type="F16"),
    TensorRule("conv1.bias", "a.conv1d.1.bias", tower.WIDTH, COLUMN, exact=True),
    TensorRule("conv2.weight", "a.conv1d.2.weight", ("width", "width", 3), exact=True, type="F16"),
    TensorRule("conv2.bias", "a.conv1d.2.bias", tower.WIDTH, COLUMN, exact=True),
    TensorRule("embed_positions", "a.position_embd", ("positions", "width"), bias="none"),
    TensorRule("layer_norm", "a.post_ln", tower.WIDTH),
    TensorRule(LAYER + "self_attn_layer_norm", BLOCK + "ln1", tower.WIDTH),
    TensorRule(LAYER + "final_layer_norm", BLOCK + "ln2", tower.WIDTH),
    *tower.attention(LAYER + "self_attn.", BLOCK, "out_proj"),
    TensorRule(LAYER + "fc1", BLOCK + "ffn_up", ("ff", "width")),
    TensorRule(LAYER + "fc2", BLOCK + "ffn_down", ("width", "ff")),
)

QWEN2_AUDIO = Projector(
    name="qwen2-audio-encoder",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("Qwen2AudioForConditionalGeneration",),
    model_types=("qwen2_audio",),
    facts={**tower.SOUND_FACTS, "projector": "qwen2a"},
    metadata=tower.SOUND,
    tensors=(*ENCODER, TensorRule("multi_modal_projector.linear", "mm.a.fc", ("text_width", "width"))),
    vocab=VOCAB,
    settings="audio_config",
    prefixes=("audio_tower.",),
    parts=("audio_tower.", "multi_modal_projector."),
)

VOXTRAL = QWEN2_AUDIO.derive(
    "voxtral-encoder",
    hf_architectures=("VoxtralForConditionalGeneration",),
    model_types=("voxtral",),
    facts={"projector": "voxtral", "stacked": 4},  # vectors that are joined before the projection
    metadata=(*tower.SOUND, Entry("audio.projector.stack_factor", "u32", "stacked")),
    tensors=(
        *ENCODER,
        TensorRule("multi_modal_projector.linear_1", "mm.a.mlp.1", ("text_width", "ff")),
        TensorRule("multi_modal_projector.linear_2", "mm.a.mlp.2", ("text_width", "text_width")),
    ),
)

AUDIO_FLAMINGO = QWEN2_AUDIO.derive(
    "audio-flamingo3-encoder",
    hf_architectures=("AudioFlamingo3ForConditionalGeneration",),
    model_types=("audioflamingo3",),
    facts={"projector": "musicflamingo"},
    tensors=(
        *(replace(rule, type=rule.type and "F32") for rule in ENCODER),  # trained in BF16: F16 might not hold it
        TensorRule("multi_modal_projector.linear_1", "mm.a.mlp.1", ("text_width", "width")),
        TensorRule("multi_modal_projector.linear_2", "mm.a.mlp.2", ("text_width", "text_width")),
    ),
)

PROJECTORS = (QWEN2_AUDIO, VOXTRAL, AUDIO_FLAMINGO)
