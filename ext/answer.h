/* The answer to a roster, from the bytes of its request to those of its response.
 *
 * Plain C11. The addresses are read where they came in, a piece at a time, so that the
 * caller can look up between the pieces. What was found is kept as one number and one
 * verdict an address, until all is known that the size of the response hangs on; then
 * its columns are written once, where they stay.
 */
#ifndef GEOLOOKUP_ANSWER_H
#define GEOLOOKUP_ANSWER_H

#include "isa.h"
#include "wire.h"

/* Numbers of a Status are below this. */
#define GL_STATUSES 8

/* Addresses a piece: a millisecond of texts. */
#define GL_PIECE 65536

/* Addresses that are classified and counted at a time, while they are in the cache. */
#define GL_STRETCH 1024

/* Claims by their kind: the country with the status. There are a tenth as many kinds as
 * claims, so that they can be counted, and what is counted once is the number of
 * addresses of each country and of each status. */
typedef struct {
    uint16_t *kind; /* by claim */
    size_t claims;
    uint32_t *look; /* by kind: the two letters, and above them the status */
    size_t count;
} gl_kinds;

static inline uint16_t gl_letters_of(uint32_t look)
{
    return (uint16_t)look;
}

static inline unsigned gl_status_of(uint32_t look)
{
    return look >> 16;
}

/* Number of a kind among all that there could be, in the alphabet's order. */
static inline unsigned gl_place_of(uint16_t letters, unsigned status)
{
    uint8_t pair[2];

    memcpy(pair, &letters, 2);
    return (pair[0] & 31u) << 8 | (pair[1] & 31u) << 3 | status;
}

/* Numbers the kinds of claims, whose countries gl_is_letters finds good and whose statuses
 * are below GL_STATUSES. Returns 0 when there is no memory; gl_kinds_free is due in either
 * case. */
static inline int gl_kinds_build(gl_kinds *k, const uint16_t *countries,
                                 const uint8_t *statuses, size_t claims)
{
    uint16_t number[1024 * GL_STATUSES] = {0};
    uint16_t letters;

    k->claims = claims;
    k->kind = malloc((claims + 1) * sizeof(uint16_t));
    k->look = malloc((claims + 1) * sizeof(uint32_t));
    if (k->kind == NULL || k->look == NULL)
        return 0;
    for (size_t i = 0; i < claims; i++)
        number[gl_place_of(countries[i], statuses[i])] = 1;
    for (unsigned place = 0; place < 1024 * GL_STATUSES; place++) {
        if (number[place]) {
            uint8_t pair[2] = {(uint8_t)(0x40 | place >> 8), (uint8_t)(0x40 | (place >> 3 & 31))};
            memcpy(&letters, pair, 2);
            k->look[k->count] = letters | (uint32_t)(place % GL_STATUSES) << 16;
            number[place] = (uint16_t)k->count++;
        }
    }
    for (size_t i = 0; i < claims; i++)
        k->kind[i] = number[gl_place_of(countries[i], statuses[i])];
    return 1;
}

static inline void gl_kinds_free(gl_kinds *k)
{
    free(k->kind);
    free(k->look);
}

typedef struct {
    const gl_isa *isa;
    const gl_table *table;
    const gl_kinds *kinds;
    const uint8_t *verdict; /* by claim; NULL: no region set was asked for */
    unsigned form;
    const uint8_t *at, *end; /* the addresses that are still to be read */
    size_t n, done;
    void *memory;
    uint16_t *column; /* the kind of each address */
    uint8_t *verdicts;
    uint32_t *tally[2]; /* addresses of each kind, in two parts */
    /* What is known at the end. */
    size_t countries; /* how many occur: tally[0] has their letters, tally[1] addresses */
    uint64_t statuses[GL_STATUSES]; /* addresses */
    uint64_t split[3];              /* inside, outside, undetermined */
    size_t bitmap_bytes[3];
    gl_container *containers[3];
    uint64_t *words[3];
} gl_answer;

/* Begins the answer to a request whose addresses have whole lengths; `table` has no claims
 * that `kinds` doesn't, and `verdict` as many as `kinds`. Returns 0 when there is no memory;
 * free(a->memory) is due in either case. */
