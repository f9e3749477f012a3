# The C headers of geolookup._sweep, as far as it uses them; the headers have the contracts.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "sweep.h" nogil:
    ctypedef struct gl_range:
        uint64_t first_high
        uint64_t first_low
        uint64_t last_high
        uint64_t last_low
        uint32_t line
        uint16_t file
        uint16_t code

    ctypedef struct gl_ranges:
        gl_range *rows
        size_t n

    ctypedef struct gl_clash:
        uint32_t row
        uint32_t other

    ctypedef struct gl_clashes:
        gl_clash *rows
        size_t n

    ctypedef struct gl_buffer:
        uint8_t *data
        size_t n

    ctypedef struct gl_layer:
        const gl_range *at
        const gl_range *end

    ctypedef struct gl_merge:
        gl_layer *layers
        uint16_t *codes
        size_t n

    int gl_push_range(gl_ranges *to, const gl_range *row)
    int gl_append_value(gl_buffer *to, uint64_t value, unsigned size)
    int gl_is_flat(const gl_ranges *ranges)
    ctypedef enum gl_precedence:
        GL_SMALLEST
        GL_LAST_BEGINS

    int gl_flatten(
        const gl_ranges *ranges, gl_precedence by, gl_ranges *out, gl_clashes *clashes
    )
    ctypedef struct gl_intervals:
        gl_buffer high
        gl_buffer low
        gl_buffer codes
        gl_buffer merged
        gl_buffer starts
        gl_buffer inner
        unsigned bits

    int gl_add_interval(
        gl_intervals *to, uint64_t first_high, uint64_t first_low, uint16_t code
    )
    int gl_partial_overlaps(const gl_ranges *ranges, gl_clashes *found)
    void gl_merge_begin(gl_merge *merge, unsigned bits)
    int gl_merge_step(gl_merge *merge)
    uint64_t gl_merge_high(const gl_merge *merge)
    uint64_t gl_merge_low(const gl_merge *merge)


cdef extern from "source_lines.h" nogil:
    ctypedef enum gl_line_layout:
        GL_RANGES
        GL_NETWORKS
        GL_DELEGATIONS

    enum:
        GL_LINE_SKIPPED
        GL_LINE_FIELDS
        GL_MAX_FIELDS

    ctypedef struct gl_line:
        gl_range range
        int family
        const char *code
        size_t code_size
        const char *place
        size_t place_size
        size_t column

    ctypedef struct gl_dialect:
        gl_line_layout layout
        char separator
        char quote
        int comments
        int spaces
        int integers
        unsigned least
        unsigned read
        unsigned place
        unsigned most
        unsigned first
        unsigned last
        unsigned code
        unsigned no_code

    int gl_read_line(const gl_dialect *d, const char *s, size_t n, gl_line *out)
    void gl_unmap_ipv4(gl_line *line)
