"""Run a model on the CPU to measure it: perplexity, divergence, importance, text.

`network.py` is the forward pass, driven by the families' graph flags and the file's metadata; `operations.py` is what
it computes with. The verbs are `perplexity.py`, `divergence.py`, `collect.py` and `generate.py`.
"""
