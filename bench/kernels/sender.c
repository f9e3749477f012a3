/* Makes load in one thread: unary gRPC calls over connections of the client's own code.
 *
 * A call of an open loop is due at a time that is given, and its time runs from then, whether or
 * not it could be sent. Python prepares the calls, and reads the counts at the end; none of it runs
 * while load is made. bench/load/native.py has the same structures.
 */
#include "client_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
    CODES = 17,            /* gRPC's statuses, then: */
    UNSENT = CODES,
    UNFINISHED,
    STATUSES,
    SIGNIFICANT = 11,      /* bits of a time that are kept: three digits */
    COUNTS = 22 << (SIGNIFICANT - 1), /* up to 2^31 microseconds */
    MOST_AT_ONCE = 64,     /* calls that are begun before answers get their turn */
};

#define LOOK UINT64_C(1000000)        /* nanoseconds between looks for a connection */
#define RECONNECT UINT64_C(100000000) /* nanoseconds between attempts to connect */

typedef struct {
    const char *path;
    const uint8_t *body;
    size_t path_bytes, body_bytes;
    uint64_t addresses;
} sender_work;

typedef struct {
    const sender_work *work;
    size_t work_count;
    const double *due; /* seconds after `start`, rising; NULL: a closed loop */
    size_t due_count;
    size_t under_way;
    uint64_t start, measured, end, timeout; /* nanoseconds, of the monotonic clock */
    volatile int stop;
    volatile uint64_t answered, failed; /* so far, of those that count */
    uint64_t statuses[STATUSES];
    uint64_t completed, addresses;
    uint64_t latencies[COUNTS], behind[COUNTS];
} sender_run;

typedef struct sender sender;

typedef struct sender_call {
    glc_call call; /* the first field */
    sender *sender;
    struct sender_call *next_free;
    uint64_t due, begun, addresses;
} sender_call;

typedef struct {
    glc_connection *connection; /* NULL: there is none */
    struct sockaddr_storage address;
    socklen_t address_bytes;
    uint64_t next_attempt;
    int dirty; /* has calls that were not sent */
} sender_link;

struct sender {
    sender_link *links;
    struct pollfd *polled;
    size_t link_count, turn, under_way, next_work;
    gl_tls_context *context;
    char *name, *authority;
    sender_call *free;
    sender_run *run;
};

static size_t index_of(uint64_t nanoseconds)
{
    uint64_t time = (nanoseconds + 500) / 1000;
    unsigned shift = 0;

    if (time < 1)
        time = 1;
    if (time > 600000000)
        time = 600000000;
    if (time >> SIGNIFICANT)
        shift = 64u - (unsigned)__builtin_clzll(time) - SIGNIFICANT;
    return ((size_t)shift << (SIGNIFICANT - 1)) + (size_t)(time >> shift);
}

/* The least time, in microseconds, that is counted at an index. */
uint64_t sender_time_at(size_t index)
{
    size_t half = (size_t)1 << (SIGNIFICANT - 1);
    size_t shift = index < 2 * half ? 0 : index / half - 1;

    return (uint64_t)(index - shift * half) << shift;
}

size_t sender_index_of(uint64_t nanoseconds)
{
    return index_of(nanoseconds);
}

size_t sender_counts(void)
{
    return COUNTS;
}

static void note(sender_run *r, uint64_t due, uint64_t begun, uint64_t addresses, int status,
                 uint64_t now)
{
    if (status == GL_OK && r->measured <= now && now < r->end) {
        r->completed++;
        r->addresses += addresses;
    }
    if (due < r->measured || due >= r->end)
        return;
    r->statuses[status]++;
    if (r->due != NULL && begun > 0)
        r->behind[index_of(begun > due ? begun - due : 0)]++;
    if (status == GL_OK) {
        r->latencies[index_of(now > due ? now - due : 0)]++;
        r->answered++;
    } else {
        r->failed++;
    }
}

static void on_over(glc_call *call, glc_connection *c)
{
    sender_call *one = (sender_call *)call;
    sender *s = one->sender;

    note(s->run, one->due, one->begun, one->addresses, call->code, c->now);
    glc_call_free(call);
    one->next_free = s->free;
    s->free = one;
    s->under_way--;
}

static void dial(sender *s, sender_link *link, uint64_t now)
{
    int descriptor, one = 1;

    link->next_attempt = now + RECONNECT;
    glc_free(link->connection);
    link->connection = NULL;
    descriptor = socket(link->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0)
        return;
    if (link->address.ss_family != AF_UNIX)
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(descriptor, (struct sockaddr *)&link->address, link->address_bytes) != 0 &&
        errno != EINPROGRESS) {
        close(descriptor);
        return;
    }
    link->connection = glc_new(descriptor, s->context, s->name, s->authority, "geolookup-load");
}

