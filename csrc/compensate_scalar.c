/* The compensating encoders, scalar. */
#include "vec/scalar.h"
#include "vec/fused.h"
#define QC_COMPENSATORS qc_compensators_scalar
#include "encode/compensate.inc"
