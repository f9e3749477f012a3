/* The lookup table: sorted interval arrays, the index over them, the bulk loops.
 *
 * Plain C11. Nothing here knows of Python, of files or of what a claim means, except
 * the embedded forms. A table is immutable once built and any number of threads may
 * read it.
 *
 * The sorted arrays are the truth and stay the caller's. The index is derived from them:
 * slots of a cache line each, so that each step of a lookup costs one miss.
 *
 *   IPv4  top4 divides the line into ranges of 32 children each, with one bit a child that
 *         says whether it begins another slot, so that children with few boundaries share
 *         one; the slots of a range lie side by side. A slot is a leaf, which holds up to
 *         16 intervals and answers, or a node, which divides a child with more of them
 *         into 64 in the same way.
 *   IPv6  top6[/16] -> page of 256 references, one a /24: a claim, or the root of a tree
 *         over the next 32 bits of the address. Its branches have up to 16 children that
 *         lie side by side, its leaves hold up to 10 intervals, and the reference says how
 *         many branches there are on the way. What begins below /56, which little does,
 *         is sought in the arrays, from where the leaf says.
 *
 * A lookup in a big table is a chain of cache misses. The bulk loops therefore take a
 * batch of addresses through the chain one step at a time and prefetch the next step,
 * which costs a few instructions and lets the misses overlap.
 */
#ifndef GEOLOOKUP_TABLE_H
#define GEOLOOKUP_TABLE_H

#include <stddef.h>
#include <stdlib.h>

#include "parse.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* Claims from here on are the core's own. Same as MAX_CLAIMS in geolookup/claims.py. */
#define GL_MAX_CLAIMS 0xFF00

/* In a leaf of IPv6: look in the arrays. Below all embedded forms. */
#define GL_SOUGHT 0xFF00
/* What is found in a node of IPv4 that is taken for a leaf. */
#define GL_NO_CLAIM 0xFFFF

/* Addresses a batch: big enough that a batch's first prefetches have arrived when its
 * second step begins, small enough that all its state stays in the first-level cache. */
#define GL_BATCH 256

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

/* The ranges of top4 are /16s, and /19s where so many intervals begin that the children of
 * a /16 would mostly be nodes. */
#define GL_MANY4 ((size_t)1 << 20)

/* ------------------------------------------------------------ searches in the arrays */

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

/* ---------------------------------------------------------------------- building */

typedef struct {
    void *data;
    size_t count, room;
} gl_vector;

