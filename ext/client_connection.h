/* A connection of a gRPC client: HTTP/2 by libnghttp2 over a socket, perhaps with TLS, and the
 * unary calls that are under way on it.
 *
 * Plain C11. Nothing here waits, locks or makes connections: whoever uses a connection polls its
 * socket, calls glc_progress, and keeps two threads from doing so at once. client_calls.h lends it
 * to threads that wait, bench/kernels/sender.c makes load with it.
 */
#ifndef GEOLOOKUP_CLIENT_CONNECTION_H
#define GEOLOOKUP_CLIENT_CONNECTION_H

#include "grpc_frame.h"
#include "http2_limits.h"
#include "http2_memory.h"
#include "tls_client.h"

#include <poll.h>

/* The bounds of a client: all that a server can make grow. */
enum {
    /* Bytes of an answer, and of all answers, that a server may send before they are read. */
    GLC_STREAM_WINDOW = 4 * 1024 * 1024,
    GLC_CONNECTION_WINDOW = 16 * 1024 * 1024,
    /* Bytes of the largest frame that comes, and that are read at once. */
    GLC_FRAME_IN = 65536,
    /* Bytes that libnghttp2 writes before they are sent. The rest waits in it. */
    GLC_OUTPUT = 65536,
    /* Bytes of an answer that are kept in the call itself: a lookup's. */
    GLC_SMALL_ANSWER = 256,
    /* Header bytes (name, value and 32 each) of one answer. gRPC's own default is 16 kB. */
    GLC_METADATA = 65536,
    /* Bytes of a status's text that are kept. */
    GLC_TEXT = 2048,
};

/* Status codes that the client itself ends calls with, beside those of grpc_frame.h. */
enum { GLC_UNKNOWN = 2, GLC_UNAUTHENTICATED = 16, GLC_NO_STATUS = -1 };

#define GLC_TOO_LARGE "answer larger than max"
#define GLC_CLOSED "Socket closed"

typedef struct glc_connection glc_connection;

/* A call. Zeroed, then given to glc_begin; its memory is its maker's, and must last until it is
 * over. The fields up to `answer_limit` are set before. */
typedef struct glc_call {
    struct glc_call *previous, *next; /* in its connection */
    const uint8_t *path;
    size_t path_bytes;
    const uint8_t *body; /* without a prefix; not copied */
    size_t body_bytes;
    uint64_t timeout; /* nanoseconds, for the server; 0: none */
    size_t answer_limit;
    int discard; /* the answer's bytes are not kept */
    void *owner;
    void (*on_over)(struct glc_call *call, glc_connection *connection);

    glc_connection *connection; /* NULL: it is over, or was not begun */
    int32_t stream;
    uint8_t prefix[GL_PREFIX];
    size_t sent; /* of prefix and body */
    uint8_t head[GL_PREFIX];
    size_t head_bytes;
    uint8_t *answer; /* `small`, or memory of its own */
    size_t have, size, room;
    int messages;
    int http_status;
    int grpc; /* whether the content type is gRPC's */
    int ended;
    size_t metadata_bytes;
    int64_t hint; /* milliseconds of grpc-retry-pushback-ms; below 0: never */
    int hinted;
    int said; /* the code that the server sent; GLC_NO_STATUS: none */
    /* What came of it. */
    int over;
    int code;
    int unprocessed; /* the server has not seen it: it may be made again */
    char *text; /* NULL: there is none, or no memory */
    size_t text_bytes;
    uint8_t small[GLC_SMALL_ANSWER];
} glc_call;

struct glc_connection {
    int descriptor;
    gl_tls *tls;
    nghttp2_session *session;
    gl_blocks blocks;
    glc_call *first, **last;
    size_t calls;
    uint8_t handshaking;
    uint8_t settled;  /* the server's settings came: it speaks HTTP/2 */
    uint8_t draining; /* takes no more calls */
    uint8_t closed;
    uint8_t wants_write;      /* for what is to be sent */
    uint8_t read_wants_write; /* TLS has something to say before it can read on */
    uint8_t unread; /* TLS may have bytes that poll does not know of */
    uint8_t probing;
    const char *problem; /* why it is closed */
    uint64_t now, heard, probed_at;
    uint64_t keepalive, keepalive_answer; /* nanoseconds; 0: no probes */
    size_t received; /* before it was settled */
    uint8_t *output; /* that libnghttp2 wrote, and the socket did not take */
    size_t output_at, output_bytes;
    uint8_t *input;
    char *authority, *agent;
    size_t authority_bytes, agent_bytes;
    glc_call *over; /* for glc_keep_over */
    char tls_problem[GLC_TLS_PROBLEM];
};

