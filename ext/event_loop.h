/* The event loop: listening sockets, connections, what is due, and how all of it ends.
 *
 * Plain C11, over epoll. See server.h for what belongs to whom.
 *
 * In each turn a connection may be read once (GL_TURN bytes) and written once, so that no client
 * holds up the others for longer than its share takes. A connection that does not take what is
 * sent to it is not read either.
 */
#ifndef GEOLOOKUP_EVENT_LOOP_H
#define GEOLOOKUP_EVENT_LOOP_H

#include "http2_session.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* What an event of epoll is about: a listener by its number, the eventfd, or a connection. */
enum { GL_WAKE = GL_LISTENERS };

static void gl_look_for(gl_connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    if (events == c->events)
        return;
    c->events = events;
    epoll_ctl(c->server->epoll, EPOLL_CTL_MOD, c->descriptor, &event);
}

/* Has a connection looked at in this turn or the next one, whatever epoll says. */
static void gl_again(gl_connection *c)
{
    if (!c->in_again && !c->closed) {
        c->in_again = 1;
        c->again_next = c->server->again;
        c->server->again = c;
    }
}

/* Ends all calls of a connection, and its session. */
static void gl_end_session(gl_connection *c)
{
    while (c->calls != NULL)
        gl_call_over(c->calls);
    nghttp2_session_del(c->session);
    c->session = NULL;
}

/* Closes a connection. Its memory is freed at the end of the turn. */
static void gl_close(gl_connection *c)
{
    gl_server *s = c->server;

    if (c->closed)
        return;
    c->closed = 1;
    gl_end_session(c);
    gl_tls_free(c->tls);
    close(c->descriptor);
    if (c->previous != NULL)
        c->previous->next = c->next;
    else
        s->connections = c->next;
    if (c->next != NULL)
        c->next->previous = c->previous;
    gl_end_uncalled(c);
    if (!c->private) {
        s->connection_count--;
        gl_add(&s->meter->connections, UINT64_MAX); /* less one; those of HTTP/1.1 count, too */
    }
    if (s->paused) {
        s->paused = 0;
        for (unsigned i = 0; i < s->listener_count; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.u64 = i};
            epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listeners[i], &event);
        }
    }
    c->next = s->gone;
    s->gone = c;
}

static void gl_free_gone(gl_server *s)
{
    while (s->gone != NULL) {
        gl_connection *c = s->gone;
        s->gone = c->next;
        free(c->pending);
        free(c->identities);
        free(c);
    }
}

/* Closes our side of a connection. What its client still sends is read for a moment, or the
 * system would discard what was sent to it. */
static void gl_goodbye(gl_connection *c)
{
    gl_end_session(c);
    if (c->tls != NULL)
        gl_tls_goodbye(c->tls);
    if (shutdown(c->descriptor, SHUT_WR) != 0) {
        gl_close(c);
        return;
    }
    c->closing = 2;
    c->close_by = gl_after(c->server->now, GL_LINGER);
    gl_soon(c->server, c->close_by);
    gl_look_for(c, EPOLLIN);
}

/* Writes bytes; returns how many the socket took, or -1 after it closed the connection. */
static ssize_t gl_write(gl_connection *c, const uint8_t *data, size_t size)
{
    size_t at = 0;

    while (at < size) {
        ssize_t n = c->tls == NULL ? send(c->descriptor, data + at, size - at, MSG_NOSIGNAL)
                                   : gl_tls_write(c->tls, data + at, size - at);
        if (n > 0) {
            at += (size_t)n;
            continue;
        }
        if (c->tls == NULL ? errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR
                           : n == GL_TLS_WANTS_WRITE || n == GL_TLS_AGAIN)
            break;
        gl_close(c);
        return -1;
    }
    if (at > 0)
        c->heard = c->server->now; /* its other end is there */
    return (ssize_t)at;
}

/* Writes what the socket did not take before; 0: there still is some, or the connection is
 * closed. */