/* Makes room for `more` items; 0 when there is no memory. */
static inline int gl_reserve(gl_vector *v, size_t more, size_t width)
{
    if (more > GL_MAX_SLOTS || v->count > GL_MAX_SLOTS - more)
        return 0;
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

/* Part of the IPv4 line: 2^width addresses from `start`, which interval `at` covers;
 * `until` is the last that begins there. */
typedef struct {
    uint64_t start;
    size_t at, until;
    unsigned width;
    uint32_t slot;
} gl_part4;

/* An interval of the IPv6 line as its tree sees it: the /56 at which it begins, its claim or
 * GL_SOUGHT, and which interval of the arrays covers its beginning. */
typedef struct {
    uint64_t cell;
    uint32_t at;
    uint16_t claim;
} gl_entry6;

/* An index in the making. */
typedef struct {
    gl_vector slots, pages;
    gl_vector waiting; /* parts of IPv4 whose nodes are still to be filled */
    gl_vector entries; /* of the /24 of IPv6 that is being done */
    uint32_t *uniform; /* by claim: what all ranges without another share, plus one */
} gl_works;

/* The part that begins at `start`, where interval `at` is the last that begins before. */
static inline gl_part4 gl_cut4(const gl_table *t, uint64_t start, unsigned width, size_t at)
{
    uint64_t end = start + ((uint64_t)1 << width);
    if (at + 1 < t->n4 && t->first4[at + 1] == start)
        at++;
    size_t until = at; /* One after the other: most parts hold few. */
    while (until + 1 < t->n4 && t->first4[until + 1] < end)
        until++;
    return (gl_part4){start, at, until, width, 0};
}

static inline int16_t gl_key4(unsigned bits)
{
    return (int16_t)((int)bits - 0x8001);
}

static inline void gl_fill_leaf4(const gl_table *t, gl_part4 part, gl_slot *slot)
{
    size_t count = part.until - part.at;

    *slot = (gl_slot){.leaf4 = {.unused = 0}};
    for (size_t i = 0; i < GL_KEYS4; i++)
        slot->leaf4.keys[i] =
            i < count ? gl_key4((uint16_t)t->first4[part.at + 1 + i]) : INT16_MAX;
    for (size_t i = 0; i <= GL_KEYS4; i++)
        slot->leaf4.claims[i] = t->claim4[part.at + (i < count ? i : count)];
}

/* Divides a part into 2^bits children, at most 64, and fills their slots. Sets *base to the
 * first slot less one, and in *begins the bits of the children that begin another. */
static inline int gl_divide4(const gl_table *t, gl_works *works, gl_part4 part, unsigned bits,
                             uint32_t *base, uint64_t *begins)
{
    gl_part4 parts[64];
    unsigned step = part.width - bits, count = 0;
    /* Single addresses have the places that their lower six bits say. */
    unsigned first = step == 0 ? (unsigned)part.start & 63 : 0;
    size_t at = part.at;
    int open = 0; /* the last of `parts` is a leaf that may take more children */

    *begins = 0;
    for (unsigned child = 0; child < 1u << bits; child++) {
        if (open && at == part.until)
            break;
        if (open) /* on to the next child in which an interval begins */
            child = (unsigned)((t->first4[at + 1] - part.start) >> step);
        gl_part4 one = gl_cut4(t, part.start + ((uint64_t)child << step), step, at);
        at = one.until;
        if (open && at - parts[count - 1].at <= GL_KEYS4) {
            parts[count - 1].until = at;
            continue;
        }
        *begins |= (uint64_t)1 << (first + child);
        parts[count++] = one;
        open = one.until - one.at <= GL_KEYS4;
    }
    if (!gl_reserve(&works->slots, count, sizeof(gl_slot)) ||
        !gl_reserve(&works->waiting, count, sizeof(gl_part4)))
        return 0;
    *base = (uint32_t)works->slots.count - 1;
    for (unsigned i = 0; i < count; i++) {
        parts[i].slot = (uint32_t)works->slots.count++;
        if (parts[i].until - parts[i].at <= GL_KEYS4)
            gl_fill_leaf4(t, parts[i], (gl_slot *)works->slots.data + parts[i].slot);
        else
            ((gl_part4 *)works->waiting.data)[works->waiting.count++] = parts[i];
    }
    return 1;
}

static inline int gl_build4(const gl_table *t, gl_works *works, gl_top4 *top)
{
    size_t at = 0;

    memset(works->uniform, 0, 65536 * sizeof *works->uniform);
    for (uint64_t i = 0; i << t->shift4 >> 32 == 0; i++) {
        gl_part4 part = gl_cut4(t, i << t->shift4, t->shift4, at);
        int mixed = part.until > part.at;
        uint32_t *shared = mixed ? NULL : works->uniform + t->claim4[part.at];
        uint32_t base;
        uint64_t begins = 1;
        at = part.until;
        if (shared != NULL && *shared != 0)
            base = *shared - 1;
        else if (!gl_divide4(t, works, part, 5, &base, &begins))
            return 0;
        if (shared != NULL)
            *shared = base + 1;
        top[i] = (gl_top4){(uint32_t)begins, base};
    }
    for (size_t done = 0; done < works->waiting.count; done++) {
        gl_part4 part = ((gl_part4 *)works->waiting.data)[done];
        unsigned bits = part.width < 6 ? part.width : 6;
        gl_node4 node = {.no_claim = GL_NO_CLAIM, .shift = (uint16_t)(part.width - bits)};
        for (int k = 0; k < GL_KEYS4; k++)
            node.keys[k] = INT16_MAX;
        if (!gl_divide4(t, works, part, bits, &node.base, &node.bits))
            return 0;
        ((gl_slot *)works->slots.data)[part.slot].node4 = node;
    }
    return 1;
}

/* Of an upper half, the /56 that it lies in. Keys are the lower 32 bits of that. */
GL_INLINE uint64_t gl_cell6(uint64_t high)
{
    return high >> 8;
}

/* Lists the intervals of a /24 that begins at `start`, where interval *at is the last that
 * begins before; moves *at to the last that begins there. A cell that is divided is one
 * interval that says GL_SOUGHT. */
static inline int gl_list6(const gl_table *t, gl_works *works, uint64_t start, size_t *at)
{
    const uint64_t last = start | 0xFFFFFFFFFF;
    size_t i = *at, count = 1;
    gl_entry6 *entries;

    if (!gl_reserve(&works->entries, 1, sizeof *entries))
        return 0;
    entries = works->entries.data;
    if (i + 1 < t->n6 && t->high6[i + 1] == start && t->low6[i + 1] == 0)
        i++;
    entries[0] = (gl_entry6){gl_cell6(start), (uint32_t)i, t->claim6[i]};
    while (i + 1 < t->n6 && t->high6[i + 1] <= last) {
        size_t before = i++;
        uint64_t cell = gl_cell6(t->high6[i]);
        if (count + 2 > works->entries.room) {
            works->entries.count = count;
            if (!gl_reserve(&works->entries, 2, sizeof *entries))
                return 0;
            entries = works->entries.data;
        }
        if ((t->high6[i] & 0xFF) == 0 && t->low6[i] == 0) {
            /* A cell that was divided before had claimed this one for what follows it. */
            count -= entries[count - 1].cell == cell;
            entries[count++] = (gl_entry6){cell, (uint32_t)i, t->claim6[i]};
            continue;
        }
        if (entries[count - 1].cell == cell)
            entries[count - 1].claim = GL_SOUGHT;
        else
            entries[count++] = (gl_entry6){cell, (uint32_t)before, GL_SOUGHT};
        while (i + 1 < t->n6 && t->high6[i + 1] <= (t->high6[i] | 0xFF))
            i++;
        if ((t->high6[i] | 0xFF) != last)
            entries[count++] = (gl_entry6){cell + 1, (uint32_t)i, t->claim6[i]};
    }
    works->entries.count = count;
    *at = i;
    return 1;
}

static inline int32_t gl_key6(gl_entry6 entry)
{
    return (int32_t)(((uint32_t)entry.cell - 1) ^ 0x80000000);
}

/* Fills a leaf for what lies in the divided cells of a leaf. Its keys are the cell's place
 * there and the eighth byte of the address. Returns 0 where it can't hold them all. */
static inline int gl_fill_fine6(const gl_table *t, const gl_entry6 *entries, size_t count,
                                gl_leaf4 *fine)
{
    uint16_t keys[GL_KEYS4 + 1];
    size_t used = 0;

    for (size_t place = 0; place < count; place++) {
        size_t at = entries[place].at;
        if (entries[place].claim != GL_SOUGHT)
            continue;
        for (unsigned octet = 0;;) {
            if (used > GL_KEYS4)
                return 0;
            keys[used] = (uint16_t)(place << 8 | octet);
            fine->claims[used++] = t->claim6[at];
            if (at + 1 == t->n6 || gl_cell6(t->high6[at + 1]) != entries[place].cell)
                break;
            at++;
            if (t->low6[at] != 0)
                return 0;
            octet = t->high6[at] & 0xFF;
        }
    }
    for (size_t i = used; i <= GL_KEYS4; i++)
        fine->claims[i] = fine->claims[used - 1];
    for (size_t i = 0; i < GL_KEYS4; i++)
        fine->keys[i] = i + 1 < used ? gl_key4(keys[i + 1]) : INT16_MAX;
    return 1;
}

static inline int gl_fill_leaf6(const gl_table *t, gl_works *works, const gl_entry6 *entries,
                                size_t count, uint32_t slot)
{
    gl_leaf6 leaf = {.at = entries[0].at};
    int divided = 0;

    for (size_t i = 0; i < GL_KEYS6; i++)
        leaf.keys[i] = i + 1 < count ? gl_key6(entries[i + 1]) : INT32_MAX;
    for (size_t i = 0; i <= GL_KEYS6; i++) {
        leaf.claims[i] = entries[i < count ? i : count - 1].claim;
        divided |= leaf.claims[i] == GL_SOUGHT;
    }
    if (divided) {
        if (!gl_reserve(&works->slots, 1, sizeof(gl_slot)))
            return 0;
        gl_slot *fine = (gl_slot *)works->slots.data + works->slots.count;
        memset(fine, 0, sizeof *fine);
        if (gl_fill_fine6(t, entries, count, &fine->leaf4))
            leaf.fine = (uint32_t)works->slots.count++;
    }
    ((gl_slot *)works->slots.data)[slot].leaf6 = leaf;
    return 1;
}

/* Makes the tree over the entries. Returns the reference to it, or 0 for no memory. */
static inline uint32_t gl_plant6(const gl_table *t, gl_works *works)
{
    const gl_entry6 *entries = works->entries.data;
    /* Slots of a level, and the entries below each of them, full ones first. */
    size_t n = works->entries.count, span = GL_KEYS6 + 1, count = (n + span - 1) / span;
    uint32_t level = 1, base;

    if (!gl_reserve(&works->slots, count, sizeof(gl_slot)))
        return 0;
    base = (uint32_t)works->slots.count;
    works->slots.count += count;
    for (size_t i = 0; i < count; i++)
        if (!gl_fill_leaf6(t, works, entries + i * span,
                           n - i * span < span ? n - i * span : span, base + (uint32_t)i))
            return 0;
    for (; count > 1; level++) {
        size_t below = count;
        count = (below + GL_KEYS_BRANCH) / (GL_KEYS_BRANCH + 1);
        if (!gl_reserve(&works->slots, count, sizeof(gl_slot)))
            return 0;
        gl_slot *slots = (gl_slot *)works->slots.data + works->slots.count;
        for (size_t i = 0; i < count; i++) {
            size_t child = i * (GL_KEYS_BRANCH + 1);
            slots[i].branch6.base = base + (uint32_t)child;
            for (int k = 0; k < GL_KEYS_BRANCH; k++)
                slots[i].branch6.keys[k] =
                    ++child < below ? gl_key6(entries[child * span]) : INT32_MAX;
        }
        base = (uint32_t)works->slots.count;
        works->slots.count += count;
        span *= GL_KEYS_BRANCH + 1;
    }
    return level * GL_LEVEL | base;
}

static inline int gl_build6(const gl_table *t, gl_works *works, uint16_t *top)
{
    size_t at = 0;

    memset(works->uniform, 0, 65536 * sizeof *works->uniform);
    for (uint64_t i = 0; i < 65536; i++) {
        const uint8_t octets[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        uint16_t *page = top + gl_load_native16(octets);
        uint64_t start = i << 48;
        size_t first = at;
        if (at + 1 < t->n6 && gl_begins6(t, at + 1, start, 0))
            first++;
        int mixed = first + 1 < t->n6 && t->high6[first + 1] <= (start | 0xFFFFFFFFFFFF);
        uint32_t *shared = mixed ? NULL : works->uniform + t->claim6[first];
        if (shared != NULL && *shared != 0) {
            *page = (uint16_t)(*shared - 1);
            at = first;
            continue;
        }
        *page = (uint16_t)(works->pages.count / 256);
        if (shared != NULL)
            *shared = *page + 1u;
        if (!gl_reserve(&works->pages, 256, sizeof(uint32_t)))
            return 0;
        for (uint64_t child = 0; child < 256; child++) {
            uint32_t ref;
            if (!gl_list6(t, works, start + (child << 40), &at))
                return 0;
            ref = ((const gl_entry6 *)works->entries.data)[0].claim;
            if ((works->entries.count > 1 || ref == GL_SOUGHT) && (ref = gl_plant6(t, works)) == 0)
                return 0;
            ((uint32_t *)works->pages.data)[works->pages.count++] = ref;
        }
    }
    return 1;
}

/* Memory in huge pages where the system has them: an index is read at random, and with
 * small pages much of the time goes into finding them. */
static inline void *gl_allocate(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    void *memory = aligned_alloc(huge, (bytes + huge - 1) / huge * huge);

#if defined(MADV_HUGEPAGE)
    /* The rest stays in small pages: much of a huge one might never be used. */
    if (memory != NULL && bytes >= huge)
        madvise(memory, bytes / huge * huge, MADV_HUGEPAGE);
#endif
    return memory;
}

/* Puts the pieces of an index side by side, where they stay. */
static inline int gl_place(gl_table *t, const gl_works *works, const gl_top4 *top4,
                           const uint16_t *top6)
{
    size_t slots = works->slots.count * sizeof *t->slots;
    size_t tops = sizeof *top4 << (32 - t->shift4);
    size_t pages = works->pages.count * sizeof *t->pages6;
    size_t bytes = slots + tops + pages + 65536 * sizeof *top6;
    char *memory = gl_allocate(bytes);

    if (memory == NULL)
        return 0;
    t->slots = memcpy(memory, works->slots.data, slots);
    t->top4 = memcpy(memory + slots, top4, tops);
    t->pages6 = memcpy(memory + slots + tops, works->pages.data, pages);
    t->top6 = memcpy(memory + slots + tops + pages, top6, 65536 * sizeof *top6);
    t->index_bytes = bytes;
    return 1;
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

/* Builds the index over arrays that gl_table_check finds sound, at most
 * GL_MAX_INTERVALS6 of IPv6, with a limit of at most GL_MAX_CLAIMS. The index members
 * must be 0. Returns 0 when there is no memory; gl_table_free is due in either case. */
static inline int gl_table_build(gl_table *t)
{
    t->shift4 = t->n4 < GL_MANY4 ? 16 : 13;

    gl_works works = {.uniform = malloc(65536 * sizeof *works.uniform)};
    gl_top4 *top4 = malloc(sizeof *top4 << (32 - t->shift4));
    uint16_t *top6 = malloc(65536 * sizeof *top6);
    int complete = works.uniform != NULL && top4 != NULL && top6 != NULL &&
                   gl_build4(t, &works, top4) && gl_build6(t, &works, top6) &&
                   gl_place(t, &works, top4, top6);

    free(top4);
    free(top6);
    free(works.uniform);
    free(works.slots.data);
    free(works.pages.data);
    free(works.waiting.data);
    free(works.entries.data);
    size_t at = gl_seek6(t, 0, 0, 0xFFFF00000000);
    t->mapped = t->claim6[at] == GL_EMBEDDED_LOW32 &&
                (at + 1 == t->n6 || !gl_begins6(t, at + 1, 0, 0xFFFFFFFFFFFF));
    return complete;
}

static inline void gl_table_free(gl_table *t)
{
    free(t->slots);
    t->slots = NULL;
    t->top4 = NULL;
    t->pages6 = NULL;
    t->top6 = NULL;
    t->index_bytes = 0;
}

/* ------------------------------------------------------------------ single lookups */

/* What stands for the bits of an address among keys. */
GL_INLINE int16_t gl_number4(uint32_t address)
{
    return (int16_t)(uint16_t)(address ^ 0x8000);
}

GL_INLINE int32_t gl_number6(const uint8_t *p)
{
    return (int32_t)(gl_load_be32(p + 3) ^ 0x80000000);
}

#if defined(GL_X86)
GL_TARGET_AVX2 static inline unsigned gl_below4_avx2(const int16_t *keys, int16_t number)
{
    __m256i all = _mm256_load_si256((const __m256i *)keys);
    __m256i below = _mm256_cmpgt_epi16(_mm256_set1_epi16(number), all);
    /* Two bits a key; the last two are not one's. */
    return (unsigned)__builtin_popcount((unsigned)_mm256_movemask_epi8(below) << 2) / 2;
}

GL_TARGET_AVX512 static inline unsigned gl_below4_avx512(const int16_t *keys, int16_t number)
{
    __m256i all = _mm256_load_si256((const __m256i *)keys);
    __mmask16 below = _mm256_mask_cmpgt_epi16_mask(0x7FFF, _mm256_set1_epi16(number), all);
    return (unsigned)__builtin_popcount(below);
}

GL_TARGET_AVX2 static inline unsigned gl_below6_avx2(const int32_t *keys, int32_t number,
                                                     unsigned n)
{
    __m256i sought = _mm256_set1_epi32(number);
    __m256i low = _mm256_cmpgt_epi32(sought, _mm256_load_si256((const __m256i *)keys));
    __m256i high = _mm256_cmpgt_epi32(sought, _mm256_load_si256((const __m256i *)keys + 1));
    /* Two bits a key: four of the lower half, four of the higher, and so again. */
    unsigned below = (unsigned)_mm256_movemask_epi8(_mm256_packs_epi32(low, high));
    unsigned some = n == GL_KEYS6 ? 0x00FF03FF : 0x3FFFFFFF;
    return (unsigned)__builtin_popcount(below & some) / 2;
}

_Static_assert(GL_KEYS6 == 9 && GL_KEYS_BRANCH == 15, "as in gl_below6_avx2");

GL_TARGET_AVX512 static inline unsigned gl_below6_avx512(const int32_t *keys, int32_t number,
                                                         unsigned n)
{
    __mmask16 some = (__mmask16)((1u << n) - 1);
    __mmask16 below = _mm512_mask_cmpgt_epi32_mask(some, _mm512_set1_epi32(number),
                                                   _mm512_load_si512(keys));
    return (unsigned)__builtin_popcount(below);
}
#endif

/* How many keys of a leaf are below a number. Its claims are read with them. */
GL_INLINE unsigned gl_below4(const int16_t *keys, int16_t number, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_below4_avx512(keys, number);
    if (isa == GL_AVX2)
        return gl_below4_avx2(keys, number);
    const __m128i sought = _mm_set1_epi16(number), *all = (const __m128i *)keys;
    __m128i below = _mm_packs_epi16(_mm_cmplt_epi16(_mm_load_si128(all), sought),
                                    _mm_cmplt_epi16(_mm_load_si128(all + 1), sought));
    return (unsigned)__builtin_ctz(~(unsigned)_mm_movemask_epi8(below) | 1u << GL_KEYS4);
#else
    unsigned count = 0;
    (void)isa;
    for (int i = 0; i < GL_KEYS4; i++)
        count += keys[i] < number;
    return count;
#endif
}

/* How many of the first `n` keys, at most 15, of a leaf or branch. All of it is read. */
GL_INLINE unsigned gl_below6(const int32_t *keys, int32_t number, unsigned n, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_below6_avx512(keys, number, n);
    if (isa == GL_AVX2)
        return gl_below6_avx2(keys, number, n);
    const __m128i sought = _mm_set1_epi32(number), *all = (const __m128i *)keys;
    __m128i low = _mm_packs_epi32(_mm_cmplt_epi32(_mm_load_si128(all), sought),
                                  _mm_cmplt_epi32(_mm_load_si128(all + 1), sought));
    __m128i high = _mm_packs_epi32(_mm_cmplt_epi32(_mm_load_si128(all + 2), sought),
                                   _mm_cmplt_epi32(_mm_load_si128(all + 3), sought));
    unsigned below = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(low, high));
    return (unsigned)__builtin_ctz(~below | 1u << n);
#else
    unsigned count = 0;
    (void)isa;
    for (unsigned i = 0; i < n; i++)
        count += keys[i] < number;
    return count;
#endif
}

GL_INLINE uint32_t gl_slot4(const gl_table *t, uint32_t address, int isa)
{
    const gl_top4 *top = t->top4 + (address >> t->shift4);
    uint32_t child = address >> (t->shift4 - 5);
    return top->base + gl_count_bits(top->bits << (~child & 31), isa);
}

GL_INLINE uint32_t gl_child4(const gl_node4 *node, uint32_t address, int isa)
{
    uint32_t child = address >> node->shift;
    return node->base + gl_count_bits64(node->bits << (~child & 63), isa);
}

/* GL_NO_CLAIM: the slot is a node. */
GL_INLINE unsigned gl_in_leaf4(const gl_table *t, uint32_t slot, int16_t number, int isa)
{
    const gl_leaf4 *leaf = &t->slots[slot].leaf4;
    return leaf->claims[gl_below4(leaf->keys, number, isa)];
}

GL_INLINE unsigned gl_claim4(const gl_table *t, const uint8_t *p, int isa)
{
    uint32_t address = gl_load_be32(p), slot = gl_slot4(t, address, isa);
    unsigned claim;

    while ((claim = gl_in_leaf4(t, slot, gl_number4(address), isa)) == GL_NO_CLAIM)
        slot = gl_child4(&t->slots[slot].node4, address, isa);
    return claim;
}

GL_INLINE int gl_is_mapped(const uint8_t *p)
{
    uint64_t high;
    uint32_t middle;
    memcpy(&high, p, 8);
    memcpy(&middle, p + 8, 4);
    return (high | (middle ^ GL_NETWORK32(0xFFFF))) == 0;
}

GL_INLINE uint32_t gl_ref6(const gl_table *t, const uint8_t *p)
{
    return t->pages6[t->top6[gl_load_native16(p)] * 256u + p[2]];
}

/* Reference to the child of a branch. */
GL_INLINE uint32_t gl_child6(const gl_table *t, uint32_t ref, int32_t number, int isa)
{
    const gl_branch6 *branch = &t->slots[ref % GL_LEVEL].branch6;
    uint32_t child = branch->base + gl_below6(branch->keys, number, GL_KEYS_BRANCH, isa);
    return (ref & ~(GL_LEVEL - 1)) - GL_LEVEL + child;
}

/* GL_SOUGHT: the arrays must answer. */
GL_INLINE unsigned gl_in_leaf6(const gl_table *t, uint32_t ref, int32_t number, int isa)
{
    const gl_leaf6 *leaf = &t->slots[ref % GL_LEVEL].leaf6;
    return leaf->claims[gl_below6(leaf->keys, number, GL_KEYS6, isa)];
}

/* The same, with the eighth byte of the address, for what is GL_SOUGHT in the leaf. */
GL_INLINE unsigned gl_in_fine6(const gl_table *t, uint32_t ref, int32_t number, unsigned octet,
                               int isa)
{
    const gl_leaf6 *leaf = &t->slots[ref % GL_LEVEL].leaf6;
    unsigned place = gl_below6(leaf->keys, number, GL_KEYS6, isa);

    if (leaf->fine == 0)
        return GL_SOUGHT;
    return gl_in_leaf4(t, leaf->fine, gl_number4(place << 8 | octet), isa);
}

/* The same from the arrays. */
static inline unsigned gl_sought6(const gl_table *t, uint32_t ref, const uint8_t *p)
{
    size_t at = t->slots[ref % GL_LEVEL].leaf6.at;
    return t->claim6[gl_seek6(t, at, gl_load_be64(p), gl_load_be64(p + 8))];
}

GL_INLINE unsigned gl_claim6(const gl_table *t, const uint8_t *p, int isa)
{
    if (gl_is_mapped(p) & t->mapped)
        return gl_claim4(t, p + 12, isa);

    uint32_t ref = gl_ref6(t, p);
    int32_t number = gl_number6(p);
    while (ref >= 2 * GL_LEVEL)
        ref = gl_child6(t, ref, number, isa);
    unsigned claim = ref < GL_LEVEL ? ref : gl_in_leaf6(t, ref, number, isa);
    if (claim == GL_SOUGHT)
        claim = gl_in_fine6(t, ref, number, p[7], isa);
    if (claim == GL_SOUGHT)
        claim = gl_sought6(t, ref, p);
    if (claim >= GL_EMBEDDED_FIRST) {
        uint8_t inside[4];
        gl_store_be32(inside, gl_embedded(claim, gl_load_be64(p), gl_load_be64(p + 8)));
        claim = gl_claim4(t, inside, isa);
    }
    return claim;
}

/* -------------------------------------------------------------------- bulk lookups */

#if defined(GL_X86)
/* As the loop in gl_begin4. Reads and writes beyond `n`, up to GL_BATCH. */
GL_TARGET_AVX512 static inline void gl_begin4_avx512(const gl_table *t, const uint8_t *packed,
                                                     unsigned n, uint32_t *slot, int16_t *number)
{
    const __m512i swap = _mm512_broadcast_i32x4(
        _mm_set_epi64x(0x0C0D0E0F08090A0B, 0x0405060700010203));
    const __m512i evens = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4,
                                           2, 0);
    const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
    const __m128i range = _mm_cvtsi32_si128((int)t->shift4);
    const __m128i part = _mm_cvtsi32_si128((int)t->shift4 - 5);

    for (unsigned i = 0; i < n; i += 16) {
        __mmask16 some = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xFFFF);
        __m512i address = _mm512_maskz_loadu_epi32(some, packed + 4 * (size_t)i);
        address = _mm512_shuffle_epi8(address, swap);
        __m512i place = _mm512_srl_epi32(address, range);
        __m512i low = _mm512_i32gather_epi64(_mm512_castsi512_si256(place), t->top4, 8);
        __m512i high = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(place, 1), t->top4, 8);
        __m512i bits = _mm512_permutex2var_epi32(low, evens, high);
        __m512i base = _mm512_permutex2var_epi32(low, odds, high);
        __m512i child = _mm512_srl_epi32(address, part);
        __m512i behind = _mm512_andnot_si512(child, _mm512_set1_epi32(31));
        __m512i rank = _mm512_popcnt_epi32(_mm512_sllv_epi32(bits, behind));
        _mm512_storeu_si512(slot + i, _mm512_add_epi32(base, rank));
        _mm256_storeu_si256((__m256i *)(number + i),
                            _mm512_cvtepi32_epi16(_mm512_xor_si512(
                                address, _mm512_set1_epi32(0x8000))));
    }
    GL_UNROLL
    for (unsigned i = 0; i < n; i++)
        __builtin_prefetch(t->slots + slot[i]);
}

