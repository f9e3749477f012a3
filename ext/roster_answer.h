/* The answer to a roster, from the bytes of its request to those of its response.
 *
 * Plain C11. The addresses are read where they lie in the request, in steps, so that the
 * caller can do other work between them. The columns of the response are made while the claims
 * are in the cache, and kept until the size of the response is known.
 */
#ifndef GEOLOOKUP_ROSTER_ANSWER_H
#define GEOLOOKUP_ROSTER_ANSWER_H

#include "cpu_dispatch.h"
#include "outcome.h"
#include "participants.h"
#include "wire.h"

/* Addresses in a step: texts take a millisecond. */
#define GL_STEP_ADDRESSES 65536

/* Addresses that are classified and counted at a time, while they are in the cache. */
#define GL_COLUMN_CHUNK GL_MARKS

typedef struct gl_results {
    gl_result *by_claim;
    size_t claims;
    gl_result *by_number; /* in the order of countries */
    size_t count;
    uint8_t *networks; /* by claim, a bit for each Network; NULL: the dataset has no lists */
} gl_results;


/* Index of a pair among all that there could be, in alphabetical order. */
static inline unsigned gl_result_index(uint16_t letters, unsigned status)
{
    uint8_t pair[2];

    memcpy(pair, &letters, 2);
    return (pair[0] & 31u) << 8 | (pair[1] & 31u) << 3 | status;
}

/* Numbers the results of claims. Their countries are letters by gl_is_letters, their statuses
 * below GL_STATUSES. Returns 0 when there is no memory; gl_results_free is due in either case. */
static inline int gl_results_build(gl_results *k, const uint16_t *countries,
                                   const uint8_t *statuses, size_t claims)
{
    uint16_t number[1024 * GL_STATUSES] = {0};
    uint16_t letters;

    k->claims = claims;
    k->by_claim = malloc((claims + 1) * sizeof(gl_result));
    k->by_number = malloc((claims + 1) * sizeof(gl_result));
    if (k->by_claim == NULL || k->by_number == NULL)
        return 0;
    for (size_t i = 0; i < claims; i++)
        number[gl_result_index(countries[i], statuses[i])] = 1;
    for (unsigned index = 0; index < 1024 * GL_STATUSES; index++) {
        if (number[index]) {
            uint8_t pair[2] = {(uint8_t)(0x40 | index >> 8), (uint8_t)(0x40 | (index >> 3 & 31))};
            memcpy(&letters, pair, 2);
            number[index] = (uint16_t)k->count;
            k->by_number[k->count] =
                gl_make_result(letters, index % GL_STATUSES, (unsigned)k->count);
            k->count++;
        }
    }
    for (size_t i = 0; i < claims; i++)
        k->by_claim[i] = k->by_number[number[gl_result_index(countries[i], statuses[i])]];
    return 1;
}

static inline void gl_results_free(gl_results *k)
{
    free(k->by_claim);
    free(k->by_number);
    free(k->networks);
}

typedef struct gl_answer {
    const gl_isa *isa;
    const gl_table *table;
    const gl_results *results;
    const uint8_t *outcome; /* by claim; NULL: no region set was requested */
    int reasons; /* whether the column of reasons is requested */
    int keeps_claims; /* whether `claims` is wanted; set before gl_answer_begin */
    unsigned form;
    const uint8_t *at, *end; /* the addresses that are still to be read */
    size_t n, done;
    size_t positions; /* participants, if the roster comes in groups; else addresses */
    void *memory;
    uint8_t *response; /* where it will be written, with room for gl_answer_room; NULL: elsewhere */
    uint16_t *claims; /* NULL: they are not kept */
    uint16_t *countries; /* the columns, one item for each address: two letters, ... */
    uint8_t *statuses;
    uint8_t *outcomes; /* one for each position */
    int grouped;
    gl_participants participants; /* as far as their addresses are read */
    uint8_t *networks; /* with lists of networks */
    uint32_t *tally[2]; /* addresses of each result, in two parts */
    /* Complete after the last step. tally[0] has the letters of the countries that occur then,
     * tally[1] the number of addresses of each. */
    size_t country_count;
    uint64_t by_status[GL_STATUSES]; /* addresses */
    uint64_t by_verdict[3]; /* positions: inside, outside, undetermined */
    uint64_t by_reason[GL_REASONS]; /* undetermined positions */
    uint64_t by_network[GL_NETWORK_KINDS]; /* addresses, each as often as it has kinds */
    size_t bitmap_bytes[3];
    gl_container *containers[3];
    uint64_t *words[3];
} gl_answer;

