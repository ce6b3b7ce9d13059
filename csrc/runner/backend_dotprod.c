/* The runner for arm64 with the dot product instructions of ARMv8.2 (flags: scripts/build_kernels.py); without a name,
 * so never chosen, where the compiler was not told of them; empty on other architectures. */
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include "../vec/runner_dotprod.h"
#include "dots_none.inc"
#include "backend.inc"
const runner_backend qc_runner_dotprod = {.name = QC_RUNNER_NAME, .types = qc_backend_neon, QC_RUNNER_KERNELS};
#elif defined(__aarch64__)
#include "backend.h"
const runner_backend qc_runner_dotprod = {.name = 0};
#else
typedef int qc_no_runner_dotprod;
#endif
