/* Checks sorted interval arrays and builds the index over them.
 *
 * Plain C11. index.h has the layout.
 */
#ifndef GEOLOOKUP_INDEX_BUILD_H
#define GEOLOOKUP_INDEX_BUILD_H

#include "grow.h"
#include "index.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* The ranges of top4 are /16s, and /19s where so many intervals begin that the children of
 * a /16 would mostly be nodes. */
#define GL_MANY_INTERVALS4 ((size_t)1 << 20)

typedef struct {
    void *data;
    size_t count, capacity;
} gl_vector;

/* Makes room for `more` items of `width` bytes; 0 when there is no memory. */
static inline int gl_reserve(gl_vector *v, size_t more, size_t width)
{
    if (more > GL_MAX_SLOTS || v->count > GL_MAX_SLOTS - more)
        return 0;
    return gl_grow(&v->data, v->count, more, &v->capacity, width);
}

/* Memory in huge pages where the system has them: an index is read at random, and with
 * small pages address translation takes much of the time. */
static inline void *gl_allocate_huge_pages(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    void *memory = aligned_alloc(huge, (bytes + huge - 1) / huge * huge);

#if defined(MADV_HUGEPAGE)
    /* The rest stays in small pages: most of a huge one could remain unused. */
    if (memory != NULL && bytes >= huge)
        madvise(memory, bytes / huge * huge, MADV_HUGEPAGE);
#endif
    return memory;
}

/* Gives back what is not used of such memory. */
static inline void gl_trim_huge_pages(void *memory, size_t bytes, size_t used)
{
#if defined(MADV_HUGEPAGE)
    const size_t huge = (size_t)2 << 20, page = (size_t)4096;
    size_t from = (used + page - 1) / page * page, end = bytes / huge * huge;
    if (from < end)
        madvise((char *)memory + from, end - from, MADV_DONTNEED);
#else
    (void)memory, (void)bytes, (void)used;
#endif
}

/* A block of IPv4: 2^width addresses from `start`, and the first and the last of the intervals
 * that cover it. */
typedef struct {
    uint64_t start;
    size_t first, last;
    unsigned width;
    uint32_t slot;
} gl_block4;

/* An interval of the tree of IPv6: the /56 at which it begins, the interval of the arrays that
 * covers its first address, and its claim or GL_SEARCH_ARRAYS. */
typedef struct {
    uint64_t prefix;
    uint32_t interval;
    uint16_t claim;
} gl_entry6;

typedef struct {
    gl_vector slots; /* in huge pages, where they stay: gl_reserve_slots */
    gl_vector pages;
    gl_vector pending; /* blocks of IPv4 whose nodes are still to be filled */
    gl_vector entries; /* of the present /24 of IPv6 */
    /* By claim: the slot base, or page, that all ranges with this claim alone share, plus one;
     * 0: none yet. */
    uint32_t *uniform;
} gl_builder;

/* As gl_reserve, of slots. They are as many as was estimated in nearly all tables, and then they
 * are never copied. */
static inline int gl_reserve_slots(gl_builder *builder, size_t more)
{
    gl_vector *v = &builder->slots;
    size_t wanted = v->capacity + v->capacity / 2 + more;

    if (more > GL_MAX_SLOTS || v->count > GL_MAX_SLOTS - more)
        return 0;
    if (v->capacity - v->count >= more)
        return 1;
    void *grown = gl_allocate_huge_pages(wanted * sizeof(gl_slot));
    if (grown == NULL)
        return 0;
    if (v->count > 0)
        memcpy(grown, v->data, v->count * sizeof(gl_slot));
    free(v->data);
    *v = (gl_vector){grown, v->count, wanted};
    return 1;
}

static inline int16_t gl_boundary_key4(unsigned bits)
{
    return (int16_t)((int)bits - 0x8001);
}

static inline void gl_fill_leaf4(const gl_table *t, gl_block4 block, gl_slot *slot)
{
    size_t count = block.last - block.first;
    const uint32_t *first = t->first4 + block.first + 1;
    const uint16_t *claim = t->claim4 + block.first;
    uint32_t firsts[GL_LEAF4_KEYS + 1];
    uint16_t claims[GL_LEAF4_KEYS + 1];

    /* Whole vectors are read, but at the end of the arrays. */
    if (block.first + 1 + GL_LEAF4_KEYS >= t->n4) {
        for (size_t i = 0; i <= GL_LEAF4_KEYS; i++)
            firsts[i] = i < count ? first[i] : 0;
        for (size_t i = 0; i <= GL_LEAF4_KEYS; i++)
            claims[i] = claim[i < count ? i : count];
        first = firsts;
        claim = claims;
    }
    *slot = (gl_slot){.leaf4 = {.unused = 0}};
    for (int i = 0; i < GL_LEAF4_KEYS; i++) {
        int16_t key = gl_boundary_key4((uint16_t)first[i]);
        slot->leaf4.keys[i] = i < (int)count ? key : INT16_MAX;
    }
    for (int i = 0; i <= GL_LEAF4_KEYS; i++) {
        uint16_t known = claim[i], last = claim[count];
        slot->leaf4.claims[i] = i < (int)count ? known : last;
    }
}

