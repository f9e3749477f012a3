# cython: embedsignature=True, embedsignature.format=clinic, auto_pickle=False, autotestdict=False
"""Columns of addresses in, columns of answers out: the Arrow C data interface, and numpy's texts.

No Arrow library is needed: the interface is three structures (arrow_abi.h). The loops over
addresses are in arrow_read.h. _arrow.pyi has the contract.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset, strcmp

import sys

from geolookup import _core


cdef extern from "arrow_read.h" nogil:
    const char *GL_CORE_API_NAME
    const char *GL_TABLE_NAME
    int64_t ARROW_FLAG_NULLABLE
    size_t GL_STAGE

    ctypedef struct gl_core_api:
        pass
    ctypedef struct gl_table_handle:
        pass

    ctypedef struct ArrowSchema "struct ArrowSchema":
        const char *format
        const char *name
        const char *metadata
        int64_t flags
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept nogil
        void *private_data

    ctypedef struct ArrowArray "struct ArrowArray":
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data

    ctypedef struct ArrowArrayStream "struct ArrowArrayStream":
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
        const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
        void (*release)(ArrowArrayStream *) noexcept nogil
        void *private_data

    ctypedef struct gl_roster:
        uint8_t *families
        uint8_t *ipv4
        uint8_t *ipv6

    ctypedef enum gl_column_kind:
        GL_COLUMN_NONE
        GL_COLUMN_UINT64
        GL_COLUMN_FIXED8
        GL_COLUMN_FIXED32

    ctypedef enum gl_column_fault:
        GL_COLUMN_GOOD
        GL_COLUMN_BUFFERS
        GL_COLUMN_LENGTH
        GL_COLUMN_VIEW
        GL_COLUMN_INDEX

    ctypedef struct gl_column:
        gl_column_kind kind
        size_t first
        size_t n
        const uint8_t *validity
        const uint8_t *values
        size_t width
        size_t stride

    ctypedef struct gl_column_out:
        uint16_t *claims
        uint8_t *padded
        uint8_t *families
        uint8_t *present

    gl_column_kind gl_column_kind_of(const char *format) noexcept
    gl_column_fault gl_column_of_array(
        gl_column *c, gl_column_kind kind, const ArrowArray *array, size_t first,
        size_t n) noexcept
    bint gl_has_nulls(const gl_column *c) noexcept
    gl_column_fault gl_read_column(
        const gl_core_api *api, const gl_table_handle *table, const gl_column *c,
        gl_roster *stage, gl_column_out out) noexcept
    int gl_index_bytes(const char *format) noexcept
    size_t gl_write_validity(
        const uint8_t *column, size_t width, const uint8_t *present, size_t n,
        uint8_t *out) noexcept
    gl_column_fault gl_read_by_dictionary(
        const gl_core_api *api, const gl_table_handle *table, const gl_column *indices, int bytes,
        const gl_column *dictionary, gl_roster *stage, gl_column_out values,
        gl_column_out out) noexcept
    int gl_stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept
    int gl_stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept


cdef const gl_core_api *_api = <const gl_core_api *>PyCapsule_GetPointer(
    _core.api(), GL_CORE_API_NAME)

cdef dict _FAULTS = {
    GL_COLUMN_BUFFERS: "has not the buffers of its type",
    GL_COLUMN_LENGTH: "has lengths that contradict each other",
    GL_COLUMN_VIEW: "has a view beyond its buffer",
    GL_COLUMN_INDEX: "has an index beyond its dictionary",
}


class ColumnError(ValueError):
    """A column that is not whole. The text follows the column's name."""


