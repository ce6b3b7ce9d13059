/* matmul.c - products with packed weights: which rounding, which kernel, who does which rows.
 *
 * Batches: a panel of rows is unpacked once into the thread's tile (in its L2 cache) and meets every token. Few tokens:
 * rows are read as they lie in memory, once. */
#include "level.h"
#include "levels.h"
#include <string.h>

enum { FEW = 4, PANEL = 64, TILE_BYTES = 640 * 1024, ROWS_PER_UNIT = 16 };

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* ---- activations: one set per distinct (x, rounding) of a call */

typedef struct {
    rounding kind;
    int32_t wide; /* see activations */
    const float *x;
    int64_t stride, tokens, columns, group, groups;
    size_t group_bytes;
    uint8_t *memory; /* groups * group_bytes */
} prepared;

static int integers(rounding kind) { return kind > ROUND_BF16; }

/* Where the parts of a group lie; with memory == NULL only the size counts. */
static activations part(const prepared *p, int64_t group, size_t *bytes) {
    uint8_t *at = p->memory ? p->memory + (size_t)group * p->group_bytes : 0;
    size_t used = 0, g = (size_t)p->group, columns = (size_t)p->columns;
    int64_t block = p->kind == ROUND_Q8_K ? 256 : 32;
    activations a = {p->kind, p->columns, p->group, block, p->wide, 0, 0, 0, 0, 0, 0};
#define PLACE(field, size) (a.field = (const void *)(at ? at + used : 0), used += aligned(size))
    PLACE(values, columns * g * (!integers(p->kind) ? 4 : p->wide ? 2 : 1) + 64);
    if (integers(p->kind)) {
        PLACE(d, columns / (size_t)block * g * 4);
        PLACE(sum32, columns / 32 * g * 4);
        PLACE(sum16, columns / 16 * g * 4);
        PLACE(fsum32, columns / 32 * g * 4);
        PLACE(fsum16, columns / 16 * g * 4);
    }
#undef PLACE
    *bytes = used;
    return a;
}

typedef struct {
    const level *level;
    const prepared *sets;
    int32_t count, failed;
} rounding_job;

static void round_unit(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    rounding_job *job = argument;
    const prepared *p = job->sets;
    for (; unit >= p->groups; ++p) unit -= p->groups;
    void *scratch = qc_pool_scratch(pool, thread, ROUND_SCRATCH(p->columns));
    if (!scratch) {
        job->failed = 1; /* threads write nothing but 1 */
        return;
    }
    size_t bytes;
    activations a = part(p, unit, &bytes);
    int64_t left = p->tokens - unit * p->group;
    job->level->round_group(&a, p->x + unit * p->group * p->stride, p->stride, left < p->group ? left : p->group,
                            scratch);
}

/* ---- products */

typedef struct {
    const qc_product *product;
    const prepared *x;
    int64_t row_bytes, panel, units, chunks, chunk_groups;
} planned;

typedef struct {
    const level *level;
    const planned *plans;
    int32_t count, failed;
} product_job;

/* Rows of `count` (1 .. LANES) packed rows beginning at `first`, each decoded or unpacked to a buffer, then side by
 * side. */
static void fill_floats(const level *l, const planned *p, const uint8_t *rows, int64_t count, float *floats,
                        float *scratch) {
    const qc_type *type = &l->types[p->product->type];
    int64_t columns = p->product->columns, chunk = 512;
    for (int64_t column = 0; column < columns; column += chunk) {
        int64_t n = columns - column < chunk ? columns - column : chunk;
        const uint32_t *lanes[LANES];
        for (int64_t r = 0; r < LANES; ++r) {
            float *to = scratch + (r < count ? r : 0) * (chunk + 16);
            lanes[r] = (const uint32_t *)to;
            if (r < count)
                type->decode(rows + r * p->row_bytes + column / type->block * type->bytes, n / type->block, to);
        }
        l->interleave(lanes, n, (uint32_t *)floats + column * LANES);
    }
}

