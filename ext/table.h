/* The lookup table: sorted interval arrays, the indexes over them, the bulk loops.
 *
 * Plain C11. Nothing here knows of Python, of files or of what a claim means, except
 * the embedded forms. A table is immutable once built and any number of threads may
 * read it.
 *
 * The sorted arrays are the truth and stay the caller's. The indexes are derived from
 * them and answer the bulk of the addresses without a look at them:
 *
 *   IPv4  root4[/16] -> block of 8 words -> runs4. A word has one bit for each of 32
 *         /24s, set where the answer changes, and the number of runs before it, so
 *         that run + popcount is the run of a /24. Equal /16s share a block. A run is
 *         a claim, or says that the /24 is mixed and where in the arrays it begins.
 *   IPv6  root6[/16] -> page of 256 references, one a /24 -> blocks as above for
 *         8 bits each, whose runs are references: a claim, a block for the next 8
 *         bits, or a place in the arrays from where to search.
 *
 * A lookup in a big table is a chain of cache misses. The bulk loops therefore take a
 * batch of addresses through the chain one step at a time and prefetch the next step,
 * which costs a few instructions and lets the misses overlap.
 */
#ifndef GEOLOOKUP_TABLE_H
#define GEOLOOKUP_TABLE_H

#include <stdlib.h>

#include "parse.h"

/* Claims from here on are the core's own. Same as MAX_CLAIMS in geolookup/claims.py. */
#define GL_MAX_CLAIMS 0xFF00

/* Addresses a batch: big enough that a batch's first prefetches have arrived when its
 * second step begins, small enough that all its state stays in the first-level cache. */
#define GL_BATCH 256

/* Boundaries that are compared one after the other, without an index below them: as
 * many as a cache line of upper halves holds. */
#define GL_WINDOW 8

typedef struct {
    uint32_t bits;
    uint32_t run; /* runs before this word's, less one */
} gl_word;

typedef struct {
    /* The truth; set by the caller. */
    const uint32_t *first4;
    const uint16_t *claim4;
    size_t n4;
    const uint64_t *high6, *low6;
    const uint16_t *claim6;
    size_t n6;
    /* The indexes; set by gl_table_build. */
    uint16_t *root4, *runs4;
    uint32_t *base4;
    gl_word *words4;
    uint16_t *root6;
    uint32_t *pages6, *runs6;
    gl_word *words6;
    int mapped; /* all of ::ffff:0:0/96 is answered by the address inside */
    size_t index_bytes;
} gl_table;

/* A run of IPv4 from this value on: a mixed /24. The low byte counts the intervals
 * from the block's first to the one that covers the beginning of the /24; 255 also
 * stands for more. */
#define GL_MIXED GL_MAX_CLAIMS

/* References of IPv6: the three upper bits say what the others are. */
#define GL_TAG 0xE0000000u
#define GL_CLAIM 0x00000000u
#define GL_SEARCH 0x40000000u /* first interval; no limit to how many may follow */
#define GL_NEAR 0x60000000u   /* first interval; the answer is one of GL_WINDOW + 1 */
#define GL_BLOCK 0x80000000u  /* number of the block for the next 8 bits */
#define GL_MAX_INTERVALS6 0x1FFFFFFF

/* ------------------------------------------------------------ searches in the arrays */

/* Last interval that begins at or before the address. first4[at] must do so. */
GL_INLINE size_t gl_seek4(const gl_table *t, size_t at, uint32_t address)
{
    const uint32_t *first = t->first4;
    size_t n = t->n4, step = 4, end;

    if (n - at > 4) {
        size_t count = (size_t)(first[at + 1] <= address) + (first[at + 2] <= address) +
                       (first[at + 3] <= address) + (first[at + 4] <= address);
        at += count;
        if (count < 4)
            return at;
    }
    while (n - at > step && first[at + step] <= address) {
        at += step;
        step *= 2;
    }
    end = n - at > step ? at + step : n;
    while (end - at > 1) {
        size_t middle = at + (end - at) / 2;
        if (first[middle] <= address)
            at = middle;
        else
            end = middle;
    }
    return at;
}

GL_INLINE int gl_begins6(const gl_table *t, size_t i, uint64_t high, uint64_t low)
{
    return t->high6[i] < high || (t->high6[i] == high && t->low6[i] <= low);
}

