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

enum { MOST_HALVES = 81, MOST_POINTS = 2048, KEY_BITS = 11 };

/* A point is cut into two halves of 4 or 2 elements: 81 or 64 possible halves, numbered like points. The key of a grid
 * point is its squared distance on decoded levels, then its grid index: the sum of two rows, one of each half. */
typedef struct {
    int halves, elements, base, bits;
    int32_t distance[MOST_HALVES][MOST_HALVES]; /* of two halves */
    int32_t low[MOST_HALVES][MOST_POINTS];      /* per half of a point: what it adds to each grid point's key */
    int32_t high[MOST_POINTS];                  /* the same of the other half that is at work, with the index */
    uint8_t of[MOST_POINTS][2];                 /* halves of the grid points */
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

/* All halves in an order (a reflected Gray code) in which one element changes by one rank from each to the next. */
static int half_beside(const half_table *t, int place) {
    int half = 0, odd = 0;
    for (int i = t->elements - 1, power = t->halves / t->base; i >= 0; --i, power /= t->base) {
        const int digit = place / power % t->base;
        half += (odd ? t->base - 1 - digit : digit) * power;
        odd = (odd + digit) % 2;
    }
    return half;
}

static void fill_keys(half_table *t, const grid_source *source) {
    const int shift = source->bits * t->elements;
    for (int j = 0; j < source->count; ++j) {
        t->of[j][0] = (uint8_t)half_number(t, source->points[j] & ((1u << shift) - 1));
        t->of[j][1] = (uint8_t)half_number(t, (unsigned)source->points[j] >> shift);
    }
    for (int half = 0; half < t->halves; ++half)
        for (int j = 0; j < source->count; ++j) t->low[half][j] = t->distance[half][t->of[j][0]] << KEY_BITS;
}

/* Put a key where it belongs among the `count` sorted ones in front of that place; the last one gives way. */
static void insert(int32_t *keys, int count, int32_t key) {
    int k = count;
    for (; k > 0 && keys[k - 1] > key; --k) keys[k] = keys[k - 1];
    keys[k] = key;
}

/* The QC_NEIGHBOURS smallest keys in ascending order. `keys` holds those of a point nearby: no grid point that is
 * farther from this point than all of theirs can be among them, which spares nearly all others. */
static void nearest_points(const int32_t *low, const int32_t *high, int count, int32_t *keys) {
    uint8_t nearer[MOST_POINTS]; /* bytes, so that libc finds the next one with vectors */
    for (int k = 0; k < QC_NEIGHBOURS; ++k) {
        const int j = keys[k] & (MOST_POINTS - 1);
        insert(keys, k, low[j] + high[j]);
    }
    const int32_t farthest = keys[QC_NEIGHBOURS - 1];
    for (int j = 0; j < count; ++j) nearer[j] = low[j] + high[j] < farthest;
    for (int k = 0; k < QC_NEIGHBOURS; ++k) nearer[keys[k] & (MOST_POINTS - 1)] = 0; /* they are there already */
    for (const uint8_t *at = nearer; (at = memchr(at, 1, (size_t)(nearer + count - at))); ++at) {
        const int j = (int)(at - nearer), key = low[j] + high[j];
        if (key < keys[QC_NEIGHBOURS - 1]) insert(keys, QC_NEIGHBOURS - 1, key);
    }
}

static qc_codebook *build(const grid_source *source) {
    void *memory = NULL; /* rows of 32 bytes, none of which lies in two cache lines */
    qc_codebook *book = posix_memalign(&memory, 64, sizeof *book) ? NULL : memory;
    half_table *t = malloc(sizeof *t);
    if (!book || !t) {
        free(book);
        free(t);
        return NULL;
    }
    memset(book, 0, sizeof *book);
    fill_halves(t, source);
    fill_keys(t, source);
    int32_t keys[QC_NEIGHBOURS];
    for (int k = 0; k < QC_NEIGHBOURS; ++k) keys[k] = k; /* any grid points to begin with */
    for (int i = 0; i < t->halves; ++i) {
        const int high = half_beside(t, i);
        for (int j = 0; j < source->count; ++j) t->high[j] = t->distance[high][t->of[j][1]] << KEY_BITS | j;
        for (int k = 0; k < t->halves; ++k) {
            const int low = half_beside(t, i % 2 ? t->halves - 1 - k : k), point = low + t->halves * high;
            nearest_points(t->low[low], t->high, source->count, keys);
            for (int n = 0; n < QC_NEIGHBOURS; ++n) {
                const uint16_t packed = source->points[keys[n] & (MOST_POINTS - 1)];
                book->neighbours[point][n] = packed;
                book->planes[point][0][n] = (uint8_t)packed;
                book->planes[point][1][n] = (uint8_t)(packed >> 8);
            }
        }
    }
    for (int j = 0; j < source->count; ++j) book->index[t->of[j][0] + t->halves * t->of[j][1]] = (uint16_t)j;
    free(t);
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
