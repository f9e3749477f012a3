/* Fuzzes the lookup table: any sorted arrays, each boundary and what lies beside it, on every
 * path, against a walk along the arrays.
 *
 * The input is a list of steps from one boundary to the next. Buffers end where they are
 * allocated to end, so that the sanitizers see every read beyond.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "index_build.h"
#include "cpu_dispatch.h"

#define MOST 700
#define CLAIMS 200

static unsigned walk4(const gl_table *t, uint32_t address)
{
    size_t at = 0;

    while (at + 1 < t->n4 && t->first4[at + 1] <= address)
        at++;
    return t->claim4[at];
}

static unsigned walk6(const gl_table *t, uint64_t high, uint64_t low)
{
    size_t at = 0;

    while (at + 1 < t->n6 &&
           (t->high6[at + 1] < high || (t->high6[at + 1] == high && t->low6[at + 1] <= low)))
        at++;
    if (t->claim6[at] < GL_EMBEDDED_FIRST)
        return t->claim6[at];
    return walk4(t, gl_embedded_ipv4(t->claim6[at], high, low));
}

static void put64(uint8_t *out, uint64_t x)
{
    for (int i = 7; i >= 0; i--, x >>= 8)
        out[i] = (uint8_t)x;
}

/* Holds every path to the walk; `n` addresses of 4 or 16 bytes. */
static void compare(const gl_table *t, const uint8_t *packed, size_t n, size_t width,
                    const uint16_t *right)
{
    uint16_t *out = malloc(2 * n);

    CHECK(out != NULL);
    for (int i = 0; i < gl_count_isas(); i++) {
        /* The size is different each time, so that the last batch is. */
        size_t some = n - (size_t)i % n;
        memset(out, 0, 2 * n);
        if (width == 4)
            gl_isas[i].classify4(t, packed, some, out);
        else
            gl_isas[i].classify6(t, packed, some, out);
        CHECK(memcmp(out, right, 2 * some) == 0);
        for (size_t k = 0; k < n; k += 7)
            CHECK(gl_isas[i].claim_packed(t, packed + width * k, width) == right[k]);
    }
    free(out);
}

static void check4(const gl_table *t)
{
    size_t n = 3 * t->n4;
    uint8_t *packed = malloc(4 * n);
    uint16_t *right = malloc(2 * n);

    CHECK(packed != NULL && right != NULL);
    for (size_t i = 0; i < n; i++) {
        uint32_t address = t->first4[i / 3] + (uint32_t)(i % 3) - 1;
        gl_store_be32(packed + 4 * i, address);
        right[i] = (uint16_t)walk4(t, address);
    }
    compare(t, packed, n, 4, right);
    free(packed);
    free(right);
}

static void check6(const gl_table *t)
{
    size_t n = 3 * t->n6;
    uint8_t *packed = malloc(16 * n);
    uint16_t *right = malloc(2 * n);

    CHECK(packed != NULL && right != NULL);
    for (size_t i = 0; i < n; i++) {
        uint64_t high = t->high6[i / 3], low = t->low6[i / 3];
        if (i % 3 == 0) /* one before */
            high -= low-- == 0;
        else if (i % 3 == 2)
            high += ++low == 0;
        put64(packed + 16 * i, high);
        put64(packed + 16 * i + 8, low);
        right[i] = (uint16_t)walk6(t, high, low);
    }
    compare(t, packed, n, 16, right);
    free(packed);
    free(right);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint32_t first4[MOST];
    static uint16_t claim4[MOST], claim6[MOST];
    static uint64_t high6[MOST], low6[MOST];
    gl_table t = {0};
    size_t position, n4 = 1, n6 = 1;
    uint32_t at = 0;
    uint64_t high = 0, low = 0;

    /* Three bytes a step: how far to shift, and by how much; the rest gives the claim. */
    claim4[0] = claim6[0] = 7;
    for (; size >= 3 && n4 < MOST && n6 < MOST; size -= 3, data += 3) {
        unsigned shift = data[0] & 127, by = data[1];
        uint16_t claim = data[2] % CLAIMS;
        if (data[0] & 128) {
            uint32_t next = shift < 32 ? at + ((uint32_t)by << shift) : at + 1;
            if (next <= at)
                continue;
            first4[n4] = at = next;
            claim4[n4++] = claim;
        } else {
            uint64_t more_low = shift < 64 ? (uint64_t)by << shift : 0;
            uint64_t more_high = shift >= 64 ? (uint64_t)by << (shift - 64) : 0;
            uint64_t next_low = low + more_low, next_high = high + more_high + (next_low < low);
            if (next_high < high || (next_high == high && next_low <= low))
                continue;
            high6[n6] = high = next_high;
            low6[n6] = low = next_low;
            claim6[n6++] = data[2] >= 248 ? 0xFF00 | data[2] : claim;
        }
    }
    /* Copies of the exact size. */
    t = (gl_table){.first4 = memcpy(malloc(4 * n4), first4, 4 * n4),
                   .claim4 = memcpy(malloc(2 * n4), claim4, 2 * n4),
                   .n4 = n4,
                   .high6 = memcpy(malloc(8 * n6), high6, 8 * n6),
                   .low6 = memcpy(malloc(8 * n6), low6, 8 * n6),
                   .claim6 = memcpy(malloc(2 * n6), claim6, 2 * n6),
                   .n6 = n6};
    CHECK(gl_table_check(&t, CLAIMS, &position) == GL_NO_FAULT);
    CHECK(gl_table_build(&t));
    check4(&t);
    check6(&t);
    gl_table_free(&t);
    free((void *)t.first4);
    free((void *)t.claim4);
    free((void *)t.high6);
    free((void *)t.low6);
    free((void *)t.claim6);
    return 0;
}