/* As gl_seek4. */
GL_INLINE size_t gl_seek6(const gl_table *t, size_t at, uint64_t high, uint64_t low)
{
    size_t n = t->n6, step = 1, end;

    while (n - at > step && gl_begins6(t, at + step, high, low)) {
        at += step;
        step *= 2;
    }
    end = n - at > step ? at + step : n;
    while (end - at > 1) {
        size_t middle = at + (end - at) / 2;
        if (gl_begins6(t, middle, high, low))
            at = middle;
        else
            end = middle;
    }
    return at;
}

/* As gl_seek6, where the answer is at most GL_WINDOW intervals away, as many exist and
 * those up to the answer begin with a lower half of 0. */
GL_INLINE size_t gl_near6(const gl_table *t, size_t at, uint64_t high)
{
    const uint64_t *first = t->high6 + at;
    size_t count = 0;

    for (int i = 1; i <= GL_WINDOW; i++)
        count += first[i] <= high;
    return at + count;
}

/* ---------------------------------------------------------------------- building */

typedef struct {
    void *data;
    size_t count, room;
} gl_vector;

/* Makes room for `more` items; 0 when there is no memory. */
static inline int gl_reserve(gl_vector *v, size_t more, size_t width)
{
    if (v->room - v->count < more) {
        size_t room = v->room + v->room / 2 + more + 1024;
        void *data = realloc(v->data, room * width);
        if (data == NULL)
            return 0;
        v->data = data;
        v->room = room;
    }
    return 1;
}

/* Gives back the room that was not needed, and the data to its new owner. */
static inline void *gl_release(gl_vector *v, size_t width, size_t *total)
{
    void *data = realloc(v->data, (v->count ? v->count : 1) * width);
    *total += v->count * width;
    return data != NULL ? data : v->data;
}

/* A block in the making: eight words, filled from left to right. */
typedef struct {
    gl_word *words;
    int filled; /* words whose `run` is set */
    uint32_t last;
} gl_block;

/* Notes that the run `value` begins at `child`. Nonzero when it is a new run, which
 * the caller appends as number `runs`. */
static inline int gl_mark(gl_block *block, unsigned child, uint32_t value, size_t runs)
{
    if (block->filled > 0 && value == block->last)
        return 0;
    for (; block->filled <= (int)(child / 32); block->filled++)
        block->words[block->filled] = (gl_word){0, (uint32_t)runs - 1};
    block->words[child / 32].bits |= (uint32_t)1 << child % 32;
    block->last = value;
    return 1;
}

static inline void gl_finish(gl_block *block, size_t runs)
{
    for (; block->filled < 8; block->filled++)
        block->words[block->filled] = (gl_word){0, (uint32_t)runs - 1};
}

/* The block of the mixed /16 that begins at `start`, where interval `*at` lies; moves
 * `*at` to the last interval that begins in it. */
static inline int gl_build_block4(const gl_table *t, uint32_t start, size_t *at,
                                  gl_vector *words, gl_vector *bases, gl_vector *runs)
{
    uint32_t last = start + 0xFFFF;
    size_t i = *at, base = i;
    unsigned child = 0;

    if (!gl_reserve(words, 8, sizeof(gl_word)) || !gl_reserve(bases, 1, sizeof(uint32_t)) ||
        !gl_reserve(runs, 256, sizeof(uint16_t)))
        return 0;
    gl_block block = {(gl_word *)words->data + words->count, 0, 0};
    uint16_t *run = runs->data;
    ((uint32_t *)bases->data)[bases->count++] = (uint32_t)base;
    words->count += 8;
    for (;;) {
        int more = i + 1 < t->n4 && t->first4[i + 1] <= last;
        uint32_t next = more ? t->first4[i + 1] : 0;
        unsigned end = more ? (next - start) >> 8 : 256;
        if (child < end) {
            if (gl_mark(&block, child, t->claim4[i], runs->count))
                run[runs->count++] = t->claim4[i];
            child = end;
        }
        if (!more)
            break;
        if ((next & 0xFF) != 0) {
            size_t steps = i - base < 255 ? i - base : 255;
            uint16_t value = (uint16_t)(GL_MIXED | steps);
            if (gl_mark(&block, child, value, runs->count))
                run[runs->count++] = value;
            child++;
            while (i + 2 < t->n4 && t->first4[i + 2] <= (next | 0xFF))
                i++;
        }
        i++;
    }
    gl_finish(&block, runs->count);
    *at = i;
    return 1;
}

