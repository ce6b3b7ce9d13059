"""quantcli: from a Hugging Face checkpoint to quantized GGUF files."""

__version__ = "0.1.0"
