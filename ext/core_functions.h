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

/* An answer, and the memory of its response. */
typedef struct {
    gl_answer answer;
    uint8_t *memory;
} gl_api_answer;

static void gl_api_end(gl_answer *answer)
{
    free(((gl_api_answer *)answer)->memory);
    free(answer->memory);
    free(answer);
}

static gl_answer *gl_api_begin(const gl_table_handle *table, const gl_results *results,
                               const uint8_t *outcomes, const gl_request *request, size_t n,
                               size_t before, size_t after)
{
    gl_api_answer *a = calloc(1, sizeof *a);
    size_t room = gl_answer_room(results, request, n);

    if (a == NULL)
        return NULL;
    before += (before + gl_answer_head(n)) % 2; /* the column of countries is aligned */
    a->answer.isa = table->isa;
    a->answer.table = table->table;
    a->answer.results = results;
    a->answer.outcome = outcomes;
    a->memory = malloc(before + room + after);
    if (a->memory != NULL) {
        a->answer.response = a->memory + before;
        if (gl_answer_begin(&a->answer, request, n))
            return &a->answer;
    }
    gl_api_end(&a->answer);
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

static uint8_t *gl_api_write(gl_answer *answer, size_t *bytes)
{
    *bytes = (size_t)(gl_answer_write(answer, answer->response) - answer->response);
    return answer->response;
}

static uint8_t *gl_api_take(gl_answer *answer)
{
    uint8_t *memory = ((gl_api_answer *)answer)->memory;

    ((gl_api_answer *)answer)->memory = NULL;
    return memory;
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

static void gl_api_classify_numbers(const gl_table_handle *table, const uint32_t *numbers, size_t n,
                                    uint16_t *out)
{
    table->isa->classify_numbers(table->table, numbers, n, out);
}

static const gl_core_api gl_core_functions = {
    gl_api_claim,   gl_api_begin,    gl_api_step,       gl_api_statuses, gl_api_verdicts,
    gl_api_reasons, gl_api_networks, gl_api_write,      gl_api_take,     gl_api_end,
    gl_api_read_items, gl_api_classify, gl_api_classify_numbers,
};

#endif
