/* runner_neon.h - four lanes on AArch64, codes 32 at a time; see runner_scalar.h for the operations. */
#ifndef QC_RUNNER_VEC_H
#define QC_RUNNER_VEC_H
#include "runner_neon_common.h"

#define QC_RUNNER_NAME "neon"

enum { NARROW_SPAN = 255 };

VINLINE vpartial dot_u8s8(vpartial sum, vquads w, vquads x) {
    int16x8_t w0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(vreinterpretq_u8_s32(w)))),
              w1 = vreinterpretq_s16_u16(vmovl_high_u8(vreinterpretq_u8_s32(w))),
              q = vmovl_s8(vget_low_s8(vreinterpretq_s8_s32(x))); /* the same four twice */
    int32x4_t low = vpaddq_s32(vmull_s16(vget_low_s16(w0), vget_low_s16(q)), vmull_high_s16(w0, q)),
              high = vpaddq_s32(vmull_s16(vget_low_s16(w1), vget_low_s16(q)), vmull_high_s16(w1, q));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}
VINLINE vi row_u8s8(const uint8_t *u, const int8_t *q, int count, int span) {
    return (void)span, row_u8s8_words(u, q, count);
}
#endif
