/* The text parser for each instruction set. */
#ifndef GEOLOOKUP_PARSE_H
#define GEOLOOKUP_PARSE_H

#include "address.h"
#include "target.h"

#ifdef GL_X86
#include "address_x86.h"
#endif

/* Bytes behind a text that gl_parse_padded may read. */
#define GL_PADDING 64

/* Copies a text of at most GL_LONGEST_TEXT characters, reading nothing else. Most texts
 * are two moves, which overlap; a call of memcpy takes as long as parsing them. */
GL_INLINE void gl_copy_text(char *to, const char *from, size_t n)
{
    if (n > 32) {
        memcpy(to, from, n);
    } else if (n >= 16) {
        char head[16], tail[16];
        memcpy(head, from, 16);
        memcpy(tail, from + n - 16, 16);
        memcpy(to, head, 16);
        memcpy(to + n - 16, tail, 16);
    } else if (n >= 8) {
        uint64_t head, tail;
        memcpy(&head, from, 8);
        memcpy(&tail, from + n - 8, 8);
        memcpy(to, &head, 8);
        memcpy(to + n - 8, &tail, 8);
    } else {
        for (size_t i = 0; i < n; i++)
            to[i] = from[i];
    }
}

/* As gl_parse. */
GL_INLINE int gl_parse_padded(const char *s, size_t n, uint8_t out[16], int isa)
{
#ifdef GL_X86
    if (isa >= GL_AVX2 && n - 7 <= 15 - 7) {
        __m128i text = _mm_loadu_si128((const __m128i *)s);
        int colons = _mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8(':')));
        if ((colons & ((1 << n) - 1)) == 0)
            return gl_parse_ipv4_x86(text, n, out) ? 4 : 0;
    }
    if (isa >= GL_AVX2 && n - 2 <= 39 - 2) {
        int found = isa == GL_AVX512 ? gl_parse_ipv6_avx512(s, n, out)
                                     : gl_parse_ipv6_avx2(s, n, out);
        if (found >= 0)
            return found ? 6 : 0;
    }
#else
    (void)isa;
#endif
    return gl_parse(s, n, out);
}

/* As gl_parse: reads nothing but the text. */
GL_INLINE int gl_parse_exact(const char *s, size_t n, uint8_t out[16], int isa)
{
#ifdef GL_X86
    if (isa >= GL_AVX2 && n - 7 <= 15 - 7) {
        __m128i text = gl_load_short(s, n);
        int colons = _mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8(':')));
        if ((colons & ((1 << n) - 1)) == 0)
            return gl_parse_ipv4_x86(text, n, out) ? 4 : 0;
    }
    if (isa == GL_AVX512 && n - 2 <= 39 - 2) {
        int found = gl_parse_ipv6_avx512(s, n, out);
        if (found >= 0)
            return found ? 6 : 0;
    }
    if (isa == GL_AVX2 && n - 2 <= 39 - 2) {
        char copy[GL_PADDING] = {0};
        memcpy(copy, s, n);
        int found = gl_parse_ipv6_avx2(copy, n, out);
        if (found >= 0)
            return found ? 6 : 0;
    }
#else
    (void)isa;
#endif
    return gl_parse(s, n, out);
}

#endif