GL_TARGET_AVX512 static inline unsigned gl_list_avx512(const uint32_t *ref, unsigned n,
                                                       uint32_t least, uint32_t *list)
{
    __m512i place = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    unsigned count = 0;

    for (unsigned i = 0; i < n; i += 16) {
        __mmask16 some = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xFFFF);
        some = _mm512_mask_cmpge_epu32_mask(some, _mm512_loadu_si512(ref + i),
                                            _mm512_set1_epi32((int)least));
        _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32(some, place));
        count += (unsigned)__builtin_popcount(some);
        place = _mm512_add_epi32(place, _mm512_set1_epi32(16));
    }
    return count;
}

GL_TARGET_AVX512 static inline unsigned gl_list_claims_avx512(const uint16_t *claims, unsigned n,
                                                              uint16_t least, uint16_t *list)
{
    unsigned count = 0;

    for (unsigned i = 0; i < n; i += 32) {
        __mmask32 some = n - i < 32 ? (1u << (n - i)) - 1 : 0xFFFFFFFF;
        __m512i all = _mm512_maskz_loadu_epi16(some, claims + i);
        some = _mm512_mask_cmpge_epu16_mask(some, all, _mm512_set1_epi16((int16_t)least));
        for (; some != 0; some &= some - 1)
            list[count++] = (uint16_t)(i + (unsigned)__builtin_ctz(some));
    }
    return count;
}

