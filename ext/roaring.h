/* Sets of positions as Roaring bitmaps in the portable serialisation.
 *
 * https://github.com/RoaringBitmap/RoaringFormatSpec
 *
 * Plain C11. Each container of 65,536 positions takes the smallest of the three forms:
 * positions, bitset, or runs of neighbours.
 */
#ifndef GEOLOOKUP_ROARING_H
#define GEOLOOKUP_ROARING_H

#include "columns.h"

#define GL_CONTAINER 65536
#define GL_CONTAINER_WORDS (GL_CONTAINER / 64)
#define GL_BITSET_BYTES (GL_CONTAINER / 8)
/* Readers expect a bitset in a container without runs that holds more. */
#define GL_MOST_IN_ARRAY 4096
/* The two cookies, and the containers from which on a bitmap with runs has offsets. */
#define GL_ROARING_PLAIN 12346u
#define GL_ROARING_RUNS 12347u
#define GL_ROARING_OFFSETS 4

/* How many positions a container holds, and how many runs of neighbours. */
typedef struct {
    uint32_t size, runs;
} gl_container;

/* Bytes of a container as positions, or as a bitset where that is smaller. */
static inline size_t gl_plain_bytes(gl_container c)
{
    return c.size <= GL_MOST_IN_ARRAY ? 2 * (size_t)c.size : GL_BITSET_BYTES;
}

static inline size_t gl_runs_bytes(gl_container c)
{
    return 2 + 4 * (size_t)c.runs;
}

static inline int gl_has_runs(gl_container c)
{
    return gl_runs_bytes(c) < gl_plain_bytes(c);
}

/* Bytes before the `used` containers. */
static inline size_t gl_roaring_header(size_t used, int has_runs)
{
    if (!has_runs)
        return 8 + 8 * used;
    return 4 + (used + 7) / 8 + 4 * used + (used >= GL_ROARING_OFFSETS ? 4 * used : 0);
}

GL_INLINE unsigned gl_container_bitmap(const gl_selection *s, size_t container,
                                       uint64_t words[GL_CONTAINER_WORDS])
{
    size_t begin = container * GL_CONTAINER, n = s->n - begin;
    return gl_bitmap(s, begin, n < GL_CONTAINER ? n : GL_CONTAINER, words);
}

/* Measures each of the (n + 65535) / 65536 containers; returns the bytes of the whole
 * and leaves the last container's bitmap in `words`. */
GL_INLINE size_t gl_roaring_measure(const gl_selection *s, gl_container *containers,
                                    uint64_t words[GL_CONTAINER_WORDS], int isa)
{
    size_t used = 0, bytes = 0;
    int has_runs = 0;

    for (size_t c = 0; c * GL_CONTAINER < s->n; c++) {
        unsigned count = gl_container_bitmap(s, c, words);
        uint64_t before = 0; /* the last bit of the word before */
        gl_container found = {0, 0};
        for (unsigned i = 0; i < count; i++) {
            found.size += gl_count_bits64(words[i], isa);
            found.runs += gl_count_bits64(words[i] & ~(words[i] << 1 | before), isa);
            before = words[i] >> 63;
        }
        containers[c] = found;
        if (found.size > 0) {
            used++;
            bytes += gl_has_runs(found) ? gl_runs_bytes(found) : gl_plain_bytes(found);
            has_runs |= gl_has_runs(found);
        }
    }
    return gl_roaring_header(used, has_runs) + bytes;
}

static inline uint8_t *gl_put16(uint8_t *out, uint32_t x)
{
    out[0] = (uint8_t)x;
    out[1] = (uint8_t)(x >> 8);
    return out + 2;
}

static inline uint8_t *gl_put32(uint8_t *out, uint32_t x)
{
    return gl_put16(gl_put16(out, x), x >> 16);
}

GL_INLINE uint8_t *gl_put_array(uint8_t *out, const uint64_t *words, unsigned count, int isa)
{
    uint16_t positions[GL_MOST_IN_ARRAY + GL_OVERRUN];
    size_t n = gl_bit_positions(words, count, positions, isa);

    for (size_t i = 0; i < n; i++)
        gl_put16(out + 2 * i, positions[i]);
    return out + 2 * n;
}