/* What has become of a connection is also asked without its lock. */
static inline void glc_set(uint8_t *flag)
{
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

static inline int glc_is(const uint8_t *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static const uint8_t glc_probe[8] = {'g', 'l', 'c', 'l', 'i', 'e', 'n', 't'};

static inline uint64_t glc_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- how calls end */

static inline void glc_set_text(glc_call *call, const char *text, size_t n)
{
    n = n < GLC_TEXT ? n : GLC_TEXT;
    free(call->text);
    call->text = malloc(n + 1);
    call->text_bytes = call->text == NULL ? 0 : n;
    if (call->text != NULL)
        memcpy(call->text, text, n);
}

/* Takes a call from its connection: nothing of it is touched by the connection any more. */
static inline void glc_detach(glc_call *call)
{
    glc_connection *c = call->connection;

    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        c->first = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
    else
        c->last = call->previous != NULL ? &call->previous->next : &c->first;
    c->calls--;
    call->connection = NULL;
    call->over = 1;
    if (c->session != NULL)
        nghttp2_session_set_stream_user_data(c->session, call->stream, NULL);
    if (call->on_over != NULL)
        call->on_over(call, c);
}

static inline void glc_end(glc_call *call, int code, const char *text)
{
    if (call->connection == NULL)
        return;
    call->code = code;
    if (text != NULL)
        glc_set_text(call, text, strlen(text));
    glc_detach(call);
}

/* Ends a call that the server may still work on. */
static inline void glc_cancel(glc_call *call, int code, const char *text)
{
    glc_connection *c = call->connection;
    int32_t stream = call->stream;

    if (c == NULL)
        return;
    glc_end(call, code, text);
    if (c->session != NULL)
        nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
}

/* gRPC's code for an answer that is not gRPC's, by HTTP's status. */
static inline int glc_code_of_http(int status)
{
    switch (status) {
    case 400:
        return GL_INTERNAL;
    case 401:
        return GLC_UNAUTHENTICATED;
    case 403:
        return GL_PERMISSION_DENIED;
    case 404:
        return GL_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GL_UNAVAILABLE;
    default:
        return GLC_UNKNOWN;
    }
}

/* The server has said all. */
static inline void glc_answered(glc_call *call)
{
    if (call->said != GLC_NO_STATUS) {
        call->code = call->said;
        if (call->code == GL_OK && (call->messages != 1 || call->have != call->size))
            glc_end(call, GL_INTERNAL, "no whole answer");
        else
            glc_detach(call);
    } else if (call->http_status != 200 || !call->grpc) {
        glc_end(call, glc_code_of_http(call->http_status), "the answer is not gRPC's");
    } else {
        glc_end(call, GLC_UNKNOWN, "no status");
    }
}

/* The stream was reset, or refused. */
static inline void glc_lost(glc_call *call, uint32_t error)
{
    if (call->said != GLC_NO_STATUS) {
        glc_answered(call);
        return;
    }
    switch (error) {
    case NGHTTP2_REFUSED_STREAM:
        call->unprocessed = 1;
        glc_end(call, GL_UNAVAILABLE, "refused stream");
        break;
    case NGHTTP2_CANCEL:
        glc_end(call, GL_CANCELLED, "reset by the service");
        break;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        glc_end(call, GL_RESOURCE_EXHAUSTED, "too much is asked");
        break;
    case NGHTTP2_INADEQUATE_SECURITY:
        glc_end(call, GL_PERMISSION_DENIED, "inadequate security");
        break;
    default:
        glc_end(call, GL_INTERNAL, "stream reset");
    }
}

static inline void glc_end_all(glc_connection *c, const char *problem)
{
    nghttp2_session *session = c->session;

    c->problem = problem;
    glc_set(&c->draining);
    glc_set(&c->closed);
    c->session = NULL;
    while (c->first != NULL) {
        if (c->first->said != GLC_NO_STATUS && c->first->ended)
            glc_answered(c->first);
        else
            glc_end(c->first, GL_UNAVAILABLE, problem);
    }
    nghttp2_session_del(session);
}

/* Ends all calls, and with them what the connection is for. Its socket is kept until glc_free:
 * a thread may be polling it. */
static inline void glc_close(glc_connection *c, const char *problem)
{
    if (c->closed)
        return;
    glc_end_all(c, problem);
    shutdown(c->descriptor, SHUT_RDWR);
}

/* --- what libnghttp2 calls */

static inline int glc_hex(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Reads a grpc-message; what is no %XX stays as it is. */
static inline void glc_read_text(glc_call *call, const uint8_t *value, size_t n)
{
    char text[GLC_TEXT];
    size_t at = 0;

    for (size_t i = 0; i < n && at < GLC_TEXT; i++) {
        if (value[i] == '%' && i + 2 < n && glc_hex(value[i + 1]) >= 0 &&
            glc_hex(value[i + 2]) >= 0) {
            text[at++] = (char)(glc_hex(value[i + 1]) << 4 | glc_hex(value[i + 2]));
            i += 2;
        } else {
            text[at++] = (char)value[i];
        }
    }
    glc_set_text(call, text, at);
}

/* Reads up to nine digits, after a minus sign if there is one; 0: it is no such number. */
static inline int glc_read_number(const uint8_t *at, size_t n, int64_t *number)
{
    int negative = n > 0 && *at == '-';
    int64_t value = 0;

    at += negative;
    n -= (size_t)negative;
    if (n == 0 || n > 9)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (at[i] < '0' || at[i] > '9')
            return 0;
        value = 10 * value + (at[i] - '0');
    }
    *number = negative ? -value : value;
    return 1;
}

#define GLC_IS(TEXT) (name_bytes == sizeof(TEXT) - 1 && memcmp(name, TEXT, sizeof(TEXT) - 1) == 0)

static inline int glc_on_header(nghttp2_session *session, const nghttp2_frame *frame,
                                const uint8_t *name, size_t name_bytes, const uint8_t *value,
                                size_t value_bytes, uint8_t flags, void *data)
{
    glc_call *call;
    int64_t number;

    (void)flags;
    (void)data;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    call->metadata_bytes += name_bytes + value_bytes + 32;
    if (call->metadata_bytes > GLC_METADATA) {
        glc_cancel(call, GL_RESOURCE_EXHAUSTED, "too much metadata");
        return 0;
    }
    if (GLC_IS(":status")) {
        call->http_status = glc_read_number(value, value_bytes, &number) ? (int)number : 0;
    } else if (GLC_IS("content-type")) {
        call->grpc = gl_read_content_type(value, value_bytes) == GL_GRPC_PROTO;
    } else if (GLC_IS("grpc-status")) {
        call->said = glc_read_number(value, value_bytes, &number) && number >= 0 && number <= 16
                         ? (int)number
                         : GLC_UNKNOWN;
    } else if (GLC_IS("grpc-message")) {
        glc_read_text(call, value, value_bytes);
    } else if (GLC_IS("grpc-retry-pushback-ms")) {
        call->hinted = 1; /* what is no number says not to come again, as gRPC reads it */
        call->hint = glc_read_number(value, value_bytes, &number) ? number : -1;
    }
    return 0;
}

/* Takes bytes of an answer's message; 0: the call has ended for them. */
static inline int glc_feed(glc_call *call, const uint8_t *bytes, size_t n)
{
    while (n > 0) {
        size_t part;
        if (call->head_bytes < GL_PREFIX) {
            if (call->messages > 0) {
                glc_cancel(call, GL_INTERNAL, "several answers");
                return 0;
            }
            part = GL_PREFIX - call->head_bytes < n ? GL_PREFIX - call->head_bytes : n;
            memcpy(call->head + call->head_bytes, bytes, part);
            call->head_bytes += part;
            bytes += part;
            n -= part;
            if (call->head_bytes < GL_PREFIX)
                break;
            call->size = gl_read_be32(call->head + 1);
            if (call->head[0] != 0) {
                glc_cancel(call, GL_INTERNAL, "a compressed answer");
                return 0;
            }
            if (call->size > call->answer_limit) {
                glc_cancel(call, GL_RESOURCE_EXHAUSTED, GLC_TOO_LARGE);
                return 0;
            }
            call->messages = 1;
            call->answer = call->small;
            call->room = GLC_SMALL_ANSWER;
            continue;
        }
        if (n > call->size - call->have) {
            glc_cancel(call, GL_INTERNAL, "several answers");
            return 0;
        }
        if (!call->discard) {
            if (n > call->room - call->have) {
                /* Not all at once: of what is announced little may come. */
                size_t room = 4 * call->room + n < call->size ? 4 * call->room + n : call->size;
                uint8_t *grown = realloc(call->answer == call->small ? NULL : call->answer, room);
                if (grown == NULL) {
                    glc_cancel(call, GL_RESOURCE_EXHAUSTED, "no memory");
                    return 0;
                }
                if (call->answer == call->small)
                    memcpy(grown, call->small, call->have);
                call->answer = grown;
                call->room = room;
            }
            memcpy(call->answer + call->have, bytes, n);
        }
        call->have += n;
        n = 0;
    }
    return 1;
}

static inline int glc_on_data(nghttp2_session *session, uint8_t flags, int32_t stream,
                              const uint8_t *bytes, size_t n, void *data)
{
    glc_call *call = nghttp2_session_get_stream_user_data(session, stream);

    (void)flags;
    (void)data;
    if (call != NULL && call->grpc && call->http_status == 200)
        glc_feed(call, bytes, n);
    return 0;
}

static inline int glc_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data)
{
    glc_connection *c = data;
    glc_call *call;

    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
            break;
        call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (call == NULL)
            break;
        call->ended = 1;
        if (call->sent < GL_PREFIX + call->body_bytes) /* it need not hear the rest */
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                      NGHTTP2_CANCEL);
        glc_answered(call);
        break;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            glc_set(&c->settled);
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            c->probing = 0;
        break;
    case NGHTTP2_GOAWAY: /* libnghttp2 ends the streams above the last that it names */
        glc_set(&c->draining);
        break;
    default:
        break;
    }
    return 0;
}