static inline int gl_build4(gl_table *t)
{
    gl_vector words = {0}, bases = {0}, runs = {0};
    uint32_t *uniform = calloc(65536, sizeof(uint32_t)); /* block of a claim, plus one */
    size_t at = 0;
    int done = 0;

    t->root4 = malloc(65536 * sizeof(uint16_t));
    if (uniform == NULL || t->root4 == NULL)
        goto out;
    for (uint32_t i = 0; i < 65536; i++) {
        const uint8_t octets[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        uint32_t block = (uint32_t)bases.count;
        if (at + 1 < t->n4 && t->first4[at + 1] <= i << 16)
            at++;
        if (at + 1 < t->n4 && t->first4[at + 1] <= (i << 16 | 0xFFFF)) {
            if (!gl_build_block4(t, i << 16, &at, &words, &bases, &runs))
                goto out;
        } else if (uniform[t->claim4[at]] != 0) {
            block = uniform[t->claim4[at]] - 1;
        } else {
            size_t same = at;
            gl_table one = *t;
            one.n4 = at + 1; /* no boundary within */
            if (!gl_build_block4(&one, i << 16, &same, &words, &bases, &runs))
                goto out;
            uniform[t->claim4[at]] = block + 1;
        }
        t->root4[gl_load_native16(octets)] = (uint16_t)block;
    }
    done = 1;
out:
    free(uniform);
    t->index_bytes += 65536 * sizeof(uint16_t);
    t->words4 = gl_release(&words, sizeof(gl_word), &t->index_bytes);
    t->base4 = gl_release(&bases, sizeof(uint32_t), &t->index_bytes);
    t->runs4 = gl_release(&runs, sizeof(uint16_t), &t->index_bytes);
    return done;
}

/* A unit of the IPv6 line whose block is still to be built. */
typedef struct {
    uint64_t start;
    size_t at; /* the interval that covers the start */
} gl_pending;

/* Where to look on for the addresses in start..last, where `at` covers the start and
 * `end` is the last interval that begins there. Blocks end at /64; below it, and where
 * few intervals begin, the arrays answer. */
static inline uint32_t gl_refer6(const gl_table *t, uint64_t start, uint64_t last, size_t at,
                                 size_t end, gl_vector *blocks)
{
    if (end - at <= GL_WINDOW && t->n6 > GL_WINDOW) {
        uint64_t low = 0;
        for (size_t i = at + 1; i <= end; i++)
            low |= t->low6[i];
        if (low != 0)
            return GL_SEARCH | (uint32_t)at;
        if (at + GL_WINDOW >= t->n6)
            at = t->n6 - GL_WINDOW - 1;
        return GL_NEAR | (uint32_t)at;
    }
    if (start == last || t->n6 <= GL_WINDOW)
        return GL_SEARCH | (uint32_t)at;
    ((gl_pending *)blocks->data)[blocks->count] = (gl_pending){start, at};
    return GL_BLOCK | (uint32_t)blocks->count++;
}

/* Children from `child` on, up to the next part's, share a reference. */
typedef struct {
    uint32_t child, ref;
} gl_part;

/* Divides the unit that begins at `start`, where interval `at` lies, into 256 children
 * of 2^shift upper halves. Returns how many parts they form, or 0 for no memory. */
static inline unsigned gl_divide6(const gl_table *t, uint64_t start, unsigned shift, size_t at,
                                  gl_part parts[256], gl_vector *blocks)
{
    uint64_t size = (uint64_t)1 << shift, last = start + (size << 8) - 1;
    unsigned child = 0, count = 0;

    if (!gl_reserve(blocks, 256, sizeof(gl_pending)))
        return 0;
    for (;;) {
        int more = at + 1 < t->n6 && t->high6[at + 1] <= last;
        uint64_t next = more ? t->high6[at + 1] : 0;
        unsigned end = more ? (unsigned)((next - start) >> shift) : 256;
        if (child < end) {
            /* The embedded forms are no answer yet: leave them to the search. */
            uint32_t claim = t->claim6[at];
            parts[count++] = (gl_part){
                child, claim < GL_EMBEDDED_FIRST ? claim : GL_SEARCH | (uint32_t)at};
            child = end;
        }
        if (!more)
            return count;
        at++;
        if ((next & (size - 1)) != 0 || t->low6[at] != 0) {
            uint64_t from = start + ((uint64_t)child << shift), to = from + size - 1;
            size_t until = gl_seek6(t, at, to, UINT64_MAX);
            parts[count++] = (gl_part){child, gl_refer6(t, from, to, at - 1, until, blocks)};
            child++;
            at = until;
        }
    }
}

static inline int gl_build6(gl_table *t)
{
    gl_vector pages = {0}, words = {0}, runs = {0}, blocks = {0};
    uint32_t *uniform = calloc(65536, sizeof(uint32_t)); /* page of a claim, plus one */
    gl_part parts[256];
    size_t at = 0, done = 0;
    unsigned shift = 32, count;
    int complete = 0;

    t->root6 = malloc(65536 * sizeof(uint16_t));
    if (uniform == NULL || t->root6 == NULL)
        goto out;
    for (uint64_t i = 0; i < 65536; i++) {
        const uint8_t prefix[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        uint64_t start = i << 48, last = start | 0xFFFFFFFFFFFF;
        uint32_t page = (uint32_t)(pages.count / 256);
        if (at + 1 < t->n6 && gl_begins6(t, at + 1, start, 0))
            at++;
        int mixed = at + 1 < t->n6 && t->high6[at + 1] <= last;
        /* An embedded form is sought from its own interval, so its page can be shared
         * only within the interval: these are never shared. */
        uint32_t *shared = mixed || t->claim6[at] >= GL_EMBEDDED_FIRST
                               ? NULL : uniform + t->claim6[at];
        if (shared != NULL && *shared != 0) {
            page = *shared - 1;
        } else {
            if (!gl_reserve(&pages, 256, sizeof(uint32_t)) ||
                (count = gl_divide6(t, start, 40, at, parts, &blocks)) == 0)
                goto out;
            uint32_t *refs = (uint32_t *)pages.data + pages.count;
            for (unsigned k = 0, child = 0; k < count; k++)
                for (unsigned end = k + 1 < count ? parts[k + 1].child : 256; child < end; child++)
                    refs[child] = parts[k].ref;
            pages.count += 256;
            if (shared != NULL)
                *shared = page + 1;
        }
        t->root6[gl_load_native16(prefix)] = (uint16_t)page;
        at = gl_seek6(t, at, last, UINT64_MAX);
    }
    /* The blocks wait in the order of their numbers, level by level. */
    for (size_t level = blocks.count; done < blocks.count; done++) {
        if (done == level) {
            level = blocks.count;
            shift -= 8;
        }
        gl_pending unit = ((gl_pending *)blocks.data)[done];
        if (!gl_reserve(&words, 8, sizeof(gl_word)) ||
            !gl_reserve(&runs, 256, sizeof(uint32_t)) ||
            (count = gl_divide6(t, unit.start, shift, unit.at, parts, &blocks)) == 0)
            goto out;
        gl_block block = {(gl_word *)words.data + words.count, 0, 0};
        words.count += 8;
        for (unsigned i = 0; i < count; i++)
            if (gl_mark(&block, parts[i].child, parts[i].ref, runs.count))
                ((uint32_t *)runs.data)[runs.count++] = parts[i].ref;
        gl_finish(&block, runs.count);
    }
    at = gl_seek6(t, 0, 0, 0xFFFF00000000);
    t->mapped = t->claim6[at] == GL_EMBEDDED_LOW32 &&
                (at + 1 == t->n6 || !gl_begins6(t, at + 1, 0, 0xFFFFFFFFFFFF));
    complete = 1;
out:
    free(uniform);
    free(blocks.data);
    t->index_bytes += 65536 * sizeof(uint16_t);
    t->pages6 = gl_release(&pages, sizeof(uint32_t), &t->index_bytes);
    t->words6 = gl_release(&words, sizeof(gl_word), &t->index_bytes);
    t->runs6 = gl_release(&runs, sizeof(uint32_t), &t->index_bytes);
    return complete;
}

static inline void gl_table_free(gl_table *t)
{
    free(t->root4);
    free(t->words4);
    free(t->base4);
    free(t->runs4);
    free(t->root6);
    free(t->pages6);
    free(t->words6);
    free(t->runs6);
    t->root4 = t->runs4 = t->root6 = NULL;
    t->base4 = t->pages6 = t->runs6 = NULL;
    t->words4 = t->words6 = NULL;
    t->index_bytes = 0;
}

/* What is wrong with a table's arrays. */
typedef enum {
    GL_SOUND = 0,
    GL_FIRST4_START,
    GL_FIRST4_ORDER,
    GL_CLAIM4_UNKNOWN,
    GL_HIGH6_START,
    GL_LOW6_START,
    GL_FIRST6_ORDER,
    GL_CLAIM6_UNKNOWN
} gl_fault;

/* Checks arrays of the right lengths, one item at least: they must ascend strictly from
 * 0 and hold claims below `limit`, or in IPv6 an embedded form. The first fault's place
 * goes to *position. The loops look at everything, which is quicker than leaving early. */
static inline gl_fault gl_table_check(const gl_table *t, unsigned limit, size_t *position)
{
    unsigned wrong = 0;
    size_t i;

    *position = 0;
    if (t->first4[0] != 0)
        return GL_FIRST4_START;
    if (t->high6[0] != 0)
        return GL_HIGH6_START;
    if (t->low6[0] != 0)
        return GL_LOW6_START;
    for (i = 1; i < t->n4; i++)
        wrong |= t->first4[i] <= t->first4[i - 1];
    if (wrong) {
        for (i = 1; t->first4[i] > t->first4[i - 1]; i++)
            ;
        *position = i;
        return GL_FIRST4_ORDER;
    }
    for (i = 0; i < t->n4; i++)
        wrong |= t->claim4[i] >= limit;
    if (wrong) {
        for (i = 0; t->claim4[i] < limit; i++)
            ;
        *position = i;
        return GL_CLAIM4_UNKNOWN;
    }
    for (i = 1; i < t->n6; i++)
        wrong |= (unsigned)gl_begins6(t, i, t->high6[i - 1], t->low6[i - 1]);
    if (wrong) {
        for (i = 1; !gl_begins6(t, i, t->high6[i - 1], t->low6[i - 1]); i++)
            ;
        *position = i;
        return GL_FIRST6_ORDER;
    }
    for (i = 0; i < t->n6; i++)
        wrong |= (t->claim6[i] >= limit) & (t->claim6[i] < GL_EMBEDDED_FIRST);
    if (wrong) {
        for (i = 0; t->claim6[i] < limit || t->claim6[i] >= GL_EMBEDDED_FIRST; i++)
            ;
        *position = i;
        return GL_CLAIM6_UNKNOWN;
    }
    return GL_SOUND;
}

/* Builds the indexes over arrays that gl_table_check finds sound, at most
 * GL_MAX_INTERVALS6 of IPv6, with a limit of at most GL_MAX_CLAIMS. The index members
 * must be 0. Returns 0 when there is no memory; gl_table_free is due in either case. */
static inline int gl_table_build(gl_table *t)
{
    return gl_build4(t) && gl_build6(t);
}

/* ------------------------------------------------------------------ single lookups */

/* Run of the child; only the low five bits of `child` count. */
GL_INLINE uint32_t gl_rank(const gl_word *word, unsigned child, int isa)
{
    return word->run + gl_count_bits(word->bits << (~child & 31), isa);
}

GL_INLINE const gl_word *gl_word4(const gl_table *t, const uint8_t *p)
{
    return t->words4 + t->root4[gl_load_native16(p)] * 8u + (p[2] >> 5);
}

/* Where in the arrays a mixed /24 with this run begins. */
GL_INLINE size_t gl_mixed4(const gl_table *t, const uint8_t *p, unsigned run)
{
    return (size_t)t->base4[t->root4[gl_load_native16(p)]] + (run & 0xFF);
}

GL_INLINE unsigned gl_claim4(const gl_table *t, const uint8_t *p, int isa)
{
    unsigned claim = t->runs4[gl_rank(gl_word4(t, p), p[2], isa)];
    if (claim >= GL_MIXED)
        claim = t->claim4[gl_seek4(t, gl_mixed4(t, p, claim), gl_load_be32(p))];
    return claim;
}

GL_INLINE uint32_t gl_page6(const gl_table *t, const uint8_t *p)
{
    return t->pages6[t->root6[gl_load_native16(p)] * 256u + p[2]];
}

/* Number of the word for a byte of the address. */
GL_INLINE uint32_t gl_word6(uint32_t ref, unsigned byte)
{
    return (ref & ~GL_TAG) * 8 + (byte >> 5);
}

GL_INLINE size_t gl_search6(const gl_table *t, uint32_t ref, uint64_t high, uint64_t low)
{
    size_t at = ref & ~GL_TAG;
    return (ref & GL_TAG) == GL_NEAR ? gl_near6(t, at, high) : gl_seek6(t, at, high, low);
}

GL_INLINE int gl_is_mapped(const uint8_t *p)
{
    uint64_t high;
    uint32_t middle;
    memcpy(&high, p, 8);
    memcpy(&middle, p + 8, 4);
    return (high | (middle ^ GL_NETWORK32(0xFFFF))) == 0;
}

GL_INLINE unsigned gl_claim6(const gl_table *t, const uint8_t *p, int isa)
{
    if (gl_is_mapped(p) & t->mapped)
        return gl_claim4(t, p + 12, isa);

    uint32_t ref = gl_page6(t, p);
    for (unsigned byte = 3; ref >= GL_BLOCK; byte++) {
        const gl_word *word = t->words6 + gl_word6(ref, p[byte]);
        ref = t->runs6[gl_rank(word, p[byte], isa)];
    }
    if (ref < GL_SEARCH)
        return ref;
    uint64_t high = gl_load_be64(p), low = gl_load_be64(p + 8);
    unsigned claim = t->claim6[gl_search6(t, ref, high, low)];
    if (claim >= GL_EMBEDDED_FIRST) {
        uint8_t inside[4];
        gl_store_be32(inside, gl_embedded(claim, high, low));
        claim = gl_claim4(t, inside, isa);
    }
    return claim;
}

/* -------------------------------------------------------------------- bulk lookups */

/* Finishes the addresses of a batch that lie in mixed /24s: `list` has their places. */
GL_INLINE void gl_finish4(const gl_table *t, const uint8_t *packed, uint16_t *out,
                          const uint16_t *list, unsigned count)
{
    uint32_t at[GL_BATCH];

    for (unsigned k = 0; k < count; k++) {
        at[k] = (uint32_t)gl_mixed4(t, packed + 4 * list[k], out[list[k]]);
        __builtin_prefetch(t->first4 + at[k] + 1);
    }
    for (unsigned k = 0; k < count; k++) {
        at[k] = (uint32_t)gl_seek4(t, at[k], gl_load_be32(packed + 4 * list[k]));
        __builtin_prefetch(t->claim4 + at[k]);
    }
    for (unsigned k = 0; k < count; k++)
        out[list[k]] = t->claim4[at[k]];
}

/* A batch: at most GL_BATCH addresses. */
GL_INLINE void gl_batch4(const gl_table *t, const uint8_t *packed, unsigned n, uint16_t *out,
                         int isa)
{
    uint32_t step[GL_BATCH];
    uint16_t mixed[GL_BATCH];
    unsigned count = 0;

    GL_UNROLL
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = packed + 4 * i;
        step[i] = t->root4[gl_load_native16(p)] * 8u + (p[2] >> 5);
        __builtin_prefetch(t->words4 + step[i]);
    }
    GL_UNROLL
    for (unsigned i = 0; i < n; i++) {
        step[i] = gl_rank(t->words4 + step[i], packed[4 * i + 2], isa);
        __builtin_prefetch(t->runs4 + step[i]);
    }
    GL_UNROLL
    for (unsigned i = 0; i < n; i++) {
        uint16_t claim = t->runs4[step[i]];
        out[i] = claim;
        mixed[count] = (uint16_t)i;
        count += claim >= GL_MIXED;
    }
    gl_finish4(t, packed, out, mixed, count);
}

/* Answers IPv6 addresses by the IPv4 addresses inside them, packed in `inside`. */
GL_INLINE void gl_answer_inside(const gl_table *t, const uint8_t *inside, const uint16_t *list,
                                unsigned count, uint16_t *out, int isa)
{
    uint16_t claims[GL_BATCH];

    gl_batch4(t, inside, count, claims, isa);
    for (unsigned k = 0; k < count; k++)
        out[list[k]] = claims[k];
}

/* Finishes the addresses of a batch that the arrays must answer. `ref` has their
 * references. */
GL_INLINE void gl_finish6(const gl_table *t, const uint8_t *packed, uint16_t *out,
                          const uint16_t *list, uint32_t *ref, unsigned count, int isa)
{
    uint8_t inside[4 * GL_BATCH];
    uint16_t embedded[GL_BATCH];
    unsigned forms = 0;

    for (unsigned k = 0; k < count; k++) {
        const uint8_t *p = packed + 16 * (size_t)list[k];
        ref[k] = (uint32_t)gl_search6(t, ref[k], gl_load_be64(p), gl_load_be64(p + 8));
        __builtin_prefetch(t->claim6 + ref[k]);
    }
    for (unsigned k = 0; k < count; k++) {
        unsigned claim = t->claim6[ref[k]];
        out[list[k]] = (uint16_t)claim;
        if (claim >= GL_EMBEDDED_FIRST) {
            const uint8_t *p = packed + 16 * (size_t)list[k];
            gl_store_be32(inside + 4 * forms,
                          gl_embedded(claim, gl_load_be64(p), gl_load_be64(p + 8)));
            embedded[forms++] = list[k];
        }
    }
    if (forms > 0)
        gl_answer_inside(t, inside, embedded, forms, out, isa);
}

/* Takes the IPv4-mapped addresses out of a batch and answers them; the places of the
 * others are left in `list`, and their number is returned. */
GL_INLINE unsigned gl_answer_mapped(const gl_table *t, const uint8_t *packed, unsigned n,
                                    uint16_t *list, uint16_t *out, int isa)
{
    uint8_t inside[4 * GL_BATCH];
    uint16_t mapped[GL_BATCH];
    unsigned count = 0, others = 0;

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = packed + 16 * i;
        unsigned is_mapped = (unsigned)gl_is_mapped(p);
        memcpy(inside + 4 * count, p + 12, 4);
        mapped[count] = (uint16_t)i;
        list[others] = (uint16_t)i;
        count += is_mapped;
        others += is_mapped ^ 1;
    }
    if (count > 0)
        gl_answer_inside(t, inside, mapped, count, out, isa);
    return others;
}

