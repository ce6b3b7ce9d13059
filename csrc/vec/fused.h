/* fused.h - included after a vector header by the bodies whose sums are long products: the one fused operation.
 *
 *   vfused(a, b, c)           a * b + c with one rounding, on every instruction set
 *   VREGISTERS                vector registers, for the size of tiles
 *
 * Needs -mfma beside the flags of the vector header; without vectors it is the C library's fmaf, which is exact. */
#ifndef QC_VEC_FUSED_H
#define QC_VEC_FUSED_H
#include <math.h>

#if VW == 8
#define VREGISTERS 16
VINLINE vf vfused(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
#elif VW == 16 && defined(__AVX512F__)
#define VREGISTERS 32
VINLINE vf vfused(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
#elif VW == 16
#define VREGISTERS 16
VINLINE vf vfused(vf a, vf b, vf c) {
    for (int i = 0; i < VW; ++i) a[i] = fmaf(a[i], b[i], c[i]);
    return a;
}
#elif VW == 4
#define VREGISTERS 32
VINLINE vf vfused(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
#else
#define VREGISTERS 16
VINLINE vf vfused(vf a, vf b, vf c) { return fmaf(a, b, c); }
#endif
#endif
