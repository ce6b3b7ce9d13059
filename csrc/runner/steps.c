/* steps.c - a list of calls in one go. The cost of a call from Python is that of a small layer's product, so whoever
 * computes the same thing for token after token records the calls once and repeats them here. */
#include "backends.h"
#include "sizes.h"

static int32_t norm(qc_pool *pool, int32_t isa, int32_t kind, const qc_norm *a) {
    if (kind == QC_STEP_RMS_NORM) return qc_rms_norm(pool, isa, a->x, a->rows, a->columns, a->weight, a->eps, a->out);
    return qc_layer_norm(pool, isa, a->x, a->rows, a->columns, a->weight, a->bias, a->eps, a->out);
}

static int32_t activate(qc_pool *pool, int32_t isa, const qc_activation *a) {
    return qc_activate(pool, isa, a->kind, a->gate, a->gate_stride, a->up, a->up_stride, a->rows, a->columns, a->out);
}

static int32_t rotate(qc_pool *pool, int32_t isa, const qc_rotation *a, int64_t shift) {
    int64_t angles = shift * a->pairs;
    return qc_rotate(pool, isa, a->x, a->positions, a->heads, a->width, a->pairs, a->neox, a->cosines + angles,
                     a->sines + angles, a->out);
}

static int32_t store(qc_pool *pool, int32_t isa, const qc_storage *a, int64_t shift) {
    qc_storage later = *a;
    later.out += shift * later.out_position;
    return qc_store(pool, isa, &later);
}

static int32_t attend(qc_pool *pool, int32_t isa, const qc_attention *sequences, int32_t count, int64_t shift) {
    if (!shift) return qc_attend(pool, isa, sequences, count);
    int32_t status = QC_OK;
    for (int32_t i = 0; i < count && status == QC_OK; ++i) {
        qc_attention later = sequences[i];
        later.start += shift;
        status = qc_attend(pool, isa, &later, 1);
    }
    return status;
}

static int32_t run(qc_pool *pool, int32_t isa, int32_t mode, const qc_step *step, int64_t shift) {
    const void *a = step->arguments;
    if (!qc_step_fits(step, shift)) return QC_BAD_SIZE;
    switch (step->kind) {
    case QC_STEP_MATMUL: return qc_matmul(pool, isa, mode, a, step->count);
    case QC_STEP_RMS_NORM:
    case QC_STEP_LAYER_NORM: return norm(pool, isa, step->kind, a);
    case QC_STEP_ACTIVATE: return activate(pool, isa, a);
    case QC_STEP_ROTATE: return rotate(pool, isa, a, shift);
    case QC_STEP_ADD: return qc_add(pool, isa, a);
    case QC_STEP_STORE: return store(pool, isa, a, shift);
    case QC_STEP_CONVOLVE: return qc_convolve(pool, isa, a);
    case QC_STEP_RECUR: return qc_recur(pool, isa, a, step->count);
    case QC_STEP_GATE: return qc_gate(pool, isa, a);
    case QC_STEP_SCAN: return qc_scan_states(pool, isa, a, step->count);
    case QC_STEP_ATTEND: return attend(pool, isa, a, step->count, shift);
    }
    return QC_NO_KERNEL;
}

int32_t qc_run(qc_pool *pool, int32_t isa, int32_t mode, const qc_step *steps, int32_t count, int64_t shift) {
    int32_t status = QC_OK;
    for (int32_t i = 0; i < count && status == QC_OK; ++i) status = run(pool, isa, mode, &steps[i], shift);
    return status;
}
