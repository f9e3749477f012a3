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

/* Byte orders of IPv4 addresses. */
enum { GL_NETWORK_ORDER, GL_HOST_ORDER };

GL_INLINE uint32_t gl_load_ipv4(const uint8_t *p, int order)
{
    uint32_t address;

    if (order == GL_NETWORK_ORDER)
        return gl_load_be32(p);
    memcpy(&address, p, 4);
    return address;
}

#if defined(GL_X86)
/* As the loop in gl_find_slots4. Writes beyond `n`, up to GL_BATCH. */
GL_TARGET_AVX512 static inline void gl_find_slots4_avx512(const gl_table *t, const uint8_t *packed,
                                                          unsigned n, uint32_t *slot, int16_t *key,
                                                          int order)
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
        if (order == GL_NETWORK_ORDER)
            address = _mm512_shuffle_epi8(address, swap);
        __m512i index = _mm512_srl_epi32(address, range);
        __m512i low = _mm512_i32gather_epi64(_mm512_castsi512_si256(index), t->top4, 8);
        __m512i high = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(index, 1), t->top4, 8);
        __m512i bits = _mm512_permutex2var_epi32(low, evens, high);
        __m512i base = _mm512_permutex2var_epi32(low, odds, high);
        __m512i child = _mm512_srl_epi32(address, part);
        __m512i behind = _mm512_andnot_si512(child, _mm512_set1_epi32(31));
        __m512i rank = _mm512_popcnt_epi32(_mm512_sllv_epi32(bits, behind));
        _mm512_storeu_si512(slot + i, _mm512_add_epi32(base, rank));
        _mm256_storeu_si256((__m256i *)(key + i),
                            _mm512_cvtepi32_epi16(_mm512_xor_si512(
                                address, _mm512_set1_epi32(0x8000))));
    }
    GL_UNROLL
    for (unsigned i = 0; i < n; i++)
        __builtin_prefetch(t->slots + slot[i]);
}

GL_TARGET_AVX512 static inline unsigned gl_select_positions32_avx512(
    const uint32_t *ref, unsigned n, uint32_t least, uint32_t *positions)
{
    __m512i next = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    unsigned count = 0;

    for (unsigned i = 0; i < n; i += 16) {
        __mmask16 some = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xFFFF);
        some = _mm512_mask_cmpge_epu32_mask(some, _mm512_loadu_si512(ref + i),
                                            _mm512_set1_epi32((int)least));
        _mm512_storeu_si512(positions + count, _mm512_maskz_compress_epi32(some, next));
        count += (unsigned)__builtin_popcount(some);
        next = _mm512_add_epi32(next, _mm512_set1_epi32(16));
    }
    return count;
}

GL_TARGET_AVX512 static inline unsigned gl_select_positions16_avx512(
    const uint16_t *claims, unsigned n, uint16_t least, uint16_t *positions)
{
    unsigned count = 0;

    for (unsigned i = 0; i < n; i += 32) {
        __mmask32 some = n - i < 32 ? (1u << (n - i)) - 1 : 0xFFFFFFFF;
        __m512i all = _mm512_maskz_loadu_epi16(some, claims + i);
        some = _mm512_mask_cmpge_epu16_mask(some, all, _mm512_set1_epi16((int16_t)least));
        for (; some != 0; some &= some - 1)
            positions[count++] = (uint16_t)(i + (unsigned)__builtin_ctz(some));
    }
    return count;
}

/* By a mask of four lanes: the shuffle that moves those in the mask to the front. */
#define GL_LANE(I) 4 * (I), 4 * (I) + 1, 4 * (I) + 2, 4 * (I) + 3
#define GL_LANES(A, B, C, D) {GL_LANE(A), GL_LANE(B), GL_LANE(C), GL_LANE(D)}
static const uint8_t gl_compress_shuffles[16][16] = {
    GL_LANES(0, 0, 0, 0), GL_LANES(0, 0, 0, 0), GL_LANES(1, 0, 0, 0), GL_LANES(0, 1, 0, 0),
    GL_LANES(2, 0, 0, 0), GL_LANES(0, 2, 0, 0), GL_LANES(1, 2, 0, 0), GL_LANES(0, 1, 2, 0),
    GL_LANES(3, 0, 0, 0), GL_LANES(0, 3, 0, 0), GL_LANES(1, 3, 0, 0), GL_LANES(0, 1, 3, 0),
    GL_LANES(2, 3, 0, 0), GL_LANES(0, 2, 3, 0), GL_LANES(1, 2, 3, 0), GL_LANES(0, 1, 2, 3),
};

