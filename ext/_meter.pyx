# cython: embedsignature=True, embedsignature.format=clinic, auto_pickle=False, autotestdict=False
"""One worker's numbers, added to in memory that another process reads.

Nothing here depends on gRPC, files or names: methods, codes and statuses are numbers. This
file checks arguments; the layout and the additions are in meter.h. _meter.pyi has the
contract.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from meter_headers cimport *


cdef extern from "slots.h" nogil:
    ctypedef struct gl_slots:
        int64_t free

    unsigned int gl_slots_shed(gl_slots *slots, uint64_t now)
    bint gl_slots_take(gl_slots *slots)
    void gl_slots_give_back(gl_slots *slots)
    int64_t gl_slots_free(const gl_slots *slots)


SIZE = <Py_ssize_t>sizeof(gl_meter)
METHODS = <int>GL_METHODS
CODES = <int>GL_CODES
REGION_SETS = <int>GL_NAMES
EXPRESSIONS = <int>GL_NAMES - <int>GL_SIMPLE_NAMES
NAME_BYTES = <int>GL_NAME_BYTES
DURATION_BOUNDS = tuple([gl_duration_bounds[i] for i in range(GL_DURATIONS)])
SIZE_BOUNDS = tuple([gl_size_bounds[i] for i in range(GL_SIZES)])


cdef class Meter:
    """Numbers in memory of SIZE bytes, zero at first, that other processes may share."""

    cdef gl_meter *m
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, memory=None):
        if memory is None:
            memory = bytearray(SIZE)
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.held = True
        if self.view.len < SIZE:
            raise ValueError(f"memory: {self.view.len} bytes; a meter has {SIZE}")
        if <uintptr_t>self.view.buf % 8:
            raise ValueError("memory: not aligned to 8 bytes")
        if not gl_meter_open(<gl_meter *>self.view.buf):
            raise ValueError("memory: neither zero nor a meter's of this release")
        self.m = <gl_meter *>self.view.buf

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    def handle(self):
        """Return what other extension modules count with; good for as long as the meter is."""
        return PyCapsule_New(self.m, "geolookup._meter.Meter", NULL)

    def begin(self, unsigned int method, /):
        """Count a call as in flight."""
        _check(method, GL_METHODS, "method")
        gl_add(&self.m.in_flight[method], 1)

    def end(self, unsigned int method, unsigned int code, int64_t nanoseconds, /):
        """Count a call that was begun, with its code and the time it took."""
        _check(method, GL_METHODS, "method")
        _check(code, GL_CODES, "code")
        gl_meter_end_call(self.m, method, code, nanoseconds if nanoseconds > 0 else 0)

    def shed(self, unsigned int method, /):
        """Count a call that was refused because of the load."""
        _check(method, GL_METHODS, "method")
        gl_add(&self.m.counters.shed[method], 1)

    def address(
        self, unsigned int status, unsigned int region_set=0, unsigned int outcome=0,
        unsigned int networks=0, /
    ):
        """Count one address by its status, its outcome, and the kinds of its network."""
        _check(status - 1, GL_STATUSES - 1, "status")
        _check(region_set, GL_NAMES + 1, "region_set")
        _check(outcome, GL_REASONS << 2, "outcome")
        _check(networks, 1 << GL_NETWORK_KINDS, "networks")
        if outcome:
            _check(gl_outcome_verdict(outcome) - 1, 3, "outcome")
        gl_add(&self.m.counters.addresses[status], 1)
        if outcome:
            gl_meter_add_outcome(self.m, region_set, outcome)
        if networks:
            gl_meter_add_kinds(gl_meter_networks(self.m, outcome != 0, region_set), networks)

    def check(self, unsigned int status, /):
        """Count one check of Envoy's by the status of its address."""
        _check(status - 1, GL_STATUSES - 1, "status")
        gl_add(&self.m.counters.checks[status], 1)

    def roster(
        self, tuple statuses not None, unsigned int region_set=0, tuple verdicts=None,
        tuple reasons=None, tuple networks=None, /
    ):
        """Count a roster: its size, its addresses by status and by kind of network, and verdicts."""
        cdef uint64_t counts[GL_STATUSES]
        cdef uint64_t kinds[GL_NETWORK_KINDS]
        cdef uint64_t split[3]
        cdef uint64_t why[GL_REASONS]
        _read(statuses, "statuses", counts, GL_STATUSES)
        if counts[0]:
            raise ValueError("statuses: addresses without a status")
        _check(region_set, GL_NAMES + 1, "region_set")
        if networks is not None:
            _read(networks, "networks", kinds, GL_NETWORK_KINDS)
        if verdicts is not None:
            _read(verdicts, "verdicts", split, 3)
            _read(reasons or (0,) * GL_REASONS, "reasons", why, GL_REASONS)
            gl_meter_add_outcomes(self.m, region_set, split, why)
        if networks is not None:
            gl_meter_add_networks(gl_meter_networks(self.m, verdicts is not None, region_set), kinds)
        gl_meter_add_roster(self.m, counts)

    def number(self, bytes name not None, unsigned int limit, /):
        """Return the number of a region set's name; REGION_SETS if none is free."""
        cdef uint64_t padded[8]
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
        if not 0 < size <= <Py_ssize_t>GL_NAME_BYTES:
            raise ValueError(f"name: {size} bytes are not in 1..{GL_NAME_BYTES}")
        _check(limit, GL_NAMES + 1, "limit")
        memset(padded, 0, sizeof(padded))
        memcpy(padded, PyBytes_AS_STRING(name), size)
        return gl_meter_number(self.m, padded, limit)

    def handshake(self):
        """Count a TLS handshake that a client began."""
        gl_add(&self.m.counters.handshakes, 1)

    def certificate(self, bint taken, int64_t not_after, /):
        """Count a reading of the certificate, and note when the one in use ends."""
        gl_add(&self.m.counters.certificate_reads[1 if taken else 0], 1)
        gl_store(&self.m.certificate_stale, 0 if taken else 1)
        gl_store(&self.m.certificate_end, not_after if not_after > 0 else 0)

    def handshake_failure(self, unsigned int reason, /):
        """Count a TLS handshake that failed."""
        _check(reason, GL_HANDSHAKE_REASONS, "reason")
        gl_add(&self.m.counters.handshake_failures[reason], 1)

    def connection(self, bint begins, /):
        """Count a connection that was accepted, or that has ended."""
        if begins:
            gl_add(&self.m.connections, 1)
            gl_add(&self.m.counters.connections_made, 1)
        else:
            gl_add(&self.m.connections, <uint64_t>-1)

    def connection_closed(self, bint uncalled, /):
        """Count a connection that was closed for want of room."""
        gl_add(&self.m.counters.connections_closed[1 if uncalled else 0], 1)

    def transfer_timeout(self):
        """Count a call that took too long to come, or to be taken."""
        gl_add(&self.m.counters.transfer_timeouts, 1)

    def log_dropped(self):
        """Count a line of the log that was dropped."""
        gl_add(&self.m.counters.log_dropped, 1)

    def take_memory(self, uint64_t size, uint64_t budget, /):
        """Take bytes for a request and its answer; False: others have too many of the budget."""
        return gl_meter_take_memory(self.m, size, budget)

    def give_back_memory(self, uint64_t size, /):
        """Give back what `take_memory` took."""
        gl_add(&self.m.memory, -size)

    def memory_freed(self, uint64_t least, /):
        """Return whether nothing is taken now, and *least* was since this was last true."""
        return gl_meter_memory_freed(self.m, least)

    def absorb(self, Meter other not None, /):
        """Add another meter's counters to this one's; not what is true only now."""
        if other.m == self.m:
            raise ValueError("other: a meter can't absorb itself")
        gl_meter_absorb(self.m, other.m)

    def abandon(self):
        """Set the calls in flight, of a worker that has ended, to zero."""
        for method in range(GL_METHODS):
            gl_store(&self.m.in_flight[method], 0)
        gl_store(&self.m.memory, 0)
        gl_store(&self.m.connections, 0)

    def read(self):
        """Return all numbers, each read whole, by the names of the layout."""
        cdef bytes copy = PyBytes_FromStringAndSize(NULL, SIZE)
        cdef gl_meter *m = <gl_meter *><char *>PyBytes_AS_STRING(copy)
        cdef gl_counters *c = &m.counters
        cdef bytes name
        gl_meter_read(self.m, m)
        region_sets = {}
        networks = {}
        for i in range(GL_NAMES):
            if m.region_sets[i].state:
                name = (<char *>m.region_sets[i].name)[:GL_NAME_BYTES]
                text = name.rstrip(b"\0").decode()
                numbers = _outcomes(&m.region_sets[i].outcomes)
                if text in region_sets:  # two processes named it at once
                    numbers = tuple([
                        tuple([a + b for a, b in zip(*both)])
                        for both in zip(region_sets[text], numbers)])
                region_sets[text] = numbers
                kinds = _numbers(m.region_sets[i].outcomes.networks, GL_NETWORK_KINDS)
                if text in networks:
                    kinds = tuple([a + b for a, b in zip(kinds, networks[text])])
                networks[text] = kinds
        return {
            "in_flight": tuple([<int64_t>m.in_flight[i] for i in range(GL_METHODS)]),
            "certificate_end": m.certificate_end,
            "certificate_stale": m.certificate_stale,
            "calls": tuple([_numbers(c.calls[i], GL_CODES) for i in range(GL_METHODS)]),
            "durations": tuple(
                [_numbers(c.durations[i], GL_DURATIONS + 1) for i in range(GL_METHODS)]),
            "nanoseconds": _numbers(c.nanoseconds, GL_METHODS),
            "shed": _numbers(c.shed, GL_METHODS),
            "addresses": _numbers(c.addresses, GL_STATUSES),
            "checks": _numbers(c.checks, GL_STATUSES),
            "sizes": _numbers(c.sizes, GL_SIZES + 1),
            "sizes_sum": c.sizes_sum,
            "other_region_sets": _outcomes(&c.other_outcomes),
            "handshakes": c.handshakes,
            "handshake_failures": _numbers(c.handshake_failures, GL_HANDSHAKE_REASONS),
            "transfer_timeouts": c.transfer_timeouts,
            "certificate_reads": _numbers(c.certificate_reads, 2),
            "log_dropped": c.log_dropped,
            "memory": m.memory,
            "connections": m.connections,
            "connections_made": c.connections_made,
            "connections_closed": _numbers(c.connections_closed, 2),
            "region_sets": region_sets,
            "networks": _numbers(c.networks, GL_NETWORK_KINDS),
            "other_networks": _numbers(c.other_outcomes.networks, GL_NETWORK_KINDS),
            "networks_of_region_sets": networks,
        }


