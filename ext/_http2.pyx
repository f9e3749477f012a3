# cython: embedsignature=True, embedsignature.format=clinic, auto_pickle=False, autotestdict=False
"""The HTTP/2 server of a worker, and the work that it leaves to Python.

The event loop and all that it does without Python is in the C headers beside this file, from
event_loop.h down. This file makes its objects, lends it threads, and hands jobs over.
_http2.pyi has the contract.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strdup

from posix.unistd cimport close

cimport cython

from binascii import a2b_base64, b2a_base64


cdef extern from "event_loop.h" nogil:
    """
    #define GL_METER_NAME "geolookup._meter.Meter"
    #define GL_SLOTS_NAME "geolookup._meter.Slots"

    static inline void gl_lock(gl_server *s) { pthread_mutex_lock(&s->lock); }
    static inline void gl_unlock(gl_server *s) { pthread_mutex_unlock(&s->lock); }
    """
    const char *GL_CORE_API_NAME
    const char *GL_TABLE_NAME
    const char *GL_RESULTS_NAME
    const char *GL_METER_NAME
    const char *GL_SLOTS_NAME
    const char *NGHTTP2_VERSION
    const bint gl_has_tls
    size_t GL_PREFIX
    size_t GL_ALLOW_METHODS
    size_t GL_OWN_FIELDS
    size_t GL_OWN_FIELD_BYTES
    size_t GL_PERSPECTIVES
    size_t GL_ROUTES
    uint64_t GL_NEVER

    ctypedef struct gl_core_api:
        pass
    ctypedef struct gl_table_handle:
        pass
    ctypedef struct gl_results:
        pass
    ctypedef struct gl_meter:
        pass
    ctypedef struct gl_slots:
        pass
    ctypedef struct gl_tls_context:
        pass
    ctypedef struct gl_perspective:
        pass
    ctypedef struct gl_job_queue:
        pass

    ctypedef enum gl_rule_kind:
        GL_DECIDES
        GL_COUNTS
        GL_LABELS

    ctypedef struct gl_rule:
        unsigned number
        gl_rule_kind kind
        unsigned passes
        const uint8_t *outcomes
        const uint8_t *hosts
        size_t hosts_bytes
        const uint8_t *prefix
        size_t prefix_bytes
        const uint8_t *refusal
        size_t refusal_bytes
        const uint8_t *route
        size_t route_bytes

    ctypedef struct gl_authorization:
        gl_rule **rules
        size_t rule_count
        const uint16_t *country_of
        const uint32_t *country_begin
        const uint8_t *countries
        const uint8_t *dataset
        const uint8_t *no_verdict
        size_t dataset_bytes
        size_t no_verdict_bytes
        const uint32_t *metadata_begin
        const uint8_t *metadata
        const uint8_t *dataset_metadata
        size_t dataset_metadata_bytes
        const uint8_t *address_header
        size_t address_header_bytes
        bint labels

    ctypedef struct gl_check:
        const uint8_t *route
        size_t route_bytes

    ctypedef enum gl_job_kind:
        GL_JOB_ROSTER
        GL_JOB_UNARY
        GL_JOB_MESSAGE
        GL_JOB_BEGIN
        GL_JOB_NEXT
        GL_JOB_MORE
        GL_JOB_LAST
        GL_JOB_END
        GL_JOB_UNPACK
        GL_JOB_DROP

    ctypedef enum gl_method_kind:
        GL_LOOKUP
        GL_ROSTER
        GL_ROSTERS
        GL_AUTHORIZATION
        GL_HEALTH_CHECK
        GL_HEALTH_WATCH
        GL_PYTHON
        GL_PYTHON_STREAM

    ctypedef struct gl_fields:
        uint8_t *at
        size_t bytes

    ctypedef struct gl_job:
        gl_job_kind kind
        unsigned method
        const char *path
        uint64_t serial
        uint64_t position
        uint64_t accepted
        uint64_t deadline
        uint8_t *body
        size_t size
        uint8_t *metadata
        uint8_t *identities
        size_t metadata_bytes
        size_t identities_bytes
        int gone
        gl_snapshot *snapshot
        gl_perspective *perspective
        gl_rule *route
        int code
        int shed
        int finished
        int more
        char *text
        uint8_t *answer
        uint8_t *memory
        size_t answer_bytes
        gl_fields headers
        gl_fields trailers

    ctypedef struct gl_snapshot:
        int users
        gl_job *last_job
        void *owner
        const gl_table_handle *table
        const gl_results *results
        size_t claims
        bint has_regions
        const uint8_t *statuses
        const uint8_t *networks
        const uint8_t *heads
        const uint32_t *begin
        const uint8_t *tail
        size_t tail_bytes
        const uint8_t *named
        size_t named_bytes
        int64_t stale_from
        gl_authorization *authorization

    ctypedef struct gl_method:
        char *path
        size_t size
        unsigned number
        gl_method_kind kind
        int lasting
        gl_slots *slots
        const char *shed
        const char *refused

    ctypedef struct gl_server_settings:
        uint64_t message_bytes
        uint64_t roster
        uint64_t metadata_bytes
        uint32_t streams
        uint64_t connections
        uint64_t memory
        uint64_t handshake_timeout
        uint64_t transfer_timeout
        uint64_t idle
        uint64_t keepalive
        uint64_t age
        uint64_t grace
        uint32_t policies
        int unanimous
        int compression
        int metadata
        int identities
        const char *service

    ctypedef struct gl_allow:
        int any
        int *listed
        size_t *count
        char ***names

    ctypedef struct gl_server:
        gl_server_settings settings
        gl_method *methods
        size_t method_count
        gl_slots *other_slots
        const gl_core_api *core
        gl_meter *meter
        gl_allow allow
        gl_snapshot *snapshot
        gl_job_queue rosters
        gl_job_queue rare
        gl_job_queue done
        gl_snapshot *next_snapshot
        gl_tls_context *next_context
        gl_tls_context *context
        int next_serving
        int next_private
        int retire_asked
        int stop_asked
        uint64_t stop_asked_at

    gl_server *gl_server_new() noexcept
    void gl_server_free(gl_server *s) noexcept
    bint gl_listen(gl_server *s, int descriptor) noexcept
    int gl_run(gl_server *s) noexcept
    void gl_work_on_rosters(gl_server *s) noexcept
    void gl_wake(gl_server *s) noexcept
    void gl_lock(gl_server *s) noexcept
    void gl_unlock(gl_server *s) noexcept
    gl_job *gl_jobs_get(gl_job_queue *q) noexcept
    void gl_jobs_put(gl_job_queue *q, gl_job *job) noexcept
    void gl_jobs_close(gl_job_queue *q) noexcept
    int gl_job_gone(const gl_job *job) noexcept
    void gl_job_free(gl_job *job) noexcept
    void gl_snapshot_drop(gl_server *s, gl_snapshot *snapshot) noexcept
    void gl_snapshot_free(gl_snapshot *snapshot) noexcept
    gl_perspective *gl_perspective_new(
        const uint8_t *expression, size_t size, int32_t policy, bint stale, unsigned number,
        const uint8_t *outcomes, size_t claims) noexcept
    void gl_snapshot_add(gl_snapshot *snapshot, gl_perspective *perspective) noexcept
    void gl_add_route(gl_authorization *authorization, gl_rule *rule) noexcept
    gl_rule *gl_rule_new(const gl_rule *rule, size_t claims) noexcept
    void gl_authorization_free(gl_authorization *authorization) noexcept
    bint gl_read_check_request(const gl_authorization *authorization, const uint8_t *data,
                               size_t size, gl_check *check) noexcept
    gl_tls_context *gl_tls_context_new(
        const char *chain, int chain_bytes, const char *key, int key_bytes,
        const char *authorities, int authorities_bytes) noexcept
    uint64_t gl_clock() noexcept


LIBRARY = NGHTTP2_VERSION.decode()
HAS_TLS = bool(gl_has_tls)

# How a method is answered.
LOOKUP = <int>GL_LOOKUP
ROSTER = <int>GL_ROSTER
ROSTERS = <int>GL_ROSTERS
AUTHORIZATION = <int>GL_AUTHORIZATION
HEALTH_CHECK = <int>GL_HEALTH_CHECK
HEALTH_WATCH = <int>GL_HEALTH_WATCH
PYTHON = <int>GL_PYTHON
PYTHON_STREAM = <int>GL_PYTHON_STREAM

# How many region sets with a policy, and routes with a rule, a dataset keeps at hand.
PERSPECTIVES = <int>GL_PERSPECTIVES
ROUTES = <int>GL_ROUTES

# What a rule of Envoy's authorization does.
DECIDES = <int>GL_DECIDES
COUNTS = <int>GL_COUNTS
LABELS = <int>GL_LABELS

# What a job is.
UNARY = <int>GL_JOB_UNARY
MESSAGE = <int>GL_JOB_MESSAGE
BEGIN = <int>GL_JOB_BEGIN
NEXT = <int>GL_JOB_NEXT
MORE = <int>GL_JOB_MORE
LAST = <int>GL_JOB_LAST
END = <int>GL_JOB_END
UNPACK = <int>GL_JOB_UNPACK


cdef gl_perspective *_perspective(bytes region_set, int32_t policy, bint stale, unsigned int number,
                                  bytes outcomes, size_t claims) except? NULL:
    """Make a perspective; NULL: the region set is too long, or there is no memory."""
    if <size_t>PyBytes_GET_SIZE(outcomes) != claims:
        raise ValueError("outcomes: not one for each claim")
    return gl_perspective_new(
        <const uint8_t *>PyBytes_AS_STRING(region_set), PyBytes_GET_SIZE(region_set), policy,
        stale, number, <const uint8_t *>PyBytes_AS_STRING(outcomes), claims)


cdef gl_rule *_rule(tuple given, bytes route, size_t claims) except NULL:
    """Copy a rule: see _http2.Rule."""
    cdef gl_rule rule
    cdef gl_rule *made
    cdef bytes outcomes, hosts, prefix, refusal
    cdef int kind
    outcomes, rule.number, kind, rule.passes, hosts, prefix, refusal = given
    rule.kind = <gl_rule_kind>kind
    if <size_t>PyBytes_GET_SIZE(outcomes) != claims:
        raise ValueError("outcomes: not one for each claim")
    rule.outcomes = <const uint8_t *>PyBytes_AS_STRING(outcomes)
    rule.hosts = <const uint8_t *>PyBytes_AS_STRING(hosts)
    rule.hosts_bytes = PyBytes_GET_SIZE(hosts)
    rule.prefix = <const uint8_t *>PyBytes_AS_STRING(prefix)
    rule.prefix_bytes = PyBytes_GET_SIZE(prefix)
    rule.refusal = <const uint8_t *>PyBytes_AS_STRING(refusal)
    rule.refusal_bytes = PyBytes_GET_SIZE(refusal)
    rule.route = <const uint8_t *>PyBytes_AS_STRING(route)
    rule.route_bytes = PyBytes_GET_SIZE(route)
    made = gl_rule_new(&rule, claims)
    if made == NULL:
        raise MemoryError
    return made


cdef gl_authorization *_authorization(tuple given, size_t claims) except NULL:
    """Make what answers Envoy's checks; but for the rules it points to what was given."""
    cdef gl_authorization *made
    cdef bytes country_of, begin, countries, dataset, no_verdict, address_header
    cdef bytes metadata_begin, metadata, dataset_metadata
    cdef list rules, routes
    cdef bint labels
    (rules, routes, country_of, begin, countries, dataset, no_verdict, metadata_begin, metadata,
     dataset_metadata, address_header, labels) = given
    if <size_t>PyBytes_GET_SIZE(country_of) != 2 * claims:
        raise ValueError("country_of: not one number for each claim")
    made = <gl_authorization *>calloc(1, sizeof(gl_authorization))
    if made == NULL:
        raise MemoryError
    made.rules = <gl_rule **>calloc(len(rules) + 1, sizeof(gl_rule *))
    try:
        if made.rules == NULL:
            raise MemoryError
        for rule in rules:
            made.rules[made.rule_count] = _rule(rule, b"", claims)
            made.rule_count += 1
        for route, rule in routes:
            gl_add_route(made, _rule(rule, route, claims))
    except:
        gl_authorization_free(made)
        raise
    made.country_of = <const uint16_t *>PyBytes_AS_STRING(country_of)
    made.country_begin = <const uint32_t *>PyBytes_AS_STRING(begin)
    made.countries = <const uint8_t *>PyBytes_AS_STRING(countries)
    made.dataset = <const uint8_t *>PyBytes_AS_STRING(dataset)
    made.dataset_bytes = PyBytes_GET_SIZE(dataset)
    made.no_verdict = <const uint8_t *>PyBytes_AS_STRING(no_verdict)
    made.no_verdict_bytes = PyBytes_GET_SIZE(no_verdict)
    made.metadata_begin = <const uint32_t *>PyBytes_AS_STRING(metadata_begin)
    made.metadata = <const uint8_t *>PyBytes_AS_STRING(metadata)
    made.dataset_metadata = <const uint8_t *>PyBytes_AS_STRING(dataset_metadata)
    made.dataset_metadata_bytes = PyBytes_GET_SIZE(dataset_metadata)
    made.labels = labels
    made.address_header = <const uint8_t *>PyBytes_AS_STRING(address_header)
    made.address_header_bytes = PyBytes_GET_SIZE(address_header)
    return made


