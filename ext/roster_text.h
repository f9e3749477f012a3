/* Addresses in text and rosters of them: read on each instruction set, then classified.
 *
 * Plain C11. A roster may mix both families, text and packed bytes.
 */
#ifndef GEOLOOKUP_ROSTER_TEXT_H
#define GEOLOOKUP_ROSTER_TEXT_H

#include "address.h"
#include "bulk.h"

#ifdef GL_X86
#include "address_x86.h"
#endif

/* As gl_parse_address, by the means of an instruction set. */
GL_INLINE int gl_parse(const char *s, size_t n, uint8_t out[16], int isa)
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
    return gl_parse_address(s, n, out);
}

/* The form of an address in a roster: the length of its text, at most GL_LONGEST_TEXT, or one of
 * these. */
enum { GL_PACKED4 = 0xF4, GL_PACKED6 = 0xF6, GL_UNREADABLE = 0xFF };

typedef struct gl_item {
    const char *data;
    size_t form;
} gl_item;

/* A roster that was read: the packed addresses of each family in their order, and the family of
 * each of the `n`: 4, 6, or 0 for what is no address. */
typedef struct gl_roster {
    uint8_t *families, *ipv4, *ipv6;
    size_t n, ipv4_count, ipv6_count;
} gl_roster;

/* Reads one item into out; as gl_parse_address. */
GL_INLINE int gl_read_item(gl_item item, uint8_t out[16], int isa)
{
    if (item.form <= GL_LONGEST_TEXT)
        return gl_parse(item.data, item.form, out, isa);
    if (item.form == GL_PACKED4) {
        memcpy(out, item.data, 4);
        return 4;
    }
    if (item.form == GL_PACKED6) {
        memcpy(out, item.data, 16);
        return 6;
    }
    return 0;
}

/* Appends the addresses of items to a roster, which has room for them. */
GL_INLINE void gl_read_items(const gl_item *items, size_t n, gl_roster *roster, int isa)
{
    uint8_t *families = roster->families + roster->n;
    uint8_t *ipv4 = roster->ipv4 + 4 * roster->ipv4_count;
    uint8_t *ipv6 = roster->ipv6 + 16 * roster->ipv6_count;

    for (size_t i = 0; i < n; i++) {
        uint8_t address[16];
        int family = gl_read_item(items[i], address, isa);
        families[i] = (uint8_t)family;
        if (family == 4) {
            memcpy(ipv4, address, 4);
            ipv4 += 4;
        } else if (family == 6) {
            memcpy(ipv6, address, 16);
            ipv6 += 16;
        }
    }
    roster->n += n;
    roster->ipv4_count = (size_t)(ipv4 - roster->ipv4) / 4;
    roster->ipv6_count = (size_t)(ipv6 - roster->ipv6) / 16;
}

/* Writes 16 bytes for each address, IPv4 in the last four of them. */
static inline void gl_write_padded(const gl_roster *roster, uint8_t *out)
{
    const uint8_t *ipv4 = roster->ipv4, *ipv6 = roster->ipv6;

    for (size_t i = 0; i < roster->n; i++, out += 16) {
        if (roster->families[i] == 6) {
            memcpy(out, ipv6, 16);
            ipv6 += 16;
        } else {
            memset(out, 0, 16);
            if (roster->families[i] == 4) {
                memcpy(out + 12, ipv4, 4);
                ipv4 += 4;
            }
        }
    }
}

/* Claims in the order of the roster; 0 for what is no address. */
GL_INLINE void gl_classify_roster(const gl_table *t, const gl_roster *roster, uint16_t *out,
                                  int isa)
{
    const uint8_t *families = roster->families, *ipv4 = roster->ipv4, *ipv6 = roster->ipv6;
    uint16_t claims[2][GL_BATCH + 1];

    if (roster->ipv4_count == roster->n) {
        gl_classify4(t, ipv4, roster->n, out, isa);
        return;
    }
    for (size_t rest = roster->n; rest > 0;) {
        unsigned n = rest < GL_BATCH ? (unsigned)rest : GL_BATCH, ipv4_count = 0, ipv6_count = 0;
        for (unsigned i = 0; i < n; i++) {
            ipv4_count += families[i] == 4;
            ipv6_count += families[i] == 6;
        }
        gl_classify_batch4(t, ipv4, ipv4_count, claims[0], GL_NETWORK_ORDER, isa);
        gl_classify_batch6(t, ipv6, ipv6_count, claims[1], isa);
        ipv4 += 4 * ipv4_count;
        ipv6 += 16 * ipv6_count;
        ipv4_count = ipv6_count = 0;
        for (unsigned i = 0; i < n; i++) {
            unsigned is_ipv4 = families[i] == 4, is_ipv6 = families[i] == 6;
            out[i] = is_ipv4 ? claims[0][ipv4_count] : is_ipv6 ? claims[1][ipv6_count] : 0;
            ipv4_count += is_ipv4;
            ipv6_count += is_ipv6;
        }
        rest -= n;
        families += n;
        out += n;
    }
}

/* Claim of one text, or of 4 or 16 packed bytes; 0 for what is no address. */
GL_INLINE unsigned gl_claim_text(const gl_table *t, const char *s, size_t n, int isa)
{
    uint8_t address[16];
    int family = gl_parse(s, n, address, isa);

    if (family == 4)
        return gl_claim4(t, address, isa);
    return family == 6 ? gl_claim6(t, address, isa) : 0;
}

GL_INLINE unsigned gl_claim_packed(const gl_table *t, const uint8_t *p, size_t n, int isa)
{
    if (n == 4)
        return gl_claim4(t, p, isa);
    return n == 16 ? gl_claim6(t, p, isa) : 0;
}

#endif
