/* Envoy's authorization: a CheckRequest read where it lies, the rules that apply, and the
 * CheckResponse. geolookup/service/rpc/envoy_authz.py has the same in Python, and the reasons.
 *
 * Plain C11. Hosts and paths are compared here only where they are in the one form that rules have,
 * or a port, a query, letter case and a dot at the host's end are all that differs. All else, and
 * what is no plain CheckRequest, is Python's: so there is one reading of what is odd.
 */
#ifndef GEOLOOKUP_AUTHORIZATION_H
#define GEOLOOKUP_AUTHORIZATION_H

#include "grpc_frame.h"
#include "http2_limits.h"
#include "outcome.h"

#include <stdlib.h>

/* What a rule does: refuses requests; labels them with its verdict in Envoy's metadata, too, and
 * refuses none; or has no verdict, and so labels them with what else is known of the address. */
typedef enum { GL_DECIDES, GL_COUNTS, GL_LABELS } gl_rule_kind;

/* A rule, of the file or of a route, with the memory behind it. */
typedef struct {
    unsigned number; /* under which the meter counts its region set */
    gl_rule_kind kind;
    unsigned passes; /* a bit for each verdict that passes */
    const uint8_t *outcomes; /* by claim */
    const uint8_t *hosts;    /* each between zeros; none: all */
    size_t hosts_bytes;
    const uint8_t *prefix; /* of paths */
    size_t prefix_bytes;
    const uint8_t *refusal; /* a CheckResponse */
    size_t refusal_bytes;
    const uint8_t *route; /* what routes say that bring this rule; none: it is of the file */
    size_t route_bytes;
} gl_rule;

/* What a snapshot needs to answer. Its rules are its own; the rest belongs to the snapshot's
 * owner. Parts are fields of OkHttpResponse. */
typedef struct {
    gl_rule **rules;
    size_t rule_count;
    gl_rule *routes[GL_ROUTES]; /* that were seen, and the next one to be replaced */
    size_t route_count, next_route;
    /* The country's part: by claim its number, and where each begins. */
    const uint16_t *country_of;
    const uint32_t *country_begin;
    const uint8_t *countries;
    const uint8_t *dataset, *no_verdict; /* the dataset's part, and the one without a rule */
    size_t dataset_bytes, no_verdict_bytes;
    /* Of the metadata the country's part and the dataset's: fields of a Struct. */
    const uint32_t *metadata_begin;
    const uint8_t *metadata, *dataset_metadata;
    size_t dataset_metadata_bytes;
    int labels; /* whether requests without any rule are labelled, where there are no others */
    const uint8_t *address_header; /* whose value the address is, in lower case; none: the source */
    size_t address_header_bytes;
} gl_authorization;

/* What of a CheckRequest decides. */
typedef struct {
    const uint8_t *address, *host, *path;
    size_t address_bytes, host_bytes, path_bytes;
    uint8_t route[GL_ROUTE]; /* the route's own settings as they come, with their sizes */
    size_t route_bytes;
} gl_check;

static inline void gl_copy_part(uint8_t **room, const uint8_t **to, const uint8_t *from,
                                size_t size)
{
    *to = *room;
    if (size > 0)
        memcpy(*room, from, size);
    *room += size;
}

/* Copies a rule and what it points to; NULL: there is no memory. */
static inline gl_rule *gl_rule_new(const gl_rule *from, size_t claims)
{
    gl_rule *rule = malloc(sizeof *rule + claims + from->hosts_bytes + from->prefix_bytes +
                           from->refusal_bytes + from->route_bytes);
    uint8_t *room = (uint8_t *)(rule + 1);

    if (rule == NULL)
        return NULL;
    *rule = *from;
    gl_copy_part(&room, &rule->outcomes, from->outcomes, claims);
    gl_copy_part(&room, &rule->hosts, from->hosts, from->hosts_bytes);
    gl_copy_part(&room, &rule->prefix, from->prefix, from->prefix_bytes);
    gl_copy_part(&room, &rule->refusal, from->refusal, from->refusal_bytes);
    gl_copy_part(&room, &rule->route, from->route, from->route_bytes);
    return rule;
}

