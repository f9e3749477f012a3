/* What the core lends to other extension modules: lookups and answers to rosters, as functions
 * in C that need no interpreter lock.
 *
 * Plain C11. geolookup._core fills in a gl_core_api (core_functions.h) and hands it out in a
 * capsule; whoever uses it keeps the Python objects alive whose memory the handles point to.
 */
#ifndef GEOLOOKUP_CORE_API_H
#define GEOLOOKUP_CORE_API_H

#include "wire.h"

#define GL_CORE_API_NAME "geolookup._core.api"
#define GL_TABLE_NAME "geolookup._core.Table"
#define GL_RESULTS_NAME "geolookup._core.ClaimResults"

/* Opaque: a table with the code path that it uses, the results of its claims, and an answer. */
typedef struct gl_table_handle gl_table_handle;
typedef struct gl_results gl_results;
typedef struct gl_answer gl_answer;

/* Of roster_text.h, for who reads addresses in a form that is none of the core's. */
struct gl_item;
struct gl_roster;

typedef struct {
    /* The claim of a lookup's address. */
    unsigned (*claim)(const gl_table_handle *table, const gl_request *request);
    /* Begins the answer to a request whose addresses have whole lengths, and whose groups, if there
     * are some, add up to them (gl_are_groups_of); `outcomes` has a byte for each claim, or is NULL
     * where no region set was asked for. Around its response there is to be room for `before` and
     * `after` bytes. NULL: there is no memory. */
    gl_answer *(*begin)(const gl_table_handle *table, const gl_results *results,
                        const uint8_t *outcomes, const gl_request *request, size_t n,
                        size_t before, size_t after);
    /* Classifies the next piece, a millisecond at most; 0: that was the last one. */
    int (*step)(gl_answer *answer);
    /* After the last step: addresses of each status; addresses, or participants of a roster in
     * groups, of each verdict and of each reason. */
    const uint64_t *(*statuses)(const gl_answer *answer);
    const uint64_t *(*verdicts)(const gl_answer *answer);
    const uint64_t *(*reasons)(const gl_answer *answer);
    /* Addresses by kind of network, GL_NETWORK_KINDS numbers. */
    const uint64_t *(*networks)(const gl_answer *answer);
    /* Writes the ClassifyRosterResponse without what names its dataset, once: where it begins, and
     * its bytes. */
    uint8_t *(*write)(gl_answer *answer, size_t *bytes);
    /* The memory that has the response in it, which is the caller's to free from now on. */
    uint8_t *(*take)(gl_answer *answer);
    void (*end)(gl_answer *answer);
    /* Appends the addresses of items to a roster, which has room for them. */
    void (*read_items)(const gl_table_handle *table, const struct gl_item *items, size_t n,
                       struct gl_roster *roster);
    /* Writes the claims of a roster, in its order; 0 for what is no address. */
    void (*classify)(const gl_table_handle *table, const struct gl_roster *roster, uint16_t *out);
    /* The claims of IPv4 addresses as integers in host order. */
    void (*classify_numbers)(const gl_table_handle *table, const uint32_t *numbers, size_t n,
                             uint16_t *out);
} gl_core_api;

#endif
