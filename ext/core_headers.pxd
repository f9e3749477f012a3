# The C headers of geolookup._core, as far as it uses them; the headers have the contracts.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "index.h" nogil:
    ctypedef struct gl_table:
        const uint32_t *first4
        const uint16_t *claim4
        size_t n4
        const uint64_t *high6
        const uint64_t *low6
        const uint16_t *claim6
        size_t n6
        size_t index_bytes

    size_t GL_MAX_CLAIMS
    size_t GL_MAX_INTERVALS6


cdef extern from "index_build.h" nogil:
    ctypedef enum gl_fault:
        GL_NO_FAULT
        GL_FIRST4_START
        GL_FIRST4_ORDER
        GL_CLAIM4_UNKNOWN
        GL_HIGH6_START
        GL_LOW6_START
        GL_FIRST6_ORDER
        GL_CLAIM6_UNKNOWN

    gl_fault gl_table_check(const gl_table *t, unsigned limit, size_t *position) noexcept
    int gl_table_build(gl_table *t) noexcept
    void gl_table_free(gl_table *t) noexcept


cdef extern from "bulk.h" nogil:
    enum:
        GL_BATCH


cdef extern from "roster_text.h" nogil:
    ctypedef struct gl_item:
        const char *data
        size_t form

    ctypedef struct gl_roster:
        uint8_t *families
        uint8_t *ipv4
        uint8_t *ipv6
        size_t n
        size_t ipv4_count
        size_t ipv6_count

    size_t GL_LONGEST_TEXT
    size_t GL_PACKED4
    size_t GL_PACKED6
    size_t GL_UNREADABLE

    void gl_write_padded(const gl_roster *roster, uint8_t *out) noexcept


cdef extern from "columns.h" nogil:
    ctypedef enum gl_choice:
        GL_EQUAL8
        GL_EQUAL16
        GL_NEITHER8

    ctypedef struct gl_selection:
        const uint8_t *column
        size_t n
        gl_choice choice
        uint16_t value

    size_t gl_find_unknown_claim(const uint16_t *claims, size_t n, size_t limit) noexcept
    void gl_map8(
        const uint16_t *claims, size_t n, const uint8_t *column, uint8_t *out) noexcept
    void gl_map16(
        const uint16_t *claims, size_t n, const uint16_t *column, uint16_t *out) noexcept
    void gl_map48(
        const uint16_t *claims, size_t n, const char *column, char *out) noexcept
    void gl_count8(const uint8_t *column, size_t n, uint64_t *counts) noexcept
    bint gl_is_letters(const uint16_t *column, size_t n) noexcept
    uint16_t gl_pair_from_number(unsigned number) noexcept
    void gl_count_letters(const uint16_t *column, size_t n, uint64_t *counts) noexcept
    void gl_count16(const uint16_t *column, size_t n, uint64_t *counts) noexcept


cdef extern from "participants.h" nogil:
    ctypedef struct gl_participants:
        const uint32_t *sizes
        size_t left
        unsigned marks
        uint8_t *out

    size_t gl_sum_sizes(const uint32_t *sizes, size_t n, uint64_t *sum) noexcept
    void gl_add_all_addresses(
        gl_participants *p, const uint8_t *outcome_by_claim, const uint16_t *claims,
        size_t n) noexcept


cdef extern from "roaring.h" nogil:
    ctypedef struct gl_container:
        uint32_t size
        uint32_t runs

    enum:
        GL_CONTAINER
        GL_CONTAINER_WORDS


cdef extern from "cpu_dispatch.h" nogil:
    ctypedef struct gl_isa:
        const char *name
        int (*parse)(const char *s, size_t n, uint8_t *out) noexcept nogil
        void (*read_items)(const gl_item *items, size_t n, gl_roster *roster) noexcept nogil
        unsigned (*claim_text)(const gl_table *t, const char *s, size_t n) noexcept nogil
        unsigned (*claim_packed)(const gl_table *t, const uint8_t *p, size_t n) noexcept nogil
        void (*classify4)(
            const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out) noexcept nogil
        void (*classify6)(
            const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out) noexcept nogil
        void (*classify_roster)(
            const gl_table *t, const gl_roster *roster, uint16_t *out) noexcept nogil
        size_t (*count_selected)(const gl_selection *s) noexcept nogil
        void (*select)(const gl_selection *s, uint32_t *out) noexcept nogil
        size_t (*roaring_measure)(
            const gl_selection *s, gl_container *containers, uint64_t *words) noexcept nogil
        void (*roaring_write)(
            const gl_selection *s, const gl_container *containers, uint64_t *words,
            uint8_t *out) noexcept nogil

    const gl_isa gl_isas[]

    int gl_count_isas() noexcept


cdef extern from "wire.h" nogil:
    ctypedef struct gl_request:
        unsigned form
        const uint8_t *addresses
        size_t bytes
        size_t texts
        const uint8_t *region_set
        size_t region_set_bytes
        int32_t policy
        bint record
        bint regions
        bint reasons
        const uint8_t *groups
        size_t participants
        uint64_t grouped
        size_t without
        int32_t networks

    enum:
        GL_TEXT
        GL_IPV4

    bint gl_read_lookup_request(const uint8_t *at, size_t bytes, gl_request *request) noexcept
    bint gl_read_roster_request(const uint8_t *at, size_t bytes, gl_request *request) noexcept
    bint gl_read_stream_request(const uint8_t *at, size_t bytes, gl_request *request) noexcept
    bint gl_are_groups_of(const gl_request *request, size_t n) noexcept
    size_t gl_varint_bytes(uint64_t value) noexcept
    uint8_t *gl_put_varint(uint8_t *out, uint64_t value) noexcept
    size_t gl_field_bytes(size_t bytes) noexcept
    uint8_t *gl_put_field(uint8_t *out, unsigned field, size_t bytes) noexcept


cdef extern from "outcome.h" nogil:
    enum:
        GL_REASONS
        GL_NETWORK_KINDS


cdef extern from "roster_answer.h" nogil:
    ctypedef struct gl_results:
        size_t claims
        size_t count
        uint8_t *networks

    ctypedef struct gl_answer:
        const gl_isa *isa
        const gl_table *table
        const gl_results *results
        const uint8_t *outcome
        int keeps_claims
        const uint16_t *claims
        size_t n
        size_t done
        void *memory
        uint64_t *by_status
        uint64_t *by_verdict
        uint64_t *by_reason
        uint64_t *by_network

    enum:
        GL_STATUSES
        GL_STEP_ADDRESSES

    bint gl_results_build(
        gl_results *k, const uint16_t *countries, const uint8_t *statuses, size_t claims) noexcept
    void gl_results_free(gl_results *k) noexcept
    bint gl_answer_begin(gl_answer *a, const gl_request *request, size_t n) noexcept
    void gl_answer_step(gl_answer *a) noexcept
    size_t gl_answer_bytes(const gl_answer *a) noexcept
    uint8_t *gl_answer_write(const gl_answer *a, uint8_t *out) noexcept