/* Bytes before the column of countries, whose items are of two bytes. */
static inline size_t gl_answer_head(size_t n)
{
    return n > 0 ? gl_number_bytes(n) + gl_field_bytes(2 * n) - 2 * n : 0;
}

/* Begins the answer to a request of `n` whole addresses, to which its groups add up. `results` and
 * `outcome` have all claims of `table`; without `outcome`, groups mean nothing. Returns 0 when there is no memory; free(a->memory) is due in either case. */
static inline int gl_answer_begin(gl_answer *a, const gl_request *request, size_t n)
{
    int grouped = request->groups != NULL && a->outcome != NULL;
    size_t positions = grouped ? request->participants : n;
    size_t sizes = grouped ? positions * sizeof(uint32_t) : 0;
    size_t containers = (positions + GL_CONTAINER - 1) / GL_CONTAINER;
    size_t bitmaps = a->outcome != NULL ? 3 : 0;
    size_t words = bitmaps * GL_CONTAINER_WORDS * sizeof(uint64_t);
    size_t tally = 2 * a->results->count * sizeof(uint32_t);
    size_t kept = a->keeps_claims ? n : 0, own = a->response == NULL ? n : 0;
    /* The widest items first, so that all are aligned. */
    uint8_t *next = malloc(words + bitmaps * containers * sizeof(gl_container) + tally + sizes +
                           (own + kept) * sizeof(uint16_t) + own + (bitmaps ? positions : 0) +
                           (a->results->networks != NULL ? n : 0) + 1);

    a->memory = next;
    if (next == NULL)
        return 0;
    a->form = request->form;
    a->reasons = request->reasons && bitmaps;
    a->at = request->addresses;
    a->end = request->addresses + request->bytes;
    a->n = n;
    a->positions = positions;
    a->grouped = grouped;
    for (size_t i = 0; i < bitmaps; i++, next += words / 3)
        a->words[i] = (uint64_t *)next;
    for (size_t i = 0; i < bitmaps; i++, next += containers * sizeof(gl_container))
        a->containers[i] = (gl_container *)next;
    memset(next, 0, tally);
    a->tally[0] = (uint32_t *)next;
    a->tally[1] = a->tally[0] + a->results->count;
    next += tally;
    a->participants.sizes = (const uint32_t *)next;
    if (grouped)
        gl_unpack_groups(request, (uint32_t *)next);
    next += sizes;
    a->claims = kept ? (uint16_t *)next : NULL;
    next += kept * sizeof(uint16_t);
    a->countries = (uint16_t *)next;
    a->statuses = next + own * sizeof(uint16_t);
    a->outcomes = a->participants.out = a->statuses + own;
    if (a->response != NULL) { /* where they stay: to copy them would take as long as to write them */
        a->countries = (uint16_t *)(a->response + gl_answer_head(n));
        a->statuses = (uint8_t *)(a->countries + n) + (n > 0 ? gl_field_bytes(n) - n : 0);
    }
    a->networks = a->outcomes + (bitmaps ? positions : 0);
    return 1;
}

/* Claims of the next texts, at most GL_BATCH. */
static inline void gl_answer_classify_texts(gl_answer *a, size_t n, uint16_t *out)
{
    gl_item items[GL_BATCH];
    uint8_t families[GL_BATCH], ipv4[4 * GL_BATCH], ipv6[16 * GL_BATCH];
    gl_roster roster = {families, ipv4, ipv6, 0, 0, 0};

    for (size_t i = 0; i < n; i++) {
        size_t size = 0;
        gl_next_text(&a->at, a->end, &size); /* gl_count_texts found it valid */
        items[i].data = (const char *)a->at;
        items[i].form = size <= GL_LONGEST_TEXT ? size : GL_UNREADABLE;
        a->at += size;
    }
    a->isa->read_items(items, n, &roster);
    a->isa->classify_roster(a->table, &roster, out);
}

