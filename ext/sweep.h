/* Compile-time sweeps: the ranges of each source are made disjoint, then those of all sources
 * are merged.
 *
 * Plain C11. Nothing here depends on Python or on files. Both families use the same code: an
 * address is a 128-bit number, and those of IPv4 are the numbers from 0 to 2^32 - 1.
 */
#ifndef GEOLOOKUP_SWEEP_H
#define GEOLOOKUP_SWEEP_H

#include "address.h"
#include "grow.h"

#ifndef __SIZEOF_INT128__
#error "geolookup's compiler needs a C compiler with 128-bit integers (gcc or clang, 64-bit)"
#endif
__extension__ typedef unsigned __int128 gl_u128;

/* A range with the code that a source gives it, in the source's own file and line. */
typedef struct {
    uint64_t first_high, first_low, last_high, last_low;
    uint32_t line;
    uint16_t file;
    uint16_t code; /* two letters as a big-endian number; 0: no code */
} gl_range;

typedef struct {
    gl_range *rows;
    size_t n, capacity;
} gl_ranges;

/* Two rows of one size that give the same addresses different codes. */
typedef struct {
    uint32_t row, other;
} gl_clash;

typedef struct {
    gl_clash *rows;
    size_t n, capacity;
} gl_clashes;

typedef struct {
    uint8_t *data;
    size_t n, capacity;
} gl_buffer;

static inline gl_u128 gl_first(const gl_range *r)
{
    return (gl_u128)r->first_high << 64 | r->first_low;
}

static inline gl_u128 gl_last(const gl_range *r)
{
    return (gl_u128)r->last_high << 64 | r->last_low;
}

static inline int gl_push_range(gl_ranges *to, const gl_range *row)
{
    void *data = to->rows;
    if (!gl_grow(&data, to->n, 1, &to->capacity, sizeof *row))
        return 0;
    to->rows = data;
    to->rows[to->n++] = *row;
    return 1;
}

static inline int gl_push_clash(gl_clashes *to, uint32_t row, uint32_t other)
{
    void *data = to->rows;
    if (!gl_grow(&data, to->n, 1, &to->capacity, sizeof *to->rows))
        return 0;
    to->rows = data;
    to->rows[to->n++] = (gl_clash){row, other};
    return 1;
}

/* Appends the lowest `size` bytes of a value, little-endian on every machine. */
static inline int gl_append_value(gl_buffer *to, uint64_t value, unsigned size)
{
    void *data = to->data;
    if (!gl_grow(&data, to->n, size, &to->capacity, 1))
        return 0;
    to->data = data;
    for (unsigned i = 0; i < size; i++)
        to->data[to->n++] = (uint8_t)(value >> 8 * i);
    return 1;
}

/* --- one source: disjoint ranges, the more specific ones on top -------------------- */

static inline int gl_is_flat(const gl_ranges *in)
{
    for (size_t i = 1; i < in->n; i++)
        if (gl_first(in->rows + i) <= gl_last(in->rows + i - 1))
            return 0;
    return 1;
}

typedef enum { GL_SMALLEST, GL_LAST_BEGINS } gl_precedence;

typedef struct {
    gl_u128 rank, tie, first; /* of two ranges that overlap, the one with the lower rank decides */
    uint32_t row;
    uint16_t code;
} gl_ranked_range;

/* The size is that less one, since 2^128 does not fit. */
static inline gl_ranked_range gl_rank_range(const gl_ranges *in, size_t row, gl_precedence by)
{
    gl_u128 first = gl_first(in->rows + row), size = gl_last(in->rows + row) - first;
    return (gl_ranked_range){by == GL_SMALLEST ? size : ~first, by == GL_SMALLEST ? 0 : size, first,
                             (uint32_t)row, in->rows[row].code};
}

