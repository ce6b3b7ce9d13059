/* runner_avx2.h - eight lanes, codes 32 at a time; see runner_scalar.h for the operations. Needs -mavx2 -mfma -mf16c.
 */
#ifndef QC_RUNNER_VEC_H
#define QC_RUNNER_VEC_H
#include "avx2.h"
#include "runner_x86.h"

#define QC_RUNNER_NAME "avx2"

/* Without this the compiler computes all products first and spills them. */
#define IN_ORDER(v) __asm__("" : "+x"(v))

VINLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
VINLINE vf vload_half(const uint16_t *p) { return _mm256_cvtph_ps(load_128(p)); }
#define QC_HAS_SUM_EACH
VINLINE vf vsum_each(const vf *sums) {
    vf a = _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
    vf b = _mm256_hadd_ps(_mm256_hadd_ps(sums[4], sums[5]), _mm256_hadd_ps(sums[6], sums[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/* ---- products of a tile: two vectors of weights meet four tokens, for sixteen registers hold no more sums */

enum { FLOAT_TOKENS = 6, FLOAT_TILES = 1, INTEGER_TOKENS = 4, ACROSS = 2, VALUE_VECTORS = 2 };
enum { NARROW_SPAN = 128 };
typedef __m256i vquads;
typedef __m256i vpartial; /* 16 sums of pairs of products, in 16 bits */

VINLINE vquads quads_load(const void *p) { return load_256(p); }
/* Sums of pairs of products fit 16 bits while 2 * 127 * steps times the largest magnitude of the signed codes does: the
 * sums wrap, so only their ends count, and these are of signed codes, for low times the sum of the integers is where
 * they begin (`start`: the pairs at even places in the lower half, at odd ones in the upper). */
VINLINE int dot_steps(int low, int span) {
    const int most = -low > span + low ? -low : span + low;
    return most <= 16 ? 8 : most <= 32 ? 4 : most <= 64 ? 2 : 1;
}
VINLINE vpartial dot_begin(vi start) { return QC_I(start); }
#define QC_HAS_STARTS
static inline int32_t start_quads(int low, int span, int sub) {
    const int steps = dot_steps(low, span);
    return steps < sub / 4 ? steps : sub / 4;
}
VINLINE void starts_of(int low, const int8_t *q, const int32_t *sum16, int quads, int32_t *starts) {
    (void)sum16;
    __m256i v = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load_256(q)); /* dword k: quad k */
    v = _mm256_mullo_epi16(v, _mm256_set1_epi16((short)low));
    if (quads >= 2) v = _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0xb1));
    if (quads >= 4) v = _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0x4e));
    if (quads == 8) v = _mm256_add_epi16(v, _mm256_permute2x128_si256(v, v, 1));
    uint32_t all[8];
    _mm256_storeu_si256((__m256i *)all, v);
    for (int k = 0; k < 8 / quads; ++k) starts[k] = (int32_t)all[k * quads];
}
VINLINE vpartial dot_u8s8(vpartial sum, vquads w, vquads x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
}
VINLINE vi dot_end(vpartial partial) { return (vi)_mm256_madd_epi16(partial, _mm256_set1_epi16(1)); }
VINLINE vi madd_s16(vi sum, vquads w, vquads x) { return (vi)_mm256_add_epi32(QC_I(sum), _mm256_madd_epi16(w, x)); }

/* ---- products of one row */

VINLINE vi row_u8s8(const uint8_t *u, const int8_t *q, int count, int span) {
    if (count == 32 && span <= NARROW_SPAN) return dot_end(_mm256_maddubs_epi16(load_256(u), load_256(q)));
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < count; i += 16)
        sum = _mm256_add_epi32(
            sum, _mm256_madd_epi16(_mm256_cvtepu8_epi16(load_128(u + i)), _mm256_cvtepi8_epi16(load_128(q + i))));
    return (vi)sum;
}
VINLINE vi row_u8s16(const uint8_t *u, const int16_t *q, int count) {
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < count; i += 16)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepu8_epi16(load_128(u + i)), load_256(q + i)));
    return (vi)sum;
}

/* ---- codes: one unit */

enum { STEP = 32 };
typedef uint8_t vcodes __attribute__((vector_size(32), may_alias));
typedef vcodes vsigns; /* 0 or 255 */
typedef __m128i sign_bytes;

