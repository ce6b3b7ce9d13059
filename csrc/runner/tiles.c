/* tiles.c - each row is decoded or unpacked to a buffer, a chunk of columns at a time; then the buffers side by side.
 */
#include "tiles.h"
#include <string.h>

/* Where the packed rows lie, and how many columns of them are done at a time. */
typedef struct {
    const runner_backend *backend;
    const code_type *type;
    const uint8_t *rows;
    int64_t count, row_bytes, first, columns;
} source;

/* The blocks of row r from the run's `column` on. */
static const uint8_t *blocks_at(const source *s, int64_t r, int64_t column) {
    return s->rows + r * s->row_bytes + (s->first + column) / s->type->block * s->type->bytes;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void fill_floats(const source *s, const qc_type *packed, float *floats, float *scratch) {
    enum { CHUNK = 512, STRIDE = CHUNK + 16 };
    const uint32_t *lanes[LANES];
    for (int64_t r = 0; r < LANES; ++r) lanes[r] = (const uint32_t *)(scratch + (r < s->count ? r : 0) * STRIDE);
    for (int64_t column = 0; column < s->columns; column += CHUNK) {
        int64_t n = least(s->columns - column, CHUNK);
        for (int64_t r = 0; r < s->count; ++r)
            packed->decode(blocks_at(s, r, column), n / packed->block, scratch + r * STRIDE);
        s->backend->interleave(lanes, n, (uint32_t *)floats + column * LANES);
    }
}

/* BF16 rows as they are, two columns to a word. */
static void fill_pairs(const source *s, uint32_t *pairs, uint32_t *scratch) {
    enum { CHUNK = 512, STRIDE = CHUNK + 16 };
    const uint32_t *lanes[LANES];
    for (int64_t r = 0; r < LANES; ++r) lanes[r] = scratch + (r < s->count ? r : 0) * STRIDE;
    const int64_t words = (s->columns + 1) / 2;
    for (int64_t first = 0; first < words; first += CHUNK) {
        int64_t n = least(words - first, CHUNK), bytes = least(s->columns * 2 - first * 4, n * 4);
        for (int64_t r = 0; r < s->count; ++r) {
            scratch[r * STRIDE + n - 1] = 0;
            memcpy(scratch + r * STRIDE, blocks_at(s, r, 2 * first), (size_t)bytes);
        }
        s->backend->interleave(lanes, n, pairs + first * LANES);
    }
}

enum { CODE_CHUNK = 256, CODE_STRIDE = CODE_CHUNK + 64, MOST_SUBS = CODE_CHUNK / 16 };

/* One chunk of LANES rows before it is interleaved. */
typedef struct {
    uint8_t codes[LANES][CODE_STRIDE];
    int16_t words[LANES][CODE_STRIDE];
    float scales[LANES][MOST_SUBS], minima[LANES][MOST_SUBS];
} code_chunk;
_Static_assert(sizeof(code_chunk) <= TILE_SCRATCH, "the scratch holds a chunk");

/* Rows lie far apart, so what comes next of each is asked for: processors hardly guess it. */
static void unpack_chunk(const source *s, int64_t column, int64_t n, int wide, code_chunk *chunk) {
    const int64_t bytes = n / s->type->block * s->type->bytes;
    for (int64_t r = 0; r < s->count; ++r) {
        uint8_t *u = chunk->codes[r];
        for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(blocks_at(s, r, column + n) + byte);
        s->type->unpack(blocks_at(s, r, column), n / s->type->block, u, chunk->scales[r], chunk->minima[r]);
        if (wide)
            for (int64_t i = 0; i < n; ++i) chunk->words[r][i] = (int16_t)(u[i] + s->type->low);
        else if (s->backend->signed_codes)
            for (int64_t i = 0; i < n; ++i) u[i] = (uint8_t)(u[i] + s->type->low);
    }
}

/* Bytes of the chunk's rows: high in `codes`, low in `words`. */
static void fill_split(const source *s, splitter split, uint8_t *high, float *scales, float *minima,
                       code_chunk *chunk) {
    const uint32_t *high_of[LANES], *low_of[LANES], *minima_of[LANES];
    uint8_t *low = high + s->columns * LANES;
    for (int64_t r = 0; r < LANES; ++r) {
        const int64_t from = r < s->count ? r : 0;
        high_of[r] = (const uint32_t *)chunk->codes[from], low_of[r] = (const uint32_t *)chunk->words[from];
        minima_of[r] = (const uint32_t *)chunk->minima[from];
    }
    const int64_t sub = s->type->sub;
    for (int64_t column = 0; column < s->columns; column += CODE_CHUNK, scales += LANES) {
        for (int64_t r = 0; r < s->count; ++r)
            split(blocks_at(s, r, column), 1, chunk->codes[r], (uint8_t *)chunk->words[r], scales + r,
                  chunk->minima[r]);
        for (int64_t r = s->count; r < LANES; ++r) scales[r] = scales[0];
        s->backend->interleave(high_of, CODE_CHUNK / 4, (uint32_t *)high + column / 4 * LANES);
        s->backend->interleave(low_of, CODE_CHUNK / 4, (uint32_t *)low + column / 4 * LANES);
        if (s->type->minima)
            s->backend->interleave(minima_of, CODE_CHUNK / sub, (uint32_t *)minima + column / sub * LANES);
    }
}

static void fill_codes(const source *s, int wide, uint8_t *codes, float *scales, float *minima, code_chunk *chunk) {
    const uint32_t *values_of[LANES], *scales_of[LANES], *minima_of[LANES];
    const int64_t sub = s->type->sub, per_word = wide ? 2 : 4;
    for (int64_t r = 0; r < LANES; ++r) {
        int64_t from = r < s->count ? r : 0;
        values_of[r] = wide ? (const uint32_t *)chunk->words[from] : (const uint32_t *)chunk->codes[from];
        scales_of[r] = (const uint32_t *)chunk->scales[from], minima_of[r] = (const uint32_t *)chunk->minima[from];
    }
    for (int64_t column = 0; column < s->columns; column += CODE_CHUNK) {
        int64_t n = least(s->columns - column, CODE_CHUNK);
        unpack_chunk(s, column, n, wide, chunk);
        s->backend->interleave(values_of, n / per_word, (uint32_t *)codes + column / per_word * LANES);
        s->backend->interleave(scales_of, n / sub, (uint32_t *)scales + column / sub * LANES);
        if (s->type->minima) s->backend->interleave(minima_of, n / sub, (uint32_t *)minima + column / sub * LANES);
    }
}

tile_size qc_size_of_tile(const runner_backend *backend, int32_t of_type, tile_kind kind, int64_t columns) {
    const code_type *type = &backend->codes[of_type];
    const size_t even = (size_t)(columns + columns % 2);
    tile_size size = {aligned(even * LANES * (kind == TILE_NARROW ? 1 : kind == TILE_FLOATS ? 4 : 2)), 0, 0, 0};
    if (type->sub) size.scales = aligned((size_t)(columns / type->sub) * LANES * 4);
    if (type->minima) size.minima = size.scales;
    size.total = size.values + size.scales + size.minima;
    return size;
}

void qc_fill_tile(const runner_backend *backend, const qc_product *product, tile_kind kind, column_run run,
                  const uint8_t *rows, int64_t count, uint8_t *memory, uint8_t *scratch) {
    const code_type *type = &backend->codes[product->type];
    const source s = {backend, type, rows, count, bytes_of_row(backend, product), run.first, run.columns};
    const tile_size size = qc_size_of_tile(backend, product->type, kind, run.columns);
    float *scales = (float *)(void *)(memory + size.values);
    float *minima = (float *)(void *)(memory + size.values + size.scales);
    void *values = memory, *room = scratch;
    switch (kind) {
    case TILE_FLOATS: fill_floats(&s, &backend->types[product->type], values, room); break;
    case TILE_PAIRS: fill_pairs(&s, values, room); break;
    case TILE_SPLIT: fill_split(&s, backend->splitters[product->type], values, scales, minima, room); break;
    default: fill_codes(&s, kind == TILE_WIDE, values, scales, minima, room);
    }
}

tile qc_tile_at(const runner_backend *backend, int32_t of_type, tile_size size, column_run run, const uint8_t *memory) {
    const code_type *type = &backend->codes[of_type];
    const float *scales = (const float *)(const void *)(memory + size.values);
    const float *minima = (const float *)(const void *)(memory + size.values + size.scales);
    return (tile){.first = run.first,
                  .columns = run.columns,
                  .values = memory,
                  .scales = scales,
                  .minima = type->minima ? minima : 0,
                  .sub = type->sub,
                  .low = type->low,
                  .span = type->span,
                  .folded = type->folded};
}