static int gl_write_pending(gl_connection *c)
{
    ssize_t n;

    if (c->pending_bytes == 0)
        return 1;
    n = gl_write(c, c->pending + c->pending_at, c->pending_bytes);
    if (n < 0)
        return 0;
    c->pending_at += (size_t)n;
    c->pending_bytes -= (size_t)n;
    if (c->pending_bytes > 0)
        return 0;
    free(c->pending);
    c->pending = NULL;
    return 1;
}

/* Takes from the output what was written of it. */
static void gl_drop_written(gl_output *o, size_t written)
{
    while (written > 0) {
        struct iovec *first = o->pieces + o->first_piece;
        size_t n = written < first->iov_len ? written : first->iov_len;
        first->iov_base = (uint8_t *)first->iov_base + n;
        first->iov_len -= n;
        o->bytes -= n;
        written -= n;
        if (first->iov_len == 0)
            o->first_piece++;
    }
}

/* Writes the output, as far as the socket takes it; 0: it closed the connection. */
static int gl_write_output(gl_connection *c)
{
    gl_output *o = &c->server->output;

    while (o->bytes > 0) {
        struct msghdr message = {.msg_iov = o->pieces + o->first_piece,
                                 .msg_iovlen = o->piece_count - o->first_piece};
        ssize_t n = sendmsg(c->descriptor, &message, MSG_NOSIGNAL);
        if (n > 0) {
            gl_drop_written(o, (size_t)n);
            c->heard = c->server->now; /* its other end is there */
        } else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
            break;
        } else {
            gl_close(c);
            return 0;
        }
    }
    return 1;
}

/* Has libnghttp2 write frames; returns their bytes, or -1 after it closed the connection. */
static ssize_t gl_fill_output(gl_connection *c)
{
    gl_output *o = &c->server->output;

    while (o->bytes < GL_OUTPUT) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(c->session, &data);
        if (n == 0)
            break;
        if (n < 0 || (size_t)n > GL_OUTPUT) {
            gl_close(c);
            return -1;
        }
        gl_add_copied(o, data, (size_t)n);
    }
    return (ssize_t)o->bytes;
}

/* Keeps what the socket did not take of the output; 0: it closed the connection. */
static int gl_keep_pending(gl_connection *c)
{
    const gl_output *o = &c->server->output;
    uint8_t *at = malloc(o->bytes);

    if (at == NULL) {
        gl_close(c);
        return 0;
    }
    c->pending = at;
    c->pending_at = 0;
    c->pending_bytes = o->bytes;
    for (unsigned i = o->first_piece; i < o->piece_count; i++) {
        memcpy(at, o->pieces[i].iov_base, o->pieces[i].iov_len);
        at += o->pieces[i].iov_len;
    }
    return 1;
}

/* Begins another write: nothing refers to the answers of the last one any more. */
static void gl_next_output(gl_output *o)
{
    while (o->over_count > 0)
        free(o->over[--o->over_count]);
    o->number++;
    o->bytes = o->copied_bytes = 0;
    o->piece_count = o->first_piece = 0;
}

/* Sends frames, or keeps them as pending; returns their bytes, or -1 after it closed the
 * connection. */
static ssize_t gl_send_frames(gl_connection *c)
{
    gl_output *o = &c->server->output;
    ssize_t fill = gl_fill_output(c);

    if (fill > 0 && c->tls == NULL && !gl_write_output(c))
        fill = -1;
    if (fill > 0 && c->tls != NULL) {
        ssize_t n = gl_write(c, o->copied, o->copied_bytes); /* nothing is uncopied */
        if (n < 0)
            fill = -1;
        else
            gl_drop_written(o, (size_t)n);
    }
    if (fill > 0 && o->bytes > 0 && !gl_keep_pending(c))
        fill = -1;
    gl_next_output(o);
    return fill;
}

