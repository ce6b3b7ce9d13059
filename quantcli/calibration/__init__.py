"""Observers of the runner that fill statistics: importance matrices today."""