/* A batch: at most GL_BATCH addresses. The bytes 3, 4, ... of an address choose the
 * child at each level of blocks. */
GL_INLINE void gl_batch6(const gl_table *t, const uint8_t *packed, unsigned n, uint16_t *out,
                         int isa)
{
    uint32_t ref[GL_BATCH], step[GL_BATCH], zero = t->pages6[t->root6[0] * 256u];
    uint16_t list[GL_BATCH];
    unsigned active = 0, count = 0, zeros = 0;

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = packed + 16 * i;
        uint32_t r = gl_page6(t, p);
        ref[i] = r;
        zeros += r == zero;
        list[active] = (uint16_t)i;
        step[active] = gl_word6(r, p[3]);
        __builtin_prefetch(t->words6 + step[active]);
        active += r >> 31;
    }
    for (unsigned byte = 3; active > 0; byte++) {
        const uint8_t *column = packed + byte;
        for (unsigned k = 0; k < active; k++) {
            step[k] = gl_rank(t->words6 + step[k], column[16 * (size_t)list[k]], isa);
            __builtin_prefetch(t->runs6 + step[k]);
        }
        column++;
        unsigned rest = active;
        active = 0;
        for (unsigned k = 0; k < rest; k++) {
            unsigned place = list[k];
            uint32_t r = t->runs6[step[k]];
            ref[place] = r;
            list[active] = (uint16_t)place;
            step[active] = gl_word6(r, column[16 * (size_t)place]);
            __builtin_prefetch(t->words6 + step[active]);
            active += r >> 31;
        }
    }
    if (zeros > 0 && t->mapped) {
        unsigned others = gl_answer_mapped(t, packed, n, list, out, isa);
        for (unsigned k = 0; k < others; k++) {
            uint32_t r = ref[list[k]];
            out[list[k]] = (uint16_t)r;
            list[count] = list[k];
            step[count] = r;
            const uint64_t *first = t->high6 + (r & ~GL_TAG) + 1;
            __builtin_prefetch(first);
            __builtin_prefetch(first + GL_WINDOW - 1);
            count += r >= GL_SEARCH;
        }
    } else {
        for (unsigned i = 0; i < n; i++) {
            uint32_t r = ref[i];
            out[i] = (uint16_t)r;
            list[count] = (uint16_t)i;
            step[count] = r;
            const uint64_t *first = t->high6 + (r & ~GL_TAG) + 1;
            __builtin_prefetch(first);
            __builtin_prefetch(first + GL_WINDOW - 1);
            count += r >= GL_SEARCH;
        }
    }
    if (count > 0)
        gl_finish6(t, packed, out, list, step, count, isa);
}

