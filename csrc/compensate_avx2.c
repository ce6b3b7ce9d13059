/* The compensating encoders for avx2 alone (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#include "vec/avx2.h"
#include "vec/fused.h"
#define QC_COMPENSATORS qc_compensators_avx2
#include "encode/compensate.inc"
#else
typedef int qc_no_compensate_avx2;
#endif
