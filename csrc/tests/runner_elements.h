/* runner_elements.h - attention, norms, activation functions, rotations and softmax against the same in double. */
#ifndef QC_TESTS_RUNNER_ELEMENTS_H
#define QC_TESTS_RUNNER_ELEMENTS_H
#include "runner_frame.h"

/* Shapes of rows: less than a vector, no multiple of one, and enough for several threads. */
static const int64_t row_shapes[][2] = {{0, 5}, {1, 1}, {3, 3}, {5, 15}, {7, 77}, {33, 512}, {9, 4099}};
enum { ROW_SHAPES = sizeof row_shapes / sizeof row_shapes[0] };

/* ---- attention */

typedef struct {
    int64_t tokens, start, heads, kv_heads, width, value_width, window, ahead;
    float cap;
    int sinks, distances;
} attention_shape;

static const attention_shape attention_shapes[] = {
    {1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0},      {1, 40, 4, 2, 64, 64, 0, 0, 0, 1, 1},
    {3, 21, 6, 2, 77, 45, 5, 0, 30, 0, 0},  {4, 300, 8, 8, 32, 128, 64, 0, 0, 1, 1},
    {5, 0, 9, 3, 20, 8, 0, 0, 0, 0, 0},     {7, 5, 6, 2, 77, 45, 0, 0, 50, 1, 1},
    {33, 64, 8, 1, 96, 40, 0, 0, 20, 0, 0}, {40, 3, 2, 1, 32, 32, 1, 0, 0, 1, 0},
    {70, 30, 4, 4, 64, 64, 40, 0, 0, 0, 1}, {100, 0, 5, 1, 64, 64, 0, 0, 0, 1, 0},
    {0, 7, 2, 2, 16, 16, 0, 0, 0, 0, 0},    {65, 200, 3, 3, 13, 17, 33, 0, 10, 1, 1},
    {3, 0, 4, 2, 24, 24, 0, 9, 0, 0, 1},    {70, 0, 4, 2, 40, 40, 0, 1000, 0, 1, 0},
    {90, 0, 3, 1, 33, 20, 17, 16, 0, 0, 1}, {40, 12, 2, 2, 16, 16, 9, 200, 30, 0, 1},
};
enum { SEQUENCES = sizeof attention_shapes / sizeof attention_shapes[0] };

typedef struct {
    int32_t count;
    qc_attention sequences[SEQUENCES];
    int64_t offset[SEQUENCES];
} attention_call;

static int32_t run_attention(const void *arguments, qc_pool *pool, int32_t isa, float *out) {
    attention_call call = *(const attention_call *)arguments;
    for (int32_t i = 0; i < call.count; ++i) call.sequences[i].out = out + call.offset[i];
    return qc_attend(pool, isa, call.sequences, call.count);
}

/* Random keys or values in both precisions: `stored` is what the kernel gets, `wide` the same numbers in float32. */
static void *random_cache(int64_t count, int half, float **wide) {
    qc_place place;
    *wide = random_floats(count, 2.0f);
    void *stored = allocate(count * (half ? 2 : 4));
    if (!half) return memcpy(stored, *wide, (size_t)count * 4);
    qc_encode(0, 1, QC_SEARCH_GGML, *wide, 1, count, 0, stored, &place);
    qc_decode(0, 1, stored, 1, count, *wide);
    return stored;
}

static double capped(double score, double cap) { return cap != 0.0 ? cap * tanh(score / cap) : score; }