GL_TARGET_AVX2 static inline unsigned gl_select_positions32_avx2(
    const uint32_t *ref, unsigned n, uint32_t least, uint32_t *positions)
{
    /* References are below 2^31. */
    const __m128i below = _mm_set1_epi32((int)(least - 1)), step = _mm_set1_epi32(4);
    __m128i next = _mm_set_epi32(3, 2, 1, 0);
    unsigned count = 0, i = 0;

    for (; i + 4 <= n; i += 4) {
        __m128i some = _mm_cmpgt_epi32(_mm_loadu_si128((const __m128i *)(ref + i)), below);
        unsigned mask = (unsigned)_mm_movemask_ps(_mm_castsi128_ps(some));
        __m128i order = _mm_loadu_si128((const __m128i *)gl_compress_shuffles[mask]);
        _mm_storeu_si128((__m128i *)(positions + count), _mm_shuffle_epi8(next, order));
        count += (unsigned)__builtin_popcount(mask);
        next = _mm_add_epi32(next, step);
    }
    for (; i < n; i++) {
        positions[count] = i;
        count += ref[i] >= least;
    }
    return count;
}

GL_TARGET_AVX2 static inline unsigned gl_select_positions16_avx2(
    const uint16_t *claims, unsigned n, uint16_t least, uint16_t *positions)
{
    const __m256i bound = _mm256_set1_epi16((int16_t)least);
    unsigned count = 0, i = 0;

    for (; i + 16 <= n; i += 16) {
        __m256i all = _mm256_loadu_si256((const __m256i *)(claims + i));
        __m256i reach = _mm256_cmpeq_epi16(_mm256_max_epu16(all, bound), all);
        unsigned some = (unsigned)_mm256_movemask_epi8(reach) & 0x55555555;
        for (; some != 0; some &= some - 1)
            positions[count++] = (uint16_t)(i + (unsigned)__builtin_ctz(some) / 2);
    }
    for (; i < n; i++)
        if (claims[i] >= least)
            positions[count++] = (uint16_t)i;
    return count;
}
#endif

/* The first step of a batch: the slot and the key of each address. */
GL_INLINE void gl_find_slots4(const gl_table *t, const uint8_t *packed, unsigned n, uint32_t *slot,
                              int16_t *key, int order, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512) {
        gl_find_slots4_avx512(t, packed, n, slot, key, order);
        return;
    }
#endif
    GL_UNROLL
    for (unsigned i = 0; i < n; i++) {
        uint32_t address = gl_load_ipv4(packed + 4 * i, order);
        slot[i] = gl_find_slot4(t, address, isa);
        key[i] = gl_address_key4(address);
        __builtin_prefetch(t->slots + slot[i]);
    }
}

/* Lists the positions of the claims that are at least `least`; returns their number. There are
 * few: to compare many at once and then read the bits of a mask is quicker than a step for each. */
GL_INLINE unsigned gl_select_positions16(const uint16_t *claims, unsigned n, uint16_t least,
                                         uint16_t *positions, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_select_positions16_avx512(claims, n, least, positions);
    if (isa == GL_AVX2)
        return gl_select_positions16_avx2(claims, n, least, positions);
#endif
    unsigned count = 0;
    (void)isa;
    for (unsigned i = 0; i < n; i++) {
        positions[count] = (uint16_t)i;
        count += claims[i] >= least;
    }
    return count;
}

