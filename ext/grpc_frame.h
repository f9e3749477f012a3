/* gRPC over HTTP/2, as far as it is bytes: time-outs, messages' prefixes, percent-encoding, and
 * the request of a health check. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 *
 * Plain C11; nothing here knows of connections or of addresses.
 */
#ifndef GEOLOOKUP_GRPC_FRAME_H
#define GEOLOOKUP_GRPC_FRAME_H

#include "wire.h"

/* Bytes before a message: whether it is compressed, and its size in network order. */
#define GL_PREFIX 5

/* Status codes that the server itself ends calls with. */
enum {
    GL_OK = 0,
    GL_CANCELLED = 1,
    GL_INVALID_ARGUMENT = 3,
    GL_DEADLINE_EXCEEDED = 4,
    GL_NOT_FOUND = 5,
    GL_PERMISSION_DENIED = 7,
    GL_RESOURCE_EXHAUSTED = 8,
    GL_UNIMPLEMENTED = 12,
    GL_INTERNAL = 13,
    GL_UNAVAILABLE = 14,
};

static inline uint32_t gl_read_be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void gl_put_prefix(uint8_t *out, size_t size)
{
    out[0] = 0;
    out[1] = (uint8_t)(size >> 24);
    out[2] = (uint8_t)(size >> 16);
    out[3] = (uint8_t)(size >> 8);
    out[4] = (uint8_t)size;
}

/* The nanoseconds of a grpc-timeout: one to eight digits and a unit. 0 for anything else, which
 * is no time-out, as in gRPC's own servers; a time-out of no time is one nanosecond. */
static inline uint64_t gl_read_timeout(const uint8_t *at, size_t n)
{
    uint64_t value = 0, unit;

    if (n < 2 || n > 9)
        return 0;
    for (size_t i = 0; i + 1 < n; i++) {
        if (at[i] < '0' || at[i] > '9')
            return 0;
        value = value * 10 + (at[i] - '0');
    }
    switch (at[n - 1]) {
    case 'H':
        unit = UINT64_C(3600000000000);
        break;
    case 'M':
        unit = UINT64_C(60000000000);
        break;
    case 'S':
        unit = UINT64_C(1000000000);
        break;
    case 'm':
        unit = 1000000;
        break;
    case 'u':
        unit = 1000;
        break;
    case 'n':
        unit = 1;
        break;
    default:
        return 0;
    }
    if (value == 0)
        return 1;
    return value > UINT64_C(3000000000000000000) / unit ? UINT64_C(3000000000000000000)
                                                        : value * unit;
}

/* Writes a grpc-message: printable ASCII but the percent sign as it is, all else as %XX.
 * `out` has room for 3 * n bytes; returns how many it takes. */
static inline size_t gl_percent_encode(const char *text, size_t n, uint8_t *out)
{
    static const char digits[] = "0123456789ABCDEF";
    uint8_t *begin = out;

    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c >= 0x20 && c <= 0x7E && c != '%') {
            *out++ = c;
        } else {
            *out++ = '%';
            *out++ = (uint8_t)digits[c >> 4];
            *out++ = (uint8_t)digits[c & 15];
        }
    }
    return (size_t)(out - begin);
}

/* What a content type says of messages. */
enum {
    GL_NOT_GRPC = 0,
    GL_GRPC_PROTO = 1, /* "application/grpc" or "application/grpc+proto", or with ";parameter" */
    GL_GRPC_OTHER = 2, /* "application/grpc+" and another format */
};

static inline int gl_read_content_type(const uint8_t *value, size_t n)
{
    static const char type[] = "application/grpc+proto";
    size_t most = sizeof type - 1, least = most - 6;

    if (n < least || memcmp(value, type, least) != 0)
        return GL_NOT_GRPC;
    if (n == least || value[least] == ';')
        return GL_GRPC_PROTO;
    if (value[least] != '+')
        return GL_NOT_GRPC;
    return n >= most && memcmp(value, type, most) == 0 && (n == most || value[most] == ';')
               ? GL_GRPC_PROTO
               : GL_GRPC_OTHER;
}

/* Reads a varint in any form; 0: there is no whole one. */
static inline int gl_read_any_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; *at < end && shift < 70; shift += 7) {
        if (shift < 64)
            *value |= (uint64_t)(**at & 0x7F) << shift;
        if (*(*at)++ < 0x80)
            return 1;
    }
    return 0;
}

/* Moves past the next field of a message, whatever it is, to its bytes if it has a length (else
 * they are NULL). 1: there was one; 0: the message ends here; -1: it is damaged, or has groups,
 * which no message here ever had. */
static inline int gl_next_field(const uint8_t **at, const uint8_t *end, uint64_t *tag,
                                const uint8_t **content, size_t *size)
{
    uint64_t number;

    *content = NULL;
    *size = 0;
    if (*at == end)
        return 0;
    if (!gl_read_any_varint(at, end, tag) || *tag >> 3 == 0 || *tag >> 32 != 0)
        return -1;
    switch (*tag & 7) {
    case 0:
        return gl_read_any_varint(at, end, &number) ? 1 : -1;
    case 2:
        if (!gl_read_any_varint(at, end, &number))
            return -1;
        *content = *at;
        break;
    case 1:
        number = 8;
        break;
    case 5:
        number = 4;
        break;
    default:
        return -1;
    }
    if (number > (uint64_t)(end - *at))
        return -1;
    *size = (size_t)number;
    *at += number;
    return 1;
}

/* Finds the service in a HealthCheckRequest (field 1, the last of several), whatever stands
 * beside it; 0: it is no such message. */
static inline int gl_read_health_check(const uint8_t *at, size_t bytes, const uint8_t **name,
                                       size_t *size)
{
    const uint8_t *end = at + bytes, *content;
    uint64_t tag;
    size_t n;
    int result;

    *name = NULL;
    *size = 0;
    while ((result = gl_next_field(&at, end, &tag, &content, &n)) > 0) {
        if (tag != GL_TAG_BYTES(1))
            continue;
        if (!gl_is_utf8(content, n))
            return 0;
        *name = content;
        *size = n;
    }
    return result == 0;
}

#endif
