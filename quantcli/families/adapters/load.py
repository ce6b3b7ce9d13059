"""A LoRA adapter and its base's configuration -> the Model of a GGUF adapter.

The factors take the names of the base's GGUF tensors with ``.lora_a`` and ``.lora_b`` behind them, and follow the
family's transforms: what moves rows moves those of B, what moves columns those of A. Source of the layout:
``convert_lora_to_gguf.py`` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantcli import container
from quantcli.container import Value
from quantcli.errors import QuantcliError, UnknownTensors, UnsupportedFile
from quantcli.families import bind, metadata
from quantcli.families.adapters.factors import Factors, factors_of
from quantcli.families.adapters.stacks import stacked
from quantcli.families.declaration import Family
from quantcli.families.facts import Facts
from quantcli.families.load import choose_rows, cut, guess_float, read_config, vocabulary
from quantcli.families.transforms import MERGE_HINT, Node
from quantcli.families.written import types_of
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.model import Model, ModelTensor
from quantcli.sources.adapter import CONFIG, Adapter
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.files import StoredTensor
from quantcli.sources.tensor import SourceTensor

_EMBEDDING = "token_embd.weight"


def load_adapter(adapter: Adapter, base: Checkpoint, architecture: str | None = None) -> Model:
    """The GGUF adapter for models of ``base``, of which config.json alone is read.

    Raises UnsupportedFile and UnknownTensors, naming the tensor, for what such a file cannot hold; what choosing the
    family and binding raise.
    """
    _refuse(adapter)
    family, facts, notes = read_config(base, architecture, weights=False)
    pairs = [factors_of(module, adapter.settings.transposed) for module in adapter.modules.values()]
    sources: list[SourceTensor] = sorted([*pairs, *_norms(adapter)], key=lambda tensor: tensor.name)
    binding = bind.bind(family, facts, sources, str(adapter.folder), whole=False)
    _check_places(binding, sources, family, str(adapter.folder))
    _number_tokens(base, family, facts, binding)
    tensors = [tensor for bound in binding.tensors for tensor in _tensors(bound, facts)]
    default = guess_float(list(adapter.tensors.values()))
    for tensor in tensors:
        tensor.targets = types_of(tensor.name, tensor.shape, factors=(".lora_a", ".lora_b"))
        tensor.type = tensor.targets[default.name]
    return Model(
        name=adapter.name,
        architecture=family.gguf_arch,
        metadata=_metadata(adapter, family, tensors),
        tensors=tensors,
        default_float=default,
        kind="checkpoint",
        role="adapter",
        follows_converter=True,
        files=[*adapter.files, str(base.folder / "config.json")],
        weight_files=adapter.files[1:],
        notes=[*notes, *_notes(adapter, family, binding, facts), *adapter.notes, *base.notes],
    )


def _number_tokens(base: Checkpoint, family: Family, facts: Facts, binding: bind.Binding) -> None:
    """What the base's vocabulary says of rows that stand for tokens; it is read where that matters only."""
    cut_there = family.cut_embeddings and binding.has(_EMBEDDING)
    if not (cut_there or family.rows):
        return
    tokens, _ = vocabulary(base, family, facts)
    choose_rows(family, facts, tokens, base)
    if cut_there:
        facts["vocab"] = min(facts["vocab"], len(tokens["tokenizer.ggml.tokens"].data))


def _refuse(adapter: Adapter) -> None:
    """Raises UnsupportedFile for what llama.cpp's adapters have no place for."""
    for module in adapter.modules.values():
        for part, what in (("lora_magnitude_vector", "a magnitude (DoRA)"), ("lora_B.bias", "a bias")):
            if part in module.parts:
                raise UnsupportedFile(
                    f"{module.name} has {what}, which a GGUF adapter cannot hold",
                    where=module.parts[part].where,
                    hint=MERGE_HINT,
                )
    for name, tensor in adapter.tokens.items():
        raise UnsupportedFile(
            f"single tokens of {name} were trained, which a GGUF adapter cannot hold",
            where=tensor.where,
            hint=MERGE_HINT,
        )
    for name, tensor in adapter.whole.items():
        if not _is_norm(name, tensor):
            raise UnsupportedFile(
                f"{name} is stored as a whole, which a GGUF adapter cannot hold (norms alone)",
                where=tensor.where,
                hint=MERGE_HINT,
            )
    if not adapter.modules:
        raise UnsupportedFile("no LoRA tensors", where=adapter.files[1], hint="get the adapter again")


def _is_norm(name: str, tensor: StoredTensor) -> bool:
    return len(tensor.shape) == 1 and ("norm" in name.rpartition(".")[0].rpartition(".")[2])


