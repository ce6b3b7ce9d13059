"""Texts of files on a terminal: no command sends what steers one, wherever in a file it stands.

Commands run on a pseudo terminal. All variants stand in one file per place, so that a command shows them all; what it
sent is compared with what quantcli itself may send.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from helpers import oracles
from quantcli import container
from quantcli.container import Value
from quantcli.report import terminal
from quantcli.vocab.tokenizer import Tokenizer

VARIANTS = {
    "clear": "\x1b[2J",
    "colour": "\x1b[31m",
    "cursor": "\x1b[1A\x1b[1G",
    "title": "\x1b]0;owned\x07",
    "title-c1": "\x9d0;owned\x9c",
    "clipboard": "\x1b]52;c;b3duZWQ=\x1b\\",
    "link": "\x1b]8;;http://owned\x1b\\x\x1b]8;;\x1b\\",
    "device": "\x1bP+q544e\x1b\\",
    "report": "\x1b[6n\x1b[c\x05",
    "charset": "\x1b(0\x0e\x0f",
    "csi-c1": "\x9b2J",
    "next-line-c1": "\x85\x84\x8d",
    "private": "\x1b^x\x1b\\\x1b_x\x1b\\\x1bX\x1b\\",
    "bell": "\x07",
    "nul": "\x00",
    "backspaces": "abc\x08\x08\x08\x7f",
    "return": "hidden\rshown",
    "vertical": "\x0b\x0c",
    "override": "\u202egnp.exe\u202c",
    "isolate": "\u2066\u2067\u2068x\u2069",
    "embedding": "\u202a\u202b\u202d",
    "markup": "[bold red]x[/bold red][/][link=http://x]",
    "all": "".join(chr(c) for c in (*range(32), *range(127, 160)) if c not in (9, 10)),
}
PAYLOAD = "|".join(VARIANTS.values())
# Line ends and tabs are allowed; what rich sends for colours, columns and progress is quantcli's own.
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
OWN = re.compile(r"\x1b\[(\?25[lh]|2K|1A|[0-9;]*m)|\r")


def on_terminal(folder: Path, *arguments: object, term: str = "dumb") -> tuple[int, str]:
    """(exit code, all that a command sent to its terminal)."""
    leader, follower = pty.openpty()
    settings = termios.tcgetattr(follower)
    settings[1] &= ~termios.OPOST  # line ends as they are sent
    termios.tcsetattr(follower, termios.TCSANOW, settings)
    environment = os.environ | {"TERM": term, "COLUMNS": "200", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "quantcli", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=folder, stdin=follower, stdout=follower, stderr=follower, env=environment, close_fds=True
    )
    os.close(follower)
    sent = bytearray()
    while True:
        try:
            if select.select([leader], [], [], 120)[0] and not (piece := os.read(leader, 65536)):
                break
        except OSError:  # Linux: the other side is closed
            break
        sent += piece
    os.close(leader)
    return process.wait(), sent.decode("utf-8", "surrogateescape")


def sent_by(folder: Path, *arguments: object, status: int = 0) -> str:
    """What a command sends to a dumb terminal and, if it succeeds, to a modern one: only quantcli's own controls."""
    code, sent = on_terminal(folder, *arguments)
    assert code == status, sent
    assert not FORBIDDEN.findall(sent), ascii(sent)
    if status == 0:
        _, modern = on_terminal(folder, *arguments, term="xterm-256color")
        assert not FORBIDDEN.findall(OWN.sub("", modern)), ascii(modern)
    return sent


def rewritten(source: Path, target: Path, metadata: dict[str, Value]) -> Path:
    """A copy of a GGUF file with other metadata."""
    header = container.read_header(source)
    rows = [(t.name, t.shape, t.type_id, t.offset) for t in header.tensors]
    head = container.encode_header(header.metadata | metadata, rows, keep_ones=True)
    target.write_bytes(head + source.read_bytes()[header.data_start :])
    return target


