/* What happens with a call: admission, its messages, its answers, its end.
 *
 * Plain C11. Runs in the event loop's thread, but for gl_work, which is for threads without the
 * interpreter lock.
 */
#ifndef GEOLOOKUP_CALLS_H
#define GEOLOOKUP_CALLS_H

#include "server.h"

static void gl_message(gl_call *call, int compressed, const uint8_t *data, size_t size,
                       uint8_t *owned);
static void gl_pump(gl_call *call);
static void gl_again(gl_connection *c);

/* --- counting */

static inline void gl_count_begin(gl_call *call)
{
    gl_add(&call->connection->meter->in_flight[call->method->number], 1);
    call->counted = 1;
}

static inline void gl_count_end(gl_call *call, int code)
{
    uint64_t now = gl_clock();

    gl_meter_end_call(call->connection->meter, call->method->number, (unsigned)code,
                   now > call->accepted ? now - call->accepted : 0);
    call->counted = 0;
}

/* --- the life of a call */

static inline gl_call *gl_call_new(gl_connection *c, int32_t stream)
{
    gl_server *s = c->server;
    gl_call *call = s->spare;

    if (call != NULL) {
        s->spare = call->next;
        s->spare_count--;
    } else if ((call = malloc(sizeof *call)) == NULL) {
        return NULL;
    }
    memset(call, 0, offsetof(gl_call, small));
    call->connection = c;
    call->stream = stream;
    call->since = s->now;
    call->next = c->calls;
    if (c->calls != NULL)
        c->calls->previous = call;
    c->calls = call;
    c->open++;
    return call;
}

static inline void gl_set_deadline(gl_call *call, uint64_t deadline)
{
    gl_server *s = call->connection->server;

    call->deadline = deadline;
    call->timed = 1;
    call->next_timed = s->timed;
    if (s->timed != NULL)
        s->timed->previous_timed = call;
    s->timed = call;
    if (deadline < s->next_deadline)
        s->next_deadline = deadline;
}

static inline void gl_job_out(gl_call *call, gl_job *job, gl_job_queue *queue)
{
    gl_server *s = call->connection->server;

    job->call = call;
    call->job = job;
    call->stage = GL_BUSY;
    s->out++;
    gl_jobs_put(queue, job);
}

/* Makes a job; takes `owned` over, or copies the data where it is NULL. NULL: no memory. */
static inline gl_job *gl_job_new(gl_call *call, gl_job_kind kind, const uint8_t *data,
                                 size_t size, uint8_t *owned)
{
    gl_server *s = call->connection->server;
    gl_connection *c = call->connection;
    gl_snapshot *snapshot = call->snapshot ? call->snapshot : s->snapshot;
    gl_job *job = calloc(1, sizeof *job);

    if (job != NULL && owned == NULL && size > 0) {
        owned = malloc(size);
        if (owned != NULL)
            memcpy(owned, data, size);
    }
    if (job == NULL || (owned == NULL && size > 0)) {
        free(owned);
        free(job);
        return NULL;
    }
    if (s->settings.identities && c->identities_bytes > 0 &&
        (job->identities = malloc(c->identities_bytes)) != NULL) {
        memcpy(job->identities, c->identities, c->identities_bytes);
        job->identities_bytes = c->identities_bytes;
    }
    job->kind = kind;
    job->method = call->method->number;
    job->path = call->method->path;
    job->snapshot = gl_snapshot_hold(snapshot);
    job->serial = call->serial;
    job->position = call->position;
    job->accepted = call->accepted;
    job->deadline = call->deadline;
    job->body = owned;
    job->size = size;
    job->wrapped = call->method->kind == GL_ROSTERS;
    job->python = call->python;
    if (kind != GL_JOB_UNPACK) { /* the job after it needs them */
        job->metadata = call->metadata;
        job->metadata_bytes = call->metadata_kept;
        call->metadata = NULL;
        call->metadata_kept = call->metadata_room = 0;
    }
    return job;
}

/* Tells Python that a stream is over; `gone` as in gl_job. */
static inline void gl_end_in_python(gl_server *s, unsigned method, const char *path,
                                    uint64_t serial, int gone)
{
    gl_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return; /* it stays in Python's list */
    job->kind = GL_JOB_END;
    job->method = method;
    job->path = path;
    job->serial = serial;
    job->gone = gone;
    s->out++;
    gl_jobs_put(&s->rare, job);
}

/* The code of a call whose client has gone. One that gives up at its deadline does so a little
 * before this side's clock says so: clients round grpc-timeout up (gRPC's C core to three digits). */
static inline int gl_gone_code(const gl_call *call)
{
    uint64_t slack;

    if (!call->timed)
        return GL_CANCELLED;
    if (call->deadline == GL_NEVER) /* it has passed: see gl_expire */
        return GL_DEADLINE_EXCEEDED;
    slack = (call->deadline - call->accepted) / 64 + 5 * GL_MILLISECOND;
    return call->deadline <= call->connection->server->now + slack ? GL_DEADLINE_EXCEEDED
                                                                   : GL_CANCELLED;
}

/* Notes that a call's large message begins to come. */
static inline void gl_begin_receiving(gl_call *call)
{
    gl_server *s = call->connection->server;

    if (call->receiving)
        return;
    call->receiving = 1;
    call->older = s->youngest;
    call->younger = NULL;
    if (s->youngest != NULL)
        s->youngest->younger = call;
    s->youngest = call;
}

/* Notes that it has come, or never will. */
static inline void gl_end_receiving(gl_call *call)
{
    gl_server *s = call->connection->server;

    if (!call->receiving)
        return;
    call->receiving = 0;
    if (call->younger != NULL)
        call->younger->older = call->older;
    else
        s->youngest = call->older;
    if (call->older != NULL)
        call->older->younger = call->younger;
}

