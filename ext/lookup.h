/* The claim of one address: the steps of a lookup, for each instruction set.
 *
 * Plain C11. bulk.h takes the same steps for many addresses at once.
 */
#ifndef GEOLOOKUP_LOOKUP_H
#define GEOLOOKUP_LOOKUP_H

#include "index.h"

/* The bits of an address as a key, to be compared with those of a leaf or branch. */
GL_INLINE int16_t gl_address_key4(uint32_t address)
{
    return (int16_t)(uint16_t)(address ^ 0x8000);
}

GL_INLINE int32_t gl_address_key6(const uint8_t *p)
{
    return (int32_t)(gl_load_be32(p + 3) ^ 0x80000000);
}

#if defined(GL_X86)
GL_TARGET_AVX2 static inline unsigned gl_rank4_avx2(const int16_t *keys, int16_t key)
{
    __m256i all = _mm256_load_si256((const __m256i *)keys);
    __m256i below = _mm256_cmpgt_epi16(_mm256_set1_epi16(key), all);
    /* Two bits for each key; the last two belong to none. */
    return (unsigned)__builtin_popcount((unsigned)_mm256_movemask_epi8(below) << 2) / 2;
}

GL_TARGET_AVX512 static inline unsigned gl_rank4_avx512(const int16_t *keys, int16_t key)
{
    __m256i all = _mm256_load_si256((const __m256i *)keys);
    __mmask16 below = _mm256_mask_cmpgt_epi16_mask(0x7FFF, _mm256_set1_epi16(key), all);
    return (unsigned)__builtin_popcount(below);
}

GL_TARGET_AVX2 static inline unsigned gl_rank6_avx2(const int32_t *keys, int32_t key,
                                                    unsigned n)
{
    __m256i sought = _mm256_set1_epi32(key);
    __m256i low = _mm256_cmpgt_epi32(sought, _mm256_load_si256((const __m256i *)keys));
    __m256i high = _mm256_cmpgt_epi32(sought, _mm256_load_si256((const __m256i *)keys + 1));
    /* Two bits for each key: four of the lower half, four of the higher, and so again. */
    unsigned below = (unsigned)_mm256_movemask_epi8(_mm256_packs_epi32(low, high));
    unsigned some = n == GL_LEAF6_KEYS ? 0x00FF03FF : 0x3FFFFFFF;
    return (unsigned)__builtin_popcount(below & some) / 2;
}

_Static_assert(GL_LEAF6_KEYS == 9 && GL_BRANCH6_KEYS == 15, "as in gl_rank6_avx2");

GL_TARGET_AVX512 static inline unsigned gl_rank6_avx512(const int32_t *keys, int32_t key,
                                                        unsigned n)
{
    __mmask16 some = (__mmask16)((1u << n) - 1);
    __mmask16 below = _mm512_mask_cmpgt_epi32_mask(some, _mm512_set1_epi32(key),
                                                   _mm512_load_si512(keys));
    return (unsigned)__builtin_popcount(below);
}
#endif

/* The number of a leaf's keys that are below a key. Also reads the claim behind them. */
GL_INLINE unsigned gl_rank4(const int16_t *keys, int16_t key, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_rank4_avx512(keys, key);
    if (isa == GL_AVX2)
        return gl_rank4_avx2(keys, key);
    const __m128i sought = _mm_set1_epi16(key), *all = (const __m128i *)keys;
    __m128i below = _mm_packs_epi16(_mm_cmplt_epi16(_mm_load_si128(all), sought),
                                    _mm_cmplt_epi16(_mm_load_si128(all + 1), sought));
    return (unsigned)__builtin_ctz(~(unsigned)_mm_movemask_epi8(below) | 1u << GL_LEAF4_KEYS);
#else
    unsigned count = 0;
    (void)isa;
    for (int i = 0; i < GL_LEAF4_KEYS; i++)
        count += keys[i] < key;
    return count;
#endif
}

/* The same among the first `n` keys, at most 15, of a leaf or branch. Reads the whole slot. */
GL_INLINE unsigned gl_rank6(const int32_t *keys, int32_t key, unsigned n, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_rank6_avx512(keys, key, n);
    if (isa == GL_AVX2)
        return gl_rank6_avx2(keys, key, n);
    const __m128i sought = _mm_set1_epi32(key), *all = (const __m128i *)keys;
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
        count += keys[i] < key;
    return count;
#endif
}

