/* dispatch.c - which instruction sets this CPU has, and what every call checks before a kernel runs. */
#include "compensate.h"
#include "packed.h"
#include "table.h"
#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include "processor.h"
#include <xmmintrin.h>
#endif

/* ---- instruction sets */

static int yes(void) { return 1; }
#if defined(__x86_64__)
static int has_avx2(void) { return qc_processor_has(CPU_AVX2); }
static int has_avx512(void) { return qc_processor_has(CPU_AVX512); }
static int made_by_intel(void) { return qc_processor_has(CPU_INTEL); }
#else
static int made_by_intel(void) { return 0; }
#endif

static const struct {
    const char *name;
    int (*supported)(void);
    qc_backend *backend, *narrower; /* the second: whose rows are taken where they are faster (below) */
    qc_compensators *compensators;
    qc_packed_kernels *packed;
    int rank; /* the supported one of the highest rank is the default */
} sets[] = {
    {"scalar", yes, &qc_backend_scalar, &qc_backend_scalar, &qc_compensators_scalar, &qc_packed_scalar, 1},
    {"emu16", yes, &qc_backend_emu16, &qc_backend_emu16, &qc_compensators_emu16, &qc_packed_scalar, 0},
#if defined(__x86_64__)
    {"avx2", has_avx2, &qc_backend_avx2, &qc_backend_avx2, &qc_compensators_avx2, &qc_packed_avx2, 2},
    {"avx512", has_avx512, &qc_backend_avx512, &qc_backend_avx2, &qc_compensators_avx512, &qc_packed_avx2, 3},
#elif defined(__aarch64__)
    {"neon", yes, &qc_backend_neon, &qc_backend_neon, &qc_compensators_neon, &qc_packed_scalar, 2},
#endif
};
enum { SETS = sizeof sets / sizeof sets[0] };

int32_t qc_abi(void) { return QC_ABI; }
int32_t qc_isa_count(void) { return SETS; }
const char *qc_isa_name(int32_t isa) { return isa >= 0 && isa < SETS ? sets[isa].name : ""; }
int32_t qc_isa_supported(int32_t isa) { return isa >= 0 && isa < SETS && sets[isa].supported(); }

int32_t qc_isa_best(void) {
    int32_t best = 0;
    for (int32_t isa = 0; isa < SETS; ++isa)
        if (sets[isa].rank > sets[best].rank && sets[isa].supported()) best = isa;
    return best;
}

/* Rows of a type in which the narrower set was faster, measured by csrc/tests/bench_sets.c: ggml's searches of the
 * codebooks have eight lanes by nature; the encoders without a search are plain loops over short blocks, which
 * compilers cut into pieces of 512 bits (Zen 4: 1.12 to 1.28 times as long); and so are some decoders, which on
 * Sapphire Rapids then take 1.07 to 1.18 times as long. */
enum {
    ROWS_GGML = 1 << QC_SEARCH_GGML,
    ROWS_BEST = 1 << QC_SEARCH_BEST,
    ROWS_ENCODE = ROWS_GGML | ROWS_BEST,
    ROWS_DECODE = 1 << QC_SEARCHES
};
static const uint8_t narrower_rows[QC_TYPES] = {
    [QC_F16] = ROWS_DECODE,
    [QC_IQ1_S] = ROWS_GGML,
    [QC_IQ1_M] = ROWS_GGML,
    [QC_IQ2_XXS] = ROWS_GGML,
    [QC_IQ2_XS] = ROWS_GGML,
    [QC_IQ2_S] = ROWS_GGML,
    [QC_IQ3_XXS] = ROWS_GGML,
    [QC_IQ3_S] = ROWS_GGML,
    [QC_TQ1_0] = ROWS_ENCODE | ROWS_DECODE,
    [QC_TQ2_0] = ROWS_ENCODE,
    [QC_Q1_0] = ROWS_ENCODE,
    [QC_Q2_0] = ROWS_ENCODE,
    [QC_MXFP4] = ROWS_GGML,
    [QC_NVFP4] = ROWS_GGML | ROWS_DECODE,
    [QC_Q2_K] = ROWS_DECODE,
    [QC_Q5_K] = ROWS_DECODE,
};
/* On Intel's besides: with 512 bits IQ1 takes 1.02 to 1.18 times as long on Sapphire Rapids, 0.9 on Zen 4. */
static const uint8_t narrower_rows_of_intel[QC_TYPES] = {[QC_IQ1_S] = ROWS_BEST, [QC_IQ1_M] = ROWS_BEST};

