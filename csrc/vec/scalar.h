/* scalar.h - the vector operations that every kernel body is written over, here with one lane.
 *
 * The same names exist in {scalar,avx2,avx512,neon,emu16}.h; a translation unit includes exactly one of them. All
 * are IEEE float32, one rounding per operation, never fused; compile with -ffp-contract=off.
 *
 *   VW                        number of lanes (scalar 1, neon 4, avx2 8, avx512 and emu16 16)
 *   QC_ISA_NAME               "scalar", "neon", ...
 *   vf, vi, vm                VW floats, VW int32, VW-lane mask (opaque: only the vm operations below)
 *   + - * /  on vf            written with C operators (vector types of gcc and clang); -a negates
 *   + - & | ^ ~  on vi        likewise; also a * b. No shifts by operator: use vi_shl and friends. + and - must not
 * overflow
 *
 * Floats
 *   vload(p) vstore(p, a)     VW floats, any alignment
 *   vset(s)                   the float s in every lane
 *   vmin(a, b) vmax(a, b)     a < b ? a : b and a > b ? a : b (so b if a lane of either is NaN)
 *   vabs(a) vsqrt(a)          sqrt is correctly rounded
 *   vrint(a)                  half to even, exact for |a| <= 2^22; larger values stay larger, NaN stays NaN; the sign
 *                             of a zero result is not defined
 *   vlt vle vgt vge veq vne   -> vm; comparisons with NaN as in C
 *   vsel(m, a, b)             m ? a : b
 *   vgather(p, i)             p[i] per lane, p float table
 *   vlookup8(p, i)            the same for a table of 8, 0 <= i < 8 (a shuffle where there is one)
 *   vlookup4(p, i)            0 <= i < 4; the table has 8, p[i + 4] = p[i]
 *   vlookup32(p, i)           p[i & 31]; where QC_HAS_LOOKUP32 is defined
 * Integers
 *   vi_keep(m, a)             m ? a : 0
 *   vi_increment(a, m)        m ? a + 1 : a
 *   vi_load vi_store vi_set vi_sel vi_gather(p, i) (p int32 table), vi_min vi_max (signed)
 *   vi_shl(a, n) vi_shr(a, n) (zeros come in) vi_sar(a, n) (sign comes in); n a scalar count, same for all lanes
 *   vi_shrv(a, n)             zeros come in, a count per lane (0..31)
 *   vi_minu(a, b)             as unsigned numbers
 *   vi_lt vi_gt vi_eq         -> vm
 *   vi_to_f(a)                exact for |a| <= 2^24
 *   vi_from_f(a)              a must be integral (or will be truncated) and |a| < 2^31
 *   vi_bits(a) vf_bits(i)     reinterpretation
 * Masks
 *   vm_and vm_or vm_not vm_none() vm_all_lanes(); vm_any(m) vm_all(m) -> int; vm_mask(m) -> bit per lane (uint32_t)
 *   vm_first(n)               the lanes below n
 * Layout
 *   vtranspose(r)             r[VW] of vf, in place: lane j of r[i] <-> lane i of r[j]
 *
 * Built from these in common.h, which every header includes at its end:
 *   vload_rows(dst, src, stride, n)       dst[i * VW + lane] = src[lane * stride + i], i < n, n a multiple of 16
 *   vload_rows_ragged(..., lanes)         the same, lanes beyond `lanes` repeat the last one
 *   vstore_words(dst, stride, w, n, lanes) int32 words w[i * VW + lane] -> little-endian bytes dst[lane * stride + 4 i]
 *   vi_half(a)                fp16 bits of a, rounded to nearest even, subnormals kept, overflow to infinity (0x7c00)
 *   vf_half(i)                the float of fp16 bits (finite)
 *   vround_half(a)            vf_half(vi_half(a)) with infinity kept as infinity
 *   vcap(a, s) vfloor0(a) vcup(a, s)   clamps of numbers that are not NaN, through integer units (float min and max
 * share the adders): at most s > 0; at least 0; at least s < 0
 */
#ifndef QC_VEC_H
#define QC_VEC_H
#include <stdint.h>
#include <string.h>
#include <math.h>

#define VW 1
#define QC_ISA_NAME "scalar"
#define VINLINE static inline __attribute__((always_inline, unused))

typedef float vf;
typedef int32_t vi;
typedef int32_t vm; /* 0 or 1 */

VINLINE vf vload(const float *p) { return *p; }
VINLINE void vstore(float *p, vf a) { *p = a; }
VINLINE vf vset(float s) { return s; }
VINLINE vi vi_load(const int32_t *p) { return *p; }
VINLINE void vi_store(int32_t *p, vi a) { *p = a; }
VINLINE vi vi_set(int32_t s) { return s; }
VINLINE vi vi_bits(vf a) {
    vi i;
    memcpy(&i, &a, 4);
    return i;
}
VINLINE vf vf_bits(vi i) {
    vf a;
    memcpy(&a, &i, 4);
    return a;
}

VINLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
VINLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
VINLINE vf vabs(vf a) { return fabsf(a); }
VINLINE vf vsqrt(vf a) { return sqrtf(a); }
VINLINE vf vrint(vf a) { return (a + 12582912.0f) - 12582912.0f; }
VINLINE vm vlt(vf a, vf b) { return a < b; }
VINLINE vm vle(vf a, vf b) { return a <= b; }
VINLINE vm vgt(vf a, vf b) { return a > b; }
VINLINE vm vge(vf a, vf b) { return a >= b; }
VINLINE vm veq(vf a, vf b) { return a == b; }
VINLINE vm vne(vf a, vf b) { return a != b; }
VINLINE vf vsel(vm m, vf a, vf b) { return m ? a : b; }
VINLINE vf vgather(const float *p, vi i) { return p[i]; }

VINLINE vi vi_shl(vi a, int n) { return (vi)((uint32_t)a << n); }
VINLINE vi vi_shr(vi a, int n) { return (vi)((uint32_t)a >> n); }
VINLINE vi vi_sar(vi a, int n) { return a >> n; }
VINLINE vi vi_shrv(vi a, vi n) { return (vi)((uint32_t)a >> n); }
VINLINE vi vi_min(vi a, vi b) { return a < b ? a : b; }
VINLINE vi vi_max(vi a, vi b) { return a > b ? a : b; }
VINLINE vi vi_minu(vi a, vi b) { return (uint32_t)a < (uint32_t)b ? a : b; }
VINLINE vm vi_lt(vi a, vi b) { return a < b; }
VINLINE vm vi_gt(vi a, vi b) { return a > b; }
VINLINE vm vi_eq(vi a, vi b) { return a == b; }
VINLINE vi vi_sel(vm m, vi a, vi b) { return m ? a : b; }
VINLINE vi vi_gather(const int32_t *p, vi i) { return p[i]; }
VINLINE vf vi_to_f(vi a) { return (float)a; }
VINLINE vi vi_from_f(vf a) { return (int32_t)a; }

VINLINE vm vm_and(vm a, vm b) { return a & b; }
VINLINE vm vm_or(vm a, vm b) { return a | b; }
VINLINE vm vm_not(vm a) { return a ^ 1; }
VINLINE vm vm_none(void) { return 0; }
VINLINE vm vm_all_lanes(void) { return 1; }
VINLINE int vm_any(vm m) { return m; }
VINLINE int vm_all(vm m) { return m; }
VINLINE uint32_t vm_mask(vm m) { return (uint32_t)m; }
VINLINE vm vm_first(int n) { return n > 0; }

VINLINE void vtranspose(vf r[VW]) { (void)r; }

#include "common.h"
#endif
