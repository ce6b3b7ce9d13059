"""Choosing tokens, generating text, chat templates."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli import container
from quantcli.errors import BadTokenizer, ContextTooLong, MissingPackage, UsageError
from quantcli.loader import open_model
from quantcli.runner import chat
from quantcli.runner.generation import Generation, generate, prompt_ids
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.runner.products import Products
from quantcli.runner.replay import Stepper
from quantcli.runner.sampling import Sampler, Sampling
from quantcli.runner.session import RunOptions, Session, make_operations, open_session

GREEDY = Sampling()


def text_of(
    session: Session, prompt: str, count: int, sampling: Sampling = GREEDY, **options: bool
) -> tuple[str, Generation]:
    generation = Generation(prompt_ids(session, prompt))
    return "".join(session.tokenizer.stream(generate(session, generation, count, sampling, **options))), generation


def test_greedy_text_is_the_argmax_of_whole_passes(root: Path) -> None:
    with open_session(root / "examples" / "tiny", RunOptions(exact=True, length=64)) as session:
        text, generation = text_of(session, "Once upon a time", 12)
        ids = list(generation.prompt)
        for token in generation.tokens:
            logits = session.network.forward(numpy.array([ids]), session.network.new_cache(1, len(ids)))[0, -1]
            assert token == logits.argmax()
            ids.append(token)
    assert text == ", I was surprised to see the s" and generation.stopped == "length" and len(generation.tokens) == 12
    assert generation.summary()["prompt_tokens"] == len(generation.prompt)


DENSE = ("gemma3", "llama-quirks", "llama-tied-bias", "llama3", "phi3")
#: experts (stacked, shared with a gate, bounded), latent attention, heads with norms of their own, gates on attention
BY_PYTHON_TOO = ("qwen3-moe", "granite-moe", "qwen2-moe", "deepseek-v2", "gpt-oss", "step3.5", "cohere", "spark2.5")
REPEATED = DENSE + BY_PYTHON_TOO


@pytest.mark.parametrize(
    "name, kind", [*((name, "F16") for name in REPEATED), ("phi3", "F32"), ("tiny", "Q8_0"), ("mamba", "F16")]
)
def test_steps_are_passes_of_one_token(root: Path, name: str, kind: str) -> None:
    """The repeated calls give the bits of `forward`, token after token, in every family (windows included)."""
    ids = numpy.random.default_rng(3).integers(3, 300, 40)
    with open_model(root / "examples" / "tiny" if name == "tiny" else oracles.folder(name)) as model:
        network = Network(model, make_operations("float", 2), kv_type=kind)
        caches = [network.new_cache(1, 40) for _ in range(2)]
        for cache in caches:
            network.forward(ids[None, :20], cache)
        step = Stepper(network, caches[0])
        for token in ids[20:].tolist():
            expected = network.forward(numpy.array([[token]]), caches[1])[0, -1]
            assert numpy.array_equal(step(token), expected)
        assert caches[0].length == caches[1].length
        assert (step.recording is not None and step.recording.ready) == (name in REPEATED)
        if step.recording is not None:
            assert step.recording.count > 8 * network.settings.layers
        with pytest.raises(ContextTooLong):
            network.require(40)
            step(3)


@pytest.mark.parametrize("name", ["arch-more/deepseek-v3.2", "arch-new/llama4"])
def test_steps_that_depend_on_the_position_are_not_repeated(name: str, shared: Path) -> None:
    """Keys that are chosen once there are more than 64; windows that begin anew, queries that grow."""
    ids = numpy.random.default_rng(3).integers(3, 300, 72)
    with open_model(shared / name) as model:
        network = Network(model, make_operations("float", 2))
        caches = [network.new_cache(1, 72) for _ in range(2)]
        for cache in caches:
            network.forward(ids[None, :60], cache)
        step = Stepper(network, caches[0])
        for token in ids[60:].tolist():
            assert numpy.array_equal(step(token), network.forward(numpy.array([[token]]), caches[1])[0, -1])
        assert step.recording is None


def test_what_python_computes_between_steps_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Products, "add", Operations.add)
    with open_model(oracles.folder("llama3")) as model:
        network = Network(model, make_operations("float", 1))
        step = Stepper(network, network.new_cache(1, 8))
        first, cache = [step(token).copy() for token in (5, 6, 7)], network.new_cache(1, 8)
        assert step.recording is None
        for token, logits in zip((5, 6, 7), first, strict=True):
            assert numpy.array_equal(network.forward(numpy.array([[token]]), cache)[0, -1], logits)


def test_long_prompts_are_read_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for piece in (512, 7):
        monkeypatch.setattr("quantcli.runner.generation.PIECE", piece)
        with open_session(root / "examples" / "tiny", RunOptions(exact=True, length=64)) as session:
            found.append(text_of(session, "It was the best of times, it was the worst of times", 8)[0])
    assert found[0] == found[1]


def test_stops_at_the_end_and_at_the_context(root: Path) -> None:
    with open_session(root / "examples" / "tiny", RunOptions(exact=True, length=16)) as session:
        _, generation = text_of(session, "Once upon a time", 50)
        assert generation.stopped == "context" and len(generation.prompt) + len(generation.tokens) == 16
        session.tokenizer.end_of_generation = {generation.tokens[2]}
        _, stopped = text_of(session, "Once upon a time", 50)
        assert stopped.stopped == "end" and stopped.tokens == generation.tokens[:2]
        assert len(text_of(session, "Once upon a time", 4, ignore_end=True)[1].tokens) == 4
        with pytest.raises(ContextTooLong, match="room for 16"):
            text_of(session, "word " * 40, 1)


def test_sampling_filters_and_seeds() -> None:
    logits = numpy.log(numpy.array([0.5, 0.25, 0.15, 0.06, 0.04]))

    def drawn(**settings: float) -> set[int]:
        off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
        sampler = Sampler(Sampling(**(off | settings)))
        return {sampler.choose(logits) for _ in range(400)}

    assert drawn(temperature=0) == {0} and drawn() == {0, 1, 2, 3, 4}
    assert drawn(top_k=2) == {0, 1} and drawn(top_p=0.7) == {0, 1} and drawn(top_p=0.76) == {0, 1, 2}
    assert drawn(min_p=0.2) == {0, 1, 2} and drawn(top_p=0) == {0}
    first, second = (Sampler(Sampling(temperature=1.0, seed=3)) for _ in range(2))
    assert [first.choose(logits) for _ in range(20)] == [second.choose(logits) for _ in range(20)]
    sampler = Sampler(Sampling(temperature=2.0, top_k=0, top_p=1, min_p=0, seed=1))
    share = numpy.bincount([sampler.choose(logits) for _ in range(4000)], minlength=5) / 4000
    flat = numpy.sqrt([0.5, 0.25, 0.15, 0.06, 0.04])
    assert numpy.abs(share - flat / flat.sum()).max() < 0.03
    with pytest.raises(UsageError, match="--top-p"):
        Sampling(top_p=1.5)


TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def with_template(session: Session, template: str | None) -> Session:
    session.tokenizer.chat_template = template
    return session


def test_chat_without_a_template_or_the_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_session(root / "examples" / "tiny") as session:
        with pytest.raises(UsageError, match="no chat template"):
            chat.render(with_template(session, None).tokenizer, [])
        for name in ("jinja2", "jinja2.ext", "jinja2.sandbox"):
            monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
        with pytest.raises(MissingPackage, match="jinja2"):
            chat.render(with_template(session, TEMPLATE).tokenizer, [])


def test_chat_templates_are_rendered_in_a_sandbox(root: Path) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " Hello "}]
    with open_session(root / "examples" / "tiny") as session:
        rendered = chat.render(with_template(session, TEMPLATE).tokenizer, messages)
        assert rendered == "<|system|>Be kind.<|user|>Hello<|assistant|>"
        for template, message in (
            ("{{ raise_exception('no system role') }}", "no system role"),
            ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
            ("{% for %}", "fails"),
        ):
            with pytest.raises(BadTokenizer, match=message):
                chat.render(with_template(session, template).tokenizer, messages)
        tokenizer = with_template(session, "{{ bos_token }}{{ messages | tojson }}").tokenizer
        assert chat.render(tokenizer, messages[:1]) == '<s>[{"role": "system", "content": "Be kind."}]'


def test_special_tokens_of_a_rendered_conversation_are_read(root: Path) -> None:
    with open_session(oracles.folder("phi3")) as session:
        tokenizer = session.tokenizer
        ids = chat.encode(tokenizer, "<|user|>\nHi<|end|>\n<|assistant|>\n")
        texts = [tokenizer.texts[i] for i in ids]
        assert "<|user|>" in texts and "<|assistant|>" in texts and texts.count("<s>") <= 1
    with open_session(root / "examples" / "tiny") as session:
        bos = session.tokenizer.texts[session.tokenizer.bos]
        assert chat.encode(session.tokenizer, bos + "Hi").count(session.tokenizer.bos) == 1
        assert isinstance(session.model.metadata["tokenizer.ggml.model"], container.Value)
        session.tokenizer.add_bos = False
        with pytest.raises(UsageError, match="empty"):
            prompt_ids(session, "")