static inline void gl_authorization_free(gl_authorization *a)
{
    if (a == NULL)
        return;
    for (size_t i = 0; i < a->rule_count; i++)
        free(a->rules[i]);
    for (size_t i = 0; i < a->route_count; i++)
        free(a->routes[i]);
    free(a->rules);
    free(a);
}

static inline const gl_rule *gl_find_route(const gl_authorization *a, const uint8_t *route,
                                           size_t bytes)
{
    for (size_t i = 0; i < a->route_count; i++)
        if (a->routes[i]->route_bytes == bytes && memcmp(a->routes[i]->route, route, bytes) == 0)
            return a->routes[i];
    return NULL;
}

/* Takes the rule of a route over. */
static inline void gl_add_route(gl_authorization *a, gl_rule *rule)
{
    if (gl_find_route(a, rule->route, rule->route_bytes) != NULL) {
        free(rule);
    } else if (a->route_count < GL_ROUTES) {
        a->routes[a->route_count++] = rule;
    } else {
        free(a->routes[a->next_route]);
        a->routes[a->next_route] = rule;
        a->next_route = (a->next_route + 1) % GL_ROUTES;
    }
}

/* --- reading */

/* Finds the bytes of some fields in a message, up to the 31st: `found[i]` is those of the field
 * `fields[i]`. 0: the message is damaged, or one of them is there twice or of another type. */
static inline int gl_find_fields(const uint8_t *at, size_t bytes, const unsigned *fields, unsigned n,
                                 const uint8_t **found, size_t *sizes)
{
    const uint8_t *end, *content;
    uint64_t tag;
    size_t size;
    int result;

    if (at == NULL) /* there is no such message, which is an empty one */
        at = (const uint8_t *)"";
    end = at + bytes;
    memset(found, 0, n * sizeof *found);
    memset(sizes, 0, n * sizeof *sizes);
    while ((result = gl_next_field(&at, end, &tag, &content, &size)) > 0)
        for (unsigned i = 0; i < n; i++)
            if (tag >> 3 == fields[i]) {
                if ((tag & 7) != 2 || found[i] != NULL)
                    return 0;
                found[i] = content;
                sizes[i] = size;
            }
    return result == 0;
}

/* Reads an entry of context_extensions, and keeps it if it is ours. */
static inline int gl_read_extension(const uint8_t *at, size_t bytes, gl_check *check)
{
    static const char ours[] = "geolookup.";
    static const unsigned fields[] = {1, 2};
    const uint8_t *found[2];
    size_t sizes[2];

    if (!gl_find_fields(at, bytes, fields, 2, found, sizes))
        return 0;
    if (sizes[0] < sizeof ours - 1 || memcmp(found[0], ours, sizeof ours - 1) != 0)
        return 1;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *out = check->route + check->route_bytes;
        if (sizes[i] > 0xFFFF || sizes[i] + 2 > sizeof check->route - check->route_bytes)
            return 0;
        *out++ = (uint8_t)(sizes[i] >> 8);
        *out++ = (uint8_t)sizes[i];
        if (sizes[i] > 0)
            memcpy(out, found[i], sizes[i]);
        check->route_bytes += 2 + sizes[i];
    }
    return 1;
}

/* Reads the entries of context_extensions in AttributeContext. */
static inline int gl_read_extensions(const uint8_t *at, size_t bytes, gl_check *check)
{
    const uint8_t *end = at + bytes, *content;
    uint64_t tag;
    size_t size;
    int result;

    while ((result = gl_next_field(&at, end, &tag, &content, &size)) > 0)
        if (tag >> 3 == 10 && ((tag & 7) != 2 || !gl_read_extension(content, size, check)))
            return 0;
    return result == 0;
}

