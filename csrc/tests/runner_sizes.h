/* runner_sizes.h - steps whose sizes are changed at random, over buffers of exactly the bytes that their counts say:
 * done or refused, and under a sanitizer never a byte beyond. */
#ifndef QC_TESTS_RUNNER_SIZES_H
#define QC_TESTS_RUNNER_SIZES_H
#include "runner_frame.h"
#include <stddef.h>

typedef struct {
    size_t offset, size;
} number;
#define NUMBER(type, name) {offsetof(type, name), sizeof(((type *)0)->name)}
enum { MOST_NUMBERS = 15, MOST_ARGUMENTS = 320, MOST_BUFFERS = 12 };

/* A kind of step: what of its arguments is changed (no counts: they tell the truth). */
typedef struct {
    int32_t kind;
    const char *name;
    number numbers[MOST_NUMBERS];
} mutable_step;

static const mutable_step mutable_steps[] = {
    {QC_STEP_MATMUL,
     "matmul",
     {NUMBER(qc_product, type), NUMBER(qc_product, rows), NUMBER(qc_product, columns), NUMBER(qc_product, x_stride),
      NUMBER(qc_product, tokens), NUMBER(qc_product, out_stride)}},
    {QC_STEP_RMS_NORM, "rms_norm", {NUMBER(qc_norm, rows), NUMBER(qc_norm, columns)}},
    {QC_STEP_LAYER_NORM, "layer_norm", {NUMBER(qc_norm, rows), NUMBER(qc_norm, columns)}},
    {QC_STEP_ACTIVATE,
     "activate",
     {NUMBER(qc_activation, kind), NUMBER(qc_activation, gate_stride), NUMBER(qc_activation, up_stride),
      NUMBER(qc_activation, rows), NUMBER(qc_activation, columns)}},
    {QC_STEP_ROTATE,
     "rotate",
     {NUMBER(qc_rotation, positions), NUMBER(qc_rotation, heads), NUMBER(qc_rotation, width),
      NUMBER(qc_rotation, pairs), NUMBER(qc_rotation, neox)}},
    {QC_STEP_STORE,
     "store",
     {NUMBER(qc_storage, positions), NUMBER(qc_storage, heads), NUMBER(qc_storage, width), NUMBER(qc_storage, type),
      NUMBER(qc_storage, out_head), NUMBER(qc_storage, out_position)}},
    {QC_STEP_ATTEND,
     "attend",
     {NUMBER(qc_attention, q_token), NUMBER(qc_attention, q_head), NUMBER(qc_attention, k_head),
      NUMBER(qc_attention, k_position), NUMBER(qc_attention, v_head), NUMBER(qc_attention, v_position),
      NUMBER(qc_attention, tokens), NUMBER(qc_attention, start), NUMBER(qc_attention, heads),
      NUMBER(qc_attention, kv_heads), NUMBER(qc_attention, width), NUMBER(qc_attention, value_width),
      NUMBER(qc_attention, ahead), NUMBER(qc_attention, distance_head), NUMBER(qc_attention, distance_zero)}},
    {QC_STEP_CONVOLVE,
     "convolve",
     {NUMBER(qc_convolution, x_sequence), NUMBER(qc_convolution, x_token), NUMBER(qc_convolution, sequences),
      NUMBER(qc_convolution, tokens), NUMBER(qc_convolution, channels), NUMBER(qc_convolution, kernel)}},
    {QC_STEP_RECUR,
     "recur",
     {NUMBER(qc_recurrence, key_token), NUMBER(qc_recurrence, query_token), NUMBER(qc_recurrence, value_token),
      NUMBER(qc_recurrence, tokens), NUMBER(qc_recurrence, heads), NUMBER(qc_recurrence, groups),
      NUMBER(qc_recurrence, size), NUMBER(qc_recurrence, width), NUMBER(qc_recurrence, decays)}},
    {QC_STEP_GATE,
     "gate",
     {NUMBER(qc_gates, forget_token), NUMBER(qc_gates, write_token), NUMBER(qc_gates, outer), NUMBER(qc_gates, inner),
      NUMBER(qc_gates, tokens), NUMBER(qc_gates, heads)}},
    {QC_STEP_SCAN,
     "scan",
     {NUMBER(qc_scan, x_token), NUMBER(qc_scan, step_token), NUMBER(qc_scan, key_token), NUMBER(qc_scan, query_token),
      NUMBER(qc_scan, tokens), NUMBER(qc_scan, channels), NUMBER(qc_scan, size)}},
};
enum { MUTABLE_STEPS = sizeof mutable_steps / sizeof mutable_steps[0] };

