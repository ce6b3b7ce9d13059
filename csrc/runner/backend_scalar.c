/* The runner without instructions of its own: four lanes, which any compiler turns into what the machine has. */
#include "../vec/runner_scalar.h"
#include "dots_none.inc"
#include "backend.inc"
const runner_backend qc_runner_scalar = {.name = QC_RUNNER_NAME, .types = qc_backend_scalar, QC_RUNNER_KERNELS};