/* The messages of a CheckRequest: GL_A_ENTRY and others with two fields are entries of maps. */
enum {
    GL_A_SKIPPED, /* no message, and no text */
    GL_A_TEXT,
    GL_A_CHECK,
    GL_A_ATTRIBUTES,
    GL_A_PEER,
    GL_A_ADDRESS,
    GL_A_SOCKET,
    GL_A_TWO_TEXTS, /* EnvoyInternalAddress, HeaderValue, and entries with a text */
    GL_A_ONE_TEXT,  /* Pipe, TLSSession, Any */
    GL_A_REQUEST,
    GL_A_NUMBERS, /* Timestamp */
    GL_A_HTTP,
    GL_A_HEADER_MAP,
    GL_A_METADATA,
    GL_A_STRUCT_ENTRY,
    GL_A_ANY_ENTRY,
    GL_A_STRUCT,
    GL_A_VALUE_ENTRY,
    GL_A_VALUE,
    GL_A_LIST
};

#define GL_A_FIELDS 14

/* What each field of each message is. */
static const uint8_t gl_check_fields[][GL_A_FIELDS] = {
    [GL_A_CHECK] = {[1] = GL_A_ATTRIBUTES},
    [GL_A_ATTRIBUTES] = {[1] = GL_A_PEER, [2] = GL_A_PEER, [4] = GL_A_REQUEST,
                         [10] = GL_A_TWO_TEXTS, [11] = GL_A_METADATA, [12] = GL_A_ONE_TEXT,
                         [13] = GL_A_METADATA},
    [GL_A_PEER] = {[1] = GL_A_ADDRESS, [2] = GL_A_TEXT, [3] = GL_A_TWO_TEXTS, [4] = GL_A_TEXT,
                   [5] = GL_A_TEXT},
    [GL_A_ADDRESS] = {[1] = GL_A_SOCKET, [2] = GL_A_ONE_TEXT, [3] = GL_A_TWO_TEXTS},
    [GL_A_SOCKET] = {[2] = GL_A_TEXT, [4] = GL_A_TEXT, [5] = GL_A_TEXT, [7] = GL_A_TEXT},
    [GL_A_TWO_TEXTS] = {[1] = GL_A_TEXT, [2] = GL_A_TEXT},
    [GL_A_ONE_TEXT] = {[1] = GL_A_TEXT},
    [GL_A_REQUEST] = {[1] = GL_A_NUMBERS, [2] = GL_A_HTTP},
    [GL_A_HTTP] = {[1] = GL_A_TEXT, [2] = GL_A_TEXT, [3] = GL_A_TWO_TEXTS, [4] = GL_A_TEXT,
                   [5] = GL_A_TEXT, [6] = GL_A_TEXT, [7] = GL_A_TEXT, [8] = GL_A_TEXT,
                   [10] = GL_A_TEXT, [11] = GL_A_TEXT, [13] = GL_A_HEADER_MAP},
    [GL_A_HEADER_MAP] = {[1] = GL_A_TWO_TEXTS},
    [GL_A_METADATA] = {[1] = GL_A_STRUCT_ENTRY, [2] = GL_A_ANY_ENTRY},
    [GL_A_STRUCT_ENTRY] = {[1] = GL_A_TEXT, [2] = GL_A_STRUCT},
    [GL_A_ANY_ENTRY] = {[1] = GL_A_TEXT, [2] = GL_A_ONE_TEXT},
    [GL_A_STRUCT] = {[1] = GL_A_VALUE_ENTRY},
    [GL_A_VALUE_ENTRY] = {[1] = GL_A_TEXT, [2] = GL_A_VALUE},
    [GL_A_VALUE] = {[3] = GL_A_TEXT, [5] = GL_A_STRUCT, [6] = GL_A_LIST},
    [GL_A_LIST] = {[1] = GL_A_VALUE},
};