def hostile(source: Path, **more: Value) -> dict[str, Value]:
    """Metadata with payloads: every text of the file, and every token that is no control token."""
    present = container.read_header(source).metadata
    variants = list(VARIANTS.values())
    types = present["tokenizer.ggml.token_type"].data
    tokens = [
        f"{variants[i % len(variants)]}{i}" if types[i] == 1 else text
        for i, text in enumerate(present["tokenizer.ggml.tokens"].data)
    ]
    names = ("name", "description", "author", "basename", "license", "url")
    return {
        **{f"general.{name}": container.string(PAYLOAD) for name in names},
        "general.tags": container.strings(VARIANTS.values()),
        "tokenizer.ggml.tokens": container.strings(tokens),
        "tokenizer.chat_template": container.string("{#" + PAYLOAD + "#}{{ messages[-1].content }}"),
        "tokenizer.chat_template.other": container.string("{% " + PAYLOAD),
        **more,
    }


def file_name(suffix: str) -> str:
    """A name that tries everything a name can hold."""
    return PAYLOAD.replace("\0", "").replace("/", "").encode()[:160].decode("utf-8", "ignore") + suffix


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good.gguf and what an attacker made of it."""
    folder = tmp_path_factory.mktemp("terminal")
    good = folder / "good.gguf"
    quiet = [sys.executable, "-m", "quantcli", "convert", oracles.folder("llama-spm"), "-t", "Q8_0", "-o", good, "-q"]
    subprocess.run(list(map(str, quiet)), check=True)
    rewritten(good, folder / "evil.gguf", hostile(good))
    (folder / file_name(".gguf")).write_bytes((folder / "evil.gguf").read_bytes())
    (folder / file_name(".txt")).write_text("Once upon a time there was a wind in the west. " * 60)
    (folder / "text.txt").write_text(PAYLOAD.replace("\0", "") + "Once upon a time, in the west. " * 90)
    for name, template in {"refusing": "raise_exception(x)", "undefined": "x.y.z()"}.items():
        text = "{% set x = " + json.dumps(PAYLOAD) + " %}{{ " + template + " }}"
        rewritten(good, folder / f"{name}.gguf", hostile(good, **{"tokenizer.chat_template": container.string(text)}))
    architecture = {"general.architecture": container.string(PAYLOAD)}
    rewritten(good, folder / "architecture.gguf", hostile(good, **architecture))
    pre = {"tokenizer.ggml.pre": container.string(PAYLOAD), "tokenizer.ggml.model": container.string(PAYLOAD)}
    rewritten(good, folder / "vocabulary.gguf", hostile(good, **pre))
    return folder


@pytest.mark.parametrize(
    "arguments, status",
    [
        ("inspect evil.gguf --tensors", 0),
        ("inspect evil.gguf --json", 0),
        ("inspect architecture.gguf", 0),
        ("inspect NAME", 0),
        ("verify evil.gguf NAME", 0),
        ("verify NAME TEXT", 1),
        ("convert evil.gguf -t COPY -o out.gguf --force", 0),
        ("convert evil.gguf -t COPY --force", 0),
        ("convert evil.gguf -t COPY -o out.gguf --force --strict", 1),
        ("convert NAME -t Q4_0 -o out.gguf --allow-requantize --dry-run", 0),
        ("convert architecture.gguf -t COPY -o out.gguf --force", 0),
        ("perplexity evil.gguf -f text.txt -c 32 --chunks 2", 0),
        ("perplexity NAME -f TEXT -c 32 --chunks 2", 0),
        ("perplexity architecture.gguf -f text.txt", 1),
        ("compare evil.gguf NAME -f TEXT -c 32 --chunks 2", 0),
        ("compare evil.gguf architecture.gguf -f TEXT -c 32 --chunks 2", 1),
        ("imatrix NAME -f TEXT -o matrix.gguf -c 32 --chunks 2 --force", 0),
        ("imatrix vocabulary.gguf -f TEXT -o none.gguf", 1),
        ("generate evil.gguf -p Once -n 24", 0),
        ("generate evil.gguf -p Once -n 24 --json", 0),
        ("generate evil.gguf -p Once -n 24 --chat --temperature 1.5 --seed 1 --top-k 0 --min-p 0", 0),
        ("generate NAME -p Once -n 4 -c 3000", 0),
        ("generate refusing.gguf -p Once --chat", 1),
        ("generate undefined.gguf -p Once --chat --json", 1),
        ("generate vocabulary.gguf -p Once --debug", 1),
        ("generate PAYLOAD -p x", 1),
        ("formats PAYLOAD", 2),
        ("formats", 0),
    ],
)
def test_no_command_lets_a_file_steer_the_terminal(place: Path, arguments: str, status: int) -> None:
    words = {"NAME": file_name(".gguf"), "TEXT": file_name(".txt"), "PAYLOAD": PAYLOAD.replace("\0", "")}
    sent = sent_by(place, *(words.get(word, word) for word in arguments.split()), status=status)
    assert arguments in SILENT or "x1b" in sent or "u001b" in sent, ascii(sent)


def test_an_importance_matrix_does_not_either(place: Path) -> None:
    from helpers import imatrices

    raw = imatrices.gguf_file(entries=imatrices.keys(datasets=list(VARIANTS.values())))
    (place / "named.gguf").write_bytes(raw)
    assert "\\x1b" in sent_by(place, "inspect", "named.gguf", status=0)


SILENT = (  # they show names that were made fit for files, or nothing of the file
    "perplexity evil.gguf -f text.txt -c 32 --chunks 2",
    "imatrix vocabulary.gguf -f TEXT -o none.gguf",
    "generate NAME -p Once -n 4 -c 3000",
    "generate undefined.gguf -p Once --chat --json",
    "formats",
)


def checkpoint(folder: Path, **changes: object) -> Path:
    """A copy of an oracle with other entries in its JSON files: "config.json:architectures" -> value."""
    folder.mkdir()
    for path in oracles.folder("llama-spm").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for place, value in changes.items():
        name, key = place.split(":", 1)
        file = folder / name
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps(content | {key: value}))
    return folder


SURROGATES = PAYLOAD + "\udc9b\udfff\ud800"  # in an order that makes no pair
CHANGES = {
    "config.json:architectures": [SURROGATES],
    "config.json:hidden_act": SURROGATES,
    "config.json:rope_scaling": {"type": SURROGATES, "rope_type": SURROGATES, "factor": 2.0},
    "config.json:quantization_config": {"quant_method": SURROGATES},
    "config.json:" + PAYLOAD: SURROGATES,
    "tokenizer_config.json:chat_template": "{% " + PAYLOAD,
    "tokenizer_config.json:bos_token": SURROGATES,
    "tokenizer_config.json:added_tokens_decoder": {"5": {"content": SURROGATES, "special": True}},
    "added_tokens.json:" + PAYLOAD: 99999999,
    "special_tokens_map.json:bos_token": {"content": SURROGATES},
    "generation_config.json:eos_token_id": SURROGATES,
    "model.safetensors.index.json:weight_map": {SURROGATES: SURROGATES},
}


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_no_checkpoint_does(number: int, tmp_path: Path) -> None:
    change = list(CHANGES)[number]
    folder = checkpoint(tmp_path / file_name(""), **{change: CHANGES[change]})
    for arguments in (["inspect", folder], ["convert", folder, "-t", "Q8_0", "--dry-run"]):
        code, sent = on_terminal(tmp_path, *arguments)
        assert code in (0, 1) and "error: unexpected" not in sent, sent
        assert not FORBIDDEN.findall(sent), ascii(sent)


def test_raw_is_for_those_who_ask(place: Path) -> None:
    plain, raw = (
        subprocess.run(
            [sys.executable, "-m", "quantcli", "generate", "evil.gguf", "-p", "Once", "-n", "24", *more],
            cwd=place, capture_output=True, check=True,
        ).stdout.decode()
        for more in ((), ("--raw",))
    )  # fmt: skip
    assert FORBIDDEN.findall(raw) and not FORBIDDEN.findall(plain)  # a pipe may end on a terminal
    assert plain == terminal.printable(raw)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_split_over_two_tokens_is_escaped_as_a_whole(
    variant: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Characters in byte tokens, escape sequences in several tokens: every cut of every variant."""
    metadata = container.read_header(place / "good.gguf").metadata
    tokenizer = Tokenizer.from_metadata(metadata)
    ids = [tokenizer.ids[f"<0x{byte:02X}>"] for byte in VARIANTS[variant].encode()]
    reporter = terminal.Reporter()
    for piece in tokenizer.stream(ids):
        reporter.text(piece)
    assert capsys.readouterr().out == terminal.printable(VARIANTS[variant])


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_escaped_and_says_the_same(encoding: str, tmp_path: Path) -> None:
    program = (
        "import json, sys; from quantcli.report.terminal import Reporter\n"
        "Reporter(as_json=True).result({'text': json.load(sys.stdin)})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(SURROGATES).encode(), capture_output=True, check=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    text = done.stdout.decode(encoding)
    assert not FORBIDDEN.findall(text) and json.loads(text) == {"text": SURROGATES}