enum { S_TOKENS = 6, S_COLUMNS = 64, S_ROWS = 20, S_HEADS = 4, S_KV_HEADS = 2, S_WIDTH = 16, S_CAPACITY = 9 };

/* Buffers of a step, to be freed. */
static void *buffers[MOST_BUFFERS];
static int buffer_count;

static float *numbers_of(int64_t count) { return buffers[buffer_count++] = random_floats(count, 1.0f); }

/* Steps of layers with a state: S_KV_HEADS sequences, or one. */
static void make_state_step(int32_t kind, void *arguments) {
    const int64_t all = S_TOKENS * S_COLUMNS, keys = S_TOKENS * S_KV_HEADS * S_WIDTH, heads = 2 * keys;
    const int64_t each = S_TOKENS * S_HEADS, states = S_HEADS * S_WIDTH * S_WIDTH, scanned = S_WIDTH * S_COLUMNS;
    if (kind == QC_STEP_CONVOLVE)
        *(qc_convolution *)arguments = (qc_convolution){.x = numbers_of(S_KV_HEADS * all),
                                                        .x_sequence = all,
                                                        .x_token = S_COLUMNS,
                                                        .window = numbers_of(S_KV_HEADS * 3 * S_COLUMNS),
                                                        .weight = numbers_of(4 * S_COLUMNS),
                                                        .bias = numbers_of(S_COLUMNS),
                                                        .sequences = S_KV_HEADS,
                                                        .tokens = S_TOKENS,
                                                        .channels = S_COLUMNS,
                                                        .kernel = 4,
                                                        .silu = 1,
                                                        .out = numbers_of(S_KV_HEADS * all),
                                                        .x_count = S_KV_HEADS * all,
                                                        .window_count = S_KV_HEADS * 3 * S_COLUMNS,
                                                        .weight_count = 4 * S_COLUMNS,
                                                        .bias_count = S_COLUMNS,
                                                        .out_count = S_KV_HEADS * all};
    else if (kind == QC_STEP_RECUR)
        *(qc_recurrence *)arguments = (qc_recurrence){.key = numbers_of(keys),
                                                      .query = numbers_of(keys),
                                                      .value = numbers_of(heads),
                                                      .key_token = S_KV_HEADS * S_WIDTH,
                                                      .query_token = S_KV_HEADS * S_WIDTH,
                                                      .value_token = S_HEADS * S_WIDTH,
                                                      .decay = numbers_of(each),
                                                      .scale = numbers_of(each),
                                                      .skip = numbers_of(S_HEADS),
                                                      .state = numbers_of(states),
                                                      .out = numbers_of(heads),
                                                      .tokens = S_TOKENS,
                                                      .heads = S_HEADS,
                                                      .groups = S_KV_HEADS,
                                                      .size = S_WIDTH,
                                                      .width = S_WIDTH,
                                                      .decays = 1,
                                                      .delta = 1,
                                                      .key_count = keys,
                                                      .query_count = keys,
                                                      .value_count = heads,
                                                      .decay_count = each,
                                                      .scale_count = each,
                                                      .skip_count = S_HEADS,
                                                      .state_count = states,
                                                      .out_count = heads};
    else if (kind == QC_STEP_GATE)
        *(qc_gates *)arguments = (qc_gates){.forget = numbers_of(2 * each),
                                            .write = numbers_of(2 * each),
                                            .bias = numbers_of(S_HEADS),
                                            .rate = numbers_of(S_HEADS),
                                            .forget_token = 2 * S_HEADS,
                                            .write_token = 2 * S_HEADS,
                                            .outer = S_HEADS,
                                            .inner = S_HEADS / 2,
                                            .tokens = S_TOKENS,
                                            .heads = S_HEADS,
                                            .decay = numbers_of(each),
                                            .scale = numbers_of(each),
                                            .forget_count = 2 * each,
                                            .write_count = 2 * each,
                                            .bias_count = S_HEADS,
                                            .rate_count = S_HEADS,
                                            .decay_count = each,
                                            .scale_count = each};
    else
        *(qc_scan *)arguments = (qc_scan){.x = numbers_of(all),
                                          .step = numbers_of(all),
                                          .key = numbers_of(S_TOKENS * S_WIDTH),
                                          .query = numbers_of(S_TOKENS * S_WIDTH),
                                          .rate = numbers_of(scanned),
                                          .skip = numbers_of(S_COLUMNS),
                                          .x_token = S_COLUMNS,
                                          .step_token = S_COLUMNS,
                                          .key_token = S_WIDTH,
                                          .query_token = S_WIDTH,
                                          .state = numbers_of(scanned),
                                          .out = numbers_of(all),
                                          .tokens = S_TOKENS,
                                          .channels = S_COLUMNS,
                                          .size = S_WIDTH,
                                          .x_count = all,
                                          .step_count = all,
                                          .key_count = S_TOKENS * S_WIDTH,
                                          .query_count = S_TOKENS * S_WIDTH,
                                          .rate_count = scanned,
                                          .skip_count = S_COLUMNS,
                                          .state_count = scanned,
                                          .out_count = all};
}