/* `row`: the bit of a search or of decoding, or 0 for everything else. */
static const qc_type *find_row(int32_t isa, int32_t type, int row) {
    if (!qc_isa_supported(isa) || type < 0 || type >= QC_TYPES) return 0;
    const int rows = narrower_rows[type] | (made_by_intel() ? narrower_rows_of_intel[type] : 0);
    qc_backend *backend = rows & row ? sets[isa].narrower : sets[isa].backend;
    const qc_type *found = &(*backend)[type];
    return found->block ? found : 0;
}
/* Everything but encoders and decoders of rows. */
static const qc_type *find_type(int32_t isa, int32_t type) { return find_row(isa, type, 0); }
static const qc_type *find_decoder(int32_t isa, int32_t type) { return find_row(isa, type, ROWS_DECODE); }
static const qc_type *find_encoder(int32_t isa, int32_t type, int32_t search) {
    return search >= 0 && search < QC_SEARCHES ? find_row(isa, type, 1 << search) : 0;
}

/* Whole blocks, and a number of weights that an integer can count. */
static int whole_rows(const qc_type *found, int64_t rows, int64_t columns) {
    return rows >= 0 && columns >= 0 && columns % found->block == 0 &&
           (columns == 0 || rows <= INT64_MAX / 8 / columns);
}

