/* The wire form of lookups and rosters: a reader of requests, and the parts of a response.
 *
 * Plain C11. proto/geolookup/v1/geolookup.proto has the fields that are named here by
 * their numbers; nothing here depends on addresses, or on any other message.
 *
 * The reader takes the form in which serialisers write: each field at most once, of the
 * type that it is declared with, no other fields, and every number in as few bytes as it
 * needs. The rest of what protobuf allows (members that replace each other, parts that
 * are to be merged, unknown fields), and all that it refuses, is for a protobuf runtime:
 * serialised again, what that has read is in the reader's form.
 */
#ifndef GEOLOOKUP_WIRE_H
#define GEOLOOKUP_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The tag of a field below 16: its number, and its type in the lower three bits. */
#define GL_TAG_VARINT(FIELD) ((FIELD) << 3)
#define GL_TAG_BYTES(FIELD) ((FIELD) << 3 | 2)

/* Protobuf's limit to the size of a message, and so of anything in it. */
#define GL_MAX_MESSAGE 0x7FFFFFFF

/* Reads a varint in its shortest form; 0 for any other, or none. */
static inline int gl_read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    const uint8_t *p = *at;

    *value = 0;
    for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
        uint64_t bits = *p & 0x7Fu;
        if (shift == 63 && bits > 1)
            return 0;
        *value |= bits << shift;
        if (*p++ < 0x80) {
            *at = p;
            return shift == 0 || bits != 0;
        }
    }
    return 0;
}

/* As gl_read_varint, for the size of something that ends at `end` or before. */
static inline int gl_read_size(const uint8_t **at, const uint8_t *end, size_t *size)
{
    uint64_t value;

    if (!gl_read_varint(at, end, &value) || value > (uint64_t)(end - *at))
        return 0;
    *size = (size_t)value;
    return 1;
}

static inline int gl_is_ascii(const uint8_t *s, size_t n)
{
    uint8_t all = 0;

    for (size_t i = 0; i < n; i++)
        all |= s[i];
    return all < 0x80;
}