/* A sound step in `arguments`. */
static void make_step(int32_t kind, void *arguments) {
    const int64_t all = S_TOKENS * S_COLUMNS, heads = S_TOKENS * S_HEADS * S_WIDTH;
    const int64_t cache = S_KV_HEADS * S_CAPACITY * S_WIDTH;
    buffer_count = 0;
    switch (kind) {
    case QC_STEP_CONVOLVE:
    case QC_STEP_RECUR:
    case QC_STEP_GATE:
    case QC_STEP_SCAN: make_state_step(kind, arguments); break;
    case QC_STEP_MATMUL:
        *(qc_product *)arguments = (qc_product){0,
                                                (const uint8_t *)numbers_of(S_ROWS * S_COLUMNS),
                                                S_ROWS,
                                                S_COLUMNS,
                                                numbers_of(all),
                                                S_COLUMNS,
                                                S_TOKENS,
                                                numbers_of(S_TOKENS * S_ROWS),
                                                S_ROWS,
                                                numbers_of(S_ROWS),
                                                S_ROWS * S_COLUMNS * 4,
                                                all,
                                                S_TOKENS * S_ROWS,
                                                S_ROWS};
        break;
    case QC_STEP_RMS_NORM:
    case QC_STEP_LAYER_NORM:
        *(qc_norm *)arguments = (qc_norm){numbers_of(all),
                                          S_TOKENS,
                                          S_COLUMNS,
                                          numbers_of(S_COLUMNS),
                                          numbers_of(S_COLUMNS),
                                          1e-5f,
                                          numbers_of(all),
                                          all,
                                          S_COLUMNS,
                                          S_COLUMNS,
                                          all};
        break;
    case QC_STEP_ACTIVATE:
        *(qc_activation *)arguments = (qc_activation){QC_SILU,   numbers_of(all),
                                                      S_COLUMNS, numbers_of(all),
                                                      S_COLUMNS, S_TOKENS,
                                                      S_COLUMNS, numbers_of(all),
                                                      all,       all,
                                                      all};
        break;
    case QC_STEP_ROTATE:
        *(qc_rotation *)arguments = (qc_rotation){numbers_of(heads),
                                                  S_TOKENS,
                                                  S_HEADS,
                                                  S_WIDTH,
                                                  S_WIDTH / 2,
                                                  1,
                                                  numbers_of(S_CAPACITY * S_WIDTH / 2),
                                                  numbers_of(S_CAPACITY * S_WIDTH / 2),
                                                  numbers_of(heads),
                                                  heads,
                                                  S_CAPACITY * S_WIDTH / 2,
                                                  heads};
        break;
    case QC_STEP_STORE:
        *(qc_storage *)arguments = (qc_storage){numbers_of(S_TOKENS * S_KV_HEADS * S_WIDTH),
                                                S_TOKENS,
                                                S_KV_HEADS,
                                                S_WIDTH,
                                                0,
                                                (uint8_t *)numbers_of(cache),
                                                S_CAPACITY * S_WIDTH * 4,
                                                S_WIDTH * 4,
                                                S_TOKENS * S_KV_HEADS * S_WIDTH,
                                                cache * 4};
        break;
    default:
        *(qc_attention *)arguments = (qc_attention){numbers_of(heads),
                                                    S_HEADS * S_WIDTH,
                                                    S_WIDTH,
                                                    numbers_of(cache),
                                                    numbers_of(cache),
                                                    S_CAPACITY * S_WIDTH,
                                                    S_WIDTH,
                                                    S_CAPACITY * S_WIDTH,
                                                    S_WIDTH,
                                                    0,
                                                    S_TOKENS,
                                                    0,
                                                    S_HEADS,
                                                    S_KV_HEADS,
                                                    S_WIDTH,
                                                    S_WIDTH,
                                                    0,
                                                    0,
                                                    0.25f,
                                                    0.0f,
                                                    numbers_of(S_HEADS),
                                                    numbers_of(S_HEADS * S_CAPACITY),
                                                    S_CAPACITY,
                                                    S_CAPACITY - 1,
                                                    numbers_of(heads),
                                                    S_HEADS * S_WIDTH,
                                                    S_WIDTH,
                                                    heads,
                                                    cache,
                                                    cache,
                                                    S_HEADS,
                                                    S_HEADS * S_CAPACITY,
                                                    heads};
    }
}

