/* The bodies with sixteen lanes in portable C: tests the wide code where there is no AVX-512. */
#include "vec/emu16.h"
#define QC_BACKEND qc_backend_emu16
#include "kernels.inc"
