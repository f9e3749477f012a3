# cython: autotestdict=False
# (a `__test__` that is not in the stub)
"""The compile-time sweeps: lines into ranges, ranges into disjoint ones, layers into one line.

Nothing here depends on files or on country names. This file checks arguments and makes
the result objects; the loops are in sweep.h and source_lines.h. Nothing here releases the GIL: the
compiler has one thread, and ranges that grow meanwhile would have to be locked.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT16_MAX, UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memset

from sweep_headers cimport *


cdef enum:
    # Twice as many boundaries, and a flag, fit in 32 bits.
    MAX_RANGES = 1 << 30
    # A line of a source has some 80 bytes. A long one is no text, and must not fill the memory.
    MAX_LINE = 4096
    # In the table of codes by their two bytes; no code has this number.
    NOT_SEEN = 0xFFFF
    # Bits of an address, and so the most levels of a search tree.
    MAX_DEPTH = 128
    # Networks between two calls of a progress function.
    PROGRESS_EVERY = 1 << 14

# By gl_line_fault.
cdef tuple FAULTS = (
    None,
    None,  # the wrong number of fields: Dialect._expected
    "the first address can't be read",
    "the last address can't be read",
    "first and last are not of one family",
    "the range ends before it begins",
    "a quoted field does not end, or text follows it",
    "the prefix can't be read",
    "the prefix has bits set beyond its length",
    "the type is neither asn, ipv4 nor ipv6",
    "the value makes no sense for this address",
    "the status is none that registries use",
)
cdef dict FORMS = {"ranges": GL_RANGES, "networks": GL_NETWORKS, "delegations": GL_DELEGATIONS}


@cython.final
cdef class Ranges:
    cdef gl_ranges _ranges
    cdef int _in_use
    cdef readonly int bits

    def __init__(self, int bits):
        if self.bits:
            raise TypeError("a Ranges object is made once")
        if bits not in (32, 128):
            raise ValueError("an address has 32 or 128 bits")
        self.bits = bits

    def __dealloc__(self):
        free(self._ranges.rows)

    def append(self, first, last, int code, int file=0, long long line=0):
        cdef gl_range row
        if not 0 <= first <= last or last >> self.bits:
            raise ValueError("not a range of this family")
        if not 0 <= code <= UINT16_MAX:
            raise ValueError("a code is a number from 0 to 65,535")
        if not (0 <= file <= UINT16_MAX and 0 <= line <= UINT32_MAX):
            raise ValueError("a file's number is below 2^16 and a line's below 2^32")
        row.first_high = first >> 64
        row.first_low = first & 0xFFFF_FFFF_FFFF_FFFF
        row.last_high = last >> 64
        row.last_low = last & 0xFFFF_FFFF_FFFF_FFFF
        row.code = <uint16_t>code
        row.file = <uint16_t>file
        row.line = <uint32_t>line
        self.push(&row)

    cdef int push(self, const gl_range *row) except -1:
        if self._in_use:
            raise RuntimeError("ranges may not grow while they are merged")
        if self._ranges.n >= MAX_RANGES:
            raise OverflowError("a source may have 2^30 ranges of a family")
        if not gl_push_range(&self._ranges, row):
            raise MemoryError
        return 0

    cdef const gl_range *row(self, Py_ssize_t index) except NULL:
        if not 0 <= index < len(self):
            raise IndexError("no range has this number")
        return self._ranges.rows + index

    def __len__(self):
        return <Py_ssize_t>self._ranges.n

    def __getitem__(self, Py_ssize_t index):
        cdef const gl_range *row = self.row(index)
        return (
            <object>row.first_high << 64 | <object>row.first_low,
            <object>row.last_high << 64 | <object>row.last_low,
            row.code,
        )

    def __iter__(self):
        cdef Py_ssize_t index
        for index in range(len(self)):
            yield self[index]

    def place(self, Py_ssize_t index):
        cdef const gl_range *row = self.row(index)
        return row.file, row.line

    def __reduce__(self):
        raise TypeError("ranges can't be pickled or copied")

    def codes(self):
        cdef uint8_t seen[0x10000]
        cdef size_t index
        memset(seen, 0, sizeof(seen))
        for index in range(self._ranges.n):
            seen[self._ranges.rows[index].code] = 1
        return {code for code in range(1, 0x10000) if seen[code]}

    def flattened(self, bint last_begins=False):
        cdef Ranges flat
        cdef gl_clashes clashes
        cdef gl_precedence by = GL_LAST_BEGINS if last_begins else GL_SMALLEST
        if gl_is_flat(&self._ranges):
            return self, []
        flat = Ranges(self.bits)
        memset(&clashes, 0, sizeof(clashes))
        try:
            if not gl_flatten(&self._ranges, by, &flat._ranges, &clashes):
                raise MemoryError
            return flat, pairs_of(&clashes)
        finally:
            free(clashes.rows)

    def partial_overlaps(self):
        cdef gl_clashes found
        if gl_is_flat(&self._ranges):
            return []
        memset(&found, 0, sizeof(found))
        try:
            if not gl_partial_overlaps(&self._ranges, &found):
                raise MemoryError
            return pairs_of(&found)
        finally:
            free(found.rows)

    def intervals(self):
        cdef const gl_range *row
        cdef uint64_t next_high = 0, next_low = 0
        cdef size_t index
        cdef bint ended = False  # the last range reaches the end of the address line
        cdef gl_intervals state
        if not gl_is_flat(&self._ranges):
            raise ValueError("the ranges are disjoint and in ascending order")
        memset(&state, 0, sizeof(state))
        state.bits = <unsigned>self.bits
        try:
            for index in range(self._ranges.n):
                row = self._ranges.rows + index
                if row.first_high != next_high or row.first_low != next_low:
                    raised(gl_add_interval(&state, next_high, next_low, 0))
                raised(gl_add_interval(&state, row.first_high, row.first_low, row.code))
                next_low = row.last_low + 1
                next_high = row.last_high + (next_low == 0)
                ended = next_low >> 32 != 0 if self.bits == 32 else next_high == 0 == next_low
            if not ended:
                raised(gl_add_interval(&state, next_high, next_low, 0))
            columns = (
                bytes_of(&state.low), bytes_of(&state.codes),
                bytes_of(&state.merged), bytes_of(&state.starts), bytes_of(&state.inner),
            )
            return columns if self.bits == 32 else (bytes_of(&state.high), *columns)
        finally:
            free(state.high.data)
            free(state.low.data)
            free(state.codes.data)
            free(state.merged.data)
            free(state.starts.data)
            free(state.inner.data)


cdef bytes bytes_of(const gl_buffer *buffer):
    return (<char *>buffer.data)[:buffer.n] if buffer.n else b""


cdef int raised(int done) except -1:
    if not done:
        raise MemoryError
    return 0


cdef list pairs_of(const gl_clashes *found):
    cdef size_t index
    return [(found.rows[index].other, found.rows[index].row) for index in range(found.n)]


@cython.final
cdef class Dialect:
    cdef gl_dialect _dialect
    cdef str _expected

    def __init__(
        self, str form not None, *, str separator not None=",", bint quotes=False,
        bint comments=False, bint spaces=False, bint integers=False, int least, int most=0,
        int read=0, int first=0, int last=0, code=None, place=None,
    ):
        if form not in FORMS:
            raise ValueError(f"the form is one of: {', '.join(FORMS)}")
        if len(separator) != 1 or separator in '"#\r\n' or not separator.isascii():
            raise ValueError("a separator is one character of ASCII")
        if not 0 < least <= GL_MAX_FIELDS or most and most < least:
            raise ValueError(f"a line has from 1 to {GL_MAX_FIELDS} fields")
        if form == "delegations" and (least < 2 or most < 7):
            raise ValueError("delegations have at least 2 fields, and at most 7 or more")
        for column in (first, last, 0 if code is None else code):
            if not 0 <= column < least:
                raise ValueError("a column is below the least number of fields")
        read = max(least, read)
        if read > GL_MAX_FIELDS or place is not None and not 0 < place < read:
            raise ValueError("the column of the place is among the fields that are read")
        self._dialect.layout = FORMS[form]
        self._dialect.separator = <char>ord(separator)
        self._dialect.quote = c'"' if quotes else 0
        self._dialect.comments = comments
        self._dialect.spaces = spaces
        self._dialect.integers = integers
        self._dialect.least = <unsigned>least
        self._dialect.most = <unsigned>most
        self._dialect.first = <unsigned>first
        self._dialect.last = <unsigned>last
        self._dialect.code = 0 if code is None else <unsigned>code
        self._dialect.no_code = code is None
        self._dialect.read = <unsigned>read
        self._dialect.place = 0 if place is None else <unsigned>place
        number = "at least " if most == 0 else f"{least} to " if most > least else ""
        self._expected = f"expected {number}{max(least, most)} fields"

    def __reduce__(self):
        raise TypeError("a dialect can't be pickled or copied")


cdef Dialect PLAIN = Dialect("ranges", least=3, most=3, last=1, code=2)
PLAIN._expected = "expected three fields: first,last,code"


@cython.final
cdef class RangeLines:
    cdef Ranges _ipv4
    cdef Ranges _ipv6
    cdef object _read_code
    cdef object _read_place
    cdef dict _longer  # codes that do not have two bytes
    cdef dict _places  # by the code and the place, with a comma between
    cdef uint16_t *_known
    cdef bytes _rest
    cdef Dialect _dialect
    cdef int _file
    cdef Py_ssize_t _line
    cdef Py_ssize_t _skip
    cdef Py_ssize_t _allowed
    cdef readonly list faults

    def __cinit__(self):
        self._known = <uint16_t *>malloc(65536 * sizeof(uint16_t))
        if self._known == NULL:
            raise MemoryError
        memset(self._known, NOT_SEEN & 0xFF, 65536 * sizeof(uint16_t))

    def __init__(
        self, Ranges ipv4 not None, Ranges ipv6 not None, read_code, *, Dialect dialect=None,
        Py_ssize_t skip=0, int file=0, Py_ssize_t allowed_faults=0, read_place=None,
    ):
        if ipv4.bits != 32 or ipv6.bits != 128:
            raise ValueError("expected the ranges of IPv4, then those of IPv6")
        if not 0 <= file <= UINT16_MAX:
            raise ValueError("a file's number is below 2^16")
        self._ipv4 = ipv4
        self._ipv6 = ipv6
        self._read_code = read_code
        self._read_place = read_place
        self._dialect = PLAIN if dialect is None else dialect
        if self._dialect._dialect.place and read_place is None:
            raise ValueError("a dialect with a place needs a reader of places")
        self._skip = skip
        self._longer = {}
        self._places = {}
        self._rest = b""
        self._file = file
        self._line = 0
        self._allowed = allowed_faults
        self.faults = []

    def __dealloc__(self):
        free(self._known)

    def feed(self, bytes block not None):
        cdef bytes data = self._rest + block if self._rest else block
        cdef const char *at = PyBytes_AS_STRING(data)
        cdef const char *end = at + PyBytes_GET_SIZE(data)
        cdef const char *newline
        cdef size_t size
        self._rest = b""
        while len(self.faults) <= self._allowed:
            newline = <const char *>memchr(at, c"\n", end - at) if at < end else NULL
            if newline == NULL:
                break
            size = newline - at
            self.read(at, size - 1 if size and at[size - 1] == c"\r" else size)
            at = newline + 1
        else:
            return False
        if end - at > MAX_LINE:
            self.faults.append((self._line + 1, 1, "the line is longer than 4,096 bytes"))
            self._allowed = -1  # without line ends there is nothing to go on with
            return False
        self._rest = at[:end - at]
        return True

    def finish(self):
        return self.feed(b"\n" if self._rest else b"")

    def __reduce__(self):
        raise TypeError("a reader of lines can't be pickled or copied")

    cdef int read(self, const char *text, size_t size) except -1:
        cdef gl_line line
        cdef int code, fault
        self._line += 1
        if self._line <= self._skip:
            return 0
        fault = gl_read_line(&self._dialect._dialect, text, size, &line)
        if fault == GL_LINE_SKIPPED:
            return 0
        if fault:
            what = self._dialect._expected if fault == GL_LINE_FIELDS else FAULTS[fault]
            self.faults.append((self._line, <Py_ssize_t>line.column, what))
            return 0
        code = self.place(&line) if line.place_size else self.code(line.code, line.code_size)
        if code < 0:
            code = self.learn(&line)
            if code < 0:
                return 0
        gl_unmap_ipv4(&line)
        line.range.code = <uint16_t>code
        line.range.file = <uint16_t>self._file
        line.range.line = <uint32_t>self._line
        (self._ipv4 if line.family == 4 else self._ipv6).push(&line.range)
        return 0

    cdef int code(self, const char *text, size_t size) except -2:
        """Return a code that was seen before, else -1."""
        cdef uint16_t known
        if size != 2:
            return self._longer.get(text[:size], -1)
        known = self._known[<uint8_t>text[0] << 8 | <uint8_t>text[1]]
        return -1 if known == NOT_SEEN else known

    cdef int place(self, const gl_line *line) except -2:
        """Return the code of a country with a place that was seen before, else -1."""
        return self._places.get(
            line.code[:line.code_size] + b"," + line.place[:line.place_size], -1)

    cdef int learn(self, const gl_line *line) except -2:
        """Return a code that was not seen before, else -1 and note the fault."""
        cdef bytes raw = line.code[:line.code_size]
        cdef bytes place = line.place[:line.place_size]
        cdef int code
        try:
            if place:
                code = self._read_place(raw.decode("latin-1"), place.decode("utf-8", "replace"))
            else:
                code = self._read_code(raw.decode("latin-1"))
        except ValueError as error:
            self.faults.append((self._line, <Py_ssize_t>line.column, str(error)))
            return -1
        if not 0 <= code < NOT_SEEN:
            raise OverflowError("a code is a number from 0 to 65,534")
        if place:
            self._places[raw + b"," + place] = code
        elif len(raw) == 2:
            self._known[raw[0] << 8 | raw[1]] = <uint16_t>code
        else:
            self._longer[raw] = code
        return code


def walk_tree(
    Ranges ipv4 not None, Ranges ipv6 not None, children, *, Py_ssize_t nodes, Py_ssize_t ipv4_node,
    int bits, Py_ssize_t least, Py_ssize_t most, code_of, on_fault, int file=0, on_network=None,
):
    cdef const uint32_t[::1] child = children
    cdef size_t node[MAX_DEPTH + 2]
    cdef int depth[MAX_DEPTH + 2]
    cdef uint64_t high[MAX_DEPTH + 2]
    cdef uint64_t low[MAX_DEPTH + 2]
    cdef dict codes = {}
    cdef gl_range row
    cdef size_t at, top = 1, position = 0
    cdef int length, host, code
    cdef uint64_t h, l
    if bits not in (32, 128) or nodes < 0 or len(child) != 2 * nodes:
        raise ValueError("a tree has two children per node, and addresses of 32 or 128 bits")
    if not 0 <= file <= UINT16_MAX:
        raise ValueError("a file's number is below 2^16")
    node[0], depth[0], high[0], low[0] = 0, 0, 0, 0
    while top:
        top -= 1
        at, length, h, l = node[top], depth[top], high[top], low[top]
        if at < <size_t>nodes:
            if <Py_ssize_t>at == ipv4_node and (h or l):
                continue  # another way to the IPv4 addresses
            if length >= bits:
                raise ValueError("too deep")
            host = bits - length - 1
            node[top], depth[top] = child[2 * at + 1], length + 1
            high[top] = h | (<uint64_t>1 << (host - 64) if host >= 64 else 0)
            low[top] = l | (<uint64_t>1 << host if host < 64 else 0)
            top += 1
            node[top], depth[top], high[top], low[top] = child[2 * at], length + 1, h, l
            top += 1
            continue
        if at == <size_t>nodes:
            continue  # nothing is known of these
        at -= nodes
        if not <size_t>least <= at < <size_t>most:
            raise ValueError("a record outside of the records")
        position += 1
        if on_network is not None and position % PROGRESS_EVERY == 1:
            on_network(position)
        found = codes.get(at)
        if found is None:
            found = codes[at] = code_of(at)
        code = found
        if code < 0:
            on_fault(at, position)
            continue
        if code > UINT16_MAX:
            raise OverflowError("a code is a number from 0 to 65,535")
        host = bits - length
        row.first_high, row.first_low = h, l
        row.last_high = h | (0 if host <= 64 else ~<uint64_t>0 >> (128 - host))
        row.last_low = l | (~<uint64_t>0 if host >= 64 else (<uint64_t>1 << host) - 1)
        row.code = <uint16_t>code
        row.file = <uint16_t>file
        row.line = 0
        if bits == 32 or row.last_high == 0 and row.last_low >> 32 == 0:
            ipv4.push(&row)
            continue
        ipv6.push(&row)
        if h == 0 == l:  # a shorter prefix than ::/96, which answers for all of IPv4
            row.last_high, row.last_low = 0, UINT32_MAX
            ipv4.push(&row)
    return position


def merge_ipv4(layers, claim_of):
    _, firsts, claims = merge(tuple(layers), claim_of, 32)
    return firsts, claims


def merge_ipv6(layers, claim_of):
    return merge(tuple(layers), claim_of, 128)


cdef tuple merge(tuple layers, object claim_of, int bits):
    cdef gl_merge state
    cdef gl_buffer high, low, claims
    cdef dict known = {}
    cdef Ranges layer
    cdef bytes codes
    cdef long long claim, before = -1
    cdef Py_ssize_t index
    for layer in layers:
        if layer is None or layer.bits != bits:
            raise ValueError("layers are Ranges of one family")
        if not gl_is_flat(&layer._ranges):
            raise ValueError("a layer's ranges are disjoint and in ascending order")
    memset(&state, 0, sizeof(state))
    memset(&high, 0, sizeof(high))
    memset(&low, 0, sizeof(low))
    memset(&claims, 0, sizeof(claims))
    state.n = <size_t>len(layers)
    state.layers = <gl_layer *>calloc(state.n + 1, sizeof(gl_layer))
    state.codes = <uint16_t *>calloc(state.n + 1, sizeof(uint16_t))
    for layer in layers:
        layer._in_use += 1
    try:
        if state.layers == NULL or state.codes == NULL:
            raise MemoryError
        for index, layer in enumerate(layers):
            if layer._ranges.n:
                state.layers[index].at = layer._ranges.rows
                state.layers[index].end = layer._ranges.rows + layer._ranges.n
        gl_merge_begin(&state, bits)
        while gl_merge_step(&state):
            codes = PyBytes_FromStringAndSize(<char *>state.codes, state.n * sizeof(uint16_t))
            found = known.get(codes)
            if found is None:
                found = claim_of(codes)
                if not 0 <= found <= UINT16_MAX:
                    raise OverflowError("a claim is a number from 0 to 65,535")
                known[codes] = found
            claim = found
            if claim == before:
                continue
            before = claim
            if not (
                (bits == 32 or gl_append_value(&high, gl_merge_high(&state), 8))
                and gl_append_value(&low, gl_merge_low(&state), 4 if bits == 32 else 8)
                and gl_append_value(&claims, <uint64_t>claim, 2)
            ):
                raise MemoryError
        return (
            (<char *>high.data)[:high.n] if high.n else b"",
            (<char *>low.data)[:low.n],
            (<char *>claims.data)[:claims.n],
        )
    finally:
        for layer in layers:
            layer._in_use -= 1
        free(state.layers)
        free(state.codes)
        free(high.data)
        free(low.data)
        free(claims.data)


def renumber(bytes claims not None, bytes numbers not None):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(claims), index
    cdef Py_ssize_t known = PyBytes_GET_SIZE(numbers)
    cdef const uint8_t *old = <const uint8_t *>PyBytes_AS_STRING(claims)
    cdef const uint8_t *new = <const uint8_t *>PyBytes_AS_STRING(numbers)
    cdef bytes result
    cdef uint8_t *out
    cdef Py_ssize_t claim
    if size % 2 or known % 2:
        raise ValueError("claims have 2 bytes each")
    result = PyBytes_FromStringAndSize(NULL, size)
    out = <uint8_t *>PyBytes_AS_STRING(result)
    for index in range(0, size, 2):
        claim = old[index] | old[index + 1] << 8
        if 2 * claim >= known:
            raise ValueError("a claim has no new number")
        out[index] = new[2 * claim]
        out[index + 1] = new[2 * claim + 1]
    return result
