/* codebook_tables.c - neighbours of every integer point on the grid of each codebook type; see codebook_tables.h. */
#define _POSIX_C_SOURCE 200112L
#include "codebook_tables.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../grids.h"

uint16_t qc_base3_bits[256], qc_base3_packed[256];

typedef struct {
    const uint16_t *points;
    const int8_t *levels;
    int count, bits; /* grid points; bits per element of a packed point: 2 (8 elements) or 3 (4 elements) */
} grid_source;

#define GRID(name, bits) {qc_grid_##name, qc_levels_##name, (int)(sizeof qc_grid_##name / sizeof(uint16_t)), bits}
static const grid_source sources[QC_GRIDS] = {
    GRID(iq2_xxs, 2), GRID(iq2_xs, 2), GRID(iq2_s, 2), GRID(iq1, 2), GRID(iq3_xxs, 3), GRID(iq3_s, 3),
};

/* A point is cut into two halves of 4 or 2 elements: 81 or 64 possible halves, numbered like points. */
typedef struct {
    int halves, elements, base, bits;
    int32_t distance[81][81]; /* squared distance of two halves, on decoded levels */
} half_table;

static void fill_halves(half_table *t, const grid_source *source) {
    t->bits = source->bits;
    t->base = source->bits == 2 ? 3 : 8;
    t->elements = source->bits == 2 ? 4 : 2;
    t->halves = source->bits == 2 ? 81 : 64;
    for (int a = 0; a < t->halves; ++a)
        for (int b = 0; b < t->halves; ++b) {
            int32_t sum = 0;
            for (int i = 0, u = a, v = b; i < t->elements; ++i, u /= t->base, v /= t->base) {
                int32_t step = source->levels[u % t->base] - source->levels[v % t->base];
                sum += step * step;
            }
            t->distance[a][b] = sum;
        }
}

/* Number of a half from its packed ranks. */
static int half_number(const half_table *t, unsigned packed) {
    int number = 0;
    for (int i = t->elements - 1; i >= 0; --i)
        number = number * t->base + (int)((packed >> (t->bits * i)) & ((1u << t->bits) - 1));
    return number;
}

/* Keep the QC_NEIGHBOURS smallest keys (distance, then grid index) in ascending order. */
static void nearest_points(const int32_t *low, const int32_t *high, const uint8_t (*halves)[2], int count,
                           int32_t *keys) {
    for (int k = 0; k < QC_NEIGHBOURS; ++k) keys[k] = INT32_MAX;
    for (int j = 0; j < count; ++j) {
        int32_t key = ((low[halves[j][0]] + high[halves[j][1]]) << 11) | j;
        if (key >= keys[QC_NEIGHBOURS - 1]) continue;
        int k = QC_NEIGHBOURS - 1;
        for (; k > 0 && keys[k - 1] > key; --k) keys[k] = keys[k - 1];
        keys[k] = key;
    }
}

static qc_codebook *build(const grid_source *source) {
    void *memory = NULL; /* rows of 32 bytes, none of which lies in two cache lines */
    qc_codebook *book = posix_memalign(&memory, 64, sizeof *book) ? NULL : memory;
    half_table *t = malloc(sizeof *t);
    uint8_t (*halves)[2] = malloc((size_t)source->count * 2);
    if (book && t && halves) {
        memset(book, 0, sizeof *book);
        fill_halves(t, source);
        int shift = source->bits * t->elements;
        for (int j = 0; j < source->count; ++j) {
            halves[j][0] = (uint8_t)half_number(t, source->points[j] & ((1u << shift) - 1));
            halves[j][1] = (uint8_t)half_number(t, (unsigned)source->points[j] >> shift);
            book->index[halves[j][0] + t->halves * halves[j][1]] = (uint16_t)j;
        }
        for (int point = 0; point < t->halves * t->halves; ++point) {
            int32_t keys[QC_NEIGHBOURS];
            nearest_points(t->distance[point % t->halves], t->distance[point / t->halves], (const uint8_t (*)[2])halves,
                           source->count, keys);
            for (int k = 0; k < QC_NEIGHBOURS; ++k) {
                const uint16_t packed = source->points[keys[k] & 2047];
                book->neighbours[point][k] = packed;
                book->planes[point][0][k] = (uint8_t)packed;
                book->planes[point][1][k] = (uint8_t)(packed >> 8);
            }
        }
    } else {
        free(book);
        book = NULL;
    }
    free(t);
    free(halves);
    return book;
}

static qc_codebook *books[QC_GRIDS];
static pthread_once_t once[QC_GRIDS] = {PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT,
                                        PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT};
static pthread_once_t once_base3 = PTHREAD_ONCE_INIT;

static void build_base3(void) {
    static const int power[8] = {1, 3, 9, 27, 81, 243, 729, 2187};
    for (int byte = 0; byte < 256; ++byte) {
        for (int i = 0; i < 8; ++i) qc_base3_bits[byte] += (uint16_t)((byte >> i & 1) * power[i]);
        for (int i = 0; i < 4; ++i) qc_base3_packed[byte] += (uint16_t)((byte >> 2 * i & 3) * power[i]);
    }
}

#define BUILDER(n)                                                                                                     \
    static void build_##n(void) { books[n] = build(&sources[n]); }
BUILDER(QC_GRID_IQ2_XXS)
BUILDER(QC_GRID_IQ2_XS)
BUILDER(QC_GRID_IQ2_S)
BUILDER(QC_GRID_IQ1)
BUILDER(QC_GRID_IQ3_XXS)
BUILDER(QC_GRID_IQ3_S)
static void (*const builders[QC_GRIDS])(void) = {build_QC_GRID_IQ2_XXS, build_QC_GRID_IQ2_XS,  build_QC_GRID_IQ2_S,
                                                 build_QC_GRID_IQ1,     build_QC_GRID_IQ3_XXS, build_QC_GRID_IQ3_S};

const qc_codebook *qc_codebook_of(int grid) {
    pthread_once(&once_base3, build_base3);
    pthread_once(&once[grid], builders[grid]);
    return books[grid];
}