static int64_t odd_size(int64_t value) {
    static const int64_t odd[] = {0, 1, -1, 3, 17, 255, INT32_MAX, INT64_C(1) << 31, INT64_C(1) << 62, INT64_MAX};
    int64_t other;
    switch (random_bits() % 5) {
    case 0: return __builtin_add_overflow(value, 1, &other) ? 1 : other;
    case 1: return __builtin_sub_overflow(value, 1, &other) ? 1 : other;
    case 2: return __builtin_mul_overflow(value, 2, &other) ? 1 : other;
    case 3: return value / 2;
    default: return odd[random_bits() % 10];
    }
}

static void change(const mutable_step *step, char *arguments) {
    int count = 0;
    while (count < MOST_NUMBERS && step->numbers[count].size) ++count;
    for (uint32_t n = 1 + random_bits() % 2; n; --n) {
        const number *which = &step->numbers[random_bits() % (uint32_t)count];
        int64_t wide;
        int32_t narrow;
        if (which->size == 8) {
            memcpy(&wide, arguments + which->offset, 8);
            wide = odd_size(wide);
            memcpy(arguments + which->offset, &wide, 8);
        } else {
            narrow = (int32_t)(random_bits() % (TYPES + 2)) - 1;
            memcpy(arguments + which->offset, &narrow, 4);
        }
    }
}

/* One step of the kind, sound or changed; its status. */
static int32_t run_changed(const mutable_step *step, int changed, int64_t shift, int32_t backend) {
    _Alignas(16) char arguments[MOST_ARGUMENTS];
    make_step(step->kind, arguments);
    if (changed) change(step, arguments);
    qc_step one = {step->kind, 1, arguments};
    int32_t status = qc_run(pools[(uint32_t)changed % POOLS], backend, (int32_t)(random_bits() % 3), &one, 1, shift);
    while (buffer_count) free(buffers[--buffer_count]);
    return status;
}

/* What has room for S_CAPACITY positions takes so many and no more; `rounds` changed steps of each kind. */
static void check_sizes(int rounds) {
    for (int s = 0; s < MUTABLE_STEPS; ++s) {
        const mutable_step *step = &mutable_steps[s];
        snprintf(label, sizeof label, "sizes of %s", step->name);
        const int placed = step->kind == QC_STEP_ROTATE || step->kind == QC_STEP_STORE || step->kind == QC_STEP_ATTEND;
        const int64_t last = S_CAPACITY - S_TOKENS;
        if (run_changed(step, 0, 0, backends[0]) != QC_OK || run_changed(step, 0, last, backends[0]) != QC_OK)
            fail_case("a sound step", backends[0]);
        if (run_changed(step, 0, -1, backends[0]) != QC_BAD_SIZE ||
            (placed && (run_changed(step, 0, last + 1, backends[0]) != QC_BAD_SIZE ||
                        run_changed(step, 0, INT64_MAX, backends[0]) != QC_BAD_SIZE)))
            fail_case("a step beyond its room", backends[0]);
        int done = 0, refused = 0;
        for (int i = 0; i < rounds; ++i, ++cases) {
            int32_t status = run_changed(step, 1, 0, backends[random_bits() % (uint32_t)backend_count]);
            done += status == QC_OK, refused += status == QC_BAD_SIZE || status == QC_NO_KERNEL;
        }
        if (rounds > 100 && (!done || !refused)) fail_case("all the same", backends[0]);
    }
}
#endif
