/* points.h - the grids of the codebook types as vectors of signed bytes; ready once a pool exists. */
#ifndef QC_RUNNER_POINTS_H
#define QC_RUNNER_POINTS_H
#include <stdint.h>

extern uint64_t qc_points_iq2_xxs[256], qc_points_iq2_xs[512], qc_points_iq2_s[1024], qc_points_iq1[2048];
extern uint32_t qc_points_iq3_xxs[256], qc_points_iq3_s[512];
/* the ranks in two planes: elements 0 and 1 of every point, 2 and 3; six bits. In whole cache lines. */
extern uint8_t qc_planes_iq3_xxs[2][256], qc_planes_iq3_s[2][512];
void qc_make_points(void);
#endif