/* Where 4 places go that a mask names: those that it names, one after the other. */
#define GL_PLACE(I) 4 * (I), 4 * (I) + 1, 4 * (I) + 2, 4 * (I) + 3
#define GL_PLACES(A, B, C, D) {GL_PLACE(A), GL_PLACE(B), GL_PLACE(C), GL_PLACE(D)}
static const uint8_t gl_compressed[16][16] = {
    GL_PLACES(0, 0, 0, 0), GL_PLACES(0, 0, 0, 0), GL_PLACES(1, 0, 0, 0), GL_PLACES(0, 1, 0, 0),
    GL_PLACES(2, 0, 0, 0), GL_PLACES(0, 2, 0, 0), GL_PLACES(1, 2, 0, 0), GL_PLACES(0, 1, 2, 0),
    GL_PLACES(3, 0, 0, 0), GL_PLACES(0, 3, 0, 0), GL_PLACES(1, 3, 0, 0), GL_PLACES(0, 1, 3, 0),
    GL_PLACES(2, 3, 0, 0), GL_PLACES(0, 2, 3, 0), GL_PLACES(1, 2, 3, 0), GL_PLACES(0, 1, 2, 3),
};

GL_TARGET_AVX2 static inline unsigned gl_list_avx2(const uint32_t *ref, unsigned n,
                                                   uint32_t least, uint32_t *list)
{
    /* References are below 2^31. */
    const __m128i below = _mm_set1_epi32((int)(least - 1)), step = _mm_set1_epi32(4);
    __m128i places = _mm_set_epi32(3, 2, 1, 0);
    unsigned count = 0, i = 0;

    for (; i + 4 <= n; i += 4) {
        __m128i some = _mm_cmpgt_epi32(_mm_loadu_si128((const __m128i *)(ref + i)), below);
        unsigned mask = (unsigned)_mm_movemask_ps(_mm_castsi128_ps(some));
        __m128i order = _mm_loadu_si128((const __m128i *)gl_compressed[mask]);
        _mm_storeu_si128((__m128i *)(list + count), _mm_shuffle_epi8(places, order));
        count += (unsigned)__builtin_popcount(mask);
        places = _mm_add_epi32(places, step);
    }
    for (; i < n; i++) {
        list[count] = i;
        count += ref[i] >= least;
    }
    return count;
}

