/* The runner for AVX-512 with VNNI (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#define VW 16
#define QC_LEVEL qc_level_avx512
#define QC_LEVEL_NAME "avx512"
#define QC_LEVEL_BACKEND qc_backend_avx512
#define NARROW_SPAN 255
#define PAIRS .bf16_pairs = qc_bf16_pairs, .bf16_dot = qc_bf16_dot,
#include "body.inc"
#else
typedef int qc_no_level_avx512;
#endif
