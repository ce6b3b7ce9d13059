/* levels.c - from an index of quantcli.h to the runner's tables. */
#include "levels.h"
#include <string.h>

#if defined(__x86_64__)
static int has_fma(void) { return __builtin_cpu_supports("fma"); }
static int has_vnni(void) {
    return has_fma() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi2");
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
static int has_dotprod(void) { return (getauxval(AT_HWCAP) >> 20) & 1; }
#elif defined(__aarch64__)
static int has_dotprod(void) { return 1; } /* every Apple chip with arm64 macOS */
#endif

const level *qc_level_of(int32_t isa) {
    if (!qc_isa_supported(isa)) return 0;
    const char *name = qc_isa_name(isa);
#if defined(__x86_64__)
    if (!strcmp(name, "avx512") && has_vnni()) return &qc_level_avx512;
    if (!strncmp(name, "avx", 3) && has_fma()) return &qc_level_avx2;
#elif defined(__aarch64__)
    if (!strcmp(name, "neon")) return has_dotprod() && qc_dotprod() ? qc_dotprod() : &qc_level_neon;
#endif
    (void)name;
    return &qc_level_scalar;
}

int qc_has_pairs(const level *l) {
#if defined(__x86_64__)
    return l->bf16_pairs && __builtin_cpu_supports("avx512bf16");
#else
    return l->bf16_pairs != 0;
#endif
}

int64_t qc_peak(int32_t isa, int32_t kind, int64_t rounds) {
    const level *l = qc_level_of(isa);
    return l ? l->peak(kind, rounds) : 0;
}