/* Sends what there is to send, and goes on with what waited for that. */
static void gl_flush(gl_connection *c)
{
    if (c->closed || c->closing == 2 || c->handshaking)
        return;
    if (c->unslotted > 0)
        gl_settle_slots(c);
    for (unsigned round = 0;; round++) {
        ssize_t fill;
        int pumped = 0;
        if (!gl_write_pending(c))
            break;
        if (round >= 2) {
            gl_again(c);
            break;
        }
        fill = gl_send_frames(c);
        if (fill < 0)
            return;
        while (c->pump != NULL && !c->closing) {
            gl_call *call = c->pump;
            c->pump = call->pumped;
            call->in_pump = 0;
            gl_pump(call);
            pumped = 1;
        }
        if (fill == 0 && !pumped)
            break;
    }
    if (c->closed)
        return;
    if (c->answered > 0) {
        /* Answered, and not sent: from now on they hold slots as others do. */
        for (gl_call *call = c->calls; call != NULL && c->answered > 0; call = call->next)
            if (call->in_place) {
                call->in_place = 0;
                call->slots = call->method->slots;
                gl_slots_charge(call->slots, 1);
                c->answered--;
            }
        c->answered = 0;
    }
    if (c->pending_bytes > 0) {
        gl_look_for(c, EPOLLOUT);
        return;
    }
    if (c->closing ||
        (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))) {
        gl_goodbye(c);
        return;
    }
    gl_look_for(c, EPOLLIN);
    if (c->unread)
        gl_again(c);
}

/* Goes on with a TLS handshake; 0: it is not done, or has failed. */
static int gl_shake_hands(gl_connection *c)
{
    unsigned failure = GL_HANDSHAKE_OTHER;
    int result = gl_tls_handshake(c->tls, &failure);

    if (result == GL_TLS_AGAIN || result == GL_TLS_WANTS_WRITE) {
        gl_look_for(c, result == GL_TLS_AGAIN ? EPOLLIN : EPOLLOUT);
        return 0;
    }
    if (result != 0) {
        gl_add(&c->server->meter->counters.handshake_failures[failure], 1);
        gl_close(c);
        return 0;
    }
    c->handshaking = 0;
    /* Until now only the handshake was due; age, idleness and silence are from here on. */
    gl_soon(c->server, c->server->now + 50 * GL_MILLISECOND);
    if (c->server->allow.any)
        c->allowed = gl_tls_identities(c->tls, &c->server->allow, &c->identities,
                                       &c->identities_bytes);
    return 1;
}

/* Reads what has come, as much as one turn allows, and answers it. */
static void gl_read(gl_connection *c)
{
    gl_server *s = c->server;
    size_t most = c->large ? GL_LARGE_TURN : GL_TURN, total = 0;
    int blocked = 0;

    if (c->closed || (c->handshaking && !gl_shake_hands(c)))
        return;
    if (c->closing == 2) {
        ssize_t n = recv(c->descriptor, s->input, GL_LARGE_TURN, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            gl_close(c);
        return;
    }
    c->large = 0;
    c->unread = c->tls != NULL; /* until it says that there is no more */
    while (total < most && !c->closing && c->pending_bytes == 0) {
        ssize_t n = c->tls == NULL ? recv(c->descriptor, s->input, most - total, 0)
                                   : gl_tls_read(c->tls, s->input, most - total);
        if (n <= 0) {
            if (c->tls == NULL ? n < 0 && (errno == EAGAIN || errno == EINTR)
                               : n == GL_TLS_AGAIN || n == GL_TLS_WANTS_WRITE) {
                c->unread = 0;
                blocked = n == GL_TLS_WANTS_WRITE;
                break;
            }
            gl_close(c);
            return;
        }
        c->heard = s->now;
        c->probing = 0;
        gl_look_at_frames(c, s->input, (size_t)n);
        if (c->closing)
            break;
        if (nghttp2_session_mem_recv(c->session, s->input, (size_t)n) != n) {
            /* No HTTP/2 at all, or no memory, or a flood: what waits to be sent still is. */
            gl_give_up(c);
            break;
        }
        if (c->tls == NULL && (size_t)n < most - total)
            break;
        if (c->tls != NULL && !gl_tls_has_more(c->tls)) { /* of the rest the system would say */
            c->unread = 0;
            break;
        }
        total += (size_t)n;
    }
    gl_flush(c);
    if (blocked && !c->closed && c->closing != 2)
        gl_look_for(c, EPOLLOUT); /* what TLS itself has to send comes before what it reads */
}

static void gl_add_connection(gl_server *s, int descriptor, int private)
{
    gl_connection *c = calloc(1, sizeof *c);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;

    if (c == NULL) {
        close(descriptor);
        return;
    }
    c->server = s;
    c->private = (uint8_t)private;
    c->meter = private ? s->private_meter : s->meter;
    c->descriptor = descriptor;
    c->events = EPOLLIN;
    c->frame_left = GL_PREFACE;
    c->allowed = private ? UINT32_MAX : gl_allow_all(&s->allow);
    c->credit = GL_IDLE_FRAMES;
    c->made = c->heard = c->idle_since = c->credited = s->now;
    c->age_due = GL_NEVER;
    c->close_by = GL_NEVER;
    if (s->settings.age && !private) { /* a tenth more or less, so that clients don't come back at once */
        s->random ^= s->random << 13;
        s->random ^= s->random >> 7;
        s->random ^= s->random << 17;
        c->age_due = s->now + s->settings.age * GL_MILLISECOND / 1000 * (900 + s->random % 200);
    }
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* no error if it is none */
    if (s->context != NULL && !private) {
        gl_add(&s->meter->counters.handshakes, 1);
        c->handshaking = 1;
        c->tls = gl_tls_new(s->context, descriptor);
    }
    c->next = s->connections;
    if (s->connections != NULL)
        s->connections->previous = c;
    s->connections = c;
    if (!private) {
        s->connection_count++;
        gl_add(&s->meter->connections, 1);
        gl_add(&s->meter->counters.connections_made, 1);
        gl_begin_uncalled(c);
    }
    if ((c->handshaking && c->tls == NULL) || !gl_session_new(c) ||
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, descriptor, &event) != 0) {
        gl_close(c);
        return;
    }
    gl_soon(s, s->now);
    gl_flush(c); /* our settings */
}

