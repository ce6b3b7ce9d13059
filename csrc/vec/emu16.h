/* emu16.h - sixteen lanes in portable C (vector types of gcc and clang), so that the wide bodies are tested on
 * machines without AVX-512; see scalar.h for the operations. */
#ifndef QC_VEC_H
#define QC_VEC_H
#include <stdint.h>
#include <string.h>
#include <math.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* every operation is inlined: no wide vector crosses a call */
#endif

#define VW 16
#define QC_ISA_NAME "emu16"
#define VINLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(64), may_alias));
typedef int32_t vi __attribute__((vector_size(64), may_alias));
typedef int32_t vm __attribute__((vector_size(64), may_alias)); /* 0 or -1 per lane */
typedef uint32_t qc_vu __attribute__((vector_size(64), may_alias));

VINLINE vf vload(const float *p) {
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
VINLINE void vstore(float *p, vf a) { memcpy(p, &a, sizeof a); }
VINLINE vf vset(float s) { return (vf){s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s}; }
VINLINE vi vi_load(const int32_t *p) {
    vi a;
    memcpy(&a, p, sizeof a);
    return a;
}
VINLINE void vi_store(int32_t *p, vi a) { memcpy(p, &a, sizeof a); }
VINLINE vi vi_set(int32_t s) { return (vi){s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s}; }
VINLINE vi vi_bits(vf a) { return (vi)a; }
VINLINE vf vf_bits(vi i) { return (vf)i; }

VINLINE vi vi_sel(vm m, vi a, vi b) { return (m & a) | (~m & b); }
VINLINE vf vsel(vm m, vf a, vf b) { return (vf)vi_sel(m, (vi)a, (vi)b); }
VINLINE vm vlt(vf a, vf b) { return (vm)(a < b); }
VINLINE vm vle(vf a, vf b) { return (vm)(a <= b); }
VINLINE vm vgt(vf a, vf b) { return (vm)(a > b); }
VINLINE vm vge(vf a, vf b) { return (vm)(a >= b); }
VINLINE vm veq(vf a, vf b) { return (vm)(a == b); }
VINLINE vm vne(vf a, vf b) { return (vm)(a != b); }
VINLINE vf vmin(vf a, vf b) { return vsel(vlt(a, b), a, b); }
VINLINE vf vmax(vf a, vf b) { return vsel(vgt(a, b), a, b); }
VINLINE vf vabs(vf a) { return (vf)((vi)a & vi_set(0x7fffffff)); }
VINLINE vf vsqrt(vf a) {
    for (int i = 0; i < VW; ++i) a[i] = sqrtf(a[i]);
    return a;
}
VINLINE vf vrint(vf a) { return (a + vset(12582912.0f)) - vset(12582912.0f); }
VINLINE vf vgather(const float *p, vi i) {
    vf a = vset(0.0f);
    for (int k = 0; k < VW; ++k) a[k] = p[i[k]];
    return a;
}

VINLINE vi vi_shl(vi a, int n) { return (vi)((qc_vu)a << (qc_vu)vi_set(n)); }
VINLINE vi vi_shr(vi a, int n) { return (vi)((qc_vu)a >> (qc_vu)vi_set(n)); }
VINLINE vi vi_sar(vi a, int n) { return a >> vi_set(n); }
VINLINE vi vi_shrv(vi a, vi n) { return (vi)((qc_vu)a >> (qc_vu)n); }
VINLINE vm vi_lt(vi a, vi b) { return (vm)(a < b); }
VINLINE vm vi_gt(vi a, vi b) { return (vm)(a > b); }
VINLINE vm vi_eq(vi a, vi b) { return (vm)(a == b); }
VINLINE vi vi_min(vi a, vi b) { return vi_sel(vi_lt(a, b), a, b); }
VINLINE vi vi_max(vi a, vi b) { return vi_sel(vi_gt(a, b), a, b); }
VINLINE vi vi_minu(vi a, vi b) { return vi_sel((vm)((qc_vu)a < (qc_vu)b), a, b); }
VINLINE vi vi_gather(const int32_t *p, vi i) {
    for (int k = 0; k < VW; ++k) i[k] = p[i[k]];
    return i;
}
VINLINE vf vi_to_f(vi a) { return __builtin_convertvector(a, vf); }
VINLINE vi vi_from_f(vf a) { return __builtin_convertvector(a, vi); }

VINLINE vm vm_and(vm a, vm b) { return a & b; }
VINLINE vm vm_or(vm a, vm b) { return a | b; }
VINLINE vm vm_not(vm a) { return ~a; }
VINLINE vm vm_none(void) { return (vm)vi_set(0); }
VINLINE vm vm_all_lanes(void) { return (vm)vi_set(-1); }
VINLINE uint32_t vm_mask(vm m) {
    uint32_t bits = 0;
    for (int i = 0; i < VW; ++i) bits |= (uint32_t)(m[i] & 1) << i;
    return bits;
}
VINLINE int vm_any(vm m) { return vm_mask(m) != 0; }
VINLINE int vm_all(vm m) { return vm_mask(m) == 0xffff; }
VINLINE vm vm_first(int n) { return vi_lt((vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, vi_set(n)); }

VINLINE void vtranspose(vf r[VW]) {
    for (int i = 0; i < VW; ++i)
        for (int j = 0; j < i; ++j) {
            float t = r[i][j];
            r[i][j] = r[j][i];
            r[j][i] = t;
        }
}

#define QC_HAS_LOOKUP32
VINLINE vf vlookup32(const float *p, vi i) { return vgather(p, i & vi_set(31)); }

#include "common.h"
#endif