cdef int _set_fields(gl_fields *fields, pairs) except -1:
    """Keep header fields in the form of gl_fields."""
    cdef uint32_t[2] sizes
    cdef bytes kept
    pieces = []
    for name, value in pairs:
        name = name.encode("ascii")
        if name.endswith(b"-bin"):
            value = b2a_base64(value, newline=False).rstrip(b"=")
        elif isinstance(value, str):
            value = value.encode("latin-1")
        sizes = [len(name), len(value)]
        pieces += [(<char *>sizes)[:sizeof(sizes)], name, value]
    if not pieces:
        return 0
    kept = b"".join(pieces)
    if <size_t>len(pieces) > 3 * GL_OWN_FIELDS or <size_t>len(kept) > GL_OWN_FIELD_BYTES:
        raise ValueError("header fields: too many, or too large")
    free(fields.at)
    fields.bytes = len(kept)
    fields.at = <uint8_t *>malloc(fields.bytes)
    if fields.at == NULL:
        raise MemoryError
    memcpy(fields.at, PyBytes_AS_STRING(kept), fields.bytes)
    return 0


def _decoded(value):
    """Return the bytes of a "-bin" field; several in one are joined by commas."""
    try:
        return a2b_base64(value + b"=" * (-len(value) % 4))
    except ValueError:
        return b""