/* Whatever the call has goes back. libnghttp2 has closed its stream, or is about to go. */
static inline void gl_call_over(gl_call *call)
{
    gl_connection *c = call->connection;
    gl_server *s = c->server;

    if (call->in_place) {
        if (c->answered > 0)
            c->answered--;
        else
            gl_slots_give_back(call->method->slots);
    }
    c->unslotted -= call->unslotted;
    gl_end_receiving(call);
    /* Else when its job is done: resets would bound no queue. */
    if (call->slots != NULL && call->job == NULL)
        gl_slots_give_back(call->slots);
    if (call->counted) {
        int watch = call->method->kind == GL_HEALTH_WATCH;
        gl_count_end(call, call->ended_here || call->ending || watch ? call->code
                                                                     : gl_gone_code(call));
    }
    if (call->job != NULL) {
        call->job->call = NULL;
        call->job->charged = call->charged;
        call->job->slots = call->slots;
        gl_job_cancel(call->job, gl_gone_code(call));
    } else {
        gl_recharge(s, &call->charged, 0);
        if (call->python)
            gl_end_in_python(s, call->method->number, call->method->path, call->serial,
                             call->ended_here ? 0 : gl_gone_code(call));
    }
    if (call->in_pump)
        for (gl_call **at = &c->pump; *at != NULL; at = &(*at)->pumped)
            if (*at == call) {
                *at = call->pumped;
                break;
            }
    if (call->timed) {
        if (call->previous_timed != NULL)
            call->previous_timed->next_timed = call->next_timed;
        else
            s->timed = call->next_timed;
        if (call->next_timed != NULL)
            call->next_timed->previous_timed = call->previous_timed;
    }
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        c->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
    if (--c->open == 0)
        c->idle_since = s->now;
    /* What is not read any more has taken of the connection's window. */
    if (call->ahead_bytes > 0 && c->session != NULL)
        nghttp2_session_consume_connection(c->session, call->ahead_bytes);
    free(call->body);
    free(call->ahead);
    if (call->owned != NULL && call->lent == s->output.number)
        s->output.over[s->output.over_count++] = call->owned; /* it has a piece: there is room */
    else
        free(call->owned);
    free(call->text);
    free(call->metadata);
    free(call->headers.at);
    free(call->trailers.at);
    gl_snapshot_drop(s, call->snapshot);
    if (s->spare_count < GL_SPARE_CALLS) {
        call->next = s->spare;
        s->spare = call;
        s->spare_count++;
    } else {
        free(call);
    }
}

/* --- what is sent */

#define GL_STATIC (NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)
#define GL_NV(NAME, VALUE, SIZE, FLAGS)                                                        \
    (nghttp2_nv){(uint8_t *)(uintptr_t)(NAME), (uint8_t *)(uintptr_t)(VALUE), sizeof(NAME) - 1,        \
                 (SIZE), (FLAGS)}

enum { GL_TEXT_BYTES = 1024, GL_FIELDS = 6 };

/* Adds the status to header fields; `room` has what of it is not static. */
static inline size_t gl_add_status(const gl_call *call, const char *text, nghttp2_nv *fields,
                                   size_t n, uint8_t *room)
{
    static const char codes[] = "0\0\0" "1\0\0" "2\0\0" "3\0\0" "4\0\0" "5\0\0" "6\0\0" "7\0\0"
                                "8\0\0" "9\0\0" "10\0" "11\0" "12\0" "13\0" "14\0" "15\0" "16\0";
    unsigned code = (unsigned)call->code;

    fields[n++] = GL_NV("grpc-status", codes + 3 * code, code < 10 ? 1u : 2u, GL_STATIC);
    if (text != NULL && *text) {
        size_t size = strlen(text);
        if (size > GL_TEXT_BYTES)
            size = GL_TEXT_BYTES;
        size = gl_percent_encode(text, size, room);
        fields[n++] = GL_NV("grpc-message", room, size, NGHTTP2_NV_FLAG_NO_COPY_NAME);
    }
    if (call->retry[0])
        fields[n++] = GL_NV("grpc-retry-pushback-ms", call->retry, strlen(call->retry),
                            NGHTTP2_NV_FLAG_NO_COPY_NAME);
    return n;
}

/* Adds the fields that a handler gave; libnghttp2 copies them. */
static inline size_t gl_add_fields(gl_fields given, nghttp2_nv *fields, size_t n)
{
    uint32_t sizes[2];

    for (size_t at = 0; at < given.bytes; at += sizes[0] + sizes[1], n++) {
        memcpy(sizes, given.at + at, sizeof sizes);
        at += sizeof sizes;
        fields[n] = (nghttp2_nv){given.at + at, given.at + at + sizes[0], sizes[0], sizes[1],
                                 NGHTTP2_NV_FLAG_NONE};
    }
    return n;
}

static ssize_t gl_read_answer(nghttp2_session *session, int32_t stream, uint8_t *out,
                              size_t length, uint32_t *flags, nghttp2_data_source *source,
                              void *unused)
{
    gl_call *call = source->ptr;
    const gl_output *o = &call->connection->server->output;
    size_t n = call->out_bytes - call->sent;

    (void)unused;
    if (n > length)
        n = length;
    /* Without room for it the frame is copied, and ends the write: see gl_fill_output. */
    if (n >= GL_UNCOPIED && call->connection->tls == NULL && call->owned != NULL &&
        o->bytes + n <= GL_OUTPUT && o->piece_count + 2 < GL_PIECES)
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY; /* gl_on_send_data is next */
    else if (n > 0)
        memcpy(out, call->out + call->sent, n);
    if (n > 0) {
        call->sent += n;
        call->since = call->connection->server->now;
    }
    if (call->sent < call->out_bytes)
        return (ssize_t)n;
    if (call->ending) {
        nghttp2_nv fields[GL_FIELDS + GL_OWN_FIELDS];
        uint8_t room[3 * GL_TEXT_BYTES];
        size_t count;
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (!call->grpc) {
            call->ended_here = 1;
            return (ssize_t)n;
        }
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        call->ended_here = 1;
        count = gl_add_status(call, call->text, fields, 0, room);
        count = gl_add_fields(call->trailers, fields, count);
        if (nghttp2_submit_trailer(session, stream, fields, count) != 0)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        return (ssize_t)n;
    }
    if (!call->in_pump) {
        call->in_pump = 1;
        call->pumped = call->connection->pump;
        call->connection->pump = call;
    }
    return n > 0 ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
}

/* Adds bytes to what is about to be written. */
static inline void gl_add_copied(gl_output *o, const uint8_t *data, size_t size)
{
    uint8_t *at = o->copied + o->copied_bytes;
    struct iovec *last = o->pieces + o->piece_count - 1;

    memcpy(at, data, size);
    if (o->piece_count > 0 && (uint8_t *)last->iov_base + last->iov_len == at)
        last->iov_len += size;
    else
        o->pieces[o->piece_count++] = (struct iovec){at, size};
    o->copied_bytes += size;
    o->bytes += size;
}

/* Adds a frame of an answer that gl_read_answer did not copy. */
static int gl_on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                           size_t length, nghttp2_data_source *source, void *data)
{
    gl_call *call = source->ptr;
    gl_output *o = &call->connection->server->output;

    (void)session;
    (void)frame;
    (void)data;
    gl_add_copied(o, head, GL_FRAME_HEAD);
    o->pieces[o->piece_count++] =
        (struct iovec){(uint8_t *)(uintptr_t)(call->out + call->sent - length), length};
    o->bytes += length;
    call->lent = o->number;
    return 0;
}

