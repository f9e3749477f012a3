/* Fuzzes the bytes of a connection: the HTTP/2 server over a socket pair, with a core and a Python
 * that are small stand-ins. Whatever a client sends, when it is gone every slot, job and byte that
 * its calls took is given back, and nothing is counted as in flight.
 *
 * An input's first byte says how it is sent: bit 0, with the client's preface and settings before
 * it; bit 1, its answers are not read before the end; bits 2 to 7, in pieces of how many bytes. With
 * bit 2 the address of Envoy's checks is in a header.
 */
#define GL_LARGE 100 /* so that short inputs have large rosters */
#define GL_UNCOPIED 64 /* and large answers */

#include "check.h"
#include "event_loop.h"

enum { CLAIMS = 4, CALLS = 5, STREAMS = 3 };

struct gl_answer {
    size_t n, before;
    uint8_t *memory;
    uint64_t statuses[GL_STATUSES], verdicts[3], reasons[GL_REASONS], networks[GL_NETWORK_KINDS];
};

static unsigned find_claim(const gl_table_handle *table, const gl_request *request)
{
    (void)table;
    return request->bytes % CLAIMS;
}

static gl_answer *begin(const gl_table_handle *table, const gl_results *results,
                        const uint8_t *outcomes, const gl_request *request, size_t n,
                        size_t before, size_t after)
{
    gl_answer *answer = calloc(1, sizeof *answer);

    (void)table;
    (void)results;
    (void)request;
    answer->before = before;
    answer->memory = malloc(before + 2 * n + after);
    answer->n = answer->statuses[1] = n;
    answer->verdicts[1] = outcomes != NULL ? n : 0;
    return answer;
}

static int step(gl_answer *answer)
{
    (void)answer;
    return 0;
}

static const uint64_t *statuses(const gl_answer *answer)
{
    return answer->statuses;
}

static const uint64_t *verdicts(const gl_answer *answer)
{
    return answer->verdicts;
}

static const uint64_t *reasons(const gl_answer *answer)
{
    return answer->reasons;
}

static const uint64_t *networks(const gl_answer *answer)
{
    return answer->networks;
}

static uint8_t *write_all(gl_answer *answer, size_t *bytes)
{
    *bytes = 2 * answer->n;
    return memset(answer->memory + answer->before, 'x', *bytes);
}

static uint8_t *take(gl_answer *answer)
{
    uint8_t *memory = answer->memory;

    answer->memory = NULL;
    return memory;
}

static void end(gl_answer *answer)
{
    free(answer->memory);
    free(answer);
}

static const gl_core_api core = {
    .claim = find_claim,
    .begin = begin,
    .step = step,
    .statuses = statuses,
    .verdicts = verdicts,
    .reasons = reasons,
    .networks = networks,
    .write = write_all,
    .take = take,
    .end = end,
};

static gl_meter meter;
static gl_slots calls = {.free = CALLS}, streams = {.free = STREAMS};

static gl_authorization *new_authorization(void)
{
    static const uint16_t country_of[CLAIMS] = {0, 1, 1, 0};
    static const uint32_t begins[3] = {0, 3, 5};
    static const uint8_t outcomes[CLAIMS] = {7, 1, 2, 1};
    gl_authorization *a = calloc(1, sizeof *a);
    gl_rule rules[] = {
        {.passes = 12, .hosts = (const uint8_t *)"\0a.b\0c", .hosts_bytes = 7},
        {.kind = GL_COUNTS, .passes = 14, .prefix = (const uint8_t *)"/j", .prefix_bytes = 2},
        {.passes = 2},
    };

    a->rules = calloc(3, sizeof *a->rules);
    for (; a->rule_count < 3; a->rule_count++) {
        rules[a->rule_count].outcomes = outcomes;
        rules[a->rule_count].refusal = (const uint8_t *)"refused";
        rules[a->rule_count].refusal_bytes = 7;
        a->rules[a->rule_count] = gl_rule_new(&rules[a->rule_count], CLAIMS);
    }
    a->address_header = (const uint8_t *)"x-a";
    a->country_of = country_of;
    a->country_begin = begins;
    a->countries = a->dataset = a->no_verdict = (const uint8_t *)"parts";
    a->dataset_bytes = a->no_verdict_bytes = 4;
    a->metadata_begin = begins;
    a->metadata = a->dataset_metadata = (const uint8_t *)"parts";
    a->dataset_metadata_bytes = 4;
    return a;
}

static gl_snapshot *new_snapshot(void)
{
    static const uint8_t codes[CLAIMS] = {7, 1, 2, 4}, heads[] = "aabbbccccd";
    static const uint32_t begins[CLAIMS + 1] = {0, 2, 5, 9, 10};
    gl_snapshot *s = calloc(1, sizeof *s);

    s->users = 1;
    s->last_job = calloc(1, sizeof *s->last_job);
    s->claims = CLAIMS;
    s->statuses = codes;
    s->heads = heads;
    s->begin = begins;
    s->tail = s->named = (const uint8_t *)"tail";
    s->tail_bytes = s->named_bytes = 4;
    s->authorization = new_authorization();
    return s;
}

