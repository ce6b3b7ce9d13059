"""Options that the commands which run a model share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

Option = typer.Option
Context = Annotated[int, Option("--ctx", "-c", metavar="N", min=4, help="Tokens of a chunk.")]
ChunkLimit = Annotated[Optional[int], Option("--chunks", metavar="N", min=1, help="Run at most N chunks.")]
Threads = Annotated[Optional[int], Option("--threads", metavar="N", min=1, help="Worker threads. Default: all cores.")]
Activations = Annotated[
    Optional[str],
    Option(
        "--activations",
        metavar="KIND",
        help=(
            "How inputs of products are rounded: `q8` as llama.cpp does, `int16` (more exact), `float` (not at all). "
            "Default: q8 for quantized models, float for others."
        ),
    ),
]
Exact = Annotated[bool, Option("--exact", help="Float32 throughout: activations and KV cache.")]
ParseSpecial = Annotated[bool, Option("--parse-special", help="Read the texts of special tokens as these tokens.")]
KvType = Annotated[
    Optional[str], Option("--kv-type", metavar="T", help=("Type of the KV cache: F16 (default), Q8_0, Q4_0, F32."))
]

ByLayer = Annotated[
    bool,
    Option(
        "--layerwise",
        help=(
            "Layer by layer: every weight is read once, one layer is in memory, and hidden states wait on disk. "
            "The result is the same."
        ),
    ),
]
Resume = Annotated[
    bool, Option("--resume", help="With --layerwise: continue the interrupted run behind its last layer.")
]
States = Annotated[
    Optional[Path],
    Option(
        "--states",
        metavar="DIR",
        help="Where hidden states wait. Default: beside the output, or in the current folder.",
    ),
]

OnEngine = Annotated[
    Optional[str],
    Option(
        "--engine",
        metavar="URL",
        help="Who does the work in parts: dask://host:8786 (an existing cluster), local://N (N processes here).",
    ),
]


def use_threads(threads: int | None) -> None:
    """Tell numpy's BLAS how many threads it may use. Has to happen before numpy is imported."""
    if threads is not None:
        for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS"):
            os.environ[name] = str(threads)