@cython.final
cdef class Job:
    """Work for Python: one message of a call, or a stream's beginning or end."""

    cdef gl_job *job
    cdef Server server
    cdef readonly bytes body

    def __dealloc__(self):
        if self.job != NULL:  # what should have answered it failed
            self.job.code = 13
            self._done()

    cdef void _done(self):
        cdef gl_job *job = self.job
        self.job = NULL
        gl_jobs_put(&self.server.server.done, job)
        gl_wake(self.server.server)

    cdef int _check(self) except -1:
        if self.job == NULL:
            raise RuntimeError("the job is done")
        return 0

    @property
    def kind(self):
        """UNARY, MESSAGE, BEGIN, NEXT, MORE, LAST, END or UNPACK."""
        self._check()
        return <int>self.job.kind

    @property
    def method(self):
        """The meter's number of the method."""
        self._check()
        return self.job.method

    @property
    def path(self):
        """The method's path."""
        self._check()
        return self.job.path.decode()

    @property
    def stream(self):
        """A number that the stream has to itself."""
        self._check()
        return self.job.serial

    @property
    def position(self):
        """The position of the message in its stream, from 0."""
        self._check()
        return self.job.position

    @property
    def accepted(self):
        """`time.monotonic_ns` when the call came."""
        self._check()
        return self.job.accepted

    @property
    def deadline(self):
        """`time.monotonic` from which on nobody waits; None: somebody always does."""
        self._check()
        return self.job.deadline / 1e9 if self.job.deadline else None

    @property
    def snapshot(self):
        """The object that was given to `Server.set_snapshot`."""
        self._check()
        return (<tuple>self.job.snapshot.owner)[0]

    @property
    def metadata(self):
        """The call's metadata, if the server keeps it: pairs of name and value."""
        cdef size_t at = 0
        cdef uint32_t[2] sizes
        self._check()
        found = []
        while at < self.job.metadata_bytes:
            memcpy(sizes, self.job.metadata + at, sizeof(sizes))
            at += sizeof(sizes)
            name = (<char *>self.job.metadata)[at:at + sizes[0]].decode("latin-1")
            at += sizes[0]
            value = (<char *>self.job.metadata)[at:at + sizes[1]]
            at += sizes[1]
            if name.endswith("-bin"):
                found.extend((name, _decoded(one)) for one in value.split(b","))
            else:
                found.append((name, value.decode("latin-1")))
        return tuple(found)

    def auth_context(self):
        """Return who calls as gRPC's auth context has it: names by kind."""
        self._check()
        found = {}
        if self.job.identities_bytes:
            texts = (<char *>self.job.identities)[:self.job.identities_bytes].split(b"\0")
            for kind, name in zip(texts[::2], texts[1::2]):
                found.setdefault(kind.decode(), []).append(name)
        return found

    def gone(self):
        """Return the status code of a call whose client has gone, and 0 while it waits."""
        return 1 if self.job == NULL else gl_job_gone(self.job)

    def learn(self, bytes region_set not None, int32_t policy, unsigned int number,
              bytes outcomes not None, *, bint stale=False):
        """Have calls like this one answered without Python from now on."""
        self._check()
        if self.job.perspective == NULL:
            self.job.perspective = _perspective(
                region_set, policy, stale, number, outcomes, self.job.snapshot.claims)

    def route(self):
        """Return what a CheckRequest's route says of a rule of its own, or b""."""
        cdef gl_check check
        self._check()
        if self.job.snapshot.authorization == NULL or not gl_read_check_request(
                self.job.snapshot.authorization, <const uint8_t *>PyBytes_AS_STRING(self.body),
                PyBytes_GET_SIZE(self.body), &check):
            return b""
        return PyBytes_FromStringAndSize(<const char *>check.route, check.route_bytes)

    def learn_route(self, bytes route not None, tuple rule not None):
        """Have CheckRequests of a route answered without Python from now on."""
        self._check()
        if self.job.route == NULL:
            self.job.route = _rule(rule, route, self.job.snapshot.claims)

    def answer(self, bytes message not None, *, headers=(), trailers=(), bint more=False,
               bint finished=False):
        """Send an answer."""
        cdef size_t room = 0
        self._check()
        _set_fields(&self.job.headers, headers)
        _set_fields(&self.job.trailers, trailers)
        self.job.more = more
        self.job.finished = finished
        if self.job.kind != GL_JOB_UNPACK:
            room = GL_PREFIX
        self.job.answer_bytes = PyBytes_GET_SIZE(message)
        self.job.memory = <uint8_t *>malloc(room + self.job.answer_bytes + 1)
        self.job.answer = self.job.memory
        if self.job.answer == NULL:
            raise MemoryError
        memcpy(self.job.answer + room, PyBytes_AS_STRING(message), self.job.answer_bytes)
        self._done()

    def done(self, *, headers=(), trailers=(), bint more=False, bint finished=False):
        """End the job without an answer."""
        self._check()
        _set_fields(&self.job.headers, headers)
        _set_fields(&self.job.trailers, trailers)
        self.job.more = more
        self.job.finished = finished
        self._done()

    def refuse(self, int code, str text not None, bint shed=False, *, headers=(), trailers=()):
        """End the call with a status code other than 0, and its text."""
        self._check()
        if not 0 < code <= 16:
            raise ValueError("code: not one of gRPC's, or OK")
        _set_fields(&self.job.headers, headers)
        _set_fields(&self.job.trailers, trailers)
        encoded = text.encode()
        self.job.text = strdup(encoded)
        self.job.code = code
        self.job.shed = shed
        self._done()