/* Has what stands in `out` sent, after the headers if they were not yet. */
static inline void gl_send(gl_call *call)
{
    nghttp2_session *session = call->connection->session;
    nghttp2_data_provider provider = {{.ptr = call}, gl_read_answer};

    call->sent = 0;
    call->since = call->connection->server->now;
    if (call->begun) {
        nghttp2_session_resume_data(session, call->stream);
        return;
    }
    call->begun = 1;
    if (call->grpc) {
        nghttp2_nv fields[2 + GL_OWN_FIELDS]; /* set one by one: the rest would be cleared */
        fields[0] = GL_NV(":status", "200", 3, GL_STATIC);
        fields[1] = GL_NV("content-type", "application/grpc", 16, GL_STATIC);
        nghttp2_submit_response(session, call->stream, fields,
                                gl_add_fields(call->headers, fields, 2), &provider);
    } else {
        nghttp2_nv fields[] = {
            GL_NV(":status", "415", 3, GL_STATIC),
            GL_NV("content-type", "text/plain", 10, GL_STATIC),
        };
        nghttp2_submit_response(session, call->stream, fields, 2, &provider);
    }
}

/* Ends a call with a status, after what was sent of it. */
static inline void gl_end(gl_call *call, int code, const char *text)
{
    if (call->ending || call->ended_here)
        return;
    call->code = code;
    call->stage = GL_SENDING;
    call->ending = 1;
    if (call->begun || call->headers.at != NULL) {
        if (text != NULL)
            call->text = strdup(text);
        if (call->begun)
            nghttp2_session_resume_data(call->connection->session, call->stream);
        else
            gl_send(call);
    } else {
        nghttp2_nv fields[GL_FIELDS + GL_OWN_FIELDS];
        uint8_t room[3 * GL_TEXT_BYTES];
        size_t n = 2;
        fields[0] = GL_NV(":status", "200", 3, GL_STATIC);
        fields[1] = GL_NV("content-type", "application/grpc", 16, GL_STATIC);
        if (call->encoding == 2) {
            int gzip = call->connection->server->settings.compression;
            fields[n++] = GL_NV("grpc-accept-encoding", gzip ? "identity,gzip" : "identity",
                                gzip ? 13u : 8u, GL_STATIC);
        }
        n = gl_add_status(call, text, fields, n, room);
        n = gl_add_fields(call->trailers, fields, n);
        call->begun = call->ended_here = 1;
        nghttp2_submit_response(call->connection->session, call->stream, fields, n, NULL);
    }
}

/* Notes that a call is shed, and when it may come again. */
static inline void gl_set_retry(gl_call *call, const gl_method *method)
{
    uint32_t wait = method->slots == NULL ? GL_SHORTEST_WAIT
                                          : gl_slots_shed(method->slots, gl_clock());

    snprintf(call->retry, sizeof call->retry, "%u", wait);
}

/* Ends a call because of the load. */
static inline void gl_shed_with(gl_call *call, const gl_method *method, const char *text)
{
    gl_add(&call->connection->server->meter->counters.shed[method->number], 1);
    gl_set_retry(call, method);
    gl_end(call, GL_RESOURCE_EXHAUSTED, text);
}

/* Ends a call because there is no slot for it. */
static inline void gl_shed(gl_call *call, const gl_method *method)
{
    gl_shed_with(call, method, method->shed);
}

/* Ends a call that can never be answered as it is: a client that makes calls again which end with
 * this code is told not to. */
static inline void gl_end_for_good(gl_call *call, const char *text)
{
    memcpy(call->retry, "-1", 3);
    gl_end(call, GL_RESOURCE_EXHAUSTED, text);
}

static inline void gl_reset(gl_call *call, uint32_t code)
{
    if (!call->reset) {
        call->reset = 1;
        nghttp2_submit_rst_stream(call->connection->session, NGHTTP2_FLAG_NONE, call->stream,
                                  code);
    }
}

/* Sends a message that stands after room for its prefix. `memory`, which it lies in, is freed when
 * it was sent; NULL: it is the call's own. */
static inline void gl_reply(gl_call *call, uint8_t *message, size_t size, uint8_t *memory)
{
    gl_put_prefix(message, size);
    free(call->owned);
    call->owned = memory;
    call->out = message;
    call->out_bytes = GL_PREFIX + size;
    if (call->method->kind != GL_HEALTH_WATCH)
        call->stage = GL_SENDING;
    if (call->method->kind != GL_ROSTERS && call->method->kind != GL_HEALTH_WATCH &&
        call->method->kind != GL_PYTHON_STREAM) {
        call->ending = 1;
        call->code = GL_OK;
    }
    gl_send(call);
}

/* --- lookups */

/* Whether the snapshot can answer it without Python, and what it needs for that. */
static inline int gl_find_perspective(const gl_server *s, gl_snapshot *snapshot,
                                      const gl_request *request, gl_perspective **found)
{
    int32_t policy = request->policy;

    *found = NULL;
    if (request->regions && snapshot->has_regions)
        return 0;
    if (policy < 0 || policy > 31 || !(s->settings.policies >> policy & 1) ||
        request->networks < 0 || request->networks > 1)
        return 0;
    if (request->region_set_bytes == 0)
        return !request->record;
    if (policy == 0)
        policy = s->settings.unanimous;
    policy |= request->networks * GL_IGNORE_NETWORKS;
    *found = gl_snapshot_find(snapshot, request->region_set, request->region_set_bytes, policy,
                              gl_snapshot_is_stale(snapshot));
    return *found != NULL;
}

/* Counts an address by the kinds of its network, as seen from a region set or from none. */
static inline void gl_add_kinds(gl_server *s, const gl_snapshot *snapshot, unsigned claim,
                                int is_seen, unsigned number)
{
    if (snapshot->networks != NULL && snapshot->networks[claim])
        gl_meter_add_kinds(gl_meter_networks(s->meter, is_seen, number),
                           snapshot->networks[claim]);
}

/* Answers a lookup in place; 0: Python must. */
static inline int gl_lookup(gl_call *call, const uint8_t *data, size_t size)
{
    gl_server *s = call->connection->server;
    gl_snapshot *snapshot = s->snapshot;
    gl_perspective *perspective;
    gl_request request;
    unsigned claim, outcome, status;
    uint8_t *message;
    size_t bytes;

    if (!gl_read_lookup_request(data, size, &request) ||
        !gl_find_perspective(s, snapshot, &request, &perspective))
        return 0;
    claim = s->core->claim(snapshot->table, &request);
    status = snapshot->statuses[claim];
    outcome = perspective == NULL ? 0 : perspective->outcomes[claim];
    bytes = gl_lookup_bytes(snapshot, claim, outcome);
    message = GL_PREFIX + bytes <= GL_SMALL_ANSWER ? call->small : malloc(GL_PREFIX + bytes);
    if (message == NULL)
        return 0;
    gl_write_lookup(snapshot, claim, outcome, message + GL_PREFIX);
    gl_add(&call->connection->meter->counters.addresses[status], 1);
    if (outcome)
        gl_meter_add_outcome(s->meter, perspective->number, outcome);
    gl_add_kinds(s, snapshot, claim, outcome != 0, outcome ? perspective->number : 0);
    gl_reply(call, message, bytes, message == call->small ? NULL : message);
    return 1;
}

