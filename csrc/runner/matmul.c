/* matmul.c - products with packed weights: which rounding, which kernel, who does which rows.
 *
 * Batches: a panel of rows is unpacked once into the thread's tile (in its L2 cache) and meets every token. Few tokens:
 * rows are read as they lie in memory, once. */
#include "backends.h"
#include "tiles.h"
#include <string.h>

enum {
    PRODUCTS = 64, /* of one dispatch */
    FEW = 4,       /* tokens; and groups that one thread rounds */
    FEW_WIDE = 8,
    ROWS_PER_UNIT = 16
};
/* Rows of a panel, and what it may take: all tokens meet it in the second cache, or, of two bytes a weight, in the
 * first (two tiles of 256 columns): from the second one a matrix register is loaded in twice the time of its product.
 */
enum { PANEL = 64, PANEL_BYTES = 640 * 1024, SPLIT_PANEL_BYTES = 20 * 1024 };

/* ---- activations: one set per distinct (x, rounding) of a call */

typedef struct {
    rounding kind;
    int32_t wide, together, low, quads, sums; /* see activations */
    int32_t order;                            /* of one token's bytes: a piece_order */
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
    activations a = {.kind = p->kind,
                     .columns = p->columns,
                     .group = p->group,
                     .block = block,
                     .wide = p->wide,
                     .together = p->together,
                     .low = p->low,
                     .quads = p->quads,
                     .sums = p->sums,
                     .next = (int64_t)p->group_bytes};
#define PLACE(field, size) (a.field = (const void *)(at ? at + used : 0), used += aligned(size))
    const size_t padded = (columns + (size_t)p->together - 1) / (size_t)p->together * (size_t)p->together;
    PLACE(values, padded * g * (!integers(p->kind) ? 4 : p->wide ? 2 : 1) + 64);
    if (integers(p->kind)) {
        PLACE(d, columns / (size_t)block * g * 4);
        if (g == 1) PLACE(sum32, columns / 32 * 4);
        if (g == 1) PLACE(sum16, columns / 16 * 4);
        if (p->sums & 32) PLACE(fsum32, columns / 32 * g * 4);
        if (p->sums & 16) PLACE(fsum16, columns / 16 * g * 4);
        if (p->quads) PLACE(starts, columns / (4 * (size_t)p->quads) * g * 4);
        if (g == 1 && p->kind != ROUND_INT16) {
            PLACE(words32, columns / 32 * 2 + 32);
            PLACE(words16, columns / 16 * 2 + 32);
        }
    }
#undef PLACE
    *bytes = used;
    return a;
}

typedef struct {
    const runner_backend *backend;
    const prepared *sets;
    int32_t count, failed;
} rounding_job;

/* Bytes of whole 256 columns into their order. */
static void order_bytes(const activations *a, int32_t order) {
    int8_t *q = (int8_t *)a->values, plain[256];
    for (int64_t column = 0; column + 256 <= a->columns; column += 256, q += 256) {
        memcpy(plain, q, sizeof plain);
        if (order == ORDER_FOURTHS)
            for (int e = 0; e < 4; ++e)
                for (int j = 0; j < 64; ++j) q[64 * e + j] = plain[4 * j + e];
        else
            for (int piece = 0; piece < 16; ++piece) memcpy(q + 16 * piece, plain + 16 * qc_pieces[order][piece], 16);
    }
}

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
    job->backend->round_group(&a, p->x + unit * p->group * p->stride, p->stride, left < p->group ? left : p->group,
                              scratch);
    if (p->order != ORDER_PLAIN) order_bytes(&a, p->order);
}

/* ---- products */

/* Whose `dots` multiply a type: the first along one_token that has a body for it, or the last. */
static const runner_backend *dots_of(const runner_backend *backend, int32_t type) {
    const runner_backend *dots = backend->one_token ? backend->one_token : backend;
    while (dots->one_token && !dots->codes[type].dot) dots = dots->one_token;
    return dots;
}

/* So many tokens are multiplied as rows lie, by `dots`, more of them after unpacking. Where `dots` unpack themselves,
 * for every token, sooner; later where codes do not fit bytes, which makes tiles slow. */
