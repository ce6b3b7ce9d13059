/* lanes.h - vectors of VW floats in the compiler's vector notation; only what it cannot say is written per set.
 *
 * The including file defines VW: 16 (AVX-512), 8 (AVX2 with FMA), 4 (anything else). Files are compiled without
 * contraction, so vfma is the only fused operation and there only where the set has one. */
#ifndef QC_LANES_H
#define QC_LANES_H
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef float vf __attribute__((vector_size(4 * VW)));
typedef int32_t vi __attribute__((vector_size(4 * VW)));
typedef float vf_loose __attribute__((vector_size(4 * VW), aligned(4), may_alias));
typedef int32_t vi_loose __attribute__((vector_size(4 * VW), aligned(4), may_alias));

#define LANE static inline __attribute__((always_inline))

LANE vf vload(const float *p) { return *(const vf_loose *)p; }
LANE void vstore(float *p, vf v) { *(vf_loose *)p = v; }
LANE vi vi_load(const int32_t *p) { return *(const vi_loose *)p; }
LANE vf vset(float v) { return v - (vf){0}; }
LANE vi vi_set(int32_t v) { return v - (vi){0}; }
LANE vf vzero(void) { return (vf){0}; }
LANE vi vbits(vf v) { return (vi)v; }
LANE vf vi_floats(vi v) { return __builtin_convertvector(v, vf); }
LANE vf vselect(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
LANE vf vabs(vf v) { return (vf)((vi)v & vi_set(0x7fffffff)); }

LANE vf vfma(vf a, vf b, vf c) {
#if VW == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VW == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

LANE vf vmax(vf a, vf b) {
#if VW == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif VW == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vselect(a > b, a, b);
#endif
}
LANE vf vmin(vf a, vf b) {
#if VW == 16
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif VW == 8
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
#else
    return vselect(a < b, a, b);
#endif
}

/* Sums and maxima over the lanes, in one fixed order. */
LANE float vsum(vf v) {
#if VW == 16
    return _mm512_reduce_add_ps((__m512)v);
#else
    float s[VW];
    memcpy(s, &v, sizeof v);
    for (int n = VW / 2; n; n /= 2)
        for (int i = 0; i < n; ++i) s[i] += s[i + n];
    return s[0];
#endif
}
LANE float vtop(vf v) {
    float s[VW];
    memcpy(s, &v, sizeof v);
    for (int n = VW / 2; n; n /= 2)
        for (int i = 0; i < n; ++i) s[i] = s[i] > s[i + n] ? s[i] : s[i + n];
    return s[0];
}

/* VW halves or bf16 values to floats. */
LANE vf vload_half(const uint16_t *p) {
#if VW == 16
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif VW == 8
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#elif defined(__aarch64__)
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
    vf out;
    for (int i = 0; i < VW; ++i) {
        uint32_t sign = (uint32_t)(p[i] & 0x8000) << 16, rest = (uint32_t)(p[i] & 0x7fff) << 13, bits;
        float scaled;
        memcpy(&scaled, &rest, 4);
        scaled *= 0x1p112f;
        memcpy(&bits, &scaled, 4);
        bits = sign | (rest >= 0x0f800000u ? rest | 0x70000000u : bits);
        memcpy((char *)&out + 4 * i, &bits, 4);
    }
    return out;
#endif
}
LANE vf vload_bf16(const uint16_t *p) {
    typedef uint16_t half_lanes __attribute__((vector_size(2 * VW), aligned(2), may_alias));
    typedef uint32_t word_lanes __attribute__((vector_size(4 * VW)));
    return (vf)(__builtin_convertvector(*(const half_lanes *)p, word_lanes) << 16);
}

/* exp(x), relative error below 2^-22.5 (3 units in the last place at most) for results in the normal range; 0 below
 * -87.33, infinity above 88.72, NaN stays NaN. x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 6 for e^r. */
LANE vf vexp(vf x) {
    vf clamped = vmin(vmax(vset(-88.0f), x), vset(89.0f)); /* the order of operands keeps a NaN out of n */
    vf shifted = clamped * vset(1.44269504f) + vset(12582912.0f);
    vi n = vbits(shifted) - vi_set(0x4b400000);
    vf whole = shifted - vset(12582912.0f);
    vf r = vfma(whole, vset(-0.693359375f), clamped);
    r = vfma(whole, vset(2.12194440e-4f), r);
    vf p = vset(1.98756912e-4f);
    p = vfma(p, r, vset(1.39819994e-3f));
    p = vfma(p, r, vset(8.33345236e-3f));
    p = vfma(p, r, vset(4.16657963e-2f));
    p = vfma(p, r, vset(1.66666657e-1f));
    p = vfma(p, r, vset(5.00000000e-1f));
    p = vfma(p * r, r, r) + vset(1.0f);
    /* 2^n in two halves, so that n = 128 overflows only where the product does */
    vi half = n >> 1;
    vf scaled = p * (vf)((half + vi_set(127)) << 23) * (vf)((n - half + vi_set(127)) << 23);
    scaled = vselect(x < vset(-87.33654f), vzero(), scaled);
    return vselect(x == x, scaled, x);
}
#endif