cdef class Slots:
    """So many at once."""

    cdef gl_slots slots

    def __cinit__(self, unsigned int number, *_args):
        self.slots.free = number

    def handle(self):
        """Return what other extension modules take from; good for as long as the slots are."""
        return PyCapsule_New(&self.slots, "geolookup._meter.Slots", NULL)

    @property
    def free(self):
        """How many can be taken."""
        return max(<int64_t>0, gl_slots_free(&self.slots))

    def take(self):
        """Take one, if there is one."""
        return gl_slots_take(&self.slots)

    def give_back(self):
        """Give one back."""
        gl_slots_give_back(&self.slots)

    def shed(self, uint64_t now, /):
        """Note that a call found none; return the milliseconds after which it may come again."""
        return gl_slots_shed(&self.slots, now)


cdef int _read(tuple numbers, str name, uint64_t *slots, Py_ssize_t n) except -1:
    cdef Py_ssize_t i
    if len(numbers) != n:
        raise ValueError(f"{name}: {len(numbers)} numbers, expected {n}")
    for i in range(n):
        slots[i] = numbers[i]
    return 0


cdef tuple _outcomes(const gl_outcome_counts *counts):
    return _numbers(counts.verdicts, 3), _numbers(counts.reasons, GL_REASONS)


cdef tuple _numbers(const uint64_t *slots, unsigned int n):
    return tuple([slots[i] for i in range(n)])


cdef inline int _check(unsigned int value, unsigned int limit, str name) except -1:
    if value >= limit:
        raise ValueError(f"{name}: out of range")
    return 0