static inline int glc_on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error,
                                      void *data)
{
    glc_call *call = nghttp2_session_get_stream_user_data(session, stream);

    (void)data;
    if (call != NULL)
        glc_lost(call, error);
    return 0;
}

static inline int glc_on_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error,
                                  void *data)
{
    glc_connection *c = data;

    (void)session;
    (void)error;
    if (frame->hd.type == NGHTTP2_HEADERS)
        for (glc_call *call = c->first; call != NULL; call = call->next)
            if (call->stream == frame->hd.stream_id) {
                glc_lost(call, NGHTTP2_REFUSED_STREAM);
                break;
            }
    return 0;
}

static inline ssize_t glc_read_body(nghttp2_session *session, int32_t stream, uint8_t *out,
                                    size_t most, uint32_t *flags, nghttp2_data_source *source,
                                    void *data)
{
    glc_call *call = nghttp2_session_get_stream_user_data(session, stream);
    size_t all, n = 0;

    (void)source;
    (void)data;
    if (call == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* it is over; the stream is reset */
    all = GL_PREFIX + call->body_bytes;
    while (call->sent < GL_PREFIX && n < most)
        out[n++] = call->prefix[call->sent++];
    if (n < most && call->sent < all) {
        size_t part = all - call->sent < most - n ? all - call->sent : most - n;
        memcpy(out + n, call->body + (call->sent - GL_PREFIX), part);
        call->sent += part;
        n += part;
    }
    if (call->sent == all)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* An `on_over` that lists calls by their `next`, for their maker to take from `over`. */
static inline void glc_keep_over(glc_call *call, glc_connection *c)
{
    call->next = c->over;
    c->over = call;
}

/* --- making a connection of a socket */

static inline void glc_free(glc_connection *c)
{
    if (c == NULL)
        return;
    /* No shutdown, which would end the connection of a process that this one was forked from. */
    if (c->session != NULL)
        glc_end_all(c, GLC_CLOSED);
    gl_tls_free(c->tls);
    if (c->descriptor >= 0)
        close(c->descriptor);
    gl_blocks_clear(&c->blocks);
    free(c->output);
    free(c->input);
    free(c->authority);
    free(c->agent);
    free(c);
}

static inline int glc_new_session(glc_connection *c)
{
    nghttp2_settings_entry ours[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, GLC_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, GLC_FRAME_IN},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GLC_METADATA},
    };
    nghttp2_mem memory = gl_blocks_functions(&c->blocks);
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int good = nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0;

    if (good) {
        nghttp2_session_callbacks_set_on_header_callback(callbacks, glc_on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, glc_on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, glc_on_frame);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, glc_on_stream_close);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, glc_on_not_sent);
        nghttp2_option_set_no_closed_streams(option, 1);
        nghttp2_option_set_max_outbound_ack(option, GL_ACKNOWLEDGEMENTS);
        nghttp2_option_set_max_settings(option, GL_SETTINGS);
        /* As many as the server allows once it has said so; calls that come before wait. */
        nghttp2_option_set_peer_max_concurrent_streams(option, 100);
        good = nghttp2_session_client_new3(&c->session, callbacks, c, option, &memory) == 0 &&
               nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, ours,
                                       sizeof ours / sizeof *ours) == 0 &&
               nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                     GLC_CONNECTION_WINDOW) == 0;
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return good;
}

