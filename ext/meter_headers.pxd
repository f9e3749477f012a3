# The C header of geolookup._meter, as far as it uses it; the header has the contract.

from libc.stdint cimport uint64_t


cdef extern from "meter.h" nogil:
    enum:
        GL_METHODS
        GL_CODES
        GL_HANDSHAKE_REASONS
        GL_STATUSES
        GL_DURATIONS
        GL_SIZES
        GL_NAMES
        GL_SIMPLE_NAMES
        GL_NAME_BYTES
        GL_NETWORK_KINDS

    const uint64_t gl_duration_bounds[]
    const uint64_t gl_size_bounds[]

    ctypedef struct gl_outcome_counts:
        uint64_t verdicts[3]
        uint64_t reasons[10]
        uint64_t networks[8]

    # Only what is used here; meter.h has the layout.
    ctypedef struct gl_region_set:
        uint64_t state
        uint64_t name[8]
        gl_outcome_counts outcomes

    ctypedef struct gl_counters:
        uint64_t calls[10][17]
        uint64_t durations[10][34]
        uint64_t nanoseconds[10]
        uint64_t shed[10]
        uint64_t addresses[8]
        uint64_t checks[8]
        uint64_t sizes[20]
        uint64_t sizes_sum
        gl_outcome_counts other_outcomes
        uint64_t networks[8]
        uint64_t handshakes
        uint64_t handshake_failures[1]
        uint64_t transfer_timeouts
        uint64_t certificate_reads[2]
        uint64_t log_dropped
        uint64_t connections_made
        uint64_t connections_closed[2]

    ctypedef struct gl_meter:
        uint64_t in_flight[10]
        uint64_t certificate_end
        uint64_t memory
        uint64_t memory_peak
        uint64_t connections
        uint64_t certificate_stale
        gl_counters counters
        gl_region_set region_sets[256]

    void gl_add(uint64_t *slot, uint64_t n)
    void gl_store(uint64_t *slot, uint64_t n)
    bint gl_meter_open(gl_meter *m)
    void gl_meter_end_call(gl_meter *m, unsigned method, unsigned code, uint64_t nanoseconds)
    void gl_meter_add_roster(gl_meter *m, const uint64_t *statuses)
    void gl_meter_add_outcome(gl_meter *m, unsigned number, unsigned outcome)
    void gl_meter_add_outcomes(gl_meter *m, unsigned number, const uint64_t *verdicts,
                               const uint64_t *reasons)
    uint64_t *gl_meter_networks(gl_meter *m, bint is_seen, unsigned number)
    void gl_meter_add_kinds(uint64_t *networks, unsigned kinds)
    void gl_meter_add_networks(uint64_t *networks, const uint64_t *counts)
    unsigned gl_meter_number(gl_meter *m, const uint64_t *name, unsigned limit)
    bint gl_meter_take_memory(gl_meter *m, uint64_t bytes, uint64_t budget)
    bint gl_meter_memory_freed(gl_meter *m, uint64_t least)
    void gl_meter_absorb(gl_meter *m, const gl_meter *other)
    void gl_meter_read(const gl_meter *m, gl_meter *copy)


cdef extern from "outcome.h" nogil:
    enum:
        GL_REASONS

    unsigned gl_outcome_verdict(unsigned outcome)
