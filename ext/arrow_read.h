/* Addresses in columns: those of Arrow arrays, and texts of a fixed width as numpy has them.
 *
 * Plain C11. A column is read a stage at a time into a gl_roster, which then is classified while it
 * is still in the cache.
 */
#ifndef GEOLOOKUP_ARROW_READ_H
#define GEOLOOKUP_ARROW_READ_H

#include "arrow_abi.h"
#include "core_api.h"
#include "roster_text.h"

/* Addresses of a stage: enough that its beginning and end cost nothing, few enough that all of
 * it stays in the second-level cache. */
#define GL_STAGE 8192

typedef enum {
    GL_COLUMN_NONE, /* what holds no addresses */
    GL_COLUMN_NULLS,
    GL_COLUMN_TEXT, /* offsets of 4 bytes */
    GL_COLUMN_LARGE_TEXT,
    GL_COLUMN_TEXT_VIEW,
    GL_COLUMN_BYTES, /* packed addresses of either family */
    GL_COLUMN_LARGE_BYTES,
    GL_COLUMN_BYTES_VIEW,
    GL_COLUMN_PACKED4,
    GL_COLUMN_PACKED6,
    GL_COLUMN_UINT32, /* IPv4 addresses as integers in host order */
    GL_COLUMN_INT64,
    GL_COLUMN_UINT64,
    GL_COLUMN_FIXED8,  /* texts of `width` characters, filled up with zeros: of 1 byte each */
    GL_COLUMN_FIXED32, /* the same of 4 bytes, in host order */
} gl_column_kind;

/* What is wrong with an array. */
typedef enum {
    GL_COLUMN_GOOD,
    GL_COLUMN_BUFFERS,
    GL_COLUMN_LENGTH,
    GL_COLUMN_VIEW,
    GL_COLUMN_INDEX,
} gl_column_fault;

typedef struct {
    gl_column_kind kind;
    size_t first, n;         /* the first value's place in the buffers, and how many there are */
    const uint8_t *validity; /* a bit for each place, 1: there is a value; NULL: all are */
    const uint8_t *values;   /* offsets, views, numbers or fixed texts */
    const uint8_t *data;     /* of offsets */
    const uint8_t *const *more; /* of views: further buffers, and their bytes */
    const int64_t *more_bytes;
    size_t more_count;
    size_t width, stride; /* of fixed texts: characters, and bytes from one to the next */
} gl_column;

/* The kind of a column of this format; GL_COLUMN_NONE: no addresses. */
static inline gl_column_kind gl_column_kind_of(const char *format)
{
    static const struct {
        char format[5];
        uint8_t kind;
    } kinds[] = {
        {"n", GL_COLUMN_NULLS},       {"u", GL_COLUMN_TEXT},
        {"U", GL_COLUMN_LARGE_TEXT},  {"vu", GL_COLUMN_TEXT_VIEW},
        {"z", GL_COLUMN_BYTES},       {"Z", GL_COLUMN_LARGE_BYTES},
        {"vz", GL_COLUMN_BYTES_VIEW}, {"w:4", GL_COLUMN_PACKED4},
        {"w:16", GL_COLUMN_PACKED6},  {"I", GL_COLUMN_UINT32},
        {"l", GL_COLUMN_INT64},       {"L", GL_COLUMN_UINT64},
    };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(format, kinds[i].format) == 0)
            return (gl_column_kind)kinds[i].kind;
    return GL_COLUMN_NONE;
}

static inline int gl_has_offsets(gl_column_kind kind)
{
    return kind == GL_COLUMN_TEXT || kind == GL_COLUMN_LARGE_TEXT || kind == GL_COLUMN_BYTES ||
           kind == GL_COLUMN_LARGE_BYTES;
}

static inline int gl_has_views(gl_column_kind kind)
{
    return kind == GL_COLUMN_TEXT_VIEW || kind == GL_COLUMN_BYTES_VIEW;
}

/* Finds the buffers of `n` values of an array, from `first` on. What they hold is not checked: the
 * interface says how long each of them is only of views. */
