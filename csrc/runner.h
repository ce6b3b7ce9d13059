/* runner.h - what the runner computes in C: products with packed weights, attention, norms, rotations, statistics of
 * logits. Plain C types for cffi, as quantcli.h. `isa` is an index of quantcli.h; sets without code of their own here
 * (emu16; avx2 without FMA; avx512 without VNNI) fall back to the next lesser one.
 *
 * Float results may differ between instruction sets in the last bits (fused multiply-add, order of sums), never between
 * thread counts: no sum is split by a thread's share. Status values are those of quantcli.h. */
#ifndef QC_RUNNER_H
#define QC_RUNNER_H
#include "quantcli.h"

/* The runner's own tables of kernels, the backends of this build: how many, their names. For tests: every function with
 * an `isa` takes QC_RUNNER_BACKEND + i too, and refuses where this CPU cannot run backend i. */
enum { QC_RUNNER_BACKEND = 64 };
QC_API int32_t qc_runner_backends(void);
QC_API const char *qc_runner_backend_name(int32_t i);

typedef struct qc_pool qc_pool;

/* A pool of `threads` threads, the caller being one of them. NULL: no memory, or not 1 <= threads <= 256. One call at a
 * time uses a pool; others wait. A pool does not survive fork(). */
QC_API qc_pool *qc_pool_new(int32_t threads);
QC_API void qc_pool_free(qc_pool *pool);
QC_API int32_t qc_pool_threads(const qc_pool *pool);

/* How activations are rounded before they meet weights.
 * FLOAT: not at all; weights are decoded to float32. Relative error of a product about 1e-6.
 * Q8: as llama.cpp's CPU code: Q8_0 or Q8_1 (blocks of 32, scale in fp16) or Q8_K (256, scale in float32) as the
 * weight's type demands, F16 for F16 weights, BF16 for BF16 weights; F32 weights as FLOAT. The sums of integer products
 * of each (sub-)block are exact. INT16: blocks of 32 integers of 15 bits and sign; float weights as FLOAT. Integer sums
 * exact. */
enum { QC_ACTIVATIONS_FLOAT = 0, QC_ACTIVATIONS_Q8 = 1, QC_ACTIVATIONS_INT16 = 2 };

/* What lies at a pointer is counted beside it (in elements, `_bytes` in bytes): qc_run refuses a step
 * that would go beyond, with this status, and touches nothing. The functions themselves do not look at the counts. */
enum { QC_BAD_SIZE = 8 };

/* out[t * out_stride + r] = sum over c of x[t * x_stride + c] * weight[r][c] + bias[r]; weights packed row by row. */
typedef struct {
    int32_t type;
    const uint8_t *weights;
    int64_t rows, columns;
    const float *x;
    int64_t x_stride, tokens;
    float *out;
    int64_t out_stride;
    const float *bias; /* or NULL */
    int64_t weight_bytes, x_count, out_count, bias_count;
} qc_product;

/* 1 if weights of this type can be multiplied. (A product has at least one column.) */
QC_API int32_t qc_can_multiply(int32_t type);

/* Independent products in one go (they may share x, which is then rounded once; outputs must not overlap). */
QC_API int32_t qc_matmul(qc_pool *pool, int32_t isa, int32_t mode, const qc_product *products, int32_t count);

/* The activations as a product would see them, back in float32 [tokens, columns]: for tests and for measuring.
 * Activations that are not finite give garbage in their own token's row, as in llama.cpp. */
QC_API int32_t qc_round_activations(qc_pool *pool, int32_t isa, int32_t mode, int32_t type, const float *x,
                                    int64_t tokens, int64_t columns, float *out);

/* Attention of one sequence: keys and values of positions 0 .. start + tokens - 1, queries of the last `tokens`.
 * Head h of heads reads head h / (heads / kv_heads) of keys and values. Strides count elements. */
typedef struct {
    const float *q; /* q[token * q_token + head * q_head + i], i < width */
    int64_t q_token, q_head;
    const void *k, *v; /* float32, or fp16 if `half`; innermost elements contiguous */
    int64_t k_head, k_position, v_head, v_position;
    int32_t half;
    int64_t tokens, start, heads, kv_heads, width, value_width;
    int64_t window;     /* > 0: position i sees only j > i - window */
    int64_t ahead;      /* position i sees j <= i + ahead: 0 is causal */
    float scale, cap;   /* score = scale * q.k; cap != 0: cap * tanh(score / cap) */
    const float *sinks; /* NULL, or per head one more logit that takes its share and gives nothing */
    /* NULL, or what the score of the query at i and the key at j becomes more by (ALiBi, T5):
     * distances[head * distance_head + distance_zero + j - i] */
    const float *distances;
    int64_t distance_head, distance_zero;
    float *out; /* out[token * out_token + head * out_head + i], i < value_width */
    int64_t out_token, out_head;
    int64_t q_count, k_count, v_count, sinks_count, distance_count, out_count;
} qc_attention;

