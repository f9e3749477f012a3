# cython: embedsignature=True, embedsignature.format=clinic, auto_pickle=False, autotestdict=False
"""Connections of a gRPC client over libnghttp2, for threads and for event loops.

What happens on a connection is in client_connection.h, how threads share one in client_calls.h.
This file makes their objects and turns what came of a call into Python's. _http2_client.pyi has
the contract.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cimport cython


cdef extern from "unistd.h" nogil:
    int close(int descriptor)


cdef extern from "poll.h" nogil:
    const short POLLOUT


cdef extern from "client_calls.h" nogil:
    const char *NGHTTP2_VERSION
    const bint gl_has_tls

    ctypedef struct gl_tls_context:
        pass

    struct pollfd:
        pass

    ctypedef struct glc_call:
        const uint8_t *path
        size_t path_bytes
        const uint8_t *body
        size_t body_bytes
        uint64_t timeout
        size_t answer_limit
        void *owner
        void (*on_over)(glc_call *, glc_connection *) noexcept
        glc_call *next
        glc_connection *connection
        uint8_t *answer
        size_t size
        int64_t hint
        int hinted
        int over
        int code
        int unprocessed
        char *text
        size_t text_bytes

    ctypedef struct glc_connection:
        int descriptor
        size_t calls
        uint64_t keepalive
        uint64_t keepalive_answer
        glc_call *over

    ctypedef struct glc_shared:
        glc_connection *connection
        uint64_t used

    ctypedef struct glc_waiter:
        glc_call call

    uint64_t glc_clock() noexcept
    gl_tls_context *glc_tls_context_new(
        const char *authorities, int authorities_bytes, const char *chain, int chain_bytes,
        const char *key, int key_bytes) noexcept
    void gl_tls_context_free(gl_tls_context *context) noexcept
    glc_connection *glc_new(int descriptor, gl_tls_context *context, const char *name,
                            const char *authority, const char *agent) noexcept
    int glc_begin(glc_connection *c, glc_call *call) noexcept
    void glc_keep_over(glc_call *call, glc_connection *c) noexcept
    void glc_cancel(glc_call *call, int code, const char *text) noexcept
    void glc_flush(glc_connection *c) noexcept
    void glc_progress(glc_connection *c) noexcept
    void glc_close(glc_connection *c, const char *problem) noexcept
    short glc_events(const glc_connection *c) noexcept
    void glc_call_free(glc_call *call) noexcept
    bint glc_has_more(const glc_connection *c) noexcept
    const char *glc_problem(const glc_connection *c) noexcept
    bint glc_usable(const glc_connection *c) noexcept
    void glc_shared_open(glc_shared *s, glc_connection *connection) noexcept
    void glc_shared_free(glc_shared *s) noexcept
    void glc_shared_forget(glc_shared *s) noexcept
    void glc_waiter_open(glc_waiter *w, glc_shared *s) noexcept
    void glc_waiter_free(glc_waiter *w) noexcept
    int glc_shared_call(glc_shared *s, glc_waiter *w, uint64_t until) noexcept
    int glc_shared_wait(glc_shared *s, glc_waiter *w, uint64_t until) noexcept
    void glc_shared_cancel(glc_shared *s, glc_waiter *w, int code, const char *text) noexcept
    void glc_shared_close(glc_shared *s, const char *problem) noexcept
    int glc_shared_settle(glc_shared *s, uint64_t until) noexcept
    void glc_attend(glc_shared **all, size_t count, int wake, uint64_t until, pollfd *polled,
                    uint8_t *leads) noexcept


LIBRARY = NGHTTP2_VERSION.decode()
HAS_TLS = bool(gl_has_tls)

cdef uint64_t SLICE = 200_000_000  # nanoseconds between looks at signals
cdef int CANCELLED = 1
cdef int DEADLINE_EXCEEDED = 4
cdef int UNAVAILABLE = 14
cdef char *LATE = b""
cdef char *ENDED = b"Socket closed"


@cython.final
cdef class Context:
    """Whom a client trusts and what it shows, for TLS."""

    cdef gl_tls_context *context

    def __cinit__(self, bytes authorities, bytes chain, bytes key, /):
        self.context = glc_tls_context_new(
            NULL if authorities is None else PyBytes_AS_STRING(authorities),
            0 if authorities is None else <int>PyBytes_GET_SIZE(authorities),
            NULL if chain is None else PyBytes_AS_STRING(chain),
            0 if chain is None else <int>PyBytes_GET_SIZE(chain),
            NULL if key is None else PyBytes_AS_STRING(key),
            0 if key is None else <int>PyBytes_GET_SIZE(key))
        if self.context == NULL:
            raise ValueError("OpenSSL does not take the authorities, certificate or key")

    def __dealloc__(self):
        if self.context != NULL:
            gl_tls_context_free(self.context)


cdef object _outcome(glc_call *call):
    """Return the answer's bytes, or what failed: code, text, hint, and whether it was not seen."""
    if call.code == 0:
        return PyBytes_FromStringAndSize(<char *>call.answer, call.size)
    text = ""
    if call.text != NULL:
        text = call.text[:call.text_bytes].decode("utf-8", "replace")
    return (call.code, text, call.hint if call.hinted else None, bool(call.unprocessed))


