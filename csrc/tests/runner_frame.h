/* runner_frame.h - one operation of runner.h on every backend with several pools, against a reference in
 * double. */
#ifndef QC_TESTS_RUNNER_FRAME_H
#define QC_TESTS_RUNNER_FRAME_H
#include "support.h"
#include "../runner.h"
#include <math.h>

enum { POOLS = 3, UNTOUCHED = 0x7fabcdef }; /* pools of 1, 2, 3 threads; a NaN that no arithmetic makes */

static qc_pool *pools[POOLS];
static char label[160]; /* the case at hand, for messages */
static int64_t cases;

/* The backends that this CPU can run, the scalar one first, as the functions' `isa`. */
enum { MOST_BACKENDS = 16 };
static int32_t backends[MOST_BACKENDS];
static int backend_count;

static void find_backends(void) {
    for (int32_t i = 0; i < qc_runner_backends() && backend_count < MOST_BACKENDS; ++i)
        if (qc_peak(QC_RUNNER_BACKEND + i, 0, 1) > 0) backends[backend_count++] = QC_RUNNER_BACKEND + i;
}

static void fail_case(const char *what, int32_t backend) {
    fail_on(what, label, qc_runner_backend_name(backend - QC_RUNNER_BACKEND));
}

static float *floats(int64_t count) { return allocate(count * 4); }
static double *doubles(int64_t count) { return allocate(count * 8); }

static float *random_floats(int64_t count, float scale) {
    float *x = floats(count);
    for (int64_t i = 0; i < count; ++i) x[i] = bell() * scale;
    return x;
}

/* Writes its result to `out`; returns the status. */
typedef int32_t (*operation)(const void *arguments, qc_pool *pool, int32_t isa, float *out);

/* What is expected of every element: |result - exact| <= bound, or (NaN as exact) that it was not written. */
typedef struct {
    int64_t count;
    double *exact, *bound;
} expectation;

static expectation expect(int64_t count) {
    expectation e = {count, doubles(count), doubles(count)};
    for (int64_t i = 0; i < count; ++i) e.exact[i] = NAN, e.bound[i] = 0.0;
    return e;
}

static void check_near(const float *out, const expectation *e, int32_t backend) {
    for (int64_t i = 0; i < e->count; ++i) {
        uint32_t bits;
        memcpy(&bits, out + i, 4);
        if (isnan(e->exact[i]) ? bits == UNTOUCHED : fabs(out[i] - e->exact[i]) <= e->bound[i]) continue;
        printf("element %" PRId64 " of %" PRId64 ": %.9g (bits %08x), exact %.12g, bound %.3g\n", i, e->count,
               (double)out[i], (unsigned)bits, e->exact[i], e->bound[i]);
        fail_case("result", backend);
        return;
    }
}

/* Frees the expectation. */
static void check(operation run, const void *arguments, expectation e) {
    float *first = floats(e.count), *out = floats(e.count);
    const uint32_t untouched = UNTOUCHED;
    for (int b = 0; b < backend_count; ++b) {
        for (int p = 0; p < POOLS; ++p) {
            float *to = p ? out : first;
            for (int64_t i = 0; i < e.count; ++i) memcpy(to + i, &untouched, 4);
            if (run(arguments, pools[p], backends[b], to) != QC_OK) fail_case("status", backends[b]);
            if (p && memcmp(first, out, (size_t)e.count * 4))
                fail_case("not the bits that one thread gives", backends[b]);
        }
        check_near(first, &e, backends[b]);
    }
    ++cases;
    free(first), free(out), free(e.exact), free(e.bound);
}
#endif
