/* shell_tables.c - neighbours of every integer point as ggml's searches know them; see shell_tables.h. */
#include "shell_tables.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../grids.h"

enum { SHELL_REACH = 4 * 49 + 1 }; /* distances are below: half the difference of levels, 4 elements of 0..7 */

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

/* The packed form of a numbered point. */
static unsigned shell_packed(const shell_grid *grid, int number) {
    const int base = grid->bits == 2 ? 3 : 8;
    unsigned packed = 0;
    for (int i = 0; i < grid->elements; ++i, number /= base) packed |= (unsigned)(number % base) << grid->bits * i;
    return packed;
}

/* Squared distances of halves of packed points: half the elements are half the bits. */
typedef struct {
    uint8_t distance[256][256];
} shell_halves;

static void shell_fill(const shell_grid *grid, shell_halves *halves) {
    const int bits = grid->bits, half = grid->elements / 2, size = 1 << bits * half, mask = (1 << bits) - 1;
    for (int a = 0; a < size; ++a)
        for (int b = 0; b < size; ++b) {
            int sum = 0;
            for (int i = 0; i < half; ++i) {
                int step = (a >> bits * i & mask) - (b >> bits * i & mask);
                sum += step * step;
            }
            halves->distance[a][b] = (uint8_t)sum;
        }
}

/* Neighbours of one point to `out` (NULL: only count them): how many. */
static int shell_collect(const shell_grid *grid, const shell_halves *halves, unsigned packed, uint16_t *out) {
    const int shift = grid->bits * grid->elements / 2, mask = (1 << shift) - 1;
    int populated[SHELL_REACH] = {0}, start[SHELL_REACH], total = 0, shells = 0;
    uint8_t distance[2048];
    for (int j = 0; j < grid->count; ++j) {
        unsigned point = grid->points[j];
        distance[j] = (uint8_t)(halves->distance[packed & (unsigned)mask][point & (unsigned)mask] +
                                halves->distance[packed >> shift][point >> shift]);
        ++populated[distance[j]];
    }
    for (int d = 0; d < SHELL_REACH; ++d) {
        const int within = shells < grid->shells;
        start[d] = within ? total : -1;
        total += within ? populated[d] : 0;
        shells += populated[d] > 0;
    }
    for (int j = 0; out && j < grid->count; ++j)
        if (start[distance[j]] >= 0) out[start[distance[j]]++] = grid->points[j];
    return total;
}

static qc_shells *shell_build(const shell_grid *grid) {
    const int numbers = grid->bits == 2 ? 6561 : 4096;
    shell_halves *halves = malloc(sizeof *halves);
    uint8_t *on_grid = calloc(1 << 16, 1);
    qc_shells *made = calloc(1, sizeof *made);
    size_t points = 0;
    if (!halves || !on_grid || !made) goto failed;
    shell_fill(grid, halves);
    for (int j = 0; j < grid->count; ++j) on_grid[grid->points[j]] = 1;
    for (int n = 0; n < numbers; ++n) {
        unsigned packed = shell_packed(grid, n);
        int count = on_grid[packed] ? 0 : shell_collect(grid, halves, packed, NULL);
        made->shells[n] = (qc_shell){(uint32_t)points, (uint16_t)count, (uint16_t)packed};
        points += ((size_t)count + 7) / 8 * 8;
    }
    qc_shells *whole = realloc(made, sizeof *made + points * sizeof(uint16_t));
    if (!whole) goto failed;
    made = whole;
    memset(made->points, 0, points * sizeof(uint16_t));
    for (int n = 0; n < numbers; ++n) {
        const qc_shell *shell = &made->shells[n];
        if (shell->count) shell_collect(grid, halves, shell->point, made->points + shell->at);
    }
    free(halves);
    free(on_grid);
    return made;
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