GL_INLINE void gl_classify4(const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out,
                            int isa)
{
    for (; n > GL_BATCH; n -= GL_BATCH, packed += 4 * GL_BATCH, out += GL_BATCH)
        gl_batch4(t, packed, GL_BATCH, out, isa);
    gl_batch4(t, packed, (unsigned)n, out, isa);
}

GL_INLINE void gl_classify6(const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out,
                            int isa)
{
    for (; n > GL_BATCH; n -= GL_BATCH, packed += 16 * GL_BATCH, out += GL_BATCH)
        gl_batch6(t, packed, GL_BATCH, out, isa);
    gl_batch6(t, packed, (unsigned)n, out, isa);
}

/* A roster of texts and packed addresses, one after the other in `bytes`, each with a
 * code: how many characters a text has, at most GL_LONGEST_TEXT, or one of these. */
enum { GL_PACKED4 = 0xF4, GL_PACKED6 = 0xF6, GL_UNREADABLE = 0xFF };

typedef struct {
    const char *bytes; /* GL_PADDING more can be read */
    const uint8_t *codes;
    size_t n;
} gl_items;

/* Reads one item into out, as gl_parse does; moves `*bytes` past it. */
GL_INLINE int gl_read_item(const char **bytes, uint8_t code, uint8_t out[16], int isa)
{
    const char *at = *bytes;

    if (code <= GL_LONGEST_TEXT) {
        *bytes += code;
        return gl_parse_padded(at, code, out, isa);
    }
    if (code == GL_PACKED4) {
        *bytes += 4;
        memcpy(out, at, 4);
        return 4;
    }
    if (code == GL_PACKED6) {
        *bytes += 16;
        memcpy(out, at, 16);
        return 6;
    }
    return 0;
}

