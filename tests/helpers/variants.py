"""One checkpoint as people have it: the same weights in other wrappers, layouts and names.

A ``Content`` is a bundled checkpoint in memory. The functions give the same model in another form, or None where the
form does not exist for it. ``write`` puts one into a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy

from helpers import oracles
from helpers.checkpoints import encode_tensors, read_file, stored
from quantcli import families
from quantcli.model import ModelTensor
from quantcli.sources.checkpoint import Checkpoint

Tensors = dict[str, tuple[str, list[int], bytes]]  # name -> dtype, shape, bytes
#: what stands before the layers in the class that llama.cpp's converter knows
OWN_PREFIXES = ("model.", "transformer.", "gpt_neox.", "backbone.", "bert.")
PREFIXES = ("", "model.", "language_model.", "model.language_model.", "language_model.model.")
HEADS = ("lm_head", "embed_out")
NOT_WRITTEN = ("expected.json", "tokens.json", "logits.npz")
ENDINGS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "Model")
EMBEDDINGS = (
    "embed_tokens.weight",
    "embeddings.weight",
    "wte.weight",
    "shared.weight",
    "word_embeddings.weight",
    "embed_in.weight",
)


@dataclass(frozen=True)
class Content:
    """A checkpoint: ``small`` are its other files."""

    name: str
    config: dict[str, Any]
    tensors: Tensors
    small: dict[str, bytes]

    def renamed(self, change: Callable[[str], str]) -> Content:
        return replace(self, tensors={change(name): row for name, row in self.tensors.items()})

    def configured(self, **fields: Any) -> Content:
        """Fields of config.json replaced; None takes one away."""
        merged = self.config | fields
        return replace(self, config={key: value for key, value in merged.items() if value is not None})

    def file(self, name: str, value: object) -> Content:
        """With a small file: text, bytes, or anything that becomes JSON."""
        raw = value.encode() if isinstance(value, str) else value
        return replace(self, small=self.small | {name: raw if isinstance(raw, bytes) else json.dumps(raw).encode()})

    def without(self, *names: str) -> Content:
        return replace(self, small={key: raw for key, raw in self.small.items() if key not in names})

    def json(self, name: str) -> dict[str, Any]:
        return json.loads(self.small[name]) if name in self.small else {}

    @property
    def embeddings(self) -> str:
        """Name of the tensor that a tied head repeats."""
        return next(name for name in self.tensors if name.endswith(EMBEDDINGS))

    @property
    def head(self) -> str | None:
        return next((name for name in self.tensors if name.startswith(HEADS) and name.endswith(".weight")), None)


@cache
def content(name: str) -> Content:
    """The bundled checkpoint ``name``, its shards in one."""
    folder = oracles.folder(name)
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_file(path)
    small = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".safetensors" and not path.name.endswith((*NOT_WRITTEN, ".index.json"))
    }
    config = json.loads(small.pop("config.json"))
    return Content(name, {key: value for key, value in config.items() if value is not None}, tensors, small)


def write(one: Content, folder: Path, files: Mapping[str, Tensors] | None = None) -> Path:
    """Write a checkpoint to ``folder``; ``files`` are its tensors by file, one file if not given."""
    small = one.small | {"config.json": json.dumps(one.config).encode()}
    weights = {name: encode_tensors(rows) for name, rows in (files or {"model.safetensors": one.tensors}).items()}
    for name, raw in (small | weights).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return folder


# ---- wrappers, classes, prefixes ---------------------------------------------------------------------------------


def bare(name: str) -> str:
    """A tensor's name without the prefix of its class."""
    return next((name.removeprefix(prefix) for prefix in OWN_PREFIXES if name.startswith(prefix)), name)


def prefixed(one: Content, prefix: str) -> Content:
    """Layers behind ``prefix``; the head stands where wrappers of this kind have it."""
    before_head = "language_model." if prefix.startswith("language_model.") else ""

    def change(name: str) -> str:
        head = name.startswith(HEADS) or name.startswith("cls.")
        return (before_head if head else prefix) + bare(name)

    return one.renamed(change)


def nested(one: Content) -> Content:
    """The language model's settings in ``text_config``, as wrappers keep them."""
    inner = {key: value for key, value in one.config.items() if key != "architectures"}
    outer = {"architectures": one.config["architectures"], "model_type": "wrapped", "text_config": inner}
    return replace(one, config=outer | {"vision_config": {"hidden_size": 8}})


def classed(one: Content, ending: str) -> Content:
    """Another class of the same model; a base class (ending "Model") has no head."""
    name = one.config["architectures"][0]
    stem = next(name.removesuffix(old) for old in ENDINGS if name.endswith(old))
    changed = one.configured(architectures=[stem + ending])
    if ending != "Model":
        return changed
    return replace(changed, tensors={name: row for name, row in one.tensors.items() if not name.startswith(HEADS)})


