"""Importance matrices: mean squared activations per input column, as llama.cpp's imatrix tool collects them.

Reads and writes both file formats (GGUF and the legacy .dat), merges, filters, and describes. The encoders minimise
errors weighted with these values.
"""

from __future__ import annotations

from quantcli.statistics.imatrix.importance import SPARED, Importance, merge, missing, values
from quantcli.statistics.imatrix.read_formats import read
from quantcli.statistics.imatrix.summary import statistics
from quantcli.statistics.imatrix.write_formats import to_dat_bytes, to_gguf_bytes

__all__ = ["SPARED", "Importance", "merge", "missing", "read", "statistics", "to_dat_bytes", "to_gguf_bytes", "values"]