/* One query of one head. Scores are float32 sums, off by a part of the sum of |q k|, and weights by as much. */
static void expect_query(const qc_attention *a, const float *k, const float *v, int64_t token, int64_t head,
                         double *exact, double *bound) {
    int64_t kv_head = head / (a->heads / a->kv_heads), position = a->start + token;
    int64_t from = a->window > 0 && position - a->window + 1 > 0 ? position - a->window + 1 : 0;
    const float *q = a->q + token * a->q_token + head * a->q_head;
    const int64_t all = a->start + a->tokens, to = a->ahead < all - position ? position + a->ahead + 1 : all;
    double *weights = doubles(to), most = a->sinks ? a->sinks[head] : -INFINITY, total = 0.0, size = 1.0;
    for (int64_t j = from; j < to; ++j) {
        double score = 0.0, sum = 0.0;
        for (int64_t i = 0; i < a->width; ++i) {
            double product = (double)q[i] * k[kv_head * a->k_head + j * a->k_position + i];
            score += product, sum += fabs(product);
        }
        weights[j] = capped(score * a->scale, a->cap);
        if (a->distances) weights[j] += a->distances[head * a->distance_head + a->distance_zero + j - position];
        most = fmax(most, weights[j]), size = fmax(size, sum * a->scale);
    }
    for (int64_t j = from; j < to; ++j) total += weights[j] = exp(weights[j] - most);
    if (a->sinks) total += exp(a->sinks[head] - most);
    for (int64_t i = 0; i < a->value_width; ++i) {
        double sum = 0.0, largest = 0.0;
        for (int64_t j = from; j < to; ++j) {
            double value = v[kv_head * a->v_head + j * a->v_position + i];
            sum += weights[j] / total * value, largest = fmax(largest, fabs(value));
        }
        exact[i] = sum, bound[i] = 1e-6 * (size + 2.0 * fabs((double)a->cap) / 10.0) * largest;
    }
    free(weights);
}

typedef struct {
    float *q, *k, *v, *sinks, *distances;
    void *k_stored, *v_stored;
} attention_data;

/* Fills the sequence; its cache has room between positions, and ends with the last element that is read. */
static attention_data random_sequence(const attention_shape *s, int half, qc_attention *a) {
    int64_t positions = s->start + s->tokens, gap = random_bits() % 4, count = s->kv_heads * positions;
    *a = (qc_attention){.q_head = s->width + gap,
                        .k_head = s->width + gap,
                        .v_head = s->value_width + gap,
                        .half = half,
                        .tokens = s->tokens,
                        .start = s->start,
                        .heads = s->heads,
                        .kv_heads = s->kv_heads,
                        .width = s->width,
                        .value_width = s->value_width,
                        .window = s->window,
                        .ahead = s->ahead,
                        .scale = 1.0f / sqrtf((float)s->width),
                        .cap = s->cap,
                        .out_head = s->value_width + gap};
    a->q_token = s->heads * a->q_head, a->k_position = s->kv_heads * a->k_head, a->v_position = s->kv_heads * a->v_head;
    a->out_token = s->heads * a->out_head;
    attention_data d = {.q = random_floats(s->tokens * a->q_token, 2.0f)};
    d.k_stored = random_cache(count * a->k_head - gap, half, &d.k);
    d.v_stored = random_cache(count * a->v_head - gap, half, &d.v);
    d.sinks = s->sinks ? random_floats(s->heads, 4.0f) : 0;
    a->distance_zero = positions - 1, a->distance_head = 2 * positions;
    d.distances = s->distances ? random_floats(s->heads * a->distance_head, 4.0f) : 0;
    a->q = d.q, a->k = d.k_stored, a->v = d.v_stored, a->sinks = d.sinks, a->distances = d.distances;
    return d;
}

static void check_attention(int first, int count, int half) {
    attention_call call = {.count = count};
    attention_data data[SEQUENCES];
    int64_t total = 0;
    for (int i = 0; i < count; ++i) {
        data[i] = random_sequence(&attention_shapes[first + i], half, &call.sequences[i]);
        call.offset[i] = total;
        total += call.sequences[i].tokens * call.sequences[i].out_token;
    }
    snprintf(label, sizeof label, "attention, shapes %d to %d, half %d", first, first + count - 1, half);
    expectation e = expect(total);
    for (int i = 0; i < count; ++i) {
        const qc_attention *a = &call.sequences[i];
        for (int64_t t = 0; t < a->tokens; ++t)
            for (int64_t h = 0; h < a->heads; ++h) {
                int64_t at = call.offset[i] + t * a->out_token + h * a->out_head;
                expect_query(a, data[i].k, data[i].v, t, h, e.exact + at, e.bound + at);
            }
    }
    check(run_attention, &call, e);
    for (int i = 0; i < count; ++i)
        free(data[i].q), free(data[i].k), free(data[i].v), free(data[i].sinks), free(data[i].distances),
            free(data[i].k_stored), free(data[i].v_stored);
}

