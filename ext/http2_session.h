/* HTTP/2 by libnghttp2: what its callbacks do, and how a session is made.
 *
 * Plain C11, for the calls that libnghttp2 1.52 has. Its limits and ours are in http2_limits.h;
 * what it does not bound is counted here (gl_spend).
 */
#ifndef GEOLOOKUP_HTTP2_SESSION_H
#define GEOLOOKUP_HTTP2_SESSION_H

#include "calls.h"

/* Later than 1.52, and in Debian's 1.52 as well: looked for when the module is loaded. */
extern void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *, uint64_t, uint64_t)
    __attribute__((weak));
extern void nghttp2_option_set_max_continuations(nghttp2_option *, size_t)
    __attribute__((weak));

static const uint8_t gl_probe[8] = "glprobe";
static const uint8_t gl_retirement[8] = "glretir";

static inline void gl_soon(gl_server *s, uint64_t due)
{
    if (due < s->next_look)
        s->next_look = due;
}

/* Has a connection closed when what waits to be sent was sent, or soon. */
static inline void gl_give_up(gl_connection *c)
{
    c->closing = 1;
    c->close_by = gl_after(c->server->now, GL_LINGER);
    gl_soon(c->server, c->close_by);
}

/* Closes a connection whose client does what none should. */
static inline void gl_expel(gl_connection *c, uint32_t error, const char *text)
{
    if (c->closing)
        return;
    gl_give_up(c);
    nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(c->session), error,
                          (const uint8_t *)text, strlen(text));
}

/* Notes that a connection is to make its first call. */
static inline void gl_begin_uncalled(gl_connection *c)
{
    gl_server *s = c->server;

    c->longer = s->uncalled_last;
    if (s->uncalled_last != NULL)
        s->uncalled_last->shorter = c;
    else
        s->uncalled_longest = c;
    s->uncalled_last = c;
}

/* Notes that it has, or ends. */
static inline void gl_end_uncalled(gl_connection *c)
{
    gl_server *s = c->server;

    if (c->longer == NULL && s->uncalled_longest != c)
        return;
    if (c->longer != NULL)
        c->longer->shorter = c->shorter;
    else
        s->uncalled_longest = c->shorter;
    if (c->shorter != NULL)
        c->shorter->longer = c->longer;
    else
        s->uncalled_last = c->longer;
    c->longer = c->shorter = NULL;
}

/* Counts a frame that carries no work. */
static inline void gl_spend(gl_connection *c)
{
    gl_server *s = c->server;

    if (--c->credit >= 0)
        return;
    c->credit += (int64_t)((s->now - c->credited) * GL_IDLE_FRAMES_A_SECOND / GL_SECOND);
    c->credited = s->now;
    if (c->credit > GL_IDLE_FRAMES)
        c->credit = GL_IDLE_FRAMES;
    if (c->credit < 0)
        gl_expel(c, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_frames");
}

/* Has a connection end: its client hears of it, and may begin calls until it has. */
static inline void gl_retire(gl_connection *c)
{
    gl_server *s = c->server;

    if (c->retiring || c->closing || c->session == NULL)
        return;
    c->retiring = 1;
    c->retire_by = gl_after(s->now, GL_RETIREMENT);
    nghttp2_submit_shutdown_notice(c->session);
    nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, gl_retirement);
    gl_soon(s, c->retire_by);
}

/* Takes no more calls from a connection. */
static inline void gl_retired(gl_connection *c)
{
    if (c->retiring != 1 || c->closing)
        return;
    c->retiring = 2;
    nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(c->session),
                          NGHTTP2_NO_ERROR, NULL, 0);
}