/* Messages in messages; Envoy's metadata may nest deeper, and then Python reads it. */
#define GL_A_DEPTH 24

/* Whether a varint ends within its first five bytes, as tags and sizes must. */
static inline int gl_is_short_varint(const uint8_t *at, const uint8_t *end)
{
    for (int i = 0; i < 5 && at + i < end; i++)
        if (at[i] < 0x80)
            return 1;
    return 0;
}

/* Whether the parser of protobuf would take a message: all that it knows is whole, and the texts
 * are UTF-8. 0 also for what it might take, such as groups. */
static inline int gl_is_sound_check(const uint8_t *at, size_t bytes, unsigned message, int depth)
{
    const uint8_t *end = at + bytes, *content;
    uint64_t tag;
    size_t size;
    int result;

    if (depth == GL_A_DEPTH)
        return 0;
    for (;;) {
        const uint8_t *begin = at;
        if (at < end && !gl_is_short_varint(at, end))
            return 0;
        result = gl_next_field(&at, end, &tag, &content, &size);
        if (result <= 0)
            return result == 0;
        if ((tag & 7) != 2)
            continue;
        while (*begin++ >= 0x80)
            ;
        if (!gl_is_short_varint(begin, end))
            return 0;
        unsigned kind = tag >> 3 < GL_A_FIELDS ? gl_check_fields[message][tag >> 3] : GL_A_SKIPPED;
        if (kind == GL_A_TEXT ? !gl_is_utf8(content, size)
                              : kind != GL_A_SKIPPED &&
                                    !gl_is_sound_check(content, size, kind, depth + 1))
            return 0;
    }
}

/* Whether a text in any letter case is this one, in lower case. */
static inline int gl_is_name(const uint8_t *text, size_t size, const uint8_t *lower, size_t bytes)
{
    if (size != bytes)
        return 0;
    for (size_t i = 0; i < size; i++)
        if ((text[i] >= 'A' && text[i] <= 'Z' ? text[i] + ('a' - 'A') : text[i]) != lower[i])
            return 0;
    return 1;
}

/* Reads the address in the source, a core.Address of a socket; 0: Python must. */
static inline int gl_read_source(const uint8_t *source, size_t bytes, gl_check *check)
{
    /* Of core.Address: a socket's, and the two others, the last of which counts. */
    static const unsigned peer_field[] = {1}, address_fields[] = {1, 2, 3}, socket_field[] = {2};
    const uint8_t *found[3];
    size_t sizes[3];

    if (!gl_find_fields(source, bytes, peer_field, 1, found, sizes) ||
        !gl_find_fields(found[0], sizes[0], address_fields, 3, found, sizes) || found[1] ||
        found[2] || !gl_find_fields(found[0], sizes[0], socket_field, 1, found, sizes))
        return 0;
    check->address = found[0];
    check->address_bytes = sizes[0];
    return 1;
}

/* Reads the address in the header that carries it, among the entries of HttpRequest's `headers`;
 * without it there is none, which is INVALID. 0: Python must, since the header is there twice, or
 * Envoy was told to list headers with their raw bytes. */
static inline int gl_read_address_header(const gl_authorization *a, const uint8_t *http,
                                         size_t bytes, gl_check *check)
{
    static const unsigned entry_fields[] = {1, 2};
    const uint8_t *end = http + bytes, *content, *found[2];
    int result, is_found = 0;
    size_t size, sizes[2];
    uint64_t tag;

    while ((result = gl_next_field(&http, end, &tag, &content, &size)) > 0) {
        if (tag >> 3 == 13)
            return 0;
        if (tag >> 3 != 3)
            continue;
        if ((tag & 7) != 2 || !gl_find_fields(content, size, entry_fields, 2, found, sizes))
            return 0;
        if (!gl_is_name(found[0], sizes[0], a->address_header, a->address_header_bytes))
            continue;
        if (is_found)
            return 0;
        is_found = 1;
        check->address = found[1];
        check->address_bytes = sizes[1];
    }
    return result == 0;
}

