/* A connection of a client that threads share, each waiting for its own call.
 *
 * Plain C11. There is no thread that does the input and output: one of those that wait leads, which
 * means that it polls the socket and hands out what came; when its own call is over, the next one
 * leads. So a thread that calls alone is woken by the socket itself. A connection without
 * calls is led by whoever is in glc_attend.
 *
 * The lock guards all of a glc_shared and of its connection. It is never held while a thread waits,
 * nor is the interpreter lock taken while it is held.
 */
#ifndef GEOLOOKUP_CLIENT_CALLS_H
#define GEOLOOKUP_CLIENT_CALLS_H

#include "client_connection.h"

#include <pthread.h>

/* Nanoseconds without calls after which a connection is attended to. A call that comes then is
 * woken by way of another thread, and those after it are not. */
#define GLC_IDLE UINT64_C(1000000000)

typedef struct {
    glc_connection *connection;
    pthread_mutex_t lock;
    int led;
    int forgotten;
    uint64_t used; /* when a call was last begun */
} glc_shared;

typedef struct {
    glc_call call; /* the first field */
    pthread_cond_t ready;
} glc_waiter;

static inline void glc_shared_open(glc_shared *s, glc_connection *connection)
{
    s->connection = connection;
    s->led = s->forgotten = 0;
    s->used = glc_clock();
    pthread_mutex_init(&s->lock, NULL);
}

static inline void glc_shared_free(glc_shared *s)
{
    if (!s->forgotten) {
        glc_free(s->connection);
        pthread_mutex_destroy(&s->lock);
    }
    s->connection = NULL;
}

/* Closes the socket in a process that was forked. Threads that this process does not have may have
 * been changing the rest, or have calls on their stacks: then it is never freed. */
static inline void glc_shared_forget(glc_shared *s)
{
    glc_connection *c = s->connection;

    s->forgotten = 1;
    if (pthread_mutex_trylock(&s->lock) == 0) {
        s->forgotten = c->calls > 0;
        pthread_mutex_unlock(&s->lock);
    }
    c->problem = GLC_CLOSED;
    glc_set(&c->draining);
    glc_set(&c->closed);
    close(c->descriptor);
    c->descriptor = -1;
}

static inline void glc_on_waiter_over(glc_call *call, glc_connection *connection)
{
    (void)connection;
    pthread_cond_signal(&((glc_waiter *)call)->ready);
}

static inline void glc_waiter_open(glc_waiter *w)
{
    pthread_condattr_t clock;

    memset(&w->call, 0, offsetof(glc_call, small));
    w->call.on_over = glc_on_waiter_over;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&w->ready, &clock);
    pthread_condattr_destroy(&clock);
}

static inline void glc_waiter_free(glc_waiter *w)
{
    glc_call_free(&w->call);
    pthread_cond_destroy(&w->ready);
}

static inline struct timespec glc_time(uint64_t nanoseconds)
{
    return (struct timespec){(time_t)(nanoseconds / 1000000000u),
                             (long)(nanoseconds % 1000000000u)};
}

static inline int glc_poll(int descriptor, short events, uint64_t nanoseconds)
{
    struct pollfd one = {descriptor, events, 0};
    struct timespec time = glc_time(nanoseconds);

    return ppoll(&one, 1, &time, NULL);
}

/* Has one of those that wait lead, if none does. */
static inline void glc_hand_on(glc_shared *s)
{
    if (!s->led && s->connection->first != NULL)
        pthread_cond_signal(&((glc_waiter *)s->connection->first)->ready);
}

/* Begins a call; 0: the connection takes none. */
static inline int glc_shared_begin(glc_shared *s, glc_waiter *w)
{
    int begun;

    pthread_mutex_lock(&s->lock);
    begun = glc_begin(s->connection, &w->call);
    if (begun) {
        s->used = glc_clock();
        glc_flush(s->connection);
    }
    pthread_mutex_unlock(&s->lock);
    return begun;
}