GL_INLINE void gl_classify_items(const gl_table *t, const gl_items *items, uint16_t *out, int isa)
{
    const char *bytes = items->bytes;
    uint8_t four[4 * GL_BATCH + 16], six[16 * GL_BATCH];
    uint16_t four_places[GL_BATCH], six_places[GL_BATCH], claims[GL_BATCH];

    for (size_t begin = 0; begin < items->n; begin += GL_BATCH, out += GL_BATCH) {
        size_t rest = items->n - begin;
        unsigned n = rest < GL_BATCH ? (unsigned)rest : GL_BATCH, fours = 0, sixes = 0;
        for (unsigned i = 0; i < n; i++) {
            uint8_t address[16];
            int family = gl_read_item(&bytes, items->codes[begin + i], address, isa);
            if (family == 4) {
                memcpy(four + 4 * fours, address, 4);
                four_places[fours++] = (uint16_t)i;
            } else if (family == 6) {
                memcpy(six + 16 * sixes, address, 16);
                six_places[sixes++] = (uint16_t)i;
            } else {
                out[i] = 0;
            }
        }
        gl_batch4(t, four, fours, claims, isa);
        for (unsigned k = 0; k < fours; k++)
            out[four_places[k]] = claims[k];
        gl_batch6(t, six, sixes, claims, isa);
        for (unsigned k = 0; k < sixes; k++)
            out[six_places[k]] = claims[k];
    }
}

