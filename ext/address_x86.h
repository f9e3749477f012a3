/* The text parser for x86-64 processors with AVX2, and for those with AVX-512.
 *
 * Both find the separators of a whole text at once and then move every digit to its
 * position, so that no branch depends on how long a number is. Text that is not plain
 * (zones, dotted tails, anything wrong) is left to the portable parser. None reads
 * beyond the text.
 */
#ifndef GEOLOOKUP_ADDRESS_X86_H
#define GEOLOOKUP_ADDRESS_X86_H

#include "address.h"
#include "instruction_sets.h"

/* A text of 7 to 15 characters; the bytes behind it are undefined. */
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
    uint8_t from[16]; /* for each number: positions of 3 digits, then GL_ZERO_LANE; also where a
                         number has fewer digits */
    uint8_t least[4]; /* the least number of so many digits */
    uint32_t ends;    /* bit i: character i ends a number */
} __attribute__((aligned(32))) gl_dotted;

/* Makes a shuffle give 0. */
#define GL_ZERO_LANE 0x80

/* The ends of four numbers of a, b, c and d digits, and the index of their entry. The 81 indexes
 * differ, or the compiler would warn of an entry that overrides another. */
#define GL_ENDS(a, b, c, d) \
    (1u << (a) | 1u << ((a) + (b) + 1) | 1u << ((a) + (b) + (c) + 2) | \
     1u << ((a) + (b) + (c) + (d) + 3))
#define GL_DOTTED_INDEX(ends) ((ends) * 6639u >> 13 & 255)

#define GL_FROM(start, digits)                                                            \
    (digits) > 2 ? (start) : GL_ZERO_LANE,                                                \
        (digits) > 1 ? (start) + (digits) - 2 : GL_ZERO_LANE, (start) + (digits) - 1,     \
        GL_ZERO_LANE
#define GL_LEAST(digits) ((digits) > 2 ? 100 : (digits) > 1 ? 10 : 0)
#define GL_DOTTED(a, b, c, d)                                                             \
    [GL_DOTTED_INDEX(GL_ENDS(a, b, c, d))] = {                                                    \
        {GL_FROM(0, a), GL_FROM((a) + 1, b), GL_FROM((a) + (b) + 2, c),                   \
         GL_FROM((a) + (b) + (c) + 3, d)},                                                \
        {GL_LEAST(a), GL_LEAST(b), GL_LEAST(c), GL_LEAST(d)},                             \
        GL_ENDS(a, b, c, d)},
#define GL_DOTTED3(a, b, c) GL_DOTTED(a, b, c, 1) GL_DOTTED(a, b, c, 2) GL_DOTTED(a, b, c, 3)
#define GL_DOTTED2(a, b) GL_DOTTED3(a, b, 1) GL_DOTTED3(a, b, 2) GL_DOTTED3(a, b, 3)
#define GL_DOTTED1(a) GL_DOTTED2(a, 1) GL_DOTTED2(a, 2) GL_DOTTED2(a, 3)

/* Unused entries have no ends, which matches no text. */
static const gl_dotted gl_dotteds[256] = {GL_DOTTED1(1) GL_DOTTED1(2) GL_DOTTED1(3)};

/* Dotted IPv4 of 7 to 15 characters in `text`. Looking the shape up is the idea of Wojciech
 * Mula and Daniel Lemire, "Parsing IP addresses crazily fast" (2023). */
GL_TARGET_AVX2 static inline int gl_parse_ipv4_x86(__m128i text, size_t n, uint8_t out[4])
{
    unsigned ends = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8('.')));
    int32_t bounds;

    ends = _bzhi_u32(ends, (unsigned)n) | 1u << n;
    const gl_dotted *dotted = gl_dotteds + GL_DOTTED_INDEX(ends);
    __m128i from = _mm_load_si128((const __m128i *)dotted->from);
    __m128i digits = _mm_shuffle_epi8(_mm_sub_epi8(text, _mm_set1_epi8('0')), from);
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

/* The shape of a text of hexadecimal digits and colons. Bit i stands for character
 * i; `ends` are the last digits of the groups. */
typedef struct {
    uint64_t digits, colons, gap, ends;
    unsigned groups, before; /* in all, and before the "::" */
} gl_shape;

/* Fills the rest of a shape. Returns 0 unless the number of groups and all colons are right. */
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

/* The first 32 characters of a text of 4 or more, zeros behind. */
GL_TARGET_AVX2 static inline __m256i gl_load_long(const char *s, size_t n)
{
    const __m256i lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    __m256i whole = _mm256_set1_epi32((int)(n / 4));
    uint32_t end;

    /* A masked load touches nothing outside of its mask, which is of four characters each;
     * those that fill no four come with the last four. */
    memcpy(&end, s + n - 4, 4);
    end = (uint32_t)((uint64_t)end >> (32 - n % 4 * 8));
    __m256i text = _mm256_maskload_epi32((const void *)s, _mm256_cmpgt_epi32(whole, lanes));
    __m256i last = _mm256_cmpeq_epi32(whole, lanes);
    return _mm256_or_si256(text, _mm256_and_si256(last, _mm256_set1_epi32((int)end)));
}

/* Values of hexadecimal digits, and negative ones for what is none. The masks have a bit for
 * each character. */
