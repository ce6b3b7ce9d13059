"""A Modelfile for `ollama create`: the file, and what the model itself says of sampling and of the end of a text."""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.container import Value

_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
}
_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")


def text(file: str, metadata: Mapping[str, Value]) -> str:
    """The Modelfile of ``file``, which lies beside it. Ollama takes the chat template from the file itself."""
    lines = [f"FROM ./{file}"]
    for key, parameter in _SAMPLING.items():
        if key in metadata:
            lines.append(f"PARAMETER {parameter} {metadata[key].data:.6g}")
    if "tokenizer.chat_template" in metadata:
        lines += [f'PARAMETER stop "{token}"' for token in _ends(metadata)]
    license_name = metadata.get("general.license")
    if license_name is not None:
        lines.append(f'LICENSE "{license_name.data}"')
    return "\n".join(lines) + "\n"


def _ends(metadata: Mapping[str, Value]) -> list[str]:
    """Texts of the tokens that end an answer."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    numbers = [metadata[key].data for key in _ENDS if key in metadata]
    if tokens is None:
        return []
    found = [tokens.data[number] for number in dict.fromkeys(numbers) if 0 <= number < len(tokens.data)]
    return [token for token in found if '"' not in token and "\n" not in token]
