/* The runner for AVX-512 with VNNI, for the same with AVX512_VBMI, and for that with AVX512_BF16 (flags:
 * scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#include "../vec/runner_avx512.h"
#include "dots_none.inc"
#include "backend.inc"
#include "unpack_split.inc"
/* One token's products have bodies of their own, with 512 bits only where bytes can be permuted (one_token_wide.c): one
 * without that was slower than AVX2's on Sapphire Rapids (Q4_0 by a third), and so were rows of F16 from memory on Zen
 * 4 (15 GB/s against 27, while in its cache 512 bits win by a tenth). */
const runner_backend qc_runner_avx512 = {
    .name = QC_RUNNER_NAME, .one_token = &qc_runner_avx2, .types = qc_backend_avx512, QC_RUNNER_KERNELS};
const runner_backend qc_runner_avx512_vbmi = {
    .name = QC_RUNNER_NAME "_vbmi", .one_token = &qc_one_token_wide, .types = qc_backend_avx512, QC_RUNNER_KERNELS};
const runner_backend qc_runner_avx512_bf16 = {.name = QC_RUNNER_NAME "_vbmi_bf16",
                                              .one_token = &qc_one_token_wide,
                                              .types = qc_backend_avx512,
                                              .bf16_pairs = qc_bf16_pairs,
                                              .bf16_dot = qc_bf16_dot,
                                              QC_RUNNER_KERNELS};
/* What an AMX backend has of amx.c or, `emulated`, of amx_emulated.c. */
#define WITH_AMX(emulated)                                                                                             \
    .byte_columns = 64, .pair_columns = 32, .signed_codes = 1, .splitters = splitters,                                 \
    .enter = qc_amx_enter##emulated, .leave = qc_amx_leave##emulated, .narrow = qc_amx_products##emulated,             \
    .split = qc_amx_split##emulated, .bf16_pairs = qc_amx_pairs##emulated, .bf16_dot = qc_bf16_dot
const runner_backend qc_runner_amx = {.name = QC_RUNNER_NAME "_amx",
                                      .one_token = &qc_one_token_wide,
                                      .types = qc_backend_avx512,
                                      .peak = qc_amx_peak,
                                      WITH_AMX(),
                                      QC_RUNNER_OTHER_KERNELS};
const runner_backend qc_runner_amx_emulated = {.name = QC_RUNNER_NAME "_amx_emulated",
                                               .one_token = &qc_one_token_wide,
                                               .types = qc_backend_avx512,
                                               .peak = peak,
                                               WITH_AMX(_emulated),
                                               QC_RUNNER_OTHER_KERNELS};
#else
typedef int qc_no_runner_avx512;
#endif
