/* runner_portable.h - of the operations in runner_scalar.h, those of codes and scales in portable C: vector types of
 * gcc and clang that are wider than the machine's vectors, and plain loops. */
enum { STEP = 32 };
typedef uint8_t vcodes __attribute__((vector_size(32), may_alias));
typedef vcodes vsigns; /* 0 or 255 */
typedef uint64_t sign_bytes;
typedef int8_t i8x16 __attribute__((vector_size(16), may_alias));

enum { TURNED = 4 };
VINLINE void turn_words(const uint32_t *const in[16], int64_t k, uint32_t *out) {
    for (int first = 0; first < 16; first += VW) {
        vf r[VW];
        for (int i = 0; i < VW; ++i) memcpy(&r[i], in[first + i] + k, sizeof(vf));
        vtranspose(r);
        for (int i = 0; i < VW; ++i) memcpy(out + 16 * i + first, &r[i], sizeof(vf));
    }
}

/* ---- codes */

VINLINE vcodes codes_load(const uint8_t *p, int stride) {
    vcodes v;
    memcpy(&v, p, sizeof v);
    return (void)stride, v;
}
VINLINE void codes_store(uint8_t *p, vcodes v) { memcpy(p, &v, sizeof v); }
VINLINE vcodes codes_of(int value) { return (vcodes){0} + (uint8_t)value; }
VINLINE vcodes field(vcodes v, int from, int step, int mask) {
    (void)step;
    return v >> (uint8_t)from & codes_of(mask);
}
VINLINE vcodes moved(vcodes v, int from, int step, int mask, int to) {
    return field(v, from, step, mask) << (uint8_t)to;
}
VINLINE vcodes nibbles(const uint8_t *p, int stride) {
    uint8_t u[32];
    (void)stride;
    for (int j = 0; j < 16; ++j) u[j] = p[j] & 15, u[j + 16] = p[j] >> 4;
    return codes_load(u, 0);
}
#ifndef QC_HAS_LOOKUP_CODES
VINLINE vcodes lookup(const void *table, vcodes v) {
    uint8_t t[16], u[32];
    memcpy(t, table, 16);
    codes_store(u, v);
    for (int j = 0; j < 32; ++j) u[j] = t[u[j]];
    return codes_load(u, 0);
}
#endif
VINLINE vcodes bit_codes(const uint8_t *p, int stride, int value) {
    uint8_t u[32];
    (void)stride;
    for (int j = 0; j < 32; ++j) u[j] = (uint8_t)(p[j / 8] >> (j % 8) & 1 ? value : 0);
    return codes_load(u, 0);
}

/* ---- points and their signs */

VINLINE vcodes points_8(const uint64_t *grid, const uint16_t *index) {
    const uint64_t four[4] = {grid[index[0]], grid[index[1]], grid[index[2]], grid[index[3]]};
    return codes_load((const uint8_t *)four, 0);
}
VINLINE vcodes points_4(const uint32_t *grid, const uint16_t *index) {
    const uint32_t eight[8] = {grid[index[0]], grid[index[1]], grid[index[2]], grid[index[3]],
                               grid[index[4]], grid[index[5]], grid[index[6]], grid[index[7]]};
    return codes_load((const uint8_t *)eight, 0);
}
VINLINE void nine_bits(const uint8_t *p, unsigned high, uint16_t index[16]) {
    for (int k = 0; k < 16; ++k) index[k] = (uint16_t)(p[k] | (high >> k & 1) << 8);
}
VINLINE sign_bytes signs_load(const uint8_t *p) {
    sign_bytes v;
    memcpy(&v, p, 8);
    return v;
}
/* bytes of seven bits: the eighth makes the number of set bits even */
VINLINE sign_bytes with_parity(uint64_t stored) {
    uint64_t x = stored ^ stored >> 4;
    x ^= x >> 2;
    x ^= x >> 1;
    return stored | (x & UINT64_C(0x0101010101010101)) << 7;
}
VINLINE sign_bytes signs_7(const uint8_t *p) {
    uint64_t stored = 0;
    for (int k = 0; k < 8; ++k) {
        uint16_t word;
        memcpy(&word, p + 2 * k, 2);
        stored |= (uint64_t)(word >> 9) << (8 * k);
    }
    return with_parity(stored);
}
VINLINE sign_bytes signs_28(uint32_t first, uint32_t second) {
    uint64_t stored = 0;
    for (int k = 0; k < 4; ++k)
        stored |= (uint64_t)(first >> (7 * k) & 127) << (8 * k) | (uint64_t)(second >> (7 * k) & 127) << (8 * k + 32);
    return with_parity(stored);
}
VINLINE vsigns signs_of(sign_bytes signs, int half) {
    const uint64_t one = UINT64_C(0x0101010101010101), bit = UINT64_C(0x8040201008040201);
    uint64_t negative[4];
    for (int k = 0; k < 4; ++k) {
        uint64_t set = (signs >> (8 * k + 32 * half) & 255) * one & bit; /* byte i: not 0 if bit i is set */
        negative[k] = ((set + 127 * one) >> 7 & one) * 255;
    }
    return codes_load((const uint8_t *)negative, 0);
}
VINLINE vcodes negated(vcodes v, vsigns negative) { return (v ^ negative) - negative; }

/* ---- scales */

VINLINE i8x16 scales_load(const uint8_t *p) {
    i8x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
VINLINE i8x16 scales_of(int value) { return (i8x16){0} + (int8_t)value; }
VINLINE i8x16 high_nibbles(i8x16 v) { return v >> 4 & scales_of(15); }
VINLINE i8x16 scales_pair(uint64_t low, uint64_t high) {
    const uint64_t both[2] = {low, high};
    return scales_load((const uint8_t *)both);
}
VINLINE i8x16 nibbles_8(const uint8_t *p) {
    uint8_t u[16];
    for (int k = 0; k < 8; ++k) u[2 * k] = p[k] & 15, u[2 * k + 1] = p[k] >> 4;
    return scales_load(u);
}
VINLINE i8x16 nibbles_4(const uint8_t *p) {
    uint8_t u[16] = {0};
    for (int k = 0; k < 4; ++k) u[2 * k] = p[k] & 15, u[2 * k + 1] = p[k] >> 4;
    return scales_load(u);
}
VINLINE i8x16 fields_2(unsigned bits) {
    uint8_t u[16] = {0};
    for (int k = 0; k < 8; ++k) u[k] = bits >> (2 * k) & 3;
    return scales_load(u);
}
VINLINE i8x16 top_nibbles(const uint8_t *p, int stride) {
    uint8_t u[16] = {0};
    for (int k = 0; k < 8; ++k) u[k] = p[k * stride + 3] >> 4;
    return scales_load(u);
}
VINLINE void store_scaled(float *to, i8x16 v, float d, int count) {
    for (int k = 0; k < count; ++k) to[k] = d * (float)v[k];
}

/* ---- how fast the core multiplies (peak.inc): floats only */

enum { PEAK_BYTES = 1, PEAK_WORDS = 1 };
typedef vi vpeak;
VINLINE vpeak peak_floats(vpeak sum, vpeak w, vpeak x) { return vi_bits(vfma(vf_bits(w), vf_bits(x), vf_bits(sum))); }
VINLINE vpeak peak_bytes(vpeak sum, vpeak w, vpeak x) { return peak_floats(sum, w, x); }
VINLINE vpeak peak_words(vpeak sum, vpeak w, vpeak x) { return peak_floats(sum, w, x); }