/* Goes on with all connections, having waited for them for so long at most. */
static void progress(sender *s, uint64_t wait)
{
    struct timespec time = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
    uint64_t now = glc_clock();

    for (size_t i = 0; i < s->link_count; i++) {
        sender_link *link = &s->links[i];
        glc_connection *c = link->connection;
        if ((c == NULL || c->draining) && (c == NULL || c->calls == 0) &&
            now >= link->next_attempt) {
            dial(s, link, now);
            c = link->connection;
            if (c != NULL)
                glc_progress(c);
        }
        s->polled[i] = (struct pollfd){c == NULL || c->closed ? -1 : c->descriptor,
                                       c == NULL ? 0 : glc_events(c), 0};
        if (c != NULL && glc_has_more(c))
            time = (struct timespec){0, 0};
    }
    ppoll(s->polled, s->link_count, &time, NULL);
    for (size_t i = 0; i < s->link_count; i++) {
        glc_connection *c = s->links[i].connection;
        if (c != NULL && !c->closed && (s->polled[i].revents != 0 || glc_has_more(c)))
            glc_progress(c);
    }
}

/* Connects until all connections can be used, or for so many nanoseconds. */
void sender_connect(sender *s, uint64_t most)
{
    uint64_t until = glc_clock() + most;

    for (;;) {
        size_t usable = 0;
        for (size_t i = 0; i < s->link_count; i++)
            usable += s->links[i].connection != NULL && glc_usable(s->links[i].connection);
        if (usable == s->link_count || glc_clock() >= until)
            return;
        progress(s, 10000000);
    }
}

/* The next connection that takes calls; NULL: there is none now. */
static sender_link *usable(sender *s)
{
    for (size_t i = 0; i < s->link_count; i++) {
        sender_link *link = &s->links[s->turn];
        s->turn = s->turn + 1 < s->link_count ? s->turn + 1 : 0;
        if (link->connection != NULL && glc_usable(link->connection))
            return link;
    }
    return NULL;
}

/* Whether a connection is being made. */
static int connecting(const sender *s)
{
    for (size_t i = 0; i < s->link_count; i++) {
        const glc_connection *c = s->links[i].connection;
        if (c != NULL && !c->closed && !c->settled)
            return 1;
    }
    return 0;
}

/* Begins a call; 0: there is no connection yet, or no memory. */
static int begin(sender *s, uint64_t due, uint64_t now)
{
    sender_run *r = s->run;
    const sender_work *work = &r->work[s->next_work];
    sender_link *link = usable(s);
    sender_call *one = s->free;

    if (link == NULL) {
        if (connecting(s))
            return 0;
        s->next_work = s->next_work + 1 < r->work_count ? s->next_work + 1 : 0;
        note(r, due, now, work->addresses, GL_UNAVAILABLE, now);
        return 1;
    }
    if (one != NULL)
        s->free = one->next_free;
    else if ((one = malloc(sizeof *one)) == NULL)
        return 0;
    memset(&one->call, 0, offsetof(glc_call, small));
    one->sender = s;
    one->due = due;
    one->begun = now;
    one->addresses = work->addresses;
    one->call.path = (const uint8_t *)work->path;
    one->call.path_bytes = work->path_bytes;
    one->call.body = work->body;
    one->call.body_bytes = work->body_bytes;
    one->call.timeout = r->timeout;
    one->call.answer_limit = 0xFFFFFFFFu;
    one->call.discard = 1;
    one->call.on_over = on_over;
    if (!glc_begin(link->connection, &one->call)) {
        one->next_free = s->free;
        s->free = one;
        return 0;
    }
    s->next_work = s->next_work + 1 < r->work_count ? s->next_work + 1 : 0;
    s->under_way++;
    link->dirty = 1;
    return 1;
}

static void flush(sender *s)
{
    for (size_t i = 0; i < s->link_count; i++)
        if (s->links[i].dirty) {
            s->links[i].dirty = 0;
            if (s->links[i].connection != NULL)
                glc_flush(s->links[i].connection);
        }
}

/* Ends the calls whose time is over; all have the same, so that the oldest are the first. */
static uint64_t expire(sender *s, uint64_t now)
{
    uint64_t next = UINT64_MAX;

    for (size_t i = 0; i < s->link_count; i++) {
        glc_connection *c = s->links[i].connection;
        while (c != NULL && c->first != NULL) {
            uint64_t at = ((sender_call *)c->first)->begun + s->run->timeout;
            if (at > now) {
                next = at < next ? at : next;
                break;
            }
            c->now = now;
            glc_cancel(c->first, GL_DEADLINE_EXCEEDED, NULL);
            s->links[i].dirty = 1;
        }
    }
    return next;
}

