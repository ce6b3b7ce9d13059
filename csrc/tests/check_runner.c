/* check_runner.c - the runner's kernels without Python: every function of runner.h on random input and edges, against
 * references in double, on every backend of the build that this CPU can run, with the same bits from 1, 2 and 3
 * threads.
 *
 *     check_runner [ROUNDS]
 *
 * For emulators (arm64 under qemu) and sanitizers, as check.c. Tolerances stand beside the references. */
#include "runner_frame.h"
#include "runner_products.h"
#include "runner_elements.h"
#include "runner_sizes.h"
#include <pthread.h>

static void check_refusals(void) {
    qc_pool *pool = pools[0];
    float x[256] = {0}, out[256];
    double divergence;
    int64_t top;
    qc_product product = {.type = 8,
                          .weights = (const uint8_t *)x,
                          .rows = 1,
                          .columns = 32,
                          .x = x,
                          .x_stride = 32,
                          .tokens = 1,
                          .out = out,
                          .out_stride = 1},
               odd = product, unknown = product;
    qc_attention attention = {
        .q = x, .k = x, .v = x, .out = out, .tokens = 1, .heads = 3, .kv_heads = 2, .width = 4, .value_width = 4};
    odd.columns = 31, unknown.type = 28;
    if (qc_pool_new(0) || qc_pool_new(257) || qc_pool_threads(pools[2]) != 3) fail("pool", "number of threads", 0);
    qc_pool_free(0);
    const int32_t refused[] = {
        qc_matmul(pool, -1, 0, &product, 1),
        qc_matmul(pool, 99, 0, &product, 1),
        qc_matmul(pool, QC_RUNNER_BACKEND + qc_runner_backends(), 0, &product, 1),
        qc_matmul(pool, 0, 3, &product, 1),
        qc_matmul(pool, 0, -1, &product, 1),
        qc_matmul(pool, 0, 0, &odd, 1),
        qc_matmul(pool, 0, 0, &unknown, 1),
        qc_round_activations(pool, 99, 1, 8, x, 1, 32, out),
        qc_round_activations(pool, 0, 1, 8, x, 1, 31, out),
        qc_attend(pool, 0, &attention, 1),
        qc_rms_norm(pool, 99, x, 1, 4, x, 0.0f, out),
        qc_layer_norm(pool, 0, x, -1, 4, x, 0, 0.0f, out),
        qc_activate(pool, 0, QC_ACTIVATION_KINDS, x, 4, 0, 0, 1, 4, out),
        qc_rotate(pool, 0, x, 1, 1, 4, 3, 0, x, x, out),
        qc_log_softmax(pool, 99, out, 1, 4, 1.0f, 0.0f),
        qc_divergence(pool, 99, x, x, 1, 4, &divergence, &top, &top),
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i)
        if (refused[i] != QC_NO_KERNEL) fail("refusal", "a call that fits nothing", 0);
    if (qc_matmul(pool, 0, 0, 0, 0) != QC_OK || qc_peak(99, 0, 1) != 0) fail("status", "a call for nothing", 0);
    if (qc_can_multiply(-1) || qc_can_multiply(TYPES) || qc_can_multiply(28)) fail("types", "can_multiply", 0);
    for (int isa = 0; isa < qc_isa_count(); ++isa)
        for (int32_t mode = 0; mode < MODES && qc_isa_supported(isa); ++mode)
            if (qc_peak(isa, mode, 100) <= 0) fail("peak", "number of operations", isa);
}

/* ---- several callers of one pool */

enum { CALLERS = 3, TURNS = 20, SIZE_ROUNDS = 2000 };

typedef struct {
    product_call *call;
    const float *expected;
    int64_t count;
    int wrong;
} caller;

static void *call_in_turns(void *argument) {
    caller *c = argument;
    float *out = floats(c->count);
    for (int i = 0; i < TURNS; ++i) {
        run_products(c->call, pools[2], qc_isa_best(), out);
        c->wrong += memcmp(out, c->expected, (size_t)c->count * 4) != 0;
    }
    free(out);
    return 0;
}

static void check_callers(void) {
    enum { ROWS = 200, COLUMNS = 256, TOKENS = 20 };
    snprintf(label, sizeof label, "%d callers of one pool", CALLERS);
    matrix m = random_matrix(12, ROWS, COLUMNS);
    float *x = activations(TOKENS, COLUMNS, COLUMNS), *expected = floats(TOKENS * ROWS);
    product_call call = {.mode = QC_ACTIVATIONS_Q8, .count = 1};
    call.products[0] = product_of(&m, ROWS, x, COLUMNS, TOKENS, ROWS);
    run_products(&call, pools[0], qc_isa_best(), expected);
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; ++i) {
        callers[i] = (caller){&call, expected, TOKENS * ROWS, 0};
        if (pthread_create(&threads[i], 0, call_in_turns, &callers[i])) {
            puts("no thread could be started");
            exit(2);
        }
    }
    for (int i = 0; i < CALLERS; ++i) {
        pthread_join(threads[i], 0);
        if (callers[i].wrong) fail("results", label, qc_isa_best());
    }
    ++cases;
    free_matrix(&m), free(x), free(expected);
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 3;
    setvbuf(stdout, 0, _IOLBF, 0);
    find_backends();
    printf("backends:");
    for (int b = 0; b < backend_count; ++b) printf(" %s", qc_runner_backend_name(backends[b] - QC_RUNNER_BACKEND));
    printf(" of %d\n", (int)qc_runner_backends());
    for (int p = 0; p < POOLS; ++p)
        if (!(pools[p] = qc_pool_new(p + 1))) {
            puts("out of memory");
            return 2;
        }
    check_refusals();
    check_callers();
    check_elements();
    check_sizes(SIZE_ROUNDS * rounds);
    check_products(rounds);
    for (int p = 0; p < POOLS; ++p) qc_pool_free(pools[p]);
    printf("%" PRId64 " cases of the runner\n", cases);
    if (failures) printf("%d failures\n", failures);
    return failures != 0;
}