def shapes(one: Content) -> Iterator[tuple[str, bool, Content]]:
    """Every wrapper: (what it is, whether it lost its head, the checkpoint)."""
    for ending in ("", "ForConditionalGeneration", "Model"):
        for prefix in PREFIXES:
            for outer in (False, True):
                changed = prefixed(classed(one, ending) if ending else one, prefix)
                label = f"class {ending or 'own'}, prefix {prefix!r}, {'nested' if outer else 'flat'}"
                yield label, ending == "Model", nested(changed) if outer else changed


# ---- experts -----------------------------------------------------------------------------------------------------

ROLES = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down"}
Matrices = dict[str, dict[str, list[tuple[str, numpy.ndarray]]]]  # block -> role -> (dtype, rows) of each expert


def stacks(one: Content) -> tuple[Matrices, Tensors]:
    """The experts' matrices of every layer, and the other tensors."""
    found: Matrices = {}
    rest: Tensors = {}
    for name, (dtype, shape, data) in one.tensors.items():
        parts = name.split(".")
        if len(parts) > 4 and parts[-4] == "experts" and parts[-2] in ROLES:
            roles = found.setdefault(".".join(parts[:-4]), {})
            roles.setdefault(ROLES[parts[-2]], []).append((dtype, int(parts[-3]), elements(data, shape)))
        elif parts[-2] == "input_linear":
            rows = elements(data, shape).reshape(shape)
            half = shape[1] // 2
            roles = found.setdefault(".".join(parts[:-2]), {})
            roles["gate"] = [(dtype, number, matrix[:half]) for number, matrix in enumerate(rows)]
            roles["up"] = [(dtype, number, matrix[half:]) for number, matrix in enumerate(rows)]
        elif parts[-2] == "output_linear":
            matrices = enumerate(elements(data, shape).reshape(shape))
            found.setdefault(".".join(parts[:-2]), {})["down"] = [
                (dtype, number, matrix) for number, matrix in matrices
            ]
        else:
            rest[name] = (dtype, shape, data)
    return found, rest


def elements(data: bytes, shape: list[int]) -> numpy.ndarray:
    size = len(data) // int(numpy.prod(shape))
    return numpy.frombuffer(data, f"<u{size}").reshape(shape)


def restacked(
    one: Content, form: str, turned: bool = False, place: str = "experts", ending: str = "", block: str | None = None
) -> Content | None:
    """The experts in another layout: "fused" (gate over up), "stacked", "single" (one matrix each).

    ``turned``: every matrix transposed. ``block`` renames the block that holds the experts.
    """
    found, tensors = stacks(one)
    if not found:
        return None
    for before, roles in found.items():
        home = before if block is None else f"{before.rpartition('.')[0]}.{block}"
        dtype = roles["gate"][0][0]
        matrices = {
            role: [matrix for _, _, matrix in sorted(rows, key=lambda row: row[1])] for role, rows in roles.items()
        }
        if form == "single":
            for role, rows in matrices.items():
                for number, matrix in enumerate(rows):
                    tensors[f"{home}.{place}.{number}.{role}_proj.weight"] = entry(dtype, matrix)
            continue
        joined = {role: numpy.stack(rows) for role, rows in matrices.items()}
        if form == "fused":
            joined["gate_up"] = numpy.concatenate([joined.pop("gate"), joined.pop("up")], axis=1)
        for role, values in joined.items():
            values = values.swapaxes(1, 2) if turned else values
            tensors[f"{home}.{place}.{role}_proj{ending}"] = entry(dtype, values)
    return replace(one, tensors=tensors)


def entry(dtype: str, values: numpy.ndarray) -> tuple[str, list[int], bytes]:
    return dtype, list(values.shape), numpy.ascontiguousarray(values).tobytes()


LAYOUTS: dict[str, dict[str, Any]] = {
    "fused": {"form": "fused"},
    "fused, .weight": {"form": "fused", "ending": ".weight"},
    "fused, transposed": {"form": "fused", "turned": True},
    "fused, block of the newer transformers": {"form": "fused", "block": "mlp"},
    "stacked": {"form": "stacked"},
    "stacked, .weight": {"form": "stacked", "ending": ".weight"},
    "stacked, transposed": {"form": "stacked", "turned": True},
    "stacked as switch_mlp": {"form": "stacked", "place": "switch_mlp", "ending": ".weight"},
    "one by one": {"form": "single"},
    "one by one, block of the newer transformers": {"form": "single", "block": "mlp"},
}


