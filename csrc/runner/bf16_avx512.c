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

void qc_bf16_pairs(const tile *w, const activations *a, int64_t tokens, result out) {
    const uint16_t *weights = w->values, *x = a->values;
    (void)tokens;
    __m512 sums[GROUP];
    for (int t = 0; t < GROUP; ++t) sums[t] = _mm512_setzero_ps();
    for (int64_t k = 0; k < (w->columns + 1) / 2; ++k) {
        __m512bh row = (__m512bh)_mm512_loadu_si512(weights + k * LANES * 2);
        for (int t = 0; t < GROUP; ++t) sums[t] = _mm512_dpbf16_ps(sums[t], row, both(x + (k * GROUP + t) * 2));
    }
    for (int t = 0; t < GROUP; ++t) _mm512_storeu_ps(out[t], sums[t]);
}

float qc_bf16_dot(const uint8_t *row, const activations *a) {
    const uint8_t *x = a->values;
    __m512 sums[4];
    for (int i = 0; i < 4; ++i) sums[i] = _mm512_setzero_ps();
    int64_t k = 0, bytes = a->columns * 2;
    for (; k + 256 <= bytes; k += 256)
        for (int i = 0; i < 4; ++i) {
            _mm_prefetch((const char *)row + k + 64 * i + 4096, _MM_HINT_T0); /* as fetch_ahead of runner_x86.h */
            sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)_mm512_loadu_si512(row + k + 64 * i),
                                       (__m512bh)_mm512_loadu_si512(x + k + 64 * i));
        }
    for (; k < bytes; k += 64) {
        __mmask32 some = bytes - k < 64 ? (__mmask32)((1u << ((bytes - k) / 2)) - 1) : (__mmask32)~0u;
        sums[0] = _mm512_dpbf16_ps(sums[0], (__m512bh)_mm512_maskz_loadu_epi16(some, row + k),
                                   (__m512bh)_mm512_maskz_loadu_epi16(some, x + k));
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}
#else
typedef int qc_no_bf16_avx512;
#endif
