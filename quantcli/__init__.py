"""quantcli: from a Hugging Face checkpoint to quantized GGUF files.

The functions of `quantcli.api` are here as well (docs/python.md); nothing of them is loaded before one is used.
"""

__version__ = "0.1.0"

__all__ = (
    "Progress", "QuantcliError", "QuantcliWarning", "card", "compare", "convert", "decode_blocks", "detokenize", "diff",
    "encode_blocks", "imatrix", "inspect", "perplexity", "release", "reproduce", "tokenize", "verify",
)  # fmt: skip


def __getattr__(name: str) -> object:
    """One of the names above, or a package below that was not imported yet."""
    if name not in __all__:
        raise AttributeError(f"module 'quantcli' has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module("quantcli.api"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
