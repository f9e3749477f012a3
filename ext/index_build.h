/* Checks sorted interval arrays and builds the index over them.
 *
 * Plain C11.
 */
#ifndef GEOLOOKUP_INDEX_BUILD_H
#define GEOLOOKUP_INDEX_BUILD_H

#include <stdlib.h>

#include "index.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* The ranges of top4 are /16s, and /19s where so many intervals begin that the children of
 * a /16 would mostly be nodes. */
#define GL_MANY4 ((size_t)1 << 20)

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

#endif
