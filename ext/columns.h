/* Columns over claims: mapped through tables, counted, and turned into positions.
 *
 * Plain C11. Nothing here depends on Python or on addresses. The positions that hold a value
 * are first made a bitmap, 64 positions in a word, so that a mixed roster takes hardly longer
 * than a uniform one.
 */
#ifndef GEOLOOKUP_COLUMNS_H
#define GEOLOOKUP_COLUMNS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "instruction_sets.h"
#include "outcome.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Position of the first claim that is not below `limit`; n: there is none. */
static inline size_t gl_find_unknown_claim(const uint16_t *claims, size_t n, size_t limit)
{
    unsigned most = 0;

    for (size_t i = 0; i < n; i++)
        most = claims[i] > most ? claims[i] : most;
    if (most < limit)
        return n;
    for (size_t i = 0; i < n; i++)
        if (claims[i] >= limit)
            return i;
    return n;
}

/* Eight at a time are one store, which is a quarter quicker. */
static inline void gl_map8(const uint16_t *claims, size_t n, const uint8_t *column, uint8_t *out)
{
    size_t i = 0;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; i + 8 <= n; i += 8) {
        uint64_t word = 0;
        for (unsigned k = 0; k < 8; k++)
            word |= (uint64_t)column[claims[i + k]] << 8 * k;
        memcpy(out + i, &word, 8);
    }
#endif
    for (; i < n; i++)
        out[i] = column[claims[i]];
}

static inline void gl_map16(const uint16_t *claims, size_t n, const uint16_t *column,
                            uint16_t *out)
{
    GL_UNROLL
    for (size_t i = 0; i < n; i++)
        out[i] = column[claims[i]];
}

/* A column of six bytes for each claim. */
static inline void gl_map48(const uint16_t *claims, size_t n, const char *column, char *out)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + 6 * i, column + 6 * (size_t)claims[i], 6);
}

/* The result of a lookup: a country's two letters, a status, and the number of this pair. There
 * are a tenth as many results as claims, so they are what is counted; the numbers of addresses of
 * each country and each status follow from it. */
typedef uint32_t gl_result;

/* Numbers of a Status are below this. */
#define GL_STATUSES 8

static inline gl_result gl_make_result(uint16_t letters, unsigned status, unsigned number)
{
    return letters | status << 16 | number << 19;
}

static inline uint16_t gl_result_letters(gl_result result)
{
    return (uint16_t)result;
}

static inline unsigned gl_result_status(gl_result result)
{
    return result >> 16 & (GL_STATUSES - 1);
}

static inline unsigned gl_result_number(gl_result result)
{
    return result >> 19;
}

/* Results that are taken at a time: see gl_put_results. */
#define GL_RESULTS 256

/* Writes letters and statuses of claims, and counts their results. A batch of results is read and
 * counted, and then split: the second loop is one of vectors. There are two tallies because a
 * roster often repeats a result, and each addition would wait for the one before. */
GL_INLINE void gl_put_results(const gl_result *restrict by_claim, const uint16_t *restrict claims,
                              size_t n, uint16_t *restrict countries, uint8_t *restrict statuses,
                              uint32_t *restrict even, uint32_t *restrict odd, int isa)
{
    gl_result batch[GL_RESULTS];

    (void)isa;
    while (n > 0) {
        unsigned m = n < GL_RESULTS ? (unsigned)n : GL_RESULTS, i = 0;
        GL_UNROLL
        for (; i + 2 <= m; i += 2) {
            batch[i] = by_claim[claims[i]];
            batch[i + 1] = by_claim[claims[i + 1]];
            even[gl_result_number(batch[i])]++;
            odd[gl_result_number(batch[i + 1])]++;
        }
        if (i < m) {
            batch[i] = by_claim[claims[i]];
            even[gl_result_number(batch[i])]++;
        }
        for (i = 0; i < m; i++)
            countries[i] = gl_result_letters(batch[i]);
        for (i = 0; i < m; i++)
            statuses[i] = (uint8_t)gl_result_status(batch[i]);
        claims += m;
        countries += m;
        statuses += m;
        n -= m;
    }
}

