/* The answer to a roster, from the bytes of its request to those of its response.
 *
 * Plain C11. The addresses are read where they came in, a piece at a time, so that the
 * caller can look up between the pieces. The columns of the response are made while what
 * was found is in the cache, and kept until all is known that its size hangs on.
 */
#ifndef GEOLOOKUP_ROSTER_ANSWER_H
#define GEOLOOKUP_ROSTER_ANSWER_H

#include "cpu_dispatch.h"
#include "wire.h"

/* Numbers of a Status are below this. */
#define GL_STATUSES 8

/* Addresses a piece: a millisecond of texts. */
#define GL_PIECE 65536

/* Addresses that are classified and counted at a time, while they are in the cache. */
#define GL_STRETCH 1024

/* A country and a status, and the number of the pair: its kind. There are a tenth as many
 * kinds as claims, so that they can be counted, and what is counted once is the number of
 * addresses of each country and of each status. */
typedef uint32_t gl_look;

typedef struct {
    gl_look *look; /* by claim */
    size_t claims;
    gl_look *kinds; /* by kind, in the order of countries */
    size_t count;
} gl_kinds;

static inline gl_look gl_look_of(uint16_t letters, unsigned status, unsigned kind)
{
    return letters | status << 16 | kind << 19;
}

static inline uint16_t gl_letters_of(gl_look look)
{
    return (uint16_t)look;
}

static inline unsigned gl_status_of(gl_look look)
{
    return look >> 16 & (GL_STATUSES - 1);
}

static inline unsigned gl_kind_of(gl_look look)
{
    return look >> 19;
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
    k->look = malloc((claims + 1) * sizeof(gl_look));
    k->kinds = malloc((claims + 1) * sizeof(gl_look));
    if (k->look == NULL || k->kinds == NULL)
        return 0;
    for (size_t i = 0; i < claims; i++)
        number[gl_place_of(countries[i], statuses[i])] = 1;
    for (unsigned place = 0; place < 1024 * GL_STATUSES; place++) {
        if (number[place]) {
            uint8_t pair[2] = {(uint8_t)(0x40 | place >> 8), (uint8_t)(0x40 | (place >> 3 & 31))};
            memcpy(&letters, pair, 2);
            number[place] = (uint16_t)k->count;
            k->kinds[k->count] = gl_look_of(letters, place % GL_STATUSES, (unsigned)k->count);
            k->count++;
        }
    }
    for (size_t i = 0; i < claims; i++)
        k->look[i] = k->kinds[number[gl_place_of(countries[i], statuses[i])]];
    return 1;
}

static inline void gl_kinds_free(gl_kinds *k)
{
    free(k->look);
    free(k->kinds);
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
    uint16_t *countries; /* the columns: two letters an address, and so on */
    uint8_t *statuses;
    uint8_t *verdicts;
    uint32_t *tally[2]; /* addresses of each kind, in two parts */
    /* What is known at the end. */
    size_t counts; /* countries that occur: tally[0] has their letters, tally[1] addresses */
    uint64_t by_status[GL_STATUSES]; /* addresses */
    uint64_t split[3];               /* inside, outside, undetermined */
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
                           n * (sizeof(uint16_t) + 1) + (asked ? n : 0) + 1);

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
    a->countries = (uint16_t *)(next + tally);
    a->statuses = (uint8_t *)(a->countries + n);
    a->verdicts = a->statuses + n;
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

/* Makes columns of the claims of the next addresses, and counts them. Two tallies, because
 * a roster often repeats a kind and each addition would wait for the one before. */
static inline void gl_answer_note(gl_answer *a, const uint16_t *restrict claims, size_t n)
{
    const gl_look *restrict look = a->kinds->look;
    uint16_t *restrict countries = a->countries + a->done;
    uint8_t *restrict statuses = a->statuses + a->done;
    uint32_t *restrict even = a->tally[0], *restrict odd = a->tally[1];
    size_t i = 0;

    if (a->verdict != NULL)
        gl_map8(claims, n, a->verdict, a->verdicts + a->done);
    GL_UNROLL
    for (; i + 2 <= n; i += 2) {
        gl_look one = look[claims[i]], two = look[claims[i + 1]];
        countries[i] = gl_letters_of(one);
        countries[i + 1] = gl_letters_of(two);
        statuses[i] = (uint8_t)gl_status_of(one);
        statuses[i + 1] = (uint8_t)gl_status_of(two);
        even[gl_kind_of(one)]++;
        odd[gl_kind_of(two)]++;
    }
    if (i < n) {
        gl_look last = look[claims[i]];
        countries[i] = gl_letters_of(last);
        statuses[i] = (uint8_t)gl_status_of(last);
        even[gl_kind_of(last)]++;
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
        uint16_t letters = gl_letters_of(a->kinds->kinds[k]);
        if (n == 0)
            continue;
        a->by_status[gl_status_of(a->kinds->kinds[k])] += n;
        /* Kinds of one country are neighbours. */
        if (a->counts > 0 && a->tally[0][a->counts - 1] == letters) {
            a->tally[1][a->counts - 1] += n;
        } else {
            a->tally[0][a->counts] = letters;
            a->tally[1][a->counts++] = n;
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
    uint16_t claims[GL_STRETCH];

    while (a->done < end) {
        size_t n = end - a->done < most ? end - a->done : most;
        if (a->form == GL_TEXT) {
            gl_answer_texts(a, n, claims);
        } else if (a->form == GL_IPV4) {
            a->isa->classify4(a->table, a->at, n, claims);
            a->at += 4 * n;
        } else {
            a->isa->classify6(a->table, a->at, n, claims);
            a->at += 16 * n;
        }
        gl_answer_note(a, claims, n);
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
    for (size_t i = 0; i < a->counts; i++)
        bytes += gl_field_bytes(gl_entry_bytes(a->tally[1][i]));
    for (unsigned i = 0; a->verdict != NULL && i < 3; i++)
        bytes += gl_field_bytes(a->bitmap_bytes[i]);
    return bytes;
}

static inline uint8_t *gl_put_column(uint8_t *out, unsigned field, const void *column, size_t bytes)
{
    out = gl_put_field(out, field, bytes);
    memcpy(out, column, bytes);
    return out + bytes;
}

/* Writes what gl_answer_bytes measures; returns the end. */
static inline uint8_t *gl_answer_write(const gl_answer *a, uint8_t *out)
{
    if (a->n > 0) {
        out = gl_put_column(gl_put_number(out, 1, a->n), 2, a->countries, 2 * a->n);
        out = gl_put_column(out, 3, a->statuses, a->n);
    }
    for (size_t i = 0; i < a->counts; i++) {
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