static inline gl_column_fault gl_column_of_array(gl_column *c, gl_column_kind kind,
                                                 const struct ArrowArray *array, size_t first,
                                                 size_t n)
{
    int64_t expected = kind == GL_COLUMN_NULLS ? 0 : gl_has_offsets(kind) ? 3 : 2;

    *c = (gl_column){.kind = kind, .first = first, .n = n};
    if (n == 0) /* then there need be no buffers */
        return GL_COLUMN_GOOD;
    if (gl_has_views(kind) ? array->n_buffers < 3 : array->n_buffers != expected)
        return GL_COLUMN_BUFFERS;
    if (kind == GL_COLUMN_NULLS)
        return GL_COLUMN_GOOD;
    c->values = array->buffers[1];
    if (c->values == NULL)
        return GL_COLUMN_BUFFERS;
    if (array->null_count != 0)
        c->validity = array->buffers[0];
    if (gl_has_views(kind)) {
        c->more = (const uint8_t *const *)array->buffers + 2;
        c->more_count = (size_t)array->n_buffers - 3;
        c->more_bytes = array->buffers[array->n_buffers - 1];
        if (c->more_count > 0 && c->more_bytes == NULL)
            return GL_COLUMN_BUFFERS;
    } else if (gl_has_offsets(kind)) {
        c->data = array->buffers[2];
    }
    return GL_COLUMN_GOOD;
}

static inline int gl_is_valid(const gl_column *c, size_t at)
{
    if (c->validity == NULL)
        return c->kind != GL_COLUMN_NULLS;
    return c->validity[at / 8] >> at % 8 & 1;
}

static inline int gl_has_nulls(const gl_column *c)
{
    return c->kind == GL_COLUMN_NULLS || c->validity != NULL;
}

/* The form of an item of so many bytes. */
static inline size_t gl_form(size_t bytes, int packed)
{
    if (packed)
        return bytes == 4 ? GL_PACKED4 : bytes == 16 ? GL_PACKED6 : GL_UNREADABLE;
    return bytes <= GL_LONGEST_TEXT ? bytes : GL_UNREADABLE;
}

static inline void gl_items_of_offsets(const gl_column *c, size_t at, size_t n, gl_item *items)
{
    int packed = c->kind == GL_COLUMN_BYTES;
    const int32_t *offsets = (const int32_t *)c->values + at;
    const char *data = (const char *)c->data;

    for (size_t i = 0; i < n; i++) {
        items[i].data = data + offsets[i];
        items[i].form = gl_form((size_t)((int64_t)offsets[i + 1] - offsets[i]), packed);
    }
}

static inline void gl_items_of_large_offsets(const gl_column *c, size_t at, size_t n,
                                             gl_item *items)
{
    int packed = c->kind == GL_COLUMN_LARGE_BYTES;
    const int64_t *offsets = (const int64_t *)c->values + at;
    const char *data = (const char *)c->data;

    for (size_t i = 0; i < n; i++) {
        items[i].data = data + offsets[i];
        items[i].form = gl_form((size_t)(offsets[i + 1] - offsets[i]), packed);
    }
}

typedef struct {
    uint32_t bytes;
    char prefix[4]; /* up to 12 bytes stand here and behind; of more, these are the first */
    uint32_t buffer, offset;
} gl_view;

/* Whether each view of more than 12 bytes lies in its buffer. */
static inline int gl_items_of_views(const gl_column *c, size_t at, size_t n, gl_item *items)
{
    int packed = c->kind == GL_COLUMN_BYTES_VIEW;
    const gl_view *views = (const gl_view *)c->values + at;
    int wrong = 0;

    for (size_t i = 0; i < n; i++) {
        /* Lengths are mixed in a column of addresses, so that a branch on one would be guessed
         * wrongly: the place is computed for both, and one is taken. */
        const gl_view *view = views + i;
        size_t is_long = view->bytes > 12;
        /* A null's view may hold anything. */
        int is_valid = gl_is_valid(c, at + i);
        size_t buffer = is_long ? view->buffer : 0;
        int is_known = buffer < c->more_count;
        int64_t end = (int64_t)view->offset + view->bytes;
        int64_t bytes = is_known ? c->more_bytes[buffer] : 0;
        const char *base = is_known ? (const char *)c->more[buffer] : NULL;

        wrong |= is_valid & (int)is_long & ((int32_t)view->offset < 0 || end > bytes);
        items[i].data = is_long ? base + view->offset : view->prefix;
        items[i].form = gl_form(view->bytes, packed);
    }
    return !wrong;
}

/* Bytes of a copy of a text: one more than an address may have, in whole words. */
#define GL_COPY ((GL_LONGEST_TEXT / 8 + 1) * 8)

/* The bytes before the zeros at the end of a copy. */
static inline size_t gl_copied_bytes(const char copy[GL_COPY], size_t bytes)
{
    uint64_t word;

    for (size_t words = (bytes + 7) / 8; words > 0; words--) {
        memcpy(&word, copy + 8 * (words - 1), 8);
        if (word != 0) /* the first character is the lowest byte, as datasets are little-endian */
            return 8 * words - (size_t)__builtin_clzll(word) / 8;
    }
    return 0;
}