static void fill_codes(const level *l, const planned *p, const uint8_t *rows, int64_t count, int wide, uint8_t *codes,
                       float *scales, float *minima, uint8_t *scratch) {
    enum { CHUNK = 256, STRIDE = CHUNK + 64 };
    const code_row *type = &l->codes[p->product->type];
    int64_t columns = p->product->columns;
    float *row_scales = (float *)(scratch + LANES * STRIDE), *row_minima = row_scales + LANES * 16;
    int16_t *row_wide = (int16_t *)(row_minima + LANES * 16);
    for (int64_t column = 0; column < columns; column += CHUNK) {
        int64_t n = columns - column < CHUNK ? columns - column : CHUNK, subs = n / type->sub;
        const uint32_t *lanes[LANES], *s[LANES], *m[LANES];
        for (int64_t r = 0; r < LANES; ++r) {
            int64_t from = r < count ? r : 0;
            uint8_t *u = scratch + from * STRIDE;
            int16_t *w = row_wide + from * STRIDE;
            lanes[r] = wide ? (const uint32_t *)w : (const uint32_t *)u;
            s[r] = (const uint32_t *)(row_scales + from * 16);
            m[r] = (const uint32_t *)(row_minima + from * 16);
            if (r >= count) continue;
            type->unpack(rows + r * p->row_bytes + column / type->block * type->bytes, n / type->block, u,
                         row_scales + r * 16, row_minima + r * 16);
            if (wide)
                for (int64_t i = 0; i < n; ++i) w[i] = (int16_t)(u[i] + type->low);
        }
        l->interleave(lanes, wide ? n / 2 : n / 4, (uint32_t *)codes + column / (wide ? 2 : 4) * LANES);
        l->interleave(s, subs, (uint32_t *)scales + column / type->sub * LANES);
        if (type->minima) l->interleave(m, subs, (uint32_t *)minima + column / type->sub * LANES);
    }
}

/* BF16 rows as they are, two columns to a word. */
static void fill_pairs(const level *l, const planned *p, const uint8_t *rows, int64_t count, uint32_t *pairs,
                       uint32_t *scratch) {
    int64_t columns = p->product->columns, chunk = 512, words = (columns + 1) / 2;
    for (int64_t first = 0; first < words; first += chunk) {
        int64_t n = words - first < chunk ? words - first : chunk;
        const uint32_t *lanes[LANES];
        for (int64_t r = 0; r < LANES; ++r) {
            uint32_t *to = scratch + (r < count ? r : 0) * (chunk + 16);
            lanes[r] = to;
            if (r >= count) continue;
            int64_t left = columns * 2 - first * 4;
            to[n - 1] = 0;
            memcpy(to, rows + r * p->row_bytes + first * 4, (size_t)(left < n * 4 ? left : n * 4));
        }
        l->interleave(lanes, n, pairs + first * LANES);
    }
}

/* The part of the thread's memory that a tile of `LANES` rows takes. */
typedef struct {
    size_t values, scales, minima, total;
} tile_size;

static tile_size size_of_tile(const level *l, const qc_product *product, rounding kind) {
    const code_row *type = &l->codes[product->type];
    size_t columns = (size_t)product->columns, width = integers(kind) ? 2 : 4; /* as if wide */
    tile_size size = {aligned(columns * LANES * width), 0, 0, 0};
    if (type->sub) size.scales = size.minima = aligned(columns / (size_t)type->sub * LANES * 4);
    size.total = size.values + size.scales + size.minima;
    return size;
}

static void add_bias(const qc_product *p, int64_t row, int64_t rows, float *out) {
    if (p->bias)
        for (int64_t r = 0; r < rows; ++r) out[r] += p->bias[row + r];
}

static void store_result(const qc_product *p, int64_t row, int64_t rows, int64_t token, int64_t tokens, result values) {
    for (int64_t t = 0; t < tokens; ++t) {
        float *out = p->out + (token + t) * p->out_stride + row;
        memcpy(out, values[t], (size_t)rows * 4);
        add_bias(p, row, rows, out);
    }
}

