/* Compiled for avx2 alone (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#include "vec/avx2.h"
#define QC_BACKEND qc_backend_avx2
#include "kernels.inc"
#else
typedef int qc_no_avx2;
#endif