static inline int gl_answer_begin(gl_answer *a, const gl_request *request, size_t n)
{
    size_t containers = (n + GL_CONTAINER - 1) / GL_CONTAINER;
    size_t asked = a->verdict != NULL ? 3 : 0;
    size_t words = asked * GL_CONTAINER_WORDS * sizeof(uint64_t);
    size_t tally = 2 * a->kinds->count * sizeof(uint32_t);
    /* The widest items first, so that all are aligned. */
    uint8_t *next = malloc(words + asked * containers * sizeof(gl_container) + tally +
                           n * sizeof(uint16_t) + (asked ? n : 0) + 1);

    a->memory = next;
    if (next == NULL)
        return 0;
    a->form = request->form;
    a->at = request->addresses;
    a->end = request->addresses + request->bytes;
    a->n = n;
    for (size_t i = 0; i < asked; i++, next += words / 3)
        a->words[i] = (uint64_t *)next;
    for (size_t i = 0; i < asked; i++, next += containers * sizeof(gl_container))
        a->containers[i] = (gl_container *)next;
    memset(next, 0, tally);
    a->tally[0] = (uint32_t *)next;
    a->tally[1] = a->tally[0] + a->kinds->count;
    a->column = (uint16_t *)(next + tally);
    a->verdicts = (uint8_t *)(a->column + n);
    return 1;
}

/* Claims of the next texts, at most GL_BATCH. */
static inline void gl_answer_texts(gl_answer *a, size_t n, uint16_t *out)
{
    gl_item items[GL_BATCH];
    uint8_t families[GL_BATCH], four[4 * GL_BATCH], six[16 * GL_BATCH];
    gl_roster roster = {families, four, six, 0, 0, 0};

    for (size_t i = 0; i < n; i++) {
        size_t size = 0;
        gl_next_text(&a->at, a->end, &size); /* gl_count_texts has seen it */
        items[i].at = (const char *)a->at;
        items[i].form = size <= GL_LONGEST_TEXT ? size : GL_UNREADABLE;
        a->at += size;
    }
    a->isa->read_items(items, n, &roster);
    a->isa->classify_roster(a->table, &roster, out);
}

/* Makes kinds of the claims of the next addresses, and counts them. Two parts, because a
 * roster often repeats a kind and each addition would wait for the one before. */
static inline void gl_answer_note(gl_answer *a, size_t n)
{
    const uint16_t *kind = a->kinds->kind;
    uint16_t *column = a->column + a->done;
    uint32_t *even = a->tally[0], *odd = a->tally[1];
    size_t i = 0;

    if (a->verdict != NULL)
        gl_map8(column, n, a->verdict, a->verdicts + a->done);
    GL_UNROLL
    for (; i + 2 <= n; i += 2) {
        uint16_t one = kind[column[i]], two = kind[column[i + 1]];
        column[i] = one;
        column[i + 1] = two;
        even[one]++;
        odd[two]++;
    }
    if (i < n) {
        column[i] = kind[column[i]];
        even[column[i]]++;
    }
}

static inline gl_selection gl_answer_selection(const gl_answer *a, unsigned verdict)
{
    gl_selection selection = {a->verdicts, a->n, GL_EQUAL8, (uint16_t)(verdict + 1)};

    if (verdict == 2)
        selection.choice = GL_NEITHER8;
    return selection;
}

/* Adds up what was counted, and measures the bitmaps. */
static inline void gl_answer_settle(gl_answer *a)
{
    for (size_t k = 0; k < a->kinds->count; k++) {
        uint32_t n = a->tally[0][k] + a->tally[1][k];
        uint16_t letters = gl_letters_of(a->kinds->look[k]);
        if (n == 0)
            continue;
        a->statuses[gl_status_of(a->kinds->look[k])] += n;
        /* Kinds of one country are neighbours. */
        if (a->countries > 0 && a->tally[0][a->countries - 1] == letters) {
            a->tally[1][a->countries - 1] += n;
        } else {
            a->tally[0][a->countries] = letters;
            a->tally[1][a->countries++] = n;
        }
    }
    for (unsigned i = 0; a->verdict != NULL && i < 3; i++) {
        gl_selection selection = gl_answer_selection(a, i);
        a->bitmap_bytes[i] =
            a->isa->roaring_measure(&selection, a->containers[i], a->words[i]);
        for (size_t c = 0; c * GL_CONTAINER < a->n; c++)
            a->split[i] += a->containers[i][c].size;
    }
}