/* All sequences in one go. Sums over width and positions in float32, in order; exp with 2^-22 relative error. */
QC_API int32_t qc_attend(qc_pool *pool, int32_t isa, const qc_attention *sequences, int32_t count);

/* x * weight / sqrt(mean(x^2) + eps) per row; layer norm subtracts the mean first and adds bias (or NULL). */
QC_API int32_t qc_rms_norm(qc_pool *pool, int32_t isa, const float *x, int64_t rows, int64_t columns,
                           const float *weight, float eps, float *out);
QC_API int32_t qc_layer_norm(qc_pool *pool, int32_t isa, const float *x, int64_t rows, int64_t columns,
                             const float *weight, const float *bias, float eps, float *out);

/* out = act(gate) * up, or act(gate) where up is NULL; rows of `columns`, strides in floats. Absolute error about 4e-7
 * |gate|. GELU: x (1 + erf(x / sqrt 2)) / 2. SWIGLU_OAI: g sigmoid(1.702 g) (clamp(up, -7, 7) + 1), g = min(gate, 7).
 * XIELU: up are its four numbers p, n, b, e: x (p x + b) above 0, n (expm1(min(x, e)) - x) + b x elsewhere. */
enum { QC_SILU, QC_GELU, QC_GELU_TANH, QC_RELU, QC_RELU2, QC_SWIGLU_OAI, QC_XIELU, QC_ACTIVATION_KINDS };
QC_API int32_t qc_activate(qc_pool *pool, int32_t isa, int32_t kind, const float *gate, int64_t gate_stride,
                           const float *up, int64_t up_stride, int64_t rows, int64_t columns, float *out);

/* Rotate the first 2 * pairs elements of every head: x, out [positions, heads, width], cosines and sines [positions,
 * pairs]. neox: pairs (i, i + pairs), else (2i, 2i + 1). x may be out. */
QC_API int32_t qc_rotate(qc_pool *pool, int32_t isa, const float *x, int64_t positions, int64_t heads, int64_t width,
                         int64_t pairs, int32_t neox, const float *cosines, const float *sines, float *out);

/* out = x + scale * y, `count` floats; out may be x or y. */
typedef struct {
    const float *x, *y;
    float scale;
    int64_t count;
    float *out;
} qc_addition;
QC_API int32_t qc_add(qc_pool *pool, int32_t isa, const qc_addition *addition);

/* x float32 [positions, heads, width], each head as a row of `type` to out + head * out_head + position * out_position
 * (bytes). Status of encoding: QC_OVERFLOW, QC_NON_FINITE. */
typedef struct {
    const float *x;
    int64_t positions, heads, width;
    int32_t type;
    uint8_t *out;
    int64_t out_head, out_position;
    int64_t x_count, out_bytes;
} qc_storage;
QC_API int32_t qc_store(qc_pool *pool, int32_t isa, const qc_storage *storage);

/* Arguments of the functions above as steps of a list. */
typedef struct {
    const float *x;
    int64_t rows, columns;
    const float *weight, *bias; /* bias: of layer norms, or NULL */
    float eps;
    float *out;
    int64_t x_count, weight_count, bias_count, out_count;
} qc_norm;
typedef struct {
    int32_t kind;
    const float *gate;
    int64_t gate_stride;
    const float *up;
    int64_t up_stride, rows, columns;
    float *out;
    int64_t gate_count, up_count, out_count;
} qc_activation;
typedef struct {
    const float *x;
    int64_t positions, heads, width, pairs;
    int32_t neox;
    const float *cosines, *sines;
    float *out;
    int64_t x_count, angle_count, out_count; /* angle_count: of each table */
} qc_rotation;

/* Causal convolution of every channel: out[t][c] = act(bias[c] + sum over k of weight[k][c] in[t + k - kernel + 1][c]),
 * where positions before the first are those of `window` [sequences][kernel - 1][channels], which the last inputs
 * replace; act is x sigmoid(x) if `silu`. out: [sequences][tokens][channels]. Strides count elements. */
typedef struct {
    const float *x;
    int64_t x_sequence, x_token;
    float *window;
    const float *weight, *bias; /* [kernel][channels]; [channels] or NULL */
    int64_t sequences, tokens, channels, kernel;
    int32_t silu;
    float *out;
    int64_t x_count, window_count, weight_count, bias_count, out_count;
} qc_convolution;
QC_API int32_t qc_convolve(qc_pool *pool, int32_t isa, const qc_convolution *convolution);

