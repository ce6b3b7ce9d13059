/* runner_scalar.h - the vector operations that the runner's bodies are written over, here in portable C with four
 * lanes.
 *
 * The same names exist in runner_{scalar,avx2,avx512,neon,dotprod}.h; a backend includes exactly one of them. All but
 * this one begin with the encoders' header of their instruction set: see scalar.h for VW, vf, vi, vload, vset, vsel,
 * ... Here are the operations that only the runner needs. Nothing is fused but vfma, and that only where the set has
 * it.
 *
 *   QC_RUNNER_NAME            "scalar", "avx2", ...
 *   vd                        VW doubles (from vf: __builtin_convertvector)
 * Floats
 *   vzero()                   0 in every lane
 *   vfma(a, b, c)             a * b + c, with one rounding or two
 *   vsum(a)                   sum of the lanes: halves are added until one lane is left
 *   vsum_each(sums)           lane l: vsum(sums[l])
 *   vhighest(a)               the largest lane
 *   vload_half(p) vload_bf16(p)   VW values of 16 bits as floats
 *   turn_words(in, k, out)    out[i * 16 + l] = in[l][k + i], i < TURNED, l < 16: words side by side
 * Products of a tile (weights: per lane four codes, or two words, of the same columns; activations: the same in every
 * lane) FLOAT_TOKENS              tokens that meet a tile of floats at a time: as many as the registers hold sums of
 *   FLOAT_TILES               2: two tiles of floats meet half as many tokens
 *   INTEGER_TOKENS, ACROSS    tokens and vectors of rows that meet at a time in a tile of integers
 *   VALUE_VECTORS             vectors of values that attention sums at a time
 *   vquads                    the integers of one vector of weights or activations
 *   quads_load(p)  quads_of(p)   from memory; the 4 bytes at p in every lane
 *   NARROW_SPAN               largest code that dot_u8s8 takes
 *   dot_steps(low, span)      how many dot_u8s8 one partial sum takes for codes of 0 .. span that stand for low and
 * more start_quads, starts_of    see `starts` in backend.h (runner_common.h has those of sums of 32 bits) vpartial,
 * dot_begin(start)   a partial sum that begins at a start, the same in every lane, or at 0 dot_u8s8(partial, w, x)   +=
 * sum over the lane's four of w (0 .. NARROW_SPAN) * x (-127 .. 127) dot_end(partial)          the sum that the partial
 * sum gathered IN_ORDER(v)               v is ready before anything behind this begins (where registers are few; else
 * nothing) madd_s16(sum, w, x)       += sum over the lane's two words of w * x Products of one row (count: 16 or 32;
 * sums of products over the lanes in any way) row_u8s8(u, q, count, span), row_u8s16(u, q, count) Codes, STEP at a
 * time: one or two units of 32 columns vcodes                    STEP uint8; operators + - & | ^ are those of bytes
 *   codes_load(p, stride)     unit j: 32 bytes at p + j * stride
 *   codes_store(p, v)         codes_of(value)
 *   field(v, from, step, mask)     unit j: v >> (from + j * step) & mask
 *   moved(v, from, step, mask, to) the same << to
 *   nibbles(p, stride)        unit j: the low, then the high nibbles of 16 bytes at p + j * stride
 *   lookup(table, v)          table[v], v < 16, of bytes
 *   bit_codes(p, stride, value)    unit j: value where the bit of the 32 bits at p + j * stride is set, else 0
 *   points_8(grid, index) points_4(grid, index)   vectors of 8 (4) bytes, index: 4 (8) per unit
 *   vsigns                    STEP flags;  negated(v, signs): -v where the flag is set
 *   sign_bytes                signs of 64 columns, as 8 bytes: signs_load(p); signs_7(p): seven bits above the ninth of
 * 8 words; signs_28(a, b): four times seven bits in each of two words; the eighth of each makes their number even.
 * signs_of(bytes, half): of the step that begins at 32 * half nine_bits(p, high, index) index[k] = p[k] | bit k of high
 * << 8, k < 16 Scales of a block: up to 16 small integers i8x16                     operators as of bytes;
 * scales_of(value), scales_load(p), scales_pair(low, high): 2 x 8 bytes high_nibbles(v)           of each byte
 *   nibbles_8(p) nibbles_4(p) the low and high nibble of each of 8 (4) bytes
 *   fields_2(bits)            eight fields of two bits
 *   top_nibbles(p, stride)    bits 28 .. 31 of eight words
 *   store_scaled(to, v, d, count)  to[k] = d * v[k], count 8 or 16
 */
#ifndef QC_RUNNER_VEC_H
#define QC_RUNNER_VEC_H
#include <stdint.h>
#include <string.h>
#include <math.h>

#define VW 4
#define QC_RUNNER_NAME "scalar"
#define VINLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(16), may_alias));
typedef int32_t vi __attribute__((vector_size(16), may_alias));
typedef int32_t vm __attribute__((vector_size(16), may_alias)); /* 0 or -1 per lane */

