/* Compiled for avx512 alone (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#include "vec/avx512.h"
#define QC_BACKEND qc_backend_avx512
#include "kernels.inc"
#else
typedef int qc_no_avx512;
#endif