/* Reads a CheckRequest; 0 for what is damaged, or not as Envoy writes it. */
static inline int gl_read_check_request(const gl_authorization *a, const uint8_t *at, size_t bytes,
                                        gl_check *check)
{
    static const unsigned attributes_field[] = {1}, attributes_fields[] = {1, 4};
    static const unsigned request_field[] = {2}, http_fields[] = {5, 4};
    const uint8_t *found[2], *http;
    size_t sizes[2], http_bytes;

    memset(check, 0, offsetof(gl_check, route));
    check->route_bytes = 0;
    if (bytes > GL_MAX_MESSAGE || !gl_is_sound_check(at, bytes, GL_A_CHECK, 0) ||
        !gl_find_fields(at, bytes, attributes_field, 1, found, sizes) || found[0] == NULL ||
        !gl_read_extensions(found[0], sizes[0], check) ||
        !gl_find_fields(found[0], sizes[0], attributes_fields, 2, found, sizes) ||
        (a->address_header_bytes == 0 && !gl_read_source(found[0], sizes[0], check)) ||
        !gl_find_fields(found[1], sizes[1], request_field, 1, &http, &http_bytes) ||
        !gl_find_fields(http, http_bytes, http_fields, 2, found, sizes) ||
        (a->address_header_bytes > 0 && http != NULL &&
         !gl_read_address_header(a, http, http_bytes, check)))
        return 0;
    check->host = found[0];
    check->host_bytes = sizes[0];
    check->path = found[1];
    check->path_bytes = sizes[1];
    return 1;
}

/* --- rules */

/* Writes a host between zeros as rules have it; returns the bytes, or 0: Python must. */
static inline size_t gl_canonical_host(const gl_check *check, uint8_t *out, size_t room)
{
    size_t n = check->host_bytes, digits = n;

    while (digits > 0 && check->host[digits - 1] >= '0' && check->host[digits - 1] <= '9')
        digits--;
    if (digits > 0 && check->host[digits - 1] == ':')
        n = digits - 1; /* without the port */
    if (n == 0 || n + 2 > room)
        return 0;
    out[0] = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = check->host[i];
        if (c >= 'A' && c <= 'Z')
            c += 'a' - 'A';
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'))
            return 0;
        out[1 + i] = c;
    }
    if (out[n] == '.')
        n--;
    out[1 + n] = 0;
    return 2 + n;
}

/* Returns the bytes of the path up to a query, or 0: it is not in the form that rules have. */
static inline size_t gl_canonical_path(const gl_check *check)
{
    const uint8_t *path = check->path;
    size_t n = 0, segment = 0;

    for (; n < check->path_bytes && path[n] != '?' && path[n] != '#'; n++) {
        if (path[n] <= 0x20 || path[n] > 0x7E || path[n] == '%' || path[n] == '\\')
            return 0;
        if (path[n] != '/')
            continue;
        if (n > 0 && (n == segment || path[segment] == '.'))
            return 0; /* "//", or a segment that may be "." or ".." */
        segment = n + 1;
    }
    if (n == 0 || path[0] != '/' || (segment < n && path[segment] == '.'))
        return 0;
    return n;
}

static inline int gl_has_host(const gl_rule *rule, const uint8_t *host, size_t bytes)
{
    for (size_t at = 0; at + bytes <= rule->hosts_bytes; at++)
        if (memcmp(rule->hosts + at, host, bytes) == 0)
            return 1;
    return 0;
}

/* Finds the rules with a verdict, in order; returns how many, or -1: Python must. `labelled` is
 * whether the answer has metadata. */
