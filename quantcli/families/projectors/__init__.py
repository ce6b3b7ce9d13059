"""Projectors: what turns images or sounds into embeddings of a language model, a GGUF file of its own ("mmproj").

Declared like families, with the same rules and transforms: a file per tower, rows in ``PROJECTORS``. `load.py` applies
them, `tower.py` has the pieces that most share.
"""
