/* A connection of a client that threads share, each waiting for its own call.
 *
 * Plain C11. There is no thread that does the input and output: one of those that wait leads, which
 * means that it polls the socket and hands out what came; when its own call is over, the next one
 * leads. So a thread that calls alone is woken by the socket itself. A connection without
 * calls is led by whoever is in glc_attend.
 *
 * Under load the cost is in waking threads and in small writes. So a thread is woken once, without
 * the lock, and does not take the lock again; and one that is about to poll after others were
 * answered first gives way to them, since they are likely to make the next calls, which then leave
 * in one write.
 *
 * The lock guards all of a glc_shared and of its connection, and the waiters in its lists. It is
 * never held while a thread waits, nor is the interpreter lock taken while it is held.
 */
#ifndef GEOLOOKUP_CLIENT_CALLS_H
#define GEOLOOKUP_CLIENT_CALLS_H

#include "client_connection.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

/* Nanoseconds without calls after which a connection is attended to. A call that comes then is
 * woken by way of another thread, and those after it are not. */
#define GLC_IDLE UINT64_C(1000000000)

/* What a waiter does. It may be freed once it is GLC_OVER, and not before. */
enum { GLC_AWAKE, GLC_ASLEEP, GLC_OVER };

typedef struct {
    glc_call call; /* the first field */
    uint32_t state;
} glc_waiter;

typedef struct {
    glc_connection *connection;
    pthread_mutex_t lock;
    int led;
    int gathering; /* who leads is about to send what was begun */
    int forgotten;
    glc_call *over;  /* waiters that are to be woken, by their `next` */
    size_t answered; /* beside the one who led, when answers last came */
    uint64_t used;   /* when a call was last begun */
} glc_shared;

