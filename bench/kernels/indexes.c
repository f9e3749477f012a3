/* Ways to find the interval of an address, on the same arrays: those that geolookup does not
 * use, and its own with parts left out. bench/indexes.py times them.
 *
 * Built twice: with -DPLAIN_PAGES the core's index lies in pages of the usual size.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef PLAIN_PAGES
#undef MADV_HUGEPAGE
#endif
#include "isa.h"

static gl_table table;
static int paths; /* of the core, that this processor has */

/* ------------------------------------------------------------ searches in the arrays */

/* Without a branch that depends on the address, as compilers make it of this form. */
static size_t halve4(size_t at, size_t n, uint32_t address)
{
    while (n > 1) {
        size_t half = n / 2;
        at = table.first4[at + half] <= address ? at + half : at;
        n -= half;
    }
    return at;
}

static unsigned search4(uint32_t address)
{
    return table.claim4[halve4(0, table.n4, address)];
}

static unsigned search6(const uint8_t *p, size_t at, size_t n)
{
    uint64_t high = gl_load_be64(p), low = gl_load_be64(p + 8);

    while (n > 1) {
        size_t half = n / 2;
        at = gl_begins6(&table, at + half, high, low) ? at + half : at;
        n -= half;
    }
    unsigned claim = table.claim6[at];
    return claim < GL_EMBEDDED_FIRST ? claim : search4(gl_embedded(claim, high, low));
}

void run_binary_search4(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint16_t)search4(gl_load_be32(packed + 4 * i));
}

void run_binary_search6(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint16_t)search6(packed + 16 * i, 0, table.n6);
}

/* ----------------------------------- a table of /16s that says where to search, and how far */

static uint32_t *places; /* 2^16 + 1 */

static int build_places(void)
{
    size_t at = 0;

    places = malloc((65536 + 1) * sizeof *places);
    if (places == NULL)
        return 0;
    for (uint32_t i = 0; i < 65536; i++) {
        while (at + 1 < table.n4 && table.first4[at + 1] <= i << 16)
            at++;
        places[i] = (uint32_t)at;
    }
    places[65536] = (uint32_t)table.n4 - 1;
    return 1;
}

void run_table_of_16_and_search4(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t address = gl_load_be32(packed + 4 * i), begin = places[address >> 16];
        size_t count = places[(address >> 16) + 1] - begin + 1;
        out[i] = table.claim4[halve4(begin, count, address)];
    }
}

/* --------------------------------------- the direct table: a claim a /24, 32 MiB, or "search" */

#define SEARCH 0xFFFF

static uint16_t *direct;

static int build_direct(void)
{
    size_t at = 0, bytes = (size_t)1 << 25;

    direct = aligned_alloc((size_t)1 << 21, bytes);
    if (direct == NULL)
        return 0;
#ifdef MADV_HUGEPAGE
    madvise(direct, bytes, MADV_HUGEPAGE);
#endif
    for (uint32_t i = 0; i < 1u << 24; i++) {
        while (at + 1 < table.n4 && table.first4[at + 1] <= i << 8)
            at++;
        int whole = at + 1 == table.n4 || table.first4[at + 1] > (i << 8 | 0xFF);
        direct[i] = whole ? table.claim4[at] : SEARCH;
    }
    return 1;
}

static uint16_t in_direct(uint32_t address)
{
    uint16_t claim = direct[address >> 8];

    if (claim == SEARCH) {
        uint32_t begin = places[address >> 16];
        size_t count = places[(address >> 16) + 1] - begin + 1;
        claim = table.claim4[halve4(begin, count, address)];
    }
    return claim;
}

void run_direct_table4(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = in_direct(gl_load_be32(packed + 4 * i));
}

void run_direct_table_prefetched4(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t begun = 0; begun < n; begun += GL_BATCH) {
        size_t end = n - begun < GL_BATCH ? n : begun + GL_BATCH;
        for (size_t i = begun; i < end; i++)
            __builtin_prefetch(direct + (gl_load_be32(packed + 4 * i) >> 8));
        for (size_t i = begun; i < end; i++)
            out[i] = in_direct(gl_load_be32(packed + 4 * i));
    }
}

/* ------------------------ the same for IPv6: a table of /24s that says where to search. Of its
 * 64 MiB little is touched, as few of them are given to anybody. */

static uint32_t *places6; /* 2^24 + 1 */

static int build_places6(void)
{
    size_t at = 0;

    places6 = malloc((((size_t)1 << 24) + 1) * sizeof *places6);
    if (places6 == NULL)
        return 0;
    for (uint64_t i = 0; i < 1u << 24; i++) {
        while (at + 1 < table.n6 && gl_begins6(&table, at + 1, i << 40, 0))
            at++;
        places6[i] = (uint32_t)at;
    }
    places6[1u << 24] = (uint32_t)table.n6 - 1;
    return 1;
}

void run_table_of_24_and_search6(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = packed + 16 * i;
        uint32_t place = gl_load_be32(p) >> 8;
        size_t begin = places6[place];
        out[i] = (uint16_t)search6(p, begin, places6[place + 1] - begin + 1);
    }
}