/* --- Envoy's authorization */

/* Answers a CheckRequest in place; 0: Python must. */
static inline int gl_authorize(gl_call *call, const uint8_t *data, size_t size)
{
    gl_server *s = call->connection->server;
    gl_snapshot *snapshot = s->snapshot;
    const gl_authorization *a = snapshot->authorization;
    const gl_rule *applied[GL_RULES_APPLIED], *refused = NULL;
    uint8_t outcomes[GL_RULES_APPLIED], *message;
    gl_request address = {.form = GL_TEXT};
    gl_allowance allowance = {0};
    unsigned claim, status;
    size_t bytes;
    gl_check check;
    int n, labelled, evaluated = 0;

    if (a == NULL || gl_snapshot_is_stale(snapshot) ||
        !gl_read_check_request(a, data, size, &check) || (n = gl_find_rules(a, &check, applied, &labelled)) < 0)
        return 0;
    address.addresses = check.address_bytes ? check.address : (const uint8_t *)"";
    address.bytes = check.address_bytes;
    claim = s->core->claim(snapshot->table, &address);
    status = snapshot->statuses[claim];
    while (evaluated < n && refused == NULL) {
        const gl_rule *rule = applied[evaluated];
        outcomes[evaluated++] = rule->outcomes[claim];
        if (!(rule->passes >> gl_outcome_verdict(rule->outcomes[claim]) & 1))
            refused = rule;
    }
    bytes = refused ? refused->refusal_bytes
                    : gl_size_allowance(&allowance, a, claim, outcomes, n, labelled);
    message = GL_PREFIX + bytes <= GL_SMALL_ANSWER ? call->small : malloc(GL_PREFIX + bytes);
    if (message == NULL)
        return 0;
    if (refused != NULL)
        memcpy(message + GL_PREFIX, refused->refusal, bytes);
    else
        gl_write_allowance(&allowance, a, claim, message + GL_PREFIX);
    gl_add(&s->meter->counters.checks[status], 1);
    for (int i = 0; i < evaluated; i++) {
        gl_add(&s->meter->counters.addresses[status], 1);
        gl_meter_add_outcome(s->meter, applied[i]->number, outcomes[i]);
        gl_add_kinds(s, snapshot, claim, 1, applied[i]->number);
    }
    gl_reply(call, message, bytes, message == call->small ? NULL : message);
    return 1;
}

/* --- rosters */

/* Bytes before a response: those of the prefix, and of the field that wraps it in a stream. */
enum { GL_BEFORE_RESPONSE = GL_PREFIX + 11 };

/* Classifies a roster and writes its answer after room for the prefix. Returns a status code;
 * `memory`, which the answer lies in, is the caller's to free. `job` is NULL in the loop, which
 * does not wait. */
static inline int gl_classify(gl_server *s, const gl_snapshot *snapshot,
                              const gl_perspective *perspective, const gl_request *request,
                              size_t n, int wrapped, const gl_job *job, uint8_t **memory,
                              uint8_t **answer, size_t *bytes)
{
    const uint8_t *outcomes = perspective == NULL ? NULL : perspective->outcomes;
    gl_answer *a = s->core->begin(snapshot->table, snapshot->results, outcomes, request, n,
                                  GL_BEFORE_RESPONSE, snapshot->named_bytes);
    size_t inner, head, at;
    uint8_t *out, *fitting;

    *memory = NULL;
    if (a == NULL)
        return GL_RESOURCE_EXHAUSTED;
    while (s->core->step(a)) {
        int code = GL_OK;
        if (job != NULL && job->deadline && gl_clock() >= job->deadline)
            code = GL_DEADLINE_EXCEEDED;
        else if (job != NULL)
            code = gl_job_gone(job);
        if (code != GL_OK) {
            s->core->end(a);
            return code;
        }
    }
    out = s->core->write(a, &inner);
    memcpy(out + inner, snapshot->named, snapshot->named_bytes);
    inner += snapshot->named_bytes;
    head = wrapped ? gl_field_bytes(inner) - inner : 0;
    if (head + inner > GL_MAX_MESSAGE) {
        s->core->end(a);
        return GL_RESOURCE_EXHAUSTED;
    }
    if (wrapped)
        gl_put_field(out - head, 1, inner);
    if (perspective != NULL)
        gl_meter_add_outcomes(s->meter, perspective->number, s->core->verdicts(a),
                              s->core->reasons(a));
    gl_meter_add_networks(gl_meter_networks(s->meter, perspective != NULL,
                                            perspective == NULL ? 0 : perspective->number),
                          s->core->networks(a));
    gl_meter_add_roster(s->meter, s->core->statuses(a));
    *memory = s->core->take(a);
    s->core->end(a);
    /* Bitmaps had the most room that they could need. */
    at = (size_t)(out - head - GL_PREFIX - *memory);
    fitting = realloc(*memory, at + GL_PREFIX + head + inner);
    if (fitting != NULL)
        *memory = fitting;
    *answer = *memory + at;
    *bytes = head + inner;
    return GL_OK;
}

/* How many addresses a request has, if they can be answered without Python; else SIZE_MAX. */
static inline size_t gl_count_addresses(const gl_server *s, const gl_request *request)
{
    size_t n = request->texts;

    if (request->form == GL_NO_ADDRESSES || request->record)
        return SIZE_MAX;
    if (request->form != GL_TEXT) {
        size_t width = request->form == GL_IPV4 ? 4 : 16;
        if (request->bytes % width)
            return SIZE_MAX;
        n = request->bytes / width;
    }
    /* Python knows how to refuse the rest. */
    if (request->groups != NULL &&
        (request->region_set_bytes == 0 || !gl_are_groups_of(request, n)))
        return SIZE_MAX;
    return n > s->settings.roster ? SIZE_MAX : n;
}

/* Reads what a large request asks for, and not its addresses, which takes a while. */
static inline int gl_peek_request(const uint8_t *at, size_t bytes, int wrapped,
                                  gl_request *request)
{
    return (!wrapped || gl_unwrap_roster(&at, &bytes)) &&
           gl_read_roster_fields(at, bytes, request, 0) && !request->record;
}

static const char gl_no_memory[] = "no memory is free";

static inline const char *gl_text_of(int code)
{
    return code == GL_DEADLINE_EXCEEDED ? "the deadline has passed"
           : code == GL_CANCELLED       ? "the client has cancelled the call"
           : code == GL_RESOURCE_EXHAUSTED ? gl_no_memory
                                           : NULL;
}