VINLINE vcodes codes_load(const uint8_t *p, int stride) { return (void)stride, (vcodes)load_256(p); }
VINLINE void codes_store(uint8_t *p, vcodes v) { _mm256_storeu_si256((__m256i *)p, (__m256i)v); }
VINLINE vcodes codes_of(int value) { return (vcodes)_mm256_set1_epi8((char)value); }
/* bits that come from the neighbour are masked away */
VINLINE vcodes field(vcodes v, int from, int step, int mask) {
    (void)step;
    return (vcodes)_mm256_srli_epi16((__m256i)v, from) & codes_of(mask);
}
VINLINE vcodes moved(vcodes v, int from, int step, int mask, int to) {
    (void)step;
    __m256i bits = (__m256i)(v & codes_of(mask << from));
    return (vcodes)(from > to ? _mm256_srli_epi16(bits, from - to) : _mm256_slli_epi16(bits, to - from));
}
VINLINE vcodes nibbles(const uint8_t *p, int stride) {
    (void)stride;
    __m128i v = load_128(p);
    return (vcodes)_mm256_set_m128i(_mm_srli_epi16(v, 4), v) & codes_of(15);
}
VINLINE vcodes lookup(const void *table, vcodes v) {
    return (vcodes)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_128(table)), (__m256i)v);
}

/* ---- points and their signs */

/* bit k of 32 bits, which lie in the bytes first .. first + 3 of each half of v, to byte k: 0 or 255 */
VINLINE vcodes bits_apart(__m256i v, int first) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                            3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((int64_t)UINT64_C(0x8040201008040201));
    __m256i at = first ? _mm256_add_epi8(spread, _mm256_set1_epi8((char)first)) : spread;
    return (vcodes)_mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(v, at), bit), bit);
}
VINLINE vcodes bit_codes(const uint8_t *p, int stride, int value) {
    (void)stride;
    return bits_apart(_mm256_set1_epi32(load_word(p)), 0) & codes_of(value);
}
VINLINE vcodes points_8(const uint64_t *grid, const uint16_t *index) {
#define POINT(k) ((int64_t)grid[index[k]])
    return (vcodes)_mm256_setr_epi64x(POINT(0), POINT(1), POINT(2), POINT(3));
#undef POINT
}
VINLINE vcodes points_4(const uint32_t *grid, const uint16_t *index) {
#define POINT(k) ((int32_t)grid[index[k]])
    return (vcodes)_mm256_setr_epi32(POINT(0), POINT(1), POINT(2), POINT(3), POINT(4), POINT(5), POINT(6), POINT(7));
#undef POINT
}
/* seven stored signs in each byte, the eighth by parity */
VINLINE sign_bytes with_parity(__m128i stored) {
    const __m128i odd = _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0);
    const __m128i nibble = _mm_set1_epi8(15);
    __m128i folded = _mm_and_si128(_mm_xor_si128(stored, _mm_srli_epi16(stored, 4)), nibble);
    return _mm_or_si128(stored, _mm_shuffle_epi8(odd, folded));
}
VINLINE sign_bytes signs_load(const uint8_t *p) { return load_64(p); }
VINLINE sign_bytes signs_7(const uint8_t *p) {
    __m128i stored = _mm_srli_epi16(load_128(p), 9);
    return with_parity(_mm_packus_epi16(stored, stored));
}
VINLINE sign_bytes signs_28(uint32_t first, uint32_t second) {
    __m256i v = _mm256_set_m128i(_mm_set1_epi32((int32_t)second), _mm_set1_epi32((int32_t)first));
    v = _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_setr_epi32(0, 7, 14, 21, 0, 7, 14, 21)), _mm256_set1_epi32(127));
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return with_parity(_mm_packus_epi16(words, words));
}
VINLINE vsigns signs_of(sign_bytes signs, int half) { return bits_apart(_mm256_broadcastsi128_si256(signs), 4 * half); }
VINLINE vcodes negated(vcodes v, vsigns negative) { return (v ^ negative) - negative; }

/* ---- scales */

VINLINE void store_scaled(float *to, i8x16 v, float d, int count) {
    vf factor = _mm256_set1_ps(d);
    vstore(to, factor * _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32((__m128i)v)));
    if (count == 8) return;
    v = (i8x16)_mm_unpackhi_epi64((__m128i)v, (__m128i)v);
    vstore(to + 8, factor * _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32((__m128i)v)));
}

/* ---- how fast the core multiplies (peak.inc): kind is a QC_ACTIVATIONS_ value */

enum { PEAK_BYTES = 4, PEAK_WORDS = 2 }; /* products of bytes (words) while a float lane makes one */
typedef __m256i vpeak;
#define PIN(v) __asm__ volatile("" : "+x"(v))
VINLINE vpeak peak_floats(vpeak sum, vpeak w, vpeak x) {
    return (vpeak)_mm256_fmadd_ps((__m256)w, (__m256)x, (__m256)sum);
}
VINLINE vpeak peak_bytes(vpeak sum, vpeak w, vpeak x) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x)); }
VINLINE vpeak peak_words(vpeak sum, vpeak w, vpeak x) { return _mm256_add_epi32(sum, _mm256_madd_epi16(w, x)); }

#include "runner_common.h"
#endif
