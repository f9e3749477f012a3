/* Lines of source files: how they are split into fields, and which fields hold the addresses
 * and the code.
 *
 * Plain C11. Nothing here depends on Python, on files or on what a code means.
 */
#ifndef GEOLOOKUP_SOURCE_LINES_H
#define GEOLOOKUP_SOURCE_LINES_H

#include "sweep.h"

typedef enum {
    GL_LINE_OK,
    GL_LINE_FIELDS,   /* the wrong number of them */
    GL_LINE_FIRST,    /* the first field is no address */
    GL_LINE_LAST,     /* the second field is no address */
    GL_LINE_FAMILIES, /* one is IPv4 and the other IPv6 */
    GL_LINE_ORDER     /* the last address lies before the first */
} gl_line_fault;

typedef struct {
    gl_range range;   /* without code, file and line */
    int family;       /* 4 or 6 */
    const char *code; /* within the line */
    size_t code_size;
    const char *place; /* the subdivision, within the line; empty: none */
    size_t place_size;
    size_t column; /* of the fault, from 1 */
} gl_line;

/* Unlike gl_parse_address, without zones: no source names interfaces. */
static inline int gl_parse_field(const char *s, size_t n, uint64_t *high, uint64_t *low)
{
    uint8_t address[16];
    if (n == 0)
        return 0;
    if (memchr(s, ':', n) != NULL) {
        if (!gl_parse_ipv6(s, n, address))
            return 0;
        *high = gl_load_be64(address);
        *low = gl_load_be64(address + 8);
        return 6;
    }
    if (!gl_parse_ipv4(s, n, address))
        return 0;
    *high = 0;
    *low = gl_load_be32(address);
    return 4;
}

/* Fields beyond these are counted and not read. */
#define GL_MAX_FIELDS 32

typedef enum {
    GL_RANGES,     /* two fields: the first and the last address */
    GL_NETWORKS,   /* one field: a prefix, or an address that stands for itself */
    GL_DELEGATIONS /* the registries' format: an address, and a count or a prefix length */
} gl_line_layout;

typedef struct {
    gl_line_layout layout;
    char separator;
    char quote; /* 0: a quote is a character like any other */
    int comments; /* lines that begin with # and empty ones are skipped */
    int spaces;   /* spaces and tabs around fields are no part of them */
    int integers; /* addresses are decimal numbers */
    unsigned least; /* fields in a line */
    unsigned most;  /* 0: fields after `read` are not read */
    unsigned read;  /* fields that are read if a line has them; at least `least` */
    unsigned first, last, code; /* columns, from 0; below GL_MAX_FIELDS and `least` */
    unsigned no_code; /* the code is not in the line: an empty text stands for it */
    unsigned place;   /* column of the subdivision, below `read`; 0: none is read */
} gl_dialect;

/* Continue gl_line_fault. */
enum {
    GL_LINE_SKIPPED = -1, /* no fault: a line without a range */
    GL_LINE_QUOTE = GL_LINE_ORDER + 1, /* a quote that does not end, or text after one */
    GL_LINE_NETWORK,                   /* neither a prefix nor an address */
    GL_LINE_BITS,                      /* a prefix with bits beyond its length */
    GL_LINE_TYPE,                      /* neither asn, ipv4 nor ipv6 */
    GL_LINE_VALUE,                     /* no count or length that makes sense here */
    GL_LINE_STATUS                     /* no status that registries use */
};

typedef struct {
    const char *s;
    size_t n;
} gl_field;

static inline int gl_is_space(char c)
{
    return c == ' ' || c == '\t';
}

static inline int gl_field_is(gl_field field, const char *text)
{
    return field.n == strlen(text) && memcmp(field.s, text, field.n) == 0;
}