/* Ends a call that is counted here without an answer. */
static inline void gl_fail(gl_call *call, int code)
{
    if (call->counted)
        gl_count_end(call, code);
    gl_end(call, code, gl_text_of(code));
}

/* Answers a roster in place, or has a thread do it; 0: Python must. Takes `owned` over, if it
 * returns 1. */
static inline int gl_roster(gl_call *call, const uint8_t *data, size_t size, uint8_t *owned)
{
    gl_server *s = call->connection->server;
    int wrapped = call->method->kind == GL_ROSTERS, large = size > GL_LARGE, code;
    gl_snapshot *snapshot = call->snapshot ? call->snapshot : s->snapshot;
    gl_perspective *perspective;
    gl_request request;
    uint8_t *memory, *answer;
    size_t n, bytes;

    if (large) {
        gl_job *job;
        if (!gl_peek_request(data, size, wrapped, &request) ||
            !gl_find_perspective(s, snapshot, &request, &perspective))
            return 0;
        job = gl_job_new(call, GL_JOB_ROSTER, data, size, owned);
        if (job == NULL) {
            gl_fail(call, GL_RESOURCE_EXHAUSTED);
            return 1;
        }
        if (perspective != NULL)
            job->perspective = gl_perspective_hold(perspective);
        if (!call->counted)
            gl_count_begin(call);
        gl_job_out(call, job, &s->rosters);
        return 1;
    }
    if (!(wrapped ? gl_read_stream_request(data, size, &request) : gl_read_roster_request(data, size, &request)))
        return 0;
    n = gl_count_addresses(s, &request);
    if (n == SIZE_MAX || !gl_find_perspective(s, snapshot, &request, &perspective))
        return 0;
    code = gl_classify(s, snapshot, perspective, &request, n, wrapped, NULL, &memory, &answer,
                       &bytes);
    free(owned);
    if (!wrapped)
        gl_count_begin(call);
    if (code != GL_OK) {
        gl_fail(call, code);
        return 1;
    }
    if (!wrapped)
        gl_count_end(call, GL_OK);
    gl_reply(call, answer, bytes, memory);
    return 1;
}

/* A thread's part of a large roster: returns whether it is done, or must go to Python. */
static inline int gl_work(gl_server *s, gl_job *job)
{
    gl_request request;
    size_t n;

    if (job->deadline && gl_clock() >= job->deadline) {
        job->code = GL_DEADLINE_EXCEEDED;
        return 1;
    }
    job->code = gl_job_gone(job);
    if (job->code != GL_OK)
        return 1;
    if (!(job->wrapped ? gl_read_stream_request(job->body, job->size, &request)
                       : gl_read_roster_request(job->body, job->size, &request)) ||
        (n = gl_count_addresses(s, &request)) == SIZE_MAX) {
        job->kind = job->wrapped ? GL_JOB_MESSAGE : GL_JOB_UNARY;
        return 0;
    }
    job->code = gl_classify(s, job->snapshot, job->perspective, &request, n, job->wrapped, job,
                            &job->memory, &job->answer, &job->answer_bytes);
    /* The request may be as large as the answer, which may wait for its client. */
    free(job->body);
    job->body = NULL;
    return 1;
}

/* --- health */

enum { GL_SERVING = 1, GL_NOT_SERVING = 2, GL_SERVICE_UNKNOWN = 3 };

static inline int gl_is_serving(const gl_server *s)
{
    return s->serving && !s->stopping;
}

/* Sends a watch the latest state when it has taken the one before; ends it after the last. */
static inline void gl_watch(gl_call *call)
{
    gl_server *s = call->connection->server;
    uint8_t state = !call->ours            ? GL_SERVICE_UNKNOWN
                    : gl_is_serving(s) ? GL_SERVING
                                       : GL_NOT_SERVING;

    if (call->ending || call->sent < call->out_bytes)
        return;
    if (state != call->state) {
        call->state = state;
        call->small[GL_PREFIX] = GL_TAG_VARINT(1);
        call->small[GL_PREFIX + 1] = state;
        gl_reply(call, call->small, 2, NULL);
    } else if (s->stopping) {
        call->counted ? gl_count_end(call, GL_OK) : (void)0;
        gl_end(call, GL_CANCELLED, "the service stops");
    }
}

static inline void gl_health(gl_call *call, const uint8_t *data, size_t size)
{
    gl_server *s = call->connection->server;
    const gl_method *method = call->method;
    int permitted = call->connection->allowed >> method->number & 1;
    const uint8_t *name;
    size_t n;

    if (!gl_read_health_check(data, size, &name, &n)) {
        gl_end(call, GL_INTERNAL, "Exception deserializing request!");
        return;
    }
    call->ours = n == 0 || (n == strlen(s->settings.service) &&
                            memcmp(name, s->settings.service, n) == 0);
    if (method->kind == GL_HEALTH_CHECK) {
        gl_count_begin(call);
        if (!permitted || !call->ours) {
            gl_count_end(call, permitted ? GL_NOT_FOUND : GL_PERMISSION_DENIED);
            gl_end(call, permitted ? GL_NOT_FOUND : GL_PERMISSION_DENIED,
                   permitted ? NULL : method->refused);
            return;
        }
        gl_count_end(call, GL_OK);
        call->small[GL_PREFIX] = GL_TAG_VARINT(1);
        call->small[GL_PREFIX + 1] = gl_is_serving(s) ? GL_SERVING : GL_NOT_SERVING;
        gl_reply(call, call->small, 2, NULL);
        return;
    }
    if (!permitted) {
        gl_end(call, GL_PERMISSION_DENIED, method->refused);
        return;
    }
    if (!gl_slots_take(method->slots)) {
        gl_shed(call, method);
        return;
    }
    call->slots = method->slots;
    call->stage = GL_WATCHING;
    gl_count_begin(call);
    gl_watch(call);
}

/* --- messages */

/* Has a call that found no slot take one after all, or ends it; 0: it ended. */
static inline int gl_settle_slot(gl_call *call)
{
    call->connection->unslotted -= call->unslotted;
    call->unslotted = 0;
    if (call->slots != NULL || call->ending || call->ended_here)
        return 1;
    if (!gl_slots_take(call->method->slots)) {
        gl_shed(call, call->method);
        return 0;
    }
    call->slots = call->method->slots;
    return 1;
}

/* The same of all calls of a connection, when what came in a turn was read. */
static inline void gl_settle_slots(gl_connection *c)
{
    for (gl_call *call = c->calls; call != NULL && c->unslotted > 0; call = call->next)
        if (call->unslotted)
            gl_settle_slot(call);
}