static inline int gl_find_rules(const gl_authorization *a, const gl_check *check,
                                const gl_rule **applied, int *labelled)
{
    uint8_t host[256];
    size_t host_bytes = 0, path_bytes = 0;
    int n = 0;

    *labelled = 0;
    if (check->route_bytes > 0) {
        applied[0] = gl_find_route(a, check->route, check->route_bytes);
        if (applied[0] == NULL)
            return -1;
        *labelled = applied[0]->kind != GL_DECIDES;
        return applied[0]->kind != GL_LABELS;
    }
    if (a->rule_count == 0) {
        *labelled = a->labels;
        return a->labels ? 0 : -1;
    }
    for (size_t i = 0; i < a->rule_count; i++) {
        const gl_rule *rule = a->rules[i];
        if (rule->hosts_bytes > 0) {
            if (host_bytes == 0 &&
                (host_bytes = gl_canonical_host(check, host, sizeof host)) == 0)
                return -1;
            if (!gl_has_host(rule, host, host_bytes))
                continue;
        }
        if (rule->prefix_bytes > 0) {
            if (path_bytes == 0 && (path_bytes = gl_canonical_path(check)) == 0)
                return -1;
            if (path_bytes < rule->prefix_bytes ||
                memcmp(check->path, rule->prefix, rule->prefix_bytes) != 0)
                continue;
        }
        if (n == GL_RULES_APPLIED)
            return -1;
        *labelled |= rule->kind != GL_DECIDES;
        applied[n++] = rule;
    }
    return n;
}

/* --- answering */

static const char *const gl_verdict_names[] = {"", "INSIDE", "OUTSIDE", "UNDETERMINED"};
static const char *const gl_reason_names[GL_REASONS] = {
    "DECIDED", "DISPUTED",            "UNCONFIRMED", "UNASSIGNED", "SPECIAL_PURPOSE", "INVALID",
    "COVERED", "SUBDIVISION_UNKNOWN", "NO_COUNTRY",  "STALE"};

enum { GL_OVERWRITE = 2 }; /* append_action OVERWRITE_IF_EXISTS_OR_ADD */

/* A header that names something of each rule, and the bytes of what holds it. */
typedef struct {
    const char *name;
    const char *values[GL_RULES_APPLIED];
    size_t value, header, option; /* bytes of the value, HeaderValue, HeaderValueOption */
} gl_list_header;

/* Fills in its sizes, and returns the bytes of the part. */
static inline size_t gl_size_header(gl_list_header *h, int n)
{
    h->value = 0;
    for (int i = 0; i < n; i++)
        h->value += strlen(h->values[i]) + (i ? 2 : 0);
    h->header = gl_field_bytes(strlen(h->name)) + gl_field_bytes(h->value);
    h->option = gl_field_bytes(h->header) + gl_number_bytes(GL_OVERWRITE);
    return gl_field_bytes(h->option);
}

static inline uint8_t *gl_put_text(uint8_t *out, const char *text)
{
    size_t size = strlen(text);

    memcpy(out, text, size);
    return out + size;
}

static inline uint8_t *gl_put_values(uint8_t *out, const gl_list_header *h, int n)
{
    for (int i = 0; i < n; i++) {
        if (i > 0)
            out = gl_put_text(out, ", ");
        out = gl_put_text(out, h->values[i]);
    }
    return out;
}

static inline uint8_t *gl_put_header(uint8_t *out, const gl_list_header *h, int n)
{
    out = gl_put_field(out, 2, h->option);
    out = gl_put_field(out, 1, h->header);
    out = gl_put_text(gl_put_field(out, 1, strlen(h->name)), h->name);
    out = gl_put_values(gl_put_field(out, 2, h->value), h, n);
    return gl_put_number(out, 3, GL_OVERWRITE);
}

/* The name that a header's values have in the metadata: without "x-geo-". */
static inline const char *gl_metadata_key(const gl_list_header *h)
{
    return h->name + 6;
}