/* Reads `n` texts of a fixed width, at most GL_BATCH, through copies that hold as many. */
static inline void gl_items_of_fixed(const gl_column *c, size_t at, size_t n, gl_item *items,
                                     char copies[GL_BATCH][GL_COPY])
{
    size_t width = c->width < GL_COPY ? c->width : GL_COPY, end = (width + 7) / 8 * 8;

    for (size_t i = 0; i < n; i++) {
        const uint8_t *text = c->values + (at + i) * c->stride;
        char *copy = copies[i];
        uint32_t all = 0, character;

        memset(copy + (end > 8 ? end - 8 : 0), 0, 8);
        if (c->kind == GL_COLUMN_FIXED8) {
            memcpy(copy, text, width);
        } else {
            for (size_t k = 0; k < width; k++) {
                memcpy(&character, text + 4 * k, 4);
                all |= character;
                copy[k] = (char)character;
            }
        }
        /* Of a longer text more than fits was copied, unless it goes on with zeros. */
        for (size_t k = width; k < c->width; k++) {
            character = 0;
            if (c->kind == GL_COLUMN_FIXED8)
                character = text[k];
            else
                memcpy(&character, text + 4 * k, 4);
            all |= character != 0 ? 0x80 : 0;
        }
        items[i].data = copy;
        items[i].form = all < 0x80 ? gl_form(gl_copied_bytes(copy, width), 0) : GL_UNREADABLE;
    }
}

static inline gl_column_fault gl_read_texts(const gl_core_api *api, const gl_table_handle *table,
                                            const gl_column *c, size_t at, size_t n,
                                            gl_roster *roster)
{
    gl_item items[GL_BATCH];
    char copies[GL_BATCH][GL_COPY];

    for (size_t end = at + n; at < end; at += n) {
        n = end - at < GL_BATCH ? end - at : GL_BATCH;
        if (gl_has_views(c->kind)) {
            if (!gl_items_of_views(c, at, n, items))
                return GL_COLUMN_VIEW;
        } else if (c->kind == GL_COLUMN_TEXT || c->kind == GL_COLUMN_BYTES) {
            gl_items_of_offsets(c, at, n, items);
        } else if (c->kind == GL_COLUMN_LARGE_TEXT || c->kind == GL_COLUMN_LARGE_BYTES) {
            gl_items_of_large_offsets(c, at, n, items);
        } else {
            gl_items_of_fixed(c, at, n, items, copies);
        }
        if (c->validity != NULL)
            for (size_t i = 0; i < n; i++)
                if (!gl_is_valid(c, at + i))
                    items[i].form = GL_UNREADABLE;
        api->read_items(table, items, n, roster);
    }
    return GL_COLUMN_GOOD;
}

/* The families of numbers and packed addresses: that of the column, or 0 for a null. Returns how
 * many are not 0. */
static inline size_t gl_mark_family(const gl_column *c, size_t at, size_t n, uint8_t family,
                                    uint8_t *families)
{
    size_t count = 0;

    if (c->validity == NULL) {
        memset(families, family, n);
        return n;
    }
    for (size_t i = 0; i < n; i++) {
        families[i] = gl_is_valid(c, at + i) ? family : 0;
        count += families[i] != 0;
    }
    return count;
}