/* Writes the columns for the claims of the next addresses, and counts them. */
static inline void gl_answer_add_columns(gl_answer *a, const uint16_t *claims, size_t n)
{
    if (a->claims != NULL)
        memcpy(a->claims + a->done, claims, n * sizeof *claims);
    if (a->grouped)
        gl_add_addresses(&a->participants, a->outcome, claims, n);
    else if (a->outcome != NULL)
        gl_map8(claims, n, a->outcome, a->outcomes + a->done);
    if (a->results->networks != NULL)
        gl_map8(claims, n, a->results->networks, a->networks + a->done);
    a->isa->put_results(a->results->by_claim, claims, n, a->countries + a->done,
                        a->statuses + a->done, a->tally[0], a->tally[1]);
}

static inline gl_selection gl_answer_selection(const gl_answer *a, unsigned verdict)
{
    gl_selection selection = {a->outcomes, a->positions, GL_EQUAL8, (uint16_t)(verdict + 1)};

    if (verdict == 2)
        selection.choice = GL_NEITHER8;
    return selection;
}

/* Adds up the tallies, and measures the bitmaps. */
static inline void gl_answer_total(gl_answer *a)
{
    for (size_t k = 0; k < a->results->count; k++) {
        uint32_t n = a->tally[0][k] + a->tally[1][k];
        uint16_t letters = gl_result_letters(a->results->by_number[k]);
        if (n == 0)
            continue;
        a->by_status[gl_result_status(a->results->by_number[k])] += n;
        /* The results of one country are neighbours. */
        if (a->country_count > 0 && a->tally[0][a->country_count - 1] == letters) {
            a->tally[1][a->country_count - 1] += n;
        } else {
            a->tally[0][a->country_count] = letters;
            a->tally[1][a->country_count++] = n;
        }
    }
    for (unsigned i = 0; a->outcome != NULL && i < 3; i++) {
        gl_selection selection = gl_answer_selection(a, i);
        a->bitmap_bytes[i] =
            a->isa->roaring_measure(&selection, a->containers[i], a->words[i]);
        for (size_t c = 0; c * GL_CONTAINER < a->positions; c++)
            a->by_verdict[i] += a->containers[i][c].size;
    }
    if (a->by_verdict[2] > 0)
        gl_count_reasons(a->outcomes, a->positions, a->by_reason);
    if (a->results->networks != NULL) {
        uint64_t by_bits[256] = {0};
        gl_count8(a->networks, a->n, by_bits);
        for (unsigned bits = 1; bits < 256; bits++)
            for (unsigned i = 0; i < GL_NETWORK_KINDS; i++)
                a->by_network[i] += bits >> i & 1 ? by_bits[bits] : 0;
    }
}

/* Classifies the addresses of the next step. Must not be called after the last one. */
static inline void gl_answer_step(gl_answer *a)
{
    size_t end = a->n - a->done < GL_STEP_ADDRESSES ? a->n : a->done + GL_STEP_ADDRESSES;
    size_t most = a->form == GL_TEXT ? GL_BATCH : GL_COLUMN_CHUNK;
    uint16_t claims[GL_COLUMN_CHUNK];

    while (a->done < end) {
        size_t n = end - a->done < most ? end - a->done : most;
        if (a->form == GL_TEXT) {
            gl_answer_classify_texts(a, n, claims);
        } else if (a->form == GL_IPV4) {
            a->isa->classify4(a->table, a->at, n, claims);
            a->at += 4 * n;
        } else {
            a->isa->classify6(a->table, a->at, n, claims);
            a->at += 16 * n;
        }
        gl_answer_add_columns(a, claims, n);
        a->done += n;
    }
    if (a->done == a->n)
        gl_answer_total(a);
}

/* An entry of the map `counts`: "CN" and a number. */
static inline size_t gl_entry_bytes(uint32_t count)
{
    return gl_field_bytes(2) + gl_number_bytes(count);
}

/* A ReasonCount or a NetworkCount: what is counted, and a number. */
static inline size_t gl_reason_count_bytes(uint64_t count)
{
    return 2 + gl_number_bytes(count);
}

