/* Products by Intel's matrix registers (flags: scripts/build_kernels.py), and whether this machine lets them run; empty
 * on other architectures. */
#if defined(__x86_64__)
#define _GNU_SOURCE        /* syscall */
#if !defined(__AMX_INT8__) /* a compiler that does not know them: never chosen */
#define QC_AMX_EMULATED
#endif
#define AMX_FUNCTION(name) qc_amx_##name
#include "products_amx.inc"
#include "../processor.h"

int64_t qc_amx_peak(int32_t kind, int64_t rounds) {
    if (kind != QC_ACTIVATIONS_Q8) return qc_runner_avx512_vbmi.peak(kind, rounds);
    qc_amx_enter(TILE_SPLIT, 0);
    for (int64_t n = 0; n < rounds; ++n) { /* six sums: a product waits for the one before */
        AMX_DOT_BYTES(0, 6, 7);
        AMX_DOT_BYTES(1, 6, 7);
        AMX_DOT_BYTES(2, 6, 7);
        AMX_DOT_BYTES(3, 6, 7);
        AMX_DOT_BYTES(4, 6, 7);
        AMX_DOT_BYTES(5, 6, 7);
    }
    amx_release();
    return rounds * 6 * 2 * AMX_ROWS * LANES * AMX_ROW_BYTES;
}

#if defined(__linux__) && !defined(QC_AMX_EMULATED)
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Machines exist that announce AMX and trap at its first instruction, so one product is made under a guard. */
static const int guarded[] = {SIGILL, SIGSEGV, SIGBUS};
enum { GUARDED = sizeof guarded / sizeof guarded[0] };
static struct sigaction before[GUARDED];
static _Thread_local volatile sig_atomic_t trying;
static sigjmp_buf way_back;
static int works;

static void trapped(int number) {
    if (trying) siglongjmp(way_back, 1);
    for (int i = 0; i < GUARDED; ++i) /* another thread's own fault, which it meets once more */
        if (guarded[i] == number) sigaction(number, &before[i], 0);
}

static int product_is_right(void) {
    int8_t ones[AMX_ROWS][AMX_ROW_BYTES];
    int32_t sums[AMX_ROWS][LANES] = {{0}};
    memset(ones, 1, sizeof ones);
    qc_amx_enter(TILE_SPLIT, 0);
    AMX_ZERO(0);
    AMX_LOAD(1, ones, AMX_ROW_BYTES);
    AMX_LOAD(2, ones, AMX_ROW_BYTES);
    AMX_DOT_BYTES(0, 1, 2);
    AMX_STORE(0, sums, AMX_ROW_BYTES);
    amx_release();
    for (int i = 0; i < AMX_ROWS * LANES; ++i)
        if (sums[i / LANES][i % LANES] != AMX_ROW_BYTES) return 0;
    return 1;
}

static void try_once(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    if (!qc_processor_has(CPU_AMX) || !qc_processor_has(CPU_VBMI)) return;
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)) return;
    struct sigaction guard = {.sa_handler = trapped};
    sigemptyset(&guard.sa_mask);
    for (int i = 0; i < GUARDED; ++i) sigaction(guarded[i], &guard, &before[i]);
    trying = 1;
    if (!sigsetjmp(way_back, 1)) works = product_is_right();
    trying = 0;
    for (int i = 0; i < GUARDED; ++i) sigaction(guarded[i], &before[i], 0);
}

int qc_amx_works(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, try_once);
    return works;
}
#else
int qc_amx_works(void) { return 0; }
#endif
#else
typedef int qc_no_amx;
#endif
