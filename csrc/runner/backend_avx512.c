/* The runner for AVX-512 with VNNI, and for the same with AVX512_BF16 (flags: scripts/build_kernels.py); empty on other
 * architectures. */
#if defined(__x86_64__)
#include "../vec/runner_avx512.h"
#include "dots_quads.inc"
#include "backend.inc"
/* One token's products with 512 bits were slower than with 256 on Sapphire Rapids (Q4_0 by a third). */
const runner_backend qc_runner_avx512 = {
    .name = QC_RUNNER_NAME, .one_token = &qc_runner_avx2, .types = qc_backend_avx512, QC_RUNNER_KERNELS};
const runner_backend qc_runner_avx512_bf16 = {.name = QC_RUNNER_NAME "_bf16",
                                              .one_token = &qc_runner_avx2,
                                              .types = qc_backend_avx512,
                                              .bf16_pairs = qc_bf16_pairs,
                                              .bf16_dot = qc_bf16_dot,
                                              QC_RUNNER_KERNELS};
#else
typedef int qc_no_runner_avx512;
#endif