/* Makes a connection of a socket that is connected (or about to be) and does not block; the
 * socket is the connection's from now on. NULL: there is no memory, and it is closed. `context`
 * is NULL where there is no TLS; then `name`, which the certificate must have, is not used. */
static inline glc_connection *glc_new(int descriptor, gl_tls_context *context, const char *name,
                                      const char *authority, const char *agent)
{
    glc_connection *c = calloc(1, sizeof *c);

    if (c == NULL) {
        close(descriptor);
        return NULL;
    }
    c->descriptor = descriptor;
    c->last = &c->first;
    c->now = c->heard = glc_clock();
    c->authority = strdup(authority);
    c->authority_bytes = strlen(authority);
    c->agent = strdup(agent);
    c->agent_bytes = strlen(agent);
    c->input = malloc(GLC_FRAME_IN);
    /* One more than a whole frame, so that a frame always fits. */
    c->output = malloc(2 * GLC_OUTPUT);
    if (context != NULL) {
        c->handshaking = 1;
        c->tls = glc_tls_new(context, descriptor, name);
    }
    if (c->authority == NULL || c->agent == NULL || c->input == NULL || c->output == NULL ||
        (context != NULL && c->tls == NULL) || !glc_new_session(c)) {
        glc_free(c);
        return NULL;
    }
    return c;
}

