/* The claim of one address: the steps of a lookup, for each instruction set.
 *
 * Plain C11. bulk.h takes the same steps for many addresses at once.
 */
#ifndef GEOLOOKUP_LOOKUP_H
#define GEOLOOKUP_LOOKUP_H

#include "index.h"

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

#endif
