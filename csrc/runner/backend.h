/* backend.h - the tables of the runner's kernels, one (a backend) per instruction set, and the layouts that they agree
 * on.
 *
 * Batches: LANES weight rows side by side against groups of GROUP tokens. A tile holds LANES rows of all columns, or
 * of a run of them:
 *   codes   uint8 [columns / 4][LANES][4]      code - low of the type, so 0 .. span; or int8, the codes
 *   split   two of int8 [columns / 4][LANES][4], high and low: see splitter
 *   wide    int16 [columns / 2][LANES][2]      the signed codes
 *   pairs   bf16  [columns / 2][LANES][2]
 *   floats  float [columns][LANES]
 *   scales, minima  float [columns / sub][LANES]      weight = scale * code + minimum; of split, scales [columns /
 * 256][LANES]
 * Activations of one group (G = GROUP, or 1 for the single-token path):
 *   int8 [columns / B][G][B], int16 [columns / 32][G][32], bf16 [columns / P][G][P] (B and P: the backend's
 * byte_columns, 32 or 64, and pair_columns, 2 or 32; zeros behind the last pair) or float [columns][G]
 *   d     float [columns / partner block][G]
 *   sum32, sum16  int32 [columns / 32 or 16][1]: sums of the integers, of one token alone
 *   fsum32, fsum16  float [columns / 32 or 16][G]: what minima are multiplied with; of a group only those that are read
 *   words32, words16  int16, the same sums, of bytes and one token alone; 16 can be read wherever one is.
 *   starts  int32 [columns / (4 quads)][G]: where the sums of `quads` quads of codes begin (bytes alone, and where low
 * is not 0): low times the sum of their integers, in the form that the vector header's partial sums have.
 */
#ifndef QC_RUNNER_BACKEND_H
#define QC_RUNNER_BACKEND_H
#include "../table.h"
#include "../runner.h"
#include "pool.h"
#include "points.h"

enum { LANES = 16, GROUP = 16 };

typedef enum {
    ROUND_FLOAT,
    ROUND_F16,
    ROUND_BF16,
    ROUND_Q8_0,
    ROUND_Q8_1,
    ROUND_Q8_K,
    ROUND_INT16,
    ROUNDINGS
} rounding;

/* In which order 256 columns of one token's bytes lie for a `dot`: pieces of 16 columns, four of them what a step of 64
 * codes meets, or every fourth column. So that codes are multiplied as they come out of their bytes. */
typedef enum {
    ORDER_PLAIN,
    ORDER_HALVES, /* first halves of four blocks of 32, then the second ones */
    ORDER_NEXT,   /* units of 32 columns: 0 and 2, 1 and 3, ... */
    ORDER_FAR,    /* 0 and 4, 1 and 5, ... */
    ORDERS_OF_PIECES,
    ORDER_FOURTHS = ORDERS_OF_PIECES /* columns 0, 4, 8, ..., then 1, 5, ... */
} piece_order;
static const uint8_t qc_pieces[ORDERS_OF_PIECES][16] = {
    [ORDER_PLAIN] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    [ORDER_HALVES] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15},
    [ORDER_NEXT] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15},
    [ORDER_FAR] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15},
};

/* Unpack `blocks` blocks of one row: codes (0 .. span), and per sub-block scale and (where the type has them) minimum.
 */
typedef void (*unpacker)(const uint8_t *in, int64_t blocks, uint8_t *codes, float *scales, float *minima);

typedef struct {
    rounding kind;
    int64_t columns, group; /* group: tokens side by side, GROUP or 1 */
    int64_t block;          /* activations that share a scale */
    int32_t together;       /* columns of a token that lie side by side */
    int32_t wide;           /* integers of 16 bits, whatever their rounding; pairs of BF16 */
    int32_t low, quads;     /* of the codes that they meet; see `starts`; quads 0: none */
    int32_t sums;           /* 16 and 32 added: which of fsum16, fsum32 there are */
    const void *values;
    const float *d, *fsum32, *fsum16;
    const int32_t *sum32, *sum16, *starts;
    const int16_t *words32, *words16;
    int64_t next; /* bytes from each of these to that of the next group */
} activations;    /* of one group */

/* Unpack `blocks` blocks of 256 of one row: a code times the integer scale of its sub-block = 128 high + low, signed
 * bytes both; a scale per block; minima as above. */
