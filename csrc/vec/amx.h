/* amx.h - Intel's matrix registers: eight of up to 16 rows of 64 bytes, and their products.
 *
 * A file that includes this must be compiled with AMX_TILE, AMX_INT8 and AMX_BF16 (scripts/build_kernels.py), or define
 * QC_AMX_EMULATED before: the same in plain C, slowly, for tests on other processors. Numbers of registers are digits.
 *
 *   amx_shape            what the registers hold; palette 1 has eight of them
 *   amx_configure        a thread's registers become zeros of these shapes
 *   amx_release          their contents are lost; the system need not keep them
 *   AMX_ZERO(c)
 *   AMX_LOAD(a, from, stride), AMX_STORE(c, to, stride)      rows that lie `stride` bytes apart
 *   AMX_DOT_BYTES(c, a, b)    c, int32 [M][N], += a, int8 [M][K], times b, int8 [K / 4][N][4]
 *   AMX_DOT_PAIRS(c, a, b)    c, float [M][N], += a, bf16 [M][K], times b, bf16 [K / 2][N][2]; denormals are zeros */
#ifndef QC_VEC_AMX_H
#define QC_VEC_AMX_H
#include <stdint.h>

enum { AMX_ROWS = 16, AMX_ROW_BYTES = 64 };

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_shape;
_Static_assert(sizeof(amx_shape) == 64, "as the processor reads it");

#ifndef QC_AMX_EMULATED
#define AMX_ASM(text, ...) __asm__ volatile(text::__VA_ARGS__ : "memory")
#define amx_configure(shape) AMX_ASM("ldtilecfg %0", "m"(*(shape)))
#define amx_release() AMX_ASM("tilerelease", "r"(0))
#define AMX_ZERO(c) AMX_ASM("tilezero %%tmm" #c, "r"(0))
#define AMX_LOAD(a, from, stride)                                                                                      \
    AMX_ASM("tileloadd (%0,%1,1), %%tmm" #a, "r"((const void *)(from)), "r"((int64_t)(stride)))
#define AMX_STORE(c, to, stride) AMX_ASM("tilestored %%tmm" #c ", (%0,%1,1)", "r"((void *)(to)), "r"((int64_t)(stride)))
#define AMX_DOT_BYTES(c, a, b) AMX_ASM("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c, "r"(0))
#define AMX_DOT_PAIRS(c, a, b) AMX_ASM("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c, "r"(0))

#else
#include <string.h>

static _Thread_local struct {
    amx_shape shape;
    uint8_t row[8][AMX_ROWS][AMX_ROW_BYTES];
} amx_state;

static void amx_configure(const amx_shape *shape) {
    memset(&amx_state, 0, sizeof amx_state);
    amx_state.shape = *shape;
}
static void amx_release(void) { memset(&amx_state, 0xff, sizeof amx_state); /* use without a shape shows */ }
static void amx_zero(int c) { memset(amx_state.row[c], 0, sizeof amx_state.row[c]); }
static void amx_load(int a, const void *from, int64_t stride) {
    amx_zero(a);
    for (int i = 0; i < amx_state.shape.rows[a]; ++i)
        memcpy(amx_state.row[a][i], (const uint8_t *)from + i * stride, amx_state.shape.row_bytes[a]);
}
static void amx_store(int c, void *to, int64_t stride) {
    for (int i = 0; i < amx_state.shape.rows[c]; ++i)
        memcpy((uint8_t *)to + i * stride, amx_state.row[c][i], amx_state.shape.row_bytes[c]);
}
static void amx_dot_bytes(int c, int a, int b) {
    const amx_shape *s = &amx_state.shape;
    for (int m = 0; m < s->rows[c]; ++m)
        for (int k = 0; k < s->row_bytes[a] / 4; ++k)
            for (int n = 0; n < s->row_bytes[c] / 4; ++n) {
                const int8_t *x = (const int8_t *)amx_state.row[a][m] + 4 * k;
                const int8_t *w = (const int8_t *)amx_state.row[b][k] + 4 * n;
                int32_t sum;
                memcpy(&sum, amx_state.row[c][m] + 4 * n, 4);
                for (int i = 0; i < 4; ++i) sum += x[i] * w[i];
                memcpy(amx_state.row[c][m] + 4 * n, &sum, 4);
            }
}
static float amx_bf16(const uint8_t *p) {
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    if (!(bits & 0x7f800000)) bits &= 0x80000000;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static void amx_dot_pairs(int c, int a, int b) {
    const amx_shape *s = &amx_state.shape;
    for (int m = 0; m < s->rows[c]; ++m)
        for (int k = 0; k < s->row_bytes[a] / 4; ++k)
            for (int n = 0; n < s->row_bytes[c] / 4; ++n) {
                float sum;
                memcpy(&sum, amx_state.row[c][m] + 4 * n, 4);
                for (int i = 0; i < 4; i += 2)
                    sum += amx_bf16(amx_state.row[a][m] + 4 * k + i) * amx_bf16(amx_state.row[b][k] + 4 * n + i);
                memcpy(amx_state.row[c][m] + 4 * n, &sum, 4);
            }
}
#define AMX_ZERO(c) amx_zero(c)
#define AMX_LOAD(a, from, stride) amx_load(a, from, stride)
#define AMX_STORE(c, to, stride) amx_store(c, to, stride)
#define AMX_DOT_BYTES(c, a, b) amx_dot_bytes(c, a, b)
#define AMX_DOT_PAIRS(c, a, b) amx_dot_pairs(c, a, b)
#endif
#endif