# ---- names, buffers, settings ------------------------------------------------------------------------------------


HISTORIC = {"weight": "gamma", "bias": "beta"}


def historic(one: Content) -> Content | None:
    """LayerNorm's weight and bias as gamma and beta."""
    biased = {name.removesuffix(".bias") for name, row in one.tensors.items() if name.endswith(".bias")}
    norms = {name for name in biased if "norm" in name.rpartition(".")[2].lower() or ".ln_" in f".{name}"}

    def change(name: str) -> str:
        before, _, last = name.rpartition(".")
        return f"{before}.{HISTORIC[last]}" if before in norms else name

    return one.renamed(change) if norms else None


def with_buffers(one: Content) -> Content:
    """Buffers at every level that checkpoints of some age carry."""
    numbers = ("F32", [8], bytes(32))
    mask = ("U8", [1, 1, 4, 4], bytes(16))
    extra = {f"{level}rotary_emb.inv_freq": numbers for level in ("", "model.", "model.layers.0.self_attn.")}
    extra |= {f"model.layers.1.self_attn.rotary_emb.{name}": numbers for name in ("cos_cached", "original_inv_freq")}
    extra |= {"layers.0.attention.bias": mask, "layers.0.attention.masked_bias": ("F32", [], bytes(4))}
    extra |= {"embeddings.position_ids": ("I64", [1, 8], bytes(64))}
    return replace(one, tensors=one.tensors | extra)


LEFT_OVER: list[dict[str, Any]] = [
    {},
    {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    {"quant_method": "gptq", "bits": 4, "group_size": 128},
    {"quant_method": "awq", "bits": 4, "version": "gemm"},
    {"quant_method": "bitsandbytes", "load_in_4bit": True},
    {"quant_method": "compressed-tensors", "config_groups": {}},
    {"quant_method": "mxfp4"},
]


def resaved(one: Content) -> Content:
    """As transformers 5 writes it: rope_parameters, dtype, a general tokenizer class, the template in a file."""
    config = dict(one.config)
    config["dtype"] = config.pop("torch_dtype", "bfloat16")
    config["transformers_version"] = "5.0.0"
    rope: dict[str, Any] = {"rope_type": "default"} | config.pop("rope_scaling", {}) | config.get("rope_parameters", {})
    rope["rope_type"] = rope.pop("type", rope["rope_type"])
    for old, new in (
        ("rope_theta", "rope_theta"),
        ("partial_rotary_factor",) * 2,
        ("rotary_pct", "partial_rotary_factor"),
    ):
        if old in config:
            rope[new] = config.pop(old)
    local = config.pop("rope_local_base_freq", None)
    if local is not None:
        rope = {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        }
    settings = one.json("tokenizer_config.json")
    changed = replace(one, config=config | {"rope_parameters": rope})
    if settings:
        settings |= {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "is_local": True}
        template = settings.pop("chat_template", None)
        changed = changed.file("tokenizer_config.json", settings)
        if isinstance(template, str):
            changed = changed.file("chat_template.jinja", template)
    return changed


# ---- what comes out ---------------------------------------------------------------------------------------------

OWN = ("quantcli.", "general.size_label", "general.name")  # of folders and headers


@dataclass(frozen=True)
class Summary:
    """What a model holds: (shape, type, sha256) of its tensors by name, its metadata, its notes in one text."""

    tensors: dict[str, tuple[tuple[int, ...], str, str]]
    metadata: dict[str, Any]
    notes: str


def summary(one: Content, folder: Path, files: Any = None, architecture: str | None = None) -> Summary:
    """The model of a checkpoint that is written for it."""
    with Checkpoint(write(one, folder, files)) as checkpoint:
        model = families.load_checkpoint(checkpoint, architecture=architecture)
        tensors = {tensor.name: (tensor.shape, tensor.type.name, digest(tensor)) for tensor in model.tensors}
    metadata = {key: value for key, value in model.metadata.items() if not key.startswith(OWN)}
    return Summary(tensors, metadata, " / ".join(model.notes))


def digest(tensor: ModelTensor, kind: str | None = None) -> str:
    return hashlib.sha256(stored(tensor, kind or tensor.type.name, 64)).hexdigest()


def without_head(one: Summary) -> Summary:
    return replace(one, tensors={name: row for name, row in one.tensors.items() if not name.startswith("output.")})


def same(found: Summary, wanted: Summary, label: str = "") -> None:
    assert found.tensors == wanted.tensors, label
    assert {key: str(value) for key, value in found.metadata.items()} == {
        key: str(value) for key, value in wanted.metadata.items()
    }, label
