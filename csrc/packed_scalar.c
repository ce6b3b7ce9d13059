/* Packed checkpoints in plain C: the reference, and what arm64 takes, whose compilers turn its loops into vectors. */
#define QC_PACKED_KERNELS qc_packed_scalar
#include "packed.inc"