static int64_t few_of(const runner_backend *backend, rounding kind, int32_t type) {
    const code_type *codes = &backend->codes[type], *row = &dots_of(backend, type)->codes[type];
    if (codes->sub && (!row->dot || !integers(kind) || kind == ROUND_INT16)) return FEW;
    return codes->sub && codes->span > backend->narrow_span ? FEW_WIDE : row->few;
}

typedef struct {
    const qc_product *product;
    const prepared *x;
    int64_t row_bytes, panel, columns, units, chunks, chunk_groups; /* columns: of a panel at a time */
} planned;

typedef struct {
    const runner_backend *backend;
    const planned *plans;
    int32_t count, failed;
} product_job;

static void add_bias(const qc_product *p, int64_t row, int64_t rows, float *out) {
    if (p->bias)
        for (int64_t r = 0; r < rows; ++r) out[r] += p->bias[row + r];
}

static tile_kind kind_of_tile(const runner_backend *backend, const prepared *x, int32_t type) {
    if (integers(x->kind) && x->wide) return TILE_WIDE;
    if (integers(x->kind)) return backend->splitters && backend->splitters[type] ? TILE_SPLIT : TILE_NARROW;
    return x->wide ? TILE_PAIRS : TILE_FLOATS;
}

static void multiply(const runner_backend *backend, tile_kind kind, const tile *w, const activations *a, int64_t tokens,
                     result *out) {
    switch (kind) {
    case TILE_NARROW: backend->narrow(w, a, tokens, out); break;
    case TILE_SPLIT: backend->split(w, a, tokens, out); break;
    case TILE_WIDE: backend->wide(w, a, tokens, out); break;
    case TILE_PAIRS: backend->bf16_pairs(w, a, tokens, out); break;
    default: backend->floats(w, a, tokens, out);
    }
}

/* Tiles that meet a group at a time. */
static int64_t tiles_together(const runner_backend *backend, tile_kind kind) {
    return kind == TILE_FLOATS || kind == TILE_PAIRS ? backend->float_tiles : backend->integer_tiles;
}

/* A panel: these columns of rows first .. first + rows - 1 in `tiles`. `results`: what columns before have given, for
 * every group from first_group on a result per tile; NULL where all columns are there. In the product's own memory they
 * would lie far apart. */
typedef struct {
    const runner_backend *backend;
    const planned *plan;
    tile_kind kind;
    column_run run;
    tile_size size;
    int64_t first, rows, first_group;
    uint8_t *scratch, *tiles;
    result *results;
} panel;

static int64_t tiles_of_panel(const planned *plan) { return plan->panel / LANES; }

static void fill_panel(const panel *p) {
    const qc_product *product = p->plan->product;
    for (int64_t r = 0; r < p->rows; r += LANES)
        qc_fill_tile(p->backend, product, p->kind, p->run, product->weights + (p->first + r) * p->plan->row_bytes,
                     p->rows - r < LANES ? p->rows - r : LANES, p->tiles + (size_t)(r / LANES) * p->size.total,
                     p->scratch);
}

/* Results of a tile: its rows from `row` on, the tokens from `token` on. */
typedef struct {
    const qc_product *product;
    int64_t row, rows, token, tokens;
} place_of_results;

static float *results_of(const place_of_results *p, int64_t t) {
    return p->product->out + (p->token + t) * p->product->out_stride + p->row;
}

/* They will be written: lines far apart, of which none is in the cache. */
static void fetch_results(const place_of_results *p) {
    for (int64_t t = 0; t < p->tokens; ++t) __builtin_prefetch(results_of(p, t), 1);
}

static void store_results(const place_of_results *p, result values) {
    for (int64_t t = 0; t < p->tokens; ++t) {
        float *out = results_of(p, t);
        if (p->rows == LANES)
            memcpy(out, values[t], sizeof values[t]); /* a constant: no call */
        else
            memcpy(out, values[t], (size_t)p->rows * 4);
        add_bias(p->product, p->row, p->rows, out);
    }
}

