/* fuzz.c - the C entry points of encoders, decoders, validator and of packed checkpoints on arbitrary bytes.
 *
 * With clang's -fsanitize=fuzzer it is a libFuzzer target. With any other compiler (QC_FUZZ_MAIN) it makes its own
 * inputs: fuzz SECONDS SEED [FILE], where FILE is the input at work, and stays when that one ends the program; or it
 * runs the inputs of files: fuzz FILE...
 *
 * Buffers have their exact size, so that a sanitizer sees every byte beyond them. The first bytes of an input choose
 * type, instruction set, search, shape and whether there is importance; the rest are the blocks, and the floats. */
#include "../checkpoints.h"
#include "support.h"
#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 8, MOST_ROWS = 20, MOST_BLOCKS = 3, MOST_BYTES = 4096 };

typedef struct {
    int32_t isa, type, search, block, bytes;
    int64_t rows, columns;
    int weighted;
} chosen;

static int choose(const uint8_t *data, chosen *c) {
    c->isa = data[0] % qc_isa_count(), c->type = data[1] % (TYPES + 2), c->search = data[2] % 2;
    c->weighted = data[3] & 1, c->rows = 1 + data[4] % MOST_ROWS;
    if (!qc_isa_supported(c->isa) || !find_block(c->type, &c->block, &c->bytes)) return 0;
    c->columns = (int64_t)c->block * (1 + data[5] % MOST_BLOCKS);
    return 1;
}

/* `bytes` bytes of the input, again from its start where it is too short. */
static void *filled(const uint8_t *data, size_t size, int64_t bytes) {
    uint8_t *p = allocate(bytes);
    for (int64_t i = 0; i < bytes; ++i) p[i] = size ? data[(size_t)i % size] : 0;
    return p;
}

static void try_blocks(const chosen *c, const uint8_t *data, size_t size) {
    qc_place place;
    uint8_t *blocks = filled(data, size, c->rows * c->columns / c->block * c->bytes);
    float *x = allocate(c->rows * c->columns * (int64_t)sizeof *x);
    qc_validate(c->isa, c->type, blocks, c->rows, c->columns, &place);
    qc_decode(c->isa, c->type, blocks, c->rows, c->columns, x);
    free(x), free(blocks);
}

static void try_floats(const chosen *c, const uint8_t *data, size_t size) {
    qc_place place = {0, 0};
    float *x = filled(data, size, c->rows * c->columns * (int64_t)sizeof *x);
    float *importance = c->weighted ? filled(data + size / 2, size - size / 2, c->columns * (int64_t)sizeof *x) : NULL;
    uint8_t *out = allocate(c->rows * c->columns / c->block * c->bytes);
    for (int64_t i = 0; i < c->rows * c->columns; ++i)
        if (!isfinite(x[i]) && data[6] & 1) x[i] = 0.0f; /* most inputs shall get beyond the first check */
    for (int64_t i = 0; importance && i < c->columns; ++i)
        if (!(importance[i] >= 0.0f && importance[i] < INFINITY) && data[6] & 2) importance[i] = 1.0f;
    int32_t status = qc_encode(c->isa, c->type, c->search, x, c->rows, c->columns, importance, out, &place);
    if (status == QC_OK && qc_validate(c->isa, c->type, out, c->rows, c->columns, &place) != QC_OK)
        fail("an encoder wrote a scale that is not finite", "fuzz", c->isa), abort();
    if (status == QC_NON_FINITE && !(place.row >= 0 && place.row < c->rows && place.column < c->columns)) abort();
    free(x), free(importance), free(out);
}