/* --- sending and receiving */

/* Writes what was not taken before; 0: the socket takes no more, or the connection is closed. */
static inline int glc_write(glc_connection *c)
{
    while (c->output_bytes > 0) {
        ssize_t n = c->tls == NULL ? send(c->descriptor, c->output + c->output_at,
                                          c->output_bytes, MSG_NOSIGNAL)
                                   : gl_tls_write(c->tls, c->output + c->output_at, c->output_bytes);
        if (n > 0) {
            c->output_at += (size_t)n;
            c->output_bytes -= (size_t)n;
            continue;
        }
        if (c->tls == NULL ? errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR
                           : n == GL_TLS_WANTS_WRITE || n == GL_TLS_AGAIN) {
            c->wants_write = c->tls == NULL || n == GL_TLS_WANTS_WRITE;
            return 0;
        }
        /* What the server sent before it closed may say more: reading tells. */
        c->wants_write = 0;
        c->output_bytes = 0;
        return 0;
    }
    c->output_at = 0;
    return 1;
}

/* Sends what there is to send, as far as the socket takes it. */
static inline void glc_flush(glc_connection *c)
{
    if (c->closed || c->handshaking)
        return;
    c->wants_write = 0;
    for (;;) {
        if (!glc_write(c))
            return;
        while (c->output_bytes < GLC_OUTPUT) {
            const uint8_t *data;
            ssize_t n = nghttp2_session_mem_send(c->session, &data);
            if (n == 0)
                break;
            if (n < 0 || (size_t)n > GLC_OUTPUT) {
                glc_close(c, "no memory");
                return;
            }
            memcpy(c->output + c->output_bytes, data, (size_t)n);
            c->output_bytes += (size_t)n;
        }
        if (c->output_bytes == 0)
            break;
    }
    if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
        glc_close(c, c->settled ? GLC_CLOSED : "Failed parsing HTTP/2");
}

