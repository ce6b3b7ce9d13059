/* neon.h - four lanes on AArch64; see scalar.h for the operations. */
#ifndef QC_VEC_H
#define QC_VEC_H
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define VW 4
#define QC_ISA_NAME "neon"
#define VINLINE static inline __attribute__((always_inline, unused))

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;

VINLINE vf vload(const float *p) { return vld1q_f32(p); }
VINLINE void vstore(float *p, vf a) { vst1q_f32(p, a); }
VINLINE vf vset(float s) { return vdupq_n_f32(s); }
VINLINE vi vi_load(const int32_t *p) { return vld1q_s32(p); }
VINLINE void vi_store(int32_t *p, vi a) { vst1q_s32(p, a); }
VINLINE vi vi_set(int32_t s) { return vdupq_n_s32(s); }
VINLINE vi vi_bits(vf a) { return vreinterpretq_s32_f32(a); }
VINLINE vf vf_bits(vi i) { return vreinterpretq_f32_s32(i); }

VINLINE vm vlt(vf a, vf b) { return vcltq_f32(a, b); }
VINLINE vm vle(vf a, vf b) { return vcleq_f32(a, b); }
VINLINE vm vgt(vf a, vf b) { return vcgtq_f32(a, b); }
VINLINE vm vge(vf a, vf b) { return vcgeq_f32(a, b); }
VINLINE vm veq(vf a, vf b) { return vceqq_f32(a, b); }
VINLINE vm vne(vf a, vf b) { return vmvnq_u32(vceqq_f32(a, b)); }
VINLINE vf vsel(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
VINLINE vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); } /* not vminq: NaN and -0 as in C */
VINLINE vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
VINLINE vf vabs(vf a) { return vabsq_f32(a); }
VINLINE vf vsqrt(vf a) { return vsqrtq_f32(a); }
VINLINE vf vrint(vf a) { return vrndnq_f32(a); }
VINLINE vf vgather(const float *p, vi i) {
    float t[4] = {p[i[0]], p[i[1]], p[i[2]], p[i[3]]};
    return vld1q_f32(t);
}

VINLINE vi vi_shl(vi a, int n) { return vshlq_s32(a, vdupq_n_s32(n)); }
VINLINE vi vi_shr(vi a, int n) { return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n))); }
VINLINE vi vi_sar(vi a, int n) { return vshlq_s32(a, vdupq_n_s32(-n)); }
VINLINE vi vi_shrv(vi a, vi n) { return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vnegq_s32(n))); }
VINLINE vi vi_min(vi a, vi b) { return vminq_s32(a, b); }
VINLINE vi vi_max(vi a, vi b) { return vmaxq_s32(a, b); }
VINLINE vi vi_minu(vi a, vi b) {
    return vreinterpretq_s32_u32(vminq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)));
}
VINLINE vm vi_lt(vi a, vi b) { return vcltq_s32(a, b); }
VINLINE vm vi_gt(vi a, vi b) { return vcgtq_s32(a, b); }
VINLINE vm vi_eq(vi a, vi b) { return vceqq_s32(a, b); }
VINLINE vi vi_sel(vm m, vi a, vi b) { return vbslq_s32(m, a, b); }
VINLINE vi vi_gather(const int32_t *p, vi i) {
    int32_t t[4] = {p[i[0]], p[i[1]], p[i[2]], p[i[3]]};
    return vld1q_s32(t);
}
VINLINE vf vi_to_f(vi a) { return vcvtq_f32_s32(a); }
VINLINE vi vi_from_f(vf a) { return vcvtq_s32_f32(a); }

VINLINE vm vm_and(vm a, vm b) { return vandq_u32(a, b); }
VINLINE vm vm_or(vm a, vm b) { return vorrq_u32(a, b); }
VINLINE vm vm_not(vm a) { return vmvnq_u32(a); }
VINLINE vm vm_none(void) { return vdupq_n_u32(0); }
VINLINE vm vm_all_lanes(void) { return vdupq_n_u32(0xffffffffu); }
VINLINE int vm_any(vm m) { return vmaxvq_u32(m) != 0; }
VINLINE int vm_all(vm m) { return vminvq_u32(m) != 0; }
VINLINE uint32_t vm_mask(vm m) {
    static const uint32_t bit[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(m, vld1q_u32(bit)));
}
VINLINE vm vm_first(int n) {
    static const int32_t lane[4] = {0, 1, 2, 3};
    return vcltq_s32(vld1q_s32(lane), vdupq_n_s32(n));
}

VINLINE void vtranspose(vf r[VW]) {
    float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#include "common.h"
#endif