/* Makes room for a connection: closes the one that has waited longest for its first call. 0: each
 * has made one. */
static int gl_make_room(gl_server *s)
{
    if (s->uncalled_longest == NULL)
        return 0;
    gl_add(&s->meter->counters.connections_closed[1], 1);
    gl_close(s->uncalled_longest);
    return 1;
}

static void gl_accept(gl_server *s, int listener)
{
    for (unsigned i = 0; i < GL_ACCEPTS; i++) {
        int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor < 0 && (errno == EMFILE || errno == ENFILE) && gl_make_room(s))
            continue;
        if (descriptor < 0) {
            /* Without a descriptor the connection stays where it is: look again when one of
             * ours has ended, or something is due. */
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                s->paused = 1;
                for (unsigned k = 0; k < s->listener_count; k++)
                    epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->listeners[k], NULL);
                gl_soon(s, s->now + 100 * GL_MILLISECOND);
            }
            return;
        }
        if (s->connection_count >= s->settings.connections && !gl_make_room(s)) {
            gl_add(&s->meter->counters.connections_closed[0], 1);
            close(descriptor);
        } else
            gl_add_connection(s, descriptor, 0);
    }
}

static void gl_close_listeners(gl_server *s)
{
    for (unsigned i = 0; i < s->listener_count; i++)
        close(s->listeners[i]); /* which takes it from epoll, too */
    s->listener_count = 0;
    s->paused = 0;
}

/* --- what is due */

static inline void gl_first(uint64_t *due, uint64_t one)
{
    if (one < *due)
        *due = one;
}

/* Ends calls whose clients stopped in the middle of something, and returns when the next one has
 * done so for too long. A look at each `transfer_timeout` finds all in time. */
