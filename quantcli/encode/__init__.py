"""Slabs of rows from the source to every output: read once, encoded for every output, written in order."""
