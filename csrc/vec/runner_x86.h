/* runner_x86.h - of the operations in runner_scalar.h, those that AVX2 and AVX-512 share: at most 32 bytes at a time.
 */
typedef int8_t i8x16 __attribute__((vector_size(16), may_alias));

VINLINE __m128i load_128(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
VINLINE __m256i load_256(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
VINLINE __m128i load_64(const void *p) { return _mm_loadl_epi64((const __m128i *)p); }
VINLINE int32_t load_word(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* How far ahead of the step rows are fetched: a page ends what the hardware fetches by itself. Less than a page makes
 * small pages slower (Zen 4: 2048 bytes cost a sixth). */
enum { AHEAD = 4096 };
VINLINE void fetch_ahead(const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}
#define FETCH_AHEAD fetch_ahead
/* into the second cache alone */
VINLINE void fetch_near(const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T1);
}
#define FETCH_NEAR fetch_near

/* 8 x 8 words, twice */
enum { TURNED = 8 };
VINLINE void turn_words(const uint32_t *const in[16], int64_t k, uint32_t *out) {
    for (int half = 0; half < 2; ++half) {
        __m256 r[8], a[8], b[8];
        for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps((const float *)(in[8 * half + i] + k));
        for (int i = 0; i < 4; ++i) {
            a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for (int i = 0; i < 2; ++i) {
            b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
            b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
            b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
            b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
        }
        for (int i = 0; i < 4; ++i) {
            _mm256_storeu_ps((float *)(out + 16 * i + 8 * half), _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
            _mm256_storeu_ps((float *)(out + 16 * i + 64 + 8 * half), _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
        }
    }
}

VINLINE void nine_bits(const uint8_t *p, unsigned high, uint16_t index[16]) {
    const __m256i bit = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
    __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)high), bit), bit);
    set = _mm256_and_si256(set, _mm256_set1_epi16(256));
    _mm256_storeu_si256((__m256i *)index, _mm256_or_si256(_mm256_cvtepu8_epi16(load_128(p)), set));
}

/* ---- scales */

VINLINE i8x16 scales_load(const uint8_t *p) { return (i8x16)load_128(p); }
VINLINE i8x16 scales_of(int value) { return (i8x16)_mm_set1_epi8((char)value); }
VINLINE i8x16 high_nibbles(i8x16 v) { return (i8x16)_mm_and_si128(_mm_srli_epi16((__m128i)v, 4), _mm_set1_epi8(15)); }
VINLINE i8x16 scales_pair(uint64_t low, uint64_t high) { return (i8x16)_mm_set_epi64x((int64_t)high, (int64_t)low); }
/* the nibbles of the bytes in the lower half */
VINLINE i8x16 nibbles_apart(__m128i v) {
    return (i8x16)_mm_and_si128(_mm_unpacklo_epi8(v, _mm_srli_epi16(v, 4)), _mm_set1_epi8(15));
}
VINLINE i8x16 nibbles_8(const uint8_t *p) { return nibbles_apart(load_64(p)); }
VINLINE i8x16 nibbles_4(const uint8_t *p) { return nibbles_apart(_mm_cvtsi32_si128(load_word(p))); }
VINLINE i8x16 fields_2(unsigned bits) {
    __m128i v = _mm_mullo_epi16(_mm_set1_epi16((short)bits), _mm_setr_epi16(16384, 4096, 1024, 256, 64, 16, 4, 1));
    v = _mm_srli_epi16(v, 14);
    return (i8x16)_mm_packus_epi16(v, v);
}
VINLINE i8x16 top_nibbles(const uint8_t *p, int stride) {
    __m256i v;
    if (stride == 4) {
        v = _mm256_srli_epi32(load_256(p), 28);
    } else { /* 8: the words are the upper ones of pairs, the first of which lies before p */
        __m256i low = _mm256_srli_epi64(load_256(p - 4), 60), high = _mm256_srli_epi64(load_256(p + 28), 60);
        v = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    }
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return (i8x16)_mm_packus_epi16(words, words);
}