static uint64_t gl_look_at_calls(gl_connection *c)
{
    gl_server *s = c->server;
    uint64_t due = gl_after(s->now, s->settings.transfer_timeout);

    if (due == GL_NEVER || c->closing)
        return GL_NEVER;
    for (gl_call *call = c->calls, *next; call != NULL; call = next) {
        uint64_t one = gl_after(call->since, s->settings.transfer_timeout);
        next = call->next;
        if (!gl_waits_for_client(call))
            continue;
        if (one > s->now) {
            gl_first(&due, one);
            continue;
        }
        if (!call->accepted) { /* in the middle of its headers, so nothing else can come */
            gl_add(&s->meter->counters.transfer_timeouts, 1);
            gl_expel(c, NGHTTP2_ENHANCE_YOUR_CALM, "transfer_timeout");
            gl_again(c);
            return due;
        }
        gl_end_stalled(call);
        gl_again(c);
    }
    return due;
}

/* Does what is due on a connection, and returns when it is to be looked at again. */
static uint64_t gl_look_at(gl_connection *c)
{
    gl_server *s = c->server;
    const gl_server_settings *t = &s->settings;
    uint64_t due = GL_NEVER, one, answer = GL_KEEPALIVE_ANSWER;

    if (c->close_by <= s->now) { /* its grace is over, or its client has closed its side */
        if (c->closing == 2) {
            gl_close(c);
            return GL_NEVER;
        }
        for (gl_call *call = c->calls; call != NULL; call = call->next)
            gl_reset(call, NGHTTP2_CANCEL);
        gl_give_up(c);
        gl_again(c);
        if (c->pending_bytes > 0) {
            gl_close(c);
            return GL_NEVER;
        }
    }
    gl_first(&due, c->close_by);
    if (c->closing == 2 || c->private) /* its other end says itself when it has enough */
        return due;
    if (c->handshaking || !c->settled) {
        one = gl_after(c->made, t->handshake_timeout);
        if (one <= s->now) {
            if (c->handshaking)
                gl_add(&s->meter->counters.handshake_failures[GL_HANDSHAKE_TIMED_OUT], 1);
            gl_close(c);
            return GL_NEVER;
        }
        gl_first(&due, one);
        if (c->handshaking)
            return due;
    }
    gl_first(&due, gl_look_at_calls(c));
    if (t->keepalive && t->keepalive < answer)
        answer = t->keepalive;
    if (c->probing) {
        one = gl_after(c->probed_at, answer);
        if (one <= s->now) {
            gl_close(c);
            return GL_NEVER;
        }
        gl_first(&due, one);
    } else {
        one = gl_after(c->heard, t->keepalive);
        if (one <= s->now) {
            nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, gl_probe);
            c->probing = 1;
            c->probed_at = s->now;
            one = gl_after(s->now, answer);
            gl_again(c);
        }
        gl_first(&due, one);
    }
    if (c->retiring == 1) {
        if (c->retire_by <= s->now) {
            gl_retired(c);
            gl_again(c);
        } else {
            gl_first(&due, c->retire_by);
        }
    }
    if (!c->retiring) {
        one = c->open ? GL_NEVER : gl_after(c->idle_since, t->idle);
        if (one <= s->now || c->age_due <= s->now) {
            if (c->age_due <= s->now)
                c->close_by = gl_after(s->now, t->grace + 1);
            gl_retire(c);
            gl_again(c);
            gl_first(&due, c->retire_by);
            gl_first(&due, c->close_by);
        }
        if (one > s->now)
            gl_first(&due, one);
        /* A connection with calls may become idle at any time; a look now and then will do. */
        if (c->open && t->idle)
            gl_first(&due, gl_after(s->now, t->idle));
        if (c->age_due > s->now)
            gl_first(&due, c->age_due);
    }
    return due;
}

static void gl_look(gl_server *s)
{
    uint64_t due = GL_NEVER;
    /* Many connections are looked at together rather than each when it is due. */
    uint64_t soonest = s->now + (s->connection_count > 1000 ? 50 : 5) * GL_MILLISECOND;

    if (s->paused) { /* for want of a descriptor, of which another process may have freed one */
        s->paused = 0;
        for (unsigned i = 0; i < s->listener_count; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.u64 = i};
            epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listeners[i], &event);
        }
    }
    s->next_look = GL_NEVER;
    for (gl_connection *c = s->connections, *next; c != NULL; c = next) {
        next = c->next;
        gl_first(&due, gl_look_at(c));
    }
    gl_soon(s, due < soonest ? soonest : due);
}