/* Whether a small answer to the call would be sent in this turn. */
static inline int gl_leaves_at_once(const gl_call *call)
{
    nghttp2_session *session = call->connection->session;

    return call->connection->pending_bytes == 0 &&
           nghttp2_session_get_stream_remote_window_size(session, call->stream) >=
               GL_SMALL_ANSWER &&
           nghttp2_session_get_remote_window_size(session) >= GL_SMALL_ANSWER;
}

/* Gives a message to Python. */
static inline void gl_to_python(gl_call *call, gl_job_kind kind, const uint8_t *data,
                                size_t size, uint8_t *owned)
{
    gl_job *job = gl_job_new(call, kind, data, size, owned);

    if (job == NULL)
        gl_fail(call, GL_RESOURCE_EXHAUSTED);
    else
        gl_job_out(call, job, &call->connection->server->rare);
}

/* Ends a unary call that may not go on; it is counted. */
static inline void gl_turn_away(gl_call *call, int code, const char *text)
{
    gl_count_begin(call);
    gl_count_end(call, code);
    gl_end(call, code, text);
}

/* Takes a whole message. `owned` is NULL, or the memory that holds it, which is taken over. */
static void gl_message(gl_call *call, int compressed, const uint8_t *data, size_t size,
                       uint8_t *owned)
{
    gl_connection *c = call->connection;
    const gl_method *method = call->method;

    c->credit += GL_FRAMES_A_CALL;
    if (c->credit > GL_IDLE_FRAMES)
        c->credit = GL_IDLE_FRAMES;
    if (compressed) {
        if (call->encoding == 1) {
            gl_to_python(call, GL_JOB_UNPACK, data, size, owned);
            return;
        }
        if (call->counted)
            gl_count_end(call, GL_INTERNAL);
        gl_end(call, GL_INTERNAL, "a message is compressed, and no grpc-encoding says how");
        free(owned);
        return;
    }
    switch (method->kind) {
    case GL_HEALTH_CHECK:
    case GL_HEALTH_WATCH:
        gl_health(call, data, size);
        free(owned);
        return;
    case GL_LOOKUP:
    case GL_AUTHORIZATION:
    case GL_ROSTER:
    case GL_PYTHON:
        if (!(c->allowed >> method->number & 1)) {
            gl_turn_away(call, GL_PERMISSION_DENIED, method->refused);
            free(owned);
            return;
        }
        if (call->deadline && gl_clock() >= call->deadline) {
            gl_turn_away(call, GL_DEADLINE_EXCEEDED, gl_text_of(GL_DEADLINE_EXCEEDED));
            free(owned);
            return;
        }
        if (call->unslotted && !gl_leaves_at_once(call) && !gl_settle_slot(call)) {
            free(owned);
            return;
        }
        if (method->kind == GL_LOOKUP || method->kind == GL_AUTHORIZATION) {
            if (method->kind == GL_LOOKUP ? gl_lookup(call, data, size)
                                          : gl_authorize(call, data, size)) {
                gl_count_begin(call);
                gl_count_end(call, GL_OK);
                free(owned);
                goto in_place;
            }
        } else if (method->kind == GL_ROSTER && gl_roster(call, data, size, owned)) {
            if (call->stage == GL_BUSY)
                return;
            goto in_place;
        }
        if (call->unslotted && !gl_settle_slot(call)) {
            free(owned);
            return;
        }
        gl_to_python(call, GL_JOB_UNARY, data, size, owned);
        return;
    case GL_ROSTERS:
        if (call->deadline && gl_clock() >= call->deadline) {
            gl_fail(call, GL_DEADLINE_EXCEEDED);
            free(owned);
            return;
        }
        if (!gl_roster(call, data, size, owned))
            gl_to_python(call, GL_JOB_MESSAGE, data, size, owned);
        call->position++;
        return;
    case GL_PYTHON_STREAM:
        gl_to_python(call, GL_JOB_NEXT, data, size, owned);
        call->position++;
        return;
    }
in_place:
    /* What is sent with the rest of this turn holds no slot; what is not will: see gl_flush. */
    if ((call->slots != NULL || call->unslotted) && call->out_bytes <= GL_LARGE) {
        if (call->slots != NULL)
            gl_slots_give_back(call->slots);
        c->unslotted -= call->unslotted;
        call->unslotted = 0;
        call->slots = NULL;
        call->in_place = 1;
        c->answered++;
    }
}

/* Bytes of the largest message that a call may send. Health checks hold no slot. */
static inline uint64_t gl_largest_message(const gl_call *call)
{
    uint64_t most = call->connection->server->settings.message_bytes;
    int health = call->method->kind == GL_HEALTH_CHECK || call->method->kind == GL_HEALTH_WATCH;

    return health && most > GL_HEALTH_REQUEST ? GL_HEALTH_REQUEST : most;
}

/* Ends a call because there is no memory for the rest of its message, or for its answer. */
static inline void gl_shed_for_memory(gl_call *call)
{
    if (call->counted)
        gl_count_end(call, GL_RESOURCE_EXHAUSTED);
    gl_shed_with(call, call->method, "memory: over memory_budget, with what others sent");
    gl_end_receiving(call);
    gl_recharge(call->connection->server, &call->charged, 0);
    free(call->body);
    call->body = NULL;
    call->have_prefix = 0;
}

/* Charges a call with what a message of these bytes takes, as far as it has come, and its answer.
 * 0: there is no room for it, and the call ends instead.
 *
 * The message that began to come last makes room for the others: if each ended that finds none,
 * of many that come at once none would ever be whole. */
static inline int gl_charge(gl_call *call, uint64_t bytes)
{
    gl_server *s = call->connection->server;
    uint64_t charge = 2 * bytes;

    for (;;) {
        uint64_t others = gl_large(s) - call->charged;
        gl_call *last = call->receiving ? s->youngest : call;
        if (others == 0 || others + charge <= s->settings.memory)
            break;
        gl_shed_for_memory(last);
        if (last == call)
            return 0;
        gl_again(last->connection);
    }
    gl_recharge(s, &call->charged, charge);
    return 1;
}

/* Begins a message whose prefix was read; 0: the call ends instead. */
static inline int gl_begin_message(gl_call *call)
{
    gl_server *s = call->connection->server;
    size_t size = gl_read_be32(call->prefix + 1);

    if (size > gl_largest_message(call)) {
        char text[96];
        /* As gRPC's own servers begin it, since clients look for these words. */
        snprintf(text, sizeof text, "received a message larger than max (%zu vs. %llu)", size,
                 (unsigned long long)gl_largest_message(call));
        if (call->counted)
            gl_count_end(call, GL_RESOURCE_EXHAUSTED);
        gl_end_for_good(call, text);
        return 0;
    }
    call->have = 0;
    call->size = size;
    gl_recharge(s, &call->charged, 0); /* of the message before */
    if (size > GL_LARGE && gl_large(s) > 0 && gl_large(s) + 2 * GL_LARGE > s->settings.memory) {
        gl_shed_for_memory(call); /* before any of it comes */
        return 0;
    }
    /* The system gives memory to what is written: see gl_charge. */
    call->body = malloc(size ? size : 1);
    if (call->body == NULL) {
        gl_fail(call, GL_RESOURCE_EXHAUSTED);
        return 0;
    }
    return 1;
}

