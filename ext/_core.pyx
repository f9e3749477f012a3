# cython: embedsignature=True, embedsignature.format=clinic, auto_pickle=False, autotestdict=False
"""The core: packed or text addresses in, claims out, and columns over claims.

Nothing here depends on files, gRPC or country names; of messages, only on those that carry
a lookup, a roster and its answer. This file checks arguments and makes the result objects; the
loops are in the C headers beside it. _core.pyi has the contract.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Next
from cpython.list cimport PyList_Check, PyList_New, PyList_SET_ITEM
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF, PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from borrowed_objects cimport *
from core_headers cimport *


cdef extern from "core_functions.h" nogil:
    """
    typedef struct gl_table_handle gl_table_lent;
    """
    const char *GL_CORE_API_NAME
    const char *GL_TABLE_NAME
    const char *GL_RESULTS_NAME

    ctypedef struct gl_core_api:
        pass

    ctypedef struct gl_table_lent:
        const gl_table *table
        const gl_isa *isa

    const gl_core_api gl_core_functions


cdef enum:
    # Positions up to which a column is done with the GIL held: that takes microseconds,
    # and another thread, once it has the GIL, may keep it for milliseconds.
    QUICK = 16384

cdef int _isa_count = gl_count_isas()


def api():
    """Return the functions that other extension modules answer with, as a capsule."""
    return PyCapsule_New(<void *>&gl_core_functions, GL_CORE_API_NAME, NULL)


cdef gl_table_lent _no_table


def no_table():
    """Return what other extension modules parse addresses with, as `Table.handle`; it has none."""
    _no_table.table = NULL
    _no_table.isa = &gl_isas[_isa_count - 1]
    return PyCapsule_New(<void *>&_no_table, GL_TABLE_NAME, NULL)


def isa_paths():
    """Return the names of the code paths that this processor supports, plainest first."""
    return tuple([gl_isas[i].name.decode() for i in range(_isa_count)])


cdef const gl_isa *_find_isa(name) except NULL:
    """Return the named path, or the widest for None."""
    cdef int i
    if name is None:
        return &gl_isas[_isa_count - 1]
    for i in range(_isa_count):
        if gl_isas[i].name.decode() == name:
            return &gl_isas[i]
    raise ValueError(f"isa: not one of {', '.join(isa_paths())}")


cdef bytes _reserve(size_t size):
    """Return a bytes object whose content the caller writes before it is used elsewhere."""
    if size > PY_SSIZE_T_MAX:
        raise MemoryError
    return PyBytes_FromStringAndSize(NULL, size)


cdef int _read(const gl_isa *path, addresses, bint packed, gl_roster *roster) except -1:
    """Read a roster's texts (and packed addresses) where they lie.

    The GIL is held throughout, so neither the list nor an item can go meanwhile.
    The caller frees roster.families, which holds the rest, also after an error.
    """
    if not (PyList_Check(addresses) or PyTuple_Check(addresses)):
        raise TypeError(f"addresses: expected list or tuple, not {type(addresses).__name__}")
    return _read_items(
        path, PySequence_Fast_ITEMS(addresses), PySequence_Fast_GET_SIZE(addresses), packed, roster)


cdef int _read_items(
    const gl_isa *path, PyObject **objects, size_t n, bint packed, gl_roster *roster
) except -1:
    """As _read, of borrowed references."""
    cdef gl_item items[GL_BATCH]
    cdef PyObject *item
    cdef const char *text
    cdef size_t size, begin, count, i
    # Room for any mixture. What is not needed is never touched, and so takes no memory.
    roster.families = <uint8_t *>malloc((16 + 4 + 1) * n + 1)
    if roster.families == NULL:
        raise MemoryError
    roster.ipv4 = roster.families + n
    roster.ipv6 = roster.ipv4 + 4 * n
    begin = 0
    while begin < n:  # a range with a step of this kind would be a Python object
        count = min(n - begin, <size_t>GL_BATCH)
        for i in range(count):
            if begin + i + 8 < n:
                gl_prefetch(objects[begin + i + 8])
            item = objects[begin + i]
            items[i].form = GL_UNREADABLE
            if PyUnicode_Check(item):
                size = PyUnicode_GET_LENGTH(item)
                text = gl_ascii(item)
                if text != NULL and size <= GL_LONGEST_TEXT:
                    items[i].data = text
                    items[i].form = size
            elif packed and PyBytes_CheckExact(item):
                size = bytes_size(item)
                if size == 4 or size == 16:
                    items[i].data = bytes_data(item)
                    items[i].form = GL_PACKED4 if size == 4 else GL_PACKED6
            else:
                expected = "str or bytes" if packed else "str"
                raise TypeError(
                    f"addresses: expected {expected} at position {begin + i}, "
                    f"not {type(<object>item).__name__}")
        path.read_items(items, count, roster)
        begin += count
    return 0


cdef struct _Borrowed:
    PyObject **items
    size_t n
    uint32_t *sizes
    size_t lists


cdef int _borrow(lists, _Borrowed *borrowed) except -1:
    """Borrow references to the items of lists and tuples, and count those of each.

    They are good until the interpreter runs other code. The caller frees both arrays, also after
    an error.
    """
    if not (PyList_Check(lists) or PyTuple_Check(lists)):
        raise TypeError(f"lists: expected list or tuple, not {type(lists).__name__}")
    return _borrow_items(
        PySequence_Fast_ITEMS(lists), PySequence_Fast_GET_SIZE(lists), borrowed)


cdef tuple _borrow_values(dict mapping, _Borrowed *borrowed):
    """As _borrow, of the lists that are a dict's values; returns its keys."""
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t n = len(mapping), at = 0, place = 0
    cdef tuple keys = PyTuple_New(n)
    cdef PyObject **objects = <PyObject **>malloc(n * sizeof(PyObject *) + 1)
    if objects == NULL:
        raise MemoryError
    try:
        _check_unchanged(mapping, n)
        while PyDict_Next(mapping, &place, &key, &value):
            Py_INCREF(<object>key)
            PyTuple_SET_ITEM(keys, at, <object>key)
            objects[at] = value
            at += 1
        _borrow_items(objects, n, borrowed)
    finally:
        free(objects)
    return keys