/* Ends calls whose deadline has passed; those that a thread has are its own to end. */
static void gl_expire(gl_server *s)
{
    s->next_deadline = GL_NEVER;
    for (gl_call *call = s->timed, *next; call != NULL; call = next) {
        next = call->next_timed;
        if (call->deadline > s->now) {
            gl_first(&s->next_deadline, call->deadline);
            continue;
        }
        if (call->stage == GL_BUSY) { /* looked at again when it is back */
            gl_first(&s->next_deadline, s->now + 100 * GL_MILLISECOND);
            continue;
        }
        call->deadline = GL_NEVER;
        if (call->stage == GL_READING || call->stage == GL_WATCHING)
            gl_fail(call, GL_DEADLINE_EXCEEDED);
        else if (!call->ending || call->code == GL_OK)
            gl_reset(call, NGHTTP2_CANCEL);
        /* else the trailers are queued, and a reset would replace their status by its own */
        gl_again(call->connection);
    }
}

/* --- what other threads ask for */

static void gl_watch_all(gl_server *s)
{
    for (gl_connection *c = s->connections; c != NULL; c = c->next)
        for (gl_call *call = c->calls; call != NULL; call = call->next)
            if (call->stage == GL_WATCHING && (call->ours || s->stopping)) {
                gl_watch(call);
                gl_again(c);
            }
}

/* Has clients go elsewhere with what they begin from now on, while the listeners go on. */
static void gl_retire_all(gl_server *s)
{
    for (gl_connection *c = s->connections; c != NULL; c = c->next)
        if (!c->private) {
            gl_retire(c);
            gl_again(c);
        }
}

static void gl_begin_stop(gl_server *s)
{
    s->stopping = 1;
    s->next_pause = s->now;
    s->cut_off_at = gl_after(s->now, GL_LAST_STATE);
    gl_close_listeners(s);
    gl_watch_all(s);
    for (gl_connection *c = s->connections, *next; c != NULL; c = next) {
        next = c->next;
        if (c->private) {
            gl_close(c);
            continue;
        }
        for (gl_call *call = c->calls; call != NULL; call = call->next)
            if (call->method != NULL && call->method->lasting &&
                call->method->kind != GL_HEALTH_WATCH)
                gl_reset(call, NGHTTP2_CANCEL);
        gl_retire(c);
        gl_again(c);
    }
}

static void gl_obey(gl_server *s)
{
    gl_snapshot *snapshot;
    gl_tls_context *context;
    gl_job *job;
    int asked, serving, private, retire;
    uint64_t at;

    pthread_mutex_lock(&s->lock);
    snapshot = s->next_snapshot;
    s->next_snapshot = NULL;
    context = s->next_context;
    s->next_context = NULL;
    serving = s->next_serving;
    retire = s->retire_asked;
    s->retire_asked = 0;
    private = s->next_private;
    s->next_private = -1;
    asked = s->stop_asked;
    at = s->stop_asked_at;
    pthread_mutex_unlock(&s->lock);
    if (snapshot != NULL) {
        gl_snapshot_drop(s, s->snapshot);
        s->snapshot = snapshot;
    }
    if (context != NULL) {
        gl_tls_context_free(s->context);
        s->context = context;
    }
    if (private >= 0 && s->stopping)
        close(private);
    else if (private >= 0)
        gl_add_connection(s, private, 1);
    if (serving != s->serving) {
        s->serving = serving;
        gl_watch_all(s);
    }
    if (retire && !s->stopping)
        gl_retire_all(s);
    if (asked) {
        s->stop_at = at;
        if (!s->stopping)
            gl_begin_stop(s);
    }
    for (job = gl_jobs_take(&s->done); job != NULL;) {
        gl_job *next = job->next;
        if (job->call != NULL)
            gl_again(job->call->connection);
        gl_job_done(s, job);
        job = next;
    }
}

