/* bench_sets.c - is a wider instruction set ever slower than a narrower one? Every kernel row (encoders, decoders,
 * products for one token and for many) on every set that this CPU runs, in turns, best of nine.
 *
 *     bench_sets [--json] [--only PART]
 *
 * PART is the beginning of names of rows ("encode", "product 1 Q4_0"). A row on which a wider set takes more than 1.05
 * times as long is measured again, and where that repeats the exit status is 1. One program without Python, for
 * machines without a compiler: `scripts/build_kernels.py --program csrc/tests/bench_sets.c --output bench_sets`, with
 * CFLAGS=-static for machines with another libc. Thread CPU time: other work on the machine matters little. */
#define _POSIX_C_SOURCE 200809L
#include "../quantcli.h"
#include "../runner.h"
#include "../table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SETS_MOST = 8, ROUNDS = 9, COLUMNS = 2048, ROWS = 16, PRODUCT_ROWS = 512, TOKENS = 64 };

static const struct {
    const char *name;
    int32_t type;
} types[] = {
#define QC_TYPE(NAME, name, id, ...) {#NAME, id},
#include "../types.def"
};
enum { TYPES = sizeof types / sizeof types[0] };

/* What a row does on a set. */
typedef enum { ENCODE_GGML, ENCODE_BEST, DECODE, PRODUCT_ONE, PRODUCT_MANY, KINDS } kind;
static const char *const kinds[KINDS] = {"encode ggml", "encode best", "decode", "product 1", "product 64"};

static _Alignas(64) float x[PRODUCT_ROWS * COLUMNS], importance[COLUMNS];
static _Alignas(64) float out[TOKENS * PRODUCT_ROWS], values[ROWS * COLUMNS];
static _Alignas(64) uint8_t packed[PRODUCT_ROWS * COLUMNS * 8];
static qc_pool *pool;
static int32_t sets[SETS_MOST], set_count;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Sums of four uniform numbers: near enough to normal ones. */
static void fill(void) {
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof x / sizeof x[0]; ++i) {
        float sum = 0.0f;
        for (int k = 0; k < 4; ++k) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            sum += (float)(state >> 40) * 0x1p-24f - 0.5f;
        }
        x[i] = 0.035f * sum;
        if (i < COLUMNS) importance[i] = 0.1f + sum * sum * 9.0f;
    }
}

/* Whether there is such a row; `packed` is then what it reads. */
static int prepare(kind k, int32_t type) {
    qc_place place;
    const int32_t search = k == ENCODE_BEST ? QC_SEARCH_BEST : QC_SEARCH_GGML;
    if (k <= ENCODE_BEST) return qc_can_encode(type, search);
    if (!qc_can_decode(type) || (k >= PRODUCT_ONE && !qc_can_multiply(type))) return 0;
    if (!qc_can_encode(type, QC_SEARCH_GGML)) return k == DECODE;
    const int64_t rows = k == DECODE ? ROWS : PRODUCT_ROWS, unique = 8;
    if (qc_encode(qc_isa_best(), type, QC_SEARCH_BEST, x, unique, COLUMNS, importance, packed, &place) != QC_OK)
        return 0;
    const qc_layout *layout = qc_type_layout(type);
    const size_t bytes = (size_t)(COLUMNS / layout->block * layout->bytes);
    for (int64_t row = unique; row < rows; ++row)
        memcpy(packed + (size_t)row * bytes, packed + (size_t)(row % unique) * bytes, bytes);
    return 1;
}

/* One call; returns the weights that it went over. */
static int64_t work(kind k, int32_t type, int32_t isa) {
    qc_place place;
    qc_product product = {.type = type,
                          .weights = packed,
                          .rows = PRODUCT_ROWS,
                          .columns = COLUMNS,
                          .x = x,
                          .x_stride = COLUMNS,
                          .tokens = k == PRODUCT_ONE ? 1 : TOKENS,
                          .out = out,
                          .out_stride = PRODUCT_ROWS};
    switch (k) {
    case ENCODE_GGML:
    case ENCODE_BEST:
        qc_encode(isa, type, k == ENCODE_BEST ? QC_SEARCH_BEST : QC_SEARCH_GGML, x, ROWS, COLUMNS, importance, packed,
                  &place);
        return ROWS * COLUMNS;
    case DECODE: qc_decode(isa, type, packed, ROWS, COLUMNS, values); return ROWS * COLUMNS;
    default: qc_matmul(pool, isa, QC_ACTIVATIONS_Q8, &product, 1); return product.tokens * PRODUCT_ROWS * COLUMNS;
    }
}

