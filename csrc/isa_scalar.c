/* The bodies with one lane: the reference, for every machine. */
#include "vec/scalar.h"
#define QC_BACKEND qc_backend_scalar
#include "kernels.inc"