static gl_server *new_server(void)
{
    static const struct {
        const char *path;
        gl_method_kind kind;
        gl_slots *slots;
    } methods[] = {
        {"/L", GL_LOOKUP, &calls},
        {"/C", GL_ROSTER, &calls},
        {"/S", GL_ROSTERS, &streams},
        {"/A", GL_AUTHORIZATION, &calls},
        {"/E", GL_PYTHON, &calls},
        {"/R", GL_PYTHON_STREAM, &streams},
        {"/H", GL_HEALTH_CHECK, NULL},
        {"/W", GL_HEALTH_WATCH, &streams},
    };
    gl_server *s = gl_server_new();

    CHECK(s != NULL);
    s->core = &core;
    s->meter = &meter;
    s->methods = calloc(sizeof methods / sizeof *methods, sizeof(gl_method));
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        s->methods[s->method_count++] =
            (gl_method){strdup(methods[i].path), 2,      (unsigned)i, methods[i].kind, i > 4,
                        methods[i].slots,        "shed", "refused"};
    s->other_slots = &calls;
    s->settings = (gl_server_settings){
        .message_bytes = 200000, .roster = 20000, .metadata_bytes = 1024, .streams = 20,
        .memory = 1 << 20,       .connections = 2,        .handshake_timeout = 60000, .transfer_timeout = 60000, .idle = 60000, .keepalive = 60000,
        .policies = 15,          .unanimous = 1,  .compression = 1, .metadata = 1,
        .service = "service"};
    s->snapshot = new_snapshot();
    return s;
}

static void give_field(gl_fields *fields)
{
    static const uint32_t sizes[2] = {3, 5};

    fields->bytes = sizeof sizes + 8;
    fields->at = malloc(fields->bytes);
    memcpy(fields->at, sizes, sizeof sizes);
    memcpy(fields->at + sizeof sizes, "x-avalue", 8);
}

/* Does what threads would: rosters as they do, and for Python an answer, a refusal or nothing. */
static void do_jobs(gl_server *s)
{
    gl_job *next;

    for (gl_job *job = gl_jobs_take(&s->rosters); job != NULL; job = next) {
        next = job->next;
        gl_jobs_put(gl_work(s, job) ? &s->done : &s->rare, job);
    }
    for (gl_job *job = gl_jobs_take(&s->rare); job != NULL; job = next) {
        next = job->next;
        CHECK(job->kind != GL_JOB_DROP);
        CHECK(job->kind == GL_JOB_UNARY || !gl_job_gone(job) || job->call == NULL);
        if (job->kind == GL_JOB_LAST) {
            job->finished = 1;
        } else if (job->kind != GL_JOB_BEGIN && job->kind != GL_JOB_END) {
            size_t room = job->kind == GL_JOB_UNPACK ? 0 : GL_PREFIX;
            job->code = job->size % 4 == 3 ? GL_INTERNAL : GL_OK;
            job->shed = job->size % 8 == 7;
            job->text = job->code ? strdup("no\xC3\xA4") : NULL;
            job->more = job->kind == GL_JOB_NEXT && job->size % 4 == 2;
            if (job->size % 4 == 1)
                give_field(job->size % 8 == 1 ? &job->headers : &job->trailers);
            job->answer_bytes = job->size / 2;
            job->answer = job->memory = calloc(1, room + job->answer_bytes + 1);
            if (job->method == 3) { /* as if the route had brought its rule */
                gl_rule rule = {.passes = 4,
                                .outcomes = (const uint8_t *)"\1\2\3\1",
                                .route = job->body,
                                .route_bytes = job->size % 7};
                job->route = gl_rule_new(&rule, CLAIMS);
            } else if (job->kind != GL_JOB_UNPACK && job->perspective == NULL)
                job->perspective = gl_perspective_new((const uint8_t *)"EU", 2, 1, 0, 0,
                                                      (const uint8_t *)"\0\1\2\3", CLAIMS);
        }
        gl_jobs_put(&s->done, job);
    }
}

static void read_all(int client)
{
    uint8_t buffer[65536];

    while (recv(client, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {
    }
}

static void turn(gl_server *s)
{
    CHECK(gl_turn(s, 0) == 0);
    do_jobs(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t greeting[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    static gl_server *s;
    size_t piece, at = 0;
    int how, pair[2];

    if (size == 0)
        return 0;
    if (s == NULL)
        s = new_server();
    how = data[0];
    s->snapshot->authorization->address_header_bytes = how & 4 ? 3 : 0;
    piece = (size_t)(how >> 2) * 16 + 1;
    data++;
    size--;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    s->now = gl_clock();
    gl_add_connection(s, pair[0], 0);
    if (how & 1)
        CHECK(send(pair[1], greeting, sizeof greeting - 1, MSG_NOSIGNAL) > 0);
    for (int idle = 0; at < size && idle < 100 && s->connection_count > 0;) {
        size_t n = size - at < piece ? size - at : piece;
        ssize_t sent = send(pair[1], data + at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            at += (size_t)sent;
        idle = sent > 0 ? 0 : idle + 1;
        turn(s);
        if (!(how & 2))
            read_all(pair[1]);
    }
    for (int i = 0; i < 8; i++) {
        turn(s);
        read_all(pair[1]);
    }
    close(pair[1]);
    for (int i = 0; i < 20; i++)
        turn(s);
    CHECK(s->connection_count == 0 && s->connections == NULL && s->gone == NULL);
    CHECK(s->out == 0 && gl_large(s) == 0 && s->youngest == NULL && s->timed == NULL && s->again == NULL);
    CHECK(calls.free == CALLS && streams.free == STREAMS);
    CHECK(s->snapshot->users == 1);
    for (unsigned m = 0; m < GL_METHODS; m++)
        CHECK(meter.in_flight[m] == 0);
    return 0;
}
