/* recurrence.c - layers with a state over the threads of a pool: blocks of channels are dealt out. */
#include "backends.h"
#include <math.h>
#include <stdatomic.h>

enum { CONVOLVED = 64 }; /* channels of a unit */

typedef struct {
    const runner_backend *backend;
    const void *steps;
    int64_t blocks; /* of each step (and head, and sequence) */
    atomic_int failed;
} state_job;

static int64_t ceiling(int64_t n, int64_t by) { return (n + by - 1) / by; }

static int32_t run_units(qc_pool *pool, qc_work work, state_job *job, int64_t units) {
    qc_pool_enter(pool);
    qc_pool_run(pool, work, job, units);
    qc_pool_leave(pool);
    return job->failed ? QC_NO_MEMORY : QC_OK;
}

static void convolve_unit(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    state_job *job = argument;
    const qc_convolution *c = job->steps;
    int64_t first = unit % job->blocks * CONVOLVED, last = first + CONVOLVED;
    (void)pool, (void)thread;
    job->backend->convolve(c, unit / job->blocks, first, last < c->channels ? last : c->channels);
}

int32_t qc_convolve(qc_pool *pool, int32_t isa, const qc_convolution *c) {
    state_job job = {.backend = qc_runner_of(isa), .steps = c};
    if (!job.backend || c->kernel < 1 || c->channels < 0 || c->sequences < 0 || c->tokens < 0) return QC_NO_KERNEL;
    job.blocks = ceiling(c->channels, CONVOLVED);
    return run_units(pool, convolve_unit, &job, c->sequences * job.blocks);
}

/* Few numbers: one a head. */
int32_t qc_gate(qc_pool *pool, int32_t isa, const qc_gates *g) {
    (void)pool, (void)isa;
    for (int64_t t = 0; t < g->tokens; ++t)
        for (int64_t h = 0; h < g->heads; ++h) {
            const int64_t at = h / g->inner * g->outer + h % g->inner, to = t * g->heads + h;
            const float x = g->forget[t * g->forget_token + at] + g->bias[h];
            const float step = x > 20.0f ? x : log1pf(expf(x));
            g->decay[to] = expf(step * g->rate[h]);
            g->scale[to] = g->write ? 1.0f / (1.0f + expf(-g->write[t * g->write_token + at])) : step;
        }
    return QC_OK;
}

static void recur_unit(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    state_job *job = argument;
    const qc_recurrence *r = job->steps;
    int64_t head = unit / job->blocks;
    r += head / r->heads; /* all sequences have the same sizes */
    float *scratch = qc_pool_scratch(pool, thread, (size_t)r->size * (size_t)job->backend->state_lanes * 4);
    if (scratch)
        job->backend->recur(r, head % r->heads, unit % job->blocks, scratch);
    else
        job->failed = 1;
}

int32_t qc_recur(qc_pool *pool, int32_t isa, const qc_recurrence *r, int32_t count) {
    state_job job = {.backend = qc_runner_of(isa), .steps = r};
    if (!job.backend || count < 0) return QC_NO_KERNEL;
    for (int32_t i = 0; i < count; ++i)
        if (r[i].heads != r->heads || r[i].width != r->width || r[i].size != r->size || r[i].tokens < 0 ||
            r[i].heads < 1 || r[i].groups < 1 || r[i].width < 1 || r[i].size < 1 || r[i].heads % r[i].groups ||
            (r[i].decays != 1 && r[i].decays != r[i].size))
            return QC_NO_KERNEL;
    if (count == 0) return QC_OK;
    job.blocks = ceiling(r->width, job.backend->state_lanes);
    return run_units(pool, recur_unit, &job, count * r->heads * job.blocks);
}

static void scan_unit(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    state_job *job = argument;
    const qc_scan *c = (const qc_scan *)job->steps + unit / job->blocks;
    float *scratch = qc_pool_scratch(pool, thread, (size_t)c->size * (size_t)job->backend->scan_lanes * 8);
    if (scratch)
        job->backend->scan(c, unit % job->blocks, scratch);
    else
        job->failed = 1;
}

int32_t qc_scan_states(qc_pool *pool, int32_t isa, const qc_scan *c, int32_t count) {
    state_job job = {.backend = qc_runner_of(isa), .steps = c};
    if (!job.backend || count < 0) return QC_NO_KERNEL;
    for (int32_t i = 0; i < count; ++i)
        if (c[i].channels != c->channels || c[i].size < 1 || c[i].channels < 1 || c[i].tokens < 0) return QC_NO_KERNEL;
    if (count == 0) return QC_OK;
    job.blocks = ceiling(c->channels, job.backend->scan_lanes);
    return run_units(pool, scan_unit, &job, count * job.blocks);
}
