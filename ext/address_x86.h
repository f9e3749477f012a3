/* The text parser for x86-64 processors with AVX2, and for those with AVX-512.
 *
 * Both find the separators of a whole text at once and then move every digit to its
 * place, so that no branch depends on how long a number is. Text that is not plain
 * (zones, dotted tails, whatever is wrong) is left to the portable parser. None reads
 * beyond the text.
 */
#ifndef GEOLOOKUP_ADDRESS_X86_H
#define GEOLOOKUP_ADDRESS_X86_H

#include <immintrin.h>

#include "address.h"
#include "target.h"

/* A text of 7 to 15 characters, with rubbish behind. */
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

/* The same; a masked load touches nothing outside of its mask. */
GL_TARGET_AVX512 static inline __m128i gl_load_masked(const char *s, size_t n)
{
    return _mm_maskz_loadu_epi8((__mmask16)_bzhi_u32(0xFFFF, (unsigned)n), s);
}

/* How a dotted IPv4 address is written: which characters are the hundreds, tens and ones
 * of its four numbers. There are 81 ways, as each number has one to three digits. */
typedef struct {
    uint8_t from[16]; /* for each number 3 characters and a filler, GL_NONE where it has none */
    uint8_t least[4]; /* what a number of so many digits is at least */
    uint32_t ends;    /* bit i: character i ends a number */
} __attribute__((aligned(32))) gl_dotted;

/* Makes a shuffle give 0, and the digit 0 where it is added to that. */
#define GL_NONE (0x80 | '0')

/* The ends of four numbers of a, b, c and d digits, and where their entry is: no two of
 * the 81 meet there, or the compiler would say that one overrides another. */
#define GL_ENDS(a, b, c, d) \
    (1u << (a) | 1u << ((a) + (b) + 1) | 1u << ((a) + (b) + (c) + 2) | \
     1u << ((a) + (b) + (c) + (d) + 3))
#define GL_SLOT(ends) ((ends) * 6639u >> 13 & 255)

#define GL_FROM(start, digits)                                                            \
    (digits) > 2 ? (start) : GL_NONE, (digits) > 1 ? (start) + (digits) - 2 : GL_NONE,    \
        (start) + (digits) - 1, GL_NONE
#define GL_LEAST(digits) ((digits) > 2 ? 100 : (digits) > 1 ? 10 : 0)
#define GL_DOTTED(a, b, c, d)                                                             \
    [GL_SLOT(GL_ENDS(a, b, c, d))] = {                                                    \
        {GL_FROM(0, a), GL_FROM((a) + 1, b), GL_FROM((a) + (b) + 2, c),                   \
         GL_FROM((a) + (b) + (c) + 3, d)},                                                \
        {GL_LEAST(a), GL_LEAST(b), GL_LEAST(c), GL_LEAST(d)},                             \
        GL_ENDS(a, b, c, d)},
#define GL_DOTTED3(a, b, c) GL_DOTTED(a, b, c, 1) GL_DOTTED(a, b, c, 2) GL_DOTTED(a, b, c, 3)
#define GL_DOTTED2(a, b) GL_DOTTED3(a, b, 1) GL_DOTTED3(a, b, 2) GL_DOTTED3(a, b, 3)
#define GL_DOTTED1(a) GL_DOTTED2(a, 1) GL_DOTTED2(a, 2) GL_DOTTED2(a, 3)

/* The entries without a use have no ends, which no text has. */
static const gl_dotted gl_dotteds[256] = {GL_DOTTED1(1) GL_DOTTED1(2) GL_DOTTED1(3)};

/* Dotted IPv4 of 7 to 15 characters in `text`. Looking the shape up is the idea of Wojciech
 * Mula and Daniel Lemire, "Parsing IP addresses crazily fast" (2023). */
GL_TARGET_AVX2 static inline int gl_parse_ipv4_x86(__m128i text, size_t n, uint8_t out[4])
{
    const __m128i zero = _mm_set1_epi8('0');
    unsigned ends = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8('.')));
    int32_t bounds;

    ends = _bzhi_u32(ends, (unsigned)n) | 1u << n;
    const gl_dotted *dotted = gl_dotteds + GL_SLOT(ends);
    __m128i from = _mm_load_si128((const __m128i *)dotted->from);
    __m128i digits = _mm_shuffle_epi8(text, from);
    digits = _mm_sub_epi8(_mm_or_si128(digits, _mm_and_si128(from, zero)), zero);
    __m128i value = _mm_madd_epi16(
        _mm_maddubs_epi16(digits, _mm_set1_epi32(0x00010A64)), _mm_set1_epi16(1));
    /* A number with a leading zero is too small for its length; none is 255 too small. */
    memcpy(&bounds, dotted->least, 4);
    __m128i least = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(bounds));
    __m128i wrong = _mm_or_si128(_mm_cmpgt_epi32(least, value),
                                 _mm_cmpgt_epi32(value, _mm_set1_epi32(255)));
    wrong = _mm_or_si128(wrong, _mm_subs_epu8(digits, _mm_set1_epi8(9)));
    if (!_mm_testz_si128(wrong, wrong) | (dotted->ends != ends))
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

/* Copies a text of 2 to 39 characters. Most are two moves, which overlap; a call of
 * memcpy would take half as long as parsing them. */
static inline void gl_copy_text(char *to, const char *from, size_t n)
{
    if (n > 32) {
        memcpy(to, from, 32);
        memcpy(to + n - 8, from + n - 8, 8);
    } else if (n >= 16) {
        char head[16], tail[16];
        memcpy(head, from, 16);
        memcpy(tail, from + n - 16, 16);
        memcpy(to, head, 16);
        memcpy(to + n - 16, tail, 16);
    } else {
        for (size_t i = 0; i < n; i++)
            to[i] = from[i];
    }
}

/* IPv6 text of 2 to 39 characters. Returns 1, 0 for what is no address, or -1 for what is
 * not plain. */
GL_TARGET_AVX2 static inline int gl_parse_ipv6_avx2(const char *s, size_t n, uint8_t out[16])
{
    const __m256i zero = _mm256_set1_epi8('0'), a = _mm256_set1_epi8('a');
    const __m256i nine = _mm256_set1_epi8(9), five = _mm256_set1_epi8(5);
    uint64_t all = ((uint64_t)1 << n) - 1;
    uint8_t nibbles[4 + 64];
    uint8_t groups[8 + 32];
    char copy[64] = {0};
    gl_shape shape = {0};

    gl_copy_text(copy, s, n);
    memset(nibbles, 0, 4);
    for (int half = 0; half < 2; half++) {
        __m256i text = _mm256_loadu_si256((const __m256i *)(copy + 32 * half));
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
