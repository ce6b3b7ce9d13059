/* shell_tables.c - neighbours of every integer point as ggml's searches know them; see shell_tables.h. */
#include "shell_tables.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../grids.h"

enum { SHELL_HALVES = 81, SHELL_MOST = 2048, SHELL_BEYOND = 255 }; /* distances are at most 4 * 49 */

typedef struct {
    const uint16_t *points;
    int count, elements, bits, shells; /* grid points; elements of a point and bits of each; shells looked at */
} shell_grid;

#define GRID(name, elements, bits, shells)                                                                             \
    {qc_grid_##name, (int)(sizeof qc_grid_##name / sizeof(uint16_t)), elements, bits, shells}
static const shell_grid grids[QC_GRIDS] = {
    [QC_GRID_IQ2_XXS] = GRID(iq2_xxs, 8, 2, 2), [QC_GRID_IQ2_XS] = GRID(iq2_xs, 8, 2, 2),
    [QC_GRID_IQ2_S] = GRID(iq2_s, 8, 2, 1),     [QC_GRID_IQ1] = GRID(iq1, 8, 2, 3),
    [QC_GRID_IQ3_XXS] = GRID(iq3_xxs, 4, 3, 2), [QC_GRID_IQ3_S] = GRID(iq3_s, 4, 3, 3),
};

/* Squared distances (half the difference of levels) of every half of a point from that half of each grid point: a
 * point's distances are the sum of two rows. */
typedef struct {
    uint8_t low[SHELL_HALVES][SHELL_MOST], high[SHELL_HALVES][SHELL_MOST];
} shell_halves;

/* The packed form of a numbered half, or of a numbered point. */
static unsigned shell_packed(const shell_grid *grid, int number, int elements) {
    const int base = grid->bits == 2 ? 3 : 8;
    unsigned packed = 0;
    for (int i = 0; i < elements; ++i, number /= base) packed |= (unsigned)(number % base) << grid->bits * i;
    return packed;
}

static int shell_distance(const shell_grid *grid, unsigned a, unsigned b) {
    const int mask = (1 << grid->bits) - 1;
    int sum = 0;
    for (int i = 0; i < grid->elements / 2; ++i, a >>= grid->bits, b >>= grid->bits) {
        const int step = (int)(a & (unsigned)mask) - (int)(b & (unsigned)mask);
        sum += step * step;
    }
    return sum;
}

static void shell_fill(const shell_grid *grid, int count, shell_halves *halves) {
    const int shift = grid->bits * grid->elements / 2;
    for (int half = 0; half < count; ++half) {
        const unsigned packed = shell_packed(grid, half, grid->elements / 2);
        for (int j = 0; j < grid->count; ++j) {
            halves->low[half][j] = (uint8_t)shell_distance(grid, packed, grid->points[j]);
            halves->high[half][j] = (uint8_t)shell_distance(grid, packed, (unsigned)grid->points[j] >> shift);
        }
    }
}

/* The neighbours of a point whose halves have these rows, `out` has room for all grid points: how many. */
static int shell_collect(const shell_grid *grid, const uint8_t *low, const uint8_t *high, uint16_t *out) {
    uint8_t distance[SHELL_MOST], floor = 0;
    const uint8_t *end = distance + grid->count;
    int total = 0;
    for (int j = 0; j < grid->count; ++j) distance[j] = (uint8_t)(low[j] + high[j]);
    for (int shell = 0; shell < grid->shells; ++shell) {
        uint8_t step = SHELL_BEYOND; /* from `floor` to the next distance; what is nearer wraps around to more */
        for (int j = 0; j < grid->count; ++j) {
            const uint8_t own = (uint8_t)(distance[j] - floor);
            step = own < step ? own : step;
        }
        const uint8_t least = (uint8_t)(floor + step);
        for (const uint8_t *at = distance; (at = memchr(at, least, (size_t)(end - at))); ++at)
            out[total++] = grid->points[at - distance];
        floor = (uint8_t)(least + 1);
    }
    return total;
}

static qc_shells *shell_build(const shell_grid *grid) {
    const int count = grid->bits == 2 ? SHELL_HALVES : 64, numbers = count * count;
    shell_halves *halves = malloc(sizeof *halves);
    uint8_t *on_grid = calloc(1 << 16, 1);
    qc_shells *made = NULL;
    size_t points = 0, room = 0;
    if (!halves || !on_grid) goto failed;
    shell_fill(grid, count, halves);
    for (int j = 0; j < grid->count; ++j) on_grid[grid->points[j]] = 1;
    for (int n = 0; n < numbers; ++n) {
        if (points + SHELL_MOST > room) {
            room = 2 * room + 32 * SHELL_MOST;
            qc_shells *larger = realloc(made, sizeof *made + room * sizeof(uint16_t));
            if (!larger) goto failed;
            made = larger;
        }
        const unsigned packed = shell_packed(grid, n, grid->elements);
        uint16_t *out = made->points + points;
        const int found =
            on_grid[packed] ? 0 : shell_collect(grid, halves->low[n % count], halves->high[n / count], out);
        made->shells[n] = (qc_shell){(uint32_t)points, (uint16_t)found, (uint16_t)packed};
        const int taken = (found + 7) / 8 * 8;
        memset(out + found, 0, (size_t)(taken - found) * sizeof *out);
        points += (size_t)taken;
    }
    free(halves);
    free(on_grid);
    qc_shells *fitting = realloc(made, sizeof *made + points * sizeof(uint16_t));
    return fitting ? fitting : made;
failed:
    free(halves);
    free(on_grid);
    free(made);
    return NULL;
}

static qc_shells *tables[QC_GRIDS];
static pthread_once_t once[QC_GRIDS] = {PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT,
                                        PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT};

#define BUILDER(n)                                                                                                     \
    static void build_##n(void) { tables[n] = shell_build(&grids[n]); }
BUILDER(QC_GRID_IQ2_XXS)
BUILDER(QC_GRID_IQ2_XS)
BUILDER(QC_GRID_IQ2_S)
BUILDER(QC_GRID_IQ1)
BUILDER(QC_GRID_IQ3_XXS)
BUILDER(QC_GRID_IQ3_S)
static void (*const builders[QC_GRIDS])(void) = {build_QC_GRID_IQ2_XXS, build_QC_GRID_IQ2_XS,  build_QC_GRID_IQ2_S,
                                                 build_QC_GRID_IQ1,     build_QC_GRID_IQ3_XXS, build_QC_GRID_IQ3_S};

const qc_shells *qc_shells_of(int grid) {
    pthread_once(&once[grid], builders[grid]);
    return tables[grid];
}