/* As gRPC's own servers: a client that pings while nothing is sent to it must do so seldom. */
static inline void gl_pinged(gl_connection *c)
{
    gl_server *s = c->server;

    if (c->pinged && s->now - c->pinged_at < GL_PING_INTERVAL * GL_SECOND &&
        ++c->strikes > GL_PING_STRIKES) {
        gl_expel(c, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings");
        return;
    }
    c->pinged = 1;
    c->pinged_at = s->now;
}

static inline void gl_look_at_frame(gl_connection *c, const uint8_t *head)
{
    int32_t stream = (int32_t)(gl_read_be32(head + 5) & INT32_MAX);
    int end = head[4] & NGHTTP2_FLAG_END_STREAM, finished = 0;

    c->frame_left = gl_read_be32(head) >> 8;
    if (head[3] == NGHTTP2_DATA) {
        if (c->frame_left < 64 && !end)
            gl_spend(c);
        for (unsigned i = 0; i < GL_FINISHED; i++) /* whole, so that it is a few vectors */
            finished |= c->finished[i] == stream;
        if (finished && stream != 0)
            gl_expel(c, NGHTTP2_STREAM_CLOSED, "data_after_end");
    }
    if (head[3] == NGHTTP2_RST_STREAM ||
        (end && (head[3] == NGHTTP2_DATA || head[3] == NGHTTP2_HEADERS)))
        c->finished[c->finished_next++ % GL_FINISHED] = stream;
}

/* Looks at the heads of frames before libnghttp2 does. DATA on a stream that is closed it ignores
 * without a word, unless it keeps each closed stream as long as the connection. */
static inline void gl_look_at_frames(gl_connection *c, const uint8_t *data, size_t size)
{
    size_t at = 0;

    while (at < size) {
        if (c->frame_left > 0) {
            uint32_t n = size - at < c->frame_left ? (uint32_t)(size - at) : c->frame_left;
            c->frame_left -= n;
            at += n;
        } else if (c->frame_head_bytes == 0 && size - at >= GL_FRAME_HEAD) {
            gl_look_at_frame(c, data + at);
            at += GL_FRAME_HEAD;
        } else {
            c->frame_head[c->frame_head_bytes++] = data[at++];
            if (c->frame_head_bytes == GL_FRAME_HEAD) {
                c->frame_head_bytes = 0;
                gl_look_at_frame(c, c->frame_head);
            }
        }
    }
}

static int gl_on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *frame, void *data)
{
    gl_connection *c = data;

    switch (frame->type) {
    case NGHTTP2_HEADERS:
        /* libnghttp2 keeps no stream that is closed, and would ignore it. */
        if (frame->stream_id <= c->last_stream &&
            nghttp2_session_find_stream(session, frame->stream_id) == NULL)
            gl_expel(c, NGHTTP2_PROTOCOL_ERROR, "stream_identifier");
        break;
    case NGHTTP2_DATA: /* counted in gl_look_at_frame */
        break;
    default:
        gl_spend(c);
    }
    return 0;
}

static int gl_on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *data)
{
    gl_connection *c = data;
    gl_call *call;

    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    if (c->closing)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (c->last_stream == 0)
        gl_end_uncalled(c);
    c->last_stream = frame->hd.stream_id;
    call = gl_call_new(c, frame->hd.stream_id);
    if (call == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* the stream is reset */
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
}

static inline const gl_method *gl_find_method(const gl_server *s, const uint8_t *path,
                                              size_t size)
{
    for (size_t i = 0; i < s->method_count; i++)
        if (s->methods[i].size == size && memcmp(s->methods[i].path, path, size) == 0)
            return &s->methods[i];
    return NULL;
}

/* Keeps a header field for Python: two sizes (4 bytes each, of this machine), then the bytes. */
static inline int gl_keep_field(gl_call *call, const uint8_t *name, size_t name_bytes,
                                const uint8_t *value, size_t value_bytes)
{
    uint32_t sizes[2] = {(uint32_t)name_bytes, (uint32_t)value_bytes};
    size_t more = sizeof sizes + name_bytes + value_bytes;

    if (call->metadata_kept + more > call->metadata_room) {
        size_t room = 2 * call->metadata_room + more;
        uint8_t *grown = realloc(call->metadata, room);
        if (grown == NULL)
            return 0;
        call->metadata = grown;
        call->metadata_room = room;
    }
    memcpy(call->metadata + call->metadata_kept, sizes, sizeof sizes);
    memcpy(call->metadata + call->metadata_kept + sizeof sizes, name, name_bytes);
    memcpy(call->metadata + call->metadata_kept + sizeof sizes + name_bytes, value, value_bytes);
    call->metadata_kept += more;
    return 1;
}

#define GL_IS(TEXT) (name_bytes == sizeof(TEXT) - 1 && memcmp(name, TEXT, sizeof(TEXT) - 1) == 0)

static int gl_on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                        size_t name_bytes, const uint8_t *value, size_t value_bytes,
                        uint8_t flags, void *data)
{
    gl_connection *c = data;
    gl_server *s = c->server;
    gl_call *call;

    (void)flags;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    call->metadata_bytes += name_bytes + value_bytes + 32;
    if (call->metadata_bytes > s->settings.metadata_bytes) {
        if (call->metadata_bytes / GL_METADATA_EXCESS > s->settings.metadata_bytes)
            gl_expel(c, NGHTTP2_ENHANCE_YOUR_CALM, "too_much_metadata");
        return c->closing ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
    }
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    if (GL_IS(":path"))
        call->method = c->private ? &s->private_method : gl_find_method(s, value, value_bytes);
    else if (GL_IS(":method"))
        call->post = value_bytes == 4 && memcmp(value, "POST", 4) == 0;
    else if (GL_IS("content-type"))
        call->grpc = (uint8_t)gl_read_content_type(value, value_bytes);
    else if (GL_IS("grpc-timeout"))
        call->deadline = gl_read_timeout(value, value_bytes);
    else if (GL_IS("grpc-encoding")) {
        if (value_bytes == 8 && memcmp(value, "identity", 8) == 0)
            call->encoding = 0;
        else
            call->encoding = value_bytes == 4 && memcmp(value, "gzip", 4) == 0 ? 1 : 2;
    } else if (s->settings.metadata && name[0] != ':' &&
               !gl_keep_field(call, name, name_bytes, value, value_bytes))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return 0;
}