/* Takes the message that was put together. */
static inline void gl_whole_message(gl_call *call)
{
    uint8_t *body = call->body;

    call->body = NULL;
    call->whole = 0;
    gl_message(call, call->prefix[0], body, call->size, body);
}

static inline int gl_is_unary(const gl_call *call)
{
    return call->method->kind != GL_ROSTERS && call->method->kind != GL_PYTHON_STREAM;
}

static const char gl_one_message[] = "exactly one request message is required";

/* Takes bytes of messages, until one is being answered; returns how many it took. `last`: they
 * end what the client has to say. A unary call is answered then, since a client that sends more
 * than one message must not get an answer to the first. */
static inline size_t gl_feed(gl_call *call, const uint8_t *data, size_t size, int last)
{
    int unary = gl_is_unary(call);
    size_t at = 0;

    while (call->stage == GL_READING && at < size) {
        size_t n;
        if (call->whole) {
            gl_end(call, GL_UNIMPLEMENTED, gl_one_message);
            break;
        }
        if (call->have_prefix == 0 && size - at >= GL_PREFIX &&
            (n = gl_read_be32(data + at + 1)) <= size - at - GL_PREFIX &&
            (!unary || last || at + GL_PREFIX + n < size)) {
            const uint8_t *message = data + at + GL_PREFIX;
            int compressed = data[at];
            at += GL_PREFIX + n;
            if (unary && at < size)
                gl_end(call, GL_UNIMPLEMENTED, gl_one_message);
            else if (n > gl_largest_message(call)) {
                memcpy(call->prefix, message - GL_PREFIX, GL_PREFIX);
                gl_begin_message(call);
            } else
                gl_message(call, compressed, message, n, NULL);
            continue;
        }
        if (call->have_prefix < GL_PREFIX) {
            if (call->have_prefix == 0 && !gl_is_unary(call))
                call->since = call->connection->server->now;
            call->prefix[call->have_prefix++] = data[at++];
            if (call->have_prefix < GL_PREFIX)
                continue;
            if (!gl_begin_message(call))
                break;
        }
        call->connection->large |= call->size > GL_LARGE;
        n = call->size - call->have;
        if (n > size - at)
            n = size - at;
        if (call->size > GL_LARGE) {
            gl_begin_receiving(call);
            if (!gl_charge(call, call->have + n))
                break;
        }
        memcpy(call->body + call->have, data + at, n);
        call->have += n;
        at += n;
        if (call->have == call->size) {
            gl_end_receiving(call);
            call->have_prefix = 0;
            call->whole = unary;
            if (!unary || (last && at == size))
                gl_whole_message(call);
        }
    }
    return at;
}

/* Answers what is a request, and no call of gRPC. */
static inline void gl_answer_other(gl_call *call)
{
    static const char text[] = "this is a gRPC service\n";

    call->stage = GL_SENDING;
    call->ending = 1;
    call->out = (const uint8_t *)text;
    call->out_bytes = sizeof text - 1;
    gl_send(call);
}

/* Does what follows on the end of the client's messages, when all were answered. */
static inline void gl_all_read(gl_call *call)
{
    if (call->stage != GL_READING)
        return;
    if (!call->grpc) {
        gl_answer_other(call);
        return;
    }
    if (call->whole) {
        gl_whole_message(call);
    } else if (call->have_prefix > 0) {
        if (call->counted)
            gl_count_end(call, GL_INTERNAL);
        gl_end(call, GL_INTERNAL, "the last message is not whole");
    } else if (gl_is_unary(call)) {
        gl_end(call, GL_UNIMPLEMENTED, gl_one_message);
    } else if (call->python && !call->all_given) {
        call->all_given = 1;
        gl_to_python(call, GL_JOB_LAST, NULL, 0, NULL);
    } else {
        if (call->counted)
            gl_count_end(call, GL_OK);
        gl_end(call, GL_OK, NULL);
    }
}

/* Goes on with a stream whose answer was taken, or a watch that took its state. */
static void gl_pump(gl_call *call)
{
    if (call->ending)
        return;
    if (call->method->kind == GL_HEALTH_WATCH) {
        gl_watch(call);
        return;
    }
    if (call->stage != GL_SENDING)
        return;
    free(call->owned);
    call->owned = NULL;
    call->out_bytes = call->sent = 0;
    gl_recharge(call->connection->server, &call->charged, 0); /* request and answer are gone */
    if (call->more) {
        call->more = 0;
        gl_to_python(call, GL_JOB_MORE, NULL, 0, NULL);
        return;
    }
    call->stage = GL_READING;
    if (call->ahead_bytes > 0) {
        gl_connection *c = call->connection;
        size_t taken = gl_feed(call, call->ahead, call->ahead_bytes, 0);
        nghttp2_session_consume(c->session, call->stream, taken);
        memmove(call->ahead, call->ahead + taken, call->ahead_bytes - taken);
        call->ahead_bytes -= taken;
        if (call->ahead_bytes == 0) {
            free(call->ahead);
            call->ahead = NULL;
            call->ahead_room = 0;
        }
    }
    if (call->ended && call->ahead_bytes == 0)
        gl_all_read(call);
}

/* Keeps what came while a message is answered; the window bounds it. 0: no memory. */
static inline int gl_keep(gl_call *call, const uint8_t *data, size_t size)
{
    if (call->ahead_bytes + size > call->ahead_room) {
        size_t room = call->ahead_room ? 2 * call->ahead_room : 4096;
        uint8_t *grown;
        while (room < call->ahead_bytes + size)
            room *= 2;
        grown = realloc(call->ahead, room);
        if (grown == NULL)
            return 0;
        call->ahead = grown;
        call->ahead_room = room;
    }
    memcpy(call->ahead + call->ahead_bytes, data, size);
    call->ahead_bytes += size;
    return 1;
}

/* --- clients that stop in the middle of something */

/* Whether a call waits for its client to send the rest of a request, or to take an answer. */
static inline int gl_waits_for_client(const gl_call *call)
{
    if (call->reset)
        return 0;
    if (call->stage == GL_SENDING)
        return 1;
    /* Between two messages a stream may take its time. */
    return call->stage == GL_READING &&
           (!call->accepted || call->method == NULL || gl_is_unary(call) || call->have_prefix > 0);
}

