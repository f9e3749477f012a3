/* Fuzzes the wire form: what the reader makes of any bytes, against one that is slow and plain,
 * and the answer to each request that it reads, on every path, against single lookups.
 *
 * Inputs and responses end where their memory does, so that the sanitizers see every read
 * and write beyond. tests/fuzz/requests.py holds both to protobuf itself.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "index_build.h"
#include "roster_answer.h"

/* ---------------------------------------------------------------- the plain reader */

typedef struct {
    const uint8_t *at, *end;
} bytes;

/* A number of at most 64 bits, in the fewest bytes. */
static int plain_number(bytes *in, uint64_t *value)
{
    unsigned __int128 all = 0;
    unsigned used = 0, needed = 1;

    do {
        if (in->at == in->end || used == 10)
            return 0;
        all |= (unsigned __int128)(*in->at & 0x7F) << 7 * used++;
    } while (*in->at++ & 0x80);
    *value = (uint64_t)all;
    while (needed < 10 && all >> 7 * needed != 0)
        needed++;
    return all >> 64 == 0 && used == needed;
}

/* A number, and so many bytes. */
static int plain_bytes(bytes *in, bytes *out)
{
    uint64_t size;

    if (!plain_number(in, &size) || size > (uint64_t)(in->end - in->at))
        return 0;
    *out = (bytes){in->at, in->at + size};
    in->at += size;
    return 1;
}

static int plain_utf8(bytes in)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

    while (in.at < in.end) {
        unsigned first = *in.at++, size = first < 0x80 ? 1 : first < 0xC0 ? 0 : first < 0xE0 ? 2
                                        : first < 0xF0 ? 3 : first < 0xF8 ? 4 : 0;
        uint32_t point = size == 1 ? first : first & (0x7Fu >> size);
        if (size == 0)
            return 0;
        for (unsigned i = 1; i < size; i++, in.at++) {
            if (in.at == in.end || *in.at >> 6 != 2)
                return 0;
            point = point << 6 | (*in.at & 0x3F);
        }
        if (point < least[size] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
            return 0;
    }
    return 1;
}

static int plain_texts(bytes in, size_t *count)
{
    uint64_t tag;
    bytes text;

    for (*count = 0; in.at < in.end; ++*count)
        if (!plain_number(&in, &tag) || tag != (1 << 3 | 2) || !plain_bytes(&in, &text) ||
            !plain_utf8(text))
            return 0;
    return 1;
}

/* Packed numbers of 32 bits, at least one. */
static int plain_groups(bytes in, gl_request *request)
{
    uint64_t number;

    request->groups = in.at;
    request->group_bytes = (size_t)(in.end - in.at);
    for (; in.at < in.end; request->participants++) {
        if (!plain_number(&in, &number) || number >> 32 != 0)
            return 0;
        request->grouped += number;
        if (number == 0 && request->without == 0)
            request->without = request->participants + 1;
    }
    return request->group_bytes > 0;
}

static int plain_request(bytes in, gl_request *request)
{
    int seen[11] = {0};
    uint64_t tag, number;
    bytes content;

    memset(request, 0, sizeof *request);
    while (in.at < in.end) {
        if (!plain_number(&in, &tag) || tag >> 3 < 1 || tag >> 3 > 10 || seen[tag >> 3]++)
            return 0;
        unsigned field = (unsigned)(tag >> 3);
        int packed = field <= 4 || field == 8;
        if ((tag & 7) != (packed ? 2 : 0))
            return 0;
        if (!packed) {
            if (!plain_number(&in, &number))
                return 0;
            if (field == 5)
                request->policy = (int32_t)number;
            else if (field == 6)
                request->record = number != 0;
            else if (field == 7)
                request->reasons = number != 0;
            else if (field == 9)
                request->regions = number != 0;
            else
                request->networks = (int32_t)number;
            continue;
        }
        if (!plain_bytes(&in, &content))
            return 0;
        if (field == 8) {
            if (!plain_groups(content, request))
                return 0;
            continue;
        }
        if (field == 4) {
            if (!plain_utf8(content))
                return 0;
            request->region_set = content.at;
            request->region_set_bytes = (size_t)(content.end - content.at);
            continue;
        }
        if (request->form != GL_NO_ADDRESSES)
            return 0;
        if (field == GL_TEXT && !plain_texts(content, &request->texts))
            return 0;
        request->form = field;
        request->addresses = content.at;
        request->bytes = (size_t)(content.end - content.at);
    }
    return 1;
}

