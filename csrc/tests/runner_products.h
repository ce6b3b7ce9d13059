/* runner_products.h - products and the rounding of activations against exact sums of what the library itself decodes.
 */
#ifndef QC_TESTS_RUNNER_PRODUCTS_H
#define QC_TESTS_RUNNER_PRODUCTS_H
#include "runner_frame.h"

enum { F32 = 0, F16 = 1, Q4_1 = 3, Q5_1 = 7, BF16 = 30, MODES = 3, LARGEST_WEIGHT = 1000000 };

/* |result - exact| <= LIMIT(columns) * sum |x| * (largest |weight| of its block): the sums are float32, one after
 * another. With Q8_1, scales and sums of blocks are rounded to half precision each for itself: 2^-11 of either, or,
 * below its normal range, half of 2^-24 for each of up to 127 steps. */
#define LIMIT(columns) (1e-6 + 6e-9 * (double)(columns))
#define LIMIT_OF_HALF_SUMS 0x1p-10
#define STEPS_OF_HALF_SUMS (127 * 0x1p-25)
#define TINY 1e-30 /* denormals may be taken for zeros */

typedef struct {
    int32_t type, block;
    int64_t rows, columns;
    uint8_t *packed;
    float *weights; /* decoded */
} matrix;

/* Random blocks: what the encoder makes of random weights, or random bytes where they decode to reasonable values. */
static matrix random_matrix(int32_t type, int64_t rows, int64_t columns) {
    int32_t block = 0, bytes = 0;
    find_block(type, &block, &bytes);
    int64_t blocks = columns / block, count = rows * columns;
    matrix m = {type, block, rows, columns, allocate(rows * blocks * bytes), floats(count)};
    float *x = random_floats(count, 0.2f), *one = floats(block), *importance = floats(columns);
    uint8_t *random = allocate(bytes);
    qc_place place;
    for (int64_t i = 0; i < columns; ++i) importance[i] = 1.0f;
    if (type == F32)
        memcpy(m.packed, x, (size_t)count * 4);
    else if (qc_encode(0, type, QC_SEARCH_GGML, x, rows, columns, importance, m.packed, &place) != QC_OK)
        fail("encoding", label, 0);
    for (int64_t i = 0; i < rows * blocks; ++i) {
        int reasonable = i % 3 != 0;
        for (int32_t k = 0; k < bytes; ++k) random[k] = (uint8_t)random_bits();
        qc_decode(0, type, random, 1, block, one);
        for (int32_t k = 0; k < block; ++k) reasonable &= fabsf(one[k]) < LARGEST_WEIGHT;
        if (reasonable) memcpy(m.packed + i * bytes, random, (size_t)bytes);
    }
    qc_decode(0, type, m.packed, rows, columns, m.weights);
    free(x), free(one), free(importance), free(random);
    return m;
}

static void free_matrix(matrix *m) { free(m->packed), free(m->weights); }

/* Activations as models have them, and edges: zeros, denormals, constants, ties, a few large values. */
static void fill_activations(float *x, int64_t columns, int64_t token) {
    float first = bell();
    for (int64_t i = 0; i < columns; ++i) switch (token % 8) {
        case 1: x[i] = random_bits() % 50 ? bell() : 1000.0f * bell(); break;
        case 2: x[i] = i % 2 ? 0.0f : -0.0f; break;
        case 3: x[i] = (float)((int32_t)(i % 33) - 16) * 63.5f; break; /* ties in every block */
        case 4: x[i] = bell() * 0x1p-133f; break;
        case 5: x[i] = first; break;
        case 6: x[i] = random_bits() % 16 ? 0.0f : bell(); break;
        case 7: x[i] = bell() * 0x1p-12f; break;
        default: x[i] = bell();
        }
}

/* Rows of `columns` activations, `stride` apart, in a buffer that ends with the last of them. */
static float *activations(int64_t tokens, int64_t columns, int64_t stride) {
    float *x = floats(tokens ? (tokens - 1) * stride + columns : 0);
    for (int64_t t = 0; t < tokens; ++t) {
        fill_activations(x + t * stride, columns, t);
        for (int64_t i = columns; t + 1 < tokens && i < stride; ++i) x[t * stride + i] = NAN;
    }
    return x;
}

/* ---- rounding */

/* What the activations become for a type, from the scalar backend; all others must give the same bits. */
static float *seen_by(int32_t mode, int32_t type, const float *x, int64_t tokens, int64_t columns, int64_t stride) {
    int64_t count = tokens * columns;
    float *dense = floats(count), *first = floats(count), *out = floats(count);
    for (int64_t t = 0; t < tokens; ++t) memcpy(dense + t * columns, x + t * stride, (size_t)columns * 4);
    for (int b = 0; b < backend_count; ++b) {
        float *to = b ? out : first;
        if (qc_round_activations(pools[0], backends[b], mode, type, dense, tokens, columns, to) != QC_OK)
            fail_case("status of rounding", backends[b]);
        if (b && memcmp(first, out, (size_t)count * 4)) fail_case("rounding differs from scalar", backends[b]);
    }
    free(dense), free(out);
    return first;
}