/* Classifies the next piece; after the last one all counts are known. Not to be called
 * after that. */
static inline void gl_answer_step(gl_answer *a)
{
    size_t end = a->n - a->done < GL_PIECE ? a->n : a->done + GL_PIECE;
    size_t most = a->form == GL_TEXT ? GL_BATCH : GL_STRETCH;

    while (a->done < end) {
        size_t n = end - a->done < most ? end - a->done : most;
        uint16_t *claims = a->column + a->done;
        if (a->form == GL_TEXT) {
            gl_answer_texts(a, n, claims);
        } else if (a->form == GL_IPV4) {
            a->isa->classify4(a->table, a->at, n, claims);
            a->at += 4 * n;
        } else {
            a->isa->classify6(a->table, a->at, n, claims);
            a->at += 16 * n;
        }
        gl_answer_note(a, n);
        a->done += n;
    }
    if (a->done == a->n)
        gl_answer_settle(a);
}

/* An entry of the map `counts`: "CN" and a number. */
static inline size_t gl_entry_bytes(uint32_t count)
{
    return gl_field_bytes(2) + gl_number_bytes(count);
}

/* Bytes of the ClassifyRosterResponse up to its bitmaps. */
static inline size_t gl_answer_bytes(const gl_answer *a)
{
    size_t bytes = 0;

    if (a->n > 0)
        bytes = gl_number_bytes(a->n) + gl_field_bytes(2 * a->n) + gl_field_bytes(a->n);
    for (size_t i = 0; i < a->countries; i++)
        bytes += gl_field_bytes(gl_entry_bytes(a->tally[1][i]));
    for (unsigned i = 0; a->verdict != NULL && i < 3; i++)
        bytes += gl_field_bytes(a->bitmap_bytes[i]);
    return bytes;
}

/* Writes two letters and a status for each of the kinds. */
static inline void gl_put_looks(const uint16_t *restrict column, size_t n,
                                const uint32_t *restrict look, uint8_t *restrict countries,
                                uint8_t *restrict statuses)
{
    GL_UNROLL
    for (size_t i = 0; i < n; i++) {
        uint32_t it = look[column[i]];
        uint16_t letters = gl_letters_of(it);
        memcpy(countries + 2 * i, &letters, 2);
        statuses[i] = (uint8_t)gl_status_of(it);
    }
}

/* Writes what gl_answer_bytes measures; returns the end. */
static inline uint8_t *gl_answer_write(const gl_answer *a, uint8_t *out)
{
    if (a->n > 0) {
        uint8_t *countries = gl_put_field(gl_put_number(out, 1, a->n), 2, 2 * a->n);
        uint8_t *statuses = gl_put_field(countries + 2 * a->n, 3, a->n);
        gl_put_looks(a->column, a->n, a->kinds->look, countries, statuses);
        out = statuses + a->n;
    }
    for (size_t i = 0; i < a->countries; i++) {
        uint16_t letters = (uint16_t)a->tally[0][i];
        out = gl_put_field(gl_put_field(out, 4, gl_entry_bytes(a->tally[1][i])), 1, 2);
        memcpy(out, &letters, 2);
        out = gl_put_number(out + 2, 2, a->tally[1][i]);
    }
    for (unsigned i = 0; a->verdict != NULL && i < 3; i++) {
        gl_selection selection = gl_answer_selection(a, i);
        out = gl_put_field(out, 5 + i, a->bitmap_bytes[i]);
        a->isa->roaring_write(&selection, a->containers[i], a->words[i], out);
        out += a->bitmap_bytes[i];
    }
    return out;
}

#endif
