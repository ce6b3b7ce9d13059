/* check.c - the kernels without Python: against a flat golden file, and against each other on edges and random input.
 *
 *     check FILE [ROUNDS]
 *
 * For emulators (arm64 under qemu) and sanitizers. Every buffer is allocated at its exact size, so that
 * AddressSanitizer sees a byte too many. FILE is written by scripts/make_flat_golden.py. The digest at the end covers
 * what the encoders and decoders made of the random input; it is the same on every machine. */
#include "support.h"

enum { ENCODE = 0, DECODE = 1, MOST_ROWS = 19 };

typedef struct {
    char name[48];
    int32_t kind, type, rows, columns, weighted, input_bytes, expected_bytes, reserved;
} record; /* followed by input, importance if weighted, expected */

static uint8_t *read_file(const char *path, int64_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        perror(path);
        exit(2);
    }
    *size = ftell(file);
    rewind(file);
    uint8_t *data = allocate(*size);
    if (fread(data, 1, (size_t)*size, file) != (size_t)*size) {
        perror(path);
        exit(2);
    }
    fclose(file);
    return data;
}

/* ---- the golden file */

static void *copy_out(const uint8_t *from, int64_t bytes) { return memcpy(allocate(bytes), from, (size_t)bytes); }

static void check_record(const record *r, const uint8_t *data, int isa) {
    int64_t importance_bytes = r->weighted ? 4 * (int64_t)r->columns : 0;
    uint8_t *input = copy_out(data, r->input_bytes), *out = allocate(r->expected_bytes);
    float *importance = r->weighted ? copy_out(data + r->input_bytes, importance_bytes) : 0;
    const uint8_t *expected = data + r->input_bytes + importance_bytes;
    qc_place place = {-1, -1}, bad = {-1, -1};
    int32_t status;
    if (r->kind == ENCODE) {
        status =
            qc_encode(isa, r->type, QC_SEARCH_GGML, (const float *)input, r->rows, r->columns, importance, out, &place);
        int32_t valid = qc_validate(isa, r->type, expected, r->rows, r->columns, &bad);
        if (status != (valid == QC_OK ? QC_OK : QC_OVERFLOW)) fail("status of encode", r->name, isa);
        if (place.row != bad.row || place.column != bad.column) fail("place of overflow", r->name, isa);
    } else {
        status = qc_decode(isa, r->type, input, r->rows, r->columns, (float *)out);
        if (status != QC_OK) fail("status of decode", r->name, isa);
    }
    if (memcmp(out, expected, (size_t)r->expected_bytes)) fail("bytes", r->name, isa);
    free(input), free(out), free(importance);
}

static int check_golden(const char *path) {
    int64_t size, at = 16;
    uint8_t *data = read_file(path, &size);
    int32_t count = 0;
    if (size < 16 || memcmp(data, "QCFLAT1", 8)) {
        printf("%s is no flat golden file\n", path);
        exit(2);
    }
    memcpy(&count, data + 8, 4);
    for (int32_t i = 0; i < count; ++i) {
        record r;
        memcpy(&r, data + at, sizeof r);
        at += (int64_t)sizeof r;
        for (int isa = 0; isa < qc_isa_count(); ++isa)
            if (qc_isa_supported(isa)) check_record(&r, data + at, isa);
        at += r.input_bytes + (r.weighted ? 4 * (int64_t)r.columns : 0) + r.expected_bytes;
    }
    if (at != size) {
        printf("%s has %" PRId64 " bytes, its records %" PRId64 "\n", path, size, at);
        exit(2);
    }
    free(data);
    return count;
}

/* ---- edges and random input */

static uint64_t digest = 14695981039346656037u;

static void add_to_digest(const void *data, int64_t bytes) { /* FNV-1a */
    const uint8_t *p = data;
    for (int64_t i = 0; i < bytes; ++i) digest = (digest ^ p[i]) * 1099511628211u;
}