/* Adds to counts[value]. Each value has four counters, because a column often repeats a value
 * and each addition would wait for the one before. */
static inline void gl_count8(const uint8_t *column, size_t n, uint64_t counts[256])
{
    uint64_t lanes[4][256];
    size_t i = 0;

    memset(lanes, 0, sizeof lanes);
    for (; i + 4 <= n; i += 4) {
        lanes[0][column[i]]++;
        lanes[1][column[i + 1]]++;
        lanes[2][column[i + 2]]++;
        lanes[3][column[i + 3]]++;
    }
    for (; i < n; i++)
        lanes[0][column[i]]++;
    for (unsigned value = 0; value < 256; value++)
        counts[value] += lanes[0][value] + lanes[1][value] + lanes[2][value] + lanes[3][value];
}

/* Adds the reasons of outcomes to `counts`; those of bytes that are no outcome do not count.
 *
 * Where there are many reasons each is compared with 64 outcomes, since a counter for each would
 * wait for the addition before it. Most outcomes have none. */
static inline void gl_count_reasons(const uint8_t *outcomes, size_t n, uint64_t counts[GL_REASONS])
{
    size_t i = 0;

#if defined(__SSE2__)
    const __m128i decided = _mm_set1_epi8(2), zero = _mm_setzero_si128();
    while (n - i >= 64) {
        __m128i sums[GL_REASONS]; /* of bytes, which count to 255 */
        size_t left = (n - i) / 64;
        size_t end = i + 64 * (left < 255 / 4 ? left : 255 / 4);
        for (unsigned reason = 1; reason < GL_REASONS; reason++)
            sums[reason] = zero;
        for (; i < end; i += 64) {
            const __m128i *at = (const __m128i *)(outcomes + i);
            __m128i a = _mm_loadu_si128(at), b = _mm_loadu_si128(at + 1);
            __m128i c = _mm_loadu_si128(at + 2), d = _mm_loadu_si128(at + 3);
            __m128i most = _mm_max_epu8(_mm_max_epu8(a, b), _mm_max_epu8(c, d));
            if (_mm_movemask_epi8(_mm_cmpgt_epi8(most, decided)) == 0)
                continue;
            GL_UNROLL
            for (unsigned reason = 1; reason < GL_REASONS; reason++) {
                __m128i wanted = _mm_set1_epi8((char)(reason << 2 | 3));
                __m128i ab = _mm_add_epi8(_mm_cmpeq_epi8(a, wanted), _mm_cmpeq_epi8(b, wanted));
                __m128i cd = _mm_add_epi8(_mm_cmpeq_epi8(c, wanted), _mm_cmpeq_epi8(d, wanted));
                sums[reason] = _mm_sub_epi8(sums[reason], _mm_add_epi8(ab, cd));
            }
        }
        for (unsigned reason = 1; reason < GL_REASONS; reason++) {
            __m128i sum = _mm_sad_epu8(sums[reason], zero);
            counts[reason] += (uint64_t)_mm_cvtsi128_si64(sum) +
                              (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(sum, sum));
        }
    }
#endif
    for (; i < n; i++)
        if (gl_outcome_verdict(outcomes[i]) == 3 && gl_outcome_reason(outcomes[i]) < GL_REASONS)
            counts[gl_outcome_reason(outcomes[i])]++;
    counts[0] = 0;
}

/* Writes the reasons of outcomes, which are eight at a time in a word. */
static inline void gl_put_reasons(const uint8_t *restrict outcomes, size_t n, uint8_t *restrict out)
{
    const uint64_t six_bits = UINT64_C(0x3F3F3F3F3F3F3F3F);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, outcomes + i, 8);
        word = word >> 2 & six_bits;
        memcpy(out + i, &word, 8);
    }
    for (; i < n; i++)
        out[i] = (uint8_t)gl_outcome_reason(outcomes[i]);
}

