/* support.h - what the drivers share: buffers of exact size, random numbers, the types' sizes, a count of failures. */
#ifndef QC_TESTS_SUPPORT_H
#define QC_TESTS_SUPPORT_H
#include "../quantcli.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPES = 43 }; /* type ids are below */

static int failures;

static void fail(const char *what, const char *name, int isa) {
    printf("FAILED %s: %s on %s\n", what, name, qc_isa_name(isa));
    if (++failures > 20) exit(1);
}

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

/* Block and bytes of the types, written down once more on purpose. */
static int find_block(int32_t type, int32_t *block, int32_t *bytes) {
    static const struct {
        uint8_t type;
        int16_t block, bytes;
    } sizes[] = {
        {0, 1, 4},     {1, 1, 2},      {2, 32, 18},    {3, 32, 20},    {6, 32, 22},    {7, 32, 24},
        {8, 32, 34},   {10, 256, 84},  {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210},
        {16, 256, 66}, {17, 256, 74},  {18, 256, 98},  {19, 256, 50},  {20, 32, 18},   {21, 256, 110},
        {22, 256, 82}, {23, 256, 136}, {28, 1, 8},     {29, 256, 56},  {30, 1, 2},     {34, 256, 54},
        {35, 256, 66}, {39, 32, 17},   {40, 64, 36},   {41, 128, 18},  {42, 64, 18},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i)
        if (sizes[i].type == type) {
            *block = sizes[i].block, *bytes = sizes[i].bytes;
            return 1;
        }
    return 0;
}
#endif