/* The panel times group g of the tokens. */
static void multiply_panel(const panel *p, int64_t g) {
    const qc_product *product = p->plan->product;
    const int64_t tokens = product->tokens - g * GROUP < GROUP ? product->tokens - g * GROUP : GROUP;
    const int last = p->run.first + p->run.columns == product->columns;
    size_t bytes;
    activations a = part(p->plan->x, g, &bytes);
    const int64_t together = tiles_together(p->backend, p->kind);
    for (int64_t r = 0; r < p->rows; r += LANES * together) {
        tile w = qc_tile_at(p->backend, product->type, p->size, p->run, p->tiles + (size_t)(r / LANES) * p->size.total);
        if (together > 1 && p->rows - r > LANES) w.next = (int64_t)p->size.total;
        place_of_results places[2];
        result own[2];
        result *values = p->results ? p->results + (g - p->first_group) * tiles_of_panel(p->plan) + r / LANES : own;
        int count = 0;
        for (int64_t row = r; count < together && row < p->rows; ++count, row += LANES) {
            places[count] = (place_of_results){product, p->first + row, p->rows - row < LANES ? p->rows - row : LANES,
                                               g * GROUP, tokens};
            if (last) fetch_results(&places[count]);
        }
        multiply(p->backend, p->kind, &w, &a, tokens, values);
        for (int i = 0; last && i < count; ++i) store_results(&places[i], values[i]);
    }
}

/* A panel of rows against a range of groups of tokens, a run of columns after the other. */
static int panel_unit(const runner_backend *backend, const planned *plan, int64_t unit, qc_pool *pool, int32_t thread) {
    const qc_product *product = plan->product;
    panel p = {.backend = backend, .plan = plan, .kind = kind_of_tile(backend, plan->x, product->type)};
    p.first = unit / plan->chunks * plan->panel;
    p.rows = product->rows - p.first < plan->panel ? product->rows - p.first : plan->panel;
    p.first_group = unit % plan->chunks * plan->chunk_groups;
    const int64_t left_groups = plan->x->groups - p.first_group;
    const int64_t groups = left_groups < plan->chunk_groups ? left_groups : plan->chunk_groups;
    const size_t tiles = (size_t)tiles_of_panel(plan);
    const size_t tile_bytes = tiles * qc_size_of_tile(backend, product->type, p.kind, plan->columns).total;
    const size_t results = plan->columns < product->columns ? (size_t)groups * tiles * sizeof(result) : 0;
    p.scratch = qc_pool_scratch(pool, thread, TILE_SCRATCH + tile_bytes + results);
    if (!p.scratch) return 0;
    p.tiles = p.scratch + TILE_SCRATCH;
    if (results) p.results = (result *)(void *)(p.tiles + tile_bytes);
    if (backend->enter) backend->enter(p.kind, backend->codes[product->type].sub);
    for (int64_t column = 0; column < product->columns; column += plan->columns) {
        const int64_t left = product->columns - column;
        p.run = (column_run){column, left < plan->columns ? left : plan->columns};
        p.size = qc_size_of_tile(backend, product->type, p.kind, p.run.columns);
        fill_panel(&p);
        for (int64_t g = 0; g < groups; ++g) multiply_panel(&p, p.first_group + g);
    }
    if (backend->leave) backend->leave();
    return 1;
}

/* A run of rows, each read once, against a few tokens. */
static int dots_unit(const runner_backend *backend, const planned *p, int64_t unit, qc_pool *pool, int32_t thread) {
    const qc_product *product = p->product;
    int64_t first = unit * p->panel, rows = product->rows - first < p->panel ? product->rows - first : p->panel;
    uint8_t *scratch = qc_pool_scratch(pool, thread, (size_t)product->columns * 4 + 64);
    if (!scratch) return 0;
    const int pairs = kind_of_tile(backend, p->x, product->type) == TILE_PAIRS;
    const runner_backend *dots = dots_of(backend, product->type);
    const uint8_t *packed = product->weights + first * p->row_bytes;
    float *out = product->out + first;
    size_t bytes;
    activations a = part(p->x, 0, &bytes);
    if (!pairs)
        dots->dots(product->type, &dots->types[product->type], packed, p->row_bytes, rows, &a, product->tokens, scratch,
                   out, product->out_stride);
    for (int64_t t = 0; t < product->tokens; ++t, out += product->out_stride) {
        if (pairs) a = part(p->x, t, &bytes);
        for (int64_t r = 0; pairs && r < rows; ++r) out[r] = backend->bf16_dot(packed + r * p->row_bytes, &a);
        add_bias(product, first, rows, out);
    }
    return 1;
}

