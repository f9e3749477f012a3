/* Addresses: the strict text parser and the embedded IPv4 forms.
 *
 * Plain C11. Nothing here depends on Python, on tables or on files, so the fuzzers and the
 * compiler's sweeps use it, too. No function reads beyond the given length or keeps state.
 */
#ifndef GEOLOOKUP_ADDRESS_H
#define GEOLOOKUP_ADDRESS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The longest zone that is accepted. Interface names have up to 15 bytes on Linux and 63
 * elsewhere; longer text is invalid or hostile. */
#define GL_MAX_ZONE 64
/* The longest address in text: eight groups, the last two as dotted IPv4. */
#define GL_MAX_PLAIN 45
/* The longest text that can be an address. */
#define GL_LONGEST_TEXT (GL_MAX_PLAIN + 1 + GL_MAX_ZONE)

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define GL_NETWORK32(x) (x)
#define GL_NETWORK64(x) (x)
#else
#define GL_NETWORK32(x) __builtin_bswap32(x)
#define GL_NETWORK64(x) __builtin_bswap64(x)
#endif

/* Loads and stores at any alignment; `be` is network order. */
static inline uint16_t gl_load_native16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline uint32_t gl_load_be32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return GL_NETWORK32(x);
}

static inline uint64_t gl_load_be64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return GL_NETWORK64(x);
}

static inline void gl_store_be32(uint8_t *p, uint32_t x)
{
    x = GL_NETWORK32(x);
    memcpy(p, &x, sizeof x);
}

/* 16 less the value of a hexadecimal digit, 0 for other characters. */
static const uint8_t gl_hex_digits[256] = {
    ['0'] = 16, 15, 14, 13, 12, 11, 10, 9, 8, 7,
    ['A'] = 6, 5, 4, 3, 2, 1,
    ['a'] = 6, 5, 4, 3, 2, 1,
};

/* Value of a hexadecimal digit, or 16. */
static inline unsigned gl_hex_digit(char c)
{
    return 16u - gl_hex_digits[(unsigned char)c];
}

/* Dotted IPv4: four decimal numbers from 0 to 255 without leading zeros. */
static inline int gl_parse_ipv4(const char *s, size_t n, uint8_t out[4])
{
    const char *end = s + n;
    for (int i = 0; i < 4; i++) {
        if (i > 0 && (s == end || *s++ != '.'))
            return 0;
        if (s == end)
            return 0;
        unsigned value = (unsigned char)*s++ - (unsigned)'0';
        if (value > 9)
            return 0;
        if (value > 0)
            for (int digits = 1; digits < 3 && s < end; digits++, s++) {
                unsigned digit = (unsigned char)*s - (unsigned)'0';
                if (digit > 9)
                    break;
                value = value * 10 + digit;
            }
        if (value > 255)
            return 0;
        out[i] = (uint8_t)value;
    }
    return s == end;
}

/* RFC 4291 text, without a zone. "::" stands for one group of zeros at least. */
static inline int gl_parse_ipv6(const char *text, size_t n, uint8_t out[16])
{
    /* A copy, so that four characters can be read at any position. */
    char copy[GL_MAX_PLAIN + 4];
    const char *s = copy, *end;
    uint8_t groups[16];
    int filled = 0, gap = -1;

    if (n < 2 || n > GL_MAX_PLAIN)
        return 0;
    end = copy + n;
    memcpy(copy, text, n);
    memset(copy + n, 0, 4);
    if (*s == ':') {
        if (s[1] != ':')
            return 0;
        gap = 0;
        s += 2;
    }
    while (s < end) {
        /* Digits are counted without branches, which could not be predicted. */
        unsigned a = gl_hex_digit(s[0]), b = gl_hex_digit(s[1]), c = gl_hex_digit(s[2]);
        unsigned d = gl_hex_digit(s[3]);
        unsigned one = a < 16, two = one & (b < 16), three = two & (c < 16);
        unsigned digits = one + two + three + (three & (d < 16));
        unsigned value = ((a & 15) << 12 | (b & 15) << 8 | (c & 15) << 4 | (d & 15)) >>
                         (16 - 4 * digits);
        if (s[digits] == '.') {
            if (filled > 12 || !gl_parse_ipv4(s, (size_t)(end - s), groups + filled))
                return 0;
            filled += 4;
            break;
        }
        s += digits;
        if (digits == 0 || filled > 14)
            return 0;
        groups[filled++] = (uint8_t)(value >> 8);
        groups[filled++] = (uint8_t)value;
        if (s == end)
            break;
        if (*s++ != ':' || s == end)
            return 0;
        if (*s == ':') {
            if (gap >= 0)
                return 0;
            gap = filled;
            s++;
        }
    }
    if (gap < 0) {
        if (filled != 16)
            return 0;
        memcpy(out, groups, 16);
        return 1;
    }
    if (filled > 14)
        return 0;
    memset(out, 0, 16);
    memcpy(out, groups, (size_t)gap);
    memcpy(out + 16 - (filled - gap), groups + gap, (size_t)(filled - gap));
    return 1;
}