/* Number of a pair of capital letters (and the six characters around them): ten bits. */
static inline unsigned gl_pair_number(uint16_t pair)
{
    return (pair & 31u) | (pair >> 3 & (31u << 5));
}

/* The pair with the number. */
static inline uint16_t gl_pair_from_number(unsigned number)
{
    return (uint16_t)(0x4040 | (number & 31) | (number >> 5) << 8);
}

/* Whether all the values of a column are letters by gl_pair_number, which then differ in it. */
static inline int gl_is_letters(const uint16_t *column, size_t n)
{
    uint16_t other = 0;

    for (size_t i = 0; i < n; i++)
        other |= (column[i] ^ 0x4040) & 0xE0E0;
    return other == 0;
}

/* Adds to counts[gl_pair_number(value)]; lanes as in gl_count8. */
static inline void gl_count_letters(const uint16_t *column, size_t n, uint64_t counts[1024])
{
    uint32_t lanes[2][1024];

    while (n > 0) {
        size_t part = n < UINT32_MAX / 2 ? n : UINT32_MAX / 2, i = 0;
        memset(lanes, 0, sizeof lanes);
        for (; i + 2 <= part; i += 2) {
            lanes[0][gl_pair_number(column[i])]++;
            lanes[1][gl_pair_number(column[i + 1])]++;
        }
        if (i < part)
            lanes[0][gl_pair_number(column[i])]++;
        for (unsigned k = 0; k < 1024; k++)
            counts[k] += (uint64_t)lanes[0][k] + lanes[1][k];
        column += part;
        n -= part;
    }
}

/* Adds to counts[value]. */
static inline void gl_count16(const uint16_t *column, size_t n, uint64_t *counts)
{
    for (size_t i = 0; i < n; i++)
        counts[column[i]]++;
}

/* Positions of a column: where one byte or two equal `value`, or, in a column of
 * verdicts, where it is neither 1 nor 2. */
typedef enum { GL_EQUAL8, GL_EQUAL16, GL_NEITHER8 } gl_choice;

typedef struct {
    const uint8_t *column;
    size_t n; /* below 2^32 */
    gl_choice choice;
    uint16_t value;
} gl_selection;

GL_INLINE uint64_t gl_match8(const uint8_t *column, uint8_t value)
{
    uint64_t bits = 0;
#if defined(__SSE2__)
    const __m128i wanted = _mm_set1_epi8((char)value);
    for (int i = 0; i < 4; i++) {
        __m128i part = _mm_loadu_si128((const __m128i *)(column + 16 * i));
        bits |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(part, wanted)) << 16 * i;
    }
#else
    for (int i = 0; i < 64; i++)
        bits |= (uint64_t)(column[i] == value) << i;
#endif
    return bits;
}

GL_INLINE uint64_t gl_match16(const uint8_t *column, uint16_t value)
{
    uint64_t bits = 0;
#if defined(__SSE2__)
    const __m128i wanted = _mm_set1_epi16((short)value);
    for (int i = 0; i < 4; i++) {
        const __m128i *part = (const __m128i *)(column + 32 * i);
        __m128i both = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_loadu_si128(part), wanted),
                                       _mm_cmpeq_epi16(_mm_loadu_si128(part + 1), wanted));
        bits |= (uint64_t)(unsigned)_mm_movemask_epi8(both) << 16 * i;
    }
#else
    for (int i = 0; i < 64; i++) {
        uint16_t x;
        memcpy(&x, column + 2 * i, 2);
        bits |= (uint64_t)(x == value) << i;
    }
#endif
    return bits;
}

GL_INLINE uint64_t gl_match(const gl_selection *s, const uint8_t *column)
{
    if (s->choice == GL_EQUAL16)
        return gl_match16(column, s->value);
    if (s->choice == GL_EQUAL8)
        return gl_match8(column, (uint8_t)s->value);
    return ~(gl_match8(column, 1) | gl_match8(column, 2));
}