/* Divides a block into 2^bits children, at most 64, and fills their slots. Sets *base to the
 * first slot less one, and *begins to a bit for each child that begins a slot. */
static inline int gl_divide_block4(const gl_table *t, gl_builder *builder, gl_block4 block,
                                   unsigned bits, uint32_t *base, uint64_t *begins)
{
    unsigned step = block.width - bits, children = 1u << bits;
    /* The number of a single address is its lower six bits. */
    unsigned first = step == 0 ? (unsigned)block.start & 63 : 0;
    size_t at = block.first; /* the last interval that begins before the child, or with it */

    if (!gl_reserve_slots(builder, children) ||
        !gl_reserve(&builder->pending, children, sizeof(gl_block4)))
        return 0;
    *base = (uint32_t)builder->slots.count - 1;
    *begins = 0;
    for (unsigned child = 0, next; child < children; child = next) {
        uint64_t start = block.start + ((uint64_t)child << step);
        gl_block4 one = {start, at, block.last, step, (uint32_t)builder->slots.count++};

        if (at < block.last && t->first4[at + 1] == start)
            one.first = ++at;
        next = children;
        if (block.last - at > GL_LEAF4_KEYS) {
            /* Up to the child in which the first interval begins that has no room. */
            next = (unsigned)((t->first4[at + GL_LEAF4_KEYS + 1] - block.start) >> step);
            int is_leaf = next > child;
            if (!is_leaf)
                next = child + 1;
            uint64_t end = block.start + ((uint64_t)next << step);
            if (is_leaf) {
                one.last = at + GL_LEAF4_KEYS;
                while (t->first4[one.last] >= end)
                    one.last--;
            } else {
                one.last = at + GL_LEAF4_KEYS + 1;
                while (one.last < block.last && t->first4[one.last + 1] < end)
                    one.last++;
            }
            at = one.last;
        }
        *begins |= (uint64_t)1 << (first + child);
        if (one.last - one.first <= GL_LEAF4_KEYS)
            gl_fill_leaf4(t, one, (gl_slot *)builder->slots.data + one.slot);
        else
            ((gl_block4 *)builder->pending.data)[builder->pending.count++] = one;
    }
    return 1;
}

/* The range of top4 that begins at `start`; interval `at` is the last that begins before it. */
static inline gl_block4 gl_find_range4(const gl_table *t, uint64_t start, size_t at)
{
    uint64_t end = start + ((uint64_t)1 << t->shift4);
    if (at + 1 < t->n4 && t->first4[at + 1] == start)
        at++;
    size_t last = at; /* Few steps: most ranges hold few. */
    while (last + 16 < t->n4 && t->first4[last + 16] < end)
        last += 16;
    while (last + 1 < t->n4 && t->first4[last + 1] < end)
        last++;
    return (gl_block4){start, at, last, t->shift4, 0};
}

static inline int gl_build_index4(const gl_table *t, gl_builder *builder, gl_top4 *top)
{
    size_t at = 0;

    memset(builder->uniform, 0, 65536 * sizeof *builder->uniform);
    for (uint64_t i = 0; i << t->shift4 >> 32 == 0; i++) {
        gl_block4 block = gl_find_range4(t, i << t->shift4, at);
        int mixed = block.last > block.first;
        uint32_t *shared = mixed ? NULL : builder->uniform + t->claim4[block.first];
        uint32_t base;
        uint64_t begins = 1;
        at = block.last;
        if (shared != NULL && *shared != 0)
            base = *shared - 1;
        else if (!gl_divide_block4(t, builder, block, 5, &base, &begins))
            return 0;
        if (shared != NULL)
            *shared = base + 1;
        top[i] = (gl_top4){(uint32_t)begins, base};
    }
    for (size_t done = 0; done < builder->pending.count; done++) {
        gl_block4 block = ((gl_block4 *)builder->pending.data)[done];
        unsigned bits = block.width < 6 ? block.width : 6;
        gl_node4 node = {.mark = GL_NODE_MARK, .shift = (uint16_t)(block.width - bits)};
        for (int k = 0; k < GL_LEAF4_KEYS; k++)
            node.keys[k] = INT16_MAX;
        if (!gl_divide_block4(t, builder, block, bits, &node.base, &node.bits))
            return 0;
        ((gl_slot *)builder->slots.data)[block.slot].node4 = node;
    }
    return 1;
}