static int gl_on_data(nghttp2_session *session, uint8_t flags, int32_t stream,
                      const uint8_t *bytes, size_t size, void *data)
{
    gl_connection *c = data;
    gl_call *call = nghttp2_session_get_stream_user_data(session, stream);
    size_t taken = size;

    if (call != NULL && !call->ending && !c->closing) {
        taken = 0;
        if (call->ahead_bytes == 0 && call->method != NULL)
            taken = gl_feed(call, bytes, size, flags & NGHTTP2_FLAG_END_STREAM);
        if (taken < size) {
            if (call->ending || call->method == NULL || gl_is_unary(call))
                taken = size; /* nobody wants it */
            else if (!gl_keep(call, bytes + taken, size - taken))
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    /* A message that fits the window needs no update of it, which would be a write of its own. */
    if (call != NULL && call->method != NULL && gl_is_unary(call) &&
        call->size <= GL_STREAM_WINDOW - GL_PREFIX)
        return nghttp2_session_consume_connection(session, taken);
    return nghttp2_session_consume(session, stream, taken);
}

static int gl_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data)
{
    gl_connection *c = data;
    gl_call *call;

    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (call == NULL || c->closing)
            break;
        if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            gl_admit(call);
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            call->ended = 1;
            if (call->ahead_bytes == 0)
                gl_all_read(call);
        }
        break;
    case NGHTTP2_SETTINGS:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            c->settled = 1;
        break;
    case NGHTTP2_PING:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            gl_pinged(c);
        else if (memcmp(frame->ping.opaque_data, gl_retirement, 8) == 0)
            gl_retired(c);
        break;
    default:
        break;
    }
    return 0;
}

static int gl_on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *data)
{
    gl_connection *c = data;
    gl_call *call;

    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    c->pinged = c->strikes = 0;
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        /* What its client still has to say, nobody waits for. */
        if (call != NULL && !call->ended)
            gl_reset(call, NGHTTP2_NO_ERROR);
    }
    return 0;
}

static int gl_on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *data)
{
    gl_call *call = nghttp2_session_get_stream_user_data(session, stream);

    (void)error;
    (void)data;
    if (call != NULL)
        gl_call_over(call);
    return 0;
}

static ssize_t gl_frame_size(nghttp2_session *session, uint8_t type, int32_t stream,
                             int32_t session_window, int32_t stream_window, uint32_t most,
                             void *data)
{
    int32_t size = GL_FRAME_OUT;

    (void)session;
    (void)type;
    (void)stream;
    (void)data;
    if (size > session_window)
        size = session_window;
    if (size > stream_window)
        size = stream_window;
    return (uint32_t)size > most ? (int32_t)most : size;
}

/* Makes what all sessions share; 0: there is no memory. */
static inline int gl_http2_open(gl_server *s)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;

    if (nghttp2_session_callbacks_new(&s->callbacks) != 0 || nghttp2_option_new(&s->option) != 0)
        return 0;
    callbacks = s->callbacks;
    option = s->option;
    s->memory = gl_blocks_functions(&s->blocks);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, gl_on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, gl_on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, gl_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, gl_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, gl_on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, gl_on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, gl_on_stream_close);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, gl_frame_size);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, gl_on_send_data);
    nghttp2_option_set_no_auto_window_update(option, 1);
    /* It would keep as many as may be open, 300 kB for each connection. DATA on a closed stream
     * is ignored therefore, and not refused. */
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, GL_ACKNOWLEDGEMENTS);
    nghttp2_option_set_max_settings(option, GL_SETTINGS);
    nghttp2_option_set_max_deflate_dynamic_table_size(option, GL_HEADER_TABLE);
    if (nghttp2_option_set_stream_reset_rate_limit != NULL)
        nghttp2_option_set_stream_reset_rate_limit(option, GL_RESETS, GL_RESETS_A_SECOND);
    if (nghttp2_option_set_max_continuations != NULL)
        nghttp2_option_set_max_continuations(option, GL_CONTINUATIONS);
    return 1;
}

/* Makes the session of a connection, which begins with our settings; 0: there is no memory. */
static inline int gl_session_new(gl_connection *c)
{
    gl_server *s = c->server;
    nghttp2_settings_entry ours[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->settings.streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, GL_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)s->settings.metadata_bytes},
    };

    return nghttp2_session_server_new3(&c->session, s->callbacks, c, s->option, &s->memory) == 0 &&
           nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, ours,
                                   sizeof ours / sizeof *ours) == 0 &&
           nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                 GL_CONNECTION_WINDOW) == 0;
}

#endif
