"""--tensor-type and its file, --metadata, --split-max-size: what is taken, what is refused and how."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantcli
from quantcli.container import ValueType, boolean, f32, i32, string, strings, u16, u32
from quantcli.errors import BadOverride, MissingFile, QuantcliError, UnknownType, UsageError
from quantcli.plan import overrides


@pytest.mark.parametrize(("pattern", "name", "found"), [
    ("ffn_down", "blk.3.ffn_down.weight", True),
    ("output", "blk.3.attn_output.weight", True),
    ("^output\\.weight$", "blk.3.attn_output.weight", False),
    ("BLK\\.0\\.ATTN_Q", "blk.0.attn_q.weight", True),  # the tool lower-cases the pattern
    ("blk\\.(0|7)\\.", "blk.17.attn_q.weight", False),
    ("blk\\.[0-3]\\.ffn", "blk.3.ffn_up.weight", True),
    ("blk\\.\\D", "blk.3.x", True),  # \D is lower-cased to \d as well
    ("[[:digit:]]\\.attn", "blk.3.attn_q.weight", True),
    ("[^[:alpha:]._]{2}\\.", "blk.13.attn_q.weight", True),
    ("(?:a|b)k", "bk", True), ("a(?=b)", "ab", True), ("a(?!b)", "ab", False),
    ("\\a\\z", "az", True),  # letters without a meaning stand for themselves
    ("[]x", "x", False), ("[^]x", "yx", True), ("a{2,3}?b", "aab", True), ("[[a]b", "[b", True),
    ("[a&&b]", "&", True), ("\\x61", "a", True), ("\\u0061", "a", True), ("[\\d]", "7", True), ("ß", "ß", True),
])  # fmt: skip
def test_patterns(pattern: str, name: str, found: bool) -> None:
    assert overrides.parse(f"{pattern}=q8_0").matches(name) is found


@pytest.mark.parametrize("pattern", [
    "(", ")", "[a", "a**", "a*+", "a++", "*a", "a{", "a{x}", "a{2}{3}", "(?<=a)b", "(?i)a", "(?p<n>a)", "(?>a)", "a\\",
    "[[:foo:]]", "[b-a]", "\\2", "a{3,2}", "(?", "x" * 5000, "a{99999999999}", "\\x1",
])  # fmt: skip
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(BadOverride) as caught:
        overrides.parse(f"{pattern}=q8_0")
    assert pattern[:20] in caught.value.message.replace("\\\\", "\\") and caught.value.hint


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.*+?()[]{}|^$\\-:=!<0dwx,&~ ", max_size=14))
def test_any_pattern_compiles_or_is_refused(pattern: str) -> None:
    with contextlib.suppress(BadOverride):
        overrides.compile_pattern(pattern).search("blk.0.ab.weight")


def test_the_last_equals_sign_splits() -> None:
    override = overrides.parse("a=b=Q6_k")
    assert (override.pattern, override.type.name) == ("a=b", "Q6_K")


@pytest.mark.parametrize("text", ["", "=", "a=", "=q8_0", "q8_0"])
def test_not_an_override(text: str) -> None:
    with pytest.raises(BadOverride):
        overrides.parse(text)


@pytest.mark.parametrize("name", ["q4_k_m", "q8_K", "q8_1", "i32", "f64", "best", ""])
def test_not_a_weight_type(name: str) -> None:
    with pytest.raises(UnknownType) as caught:
        overrides.parse_tensor_type(name, "--output-tensor-type")
    assert caught.value.where == "--output-tensor-type"


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    path.write_text("attn_v=q8_0  ffn_down=Q6_K\n\n\toutput=f16\n")
    assert [(o.pattern, o.type.name) for o in overrides.parse_file(path)] == [
        ("attn_v", "Q8_0"), ("ffn_down", "Q6_K"), ("output", "F16")]  # fmt: skip


@pytest.mark.parametrize("content", [b"attn_v", b"a=q8_0 (=q8_0", b"a=nothing", b"\xff\xfe", b"a=q8_0 " * 200_000])
def test_bad_file_names_itself(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "types.txt"
    path.write_bytes(content)
    with pytest.raises(BadOverride, match="types.txt"):
        overrides.parse_file(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        overrides.parse_file(tmp_path / "none")


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("500M", 500_000_000), ("2g", 2_000_000_000), ("3K", 3000)])
def test_sizes(text: str, size: int) -> None:
    assert overrides.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "2T", "G", "1e9", "9" * 400])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        overrides.parse_size(text)


@pytest.mark.parametrize(("text", "kind", "data"), [
    ("k=7", ValueType.UINT32, 7), ("k=-7", ValueType.INT32, -7), ("k=5000000000", ValueType.UINT64, 5_000_000_000),
    ("k=0.5", ValueType.FLOAT32, 0.5), ("k=1e2", ValueType.FLOAT32, 100.0), ("k=true", ValueType.BOOL, True),
    ("k=a=b", ValueType.STRING, "a=b"), ("k=", ValueType.STRING, ""), ("k=str:7", ValueType.STRING, "7"),
    ("k=https://x.y", ValueType.STRING, "https://x.y"), ("k=u8:255", ValueType.UINT8, 255),
    ("k=int:7", ValueType.UINT32, 7), ("k=float:7", ValueType.FLOAT32, 7.0), ("k=i64:-1", ValueType.INT64, -1),
    ("k=bool:FALSE", ValueType.BOOL, False), ("k=f64:0.1", ValueType.FLOAT64, 0.1), ("k=nan", ValueType.STRING, "nan"),
    ("k=" + "9" * 30, ValueType.STRING, "9" * 30), ("k=1e99", ValueType.STRING, "1e99"),
])  # fmt: skip
def test_settings(text: str, kind: ValueType, data: object) -> None:
    value = overrides.parse_setting(text).value(None)
    assert (value.type, value.data) == (kind, data) and type(value.data) is type(data)


@pytest.mark.parametrize("text", [
    "", "k", "=1", "k=u8:256", "k=u32:-1", "k=bool:1", "k=i32:1.0", "k=f32:x", "k=f32:1e39", "k=f64:1e999",
    "general.alignment=64", "split.count=3", "general.architecture=gemma", "a\nb=1", "k=u32:" + "9" * 6000,
    "k=\udcff", "\udcff=1",
])  # fmt: skip
def test_bad_settings(text: str) -> None:
    with pytest.raises(QuantcliError):
        overrides.parse_setting(text)


def test_the_type_that_is_there_wins_where_the_text_fits() -> None:
    """Loaders insist on exact types: 10000 for a key that holds a float must stay a float."""
    present = {"base": f32(1.0), "count": u16(3), "flag": boolean(True), "bias": i32(0), "list": strings(["a"])}
    given = ["base=10000", "count=4", "flag=false", "bias=5", "list=6", "new=7"]
    result = overrides.apply_settings(present, [overrides.parse_setting(text) for text in given])
    assert list(result) == ["base", "count", "flag", "bias", "list", "new"]
    assert [(v.type.name, v.data) for v in result.values()] == [
        ("FLOAT32", 10000.0), ("UINT16", 4), ("BOOL", False), ("INT32", 5), ("UINT32", 6), ("UINT32", 7)]  # fmt: skip
    widened = overrides.apply_settings(present, [overrides.parse_setting("count=70000")])
    assert widened["count"] == u32(70000)


@pytest.mark.parametrize("key", ["general.tags", "general.languages"])
@pytest.mark.parametrize(
    ("text", "items"), [("a,b", ["a", "b"]), ("a", ["a"]), (" a , b ,", ["a", "b"]), ("", []), ("1,2", ["1", "2"])]
)
@pytest.mark.parametrize("present", [None, ["x"], []])
def test_keys_that_hold_lists(key: str, text: str, items: list[str], present: list[str] | None) -> None:
    there = {} if present is None else {key: strings(present)}
    found = overrides.apply_settings(there, [overrides.parse_setting(f"{key}={text}")])
    assert found[key] == strings(items)


def test_a_named_type_is_no_list_and_other_keys_take_the_comma() -> None:
    found = overrides.apply_settings({}, [overrides.parse_setting(t) for t in ("general.tags=str:a,b", "my.key=a,b")])
    assert found == {"general.tags": string("a,b"), "my.key": string("a,b")}
    listed = {"my.key": strings(["x"])}
    assert overrides.apply_settings(listed, [overrides.parse_setting("my.key=a,b")]) == {"my.key": strings(["a", "b"])}


def test_the_types_of_a_file(root: Path, tmp_path: Path) -> None:
    """A GGUF file as --tensor-type-file: the same types again, whatever the recipe."""
    convert = root / "examples" / "tiny"
    quantcli.convert(convert, "IQ4_XS", output=tmp_path / "a.gguf", tensor_types=["attn_v=q3_k"])
    again = quantcli.convert(
        convert, "Q8_0", output=tmp_path / "b.gguf", tensor_type_file=tmp_path / "a.gguf", split_max_size="500K"
    )
    found = quantcli.diff(tmp_path / "a.gguf", again.outputs[0].files[0])
    assert all(tensor.same for tensor in found.tensors) and {"Q3_K", "IQ4_XS"} <= {one.type_a for one in found.tensors}
    from_shards = overrides.parse_file(again.outputs[0].files[0])
    assert from_shards == overrides.parse_file(tmp_path / "a.gguf") and len(from_shards) == 29
    matrix = quantcli.imatrix(convert, tmp_path / "m.gguf", length=32, chunks=1)
    with pytest.raises(quantcli.QuantcliError):
        quantcli.convert(convert, "Q8_0", output=tmp_path / "c.gguf", tensor_type_file=matrix.output)
    (tmp_path / "d.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(quantcli.QuantcliError):
        overrides.parse_file(tmp_path / "d.gguf")