/* Guesses the place from where the address lies between the ends, as long as that halves what
 * is left, and halves it otherwise. */
void run_interpolation6(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = packed + 16 * i;
        uint64_t high = gl_load_be64(p), low = gl_load_be64(p + 8);
        size_t at = 0, end = table.n6;
        while (end - at > 8) {
            uint64_t begin = table.high6[at], wide = table.high6[end - 1] - begin;
            size_t middle = at + (end - at) / 2, size = end - at;
            if (wide > 0 && high >= begin && high - begin <= wide) {
                size_t guess = at + (size_t)((double)(high - begin) / (double)wide * (double)size);
                guess = guess <= at ? at + 1 : guess >= end ? end - 1 : guess;
                if (gl_begins6(&table, guess, high, low))
                    at = guess;
                else
                    end = guess;
                if (end - at <= size / 2)
                    continue;
                middle = at + (end - at) / 2;
            }
            if (gl_begins6(&table, middle, high, low))
                at = middle;
            else
                end = middle;
        }
        out[i] = (uint16_t)search6(p, at, end - at);
    }
}

/* ------------------------------------------------------------------------- poptrie
 * After Asai and Ohara, "Poptrie" (SIGCOMM 2015): nodes of 64 children with a bitmap of those
 * that are nodes, and one of where a run of equal leaves begins. Above them a direct table. */

#define STRIDE 6

typedef struct {
    uint64_t nodes, runs;
    uint32_t first_node, first_leaf;
} node;

typedef struct {
    unsigned direct; /* bits of the address that the direct table takes */
    uint32_t *top;   /* a node, or a claim with TOP_LEAF */
    node *nodes;
    uint16_t *leaves;
    size_t node_count, node_room, leaf_count, leaf_room;
} trie;

#define TOP_LEAF 0x80000000u

static trie small_trie = {.direct = 14}, large_trie = {.direct = 20};

static int divided(uint64_t start, unsigned width, size_t at)
{
    return at + 1 < table.n4 && table.first4[at + 1] < start + ((uint64_t)1 << width);
}

/* Fills node `number`, which stands for 2^width addresses from `start`. */
static int grow(trie *t, size_t number, uint64_t start, unsigned width)
{
    unsigned below = width - STRIDE;
    size_t first_node = t->node_count, first_leaf = t->leaf_count, child = first_node;
    uint64_t nodes = 0, runs = 0;
    int last = -1;

    for (unsigned i = 0; i < 64; i++) {
        uint64_t begin = start + ((uint64_t)i << below);
        size_t at = halve4(0, table.n4, (uint32_t)begin);
        if (below > 0 && divided(begin, below, at)) {
            nodes |= (uint64_t)1 << i;
            t->node_count++;
        } else if (table.claim4[at] != last) {
            last = table.claim4[at];
            runs |= (uint64_t)1 << i;
            if (t->leaf_count == t->leaf_room) {
                t->leaf_room = 2 * t->leaf_room + 1024;
                t->leaves = realloc(t->leaves, t->leaf_room * sizeof *t->leaves);
                if (t->leaves == NULL)
                    return 0;
            }
            t->leaves[t->leaf_count++] = (uint16_t)last;
        }
    }
    if (t->node_count > t->node_room) {
        t->node_room = 2 * t->node_count + 1024;
        t->nodes = realloc(t->nodes, t->node_room * sizeof *t->nodes);
        if (t->nodes == NULL)
            return 0;
    }
    t->nodes[number] = (node){nodes, runs, (uint32_t)first_node, (uint32_t)first_leaf};
    for (unsigned i = 0; i < 64; i++)
        if (nodes >> i & 1 && !grow(t, child++, start + ((uint64_t)i << below), below))
            return 0;
    return 1;
}

static int build_trie(trie *t)
{
    unsigned width = 32 - t->direct;

    t->top = malloc(((size_t)1 << t->direct) * sizeof *t->top);
    if (t->top == NULL)
        return 0;
    for (uint64_t i = 0; i < (uint64_t)1 << t->direct; i++) {
        size_t at = halve4(0, table.n4, (uint32_t)(i << width));
        if (!divided(i << width, width, at)) {
            t->top[i] = TOP_LEAF | table.claim4[at];
            continue;
        }
        t->top[i] = (uint32_t)t->node_count++;
        if (t->node_count > t->node_room) {
            t->node_room = 2 * t->node_count + 1024;
            t->nodes = realloc(t->nodes, t->node_room * sizeof *t->nodes);
            if (t->nodes == NULL)
                return 0;
        }
        if (!grow(t, t->top[i], i << width, width))
            return 0;
    }
    return 1;
}

static size_t trie_bytes(const trie *t)
{
    return (((size_t)1 << t->direct) * sizeof *t->top + t->node_count * sizeof *t->nodes +
            t->leaf_count * sizeof *t->leaves);
}