/* Makes the calls of a run, until its end and that of the last call, or until it is stopped. */
void sender_make(sender *s, sender_run *r)
{
    size_t at = 0;

    s->run = r;
    s->next_work = 0;
    while (!r->stop) {
        uint64_t now = glc_clock(), wake = expire(s, now), next = UINT64_MAX;
        unsigned begun = 0;
        int over;
        if (r->due != NULL) {
            for (; at < r->due_count; at++, begun++) {
                next = r->start + (uint64_t)(r->due[at] * 1e9);
                if (next > now || s->under_way >= r->under_way || begun >= MOST_AT_ONCE ||
                    now > r->end + r->timeout)
                    break;
                if (!begin(s, next, now)) {
                    next = now + LOOK;
                    break;
                }
            }
            /* Beyond that nothing is sent: a service that can't keep up would be loaded for as
             * long as it takes. */
            over = (at == r->due_count && now >= r->end) || now > r->end + r->timeout;
            if (at == r->due_count)
                next = r->end;
            if (!over && s->under_way < r->under_way)
                wake = next < wake ? next : wake;
        } else {
            over = now >= r->end;
            if (now < r->start)
                wake = r->start < wake ? r->start : wake;
            else
                while (!over && s->under_way < r->under_way && begun < r->under_way) {
                    if (!begin(s, now, now))
                        break;
                    begun++;
                }
            if (!over && s->under_way < r->under_way) /* without a connection */
                wake = now + LOOK < wake && now >= r->start ? now + LOOK : wake;
        }
        flush(s);
        if (over && s->under_way == 0)
            break;
        /* It may be stopped, or a connection be made again. */
        if (wake > now + 50000000)
            wake = now + 50000000;
        progress(s, wake > now ? wake - now : 0);
    }
    if (r->due != NULL) {
        uint64_t until = r->stop && glc_clock() < r->end ? glc_clock() : r->end;
        for (; at < r->due_count; at++) {
            uint64_t due = r->start + (uint64_t)(r->due[at] * 1e9);
            if (due >= r->measured && due < until)
                r->statuses[UNSENT]++;
        }
    }
    for (size_t i = 0; i < s->link_count; i++) {
        glc_connection *c = s->links[i].connection;
        while (c != NULL && c->first != NULL) {
            sender_call *one = (sender_call *)c->first;
            note(r, one->due, one->begun, one->addresses, UNFINISHED, glc_clock());
            one->call.on_over = NULL;
            glc_cancel(c->first, GL_CANCELLED, NULL);
            glc_call_free(&one->call);
            one->next_free = s->free;
            s->free = one;
            s->under_way--;
        }
    }
}

void sender_free(sender *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->link_count; i++)
        glc_free(s->links[i].connection);
    while (s->free != NULL) {
        sender_call *one = s->free;
        s->free = one->next_free;
        free(one);
    }
    if (s->context != NULL)
        gl_tls_context_free(s->context);
    free(s->links);
    free(s->polled);
    free(s->name);
    free(s->authority);
    free(s);
}

/* Makes a sender with `each` connections to each of `count` addresses, that lie one after the
 * other, 128 bytes each, with their sizes. With `tls`, as glc_tls_context_new. NULL: OpenSSL does
 * not take what it was given, or there is no memory. */
sender *sender_new(const uint8_t *addresses, const uint32_t *sizes, size_t count, size_t each,
                   const char *name, const char *authority, int tls, const char *authorities,
                   int authorities_bytes, const char *chain, int chain_bytes, const char *key,
                   int key_bytes)
{
    sender *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->links = calloc(count * each, sizeof *s->links);
    s->polled = calloc(count * each, sizeof *s->polled);
    s->name = strdup(name);
    s->authority = strdup(authority);
    if (tls)
        s->context = glc_tls_context_new(authorities, authorities_bytes, chain, chain_bytes, key,
                                         key_bytes);
    if (s->links == NULL || s->polled == NULL || s->name == NULL || s->authority == NULL ||
        (tls && s->context == NULL)) {
        sender_free(s);
        return NULL;
    }
    for (size_t i = 0; i < count * each; i++) {
        memcpy(&s->links[i].address, addresses + 128 * (i % count), 128);
        s->links[i].address_bytes = sizes[i % count];
    }
    s->link_count = count * each;
    return s;
}