cdef int _borrow_items(PyObject **objects, size_t n, _Borrowed *borrowed) except -1:
    """As _borrow, of borrowed references to the lists."""
    cdef size_t i, size, at = 0
    borrowed.lists = n
    borrowed.n = 0
    borrowed.sizes = <uint32_t *>malloc(4 * n + 1)
    if borrowed.sizes == NULL:
        raise MemoryError
    # The lists and their arrays lie anywhere in memory: hence they are fetched ahead.
    for i in range(n):
        if i + 16 < n:
            gl_prefetch(objects[i + 16])
        if not (PyList_Check(<object>objects[i]) or PyTuple_Check(<object>objects[i])):
            raise TypeError(
                f"lists: expected list or tuple at position {i}, "
                f"not {type(<object>objects[i]).__name__}")
        size = PySequence_Fast_GET_SIZE(<object>objects[i])
        if size > <size_t>0xFFFFFFFF:
            raise OverflowError(f"lists: too many items at position {i}")
        borrowed.sizes[i] = <uint32_t>size
        borrowed.n += size
    borrowed.items = <PyObject **>malloc(borrowed.n * sizeof(PyObject *) + 1)
    if borrowed.items == NULL:
        raise MemoryError
    for i in range(n):
        if i + 16 < n:
            gl_prefetch(objects[i + 16])
        if i + 8 < n:
            gl_prefetch(PySequence_Fast_ITEMS(<object>objects[i + 8]))
        size = borrowed.sizes[i]
        if size:  # an empty list has no array, and memcpy must not see NULL
            memcpy(
                borrowed.items + at, PySequence_Fast_ITEMS(<object>objects[i]),
                size * sizeof(PyObject *))
        at += size
    return 0


cdef int _check_unchanged(dict mapping, Py_ssize_t n) except -1:
    """Check a dict after memory was made, perhaps by a garbage collection, which runs finalisers."""
    if len(mapping) != n:
        raise RuntimeError("mapping: it changed meanwhile")
    return 0


cdef bytes _sizes_of(const _Borrowed *borrowed):
    return PyBytes_FromStringAndSize(<const char *>borrowed.sizes, 4 * borrowed.lists)


