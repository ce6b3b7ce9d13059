#!/usr/bin/env python3
"""Write csrc/grids.h: the vectors of ggml's codebook types, taken as data from the `gguf` package.

    python scripts/make_grids.py > csrc/grids.h

A grid is a table of vectors of 8 (or 4) signed bytes, in index order; it is part of the file format. Byte i of an
entry (little endian) is element i of the vector.
"""

from __future__ import annotations

from gguf import quants

# name in C -> (class of the gguf package, elements, what it is for)
GRIDS = {
    "qc_grid_iq2_xxs": (quants.IQ2_XXS, "IQ2_XXS: 256 vectors of 8, levels 8 25 43"),
    "qc_grid_iq2_xs": (quants.IQ2_XS, "IQ2_XS: 512 vectors of 8, levels 8 25 43"),
    "qc_grid_iq2_s": (quants.IQ2_S, "IQ2_S: 1024 vectors of 8, levels 8 25 43"),
    "qc_grid_iq3_xxs": (quants.IQ3_XXS, "IQ3_XXS: 256 vectors of 4, levels 4 12 20 28 36 44 52 62"),
    "qc_grid_iq3_s": (quants.IQ3_S, "IQ3_S: 512 vectors of 4, levels 1 3 5 7 9 11 13 15"),
    "qc_grid_iq1": (quants.IQ1_S, "IQ1_S and IQ1_M: 2048 vectors of 8, levels -1 0 1"),
}


def rows(cls) -> list[int]:
    """Every vector as one little-endian integer."""
    cls.init_grid()
    grid = cls.grid.reshape(cls.grid_shape)
    return [int.from_bytes(vector.astype("int8").tobytes(), "little") for vector in grid]


def main() -> None:
    print("/* grids.h - the vectors of the codebook types; written by scripts/make_grids.py, don't edit. */")
    print("#ifndef QC_GRIDS_H\n#define QC_GRIDS_H\n#include <stdint.h>\n")
    for name, (cls, text) in GRIDS.items():
        bits = 8 * cls.grid_shape[1]
        values = [f"0x{value:0{bits // 4}x}" for value in rows(cls)]
        print(f"/* {text} */\n__attribute__((unused)) static const uint{bits}_t {name}[{len(values)}] = {{")
        per_line = 5 if bits == 64 else 9
        for start in range(0, len(values), per_line):
            print("    " + ", ".join(values[start : start + per_line]) + ",")
        print("};\n")
    print("#endif")


if __name__ == "__main__":
    main()