/* A panel of rows against a range of groups of tokens. */
static int panel_unit(const level *l, const planned *p, int64_t unit, qc_pool *pool, int32_t thread) {
    const qc_product *product = p->product;
    const code_row *type = &l->codes[product->type];
    const rounding kind = p->x->kind;
    const int narrow = integers(kind) && !p->x->wide, wide = integers(kind) && p->x->wide;
    const int pairs = !integers(kind) && p->x->wide;
    const int64_t first = unit / p->chunks * p->panel, group = unit % p->chunks * p->chunk_groups;
    const int64_t rows = product->rows - first < p->panel ? product->rows - first : p->panel;
    const tile_size size = size_of_tile(l, product, kind);
    const size_t correction_bytes = aligned((size_t)product->columns / 16 * GROUP * 4), scratch_bytes = 64 * 1024;
    uint8_t *memory =
        qc_pool_scratch(pool, thread, (size_t)(p->panel / LANES) * size.total + correction_bytes + scratch_bytes);
    if (!memory) return 0;
    int32_t *correction = (int32_t *)memory;
    uint8_t *scratch = memory + correction_bytes, *tiles = scratch + scratch_bytes;
    for (int64_t r = 0; r < rows; r += LANES) {
        uint8_t *t = tiles + (size_t)(r / LANES) * size.total;
        const uint8_t *from = product->weights + (first + r) * p->row_bytes;
        int64_t count = rows - r < LANES ? rows - r : LANES;
        if (integers(kind))
            fill_codes(l, p, from, count, wide, t, (float *)(t + size.values), (float *)(t + size.values + size.scales),
                       scratch);
        else if (pairs)
            fill_pairs(l, p, from, count, (uint32_t *)t, (uint32_t *)scratch);
        else
            fill_floats(l, p, from, count, (float *)t, (float *)scratch);
    }
    for (int64_t g = group; g < p->x->groups && g < group + p->chunk_groups; ++g) {
        size_t bytes;
        activations a = part(p->x, g, &bytes);
        int64_t tokens = product->tokens - g * GROUP < GROUP ? product->tokens - g * GROUP : GROUP;
        if (narrow && type->low) {
            const int32_t *sums = type->sub == 32 ? a.sum32 : a.sum16;
            for (int64_t i = 0; i < product->columns / type->sub * GROUP; ++i) correction[i] = type->low * sums[i];
        }
        for (int64_t r = 0; r < rows; r += LANES) {
            uint8_t *t = tiles + (size_t)(r / LANES) * size.total;
            tile w = {product->columns,
                      t,
                      (float *)(t + size.values),
                      type->minima ? (float *)(t + size.values + size.scales) : 0,
                      type->sub,
                      type->low,
                      type->span};
            result values;
            if (narrow)
                l->narrow(&w, &a, type->low ? correction : 0, tokens, values);
            else if (wide)
                l->wide(&w, &a, tokens, values);
            else if (pairs)
                l->bf16_pairs(&w, &a, tokens, values);
            else
                l->floats(&w, &a, tokens, values);
            store_result(product, first + r, rows - r < LANES ? rows - r : LANES, g * GROUP, tokens, values);
        }
    }
    return 1;
}

/* A run of rows, each read once, against a few tokens. */
static int dots_unit(const level *l, const planned *p, int64_t unit, qc_pool *pool, int32_t thread) {
    const qc_product *product = p->product;
    int64_t first = unit * p->panel, rows = product->rows - first < p->panel ? product->rows - first : p->panel;
    uint8_t *scratch = qc_pool_scratch(pool, thread, (size_t)product->columns * 4 + 64);
    if (!scratch) return 0;
    for (int64_t t = 0; t < product->tokens; ++t) {
        size_t bytes;
        activations a = part(p->x, t, &bytes);
        float *out = product->out + t * product->out_stride + first;
        l->dots(product->type, product->weights + first * p->row_bytes, p->row_bytes, rows, &a, scratch, out);
        add_bias(product, first, rows, out);
    }
    return 1;
}

static void product_unit(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    product_job *job = argument;
    const planned *p = job->plans;
    for (; unit >= p->units; ++p) unit -= p->units;
    int done =
        p->x->group == 1 ? dots_unit(job->level, p, unit, pool, thread) : panel_unit(job->level, p, unit, pool, thread);
    if (!done) job->failed = 1;
}

/* ---- the call */

static rounding rounding_of(const level *l, int32_t mode, int32_t type) {
    const code_row *row = &l->codes[type];
    if (mode == QC_ACTIVATIONS_FLOAT || (mode == QC_ACTIVATIONS_INT16 && !row->sub)) return ROUND_FLOAT;
    return mode == QC_ACTIVATIONS_INT16 ? ROUND_INT16 : (rounding)row->partner;
}

/* The index of the set of activations of a product, made if there is none yet. Row-wise sums of the minima differ
 * between Q8_0 and Q8_1, so these are different sets although their integers are the same. */
static int32_t find_set(const level *l, prepared *sets, int32_t *count, rounding kind, const qc_product *p) {
    int64_t group = p->tokens <= FEW ? 1 : GROUP;
    int32_t wide = kind == ROUND_INT16 || (kind == ROUND_BF16 && qc_has_pairs(l)) ||
                   (integers(kind) && group == GROUP && l->codes[p->type].span > l->narrow_span);
    for (int32_t i = 0; i < *count; ++i)
        if (sets[i].kind == kind && sets[i].wide == wide && sets[i].x == p->x && sets[i].stride == p->x_stride &&
            sets[i].tokens == p->tokens && sets[i].columns == p->columns)
            return i;
    sets[*count] =
        (prepared){kind, wide, p->x, p->x_stride, p->tokens, p->columns, group, (p->tokens + group - 1) / group, 0, 0};
    return (*count)++;
}

