/* table.h - the table of kernels: one row per type, one table per instruction set.
 *
 * Every csrc/isa_*.c compiles the same bodies (kernels.inc) over its own vector header and exports one table.
 * A missing pointer means that the build has no such kernel. */
#ifndef QC_TABLE_H
#define QC_TABLE_H
#include "quantcli.h"

/* ggml type ids: part of the GGUF format */
enum {
    QC_F32 = 0,
    QC_F16 = 1,
    QC_Q4_0 = 2,
    QC_Q4_1 = 3,
    QC_Q5_0 = 6,
    QC_Q5_1 = 7,
    QC_Q8_0 = 8,
    QC_Q2_K = 10,
    QC_Q3_K = 11,
    QC_Q4_K = 12,
    QC_Q5_K = 13,
    QC_Q6_K = 14,
    QC_IQ2_XXS = 16,
    QC_IQ2_XS = 17,
    QC_IQ3_XXS = 18,
    QC_IQ1_S = 19,
    QC_IQ4_NL = 20,
    QC_IQ3_S = 21,
    QC_IQ2_S = 22,
    QC_IQ4_XS = 23,
    QC_F64 = 28,
    QC_IQ1_M = 29,
    QC_BF16 = 30,
    QC_TQ1_0 = 34,
    QC_TQ2_0 = 35,
    QC_MXFP4 = 39,
    QC_NVFP4 = 40,
    QC_Q1_0 = 41,
    QC_Q2_0 = 42,
    QC_TYPES = 43
};

enum { QC_SEARCHES = 2 };

/* Encode whole rows; weights are finite, importance (or NULL) finite and not negative. Returns QC_OK or QC_OVERFLOW. */
typedef int32_t (*qc_encoder)(const float *x, int64_t rows, int64_t columns, const float *importance, uint8_t *out,
                              qc_place *place);
/* Decode `blocks` consecutive blocks. */
typedef void (*qc_decoder)(const uint8_t *in, int64_t blocks, float *out);

typedef struct {
    int32_t block, bytes; /* weights and bytes of a block; 0 where there is no such type */
    qc_decoder decode;
    qc_encoder plain[QC_SEARCHES];    /* without importance, by search */
    qc_encoder weighted[QC_SEARCHES]; /* with importance */
} qc_row;

typedef const qc_row qc_rows[QC_TYPES];

extern qc_rows qc_rows_scalar, qc_rows_emu16;
#if defined(__x86_64__)
extern qc_rows qc_rows_avx2, qc_rows_avx512;
#elif defined(__aarch64__)
extern qc_rows qc_rows_neon;
#endif
#endif
