/* backends.c - from an index of quantcli.h to the runner's tables. */
#include "backends.h"
#include <string.h>

static int always(void) { return 1; }
#if defined(__x86_64__)
#include "../processor.h"
static int has_fma(void) { return qc_processor_has(CPU_AVX2); }
static int has_vnni(void) { return qc_processor_has(CPU_VNNI); }
static int has_vbmi(void) { return qc_processor_has(CPU_VBMI); }
static int has_pairs(void) { return has_vbmi() && qc_processor_has(CPU_BF16); }
/* On Intel's a `vdpbf16ps` takes longer than the two multiply-adds that it stands for (docs/speed.md). */
static int has_bf16(void) { return has_pairs() && !qc_processor_has(CPU_INTEL); }
static int has_amx(void) { return has_pairs() && qc_amx_works(); }
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
static int has_dotprod(void) { return qc_runner_dotprod.name && ((getauxval(AT_HWCAP) >> 20) & 1); }
#elif defined(__aarch64__)
static int has_dotprod(void) { return qc_runner_dotprod.name != 0; } /* every Apple chip with arm64 macOS */
#endif

/* The better ones last. An instruction set of the encoders takes the last row up to its own that the CPU can run. */
static const struct {
    const char *isa; /* that the CPU must have besides; NULL, last: none takes it, for tests alone */
    int (*supported)(void);
    const runner_backend *backend;
} backends[] = {
    {"scalar", always, &qc_runner_scalar},
#if defined(__x86_64__)
    {"avx2", has_fma, &qc_runner_avx2},           {"avx512", has_vnni, &qc_runner_avx512},
    {"avx512", has_vbmi, &qc_runner_avx512_vbmi}, {"avx512", has_bf16, &qc_runner_avx512_bf16},
    {"avx512", has_amx, &qc_runner_amx},          {0, has_pairs, &qc_runner_amx_emulated},
#elif defined(__aarch64__)
    {"neon", always, &qc_runner_neon},
    {"neon", has_dotprod, &qc_runner_dotprod},
#endif
};
enum { BACKENDS = sizeof backends / sizeof backends[0] };

int32_t qc_runner_backends(void) { return BACKENDS; }
const char *qc_runner_backend_name(int32_t i) {
    return i >= 0 && i < BACKENDS && backends[i].backend->name ? backends[i].backend->name : "";
}

/* Index of an instruction set of that name; -1: none. */
static int32_t isa_named(const char *name) {
    for (int32_t isa = 0; isa < qc_isa_count(); ++isa)
        if (!strcmp(qc_isa_name(isa), name)) return isa;
    return -1;
}

static int can_run(int32_t i) {
    return (!backends[i].isa || qc_isa_supported(isa_named(backends[i].isa))) && backends[i].supported();
}

static const runner_backend *find(int32_t isa) {
    if (isa >= QC_RUNNER_BACKEND && isa < QC_RUNNER_BACKEND + BACKENDS)
        return can_run(isa - QC_RUNNER_BACKEND) ? backends[isa - QC_RUNNER_BACKEND].backend : 0;
    if (!qc_isa_supported(isa)) return 0;
    int32_t best = 0, own = -1;
    for (int32_t i = 0; i < BACKENDS; ++i)
        if (backends[i].isa && !strcmp(backends[i].isa, qc_isa_name(isa))) own = i;
    for (int32_t i = 0; i <= own; ++i)
        if (can_run(i)) best = i;
    return backends[best].backend;
}

const runner_backend *qc_runner_of(int32_t isa) {
    enum { KNOWN = QC_RUNNER_BACKEND + BACKENDS };
    static _Atomic(const runner_backend *) known[KNOWN];
    if (isa < 0 || isa >= KNOWN) return 0;
    const runner_backend *backend = known[isa];
    if (!backend) known[isa] = backend = find(isa);
    return backend;
}

int64_t qc_peak(int32_t isa, int32_t kind, int64_t rounds) {
    const runner_backend *backend = qc_runner_of(isa);
    return backend ? backend->peak(kind, rounds) : 0;
}
