"""A checkpoint folder -> Model: choose the family, read the facts, bind the tensors, write the metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from quantcli import container, vocab
from quantcli.architectures.fixed import stays_float32
from quantcli.errors import BadTokenizer, QuantcliError
from quantcli.families import bind, catalogue, metadata, numbers, packed, pooling, unread, variants
from quantcli.families.declaration import Family
from quantcli.families.facts import Facts, settle
from quantcli.families.transforms import Node
from quantcli.ggml import tensor_types
from quantcli.model import Model, ModelTensor, Vocabulary
from quantcli.sources.tensor import SourceTensor
from quantcli.vocab import origin

if TYPE_CHECKING:
    from quantcli.container import Value
    from quantcli.ggml.tensor_types import TensorType
    from quantcli.sources.checkpoint import Checkpoint

_KNOWN_SCALINGS = (None, "linear", "yarn", "llama3", "longrope")


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    architecture: str | None = None,
    pre_tokenizer: str | None = None,
    chat_template: str | None = None,
    alone: bool = True,
    put_off: bool = False,
) -> Model:
    """The model in ``checkpoint`` as a GGUF file would hold it; headers and small files only are read.

    ``alone``: what lies beside it (towers, a projector) is not converted, and a note says how it can be. ``put_off``:
    the vocabulary waits for `Model.read_vocabulary`, unless the tensors depend on it.
    Raises UnknownArchitecture, BadConfig, UnknownTensors, MissingTensors, ShapeMismatch, UnsupportedFile, and what
    ``vocab.load`` raises.
    """
    family, facts, remarks = read_config(checkpoint, architecture)
    sources = checkpoint.logical_tensors
    binding = bind.bind(family, facts, sources, str(checkpoint.folder))
    read = partial(vocabulary, checkpoint, family, facts, pre_tokenizer, chat_template)
    put_off = put_off and not (family.rows or family.cut_embeddings)
    tokens, notes = ({}, []) if put_off else read()
    remarks += beside(checkpoint, binding.left_out) if alone else []
    remarks += [*binding.notes, *missing_head(facts, binding), *choose_rows(family, facts, tokens, checkpoint)]
    if family.cut_embeddings and "tokenizer.ggml.tokens" in tokens:
        facts["vocab"] = min(facts["vocab"], len(tokens["tokenizer.ggml.tokens"].data))
    tensors, default_float = make_tensors(checkpoint, family, facts, binding.tensors, sources)
    remarks += [text for fact, text in family.remarks if facts[fact]]
    remarks += unread.check(family, facts, where=str(checkpoint.folder / "config.json"))
    told = metadata.general(family, checkpoint, tensors) | metadata.architecture(family, facts)
    digests = checkpoint.digests()
    own = origin.digest(checkpoint, digests, (architecture, pre_tokenizer, chat_template))
    return Model(
        name=checkpoint.name,
        architecture=family.gguf_arch,
        metadata=told | tokens | metadata.provenance(digests),
        tensors=tensors,
        default_float=default_float,
        kind="checkpoint",
        follows_converter=True,
        files=checkpoint.files,
        weight_files=[path for path in checkpoint.files if path.endswith(".safetensors")],
        shards=len(checkpoint.tensor_files),
        notes=list(dict.fromkeys([*remarks, *notes, *checkpoint.notes])),
        vocabulary=Vocabulary(own, read if put_off else None, len(told)),
    )


def read_config(
    checkpoint: Checkpoint, architecture: str | None, weights: bool = True
) -> tuple[Family, Facts, list[str]]:
    """The family of a checkpoint, its facts, and what the user should know of them.

    ``weights``: its tensors are there and are looked at.
    """
    try:
        choice = catalogue.choose(checkpoint.config, architecture)
        family, notes = (choice.family, []) if architecture else variants.choose(choice.family, checkpoint)
        family = catalogue.relative(family, choice.config)
        if weights:
            checkpoint.check_packing()
        tensors = checkpoint.logical_tensors if weights else []
        stored, found = [tensor.name for tensor in tensors], numbers.read(family.numbers, family.prefixes, tensors)
        facts = settle(family.facts, choice.config, checkpoint.json, choice.headless, stored, found)
        if "stated_causal" not in facts:
            facts["stated_causal"] = False if choice.config.get("is_causal") is False else None
        if "pooling" not in facts:
            facts["pooling"], remarks = pooling.read(checkpoint.json)
            notes = [*notes, *remarks]
    except QuantcliError as error:
        error.where = str(checkpoint.folder / "config.json") if error.where == "config.json" else error.where
        raise
    if choice.headless and "may_tie" in facts:
        facts["may_tie"] = True
    return family, facts, [*notes, *unknown_scaling(facts), *assumptions(choice, family, facts, architecture)]


def assumptions(choice: catalogue.Choice, family: Family, facts: Facts, architecture: str | None) -> list[str]:
    """What is taken for granted of a class that only ``--architecture`` makes one of the family."""
    named = choice.config.get("architectures") or choice.config.get("model_type")
    stated = named[0] if isinstance(named, list) else named
    known = catalogue.by_class(stated if isinstance(stated, str) else None)
    return (
        unread.assumed(family, facts, stated) if architecture and (known is None or known.name != family.name) else []
    )


def beside(checkpoint: Checkpoint, left_out: int) -> list[str]:
    """What is left out of a wrapper, and the option that writes it."""
    if not left_out:
        return []
    from quantcli.families.projectors import catalogue as projectors

    way = "--mmproj F16 writes them to a file beside it" if projectors.find(checkpoint.config) else ""
    told = f"left out {left_out} tensors of vision or audio: only the language model is converted"
    return [f"{told}; {way}" if way else f"{told} (no projector is declared for this class)"]


def left_out(checkpoint: Checkpoint, architecture: str | None = None) -> list[str]:
    """Names of the tensors that no GGUF tensor is made of: other modalities, heads without a place, buffers, copies."""
    family, facts, _ = read_config(checkpoint, architecture)
    binding = bind.bind(family, facts, checkpoint.logical_tensors, str(checkpoint.folder))
    used = {part.origin for one in binding.tensors for part in one.parts.values()}
    return [tensor.name for tensor in checkpoint.logical_tensors if tensor.origin not in used]


def vocabulary(
    checkpoint: Checkpoint,
    family: Family,
    facts: Facts,
    pre_tokenizer: str | None = None,
    chat_template: str | None = None,
) -> tuple[dict[str, Value], list[str]]:
    """The ``tokenizer.*`` entries from the tokenizer's files, and notes, those about broken files among them. Raises
    what ``vocab.load`` raises."""
    tokens, notes = vocab.load(
        checkpoint,
        vocab_size=facts.get("tokens", facts["vocab"]),
        hints=family.vocab_for(facts, family.vocab) if family.vocab_for else family.vocab,
        pre_tokenizer=pre_tokenizer,
        chat_template=chat_template,
    )
    return tokens | templates(family, tokens), [*notes, *checkpoint.notes]


def templates(family: Family, tokens: Mapping[str, Value]) -> dict[str, Value]:
    """The family's own chat templates, beside those of the checkpoint."""
    if not family.templates:
        return {}
    there = tokens.get("tokenizer.chat_templates")
    names = dict.fromkeys([*(there.data if there else ()), *family.templates])
    own = {f"tokenizer.chat_template.{name}": container.string(text) for name, text in family.templates.items()}
    return {"tokenizer.chat_templates": container.strings(list(names)), **own}