GL_TARGET_AVX2 static inline unsigned gl_list_claims_avx2(const uint16_t *claims, unsigned n,
                                                          uint16_t least, uint16_t *list)
{
    const __m256i bound = _mm256_set1_epi16((int16_t)least);
    unsigned count = 0, i = 0;

    for (; i + 16 <= n; i += 16) {
        __m256i all = _mm256_loadu_si256((const __m256i *)(claims + i));
        __m256i reach = _mm256_cmpeq_epi16(_mm256_max_epu16(all, bound), all);
        unsigned some = (unsigned)_mm256_movemask_epi8(reach) & 0x55555555;
        for (; some != 0; some &= some - 1)
            list[count++] = (uint16_t)(i + (unsigned)__builtin_ctz(some) / 2);
    }
    for (; i < n; i++)
        if (claims[i] >= least)
            list[count++] = (uint16_t)i;
    return count;
}
#endif

/* Starts a batch: finds the slots, and what stands for each address among keys. */
GL_INLINE void gl_begin4(const gl_table *t, const uint8_t *packed, unsigned n, uint32_t *slot,
                         int16_t *number, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512) {
        gl_begin4_avx512(t, packed, n, slot, number);
        return;
    }
#endif
    GL_UNROLL
    for (unsigned i = 0; i < n; i++) {
        uint32_t address = gl_load_be32(packed + 4 * i);
        slot[i] = gl_slot4(t, address, isa);
        number[i] = gl_number4(address);
        __builtin_prefetch(t->slots + slot[i]);
    }
}