/* Parses an address in text. Returns 4 with the address in out[0..3], 6 with it in
 * out[0..15], both in network order, or 0 for what is no address (out is then
 * undefined). A zone is accepted on fe80::/10 only and dropped. */
static inline int gl_parse_address(const char *s, size_t n, uint8_t out[16])
{
    size_t length = n;

    /* Colons come early: the first five characters of an IPv6 address hold one. */
    if (n < 2)
        return 0;
    if (memchr(s, ':', n < 5 ? n : 5) == NULL)
        return gl_parse_ipv4(s, n, out) ? 4 : 0;
    if (n > GL_LONGEST_TEXT)
        return 0;
    const char *zone = memchr(s, '%', n);
    if (zone != NULL)
        length = (size_t)(zone - s);
    if (!gl_parse_ipv6(s, length, out))
        return 0;
    if (zone != NULL) {
        size_t size = n - length - 1;
        if (size == 0 || size > GL_MAX_ZONE || out[0] != 0xFE || (out[1] & 0xC0) != 0x80)
            return 0;
        for (size_t i = 1; i <= size; i++)
            if (zone[i] <= ' ' || zone[i] > '~' || zone[i] == '%' || zone[i] == '/')
                return 0;
    }
    return 6;
}

/* Claims for embedded forms: where an IPv6 address carries the IPv4 address to be looked up.
 * The same numbers as EMBEDDED_* in geolookup/answer/claims.py. */
enum {
    GL_EMBEDDED_NAT64_64 = 0xFFF8,
    GL_EMBEDDED_NAT64_56 = 0xFFF9,
    GL_EMBEDDED_NAT64_48 = 0xFFFA,
    GL_EMBEDDED_NAT64_40 = 0xFFFB,
    GL_EMBEDDED_NAT64_32 = 0xFFFC,
    GL_EMBEDDED_TEREDO = 0xFFFD,
    GL_EMBEDDED_6TO4 = 0xFFFE,
    GL_EMBEDDED_LOW32 = 0xFFFF,
    GL_EMBEDDED_FIRST = GL_EMBEDDED_NAT64_64
};

/* The IPv4 address inside an IPv6 address of an embedded form. Bits 64 to 71, which RFC 6052
 * reserves, are skipped. */
static inline uint32_t gl_embedded_ipv4(unsigned form, uint64_t high, uint64_t low)
{
    switch (form) {
    case GL_EMBEDDED_TEREDO:
        return ~(uint32_t)low;
    case GL_EMBEDDED_6TO4:
        return (uint32_t)(high >> 16);
    case GL_EMBEDDED_NAT64_32:
        return (uint32_t)high;
    case GL_EMBEDDED_NAT64_40:
        return (uint32_t)(high << 8) | (uint32_t)(low >> 48 & 0xFF);
    case GL_EMBEDDED_NAT64_48:
        return (uint32_t)(high << 16) | (uint32_t)(low >> 40 & 0xFFFF);
    case GL_EMBEDDED_NAT64_56:
        return (uint32_t)(high << 24) | (uint32_t)(low >> 32 & 0xFFFFFF);
    case GL_EMBEDDED_NAT64_64:
        return (uint32_t)(low >> 24);
    default:
        return (uint32_t)low;
    }
}

#endif
