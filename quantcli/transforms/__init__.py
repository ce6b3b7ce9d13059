"""Exact rewrites of a model before it is encoded: the same function of its inputs, in weights that lose less."""