/* Fills `fields` (GL_MAX_FIELDS) and their number. Returns 0, or a fault with its column. */
static inline int gl_split_fields(const gl_dialect *d, const char *s, size_t n, gl_field *fields,
                                  unsigned *count, size_t *column)
{
    const char *at = s, *end = s + n;
    for (*count = 0;; at++) {
        gl_field field;
        while (d->spaces && at < end && *at != d->separator && gl_is_space(*at))
            at++;
        if (d->quote && at < end && *at == d->quote) {
            const char *close = at + 1;
            *column = (size_t)(at - s) + 1;
            for (;; close += 2) {
                close = close < end ? memchr(close, d->quote, (size_t)(end - close)) : NULL;
                if (close == NULL)
                    return GL_LINE_QUOTE;
                if (close + 1 == end || close[1] != d->quote)
                    break;
            }
            field = (gl_field){at + 1, (size_t)(close - at - 1)};
            at = close + 1;
            while (d->spaces && at < end && *at != d->separator && gl_is_space(*at))
                at++;
            if (at < end && *at != d->separator)
                return GL_LINE_QUOTE;
        } else {
            const char *stop = at < end ? memchr(at, d->separator, (size_t)(end - at)) : NULL;
            field.s = at;
            at = stop == NULL ? end : stop;
            field.n = (size_t)(at - field.s);
            while (d->spaces && field.n && gl_is_space(field.s[field.n - 1]))
                field.n--;
        }
        if (*count < GL_MAX_FIELDS)
            fields[*count] = field;
        ++*count;
        if (at == end || (d->most == 0 && *count == d->read))
            break;
    }
    *column = 1;
    return *count < d->least || (d->most && *count > d->most) ? GL_LINE_FIELDS : 0;
}

/* A decimal number without leading zeros. Returns 0 for anything else, or one above 2^128 - 1. */
static inline int gl_read_number(gl_field field, gl_u128 *value)
{
    if (field.n == 0 || field.n > 39 || (field.n > 1 && field.s[0] == '0'))
        return 0;
    *value = 0;
    for (size_t i = 0; i < field.n; i++) {
        unsigned digit = (unsigned)(unsigned char)field.s[i] - '0';
        if (digit > 9 || *value > (~(gl_u128)0 - digit) / 10)
            return 0;
        *value = *value * 10 + digit;
    }
    return 1;
}

static inline int gl_read_ranges(const gl_dialect *d, const gl_field *fields, gl_line *out)
{
    gl_field first = fields[d->first], last = fields[d->last];
    gl_range *r = &out->range;
    if (d->integers) {
        gl_u128 low, high;
        if (!gl_read_number(first, &low))
            return GL_LINE_FIRST;
        if (!gl_read_number(last, &high))
            return GL_LINE_LAST;
        out->family = high >> 32 ? 6 : 4;
        r->first_high = (uint64_t)(low >> 64);
        r->first_low = (uint64_t)low;
        r->last_high = (uint64_t)(high >> 64);
        r->last_low = (uint64_t)high;
        return high < low ? GL_LINE_ORDER : GL_LINE_OK;
    }
    out->family = gl_parse_field(first.s, first.n, &r->first_high, &r->first_low);
    if (out->family == 0)
        return GL_LINE_FIRST;
    int family = gl_parse_field(last.s, last.n, &r->last_high, &r->last_low);
    if (family == 0)
        return GL_LINE_LAST;
    if (family != out->family)
        return GL_LINE_FAMILIES;
    return gl_last(r) < gl_first(r) ? GL_LINE_ORDER : GL_LINE_OK;
}

/* Sets the last address of a prefix from its first one. Returns 1, 0 for a length that is too
 * large, or -1 for bits beyond the length. */
static inline int gl_set_prefix_end(gl_line *out, gl_u128 length)
{
    gl_range *r = &out->range;
    unsigned bits = out->family == 4 ? 32 : 128;
    if (length > bits)
        return 0;
    unsigned rest = bits - (unsigned)length;
    gl_u128 host = rest == 128 ? ~(gl_u128)0 : ((gl_u128)1 << rest) - 1;
    gl_u128 last = gl_first(r) | host;
    r->last_high = (uint64_t)(last >> 64);
    r->last_low = (uint64_t)last;
    return (gl_first(r) & host) == 0 ? 1 : -1;
}

static inline int gl_read_network(gl_field field, gl_line *out)
{
    const char *slash = field.n ? memchr(field.s, '/', field.n) : NULL;
    size_t size = slash == NULL ? field.n : (size_t)(slash - field.s);
    gl_range *r = &out->range;
    gl_u128 length;
    out->family = gl_parse_field(field.s, size, &r->first_high, &r->first_low);
    if (out->family == 0)
        return GL_LINE_NETWORK;
    length = out->family == 4 ? 32 : 128;
    if (slash != NULL && !gl_read_number((gl_field){slash + 1, field.n - size - 1}, &length))
        return GL_LINE_NETWORK;
    int done = gl_set_prefix_end(out, length);
    return done < 0 ? GL_LINE_BITS : done ? GL_LINE_OK : GL_LINE_NETWORK;
}