/* Whether it is a stream whose client may send another roster, and has begun none. */
static inline int gl_is_between_rosters(const gl_call *call)
{
    return call->method != NULL && call->stage == GL_READING && call->accepted && !call->ending &&
           !call->reset && !call->ended && call->have_prefix == 0 && call->ahead_bytes == 0 &&
           (call->method->kind == GL_ROSTERS ||
            (call->method->kind == GL_PYTHON_STREAM && !call->method->lasting));
}

/* Ends such a stream because the server stops. */
static inline void gl_send_elsewhere(gl_call *call)
{
    if (call->counted)
        gl_count_end(call, GL_UNAVAILABLE);
    gl_end(call, GL_UNAVAILABLE, "the service stops: open another stream, which goes elsewhere");
}

/* Ends a call whose client has made no progress for too long. */
static inline void gl_end_stalled(gl_call *call)
{
    static const char text[] = "the request did not come whole within transfer_timeout";

    gl_add(&call->connection->server->meter->counters.transfer_timeouts, 1);
    if (call->stage == GL_SENDING || call->method == NULL)
        gl_reset(call, NGHTTP2_CANCEL);
    else if (gl_is_unary(call))
        gl_turn_away(call, GL_DEADLINE_EXCEEDED, text);
    else {
        if (call->counted)
            gl_count_end(call, GL_DEADLINE_EXCEEDED);
        gl_end(call, GL_DEADLINE_EXCEEDED, text);
    }
}

/* --- admission */

/* Begins a call whose headers are whole. */
static inline void gl_admit(gl_call *call)
{
    gl_server *s = call->connection->server;
    const gl_method *method = call->method;

    call->accepted = s->now;
    if (!call->post || !call->grpc) {
        call->grpc = 0;
        call->method = NULL;
        /* It is answered when it is whole; until then it takes a slot as others do. */
        if (gl_slots_take(s->other_slots))
            call->slots = s->other_slots;
        else
            gl_answer_other(call);
    } else if (call->metadata_bytes > s->settings.metadata_bytes) {
        char text[64];
        snprintf(text, sizeof text, "metadata: over the limit of %llu bytes",
                 (unsigned long long)s->settings.metadata_bytes);
        gl_end_for_good(call, text);
    } else if (method == NULL) {
        gl_end(call, GL_UNIMPLEMENTED, "Method not found!");
    } else if (call->grpc == GL_GRPC_OTHER) {
        gl_end(call, GL_UNIMPLEMENTED, "content-type: only application/grpc+proto is read here");
    } else if (call->encoding == 2 || (call->encoding == 1 && !s->settings.compression)) {
        call->encoding = 2;
        gl_end(call, GL_UNIMPLEMENTED, "grpc-encoding: this one is not read here");
    } else {
        if (method->slots != NULL && method->kind != GL_HEALTH_WATCH) {
            if (gl_slots_take(method->slots)) {
                call->slots = method->slots;
            } else if (method->kind == GL_LOOKUP || method->kind == GL_AUTHORIZATION) {
                /* Its message is perhaps here already, behind the headers of others. */
                call->unslotted = 1;
                call->connection->unslotted++;
            } else {
                gl_shed(call, method);
                return;
            }
        }
        if (call->deadline)
            gl_set_deadline(call, call->accepted + call->deadline);
        if (method->kind == GL_ROSTERS || method->kind == GL_PYTHON_STREAM) {
            call->serial = ++s->serial;
            call->snapshot = gl_snapshot_hold(s->snapshot);
        }
        if (method->kind == GL_ROSTERS) {
            gl_count_begin(call);
            if (!(call->connection->allowed >> method->number & 1)) {
                gl_count_end(call, GL_PERMISSION_DENIED);
                gl_end(call, GL_PERMISSION_DENIED, method->refused);
            }
        } else if (method->kind == GL_PYTHON_STREAM) {
            call->python = 1;
            gl_to_python(call, GL_JOB_BEGIN, NULL, 0, NULL);
        }
    }
}

/* --- what came of a job */

/* Has the call send the header fields that a handler gave. */
static inline void gl_take_fields(gl_fields *own, gl_fields *given)
{
    if (given->at == NULL)
        return;
    free(own->at);
    *own = *given;
    given->at = NULL;
}

/* Gives the call, if it still is, what a thread made of its job. */
static inline void gl_job_done(gl_server *s, gl_job *job)
{
    gl_call *call = job->call;

    s->out--;
    if (job->kind != GL_JOB_ROSTER && job->perspective != NULL) { /* that Python found out */
        gl_snapshot_add(job->snapshot, job->perspective);
        job->perspective = NULL;
    }
    if (job->route != NULL && job->snapshot->authorization != NULL) {
        gl_add_route(job->snapshot->authorization, job->route);
        job->route = NULL;
    }
    if (call == NULL) {
        gl_recharge(s, &job->charged, 0);
        if (job->slots != NULL)
            gl_slots_give_back(job->slots);
        if (job->python)
            gl_end_in_python(s, job->method, job->path, job->serial, job->gone);
    } else {
        int code = job->code;
        call->job = NULL;
        if (job->kind == GL_JOB_UNARY && call->counted) { /* a thread passed it on to Python */
            gl_add(&s->meter->in_flight[call->method->number], UINT64_MAX);
            call->counted = 0;
        }
        call->stage = GL_READING;
        call->more = job->more != 0;
        gl_take_fields(&call->headers, &job->headers);
        gl_take_fields(&call->trailers, &job->trailers);
        if (job->kind == GL_JOB_UNPACK && code == GL_OK) {
            uint8_t *body = job->memory;
            /* What came was smaller than what it holds. Without room for it that is freed with
             * the job. */
            if (gl_charge(call, job->answer_bytes > GL_LARGE ? job->answer_bytes : 0)) {
                job->memory = NULL;
                gl_message(call, 0, body, job->answer_bytes, body);
            }
        } else if (code != GL_OK) {
            if (call->counted)
                gl_count_end(call, code);
            if (job->shed)
                gl_set_retry(call, call->method);
            gl_end(call, code, job->text ? job->text : gl_text_of(code));
        } else if (job->answer == NULL && job->finished) {
            gl_end(call, GL_OK, NULL);
        } else if (job->answer == NULL) {
            call->stage = GL_SENDING; /* of headers or nothing: what came meanwhile is taken up */
            if (call->headers.at != NULL && !call->begun)
                gl_send(call);
            else
                gl_pump(call);
        } else {
            uint8_t *memory = job->memory;
            job->memory = NULL;
            /* Its request is freed: while it waits for its client it takes what it has. */
            if (job->answer_bytes < call->charged)
                gl_recharge(s, &call->charged, job->answer_bytes);
            call->ending |= job->finished != 0;
            if (call->counted && gl_is_unary(call))
                gl_count_end(call, GL_OK);
            gl_reply(call, job->answer, job->answer_bytes, memory);
        }
    }
    gl_snapshot_drop(s, job->snapshot);
    gl_job_free(job);
}

#endif
