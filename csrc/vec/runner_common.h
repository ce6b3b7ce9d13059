/* runner_common.h - operations built from the primitive ones; included at the end of every runner_*.h (the list of all
 * is in runner_scalar.h). */
typedef double vd __attribute__((vector_size(8 * VW)));

VINLINE vf vzero(void) { return vset(0.0f); }

#ifndef QC_HAS_SUM
VINLINE float vsum(vf v) {
    float s[VW];
    memcpy(s, &v, sizeof v);
    for (int n = VW / 2; n; n /= 2)
        for (int i = 0; i < n; ++i) s[i] += s[i + n];
    return s[0];
}
#endif
#ifndef QC_HAS_SUM_EACH
VINLINE vf vsum_each(const vf *sums) {
    float totals[VW];
    for (int l = 0; l < VW; ++l) totals[l] = vsum(sums[l]);
    return vload(totals);
}
#endif
VINLINE float vhighest(vf v) {
    float s[VW];
    memcpy(s, &v, sizeof v);
    for (int n = VW / 2; n; n /= 2)
        for (int i = 0; i < n; ++i) s[i] = s[i] > s[i + n] ? s[i] : s[i + n];
    return s[0];
}
VINLINE vf vload_bf16(const uint16_t *p) {
    typedef uint16_t halves __attribute__((vector_size(2 * VW), aligned(2), may_alias));
    typedef uint32_t words __attribute__((vector_size(4 * VW)));
    return (vf)(__builtin_convertvector(*(const halves *)p, words) << 16);
}

/* Partial sums of 32 bits: one start for a sub-block. */
#ifndef QC_HAS_STARTS
static inline int32_t start_quads(int low, int span, int sub) { return (void)low, (void)span, sub / 4; }
VINLINE void starts_of(int low, const int8_t *q, const int32_t *sum16, int quads, int32_t *starts) {
    (void)q;
    if (quads == 4)
        starts[0] = low * sum16[0], starts[1] = low * sum16[1];
    else
        starts[0] = low * (sum16[0] + sum16[1]);
}
#endif
/* Whether types are folded: products meet no scales between the integer sums of a block. For codes of 8 bits at full
 * speed, and partial sums of 32 bits. */
#ifndef QC_FOLDS
#define QC_FOLDS 0
#endif
enum { FOLDS = QC_FOLDS };
#ifndef FETCH_AHEAD
#define FETCH_AHEAD(p, bytes) ((void)0)
#define FETCH_NEAR FETCH_AHEAD
#endif
#ifndef IN_ORDER
#define IN_ORDER(v) ((void)0)
#endif
VINLINE vquads quads_of(const void *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return (vquads)vi_set(four);
}
