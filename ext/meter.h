/* One worker's numbers: counters in memory that another process may read at any moment.
 *
 * The memory is the caller's, and zero at first. Every number is a uint64 that is only
 * ever added to (wrapping at 2^64), atomically and without order between them: threads
 * and processes may write the same meter, a reader sees each number whole, and a writer
 * that is killed leaves nothing half done but what its calls in flight had begun.
 *
 * This file has the layout and no names: methods, codes and statuses are numbers.
 */
#ifndef GL_METER_H
#define GL_METER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "outcome.h"

enum {
    GL_METHODS = 10,
    GL_CODES = 17,   /* gRPC's status codes, 0 to 16 */
    GL_STATUSES = 8, /* 1 to 7; 0 is none */
    GL_DURATIONS = 33,
    GL_SIZES = 19,
    GL_NAMES = 256,      /* region sets with counters of their own */
    GL_SIMPLE_NAMES = 64, /* of which so many are kept for names without an operator */
    GL_NAME_BYTES = 64,
};

/* Why a TLS handshake failed. HANDSHAKE_FAILURES in geolookup/service/monitoring/counters.py names
 * them in this order. */
enum {
    GL_HANDSHAKE_TIMED_OUT,
    GL_HANDSHAKE_CLOSED,            /* the client closed the connection */
    GL_HANDSHAKE_REFUSED,           /* the client refused the service's certificate */
    GL_HANDSHAKE_NO_CERTIFICATE,    /* the client has none, and needs one */
    GL_HANDSHAKE_EXPIRED,           /* the client's has ended, or is not valid yet */
    GL_HANDSHAKE_UNKNOWN_AUTHORITY, /* the client's comes from none of the authorities */
    GL_HANDSHAKE_BAD_CERTIFICATE,   /* the client's is no good for another reason */
    GL_HANDSHAKE_NO_HTTP2,          /* the client offers protocols, and HTTP/2 is not among them */
    GL_HANDSHAKE_NO_TLS,            /* what came is no TLS */
    GL_HANDSHAKE_OTHER,             /* an old version, no cipher in common, ... */
    GL_HANDSHAKE_REASONS,
};

/* Changes with the layout, so that no process reads another release's memory. */
#define GL_METER_MAGIC UINT64_C(0x354d4c47) /* "GLM5" */

/* Upper bounds, inclusive, of all buckets but the last: 50 us to 10 s, in nanoseconds. */
static const uint64_t gl_duration_bounds[GL_DURATIONS] = {
    50000, 75000,
    100000, 150000, 200000, 300000, 500000, 750000,
    1000000, 1500000, 2000000, 3000000, 5000000, 7500000,
    10000000, 15000000, 20000000, 30000000, 50000000, 75000000,
    100000000, 150000000, 200000000, 300000000, 500000000, 750000000,
    1000000000, 1500000000, 2000000000, 3000000000, 5000000000, 7500000000,
    10000000000,
};

/* The same of a roster's size, in addresses. */
static const uint64_t gl_size_bounds[GL_SIZES] = {
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000,
    10000, 20000, 50000, 100000, 200000, 500000, 1000000,
};

/* Addresses seen from a region set, by verdict (INSIDE first), and the undetermined by reason; and
 * addresses by each kind of their networks. */
typedef struct {
    uint64_t verdicts[3];
    uint64_t reasons[GL_REASONS];
    uint64_t networks[GL_NETWORK_KINDS];
} gl_outcome_counts;

typedef struct {
    uint64_t state; /* 0: free; 1: being named; 2: named */
    uint64_t name[GL_NAME_BYTES / 8]; /* padded with zeros */
    gl_outcome_counts outcomes;
} gl_region_set;

/* Numbers that the successor of a dead worker continues. */
typedef struct {
    uint64_t calls[GL_METHODS][GL_CODES];
    uint64_t durations[GL_METHODS][GL_DURATIONS + 1];
    uint64_t nanoseconds[GL_METHODS];
    uint64_t shed[GL_METHODS];
    uint64_t addresses[GL_STATUSES];
    uint64_t checks[GL_STATUSES]; /* of Envoy's, each once, by its address's status */
    uint64_t sizes[GL_SIZES + 1];
    uint64_t sizes_sum;
    gl_outcome_counts other_outcomes; /* of region sets without counters of their own */
    uint64_t networks[GL_NETWORK_KINDS]; /* of addresses that were seen from no region set */
    uint64_t handshakes;
    uint64_t handshake_failures[GL_HANDSHAKE_REASONS];
    uint64_t transfer_timeouts;
    uint64_t certificate_reads[2]; /* refused, taken */
    uint64_t log_dropped;          /* lines of the log */
    uint64_t connections_made;
    uint64_t connections_closed[2]; /* for want of room: at once; before they made a call */
} gl_counters;