@cython.final
cdef class _Reader:
    """What is read of one column: chunk by chunk, then all of it."""

    cdef object table  # a capsule, which keeps what the handle points to
    cdef const gl_table_handle *handle
    cdef bint packed
    cdef size_t width  # bytes of each value that is returned: a claim, or a packed address
    cdef gl_column_kind kind
    cdef int index_bytes  # of a dictionary's indices; 0: the column has no dictionary
    cdef bint framed  # the column is the only one of a frame
    cdef gl_roster stage
    cdef list chunks
    cdef list families
    cdef list present  # of each chunk; None: without nulls

    def __cinit__(self, table, bint packed):
        self.table = table
        self.handle = <const gl_table_handle *>PyCapsule_GetPointer(table, GL_TABLE_NAME)
        self.packed = packed
        self.width = 16 if packed else 2
        self.chunks = []
        self.families = []
        self.present = []
        self.stage.families = <uint8_t *>malloc((1 + 4 + 16) * GL_STAGE)
        if self.stage.families == NULL:
            raise MemoryError
        self.stage.ipv4 = self.stage.families + GL_STAGE
        self.stage.ipv6 = self.stage.ipv4 + 4 * GL_STAGE

    def __dealloc__(self):
        free(self.stage.families)

    cdef int open(self, const ArrowSchema *schema) except -1:
        """Find out what the column holds."""
        cdef str format_
        if schema.format != NULL and strcmp(schema.format, b"+s") == 0:
            if schema.n_children != 1:
                raise TypeError("has several columns; pass one of them, such as frame['ip']")
            self.framed = True
            schema = schema.children[0]
        if schema.format == NULL:
            raise ColumnError("has no type")
        if schema.dictionary != NULL:
            self.index_bytes = gl_index_bytes(schema.format)
            schema = schema.dictionary
            if self.index_bytes == 0 or schema.dictionary != NULL:
                raise ColumnError("has a dictionary that is none of Arrow's")
        self.kind = gl_column_kind_of(schema.format)
        if self.kind == GL_COLUMN_NONE:
            format_ = (<bytes>schema.format).decode("ascii", "replace")[:24]
            raise TypeError(
                f"has Arrow's type {format_!r}, which holds no addresses; expected text, binary of"
                " 4 or 16 bytes, or IPv4 addresses as uint32, uint64 or int64")
        return 0

    cdef int add(self, const ArrowArray *array) except -1:
        """Read the next chunk."""
        cdef int64_t first = array.offset, n = array.length
        cdef gl_column column, dictionary
        if self.framed:
            if array.n_children != 1 or array.null_count > 0 or n < 0 or first < 0:
                raise ColumnError(_FAULTS[GL_COLUMN_BUFFERS])
            array = array.children[0]
            if array.offset < 0 or array.length < first + n:
                raise ColumnError(_FAULTS[GL_COLUMN_LENGTH])
            first += array.offset
        if n < 0 or first < 0:
            raise ColumnError(_FAULTS[GL_COLUMN_LENGTH])
        if self.index_bytes == 0:
            _check(gl_column_of_array(&column, self.kind, array, first, n))
            return self.read(&column, NULL)
        if array.dictionary == NULL or array.dictionary.length < 0 or array.dictionary.offset < 0:
            raise ColumnError(_FAULTS[GL_COLUMN_BUFFERS])
        _check(gl_column_of_array(&column, GL_COLUMN_UINT64, array, first, n))
        _check(gl_column_of_array(
            &dictionary, self.kind, array.dictionary, array.dictionary.offset,
            array.dictionary.length))
        return self.read(&column, &dictionary)

    cdef int read(self, const gl_column *column, const gl_column *dictionary) except -1:
        cdef gl_column_out out = gl_column_out(NULL, NULL, NULL, NULL)
        cdef gl_column_out values = gl_column_out(NULL, NULL, NULL, NULL)
        cdef bint nulls = gl_has_nulls(column)
        cdef gl_column_fault fault
        if dictionary != NULL:
            nulls |= gl_has_nulls(dictionary)
        self.reserve(column.n, nulls, &out)
        if dictionary == NULL:
            with nogil:
                fault = gl_read_column(_api, self.handle, column, &self.stage, out)
            return _check(fault)
        values.padded = <uint8_t *>malloc((16 + 2 + 1 + 1) * dictionary.n + 1)
        if values.padded == NULL:
            raise MemoryError
        values.claims = <uint16_t *>(values.padded + 16 * dictionary.n)
        values.families = <uint8_t *>(values.claims + dictionary.n)
        values.present = values.families + dictionary.n
        with nogil:
            fault = gl_read_by_dictionary(
                _api, self.handle, column, self.index_bytes, dictionary, &self.stage, values, out)
        free(values.padded)
        return _check(fault)

    cdef int reserve(self, size_t n, bint nulls, gl_column_out *out) except -1:
        """Make room for the next chunk's values."""
        cdef bytes chunk = PyBytes_FromStringAndSize(NULL, self.width * n)
        cdef bytes more
        self.chunks.append(chunk)
        if self.packed:
            out.padded = <uint8_t *>PyBytes_AS_STRING(chunk)
            more = PyBytes_FromStringAndSize(NULL, n)
            self.families.append(more)
            out.families = <uint8_t *>PyBytes_AS_STRING(more)
        else:
            out.claims = <uint16_t *>PyBytes_AS_STRING(chunk)
        if nulls:
            more = PyBytes_FromStringAndSize(NULL, n)
            self.present.append(more)
            out.present = <uint8_t *>PyBytes_AS_STRING(more)
        else:
            self.present.append(None)
        return 0

    cdef tuple finish(self):
        cdef bytes values = _joined(self.chunks), present = None
        if any([chunk is not None and 0 in chunk for chunk in self.present]):
            present = _joined([
                bytes([1]) * (len(part) // self.width) if chunk is None else chunk
                for part, chunk in zip(self.chunks, self.present)])
        return values, (_joined(self.families) if self.packed else None), present


cdef bytes _joined(list chunks):
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


cdef int _check(gl_column_fault fault) except -1:
    if fault != GL_COLUMN_GOOD:
        raise ColumnError(_FAULTS[fault])
    return 0


def read(table, source, bint packed=False, /):
    """Return the addresses of a column of Arrow: claims or packed forms, families and nulls."""
    cdef _Reader reader = _Reader(table, packed)
    if hasattr(source, "__arrow_c_array__"):
        _read_array(reader, source)
    else:
        _read_stream(reader, source)
    return reader.finish()


def _exported(export):
    try:
        return export(None)
    except Exception as error:
        # Its text may have a value, such as that of an object column's item.
        kind = type(error).__name__
    raise TypeError(f"could not be exported by its library, which raised {kind}")


cdef int _read_array(_Reader reader, source) except -1:
    # Some producers want the requested schema to be passed. The capsules release what they hold.
    schema, array = _exported(source.__arrow_c_array__)
    reader.open(<const ArrowSchema *>PyCapsule_GetPointer(schema, "arrow_schema"))
    return reader.add(<const ArrowArray *>PyCapsule_GetPointer(array, "arrow_array"))


cdef int _read_stream(_Reader reader, source) except -1:
    cdef ArrowArrayStream *stream
    cdef ArrowSchema schema
    cdef ArrowArray array
    cdef int code
    capsule = _exported(source.__arrow_c_stream__)
    stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    # Without the GIL, which a producer's threads may need to get on.
    with nogil:
        code = gl_stream_schema(stream, &schema)
    _check_stream(stream, code)
    try:
        reader.open(&schema)
    finally:
        if schema.release != NULL:
            schema.release(&schema)
    while True:
        with nogil:
            code = gl_stream_next(stream, &array)
        _check_stream(stream, code)
        if array.release == NULL:
            return 0
        try:
            reader.add(&array)
        finally:
            array.release(&array)


cdef int _check_stream(ArrowArrayStream *stream, int code) except -1:
    if code == 0:
        return 0
    if code == ENOMEM:
        raise MemoryError
    # Not the producer's text, which may have a value.
    raise ColumnError(f"failed to deliver its next values (error {code})")


def read_fixed(table, source, bint packed=False, /):
    """Return the same of a buffer of texts of a fixed width, as numpy's types S and U; None: it
    is none."""
    cdef _Reader reader
    cdef gl_column column
    cdef Py_buffer view
    cdef str format_
    PyObject_GetBuffer(source, &view, PyBUF_FORMAT | PyBUF_STRIDES)
    try:
        format_ = "" if view.format == NULL else view.format.decode("ascii", "replace")
        if view.ndim != 1 or format_[-1:] not in ("s", "w") or view.strides[0] < 0:
            return None
        if format_[-1:] == "w" and format_[:1] == (">" if sys.byteorder == "little" else "<"):
            return None  # characters in the other order
        memset(&column, 0, sizeof(column))
        column.kind = GL_COLUMN_FIXED8 if format_[-1:] == "s" else GL_COLUMN_FIXED32
        column.n = view.shape[0]
        column.values = <const uint8_t *>view.buf
        column.stride = view.strides[0]
        column.width = view.itemsize // (1 if column.kind == GL_COLUMN_FIXED8 else 4)
        reader = _Reader(table, packed)
        reader.read(&column, NULL)
        return reader.finish()
    finally:
        PyBuffer_Release(&view)


# A stream's private data.
cdef struct _Stream:
    PyObject *array
    bint ended


def validity(bytes column not None, size_t width, bytes present=None, /):
    """Return a bit for each item that is not 0 and is present, and how many have none."""
    cdef size_t n, nulls
    cdef bytes bits
    cdef const uint8_t *also = NULL
    if width not in (1, 2):
        raise ValueError("width: expected 1 or 2")
    n = len(column) // width
    if present is not None and <size_t>len(present) != n:
        raise ValueError(f"present: {len(present)} items, but column has {n}")
    if present is not None:
        also = <const uint8_t *>PyBytes_AS_STRING(present)
    bits = PyBytes_FromStringAndSize(NULL, (n + 7) // 8)
    nulls = gl_write_validity(
        <const uint8_t *>PyBytes_AS_STRING(column), width, also, n,
        <uint8_t *>PyBytes_AS_STRING(bits))
    return (bits if nulls else None), nulls


@cython.final
cdef class Array:
    """An array of Arrow over bytes objects, to be handed out."""

    cdef bytes format
    cdef bytes name
    cdef int64_t length
    cdef int64_t nulls
    cdef tuple buffers
    cdef tuple children
    cdef Array dictionary

    def __cinit__(
        self, str format not None, Py_ssize_t length, buffers, *, str name not None="", nulls=0,
        children=(), Array dictionary=None,
    ):
        self.format = format.encode()
        self.name = name.encode()
        self.length = length
        self.nulls = nulls
        self.buffers = tuple(buffers)
        self.children = tuple(children)
        self.dictionary = dictionary
        for buffer in self.buffers:
            if buffer is not None and type(buffer) is not bytes:
                raise TypeError(f"buffers: expected bytes, not {type(buffer).__name__}")
        for child in self.children:
            if type(child) is not Array:
                raise TypeError(f"children: expected Array, not {type(child).__name__}")

    def __len__(self):
        return self.length

    def __arrow_c_schema__(self):
        """Return a capsule of the type."""
        cdef ArrowSchema *schema = <ArrowSchema *>_allocate(sizeof(ArrowSchema))
        capsule = PyCapsule_New(schema, "arrow_schema", _end_schema)
        _fill_schema(self, schema)
        return capsule

    def __arrow_c_array__(self, requested_schema=None):
        """Return capsules of the type and of the values; another type than ours is not made."""
        cdef ArrowArray *array = <ArrowArray *>_allocate(sizeof(ArrowArray))
        capsule = PyCapsule_New(array, "arrow_array", _end_array)
        _fill_array(self, array)
        return self.__arrow_c_schema__(), capsule

    def __arrow_c_stream__(self, requested_schema=None):
        """Return a capsule of a stream of this one array; otherwise as __arrow_c_array__."""
        cdef ArrowArrayStream *stream = <ArrowArrayStream *>_allocate(sizeof(ArrowArrayStream))
        capsule = PyCapsule_New(stream, "arrow_array_stream", _end_stream)
        stream.private_data = _allocate(sizeof(_Stream))
        (<_Stream *>stream.private_data).array = <PyObject *>self
        Py_INCREF(self)
        stream.get_schema = _stream_schema
        stream.get_next = _stream_next
        stream.get_last_error = _stream_error
        stream.release = _release_stream
        return capsule


cdef extern from *:
    """
    static inline int gl_is_python_up(void) { return Py_IsInitialized(); }
    """
    bint gl_is_python_up() noexcept nogil


cdef void *_allocate(size_t size) except NULL:
    cdef void *memory = calloc(1, size)
    if memory == NULL:
        raise MemoryError
    return memory


# A structure's private data: the structures below it, in one piece of memory, and before them the
# object whose buffers it points to.
cdef struct _Owned:
    PyObject *owner


cdef void _drop(PyObject *owner) noexcept with gil:
    Py_DECREF(<object>owner)


cdef void _free_owned(void *memory) noexcept nogil:
    # Engines may release what they hold after the interpreter's end, when nothing is left to free.
    if gl_is_python_up():
        _drop((<_Owned *>memory).owner)
    free(memory)


cdef int _fill_schema(Array source, ArrowSchema *out) except -1:
    cdef size_t children = len(source.children), at
    cdef size_t below = children + (source.dictionary is not None)
    cdef _Owned *owned = <_Owned *>_allocate(
        sizeof(_Owned) + below * sizeof(ArrowSchema) + children * sizeof(void *))
    cdef ArrowSchema *first = <ArrowSchema *>(owned + 1)
    Py_INCREF(source)
    owned.owner = <PyObject *>source
    out.format = PyBytes_AS_STRING(source.format)
    out.name = PyBytes_AS_STRING(source.name)
    out.flags = ARROW_FLAG_NULLABLE
    out.n_children = children
    out.children = <ArrowSchema **>(first + below)
    out.private_data = owned
    out.release = _release_schema  # from here on an error's way frees what there is
    for at in range(children):
        out.children[at] = first + at
        _fill_schema(<Array>source.children[at], first + at)
    if source.dictionary is not None:
        out.dictionary = first + children
        _fill_schema(source.dictionary, first + children)
    return 0


cdef void _release_schema(ArrowSchema *schema) noexcept nogil:
    cdef int64_t at
    for at in range(schema.n_children):
        if schema.children[at] != NULL and schema.children[at].release != NULL:
            schema.children[at].release(schema.children[at])
    if schema.dictionary != NULL and schema.dictionary.release != NULL:
        schema.dictionary.release(schema.dictionary)
    _free_owned(schema.private_data)
    schema.release = NULL


cdef int _fill_array(Array source, ArrowArray *out) except -1:
    cdef size_t children = len(source.children), buffers = len(source.buffers), at
    cdef size_t below = children + (source.dictionary is not None)
    cdef _Owned *owned = <_Owned *>_allocate(
        sizeof(_Owned) + below * sizeof(ArrowArray) + (children + buffers) * sizeof(void *))
    cdef ArrowArray *first = <ArrowArray *>(owned + 1)
    Py_INCREF(source)
    owned.owner = <PyObject *>source
    out.length = source.length
    out.null_count = source.nulls
    out.n_buffers = buffers
    out.n_children = children
    out.children = <ArrowArray **>(first + below)
    out.buffers = <const void **>(out.children + children)
    out.private_data = owned
    out.release = _release_array
    for at in range(buffers):
        if source.buffers[at] is not None:
            out.buffers[at] = PyBytes_AS_STRING(<bytes>source.buffers[at])
    for at in range(children):
        out.children[at] = first + at
        _fill_array(<Array>source.children[at], first + at)
    if source.dictionary is not None:
        out.dictionary = first + children
        _fill_array(source.dictionary, first + children)
    return 0


cdef void _release_array(ArrowArray *array) noexcept nogil:
    cdef int64_t at
    for at in range(array.n_children):
        if array.children[at] != NULL and array.children[at].release != NULL:
            array.children[at].release(array.children[at])
    if array.dictionary != NULL and array.dictionary.release != NULL:
        array.dictionary.release(array.dictionary)
    _free_owned(array.private_data)
    array.release = NULL


cdef void _end_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:  # else its consumer took it over
        schema.release(schema)
    free(schema)


cdef void _end_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef void _end_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(
        capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef int _stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept with gil:
    memset(out, 0, sizeof(out[0]))
    try:
        _fill_schema(<Array>(<_Stream *>stream.private_data).array, out)
    except MemoryError:
        if out.release != NULL:
            out.release(out)
        return ENOMEM
    return 0


cdef int _stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept with gil:
    memset(out, 0, sizeof(out[0]))
    if (<_Stream *>stream.private_data).ended:
        return 0
    try:
        _fill_array(<Array>(<_Stream *>stream.private_data).array, out)
    except MemoryError:
        if out.release != NULL:
            out.release(out)
        return ENOMEM
    (<_Stream *>stream.private_data).ended = True
    return 0


cdef const char *_stream_error(ArrowArrayStream *stream) noexcept nogil:
    return NULL  # errors are those of memory alone


cdef void _release_stream(ArrowArrayStream *stream) noexcept nogil:
    if gl_is_python_up():
        _drop((<_Stream *>stream.private_data).array)
    free(stream.private_data)
    stream.release = NULL
