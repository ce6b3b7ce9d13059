/* The bodies with one lane: the reference, for every machine. */
#include "vec/scalar.h"
#define QC_ROWS qc_rows_scalar
#include "kernels.inc"