def choose_rows(family: Family, facts: Facts, tokens: Mapping[str, Value], checkpoint: Checkpoint) -> list[str]:
    """Number the rows of the head that the family takes by their tokens, and say where another one stands in."""
    notes = []
    vocabulary = tokens["tokenizer.ggml.tokens"].data if family.rows else ()
    for fact, texts in family.rows.items():
        text = next((text for text in texts if text in vocabulary), None)
        if text is None:
            raise BadTokenizer(
                f"the vocabulary has no token {texts[0]!r}, whose row of the head {family.name} needs",
                where=str(checkpoint.folder),
                hint="--architecture NAME reads the checkpoint as another family",
            )
        facts[fact] = list(vocabulary).index(text)
        if text != texts[0]:
            notes.append(f"the vocabulary has no token {texts[0]!r}: the row of {text!r} stands in for it")
    return notes


def missing_head(facts: Facts, binding: bind.Binding) -> list[str]:
    """What to expect of a base class without an output head."""
    if not facts.headless or facts.find("tie_word_embeddings") is not False or binding.has("output.weight"):
        return []
    return ["no output head is stored: the file embeds texts; next tokens are guessed with the embeddings"]


def guess_float(sources: Sequence[SourceTensor]) -> TensorType:
    """What ``--outtype auto`` means: the first half-precision matrix decides; F16 where there is none."""
    found = (tensor.dtype for tensor in sources if len(tensor.shape) >= 2 and tensor.dtype in ("BF16", "F16"))
    return tensor_types.BY_NAME[next(found, "F16")]


