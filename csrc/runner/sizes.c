/* sizes.c - how far a step reaches from each of its pointers, against the counts beside them. Sizes that are negative
 * or too large for an int64 fit nowhere. */
#include "sizes.h"
#include "backends.h"

enum { NOWHERE = -1 };

/* Also nowhere: nothing, too often (a loop over it would not end). */
static int64_t times(int64_t a, int64_t b) {
    int64_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return NOWHERE;
    return product == 0 && (a > INT32_MAX || b > INT32_MAX) ? NOWHERE : product;
}

static int64_t plus(int64_t a, int64_t b) {
    int64_t sum;
    return a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum) ? NOWHERE : sum;
}

/* To the end of the last of `count` runs of `width` that begin `stride` apart. */
static int64_t reach(int64_t count, int64_t stride, int64_t width) {
    return count == 0 ? 0 : plus(times(count - 1, stride), width);
}

/* The same of `outer` times `count` runs. */
static int64_t reach2(int64_t outer, int64_t outer_stride, int64_t count, int64_t stride, int64_t width) {
    return outer == 0 || count == 0 ? 0 : reach(outer, outer_stride, reach(count, stride, width));
}

static int within(int64_t need, int64_t there) { return need >= 0 && need <= there; }

static int product_fits(const qc_product *p) {
    if (!qc_can_multiply(p->type) || p->columns < 1) return 1;
    const code_type *type = &qc_runner_scalar.codes[p->type];
    return within(times(p->rows, times(p->columns / type->block, type->bytes)), p->weight_bytes) &&
           within(reach(p->tokens, p->x_stride, p->columns), p->x_count) &&
           within(reach(p->tokens, p->out_stride, p->rows), p->out_count) &&
           (p->tokens < 2 || (p->x_stride >= p->columns && p->out_stride >= p->rows)) &&
           (!p->bias || p->rows <= p->bias_count);
}

static int norm_fits(const qc_norm *n) {
    const int64_t all = times(n->rows, n->columns);
    return within(all, n->x_count) && within(all, n->out_count) && within(n->columns, n->weight_count) &&
           (!n->bias || n->columns <= n->bias_count);
}

static int activation_fits(const qc_activation *a) {
    return within(reach(a->rows, a->gate_stride, a->columns), a->gate_count) &&
           (!a->up || within(a->kind == QC_XIELU ? 4 : reach(a->rows, a->up_stride, a->columns), a->up_count)) &&
           within(times(a->rows, a->columns), a->out_count);
}

static int rotation_fits(const qc_rotation *r, int64_t shift) {
    const int64_t all = times(r->positions, times(r->heads, r->width));
    return within(all, r->x_count) && within(all, r->out_count) &&
           within(times(plus(r->positions, shift), r->pairs), r->angle_count);
}

static int addition_fits(const qc_addition *a) { return a->count >= 0; }

/* Whether no two of `rows` x `columns` pieces of `size` share a place: threads write them at the same time. */
static int apart(int64_t rows, int64_t row, int64_t columns, int64_t column, int64_t size) {
    if (rows < 2) return columns < 2 || column >= size;
    if (columns < 2) return row >= size;
    return row < column ? row >= size && column >= plus(times(rows - 1, row), size)
                        : column >= size && row >= plus(times(columns - 1, column), size);
}

static int storage_fits(const qc_storage *s, int64_t shift) {
    const qc_layout *type = qc_type_layout(s->type);
    if (!type) return 1;
    const int64_t row = times(s->width / type->block, type->bytes);
    return s->width > 0 && within(times(s->positions, times(s->heads, s->width)), s->x_count) &&
           apart(s->positions, s->out_position, s->heads, s->out_head, row) &&
           within(
               plus(times(shift, s->out_position), reach2(s->heads, s->out_head, s->positions, s->out_position, row)),
               s->out_bytes);
}

/* The table of distances reaches as far back as the first key of the last query, and as far on as any query sees. */
static int distances_fit(const qc_attention *a, int64_t positions) {
    const int64_t on = a->ahead < a->tokens ? a->ahead : a->tokens - 1;
    return a->distance_zero >= positions - 1 && a->distance_head > plus(a->distance_zero, on) &&
           within(times(a->heads, a->distance_head), a->distance_count);
}