/* Lists the places of the claims that are not below `least`. There are few: looking at many
 * at once and then at the bits of a mask is quicker than a step for each. */
GL_INLINE unsigned gl_list_claims(const uint16_t *claims, unsigned n, uint16_t least,
                                  uint16_t *list, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_list_claims_avx512(claims, n, least, list);
    if (isa == GL_AVX2)
        return gl_list_claims_avx2(claims, n, least, list);
#endif
    unsigned count = 0;
    (void)isa;
    for (unsigned i = 0; i < n; i++) {
        list[count] = (uint16_t)i;
        count += claims[i] >= least;
    }
    return count;
}

/* Finishes the addresses of a batch that came to a node. */
GL_INLINE void gl_finish4(const gl_table *t, const uint8_t *packed, unsigned n, uint16_t *out,
                          uint32_t *slot, const int16_t *number, int isa)
{
    uint16_t list[GL_BATCH];
    unsigned count = gl_list_claims(out, n, GL_NO_CLAIM, list, isa);

    while (count > 0) {
        for (unsigned k = 0; k < count; k++) {
            unsigned i = list[k];
            slot[i] = gl_child4(&t->slots[slot[i]].node4, gl_load_be32(packed + 4 * i), isa);
            __builtin_prefetch(t->slots + slot[i]);
        }
        unsigned rest = count;
        count = 0;
        for (unsigned k = 0; k < rest; k++) {
            unsigned i = list[k];
            out[i] = (uint16_t)gl_in_leaf4(t, slot[i], number[i], isa);
            list[count] = (uint16_t)i;
            count += out[i] == GL_NO_CLAIM;
        }
    }
}