__attribute__((target("popcnt"))) static uint16_t in_trie(const trie *t, uint32_t address)
{
    unsigned width = 32 - t->direct;
    uint32_t at = t->top[address >> width];

    if (at & TOP_LEAF)
        return (uint16_t)at;
    for (;;) {
        const node *in = t->nodes + at;
        width -= STRIDE;
        uint64_t until = ~(uint64_t)0 >> (63 - (address >> width & 63)), bit = until & ~(until >> 1);
        if (!(in->nodes & bit))
            return t->leaves[in->first_leaf + __builtin_popcountll(in->runs & until) - 1];
        at = in->first_node + (uint32_t)__builtin_popcountll(in->nodes & until) - 1;
    }
}

void run_small_poptrie4(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = in_trie(&small_trie, gl_load_be32(packed + 4 * i));
}

void run_large_poptrie4(const uint8_t *packed, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = in_trie(&large_trie, gl_load_be32(packed + 4 * i));
}

/* ------------------------------------------------------------------------ the core's */

int run_core(int path, int version, const uint8_t *packed, size_t n, uint16_t *out)
{
    if (path >= paths)
        return 0;
    (version == 4 ? gl_isas[path].classify4 : gl_isas[path].classify6)(&table, packed, n, out);
    return 1;
}

/* Each address from beginning to end before the next: nothing is prefetched. */
int run_core_one_by_one(int path, int version, const uint8_t *packed, size_t n, uint16_t *out)
{
    size_t width = version == 4 ? 4 : 16;

    if (path >= paths)
        return 0;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint16_t)gl_isas[path].claim_packed(&table, packed + width * i, width);
    return 1;
}

/* The places of the claims of IPv4 addresses, as items of 16 bits from the first slot on. */
static uint32_t *known;

/* Finds them. Returns 0 when there is no memory. */
int find_known(const uint8_t *packed, size_t n)
{
    uint32_t *more = realloc(known, (n + 1) * sizeof *known);

    if (more == NULL)
        return 0;
    known = more;
    for (size_t i = 0; i < n; i++) {
        uint32_t address = gl_load_be32(packed + 4 * i);
        int16_t number = gl_number4(address);
        uint32_t slot = gl_slot4(&table, address, GL_PORTABLE);
        while (gl_in_leaf4(&table, slot, number, GL_PORTABLE) == GL_NO_CLAIM)
            slot = gl_child4(&table.slots[slot].node4, address, GL_PORTABLE);
        const gl_leaf4 *leaf = &table.slots[slot].leaf4;
        known[i] = (uint32_t)(leaf->claims + gl_below4(leaf->keys, number, GL_PORTABLE) -
                              (const uint16_t *)table.slots);
    }
    return 1;
}

/* What remains when nothing is left to find: each claim is read where it is known to be,
 * in batches and prefetched as the core's lines are. */
void run_known(const uint8_t *packed, size_t n, uint16_t *out)
{
    const uint16_t *claims = (const uint16_t *)table.slots;

    (void)packed;
    for (size_t begin = 0; begin < n; begin += GL_BATCH) {
        size_t end = n - begin < GL_BATCH ? n : begin + GL_BATCH;
        for (size_t i = begin; i < end; i++)
            __builtin_prefetch(claims + known[i]);
        for (size_t i = begin; i < end; i++)
            out[i] = claims[known[i]];
    }
}

const char *path_name(int path)
{
    return path < paths ? gl_isas[path].name : NULL;
}

/* -------------------------------------------------------------------------- reading text
 * `texts`: each of them, with a 0 behind it, at `at[i]`, `at[i + 1] - at[i] - 1` long. */

int run_parse(int path, const char *texts, const uint32_t *at, size_t n, uint8_t *out)
{
    if (path >= paths)
        return 0;
    for (size_t i = 0; i < n; i++)
        gl_isas[path].parse(texts + at[i], at[i + 1] - at[i] - 1, out + 16 * i);
    return 1;
}

void run_inet_pton(int version, const char *texts, const uint32_t *at, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++)
        inet_pton(version == 4 ? AF_INET : AF_INET6, texts + at[i], out + 16 * i);
}

/* Builds everything; the arrays stay the caller's. Returns 0 when there is no memory. */
int build(const uint32_t *first4, const uint16_t *claim4, size_t n4, const uint64_t *high6,
          const uint64_t *low6, const uint16_t *claim6, size_t n6)
{
    paths = gl_count_isas(); /* asks the processor, which takes microseconds in a virtual machine */
    table = (gl_table){.first4 = first4, .claim4 = claim4, .n4 = n4, .high6 = high6,
                       .low6 = low6, .claim6 = claim6, .n6 = n6};
    return gl_table_build(&table) && build_places() && build_direct() && build_places6() &&
           build_trie(&small_trie) && build_trie(&large_trie);
}

size_t bytes_of_small_poptrie(void)
{
    return trie_bytes(&small_trie);
}

size_t bytes_of_large_poptrie(void)
{
    return trie_bytes(&large_trie);
}

size_t bytes_of_core(void)
{
    return table.index_bytes;
}