@cython.final
cdef class Table:
    """Immutable lookup table over the sorted interval arrays of both families."""

    cdef gl_table table
    cdef const gl_isa *isa
    cdef gl_table_lent lent
    cdef tuple labels
    cdef object convert
    cdef Py_buffer views[5]
    cdef int held

    def __cinit__(self, ipv4_first, ipv4_claims, ipv6_first_high, ipv6_first_low, ipv6_claims,
                  labels, *, isa=None, convert=None):
        cdef gl_table *t = &self.table
        cdef size_t limit, position
        cdef size_t counts[5]
        cdef gl_fault fault
        cdef bint complete
        self.isa = _find_isa(isa)
        self.convert = convert
        counts[0] = self._hold("ipv4_first", ipv4_first, 4)
        counts[1] = self._hold("ipv4_claims", ipv4_claims, 2)
        counts[2] = self._hold("ipv6_first_high", ipv6_first_high, 8)
        counts[3] = self._hold("ipv6_first_low", ipv6_first_low, 8)
        counts[4] = self._hold("ipv6_claims", ipv6_claims, 2)
        if counts[1] != counts[0]:
            raise ValueError(f"ipv4_claims: {counts[1]} items, but ipv4_first has {counts[0]}")
        if counts[3] != counts[2]:
            raise ValueError(
                f"ipv6_first_low: {counts[3]} items, but ipv6_first_high has {counts[2]}")
        if counts[4] != counts[2]:
            raise ValueError(
                f"ipv6_claims: {counts[4]} items, but ipv6_first_high has {counts[2]}")
        if counts[2] > GL_MAX_INTERVALS6:
            raise ValueError(f"ipv6_first_high: more than {GL_MAX_INTERVALS6} items")
        self.labels = tuple(labels)
        limit = len(self.labels)
        if limit == 0:
            raise ValueError("labels: empty")
        limit = min(limit, GL_MAX_CLAIMS)
        t.first4 = <const uint32_t *>self.views[0].buf
        t.claim4 = <const uint16_t *>self.views[1].buf
        t.n4 = counts[0]
        t.high6 = <const uint64_t *>self.views[2].buf
        t.low6 = <const uint64_t *>self.views[3].buf
        t.claim6 = <const uint16_t *>self.views[4].buf
        t.n6 = counts[2]
        with nogil:
            fault = gl_table_check(t, <unsigned>limit, &position)
        if fault != GL_NO_FAULT:
            text = {
                GL_FIRST4_START: "ipv4_first: does not begin at 0",
                GL_FIRST4_ORDER: "ipv4_first: does not ascend",
                GL_CLAIM4_UNKNOWN: "ipv4_claims: unknown claim",
                GL_HIGH6_START: "ipv6_first_high: does not begin at 0",
                GL_LOW6_START: "ipv6_first_low: does not begin at 0",
                GL_FIRST6_ORDER: "ipv6_first_high and ipv6_first_low: do not ascend",
                GL_CLAIM6_UNKNOWN: "ipv6_claims: unknown claim",
            }[fault]
            raise ValueError(f"{text} at position {position}")
        with nogil:
            complete = gl_table_build(t)
        if not complete:
            raise MemoryError
        self.lent.table = t
        self.lent.isa = self.isa

    cdef size_t _hold(self, name, source, size_t width) except? 0:
        """Take the next view; return how many items it has."""
        cdef Py_buffer *view = &self.views[self.held]
        PyObject_GetBuffer(source, view, PyBUF_SIMPLE)
        self.held += 1
        if view.len == 0:
            raise ValueError(f"{name}: empty")
        if view.len % width:
            raise ValueError(f"{name}: {view.len} bytes are no multiple of {width}")
        if <uintptr_t>view.buf % width:
            raise ValueError(f"{name}: not aligned to {width} bytes")
        return view.len // width

    def __dealloc__(self):
        gl_table_free(&self.table)
        while self.held > 0:
            self.held -= 1
            PyBuffer_Release(&self.views[self.held])

    def handle(self):
        """Return what other extension modules look up with; good for as long as the table is."""
        return PyCapsule_New(&self.lent, GL_TABLE_NAME, NULL)

    @property
    def index_size(self):
        """Bytes of memory that the indexes over the arrays take."""
        return self.table.index_bytes

    cdef unsigned _claim(self, address) except? 0xFFFF:
        cdef PyObject *item = <PyObject *>address
        cdef const char *text
        if PyUnicode_Check(item):
            text = gl_ascii(item)
            if text == NULL:
                return 0
            return self.isa.claim_text(&self.table, text, PyUnicode_GET_LENGTH(item))
        if PyBytes_CheckExact(item):
            return self.isa.claim_packed(
                &self.table, <const uint8_t *>bytes_data(item), bytes_size(item))
        if self.convert is None:
            raise TypeError(f"address: expected str or bytes, not {type(address).__name__}")
        converted = self.convert(address)
        if not isinstance(converted, (str, bytes)):
            raise TypeError("convert: returned neither str nor bytes")
        return self._claim(converted)

    # Plain built-in methods, which the interpreter calls without a detour: that is a good part
    # of what a single lookup takes.
    @cython.binding(False)
    def claim(self, address, /):
        """Return the claim of one address: text, or 4 or 16 packed bytes."""
        return self._claim(address)

    @cython.binding(False)
    def label(self, address, /):
        """Return the label of one address's claim, like labels[claim(address)]."""
        # Table.__cinit__ checked that every claim has a label.
        return <object>PyTuple_GET_ITEM(self.labels, self._claim(address))

    def classify_ipv4(self, packed, /):
        """Return the claims of packed IPv4 addresses."""
        return self._classify(packed, 4)

    def classify_ipv6(self, packed, /):
        """Return the claims of packed IPv6 addresses."""
        return self._classify(packed, 16)

    cdef bytes _classify(self, packed, size_t width):
        cdef Py_buffer view
        cdef bytes result
        cdef uint16_t *out
        cdef size_t n
        PyObject_GetBuffer(packed, &view, PyBUF_SIMPLE)
        try:
            n = view.len // width
            if n * width != <size_t>view.len:
                raise ValueError(f"packed: {view.len} bytes are no multiple of {width}")
            result = _reserve(2 * n)
            out = <uint16_t *>PyBytes_AS_STRING(result)
            # A batch is done before another thread could have begun.
            if n > <size_t>GL_BATCH:
                with nogil:
                    self._run(<const uint8_t *>view.buf, width, n, out)
            else:
                self._run(<const uint8_t *>view.buf, width, n, out)
        finally:
            PyBuffer_Release(&view)
        return result

    cdef inline void _run(
        self, const uint8_t *packed, size_t width, size_t n, uint16_t *out
    ) noexcept nogil:
        if width == 4:
            self.isa.classify4(&self.table, packed, n, out)
        else:
            self.isa.classify6(&self.table, packed, n, out)

    def classify_text(self, addresses, /):
        """Return the claims of a list or tuple of str (text) and bytes (packed)."""
        cdef gl_roster roster = gl_roster(NULL, NULL, NULL, 0, 0, 0)
        try:
            _read(self.isa, addresses, True, &roster)
            return self._classify_read(&roster)
        finally:
            free(roster.families)

    def classify_people(self, dict mapping not None, /):
        """Return the keys of a dict, the claims of all addresses in the lists that are its values,
        and uint32: how many each list has."""
        cdef gl_roster roster = gl_roster(NULL, NULL, NULL, 0, 0, 0)
        cdef _Borrowed borrowed = _Borrowed(NULL, 0, NULL, 0)
        try:
            keys = _borrow_values(mapping, &borrowed)
            _read_items(self.isa, borrowed.items, borrowed.n, True, &roster)
            return keys, self._classify_read(&roster), _sizes_of(&borrowed)
        finally:
            free(borrowed.items)
            free(borrowed.sizes)
            free(roster.families)

    cdef bytes _classify_read(self, const gl_roster *roster):
        cdef bytes result = _reserve(2 * roster.n)
        cdef uint16_t *out = <uint16_t *>PyBytes_AS_STRING(result)
        if roster.n > <size_t>GL_BATCH:
            with nogil:
                self.isa.classify_roster(&self.table, roster, out)
        else:
            self.isa.classify_roster(&self.table, roster, out)
        return result


