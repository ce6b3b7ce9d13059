/* tiles.h - LANES rows of packed weights side by side, as the kernels of batches read them (layouts: backend.h). */
#ifndef QC_RUNNER_TILES_H
#define QC_RUNNER_TILES_H
#include "backend.h"

/* Bytes of the parts of a tile. */
typedef struct {
    size_t values, scales, minima, total;
} tile_size;

enum { TILE_SCRATCH = 64 * 1024 };

/* Of a tile of so many columns. */
tile_size qc_size_of_tile(const runner_backend *backend, int32_t type, tile_kind kind, int64_t columns);

/* A run of rows' columns from `first` (whole blocks, and a multiple of 256) on. */
typedef struct {
    int64_t first, columns;
} column_run;

/* Fill the tile at `memory` (of qc_size_of_tile's size) with these columns of `count` (1 .. LANES) rows, which begin at
 * `rows`; the others repeat the first. scratch: TILE_SCRATCH bytes. */
void qc_fill_tile(const runner_backend *backend, const qc_product *product, tile_kind kind, column_run run,
                  const uint8_t *rows, int64_t count, uint8_t *memory, uint8_t *scratch);

/* The tile at `memory`. */
tile qc_tile_at(const runner_backend *backend, int32_t type, tile_size size, column_run run, const uint8_t *memory);

static inline size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }
static inline int64_t bytes_of_row(const runner_backend *backend, const qc_product *product) {
    const code_type *type = &backend->codes[product->type];
    return product->columns / type->block * type->bytes;
}
#endif