/* The largest error that rounding may make. `most`: largest magnitude among the block's activations. */
static double rounding_bound(int32_t mode, int32_t type, int32_t block, double most) {
    if (mode == QC_ACTIVATIONS_FLOAT || type == F32) return 0.0;
    if (block == 1 && mode == QC_ACTIVATIONS_INT16) return 0.0;
    if (type == F16) return most * 0x1p-11 + 0x1p-25;
    if (type == BF16) return most * 0x1p-8 + TINY;
    if (mode == QC_ACTIVATIONS_INT16) return most * (0.505 / 32767) + TINY; /* x / step is a float32 itself */
    /* half a step, and for the scale in fp16 of Q8_0 and Q8_1 its own error times 127 */
    return block == 256 ? most * (0.5001 / 127) + TINY : most * (0.5001 / 127 + 0x1p-11) + 127 * 0x1p-25;
}

static void check_rounding(int32_t mode, int32_t type, int32_t block) {
    int64_t columns = block == 1 ? 77 : 768, tokens = 16;
    int64_t group = block == 1 ? 1 : block == 256 && mode == QC_ACTIVATIONS_Q8 ? 256 : 32; /* that share a scale */
    float *x = activations(tokens, columns, columns), *seen = seen_by(mode, type, x, tokens, columns, columns);
    double most = 0.0;
    for (int64_t i = 0; i < tokens * columns; ++i) {
        if (i % group == 0) most = 0.0;
        for (int64_t k = i; i % group == 0 && k < i + group; ++k) most = fmax(most, fabs(x[k]));
        if (fabs((double)seen[i] - x[i]) <= rounding_bound(mode, type, block, most)) continue;
        printf("activation %.9g becomes %.9g\n", (double)x[i], (double)seen[i]);
        fail("rounding", label, 0);
        break;
    }
    free(x), free(seen);
}

/* ---- products */

enum { MOST_PRODUCTS = 70 }; /* more than one dispatch takes */

typedef struct {
    int32_t mode, count;
    qc_product products[MOST_PRODUCTS];
    int64_t offset[MOST_PRODUCTS]; /* of the results, in floats */
} product_call;

static int32_t run_products(const void *arguments, qc_pool *pool, int32_t isa, float *out) {
    product_call call = *(const product_call *)arguments;
    for (int32_t i = 0; i < call.count; ++i) call.products[i].out = out + call.offset[i];
    return qc_matmul(pool, isa, call.mode, call.products, call.count);
}

static void expect_product(int32_t mode, const qc_product *p, const matrix *m, double *exact, double *bound) {
    float *seen = seen_by(mode, p->type, p->x, p->tokens, p->columns, p->x_stride),
          *most = floats(m->rows * m->columns);
    const int half_sums = mode == QC_ACTIVATIONS_Q8 && (p->type == Q4_1 || p->type == Q5_1);
    const double limit = half_sums ? LIMIT_OF_HALF_SUMS : LIMIT(p->columns),
                 steps = half_sums ? STEPS_OF_HALF_SUMS : 0.0;
    for (int64_t i = 0; i < m->rows * m->columns; i += m->block) {
        float largest = 0.0f;
        for (int32_t k = 0; k < m->block; ++k) largest = fmaxf(largest, fabsf(m->weights[i + k]));
        for (int32_t k = 0; k < m->block; ++k) most[i + k] = largest;
    }
    for (int64_t t = 0; t < p->tokens; ++t)
        for (int64_t r = 0; r < p->rows; ++r) {
            double sum = 0.0, size = TINY;
            for (int64_t i = 0; i < p->columns; ++i) {
                double x = seen[t * p->columns + i];
                sum += x * m->weights[r * m->columns + i];
                size += (limit * fabs(x) + steps) * most[r * m->columns + i];
            }
            exact[t * p->out_stride + r] = sum, bound[t * p->out_stride + r] = size;
        }
    free(seen), free(most);
}

static qc_product product_of(const matrix *m, int64_t rows, const float *x, int64_t x_stride, int64_t tokens,
                             int64_t out_stride) {
    return (qc_product){.type = m->type,
                        .weights = m->packed,
                        .rows = rows,
                        .columns = m->columns,
                        .x = x,
                        .x_stride = x_stride,
                        .tokens = tokens,
                        .out_stride = out_stride};
}

