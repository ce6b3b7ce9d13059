/* runner_avx512.h - sixteen lanes, codes 64 at a time; see runner_scalar.h for the operations. Needs AVX-512 F, BW, DQ,
 * VL and VNNI, FMA, F16C and BMI2. */
#ifndef QC_RUNNER_VEC_H
#define QC_RUNNER_VEC_H
#include "avx512.h"
#include "runner_x86.h"

#define QC_RUNNER_NAME "avx512"

#define IN_ORDER(v) __asm__("" : "+v"(v))

VINLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
VINLINE vf vload_half(const uint16_t *p) { return _mm512_cvtph_ps(load_256(p)); }
#define QC_HAS_SUM
VINLINE float vsum(vf v) { return _mm512_reduce_add_ps(v); }

/* ---- products of a tile */

/* Two tiles of rows meet four tokens: every load of activations serves both, for Zen 4 loads 512 bits (or 4 bytes for
 * all lanes) once a cycle, as often as it multiplies. All sums stay in registers. */
enum { FLOAT_TOKENS = 16, FLOAT_TILES = 2, INTEGER_TOKENS = 4, ACROSS = 2, VALUE_VECTORS = 4 };
enum { NARROW_SPAN = 255 };
#define QC_FOLDS 1 /* a sum of 256 products of bytes stays in its lane */
typedef __m512i vquads;
typedef vi vpartial; /* the sum itself */

VINLINE vquads quads_load(const void *p) { return _mm512_loadu_si512(p); }
VINLINE int dot_steps(int low, int span) { return (void)low, (void)span, 8; }
VINLINE vpartial dot_begin(vi start) { return start; }
VINLINE vpartial dot_u8s8(vpartial sum, vquads w, vquads x) { return (vi)_mm512_dpbusd_epi32(QC_I(sum), w, x); }
VINLINE vi dot_end(vpartial partial) { return partial; }
VINLINE vi madd_s16(vi sum, vquads w, vquads x) { return (vi)_mm512_dpwssd_epi32(QC_I(sum), w, x); }

/* ---- products of one row */

VINLINE vi row_u8s8(const uint8_t *u, const int8_t *q, int count, int span) {
    (void)span;
    if (count == 16) return (vi)_mm512_zextsi128_si512(_mm_dpbusd_epi32(_mm_setzero_si128(), load_128(u), load_128(q)));
    return (vi)_mm512_zextsi256_si512(_mm256_dpbusd_epi32(_mm256_setzero_si256(), load_256(u), load_256(q)));
}
VINLINE vi row_u8s16(const uint8_t *u, const int16_t *q, int count) {
    if (count == 16)
        return (vi)_mm512_zextsi256_si512(_mm256_madd_epi16(_mm256_cvtepu8_epi16(load_128(u)), load_256(q)));
    return (vi)_mm512_madd_epi16(_mm512_cvtepu8_epi16(load_256(u)), _mm512_loadu_si512(q));
}

/* ---- codes: two units */

enum { STEP = 64 };
typedef uint8_t vcodes __attribute__((vector_size(64), may_alias));
typedef uint64_t vsigns, sign_bytes; /* a bit per code */

VINLINE vcodes codes_load(const uint8_t *p, int stride) {
    if (stride == 0) return (vcodes)_mm512_broadcast_i64x4(load_256(p));
    if (stride == 32) return (vcodes)_mm512_loadu_si512(p);
    return (vcodes)_mm512_inserti64x4(_mm512_castsi256_si512(load_256(p)), load_256(p + stride), 1);
}
VINLINE void codes_store(uint8_t *p, vcodes v) { _mm512_storeu_si512(p, QC_I(v)); }
VINLINE vcodes codes_of(int value) { return (vcodes)_mm512_set1_epi8((char)value); }
VINLINE vcodes field(vcodes v, int from, int step, int mask) {
    __m512i by = _mm512_inserti64x4(_mm512_set1_epi32(from), _mm256_set1_epi32(from + step), 1);
    return (vcodes)_mm512_srlv_epi32(QC_I(v), by) & codes_of(mask);
}
VINLINE vcodes moved(vcodes v, int from, int step, int mask, int to) {
    return (vcodes)_mm512_slli_epi32(QC_I(field(v, from, step, mask)), to);
}
VINLINE vcodes nibbles(const uint8_t *p, int stride) {
    __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(load_128(p)), load_128(p + stride), 1);
    v = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), v);
    return (vcodes)_mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)) & codes_of(15);
}
VINLINE vcodes lookup(const void *table, vcodes v) {
    return (vcodes)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_128(table)), QC_I(v));
}
VINLINE vcodes bit_codes(const uint8_t *p, int stride, int value) {
    uint64_t set = (uint32_t)load_word(p) | (uint64_t)(uint32_t)load_word(p + stride) << 32;
    return (vcodes)_mm512_maskz_mov_epi8(set, QC_I(codes_of(value)));
}

