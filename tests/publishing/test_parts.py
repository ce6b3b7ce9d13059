"""The parts of a release: which file to take, names, cards, Modelfiles, statements and signatures."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from helpers.schemas import require_valid
from quantcli import container
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.commands.conventional import conventional
from quantcli.errors import MalformedFile, MissingFile, OutputExists, OutputFailed, UsageError
from quantcli.publishing import advice, attest, card, modelfile
from quantcli.publishing.advice import Measured
from quantcli.report import card_text

# SmolLM2-135M-Instruct: Q4_0 is larger than IQ4_XS and farther from the model
SMOL = [
    Measured("q8.gguf", "Q8_0", 145_000_000, 0.0053),
    Measured("q4km.gguf", "Q4_K_M", 105_000_000, 0.0482),
    Measured("q40.gguf", "Q4_0", 92_000_000, 0.191),
    Measured("iq4xs.gguf", "IQ4_XS", 90_000_000, 0.06),
    Measured("q2k.gguf", "Q2_K", 88_000_000, 0.267),
]


def test_a_larger_file_that_is_farther_away_is_not_to_be_published() -> None:
    assert advice.better(SMOL[2], SMOL) is SMOL[3]
    assert [one.type for one in advice.worth_it(SMOL)] == ["Q8_0", "Q4_K_M", "IQ4_XS", "Q2_K"]
    assert advice.note(SMOL[2], SMOL) == "**not recommended**: IQ4_XS is smaller and closer"
    assert advice.recommended(SMOL) is SMOL[1] and advice.note(SMOL[1], SMOL) == "**the usual choice**"


@pytest.mark.parametrize(("budget", "name"), [(200, "Q8_0"), (120, "Q4_K_M"), (93, "IQ4_XS"), (89, "Q2_K"), (80, None)])
def test_for_a_memory_budget_the_lowest_divergence(budget: int, name: str | None) -> None:
    found = advice.for_memory(SMOL, budget * 1_000_000)
    assert (found and found.type) == name


def test_without_measurements_the_usual_type() -> None:
    files = [Measured(one.name, one.type, one.bytes, None) for one in SMOL]
    assert advice.recommended(files) is files[1] and advice.better(files[2], files) is None
    assert advice.for_memory(files, 93_000_000) is files[2]
    assert advice.recommended([]) is None


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        (
            {"basename": "Mixtral", "size_label": "8x7B", "finetune": "Instruct", "version": "v0.1"},
            "Mixtral-8x7B-Instruct-v0.1",
        ),
        ({"basename": "Hermes", "size_label": "7B", "version": "2"}, "Hermes-7B-v2"),
        ({"size_label": "135M"}, "folder-135M-v1.0"),
        ({"basename": "a b/c", "finetune": "x|y"}, "a-b-c-x-y-v1.0"),
    ],
)  # fmt: skip
def test_names_by_the_convention(entries: dict[str, str], name: str) -> None:
    metadata = {f"general.{key}": container.string(text) for key, text in entries.items()}
    assert conventional(metadata, "folder") == name


def test_convert_calls_files_so(root: Path, tmp_path: Path) -> None:
    asked = convert_request(
        source=root / "examples" / "tiny",
        types=("Q4_0", "Q8_0"),
        output=f"{tmp_path}/",
        names="convention",
        dry_run=True,
    )
    names = [Path(one["path"]).name for one in convert.run(asked)["outputs"]]
    assert names == ["tiny-2.9M-v1.0-Q4_0.gguf", "tiny-2.9M-v1.0-Q8_0.gguf"]
    with pytest.raises(UsageError, match="no names"):
        convert_request(source=tmp_path, types=("Q4_0",), names="pretty")


def test_a_modelfile_says_what_the_model_says() -> None:
    metadata = {
        "general.sampling.temp": container.f32(0.7),
        "general.license": container.string("mit"),
        "tokenizer.chat_template": container.string("x"),
        "tokenizer.ggml.tokens": container.strings(["a", "<end>"]),
        "tokenizer.ggml.eos_token_id": container.u32(1),
        "tokenizer.ggml.eot_token_id": container.u32(1),
    }
    assert modelfile.text("m.gguf", metadata) == (
        'FROM ./m.gguf\nPARAMETER temperature 0.7\nPARAMETER stop "<end>"\nLICENSE "mit"\n'
    )
    assert modelfile.text("m.gguf", {}) == "FROM ./m.gguf\n"


# ---- card


@pytest.fixture
def folder(root: Path, tiny_files: dict[str, Path], tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    for path in tiny_files.values():
        shutil.copy(path, made)
    return made


def test_a_card_of_any_folder(folder: Path) -> None:
    found = card.run(folder)
    require_valid("card", found)
    page = (folder / "README.md").read_text()
    assert page.startswith("---\n") and card_text.MARK in page and found["picture"] is None
    assert [one["type"] for one in found["files"]] == ["BF16", "Q8_0", "Q4_K_M", "Q2_K"]
    assert "`tiny-Q4_K_M.gguf`" in page and "**the usual choice**" in page
    card.run(folder)  # its own page is written again
    (folder / "README.md").write_text("mine")
    with pytest.raises(OutputExists, match=r"README\.md"):
        card.run(folder)
    card.run(folder, force=True, fields={"license": "mit", "base_model": "org/base"})
    page = (folder / "README.md").read_text()
    assert 'license: "mit"' in page and "[org/base](" in page


def test_front_matter_is_what_yaml_readers_understand(folder: Path) -> None:
    import yaml

    card.run(folder, fields={"base_model": "org/base", "language": ["en", "no"], "thing": 'a: "b" # c'})
    found = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert found["language"] == ["en", "no"] and found["thing"] == 'a: "b" # c' and "gguf" in found["tags"]


def test_texts_of_strangers_do_not_become_markup(root: Path, tmp_path: Path) -> None:
    name = "<script>|[x](javascript:y)`\x1b"
    asked = convert_request(
        source=root / "examples" / "tiny", types=("Q4_0",), output=f"{tmp_path}/", metadata=(f"general.name={name}",)
    )
    convert.run(asked)
    card.run(tmp_path)
    page = (tmp_path / "README.md").read_text()
    title = next(line for line in page.splitlines() if line.startswith("# "))
    assert title.startswith("# \\<script\\>\\|\\[x\\](javascript:y)\\`")
    assert "\x1b" not in page


def test_figures_of_other_files_are_left_out(folder: Path) -> None:
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.gguf")}
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    kld = {"mean": 0.01, "se": 0.001}
    models = [{"name": name[:-5], "text": "t", "kld": kld, "bytes": 1} for name in sums]
    raw = {
        "schema": 1, "command": "c", "date": "d", "quantcli": "0", "texts": [{"name": "t", "sha256": "0"}],
        "reference": {}, "files": {**sums, "tiny-Q2_K.gguf": "another"}, "results": [],
    }  # fmt: skip
    (folder / "measurements.json").write_text(json.dumps(raw | {"results": [{"models": models}]}))
    listed = card.table(folder, card.models(folder), card.measurements(folder))
    assert [one["kld"] for one in listed] == [0.01, 0.01, 0.01, None]
    for text in ("{", '{"schema": 2}', '{"schema": 1, "results": [1]}', "[]"):
        (folder / "measurements.json").write_text(text)
        with pytest.raises(MalformedFile):
            card.run(folder)


def test_folders_without_models(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no GGUF"):
        card.run(tmp_path)
    with pytest.raises(MissingFile, match="no such folder"):
        card.run(tmp_path / "no")


# ---- statements


def subjects(folder: Path) -> list[attest.Subject]:
    return [attest.subject(path, [("wiki", 0.05)]) for path in sorted(folder.glob("*.gguf"))]


def test_the_statement_names_files_options_and_materials(folder: Path) -> None:
    found = attest.in_toto(subjects(folder))
    assert found["_type"] == "https://in-toto.io/Statement/v1" and len(found["subject"]) == 4
    for one in found["subject"]:
        assert one["digest"]["sha256"] == hashlib.sha256((folder / one["name"]).read_bytes()).hexdigest()
    build = found["predicate"]["buildDefinition"]
    assert build["externalParameters"]["tiny-Q8_0.gguf"] == {"type": "Q8_0"}
    assert "model.safetensors" in {one["name"] for one in build["resolvedDependencies"]}
    assert attest.in_toto(subjects(folder)) == found


def test_the_bill_of_materials_fits_its_schema(folder: Path) -> None:
    cyclonedx = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    bom = attest.cyclonedx(subjects(folder))
    validator = cyclonedx.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bom)) is None
    assert validator.validate_str(json.dumps(bom | {"serialNumber": "x"})) is not None
    assert bom["components"][1]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["slice"] == "wiki"


def test_model_signing_verifies_the_manifest(folder: Path, tmp_path: Path) -> None:
    """The package's own signer signs our statement with a key; its verifier compares it with the folder."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from model_signing import hashing, signing, verifying

    (folder / "below").mkdir()
    (folder / "below" / "x.txt").write_text("x")
    (folder / "release.json").write_text("{}")
    statement = attest.signing_statement(folder, ["release.json"])
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "key.pub").write_bytes(public)
    payload, kind = json.dumps(statement).encode(), "application/vnd.in-toto+json"
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(public).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(private.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()}],
        },
    }
    (folder / "model.sig").write_text(json.dumps(bundle))
    config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "key.pub")
    config.verify(folder, folder / "model.sig")
    (folder / "below" / "x.txt").write_text("y")
    with pytest.raises(ValueError, match="mismatch|match"):
        verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "key.pub").verify(
            folder, folder / "model.sig"
        )
    assert hashing and signing


def test_signing_runs_the_users_command(tmp_path: Path) -> None:
    target = tmp_path / "a b.json"
    target.write_text("{}")
    attest.sign("cp {} {}.sig", target)
    assert (tmp_path / "a b.json.sig").read_text() == "{}"
    attest.sign("test -f", target)
    for command, error in (
        ("false", OutputFailed),
        ("no-such-program-here", OutputFailed),
        ("'", UsageError),
        ("", UsageError),
    ):
        with pytest.raises(error):
            attest.sign(command, target)


def test_the_workflow_calls_what_exists(root: Path) -> None:
    import yaml

    from quantcli.cli.app import application

    job = yaml.safe_load((root / "examples" / "publish.yml").read_text())["jobs"]["publish"]
    lines = [step["run"].split(" > ")[0].split() for step in job["steps"] if "run" in step]
    commands = [words[1:] for words in lines if words[0] == "quantcli"]
    assert ["release", "release.toml", "--dry-run"] in commands and any("--yes" in words for words in commands)
    for words in commands:
        with pytest.raises(MissingFile, match=r"release\.toml"):  # the options are known: what is missing is the file
            application([words[0]])(words, standalone_mode=False)
