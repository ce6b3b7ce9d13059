/* Packed checkpoints for avx2 alone (flags: scripts/build_kernels.py); empty on other architectures. */
#if defined(__x86_64__)
#define QC_PACKED_KERNELS qc_packed_avx2
#include "packed.inc"
#else
typedef int qc_no_packed_avx2;
#endif