/* ---- rows */

typedef struct {
    const float *x, *y, *weight, *bias;
    int64_t rows, columns, x_stride, y_stride, heads, pairs;
    int32_t kind, in_place;
    float scale, cap;
} row_call;

static int32_t run_norm(const void *arguments, qc_pool *pool, int32_t isa, float *out) {
    const row_call *c = arguments;
    return c->kind ? qc_layer_norm(pool, isa, c->x, c->rows, c->columns, c->weight, c->bias, 1e-5f, out)
                   : qc_rms_norm(pool, isa, c->x, c->rows, c->columns, c->weight, 1e-5f, out);
}

/* kind 0: RMS; 1: layer norm; 2: without bias. Errors of the mean count as much as the largest element. */
static void check_norm(int64_t rows, int64_t columns, int kind) {
    snprintf(label, sizeof label, "norm %d, %" PRId64 " x %" PRId64, kind, rows, columns);
    float *x = random_floats(rows * columns, 4.0f), *weight = random_floats(columns, 1.0f),
          *bias = random_floats(columns, 1.0f);
    expectation e = expect(rows * columns);
    for (int64_t r = 0; r < rows; ++r) {
        const float *row = x + r * columns;
        double mean = 0.0, squares = 0.0, most = 0.0;
        for (int64_t i = 0; kind && i < columns; ++i) mean += (double)row[i] / (double)columns;
        for (int64_t i = 0; i < columns; ++i)
            squares += (row[i] - mean) * (row[i] - mean), most = fmax(most, fabs(row[i]));
        double factor = 1.0 / sqrt(squares / (double)columns + 1e-5f);
        for (int64_t i = 0; i < columns; ++i) {
            double offset = kind == 1 ? bias[i] : 0.0;
            e.exact[r * columns + i] = (row[i] - mean) * factor * weight[i] + offset;
            e.bound[r * columns + i] = 2e-6 * (factor * fabs(weight[i]) * (kind ? most : fabs(row[i])) + fabs(offset));
        }
    }
    row_call call = {
        .x = x, .weight = weight, .bias = kind == 1 ? bias : 0, .rows = rows, .columns = columns, .kind = kind != 0};
    check(run_norm, &call, e);
    free(x), free(weight), free(bias);
}

static int32_t run_activate(const void *arguments, qc_pool *pool, int32_t isa, float *out) {
    const row_call *c = arguments;
    return qc_activate(pool, isa, c->kind, c->x, c->x_stride, c->y, c->y_stride, c->rows, c->columns, out);
}

static const float xielu_numbers[4] = {0.9f, 1.4f, 0.5f, -1e-6f};

static double activated(int32_t kind, double g) {
    const float *xi = xielu_numbers;
    switch (kind) {
    case QC_XIELU: return (g > 0.0 ? xi[0] * g * g : xi[1] * (expm1(fmin(g, xi[3])) - g)) + xi[2] * g;
    case QC_SILU: return g / (1.0 + exp(-g));
    case QC_GELU: return g * (1.0 + erf(g / sqrt(2.0))) / 2.0;
    case QC_GELU_TANH: return g * (1.0 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g))) / 2.0;
    case QC_RELU: return fmax(g, 0.0);
    case QC_RELU2: return g > 0.0 ? g * g : 0.0;
    default: g = fmin(g, 7.0); return g / (1.0 + exp(-1.702 * g));
    }
}