/* Ends streams that wait for their clients' next roster, once they have done so for a while. */
static void gl_end_pauses(gl_server *s)
{
    s->next_pause = GL_NEVER;
    for (gl_connection *c = s->connections; c != NULL; c = c->next)
        for (gl_call *call = c->calls; call != NULL; call = call->next) {
            uint64_t due = gl_after(call->since, GL_STREAM_PAUSE);
            if (gl_is_between_rosters(call) && due <= s->now) {
                gl_send_elsewhere(call);
                gl_again(c);
            } else if (call->method != NULL && !gl_is_unary(call)) {
                gl_first(&s->next_pause, due > s->now ? due : gl_after(s->now, GL_STREAM_PAUSE));
            }
        }
}

/* Cuts off what has not ended by itself. */
static void gl_cut_off(gl_server *s)
{
    if (s->next_pause <= s->now)
        gl_end_pauses(s);
    if (s->cut_off_at <= s->now) {
        s->cut_off_at = GL_NEVER;
        for (gl_connection *c = s->connections; c != NULL; c = c->next)
            for (gl_call *call = c->calls; call != NULL; call = call->next)
                if (call->method != NULL && call->method->lasting) {
                    gl_reset(call, NGHTTP2_CANCEL);
                    gl_again(c);
                }
    }
    if (s->stop_at <= s->now) {
        for (gl_connection *c = s->connections, *next; c != NULL; c = next) {
            next = c->next;
            if (c->closing == 0 && c->pending_bytes == 0 && !c->handshaking) {
                for (gl_call *call = c->calls; call != NULL; call = call->next)
                    if (gl_is_between_rosters(call))
                        gl_send_elsewhere(call);
                    else
                        gl_reset(call, NGHTTP2_CANCEL);
                gl_expel(c, NGHTTP2_NO_ERROR, "");
                gl_flush(c);
            }
            gl_close(c);
        }
    }
}

/* --- the loop */

static int gl_timeout(const gl_server *s)
{
    uint64_t due = s->next_look;

    gl_first(&due, s->next_deadline);
    if (s->stopping) {
        gl_first(&due, s->cut_off_at);
        gl_first(&due, s->next_pause);
        if (s->connections != NULL)
            gl_first(&due, s->stop_at);
    }
    if (s->again != NULL)
        return 0;
    if (due == GL_NEVER)
        return -1;
    if (due <= s->now)
        return 0;
    due = (due - s->now + GL_MILLISECOND - 1) / GL_MILLISECOND;
    return due > 3600000 ? 3600000 : (int)due;
}

/* Waits for so many milliseconds at most, and does what there is to do then. Returns 0, or an
 * errno with which epoll failed. */
static int gl_turn(gl_server *s, int timeout)
{
    struct epoll_event events[GL_EVENTS];
    int n = epoll_wait(s->epoll, events, GL_EVENTS, timeout);
    gl_connection *again;

    if (n < 0 && errno != EINTR)
        return errno;
    s->now = gl_clock();
    /* Before the calls that came meanwhile: who asked for it may have made one of them. */
    gl_obey(s);
    for (int i = 0; i < n; i++) {
        uint64_t which = events[i].data.u64;
        if (which == GL_WAKE) {
            uint64_t count;
            ssize_t got = read(s->wake, &count, sizeof count);
            (void)got;
            gl_obey(s);
        } else if (which < GL_LISTENERS) {
            if (which < s->listener_count)
                gl_accept(s, s->listeners[which]);
        } else {
            gl_connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                gl_flush(c);
            gl_read(c);
        }
    }
    if (s->next_deadline <= s->now)
        gl_expire(s);
    if (s->next_look <= s->now)
        gl_look(s);
    again = s->again;
    s->again = NULL;
    while (again != NULL) {
        gl_connection *c = again;
        again = c->again_next;
        c->in_again = 0;
        if (c->closed)
            continue;
        gl_flush(c);
        if (c->tls != NULL && !c->closed && c->pending_bytes == 0)
            gl_read(c);
    }
    if (s->stopping)
        gl_cut_off(s);
    /* Nothing that is still listed may be freed. */
    for (gl_connection **at = &s->again; *at != NULL;)
        if ((*at)->closed)
            *at = (*at)->again_next;
        else
            at = &(*at)->again_next;
    gl_free_gone(s);
    return 0;
}

