/* packed.h - what packed checkpoints need: decoders of their codes, and blocks that carry them over. One table for
 * plain C and one for AVX2, which AVX-512 takes too: both give the same bits, and decoding is bound by memory. */
#ifndef QC_PACKED_H
#define QC_PACKED_H
#include "checkpoints.h"
#include "table.h"

enum { QC_LARGEST_BLOCK = 256 }; /* weights */

typedef void (*qc_unpacker)(const qc_packed *packed, float *out);
/* The precision of a row of n weights, n a multiple of 8: a number for those below. A block alone may seem to have less
 * than it has. */
typedef int (*qc_precision)(const float *x, int64_t n);
/* A block of weights that lies on the grid of the type into `block`: 0 (it does not), 1 or 2, see qc_snap. hint[2]:
 * scale and minimum of the block before, tried first; 0 for none. */
typedef int (*qc_snapper)(const float *x, int precision, uint8_t *block, float *hint);
/* Whether n decoded values are the weights x, to their precision: as qc_snapper. */
typedef int (*qc_comparer)(const float *decoded, const float *x, int n, int precision);

typedef void (*qc_turner)(const uint32_t *words, int64_t rows, int64_t columns, uint32_t *out);

typedef const struct {
    qc_unpacker unpack[QC_PACKINGS];
    qc_snapper snap[QC_TYPES];
    qc_precision precision;
    qc_comparer compare;
    qc_turner turn_words, turn_nibbles;
} qc_packed_kernels;

extern qc_packed_kernels qc_packed_scalar;
#if defined(__x86_64__)
extern qc_packed_kernels qc_packed_avx2;
#endif
#endif
