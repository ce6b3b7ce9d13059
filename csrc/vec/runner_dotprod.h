/* runner_dotprod.h - runner_neon.h with the dot product instructions of ARMv8.2; see runner_scalar.h for the
 * operations.
 */
#ifndef QC_RUNNER_VEC_H
#define QC_RUNNER_VEC_H
#include "runner_neon_common.h"

#define QC_RUNNER_NAME "dotprod"

enum { NARROW_SPAN = 127 }; /* codes up to 127 are signed bytes as well */

VINLINE vpartial dot_u8s8(vpartial sum, vquads w, vquads x) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
}
VINLINE vi row_u8s8(const uint8_t *u, const int8_t *q, int count, int span) {
    if (span > NARROW_SPAN) return row_u8s8_words(u, q, count);
    vi sum = vi_set(0);
    for (int i = 0; i < count; i += 16) sum = vdotq_s32(sum, vreinterpretq_s8_u8(vld1q_u8(u + i)), vld1q_s8(q + i));
    return sum;
}
#endif
