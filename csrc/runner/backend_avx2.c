/* The runner for AVX2, FMA and F16C (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#include "../vec/runner_avx2.h"
#include "dots_pairs.inc"
#define QC_FEW 6
#include "backend.inc"
const runner_backend qc_runner_avx2 = {.name = QC_RUNNER_NAME, .types = qc_backend_avx2, QC_RUNNER_KERNELS};
#else
typedef int qc_no_runner_avx2;
#endif