/* ---- points and their signs. Loads are faster than the gather instructions on Zen 4, by more than two. */

VINLINE vcodes points_8(const uint64_t *grid, const uint16_t *index) {
#define POINT(k) ((int64_t)grid[index[k]])
    return (vcodes)_mm512_setr_epi64(POINT(0), POINT(1), POINT(2), POINT(3), POINT(4), POINT(5), POINT(6), POINT(7));
#undef POINT
}
VINLINE vcodes points_4(const uint32_t *grid, const uint16_t *index) {
#define POINT(k) ((int32_t)grid[index[k]])
    return (vcodes)_mm512_setr_epi32(POINT(0), POINT(1), POINT(2), POINT(3), POINT(4), POINT(5), POINT(6), POINT(7),
                                     POINT(8), POINT(9), POINT(10), POINT(11), POINT(12), POINT(13), POINT(14),
                                     POINT(15));
#undef POINT
}
VINLINE sign_bytes signs_load(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
/* seven bits above the ninth of eight words; the eighth by parity */
VINLINE sign_bytes signs_7(const uint8_t *p) {
    __m128i words = _mm_srli_epi16(load_128(p), 9);
    __m128i x = _mm_xor_si128(words, _mm_srli_epi16(words, 4));
    x = _mm_xor_si128(x, _mm_srli_epi16(x, 2));
    x = _mm_xor_si128(x, _mm_srli_epi16(x, 1));
    __m128i all = _mm_or_si128(words, _mm_slli_epi16(_mm_and_si128(x, _mm_set1_epi16(1)), 7));
    return (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(all, all));
}
VINLINE sign_bytes signs_28(uint32_t first, uint32_t second) {
    uint64_t stored =
        _pdep_u64((first & 0xfffffffu) | (uint64_t)(second & 0xfffffffu) << 28, UINT64_C(0x7f7f7f7f7f7f7f7f));
    uint64_t x = stored ^ stored >> 4;
    x ^= x >> 2;
    x ^= x >> 1;
    return stored | (x & UINT64_C(0x0101010101010101)) << 7;
}
VINLINE vsigns signs_of(sign_bytes signs, int half) { return (void)half, signs; }
VINLINE vcodes negated(vcodes v, vsigns negative) {
    return (vcodes)_mm512_mask_sub_epi8(QC_I(v), negative, _mm512_setzero_si512(), QC_I(v));
}

/* ---- scales */

VINLINE vf scaled_floats(i8x16 v, float d) {
    return _mm512_mul_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)v)));
}
VINLINE void store_scaled(float *to, i8x16 v, float d, int count) {
    vf values = scaled_floats(v, d);
    if (count == 16)
        vstore(to, values);
    else
        _mm256_storeu_ps(to, _mm512_castps512_ps256(values));
}

/* ---- how fast the core multiplies (peak.inc) */

enum { PEAK_BYTES = 4, PEAK_WORDS = 2 };
typedef __m512i vpeak;
#define PIN(v) __asm__ volatile("" : "+v"(v))
VINLINE vpeak peak_floats(vpeak sum, vpeak w, vpeak x) {
    return (vpeak)_mm512_fmadd_ps((__m512)w, (__m512)x, (__m512)sum);
}
VINLINE vpeak peak_bytes(vpeak sum, vpeak w, vpeak x) { return _mm512_dpbusd_epi32(sum, w, x); }
VINLINE vpeak peak_words(vpeak sum, vpeak w, vpeak x) { return _mm512_dpwssd_epi32(sum, w, x); }

#include "runner_common.h"
#endif