static inline uint8_t *gl_put_bitset(uint8_t *out, const uint64_t *words, unsigned count)
{
    memset(out + 8 * (size_t)count, 0, GL_BITSET_BYTES - 8 * (size_t)count);
    for (unsigned i = 0; i < count; i++) {
        gl_put32(out + 8 * i, (uint32_t)words[i]);
        gl_put32(out + 8 * i + 4, (uint32_t)(words[i] >> 32));
    }
    return out + GL_BITSET_BYTES;
}

GL_INLINE uint8_t *gl_put_runs(uint8_t *out, uint64_t *words, unsigned count, uint32_t runs,
                               int isa)
{
    uint64_t lasts[GL_CONTAINER_WORDS];
    uint16_t first[GL_BITSET_BYTES / 4 + GL_OVERRUN], last[GL_BITSET_BYTES / 4 + GL_OVERRUN];
    uint64_t before = 0;

    for (unsigned i = 0; i < count; i++) {
        uint64_t word = words[i], after = i + 1 < count ? words[i + 1] << 63 : 0;
        lasts[i] = word & ~(word >> 1 | after);
        words[i] = word & ~(word << 1 | before);
        before = word >> 63;
    }
    gl_bit_positions(words, count, first, isa);
    gl_bit_positions(lasts, count, last, isa);
    out = gl_put16(out, runs);
    for (uint32_t i = 0; i < runs; i++)
        gl_put32(out + 4 * (size_t)i, first[i] | (uint32_t)(last[i] - first[i]) << 16);
    return out + 4 * (size_t)runs;
}

/* Writes what gl_roaring_measure measured, given what it left in `words`. */
GL_INLINE void gl_roaring_write(const gl_selection *s, const gl_container *containers,
                                uint64_t words[GL_CONTAINER_WORDS], uint8_t *out, int isa)
{
    uint8_t *begin = out, *flags = NULL, *offsets = NULL;
    uint32_t used = 0, number = 0;
    int has_runs = 0;

    for (size_t c = 0; c * GL_CONTAINER < s->n; c++) {
        used += containers[c].size > 0;
        has_runs |= containers[c].size > 0 && gl_has_runs(containers[c]);
    }
    if (has_runs) {
        flags = gl_put32(out, GL_ROARING_RUNS | (used - 1) << 16);
        memset(flags, 0, (used + 7) / 8);
        out = flags + (used + 7) / 8;
    } else {
        out = gl_put32(gl_put32(out, GL_ROARING_PLAIN), used);
    }
    for (size_t c = 0; c * GL_CONTAINER < s->n; c++)
        if (containers[c].size > 0)
            out = gl_put16(gl_put16(out, (uint32_t)c), containers[c].size - 1);
    if (!has_runs || used >= GL_ROARING_OFFSETS) {
        offsets = out;
        out += 4 * (size_t)used;
    }
    for (size_t c = 0; c * GL_CONTAINER < s->n; c++) {
        gl_container it = containers[c];
        if (it.size == 0)
            continue;
        size_t rest = s->n - c * GL_CONTAINER;
        unsigned count = (unsigned)((rest < GL_CONTAINER ? rest + 63 : GL_CONTAINER) / 64);
        if (s->n > GL_CONTAINER)
            gl_container_bitmap(s, c, words);
        if (offsets != NULL)
            gl_put32(offsets + 4 * (size_t)number, (uint32_t)(out - begin));
        if (gl_has_runs(it)) {
            flags[number / 8] |= (uint8_t)(1 << number % 8);
            out = gl_put_runs(out, words, count, it.runs, isa);
        } else if (it.size <= GL_MOST_IN_ARRAY) {
            out = gl_put_array(out, words, count, isa);
        } else {
            out = gl_put_bitset(out, words, count);
        }
        number++;
    }
}

#endif