/* A linear recurrence of one sequence over `state` [heads][size][width], changed in place. Per head and position, with
 * key k, query q (of the head's group), value v, decay a (one number, or one for every key) and scale b (1 if NULL):
 *   s = a s + k (b v)          or, `delta`, s = a s + k b (v - (a s)^T k)       or, with `read` and `write`,
 *   s = a s + k (b v) + write (s^T read); then y = s^T q + skip v (or, with `bonus`, y = (s before)^T q + sum(q bonus
 * k) v). Head h reads group h % groups if `tiled`, else h / (heads / groups). out: [tokens][heads][width]. */
typedef struct {
    const float *key, *query, *value; /* [groups][size] and [heads][width] at each position, strides in elements */
    int64_t key_token, query_token, value_token;
    const float *decay, *scale, *skip, *bonus; /* [tokens][heads][decays], [tokens][heads], [heads], [heads][size] */
    const float *read, *write;                 /* both [tokens][heads][size], or both NULL */
    float *state, *out;
    int64_t tokens, heads, groups, size, width;
    int32_t decays, delta, tiled; /* decays: 1 or size */
    int64_t key_count, query_count, value_count, decay_count, scale_count, skip_count, bonus_count, read_count,
        write_count, state_count, out_count;
} qc_recurrence;
/* All sequences in one go; they have the same sizes. */
QC_API int32_t qc_recur(qc_pool *pool, int32_t isa, const qc_recurrence *sequences, int32_t count);

/* The selective scan of one sequence over `state` [size][channels], changed in place: s = exp(step rate) s + step x
 * key, y = s^T query + skip x. rate: [size][channels]; out: [tokens][channels]. */
typedef struct {
    const float *x, *step, *key, *query, *rate, *skip;
    int64_t x_token, step_token, key_token, query_token;
    float *state, *out;
    int64_t tokens, channels, size;
    int64_t x_count, step_count, key_count, query_count, rate_count, skip_count, state_count, out_count;
} qc_scan;
QC_API int32_t qc_scan_states(qc_pool *pool, int32_t isa, const qc_scan *sequences, int32_t count);

/* How much heads forget and write: with x = forget[t][h] + bias[h] and d = log(1 + e^x), decay[t][h] = exp(d rate[h])
 * and scale[t][h] = d, or 1 / (1 + exp(-write[t][h])) where there is `write`. Head h of a position lies at (h / inner)
 * * outer
 * + h % inner, in forget and write alike. */
typedef struct {
    const float *forget, *write, *bias, *rate;
    int64_t forget_token, write_token, outer, inner, tokens, heads;
    float *decay, *scale; /* [tokens][heads] */
    int64_t forget_count, write_count, bias_count, rate_count, decay_count, scale_count;
} qc_gates;
QC_API int32_t qc_gate(qc_pool *pool, int32_t isa, const qc_gates *gates);

enum {
    QC_STEP_MATMUL,
    QC_STEP_RMS_NORM,
    QC_STEP_LAYER_NORM,
    QC_STEP_ACTIVATE,
    QC_STEP_ROTATE,
    QC_STEP_ADD,
    QC_STEP_STORE,
    QC_STEP_ATTEND,
    QC_STEP_CONVOLVE,
    QC_STEP_RECUR,
    QC_STEP_SCAN,
    QC_STEP_GATE
};
typedef struct {
    int32_t kind, count;   /* QC_STEP_...; how many products or sequences */
    const void *arguments; /* qc_product[count], qc_norm, ... qc_attention[count] */
} qc_step;

/* The steps one after another, as if everything had happened `shift` positions later than it says: angles, places in
 * the cache and the start of attention move on (shift >= 0). Stops at the first failure and returns its status;
 * QC_BAD_SIZE where a step reads or writes beyond what its counts say is there. */
QC_API int32_t qc_run(qc_pool *pool, int32_t isa, int32_t mode, const qc_step *steps, int32_t count, int64_t shift);

/* Rows of logits, in place, to log-probabilities: maximum and exp in float32, sum and logarithm in float64.
 * cap != 0: logits are capped as scores are, first. */
QC_API int32_t qc_log_softmax(qc_pool *pool, int32_t isa, float *logits, int64_t rows, int64_t columns, float scale,
                              float cap);

/* Per row of log-probabilities (base, other): sum of exp(base) (base - other) over base > -16 (terms in float32, sum in
 * float64), and the first index of the largest element of each. */
QC_API int32_t qc_divergence(qc_pool *pool, int32_t isa, const float *base, const float *other, int64_t rows,
                             int64_t columns, double *divergence, int64_t *base_top, int64_t *other_top);

/* For benchmarks: run the multiply-adds that products are made of in registers alone, on the calling thread, and return
 * how many operations (a multiplication and an addition are two) that was. kind: a QC_ACTIVATIONS_ value. */
QC_API int64_t qc_peak(int32_t isa, int32_t kind, int64_t rounds);
#endif
