/* The runner for arm64 (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__aarch64__)
#define VW 4
#define QC_LEVEL qc_level_neon
#define QC_LEVEL_NAME "neon"
#define QC_LEVEL_BACKEND qc_backend_neon
#define NARROW_SPAN 255
#include "body.inc"
#else
typedef int qc_no_level_neon;
#endif