/* A batch: at most GL_BATCH addresses. */
GL_INLINE void gl_batch4(const gl_table *t, const uint8_t *packed, unsigned n, uint16_t *out,
                         int isa)
{
    uint32_t slot[GL_BATCH];
    int16_t number[GL_BATCH];
    unsigned nodes = 0;

    gl_begin4(t, packed, n, slot, number, isa);
    GL_UNROLL
    for (unsigned i = 0; i < n; i++)
        out[i] = (uint16_t)gl_in_leaf4(t, slot[i], number[i], isa);
    for (unsigned i = 0; i < n; i++)
        nodes |= out[i] == GL_NO_CLAIM;
    if (nodes)
        gl_finish4(t, packed, n, out, slot, number, isa);
}

/* Lists the places of the references that are not below `least`. */
GL_INLINE unsigned gl_list(const uint32_t *ref, unsigned n, uint32_t least, uint32_t *list,
                           int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_list_avx512(ref, n, least, list);
    if (isa == GL_AVX2)
        return gl_list_avx2(ref, n, least, list);
#endif
    unsigned count = 0;
    (void)isa;
    for (unsigned i = 0; i < n; i++) {
        list[count] = i;
        count += ref[i] >= least;
    }
    return count;
}

/* The same, knowing that all of them are among the `count` in `list`. */
GL_INLINE unsigned gl_list_again(const uint32_t *ref, unsigned n, uint32_t least, uint32_t *list,
                                 unsigned count, int isa)
{
    if (isa != GL_PORTABLE) /* with vectors it is quicker to look at all of them again */
        return gl_list(ref, n, least, list, isa);
    unsigned rest = count;
    count = 0;
    for (unsigned k = 0; k < rest; k++) {
        uint32_t place = list[k];
        list[count] = place;
        count += ref[place] >= least;
    }
    return count;
}

/* Finishes the addresses of a batch for which `out` says no claim: a divided /56 must be
 * looked into, or the IPv4 address inside must answer. */
GL_INLINE void gl_finish6(const gl_table *t, const uint8_t *packed, unsigned n, uint16_t *out,
                          const uint32_t *ref, const int32_t *number, int isa)
{
    uint8_t inside[4 * GL_BATCH];
    uint16_t list[GL_BATCH], claims[GL_BATCH];
    unsigned count = gl_list_claims(out, n, GL_MAX_CLAIMS, list, isa), forms = 0;

    for (unsigned k = 0; k < count; k++)
        if (out[list[k]] == GL_SOUGHT)
            __builtin_prefetch(t->slots + t->slots[ref[list[k]] % GL_LEVEL].leaf6.fine);
    for (unsigned k = 0; k < count; k++) {
        unsigned i = list[k], claim = out[i];
        const uint8_t *p = packed + 16 * (size_t)i;
        if (claim == GL_SOUGHT)
            claim = gl_is_mapped(p) & t->mapped ? GL_EMBEDDED_LOW32
                                                : gl_in_fine6(t, ref[i], number[i], p[7], isa);
        if (claim == GL_SOUGHT)
            claim = gl_sought6(t, ref[i], p);
        out[i] = (uint16_t)claim;
        if (claim >= GL_EMBEDDED_FIRST) {
            gl_store_be32(inside + 4 * forms,
                          gl_embedded(claim, gl_load_be64(p), gl_load_be64(p + 8)));
            list[forms++] = (uint16_t)i;
        }
    }
    if (forms > 0)
        gl_batch4(t, inside, forms, claims, isa);
    for (unsigned k = 0; k < forms; k++)
        out[list[k]] = claims[k];
}