cdef tuple _REFUSED = (UNAVAILABLE, "Socket closed", None, True)


cdef void _fill(glc_call *call, bytes path, bytes body, uint64_t timeout, size_t limit):
    call.path = <const uint8_t *>PyBytes_AS_STRING(path)
    call.path_bytes = PyBytes_GET_SIZE(path)
    call.body = <const uint8_t *>PyBytes_AS_STRING(body)
    call.body_bytes = PyBytes_GET_SIZE(body)
    call.timeout = timeout
    call.answer_limit = limit


@cython.final
cdef class Call:
    """A call that an event loop waits for; see _http2_client.pyi."""

    cdef glc_call call
    cdef bytes path, body
    cdef readonly object future
    cdef readonly double deadline

    def __cinit__(self):
        memset(&self.call, 0, sizeof(glc_call))

    def __dealloc__(self):
        glc_call_free(&self.call)


@cython.final
cdef class Connection:
    """A connection that threads share, or that an event loop has; see _http2_client.pyi."""

    cdef glc_shared shared
    cdef Context context
    cdef object __weakref__

    def __cinit__(self, int descriptor, /, *, Context context, str name, str authority, str agent,
                  double keepalive, double keepalive_answer):
        cdef bytes name_, authority_, agent_
        cdef glc_connection *connection
        try:
            name_ = name.encode("ascii")
            authority_ = authority.encode("ascii")
            agent_ = agent.encode("ascii")
        except BaseException:
            close(descriptor)
            raise
        connection = glc_new(
            descriptor, NULL if context is None else context.context, PyBytes_AS_STRING(name_),
            PyBytes_AS_STRING(authority_), PyBytes_AS_STRING(agent_))
        if connection == NULL:
            raise MemoryError
        self.context = context
        connection.keepalive = <uint64_t>(keepalive * 1e9)
        connection.keepalive_answer = <uint64_t>(keepalive_answer * 1e9)
        glc_shared_open(&self.shared, connection)

    def __dealloc__(self):
        if self.shared.connection != NULL:
            glc_shared_free(&self.shared)

    @property
    def usable(self):
        """Whether calls can be begun."""
        return glc_usable(self.shared.connection)

    @property
    def problem(self):
        """Why the connection has ended; None: it has not."""
        cdef const char *problem = glc_problem(self.shared.connection)
        return None if problem == NULL else problem.decode()

    def settle(self, double timeout, /):
        """Shake hands, and wait for the server's settings; False: not in so many seconds."""
        cdef uint64_t until = glc_clock() + <uint64_t>(timeout * 1e9)
        cdef bint done
        with nogil:
            done = glc_shared_settle(&self.shared, until)
        return done

    def call(self, bytes path not None, bytes body not None, double timeout, size_t limit, /):
        """Make a call, and return the answer's bytes, or how it failed."""
        cdef glc_waiter waiter
        cdef uint64_t now = glc_clock()
        cdef uint64_t until = now + <uint64_t>(timeout * 1e9)
        cdef uint64_t slice = now + SLICE if now + SLICE < until else until
        cdef int over = 0
        glc_waiter_open(&waiter, &self.shared)
        _fill(&waiter.call, path, body, until - now, limit)
        try:
            with nogil:
                over = glc_shared_call(&self.shared, &waiter, slice)
            while over == 0:
                PyErr_CheckSignals()
                now = glc_clock()
                if now >= until:
                    break
                slice = now + SLICE if now + SLICE < until else until
                with nogil:
                    over = glc_shared_wait(&self.shared, &waiter, slice)
        finally:
            if over == 0:
                with nogil:
                    glc_shared_cancel(&self.shared, &waiter, DEADLINE_EXCEEDED, LATE)
            answer = _outcome(&waiter.call) if waiter.call.over else None
            glc_waiter_free(&waiter)
        if over < 0:
            return _REFUSED
        if over == 0:
            return (DEADLINE_EXCEEDED, "", None, False)
        if type(answer) is tuple and (<tuple>answer)[0] == CANCELLED and glc_clock() >= until:
            return (DEADLINE_EXCEEDED, "", None, False)
        return answer

    def close(self):
        """End the connection and its calls."""
        with nogil:
            glc_shared_close(&self.shared, ENDED)

    def forget(self):
        """Leave the connection to the process that this one was forked from."""
        glc_shared_forget(&self.shared)

    # For event loops: one thread, which nothing here waits for or locks out.

    @property
    def descriptor(self):
        """The socket."""
        return self.shared.connection.descriptor

    @property
    def wants_write(self):
        """Whether the socket is to be watched for room, too."""
        return (glc_events(self.shared.connection) & POLLOUT) != 0

    def begin(self, bytes path not None, bytes body not None, double now, double timeout,
              size_t limit, future, /):
        """Begin a call, which `flush` sends; None: the connection takes none."""
        cdef Call call = Call.__new__(Call)
        call.path = path
        call.body = body
        call.future = future
        call.deadline = now + timeout
        _fill(&call.call, path, body, <uint64_t>(timeout * 1e9), limit)
        call.call.owner = <void *>call
        call.call.on_over = glc_keep_over
        if not glc_begin(self.shared.connection, &call.call):
            return None
        Py_INCREF(call)  # it is the connection's, too, until it is over
        return call

    def flush(self):
        """Send what there is to send."""
        glc_flush(self.shared.connection)

    def progress(self):
        """Do what can be done now."""
        glc_progress(self.shared.connection)
        while glc_has_more(self.shared.connection):
            glc_progress(self.shared.connection)

    def finished(self):
        """Return the calls that are over, each once, with what came of it."""
        cdef glc_connection *c = self.shared.connection
        cdef glc_call *one
        cdef Call call
        found = []
        while c.over != NULL:
            one = c.over
            c.over = one.next
            call = <Call>one.owner
            found.append((call, _outcome(one)))
            Py_DECREF(call)
        if len(found) > 1:
            found.reverse()
        return found

    def cancel(self, Call call not None, /):
        """End a call that is not waited for any more; `finished` does not return it."""
        cdef glc_connection *c = self.shared.connection
        if call.call.connection == NULL:
            return
        call.call.on_over = NULL
        glc_cancel(&call.call, DEADLINE_EXCEEDED, LATE)
        Py_DECREF(call)


def attend(list connections not None, int wake, double timeout, /):
    """Answer for connections without calls, until *wake* can be read or one of them ends."""
    cdef uint64_t until = glc_clock() + <uint64_t>(timeout * 1e9)
    cdef size_t count = len(connections)
    cdef size_t i
    cdef Connection one
    cdef glc_shared **all = <glc_shared **>malloc((count + 1) * sizeof(glc_shared *))
    cdef pollfd *polled = <pollfd *>malloc((count + 1) * sizeof(pollfd))
    cdef uint8_t *leads = <uint8_t *>malloc(count + 1)
    try:
        if all == NULL or polled == NULL or leads == NULL:
            raise MemoryError
        for i in range(count):
            one = connections[i]
            all[i] = &one.shared
        with nogil:
            glc_attend(all, count, wake, until, polled, leads)
    finally:
        free(all)
        free(polled)
        free(leads)
