/* elements.c - attention, norms, activation functions, rotations and softmax over the threads of a pool. */
#include "backends.h"
#include <stdatomic.h>

/* Rows are dealt out in runs of about this many elements. */
enum { RUN = 16384 };

typedef struct {
    const runner_backend *backend;
    const float *x, *y, *weight, *bias;
    float *out;
    double *numbers;
    int64_t *first, *second;
    int64_t rows, columns, x_stride, y_stride, heads, pairs, run;
    float eps, scale, cap;
    int32_t kind;
} row_job;

typedef void (*row_work)(const row_job *, int64_t row);

typedef struct {
    const row_job *job;
    row_work work;
} row_call;

static void run_rows(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    const row_call *call = argument;
    int64_t first = unit * call->job->run, last = first + call->job->run;
    (void)pool, (void)thread;
    for (int64_t row = first; row < last && row < call->job->rows; ++row) call->work(call->job, row);
}

static int32_t over_rows(qc_pool *pool, int32_t isa, row_job job, int64_t width, row_work work) {
    job.backend = qc_runner_of(isa);
    if (!job.backend || job.rows < 0 || width < 0) return QC_NO_KERNEL;
    if (job.rows == 0 || width == 0) return QC_OK;
    job.run = width >= RUN ? 1 : RUN / width;
    row_call call = {&job, work};
    qc_pool_enter(pool);
    qc_pool_run(pool, run_rows, &call, (job.rows + job.run - 1) / job.run);
    qc_pool_leave(pool);
    return QC_OK;
}

static void rms_row(const row_job *j, int64_t r) {
    j->backend->rms_norm(j->x + r * j->columns, j->columns, j->weight, j->eps, j->out + r * j->columns);
}
int32_t qc_rms_norm(qc_pool *pool, int32_t isa, const float *x, int64_t rows, int64_t columns, const float *weight,
                    float eps, float *out) {
    row_job job = {.x = x, .rows = rows, .columns = columns, .weight = weight, .eps = eps, .out = out};
    return over_rows(pool, isa, job, columns, rms_row);
}

static void layer_row(const row_job *j, int64_t r) {
    j->backend->layer_norm(j->x + r * j->columns, j->columns, j->weight, j->bias, j->eps, j->out + r * j->columns);
}
int32_t qc_layer_norm(qc_pool *pool, int32_t isa, const float *x, int64_t rows, int64_t columns, const float *weight,
                      const float *bias, float eps, float *out) {
    row_job job = {.x = x, .rows = rows, .columns = columns, .weight = weight, .bias = bias, .eps = eps, .out = out};
    return over_rows(pool, isa, job, columns, layer_row);
}

static void activate_row(const row_job *j, int64_t r) {
    j->backend->activate(j->kind, j->x + r * j->x_stride, j->y ? j->y + r * j->y_stride : 0, j->columns,
                         j->out + r * j->columns);
}
int32_t qc_activate(qc_pool *pool, int32_t isa, int32_t kind, const float *gate, int64_t gate_stride, const float *up,
                    int64_t up_stride, int64_t rows, int64_t columns, float *out) {
    if (kind < 0 || kind >= QC_ACTIVATION_KINDS || (kind == QC_XIELU && !up)) return QC_NO_KERNEL;
    row_job job = {.x = gate,
                   .y = up,
                   .x_stride = gate_stride,
                   .y_stride = kind == QC_XIELU ? 0 : up_stride,
                   .rows = rows,
                   .columns = columns,
                   .kind = kind,
                   .out = out};
    return over_rows(pool, isa, job, columns, activate_row);
}

static void rotate_row(const row_job *j, int64_t r) {
    int64_t width = j->heads * j->columns;
    j->backend->rotate(j->x + r * width, j->heads, j->columns, j->pairs, j->kind, j->weight + r * j->pairs,
                       j->bias + r * j->pairs, j->out + r * width);
}
int32_t qc_rotate(qc_pool *pool, int32_t isa, const float *x, int64_t positions, int64_t heads, int64_t width,
                  int64_t pairs, int32_t neox, const float *cosines, const float *sines, float *out) {
    if (pairs < 0 || 2 * pairs > width || heads < 0) return QC_NO_KERNEL;
    row_job job = {.x = x,
                   .rows = positions,
                   .heads = heads,
                   .columns = width,
                   .pairs = pairs,
                   .kind = neox,
                   .weight = cosines,
                   .bias = sines,
                   .out = out};
    return over_rows(pool, isa, job, heads * width, rotate_row);
}

static void add_run(const row_job *j, int64_t r) {
    int64_t first = r * RUN, last = first + RUN < j->columns ? first + RUN : j->columns;
    for (int64_t i = first; i < last; ++i) j->out[i] = j->x[i] + j->scale * j->y[i];
}
int32_t qc_add(qc_pool *pool, int32_t isa, const qc_addition *a) {
    row_job job = {.x = a->x,
                   .y = a->y,
                   .rows = (a->count + RUN - 1) / RUN,
                   .columns = a->count,
                   .scale = a->scale,
                   .out = a->out};
    return over_rows(pool, isa, job, RUN, add_run);
}

