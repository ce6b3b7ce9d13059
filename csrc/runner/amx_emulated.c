/* The products of amx.c with registers in plain C, so that tests meet them on every processor with AVX-512; empty on
 * other architectures. */
#if defined(__x86_64__)
#define QC_AMX_EMULATED
#include "products_amx.inc"

void qc_amx_enter_emulated(tile_kind kind, int32_t sub) { enter_products(kind, sub); }
void qc_amx_leave_emulated(void) { amx_release(); }
void qc_amx_products_emulated(const tile *w, const activations *a, int64_t tokens, result *out) {
    products_amx(w, a, tokens, out);
}
void qc_amx_split_emulated(const tile *w, const activations *a, int64_t tokens, result *out) {
    products_amx_split(w, a, tokens, out);
}
void qc_amx_pairs_emulated(const tile *w, const activations *a, int64_t tokens, result *out) {
    pairs_amx(w, a, tokens, out);
}
#else
typedef int qc_no_amx_emulated;
#endif