/* Lower ranks come first; then a total order, so that equal inputs give equal outputs. */
static inline int gl_compare_ranks(const void *left, const void *right)
{
    const gl_ranked_range *a = left, *b = right;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->tie != b->tie)
        return a->tie < b->tie ? -1 : 1;
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    if (a->code != b->code)
        return a->code < b->code ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

static inline int gl_compare_addresses(const void *left, const void *right)
{
    const gl_u128 *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

/* The addresses, cut at every boundary of a range. Each piece is assigned the row that decides
 * it, from the lowest rank to the highest, and no piece twice. */
typedef struct {
    gl_u128 *starts;
    uint32_t *row;  /* of each piece, perhaps with GL_SILENT; or GL_NO_ROW */
    uint32_t *next; /* where to search for a piece at or after this one without a row */
    size_t n;
} gl_pieces;

#define GL_SILENT 0x80000000u
#define GL_NO_ROW 0xFFFFFFFFu

static inline size_t gl_find_piece(const gl_pieces *pieces, gl_u128 start)
{
    size_t low = 0, high = pieces->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pieces->starts[middle] < start)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static inline size_t gl_next_unassigned(gl_pieces *pieces, size_t piece)
{
    while (pieces->next[piece] != piece) {
        pieces->next[piece] = pieces->next[pieces->next[piece]];
        piece = pieces->next[piece];
    }
    return piece;
}

static inline void gl_assign_pieces(gl_pieces *pieces, gl_u128 first, gl_u128 last, uint32_t row)
{
    size_t end = last == ~(gl_u128)0 ? pieces->n : gl_find_piece(pieces, last + 1);
    size_t piece = gl_next_unassigned(pieces, gl_find_piece(pieces, first));
    while (piece < end) {
        pieces->row[piece] = row;
        pieces->next[piece] = (uint32_t)piece + 1;
        piece = gl_next_unassigned(pieces, piece);
    }
}

static inline int gl_assign_all(const gl_ranges *in, const gl_ranked_range *order, gl_pieces *pieces,
                                gl_clashes *clashes)
{
    size_t group = 0, group_end;
    for (; group < in->n; group = group_end) {
        for (group_end = group; group_end < in->n; group_end++)
            if (order[group_end].rank != order[group].rank ||
                order[group_end].tie != order[group].tie)
                break;
        /* Ranges of one rank that overlap have equal weight. Where such ranges have
         * different codes, two neighbours in this order do. */
        for (size_t i = group + 1; i < group_end; i++) {
            gl_u128 before = gl_last(in->rows + order[i - 1].row);
            if (order[i].code == order[i - 1].code || order[i].first > before)
                continue;
            if (!gl_push_clash(clashes, order[i].row, order[i - 1].row))
                return 0;
            gl_assign_pieces(pieces, order[i].first, before, order[i].row | GL_SILENT);
        }
        for (size_t i = group; i < group_end; i++)
            gl_assign_pieces(pieces, order[i].first, gl_last(in->rows + order[i].row),
                             order[i].row);
    }
    return 1;
}

static inline int gl_collect_pieces(const gl_ranges *in, const gl_pieces *pieces, gl_ranges *out)
{
    for (size_t piece = 0; piece < pieces->n;) {
        uint32_t assigned = pieces->row[piece];
        gl_u128 first = pieces->starts[piece++];
        if (assigned == GL_NO_ROW)
            continue;
        while (piece < pieces->n && pieces->row[piece] == assigned)
            piece++;
        gl_u128 last = (piece < pieces->n ? pieces->starts[piece] : 0) - 1;
        gl_range row = in->rows[assigned & ~GL_SILENT];
        if (assigned & GL_SILENT)
            row.code = 0;
        row.first_high = (uint64_t)(first >> 64);
        row.first_low = (uint64_t)first;
        row.last_high = (uint64_t)(last >> 64);
        row.last_low = (uint64_t)last;
        if (!gl_push_range(out, &row))
            return 0;
    }
    return 1;
}

/* Fills `out` with disjoint rows in ascending order: of several ranges that hold an address
 * the smallest decides, or the one that begins last and of these the smallest; where several
 * are equal in this and have different codes the address has none, and the ranges are listed in
 * `clashes`. At most 2^30 rows. Takes O(n log n) whatever the ranges are. Returns 0 when there is
 * no memory. */
static inline int gl_flatten(const gl_ranges *in, gl_precedence by, gl_ranges *out,
                             gl_clashes *clashes)
{
    size_t n = in->n;
    int done = 0;
    gl_pieces pieces = {0};
    gl_ranked_range *order = malloc((n + 1) * sizeof *order);
    pieces.starts = malloc((2 * n + 1) * sizeof *pieces.starts);
    pieces.row = malloc((2 * n + 1) * sizeof *pieces.row);
    pieces.next = malloc((2 * n + 1) * sizeof *pieces.next);
    if (!order || !pieces.starts || !pieces.row || !pieces.next)
        goto end;

    size_t boundaries = 0;
    for (size_t i = 0; i < n; i++) {
        gl_u128 first = gl_first(in->rows + i), last = gl_last(in->rows + i);
        order[i] = gl_rank_range(in, i, by);
        pieces.starts[boundaries++] = first;
        if (last != ~(gl_u128)0)
            pieces.starts[boundaries++] = last + 1;
    }
    qsort(order, n, sizeof *order, gl_compare_ranks);
    qsort(pieces.starts, boundaries, sizeof *pieces.starts, gl_compare_addresses);
    for (size_t i = 0; i < boundaries; i++)
        if (i == 0 || pieces.starts[i] != pieces.starts[i - 1])
            pieces.starts[pieces.n++] = pieces.starts[i];
    for (size_t i = 0; i <= pieces.n; i++) {
        pieces.row[i] = GL_NO_ROW;
        pieces.next[i] = (uint32_t)i;
    }
    done = gl_assign_all(in, order, &pieces, clashes) && gl_collect_pieces(in, &pieces, out);
end:
    free(order);
    free(pieces.starts);
    free(pieces.row);
    free(pieces.next);
    return done;
}

static inline int gl_compare_nesting(const void *left, const void *right)
{
    const gl_ranked_range *a = left, *b = right;
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank > b->rank ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

/* Lists ranges that overlap another one and neither hold it nor lie in it, each at most once,
 * with one of these others. Returns 0 when there is no memory. */
static inline int gl_partial_overlaps(const gl_ranges *in, gl_clashes *found)
{
    size_t n = in->n, depth = 0;
    int done = 0;
    gl_ranked_range *order = malloc((n + 1) * sizeof *order);
    uint32_t *open = malloc((n + 1) * sizeof *open); /* those that may overlap what follows */
    if (!order || !open)
        goto end;
    for (size_t i = 0; i < n; i++)
        order[i] = gl_rank_range(in, i, GL_SMALLEST);
    /* A range comes before all that lie in it. */
    qsort(order, n, sizeof *order, gl_compare_nesting);
    for (size_t i = 0; i < n; i++) {
        const gl_range *row = in->rows + order[i].row;
        while (depth && gl_last(in->rows + open[depth - 1]) < order[i].first)
            depth--;
        if (depth && gl_last(row) > gl_last(in->rows + open[depth - 1]) &&
            !gl_push_clash(found, order[i].row, open[depth - 1]))
            goto end;
        open[depth++] = order[i].row;
    }
    done = 1;
end:
    free(order);
    free(open);
    return done;
}

/* --- one source as intervals of the whole line --------------------------------------- */

/* Intervals without gaps; neighbours have different codes. The boundaries of the ranges that
 * an interval was put together from stand in `inner`, coded; see docs/dataset-format.md. */
typedef struct {
    gl_buffer high, low, codes;
    gl_buffer merged, starts; /* numbers of the intervals with boundaries, and where these begin */
    gl_buffer inner;
    gl_u128 before;     /* the boundary before this one */
    uint32_t n;         /* intervals */
    uint32_t last_merged; /* number of the last interval with boundaries, and one more */
    uint32_t code;      /* of the last interval, and one more; 0: there is none yet */
    unsigned bits;
} gl_intervals;

/* Appends a boundary, as what it has more than the one before, in units of its own size:
 * the number of its trailing zero bits, then 7 bits a byte, the lowest first. */
static inline int gl_append_boundary(gl_buffer *to, gl_u128 before, gl_u128 boundary)
{
    unsigned zeros = (uint64_t)boundary ? (unsigned)__builtin_ctzll((uint64_t)boundary)
                                        : 64 + (unsigned)__builtin_ctzll((uint64_t)(boundary >> 64));
    gl_u128 more = (boundary >> zeros) - (before >> zeros);
    if (!gl_append_value(to, zeros, 1))
        return 0;
    for (; more >> 7; more >>= 7)
        if (!gl_append_value(to, ((uint64_t)more & 0x7F) | 0x80, 1))
            return 0;
    return gl_append_value(to, (uint64_t)more, 1);
}

/* Adds what begins where the one before ends. At most 2^32 bytes of boundaries, which 2^30
 * ranges have not. Returns 0 when there is no memory. */
static inline int gl_add_interval(gl_intervals *to, uint64_t first_high, uint64_t first_low,
                                  uint16_t code)
{
    gl_u128 first = (gl_u128)first_high << 64 | first_low, before = to->before;
    to->before = first;
    if (to->code == code + 1u) {
        if (to->last_merged != to->n &&
            !(gl_append_value(&to->merged, to->n - 1, 4) &&
              gl_append_value(&to->starts, to->inner.n, 4)))
            return 0;
        to->last_merged = to->n;
        return gl_append_boundary(&to->inner, before, first);
    }
    to->code = code + 1u;
    to->n++;
    return (to->bits == 32 || gl_append_value(&to->high, first_high, 8)) &&
           gl_append_value(&to->low, first_low, to->bits == 32 ? 4 : 8) &&
           gl_append_value(&to->codes, code, 2);
}

/* --- several layers: intervals on which none of them changes ------------------------- */

typedef struct {
    const gl_range *at, *end;
} gl_layer;

typedef struct {
    gl_layer *layers; /* each disjoint and ascending */
    uint16_t *codes;  /* of each layer, on the present interval; 0 in its gaps */
    size_t n;
    gl_u128 first; /* of the present interval */
    gl_u128 next;  /* of the one after it */
    gl_u128 top;   /* the last address of the family */
    int ended;
} gl_merge;

static inline void gl_merge_begin(gl_merge *merge, unsigned bits)
{
    merge->next = 0;
    merge->top = ~(gl_u128)0 >> (128 - bits);
    merge->ended = 0;
}

static inline uint64_t gl_merge_high(const gl_merge *merge)
{
    return (uint64_t)(merge->first >> 64);
}

static inline uint64_t gl_merge_low(const gl_merge *merge)
{
    return (uint64_t)merge->first;
}

/* Moves to the next interval, at first to the one that begins at 0. Returns 0 at the end. */
static inline int gl_merge_step(gl_merge *merge)
{
    if (merge->ended)
        return 0;
    gl_u128 first = merge->next, last = merge->top;
    for (size_t i = 0; i < merge->n; i++) {
        gl_layer *layer = merge->layers + i;
        while (layer->at < layer->end && gl_last(layer->at) < first)
            layer->at++;
        merge->codes[i] = 0;
        if (layer->at == layer->end)
            continue;
        gl_u128 start = gl_first(layer->at), until = gl_last(layer->at);
        if (start > first)
            until = start - 1;
        else
            merge->codes[i] = layer->at->code;
        if (until < last)
            last = until;
    }
    merge->first = first;
    merge->ended = last == merge->top;
    merge->next = last + 1;
    return 1;
}

#endif
