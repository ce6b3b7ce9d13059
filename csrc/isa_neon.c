/* Compiled for arm64, where every CPU has NEON; empty on other architectures. */
#if defined(__aarch64__)
#include "vec/neon.h"
#define QC_BACKEND qc_backend_neon
#include "kernels.inc"
#else
typedef int qc_no_neon;
#endif