GL_TARGET_AVX2 static inline __m256i gl_read_digits(__m256i text, uint32_t *digits,
                                                    uint32_t *colons)
{
    __m256i number = _mm256_sub_epi8(text, _mm256_set1_epi8('0'));
    __m256i letter = _mm256_sub_epi8(_mm256_or_si256(text, _mm256_set1_epi8(0x20)),
                                     _mm256_set1_epi8('a'));
    __m256i is_number = _mm256_cmpeq_epi8(_mm256_min_epu8(number, _mm256_set1_epi8(9)), number);
    __m256i is_letter = _mm256_cmpeq_epi8(_mm256_min_epu8(letter, _mm256_set1_epi8(5)), letter);

    *digits = (uint32_t)_mm256_movemask_epi8(_mm256_or_si256(is_number, is_letter));
    *colons = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(text, _mm256_set1_epi8(':')));
    /* A colon, or a zero, is far enough below the letters to stay negative. */
    return _mm256_blendv_epi8(_mm256_add_epi8(letter, _mm256_set1_epi8(10)), number, is_number);
}

GL_TARGET_AVX2 static inline __m128i gl_four_groups(const uint8_t *a, const uint8_t *b,
                                                    const uint8_t *c, const uint8_t *d)
{
    uint32_t x[4];

    memcpy(x, a, 4);
    memcpy(x + 1, b, 4);
    memcpy(x + 2, c, 4);
    memcpy(x + 3, d, 4);
    return _mm_setr_epi32((int)x[0], (int)x[1], (int)x[2], (int)x[3]);
}

/* IPv6 text of 4 to 39 characters. Returns 1, 0 for what is no address, or -1 for what is
 * not plain. */
GL_TARGET_AVX2 static inline int gl_parse_ipv6_avx2(const char *s, size_t n, uint8_t out[16])
{
    const __m128i indexes = _mm_set_epi64x(0x0F0E0D0C0B0A0908, 0x0706050403020100);
    uint64_t all = ((uint64_t)1 << n) - 1;
    __m256i text = gl_load_long(s, n), rest = _mm256_setzero_si256();
    uint32_t digits[2] = {0, 0}, colons[2] = {0, 0};
    /* The values of the characters, four zeros before them; and from the 16th on, so that no
     * group lies across what is written in one go: that would have to wait. */
    uint8_t values[4 + 64 + 4], later[32];
    const uint8_t *ends[8];
    gl_shape shape = {0};

    __m256i value = gl_read_digits(text, digits, colons);
    memset(values, 0, 4);
    memset(values + 68, 0, 4); /* where groups are that there are not */
    _mm256_storeu_si256((__m256i *)(values + 4), value);
    if (n > 32) {
        uint64_t end;
        memcpy(&end, s + n - 8, 8);
        end = end >> 8 >> (39 - n) * 8;
        rest = gl_read_digits(_mm256_castsi128_si256(_mm_cvtsi64_si128((long long)end)),
                              digits + 1, colons + 1);
    }
    _mm256_storeu_si256((__m256i *)later, _mm256_permute2x128_si256(value, rest, 0x21));
    shape.digits = (digits[0] | (uint64_t)digits[1] << 32) & all;
    shape.colons = (colons[0] | (uint64_t)colons[1] << 32) & all;
    if ((shape.digits | shape.colons) != all)
        return -1;
    uint64_t pairs = shape.digits & shape.digits >> 1;
    if (!gl_find_shape(&shape, n) || (pairs & pairs >> 2 & shape.digits >> 4) != 0)
        return 0;
    uint64_t left = shape.ends;
    for (unsigned i = 0; i < 8; i++, left &= left - 1) {
        size_t end = _tzcnt_u64(left);
        /* Where its first of four is; only the last two groups can end beyond the 32nd. */
        ends[i] = i >= 6 && end - 32 < 7 ? later + (end - 19) : values + (end + 1);
    }
    /* Each group's four digits are the characters up to its end, without a colon and what
     * stands before it. */
    __m256i groups = _mm256_inserti128_si256(
        _mm256_castsi128_si256(gl_four_groups(ends[0], ends[1], ends[2], ends[3])),
        gl_four_groups(ends[4], ends[5], ends[6], ends[7]), 1);
    __m256i other = _mm256_cmpgt_epi8(_mm256_setzero_si256(), groups);
    other = _mm256_or_si256(other, _mm256_srli_epi32(other, 8));
    other = _mm256_or_si256(other, _mm256_srli_epi32(other, 16));
    groups = _mm256_maddubs_epi16(_mm256_andnot_si256(other, groups), _mm256_set1_epi16(0x0110));
    groups = _mm256_permute4x64_epi64(_mm256_packus_epi16(groups, groups), 0x08);
    __m128i bytes = _mm256_castsi256_si128(groups);
    /* The groups after the "::" go to the end. */
    __m128i before = _mm_cmpgt_epi8(_mm_set1_epi8((char)(2 * shape.before)), indexes);
    __m128i moved = _mm_sub_epi8(indexes, _mm_set1_epi8((char)(16 - 2 * shape.groups)));
    __m128i after = _mm_shuffle_epi8(_mm_andnot_si128(before, bytes), moved);
    _mm_storeu_si128((__m128i *)out, _mm_or_si128(_mm_and_si128(before, bytes), after));
    return 1;
}

/* As gl_parse_ipv6_avx2. */
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
    __mmask8 present8 = (__mmask8)(((1u << shape.before) - 1) | ~(0xFFu >> after));
    _mm_storeu_si128((__m128i *)out, _mm_maskz_expand_epi16(present8, bytes));
    return 1;
}

#endif
