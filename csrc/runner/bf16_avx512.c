/* Products of BF16 weights with BF16 activations by AVX512_BF16 (flags: scripts/build_kernels.py); empty elsewhere.
 *
 * The instruction adds two products to a float sum, and takes denormals for zeros. */
#if defined(__x86_64__)
#include "backend.h"
#include <immintrin.h>
#include <string.h>

static inline __m512bh both(const uint16_t *p) {
    int32_t word;
    memcpy(&word, p, 4);
    return (__m512bh)_mm512_set1_epi32(word);
}

/* `count` tokens from `first` on, n pairs of columns, added to what `out` holds if there were pairs before (`more`);
 * constants at every call: `tiles`, `count` */
static inline __attribute__((always_inline)) void pairs_of_tokens(int tiles, int count, const uint8_t *weights,
                                                                  int64_t next, const uint16_t *x, int64_t n,
                                                                  int64_t first, int more, result *out) {
    __m512 sums[GROUP][2];
    for (int t = 0; t < count; ++t)
        for (int v = 0; v < tiles; ++v) sums[t][v] = more ? _mm512_loadu_ps(out[v][first + t]) : _mm512_setzero_ps();
    for (int64_t k = 0; k < n; ++k) {
        __m512bh w[2];
        _mm_prefetch((const char *)(x + (k + 256) * GROUP * 2), _MM_HINT_T0);
        for (int v = 0; v < tiles; ++v) w[v] = (__m512bh)_mm512_loadu_si512(weights + v * next + k * LANES * 4);
        for (int t = 0; t < count; ++t) {
            __m512bh value = both(x + (k * GROUP + first + t) * 2);
            for (int v = 0; v < tiles; ++v) sums[t][v] = _mm512_dpbf16_ps(sums[t][v], w[v], value);
        }
    }
    for (int t = 0; t < count; ++t)
        for (int v = 0; v < tiles; ++v) _mm512_storeu_ps(out[v][first + t], sums[t][v]);
}

/* PAIRS pairs of columns at a time, so that their weights stay in the first cache for all tokens. */
void qc_bf16_pairs(const tile *w, const activations *a, int64_t tokens, result *out) {
    enum { PAIRS = 128, HALF = GROUP / 2 };
    const int64_t pairs = (w->columns + 1) / 2;
    for (int64_t k = 0; k < pairs; k += PAIRS) {
        const uint8_t *weights = (const uint8_t *)w->values + k * LANES * 4;
        const uint16_t *x = (const uint16_t *)a->values + (w->first / 2 + k) * GROUP * 2;
        const int64_t n = k + PAIRS < pairs ? PAIRS : pairs - k;
        const int more = w->first + k > 0;
        if (!w->next) pairs_of_tokens(1, GROUP, weights, 0, x, n, 0, more, out);
        for (int64_t first = 0; w->next && first < tokens; first += HALF)
            pairs_of_tokens(2, HALF, weights, w->next, x, n, first, more, out);
    }
}

/* With 256 bits: rows of 2048 columns from memory are 1.04 to 1.15 times as fast on Zen 4 as with 512, of 5632 columns
 * as fast, in the cache 0.95. */
float qc_bf16_dot(const uint8_t *row, const activations *a) {
    const uint8_t *x = a->values;
    __m256 sums[8];
    for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_ps();
    int64_t k = 0, bytes = a->columns * 2;
    for (; k + 256 <= bytes; k += 256)
        for (int i = 0; i < 8; ++i) {
            if (i % 2 == 0)
                _mm_prefetch((const char *)row + k + 32 * i + 4096, _MM_HINT_T0); /* as fetch_ahead of runner_x86.h */
            sums[i] = _mm256_dpbf16_ps(sums[i],
                                       (__m256bh)_mm256_loadu_si256((const __m256i *)(const void *)(row + k + 32 * i)),
                                       (__m256bh)_mm256_loadu_si256((const __m256i *)(const void *)(x + k + 32 * i)));
        }
    for (; k < bytes; k += 32) {
        __mmask16 some = bytes - k < 32 ? (__mmask16)((1u << ((bytes - k) / 2)) - 1) : (__mmask16)~0u;
        sums[0] = _mm256_dpbf16_ps(sums[0], (__m256bh)_mm256_maskz_loadu_epi16(some, row + k),
                                   (__m256bh)_mm256_maskz_loadu_epi16(some, x + k));
    }
    for (int n = 4; n; n /= 2)
        for (int i = 0; i < n; ++i) sums[i] = _mm256_add_ps(sums[i], sums[i + n]);
    return _mm512_reduce_add_ps(_mm512_zextps256_ps512(sums[0]));
}
#else
typedef int qc_no_bf16_avx512;
#endif