static inline void gl_read_packed(const gl_column *c, size_t at, size_t n, gl_roster *roster)
{
    size_t width = c->kind == GL_COLUMN_PACKED4 ? 4 : 16;
    uint8_t *out = width == 4 ? roster->ipv4 : roster->ipv6;
    size_t count = gl_mark_family(c, at, n, width == 4 ? 4 : 6, roster->families);

    *(width == 4 ? &roster->ipv4_count : &roster->ipv6_count) = count;
    if (count == n) {
        memcpy(out, c->values + at * width, n * width);
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (roster->families[i]) {
            memcpy(out, c->values + (at + i) * width, width);
            out += width;
        }
}

static inline void gl_read_numbers(const gl_column *c, size_t at, size_t n, gl_roster *roster)
{
    size_t count = gl_mark_family(c, at, n, 4, roster->families);
    uint8_t *out = roster->ipv4;

    if (c->kind == GL_COLUMN_UINT32 && count == n) {
        const uint32_t *numbers = (const uint32_t *)c->values + at;
        for (size_t i = 0; i < n; i++)
            gl_store_be32(out + 4 * i, numbers[i]);
    } else if (c->kind == GL_COLUMN_UINT32) {
        const uint32_t *numbers = (const uint32_t *)c->values + at;
        for (size_t i = 0; i < n; i++) {
            gl_store_be32(out, numbers[i]);
            out += roster->families[i]; /* 4, or 0 for a null, whose number is overwritten */
        }
    } else {
        const uint64_t *numbers = (const uint64_t *)c->values + at;
        for (size_t i = 0; i < n; i++) {
            if (numbers[i] > UINT32_MAX) { /* negative ones, too */
                count -= roster->families[i] != 0;
                roster->families[i] = 0;
            }
            gl_store_be32(out, (uint32_t)numbers[i]);
            out += roster->families[i];
        }
    }
    roster->ipv4_count = count;
}

/* Reads the next `n` values, at most GL_STAGE, of which `at` is the first. */
static inline gl_column_fault gl_read_stage(const gl_core_api *api, const gl_table_handle *table,
                                            const gl_column *c, size_t at, size_t n,
                                            gl_roster *roster)
{
    roster->n = roster->ipv4_count = roster->ipv6_count = 0;
    switch (c->kind) {
    case GL_COLUMN_NONE:
    case GL_COLUMN_NULLS:
        memset(roster->families, 0, n);
        break;
    case GL_COLUMN_PACKED4:
    case GL_COLUMN_PACKED6:
        gl_read_packed(c, at, n, roster);
        break;
    case GL_COLUMN_UINT32:
    case GL_COLUMN_INT64:
    case GL_COLUMN_UINT64:
        gl_read_numbers(c, at, n, roster);
        break;
    default:
        return gl_read_texts(api, table, c, at, n, roster);
    }
    roster->n = n;
    return GL_COLUMN_GOOD;
}

/* What is written for each value: its claim; its packed form and family, as parse_many returns
 * them; 0 for a null and 1 for others. What is NULL is not written. */
typedef struct {
    uint16_t *claims;
    uint8_t *padded, *families, *present;
} gl_column_out;

static inline gl_column_out gl_column_out_at(gl_column_out out, size_t i)
{
    return (gl_column_out){
        out.claims == NULL ? NULL : out.claims + i,
        out.padded == NULL ? NULL : out.padded + 16 * i,
        out.families == NULL ? NULL : out.families + i,
        out.present == NULL ? NULL : out.present + i,
    };
}

/* Whether all values are IPv4 addresses and only claims are asked for, so that the column may be
 * looked up where it lies, without a stage. */
static inline int gl_lies_ready(const gl_column *c, gl_column_out out)
{
    return (c->kind == GL_COLUMN_PACKED4 || c->kind == GL_COLUMN_UINT32) && c->n > 0 &&
           c->validity == NULL && out.claims != NULL && out.padded == NULL &&
           out.families == NULL && out.present == NULL;
}

static inline void gl_classify_in_place(const gl_core_api *api, const gl_table_handle *table,
                                        const gl_column *c, uint16_t *claims)
{
    const uint8_t *values = c->values + 4 * c->first;
    gl_roster roster = {.ipv4 = (uint8_t *)values, .n = c->n, .ipv4_count = c->n};

    if (c->kind == GL_COLUMN_UINT32)
        api->classify_numbers(table, (const uint32_t *)values, c->n, claims);
    else
        api->classify(table, &roster, claims); /* which reads no families of IPv4 alone */
}

/* Reads a column. `stage` has room for GL_STAGE addresses of each family. */
static inline gl_column_fault gl_read_column(const gl_core_api *api, const gl_table_handle *table,
                                             const gl_column *c, gl_roster *stage,
                                             gl_column_out out)
{
    gl_column_fault fault;

    if (gl_lies_ready(c, out)) {
        gl_classify_in_place(api, table, c, out.claims);
        return GL_COLUMN_GOOD;
    }
    for (size_t done = 0, n; done < c->n; done += n) {
        gl_column_out at = gl_column_out_at(out, done);
        n = c->n - done < GL_STAGE ? c->n - done : GL_STAGE;
        fault = gl_read_stage(api, table, c, c->first + done, n, stage);
        if (fault != GL_COLUMN_GOOD)
            return fault;
        if (at.claims != NULL)
            api->classify(table, stage, at.claims);
        if (at.padded != NULL)
            gl_write_padded(stage, at.padded);
        if (at.families != NULL)
            memcpy(at.families, stage->families, n);
        if (at.present != NULL)
            for (size_t i = 0; i < n; i++)
                at.present[i] = (uint8_t)gl_is_valid(c, c->first + done + i);
    }
    return GL_COLUMN_GOOD;
}

/* The type of a dictionary's indices: its bytes, negative for signed ones; 0: none that is. */
static inline int gl_index_bytes(const char *format)
{
    static const char formats[] = "cCsSiIlL";
    static const int8_t bytes[] = {-1, 1, -2, 2, -4, 4, -8, 8};
    const char *found = format[0] == 0 || format[1] != 0 ? NULL : strchr(formats, format[0]);

    return found == NULL ? 0 : bytes[found - formats];
}

/* An index as a number without a sign, so that a negative one is beyond each dictionary. */
GL_INLINE uint64_t gl_load_index(const uint8_t *indices, size_t at, int bytes)
{
    switch (bytes) {
    case 1:
        return indices[at];
    case -1:
        return (uint64_t)(int64_t)((const int8_t *)indices)[at];
    case 2:
        return ((const uint16_t *)indices)[at];
    case -2:
        return (uint64_t)(int64_t)((const int16_t *)indices)[at];
    case 4:
        return ((const uint32_t *)indices)[at];
    case -4:
        return (uint64_t)(int64_t)((const int32_t *)indices)[at];
    default:
        return ((const uint64_t *)indices)[at];
    }
}

/* Copies the value of each index, of which the dictionary has `count`. `indices` is a column of
 * numbers of so many bytes. */
GL_INLINE gl_column_fault gl_take_of(const gl_column *indices, int bytes, size_t count,
                                     gl_column_out values, gl_column_out out)
{
    static const uint8_t zeros[16];
    int wrong = 0;

    for (size_t i = 0; i < indices->n; i++) {
        size_t at = indices->first + i;
        uint64_t index = gl_load_index(indices->values, at, bytes);
        int is_valid = gl_is_valid(indices, at), is_known = index < count;
        int taken = is_valid & is_known;

        wrong |= is_valid & !is_known;
        index = taken ? index : 0;
        if (out.claims != NULL)
            out.claims[i] = taken ? values.claims[index] : 0;
        if (out.padded != NULL)
            memcpy(out.padded + 16 * i, taken ? values.padded + 16 * index : zeros, 16);
        if (out.families != NULL)
            out.families[i] = taken ? values.families[index] : 0;
        if (out.present != NULL)
            out.present[i] = taken ? values.present[index] : 0;
    }
    return wrong ? GL_COLUMN_INDEX : GL_COLUMN_GOOD;
}

static inline gl_column_fault gl_take(const gl_column *indices, int bytes, size_t count,
                                      gl_column_out values, gl_column_out out)
{
    gl_column_out claims = {.claims = out.claims};

    /* Claims alone, of the usual widths, have loops of their own. */
    if (out.padded == NULL && out.families == NULL && out.present == NULL && out.claims != NULL)
        switch (bytes) {
        case -1:
            return gl_take_of(indices, -1, count, values, claims);
        case 1:
            return gl_take_of(indices, 1, count, values, claims);
        case -2:
            return gl_take_of(indices, -2, count, values, claims);
        case 2:
            return gl_take_of(indices, 2, count, values, claims);
        case -4:
            return gl_take_of(indices, -4, count, values, claims);
        case 4:
            return gl_take_of(indices, 4, count, values, claims);
        }
    return gl_take_of(indices, bytes, count, values, out);
}

/* Reads a column of indices into a dictionary, each of whose values is looked up once; `values`
 * has room for these. */
static inline gl_column_fault gl_read_by_dictionary(const gl_core_api *api,
                                                    const gl_table_handle *table,
                                                    const gl_column *indices, int bytes,
                                                    const gl_column *dictionary, gl_roster *stage,
                                                    gl_column_out values, gl_column_out out)
{
    gl_column_fault fault = gl_read_column(api, table, dictionary, stage, values);

    return fault == GL_COLUMN_GOOD ? gl_take(indices, bytes, dictionary->n, values, out) : fault;
}

/* What a stream delivers; a released structure where it delivers none. */
static inline int gl_stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    memset(out, 0, sizeof *out);
    return stream->get_schema(stream, out);
}

static inline int gl_stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    memset(out, 0, sizeof *out);
    return stream->get_next(stream, out);
}

/* Writes a bit for each of `n` items of 1 or 2 bytes: whether it is not 0 and, where that is told,
 * present. Returns how many are not. */
static inline size_t gl_write_validity(const uint8_t *column, size_t width, const uint8_t *present,
                                       size_t n, uint8_t *out)
{
    size_t nulls = n;

    for (size_t i = 0; i < n; i += 8) {
        unsigned bits = 0;
        for (size_t k = 0; k < 8 && i + k < n; k++) {
            size_t at = width * (i + k);
            unsigned some = column[at] | column[at + width - 1];
            unsigned bit = some != 0 && (present == NULL || present[i + k] != 0);
            bits |= bit << k;
            nulls -= bit;
        }
        out[i / 8] = (uint8_t)bits;
    }
    return nulls;
}

#endif