static void product_unit(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    product_job *job = argument;
    const planned *p = job->plans;
    for (; unit >= p->units; ++p) unit -= p->units;
    int few = p->x->group == 1;
    int done = (few ? dots_unit : panel_unit)(job->backend, p, unit, pool, thread);
    if (!done) job->failed = 1; /* threads write nothing but 1 */
}

/* ---- the call */

static rounding rounding_of(const runner_backend *backend, int32_t mode, int32_t type) {
    const code_type *codes = &backend->codes[type];
    if (mode == QC_ACTIVATIONS_FLOAT || (mode == QC_ACTIVATIONS_INT16 && !codes->sub)) return ROUND_FLOAT;
    return mode == QC_ACTIVATIONS_INT16 ? ROUND_INT16 : (rounding)codes->partner;
}

/* Columns of a token that lie side by side; see backend.h. */
static int32_t columns_together(const runner_backend *backend, rounding kind, int32_t wide) {
    if (integers(kind)) return wide ? 32 : backend->byte_columns;
    return wide ? backend->pair_columns : 1;
}

/* The index of the set of activations of a product, made if there is none yet. Row-wise sums of the minima differ
 * between Q8_0 and Q8_1, so these are different sets although their integers are the same; so are those that meet codes
 * with another least one. */
static int32_t find_set(const runner_backend *backend, prepared *sets, int32_t *count, rounding kind,
                        const qc_product *p) {
    const code_type *type = &backend->codes[p->type];
    int64_t group = p->tokens <= few_of(backend, kind, p->type) ? 1 : GROUP;
    int32_t wide = kind == ROUND_INT16 || (kind == ROUND_BF16 && backend->bf16_pairs) ||
                   (integers(kind) && group == GROUP && type->span > backend->narrow_span);
    int32_t low = integers(kind) && group == GROUP && !wide && !backend->signed_codes ? type->low : 0;
    int32_t quads = low ? backend->start_quads(low, type->span, type->sub) : 0;
    int32_t sums = !integers(kind) ? 0 : group == 1 ? 16 + 32 : type->minima ? type->sub : 0;
    int32_t order = integers(kind) && group == 1 && !wide ? dots_of(backend, p->type)->codes[p->type].order : 0;
    for (int32_t i = 0; i < *count; ++i)
        if (sets[i].kind == kind && sets[i].wide == wide && sets[i].low == low && sets[i].quads == quads &&
            sets[i].sums == sums && sets[i].order == order && sets[i].group == group && sets[i].x == p->x &&
            sets[i].stride == p->x_stride && sets[i].tokens == p->tokens && sets[i].columns == p->columns)
            return i;
    sets[*count] = (prepared){.kind = kind,
                              .wide = wide,
                              .together = columns_together(backend, kind, wide),
                              .low = low,
                              .quads = quads,
                              .sums = sums,
                              .order = order,
                              .x = p->x,
                              .stride = p->x_stride,
                              .tokens = p->tokens,
                              .columns = p->columns,
                              .group = group,
                              .groups = (p->tokens + group - 1) / group};
    return (*count)++;
}

/* Equal runs of columns, so short that what a panel has of each fits. */
static int64_t columns_at_a_time(size_t panel_bytes, size_t most, int64_t columns) {
    const int64_t runs = (int64_t)((panel_bytes + most - 1) / most);
    return ((columns + runs - 1) / runs + 255) / 256 * 256;
}