/* The /56 of the upper half of an address. Keys are its lower 32 bits. */
GL_INLINE uint64_t gl_prefix56(uint64_t high)
{
    return high >> 8;
}

/* Makes the entries of the /24 that begins at `start`. Interval *at is the last that begins
 * before it, afterwards the last that begins in it. A divided /56 becomes one entry with
 * GL_SEARCH_ARRAYS. Returns 0 when there is no memory. */
static inline int gl_make_entries6(const gl_table *t, gl_builder *builder, uint64_t start,
                                   size_t *at)
{
    const uint64_t last = start | 0xFFFFFFFFFF;
    size_t i = *at, count = 1;
    gl_entry6 *entries;

    if (!gl_reserve(&builder->entries, 1, sizeof *entries))
        return 0;
    entries = builder->entries.data;
    if (i + 1 < t->n6 && t->high6[i + 1] == start && t->low6[i + 1] == 0)
        i++;
    entries[0] = (gl_entry6){gl_prefix56(start), (uint32_t)i, t->claim6[i]};
    while (i + 1 < t->n6 && t->high6[i + 1] <= last) {
        size_t before = i++;
        uint64_t prefix = gl_prefix56(t->high6[i]);
        if (count + 2 > builder->entries.capacity) {
            builder->entries.count = count;
            if (!gl_reserve(&builder->entries, 2, sizeof *entries))
                return 0;
            entries = builder->entries.data;
        }
        if ((t->high6[i] & 0xFF) == 0 && t->low6[i] == 0) {
            /* The entry that follows a divided /56 may have been made for this one already. */
            count -= entries[count - 1].prefix == prefix;
            entries[count++] = (gl_entry6){prefix, (uint32_t)i, t->claim6[i]};
            continue;
        }
        if (entries[count - 1].prefix == prefix)
            entries[count - 1].claim = GL_SEARCH_ARRAYS;
        else
            entries[count++] = (gl_entry6){prefix, (uint32_t)before, GL_SEARCH_ARRAYS};
        while (i + 1 < t->n6 && t->high6[i + 1] <= (t->high6[i] | 0xFF))
            i++;
        if ((t->high6[i] | 0xFF) != last)
            entries[count++] = (gl_entry6){prefix + 1, (uint32_t)i, t->claim6[i]};
    }
    builder->entries.count = count;
    *at = i;
    return 1;
}

static inline int32_t gl_boundary_key6(gl_entry6 entry)
{
    return (int32_t)(((uint32_t)entry.prefix - 1) ^ 0x80000000);
}

/* Fills a fine leaf: the intervals of the divided /56s of a leaf. A key is the number of the
 * entry in the leaf, then the eighth byte of the address. Returns 0 where there are too many
 * intervals, or one begins below a /64. */
static inline int gl_fill_fine_leaf6(const gl_table *t, const gl_entry6 *entries, size_t count,
                                     gl_leaf4 *fine_leaf)
{
    uint16_t keys[GL_LEAF4_KEYS + 1];
    size_t used = 0;

    for (size_t entry = 0; entry < count; entry++) {
        size_t at = entries[entry].interval;
        if (entries[entry].claim != GL_SEARCH_ARRAYS)
            continue;
        for (unsigned octet = 0;;) {
            if (used > GL_LEAF4_KEYS)
                return 0;
            keys[used] = (uint16_t)(entry << 8 | octet);
            fine_leaf->claims[used++] = t->claim6[at];
            if (at + 1 == t->n6 || gl_prefix56(t->high6[at + 1]) != entries[entry].prefix)
                break;
            at++;
            if (t->low6[at] != 0)
                return 0;
            octet = t->high6[at] & 0xFF;
        }
    }
    for (size_t i = used; i <= GL_LEAF4_KEYS; i++)
        fine_leaf->claims[i] = fine_leaf->claims[used - 1];
    for (size_t i = 0; i < GL_LEAF4_KEYS; i++)
        fine_leaf->keys[i] = i + 1 < used ? gl_boundary_key4(keys[i + 1]) : INT16_MAX;
    return 1;
}