/* The further steps of the addresses of a batch whose slot is a node. */
GL_INLINE void gl_resolve_nodes4(const gl_table *t, const uint8_t *packed, unsigned n,
                                 uint16_t *out, uint32_t *slot, const int16_t *key, int order,
                                 int isa)
{
    uint16_t positions[GL_BATCH];
    unsigned count = gl_select_positions16(out, n, GL_NODE_MARK, positions, isa);

    while (count > 0) {
        for (unsigned k = 0; k < count; k++) {
            unsigned i = positions[k];
            slot[i] = gl_find_child4(&t->slots[slot[i]].node4, gl_load_ipv4(packed + 4 * i, order),
                                     isa);
            __builtin_prefetch(t->slots + slot[i]);
        }
        unsigned rest = count;
        count = 0;
        for (unsigned k = 0; k < rest; k++) {
            unsigned i = positions[k];
            out[i] = (uint16_t)gl_leaf_claim4(t, slot[i], key[i], isa);
            positions[count] = (uint16_t)i;
            count += out[i] == GL_NODE_MARK;
        }
    }
}

/* A batch: at most GL_BATCH addresses. */
GL_INLINE void gl_classify_batch4(const gl_table *t, const uint8_t *packed, unsigned n,
                                  uint16_t *out, int order, int isa)
{
    uint32_t slot[GL_BATCH];
    int16_t key[GL_BATCH];
    unsigned nodes = 0;

    gl_find_slots4(t, packed, n, slot, key, order, isa);
    GL_UNROLL
    for (unsigned i = 0; i < n; i++)
        out[i] = (uint16_t)gl_leaf_claim4(t, slot[i], key[i], isa);
    for (unsigned i = 0; i < n; i++)
        nodes |= out[i] == GL_NODE_MARK;
    if (nodes)
        gl_resolve_nodes4(t, packed, n, out, slot, key, order, isa);
}

/* Lists the positions of the references that are at least `least`; returns their number. */
GL_INLINE unsigned gl_select_positions32(const uint32_t *ref, unsigned n, uint32_t least,
                                         uint32_t *positions, int isa)
{
#if defined(GL_X86)
    if (isa == GL_AVX512)
        return gl_select_positions32_avx512(ref, n, least, positions);
    if (isa == GL_AVX2)
        return gl_select_positions32_avx2(ref, n, least, positions);
#endif
    unsigned count = 0;
    (void)isa;
    for (unsigned i = 0; i < n; i++) {
        positions[count] = i;
        count += ref[i] >= least;
    }
    return count;
}

/* The same where all of them are among the `count` positions of an earlier call. */
GL_INLINE unsigned gl_reselect_positions32(const uint32_t *ref, unsigned n, uint32_t least,
                                           uint32_t *positions, unsigned count, int isa)
{
    if (isa != GL_PORTABLE) /* with vectors it is quicker to compare all of them again */
        return gl_select_positions32(ref, n, least, positions, isa);
    unsigned rest = count;
    count = 0;
    for (unsigned k = 0; k < rest; k++) {
        uint32_t position = positions[k];
        positions[count] = position;
        count += ref[position] >= least;
    }
    return count;
}

/* The last steps of the addresses of a batch for which `out` has no claim yet: those in a
 * divided /56, and those of an embedded form, whose claim is that of the IPv4 address inside. */