static inline void glc_shared_open(glc_shared *s, glc_connection *connection)
{
    memset(s, 0, sizeof *s);
    s->connection = connection;
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

static inline void glc_waiter_open(glc_waiter *w, glc_shared *s)
{
    memset(&w->call, 0, offsetof(glc_call, small));
    w->call.owner = s;
    w->state = GLC_AWAKE;
}

static inline void glc_waiter_free(glc_waiter *w)
{
    glc_call_free(&w->call);
}

static inline void glc_on_waiter_over(glc_call *call, glc_connection *connection)
{
    glc_shared *s = call->owner;

    (void)connection;
    call->next = s->over;
    s->over = call;
    s->answered++;
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

/* Sleeps until the state is no longer GLC_ASLEEP; 0: or a signal came, or `until` is past. */
static inline int glc_sleep(uint32_t *state, uint64_t until)
{
    struct timespec at = glc_time(until);

    return syscall(SYS_futex, state, FUTEX_WAIT_BITSET_PRIVATE, GLC_ASLEEP, &at, NULL,
                   FUTEX_BITSET_MATCH_ANY) == 0 ||
           errno == EAGAIN;
}

/* Wakes who sleeps at a state. It may be gone by now: then this wakes nobody, or somebody who looks
 * why it woke. */
static inline void glc_rouse(uint32_t *state)
{
    syscall(SYS_futex, state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Releases the lock, wakes those whose calls are over, and has one of those that wait lead if none
 * does. */
static inline void glc_shared_unlock(glc_shared *s)
{
    glc_call *call = s->over;
    uint32_t *next = NULL;

    s->over = NULL;
    if (!s->led)
        for (glc_call *one = s->connection->first; one != NULL && next == NULL; one = one->next) {
            next = &((glc_waiter *)one)->state;
            if (__atomic_exchange_n(next, GLC_AWAKE, __ATOMIC_ACQ_REL) != GLC_ASLEEP)
                next = NULL; /* it does not wait now: in a signal's handler, say */
        }
    pthread_mutex_unlock(&s->lock);
    if (next != NULL)
        glc_rouse(next);
    while (call != NULL) {
        uint32_t *state = &((glc_waiter *)call)->state;
        call = call->next;
        if (__atomic_exchange_n(state, GLC_OVER, __ATOMIC_ACQ_REL) == GLC_ASLEEP)
            glc_rouse(state);
    }
}

/* Waits until a call that is over is in no list any more. */
static inline void glc_until_over(glc_waiter *w)
{
    uint32_t state = GLC_AWAKE;

    while (__atomic_load_n(&w->state, __ATOMIC_ACQUIRE) != GLC_OVER) {
        __atomic_compare_exchange_n(&w->state, &state, GLC_ASLEEP, 0, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE);
        glc_sleep(&w->state, glc_clock() + GLC_IDLE);
        state = GLC_AWAKE;
    }
}

/* Polls the socket and does what can be done, in the place of all who wait. Returns 0 if a signal
 * came. The lock is released meanwhile. */
static inline int glc_lead(glc_shared *s, glc_waiter *w, uint64_t until)
{
    glc_connection *c = s->connection;
    uint64_t now;
    int found = 1;
    short events;

    s->led = 1;
    if (s->answered > 0) {
        s->answered = 0;
        s->gathering = 1;
        glc_shared_unlock(s);
        sched_yield();
        pthread_mutex_lock(&s->lock);
        s->gathering = 0;
    }
    glc_flush(c);
    if (!w->call.over && !glc_has_more(c)) {
        events = glc_events(c);
        glc_shared_unlock(s);
        now = glc_clock();
        found = glc_poll(c->descriptor, events, until > now ? until - now : 0);
        found = found >= 0 || errno != EINTR;
        pthread_mutex_lock(&s->lock);
    }
    s->led = 0;
    s->answered = 0;
    glc_progress(c);
    if (w->call.over && s->answered > 0)
        s->answered--;
    return found;
}

/* Waits until a call is over; 0: it is not, but a signal came, or `until` is past. The lock is held,
 * and is released. */
static inline int glc_wait(glc_shared *s, glc_waiter *w, uint64_t until)
{
    glc_connection *c = s->connection;
    int undisturbed = 1;
    int over;

    while (!w->call.over && undisturbed) {
        uint64_t now = glc_clock();
        if (now >= until)
            break;
        if (!s->led) {
            undisturbed = glc_lead(s, w, until);
        } else if (c->wants_write) {
            /* Who finds that the socket is full waits for it, also beside the one who leads. */
            glc_shared_unlock(s);
            undisturbed = glc_poll(c->descriptor, POLLOUT, until - now) >= 0 || errno != EINTR;
            pthread_mutex_lock(&s->lock);
            glc_flush(c);
        } else {
            __atomic_store_n(&w->state, GLC_ASLEEP, __ATOMIC_RELEASE);
            glc_shared_unlock(s);
            undisturbed = glc_sleep(&w->state, until);
            if (__atomic_load_n(&w->state, __ATOMIC_ACQUIRE) == GLC_OVER)
                return 1;
            pthread_mutex_lock(&s->lock);
            if (!w->call.over)
                __atomic_store_n(&w->state, GLC_AWAKE, __ATOMIC_RELEASE);
        }
    }
    over = w->call.over;
    glc_shared_unlock(s);
    if (over)
        glc_until_over(w);
    return over;
}

/* As glc_wait, for a call that was begun before. */
static inline int glc_shared_wait(glc_shared *s, glc_waiter *w, uint64_t until)
{
    pthread_mutex_lock(&s->lock);
    return glc_wait(s, w, until);
}

/* Begins a call and waits for it; -1: the connection takes none, and nothing has happened. */
static inline int glc_shared_call(glc_shared *s, glc_waiter *w, uint64_t until)
{
    w->call.on_over = glc_on_waiter_over;
    pthread_mutex_lock(&s->lock);
    if (!glc_begin(s->connection, &w->call)) {
        glc_shared_unlock(s);
        return -1;
    }
    s->used = glc_clock();
    if (s->led && !s->gathering) /* or it is sent by the one who leads, who may be this one */
        glc_flush(s->connection);
    return glc_wait(s, w, until);
}

/* Ends a call that nobody waits for any more. */
static inline void glc_shared_cancel(glc_shared *s, glc_waiter *w, int code, const char *text)
{
    int over;

    pthread_mutex_lock(&s->lock);
    over = w->call.over;
    if (!over) {
        w->call.on_over = NULL;
        glc_cancel(&w->call, code, text);
        glc_flush(s->connection);
    }
    glc_shared_unlock(s); /* it may be the one that was to lead */
    if (over)
        glc_until_over(w);
}

static inline void glc_shared_close(glc_shared *s, const char *problem)
{
    pthread_mutex_lock(&s->lock);
    glc_close(s->connection, problem);
    glc_shared_unlock(s);
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
        glc_shared_unlock(s);
        glc_poll(c->descriptor, events, until - now);
        pthread_mutex_lock(&s->lock);
    }
    glc_shared_unlock(s);
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
            glc_shared_unlock(s);
        }
    }
}

#endif