/* The steps of an encoder: codes into arbitrary blocks leave their parameters; blocks for arbitrary parameters. */
static void try_steps(const chosen *c, const uint8_t *data, size_t size) {
    const int64_t count = c->rows * c->columns, bytes = count / c->block * c->bytes;
    if (!qc_can_fit(c->type)) return;
    const int64_t subs = count / qc_type_layout(c->type)->sub, part = subs * (int64_t)sizeof(float);
    qc_place place;
    uint8_t *blocks = filled(data, size, bytes);
    float *x = filled(data + size / 2, size - size / 2, count * (int64_t)sizeof *x);
    float *before = allocate(2 * part), *after = allocate(2 * part), *asked = filled(data, size, part);
    for (int64_t i = 0; i < count; ++i)
        if (!isfinite(x[i])) x[i] = 0.0f;
    qc_parameters(c->isa, c->type, blocks, c->rows, c->columns, before, before + subs);
    if (qc_assign(c->isa, c->type, x, c->rows, c->columns, NULL, blocks, &place) == QC_OK) {
        qc_parameters(c->isa, c->type, blocks, c->rows, c->columns, after, after + subs);
        if (memcmp(before, after, (size_t)(2 * part))) fail("assign changed a parameter", "fuzz", c->isa), abort();
    }
    qc_set_parameters(c->isa, c->type, asked, asked, c->rows, c->columns, blocks, &place);
    free(blocks), free(x), free(before), free(after), free(asked);
}

/* What packed checkpoints hold: codes of every packing with arbitrary scales, zeros and an index of groups. */
static void try_packed(const chosen *c, const uint8_t *data, size_t size) {
    static const int BITS[QC_PACKINGS] = {4, 4, 2, 8, 8, 8, 8};
    const int64_t columns = 32 * (1 + data[0] % 7), group = 4 << data[1] % 6;
    qc_packed packed = {.packing = data[2] % QC_PACKINGS, .rows = c->rows, .columns = columns, .group = group};
    const int64_t row = columns * BITS[packed.packing] / 8, groups = packed.groups = (columns + group - 1) / group;
    const int64_t scales = c->rows * groups * (int64_t)sizeof(float);
    uint8_t *codes = filled(data, size, c->rows * row);
    float *scale = filled(data + size / 2, size - size / 2, scales), *zero = filled(data + 3, size - 3, scales);
    float *levels = filled(data, size, 16 * (int64_t)sizeof *levels);
    int32_t *index = allocate(columns * (int64_t)sizeof *index);
    for (int64_t i = 0; i < columns; ++i) index[i] = (int32_t)(data[(size_t)i % size] % groups);
    const int nibbles = packed.packing == QC_NIBBLES || packed.packing == QC_NIBBLES_HIGH;
    packed.codes = codes, packed.scale = scale, packed.index = data[3] & 1 ? index : NULL;
    packed.levels = nibbles && data[3] & 2 ? levels : NULL;
    packed.zero = !packed.levels && data[3] & 4 ? zero : NULL;
    float *out = allocate(c->rows * columns * (int64_t)sizeof *out);
    qc_unpack(c->isa, &packed, out);
    free(codes), free(scale), free(zero), free(levels), free(index), free(out);
}

/* Packings along columns, of shapes that are no multiples of what a turn takes at once. */
static void try_turns(const chosen *c, const uint8_t *data, size_t size) {
    const int64_t columns = 1 + data[0] % 40, rows = c->rows, of_eight = 8 * (1 + rows / 8);
    uint32_t *words = filled(data, size, of_eight * columns * (int64_t)sizeof *words);
    uint32_t *turned = allocate(rows * columns * (int64_t)sizeof *turned);
    uint32_t *nibbles = allocate(of_eight * columns * (int64_t)sizeof *nibbles);
    qc_turn_words(c->isa, words, rows, columns, turned);
    for (int64_t i = 0; i < rows * columns; ++i)
        if (turned[i % columns * rows + i / columns] != words[i]) fail("turned words", "fuzz", c->isa), abort();
    qc_turn_nibbles(c->isa, words, of_eight, columns, nibbles);
    free(words), free(turned), free(nibbles);
}