static void check_product(int32_t mode, const matrix *m, int64_t rows, int64_t tokens) {
    snprintf(label, sizeof label,
             "product, type %d, mode %d, %" PRId64 " rows, %" PRId64 " columns, %" PRId64 " tokens", m->type, mode,
             rows, m->columns, tokens);
    int64_t x_stride = m->columns + random_bits() % 3, out_stride = rows + random_bits() % 3;
    float *x = activations(tokens, m->columns, x_stride);
    product_call call = {.mode = mode, .count = 1};
    call.products[0] = product_of(m, rows, x, x_stride, tokens, out_stride);
    expectation e = expect(tokens ? (tokens - 1) * out_stride + rows : 0);
    expect_product(mode, &call.products[0], m, e.exact, e.bound);
    check(run_products, &call, e);
    free(x);
}

/* Many weights of all types in one call, some on one x. */
static void check_many_products(int32_t mode, int64_t tokens) {
    enum { COLUMNS = 256, ROWS = 7 };
    snprintf(label, sizeof label, "many products, mode %d, %" PRId64 " tokens", mode, tokens);
    float *x[2] = {activations(tokens, COLUMNS, COLUMNS), activations(tokens, COLUMNS, COLUMNS)};
    matrix matrices[MOST_PRODUCTS];
    product_call call = {.mode = mode};
    expectation e = expect(MOST_PRODUCTS * tokens * ROWS);
    for (int32_t type = 0; call.count < MOST_PRODUCTS; type = (type + 1) % TYPES) {
        if (!qc_can_multiply(type)) continue;
        int32_t i = call.count++;
        int64_t rows = 1 + i % ROWS;
        matrices[i] = random_matrix(type, rows, COLUMNS);
        call.offset[i] = i * tokens * ROWS;
        call.products[i] = product_of(&matrices[i], rows, x[i % 2], COLUMNS, tokens, ROWS);
        expect_product(mode, &call.products[i], &matrices[i], e.exact + call.offset[i], e.bound + call.offset[i]);
    }
    check(run_products, &call, e);
    for (int32_t i = 0; i < call.count; ++i) free_matrix(&matrices[i]);
    free(x[0]), free(x[1]);
}

/* A token gets the same bits whatever its neighbours are: fewer of them, or one that is not finite. */
static void check_neighbours(int32_t mode, const matrix *m) {
    static const float bad[] = {NAN, INFINITY, -INFINITY, 0x1.fffffep127f, -0x1.fffffep127f};
    static const int64_t counts[3][2] = {{4, 3}, {8, 7}, {40, 19}}; /* each for itself, on some backends; in groups */
    const int64_t rows = m->rows, columns = m->columns;
    snprintf(label, sizeof label, "neighbours, type %d, mode %d", m->type, mode);
    for (int c = 0; c < 3; ++c) {
        int64_t all = counts[c][0], some = counts[c][1];
        float *x = activations(all, columns, columns), *clean = floats(all * rows), *out = floats(all * rows);
        product_call call = {.mode = mode, .count = 1};
        for (int b = 0; b < backend_count; ++b) {
            float *row = x + 2 * columns;
            fill_activations(row, columns, 0);
            call.products[0] = product_of(m, rows, x, columns, all, rows);
            run_products(&call, pools[1], backends[b], clean);
            for (int64_t i = 0; i < columns; ++i)
                if (random_bits() % 9 == 0) row[i] = bad[random_bits() % 5];
            call.products[0].tokens = some;
            run_products(&call, pools[1], backends[b], out);
            memcpy(out + 2 * rows, clean + 2 * rows, (size_t)rows * 4);
            if (memcmp(clean, out, (size_t)(some * rows) * 4)) fail_case("a token depends on others", backends[b]);
        }
        free(x), free(clean), free(out);
    }
}

static void check_products(int rounds) {
    static const int64_t tokens[] = {0, 1, 3, 5, 17, 64};
    static const int64_t rows[] = {0, 1, 5, 16, 33, 97};
    for (int32_t type = 0; type < TYPES; ++type) {
        int32_t block, bytes;
        if (!qc_can_multiply(type) || !find_block(type, &block, &bytes)) continue;
        for (int32_t mode = 0; mode < MODES; ++mode) {
            snprintf(label, sizeof label, "type %d, mode %d", type, mode);
            check_rounding(mode, type, block);
            for (int round = 0; round < rounds; ++round)
                for (int several = 0; several < 2; ++several) {
                    int64_t blocks = several ? 1 + random_bits() % (1024 / (block == 1 ? 2 : block)) : 1;
                    matrix m = random_matrix(type, 97, blocks * block);
                    for (int i = 0; i < 6; ++i) check_product(mode, &m, rows[random_bits() % 6], tokens[i]);
                    check_neighbours(mode, &m);
                    free_matrix(&m);
                }
        }
    }
    for (int32_t mode = 0; mode < MODES; ++mode) check_many_products(mode, 1), check_many_products(mode, 9);
}
#endif