VINLINE vf vload(const float *p) {
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
VINLINE void vstore(float *p, vf a) { memcpy(p, &a, sizeof a); }
VINLINE vf vset(float s) { return (vf){s, s, s, s}; }
VINLINE vi vi_load(const int32_t *p) {
    vi a;
    memcpy(&a, p, sizeof a);
    return a;
}
VINLINE vi vi_set(int32_t s) { return (vi){s, s, s, s}; }
VINLINE vi vi_bits(vf a) { return (vi)a; }
VINLINE vf vf_bits(vi a) { return (vf)a; }
VINLINE vi vi_shl(vi a, int n) { return a << n; }
VINLINE vi vi_sar(vi a, int n) { return a >> n; }
VINLINE vf vi_to_f(vi a) { return __builtin_convertvector(a, vf); }
VINLINE vi vi_keep(vm m, vi a) { return m & a; }
VINLINE vf vsel(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
VINLINE vm vlt(vf a, vf b) { return (vm)(a < b); }
VINLINE vm vgt(vf a, vf b) { return (vm)(a > b); }
VINLINE vm veq(vf a, vf b) { return (vm)(a == b); }
VINLINE vf vmin(vf a, vf b) { return vsel(vlt(a, b), a, b); }
VINLINE vf vmax(vf a, vf b) { return vsel(vgt(a, b), a, b); }
VINLINE vf vabs(vf a) { return (vf)((vi)a & vi_set(0x7fffffff)); }
VINLINE void vtranspose(vf r[VW]) {
    vf t[VW];
    for (int i = 0; i < VW; ++i) t[i] = (vf){r[0][i], r[1][i], r[2][i], r[3][i]};
    for (int i = 0; i < VW; ++i) r[i] = t[i];
}
VINLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
VINLINE vf vload_half(const uint16_t *p) {
    vf out;
    for (int i = 0; i < VW; ++i) {
        uint32_t sign = (uint32_t)(p[i] & 0x8000) << 16, rest = (uint32_t)(p[i] & 0x7fff) << 13, bits;
        float scaled;
        memcpy(&scaled, &rest, 4);
        scaled *= 0x1p112f;
        memcpy(&bits, &scaled, 4);
        bits = sign | (rest >= 0x0f800000u ? rest | 0x70000000u : bits);
        memcpy((char *)&out + 4 * i, &bits, 4);
    }
    return out;
}

/* ---- integers */

enum { FLOAT_TOKENS = 4, FLOAT_TILES = 1, INTEGER_TOKENS = 4, ACROSS = 1, VALUE_VECTORS = 2 };
enum { NARROW_SPAN = 255 };
typedef int32_t vquads __attribute__((vector_size(16), may_alias));
typedef vi vpartial;

VINLINE vquads quads_load(const void *p) { return vi_load(p); }
VINLINE int dot_steps(int low, int span) { return (void)low, (void)span, 8; }
VINLINE vpartial dot_begin(vi start) { return start; }
VINLINE vi dot_end(vpartial partial) { return partial; }
VINLINE vpartial dot_u8s8(vpartial sum, vquads w, vquads x) {
    uint8_t u[16];
    int8_t q[16];
    memcpy(u, &w, 16);
    memcpy(q, &x, 16);
    int32_t s[VW];
    for (int l = 0; l < VW; ++l)
        s[l] = u[4 * l] * q[4 * l] + u[4 * l + 1] * q[4 * l + 1] + u[4 * l + 2] * q[4 * l + 2] +
               u[4 * l + 3] * q[4 * l + 3];
    return sum + vi_load(s);
}
VINLINE vi madd_s16(vi sum, vquads w, vquads x) {
    int16_t a[8], b[8];
    memcpy(a, &w, 16);
    memcpy(b, &x, 16);
    int32_t s[VW];
    for (int l = 0; l < VW; ++l) s[l] = a[2 * l] * b[2 * l] + a[2 * l + 1] * b[2 * l + 1];
    return sum + vi_load(s);
}
VINLINE vi row_u8s8(const uint8_t *u, const int8_t *q, int count, int span) {
    (void)span;
    int32_t sum[VW] = {0};
    for (int i = 0; i < count; ++i) sum[i % VW] += u[i] * q[i];
    return vi_load(sum);
}
VINLINE vi row_u8s16(const uint8_t *u, const int16_t *q, int count) {
    int32_t sum[VW] = {0};
    for (int i = 0; i < count; ++i) sum[i % VW] += u[i] * q[i];
    return vi_load(sum);
}

/* what the compiler keeps in registers of vectors, if any */
#if defined(__x86_64__)
#define PIN(v) __asm__ volatile("" : "+x"(v))
#elif defined(__aarch64__)
#define PIN(v) __asm__ volatile("" : "+w"(v))
#else
#define PIN(v) __asm__ volatile("" : "+m"(v))
#endif
#include "runner_common.h"
#include "runner_portable.h"
#endif