typedef void (*splitter)(const uint8_t *in, int64_t blocks, uint8_t *high, uint8_t *low, float *scales, float *minima);

/* A part of token t, of groups of 1, of which `at` is the first one's. */
#define OF_TOKEN(at, next, t) ((__typeof__(at))(const void *)((const char *)(at) + (t) * (next)))

/* A row of whole blocks times int8 activations of 1, 2 or 4 tokens, each a group of 1, to out[tokens][stride]. Types
 * with blocks of 32: the first columns / 256 * 256. */
enum { TOGETHER = 4 };
typedef void (*dotter)(const uint8_t *row, const activations *, int tokens, float *out, int64_t stride);
/* Bodies for more tokens than one are functions of their own: in one with that for a single token they cost it 11 to 25
 * cycles a row (Zen 4), for the registers that they save. */
#define APART static __attribute__((noinline)) void

typedef struct {
    int16_t block, bytes; /* of the packed type */
    int16_t sub;          /* weights that share a scale: 16 or 32; 0: a float type */
    int16_t low, span;    /* smallest code; largest minus smallest */
    int8_t minima;        /* whether sub-blocks have minima */
    int8_t folded;   /* codes are stored codes times their integer scales: all scales of 256 columns are the same */
    uint8_t partner; /* rounding of the activations in mode q8 */
    unpacker unpack;
    dotter dot;    /* NULL: unpack, then multiply */
    uint8_t order; /* of the bytes that `dot` takes (whole 256 columns; what is left over lies as it was) */
    uint8_t few;   /* tokens that a backend's `dots` multiply sooner than its tiles do */
} code_type;

typedef struct {
    int64_t first, columns; /* of the matrix's columns; `first` is a multiple of 256 */
    const void *values;     /* codes, wide, pairs or floats */
    const float *scales, *minima;
    int32_t sub, low, span, folded;
    int64_t
        next; /* bytes from each of them to that of the tile behind, for backends that multiply two; 0: itself again */
} tile;

/* What the weights of a tile become: bytes, two bytes, signed words, pairs of BF16, floats. */
typedef enum { TILE_NARROW, TILE_SPLIT, TILE_WIDE, TILE_PAIRS, TILE_FLOATS } tile_kind;

typedef float result[GROUP][LANES]; /* [token][row] */
#define ROUND_SCRATCH(columns) ((size_t)(columns) * 5 + 256)

