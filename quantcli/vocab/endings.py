"""Which tokens end a generation, as llama.cpp's loader decides it from ids and texts."""

from __future__ import annotations

from collections.abc import Mapping

_END_OF_TURN = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
    "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
)  # fmt: skip
_END_OF_MESSAGE = ("<|eom_id|>",)
_OTHER_ENDS = (
    "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "</s>", "<|eom_id|>", "[EOS]", "<eos>", "<turn|>",
    "<|tool_response>", "[e~[",
)  # fmt: skip
_FILL_ENDS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
ALWAYS_TEXT = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")  # forced to be user-defined


def detect(special: dict[str, int | None], ids: Mapping[str, int]) -> None:
    """Fill in the ids that the file does not name ("eot", "eom", "fim_pad", ...) by the texts of tokens."""
    for kind, texts in {"eot": _END_OF_TURN, "eom": _END_OF_MESSAGE, **_FILL_ENDS}.items():
        if special.get(kind) is None:
            special[kind] = next((ids[text] for text in texts if text in ids), None)


def by_text(ids: Mapping[str, int]) -> set[int]:
    """Ids of the tokens whose text alone says that they end a generation."""
    return {ids[text] for text in (*_END_OF_TURN, *_OTHER_ENDS) if text in ids}


def end_ids(special: Mapping[str, int | None], ids: Mapping[str, int]) -> frozenset[int]:
    """All ids that end a generation."""
    found = by_text(ids) | {special.get(kind) for kind in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")}
    if "<|return|>" in ids and ("<|call|>" in ids or ("<|calls|>" in ids and "<|flush|>" in ids)):
        found.discard(ids.get("<|end|>"))
    if "<|tool_response>" in ids or "<|plamo:eos|>" in ids:
        found.discard(ids.get("</s>"))
    return frozenset(token for token in found if token is not None)