static int attention_fits(const qc_attention *a, int64_t shift) {
    const int64_t positions = plus(plus(a->start, a->tokens), shift);
    if (a->tokens == 0) return 1;
    if (a->ahead < 0 || a->heads < a->kv_heads) return 0;
    if (!apart(a->tokens, a->out_token, a->heads, a->out_head, a->value_width)) return 0;
    if (positions > 1 && (a->k_position < a->width || a->v_position < a->value_width)) return 0;
    return within(reach2(a->heads, a->q_head, a->tokens, a->q_token, a->width), a->q_count) &&
           within(reach2(a->kv_heads, a->k_head, positions, a->k_position, a->width), a->k_count) &&
           within(reach2(a->kv_heads, a->v_head, positions, a->v_position, a->value_width), a->v_count) &&
           within(reach2(a->heads, a->out_head, a->tokens, a->out_token, a->value_width), a->out_count) &&
           (!a->sinks || a->heads <= a->sinks_count) && (!a->distances || distances_fit(a, positions));
}

static int convolution_fits(const qc_convolution *c) {
    const int64_t weights = times(c->kernel, c->channels);
    if (c->kernel < 1) return 0;
    return within(reach2(c->sequences, c->x_sequence, c->tokens, c->x_token, c->channels), c->x_count) &&
           within(times(c->sequences, times(c->kernel - 1, c->channels)), c->window_count) &&
           within(weights, c->weight_count) && (!c->bias || c->channels <= c->bias_count) &&
           within(times(c->sequences, times(c->tokens, c->channels)), c->out_count);
}

static int recurrence_fits(const qc_recurrence *r) {
    const int64_t heads = times(r->tokens, r->heads), keys = times(r->groups, r->size), all = times(heads, r->size);
    const int64_t values = times(r->heads, r->width);
    if (r->decays != 1 && r->decays != r->size) return 0;
    return within(reach(r->tokens, r->key_token, keys), r->key_count) &&
           within(reach(r->tokens, r->query_token, keys), r->query_count) &&
           within(reach(r->tokens, r->value_token, values), r->value_count) &&
           within(times(heads, r->decays), r->decay_count) && (!r->scale || within(heads, r->scale_count)) &&
           (!r->skip || r->heads <= r->skip_count) && (!r->bonus || within(times(r->heads, r->size), r->bonus_count)) &&
           (!r->read || (r->write && within(all, r->read_count) && within(all, r->write_count))) &&
           within(times(values, r->size), r->state_count) && within(times(r->tokens, values), r->out_count);
}

static int scan_fits(const qc_scan *c) {
    const int64_t states = times(c->size, c->channels);
    return within(reach(c->tokens, c->x_token, c->channels), c->x_count) &&
           within(reach(c->tokens, c->step_token, c->channels), c->step_count) &&
           within(reach(c->tokens, c->key_token, c->size), c->key_count) &&
           within(reach(c->tokens, c->query_token, c->size), c->query_count) && within(states, c->rate_count) &&
           c->channels <= c->skip_count && within(states, c->state_count) &&
           within(times(c->tokens, c->channels), c->out_count);
}

static int gates_fit(const qc_gates *g) {
    const int64_t all = times(g->tokens, g->heads);
    if (g->inner < 1 || g->heads % g->inner) return 0;
    const int64_t row = reach(g->heads / g->inner, g->outer, g->inner);
    return within(reach(g->tokens, g->forget_token, row), g->forget_count) &&
           (!g->write || within(reach(g->tokens, g->write_token, row), g->write_count)) && g->heads <= g->bias_count &&
           g->heads <= g->rate_count && within(all, g->decay_count) && within(all, g->scale_count);
}

int qc_step_fits(const qc_step *step, int64_t shift) {
    const void *a = step->arguments;
    if (shift < 0 || step->count < 0) return 0;
    int fits = 1;
    switch (step->kind) {
    case QC_STEP_MATMUL:
        for (int32_t i = 0; i < step->count; ++i) fits &= product_fits((const qc_product *)a + i);
        return fits;
    case QC_STEP_RMS_NORM:
    case QC_STEP_LAYER_NORM: return norm_fits(a);
    case QC_STEP_ACTIVATE: return activation_fits(a);
    case QC_STEP_ROTATE: return rotation_fits(a, shift);
    case QC_STEP_ADD: return addition_fits(a);
    case QC_STEP_STORE: return storage_fits(a, shift);
    case QC_STEP_GATE: return gates_fit(a);
    case QC_STEP_CONVOLVE: return convolution_fits(a);
    case QC_STEP_RECUR:
        for (int32_t i = 0; i < step->count; ++i) fits &= recurrence_fits((const qc_recurrence *)a + i);
        return fits;
    case QC_STEP_SCAN:
        for (int32_t i = 0; i < step->count; ++i) fits &= scan_fits((const qc_scan *)a + i);
        return fits;
    case QC_STEP_ATTEND:
        for (int32_t i = 0; i < step->count; ++i) fits &= attention_fits((const qc_attention *)a + i, shift);
        return fits;
    }
    return 1;
}
