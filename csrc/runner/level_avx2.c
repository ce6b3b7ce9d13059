/* The runner for AVX2, FMA and F16C (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#define VW 8
#define QC_LEVEL qc_level_avx2
#define QC_LEVEL_NAME "avx2"
#define QC_LEVEL_BACKEND qc_backend_avx2
#define NARROW_SPAN 128
#include "body.inc"
#else
typedef int qc_no_level_avx2;
#endif
