"""Slabs of rows from the source to every output: read once, encoded for each output while in cache, written in order."""