static int plain_wrapped(bytes in, gl_request *request)
{
    uint64_t tag;
    bytes content;

    return plain_number(&in, &tag) && tag == (1 << 3 | 2) && plain_bytes(&in, &content) &&
           in.at == in.end && plain_request(content, request);
}

static int plain_lookup(bytes in, gl_request *request)
{
    int seen[6] = {0};
    uint64_t tag, number;
    bytes content;

    memset(request, 0, sizeof *request);
    while (in.at < in.end) {
        if (!plain_number(&in, &tag) || tag >> 3 < 1 || tag >> 3 > 5 || seen[tag >> 3]++)
            return 0;
        unsigned field = (unsigned)(tag >> 3);
        if ((tag & 7) != (field >= 4 ? 0 : 2))
            return 0;
        if (field >= 4) {
            if (!plain_number(&in, &number))
                return 0;
            if (field == 4)
                request->policy = (int32_t)number;
            else
                request->networks = (int32_t)number;
            continue;
        }
        if (!plain_bytes(&in, &content) || (field != 2 && !plain_utf8(content)))
            return 0;
        size_t size = (size_t)(content.end - content.at);
        if (field == 3) {
            request->region_set = content.at;
            request->region_set_bytes = size;
            continue;
        }
        if (field == 2 && size != 4 && size != 16)
            return 0;
        request->form = field == 1 ? GL_TEXT : size == 4 ? GL_IPV4 : GL_IPV6;
        request->addresses = content.at;
        request->bytes = size;
    }
    return seen[1] + seen[2] == 1;
}

static void check_same(const gl_request *one, const gl_request *other)
{
    CHECK(one->form == other->form && one->addresses == other->addresses);
    CHECK(one->bytes == other->bytes && one->texts == other->texts);
    CHECK(one->region_set == other->region_set);
    CHECK(one->region_set_bytes == other->region_set_bytes);
    CHECK(one->policy == other->policy && one->record == other->record);
    CHECK(one->reasons == other->reasons && one->regions == other->regions);
    CHECK(one->groups == other->groups && one->group_bytes == other->group_bytes);
    CHECK(one->participants == other->participants && one->grouped == other->grouped);
    CHECK(one->without == other->without);
    CHECK(one->regions == other->regions && one->networks == other->networks);
}

/* ------------------------------------------------------------------- a small dataset */

enum { INVALID, NOBODY, SPECIAL, ONE, TWO, BOTH, CLAIMS };

static const uint32_t first4[] = {0, 0x01000100, 0x01000200, 0x02000000, 0x03000000, 0x0A000000};
static const uint16_t claim4[] = {NOBODY, ONE, TWO, BOTH, NOBODY, SPECIAL};
static const uint64_t high6[] = {0, 0, 0, 0x2001020000000000, 0x2001030000000000,
                                 0x2001030000000000, 0x3000000000000000};
static const uint64_t low6[] = {0, 0xFFFF00000000, 0x1000000000000, 0, 0, 0x8000000000000000, 0};
static const uint16_t claim6[] = {NOBODY, GL_EMBEDDED_LOW32, NOBODY, ONE, BOTH, TWO, NOBODY};
static const uint8_t statuses[CLAIMS] = {7, 4, 5, 1, 1, 2};
static const uint8_t outcomes[CLAIMS] = {3 | 5 << 2, 3 | 3 << 2, 2, 1, 2, 3 | 1 << 2};
static const char letters[2 * CLAIMS + 1] = "ZZZZZZCNDECN";

static gl_table table;
static gl_results results;

static void make_dataset(void)
{
    static uint16_t countries[CLAIMS];
    size_t position;

    memcpy(countries, letters, sizeof countries);
    table = (gl_table){.first4 = first4, .claim4 = claim4, .n4 = sizeof first4 / 4,
                       .high6 = high6, .low6 = low6, .claim6 = claim6, .n6 = sizeof high6 / 8};
    CHECK(gl_table_check(&table, CLAIMS, &position) == GL_NO_FAULT);
    CHECK(gl_table_build(&table));
    CHECK(gl_results_build(&results, countries, statuses, CLAIMS));
}

/* --------------------------------------------------------------------- the answer */