/* Gate and up as two halves of wider rows, with arguments where exp overflows. */
static void check_activate(int64_t rows, int64_t columns, int32_t kind, int gated) {
    static const float edges[] = {0.0f, -0.0f, 1e-30f, -1e-30f, 88.9f, -88.5f, 200.0f, -200.0f, 1e10f, -1e10f};
    snprintf(label, sizeof label, "activation function %d, gated %d, %" PRId64 " x %" PRId64, kind, gated, rows,
             columns);
    int64_t stride = 2 * columns + 1;
    float *x = random_floats(rows * stride, 6.0f);
    expectation e = expect(rows * columns);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < columns; ++i) {
            float *at = x + r * stride + i;
            if (random_bits() % 8 == 0) *at = edges[random_bits() % 10];
            double gate = *at, up = gated ? at[columns] : 1.0, size = fmax(1.0, fabs(gate));
            if (gated && kind == QC_SWIGLU_OAI) up = fmin(fmax(up, -7.0), 7.0) + 1.0;
            e.exact[r * columns + i] = activated(kind, gate) * up;
            double squared = kind == QC_RELU2 || kind == QC_XIELU ? size : 1.0;
            e.bound[r * columns + i] = 5e-7 * size * squared * fmax(fabs(up), 1e-3);
        }
    row_call call = {.x = x,
                     .y = kind == QC_XIELU ? xielu_numbers
                          : gated          ? x + columns
                                           : 0,
                     .x_stride = stride,
                     .y_stride = stride,
                     .rows = rows,
                     .columns = columns,
                     .kind = kind};
    check(run_activate, &call, e);
    free(x);
}

static int32_t run_rotate(const void *arguments, qc_pool *pool, int32_t isa, float *out) {
    const row_call *c = arguments;
    if (c->in_place) memcpy(out, c->x, (size_t)(c->rows * c->heads * c->columns) * 4);
    return qc_rotate(pool, isa, c->in_place ? out : c->x, c->rows, c->heads, c->columns, c->pairs, c->kind, c->weight,
                     c->bias, out);
}

static void check_rotate(int64_t positions, int64_t heads, int64_t width, int64_t pairs, int32_t neox, int in_place) {
    snprintf(label, sizeof label, "rotation, neox %d, in place %d, %" PRId64 " pairs of %" PRId64, neox, in_place,
             pairs, width);
    float *x = random_floats(positions * heads * width, 3.0f), *c = random_floats(positions * pairs, 1.0f);
    float *s = random_floats(positions * pairs, 1.0f);
    expectation e = expect(positions * heads * width);
    for (int64_t h = 0; h < positions * heads; ++h) {
        const float *row = x + h * width, *cosines = c + h / heads * pairs, *sines = s + h / heads * pairs;
        double *exact = e.exact + h * width, *bound = e.bound + h * width;
        for (int64_t i = 2 * pairs; i < width; ++i) exact[i] = row[i];
        for (int64_t i = 0; i < pairs; ++i) {
            int64_t at = neox ? i : 2 * i, other = neox ? i + pairs : 2 * i + 1;
            double a = row[at], b = row[other];
            exact[at] = a * cosines[i] - b * sines[i], exact[other] = a * sines[i] + b * cosines[i];
            bound[at] = bound[other] = 2e-7 * (fabs(a) + fabs(b)) * (fabs(cosines[i]) + fabs(sines[i]));
        }
    }
    row_call call = {.x = x,
                     .weight = c,
                     .bias = s,
                     .rows = positions,
                     .columns = width,
                     .heads = heads,
                     .pairs = pairs,
                     .kind = neox,
                     .in_place = in_place};
    check(run_rotate, &call, e);
    free(x), free(c), free(s);
}

static int32_t run_softmax(const void *arguments, qc_pool *pool, int32_t isa, float *out) {
    const row_call *c = arguments;
    if (c->rows) memcpy(out, c->x, (size_t)(c->rows * c->columns) * 4);
    return qc_log_softmax(pool, isa, out, c->rows, c->columns, c->scale, c->cap);
}

