/* The compensating encoders for neon alone (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__aarch64__)
#include "vec/neon.h"
#include "vec/fused.h"
#define QC_COMPENSATORS qc_compensators_neon
#include "encode/compensate.inc"
#else
typedef int qc_no_compensate_neon;
#endif
