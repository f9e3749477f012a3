/* The functions of core_api.h, over answer.h. Only for geolookup._core.
 */
#ifndef GEOLOOKUP_CORE_FUNCTIONS_H
#define GEOLOOKUP_CORE_FUNCTIONS_H

#include "roster_answer.h"
#include "core_api.h"

struct gl_table_handle {
    const gl_table *table;
    const gl_isa *isa;
};

static unsigned gl_api_claim(const gl_table_handle *table, const gl_request *request)
{
    if (request->form == GL_TEXT)
        return table->isa->claim_text(table->table, (const char *)request->addresses,
                                      request->bytes);
    return table->isa->claim_packed(table->table, request->addresses, request->bytes);
}

static gl_answer *gl_api_begin(const gl_table_handle *table, const gl_results *results,
                               const uint8_t *outcomes, const gl_request *request, size_t n)
{
    gl_answer *answer = calloc(1, sizeof *answer);

    if (answer == NULL)
        return NULL;
    answer->isa = table->isa;
    answer->table = table->table;
    answer->results = results;
    answer->outcome = outcomes;
    if (gl_answer_begin(answer, request, n))
        return answer;
    free(answer->memory);
    free(answer);
    return NULL;
}

static int gl_api_step(gl_answer *answer)
{
    gl_answer_step(answer);
    return answer->done < answer->n;
}

static const uint64_t *gl_api_statuses(const gl_answer *answer)
{
    return answer->by_status;
}

static const uint64_t *gl_api_verdicts(const gl_answer *answer)
{
    return answer->by_verdict;
}

static const uint64_t *gl_api_reasons(const gl_answer *answer)
{
    return answer->by_reason;
}

static const uint64_t *gl_api_networks(const gl_answer *answer)
{
    return answer->by_network;
}

static size_t gl_api_size(const gl_answer *answer)
{
    return gl_answer_bytes(answer);
}

static uint8_t *gl_api_write(gl_answer *answer, uint8_t *out)
{
    return gl_answer_write(answer, out);
}

static void gl_api_end(gl_answer *answer)
{
    free(answer->memory);
    free(answer);
}

static void gl_api_read_items(const gl_table_handle *table, const gl_item *items, size_t n,
                              gl_roster *roster)
{
    table->isa->read_items(items, n, roster);
}

static void gl_api_classify(const gl_table_handle *table, const gl_roster *roster, uint16_t *out)
{
    table->isa->classify_roster(table->table, roster, out);
}

static const gl_core_api gl_core_functions = {
    gl_api_claim,   gl_api_begin,    gl_api_step,       gl_api_statuses, gl_api_verdicts,
    gl_api_reasons, gl_api_networks, gl_api_size,       gl_api_write,    gl_api_end,
    gl_api_read_items, gl_api_classify,
};

#endif