/* Whether it is UTF-8 in shortest forms, without surrogates, up to U+10FFFF. */
static inline int gl_is_utf8(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint64_t eight; /* mostly ASCII */
        if (n - i >= sizeof eight) {
            memcpy(&eight, s + i, sizeof eight);
            if ((eight & 0x8080808080808080) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        unsigned first = s[i++], low = 0x80, high = 0xBF;
        size_t more = 1 + (first >= 0xE0) + (first >= 0xF0);
        if (first < 0x80)
            continue;
        if (first < 0xC2 || first > 0xF4 || n - i < more)
            return 0;
        if (first == 0xE0)
            low = 0xA0;
        else if (first == 0xED)
            high = 0x9F;
        else if (first == 0xF0)
            low = 0x90;
        else if (first == 0xF4)
            high = 0x8F;
        if (s[i] < low || s[i] > high)
            return 0;
        for (size_t k = 1; k < more; k++)
            if ((s[i + k] & 0xC0) != 0x80)
                return 0;
        i += more;
    }
    return 1;
}

/* Which member of the oneof `addresses` a request has, by its number. */
enum { GL_NO_ADDRESSES = 0, GL_IPV4 = 1, GL_IPV6 = 2, GL_TEXT = 3 };

/* A ClassifyRosterRequest, where it lies. */
typedef struct {
    unsigned form; /* of the addresses */
    const uint8_t *addresses;
    size_t bytes; /* what the addresses take */
    size_t texts; /* how many there are, of GL_TEXT */
    const uint8_t *region_set;
    size_t region_set_bytes;
    int32_t policy;
    int record;
    int regions;
    int reasons;
    const uint8_t *groups; /* group_sizes, packed; NULL: none */
    size_t group_bytes;
    size_t participants;  /* how many group sizes there are, */
    uint64_t grouped;     /* their sum, */
    size_t without;       /* and the position of the first that is 0, plus 1; 0: none is */
    int32_t networks; /* 1: covering networks are ignored */
} gl_request;

/* Moves to the next text of TextAddresses and sets its size; returns 0 where there is none. */
static inline int gl_next_text(const uint8_t **at, const uint8_t *end, size_t *size)
{
    const uint8_t *p = *at;

    if (p == end || *p++ != GL_TAG_BYTES(1))
        return 0;
    if (p != end && *p < 0x80) { /* any address */
        *size = *p++;
        *at = p;
        return *size <= (size_t)(end - p);
    }
    *at = p;
    return gl_read_size(at, end, size);
}

/* Counts the texts of TextAddresses; 0 for what isn't in the reader's form. */
static inline int gl_count_texts(const uint8_t *at, size_t bytes, size_t *count)
{
    const uint8_t *end = at + bytes;
    int ascii = gl_is_ascii(at, bytes);
    size_t size;

    for (*count = 0; at < end; ++*count, at += size)
        if (!gl_next_text(&at, end, &size) || (!ascii && !gl_is_utf8(at, size)))
            return 0;
    return 1;
}

/* Reads the next field's tag, and its number or the size of its content, which then begins
 * at `at`; 0 for what isn't in the reader's form. The fields up to `oneof` are the members of
 * one, and `seen` has a bit for each field that was read. */
static inline unsigned gl_read_field(const uint8_t **at, const uint8_t *end, unsigned oneof,
                                     unsigned *seen, uint64_t *number, size_t *size)
{
    unsigned tag = *(*at)++, field = tag >> 3;
    unsigned bit = 1u << (field <= oneof ? oneof : field & 31);

    *number = 0;
    *size = 0;
    if (*seen & bit)
        return 0;
    *seen |= bit;
    if ((tag & 7) == 2 ? !gl_read_size(at, end, size) : !gl_read_varint(at, end, number))
        return 0;
    return tag;
}

static inline void gl_set_addresses(gl_request *request, unsigned form, const uint8_t *at,
                                    size_t size)
{
    request->form = form;
    request->addresses = at;
    request->bytes = size;
}

/* Returns 0 for what isn't text. */
static inline int gl_set_region_set(gl_request *request, const uint8_t *at, size_t size)
{
    request->region_set = at;
    request->region_set_bytes = size;
    return gl_is_utf8(at, size);
}

/* Reads packed numbers of 32 bits; returns 0 for what isn't in the reader's form. */
static inline int gl_set_groups(gl_request *request, const uint8_t *at, size_t size)
{
    const uint8_t *end = at + size, *zero;

    request->groups = at;
    request->group_bytes = size;
    if (gl_is_ascii(at, size)) { /* few have more than 127 addresses */
        for (size_t i = 0; i < size; i++)
            request->grouped += at[i];
        request->participants = size;
        zero = memchr(at, 0, size);
        request->without = zero == NULL ? 0 : (size_t)(zero - at) + 1;
        return size > 0;
    }
    while (at < end) {
        uint64_t number;
        if (!gl_read_varint(&at, end, &number) || number > UINT32_MAX)
            return 0;
        request->grouped += number;
        request->participants++;
        if (number == 0 && request->without == 0)
            request->without = request->participants;
    }
    return 1;
}

/* Whether the participants of a request have `n` addresses together, and at least one each. */
static inline int gl_are_groups_of(const gl_request *request, size_t n)
{
    return request->without == 0 && request->grouped == n;
}

/* Writes the group sizes of a request as numbers. */
static inline void gl_unpack_groups(const gl_request *request, uint32_t *out)
{
    const uint8_t *at = request->groups, *end = at + request->group_bytes;

    if (request->participants == request->group_bytes) {
        for (size_t i = 0; i < request->participants; i++)
            out[i] = at[i];
        return;
    }
    for (size_t i = 0; i < request->participants; i++) {
        uint64_t number = 0;
        gl_read_varint(&at, end, &number); /* gl_set_groups found it valid */
        out[i] = (uint32_t)number;
    }
}

/* Reads a LookupRequest, which has an address; 0 for what isn't in the reader's form, or a
 * packed address that is none. */
static inline int gl_read_lookup_request(const uint8_t *at, size_t bytes, gl_request *request)
{
    const uint8_t *end = at + bytes;
    unsigned seen = 0;

    memset(request, 0, sizeof *request);
    if (bytes > GL_MAX_MESSAGE)
        return 0;
    while (at < end) {
        uint64_t number;
        size_t size;
        switch (gl_read_field(&at, end, 2, &seen, &number, &size)) {
        case GL_TAG_BYTES(1):
            if (!gl_is_utf8(at, size))
                return 0;
            gl_set_addresses(request, GL_TEXT, at, size);
            break;
        case GL_TAG_BYTES(2):
            if (size != 4 && size != 16)
                return 0;
            gl_set_addresses(request, size == 4 ? GL_IPV4 : GL_IPV6, at, size);
            break;
        case GL_TAG_BYTES(3):
            if (!gl_set_region_set(request, at, size))
                return 0;
            break;
        case GL_TAG_VARINT(4):
            request->policy = (int32_t)(uint32_t)number;
            break;
        case GL_TAG_VARINT(5):
            request->networks = (int32_t)(uint32_t)number;
            break;
        default:
            return 0;
        }
        at += size;
    }
    return request->addresses != NULL;
}

/* Reads a ClassifyRosterRequest; 0 for what isn't in the reader's form. Without `contents` the
 * addresses and groups, which take a while, are passed over. */
static inline int gl_read_roster_fields(const uint8_t *at, size_t bytes, gl_request *request,
                                        int contents)
{
    const uint8_t *end = at + bytes;
    unsigned seen = 0;

    memset(request, 0, sizeof *request);
    if (bytes > GL_MAX_MESSAGE)
        return 0;
    while (at < end) {
        uint64_t number;
        size_t size;
        unsigned tag = gl_read_field(&at, end, GL_TEXT, &seen, &number, &size);
        switch (tag) {
        case GL_TAG_BYTES(GL_TEXT):
            if (contents && !gl_count_texts(at, size, &request->texts))
                return 0;
            /* fall through */
        case GL_TAG_BYTES(GL_IPV4):
        case GL_TAG_BYTES(GL_IPV6):
            if (contents)
                gl_set_addresses(request, tag >> 3, at, size);
            break;
        case GL_TAG_BYTES(4):
            if (!gl_set_region_set(request, at, size))
                return 0;
            break;
        case GL_TAG_VARINT(5):
            request->policy = (int32_t)(uint32_t)number;
            break;
        case GL_TAG_VARINT(6):
            request->record = number != 0;
            break;
        case GL_TAG_VARINT(7):
            request->reasons = number != 0;
            break;
        case GL_TAG_BYTES(8):
            if (contents && !gl_set_groups(request, at, size))
                return 0;
            break;
        case GL_TAG_VARINT(9):
            request->regions = number != 0;
            break;
        case GL_TAG_VARINT(10):
            request->networks = (int32_t)(uint32_t)number;
            break;
        default:
            return 0;
        }
        at += size;
    }
    return 1;
}

static inline int gl_read_roster_request(const uint8_t *at, size_t bytes, gl_request *request)
{
    return gl_read_roster_fields(at, bytes, request, 1);
}

/* Finds the roster in a StreamRostersRequest, which holds one; 0: it isn't in the reader's form. */
static inline int gl_unwrap_roster(const uint8_t **at, size_t *bytes)
{
    const uint8_t *end = *at + *bytes;

    if (*bytes > GL_MAX_MESSAGE || *bytes == 0 || *(*at)++ != GL_TAG_BYTES(1))
        return 0;
    return gl_read_size(at, end, bytes) && *bytes == (size_t)(end - *at);
}

/* Reads a StreamRostersRequest; as gl_read_roster_request. */
static inline int gl_read_stream_request(const uint8_t *at, size_t bytes, gl_request *request)
{
    return gl_unwrap_roster(&at, &bytes) && gl_read_roster_request(at, bytes, request);
}

static inline size_t gl_varint_bytes(uint64_t value)
{
    size_t bytes = 1;

    for (; value >= 0x80; value >>= 7)
        bytes++;
    return bytes;
}

static inline uint8_t *gl_put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

/* Bytes of a field below 16 that is a number, or holds so many bytes. */
static inline size_t gl_number_bytes(uint64_t value)
{
    return 1 + gl_varint_bytes(value);
}

static inline size_t gl_field_bytes(size_t bytes)
{
    return gl_number_bytes(bytes) + bytes;
}

static inline uint8_t *gl_put_number(uint8_t *out, unsigned field, uint64_t value)
{
    *out++ = (uint8_t)GL_TAG_VARINT(field);
    return gl_put_varint(out, value);
}

/* The beginning of a field; its content follows. */
static inline uint8_t *gl_put_field(uint8_t *out, unsigned field, size_t bytes)
{
    *out++ = (uint8_t)GL_TAG_BYTES(field);
    return gl_put_varint(out, bytes);
}

#endif