/* Reads a roster into 16 bytes an address, IPv4 in the last four, and its families. */
GL_INLINE void gl_parse_items(const gl_items *items, uint8_t *out, uint8_t *families, int isa)
{
    const char *bytes = items->bytes;

    for (size_t i = 0; i < items->n; i++, out += 16) {
        uint8_t address[16];
        int family = gl_read_item(&bytes, items->codes[i], address, isa);
        families[i] = (uint8_t)family;
        if (family == 6) {
            memcpy(out, address, 16);
        } else {
            memset(out, 0, 16);
            if (family == 4)
                memcpy(out + 12, address, 4);
        }
    }
}

/* Claim of one text, or of 4 or 16 packed bytes; 0 for what is no address. */
GL_INLINE unsigned gl_claim_text(const gl_table *t, const char *s, size_t n, int isa)
{
    uint8_t address[16];
    int family = gl_parse_exact(s, n, address, isa);

    if (family == 4)
        return gl_claim4(t, address, isa);
    return family == 6 ? gl_claim6(t, address, isa) : 0;
}

GL_INLINE unsigned gl_claim_packed(const gl_table *t, const uint8_t *p, size_t n, int isa)
{
    if (n == 4)
        return gl_claim4(t, p, isa);
    return n == 16 ? gl_claim6(t, p, isa) : 0;
}

#endif