/* ns per weight of every set: the best of nine turns. */
static void measure(kind k, int32_t type, double *best) {
    int repeats = 1; /* a turn takes a millisecond at least */
    for (double spent = 0.0; spent < 1e6 && repeats < 1 << 16; repeats *= 2) {
        double start = now();
        for (int i = 0; i < repeats; ++i) work(k, type, sets[0]);
        spent = now() - start;
    }
    for (int s = 0; s < set_count; ++s) best[s] = 1e30;
    for (int round = 0; round < ROUNDS; ++round)
        for (int s = 0; s < set_count; ++s) {
            int64_t weights = 0;
            double start = now();
            for (int i = 0; i < repeats; ++i) weights += work(k, type, sets[s]);
            double spent = (now() - start) / (double)weights;
            if (spent < best[s]) best[s] = spent;
        }
}

/* The largest ratio of a set to a narrower one. */
static double worst(const double *best) {
    double ratio = 0.0;
    for (int s = 1; s < set_count; ++s)
        for (int narrow = 0; narrow < s; ++narrow)
            if (best[s] / best[narrow] > ratio) ratio = best[s] / best[narrow];
    return ratio;
}

static void show(int json, const char *name, const double *best, double ratio, int lost, int first) {
    if (json) {
        printf("%s\n  {\"row\": \"%s\", \"ns\": {", first ? "" : ",", name);
        for (int s = 0; s < set_count; ++s) printf("%s\"%s\": %.5f", s ? ", " : "", qc_isa_name(sets[s]), best[s]);
        printf("}, \"worst\": %.4f, \"lost\": %s}", ratio, lost ? "true" : "false");
    } else {
        printf("%-22s", name);
        for (int s = 0; s < set_count; ++s) printf(" %9.4f", best[s]);
        printf("  %6.3f%s\n", ratio, lost ? "  SLOWER THAN A NARROWER SET" : "");
    }
    fflush(stdout);
}

int main(int count, char **words) {
    int json = 0, lost_rows = 0, rows = 0;
    const char *only = "";
    for (int i = 1; i < count; ++i) {
        if (!strcmp(words[i], "--json"))
            json = 1;
        else if (!strcmp(words[i], "--only") && i + 1 < count)
            only = words[++i];
        else
            return fprintf(stderr, "usage: bench_sets [--json] [--only PART]\n"), 2;
    }
    for (int32_t isa = 1; isa < qc_isa_count() && set_count < SETS_MOST; ++isa)
        if (qc_isa_supported(isa) && strcmp(qc_isa_name(isa), "emu16")) sets[set_count++] = isa;
    pool = qc_pool_new(1);
    if (!set_count || !pool) return fprintf(stderr, "no vector instruction set, or no memory\n"), 2;
    fill();
    if (json) {
        printf("{\"schema\": 1, \"rows\": [");
    } else {
        printf("%-22s", "row");
        for (int s = 0; s < set_count; ++s) printf(" %9s", qc_isa_name(sets[s]));
        printf("  ns per weight, best of %d; last: the worst of wider / narrower\n", ROUNDS);
    }
    for (kind k = 0; k < KINDS; ++k)
        for (int t = 0; t < TYPES; ++t) {
            char name[64];
            double best[SETS_MOST];
            snprintf(name, sizeof name, "%s %s", kinds[k], types[t].name);
            if (strncmp(name, only, strlen(only)) || !prepare(k, types[t].type)) continue;
            measure(k, types[t].type, best);
            int lost = worst(best) > 1.05;
            if (lost) measure(k, types[t].type, best), lost = worst(best) > 1.05;
            show(json, name, best, worst(best), lost, rows++ == 0);
            lost_rows += lost;
        }
    if (json)
        printf("\n], \"sets\": %d, \"lost\": %d}\n", set_count, lost_rows);
    else if (set_count < 2)
        printf("one set only: nothing to compare\n");
    else
        printf("%d of %d rows are slower on a wider set\n", lost_rows, rows);
    qc_pool_free(pool);
    return lost_rows ? 1 : 0;
}