static float any_finite(void) {
    for (;;) {
        uint32_t u = random_bits();
        float v;
        memcpy(&v, &u, 4);
        if ((u & 0x7f800000) != 0x7f800000) return v;
    }
}

static float edge(void) {
    static const float edges[] = {
        0.0f,  -0.0f, 0x1p-149f, -0x1p-149f, 0x1p-126f, 1e-15f, -1e-15f, 1e-8f,           0x1p-24f,        1.0f,
        -1.0f, 0.5f,  65504.0f,  65520.0f,   -65520.0f, 1e30f,  -1e30f,  0x1.fffffep127f, -0x1.fffffep127f};
    return edges[random_bits() % (sizeof edges / sizeof edges[0])];
}

static void fill_row(float *x, int64_t columns, uint32_t kind) {
    float scale = 0x1p-6f, first = bell();
    for (uint32_t k = random_bits() % 24; k > 0; --k) scale *= kind & 1 ? 2.0f : 0.5f;
    for (int64_t i = 0; i < columns; ++i) switch (kind % 8) {
        case 0: x[i] = any_finite(); break;
        case 1: x[i] = edge(); break;
        case 2: x[i] = first * scale; break;                                           /* constant */
        case 3: x[i] = random_bits() % 8 ? 0.0f : bell(); break;                       /* sparse */
        case 4: x[i] = random_bits() % 100 ? bell() * scale : 1000.0f * bell(); break; /* outliers */
        case 5: x[i] = (float)((int32_t)(random_bits() % 9) - 4) * scale; break;       /* few levels, ties */
        default: x[i] = bell() * scale;
        }
}

static void fill_importance(float *q, int64_t columns, uint32_t kind) {
    for (int64_t i = 0; i < columns; ++i) switch (kind) {
        case 1: q[i] = (float)(random_bits() >> 8) * 0x1p-20f; break;
        case 2: q[i] = random_bits() % 3 ? 0.0f : 1.0f; break;
        case 3: q[i] = 0.0f; break;
        default:
            q[i] = any_finite();
            if (q[i] < 0) q[i] = -q[i];
        }
}

/* One random slab through every instruction set: the same status and place, and the same bytes wherever they are valid.
 */
static void check_slab(int32_t type, int32_t search, int32_t block, int32_t bytes, uint32_t round) {
    static const char *const name = "random slab";
    int64_t rows = 1 + random_bits() % MOST_ROWS, columns = block * (1 + random_bits() % (block < 256 ? 18 : 3));
    int64_t row_bytes = columns / block * bytes, count = rows * columns;
    uint32_t weighting = random_bits() % 5;
    float *x = allocate(count * 4), *q = allocate(columns * 4), *decoded = allocate(columns * 4);
    uint8_t *first = allocate(rows * row_bytes), *out = allocate(rows * row_bytes);
    for (int64_t r = 0; r < rows; ++r) fill_row(x + r * columns, columns, round % 3 ? round : random_bits());
    fill_importance(q, columns, weighting);
    qc_place first_place = {-1, -1}, bad = {-1, -1};
    int32_t first_status = qc_encode(0, type, search, x, rows, columns, weighting ? q : 0, first, &first_place);
    int32_t valid = qc_validate(0, type, first, rows, columns, &bad);
    if (first_status != (valid == QC_OK ? QC_OK : QC_OVERFLOW) || bad.row != first_place.row ||
        bad.column != first_place.column) {
        printf("type %d search %d round %u: status %d, first bad block %d at %" PRId64 ",%" PRId64 " reported %" PRId64
               ",%" PRId64 "\n",
               type, search, round, first_status, valid, bad.row, bad.column, first_place.row, first_place.column);
        fail("status or place", name, 0);
    }
    for (int isa = 1; isa < qc_isa_count(); ++isa) {
        if (!qc_isa_supported(isa)) continue;
        qc_place place = {-1, -1};
        int32_t status = qc_encode(isa, type, search, x, rows, columns, weighting ? q : 0, out, &place);
        if (status != first_status || place.row != first_place.row || place.column != first_place.column)
            fail("status", name, isa);
        for (int64_t r = 0; r < rows; ++r)
            if (qc_validate(isa, type, first + r * row_bytes, 1, columns, &place) == QC_OK &&
                memcmp(out + r * row_bytes, first + r * row_bytes, (size_t)row_bytes)) {
                printf("type %d search %d round %u row %" PRId64 " weighting %u\n", type, search, round, r, weighting);
                fail("bytes", name, isa);
            }
    }
    add_to_digest(&first_status, 4);
    for (int64_t r = 0; r < rows; ++r) {
        if (qc_validate(0, type, first + r * row_bytes, 1, columns, &bad) != QC_OK) continue;
        add_to_digest(first + r * row_bytes, row_bytes);
        qc_decode(0, type, first + r * row_bytes, 1, columns, decoded);
        for (int64_t i = 0; i < columns; ++i)
            if (!(decoded[i] - decoded[i] == 0)) {
                fail("decodes to infinity or NaN", name, 0);
                break;
            }
    }
    free(x), free(q), free(first), free(out), free(decoded);
}

