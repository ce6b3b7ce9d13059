/* The compensating encoders for avx512 alone (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#include "vec/avx512.h"
#include "vec/fused.h"
#define QC_COMPENSATORS qc_compensators_avx512
#include "encode/compensate.inc"
#else
typedef int qc_no_compensate_avx512;
#endif
