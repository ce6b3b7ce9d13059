/* quantcli.h - the only header that Python sees (cffi, ABI mode): plain C types, no inclusion but stdint.
 *
 * Types are ggml type ids (see quantcli/ggml/tensor_types.py). Rows are contiguous float32, row-major, `columns` a
 * multiple of the type's block. Every function is reentrant and keeps no state but the tables built at load time;
 * callers thread.
 */
#ifndef QUANTCLI_H
#define QUANTCLI_H
#include <stdint.h>

#define QC_ABI 7
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

/* What a type is (csrc/types.def): weights and bytes of a block; weights that share a scale and a minimum; the lowest
 * and highest code, where weight = scale * code + minimum; whether there are minima. */
typedef struct {
    int32_t block, bytes, sub, low, high, minima;
} qc_layout;

QC_API const qc_layout *qc_type_layout(int32_t type); /* NULL: no such type */

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

/* The steps of which an encoder consists, for methods that do more than a search. Parameters: the scales of blocks and
 * sub-blocks, and minima; codes: everything else. Both are one number per sub-block of a row, [rows][columns / sub],
 * decoded: weight = scale * code + minimum. (Of codebook types and of types with uneven levels, codes are levels as
 * integers: the scale is that fraction of the one stored.) */
QC_API int32_t qc_can_fit(int32_t type); /* fit, assign and parameters; 1 or 0 */
QC_API int32_t qc_can_set_parameters(int32_t type);

/* Blocks with the parameters that qc_encode finds, all codes zero bits. */
QC_API int32_t qc_fit(int32_t isa, int32_t type, int32_t search, const float *x, int64_t rows, int64_t columns,
                      const float *importance, uint8_t *out, qc_place *place);

/* Put the codes of `rows` x `columns` weights into blocks that hold parameters (their old codes do not matter): the
 * value nearest to the weight, of two equally near ones that of the lower code (a scale of 0: the lowest one). Codebook
 * types: of the grid points around the weights that of the least squared error, weighted by the importance (NULL:
 * alike). QC_BAD_BLOCK where a scale in `blocks` is not finite. */
QC_API int32_t qc_assign(int32_t isa, int32_t type, const float *x, int64_t rows, int64_t columns,
                         const float *importance, uint8_t *blocks, qc_place *place);

/* The parameters of blocks; minima of a type that has none are 0. */
QC_API int32_t qc_parameters(int32_t isa, int32_t type, const uint8_t *blocks, int64_t rows, int64_t columns,
                             float *scale, float *minimum);

/* Blocks with the nearest parameters that the type can store (steps_parameters.inc says how), all codes zero bits.
 * minimum: NULL, or ignored, where the type has none. A K type with minima stores scales of one sign and minima of one
 * sign. QC_NON_FINITE and QC_OVERFLOW with the place of the first weight of the sub-block or block. */
QC_API int32_t qc_set_parameters(int32_t isa, int32_t type, const float *scale, const float *minimum, int64_t rows,
                                 int64_t columns, uint8_t *blocks, qc_place *place);

/* A metric of a matrix's inputs, all floats finite, matrices [columns][columns] in row order: an error e of a row costs
 * e H e^T. order: the columns from the one that is coded first, in runs of `together`. permuted: H with rows and
 * columns in that order = (I + A) D (I + A)^T, D of blocks [together][together] on the diagonal (pivots), A above them;
 * factor: A transposed. */
typedef struct {
    const float *hessian, *permuted, *factor, *pivots;
    const int32_t *order;
    int32_t together;
} qc_metric;

/* What is done: GPTQ first (0: polish the given codes); one polish; rounds of a refit of the scales and some polishes.
 * guard: rows whose loss did not fall keep the given blocks. recode: a refit also looks for scales with codes of their
 * own (not of codebook and ternary types). */
typedef struct {
    int32_t gptq, polish, rounds, sweeps, guard, recode;
} qc_effort;

QC_API int32_t qc_columns_together(int32_t type); /* that are coded together: 1 or 8; 0: cannot be compensated */

/* Better codes and parameters of `rows` x `columns` weights for the metric into blocks that hold some (encoded from the
 * same weights, best with the importance diag(H)). The metric must be of the columns that the type codes together.
 * kept: how many rows keep the given blocks. losses: NULL, or what each row costs now, the same on every machine. Rows
 * are independent. */
QC_API int32_t qc_compensate(int32_t isa, int32_t type, const float *target, int64_t rows, int64_t columns,
                             const qc_metric *metric, const qc_effort *effort, uint8_t *blocks, int64_t *kept,
                             float *losses, qc_place *place);

#endif
