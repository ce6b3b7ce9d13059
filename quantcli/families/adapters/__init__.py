"""Adapters: a LoRA of the package peft as a GGUF adapter (`load.py`), or merged into its base (`merge.py`)."""
