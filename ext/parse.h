/* The text parser for each instruction set. */
#ifndef GEOLOOKUP_PARSE_H
#define GEOLOOKUP_PARSE_H

#include "address.h"
#include "target.h"

#ifdef GL_X86
#include "address_x86.h"
#endif

/* As gl_parse. */
GL_INLINE int gl_parse_exact(const char *s, size_t n, uint8_t out[16], int isa)
{
#ifdef GL_X86
    if (isa >= GL_AVX2 && n - 7 <= 15 - 7) {
        __m128i text = isa == GL_AVX512 ? gl_load_masked(s, n) : gl_load_short(s, n);
        if (gl_parse_ipv4_x86(text, n, out))
            return 4;
    }
    if (isa >= GL_AVX2 && n - 4 <= 39 - 4) {
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

#endif
