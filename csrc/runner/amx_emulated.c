/* The products of amx.c with registers in plain C, so that tests meet them on every processor with AVX-512; empty on
 * other architectures. */
#if defined(__x86_64__)
#define QC_AMX_EMULATED
#define AMX_FUNCTION(name) qc_amx_##name##_emulated
#include "products_amx.inc"
#else
typedef int qc_no_amx_emulated;
#endif
