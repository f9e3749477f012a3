#!/usr/bin/env bash
# libnghttp2 1.52.0 (Debian 12: libnghttp2-dev), 2026-11-30
#
# One would guess: a server sees each frame that a client sends, through on_begin_frame or
# on_invalid_frame_recv, so it can count frames that carry no work.
# It is so: with nghttp2_option_set_no_closed_streams, which keeps a connection small, DATA on a
# stream that is closed calls nothing and is answered by nothing. A client can send it for ever.
#
# Seen (100,000 empty DATA frames on a stream that both sides have ended):
#   callbacks: 0, bytes to send: 0
#
# Exits non-zero if a callback is called, or there is anything to send. Needs a C compiler,
# pkg-config and libnghttp2's headers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/closed.c" <<'C'
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

static unsigned called;

static int on_begin_frame(nghttp2_session *s, const nghttp2_frame_hd *head, void *unused)
{
    (void)s, (void)head, (void)unused;
    called++;
    return 0;
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *frame, void *unused)
{
    nghttp2_nv status = {(uint8_t *)":status", (uint8_t *)"200", 7, 3, NGHTTP2_NV_FLAG_NONE};

    (void)unused;
    called++;
    if (frame->hd.type == NGHTTP2_HEADERS)
        return nghttp2_submit_response(s, frame->hd.stream_id, &status, 1, NULL);
    return 0;
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *unused)
{
    (void)s, (void)flags, (void)stream, (void)data, (void)size, (void)unused;
    called++;
    return 0;
}

static int on_invalid(nghttp2_session *s, const nghttp2_frame *frame, int error, void *unused)
{
    (void)s, (void)frame, (void)error, (void)unused;
    called++;
    return 0;
}

static size_t send_all(nghttp2_session *s)
{
    const uint8_t *data;
    size_t sent = 0;

    for (ssize_t n; (n = nghttp2_session_mem_send(s, &data)) > 0; sent += (size_t)n) {
    }
    return sent;
}

int main(void)
{
    /* The preface, SETTINGS, and GET / (of HPACK's static table), which ends the stream. */
    static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
                                   "\0\0\xE\1\5\0\0\0\1\x82\x86\x84\x41\x9localhost";
    static const uint8_t data[9] = {0, 0, 0, NGHTTP2_DATA, 0, 0, 0, 0, 1};
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_session *s;
    size_t sent;

    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid);
    nghttp2_option_new(&option);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_session_server_new2(&s, callbacks, NULL, option);
    nghttp2_submit_settings(s, NGHTTP2_FLAG_NONE, NULL, 0);
    if (nghttp2_session_mem_recv(s, hello, sizeof hello - 1) < 0 || send_all(s) == 0 ||
        called == 0 || nghttp2_session_find_stream(s, 1) != NULL) {
        puts("the request was not answered");
        return 1;
    }
    called = 0;
    for (int i = 0; i < 100000; i++)
        if (nghttp2_session_mem_recv(s, data, sizeof data) != sizeof data)
            return 1;
    sent = send_all(s);
    printf("callbacks: %u, bytes to send: %zu\n", called, sent);
    nghttp2_session_del(s);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return called != 0 || sent != 0;
}
C
cc -Wall -Wextra -o "$folder/closed" "$folder/closed.c" $(pkg-config --cflags --libs libnghttp2)
"$folder/closed"
