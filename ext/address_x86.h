/* The text parser for x86-64 processors with AVX2, and for those with AVX-512.
 *
 * Both find the separators of a whole text at once and then move every digit to its
 * place, so that no branch depends on how long a number is. Text that is not plain
 * (zones, dotted tails, whatever is wrong) is left to the portable parser.
 */
#ifndef GEOLOOKUP_ADDRESS_X86_H
#define GEOLOOKUP_ADDRESS_X86_H

#include <immintrin.h>

#include "address.h"
#include "target.h"

/* The first 16 bytes of a text of 7 to 15, with rubbish behind, reading none of it. */
GL_TARGET_AVX2 static inline __m128i gl_load_short(const char *s, size_t n)
{
    uint64_t low, high;
    uint32_t a, b;

    if (n == 7) {
        memcpy(&a, s, 4);
        memcpy(&b, s + 3, 4);
        return _mm_cvtsi64_si128((long long)(a | (uint64_t)b << 24));
    }
    memcpy(&low, s, 8);
    memcpy(&high, s + n - 8, 8);
    return _mm_set_epi64x((long long)(high >> 8 >> 8 * (15 - n)), (long long)low);
}

/* Dotted IPv4 of 7 to 15 characters in `text`. */
GL_TARGET_AVX2 static inline int gl_parse_ipv4_x86(__m128i text, size_t n, uint8_t out[4])
{
    const __m128i spread = _mm_set_epi8(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    unsigned all = (1u << n) - 1, ends, end, start, length;
    __m128i digits = _mm_sub_epi8(text, _mm_set1_epi8('0'));
    __m128i numerals = _mm_cmpeq_epi8(_mm_min_epu8(digits, _mm_set1_epi8(9)), digits);
    unsigned dots = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8('.'))) & all;

    if ((((unsigned)_mm_movemask_epi8(numerals) | dots) & all) != all ||
        __builtin_popcount(dots) != 3)
        return 0;
    /* A byte for each number: where it ends, where it starts, how many digits it has. */
    ends = dots | 1u << n;
    end = (unsigned)__builtin_ctz(ends);
    ends &= ends - 1;
    end |= (unsigned)__builtin_ctz(ends) << 8;
    ends &= ends - 1;
    end |= (unsigned)__builtin_ctz(ends) << 16;
    end |= (unsigned)n << 24;
    start = (end << 8) + 0x01010100;
    length = end - start;
    if ((length & 0xFCFCFCFC) != 0)
        return 0;
    /* Each number's hundreds, tens and ones; 0 where it has none. */
    __m128i from = _mm_add_epi8(_mm_shuffle_epi8(_mm_cvtsi32_si128((int)end), spread),
                                _mm_set1_epi32((int)0x80FFFEFD));
    __m128i first = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)start), spread);
    from = _mm_or_si128(from, _mm_cmpgt_epi8(first, from));
    digits = _mm_shuffle_epi8(digits, from);
    __m128i value = _mm_madd_epi16(
        _mm_maddubs_epi16(digits, _mm_set1_epi32(0x00010A64)), _mm_set1_epi16(1));
    /* A number with a leading zero is too small for its length; none is 255 too small. */
    __m128i least = _mm_cvtepu8_epi32(_mm_shuffle_epi8(
        _mm_cvtsi32_si128(0x640A00FF), _mm_cvtsi32_si128((int)length)));
    __m128i wrong = _mm_or_si128(_mm_cmpgt_epi32(least, value),
                                 _mm_cmpgt_epi32(value, _mm_set1_epi32(255)));
    if (!_mm_testz_si128(wrong, wrong))
        return 0;
    uint32_t address = (uint32_t)_mm_cvtsi128_si32(
        _mm_shuffle_epi8(value, _mm_set1_epi32(0x0C080400)));
    memcpy(out, &address, 4);
    return 1;
}

/* What a text of hexadecimal digits and colons looks like. Bit i stands for character
 * i; `ends` are the last digits of the groups. */
typedef struct {
    uint64_t digits, colons, gap, ends;
    unsigned groups, before; /* in all, and before the "::" */
} gl_shape;

/* Zero unless the groups are right in number and the colons in place. */
GL_TARGET_AVX2 static inline int gl_find_shape(gl_shape *shape, size_t n)
{
    uint64_t digits = shape->digits, colons = shape->colons;
    uint64_t gap = colons & colons >> 1;

    shape->gap = gap;
    shape->ends = digits & ~(digits >> 1);
    shape->groups = (unsigned)__builtin_popcountll(shape->ends);
    shape->before = (unsigned)__builtin_popcountll(shape->ends & (gap - 1));
    /* A colon at either end belongs to the "::". */
    uint64_t loose = (colons & ~gap & 1) | ((colons & ~(gap << 1)) >> (n - 1));
    return ((gap & (gap - 1)) | loose) == 0 && (gap != 0 ? shape->groups < 8
                                                         : shape->groups == 8);
}

/* IPv6 text of 2 to 39 characters, with 64 readable bytes at `s`. Returns 1, 0 for what
 * is no address, or -1 for what is not plain. */
