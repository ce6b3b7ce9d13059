/* quantcli.h - the only header that Python sees (cffi, ABI mode): plain C types, no inclusion but stdint.
 *
 * Types are ggml type ids (see quantcli/ggml/tensor_types.py). Rows are contiguous float32, row-major, `columns` a
 * multiple of the type's block. Every function is reentrant and keeps no state but the tables built at load time;
 * callers thread.
 */
#ifndef QUANTCLI_H
#define QUANTCLI_H
#include <stdint.h>

#define QC_ABI 3
#ifndef QC_API
#define QC_API /* the build makes these symbols visible */
#endif

enum { /* status of encode, decode, validate */
       QC_OK = 0,
       QC_NON_FINITE = 1, /* a NaN or infinite weight; place = its row and column; output incomplete */
       QC_OVERFLOW = 2,   /* a scale (or F16 weight) exceeds fp16; place = first such block; output complete */
       QC_NO_KERNEL = 3,  /* no such type, search or instruction set in this build */
       QC_NO_MEMORY = 4,
       QC_BAD_IMPORTANCE = 5, /* NaN, infinite or negative importance; place.column says where */
       QC_BAD_ROUNDING = 6,   /* the caller's thread rounds other than to nearest, or flushes denormals to zero */
       QC_BAD_BLOCK = 7       /* validate: a block whose scale is NaN or infinite; place = its row and column */
};

enum { QC_SEARCH_GGML = 0, QC_SEARCH_BEST = 1 };

typedef struct {
    int64_t row, column;
} qc_place;

QC_API int32_t qc_abi(void);

/* Instruction sets: 0 <= isa < qc_isa_count(). Index 0 is scalar and always supported. The best supported one is
 * qc_isa_best(); the 16-lane body in portable C is "emu16" (never the best; for tests). */
QC_API int32_t qc_isa_count(void);
QC_API const char *qc_isa_name(int32_t isa);
QC_API int32_t qc_isa_supported(int32_t isa);
QC_API int32_t qc_isa_best(void);

/* Weights and bytes of a block; 0: no such type. */
QC_API int32_t qc_type_block(int32_t type);
QC_API int32_t qc_type_bytes(int32_t type);

QC_API int32_t qc_can_encode(int32_t type, int32_t search); /* 1 or 0 */
QC_API int32_t qc_can_decode(int32_t type);

/* Encode `rows` x `columns` float32 to `out`. importance: `columns` floats, or NULL for none. */
QC_API int32_t qc_encode(int32_t isa, int32_t type, int32_t search, const float *x, int64_t rows, int64_t columns,
                         const float *importance, uint8_t *out, qc_place *place);

/* Decode `rows` x `columns` weights to float32 (F16, BF16, F32, F64 and every block type). */
QC_API int32_t qc_decode(int32_t isa, int32_t type, const uint8_t *in, int64_t rows, int64_t columns, float *out);

/* Check that every scale (every weight of a float type) is finite. */
QC_API int32_t qc_validate(int32_t isa, int32_t type, const uint8_t *in, int64_t rows, int64_t columns,
                           qc_place *place);

#endif
