/* What an x86-64 processor can do, asked of it: clang's builtin does not know f16c, and zig's finds nothing in a shared
 * library. cpuid leaves a virtual machine, which takes longer than many a kernel: once a file only. */
#pragma once
#include <cpuid.h>

enum {
    CPU_ASKED = 1,
    CPU_AVX2 = 2,
    CPU_AVX512 = 4,
    CPU_VNNI = 8,
    CPU_BF16 = 16,
    CPU_VBMI = 32,
    CPU_INTEL = 64,
    CPU_AMX = 128
};

/* CPU_AVX2 means FMA and F16C, too; CPU_AVX512 means F, BW, DQ and VL; CPU_VNNI means all before
 * it, CPU_BF16 and CPU_VBMI mean CPU_VNNI. CPU_INTEL, its maker, is told where there is CPU_VNNI; so is CPU_AMX (tiles,
 * int8, bf16), which the system need not let run (runner/amx.c). */
static inline int qc_ask_processor(void) {
    enum { FMA = 1 << 12, XSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29, NEEDED = FMA | XSAVE | AVX | F16C };
    enum {
        AVX2 = 1 << 5,
        BMI2 = 1 << 8,
        VBMI = 1 << 1,
        VNNI = 1 << 11,
        BF16 = 1 << 5,
        AMX = 1 << 22 | 1 << 24 | 1 << 25
    };
    enum {
        YMM = 0x06,
        ZMM = 0xe6,
        TILES = 0x60000,
        INTEL = 0x756e6547
    }; /* registers that the system saves; "Genu"ineIntel */
    const unsigned wide = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    unsigned a, b, c, d, saved, high, maker, more = 0;
    if (!__get_cpuid(0, &a, &maker, &c, &d)) return CPU_ASKED;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & NEEDED) != NEEDED) return CPU_ASKED;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if ((saved & YMM) != YMM || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & AVX2)) return CPU_ASKED;
    if ((saved & ZMM) != ZMM || (b & wide) != wide) return CPU_ASKED | CPU_AVX2;
    if (!(b & BMI2) || !(c & VNNI)) return CPU_ASKED | CPU_AVX2 | CPU_AVX512;
    if (maker == INTEL) more |= CPU_INTEL;
    if (c & VBMI) more |= CPU_VBMI;
    if ((d & AMX) == AMX && (saved & TILES) == TILES) more |= CPU_AMX;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & BF16)) more |= CPU_BF16;
    return CPU_ASKED | CPU_AVX2 | CPU_AVX512 | CPU_VNNI | (int)more;
}

static inline int qc_processor_has(int what) {
    static _Atomic int known = 0;
    if (!known) known = qc_ask_processor();
    return (known & what) != 0;
}
