/* avx2.h - eight lanes; see scalar.h for the operations. Needs -mavx2. */
#ifndef QC_VEC_H
#define QC_VEC_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VW 8
#define QC_ISA_NAME "avx2"
#define VINLINE static inline __attribute__((always_inline, unused))

typedef __m256 vf;
typedef int32_t vi __attribute__((vector_size(32), may_alias));
typedef __m256 vm;
#define QC_I(a) ((__m256i)(a))
#define QC_F(a) _mm256_castsi256_ps((__m256i)(a))

VINLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
VINLINE void vstore(float *p, vf a) { _mm256_storeu_ps(p, a); }
VINLINE vf vset(float s) { return _mm256_set1_ps(s); }
VINLINE vi vi_load(const int32_t *p) { return (vi)_mm256_loadu_si256((const __m256i *)p); }
VINLINE void vi_store(int32_t *p, vi a) { _mm256_storeu_si256((__m256i *)p, QC_I(a)); }
VINLINE vi vi_set(int32_t s) { return (vi)_mm256_set1_epi32(s); }
VINLINE vi vi_bits(vf a) { return (vi)_mm256_castps_si256(a); }
VINLINE vf vf_bits(vi i) { return QC_F(i); }

VINLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
VINLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
VINLINE vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
VINLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
VINLINE vf vrint(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VINLINE vm vlt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
VINLINE vm vle(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
VINLINE vm vgt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
VINLINE vm vge(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
VINLINE vm veq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
VINLINE vm vne(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
VINLINE vf vsel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
VINLINE vf vgather(const float *p, vi i) { return _mm256_i32gather_ps(p, QC_I(i), 4); }

#define QC_HAS_LOOKUP
VINLINE vf vlookup4(const float *p, vi i) { return _mm256_permutevar_ps(vload(p), QC_I(i)); }
VINLINE vf vlookup8(const float *p, vi i) { return _mm256_permutevar8x32_ps(vload(p), QC_I(i)); }
VINLINE vi vi_keep(vm m, vi a) { return (vi)_mm256_and_si256((__m256i)_mm256_castps_si256(m), QC_I(a)); }
VINLINE vi vi_increment(vi a, vm m) { return a - vi_bits(m); }

VINLINE vi vi_shl(vi a, int n) { return (vi)_mm256_sll_epi32(QC_I(a), _mm_cvtsi32_si128(n)); }
VINLINE vi vi_shr(vi a, int n) { return (vi)_mm256_srl_epi32(QC_I(a), _mm_cvtsi32_si128(n)); }
VINLINE vi vi_sar(vi a, int n) { return (vi)_mm256_sra_epi32(QC_I(a), _mm_cvtsi32_si128(n)); }
VINLINE vi vi_shrv(vi a, vi n) { return (vi)_mm256_srlv_epi32(QC_I(a), QC_I(n)); }
VINLINE vi vi_min(vi a, vi b) { return (vi)_mm256_min_epi32(QC_I(a), QC_I(b)); }
VINLINE vi vi_max(vi a, vi b) { return (vi)_mm256_max_epi32(QC_I(a), QC_I(b)); }
VINLINE vi vi_minu(vi a, vi b) { return (vi)_mm256_min_epu32(QC_I(a), QC_I(b)); }
VINLINE vm vi_lt(vi a, vi b) { return QC_F(_mm256_cmpgt_epi32(QC_I(b), QC_I(a))); }
VINLINE vm vi_gt(vi a, vi b) { return QC_F(_mm256_cmpgt_epi32(QC_I(a), QC_I(b))); }
VINLINE vm vi_eq(vi a, vi b) { return QC_F(_mm256_cmpeq_epi32(QC_I(a), QC_I(b))); }
VINLINE vi vi_sel(vm m, vi a, vi b) { return (vi)_mm256_castps_si256(_mm256_blendv_ps(QC_F(b), QC_F(a), m)); }
VINLINE vi vi_gather(const int32_t *p, vi i) { return (vi)_mm256_i32gather_epi32((const int *)p, QC_I(i), 4); }
VINLINE vf vi_to_f(vi a) { return _mm256_cvtepi32_ps(QC_I(a)); }
VINLINE vi vi_from_f(vf a) { return (vi)_mm256_cvttps_epi32(a); }

VINLINE vm vm_and(vm a, vm b) { return _mm256_and_ps(a, b); }
VINLINE vm vm_or(vm a, vm b) { return _mm256_or_ps(a, b); }
VINLINE vm vm_none(void) { return _mm256_setzero_ps(); }
VINLINE vm vm_all_lanes(void) { return QC_F(_mm256_set1_epi32(-1)); }
VINLINE vm vm_not(vm a) { return _mm256_xor_ps(a, vm_all_lanes()); }
VINLINE int vm_any(vm m) { return _mm256_movemask_ps(m) != 0; }
VINLINE int vm_all(vm m) { return _mm256_movemask_ps(m) == 0xff; }
VINLINE uint32_t vm_mask(vm m) { return (uint32_t)_mm256_movemask_ps(m); }
VINLINE vm vm_first(int n) { return vi_lt((vi)_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), vi_set(n)); }

VINLINE void vtranspose(vf r[VW]) {
    vf a[8], b[8];
    for (int k = 0; k < 4; ++k) {
        a[2 * k] = _mm256_unpacklo_ps(r[2 * k], r[2 * k + 1]);
        a[2 * k + 1] = _mm256_unpackhi_ps(r[2 * k], r[2 * k + 1]);
    }
    for (int k = 0; k < 2; ++k) {
        b[4 * k] = _mm256_shuffle_ps(a[4 * k], a[4 * k + 2], 0x44);
        b[4 * k + 1] = _mm256_shuffle_ps(a[4 * k], a[4 * k + 2], 0xee);
        b[4 * k + 2] = _mm256_shuffle_ps(a[4 * k + 1], a[4 * k + 3], 0x44);
        b[4 * k + 3] = _mm256_shuffle_ps(a[4 * k + 1], a[4 * k + 3], 0xee);
    }
    for (int k = 0; k < 4; ++k) {
        r[k] = _mm256_permute2f128_ps(b[k], b[k + 4], 0x20);
        r[k + 4] = _mm256_permute2f128_ps(b[k], b[k + 4], 0x31);
    }
}

#include "common.h"
#endif