/* Bytes of the ClassifyRosterResponse, without what names its dataset and the record. */
static inline size_t gl_answer_bytes(const gl_answer *a)
{
    size_t bytes = 0;

    if (a->n > 0)
        bytes = gl_number_bytes(a->n) + gl_field_bytes(2 * a->n) + gl_field_bytes(a->n);
    for (size_t i = 0; i < a->country_count; i++)
        bytes += gl_field_bytes(gl_entry_bytes(a->tally[1][i]));
    for (unsigned i = 0; a->outcome != NULL && i < 3; i++)
        bytes += gl_field_bytes(a->bitmap_bytes[i]);
    if (a->reasons && a->positions > 0)
        bytes += gl_field_bytes(a->positions);
    for (unsigned reason = 1; a->by_verdict[2] > 0 && reason < GL_REASONS; reason++)
        if (a->by_reason[reason] > 0)
            bytes += gl_field_bytes(gl_reason_count_bytes(a->by_reason[reason]));
    if (a->grouped)
        bytes += gl_number_bytes(a->positions);
    if (a->results->networks != NULL && a->n > 0)
        bytes += gl_field_bytes(a->n);
    for (unsigned i = 0; a->results->networks != NULL && i < GL_NETWORK_KINDS; i++)
        if (a->by_network[i] > 0)
            bytes += gl_field_bytes(gl_reason_count_bytes(a->by_network[i]));
    return bytes;
}

/* Bytes of the response at most, whatever its addresses are: for gl_answer.response. */
static inline size_t gl_answer_room(const gl_results *results, const gl_request *request, size_t n)
{
    size_t positions = request->groups != NULL ? request->participants : n;
    size_t containers = (positions + GL_CONTAINER - 1) / GL_CONTAINER;
    size_t most = n < results->count ? n : results->count, bytes;

    /* Each container as positions or bits, whichever is smaller, and what stands before it. */
    bytes = 2 * positions < containers * GL_BITSET_BYTES ? 2 * positions
                                                         : containers * GL_BITSET_BYTES;
    bytes = gl_field_bytes(gl_roaring_header(containers, 0) + containers + bytes) * 3;
    bytes += gl_answer_head(n) + 2 * n + gl_field_bytes(n);
    bytes += most * gl_field_bytes(gl_entry_bytes((uint32_t)n));
    bytes += gl_field_bytes(positions) + GL_REASONS * gl_field_bytes(gl_reason_count_bytes(positions));
    bytes += gl_number_bytes(positions);
    if (results->networks != NULL)
        bytes += gl_field_bytes(n) + GL_NETWORK_KINDS * gl_field_bytes(gl_reason_count_bytes(n));
    return bytes;
}

static inline uint8_t *gl_put_column(uint8_t *out, unsigned field, const void *column, size_t bytes)
{
    out = gl_put_field(out, field, bytes);
    if (out != column)
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
    for (size_t i = 0; i < a->country_count; i++) {
        uint16_t letters = (uint16_t)a->tally[0][i];
        out = gl_put_field(gl_put_field(out, 4, gl_entry_bytes(a->tally[1][i])), 1, 2);
        memcpy(out, &letters, 2);
        out = gl_put_number(out + 2, 2, a->tally[1][i]);
    }
    for (unsigned i = 0; a->outcome != NULL && i < 3; i++) {
        gl_selection selection = gl_answer_selection(a, i);
        out = gl_put_field(out, 5 + i, a->bitmap_bytes[i]);
        a->isa->roaring_write(&selection, a->containers[i], a->words[i], out);
        out += a->bitmap_bytes[i];
    }
    if (a->reasons && a->positions > 0) {
        out = gl_put_field(out, 10, a->positions);
        gl_put_reasons(a->outcomes, a->positions, out);
        out += a->positions;
    }
    for (unsigned reason = 1; a->by_verdict[2] > 0 && reason < GL_REASONS; reason++) {
        uint64_t count = a->by_reason[reason];
        if (count > 0) {
            out = gl_put_field(out, 11, gl_reason_count_bytes(count));
            out = gl_put_number(gl_put_number(out, 1, reason), 2, count);
        }
    }
    if (a->results->networks != NULL && a->n > 0)
        out = gl_put_column(out, 14, a->networks, a->n);
    for (unsigned i = 0; a->results->networks != NULL && i < GL_NETWORK_KINDS; i++) {
        uint64_t count = a->by_network[i];
        if (count > 0) {
            out = gl_put_field(out, 15, gl_reason_count_bytes(count));
            out = gl_put_number(gl_put_number(out, 1, i + 1), 2, count);
        }
    }
    return a->grouped ? gl_put_number(out, 12, a->positions) : out;
}

#endif
