/* runner.h - what the runner computes in C: products with packed weights, attention, norms, rotations, statistics of
 * logits. Plain C types for cffi, as quantcli.h. `isa` is an index of quantcli.h; sets without code of their own here
 * (emu16; avx2 without FMA; avx512 without VNNI) fall back to the next lesser one.
 *
 * Float results may differ between instruction sets in the last bits (fused multiply-add, order of sums), never between
 * thread counts: no sum is split by a thread's share. Status values are those of quantcli.h. */
#ifndef QC_RUNNER_H
#define QC_RUNNER_H
#include "quantcli.h"

typedef struct qc_pool qc_pool;

/* A pool of `threads` threads, the caller being one of them. NULL: no memory, or not 1 <= threads <= 256. One call at a
 * time uses a pool; others wait. A pool does not survive fork(). */
QC_API qc_pool *qc_pool_new(int32_t threads);
QC_API void qc_pool_free(qc_pool *pool);
QC_API int32_t qc_pool_threads(const qc_pool *pool);

/* How activations are rounded before they meet weights.
 * FLOAT: not at all; weights are decoded to float32. Relative error of a product about 1e-6.
 * Q8: as llama.cpp's CPU code: Q8_0 or Q8_1 (blocks of 32, scale in fp16) or Q8_K (256, scale in float32) as the weight's
 *     type demands, F16 for F16 weights, BF16 for BF16 weights; F32 weights as FLOAT. The sums of integer products of
 *     each (sub-)block are exact.
 * INT16: blocks of 32 integers of 15 bits and sign; float weights as FLOAT. Integer sums exact. */
enum { QC_ACTIVATIONS_FLOAT = 0, QC_ACTIVATIONS_Q8 = 1, QC_ACTIVATIONS_INT16 = 2 };

/* out[t * out_stride + r] = sum over c of x[t * x_stride + c] * weight[r][c]; weights packed row by row. */
typedef struct {
    int32_t type;
    const uint8_t *weights;
    int64_t rows, columns;
    const float *x;
    int64_t x_stride, tokens;
    float *out;
    int64_t out_stride;
} qc_product;

/* 1 if weights of this type can be multiplied. */
QC_API int32_t qc_can_multiply(int32_t type);

/* Independent products in one go (they may share x, which is then rounded once; outputs must not overlap). */
QC_API int32_t qc_matmul(qc_pool *pool, int32_t isa, int32_t mode, const qc_product *products, int32_t count);

/* The activations as a product would see them, back in float32 [tokens, columns]: for tests and for measuring.
 * Activations that are not finite give garbage in their own token's row, as in llama.cpp. */
QC_API int32_t qc_round_activations(qc_pool *pool, int32_t isa, int32_t mode, int32_t type, const float *x, int64_t tokens,
                                    int64_t columns, float *out);
#endif
