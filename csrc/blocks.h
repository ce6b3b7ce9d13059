/* blocks.h - the ids of the types, and the blocks of every type, field by field.
 *
 * All fields are bytes, so a block has no alignment and no padding, and any buffer can be seen as an array of blocks.
 * Numbers of 16 and 32 bits are little-endian: read them with load16 and load32 (vec/half.inc). "halves" of a byte:
 * element j in the low, element j + n in the high four bits of byte j (n = number of bytes in the run). */
#ifndef QC_BLOCKS_H
#define QC_BLOCKS_H
#include <stdint.h>

enum {
#define QC_TYPE(NAME, name, id, ...) QC_##NAME = (id),
#include "types.def"
    QC_TYPES = QC_Q2_0 + 1 /* one more than the greatest id */
};

/* ---- float types */

typedef struct {
    uint8_t value[4];
} qc_block_f32;

typedef struct {
    uint8_t value[2];
} qc_block_f16, qc_block_bf16;

typedef struct {
    uint8_t value[8];
} qc_block_f64;

/* ---- legacy types: q in halves of 16, fifth bits as one word */

typedef struct {
    uint8_t d[2], q[16];
} qc_block_q4_0, qc_block_iq4_nl;

typedef struct {
    uint8_t d[2], minimum[2], q[16];
} qc_block_q4_1;

typedef struct {
    uint8_t d[2], high[4], q[16];
} qc_block_q5_0;

typedef struct {
    uint8_t d[2], minimum[2], high[4], q[16];
} qc_block_q5_1;

typedef struct {
    uint8_t d[2];
    int8_t q[32];
} qc_block_q8_0;

typedef struct {
    uint8_t d[2], q[16]; /* bit i of the run: sign of weight i */
} qc_block_q1_0;

typedef struct {
    uint8_t d[2], q[16]; /* bits 2 i, 2 i + 1 of the run: weight i */
} qc_block_q2_0;

/* ---- k types. `q` of Q2_K and Q3_K: two runs of 32 bytes, codes j, j + 32, j + 64, j + 96 of 128 in byte j; of Q4_K
 * and Q5_K: four runs of 32 bytes in halves; of Q6_K: two runs of 64 bytes in halves. */

typedef struct {
    uint8_t scales[16]; /* per sub-block: scale (low four bits), minimum */
    uint8_t q[64];
    uint8_t d[2], dmin[2];
} qc_block_q2_k;

typedef struct {
    uint8_t high[32]; /* bit k of byte j: third bit of code j + 32 k */
    uint8_t q[64];
    uint8_t scales[12]; /* sixteen of 6 bits, plus 32: low four bits in halves of 8, then the upper two */
    uint8_t d[2];
} qc_block_q3_k;

typedef struct {
    uint8_t d[2], dmin[2];
    uint8_t scales[12]; /* eight scales and eight minima of 6 bits */
    uint8_t q[128];
} qc_block_q4_k;

typedef struct {
    uint8_t d[2], dmin[2];
    uint8_t scales[12]; /* as Q4_K's */
    uint8_t high[32];   /* bit k of byte j: fifth bit of code j + 32 k */
    uint8_t q[128];
} qc_block_q5_k;

typedef struct {
    uint8_t q[128];
    uint8_t high[64]; /* two runs of 32 bytes: upper two bits of codes j, j + 32, j + 64, j + 96 of 128 in byte j */
    int8_t scales[16];
    uint8_t d[2];
} qc_block_q6_k;

/* ---- uneven levels */

typedef struct {
    uint8_t d[2];
    uint8_t high[2], low[4]; /* eight scales of 6 bits, plus 32: the upper two of each, the lower four of each */
    uint8_t q[8][16];        /* each in halves */
} qc_block_iq4_xs;

typedef struct {
    uint8_t d[1]; /* exponent of the scale */
    uint8_t q[16];
} qc_block_mxfp4;

typedef struct {
    uint8_t d[4]; /* scales: E4M3 without sign */
    uint8_t q[4][8];
} qc_block_nvfp4;

/* ---- ternary */

typedef struct {
    uint8_t q[32], middle[16]; /* five digits a byte, digit k of byte j: weight 32 k + j, then 160 + 16 k + j */
    uint8_t last[4];           /* four digits a byte: weight 240 + 4 k + j */
    uint8_t d[2];
} qc_block_tq1_0;

typedef struct {
    uint8_t q[64]; /* two runs of 32 bytes: codes j, j + 32, j + 64, j + 96 of 128 in byte j */
    uint8_t d[2];
} qc_block_tq2_0;

/* ---- codebooks: indices of grid points (`high`: their upper bits), signs of eight weights a byte */

typedef struct {
    uint8_t d[2];
    struct {
        uint8_t points[4];
        uint8_t signs[4]; /* a word: four times 7 signs, then the scale */
    } groups[8];
} qc_block_iq2_xxs;

typedef struct {
    uint8_t d[2];
    uint8_t q[32][2]; /* 9 bits index, 7 signs */
    uint8_t scales[8];
} qc_block_iq2_xs;

typedef struct {
    uint8_t d[2], q[32], signs[32], high[8], scales[8];
} qc_block_iq2_s;

typedef struct {
    uint8_t d[2], q[64];
    uint8_t signs[8][4]; /* words: four times 7 signs, then the scale */
} qc_block_iq3_xxs;

typedef struct {
    uint8_t d[2], q[64], high[8], signs[32], scales[4];
} qc_block_iq3_s;

typedef struct {
    uint8_t d[2], q[32];
    uint8_t high[8][2]; /* four times 3 bits of index, 3 bits scale, 1 shift */
} qc_block_iq1_s;

typedef struct {
    uint8_t q[32];
    uint8_t high[16];     /* 3 bits of index and 1 shift of two points */
    uint8_t scales[4][2]; /* four times 3 bits scale, then 4 bits of d */
} qc_block_iq1_m;

/* The numbers of a type as constants of its name: qc_q4_k_weights (of a block), _sub, _low, _high, _minima. */
#define QC_TYPE(NAME, name, id, block, bytes, sub, low, high, minima, ...)                                             \
    enum {                                                                                                             \
        qc_##name##_weights = (block),                                                                                 \
        qc_##name##_sub = (sub),                                                                                       \
        qc_##name##_low = (low),                                                                                       \
        qc_##name##_high = (high),                                                                                     \
        qc_##name##_minima = (minima)                                                                                  \
    };
#include "types.def"

#define QC_TYPE(NAME, name, id, block, bytes, ...)                                                                     \
    _Static_assert(sizeof(qc_block_##name) == (bytes), "a block of " #NAME " has " #bytes " bytes");                   \
    _Static_assert((id) < QC_TYPES, "QC_TYPES covers " #NAME);
#include "types.def"
#endif