/* One buffer of `bytes` from an instruction set beside the scalar one's. */
static void compare_steps(const void *out, const void *first, int64_t bytes, const char *step, int32_t type, int isa) {
    if (!memcmp(out, first, (size_t)bytes)) return;
    printf("type %d\n", type);
    fail(step, "steps of an encoder", isa);
}

/* The steps of an encoder: codes for random parameters, parameters of random blocks, blocks for random parameters. */
static void check_steps(int32_t type, int32_t block, int32_t bytes, uint32_t round) {
    int64_t rows = 1 + random_bits() % 5, columns = block * (1 + random_bits() % 4), count = rows * columns;
    int64_t subs = count / qc_type_layout(type)->sub, size = count / block * bytes;
    uint32_t weighting = random_bits() % 5;
    float *x = allocate(count * 4), *q = allocate(columns * 4), *parameters = allocate(subs * 8);
    float *first_parameters = allocate(subs * 8), *asked = allocate(subs * 4);
    uint8_t *in = allocate(size), *first = allocate(size), *out = allocate(size);
    for (int64_t r = 0; r < rows; ++r) fill_row(x + r * columns, columns, round % 3 ? round : random_bits());
    fill_importance(q, columns, weighting);
    fill_row(asked, subs, round);
    qc_place place;
    do
        for (int64_t i = 0; i < size; ++i) in[i] = (uint8_t)random_bits();
    while (qc_validate(0, type, in, rows, columns, &place) != QC_OK);
    for (int isa = 0; isa < qc_isa_count(); ++isa) {
        if (!qc_isa_supported(isa)) continue;
        uint8_t *to = isa ? out : first;
        float *found = isa ? parameters : first_parameters;
        memcpy(to, in, (size_t)size);
        if (qc_assign(isa, type, x, rows, columns, weighting ? q : 0, to, &place) != QC_OK)
            fail("status", "assign", isa);
        if (qc_parameters(isa, type, to, rows, columns, found, found + subs) != QC_OK)
            fail("status", "parameters", isa);
        compare_steps(to, first, size, "assign", type, isa);
        compare_steps(found, first_parameters, subs * 8, "parameters", type, isa);
    }
    add_to_digest(first, size);
    add_to_digest(first_parameters, subs * 8);
    for (int isa = 0; isa < qc_isa_count() && qc_can_set_parameters(type); ++isa) {
        if (!qc_isa_supported(isa)) continue;
        int32_t status = qc_set_parameters(isa, type, asked, asked, rows, columns, isa ? out : first, &place);
        if (status != QC_OK && status != QC_OVERFLOW) fail("status", "set_parameters", isa);
        compare_steps(isa ? out : first, first, size, "set_parameters", type, isa);
    }
    add_to_digest(first, size);
    free(x), free(q), free(parameters), free(first_parameters), free(asked), free(in), free(first), free(out);
}

