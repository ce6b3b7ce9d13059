/* runner_neon_common.h - what runner_neon.h and runner_dotprod.h share. */
#include "neon.h"

VINLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
VINLINE vf vload_half(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }

enum { FLOAT_TOKENS = 4, FLOAT_TILES = 1, INTEGER_TOKENS = 4, ACROSS = 1, VALUE_VECTORS = 2 };
typedef int32x4_t vquads;
typedef int32x4_t vpartial; /* the sum itself */

VINLINE vquads quads_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
VINLINE int dot_steps(int low, int span) { return (void)low, (void)span, 8; }
VINLINE vpartial dot_begin(vi start) { return start; }
VINLINE vi dot_end(vpartial partial) { return partial; }
/* even and odd columns apart, then pairs are added */
VINLINE vi madd_s16(vi sum, vquads w, vquads x) {
    int16x8_t a = vreinterpretq_s16_s32(w), b = vreinterpretq_s16_s32(x);
    return vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)));
}
VINLINE vi row_u8s8_words(const uint8_t *u, const int8_t *q, int count) {
    vi sum = vi_set(0);
    for (int i = 0; i < count; i += 8) {
        int16x8_t w = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(u + i))), x = vmovl_s8(vld1_s8(q + i));
        sum = vmlal_high_s16(vmlal_s16(sum, vget_low_s16(w), vget_low_s16(x)), w, x);
    }
    return sum;
}
VINLINE vi row_u8s16(const uint8_t *u, const int16_t *q, int count) {
    vi sum = vi_set(0);
    for (int i = 0; i < count; i += 8) {
        int16x8_t w = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(u + i))), x = vld1q_s16(q + i);
        sum = vmlal_high_s16(vmlal_s16(sum, vget_low_s16(w), vget_low_s16(x)), w, x);
    }
    return sum;
}

#define QC_HAS_LOOKUP_CODES
#define PIN(v) __asm__ volatile("" : "+w"(v))
#include "runner_common.h"
#include "runner_portable.h"

VINLINE vcodes lookup(const void *table, vcodes v) {
    uint8_t u[32];
    codes_store(u, v);
    uint8x16_t t = vld1q_u8(table);
    vst1q_u8(u, vqtbl1q_u8(t, vld1q_u8(u)));
    vst1q_u8(u + 16, vqtbl1q_u8(t, vld1q_u8(u + 16)));
    return codes_load(u, 0);
}
