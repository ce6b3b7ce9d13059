/* The runner for arm64 with the dot product instructions of ARMv8.2 (flags: scripts/build_kernels.py); empty elsewhere.
 */
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#define VW 4
#define QC_LEVEL qc_level_dotprod
#define QC_LEVEL_NAME "dotprod"
#define QC_LEVEL_BACKEND qc_backend_neon
#define NARROW_SPAN 127
#include "body.inc"
const level *qc_dotprod(void) { return &qc_level_dotprod; }
#elif defined(__aarch64__)
#include "level.h"
const level *qc_dotprod(void) { return 0; } /* built without the flag */
#else
typedef int qc_no_level_dotprod;
#endif