/* The sum of exponentials is off by 2^-22 of itself. */
static void check_softmax(int64_t rows, int64_t columns, float scale, float cap) {
    snprintf(label, sizeof label, "log_softmax, scale %g, cap %g, %" PRId64 " x %" PRId64, (double)scale, (double)cap,
             rows, columns);
    float *x = random_floats(rows * columns, 20.0f);
    expectation e = expect(rows * columns);
    for (int64_t r = 0; r < rows; ++r) {
        float *row = x + r * columns;
        double *exact = e.exact + r * columns, most = -INFINITY, total = 0.0;
        if (r == 1) row[columns / 2] = 300.0f; /* all others vanish */
        for (int64_t i = 0; i < columns; ++i) {
            if (r == 2) row[i] = -3.25f; /* all equal */
            exact[i] = capped((double)row[i] * scale, cap), most = fmax(most, exact[i]);
        }
        for (int64_t i = 0; i < columns; ++i) total += exp(exact[i] - most);
        for (int64_t i = 0; i < columns; ++i) {
            exact[i] = exact[i] - most - log(total);
            e.bound[r * columns + i] = 1e-6 + 2e-7 * fabs(exact[i]) + 1e-6 * fabs((double)cap);
        }
    }
    row_call call = {.x = x, .rows = rows, .columns = columns, .scale = scale, .cap = cap};
    check(run_softmax, &call, e);
    free(x);
}

static int64_t first_largest(const float *x, int64_t columns) {
    int64_t best = 0;
    for (int64_t i = 1; i < columns; ++i)
        if (x[i] > x[best]) best = i;
    return best;
}

static void check_divergence(int64_t rows, int64_t columns) {
    snprintf(label, sizeof label, "divergence, %" PRId64 " x %" PRId64, rows, columns);
    float *base = random_floats(rows * columns, 10.0f), *other = random_floats(rows * columns, 10.0f);
    for (int64_t i = 0; i < rows * columns; ++i) base[i] -= 12.0f, other[i] -= 12.0f;
    for (int k = 0; k < backend_count; ++k)
        for (int p = 0; p < POOLS; ++p) {
            double *divergence = doubles(rows);
            int64_t *base_top = allocate(rows * 8), *other_top = allocate(rows * 8);
            if (qc_divergence(pools[p], backends[k], base, other, rows, columns, divergence, base_top, other_top) !=
                QC_OK)
                fail_case("status", backends[k]);
            for (int64_t r = 0; r < rows; ++r) {
                const float *b = base + r * columns, *o = other + r * columns;
                double sum = 0.0, size = 0.0;
                for (int64_t i = 0; i < columns; ++i) {
                    double term = b[i] > -16.0f ? exp(b[i]) * ((double)b[i] - o[i]) : 0.0;
                    sum += term, size += fabs(term);
                }
                if (!(fabs(divergence[r] - sum) <= 1e-6 * size)) fail_case("result", backends[k]);
                if (base_top[r] != first_largest(b, columns) || other_top[r] != first_largest(o, columns))
                    fail_case("largest", backends[k]);
            }
            free(divergence), free(base_top), free(other_top);
        }
    ++cases;
    free(base), free(other);
}

static void check_elements(void) {
    for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < SEQUENCES; ++i) check_attention(i, 1, half);
        check_attention(0, SEQUENCES, half);
    }
    for (int s = 0; s < ROW_SHAPES; ++s) {
        int64_t rows = row_shapes[s][0], columns = row_shapes[s][1];
        for (int kind = 0; kind < 3; ++kind) check_norm(rows, columns, kind);
        for (int32_t kind = 0; kind < QC_ACTIVATION_KINDS; ++kind)
            for (int gated = 0; gated < (kind == QC_XIELU ? 1 : 2); ++gated) check_activate(rows, columns, kind, gated);
        check_softmax(rows, columns, 1.0f, 0.0f), check_softmax(rows, columns, 0.5f, 30.0f);
        check_divergence(rows, columns);
    }
    for (int kind = 0; kind < 4; ++kind) {
        check_rotate(0, 2, 8, 4, kind & 1, kind >> 1);
        check_rotate(5, 3, 20, 8, kind & 1, kind >> 1);
        check_rotate(3, 1, 7, 0, kind & 1, kind >> 1);
        check_rotate(90, 4, 64, 32, kind & 1, kind >> 1);
    }
}
#endif