/* The bitmap of `n` positions from `begin` on; returns how many words it has. */
GL_INLINE unsigned gl_bitmap(const gl_selection *s, size_t begin, size_t n, uint64_t *words)
{
    size_t width = s->choice == GL_EQUAL16 ? 2 : 1;
    const uint8_t *column = s->column + begin * width;
    unsigned count = 0;

    for (; n >= 64; n -= 64, column += 64 * width)
        words[count++] = gl_match(s, column);
    if (n > 0) {
        uint8_t rest[128] = {0};
        memcpy(rest, column, n * width);
        words[count++] = gl_match(s, rest) & (((uint64_t)1 << n) - 1);
    }
    return count;
}

/* gl_bit_positions writes up to this many items beyond its result. */
#define GL_OVERRUN 32

#ifdef GL_X86
GL_TARGET_AVX512 static inline size_t gl_bit_positions_avx512(const uint64_t *words, unsigned count,
                                                              uint16_t *out)
{
    const __m512i step = _mm512_set1_epi16(32);
    __m512i positions = _mm512_cvtepu8_epi16(_mm256_set_epi64x(
        0x1F1E1D1C1B1A1918, 0x1716151413121110, 0x0F0E0D0C0B0A0908, 0x0706050403020100));
    uint16_t *at = out;

    for (unsigned i = 0; i < 2 * count; i++) {
        __mmask32 mask = (__mmask32)(words[i / 2] >> 32 * (i % 2));
        _mm512_storeu_si512(at, _mm512_maskz_compress_epi16(mask, positions));
        at += __builtin_popcount(mask);
        positions = _mm512_add_epi16(positions, step);
    }
    return (size_t)(at - out);
}
#endif

/* Writes the positions of the bits set in up to 1,024 words; returns their number. */
GL_INLINE size_t gl_bit_positions(const uint64_t *words, unsigned count, uint16_t *out, int isa)
{
#ifdef GL_X86
    if (isa == GL_AVX512)
        return gl_bit_positions_avx512(words, count, out);
#endif
    (void)isa;
    uint16_t *at = out;
    for (unsigned i = 0; i < count; i++)
        for (uint64_t word = words[i]; word != 0; word &= word - 1)
            *at++ = (uint16_t)(64 * i + (unsigned)__builtin_ctzll(word));
    return (size_t)(at - out);
}

/* Positions that are handled at a time, in buffers that fit the first-level cache. */
#define GL_COLUMN_PART 4096

GL_INLINE size_t gl_count_selected(const gl_selection *s, int isa)
{
    uint64_t words[GL_COLUMN_PART / 64];
    size_t total = 0;

    for (size_t begin = 0; begin < s->n; begin += GL_COLUMN_PART) {
        size_t n = s->n - begin < GL_COLUMN_PART ? s->n - begin : GL_COLUMN_PART;
        unsigned count = gl_bitmap(s, begin, n, words);
        for (unsigned i = 0; i < count; i++)
            total += gl_count_bits64(words[i], isa);
    }
    return total;
}

/* Writes the positions; gl_count_selected is their number. */
GL_INLINE void gl_select(const gl_selection *s, uint32_t *out, int isa)
{
    uint64_t words[GL_COLUMN_PART / 64];
    uint16_t positions[GL_COLUMN_PART + GL_OVERRUN];

    for (size_t begin = 0; begin < s->n; begin += GL_COLUMN_PART) {
        size_t n = s->n - begin < GL_COLUMN_PART ? s->n - begin : GL_COLUMN_PART;
        n = gl_bit_positions(words, gl_bitmap(s, begin, n, words), positions, isa);
        for (size_t i = 0; i < n; i++)
            *out++ = (uint32_t)begin + positions[i];
    }
}

#endif
