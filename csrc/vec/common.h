/* common.h - operations built from the primitive ones; included at the end of every header here (see scalar.h). */
#ifdef __FAST_MATH__
#error "the kernels need strict IEEE arithmetic: build without -ffast-math"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernels pack blocks on little-endian machines only"
#endif

#ifndef QC_HAS_LOOKUP
VINLINE vf vlookup4(const float *p, vi i) { return vgather(p, i); }
VINLINE vf vlookup8(const float *p, vi i) { return vgather(p, i); }
VINLINE vi vi_keep(vm m, vi a) { return vi_sel(m, a, vi_set(0)); }
VINLINE vi vi_increment(vi a, vm m) { return a + vi_keep(m, vi_set(1)); }
#endif

/* dst[i * VW + lane] = src[lane * stride + i] for i < n; lanes at and beyond `lanes` repeat the last one. */
VINLINE void vload_rows_ragged(float *dst, const float *src, int64_t stride, int n, int lanes) {
    for (int i = 0; i < n; i += VW) {
        vf r[VW];
        for (int j = 0; j < VW; ++j) r[j] = vload(src + (j < lanes ? j : lanes - 1) * stride + i);
        vtranspose(r);
        for (int j = 0; j < VW; ++j) vstore(dst + (i + j) * VW, r[j]);
    }
}

VINLINE void vload_rows(float *dst, const float *src, int64_t stride, int n) {
    vload_rows_ragged(dst, src, stride, n, VW);
}

/* Words w[i * VW + lane], i < n (any n), to dst + lane * stride + 4 * i, for the first `lanes` lanes. */
VINLINE void vstore_words(uint8_t *dst, int64_t stride, const int32_t *w, int n, int lanes) {
    int i = 0;
    for (; i + VW <= n; i += VW) {
        vf r[VW];
        for (int j = 0; j < VW; ++j) r[j] = vf_bits(vi_load(w + (i + j) * VW));
        vtranspose(r);
        for (int j = 0; j < VW; ++j) {
            if (j >= lanes) break;
            memcpy(dst + j * stride + 4 * i, &r[j], sizeof(vf));
        }
    }
    for (int rest = n % VW; rest > 0; --rest, ++i)
        for (int j = 0; j < lanes; ++j) memcpy(dst + j * stride + 4 * i, w + i * VW + j, 4);
}

/* Order of floats as integers: above zero like signed numbers; below zero the greater magnitude is the greater unsigned
 * one. */
VINLINE vf vcap(vf a, float s) { return vf_bits(vi_min(vi_bits(a), vi_bits(vset(s)))); }
VINLINE vf vfloor0(vf a) { return vf_bits(vi_max(vi_bits(a), vi_set(0))); }
VINLINE vf vcup(vf a, float s) { return vf_bits(vi_minu(vi_bits(a), vi_bits(vset(s)))); }

VINLINE vi vi_half(vf a) {
    vi u = vi_bits(a), sign = vi_shr(u, 16) & vi_set(0x8000), m = u & vi_set(0x7fffffff);
    vi odd = vi_shr(m, 13) & vi_set(1);
    /* rebias the exponent and round to nearest even on the 13 bits that go; beyond the largest: infinity */
    vi normal = vi_min(vi_shr(m + vi_set(0x0fff - 0x38000000) + odd, 13), vi_set(0x7c00));
    /* 0.5 has the spacing 2^-24 of subnormal halves: the addition rounds for us */
    vi tiny = vi_bits(vf_bits(m) + vset(0.5f)) - vi_set(0x3f000000);
    return sign | vi_sel(vi_lt(m, vi_set(0x38800000)), tiny, normal);
}

VINLINE vf vf_half(vi h) {
    vf m = vf_bits(vi_shl(h & vi_set(0x7fff), 13)) * vset(0x1p112f); /* exact, subnormals too */
    return vf_bits(vi_bits(m) | vi_shl(h & vi_set(0x8000), 16));
}

VINLINE vf vround_half(vf a) {
    vi h = vi_half(a);
    vf inf = vf_bits(vi_set(0x7f800000) | vi_shl(h & vi_set(0x8000), 16));
    return vsel(vi_eq(h & vi_set(0x7fff), vi_set(0x7c00)), inf, vf_half(h));
}
