/* shell_tables.h - the grid points that ggml's codebook searches look at, built at first use (1 to 7 ms each).
 *
 * A shell is all grid points at one distance from an integer point, measured on ggml's levels 1, 3, 5 ... A point off
 * the grid has the points of its two or so (by type) innermost shells as neighbours, by distance, then grid index. */
#ifndef QC_SHELL_TABLES_H
#define QC_SHELL_TABLES_H
#include "codebook_tables.h"

typedef struct {
    uint32_t at;    /* of its first neighbour in `points` */
    uint16_t count; /* of neighbours; 0: it is on the grid */
    uint16_t point; /* itself, packed */
} qc_shell;

typedef struct {
    qc_shell shells[6561]; /* by the number of the integer point (codebook_tables.h) */
    uint16_t points[];     /* packed grid points; every list begins at a multiple of eight and may be read in eights */
} qc_shells;

/* NULL when memory ran out. Thread-safe; the table lives as long as the process. */
const qc_shells *qc_shells_of(int grid);
#endif
