/* checkpoints.h - weights as packed checkpoints store them: decoders, and blocks that carry weights over. With
 * quantcli.h and runner.h what Python sees (cffi, ABI mode); status codes and rules as there. */
#ifndef QUANTCLI_CHECKPOINTS_H
#define QUANTCLI_CHECKPOINTS_H
#include "quantcli.h"

/* Weights of packed checkpoints, row after row: columns * bits / 8 bytes of codes each, whole bytes. A weight is
 * (code - zero) * scale in float32, one rounding each. scale, zero: [rows][groups], zero may be NULL; the group of
 * column c is c / group, or index[c] where index is given. levels: what the 16 codes of a nibble mean instead of their
 * number (no zero then); NULL elsewhere. */
enum {                      /* packings */
       QC_NIBBLES = 0,      /* four bits, the low ones first */
       QC_NIBBLES_HIGH = 1, /* four bits, the high ones first */
       QC_PAIRS = 2,        /* two bits, the low ones first */
       QC_BYTES = 3,        /* 0 to 255 */
       QC_SIGNED = 4,       /* -128 to 127 */
       QC_E4M3 = 5,         /* 8-bit floats: 4 bits of exponent, no infinities, two NaN */
       QC_E5M2 = 6,         /* 8-bit floats: the upper half of fp16 */
       QC_PACKINGS = 7
};
typedef struct {
    const uint8_t *codes;
    const float *scale, *zero, *levels;
    const int32_t *index;
    int64_t rows, columns, group, groups;
    int32_t packing;
} qc_packed;

QC_API int32_t qc_unpack(int32_t isa, const qc_packed *packed, float *out);

/* Packings along columns, turned to rows: out[c][r] = words[r][c]; and AWQ's, where word c of an input holds outputs
 * 8c, 8c + 2, 8c + 4, 8c + 6, 8c + 1 ... from the low nibble on: out[output][input / 8], inputs from the low nibble on
 * (rows a multiple of 8). */
QC_API int32_t qc_turn_words(int32_t isa, const uint32_t *words, int64_t rows, int64_t columns, uint32_t *out);
QC_API int32_t qc_turn_nibbles(int32_t isa, const uint32_t *words, int64_t rows, int64_t columns, uint32_t *out);

/* Blocks that carry weights over: where a block of weights lies on the grid of the type, its scale and codes are found
 * and written to `blocks`. With `encoded` these hold what an encoder made of the weights, and a block that gives the
 * weights back stays as it is. carried, one byte a block: 0, it lies on no grid (nothing is written); 1, the decoded
 * values are the weights to the precision that they have (bf16, fp16, or up to the rounding of the scales to fp16); 2,
 * they are the weights to the bit. QC_NO_KERNEL for a type that carries nothing. */
QC_API int32_t qc_can_snap(int32_t type);
QC_API int32_t qc_snap(int32_t isa, int32_t type, const float *x, int64_t rows, int64_t columns, int32_t encoded,
                       uint8_t *blocks, uint8_t *carried, qc_place *place);

#endif