/* A metric of n columns as good as random: a positive definite Hessian, an order of runs, a factor that need not fit.
 */
static qc_metric random_metric(int64_t n, int32_t together) {
    float *hessian = allocate(n * n * 4), *permuted = allocate(n * n * 4), *factor = allocate(n * n * 4);
    float *pivots = allocate(n * together * 4), *way = allocate(n * 4);
    int32_t *order = allocate(n * 4);
    memset(hessian, 0, (size_t)(n * n * 4));
    for (int k = 0; k < 4; ++k) {
        for (int64_t i = 0; i < n; ++i) way[i] = bell();
        for (int64_t i = 0; i < n * n; ++i) hessian[i] += way[i / n] * way[i % n];
    }
    for (int64_t i = 0; i < n; ++i) hessian[i * (n + 1)] += 0x1p-4f, order[i] = (int32_t)i;
    for (int64_t i = n / together - 1; i > 0; --i) { /* shuffle the runs */
        int64_t j = random_bits() % (i + 1);
        int32_t swapped = order[i * together];
        order[i * together] = order[j * together], order[j * together] = swapped;
    }
    for (int64_t i = 0; i < n; ++i) order[i] = order[i / together * together] + (int32_t)(i % together);
    for (int64_t i = 0; i < n * n; ++i) {
        int64_t row = i / n, column = i % n;
        permuted[i] = hessian[order[row] * n + order[column]];
        factor[i] = column / together < row / together ? bell() * 0x1p-4f : 0.0f;
        if (row / together == column / together) pivots[row * together + column % together] = permuted[i];
    }
    free(way);
    return (qc_metric){hessian, permuted, factor, pivots, order, together};
}

/* Better blocks for a random metric, on every instruction set. */
static void check_compensation(int32_t type, int32_t block, int32_t bytes, uint32_t round) {
    int64_t rows = 1 + random_bits() % 70, columns = block * (1 + random_bits() % (block == 256 ? 2 : 9)), kept;
    int64_t size = rows * columns / block * bytes;
    qc_metric metric = random_metric(columns, qc_columns_together(type));
    const qc_effort effort = {round % 4 > 0, round % 3 > 0, round % 2, 1 + round % 2, round % 5 > 0, round % 7 > 2};
    float *x = allocate(rows * columns * 4);
    uint8_t *in = allocate(size), *first = allocate(size), *out = allocate(size);
    float *losses = allocate(rows * 4), *least = allocate(rows * 4);
    qc_place place;
    for (int64_t i = 0; i < rows * columns; ++i) x[i] = random_bits() % 90 ? bell() : bell() * 16;
    if (qc_encode(0, type, QC_SEARCH_GGML, x, rows, columns, 0, in, &place) != QC_OK &&
        qc_encode(0, type, QC_SEARCH_BEST, x, rows, columns, 0, in, &place) != QC_OK)
        fail("status", "blocks to begin with", 0);
    for (int isa = 0; isa < qc_isa_count(); ++isa) {
        if (!qc_isa_supported(isa)) continue;
        uint8_t *to = memcpy(isa ? out : first, in, (size_t)size);
        if (qc_compensate(isa, type, x, rows, columns, &metric, &effort, to, &kept, isa ? losses : least, &place) !=
            QC_OK)
            fail("status", "compensate", isa);
        compare_steps(to, first, size, "compensate", type, isa);
        if (isa) compare_steps(losses, least, rows * 4, "losses", type, isa);
        add_to_digest(&kept, isa ? 0 : 8);
    }
    add_to_digest(first, size);
    free((void *)metric.hessian), free((void *)metric.permuted), free((void *)metric.factor);
    free((void *)metric.pivots), free((void *)metric.order), free(losses), free(least), free(x), free(in), free(first),
        free(out);
}