/* Claims of the addresses of a request, each looked up by itself. */
static void look_up(const gl_request *request, size_t n, uint8_t *claims)
{
    bytes in = {request->addresses, request->addresses + request->bytes}, one;
    uint64_t tag;

    for (size_t i = 0; i < n; i++) {
        if (request->form == GL_TEXT) {
            CHECK(plain_number(&in, &tag) && plain_bytes(&in, &one));
            claims[i] = (uint8_t)gl_isas[0].claim_text(&table, (const char *)one.at,
                                                       (size_t)(one.end - one.at));
        } else {
            size_t width = request->form == GL_IPV4 ? 4 : 16;
            claims[i] = (uint8_t)gl_isas[0].claim_packed(&table, in.at, width);
            in.at += width;
        }
    }
}

/* Reads field `number` if it is next. */
static int next_field(bytes *in, unsigned number, bytes *content)
{
    if (in->at == in->end || *in->at != (number << 3 | 2))
        return 0;
    in->at++;
    CHECK(plain_bytes(in, content));
    return 1;
}

/* The outcome of a participant whose addresses have these, at least one. */
static uint8_t plain_participant(const uint8_t *of, size_t n)
{
    /* INVALID, SPECIAL_PURPOSE, STALE, NO_COUNTRY, UNASSIGNED, COVERED, DISPUTED, UNCONFIRMED,
     * SUBDIVISION_UNKNOWN */
    static const int order[] = {5, 4, 9, 8, 3, 6, 1, 2, 7};
    size_t counting = 0, inside = 0, outside = 0, with[GL_REASONS] = {0};

    for (size_t i = 0; i < n; i++)
        counting += of[i] != (3 | 5 << 2) && of[i] != (3 | 4 << 2);
    for (size_t i = 0; i < n; i++) {
        if (counting > 0 && (of[i] == (3 | 5 << 2) || of[i] == (3 | 4 << 2)))
            continue;
        inside += of[i] == 1;
        outside += of[i] == 2;
        with[of[i] >> 2]++;
    }
    if (counting > 0 && inside == counting)
        return 1;
    if (counting > 0 && outside == counting)
        return 2;
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
        if (with[order[i]] > 0 || (order[i] == 1 && inside > 0 && outside > 0))
            return (uint8_t)(3 | order[i] << 2);
    CHECK(0);
    return 0;
}

/* Makes the outcomes of addresses those of participants; returns how many there are. */
static size_t combine(const gl_request *request, uint8_t *of)
{
    bytes in = {request->groups, request->groups + request->group_bytes};
    uint64_t size;
    size_t at = 0, count = 0;

    for (; in.at < in.end; at += (size_t)size) {
        CHECK(plain_number(&in, &size));
        of[count++] = plain_participant(of + at, (size_t)size);
    }
    return count;
}

/* Holds a response to the claims of its addresses, and to the outcomes of what has positions. */
static void check_response(bytes in, const uint8_t *claims, size_t n, const uint8_t *of,
                           size_t positions, const gl_request *request, int asked)
{
    int reasons = request->reasons;
    uint64_t number, total = 0;
    bytes column, entry, code;

    if (n > 0) {
        CHECK(*in.at++ == 1 << 3 && plain_number(&in, &number) && number == n);
        CHECK(next_field(&in, 2, &column) && (size_t)(column.end - column.at) == 2 * n);
        for (size_t i = 0; i < n; i++)
            CHECK(memcmp(column.at + 2 * i, letters + 2 * claims[i], 2) == 0);
        CHECK(next_field(&in, 3, &column) && (size_t)(column.end - column.at) == n);
        for (size_t i = 0; i < n; i++)
            CHECK(column.at[i] == statuses[claims[i]]);
    }
    while (next_field(&in, 4, &entry)) {
        uint64_t right = 0;
        CHECK(next_field(&entry, 1, &code) && code.end - code.at == 2);
        CHECK(*entry.at++ == 2 << 3 && plain_number(&entry, &number) && entry.at == entry.end);
        for (size_t i = 0; i < n; i++)
            right += memcmp(code.at, letters + 2 * claims[i], 2) == 0;
        CHECK(number == right);
        total += number;
    }
    CHECK(total == n);
    for (unsigned field = 5; asked && field <= 7; field++)
        CHECK(next_field(&in, field, &column));
    if (asked && reasons && positions > 0) {
        CHECK(next_field(&in, 10, &column) && (size_t)(column.end - column.at) == positions);
        for (size_t i = 0; i < positions; i++)
            CHECK(column.at[i] == of[i] >> 2);
    }
    while (asked && next_field(&in, 11, &entry)) {
        uint64_t reason, right = 0;
        CHECK(*entry.at++ == 1 << 3 && plain_number(&entry, &reason));
        CHECK(*entry.at++ == 2 << 3 && plain_number(&entry, &number) && entry.at == entry.end);
        for (size_t i = 0; i < positions; i++)
            right += of[i] >> 2 == (int)reason;
        CHECK(number == right && number > 0);
    }
    if (asked && request->groups != NULL)
        CHECK(*in.at++ == 12 << 3 && plain_number(&in, &number) && number == positions);
    CHECK(in.at == in.end);
}