def parse(address, /, *, isa=None):
    """Return an address in text as 4 or 16 packed bytes; None if it is no address."""
    cdef PyObject *item = <PyObject *>address
    cdef const char *text
    cdef uint8_t out[16]
    cdef int family
    if not PyUnicode_Check(item):
        raise TypeError(f"address: expected str, not {type(address).__name__}")
    text = gl_ascii(item)
    if text == NULL:
        return None
    family = _find_isa(isa).parse(text, PyUnicode_GET_LENGTH(item), out)
    if family == 0:
        return None
    return PyBytes_FromStringAndSize(<char *>out, 4 if family == 4 else 16)


def parse_many(addresses, /, *, isa=None):
    """Return (16·N packed bytes, N family bytes) of a list of texts."""
    cdef gl_roster roster = gl_roster(NULL, NULL, NULL, 0, 0, 0)
    try:
        _read(_find_isa(isa), addresses, False, &roster)
        return _padded(&roster)
    finally:
        free(roster.families)


def parse_people(lists, /, *, isa=None):
    """Return what parse_many does of all texts in lists, and uint32: how many each list has."""
    cdef gl_roster roster = gl_roster(NULL, NULL, NULL, 0, 0, 0)
    cdef _Borrowed borrowed = _Borrowed(NULL, 0, NULL, 0)
    cdef const gl_isa *path = _find_isa(isa)
    try:
        _borrow(lists, &borrowed)
        _read_items(path, borrowed.items, borrowed.n, False, &roster)
        packed, families = _padded(&roster)
        return packed, families, _sizes_of(&borrowed)
    finally:
        free(borrowed.items)
        free(borrowed.sizes)
        free(roster.families)


cdef tuple _padded(const gl_roster *roster):
    cdef bytes packed = _reserve(16 * roster.n)
    gl_write_padded(roster, <uint8_t *>PyBytes_AS_STRING(packed))
    return packed, PyBytes_FromStringAndSize(<char *>roster.families, roster.n)


cdef size_t _count_pairs(bytes column, name) except? 0:
    """Return how many 2-byte values a column has."""
    cdef size_t size = PyBytes_GET_SIZE(column)
    if size % 2:
        raise ValueError(f"{name}: {size} bytes are no multiple of 2")
    return size // 2


cdef size_t _count_claims(bytes claims, size_t limit) except? 0:
    """Return how many claims there are, all below the limit."""
    cdef size_t n = _count_pairs(claims, "claims"), position
    cdef const uint16_t *source = <const uint16_t *>PyBytes_AS_STRING(claims)
    position = gl_find_unknown_claim(source, n, limit)
    if position < n:
        raise ValueError(f"claims: unknown claim at position {position}")
    return n


def map8(bytes claims not None, bytes column not None, /):
    """Return column[claim] (1 byte) for each claim."""
    cdef size_t n = _count_claims(claims, PyBytes_GET_SIZE(column))
    cdef bytes result = _reserve(n)
    cdef const uint16_t *source = <const uint16_t *>PyBytes_AS_STRING(claims)
    cdef const uint8_t *values = <const uint8_t *>PyBytes_AS_STRING(column)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(result)
    if n > <size_t>QUICK:
        with nogil:
            gl_map8(source, n, values, out)
    else:
        gl_map8(source, n, values, out)
    return result


def map16(bytes claims not None, bytes column not None, /):
    """Return column[2·claim : 2·claim + 2] for each claim."""
    cdef size_t n = _count_claims(claims, _count_pairs(column, "column"))
    cdef bytes result = _reserve(2 * n)
    cdef const uint16_t *source = <const uint16_t *>PyBytes_AS_STRING(claims)
    cdef const uint16_t *values = <const uint16_t *>PyBytes_AS_STRING(column)
    cdef uint16_t *out = <uint16_t *>PyBytes_AS_STRING(result)
    if n > <size_t>QUICK:
        with nogil:
            gl_map16(source, n, values, out)
    else:
        gl_map16(source, n, values, out)
    return result