static planned plan(const runner_backend *backend, const qc_product *product, const prepared *x, int32_t threads) {
    planned p = {.product = product, .x = x, .chunks = 1, .chunk_groups = x->groups};
    p.row_bytes = bytes_of_row(backend, product);
    if (x->group == 1) {
        p.panel = ROWS_PER_UNIT;
        p.units = (product->rows + p.panel - 1) / p.panel;
        return p;
    }
    const tile_kind kind = kind_of_tile(backend, x, product->type);
    const size_t bytes = qc_size_of_tile(backend, product->type, kind, product->columns).total;
    const size_t most = kind == TILE_SPLIT ? SPLIT_PANEL_BYTES : PANEL_BYTES;
    const int64_t step = LANES * tiles_together(backend, kind);
    p.panel = PANEL;
    while (p.panel > step && bytes * (size_t)(p.panel / LANES) > most) p.panel -= step;
    p.columns = columns_at_a_time(bytes * (size_t)(p.panel / LANES), most, product->columns);
    int64_t panels = (product->rows + p.panel - 1) / p.panel;
    while (panels * p.chunks < 2 * threads && p.chunk_groups > 4) {
        p.chunk_groups = (p.chunk_groups + 1) / 2;
        p.chunks = (x->groups + p.chunk_groups - 1) / p.chunk_groups;
    }
    p.units = panels * p.chunks;
    return p;
}

int32_t qc_can_multiply(int32_t type) {
    return type >= 0 && type < QC_TYPES && qc_runner_scalar.codes[type].block != 0;
}

static int valid(const qc_product *p) {
    return qc_can_multiply(p->type) && p->rows >= 0 && p->tokens >= 0 && p->columns > 0 &&
           p->columns % qc_runner_scalar.codes[p->type].block == 0;
}

static int32_t run(qc_pool *pool, const runner_backend *backend, int32_t mode, const qc_product *products,
                   int32_t count, prepared *sets, planned *plans) {
    int32_t set_count = 0, chosen[PRODUCTS];
    for (int32_t i = 0; i < count; ++i)
        chosen[i] = find_set(backend, sets, &set_count, rounding_of(backend, mode, products[i].type), &products[i]);
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
    rounding_job rounds = {backend, sets, set_count, 0};
    if (groups <= FEW)
        for (int64_t g = 0; g < groups; ++g) round_unit(&rounds, g, pool, 0);
    else
        qc_pool_run(pool, round_unit, &rounds, groups);
    if (rounds.failed) return QC_NO_MEMORY;
    for (int32_t i = 0; i < count; ++i) {
        plans[i] = plan(backend, &products[i], &sets[chosen[i]], qc_pool_threads(pool));
        units += plans[i].units;
    }
    product_job job = {backend, plans, count, 0};
    qc_pool_run(pool, product_unit, &job, units);
    return job.failed ? QC_NO_MEMORY : QC_OK;
}

int32_t qc_matmul(qc_pool *pool, int32_t isa, int32_t mode, const qc_product *products, int32_t count) {
    const runner_backend *backend = qc_runner_of(isa);
    if (!backend || mode < QC_ACTIVATIONS_FLOAT || mode > QC_ACTIVATIONS_INT16) return QC_NO_KERNEL;
    for (int32_t i = 0; i < count; ++i)
        if (!valid(&products[i])) return QC_NO_KERNEL;
    int32_t status = QC_OK;
    qc_pool_enter(pool);
    for (int32_t i = 0; i < count && status == QC_OK; i += PRODUCTS) {
        prepared sets[PRODUCTS];
        planned plans[PRODUCTS];
        status = run(pool, backend, mode, products + i, count - i < PRODUCTS ? count - i : PRODUCTS, sets, plans);
    }
    qc_pool_leave(pool);
    return status;
}

int32_t qc_round_activations(qc_pool *pool, int32_t isa, int32_t mode, int32_t type, const float *x, int64_t tokens,
                             int64_t columns, float *out) {
    const runner_backend *backend = qc_runner_of(isa);
    if (!backend || mode < QC_ACTIVATIONS_FLOAT || mode > QC_ACTIVATIONS_INT16 || tokens < 0 || columns < 0 ||
        !qc_can_multiply(type) || columns % backend->codes[type].block)
        return QC_NO_KERNEL;
    qc_pool_enter(pool);
    void *scratch = qc_pool_scratch(pool, 0, ROUND_SCRATCH(columns));
    for (int64_t t = 0; scratch && t < tokens; ++t)
        backend->rounded(rounding_of(backend, mode, type), x + t * columns, columns, out + t * columns, scratch);
    qc_pool_leave(pool);
    return scratch ? QC_OK : QC_NO_MEMORY;
}
