/* sizes.h - whether a step stays within what lies at its pointers. */
#ifndef QC_RUNNER_SIZES_H
#define QC_RUNNER_SIZES_H
#include "../runner.h"

/* `shift` as qc_run takes it. True for kinds and types that there are not: whoever does the step refuses them. */
int qc_step_fits(const qc_step *step, int64_t shift);
#endif
