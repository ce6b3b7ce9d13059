"""Write csrc/grids.h: the grids of the codebook types, taken as data from the `gguf` package.

Run it after a change of the format (which has never happened): `python scripts/make_grids.py`. A point is stored as the
ranks of its levels, element 0 in the lowest bits: 2 bits for each of 8 elements, or 3 bits for each of 4.
"""

from __future__ import annotations

from pathlib import Path

GRIDS = {  # C name -> (class of gguf.quants, bits per element)
    "iq2_xxs": ("IQ2_XXS", 2),
    "iq2_xs": ("IQ2_XS", 2),
    "iq2_s": ("IQ2_S", 2),
    "iq1": ("IQ1_S", 2),
    "iq3_xxs": ("IQ3_XXS", 3),
    "iq3_s": ("IQ3_S", 3),
}
TARGET = Path(__file__).resolve().parent.parent / "csrc" / "grids.h"
HEAD = """/* grids.h - grids of the codebook types; written by scripts/make_grids.py from the gguf package, do not edit.
 *
 * A point is the ranks of its levels, element i in bits 2 i (8 elements: IQ1, IQ2) or 3 i (4 elements: IQ3).
 * qc_levels_* are the decoded magnitudes by rank (IQ1: -1, 0, 1, to which the shift of 1/8 is added). */
#ifndef QC_GRIDS_H
#define QC_GRIDS_H
#include <stdint.h>
"""


def grid_source(name: str, class_name: str, bits: int) -> str:
    """C text of one grid: its points as ranks, and its levels."""
    import gguf.quants
    import numpy as np

    quant = getattr(gguf.quants, class_name)
    quant.init_grid()
    grid = quant.grid.reshape(-1, quant.grid.shape[-1]).astype(int)
    levels = np.unique(grid)
    ranks = np.searchsorted(levels, grid)
    points = (ranks << (bits * np.arange(grid.shape[1]))).sum(axis=1)
    rows = [", ".join(f"0x{p:04x}" for p in points[i : i + 14]) for i in range(0, len(points), 14)]
    body = ",\n    ".join(rows)
    values = ", ".join(str(v) for v in levels)
    return (
        f"\nstatic const int8_t qc_levels_{name}[{len(levels)}] = {{{values}}};\n"
        f"static const uint16_t qc_grid_{name}[{len(points)}] = {{\n    {body}}};\n"
    )


def main() -> None:
    text = HEAD + "".join(grid_source(name, *spec) for name, spec in GRIDS.items()) + "\n#endif\n"
    TARGET.write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
