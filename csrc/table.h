/* table.h - the kernels of a type, and of all types: one table, a backend, per instruction set.
 *
 * Every csrc/isa_*.c compiles the same bodies (kernels.inc) over its own vector header and exports one backend.
 * A missing pointer means that the build has no such kernel. */
#ifndef QC_TABLE_H
#define QC_TABLE_H
#include "blocks.h"
#include "quantcli.h"

enum { QC_SEARCHES = 2 };

/* Encode whole rows; weights are finite, importance (or NULL) finite and not negative. Returns QC_OK or QC_OVERFLOW. */
typedef int32_t (*qc_encoder)(const float *x, int64_t rows, int64_t columns, const float *importance, uint8_t *out,
                              qc_place *place);
/* Decode `blocks` consecutive blocks. */
typedef void (*qc_decoder)(const uint8_t *in, int64_t blocks, float *out);

/* The bits of all codes of `blocks` blocks become 0. */
typedef void (*qc_clearer)(uint8_t *blocks, int64_t count);
/* Decoded parameters per sub-block: weight = scale * code + minimum; and blocks (codes zero bits) for given ones. */
typedef void (*qc_parameter_reader)(const uint8_t *blocks, int64_t count, float *scale, float *minimum);
typedef void (*qc_parameter_writer)(const float *scale, const float *minimum, int64_t count, uint8_t *blocks);

typedef struct {
    int32_t block, bytes; /* weights and bytes of a block; 0 where there is no such type */
    qc_decoder decode;
    qc_encoder plain[QC_SEARCHES];    /* without importance, by search */
    qc_encoder weighted[QC_SEARCHES]; /* with importance */
    /* the steps of an encoder */
    qc_clearer clear;
    qc_encoder assign; /* codes into blocks that hold parameters */
    qc_parameter_reader parameters;
    qc_parameter_writer set_parameters;
} qc_type;

/* The kernels of one instruction set, by type. */
typedef const qc_type qc_backend[QC_TYPES];

extern qc_backend qc_backend_scalar, qc_backend_emu16;
#if defined(__x86_64__)
extern qc_backend qc_backend_avx2, qc_backend_avx512;
#elif defined(__aarch64__)
extern qc_backend qc_backend_neon;
#endif
#endif