static inline int gl_fill_leaf6(const gl_table *t, gl_builder *builder, const gl_entry6 *entries,
                                size_t count, uint32_t slot)
{
    gl_leaf6 leaf = {.interval = entries[0].interval};
    int divided = 0;

    for (size_t i = 0; i < GL_LEAF6_KEYS; i++)
        leaf.keys[i] = i + 1 < count ? gl_boundary_key6(entries[i + 1]) : INT32_MAX;
    for (size_t i = 0; i <= GL_LEAF6_KEYS; i++) {
        leaf.claims[i] = entries[i < count ? i : count - 1].claim;
        divided |= leaf.claims[i] == GL_SEARCH_ARRAYS;
    }
    if (divided) {
        if (!gl_reserve_slots(builder, 1))
            return 0;
        gl_slot *fine_leaf = (gl_slot *)builder->slots.data + builder->slots.count;
        memset(fine_leaf, 0, sizeof *fine_leaf);
        if (gl_fill_fine_leaf6(t, entries, count, &fine_leaf->leaf4))
            leaf.fine_leaf = (uint32_t)builder->slots.count++;
    }
    ((gl_slot *)builder->slots.data)[slot].leaf6 = leaf;
    return 1;
}

/* Makes the tree over the entries. Returns the reference to it, or 0 for no memory. */
static inline uint32_t gl_build_tree6(const gl_table *t, gl_builder *builder)
{
    const gl_entry6 *entries = builder->entries.data;
    /* Slots of a level, and the entries below each of them, full ones first. */
    size_t n = builder->entries.count, span = GL_LEAF6_KEYS + 1, count = (n + span - 1) / span;
    uint32_t level = 1, base;

    if (!gl_reserve_slots(builder, count))
        return 0;
    base = (uint32_t)builder->slots.count;
    builder->slots.count += count;
    for (size_t i = 0; i < count; i++)
        if (!gl_fill_leaf6(t, builder, entries + i * span,
                           n - i * span < span ? n - i * span : span, base + (uint32_t)i))
            return 0;
    for (; count > 1; level++) {
        size_t below = count;
        count = (below + GL_BRANCH6_KEYS) / (GL_BRANCH6_KEYS + 1);
        if (!gl_reserve_slots(builder, count))
            return 0;
        gl_slot *slots = (gl_slot *)builder->slots.data + builder->slots.count;
        for (size_t i = 0; i < count; i++) {
            size_t child = i * (GL_BRANCH6_KEYS + 1);
            slots[i].branch6.base = base + (uint32_t)child;
            for (int k = 0; k < GL_BRANCH6_KEYS; k++)
                slots[i].branch6.keys[k] =
                    ++child < below ? gl_boundary_key6(entries[child * span]) : INT32_MAX;
        }
        base = (uint32_t)builder->slots.count;
        builder->slots.count += count;
        span *= GL_BRANCH6_KEYS + 1;
    }
    return level * GL_LEVEL | base;
}