static planned plan(const level *l, const qc_product *product, const prepared *x, int32_t threads) {
    planned p = {.product = product, .x = x, .chunks = 1, .chunk_groups = x->groups};
    p.row_bytes = product->columns / l->codes[product->type].block * l->codes[product->type].bytes;
    if (x->group == 1) {
        p.panel = ROWS_PER_UNIT;
        p.units = (product->rows + p.panel - 1) / p.panel;
        return p;
    }
    size_t bytes = size_of_tile(l, product, x->kind).total;
    p.panel = PANEL;
    while (p.panel > LANES && bytes * (size_t)(p.panel / LANES) > TILE_BYTES) p.panel -= LANES;
    int64_t panels = (product->rows + p.panel - 1) / p.panel;
    while (panels * p.chunks < 2 * threads && p.chunk_groups > 4) {
        p.chunk_groups = (p.chunk_groups + 1) / 2;
        p.chunks = (x->groups + p.chunk_groups - 1) / p.chunk_groups;
    }
    p.units = panels * p.chunks;
    return p;
}

int32_t qc_can_multiply(int32_t type) { return type >= 0 && type < QC_TYPES && qc_level_scalar.codes[type].block != 0; }

static int valid(const qc_product *p) {
    return qc_can_multiply(p->type) && p->rows >= 0 && p->tokens >= 0 && p->columns > 0 &&
           p->columns % qc_level_scalar.codes[p->type].block == 0;
}

static int32_t run(qc_pool *pool, const level *l, int32_t mode, const qc_product *products, int32_t count,
                   prepared *sets, planned *plans) {
    int32_t set_count = 0, chosen[QC_PRODUCTS];
    for (int32_t i = 0; i < count; ++i)
        chosen[i] = find_set(l, sets, &set_count, rounding_of(l, mode, products[i].type), &products[i]);
    size_t total = 0;
    int64_t groups = 0, units = 0;
    for (int32_t i = 0; i < set_count; ++i) {
        part(&sets[i], 0, &sets[i].group_bytes);
        total += (size_t)sets[i].groups * sets[i].group_bytes;
        groups += sets[i].groups;
    }
    uint8_t *memory = qc_pool_shared(pool, 0, total + 64);
    if (!memory) return QC_NO_MEMORY;
    for (int32_t i = 0; i < set_count; ++i) {
        sets[i].memory = memory;
        memory += (size_t)sets[i].groups * sets[i].group_bytes;
    }
    rounding_job rounds = {l, sets, set_count, 0};
    if (groups <= FEW)
        for (int64_t g = 0; g < groups; ++g) round_unit(&rounds, g, pool, 0);
    else
        qc_pool_run(pool, round_unit, &rounds, groups);
    if (rounds.failed) return QC_NO_MEMORY;
    for (int32_t i = 0; i < count; ++i) {
        plans[i] = plan(l, &products[i], &sets[chosen[i]], qc_pool_threads(pool));
        units += plans[i].units;
    }
    product_job job = {l, plans, count, 0};
    qc_pool_run(pool, product_unit, &job, units);
    return job.failed ? QC_NO_MEMORY : QC_OK;
}

int32_t qc_matmul(qc_pool *pool, int32_t isa, int32_t mode, const qc_product *products, int32_t count) {
    const level *l = qc_level_of(isa);
    if (!l || mode < QC_ACTIVATIONS_FLOAT || mode > QC_ACTIVATIONS_INT16) return QC_NO_KERNEL;
    for (int32_t i = 0; i < count; ++i)
        if (!valid(&products[i])) return QC_NO_KERNEL;
    int32_t status = QC_OK;
    qc_pool_enter(pool);
    for (int32_t i = 0; i < count && status == QC_OK; i += QC_PRODUCTS) {
        prepared sets[QC_PRODUCTS];
        planned plans[QC_PRODUCTS];
        status = run(pool, l, mode, products + i, count - i < QC_PRODUCTS ? count - i : QC_PRODUCTS, sets, plans);
    }
    qc_pool_leave(pool);
    return status;
}

int32_t qc_round_activations(qc_pool *pool, int32_t isa, int32_t mode, int32_t type, const float *x, int64_t tokens,
                             int64_t columns, float *out) {
    const level *l = qc_level_of(isa);
    if (!l || mode < QC_ACTIVATIONS_FLOAT || mode > QC_ACTIVATIONS_INT16 || tokens < 0 || columns < 0 ||
        !qc_can_multiply(type) || columns % l->codes[type].block)
        return QC_NO_KERNEL;
    qc_pool_enter(pool);
    void *scratch = qc_pool_scratch(pool, 0, ROUND_SCRATCH(columns));
    for (int64_t t = 0; scratch && t < tokens; ++t)
        l->rounded(rounding_of(l, mode, type), x + t * columns, columns, out + t * columns, scratch);
    qc_pool_leave(pool);
    return scratch ? QC_OK : QC_NO_MEMORY;
}