/* registry|code|type|start|value|date|status|..., between a version line and summaries. */
static inline int gl_read_delegation(const gl_field *fields, unsigned count, const char **where,
                                     gl_line *out)
{
    gl_range *r = &out->range;
    gl_u128 value;
    if (fields[0].n && fields[0].s[0] >= '0' && fields[0].s[0] <= '9')
        return GL_LINE_SKIPPED; /* 2|apnic|20260617|... */
    if (count >= 5 && count <= 6 && gl_field_is(fields[count - 1], "summary"))
        return GL_LINE_SKIPPED;
    if (count < 7)
        return GL_LINE_FIELDS;
    *where = fields[6].s;
    if (gl_field_is(fields[6], "available") || gl_field_is(fields[6], "reserved"))
        return GL_LINE_SKIPPED;
    if (!gl_field_is(fields[6], "allocated") && !gl_field_is(fields[6], "assigned"))
        return GL_LINE_STATUS;
    *where = fields[2].s;
    if (gl_field_is(fields[2], "asn"))
        return GL_LINE_SKIPPED;
    int wanted = gl_field_is(fields[2], "ipv4") ? 4 : gl_field_is(fields[2], "ipv6") ? 6 : 0;
    if (wanted == 0)
        return GL_LINE_TYPE;
    *where = fields[3].s;
    out->family = gl_parse_field(fields[3].s, fields[3].n, &r->first_high, &r->first_low);
    if (out->family != wanted)
        return GL_LINE_FIRST;
    *where = fields[4].s;
    if (!gl_read_number(fields[4], &value))
        return GL_LINE_VALUE;
    if (wanted == 6) {
        int done = gl_set_prefix_end(out, value);
        return done < 0 ? GL_LINE_BITS : done ? GL_LINE_OK : GL_LINE_VALUE;
    }
    if (value == 0 || value > ((gl_u128)1 << 32) - r->first_low)
        return GL_LINE_VALUE;
    r->last_high = 0;
    r->last_low = r->first_low + (uint64_t)value - 1;
    return GL_LINE_OK;
}

/* Returns GL_LINE_OK with `out` filled, GL_LINE_SKIPPED, or a fault with its column. */
static inline int gl_read_line(const gl_dialect *d, const char *s, size_t n, gl_line *out)
{
    gl_field fields[GL_MAX_FIELDS];
    unsigned count;
    const char *where = s;
    if (d->comments) {
        size_t i = 0;
        while (i < n && gl_is_space(s[i]))
            i++;
        if (i == n || s[i] == '#')
            return GL_LINE_SKIPPED;
    }
    int fault = gl_split_fields(d, s, n, fields, &count, &out->column);
    if (fault)
        return fault;
    if (d->layout == GL_DELEGATIONS) {
        fault = gl_read_delegation(fields, count, &where, out);
    } else if (d->layout == GL_NETWORKS) {
        where = fields[d->first].s;
        fault = gl_read_network(fields[d->first], out);
    } else {
        fault = gl_read_ranges(d, fields, out);
        where = fields[fault == GL_LINE_OK || fault == GL_LINE_FIRST ? d->first : d->last].s;
    }
    out->column = (size_t)(where - s) + 1;
    if (fault)
        return fault;
    out->code = d->no_code ? s : fields[d->code].s;
    out->code_size = d->no_code ? 0 : fields[d->code].n;
    int placed = d->place && d->place < count;
    out->place = placed ? fields[d->place].s : s;
    out->place_size = placed ? fields[d->place].n : 0;
    out->column = (size_t)(out->code - s) + 1;
    return GL_LINE_OK;
}

/* Replaces an IPv6 range of IPv4-mapped addresses (::ffff:0:0/96) by the IPv4 range inside, where
 * such addresses are looked up. */
static inline void gl_unmap_ipv4(gl_line *line)
{
    gl_range *r = &line->range;
    if (line->family != 6 || r->first_high || r->last_high || r->first_low >> 32 != 0xFFFF ||
        r->last_low >> 32 != 0xFFFF)
        return;
    r->first_low &= 0xFFFFFFFFu;
    r->last_low &= 0xFFFFFFFFu;
    line->family = 4;
}

#endif
