/* points.c - the codebooks' grids, expanded once from the ranks in grids.h. */
#define _POSIX_C_SOURCE 200112L
#include "points.h"
#include "../grids.h"
#include <pthread.h>

uint64_t qc_points_iq2_xxs[256], qc_points_iq2_xs[512], qc_points_iq2_s[1024], qc_points_iq1[2048];
uint32_t qc_points_iq3_xxs[256], qc_points_iq3_s[512];
_Alignas(64) uint8_t qc_planes_iq3_xxs[2][256];
_Alignas(64) uint8_t qc_planes_iq3_s[2][512];

static uint64_t expand(uint16_t point, int bits, int count, const int8_t *levels, int factor) {
    uint64_t v = 0;
    for (int i = 0; i < count; ++i) {
        int level = levels[(point >> (bits * i)) & ((1 << bits) - 1)] * factor;
        v |= (uint64_t)(uint8_t)level << (8 * i);
    }
    return v;
}

static void make(void) {
    for (int i = 0; i < 256; ++i) qc_points_iq2_xxs[i] = expand(qc_grid_iq2_xxs[i], 2, 8, qc_levels_iq2_xxs, 1);
    for (int i = 0; i < 512; ++i) qc_points_iq2_xs[i] = expand(qc_grid_iq2_xs[i], 2, 8, qc_levels_iq2_xs, 1);
    for (int i = 0; i < 1024; ++i) qc_points_iq2_s[i] = expand(qc_grid_iq2_s[i], 2, 8, qc_levels_iq2_s, 1);
    for (int i = 0; i < 256; ++i)
        qc_points_iq3_xxs[i] = (uint32_t)expand(qc_grid_iq3_xxs[i], 3, 4, qc_levels_iq3_xxs, 1);
    for (int i = 0; i < 512; ++i) qc_points_iq3_s[i] = (uint32_t)expand(qc_grid_iq3_s[i], 3, 4, qc_levels_iq3_s, 1);
    for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < 256; ++i) qc_planes_iq3_xxs[half][i] = qc_grid_iq3_xxs[i] >> (6 * half) & 63;
        for (int i = 0; i < 512; ++i) qc_planes_iq3_s[half][i] = qc_grid_iq3_s[i] >> (6 * half) & 63;
    }
    static const int8_t ternary[4] = {-1, 0, 1, 0};
    for (int i = 0; i < 2048; ++i) qc_points_iq1[i] = expand(qc_grid_iq1[i], 2, 8, ternary, 8); /* eighths */
}

void qc_make_points(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make);
}
