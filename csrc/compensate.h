/* compensate.h - the compensating encoders of a type, and of all types: one table per instruction set.
 *
 * As table.h, in files of their own (csrc/compensate_*.c): their products are fused, all other kernels are not. */
#ifndef QC_COMPENSATE_H
#define QC_COMPENSATE_H
#include "table.h"

/* Better codes and scales by a metric, into blocks that hold some; counts the rows whose blocks stay. losses: NULL, or
 * [rows]. */
typedef int32_t (*qc_compensator)(const float *target, int64_t rows, int64_t columns, const qc_metric *metric,
                                  const qc_effort *effort, uint8_t *blocks, int64_t *kept, float *losses);
typedef const struct {
    int32_t together; /* columns that are coded together, as the metric must have them */
    qc_compensator compensate;
} qc_compensators[QC_TYPES];

extern qc_compensators qc_compensators_scalar, qc_compensators_emu16;
#if defined(__x86_64__)
extern qc_compensators qc_compensators_avx2, qc_compensators_avx512;
#elif defined(__aarch64__)
extern qc_compensators qc_compensators_neon;
#endif
#endif
