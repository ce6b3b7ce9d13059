/* The runner for arm64 (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__aarch64__)
#include "../vec/runner_neon.h"
#include "dots_none.inc"
#include "backend.inc"
const runner_backend qc_runner_neon = {.name = QC_RUNNER_NAME, .types = qc_backend_neon, QC_RUNNER_KERNELS};
#else
typedef int qc_no_runner_neon;
#endif