GL_INLINE void gl_resolve_claims6(const gl_table *t, const uint8_t *packed, unsigned n,
                                  uint16_t *out, const uint32_t *ref, const int32_t *key, int isa)
{
    uint8_t inside[4 * GL_BATCH];
    uint16_t positions[GL_BATCH], claims[GL_BATCH];
    unsigned count = gl_select_positions16(out, n, GL_MAX_CLAIMS, positions, isa), forms = 0;

    for (unsigned k = 0; k < count; k++)
        if (out[positions[k]] == GL_SEARCH_ARRAYS)
            __builtin_prefetch(t->slots + t->slots[ref[positions[k]] % GL_LEVEL].leaf6.fine_leaf);
    for (unsigned k = 0; k < count; k++) {
        unsigned i = positions[k], claim = out[i];
        const uint8_t *p = packed + 16 * (size_t)i;
        if (claim == GL_SEARCH_ARRAYS)
            claim = gl_is_mapped(p) & t->mapped_is_embedded
                        ? GL_EMBEDDED_LOW32
                        : gl_divided_claim6(t, ref[i], key[i], p, isa);
        out[i] = (uint16_t)claim;
        if (claim >= GL_EMBEDDED_FIRST) {
            gl_store_be32(inside + 4 * forms,
                          gl_embedded_ipv4(claim, gl_load_be64(p), gl_load_be64(p + 8)));
            positions[forms++] = (uint16_t)i;
        }
    }
    if (forms > 0)
        gl_classify_batch4(t, inside, forms, claims, GL_NETWORK_ORDER, isa);
    for (unsigned k = 0; k < forms; k++)
        out[positions[k]] = claims[k];
}

/* A batch: at most GL_BATCH addresses. */
GL_INLINE void gl_classify_batch6(const gl_table *t, const uint8_t *packed, unsigned n,
                                  uint16_t *out, int isa)
{
    uint32_t ref[GL_BATCH], positions[GL_BATCH];
    int32_t key[GL_BATCH];
    unsigned count, others = 0;

    GL_UNROLL
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = packed + 16 * (size_t)i;
        ref[i] = gl_find_ref6(t, p);
        key[i] = gl_address_key6(p);
        __builtin_prefetch(t->slots + ref[i] % GL_LEVEL);
    }
    count = gl_select_positions32(ref, n, 2 * GL_LEVEL, positions, isa);
    while (count > 0) {
        GL_UNROLL
        for (unsigned k = 0; k < count; k++) {
            unsigned i = positions[k];
            ref[i] = gl_find_child6(t, ref[i], key[i], isa);
            __builtin_prefetch(t->slots + ref[i] % GL_LEVEL);
        }
        count = gl_reselect_positions32(ref, n, 2 * GL_LEVEL, positions, count, isa);
    }
    count = gl_select_positions32(ref, n, GL_LEVEL, positions, isa);
    for (unsigned i = 0; i < n; i++)
        out[i] = (uint16_t)ref[i];
    GL_UNROLL
    for (unsigned k = 0; k < count; k++) {
        unsigned i = positions[k];
        out[i] = (uint16_t)gl_leaf_claim6(t, ref[i], key[i], isa);
    }
    for (unsigned i = 0; i < n; i++)
        others |= out[i] >= GL_MAX_CLAIMS;
    if (others)
        gl_resolve_claims6(t, packed, n, out, ref, key, isa);
}

GL_INLINE void gl_classify4(const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out,
                            int isa)
{
    for (; n > GL_BATCH; n -= GL_BATCH, packed += 4 * GL_BATCH, out += GL_BATCH)
        gl_classify_batch4(t, packed, GL_BATCH, out, GL_NETWORK_ORDER, isa);
    gl_classify_batch4(t, packed, (unsigned)n, out, GL_NETWORK_ORDER, isa);
}

/* The same of integers in host order. */
GL_INLINE void gl_classify_numbers(const gl_table *t, const uint32_t *numbers, size_t n,
                                   uint16_t *out, int isa)
{
    for (; n > GL_BATCH; n -= GL_BATCH, numbers += GL_BATCH, out += GL_BATCH)
        gl_classify_batch4(t, (const uint8_t *)numbers, GL_BATCH, out, GL_HOST_ORDER, isa);
    gl_classify_batch4(t, (const uint8_t *)numbers, (unsigned)n, out, GL_HOST_ORDER, isa);
}

GL_INLINE void gl_classify6(const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out,
                            int isa)
{
    for (; n > GL_BATCH; n -= GL_BATCH, packed += 16 * GL_BATCH, out += GL_BATCH)
        gl_classify_batch6(t, packed, GL_BATCH, out, isa);
    gl_classify_batch6(t, packed, (unsigned)n, out, isa);
}

#endif