/* Runs until a stop is over. Returns 0, or an errno with which epoll failed. */
static inline int gl_run(gl_server *s)
{
    int error = 0;

    s->now = gl_clock();
    while (error == 0 && (!s->stopping || s->connections != NULL || s->out > 0))
        error = gl_turn(s, gl_timeout(s));
    return error;
}

/* Works on large rosters until there will be none; for threads. */
static inline void gl_work_on_rosters(gl_server *s)
{
    gl_job *job;

    while ((job = gl_jobs_get(&s->rosters)) != NULL) {
        if (gl_work(s, job)) {
            gl_jobs_put(&s->done, job);
            gl_wake(s);
        } else {
            gl_jobs_put(&s->rare, job);
        }
    }
}

/* --- making and freeing */

static void gl_server_free(gl_server *s)
{
    while (s->connections != NULL)
        gl_close(s->connections);
    gl_free_gone(s);
    gl_close_listeners(s);
    while (s->spare != NULL) {
        gl_call *call = s->spare;
        s->spare = call->next;
        free(call);
    }
    gl_blocks_clear(&s->blocks);
    if (s->epoll >= 0)
        close(s->epoll);
    if (s->wake >= 0)
        close(s->wake);
    if (s->callbacks != NULL)
        nghttp2_session_callbacks_del(s->callbacks);
    if (s->option != NULL)
        nghttp2_option_del(s->option);
    if (s->context != NULL)
        gl_tls_context_free(s->context);
    if (s->next_context != NULL)
        gl_tls_context_free(s->next_context);
    for (size_t i = 0; i < s->method_count; i++)
        free(s->methods[i].path);
    free(s->methods);
    free(s->private_meter);
    if (s->next_private >= 0)
        close(s->next_private);
    for (unsigned m = 0; m < GL_ALLOW_METHODS; m++) {
        for (size_t i = 0; i < s->allow.count[m]; i++)
            free(s->allow.names[m][i]);
        free(s->allow.names[m]);
    }
    free(s->input);
    free(s->output.copied);
    gl_jobs_destroy(&s->rosters);
    gl_jobs_destroy(&s->rare);
    gl_jobs_destroy(&s->done);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Makes a server without listeners, methods or a snapshot; NULL: the system has no more of
 * something, errno says of what. */
static gl_server *gl_server_new(void)
{
    gl_server *s = calloc(1, sizeof *s);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = GL_WAKE};

    if (s == NULL)
        return NULL;
    gl_jobs_open(&s->rosters);
    gl_jobs_open(&s->rare);
    gl_jobs_open(&s->done);
    pthread_mutex_init(&s->lock, NULL);
    s->next_deadline = s->next_look = s->stop_at = s->cut_off_at = s->next_pause = GL_NEVER;
    s->now = gl_clock();
    s->random = s->now | 1;
    s->serving = s->next_serving = 1;
    s->next_private = -1;
    s->private_method = (gl_method){.path = (char *)(uintptr_t)"", .kind = GL_LOOKUP, .shed = "", .refused = ""};
    s->private_meter = calloc(1, sizeof *s->private_meter);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->input = malloc(GL_LARGE_TURN);
    s->output.copied = malloc(2 * GL_OUTPUT);
    s->output.number = 1; /* 0: never */
    if (s->epoll < 0 || s->wake < 0 || s->input == NULL || s->output.copied == NULL ||
        s->private_meter == NULL ||
        !gl_http2_open(s) || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->wake, &event) != 0) {
        int error = errno;
        gl_server_free(s);
        errno = error ? error : ENOMEM;
        return NULL;
    }
    return s;
}

/* Adds a socket that listens, which is the server's from now on; 0: errno says why not. */
static inline int gl_listen(gl_server *s, int descriptor)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = s->listener_count};

    if (s->listener_count >= GL_LISTENERS) {
        errno = EMFILE;
        return 0;
    }
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, descriptor, &event) != 0)
        return 0;
    s->listeners[s->listener_count++] = descriptor;
    return 1;
}

#endif
