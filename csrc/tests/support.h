/* support.h - what the drivers share: buffers of exact size, random numbers, sizes of types, a count of failures. */
#ifndef QC_TESTS_SUPPORT_H
#define QC_TESTS_SUPPORT_H
#include "../blocks.h"
#include "../quantcli.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPES = QC_TYPES };

static int failures;

static void fail_on(const char *what, const char *name, const char *set) {
    printf("FAILED %s: %s on %s\n", what, name, set);
    if (++failures > 20) exit(1);
}
static void fail(const char *what, const char *name, int isa) { fail_on(what, name, qc_isa_name(isa)); }

static void *allocate(int64_t bytes) {
    void *p = malloc(bytes ? (size_t)bytes : 1);
    if (!p) {
        puts("out of memory");
        exit(2);
    }
    return p;
}

static uint64_t state = 88172645463325252u;

static uint32_t random_bits(void) { /* xorshift64: the same on every machine */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 32);
}

/* Roughly normal: exact sums and products, the same on every machine. */
static float bell(void) {
    int32_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += (int32_t)(random_bits() >> 12) - (1 << 19);
    return (float)sum * 0x1p-20f;
}

/* Block and bytes of a type; false: there is no such type. */
static int find_block(int32_t type, int32_t *block, int32_t *bytes) {
    const qc_layout *layout = qc_type_layout(type);
    if (layout) *block = layout->block, *bytes = layout->bytes;
    return layout != 0;
}
#endif