def _norms(adapter: Adapter) -> list[StoredTensor]:
    """Norm weights that came along, by the names that they have in the base."""
    from dataclasses import replace

    return [replace(tensor, name=name) for name, tensor in adapter.whole.items()]


def _check_places(binding: bind.Binding, sources: Sequence[SourceTensor], family: Family, where: str) -> None:
    """Raises UnknownTensors for what has no place in the GGUF model, other towers aside."""
    placed = {part.name for bound in binding.tensors for part in bound.parts.values()}
    lost = [tensor.name for tensor in sources if tensor.name not in placed]
    if len(lost) > binding.left_out:
        raise UnknownTensors(
            f"{len(lost)} adapted tensors have no place in a {family.gguf_arch} model: {', '.join(lost[:5])}",
            where=where,
            hint="is --lora-base the model that the adapter was trained on?",
        )


def _tensors(bound: bind.Bound, facts: Facts) -> list[ModelTensor]:
    """A norm as it is, or the two factors of a matrix."""
    parts = {number: part for number, part in bound.parts.items() if isinstance(part, Factors)}
    if not parts:
        return [_tensor(bound.name, bind.build(bound, facts), bound)]
    pairs = {number: _transformed(bound, part, facts) for number, part in parts.items()}
    if bound.spec.stacked:
        left, right = stacked(bound, pairs, facts)
    else:
        left, right = pairs[0]
    if bound.name == _EMBEDDING:
        # a lookup multiplies from the other side
        left, right = _turned(right), cut(left, facts["vocab"])
    return [_tensor(f"{bound.name}.lora_a", right, bound), _tensor(f"{bound.name}.lora_b", left, bound)]


def _transformed(bound: bind.Bound, part: Factors, facts: Facts) -> tuple[Node, Node]:
    left = Node((part.left.rows, part.left.columns), part.left)
    right = Node((part.right.rows, part.right.columns), part.right)
    transform = bound.spec.rule.transform
    if transform is None:
        return left, right
    facts["layer"] = bound.layer
    try:
        return transform.factors(left, right, facts.at(bound.layer))
    except QuantcliError as error:
        error.where = part.where
        raise


def _turned(node: Node) -> Node:
    from quantcli.views import transpose

    return Node((node.shape[1], node.shape[0]), transpose(node.reader))


def _tensor(name: str, node: Node, bound: bind.Bound) -> ModelTensor:
    stored = node.reader.stored
    origin = bound.parts[min(bound.parts)].origin
    return ModelTensor(name, tuple(reversed(node.shape)), BY_NAME["F32"], stored, node.reader.raw, node.reader, origin)


def _metadata(adapter: Adapter, family: Family, tensors: Sequence[ModelTensor]) -> dict[str, Value]:
    settings = adapter.settings
    found = {
        **metadata.general(family, adapter, tensors, "adapter"),
        "adapter.type": container.string("lora"),
        "adapter.lora.alpha": container.f32(settings.alpha),
        **metadata.provenance(adapter.digests((CONFIG,))),
    }
    if settings.invocation:
        tokens = container.array(container.ValueType.UINT32, settings.invocation)
        found["adapter.alora.invocation_tokens"] = tokens
    return found


def _notes(adapter: Adapter, family: Family, binding: bind.Binding, facts: Facts) -> list[str]:
    """What llama.cpp will do otherwise than peft."""
    settings, notes = adapter.settings, []
    if settings.rank_stabilized:
        notes.append(
            "the adapter was trained with rslora: llama.cpp divides alpha by the rank, not by its root; "
            "scale it by the root of the rank there (--lora-scaled FILE:SCALE), or merge it (--merge-lora)"
        )
    if settings.has_alpha_patterns:
        notes.append("alpha_pattern is left out: a GGUF adapter has one alpha; --merge-lora applies the pattern")
    if binding.left_out:
        notes.append(f"left out the adapters of {binding.left_out} matrices outside the language model")
    return notes + _tied(family, binding, facts)


def _tied(family: Family, binding: bind.Binding, facts: Facts) -> list[str]:
    """What llama.cpp cannot do where one matrix is embeddings and head."""
    headless = all(rule.target != "output" for rule in family.tensors)
    if not (headless or facts.find("tie_word_embeddings") is True):
        return []
    notes = []
    if binding.has("output.weight"):
        notes.append("the head is adapted but tied to the embeddings: llama.cpp finds no output.weight in the base")
    if binding.has(_EMBEDDING):
        notes.append("the embeddings are adapted and are the head as well: llama.cpp cannot use that; --merge-lora can")
    return notes
