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

/* Where one address of a roster lies, and in which form: as many characters of text, at
 * most GL_LONGEST_TEXT, or one of these. */
enum { GL_PACKED4 = 0xF4, GL_PACKED6 = 0xF6, GL_UNREADABLE = 0xFF };

typedef struct {
    const char *at;
    size_t form;
} gl_item;

/* A roster that was read: the addresses of each family in their order, and which family
 * each of the `n` has: 4, 6, or 0 for what is no address. */
typedef struct {
    uint8_t *families, *four, *six;
    size_t n, fours, sixes;
} gl_roster;

/* Reads one item into out; as gl_parse. */
GL_INLINE int gl_read_item(gl_item item, uint8_t out[16], int isa)
{
    if (item.form <= GL_LONGEST_TEXT)
        return gl_parse_exact(item.at, item.form, out, isa);
    if (item.form == GL_PACKED4) {
        memcpy(out, item.at, 4);
        return 4;
    }
    if (item.form == GL_PACKED6) {
        memcpy(out, item.at, 16);
        return 6;
    }
    return 0;
}

/* Appends the addresses of items to a roster, which has room for them. */
GL_INLINE void gl_read_items(const gl_item *items, size_t n, gl_roster *roster, int isa)
{
    uint8_t *families = roster->families + roster->n;
    uint8_t *four = roster->four + 4 * roster->fours;
    uint8_t *six = roster->six + 16 * roster->sixes;

    for (size_t i = 0; i < n; i++) {
        uint8_t address[16];
        int family = gl_read_item(items[i], address, isa);
        families[i] = (uint8_t)family;
        if (family == 4) {
            memcpy(four, address, 4);
            four += 4;
        } else if (family == 6) {
            memcpy(six, address, 16);
            six += 16;
        }
    }
    roster->n += n;
    roster->fours = (size_t)(four - roster->four) / 4;
    roster->sixes = (size_t)(six - roster->six) / 16;
}

/* Writes 16 bytes an address, IPv4 in the last four. */
static inline void gl_write_wide(const gl_roster *roster, uint8_t *out)
{
    const uint8_t *four = roster->four, *six = roster->six;

    for (size_t i = 0; i < roster->n; i++, out += 16) {
        if (roster->families[i] == 6) {
            memcpy(out, six, 16);
            six += 16;
        } else {
            memset(out, 0, 16);
            if (roster->families[i] == 4) {
                memcpy(out + 12, four, 4);
                four += 4;
            }
        }
    }
}

GL_INLINE void gl_classify_roster(const gl_table *t, const gl_roster *roster, uint16_t *out,
                                  int isa)
{
    const uint8_t *families = roster->families, *four = roster->four, *six = roster->six;
    uint16_t claims[2][GL_BATCH + 1];

    if (roster->fours == roster->n) {
        gl_classify4(t, four, roster->n, out, isa);
        return;
    }
    for (size_t rest = roster->n; rest > 0;) {
        unsigned n = rest < GL_BATCH ? (unsigned)rest : GL_BATCH, fours = 0, sixes = 0;
        for (unsigned i = 0; i < n; i++) {
            fours += families[i] == 4;
            sixes += families[i] == 6;
        }
        gl_batch4(t, four, fours, claims[0], isa);
        gl_batch6(t, six, sixes, claims[1], isa);
        four += 4 * fours;
        six += 16 * sixes;
        fours = sixes = 0;
        for (unsigned i = 0; i < n; i++) {
            unsigned is_four = families[i] == 4, is_six = families[i] == 6;
            out[i] = is_four ? claims[0][fours] : is_six ? claims[1][sixes] : 0;
            fours += is_four;
            sixes += is_six;
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
    int family = gl_parse_exact(s, n, address, isa);

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