/* Reads what has come, at most about `most` bytes. */
static inline void glc_receive(glc_connection *c, size_t most)
{
    size_t total = 0;

    c->unread = c->tls != NULL; /* until it says that there is no more */
    c->read_wants_write = 0;
    while (!c->closed && total < most) {
        ssize_t n = c->tls == NULL ? recv(c->descriptor, c->input, GLC_FRAME_IN, 0)
                                   : gl_tls_read(c->tls, c->input, GLC_FRAME_IN);
        if (n <= 0) {
            if (c->tls == NULL ? n < 0 && (errno == EAGAIN || errno == EINTR)
                               : n == GL_TLS_AGAIN || n == GL_TLS_WANTS_WRITE) {
                c->unread = 0;
                c->read_wants_write = c->tls != NULL && n == GL_TLS_WANTS_WRITE;
                return;
            }
            glc_close(c, c->settled        ? GLC_CLOSED
                         : c->received > 0 ? "Failed parsing HTTP/2"
                                           : "failed to connect: " GLC_CLOSED);
            return;
        }
        c->heard = c->now;
        c->probing = 0;
        if (!c->settled) {
            if (c->received == 0 && n >= 6 && memcmp(c->input, "HTTP/1", 6) == 0) {
                glc_close(c, "http1.x server");
                return;
            }
            c->received += (size_t)n;
        }
        if (nghttp2_session_mem_recv(c->session, c->input, (size_t)n) != n) {
            glc_close(c, c->settled ? "HTTP/2 broken by the service" : "Failed parsing HTTP/2");
            return;
        }
        total += (size_t)n;
        if (c->tls == NULL && n < GLC_FRAME_IN)
            return;
    }
}

/* Does what can be done without waiting: goes on with the handshake, reads, writes, probes. Call
 * it when the socket is ready for what glc_events says, and now and then. */
static inline void glc_progress(glc_connection *c)
{
    if (c->closed)
        return;
    c->now = glc_clock();
    if (c->handshaking) {
        int result = glc_tls_handshake(c->tls, &c->problem, c->tls_problem);
        if (result == GL_TLS_AGAIN || result == GL_TLS_WANTS_WRITE) {
            c->wants_write = result == GL_TLS_WANTS_WRITE;
            return;
        }
        if (result != 0) {
            glc_close(c, c->problem);
            return;
        }
        c->handshaking = 0;
        c->heard = c->now;
    }
    glc_receive(c, 16 * GLC_FRAME_IN);
    if (c->closed)
        return;
    if (c->keepalive > 0 && c->settled) {
        if (!c->probing && c->now - c->heard >= c->keepalive) {
            nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, glc_probe);
            c->probing = 1;
            c->probed_at = c->now;
        } else if (c->probing && c->now - c->probed_at >= c->keepalive_answer) {
            glc_close(c, "keepalive: no answer");
            return;
        }
    }
    glc_flush(c);
}

/* What to poll the socket for. */
static inline short glc_events(const glc_connection *c)
{
    return c->wants_write || c->read_wants_write ? POLLIN | POLLOUT : POLLIN;
}

/* Whether bytes may have been read that poll does not know of any more. OpenSSL's own word does
 * not do: a part of a record is pending, too, and nothing can be made of it until the rest comes. */