GL_INLINE uint32_t gl_find_slot4(const gl_table *t, uint32_t address, int isa)
{
    const gl_top4 *top = t->top4 + (address >> t->shift4);
    uint32_t child = address >> (t->shift4 - 5);
    return top->base + gl_count_bits(top->bits << (~child & 31), isa);
}

GL_INLINE uint32_t gl_find_child4(const gl_node4 *node, uint32_t address, int isa)
{
    uint32_t child = address >> node->shift;
    return node->base + gl_count_bits64(node->bits << (~child & 63), isa);
}

/* The claim in a slot; GL_NODE_MARK: the slot is a node. */
GL_INLINE unsigned gl_leaf_claim4(const gl_table *t, uint32_t slot, int16_t key, int isa)
{
    const gl_leaf4 *leaf = &t->slots[slot].leaf4;
    return leaf->claims[gl_rank4(leaf->keys, key, isa)];
}

GL_INLINE unsigned gl_claim4(const gl_table *t, const uint8_t *p, int isa)
{
    uint32_t address = gl_load_be32(p), slot = gl_find_slot4(t, address, isa);
    unsigned claim;

    while ((claim = gl_leaf_claim4(t, slot, gl_address_key4(address), isa)) == GL_NODE_MARK)
        slot = gl_find_child4(&t->slots[slot].node4, address, isa);
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

GL_INLINE uint32_t gl_find_ref6(const gl_table *t, const uint8_t *p)
{
    return t->pages6[t->top6[gl_load_native16(p)] * 256u + p[2]];
}

/* Reference to the child of a branch. */
GL_INLINE uint32_t gl_find_child6(const gl_table *t, uint32_t ref, int32_t key, int isa)
{
    const gl_branch6 *branch = &t->slots[ref % GL_LEVEL].branch6;
    uint32_t child = branch->base + gl_rank6(branch->keys, key, GL_BRANCH6_KEYS, isa);
    return (ref & ~(GL_LEVEL - 1)) - GL_LEVEL + child;
}

/* The claim in a leaf; GL_SEARCH_ARRAYS: the address lies in a divided /56. */
GL_INLINE unsigned gl_leaf_claim6(const gl_table *t, uint32_t ref, int32_t key, int isa)
{
    const gl_leaf6 *leaf = &t->slots[ref % GL_LEVEL].leaf6;
    return leaf->claims[gl_rank6(leaf->keys, key, GL_LEAF6_KEYS, isa)];
}

/* The claim of an address in a divided /56: from the fine leaf or, without one, the arrays. */
GL_INLINE unsigned gl_divided_claim6(const gl_table *t, uint32_t ref, int32_t key,
                                     const uint8_t *p, int isa)
{
    const gl_leaf6 *leaf = &t->slots[ref % GL_LEVEL].leaf6;

    if (leaf->fine_leaf != 0) {
        unsigned entry = gl_rank6(leaf->keys, key, GL_LEAF6_KEYS, isa);
        return gl_leaf_claim4(t, leaf->fine_leaf, gl_address_key4(entry << 8 | p[7]), isa);
    }
    return t->claim6[gl_find_interval6(t, leaf->interval, gl_load_be64(p), gl_load_be64(p + 8))];
}

GL_INLINE unsigned gl_claim6(const gl_table *t, const uint8_t *p, int isa)
{
    if (gl_is_mapped(p) & t->mapped_is_embedded)
        return gl_claim4(t, p + 12, isa);

    uint32_t ref = gl_find_ref6(t, p);
    int32_t key = gl_address_key6(p);
    while (ref >= 2 * GL_LEVEL)
        ref = gl_find_child6(t, ref, key, isa);
    unsigned claim = ref < GL_LEVEL ? ref : gl_leaf_claim6(t, ref, key, isa);
    if (claim == GL_SEARCH_ARRAYS)
        claim = gl_divided_claim6(t, ref, key, p, isa);
    if (claim >= GL_EMBEDDED_FIRST) {
        uint8_t inside[4];
        gl_store_be32(inside, gl_embedded_ipv4(claim, gl_load_be64(p), gl_load_be64(p + 8)));
        claim = gl_claim4(t, inside, isa);
    }
    return claim;
}

#endif
