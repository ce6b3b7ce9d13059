/* One token's products with 512 bits where the CPU has AVX-512 VNNI and VBMI (flags: scripts/build_kernels.py); empty
 * on other architectures. */
#if defined(__x86_64__)
#include "../vec/runner_avx512.h"
#include "dots_wide.inc"
#define QC_FEW 8
#include "types.inc"
#include "one_token.inc"
/* Types without a body here: AVX2's. */
const runner_backend qc_one_token_wide = {.name = QC_RUNNER_NAME,
                                          .one_token = &qc_runner_avx2,
                                          .codes = code_types,
                                          .types = qc_backend_avx512,
                                          .dots = dots};
#else
typedef int qc_no_one_token_wide;
#endif