static inline int glc_has_more(const glc_connection *c)
{
    return !c->closed && c->unread;
}

/* Why it has ended; NULL: it has not. */
static inline const char *glc_problem(const glc_connection *c)
{
    return glc_is(&c->closed) ? c->problem : NULL;
}

/* Whether calls can be begun. */
static inline int glc_usable(const glc_connection *c)
{
    return glc_is(&c->settled) && !glc_is(&c->draining);
}

/* --- beginning a call */

/* Writes a grpc-timeout; returns how many bytes it takes. */
static inline size_t glc_write_timeout(uint64_t nanoseconds, char *out)
{
    static const struct {
        uint64_t unit;
        char name;
    } units[] = {{1000, 'u'}, {1000000, 'm'}, {UINT64_C(1000000000), 'S'}};
    uint64_t value = 0;
    char digits[20];
    size_t n = 0, unit = 0;

    for (; unit < 3; unit++) {
        value = (nanoseconds + units[unit].unit - 1) / units[unit].unit;
        if (value < 10000000)
            break;
    }
    if (unit == 3) {
        unit = 2;
        value = 99999999;
    }
    do
        digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    out[n] = units[unit].name;
    return n + 1;
}

#define GLC_FIELD(NAME, VALUE, BYTES, FLAGS)                                                       \
    {(uint8_t *)(uintptr_t)(NAME), (uint8_t *)(uintptr_t)(VALUE), sizeof(NAME) - 1, (BYTES),       \
     NGHTTP2_NV_FLAG_NO_COPY_NAME | (FLAGS)}
#define GLC_FIXED(NAME, VALUE)                                                                     \
    GLC_FIELD(NAME, VALUE, sizeof(VALUE) - 1, NGHTTP2_NV_FLAG_NO_COPY_VALUE)

/* Begins a call; glc_flush sends it. 0: the connection takes none, and nothing has happened. */
static inline int glc_begin(glc_connection *c, glc_call *call)
{
    char timeout[24];
    nghttp2_nv fields[] = {
        GLC_FIXED(":method", "POST"),
        {(uint8_t *)(uintptr_t)":scheme", (uint8_t *)(uintptr_t)(c->tls ? "https" : "http"), 7,
         c->tls ? 5 : 4, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE},
        GLC_FIELD(":path", call->path, call->path_bytes, 0),
        GLC_FIELD(":authority", c->authority, c->authority_bytes, NGHTTP2_NV_FLAG_NO_COPY_VALUE),
        GLC_FIXED("te", "trailers"),
        GLC_FIXED("content-type", "application/grpc"),
        GLC_FIELD("user-agent", c->agent, c->agent_bytes, NGHTTP2_NV_FLAG_NO_COPY_VALUE),
        /* Another one each time: the table of headers is for those that come again. */
        GLC_FIELD("grpc-timeout", timeout, 0, NGHTTP2_NV_FLAG_NO_INDEX),
    };
    size_t count = sizeof fields / sizeof *fields;
    nghttp2_data_provider provider = {.read_callback = glc_read_body};
    int32_t stream;

    if (!glc_usable(c) || call->body_bytes > 0xFFFFFFFFu)
        return 0;
    if (call->timeout > 0)
        fields[count - 1].valuelen = glc_write_timeout(call->timeout, timeout);
    else
        count--;
    gl_put_prefix(call->prefix, call->body_bytes);
    stream = nghttp2_submit_request(c->session, NULL, fields, count, &provider, call);
    if (stream < 0) { /* no number for a stream is left, say */
        glc_set(&c->draining);
        return 0;
    }
    call->stream = stream;
    call->said = GLC_NO_STATUS;
    call->next = NULL;
    call->previous = c->first == NULL
                         ? NULL
                         : (glc_call *)((char *)c->last - offsetof(glc_call, next));
    *c->last = call;
    c->last = &call->next;
    call->connection = c;
    c->calls++;
    return 1;
}

static inline void glc_call_free(glc_call *call)
{
    if (call->answer != call->small)
        free(call->answer);
    call->answer = NULL;
    free(call->text);
    call->text = NULL;
}

#endif
