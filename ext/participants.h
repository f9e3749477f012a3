/* Participants with several addresses: the outcome of each from those of its addresses.
 *
 * Plain C11. Nothing here depends on addresses. An outcome is a byte: a verdict in its two lowest
 * bits, and above them the number of the reason why there is none.
 *
 * An address that is INVALID or of SPECIAL_PURPOSE does not count where its participant has
 * another one. All that count INSIDE are INSIDE, all OUTSIDE are OUTSIDE, and the rest is
 * UNDETERMINED: for the first reason of those addresses, in the order of the marks below. Addresses
 * on both sides are DISPUTED.
 */
#ifndef GEOLOOKUP_PARTICIPANTS_H
#define GEOLOOKUP_PARTICIPANTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What an address may contribute, one bit each; the lowest of a participant decides. */
enum {
    GL_MARK_STALE = 1 << 0,
    GL_MARK_NO_COUNTRY = 1 << 1,
    GL_MARK_UNASSIGNED = 1 << 2,
    GL_MARK_COVERED = 1 << 3,
    GL_MARK_DISPUTED = 1 << 4,
    GL_MARK_UNCONFIRMED = 1 << 5,
    GL_MARK_SUBDIVISION_UNKNOWN = 1 << 6,
    GL_MARK_UNDETERMINED = 1 << 7, /* without a reason that is known here */
    GL_MARK_INSIDE = 1 << 8,
    GL_MARK_OUTSIDE = 1 << 9,
    GL_MARK_INVALID = 1 << 10,
    GL_MARK_SPECIAL_PURPOSE = 1 << 11,
};

/* The four outcomes of a reason: those with a verdict have none. */
#define GL_MARKS_OF(MARK) GL_MARK_UNDETERMINED, GL_MARK_INSIDE, GL_MARK_OUTSIDE, MARK
#define GL_MARKS_OF_2(MARK) GL_MARKS_OF(MARK), GL_MARKS_OF(MARK)
#define GL_MARKS_OF_6(MARK) GL_MARKS_OF_2(MARK), GL_MARKS_OF_2(MARK), GL_MARKS_OF_2(MARK)
#define GL_MARKS_OF_18(MARK) GL_MARKS_OF_6(MARK), GL_MARKS_OF_6(MARK), GL_MARKS_OF_6(MARK)

/* The mark of an address by its outcome. */
static const uint16_t gl_mark_of[256] = {
    GL_MARKS_OF(GL_MARK_UNDETERMINED),
    GL_MARKS_OF(GL_MARK_DISPUTED),
    GL_MARKS_OF(GL_MARK_UNCONFIRMED),
    GL_MARKS_OF(GL_MARK_UNASSIGNED),
    GL_MARKS_OF(GL_MARK_SPECIAL_PURPOSE),
    GL_MARKS_OF(GL_MARK_INVALID),
    GL_MARKS_OF(GL_MARK_COVERED),
    GL_MARKS_OF(GL_MARK_SUBDIVISION_UNKNOWN),
    GL_MARKS_OF(GL_MARK_NO_COUNTRY),
    GL_MARKS_OF(GL_MARK_STALE),
    GL_MARKS_OF_18(GL_MARK_UNDETERMINED),
    GL_MARKS_OF_18(GL_MARK_UNDETERMINED),
    GL_MARKS_OF_18(GL_MARK_UNDETERMINED),
};

/* The outcome of a participant by the marks of all addresses. The reason is that of the lowest mark;
 * both sides are a mark of their own, GL_MARK_DISPUTED. */
#define GL_BOTH(MARKS) (((MARKS) & GL_MARK_INSIDE) && ((MARKS) & GL_MARK_OUTSIDE))
#define GL_OUTCOME_OF(MARKS)                                                                   \
    ((MARKS) & GL_MARK_STALE                          ? 3 | 9 << 2                             \
     : (MARKS) & GL_MARK_NO_COUNTRY                   ? 3 | 8 << 2                             \
     : (MARKS) & GL_MARK_UNASSIGNED                   ? 3 | 3 << 2                             \
     : (MARKS) & GL_MARK_COVERED                      ? 3 | 6 << 2                             \
     : (MARKS) & GL_MARK_DISPUTED || GL_BOTH(MARKS)   ? 3 | 1 << 2                             \
     : (MARKS) & GL_MARK_UNCONFIRMED                  ? 3 | 2 << 2                             \
     : (MARKS) & GL_MARK_SUBDIVISION_UNKNOWN          ? 3 | 7 << 2                             \
     : (MARKS) & GL_MARK_UNDETERMINED                 ? 3                                      \
     : (MARKS) & GL_MARK_INSIDE                       ? 1                                      \
     : (MARKS) & GL_MARK_OUTSIDE                      ? 2                                      \
     : (MARKS) & GL_MARK_INVALID                      ? 3 | 5 << 2                             \
     : (MARKS) & GL_MARK_SPECIAL_PURPOSE              ? 3 | 4 << 2                             \
                                                      : 3)