static void check_answer(const gl_request *request, int asked)
{
    size_t width = request->form == GL_IPV4 ? 4 : request->form == GL_IPV6 ? 16 : 1;
    size_t n = request->form == GL_TEXT ? request->texts : request->bytes / width;
    size_t size = 0, positions = n;
    uint8_t *claims, *of, *right = NULL;

    if (request->form == GL_NO_ADDRESSES || request->bytes % width != 0)
        return;
    if (request->groups != NULL && !gl_are_groups_of(request, n))
        return;
    CHECK((claims = malloc(n + 1)) != NULL && (of = malloc(n + 1)) != NULL);
    look_up(request, n, claims);
    for (size_t i = 0; i < n; i++)
        of[i] = outcomes[claims[i]];
    if (asked && request->groups != NULL)
        positions = combine(request, of);
    for (int i = 0; i < gl_count_isas(); i++) {
        gl_answer answer = {.isa = gl_isas + i, .table = &table, .results = &results,
                            .outcome = asked ? outcomes : NULL};
        uint64_t split[3] = {0};
        CHECK(gl_answer_begin(&answer, request, n));
        do
            gl_answer_step(&answer);
        while (answer.done < n);
        uint64_t reasons[GL_REASONS] = {0};
        for (size_t k = 0; asked && k < positions; k++) {
            split[(of[k] & 3) - 1]++;
            reasons[of[k] >> 2]++;
        }
        reasons[0] = 0;
        CHECK(memcmp(split, answer.by_verdict, sizeof split) == 0);
        CHECK(memcmp(reasons, answer.by_reason, sizeof reasons) == 0);
        size_t bytes_of = gl_answer_bytes(&answer);
        uint8_t *out = malloc(bytes_of);
        CHECK(out != NULL && gl_answer_write(&answer, out) == out + bytes_of);
        check_response((bytes){out, out + bytes_of}, claims, n, of, positions, request, asked);
        /* Written where it is sent from, it is the same, and fits. */
        gl_answer placed = {.isa = gl_isas + i, .table = &table, .results = &results,
                            .outcome = asked ? outcomes : NULL};
        size_t pad = gl_answer_head(n) % 2, room = gl_answer_room(&results, request, n);
        uint8_t *place = malloc(pad + room);
        CHECK(place != NULL);
        placed.response = place + pad;
        CHECK(gl_answer_begin(&placed, request, n));
        do
            gl_answer_step(&placed);
        while (placed.done < n);
        CHECK(gl_answer_write(&placed, place + pad) == place + pad + bytes_of);
        CHECK(memcmp(place + pad, out, bytes_of) == 0);
        free(placed.memory);
        free(place);
        /* The bitmaps, too, are the same on each path. */
        CHECK(right == NULL || (size == bytes_of && memcmp(right, out, size) == 0));
        free(right);
        right = out;
        size = bytes_of;
        free(answer.memory);
    }
    free(right);
    free(of);
    free(claims);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bytes in = {data, data + size};
    gl_request request, right;

    if (table.slots == NULL)
        make_dataset();
    int read = gl_read_lookup_request(data, size, &request);
    CHECK(read == plain_lookup(in, &right));
    if (read)
        check_same(&request, &right);
    read = gl_read_stream_request(data, size, &request);
    CHECK(read == plain_wrapped(in, &right));
    if (read)
        check_same(&request, &right);
    read = gl_read_roster_request(data, size, &request);
    CHECK(read == plain_request(in, &right));
    if (!read)
        return 0;
    check_same(&request, &right);
    check_answer(&request, request.region_set_bytes > 0);
    return 0;
}