static void softmax_row(const row_job *j, int64_t r) {
    j->backend->log_softmax(j->out + r * j->columns, j->columns, j->scale, j->cap);
}
int32_t qc_log_softmax(qc_pool *pool, int32_t isa, float *logits, int64_t rows, int64_t columns, float scale,
                       float cap) {
    row_job job = {.out = logits, .rows = rows, .columns = columns, .scale = scale, .cap = cap};
    return over_rows(pool, isa, job, columns, softmax_row);
}

static void divergence_row(const row_job *j, int64_t r) {
    const float *base = j->x + r * j->columns, *other = j->y + r * j->columns;
    j->numbers[r] = j->backend->divergence(base, other, j->columns);
    j->first[r] = j->backend->top(base, j->columns);
    j->second[r] = j->backend->top(other, j->columns);
}
int32_t qc_divergence(qc_pool *pool, int32_t isa, const float *base, const float *other, int64_t rows, int64_t columns,
                      double *divergence, int64_t *base_top, int64_t *other_top) {
    row_job job = {.x = base,
                   .y = other,
                   .rows = rows,
                   .columns = columns,
                   .numbers = divergence,
                   .first = base_top,
                   .second = other_top};
    return over_rows(pool, isa, job, columns, divergence_row);
}

/* ---- the cache */

typedef struct {
    const qc_storage *storage;
    int32_t isa;
    _Atomic int32_t status; /* of any row that failed */
} store_job;

static void store_position(void *argument, int64_t position, qc_pool *pool, int32_t thread) {
    store_job *job = argument;
    const qc_storage *s = job->storage;
    (void)pool, (void)thread;
    for (int64_t head = 0; head < s->heads; ++head) {
        qc_place place;
        int32_t status = qc_encode(job->isa, s->type, QC_SEARCH_GGML, s->x + (position * s->heads + head) * s->width, 1,
                                   s->width, 0, s->out + head * s->out_head + position * s->out_position, &place);
        if (status != QC_OK) job->status = status;
    }
}

int32_t qc_store(qc_pool *pool, int32_t isa, const qc_storage *storage) {
    if (!qc_type_layout(storage->type)) return QC_NO_KERNEL;
    /* every set of the encoders writes the same bytes */
    store_job job = {storage, isa < QC_RUNNER_BACKEND ? isa : qc_isa_best(), QC_OK};
    qc_pool_enter(pool);
    qc_pool_run(pool, store_position, &job, storage->positions);
    qc_pool_leave(pool);
    return job.status;
}

/* ---- attention */

typedef struct {
    const runner_backend *backend;
    const qc_attention *sequences;
    int32_t failed;
} attention_job;

static int64_t blocks_of(const qc_attention *a) { return (a->tokens + QUERY_BLOCK - 1) / QUERY_BLOCK; }

static void attend_unit(void *argument, int64_t unit, qc_pool *pool, int32_t thread) {
    attention_job *job = argument;
    const qc_attention *a = job->sequences;
    for (; unit >= blocks_of(a) * a->kv_heads; ++a) unit -= blocks_of(a) * a->kv_heads;
    int64_t block = blocks_of(a) - 1 - unit / a->kv_heads; /* the longest first */
    int64_t first = block * QUERY_BLOCK, last = first + QUERY_BLOCK < a->tokens ? first + QUERY_BLOCK : a->tokens;
    int64_t ahead = a->ahead < a->tokens - last ? a->ahead : a->tokens - last, keys = a->start + last + ahead;
    if (a->window > 0 && a->window + QUERY_BLOCK + ahead < keys) keys = a->window + QUERY_BLOCK + ahead;
    float *scratch = qc_pool_scratch(pool, thread, (size_t)ATTENTION_SCRATCH(keys, a->width, a->value_width) * 4);
    if (scratch)
        job->backend->attend(a, unit % a->kv_heads, first, last, scratch);
    else
        job->failed = 1;
}

int32_t qc_attend(qc_pool *pool, int32_t isa, const qc_attention *sequences, int32_t count) {
    attention_job job = {qc_runner_of(isa), sequences, 0};
    int64_t units = 0;
    if (!job.backend) return QC_NO_KERNEL;
    for (int32_t i = 0; i < count; ++i) {
        const qc_attention *a = &sequences[i];
        if (a->kv_heads < 1 || a->heads % a->kv_heads || a->tokens < 0 || a->start < 0 || a->ahead < 0 ||
            a->width < 1 || a->value_width < 1)
            return QC_NO_KERNEL;
        units += blocks_of(a) * a->kv_heads;
    }
    qc_pool_enter(pool);
    qc_pool_run(pool, attend_unit, &job, units);
    qc_pool_leave(pool);
    return job.failed ? QC_NO_MEMORY : QC_OK;
}