static const qc_layout layouts[QC_TYPES] = {
#define QC_TYPE(NAME, name, id, block, bytes, sub, low, high, minima, ...)                                             \
    [QC_##NAME] = {block, bytes, sub, low, high, minima},
#include "types.def"
};

const qc_layout *qc_type_layout(int32_t type) { return find_type(0, type) ? &layouts[type] : 0; }

int32_t qc_can_decode(int32_t type) {
    const qc_type *found = find_type(0, type);
    return found && found->decode;
}

int32_t qc_can_encode(int32_t type, int32_t search) {
    const qc_type *found = find_type(0, type);
    return found && search >= 0 && search < QC_SEARCHES && found->plain[search] && found->weighted[search];
}

/* ---- checks */

#if defined(__clang__)
#define QC_UNROLL_4 _Pragma("unroll 4")
#else
#define QC_UNROLL_4 _Pragma("GCC unroll 4")
#endif

/* Round to nearest, denormals kept: anything else would change bytes silently. */
static int strict_rounding(void) {
#if defined(__x86_64__)
    return (_mm_getcsr() & 0xe040) == 0; /* rounding mode, flush to zero, denormals are zero */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return (fpcr & (UINT64_C(7) << 22)) == 0; /* rounding mode, flush to zero */
#else
    return 1;
#endif
}

/* Index of the first value that is NaN or infinite (or, with `negative`, below zero); -1 if there is none. Inlined
 * where `negative` is known: the loop is one instruction a value longer with it. */
static inline __attribute__((always_inline)) int64_t first_bad(const float *x, int64_t count, int negative) {
    enum { CHUNK = 1024 };
    for (int64_t start = 0; start < count; start += CHUNK) {
        int64_t stop = count - start < CHUNK ? count : start + CHUNK;
        int32_t any = 0; /* signed comparisons: SSE2 has no others */
        QC_UNROLL_4
        for (int64_t i = start; i < stop; ++i) {
            int32_t u;
            memcpy(&u, x + i, 4);
            any |= -((u & 0x7fffffff) > 0x7f7fffff) | (u & -negative);
        }
        if (any >= 0) continue;
        for (int64_t i = start; i < stop; ++i) {
            int32_t u;
            memcpy(&u, x + i, 4);
            if ((u & 0x7fffffff) > 0x7f7fffff || (negative && u < 0 && u != INT32_MIN)) return i; /* -0 is fine */
        }
    }
    return -1;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int64_t first_not_finite_avx2(const float *x, int64_t count) {
    return first_bad(x, count, 0);
}
#endif
static int64_t first_not_finite(const float *x, int64_t count) {
#if defined(__x86_64__)
    if (has_avx2()) return first_not_finite_avx2(x, count); /* of the fastest encoders this is a twentieth else */
#endif
    return first_bad(x, count, 0);
}
static int64_t first_bad_importance(const float *q, int64_t count) { return first_bad(q, count, 1); }

/* What every call with weights checks before it runs. */
static int32_t check_weights(const float *x, int64_t rows, int64_t columns, const float *importance, qc_place *place) {
    if (!strict_rounding()) return QC_BAD_ROUNDING;
    int64_t bad = first_not_finite(x, rows * columns);
    if (bad >= 0) {
        *place = (qc_place){bad / columns, bad % columns};
        return QC_NON_FINITE;
    }
    if (importance && (bad = first_bad_importance(importance, columns)) >= 0) {
        *place = (qc_place){0, bad};
        return QC_BAD_IMPORTANCE;
    }
    return QC_OK;
}

int32_t qc_encode(int32_t isa, int32_t type, int32_t search, const float *x, int64_t rows, int64_t columns,
                  const float *importance, uint8_t *out, qc_place *place) {
    const qc_type *found = find_encoder(isa, type, search);
    if (!found || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    qc_encoder encode = importance ? found->weighted[search] : found->plain[search];
    if (!encode) return QC_NO_KERNEL;
    if (rows == 0 || columns == 0) return QC_OK;
    int32_t status = check_weights(x, rows, columns, importance, place);
    return status == QC_OK ? encode(x, rows, columns, importance, out, place) : status;
}

int32_t qc_decode(int32_t isa, int32_t type, const uint8_t *in, int64_t rows, int64_t columns, float *out) {
    const qc_type *found = find_decoder(isa, type);
    if (!found || !found->decode || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    if (!strict_rounding()) return QC_BAD_ROUNDING;
    found->decode(in, rows * columns / found->block, out);
    return QC_OK;
}

/* ---- validation: where the scales of a block lie */

enum { HALF = 1, SINGLE, DOUBLE, BRAIN, EXPONENT, SCATTERED, ALWAYS };

static const struct {
    uint8_t kind, count;
    uint16_t at[2];
} scale_fields[QC_TYPES] = {
#define QC_TYPE(NAME, name, id, block, bytes, sub, low, high, minima, scale, first, second)                            \
    [QC_##NAME] = {scale,                                                                                              \
                   1 + (offsetof(qc_block_##name, first) != offsetof(qc_block_##name, second)),                        \
                   {offsetof(qc_block_##name, first), offsetof(qc_block_##name, second)}},
#include "types.def"
};

static int bad_scale(int kind, const uint8_t *p) {
    uint64_t v = 0;
    switch (kind) {
    case HALF: memcpy(&v, p, 2); return (v & 0x7c00) == 0x7c00;
    case BRAIN: memcpy(&v, p, 2); return (v & 0x7f80) == 0x7f80;
    case SINGLE: memcpy(&v, p, 4); return (v & 0x7f800000) == 0x7f800000;
    case DOUBLE: memcpy(&v, p, 8); return (v & 0x7ff0000000000000) == 0x7ff0000000000000;
    case EXPONENT: return *p == 255;
    case SCATTERED: return (p[7] & 0x70) == 0x70 && (p[5] & 0xc0) == 0xc0; /* IQ1_M: four nibbles of four words */
    default: return 0;
    }
}

/* How many of the first 16-bit floats are finite, counted in whole chunks: without a branch per weight. */
static int64_t finite_ahead(const uint8_t *in, int64_t count, uint16_t exponent) {
    enum { CHUNK = 4096 };
    int64_t start = 0;
    for (; start + CHUNK <= count; start += CHUNK) {
        uint16_t bad = 0;
        for (int64_t i = start; i < start + CHUNK; ++i) {
            uint16_t v;
            memcpy(&v, in + 2 * i, 2);
            bad |= (uint16_t)((v & exponent) == exponent);
        }
        if (bad) break;
    }
    return start;
}

int32_t qc_validate(int32_t isa, int32_t type, const uint8_t *in, int64_t rows, int64_t columns, qc_place *place) {
    const qc_type *found = find_type(isa, type);
    if (!found || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    int64_t blocks = rows * columns / found->block;
    int kind = scale_fields[type].kind;
    int64_t first = type == QC_F16 || type == QC_BF16 ? finite_ahead(in, blocks, type == QC_F16 ? 0x7c00 : 0x7f80) : 0;
    for (int64_t i = first; i < blocks; ++i)
        for (int f = 0; f < scale_fields[type].count; ++f)
            if (bad_scale(kind, in + i * found->bytes + scale_fields[type].at[f])) {
                int64_t weight = i * found->block;
                *place = (qc_place){weight / columns, weight % columns};
                return QC_BAD_BLOCK;
            }
    return QC_OK;
}

/* ---- the steps of an encoder */

int32_t qc_can_fit(int32_t type) {
    const qc_type *found = find_type(0, type);
    return found && found->assign;
}

int32_t qc_can_set_parameters(int32_t type) {
    const qc_type *found = find_type(0, type);
    return found && found->set_parameters;
}

int32_t qc_fit(int32_t isa, int32_t type, int32_t search, const float *x, int64_t rows, int64_t columns,
               const float *importance, uint8_t *out, qc_place *place) {
    const qc_type *found = find_type(isa, type);
    if (!found || !found->clear) return QC_NO_KERNEL;
    int32_t status = qc_encode(isa, type, search, x, rows, columns, importance, out, place);
    if (status == QC_OK || status == QC_OVERFLOW) found->clear(out, rows * columns / found->block);
    return status;
}

int32_t qc_assign(int32_t isa, int32_t type, const float *x, int64_t rows, int64_t columns, const float *importance,
                  uint8_t *blocks, qc_place *place) {
    const qc_type *found = find_type(isa, type);
    if (!found || !found->assign || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    if (rows == 0 || columns == 0) return QC_OK;
    int32_t status = check_weights(x, rows, columns, importance, place);
    if (status == QC_OK) status = qc_validate(isa, type, blocks, rows, columns, place);
    return status == QC_OK ? found->assign(x, rows, columns, importance, blocks, place) : status;
}

int32_t qc_parameters(int32_t isa, int32_t type, const uint8_t *blocks, int64_t rows, int64_t columns, float *scale,
                      float *minimum) {
    const qc_type *found = find_type(isa, type);
    if (!found || !found->parameters || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    if (!strict_rounding()) return QC_BAD_ROUNDING;
    found->parameters(blocks, rows * columns / found->block, scale, minimum);
    return QC_OK;
}

int32_t qc_set_parameters(int32_t isa, int32_t type, const float *scale, const float *minimum, int64_t rows,
                          int64_t columns, uint8_t *blocks, qc_place *place) {
    const qc_type *found = find_type(isa, type);
    if (!found || !found->set_parameters || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    if (layouts[type].minima && !minimum) return QC_NO_KERNEL;
    if (!strict_rounding()) return QC_BAD_ROUNDING;
    int64_t sub = layouts[type].sub, count = rows * columns / sub, bad = first_not_finite(scale, count);
    if (bad < 0 && layouts[type].minima) bad = first_not_finite(minimum, count);
    if (bad >= 0) {
        *place = (qc_place){bad * sub / columns, bad * sub % columns};
        return QC_NON_FINITE;
    }
    found->set_parameters(scale, minimum, rows * columns / found->block, blocks);
    return qc_validate(isa, type, blocks, rows, columns, place) == QC_OK ? QC_OK : QC_OVERFLOW;
}

int32_t qc_columns_together(int32_t type) { return find_type(0, type) ? (*sets[0].compensators)[type].together : 0; }

int32_t qc_compensate(int32_t isa, int32_t type, const float *target, int64_t rows, int64_t columns,
                      const qc_metric *metric, const qc_effort *effort, uint8_t *blocks, int64_t *kept, float *losses,
                      qc_place *place) {
    const qc_type *found = find_type(isa, type);
    *kept = 0;
    if (!found || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    qc_compensator compensate = (*sets[isa].compensators)[type].compensate;
    if (!compensate || metric->together != (*sets[isa].compensators)[type].together) return QC_NO_KERNEL;
    if (rows == 0 || columns == 0) return QC_OK;
    int32_t status = check_weights(target, rows, columns, 0, place);
    if (status == QC_OK) status = qc_validate(isa, type, blocks, rows, columns, place);
    return status == QC_OK ? compensate(target, rows, columns, metric, effort, blocks, kept, losses) : status;
}

/* ---- packed checkpoints */

int32_t qc_unpack(int32_t isa, const qc_packed *p, float *out) {
    if (!qc_isa_supported(isa) || p->packing < 0 || p->packing >= QC_PACKINGS) return QC_NO_KERNEL;
    if (!strict_rounding()) return QC_BAD_ROUNDING;
    if (p->rows > 0 && p->columns > 0) sets[isa].packed->unpack[p->packing](p, out);
    return QC_OK;
}

int32_t qc_turn_words(int32_t isa, const uint32_t *words, int64_t rows, int64_t columns, uint32_t *out) {
    if (!qc_isa_supported(isa)) return QC_NO_KERNEL;
    sets[isa].packed->turn_words(words, rows, columns, out);
    return QC_OK;
}
int32_t qc_turn_nibbles(int32_t isa, const uint32_t *words, int64_t rows, int64_t columns, uint32_t *out) {
    if (!qc_isa_supported(isa)) return QC_NO_KERNEL;
    sets[isa].packed->turn_nibbles(words, rows, columns, out);
    return QC_OK;
}

int32_t qc_can_snap(int32_t type) { return find_type(0, type) && sets[0].packed->snap[type] != 0; }

int32_t qc_snap(int32_t isa, int32_t type, const float *x, int64_t rows, int64_t columns, int32_t encoded,
                uint8_t *blocks, uint8_t *carried, qc_place *place) {
    const qc_type *found = find_type(isa, type);
    if (!found || !sets[isa].packed->snap[type] || !whole_rows(found, rows, columns)) return QC_NO_KERNEL;
    int32_t status = check_weights(x, rows, columns, 0, place);
    if (status != QC_OK) return status;
    const qc_packed_kernels *kernels = sets[isa].packed;
    const int64_t per_row = columns / found->block;
    float decoded[QC_LARGEST_BLOCK];
    for (int64_t i = 0; i < rows; ++i) {
        float hint[2] = {0.0f, 0.0f}; /* of this row alone: slabs do not change a byte */
        const float *row = x;
        int precision = -1; /* not known yet */
        for (int64_t b = 0; b < per_row; ++b, x += found->block, blocks += found->bytes, ++carried) {
            if (encoded) {
                found->decode(blocks, 1, decoded);
                *carried = 2;
                if (!memcmp(decoded, x, (size_t)found->block * sizeof *x)) continue;
            }
            if (precision < 0) precision = kernels->precision(row, columns);
            *carried = encoded ? (uint8_t)kernels->compare(decoded, x, found->block, precision) : 0;
            if (!*carried) *carried = (uint8_t)kernels->snap[type](x, precision, blocks, hint);
        }
    }
    return QC_OK;
}