#define GL_OUTCOMES_8(M)                                                                       \
    GL_OUTCOME_OF(M), GL_OUTCOME_OF(M + 1), GL_OUTCOME_OF(M + 2), GL_OUTCOME_OF(M + 3),        \
        GL_OUTCOME_OF(M + 4), GL_OUTCOME_OF(M + 5), GL_OUTCOME_OF(M + 6), GL_OUTCOME_OF(M + 7)
#define GL_OUTCOMES_64(M)                                                                      \
    GL_OUTCOMES_8(M), GL_OUTCOMES_8(M + 8), GL_OUTCOMES_8(M + 16), GL_OUTCOMES_8(M + 24),      \
        GL_OUTCOMES_8(M + 32), GL_OUTCOMES_8(M + 40), GL_OUTCOMES_8(M + 48),                   \
        GL_OUTCOMES_8(M + 56)
#define GL_OUTCOMES_512(M)                                                                     \
    GL_OUTCOMES_64(M), GL_OUTCOMES_64(M + 64), GL_OUTCOMES_64(M + 128),                        \
        GL_OUTCOMES_64(M + 192), GL_OUTCOMES_64(M + 256), GL_OUTCOMES_64(M + 320),             \
        GL_OUTCOMES_64(M + 384), GL_OUTCOMES_64(M + 448)

static const uint8_t gl_outcome_of_marks[4096] = {
    GL_OUTCOMES_512(0),    GL_OUTCOMES_512(512),  GL_OUTCOMES_512(1024), GL_OUTCOMES_512(1536),
    GL_OUTCOMES_512(2048), GL_OUTCOMES_512(2560), GL_OUTCOMES_512(3072), GL_OUTCOMES_512(3584),
};

/* Adds up the addresses of `n` participants; returns the position of the first who has none, or n
 * where all have some. */
static inline size_t gl_sum_sizes(const uint32_t *sizes, size_t n, uint64_t *sum)
{
    uint32_t least = 1;
    uint64_t total = 0;

    for (size_t i = 0; i < n; i++) {
        total += sizes[i];
        least = sizes[i] < least ? sizes[i] : least;
    }
    *sum = total;
    for (size_t i = 0; least == 0 && i < n; i++)
        if (sizes[i] == 0)
            return i;
    return n;
}

/* Participants of whom the addresses come one after another. */
typedef struct {
    const uint32_t *sizes; /* addresses of each, at least 1, of those who have not begun */
    size_t left; /* addresses that are to come of the one who has; 0: all came */
    unsigned marks; /* of those that came */
    uint8_t *out; /* the outcome of the next participant */
} gl_participants;

/* Addresses that are taken at a time, while they are in the cache. */
#define GL_MARKS 1024

/* Takes the next addresses, at most GL_MARKS, by their claims. */
static inline void gl_add_addresses(gl_participants *p, const uint8_t *restrict outcome_by_claim,
                                    const uint16_t *restrict claims, size_t n)
{
    /* From 8 - k on: of eight marks, those of the first k addresses. */
    static const uint16_t all[16] = {0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF};
    uint16_t marks[GL_MARKS];
    size_t i = 0;

    for (size_t k = 0; k < n; k++)
        marks[k] = gl_mark_of[outcome_by_claim[claims[k]]];
    while (i < n) {
        if (p->left == 0) {
            /* Most participants have few addresses: these take no branch for each of them. */
            const uint32_t *size = p->sizes;
            uint8_t *out = p->out;
            for (; i + 8 <= n && *size <= 8; i += *size++) {
                uint64_t word[2], mask[2];
                memcpy(word, marks + i, sizeof word);
                memcpy(mask, all + 8 - *size, sizeof mask);
                word[0] = (word[0] & mask[0]) | (word[1] & mask[1]);
                word[0] |= word[0] >> 32;
                *out++ = gl_outcome_of_marks[(word[0] | word[0] >> 16) & 0xFFF];
            }
            p->sizes = size;
            p->out = out;
            if (i == n)
                return;
            p->left = *p->sizes++;
            p->marks = 0;
        }
        size_t end = p->left < n - i ? i + p->left : n;
        p->left -= end - i;
        for (; i < end; i++)
            p->marks |= marks[i];
        if (p->left == 0)
            *p->out++ = gl_outcome_of_marks[p->marks];
    }
}

/* Takes the next addresses, however many, by their claims. */
static inline void gl_add_all_addresses(gl_participants *p, const uint8_t *outcome_by_claim,
                                        const uint16_t *claims, size_t n)
{
    for (size_t part; n > 0; claims += part, n -= part) {
        part = n < GL_MARKS ? n : GL_MARKS;
        gl_add_addresses(p, outcome_by_claim, claims, part);
    }
}

#endif