/* Weights as they are, and weights that lie on the type's grid, rounded to bf16 or not. */
static void try_snap(const chosen *c, const uint8_t *data, size_t size) {
    const int64_t count = c->rows * c->columns, blocks = count / c->block;
    if (!qc_can_snap(c->type)) return;
    qc_place place;
    uint8_t *given = filled(data, size, blocks * c->bytes), *found = allocate(blocks * c->bytes);
    uint8_t *carried = allocate(blocks);
    float *x = filled(data, size, count * (int64_t)sizeof *x);
    if (data[0] & 1) qc_decode(c->isa, c->type, given, c->rows, c->columns, x);
    for (int64_t i = 0; i < count && data[0] & 2; ++i) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits), bits &= 0xffff0000u, memcpy(x + i, &bits, sizeof bits);
    }
    memcpy(found, given, (size_t)(blocks * c->bytes));
    qc_snap(c->isa, c->type, x, c->rows, c->columns, data[0] & 4, found, carried, &place);
    free(given), free(found), free(carried), free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    chosen c;
    if (size < HEAD || !choose(data, &c)) return 0;
    try_blocks(&c, data + HEAD, size - HEAD);
    try_floats(&c, data + HEAD, size - HEAD);
    try_steps(&c, data + HEAD, size - HEAD);
    if (size < HEAD + 8) return 0;
    try_packed(&c, data + HEAD, size - HEAD);
    try_turns(&c, data + HEAD, size - HEAD);
    try_snap(&c, data + HEAD, size - HEAD);
    return 0;
}

#ifdef QC_FUZZ_MAIN
static const float ODD[] = {0.0f, -0.0f,    1e-45f, -1e-40f, 1e-30f,   1e-8f,
                            1.0f, 65504.0f, 1e5f,   1e30f,   -3.4e38f, INFINITY};

static void make(uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; ++i) data[i] = (uint8_t)random_bits();
    int kind = (int)(random_bits() % 4);
    for (size_t i = HEAD; kind && i + 4 <= size; i += 4) {
        float value = kind == 1 ? bell() : kind == 2 ? bell() * ODD[random_bits() % 11] : ODD[random_bits() % 12];
        memcpy(data + i, &value, sizeof value);
    }
}

/* Every input of some files, one after the other. */
static int replay(int count, char **names) {
    static uint8_t data[1 << 20];
    for (int i = 0; i < count; ++i) {
        FILE *file = fopen(names[i], "rb");
        if (!file) return perror(names[i]), 2;
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%d inputs of files, %d failures\n", count, failures);
    return failures != 0;
}

/* Memory for an input that is the content of the file, also after the program has died. */
static uint8_t *kept(int file) {
    if (file < 0 || ftruncate(file, MOST_BYTES)) return perror("the file for the input"), NULL;
    void *data = mmap(NULL, MOST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return data == MAP_FAILED ? NULL : data;
}

int main(int argc, char **argv) {
    char *end_of_number = NULL;
    double seconds = argc > 1 ? strtod(argv[1], &end_of_number) : 10;
    if (argc > 1 && *end_of_number) return replay(argc - 1, argv + 1);
    state += argc > 2 ? strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u : 0;
    static uint8_t own[MOST_BYTES];
    const int file = argc > 3 ? open(argv[3], O_RDWR | O_CREAT, 0666) : -1;
    uint8_t *data = argc > 3 ? kept(file) : own;
    if (!data) return 2;
    time_t end = time(NULL) + (time_t)seconds;
    uint64_t inputs = 0;
    while (time(NULL) < end)
        for (int i = 0; i < 100; ++i, ++inputs) {
            size_t size = HEAD + random_bits() % (MOST_BYTES - HEAD);
            if (file >= 0 && ftruncate(file, (off_t)size)) return perror(argv[3]), 2;
            make(data, size);
            LLVMFuzzerTestOneInput(data, size);
        }
    if (file >= 0 && !failures) unlink(argv[3]);
    printf("%" PRIu64 " inputs of the C entry points, %d failures\n", inputs, failures);
    return failures != 0;
}
#endif