/* Waits until a call is over; 0: it is not, but a signal came, or `until` is past. */
static inline int glc_shared_wait(glc_shared *s, glc_waiter *w, uint64_t until)
{
    glc_connection *c = s->connection;
    int interrupted = 0;
    int over;

    pthread_mutex_lock(&s->lock);
    while (!w->call.over && !interrupted) {
        uint64_t now = glc_clock();
        if (now >= until)
            break;
        if (!s->led || c->wants_write) {
            /* Who finds that the socket is full waits for it, also beside the one who leads. */
            int lead = !s->led;
            short events = lead ? glc_events(c) : POLLOUT;
            int more = lead && glc_has_more(c);
            int found = 1;
            s->led = 1;
            pthread_mutex_unlock(&s->lock);
            if (!more)
                found = glc_poll(c->descriptor, events, until - now);
            interrupted = found < 0 && errno == EINTR;
            pthread_mutex_lock(&s->lock);
            if (lead) {
                s->led = 0;
                glc_progress(c);
            } else {
                glc_flush(c);
            }
        } else {
            struct timespec at = glc_time(until);
            pthread_cond_timedwait(&w->ready, &s->lock, &at);
        }
    }
    over = w->call.over;
    glc_hand_on(s);
    pthread_mutex_unlock(&s->lock);
    return over;
}

/* Begins a call and waits for it as glc_shared_wait does; -1: the connection takes none. */
static inline int glc_shared_call(glc_shared *s, glc_waiter *w, uint64_t until)
{
    return glc_shared_begin(s, w) ? glc_shared_wait(s, w, until) : -1;
}

/* Ends a call that nobody waits for any more. */
static inline void glc_shared_cancel(glc_shared *s, glc_waiter *w, int code, const char *text)
{
    pthread_mutex_lock(&s->lock);
    if (w->call.connection != NULL) {
        glc_cancel(&w->call, code, text);
        glc_flush(s->connection);
    }
    glc_hand_on(s); /* it may be the one that was to lead */
    pthread_mutex_unlock(&s->lock);
}

static inline void glc_shared_close(glc_shared *s, const char *problem)
{
    pthread_mutex_lock(&s->lock);
    glc_close(s->connection, problem);
    pthread_mutex_unlock(&s->lock);
}

/* Goes on until the server has sent its settings; 0: it has not yet, and `until` is past. */
static inline int glc_shared_settle(glc_shared *s, uint64_t until)
{
    glc_connection *c = s->connection;
    int done;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        uint64_t now;
        glc_progress(c);
        glc_flush(c);
        done = c->settled || c->closed;
        now = glc_clock();
        if (done || now >= until)
            break;
        short events = glc_events(c);
        pthread_mutex_unlock(&s->lock);
        glc_poll(c->descriptor, events, until - now);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return done;
}

/* Answers pings on connections without calls, probes them, and learns that they end. Returns
 * when `wake` can be read, one of them takes no more calls, or `until` is past. `polled` and
 * `leads` have room for `count` and one more. */
static inline void glc_attend(glc_shared **all, size_t count, int wake, uint64_t until,
                              struct pollfd *polled, uint8_t *leads)
{
    int ended = 0;

    while (!ended) {
        uint64_t now = glc_clock(), wait = until > now ? until - now : 0;
        struct timespec time;
        polled[0] = (struct pollfd){wake, POLLIN, 0};
        for (size_t i = 0; i < count; i++) {
            glc_shared *s = all[i];
            glc_connection *c = s->connection;
            uint64_t due = GLC_IDLE;
            pthread_mutex_lock(&s->lock);
            leads[i] = !s->led && c->calls == 0 && now - s->used >= GLC_IDLE && !c->closed;
            polled[i + 1] = (struct pollfd){leads[i] ? c->descriptor : -1, glc_events(c), 0};
            if (leads[i]) {
                uint64_t from = c->probing ? c->probed_at : c->heard;
                uint64_t after = c->probing ? c->keepalive_answer : c->keepalive;
                s->led = 1;
                due = after == 0 ? wait : from + after > now ? from + after - now : 0;
            }
            ended |= c->draining;
            pthread_mutex_unlock(&s->lock);
            wait = due < wait ? due : wait;
        }
        time = glc_time(ended ? 0 : wait + 1000000);
        ppoll(polled, count + 1, &time, NULL);
        ended |= polled[0].revents != 0 || now >= until;
        for (size_t i = 0; i < count; i++) {
            glc_shared *s = all[i];
            if (!leads[i])
                continue;
            pthread_mutex_lock(&s->lock);
            s->led = 0;
            glc_progress(s->connection);
            ended |= s->connection->draining;
            glc_hand_on(s);
            pthread_mutex_unlock(&s->lock);
        }
    }
}

#endif
