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

/* Claims from here on are the core's own. Same as MAX_CLAIMS in geolookup/claims.py. */
#define GL_MAX_CLAIMS 0xFF00

/* In a leaf of IPv6: look in the arrays. Below all embedded forms. */
#define GL_SOUGHT 0xFF00
/* What is found in a node of IPv4 that is taken for a leaf. */
#define GL_NO_CLAIM 0xFFFF

/* Boundaries in a leaf of IPv4, in one of IPv6, and in a branch. */
#define GL_KEYS4 15
#define GL_KEYS6 9
#define GL_KEYS_BRANCH 15

/* Leaves and branches are searched alike: interval, or child, i + 1 begins where key i says.
 * A key is some bits of that first address, less one; then the place of an address is the
 * number of keys below its own bits, and unused keys, which are the greatest there are, are
 * below none. Only the first interval, which has no key, can begin where the bits are 0.
 * Numbers are signed, as what vectors compare is; the least stands for 0. */

/* Keys are the lower 16 bits. Unused claims repeat the last. */
typedef struct {
    int16_t keys[GL_KEYS4];
    uint16_t claims[GL_KEYS4 + 1];
    uint16_t unused;
} gl_leaf4;

/* Divides by the lower six bits of the address, shifted to the right. Whoever takes it for
 * a leaf finds GL_NO_CLAIM. */
typedef struct {
    int16_t keys[GL_KEYS4]; /* the greatest, all of them */
    uint16_t no_claim;
    uint32_t base; /* the first child's slot, less one */
    uint16_t shift;
    uint16_t unused;
    uint64_t bits; /* the children that begin another slot */
    uint64_t filler[2];
} gl_node4;

/* Keys are 32 bits of the upper half, from the 24th on, which name a /56. */
typedef struct {
    int32_t keys[GL_KEYS6];
    uint32_t at; /* which interval of the arrays covers its beginning */
    uint16_t claims[GL_KEYS6 + 1];
    uint32_t fine; /* a gl_leaf4 for what says GL_SOUGHT, or 0 */
} gl_leaf6;

typedef struct {
    int32_t keys[GL_KEYS_BRANCH];
    uint32_t base; /* the first child's slot */
} gl_branch6;

typedef union {
    gl_leaf4 leaf4;
    gl_node4 node4;
    gl_leaf6 leaf6;
    gl_branch6 branch6;
} gl_slot;

_Static_assert(sizeof(gl_slot) == 64, "a slot is a cache line");
_Static_assert(offsetof(gl_leaf4, claims) == offsetof(gl_node4, no_claim),
               "a node can be taken for a leaf");

/* A range of 32 children. */
typedef struct {
    uint32_t bits;
    uint32_t base; /* as in gl_node4 */
} gl_top4;

/* References of IPv6: the upper bits are the levels of a tree, 0 for a claim; the others
 * its root's slot. */
#define GL_LEVEL 0x10000000u
#define GL_MAX_SLOTS GL_LEVEL

typedef struct {
    /* The truth; set by the caller. */
    const uint32_t *first4;
    const uint16_t *claim4;
    size_t n4;
    const uint64_t *high6, *low6;
    const uint16_t *claim6;
    size_t n6;
    /* The index; set by gl_table_build. */
    gl_slot *slots;
    gl_top4 *top4;
    unsigned shift4; /* what is left of an address is the place in top4 */
    uint32_t *pages6;
    uint16_t *top6;
    int mapped; /* all of ::ffff:0:0/96 is answered by the address inside */
    size_t index_bytes;
} gl_table;

#define GL_MAX_INTERVALS6 0x1FFFFFFF

GL_INLINE int gl_begins6(const gl_table *t, size_t i, uint64_t high, uint64_t low)
{
    return t->high6[i] < high || (t->high6[i] == high && t->low6[i] <= low);
}

/* Last interval that begins at or before the address; interval `at` must do so. */
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

#endif