def make_tensors(
    checkpoint: Checkpoint, family: Family, facts: Facts, bound: Sequence[bind.Bound], sources: Sequence[SourceTensor]
) -> tuple[list[ModelTensor], TensorType]:
    """The generated tensors, then those of the checkpoint; and the default float type."""
    default = guess_float(sources)
    shard = {name: number for number, name in enumerate(checkpoint.tensor_files)}
    tensors = [tensor for extra in family.extras if (tensor := generated(extra.target, extra.values(facts)))]
    for one in bound:
        made = converted(family, facts, one, default, shard)
        made.wide_inputs = packed.wide_inputs(made, one)
        tensors += [made, *packed.beside(made, one)]
    return tensors, default


def converted(
    family: Family, facts: Facts, one: bind.Bound, default: TensorType, shard: Mapping[str, int]
) -> ModelTensor:
    """The GGUF tensor that source tensors become."""

    def build(exact: bool = False) -> Node:
        node = bind.build(one, facts, exact=exact)
        return cut(node, facts["vocab"]) if family.cut_embeddings and one.name == "token_embd.weight" else node

    node, values = packed.nodes(one, build)
    first, stored = one.parts[min(one.parts)], node.reader.stored
    plain_type = converted_type(family, one.name, node.shape, default)
    tensor = ModelTensor(
        name=one.name,
        shape=tuple(reversed(node.shape)),
        type=stored if stored.quantized else plain_type,
        stored=stored,
        raw=node.reader.raw,
        reader=node.reader,
        origin=first.origin if len(one.parts) == 1 else f"{first.origin} and {len(one.parts) - 1} more",
        shard=shard[first.file.name],
    )
    if values is not None:
        tensor.decoded = replace(
            tensor, type=plain_type, stored=values.reader.stored, raw=values.reader.raw, reader=values.reader
        )
    return tensor


def cut(node: Node, rows: int) -> Node:
    """The first ``rows`` rows of a matrix."""
    from quantcli.views import Span

    if rows >= node.shape[0]:
        return node
    return replace(node, shape=(rows, *node.shape[1:]), reader=Span(node.reader, 0, rows))


def generated(name: str, values: Sequence[float] | None) -> ModelTensor | None:
    """A tensor of computed numbers, in F32."""
    if values is None:
        return None
    from quantcli.views import Generated

    f32 = tensor_types.BY_NAME["F32"]
    return ModelTensor(name, (len(values),), f32, f32, True, Generated(values), "computed from config.json")


def converted_type(family: Family, name: str, shape: tuple[int, ...], default: TensorType) -> TensorType:
    """The type that llama.cpp's converter writes: F32 for vectors, norms and what its rules name, else the default."""
    kept = stays_float32(name, len(shape)) and not any(part in name for part in family.not_float32)
    return tensor_types.BY_NAME["F32"] if kept else default


def unknown_scaling(facts: Facts) -> list[str]:
    """A remark on a kind of rope scaling without a counterpart."""
    scaling = facts.get("scaling")
    if scaling in _KNOWN_SCALINGS:
        return []
    return [f"rope_scaling of type {scaling!r} has no counterpart in GGUF and is left out"]
