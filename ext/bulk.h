/* The claims of many packed addresses.
 *
 * A lookup in a big table is a chain of cache misses. These loops take a batch of addresses
 * through the chain one step at a time and prefetch the next step, which costs a few
 * instructions and lets the misses overlap.
 */
#ifndef GEOLOOKUP_BULK_H
#define GEOLOOKUP_BULK_H

#include "lookup.h"

/* Addresses in a batch: enough that a batch's first prefetches have arrived when its
 * second step begins, few enough that all its state stays in the first-level cache. */
#define GL_BATCH 256

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

#endif