/* A batch: at most GL_BATCH addresses. */
GL_INLINE void gl_batch6(const gl_table *t, const uint8_t *packed, unsigned n, uint16_t *out,
                         int isa)
{
    uint32_t ref[GL_BATCH], list[GL_BATCH];
    int32_t number[GL_BATCH];
    unsigned count, others = 0;

    GL_UNROLL
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = packed + 16 * (size_t)i;
        ref[i] = gl_ref6(t, p);
        number[i] = gl_number6(p);
        __builtin_prefetch(t->slots + ref[i] % GL_LEVEL);
    }
    count = gl_list(ref, n, 2 * GL_LEVEL, list, isa);
    while (count > 0) {
        GL_UNROLL
        for (unsigned k = 0; k < count; k++) {
            unsigned i = list[k];
            ref[i] = gl_child6(t, ref[i], number[i], isa);
            __builtin_prefetch(t->slots + ref[i] % GL_LEVEL);
        }
        count = gl_list_again(ref, n, 2 * GL_LEVEL, list, count, isa);
    }
    count = gl_list(ref, n, GL_LEVEL, list, isa);
    for (unsigned i = 0; i < n; i++)
        out[i] = (uint16_t)ref[i];
    GL_UNROLL
    for (unsigned k = 0; k < count; k++) {
        unsigned i = list[k];
        out[i] = (uint16_t)gl_in_leaf6(t, ref[i], number[i], isa);
    }
    for (unsigned i = 0; i < n; i++)
        others |= out[i] >= GL_MAX_CLAIMS;
    if (others)
        gl_finish6(t, packed, n, out, ref, number, isa);
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

/* Where one address of a roster lies, and in which form: as many characters of text, at
 * most GL_LONGEST_TEXT, or one of these. */
enum { GL_PACKED4 = 0xF4, GL_PACKED6 = 0xF6, GL_UNREADABLE = 0xFF };

typedef struct {
    const char *at;
    size_t form;
} gl_item;

/* A roster that was read: the addresses of each family in their order, and which family
 * each of the `n` has: 4, 6, or 0 for what is no address. */
typedef struct {
    uint8_t *families, *four, *six;
    size_t n, fours, sixes;
} gl_roster;

/* Reads one item into out; as gl_parse. */
GL_INLINE int gl_read_item(gl_item item, uint8_t out[16], int isa)
{
    if (item.form <= GL_LONGEST_TEXT)
        return gl_parse_exact(item.at, item.form, out, isa);
    if (item.form == GL_PACKED4) {
        memcpy(out, item.at, 4);
        return 4;
    }
    if (item.form == GL_PACKED6) {
        memcpy(out, item.at, 16);
        return 6;
    }
    return 0;
}

/* Appends the addresses of items to a roster, which has room for them. */
GL_INLINE void gl_read_items(const gl_item *items, size_t n, gl_roster *roster, int isa)
{
    uint8_t *families = roster->families + roster->n;
    uint8_t *four = roster->four + 4 * roster->fours;
    uint8_t *six = roster->six + 16 * roster->sixes;

    for (size_t i = 0; i < n; i++) {
        uint8_t address[16];
        int family = gl_read_item(items[i], address, isa);
        families[i] = (uint8_t)family;
        if (family == 4) {
            memcpy(four, address, 4);
            four += 4;
        } else if (family == 6) {
            memcpy(six, address, 16);
            six += 16;
        }
    }
    roster->n += n;
    roster->fours = (size_t)(four - roster->four) / 4;
    roster->sixes = (size_t)(six - roster->six) / 16;
}

/* Writes 16 bytes an address, IPv4 in the last four. */
static inline void gl_write_wide(const gl_roster *roster, uint8_t *out)
{
    const uint8_t *four = roster->four, *six = roster->six;

    for (size_t i = 0; i < roster->n; i++, out += 16) {
        if (roster->families[i] == 6) {
            memcpy(out, six, 16);
            six += 16;
        } else {
            memset(out, 0, 16);
            if (roster->families[i] == 4) {
                memcpy(out + 12, four, 4);
                four += 4;
            }
        }
    }
}

GL_INLINE void gl_classify_roster(const gl_table *t, const gl_roster *roster, uint16_t *out,
                                  int isa)
{
    const uint8_t *families = roster->families, *four = roster->four, *six = roster->six;
    uint16_t claims[2][GL_BATCH + 1];

    if (roster->fours == roster->n) {
        gl_classify4(t, four, roster->n, out, isa);
        return;
    }
    for (size_t rest = roster->n; rest > 0;) {
        unsigned n = rest < GL_BATCH ? (unsigned)rest : GL_BATCH, fours = 0, sixes = 0;
        for (unsigned i = 0; i < n; i++) {
            fours += families[i] == 4;
            sixes += families[i] == 6;
        }
        gl_batch4(t, four, fours, claims[0], isa);
        gl_batch6(t, six, sixes, claims[1], isa);
        four += 4 * fours;
        six += 16 * sixes;
        fours = sixes = 0;
        for (unsigned i = 0; i < n; i++) {
            unsigned is_four = families[i] == 4, is_six = families[i] == 6;
            out[i] = is_four ? claims[0][fours] : is_six ? claims[1][sixes] : 0;
            fours += is_four;
            sixes += is_six;
        }
        rest -= n;
        families += n;
        out += n;
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
