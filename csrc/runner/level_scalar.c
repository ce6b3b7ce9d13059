/* The runner without instructions of its own: four lanes, which any compiler turns into what the machine has. */
#define VW 4
#define QC_LEVEL qc_level_scalar
#define QC_LEVEL_NAME "scalar"
#define QC_LEVEL_BACKEND qc_backend_scalar
#define NARROW_SPAN 255
#include "body.inc"
