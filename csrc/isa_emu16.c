/* The bodies with sixteen lanes in portable C: tests the wide code where there is no AVX-512. */
#include "vec/emu16.h"
#define QC_ROWS qc_rows_emu16
#include "kernels.inc"