typedef struct runner_backend runner_backend;
struct runner_backend {
    const char *name;
    const runner_backend *one_token; /* whose `dots` are faster than its own, of types that have a dot there; of others
                                        (and of floats) that one's one_token; NULL: none */
    int32_t narrow_span;             /* largest span that `narrow` takes; others are multiplied as `wide` */
    /* that `narrow` and `wide`, `floats` and `bf16_pairs` multiply at a time: 1 or 2 */
    int32_t integer_tiles, float_tiles;
    int32_t byte_columns, pair_columns; /* of a token in a group, that lie side by side: see above */
    int32_t signed_codes;               /* `narrow` takes code + low, -128 to 127, and needs no starts */
    const splitter *splitters;          /* by type: those that `split` multiplies instead of `narrow`; NULL: none */
    int32_t (*start_quads)(int low, int span, int sub); /* quads of codes that share a start in `narrow` */
    const code_type *codes;                             /* by type */
    const qc_type *types;
    /* what a thread does before and behind products with tiles of a kind whose sub-blocks have so many columns; NULL:
     * nothing */
    void (*enter)(tile_kind kind, int32_t sub);
    void (*leave)(void);
    /* the tile's columns, the first `tokens` tokens of a group (later rows of the result may hold anything); added to
     * `out` (one per tile) where the tile's columns are not the first */
    void (*narrow)(const tile *, const activations *, int64_t tokens, result *out);
    void (*split)(const tile *, const activations *, int64_t tokens, result *out);
    void (*wide)(const tile *, const activations *, int64_t tokens, result *out);
    void (*floats)(const tile *, const activations *, int64_t tokens, result *out);
    /* NULL: BF16 is multiplied as floats. The second: a row of a BF16 matrix times one token. */
    void (*bf16_pairs)(const tile *, const activations *, int64_t tokens, result *out);
    float (*bf16_dot)(const uint8_t *row, const activations *);
    /* LANES rows of dwords side by side: in [LANES][words] to out [words][LANES] */
    void (*interleave)(const uint32_t *const in[LANES], int64_t words, uint32_t *out);
    /* a few tokens: the dot products of `count` packed rows with the activations, each a group of 1, to out
     * [tokens][stride]; `packed`: the type's row of `types`; scratch: a float per column */
    void (*dots)(int32_t type, const qc_type *packed, const uint8_t *rows, int64_t row_bytes, int64_t count,
                 const activations *, int64_t tokens, uint8_t *scratch, float *out, int64_t stride);
    /* scratch: ROUND_SCRATCH(columns) bytes */
    void (*round_group)(const activations *, const float *x, int64_t stride, int64_t tokens, void *scratch);
    void (*rounded)(rounding kind, const float *x, int64_t columns, float *out, void *scratch);
    /* queries first .. last - 1 of one kv head; scratch: ATTENTION_SCRATCH */
    void (*attend)(const qc_attention *, int64_t kv_head, int64_t first, int64_t last, float *scratch);
    void (*rms_norm)(const float *x, int64_t columns, const float *weight, float eps, float *out);
    void (*layer_norm)(const float *x, int64_t columns, const float *weight, const float *bias, float eps, float *out);
    void (*activate)(int32_t kind, const float *gate, const float *up, int64_t columns, float *out);
    void (*rotate)(const float *x, int64_t heads, int64_t width, int64_t pairs, int32_t neox, const float *cosines,
                   const float *sines, float *out);
    /* channels first .. last - 1 of a sequence */
    void (*convolve)(const qc_convolution *, int64_t sequence, int64_t first, int64_t last);
    /* a block of state_lanes values of a head; scratch: size * state_lanes floats */
    void (*recur)(const qc_recurrence *, int64_t head, int64_t block, float *scratch);
    /* a block of scan_lanes channels; scratch: 2 * size * scan_lanes floats */
    void (*scan)(const qc_scan *, int64_t block, float *scratch);
    int32_t state_lanes, scan_lanes;
    void (*log_softmax)(float *logits, int64_t columns, float scale, float cap);
    double (*divergence)(const float *base, const float *other, int64_t columns);
    int64_t (*top)(const float *x, int64_t columns);
    int64_t (*peak)(int32_t kind, int64_t rounds);
};

enum { QUERY_BLOCK = 32, QUERY_ROWS = 4 };
/* floats: transposed keys, padded values, scores */
#define ATTENTION_SCRATCH(keys, width, value_width)                                                                    \
    (((keys) + 32) * ((width) + (value_width) + 64 + QUERY_ROWS) + QUERY_ROWS * ((width) + (value_width) + 64))

extern const runner_backend qc_runner_scalar;
#if defined(__x86_64__)
extern const runner_backend qc_runner_avx2, qc_runner_avx512, qc_runner_avx512_vbmi, qc_runner_avx512_bf16;
extern const runner_backend qc_one_token_wide;                                      /* its `dots` alone */
void qc_bf16_pairs(const tile *, const activations *, int64_t tokens, result *out); /* AVX512_BF16 */
float qc_bf16_dot(const uint8_t *row, const activations *);
extern const runner_backend qc_runner_amx, qc_runner_amx_emulated;
int qc_amx_works(void); /* whether this processor and system execute AMX's instructions */
void qc_amx_products(const tile *, const activations *, int64_t tokens, result *out);
void qc_amx_products_emulated(const tile *, const activations *, int64_t tokens, result *out);
void qc_amx_split(const tile *, const activations *, int64_t tokens, result *out);
void qc_amx_split_emulated(const tile *, const activations *, int64_t tokens, result *out);
void qc_amx_enter(tile_kind kind, int32_t sub);
void qc_amx_enter_emulated(tile_kind kind, int32_t sub);
void qc_amx_leave(void);
void qc_amx_leave_emulated(void);
void qc_amx_pairs(const tile *, const activations *, int64_t tokens, result *out);
void qc_amx_pairs_emulated(const tile *, const activations *, int64_t tokens, result *out);
int64_t qc_amx_peak(int32_t kind, int64_t rounds);
#elif defined(__aarch64__)
extern const runner_backend qc_runner_neon, qc_runner_dotprod;
#endif
#endif
