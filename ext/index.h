/* The index over sorted interval arrays: its layout.
 *
 * Plain C11. Nothing here depends on Python, on files or on what a claim means, except
 * the embedded forms. A table is immutable once it is built, and any number of threads may
 * read it. index_build.h makes it, lookup.h finds one address in it, bulk.h many.
 *
 * The arrays are the caller's and decide everything; the index is derived from them. It is
 * made of slots of a cache line each, so that each step of a lookup costs one miss.
 *
 *   IPv4  top4 divides the address space into ranges of 32 children each, with one bit a child
 *         that is set where the child begins another slot: children with few boundaries share
 *         one. The slots of a range lie side by side. A slot is a leaf, which has the claims of
 *         up to 16 intervals, or a node, which divides a child with more of them into 64 in the
 *         same way.
 *   IPv6  top6[/16] -> page of 256 references, one for each /24: a claim, or the root of a tree
 *         over the next 32 bits of the address. Its branches have up to 16 children that
 *         lie side by side, its leaves hold up to 10 intervals, and the reference counts the
 *         branches on the way. The few intervals that begin below a /56 are searched in the
 *         arrays, from the interval that the leaf names.
 */
#ifndef GEOLOOKUP_INDEX_H
#define GEOLOOKUP_INDEX_H

#include <stddef.h>

#include "address.h"
#include "instruction_sets.h"

/* Claims from here on are the core's own. Same as MAX_CLAIMS in geolookup/answer/claims.py. */
#define GL_MAX_CLAIMS 0xFF00

/* As a claim in a leaf of IPv6: the arrays must be searched. Below all embedded forms. */
#define GL_SEARCH_ARRAYS 0xFF00
/* As a claim in IPv4: the slot is a node, which was read as a leaf. */
#define GL_NODE_MARK 0xFFFF

/* Boundaries in a leaf of IPv4, in one of IPv6, and in a branch. */
#define GL_LEAF4_KEYS 15
#define GL_LEAF6_KEYS 9
#define GL_BRANCH6_KEYS 15

/* Leaves and branches are searched alike. Key i is made of some bits of the first address of
 * interval, or child, i + 1, less one. So the rank of an address, the number of keys below its
 * own bits, is the number of its interval or child. Unused keys have the greatest value and are
 * below nothing. Only the first interval, which has no key, can begin where the bits are 0.
 * Keys are signed, as vector comparisons are; the least value stands for 0. */

/* Keys are the lower 16 bits. Unused claims repeat the last. */
typedef struct {
    int16_t keys[GL_LEAF4_KEYS];
    uint16_t claims[GL_LEAF4_KEYS + 1];
    uint16_t unused;
} gl_leaf4;

/* The lower six bits of the shifted address are the number of the child. Read as a leaf, a
 * node has the claim GL_NODE_MARK for every address. */
typedef struct {
    int16_t keys[GL_LEAF4_KEYS]; /* all have the greatest value */
    uint16_t mark;
    uint32_t base; /* the first child's slot, less one */
    uint16_t shift;
    uint16_t unused;
    uint64_t bits; /* the children that begin another slot */
    uint64_t padding[2];
} gl_node4;

/* Keys are bits 24 to 55 of the address: a /56 within its /24. */
typedef struct {
    int32_t keys[GL_LEAF6_KEYS];
    uint32_t interval; /* the one in the arrays that covers the leaf's first address */
    uint16_t claims[GL_LEAF6_KEYS + 1];
    uint32_t fine_leaf; /* slot of a gl_leaf4 for the claims GL_SEARCH_ARRAYS; 0: none */
} gl_leaf6;

typedef struct {
    int32_t keys[GL_BRANCH6_KEYS];
    uint32_t base; /* the first child's slot */
} gl_branch6;

typedef union {
    gl_leaf4 leaf4;
    gl_node4 node4;
    gl_leaf6 leaf6;
    gl_branch6 branch6;
} gl_slot;

_Static_assert(sizeof(gl_slot) == 64, "a slot is a cache line");
_Static_assert(offsetof(gl_leaf4, claims) == offsetof(gl_node4, mark),
               "a node can be read as a leaf");

/* A range of 32 children. */
typedef struct {
    uint32_t bits;
    uint32_t base; /* as in gl_node4 */
} gl_top4;

/* A reference of IPv6: the upper bits count the levels of a tree, 0 for a claim; the lower
 * ones are the slot of its root, or the claim. */
#define GL_LEVEL 0x10000000u
#define GL_MAX_SLOTS GL_LEVEL

typedef struct {
    /* The arrays; set by the caller. */
    const uint32_t *first4;
    const uint16_t *claim4;
    size_t n4;
    const uint64_t *high6, *low6;
    const uint16_t *claim6;
    size_t n6;
    /* The index; set by gl_table_build. */
    gl_slot *slots;
    gl_top4 *top4;
    unsigned shift4; /* an address shifted to the right by it is the index in top4 */
    uint32_t *pages6;
    uint16_t *top6;
    int mapped_is_embedded; /* all of ::ffff:0:0/96 is answered by the address inside */
    size_t index_bytes;
} gl_table;

#define GL_MAX_INTERVALS6 0x1FFFFFFF

/* Whether interval i begins at the address or before. */
GL_INLINE int gl_begins_by6(const gl_table *t, size_t i, uint64_t high, uint64_t low)
{
    return t->high6[i] < high || (t->high6[i] == high && t->low6[i] <= low);
}

/* Last interval that begins at or before the address; interval `at` must do so. */
GL_INLINE size_t gl_find_interval6(const gl_table *t, size_t at, uint64_t high, uint64_t low)
{
    size_t n = t->n6, step = 1, end;

    while (n - at > step && gl_begins_by6(t, at + step, high, low)) {
        at += step;
        step *= 2;
    }
    end = n - at > step ? at + step : n;
    while (end - at > 1) {
        size_t middle = at + (end - at) / 2;
        if (gl_begins_by6(t, middle, high, low))
            at = middle;
        else
            end = middle;
    }
    return at;
}

#endif
