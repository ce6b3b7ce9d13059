/* avx512.h - sixteen lanes; see scalar.h for the operations. Needs -mavx512f -mavx512dq. */
#ifndef QC_VEC_H
#define QC_VEC_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VW 16
#define QC_ISA_NAME "avx512"
#define QC_MANY_REGISTERS /* 32: what a loop computes need not pass through memory */
#define VINLINE static inline __attribute__((always_inline, unused))

typedef __m512 vf;
typedef int32_t vi __attribute__((vector_size(64), may_alias));
typedef __mmask16 vm;
#define QC_I(a) ((__m512i)(a))

VINLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
VINLINE void vstore(float *p, vf a) { _mm512_storeu_ps(p, a); }
VINLINE vf vset(float s) { return _mm512_set1_ps(s); }
VINLINE vi vi_load(const int32_t *p) { return (vi)_mm512_loadu_si512(p); }
VINLINE void vi_store(int32_t *p, vi a) { _mm512_storeu_si512(p, QC_I(a)); }
VINLINE vi vi_set(int32_t s) { return (vi)_mm512_set1_epi32(s); }
VINLINE vi vi_bits(vf a) { return (vi)_mm512_castps_si512(a); }
VINLINE vf vf_bits(vi i) { return _mm512_castsi512_ps(QC_I(i)); }

VINLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
VINLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
VINLINE vf vabs(vf a) { return _mm512_abs_ps(a); }
VINLINE vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
VINLINE vf vrint(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VINLINE vm vlt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
VINLINE vm vle(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
VINLINE vm vgt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
VINLINE vm vge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
VINLINE vm veq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
VINLINE vm vne(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
VINLINE vf vsel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
VINLINE vf vgather(const float *p, vi i) { return _mm512_i32gather_ps(QC_I(i), p, 4); }

#define QC_HAS_LOOKUP
#define QC_HAS_LOOKUP32
VINLINE vf vlookup8(const float *p, vi i) {
    return _mm512_permutexvar_ps(QC_I(i), _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
VINLINE vf vlookup4(const float *p, vi i) { return vlookup8(p, i); }
VINLINE vf vlookup32(const float *p, vi i) { return _mm512_permutex2var_ps(vload(p), QC_I(i), vload(p + 16)); }
VINLINE vi vi_keep(vm m, vi a) { return (vi)_mm512_maskz_mov_epi32(m, QC_I(a)); }
VINLINE vi vi_increment(vi a, vm m) { return (vi)_mm512_mask_sub_epi32(QC_I(a), m, QC_I(a), _mm512_set1_epi32(-1)); }

VINLINE vi vi_shl(vi a, int n) { return (vi)_mm512_sll_epi32(QC_I(a), _mm_cvtsi32_si128(n)); }
VINLINE vi vi_shr(vi a, int n) { return (vi)_mm512_srl_epi32(QC_I(a), _mm_cvtsi32_si128(n)); }
VINLINE vi vi_sar(vi a, int n) { return (vi)_mm512_sra_epi32(QC_I(a), _mm_cvtsi32_si128(n)); }
VINLINE vi vi_shrv(vi a, vi n) { return (vi)_mm512_srlv_epi32(QC_I(a), QC_I(n)); }
VINLINE vi vi_min(vi a, vi b) { return (vi)_mm512_min_epi32(QC_I(a), QC_I(b)); }
VINLINE vi vi_max(vi a, vi b) { return (vi)_mm512_max_epi32(QC_I(a), QC_I(b)); }
VINLINE vi vi_minu(vi a, vi b) { return (vi)_mm512_min_epu32(QC_I(a), QC_I(b)); }
VINLINE vm vi_lt(vi a, vi b) { return _mm512_cmplt_epi32_mask(QC_I(a), QC_I(b)); }
VINLINE vm vi_gt(vi a, vi b) { return _mm512_cmpgt_epi32_mask(QC_I(a), QC_I(b)); }
VINLINE vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(QC_I(a), QC_I(b)); }
VINLINE vi vi_sel(vm m, vi a, vi b) { return (vi)_mm512_mask_blend_epi32(m, QC_I(b), QC_I(a)); }
VINLINE vi vi_gather(const int32_t *p, vi i) { return (vi)_mm512_i32gather_epi32(QC_I(i), p, 4); }
VINLINE vf vi_to_f(vi a) { return _mm512_cvtepi32_ps(QC_I(a)); }
VINLINE vi vi_from_f(vf a) { return (vi)_mm512_cvttps_epi32(a); }

VINLINE vm vm_and(vm a, vm b) { return (vm)(a & b); }
VINLINE vm vm_or(vm a, vm b) { return (vm)(a | b); }
VINLINE vm vm_not(vm a) { return (vm)~a; }
VINLINE vm vm_none(void) { return 0; }
VINLINE vm vm_all_lanes(void) { return 0xffff; }
VINLINE int vm_any(vm m) { return m != 0; }
VINLINE int vm_all(vm m) { return m == 0xffff; }
VINLINE uint32_t vm_mask(vm m) { return m; }
VINLINE vm vm_first(int n) { return (vm)(n >= 16 ? 0xffff : (1 << n) - 1); }

VINLINE void vtranspose(vf r[VW]) {
    vf a[16], b[16];
    for (int k = 0; k < 8; ++k) {
        a[2 * k] = _mm512_unpacklo_ps(r[2 * k], r[2 * k + 1]);
        a[2 * k + 1] = _mm512_unpackhi_ps(r[2 * k], r[2 * k + 1]);
    }
    for (int k = 0; k < 4; ++k) {
        b[4 * k] = _mm512_shuffle_ps(a[4 * k], a[4 * k + 2], 0x44);
        b[4 * k + 1] = _mm512_shuffle_ps(a[4 * k], a[4 * k + 2], 0xee);
        b[4 * k + 2] = _mm512_shuffle_ps(a[4 * k + 1], a[4 * k + 3], 0x44);
        b[4 * k + 3] = _mm512_shuffle_ps(a[4 * k + 1], a[4 * k + 3], 0xee);
    }
    for (int k = 0; k < 4; ++k) { /* b[4 g + k]: quarter q holds column 4 q + k of rows 4 g .. 4 g + 3 */
        vf lo = _mm512_shuffle_f32x4(b[k], b[k + 4], 0x88), hi = _mm512_shuffle_f32x4(b[k + 8], b[k + 12], 0x88);
        vf lo1 = _mm512_shuffle_f32x4(b[k], b[k + 4], 0xdd), hi1 = _mm512_shuffle_f32x4(b[k + 8], b[k + 12], 0xdd);
        r[k] = _mm512_shuffle_f32x4(lo, hi, 0x88);
        r[k + 8] = _mm512_shuffle_f32x4(lo, hi, 0xdd);
        r[k + 4] = _mm512_shuffle_f32x4(lo1, hi1, 0x88);
        r[k + 12] = _mm512_shuffle_f32x4(lo1, hi1, 0xdd);
    }
}

#include "common.h"
#endif