cdef class Server:
    """An HTTP/2 server; see _http2.pyi."""

    cdef gl_server *server
    cdef list kept
    cdef bint ran

    def __cinit__(self, *, api, meter, dict settings, list methods, dict allow):
        cdef gl_server *s = gl_server_new()
        cdef gl_method *method
        cdef size_t i
        if s == NULL:
            raise OSError(errno, "the event loop can't be made")
        self.server = s
        self.kept = [api, meter, settings, methods]
        s.core = <const gl_core_api *>PyCapsule_GetPointer(api, GL_CORE_API_NAME)
        s.meter = <gl_meter *>PyCapsule_GetPointer(meter, GL_METER_NAME)
        s.settings = settings
        # Cython copies pointers to the bytes of these, which `kept` keeps.
        s.settings.service = PyBytes_AS_STRING(settings["service"])
        s.methods = <gl_method *>calloc(len(methods) + 1, sizeof(gl_method))
        if s.methods == NULL:
            raise MemoryError
        for path, number, kind, lasting, slots, shed, refused in methods:
            method = &s.methods[s.method_count]
            method.path = strdup(path)
            method.size = len(path)
            method.number = number
            method.kind = <gl_method_kind><int>kind
            method.lasting = lasting
            method.shed = PyBytes_AS_STRING(shed)
            method.refused = PyBytes_AS_STRING(refused)
            if slots is not None:
                method.slots = <gl_slots *>PyCapsule_GetPointer(slots, GL_SLOTS_NAME)
                if s.other_slots == NULL or kind == GL_ROSTER:
                    s.other_slots = method.slots
            s.method_count += 1
        for number, names in allow.items():
            i = number
            if i >= GL_ALLOW_METHODS:
                raise ValueError("allow: no such method")
            s.allow.any = 1
            s.allow.listed[i] = 1
            s.allow.names[i] = <char **>calloc(len(names) + 1, sizeof(char *))
            if s.allow.names[i] == NULL:
                raise MemoryError
            for name in names:
                s.allow.names[i][s.allow.count[i]] = strdup(name)
                s.allow.count[i] += 1

    def __dealloc__(self):
        if self.server != NULL:
            gl_server_free(self.server)

    def listen(self, int descriptor, /):
        """Take a socket that listens over; it is this server's to close."""
        if not gl_listen(self.server, descriptor):
            raise OSError(errno, "the event loop can't watch the socket")

    def set_snapshot(self, owner not None, *, table, results, bytes statuses not None,
                     bytes heads not None, bytes begin not None, bytes tail not None,
                     bytes named not None, bytes networks=None, bint has_regions=False, int64_t stale_from=0, tuple authorization=None,
                     list perspectives=[]):
        """Answer calls that come from now on from this dataset."""
        cdef gl_snapshot *snapshot
        cdef gl_snapshot *before
        cdef gl_perspective *perspective
        cdef size_t claims = PyBytes_GET_SIZE(statuses)
        if <size_t>PyBytes_GET_SIZE(begin) != 4 * (claims + 1):
            raise ValueError("begin: not one number for each claim and one more")
        if networks is not None and <size_t>PyBytes_GET_SIZE(networks) != claims:
            raise ValueError("networks: not one byte for each claim")
        if (<const uint32_t *>PyBytes_AS_STRING(begin))[claims] != <size_t>PyBytes_GET_SIZE(heads):
            raise ValueError("begin: does not end where heads does")
        snapshot = <gl_snapshot *>calloc(1, sizeof(gl_snapshot))
        if snapshot == NULL:
            raise MemoryError
        snapshot.last_job = <gl_job *>calloc(1, sizeof(gl_job))
        if snapshot.last_job == NULL:
            free(snapshot)
            raise MemoryError
        try:
            if authorization is not None:
                snapshot.authorization = _authorization(authorization, claims)
            for region_set, policy, number, outcomes, stale in perspectives:
                perspective = _perspective(region_set, policy, stale, number, outcomes, claims)
                if perspective != NULL:
                    gl_snapshot_add(snapshot, perspective)
        except:
            gl_job_free(snapshot.last_job)
            gl_snapshot_free(snapshot)
            raise
        kept = (owner, table, results, statuses, networks, heads, begin, tail, named, authorization)
        snapshot.users = 1
        snapshot.table = <const gl_table_handle *>PyCapsule_GetPointer(
            table.handle(), GL_TABLE_NAME)
        snapshot.results = <const gl_results *>PyCapsule_GetPointer(results.handle(), GL_RESULTS_NAME)
        snapshot.claims = claims
        snapshot.has_regions = has_regions
        snapshot.statuses = <const uint8_t *>PyBytes_AS_STRING(statuses)
        if networks is not None:
            snapshot.networks = <const uint8_t *>PyBytes_AS_STRING(networks)
        snapshot.heads = <const uint8_t *>PyBytes_AS_STRING(heads)
        snapshot.begin = <const uint32_t *>PyBytes_AS_STRING(begin)
        snapshot.tail = <const uint8_t *>PyBytes_AS_STRING(tail)
        snapshot.tail_bytes = PyBytes_GET_SIZE(tail)
        snapshot.named = <const uint8_t *>PyBytes_AS_STRING(named)
        snapshot.named_bytes = PyBytes_GET_SIZE(named)
        snapshot.stale_from = stale_from
        Py_INCREF(kept)
        snapshot.owner = <void *>kept
        if not self.ran:
            before = self.server.snapshot
            self.server.snapshot = snapshot
        else:
            gl_lock(self.server)
            before = self.server.next_snapshot
            self.server.next_snapshot = snapshot
            gl_unlock(self.server)
        gl_snapshot_drop(self.server, before)
        gl_wake(self.server)

    def set_certificate(self, bytes chain not None, bytes key not None, bytes authorities, /):
        """Shake hands with this certificate from now on; ValueError: OpenSSL does not take it."""
        cdef gl_tls_context *context
        cdef const char *trusted = NULL
        cdef int trusted_bytes = 0
        if authorities is not None:
            trusted = PyBytes_AS_STRING(authorities)
            trusted_bytes = <int>PyBytes_GET_SIZE(authorities)
        context = gl_tls_context_new(
            PyBytes_AS_STRING(chain), <int>PyBytes_GET_SIZE(chain), PyBytes_AS_STRING(key),
            <int>PyBytes_GET_SIZE(key), trusted, trusted_bytes)
        if context == NULL:
            raise ValueError("OpenSSL does not take the certificate")
        if not self.ran:
            self.server.context, context = context, self.server.context
        else:
            gl_lock(self.server)
            self.server.next_context, context = context, self.server.next_context
            gl_unlock(self.server)
        if context != NULL:
            _free_context(context)
        gl_wake(self.server)

    def set_serving(self, bint serving, /):
        """Have health checks say SERVING, or NOT_SERVING."""
        gl_lock(self.server)
        self.server.next_serving = serving
        gl_unlock(self.server)
        gl_wake(self.server)

    def serve_supervisor(self, int descriptor, /):
        """Answer a lookup for each call on a connected socket, which is this server's to close."""
        cdef int before
        gl_lock(self.server)
        before = self.server.next_private
        self.server.next_private = descriptor
        gl_unlock(self.server)
        if before >= 0:
            close(before)
        gl_wake(self.server)

    def retire_connections(self):
        """Tell each connection (GOAWAY) to make its further calls on another one."""
        gl_lock(self.server)
        self.server.retire_asked = 1
        gl_unlock(self.server)
        gl_wake(self.server)

    def stop(self, uint64_t grace, /):
        """Begin to stop; calls have this many nanoseconds. A shorter time replaces a longer."""
        cdef uint64_t at = gl_clock() + grace
        gl_lock(self.server)
        if not self.server.stop_asked or at < self.server.stop_asked_at:
            self.server.stop_asked_at = at
        self.server.stop_asked = 1
        gl_unlock(self.server)
        gl_wake(self.server)

    def run(self):
        """Run the event loop in this thread, without the interpreter lock, until the stop is over."""
        cdef gl_server *s = self.server
        cdef int error
        if self.ran or s.snapshot == NULL:
            raise RuntimeError("run: was called before, or there is no snapshot")
        self.ran = True
        with nogil:
            error = gl_run(s)
        gl_snapshot_drop(s, s.snapshot)
        s.snapshot = NULL
        gl_lock(s)
        gl_snapshot_drop(s, s.next_snapshot)
        s.next_snapshot = NULL
        gl_unlock(s)
        gl_jobs_close(&s.rosters)
        gl_jobs_close(&s.rare)
        if error:
            raise OSError(error, "the event loop has failed")

    def work(self):
        """Work on large rosters in this thread, without the interpreter lock, until it is over."""
        cdef gl_server *s = self.server
        with nogil:
            gl_work_on_rosters(s)

    def next(self):
        """Wait for the next job for Python, and return it; None: there will be none."""
        cdef gl_server *s = self.server
        cdef gl_job *job
        cdef Job result
        while True:
            with nogil:
                job = gl_jobs_get(&s.rare)
            if job == NULL:
                return None
            if job.kind != GL_JOB_DROP:
                break
            Py_DECREF(<tuple>job.snapshot.owner)
            gl_snapshot_free(job.snapshot)
            gl_job_free(job)
        result = Job.__new__(Job)
        result.server = self
        result.job = job
        result.body = PyBytes_FromStringAndSize(<char *>job.body, job.size)
        free(job.body)
        job.body = NULL
        return result


cdef extern from "event_loop.h" nogil:
    void _free_context "gl_tls_context_free"(gl_tls_context *context) noexcept