typedef struct {
    uint64_t magic;
    uint64_t in_flight[GL_METHODS]; /* differences: begun less ended */
    uint64_t certificate_end;       /* Unix time; 0: no certificate */
    uint64_t memory;      /* bytes of large requests and their answers that are under way */
    uint64_t memory_peak; /* the most since it was last looked at */
    uint64_t connections; /* open */
    uint64_t certificate_stale;     /* whether the newest reading was refused */
    gl_counters counters;
    gl_region_set region_sets[GL_NAMES];
} gl_meter;

static inline void gl_add(uint64_t *slot, uint64_t n)
{
    __atomic_fetch_add(slot, n, __ATOMIC_RELAXED);
}

static inline uint64_t gl_load(const uint64_t *slot)
{
    return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

static inline void gl_store(uint64_t *slot, uint64_t n)
{
    __atomic_store_n(slot, n, __ATOMIC_RELAXED);
}

static inline unsigned gl_bucket(const uint64_t *bounds, unsigned n, uint64_t value)
{
    unsigned bucket = 0;

    while (bucket < n && value > bounds[bucket])
        bucket++;
    return bucket;
}

/* Makes zeroed memory a meter. Returns whether the memory is a meter then. */
static inline int gl_meter_open(gl_meter *m)
{
    uint64_t found = 0;

    return __atomic_compare_exchange_n(&m->magic, &found, GL_METER_MAGIC, 0, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED)
           || found == GL_METER_MAGIC;
}

static inline void gl_meter_end_call(gl_meter *m, unsigned method, unsigned code,
                                     uint64_t nanoseconds)
{
    gl_counters *c = &m->counters;

    gl_add(&c->calls[method][code], 1);
    gl_add(&c->durations[method][gl_bucket(gl_duration_bounds, GL_DURATIONS, nanoseconds)], 1);
    gl_add(&c->nanoseconds[method], nanoseconds);
    gl_add(&m->in_flight[method], UINT64_MAX); /* less one */
}

/* Counts a roster by the number of its addresses of each status; every address has one. */
static inline void gl_meter_add_roster(gl_meter *m, const uint64_t *statuses)
{
    uint64_t size = 0;

    for (unsigned status = 1; status < GL_STATUSES; status++) {
        size += statuses[status];
        if (statuses[status])
            gl_add(&m->counters.addresses[status], statuses[status]);
    }
    gl_add(&m->counters.sizes[gl_bucket(gl_size_bounds, GL_SIZES, size)], 1);
    gl_add(&m->counters.sizes_sum, size);
}

/* The counters of a region set; with number GL_NAMES those of all others. */
static inline gl_outcome_counts *gl_meter_outcomes(gl_meter *m, unsigned number)
{
    return number < GL_NAMES ? &m->region_sets[number].outcomes : &m->counters.other_outcomes;
}

/* Counts one address that has a verdict or a reason. */
static inline void gl_meter_add_outcome(gl_meter *m, unsigned number, unsigned outcome)
{
    gl_outcome_counts *counts = gl_meter_outcomes(m, number);
    unsigned reason = gl_outcome_reason(outcome);

    gl_add(&counts->verdicts[gl_outcome_verdict(outcome) - 1], 1);
    if (reason)
        gl_add(&counts->reasons[reason], 1);
}

/* Counts addresses by verdict and by reason. */
static inline void gl_meter_add_outcomes(gl_meter *m, unsigned number, const uint64_t *verdicts,
                                         const uint64_t *reasons)
{
    gl_outcome_counts *counts = gl_meter_outcomes(m, number);

    for (unsigned i = 0; i < 3; i++)
        if (verdicts[i])
            gl_add(&counts->verdicts[i], verdicts[i]);
    for (unsigned reason = 1; reason < GL_REASONS; reason++)
        if (reasons[reason])
            gl_add(&counts->reasons[reason], reasons[reason]);
}

/* Where addresses seen from a region set are counted by kind of network; or from none. */
static inline uint64_t *gl_meter_networks(gl_meter *m, int is_seen, unsigned number)
{
    return is_seen ? gl_meter_outcomes(m, number)->networks : m->counters.networks;
}

/* Counts an address by the kinds of its network, a bit each. */
static inline void gl_meter_add_kinds(uint64_t *networks, unsigned kinds)
{
    for (; kinds; kinds &= kinds - 1)
        gl_add(&networks[__builtin_ctz(kinds)], 1);
}

/* Counts addresses by kind of network. */
static inline void gl_meter_add_networks(uint64_t *networks, const uint64_t *counts)
{
    for (unsigned i = 0; i < GL_NETWORK_KINDS; i++)
        if (counts[i])
            gl_add(&networks[i], counts[i]);
}

/* The number of a name (padded with zeros). A name without one gets a free one of the first
 * `limit`; GL_NAMES: none is free. Two processes that use a new name at one moment may each give
 * it a number: readers add up the counters of one name. */
static inline unsigned gl_meter_number(gl_meter *m, const uint64_t *name, unsigned limit)
{
    for (unsigned number = 0; number < limit; number++) {
        gl_region_set *set = &m->region_sets[number];
        uint64_t state = __atomic_load_n(&set->state, __ATOMIC_ACQUIRE);

        if (state == 0
            && __atomic_compare_exchange_n(&set->state, &state, 1, 0, __ATOMIC_ACQUIRE,
                                           __ATOMIC_ACQUIRE)) {
            for (unsigned i = 0; i < GL_NAME_BYTES / 8; i++)
                gl_store(&set->name[i], name[i]);
            __atomic_store_n(&set->state, 2, __ATOMIC_RELEASE);
            return number;
        }
        if (state == 2 && memcmp(set->name, name, GL_NAME_BYTES) == 0)
            return number;
    }
    return GL_NAMES;
}

/* Adds another meter's counters to this one's. The other is read while it may be written. */
static inline void gl_meter_absorb(gl_meter *m, const gl_meter *other)
{
    uint64_t *to = (uint64_t *)&m->counters;
    const uint64_t *from = (const uint64_t *)&other->counters;

    for (size_t i = 0; i < sizeof(gl_counters) / 8; i++)
        gl_add(&to[i], gl_load(&from[i]));
    for (unsigned number = 0; number < GL_NAMES; number++) {
        const gl_region_set *set = &other->region_sets[number];
        uint64_t *sums;

        if (__atomic_load_n(&set->state, __ATOMIC_ACQUIRE) != 2)
            continue;
        sums = (uint64_t *)gl_meter_outcomes(m, gl_meter_number(m, set->name, GL_NAMES));
        from = (const uint64_t *)&set->outcomes;
        for (size_t i = 0; i < sizeof set->outcomes / 8; i++)
            gl_add(&sums[i], gl_load(&from[i]));
    }
}

/* Adds to the bytes that are under way; others add to them and take away, too. */
static inline void gl_meter_add_memory(gl_meter *m, uint64_t bytes)
{
    uint64_t taken = __atomic_add_fetch(&m->memory, bytes, __ATOMIC_RELAXED);

    if (taken > gl_load(&m->memory_peak))
        gl_store(&m->memory_peak, taken);
}

/* Takes bytes of a budget, unless others have so many that it is exceeded; 0: they have. */
static inline int gl_meter_take_memory(gl_meter *m, uint64_t bytes, uint64_t budget)
{
    uint64_t taken = gl_load(&m->memory);

    do
        if (taken > 0 && taken + bytes > budget)
            return 0;
    while (!__atomic_compare_exchange_n(&m->memory, &taken, taken + bytes, 1, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
    if (taken + bytes > gl_load(&m->memory_peak))
        gl_store(&m->memory_peak, taken + bytes);
    return 1;
}

/* Whether none is under way, and at least so much was since the last time. */
static inline int gl_meter_memory_freed(gl_meter *m, uint64_t least)
{
    if (gl_load(&m->memory) > 0 || gl_load(&m->memory_peak) < least)
        return 0;
    gl_store(&m->memory_peak, 0);
    return 1;
}

/* A copy of everything, each number read whole; a set whose name is not whole has none. */
static inline void gl_meter_read(const gl_meter *m, gl_meter *copy)
{
    const uint64_t *from = (const uint64_t *)m;
    uint64_t *to = (uint64_t *)copy;

    for (unsigned number = 0; number < GL_NAMES; number++) {
        gl_region_set *set = &copy->region_sets[number];
        set->state = __atomic_load_n(&m->region_sets[number].state, __ATOMIC_ACQUIRE) == 2;
    }
    for (size_t i = 0; i < offsetof(gl_meter, region_sets) / 8; i++)
        to[i] = gl_load(&from[i]);
    for (unsigned number = 0; number < GL_NAMES; number++) {
        const gl_region_set *set = &m->region_sets[number];
        gl_region_set *kept = &copy->region_sets[number];
        for (unsigned i = 0; i < GL_NAME_BYTES / 8; i++)
            kept->name[i] = kept->state ? gl_load(&set->name[i]) : 0;
        from = (const uint64_t *)&set->outcomes;
        to = (uint64_t *)&kept->outcomes;
        for (size_t i = 0; i < sizeof set->outcomes / 8; i++)
            to[i] = kept->state ? gl_load(&from[i]) : 0;
    }
}

#endif