static inline int gl_build_index6(const gl_table *t, gl_builder *builder, uint16_t *top)
{
    size_t at = 0;

    memset(builder->uniform, 0, 65536 * sizeof *builder->uniform);
    for (uint64_t i = 0; i < 65536; i++) {
        const uint8_t octets[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        uint16_t *page = top + gl_load_native16(octets);
        uint64_t start = i << 48;
        size_t first = at;
        if (at + 1 < t->n6 && gl_begins_by6(t, at + 1, start, 0))
            first++;
        int mixed = first + 1 < t->n6 && t->high6[first + 1] <= (start | 0xFFFFFFFFFFFF);
        uint32_t *shared = mixed ? NULL : builder->uniform + t->claim6[first];
        if (shared != NULL && *shared != 0) {
            *page = (uint16_t)(*shared - 1);
            at = first;
            continue;
        }
        *page = (uint16_t)(builder->pages.count / 256);
        if (shared != NULL)
            *shared = *page + 1u;
        if (!gl_reserve(&builder->pages, 256, sizeof(uint32_t)))
            return 0;
        for (uint64_t child = 0; child < 256; child++) {
            uint32_t ref;
            if (!gl_make_entries6(t, builder, start + (child << 40), &at))
                return 0;
            ref = ((const gl_entry6 *)builder->entries.data)[0].claim;
            if (builder->entries.count > 1 || ref == GL_SEARCH_ARRAYS) {
                ref = gl_build_tree6(t, builder);
                if (ref == 0)
                    return 0;
            }
            ((uint32_t *)builder->pages.data)[builder->pages.count++] = ref;
        }
    }
    return 1;
}

/* What is wrong with a table's arrays. */
typedef enum {
    GL_NO_FAULT = 0,
    GL_FIRST4_START,
    GL_FIRST4_ORDER,
    GL_CLAIM4_UNKNOWN,
    GL_HIGH6_START,
    GL_LOW6_START,
    GL_FIRST6_ORDER,
    GL_CLAIM6_UNKNOWN
} gl_fault;

/* Checks arrays of the right lengths, one item at least: they must ascend strictly from
 * 0 and hold claims below `limit`, or in IPv6 an embedded form. Sets *position to that of the
 * first fault. The loops read everything, which is quicker than to leave early. */
static inline gl_fault gl_table_check(const gl_table *t, unsigned limit, size_t *position)
{
#define GL_FIND_FAULT(FIRST, COUNT, IS_WRONG, FAULT)                                 \
    do {                                                                             \
        unsigned wrong = 0;                                                          \
        for (size_t i = (FIRST); i < (COUNT); i++)                                   \
            wrong |= (unsigned)(IS_WRONG);                                           \
        for (size_t i = (FIRST); wrong && i < (COUNT); i++)                          \
            if (IS_WRONG) {                                                          \
                *position = i;                                                       \
                return FAULT;                                                        \
            }                                                                        \
    } while (0)

    *position = 0;
    if (t->first4[0] != 0)
        return GL_FIRST4_START;
    if (t->high6[0] != 0)
        return GL_HIGH6_START;
    if (t->low6[0] != 0)
        return GL_LOW6_START;
    GL_FIND_FAULT(1, t->n4, t->first4[i] <= t->first4[i - 1], GL_FIRST4_ORDER);
    GL_FIND_FAULT(0, t->n4, t->claim4[i] >= limit, GL_CLAIM4_UNKNOWN);
    GL_FIND_FAULT(1, t->n6, gl_begins_by6(t, i, t->high6[i - 1], t->low6[i - 1]), GL_FIRST6_ORDER);
    GL_FIND_FAULT(0, t->n6, (t->claim6[i] >= limit) & (t->claim6[i] < GL_EMBEDDED_FIRST),
                  GL_CLAIM6_UNKNOWN);
    return GL_NO_FAULT;
#undef GL_FIND_FAULT
}

/* Builds the index over arrays without a fault by gl_table_check, at most
 * GL_MAX_INTERVALS6 of IPv6, with a limit of at most GL_MAX_CLAIMS. The index members
 * must be 0. Returns 0 when there is no memory; gl_table_free is due in either case. */
static inline int gl_table_build(gl_table *t)
{
    t->shift4 = t->n4 < GL_MANY_INTERVALS4 ? 16 : 13;

    gl_builder builder = {.uniform = malloc(65536 * sizeof *builder.uniform)};
    size_t tops = sizeof *t->top4 << (32 - t->shift4);
    t->top4 = gl_allocate_huge_pages(tops);
    t->top6 = malloc(65536 * sizeof *t->top6);
    int complete = builder.uniform != NULL && t->top4 != NULL && t->top6 != NULL &&
                   gl_reserve_slots(&builder, (t->n4 + t->n6) / 8 + 1024) &&
                   gl_build_index4(t, &builder, t->top4) && gl_build_index6(t, &builder, t->top6);
    size_t slots = builder.slots.count * sizeof *t->slots;
    size_t pages = builder.pages.count * sizeof *t->pages6;

    t->slots = builder.slots.data;
    t->pages6 = builder.pages.data;
    t->index_bytes = slots + tops + pages + 65536 * sizeof *t->top6;
    if (complete)
        gl_trim_huge_pages(t->slots, builder.slots.capacity * sizeof *t->slots, slots);
    free(builder.uniform);
    free(builder.pending.data);
    free(builder.entries.data);
    size_t at = gl_find_interval6(t, 0, 0, 0xFFFF00000000);
    t->mapped_is_embedded = t->claim6[at] == GL_EMBEDDED_LOW32 &&
                            (at + 1 == t->n6 || !gl_begins_by6(t, at + 1, 0, 0xFFFFFFFFFFFF));
    return complete;
}

static inline void gl_table_free(gl_table *t)
{
    free(t->slots);
    free(t->top4);
    free(t->pages6);
    free(t->top6);
    t->slots = NULL;
    t->top4 = NULL;
    t->pages6 = NULL;
    t->top6 = NULL;
    t->index_bytes = 0;
}

#endif