GL_TARGET_AVX2 static inline int gl_parse_ipv6_avx2(const char *s, size_t n, uint8_t out[16])
{
    const __m256i zero = _mm256_set1_epi8('0'), a = _mm256_set1_epi8('a');
    const __m256i nine = _mm256_set1_epi8(9), five = _mm256_set1_epi8(5);
    uint64_t all = ((uint64_t)1 << n) - 1;
    uint8_t nibbles[4 + 64];
    uint8_t groups[8 + 32];
    gl_shape shape = {0};

    memset(nibbles, 0, 4);
    for (int half = 0; half < 2; half++) {
        __m256i text = _mm256_loadu_si256((const __m256i *)(s + 32 * half));
        __m256i number = _mm256_sub_epi8(text, zero);
        __m256i letter = _mm256_sub_epi8(_mm256_or_si256(text, _mm256_set1_epi8(0x20)), a);
        __m256i is_number = _mm256_cmpeq_epi8(_mm256_min_epu8(number, nine), number);
        __m256i is_letter = _mm256_cmpeq_epi8(_mm256_min_epu8(letter, five), letter);
        __m256i value = _mm256_blendv_epi8(
            _mm256_add_epi8(letter, _mm256_set1_epi8(10)), number, is_number);
        _mm256_storeu_si256((__m256i *)(nibbles + 4 + 32 * half), value);
        __m256i is_colon = _mm256_cmpeq_epi8(text, _mm256_set1_epi8(':'));
        shape.digits |= (uint64_t)(uint32_t)_mm256_movemask_epi8(
                            _mm256_or_si256(is_number, is_letter)) << 32 * half;
        shape.colons |= (uint64_t)(uint32_t)_mm256_movemask_epi8(is_colon) << 32 * half;
    }
    shape.digits &= all;
    shape.colons &= all;
    if ((shape.digits | shape.colons) != all)
        return -1;
    if (!gl_find_shape(&shape, n))
        return 0;
    /* Each group's four digits are the bytes up to its end; those that belong to what
     * stands before it are cleared. */
    uint64_t ends = shape.ends, digits = shape.digits;
    unsigned size = 0;
    uint64_t longer = digits & digits >> 1 & digits >> 2 & digits >> 3 & digits >> 4;
    if (longer != 0)
        return 0;
    memset(groups, 0, 16);
    for (unsigned i = 0; i < shape.groups; i++, ends &= ends - 1) {
        unsigned end = (unsigned)__builtin_ctzll(ends);
        /* Digits that stand side by side up to the end: ones from the left. */
        unsigned length = (unsigned)__builtin_clzll(~(digits << (63 - end)));
        uint32_t x;
        memcpy(&x, nibbles + 4 + end - 3, 4);
        x = (uint32_t)_bzhi_u64(__builtin_bswap32(x), 8 * length);
        x = (x | x >> 4) & 0x00FF00FF;
        x |= x >> 8;
        groups[size++] = (uint8_t)(x >> 8);
        groups[size++] = (uint8_t)x;
    }
    unsigned left = 2 * shape.before, right = size - left;
    memset(out, 0, 16);
    memcpy(out, groups, 16);
    if (left < 16) {
        memset(out + left, 0, 16 - left);
        memcpy(out + 16 - right, groups + left, right);
    }
    return 1;
}

/* As gl_parse_ipv6_avx2, without reading beyond the text. */
GL_TARGET_AVX512 static inline int gl_parse_ipv6_avx512(const char *s, size_t n, uint8_t out[16])
{
    uint64_t all = ((uint64_t)1 << n) - 1;
    __m512i text = _mm512_maskz_loadu_epi8(all, s);
    uint64_t numbers = _mm512_cmple_epu8_mask(
        _mm512_sub_epi8(text, _mm512_set1_epi8('0')), _mm512_set1_epi8(9));
    uint64_t letters = _mm512_cmple_epu8_mask(
        _mm512_sub_epi8(_mm512_or_si512(text, _mm512_set1_epi8(0x20)), _mm512_set1_epi8('a')),
        _mm512_set1_epi8(5));
    gl_shape shape = {0};

    shape.digits = numbers | letters;
    shape.colons = _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(':'));
    if ((shape.digits | shape.colons) != all)
        return -1;
    if (!gl_find_shape(&shape, n))
        return 0;
    /* second, third, fourth: digits that are so many from the end of their group. */
    uint64_t digits = shape.digits, ends = shape.ends;
    uint64_t second = digits & ends >> 1, third = digits & second >> 1;
    uint64_t fourth = digits & third >> 1;
    if ((digits & fourth >> 1) != 0)
        return 0;
    /* Of the 32 digits of the full form, those that the text has. */
    uint32_t present = _pdep_u32((1u << shape.groups) - 1, 0x88888888) |
                       _pdep_u32((uint32_t)_pext_u64(second << 1, ends), 0x44444444) |
                       _pdep_u32((uint32_t)_pext_u64(third << 2, ends), 0x22222222) |
                       _pdep_u32((uint32_t)_pext_u64(fourth << 3, ends), 0x11111111);
    __m512i values = _mm512_and_si512(text, _mm512_set1_epi8(0x0F));
    values = _mm512_mask_add_epi8(values, letters, values, _mm512_set1_epi8(9));
    __m256i full = _mm256_maskz_expand_epi8(
        present, _mm512_castsi512_si256(_mm512_maskz_compress_epi8(digits, values)));
    __m128i bytes = _mm256_cvtepi16_epi8(
        _mm256_maddubs_epi16(full, _mm256_set1_epi16(0x0110)));
    /* The groups after the "::" go to the end. */
    unsigned after = shape.groups - shape.before;
    __mmask8 places = (__mmask8)(((1u << shape.before) - 1) | ~(0xFFu >> after));
    _mm_storeu_si128((__m128i *)out, _mm_maskz_expand_epi16(places, bytes));
    return 1;
}

#endif