def map48(bytes claims not None, bytes column not None, /):
    """Return column[6·claim : 6·claim + 6] for each claim."""
    cdef size_t n
    cdef bytes result
    cdef const uint16_t *source = <const uint16_t *>PyBytes_AS_STRING(claims)
    cdef const char *values = PyBytes_AS_STRING(column)
    cdef char *out
    if PyBytes_GET_SIZE(column) % 6:
        raise ValueError(f"column: {PyBytes_GET_SIZE(column)} bytes are no multiple of 6")
    n = _count_claims(claims, PyBytes_GET_SIZE(column) // 6)
    result = _reserve(6 * n)
    out = PyBytes_AS_STRING(result)
    with nogil:
        gl_map48(source, n, values, out)
    return result


def count8(bytes column not None, /):
    """Return how often each byte value that occurs does."""
    cdef uint64_t counts[256]
    cdef const uint8_t *source = <const uint8_t *>PyBytes_AS_STRING(column)
    cdef size_t n = PyBytes_GET_SIZE(column)
    cdef int value
    memset(counts, 0, sizeof(counts))
    if n > <size_t>QUICK:
        with nogil:
            gl_count8(source, n, counts)
    else:
        gl_count8(source, n, counts)
    return {value: counts[value] for value in range(256) if counts[value]}


def count16(bytes column not None, /):
    """Return how often each 2-byte value that occurs does."""
    cdef size_t n = _count_pairs(column, "column")
    cdef const uint16_t *source = <const uint16_t *>PyBytes_AS_STRING(column)
    cdef uint64_t few[1024]
    cdef uint64_t *counts
    cdef unsigned i
    cdef uint16_t value
    cdef dict result = {}
    if gl_is_letters(source, n):
        memset(few, 0, sizeof(few))
        if n > <size_t>QUICK:
            with nogil:
                gl_count_letters(source, n, few)
        else:
            gl_count_letters(source, n, few)
        for i in range(1024):
            if few[i]:
                value = gl_pair_from_number(i)
                result[PyBytes_FromStringAndSize(<char *>&value, 2)] = few[i]
        return result
    counts = <uint64_t *>calloc(65536, sizeof(uint64_t))
    if counts == NULL:
        raise MemoryError
    try:
        if n > <size_t>QUICK:
            with nogil:
                gl_count16(source, n, counts)
        else:
            gl_count16(source, n, counts)
        for i in range(65536):
            if counts[i]:
                value = <uint16_t>i
                result[PyBytes_FromStringAndSize(<char *>&value, 2)] = counts[i]
    finally:
        free(counts)
    return result


cdef gl_selection _selected8(bytes column, int value) except *:
    """Return where a column holds a byte."""
    if not 0 <= value <= 255:
        raise ValueError("value: not in 0..255")
    return gl_selection(
        <const uint8_t *>PyBytes_AS_STRING(column), PyBytes_GET_SIZE(column), GL_EQUAL8,
        <uint16_t>value)


cdef gl_selection _selected16(bytes column, bytes value) except *:
    """Return where a column holds two bytes."""
    cdef gl_selection selection = gl_selection(
        <const uint8_t *>PyBytes_AS_STRING(column), _count_pairs(column, "column"), GL_EQUAL16, 0)
    if PyBytes_GET_SIZE(value) != 2:
        raise ValueError(f"value: {PyBytes_GET_SIZE(value)} bytes, expected 2")
    memcpy(&selection.value, PyBytes_AS_STRING(value), 2)
    return selection


cdef int _check_positions(const gl_selection *selection) except -1:
    """Refuse a column that is longer than positions are wide."""
    if selection.n > <size_t>0xFFFFFFFF:
        raise ValueError("column: more than 2**32 - 1 positions")
    return 0


cdef bytes _positions(const gl_isa *path, const gl_selection *selection):
    """Return the selected positions as uint32."""
    cdef bytes result
    cdef uint32_t *out
    cdef size_t count
    _check_positions(selection)
    if selection.n > <size_t>QUICK:
        with nogil:
            count = path.count_selected(selection)
    else:
        count = path.count_selected(selection)
    result = _reserve(4 * count)
    out = <uint32_t *>PyBytes_AS_STRING(result)
    if selection.n > <size_t>QUICK:
        with nogil:
            path.select(selection, out)
    else:
        path.select(selection, out)
    return result


cdef bytes _roaring(const gl_isa *path, const gl_selection *selection):
    """Return the selected positions as a Roaring bitmap in the portable serialisation."""
    cdef uint64_t words[GL_CONTAINER_WORDS]
    cdef gl_container one
    cdef gl_container *containers = &one
    cdef bytes result
    cdef uint8_t *out
    cdef size_t size
    _check_positions(selection)
    if selection.n > <size_t>GL_CONTAINER:
        containers = <gl_container *>malloc(
            (selection.n // <size_t>GL_CONTAINER + 1) * sizeof(gl_container))
        if containers == NULL:
            raise MemoryError
    try:
        if selection.n > <size_t>QUICK:
            with nogil:
                size = path.roaring_measure(selection, containers, words)
        else:
            size = path.roaring_measure(selection, containers, words)
        result = _reserve(size)
        out = <uint8_t *>PyBytes_AS_STRING(result)
        if selection.n > <size_t>QUICK:
            with nogil:
                path.roaring_write(selection, containers, words, out)
        else:
            path.roaring_write(selection, containers, words, out)
    finally:
        if containers != &one:
            free(containers)
    return result


def positions8(bytes column not None, int value, /, *, isa=None):
    """Return the positions (uint32, native order) at which the column holds the byte."""
    cdef gl_selection selection = _selected8(column, value)
    return _positions(_find_isa(isa), &selection)


def positions16(bytes column not None, bytes value not None, /, *, isa=None):
    """Return the positions (uint32, native order) at which the column holds the 2 bytes."""
    cdef gl_selection selection = _selected16(column, value)
    return _positions(_find_isa(isa), &selection)


ctypedef bytes (*describe_positions)(const gl_isa *path, const gl_selection *selection)


cdef tuple _split(bytes claims, bytes verdicts, isa, describe_positions describe):
    """Return the positions inside, outside and undetermined."""
    return _split_column(_find_isa(isa), map8(claims, verdicts), describe)


cdef tuple _split_column(const gl_isa *path, bytes column, describe_positions describe):
    cdef gl_selection selection = _selected8(column, 1)
    cdef bytes inside = describe(path, &selection)
    cdef bytes outside
    selection.value = 2
    outside = describe(path, &selection)
    selection.choice = GL_NEITHER8
    return inside, outside, describe(path, &selection)


def partition(bytes claims not None, bytes verdicts not None, /, *, isa=None):
    """Split 0..N-1 by verdict: (inside, outside, undetermined) as uint32 positions."""
    return _split(claims, verdicts, isa, _positions)


def roaring8(bytes column not None, int value, /, *, isa=None):
    """Return the positions at which the column holds the byte, as a Roaring bitmap."""
    cdef gl_selection selection = _selected8(column, value)
    return _roaring(_find_isa(isa), &selection)


def roaring16(bytes column not None, bytes value not None, /, *, isa=None):
    """Return the positions at which the column holds the 2 bytes, as a Roaring bitmap."""
    cdef gl_selection selection = _selected16(column, value)
    return _roaring(_find_isa(isa), &selection)


def roaring_partition(bytes claims not None, bytes verdicts not None, /, *, isa=None):
    """Split 0..N-1 by verdict: (inside, outside, undetermined) as Roaring bitmaps."""
    return _split(claims, verdicts, isa, _roaring)


cdef size_t _count_sizes(bytes sizes) except? 0:
    """Return how many participants there are."""
    if PyBytes_GET_SIZE(sizes) % 4:
        raise ValueError(f"sizes: {PyBytes_GET_SIZE(sizes)} bytes are no multiple of 4")
    return PyBytes_GET_SIZE(sizes) // 4


def group_sizes(groups, /):
    """Return numbers as uint32: a list or tuple of int."""
    cdef PyObject **objects
    cdef size_t n, group
    cdef long long size
    cdef int overflow
    cdef bytes result
    cdef uint32_t *out
    if not (PyList_Check(groups) or PyTuple_Check(groups)):
        raise TypeError(f"groups: expected list or tuple, not {type(groups).__name__}")
    objects = PySequence_Fast_ITEMS(groups)
    n = PySequence_Fast_GET_SIZE(groups)
    result = _reserve(4 * n)
    out = <uint32_t *>PyBytes_AS_STRING(result)
    for group in range(n):
        if not PyLong_CheckExact(objects[group]):
            raise TypeError(
                f"groups: expected int at position {group},"
                f" not {type(<object>objects[group]).__name__}")
        size = PyLong_AsLongLongAndOverflow(objects[group], &overflow)
        if overflow or size < 0 or size > <long long>0xFFFFFFFF:
            raise OverflowError(f"groups: not in 0..4294967295 at position {group}")
        out[group] = <uint32_t>size
    return result


def keys_and_values(dict mapping not None, /):
    """Return the keys and the values of a dict, in its order and as of one moment."""
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t n = len(mapping), at = 0, place = 0
    cdef list keys = PyList_New(n), values = PyList_New(n)
    _check_unchanged(mapping, n)
    while PyDict_Next(mapping, &place, &key, &value):
        Py_INCREF(<object>key)
        PyList_SET_ITEM(keys, at, <object>key)
        Py_INCREF(<object>value)
        PyList_SET_ITEM(values, at, <object>value)
        at += 1
    return keys, values


def group_total(bytes sizes not None, /):
    """Return the sum of sizes, and the position of the first that is 0 (-1: none is)."""
    cdef size_t n = _count_sizes(sizes), zero
    cdef uint64_t total
    zero = gl_sum_sizes(<const uint32_t *>PyBytes_AS_STRING(sizes), n, &total)
    return total, -1 if zero == n else zero


def participant_outcomes(
    bytes claims not None, bytes outcomes not None, bytes sizes not None, /
):
    """Return one outcome for each participant, given how many of the claims are theirs."""
    cdef size_t n = _count_claims(claims, PyBytes_GET_SIZE(outcomes))
    cdef size_t count = _count_sizes(sizes)
    cdef const uint16_t *source = <const uint16_t *>PyBytes_AS_STRING(claims)
    cdef const uint8_t *column = <const uint8_t *>PyBytes_AS_STRING(outcomes)
    cdef gl_participants p = gl_participants(
        <const uint32_t *>PyBytes_AS_STRING(sizes), 0, 0, NULL)
    cdef uint64_t total
    cdef bytes result
    if gl_sum_sizes(p.sizes, count, &total) < count or total != n:
        raise ValueError(f"sizes: not those of {n} claims in groups")
    result = _reserve(count)
    p.out = <uint8_t *>PyBytes_AS_STRING(result)
    if n > <size_t>QUICK:
        with nogil:
            gl_add_all_addresses(&p, column, source, n)
    else:
        gl_add_all_addresses(&p, column, source, n)
    return result


def roaring_split(bytes column not None, /, *, isa=None):
    """Split the positions of a column of verdicts: those with 1, with 2 and with neither."""
    return _split_column(_find_isa(isa), column, _roaring)


# Of two-letter codes there are few, and a str made once serves for every roster.
cdef PyObject *_pairs[0x10000]


def pairs(bytes column not None, /):
    """Return each 2 ASCII bytes of a column as a str; the same two are one object."""
    cdef size_t n = _count_pairs(column, "column"), i
    cdef const uint16_t *source = <const uint16_t *>PyBytes_AS_STRING(column)
    cdef PyObject *text
    cdef list result = PyList_New(<Py_ssize_t>n)
    for i in range(n):
        text = _pairs[source[i]]
        if text == NULL:
            made = column[2 * i:2 * i + 2].decode("ascii")
            Py_INCREF(made)
            text = _pairs[source[i]] = <PyObject *>made
        Py_INCREF(<object>text)
        PyList_SET_ITEM(result, <Py_ssize_t>i, <object>text)
    return result


def read_lookup(bytes body not None, /):
    """Return address, region set, policy and networks of a request; None: protobuf must read it."""
    cdef gl_request request
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(body)
    cdef const char *address
    if not gl_read_lookup_request(at, PyBytes_GET_SIZE(body), &request):
        return None
    address = <const char *>request.addresses
    return (
        PyUnicode_DecodeUTF8(address, request.bytes, NULL) if request.form == GL_TEXT
        else PyBytes_FromStringAndSize(address, request.bytes),
        _region_set(&request),
        request.policy,
        request.networks,
    )


cdef str _region_set(const gl_request *request):
    return PyUnicode_DecodeUTF8(
        <const char *>request.region_set, request.region_set_bytes, NULL)


@cython.final
cdef class Replies:
    """Replies to lookups, by claim, policy and region set."""

    cdef Table table
    cdef dict kept
    cdef Py_ssize_t limit

    def __cinit__(self, Table table not None, Py_ssize_t limit, /):
        if limit < 1:
            raise ValueError("limit: below 1")
        self.table = table
        self.kept = {}
        self.limit = limit

    def __len__(self):
        return len(self.kept)

    cdef bytes _key(self, bytes body):
        """Return a request's claim, policy and region set; None: it can't be read."""
        cdef gl_request request
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(body)
        cdef Table table = self.table
        cdef uint16_t claim
        cdef bytes key
        cdef char *out
        cdef int32_t numbers[2]
        if table is None or not gl_read_lookup_request(at, PyBytes_GET_SIZE(body), &request):
            return None
        at = request.addresses
        if request.form == GL_TEXT:
            claim = table.isa.claim_text(&table.table, <const char *>at, request.bytes)
        else:
            claim = table.isa.claim_packed(&table.table, at, request.bytes)
        numbers[0] = request.policy
        numbers[1] = request.networks
        key = _reserve(sizeof(claim) + sizeof(numbers) + request.region_set_bytes)
        out = PyBytes_AS_STRING(key)
        memcpy(out, &claim, sizeof(claim))
        memcpy(out + sizeof(claim), numbers, sizeof(numbers))
        if request.region_set_bytes:  # else it may be NULL, which memcpy does not allow
            memcpy(out + sizeof(claim) + sizeof(numbers), request.region_set,
                   request.region_set_bytes)
        return key

    @cython.binding(False)
    def find(self, bytes body not None, /):
        """Return the reply that was kept for an equal request; None: there is none."""
        cdef bytes key = self._key(body)
        cdef PyObject *reply
        if key is None:
            return None
        reply = PyDict_GetItemWithError(self.kept, key)
        return None if reply == NULL else <object>reply

    def keep(self, bytes body not None, reply, /):
        """Keep the reply for all requests with the same claim, policy and region set."""
        cdef bytes key = self._key(body)
        if key is None:
            return
        if len(self.kept) >= self.limit:
            self.kept.clear()
        self.kept[key] = reply

    def close(self):
        """Release the table and all replies."""
        self.table = None
        self.kept.clear()


cdef tuple _FORMS = (None, "ipv4", "ipv6", "text")


@cython.final
cdef class WireRoster:
    """A roster where it lies in the bytes of its request."""

    cdef gl_request request
    cdef bytes body
    cdef readonly size_t size
    cdef readonly size_t rest

    @property
    def form(self):
        """Which addresses it has: "ipv4", "ipv6" or "text"; None: none."""
        return _FORMS[self.request.form]

    @property
    def nbytes(self):
        """Bytes that the addresses take."""
        return self.request.bytes

    @property
    def region_set(self):
        """The requested region set; empty: none."""
        return _region_set(&self.request)

    @property
    def policy(self):
        """The number that stands for the policy."""
        return self.request.policy

    @property
    def record(self):
        """Whether a decision record is requested."""
        return self.request.record

    @property
    def regions(self):
        """Whether the column of regions is requested."""
        return self.request.regions

    @property
    def reasons(self):
        """Whether the column of reasons is requested."""
        return self.request.reasons

    @property
    def networks(self):
        """The number that stands for what covering networks are to do."""
        return self.request.networks

    @property
    def participants(self):
        """How many participants there are; None: the roster is not in groups."""
        return None if self.request.groups == NULL else self.request.participants

    @property
    def grouped(self):
        """How many addresses the participants have together."""
        return self.request.grouped

    @property
    def without(self):
        """Position of the first participant without an address; None: all have one."""
        return None if self.request.without == 0 else self.request.without - 1


def wire_groups(bytes sizes not None, /):
    """Return sizes as the field group_sizes of a ClassifyRosterRequest, with its tag."""
    cdef size_t n = _count_sizes(sizes), size = 0, i
    cdef const uint32_t *source = <const uint32_t *>PyBytes_AS_STRING(sizes)
    cdef bytes result
    cdef uint8_t *out
    if n == 0:
        return b""
    for i in range(n):
        size += gl_varint_bytes(source[i])
    result = _reserve(gl_field_bytes(size))
    out = gl_put_field(<uint8_t *>PyBytes_AS_STRING(result), 8, size)
    for i in range(n):
        out = gl_put_varint(out, source[i])
    return result


def read_roster(bytes body not None, bint wrapped=False, /):
    """Return the roster in a request; None for what a protobuf runtime must read."""
    cdef WireRoster roster = WireRoster.__new__(WireRoster)
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(body)
    cdef size_t bytes_ = PyBytes_GET_SIZE(body)
    cdef size_t width
    if wrapped:
        if not gl_read_stream_request(at, bytes_, &roster.request):
            return None
    elif not gl_read_roster_request(at, bytes_, &roster.request):
        return None
    roster.body = body
    if roster.request.form == GL_TEXT:
        roster.size = roster.request.texts
    else:
        width = 4 if roster.request.form == GL_IPV4 else 16
        roster.size = roster.request.bytes // width
        roster.rest = roster.request.bytes % width
    return roster


@cython.final
cdef class ClaimResults:
    """Country, status and networks of each claim, from which answers to rosters are made."""

    cdef gl_results results

    def __cinit__(self, bytes countries not None, bytes statuses not None, bytes networks=None, /):
        cdef size_t n = _count_pairs(countries, "countries"), i
        cdef const uint16_t *letters = <const uint16_t *>PyBytes_AS_STRING(countries)
        cdef const uint8_t *numbers = <const uint8_t *>PyBytes_AS_STRING(statuses)
        if <size_t>PyBytes_GET_SIZE(statuses) != n:
            raise ValueError(
                f"statuses: {PyBytes_GET_SIZE(statuses)} items, but countries has {n}")
        if not gl_is_letters(letters, n):
            raise ValueError("countries: not all are capital letters")
        for i in range(n):
            if numbers[i] >= GL_STATUSES:
                raise ValueError(f"statuses: unknown status at position {i}")
        if networks is not None and <size_t>PyBytes_GET_SIZE(networks) != n:
            raise ValueError(
                f"networks: {PyBytes_GET_SIZE(networks)} items, but countries has {n}")
        if not gl_results_build(&self.results, letters, numbers, n):
            raise MemoryError
        if networks is not None:
            self.results.networks = <uint8_t *>malloc(n + 1)
            if self.results.networks == NULL:
                raise MemoryError
            memcpy(self.results.networks, PyBytes_AS_STRING(networks), n)

    def __dealloc__(self):
        gl_results_free(&self.results)

    def handle(self):
        """Return what other extension modules answer with; good for as long as these are."""
        return PyCapsule_New(&self.results, GL_RESULTS_NAME, NULL)

    def __len__(self):
        return self.results.claims


@cython.final
cdef class RosterAnswer:
    """The answer to one roster in the making."""

    cdef gl_answer answer
    cdef Table table
    cdef ClaimResults results
    cdef bytes outcomes_of
    cdef WireRoster roster
    cdef bint busy  # a step is under way, perhaps without the GIL
    cdef bint complete  # the last one is done
    cdef bint written  # which can't be repeated, as it uses up what was measured

    def __cinit__(
        self, Table table not None, ClaimResults results not None, bytes outcomes,
        WireRoster roster not None, /,
    ):
        cdef gl_answer *a = &self.answer
        cdef size_t limit = min(<size_t>len(table.labels), GL_MAX_CLAIMS)
        if roster.rest:
            raise ValueError("roster: its last address is not whole")
        if roster.request.groups != NULL and not gl_are_groups_of(&roster.request, roster.size):
            raise ValueError("roster: its groups are not of its addresses")
        if results.results.claims < limit:
            raise ValueError(f"results: {results.results.claims} claims, but the table has {limit}")
        if outcomes is not None and <size_t>PyBytes_GET_SIZE(outcomes) < limit:
            raise ValueError(
                f"outcomes: {PyBytes_GET_SIZE(outcomes)} claims, but the table has {limit}")
        self.table = table
        self.results = results
        self.outcomes_of = outcomes
        self.roster = roster
        a.isa = table.isa
        a.table = &table.table
        a.results = &results.results
        if outcomes is not None:
            a.outcome = <const uint8_t *>PyBytes_AS_STRING(outcomes)
        a.keeps_claims = roster.request.regions
        if not gl_answer_begin(a, &roster.request, roster.size):
            raise MemoryError

    def __dealloc__(self):
        free(self.answer.memory)

    def step(self):
        """Classify the next piece; return whether there is another."""
        cdef gl_answer *a = &self.answer
        if self.busy or self.complete:
            raise RuntimeError("step: under way in another thread, or none is left")
        if min(a.n - a.done, <size_t>GL_STEP_ADDRESSES) > <size_t>GL_BATCH:
            self.busy = True
            with nogil:
                gl_answer_step(a)
            self.busy = False
        else:
            gl_answer_step(a)
        self.complete = a.done == a.n
        return not self.complete

    cdef int _check_complete(self) except -1:
        if not self.complete:
            raise RuntimeError("a step is missing")
        return 0

    @property
    def claims(self):
        """Claim of each address (uint16); None: the column of regions was not requested."""
        self._check_complete()
        if not self.answer.keeps_claims:
            return None
        if self.answer.n == 0:
            return b""
        return PyBytes_FromStringAndSize(
            <char *>self.answer.claims, <Py_ssize_t>(2 * self.answer.n))

    @property
    def statuses(self):
        """Addresses of each status, by its number."""
        cdef uint64_t *n = self.answer.by_status
        self._check_complete()
        return n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]

    @property
    def verdicts(self):
        """Addresses inside, outside and undetermined; None: no region set was requested."""
        cdef uint64_t *n = self.answer.by_verdict
        self._check_complete()
        return None if self.outcomes_of is None else (n[0], n[1], n[2])

    @property
    def reasons(self):
        """Undetermined addresses of each reason, by its number; None as verdicts."""
        self._check_complete()
        if self.outcomes_of is None:
            return None
        return tuple([self.answer.by_reason[i] for i in range(GL_REASONS)])

    @property
    def network_counts(self):
        """Addresses of each kind of network; all 0 where the dataset has no lists."""
        self._check_complete()
        return tuple([self.answer.by_network[i] for i in range(GL_NETWORK_KINDS)])

    def finish(self, bytes rest not None, bint wrapped=False, /):
        """Return the response, serialised."""
        cdef gl_answer *a = &self.answer
        cdef size_t size, more = PyBytes_GET_SIZE(rest)
        cdef bytes response
        cdef uint8_t *out
        self._check_complete()
        if self.written:
            raise RuntimeError("finish: was called before")
        size = gl_answer_bytes(a) + more
        response = _reserve(gl_field_bytes(size) if wrapped else size)
        out = <uint8_t *>PyBytes_AS_STRING(response)
        self.written = True
        if wrapped:
            out = gl_put_field(out, 1, size)
        if a.n > <size_t>QUICK:
            with nogil:
                out = gl_answer_write(a, out)
        else:
            out = gl_answer_write(a, out)
        memcpy(out, PyBytes_AS_STRING(rest), more)
        return response
