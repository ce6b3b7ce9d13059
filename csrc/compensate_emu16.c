/* The compensating encoders, emu16. */
#include "vec/emu16.h"
#include "vec/fused.h"
#define QC_COMPENSATORS qc_compensators_emu16
#include "encode/compensate.inc"