/* Bytes of the entry of a Struct's map: the key, and a Value with a text. */
static inline size_t gl_metadata_entry_bytes(const gl_list_header *h)
{
    return gl_field_bytes(strlen(gl_metadata_key(h))) + gl_field_bytes(gl_field_bytes(h->value));
}

static inline uint8_t *gl_put_metadata(uint8_t *out, const gl_list_header *h, int n)
{
    const char *key = gl_metadata_key(h);

    out = gl_put_field(out, 1, gl_metadata_entry_bytes(h));
    out = gl_put_text(gl_put_field(out, 1, strlen(key)), key);
    out = gl_put_field(out, 2, gl_field_bytes(h->value));
    return gl_put_values(gl_put_field(out, 3, h->value), h, n);
}

/* What lets a request pass, and its sizes. */
typedef struct {
    int n, labelled;
    gl_list_header verdicts, reasons;
    size_t country, inner; /* bytes of the country's part, and of the OkHttpResponse */
    size_t country_metadata, metadata; /* of the country's part, and of the Struct */
} gl_allowance;

/* Prepares the CheckResponse for the outcomes of n rules, and returns its bytes. */
static inline size_t gl_size_allowance(gl_allowance *all, const gl_authorization *a, unsigned claim,
                                       const uint8_t *outcomes, int n, int labelled)
{
    unsigned country = a->country_of[claim];

    all->n = n;
    all->labelled = labelled;
    all->country = a->country_begin[country + 1] - a->country_begin[country];
    all->inner = all->country + a->dataset_bytes;
    if (n > 0) {
        all->verdicts.name = "x-geo-verdict";
        all->reasons.name = "x-geo-reason";
        for (int i = 0; i < n; i++) {
            all->verdicts.values[i] = gl_verdict_names[gl_outcome_verdict(outcomes[i])];
            all->reasons.values[i] = gl_reason_names[gl_outcome_reason(outcomes[i])];
        }
        all->inner += gl_size_header(&all->verdicts, n) + gl_size_header(&all->reasons, n);
    } else {
        all->inner += a->no_verdict_bytes;
    }
    if (!labelled)
        return gl_field_bytes(0) + gl_field_bytes(all->inner);
    all->country_metadata = a->metadata_begin[country + 1] - a->metadata_begin[country];
    all->metadata = all->country_metadata + a->dataset_metadata_bytes;
    if (n > 0)
        all->metadata += gl_field_bytes(gl_metadata_entry_bytes(&all->verdicts)) +
                         gl_field_bytes(gl_metadata_entry_bytes(&all->reasons));
    return gl_field_bytes(0) + gl_field_bytes(all->inner) + gl_field_bytes(all->metadata);
}

static inline void gl_write_allowance(const gl_allowance *all, const gl_authorization *a,
                                      unsigned claim, uint8_t *out)
{
    out = gl_put_field(out, 1, 0); /* a status of OK */
    out = gl_put_field(out, 3, all->inner);
    memcpy(out, a->countries + a->country_begin[a->country_of[claim]], all->country);
    out += all->country;
    if (all->n > 0) {
        out = gl_put_header(out, &all->verdicts, all->n);
        out = gl_put_header(out, &all->reasons, all->n);
    } else {
        memcpy(out, a->no_verdict, a->no_verdict_bytes);
        out += a->no_verdict_bytes;
    }
    memcpy(out, a->dataset, a->dataset_bytes);
    if (!all->labelled)
        return;
    out = gl_put_field(out + a->dataset_bytes, 4, all->metadata); /* dynamic_metadata */
    memcpy(out, a->metadata + a->metadata_begin[a->country_of[claim]], all->country_metadata);
    out += all->country_metadata;
    if (all->n > 0) {
        out = gl_put_metadata(out, &all->verdicts, all->n);
        out = gl_put_metadata(out, &all->reasons, all->n);
    }
    memcpy(out, a->dataset_metadata, a->dataset_metadata_bytes);
}

#endif