/* Random bytes through every decoder; NaN differ in sign between machines, so they count as one value. */
static void check_decoder(int32_t type, int32_t block, int32_t bytes) {
    int64_t blocks = 1 + random_bits() % 33;
    uint8_t *in = allocate(blocks * bytes);
    float *first = allocate(blocks * block * 4), *out = allocate(blocks * block * 4);
    for (int64_t i = 0; i < blocks * bytes; ++i) in[i] = (uint8_t)random_bits();
    for (int isa = 0; isa < qc_isa_count(); ++isa) {
        float *to = isa ? out : first;
        if (!qc_isa_supported(isa)) continue;
        if (qc_decode(isa, type, in, 1, blocks * block, to) != QC_OK) fail("status", "random blocks", isa);
        for (int64_t i = 0; i < blocks * block; ++i)
            if (to[i] != to[i]) memcpy(to + i, "\0\0\xc0\x7f", 4);
        if (isa && memcmp(first, out, (size_t)(blocks * block * 4))) fail("values", "random blocks", isa);
    }
    add_to_digest(first, blocks * block * 4);
    free(in), free(first), free(out);
}

static void check_refusals(void) {
    float x[32] = {0};
    uint8_t out[32 * 4];
    qc_place place;
    if (qc_encode(-1, 8, 0, x, 1, 32, 0, out, &place) != QC_NO_KERNEL ||
        qc_encode(99, 8, 0, x, 1, 32, 0, out, &place) != QC_NO_KERNEL ||
        qc_encode(0, -1, 0, x, 1, 32, 0, out, &place) != QC_NO_KERNEL ||
        qc_encode(0, 43, 0, x, 1, 32, 0, out, &place) != QC_NO_KERNEL ||
        qc_encode(0, 8, 2, x, 1, 32, 0, out, &place) != QC_NO_KERNEL ||
        qc_encode(0, 8, 0, x, 1, 31, 0, out, &place) != QC_NO_KERNEL ||
        qc_encode(0, 8, 0, x, -1, 32, 0, out, &place) != QC_NO_KERNEL ||
        qc_decode(0, 5, out, 1, 32, x) != QC_NO_KERNEL || qc_validate(0, 9, out, 1, 32, &place) != QC_NO_KERNEL)
        fail("refusal", "a call that fits nothing", 0);
}

int main(int count, char **arguments) {
    if (count < 2) {
        puts("usage: check FILE [ROUNDS]");
        return 2;
    }
    int rounds = count > 2 ? atoi(arguments[2]) : 100, slabs = 0;
    setvbuf(stdout, 0, _IOLBF, 0);
    printf("instruction sets:");
    for (int isa = 0; isa < qc_isa_count(); ++isa)
        if (qc_isa_supported(isa)) printf(" %s", qc_isa_name(isa));
    printf("\n%d golden records\n", check_golden(arguments[1]));
    check_refusals();
    for (int32_t type = 0; type < TYPES; ++type) {
        int32_t block, bytes;
        if (!find_block(type, &block, &bytes)) continue;
        for (int32_t search = QC_SEARCH_GGML; search <= QC_SEARCH_BEST; ++search)
            for (int round = 0; qc_can_encode(type, search) && round < rounds; ++round, ++slabs)
                check_slab(type, search, block, bytes, (uint32_t)round);
        for (int round = 0; round < rounds; ++round) check_decoder(type, block, bytes);
        for (int round = 0; qc_can_fit(type) && round < rounds; ++round)
            check_steps(type, block, bytes, (uint32_t)round);
        for (int round = 0; qc_columns_together(type) && round < (rounds + 9) / 10; ++round)
            check_compensation(type, block, bytes, (uint32_t)round);
    }
    printf("%d random slabs, digest %016" PRIx64 "\n", slabs, digest);
    if (failures) printf("%d failures\n", failures);
    return failures != 0;
}
