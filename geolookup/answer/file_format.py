"""The dataset file, format 1, as bytes: assembled, checked and decoded.

docs/dataset-format.md describes it. Nothing here opens files or looks up addresses.
All content that `Image` returns was checked: a fault in the file is a `DatasetError`
that begins with the file's name.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import threading
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from itertools import accumulate
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NamedTuple,
    NoReturn,
    overload,
)

from geolookup import _core, machine
from geolookup.answer.age import MAX_DAYS, STALE, AgeLimit
from geolookup.answer.claims import (
    COVERAGES,
    COVERING,
    DEPTHS,
    FIXED_CLAIMS,
    MAX_CLAIMS,
    NO_COUNTRY,
    SUBDIVISION_SOURCES,
    VOUCHED,
    Claim,
    Coverage,
    Depth,
    Mute,
    Network,
    PlaceVote,
    Policy,
    Status,
    encode_outcome,
    network_bits,
)
from geolookup.answer.evidence import FIRST_PLACE
from geolookup.answer.intervals import Family, covering_ipv4, covering_ipv6
from geolookup.answer.subdivisions import CODE, subdivisions
from geolookup.errors import DatasetError

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC: Final = b"\x89GLK\r\n\x1a\n"
"""Like PNG's: no text, and broken by transfers that take it for text."""
_SEEN = 512
_OTHERS: Final = {
    b"\x1f\x8b": "it is compressed with gzip",
    b"\xfd7zXZ\0": "it is compressed with xz",
    b"BZh": "it is compressed with bzip2",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd",
    b"PK\3\4": "it is a zip archive",
}
FORMAT: Final = 1
HEADER_SIZE: Final = 4096
"""One page: the table has room for 56 sections."""
ALIGNMENT: Final = 64
"""A cache line, and more than any item of a section needs."""

_LITTLE_ENDIAN = 1
_DIGEST_SIZE = 32
_HEADER = struct.Struct("<8sIIQII")  # magic, format, byte order, file size, sections, zero
_ENTRY = struct.Struct("<16sIIQQ32s")  # name, flags, zero, offset, size, SHA-256
_MAX_SECTIONS = (HEADER_SIZE - _DIGEST_SIZE - _HEADER.size) // _ENTRY.size
_NEEDED = 1
"""Flag of a section without which the file can't be read rightly."""

# Bytes an item. The order is that of the file.
_SECTIONS = {
    "ipv4.first": 4,
    "ipv4.claims": 2,
    "ipv6.high": 8,
    "ipv6.low": 8,
    "ipv6.claims": 2,
    "claim.status": 1,
    "claim.country": 2,
    "claim.silent": 1,
    "claim.abstained": 2,
    "claim.votes": 1,
    "vote.country": 2,
    "vote.count": 2,
    "metadata": 1,
}

# These, too, where a source of the dataset names subdivisions. Needed as well: a reader that
# does not know them can't read the evidence rightly.
PLACE_SECTIONS: Final = {
    "claim.places": 1,
    "place.vote": 2,
    "place.count": 2,
    "place.flags": 1,
    "place.code": 6,
}
_FULL, _DEEP, _AUTHORITATIVE, _CUT = 1, 2, 4, 8
"""Flags of a vote for a place."""

# The columns of the intervals, and the `struct` format of their items.
_INTERVAL_COLUMNS: Final[dict[str, Literal["H", "I", "Q"]]] = {
    "ipv4.first": "I",
    "ipv4.claims": "H",
    "ipv6.high": "Q",
    "ipv6.low": "Q",
    "ipv6.claims": "H",
}

_WORTH_A_THREAD: Final = 1 << 20
"""Bytes; their checksum takes 0.6 ms."""

# Needed where they are there: a reader that ignored them would give other answers.
_MORE_SECTIONS = {"claim.networks": 2}

_MOST_ITEMS: Final = {
    "claim": MAX_CLAIMS,
    "vote": MAX_CLAIMS * 0xFF,
    "place": MAX_CLAIMS * 0xFF,
    "metadata": 1 << 24,
}
"""The most items of the sections whose names begin so. Metadata takes some kilobytes."""
_USUAL_INTERVALS: Final = 1 << 26
"""Bytes of intervals up to which nobody asks for the memory that is left. The whole internet in
both families takes some 12 MiB."""

_LETTERS = bytes(range(ord("A"), ord("Z") + 1))


def why_no_dataset(beginning: bytes) -> str:
    """Return what is wrong with a file that begins like this, and not like a dataset."""
    if not beginning:
        return "is empty"
    for magic, what in _OTHERS.items():
        if beginning.startswith(magic):
            return f"not a geolookup dataset: {what}; unpack it first"
    return "not a geolookup dataset: it does not begin like one"


def check_header(header: Buffer, size: int, name: str) -> int:
    """Return the number of sections that a file has by its header.

    Nothing of the file but its header is needed, so that a file of another size costs nothing.

    Args:
        header: the file's beginning, `HEADER_SIZE` bytes or more if it has them.
        size: of the whole file, in bytes.
        name: how error texts call it.

    Raises:
        DatasetError: it is no dataset, of an unknown format, damaged, or of another size than
            the header says.
    """
    view = memoryview(header)

    def fail(what: str) -> NoReturn:
        raise DatasetError(f"{name}: {what}")

    if bytes(view[: len(MAGIC)]) != MAGIC:
        fail(why_no_dataset(bytes(view[:_SEEN])))
    if len(view) < HEADER_SIZE:
        fail(f"truncated: {len(view)} bytes, shorter than the header")
    _, version, order, stated, count, zero = _HEADER.unpack_from(view)
    if version != FORMAT:
        fail(
            f"dataset format {version} is unknown; this geolookup reads format {FORMAT}: "
            "compile the dataset again, or upgrade geolookup"
        )
    if hashlib.sha256(view[: HEADER_SIZE - _DIGEST_SIZE]).digest() != header_digest(view):
        fail("damaged: the header does not match its checksum")
    if order != _LITTLE_ENDIAN:
        fail("the header names an unknown byte order")
    if sys.byteorder != "little":
        fail("format 1 holds little-endian numbers, and this machine is big-endian")
    if stated != size:
        state = "truncated" if size < stated else "bytes were added"
        fail(f"{state}: {size} bytes, and the header says {stated}")
    if zero:
        fail("the header uses bytes that format 1 keeps zero")
    if count > _MAX_SECTIONS:
        fail(f"the header says {count} sections, and has room for {_MAX_SECTIONS}")
    return int(count)


@dataclass(frozen=True, slots=True, eq=False)
class DatasetContent:
    """What a dataset file holds, besides optional sections.

    Interval i ends where i + 1 begins; the first begins at 0, and neighbours have
    different claims. Columns are little-endian on every machine.

    Attributes:
        ipv4_first: uint32, first address of each IPv4 interval.
        ipv4_claims: uint16, its claim number.
        ipv6_first_high: uint64, upper half of each IPv6 interval's first address.
        ipv6_first_low: uint64, its lower half.
        ipv6_claims: uint16, its claim number, or one of the `EMBEDDED_*` numbers.
        claims: by number; the first three are `FIXED_CLAIMS`.
        metadata: the dataset's description, as JSON can hold it: "built", "sources" and more.
        places: codes of the subdivisions that its sources name, sorted.
    """

    ipv4_first: Buffer
    ipv4_claims: Buffer
    ipv6_first_high: Buffer
    ipv6_first_low: Buffer
    ipv6_claims: Buffer
    claims: Sequence[Claim]
    metadata: Mapping[str, Any]
    places: Sequence[str] = field(default=(), kw_only=True)


def assemble(content: DatasetContent, optional: Mapping[str, bytes]) -> bytes:
    """Return the file with this content; the same input gives the same bytes.

    Whether the content is valid is not checked here.

    Raises:
        DatasetError: something does not fit the format.
    """
    claims = content.claims
    try:
        needed = {
            "ipv4.first": _bytes(content.ipv4_first),
            "ipv4.claims": _bytes(content.ipv4_claims),
            "ipv6.high": _bytes(content.ipv6_first_high),
            "ipv6.low": _bytes(content.ipv6_first_low),
            "ipv6.claims": _bytes(content.ipv6_claims),
            **claim_sections(claims),
            "metadata": canonical_json(content.metadata),
        }
        if content.places:
            needed |= place_sections(claims, content.places)
    except (struct.error, ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"the compiled content does not fit the format: {error}") from error
    if any(claim.networks for claim in claims):
        needed["claim.networks"] = _uint16(claim.networks for claim in claims)
    sections = [Section(name, True, data) for name, data in needed.items()]
    sections += [Section(name, False, data) for name, data in sorted(optional.items())]
    return b"".join(join_sections(sections))


def claim_sections(claims: Sequence[Claim]) -> dict[str, bytes]:
    """Return the sections that all claims are in, by name."""
    votes = [vote for claim in claims for vote in claim.votes]
    return {
        "claim.status": bytes(claim.status for claim in claims),
        "claim.country": "".join(claim.country for claim in claims).encode("ascii"),
        "claim.silent": bytes(claim.silent for claim in claims),
        "claim.abstained": _uint16(claim.abstentions for claim in claims),
        "claim.votes": bytes(len(claim.votes) for claim in claims),
        "vote.country": "".join(code for code, _ in votes).encode("ascii"),
        "vote.count": _uint16(count for _, count in votes),
    }


def place_sections(claims: Sequence[Claim], places: Sequence[str]) -> dict[str, bytes]:
    """Return the sections of the votes for places that claims have, by name.

    Args:
        claims: those whose votes for places are wanted.
        places: codes of all subdivisions of the dataset, sorted.
    """
    votes = [vote for claim in claims for vote in claim.places]
    numbers = {code: number for number, code in enumerate(places, start=FIRST_PLACE)}
    return {
        "claim.places": bytes(len(claim.places) for claim in claims),
        "place.vote": _uint16(
            numbers[vote.place] if "-" in vote.place else int.from_bytes(vote.place.encode("ascii"))
            for vote in votes
        ),
        "place.count": _uint16(vote.count for vote in votes),
        "place.flags": bytes(
            _FULL * vote.full
            + _DEEP * vote.is_deep
            + _AUTHORITATIVE * vote.authoritative
            + _CUT * vote.is_cut
            for vote in votes
        ),
        "place.code": b"".join(code.encode("ascii").ljust(6, b"\0") for code in places),
    }


class Section(NamedTuple):
    """A section of a dataset file.

    Attributes:
        name: 1 to 16 printable ASCII characters.
        needed: whether the file can't be read rightly without it.
        data: its bytes.
        digest: their SHA-256; None: it is to be computed.
    """

    name: str
    needed: bool
    data: Buffer
    digest: bytes | None = None


def join_sections(sections: Collection[Section]) -> list[Buffer]:
    """Return the file of these sections, in pieces; the header is the first one.

    Raises:
        DatasetError: a name is none, or there are too many sections.
    """
    if len(sections) > _MAX_SECTIONS:
        raise DatasetError(f"{len(sections)} sections; the format has room for {_MAX_SECTIONS}")
    entries = []
    body: list[Buffer] = []
    end = HEADER_SIZE
    for name, needed, data, known in sections:
        if not (1 <= len(name) <= 16 and name.isascii() and name.isprintable()):
            raise DatasetError("a section's name is not 1 to 16 printable ASCII characters")
        padding = -end % ALIGNMENT
        size = memoryview(data).nbytes
        digest = known or hashlib.sha256(data).digest()
        flags = _NEEDED if needed else 0
        entries.append(_ENTRY.pack(name.encode(), flags, 0, end + padding, size, digest))
        body += (bytes(padding), data)
        end += padding + size
    header = _HEADER.pack(MAGIC, FORMAT, _LITTLE_ENDIAN, end, len(sections), 0)
    header = (header + b"".join(entries)).ljust(HEADER_SIZE - _DIGEST_SIZE, b"\0")
    return [header + hashlib.sha256(header).digest(), *body]


def header_digest(image: bytes | memoryview) -> bytes:
    """Return the stored digest of the header, which pins every byte of the file."""
    return bytes(image[HEADER_SIZE - _DIGEST_SIZE : HEADER_SIZE])


def _bytes(buffer: Buffer) -> bytes:
    return memoryview(buffer).tobytes()


def _uint16(values: Iterable[int]) -> bytes:
    listed = list(values)
    return struct.pack(f"<{len(listed)}H", *listed)


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the one text of a metadata section."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


class _Place(NamedTuple):
    """Where a section lies and what it must hold."""

    offset: int
    size: int
    digest: bytes
    needed: bool


class Image:
    """A dataset file in memory. Its header was checked; a section is when it is taken."""

    __slots__ = ("_columns", "_view", "id", "name", "sections")

    def __init__(self, view: memoryview, name: str) -> None:
        self._view = view
        self._columns: dict[str, memoryview[int]] | None = None
        self.name = name
        count = check_header(view, len(view), name)
        self.id = header_digest(view).hex()
        self.sections = self._read_table(count)
        self._check_sections()

    def section(self, name: str) -> memoryview:
        """Return a section's bytes, held against their checksum."""
        content = self._content(name)
        if hashlib.sha256(content).digest() != self.sections[name].digest:
            self.fail(f"section {name}: the content does not match its checksum")
        return content

    @property
    def buffer(self) -> Buffer:
        """The whole file, as the object that has it."""
        return self._view.obj

    def contents(self) -> Iterator[Section]:
        """Yield the sections in their order. They are not held against their checksums."""
        for name, place in self.sections.items():
            yield Section(name, place.needed, self._content(name), place.digest)

    @contextmanager
    def interval_sections(self) -> Iterator[list[memoryview]]:
        """Give the bytes of the intervals' columns, and hold them against their checksums.

        Large ones are held against these while the block runs, by another thread. Nothing made of
        them may be used before the block has ended.

        Raises:
            DatasetError: at the end of the block: a checksum is wrong. Whatever the block raised
                is left out then, since it may come from the damage.
        """
        columns = [self._content(name) for name in _INTERVAL_COLUMNS]
        damaged: list[BaseException] = []
        check = partial(self._check_intervals, damaged)
        thread = None
        if sum(map(len, columns)) >= _WORTH_A_THREAD:
            with suppress(RuntimeError):  # there may be no more threads
                thread = threading.Thread(target=check, name="geolookup checksums")
                thread.start()
        if thread is None or thread.ident is None:
            check()
        try:
            yield columns
        finally:
            if thread is not None and thread.ident is not None:
                thread.join()
            for error in damaged:
                raise error from None

    def _check_intervals(self, damaged: list[BaseException]) -> None:
        try:
            for name in _INTERVAL_COLUMNS:
                self.section(name)
        except BaseException as error:
            damaged.append(error)

    def _content(self, name: str) -> memoryview:
        section = self.sections[name]
        return self._view[section.offset : section.offset + section.size]

    def interval(self, family: Family, address: int) -> tuple[int, int, int]:
        """Return the interval that holds an address: first, last, claim number."""
        if self._columns is None:
            # Their checksums were right when the file was opened.
            self._columns = {
                name: self._content(name).cast(kind) for name, kind in _INTERVAL_COLUMNS.items()
            }
        columns = self._columns
        if family == 4:
            at, first, last = covering_ipv4(columns["ipv4.first"], address)
            return first, last, columns["ipv4.claims"][at]
        at, first, last = covering_ipv6(columns["ipv6.high"], columns["ipv6.low"], address)
        return first, last, columns["ipv6.claims"][at]

    def fail(self, what: str) -> NoReturn:
        """Raise a `DatasetError` that begins with the file's name."""
        raise DatasetError(f"{self.name}: {what}")

    def _read_table(self, count: int) -> dict[str, _Place]:
        """Return the sections by name; they lie in order and fill the file."""
        sections: dict[str, _Place] = {}
        end = HEADER_SIZE
        for i in range(count):
            at = _HEADER.size + i * _ENTRY.size
            raw, flags, zero, offset, size, digest = _ENTRY.unpack_from(self._view, at)
            raw = raw.rstrip(b"\0")
            if not raw.isascii() or not raw.decode("ascii").isprintable() or not raw:
                self.fail(f"section {i + 1}: its name is not printable ASCII")
            name = raw.decode("ascii")
            if name in sections:
                self.fail(f"section {name} stands there twice")
            if flags & ~_NEEDED or zero:
                self.fail(f"section {name}: unknown flags")
            padded = end + -end % ALIGNMENT
            if offset != padded or size > len(self._view) - offset:
                self.fail(f"section {name}: it does not lie where the one before it ends")
            if any(self._view[end:offset]):
                self.fail(f"damaged: the padding before section {name} is not zero")
            sections[name] = _Place(offset, size, digest, bool(flags & _NEEDED))
            end = offset + size
        if end != len(self._view):
            self.fail("the sections do not fill the file")
        if any(self._view[_HEADER.size + count * _ENTRY.size : HEADER_SIZE - _DIGEST_SIZE]):
            self.fail("the header's padding is not zero")
        return sections

    def _check_sections(self) -> None:
        for name, section in self.sections.items():
            known = name in _SECTIONS or name in PLACE_SECTIONS or name in _MORE_SECTIONS
            if section.needed and not known:
                self.fail(f"section {name} is needed and unknown; upgrade geolookup")
        expected = dict(_SECTIONS)
        if not self.sections.keys().isdisjoint(PLACE_SECTIONS):
            expected |= PLACE_SECTIONS
        expected |= {name: _MORE_SECTIONS[name] for name in _MORE_SECTIONS if name in self.sections}
        for name, width in expected.items():
            if name not in self.sections:
                if name in _MORE_SECTIONS:
                    continue
                self.fail(f"section {name} is missing")
            size = self.sections[name].size
            if size % width:
                self.fail(f"section {name}: {size} bytes are no multiple of {width}")
            # These are copied, or read as a whole: no file may make that expensive.
            most = _MOST_ITEMS.get(name.partition(".")[0], size)
            if size // width > most:
                self.fail(f"section {name}: {size // width:,} items, more than {most:,}")
        intervals = sum(self.sections[name].size for name in _INTERVAL_COLUMNS)
        if intervals > _USUAL_INTERVALS and (left := machine.memory_left()) < intervals:
            self.fail(
                f"its index needs up to {intervals:,} bytes, and {left:,.0f} bytes of memory are"
                " left"
            )


class ClaimTable(Sequence[Claim]):
    """The claims of a dataset by their numbers; each is made when it is asked for."""

    __slots__ = (
        "_abstained",
        "_at",
        "_codes",
        "_counts",
        "_place_shapes",
        "_place_votes",
        "_regions",
        "_shapes",
        "_silent",
        "_votes",
        "countries",
        "networks",
        "places",
        "statuses",
    )

    def __init__(self, image: Image) -> None:
        self.statuses = bytes(image.section("claim.status"))
        self.countries = bytes(image.section("claim.country"))
        self._silent = bytes(image.section("claim.silent"))
        self._votes = bytes(image.section("claim.votes"))
        self._codes = bytes(image.section("vote.country"))
        # Copies, so that they outlive the file and don't hold it.
        self._abstained = memoryview(bytes(image.section("claim.abstained"))).cast("H")
        self._counts = memoryview(bytes(image.section("vote.count"))).cast("H")
        self.networks: memoryview[int] | None = None
        """By claim; None: the dataset has no lists of networks."""
        if "claim.networks" in image.sections:
            self.networks = memoryview(bytes(image.section("claim.networks"))).cast("H")
        # Made when they are first needed.
        self._at: array[int] | None = None
        self._shapes: list[tuple[array[int], list[tuple[str, ...]]]] | None = None
        self._place_shapes: list[tuple[array[int], list[tuple[str, ...]]]] | None = None
        self._regions: bytes | None = None
        self.places = read_places(image)
        self._place_votes = _PlaceVotes(image, self.places) if self.places else None
        self._check(image)

    def _check(self, image: Image) -> None:
        n = len(self.statuses)
        if not len(FIXED_CLAIMS) <= n <= MAX_CLAIMS:
            image.fail(
                f"section claim.status: {n} claims, not in {len(FIXED_CLAIMS)}..{MAX_CLAIMS}"
            )
        votes = sum(self._votes)
        for name, items, expected in (
            ("claim.country", len(self.countries) // 2, n),
            ("claim.silent", len(self._silent), n),
            ("claim.abstained", len(self._abstained), n),
            ("claim.votes", len(self._votes), n),
            ("vote.country", len(self._codes) // 2, votes),
            ("vote.count", len(self._counts), votes),
            ("claim.places", n if self._place_votes is None else len(self._place_votes), n),
            ("claim.networks", n if self.networks is None else len(self.networks), n),
        ):
            if items != expected:
                image.fail(f"section {name}: {items} items, expected {expected}")
        for name, column, allowed in (
            ("claim.status", self.statuses, bytes(Status)),
            ("claim.country", self.countries, _LETTERS),
            ("claim.silent", self._silent, b"\0\1"),
            ("vote.country", self._codes, _LETTERS),
        ):
            if column.translate(None, allowed):
                image.fail(f"section {name}: unknown values")
        if self.networks is not None:
            unknown = ~(network_bits(Network) | VOUCHED)
            pairs = _core.count16(self.networks.tobytes())
            if any(int.from_bytes(bits, "little") & unknown for bits in pairs):
                image.fail("section claim.networks: unknown values")
        if tuple(self[: len(FIXED_CLAIMS)]) != FIXED_CLAIMS:
            image.fail("section claim.status: the first claims are not the fixed ones")
        # Thousands of claims, and a few hundred of these.
        kinds = set(
            zip(self.statuses, self.countries[::2], self.countries[1::2], self._votes, strict=True)
        )
        for status, first, second, count in kinds:
            if not _possible(Status.numbered(status), chr(first) + chr(second), count):
                image.fail(
                    f"section claim.status: {Status.numbered(status).name} of the wrong form"
                )

    def __len__(self) -> int:
        return len(self.statuses)

    @overload
    def __getitem__(self, number: int) -> Claim: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Claim, ...]: ...
    def __getitem__(self, number: int | slice) -> Claim | tuple[Claim, ...]:
        if isinstance(number, slice):
            return tuple(self[i] for i in range(*number.indices(len(self))))
        number = range(len(self))[number]
        return Claim(
            status=Status.numbered(self.statuses[number]),
            country=self.countries[2 * number : 2 * number + 2].decode("ascii"),
            votes=self.votes(number),
            abstentions=self._abstained[number],
            silent=bool(self._silent[number]),
            places=self._place_votes[number] if self._place_votes is not None else (),
            networks=0 if self.networks is None else self.networks[number],
        )

    def __iter__(self) -> Iterator[Claim]:
        return map(self.__getitem__, range(len(self)))

    @property
    def network_bytes(self) -> bytes | None:
        """One byte a claim: a bit for each `Network`; None as `networks`."""
        return None if self.networks is None else bytes(bits & 0xFF for bits in self.networks)

    def votes(self, number: int) -> tuple[tuple[str, int], ...]:
        """Return the votes of one claim; see `Claim.votes`."""
        if not self._votes[number]:
            return ()
        if self._at is None:
            self._at = array("I", accumulate(self._votes, initial=0))
        return tuple(
            (self._codes[2 * i : 2 * i + 2].decode("ascii"), self._counts[i])
            for i in range(self._at[number], self._at[number + 1])
        )

    def regions(self) -> bytes | None:
        """Return 6 bytes a claim: its `Claim.region`, filled up with zero bytes.

        None: the dataset has no subdivisions.
        """
        if self._regions is None and self.places:
            codes = (claim.region.encode("ascii").ljust(6, b"\0") for claim in self)
            self._regions = b"".join(codes)
        return self._regions

    def outcomes(
        self,
        codes: Set[str],
        policy: Policy,
        partly: Set[str] = frozenset(),
        subdivision_sources: int = SUBDIVISION_SOURCES,
        covering: int = 0,
    ) -> bytes:
        """Return one byte a claim, in order: its `claims.encode_outcome`; see `Claim.judge`.

        As `claims.outcome_column` does, in a fraction of the time: among claims of
        the same shape with the same codes in the region set, one outcome is computed.
        """
        if partly:
            return self._outcomes_of_places(codes, policy, partly, subdivision_sources, covering)
        if self._shapes is None:
            self._shapes = self._by_shape()
        column = bytearray(len(self))
        for numbers, slots in self._shapes:
            outcomes: dict[tuple[bool, ...], int] = {}
            patterns = zip(*(map(codes.__contains__, slot) for slot in slots), strict=True)
            for number, pattern in zip(numbers, patterns, strict=True):
                known = outcomes.get(pattern)
                if known is None:
                    known = outcomes[pattern] = encode_outcome(
                        *self[number].judge(codes, policy, covering=covering)
                    )
                column[number] = known
        return bytes(column)

    def _outcomes_of_places(
        self,
        codes: Set[str],
        policy: Policy,
        partly: Set[str],
        subdivision_sources: int,
        covering: int,
    ) -> bytes:
        if self._place_shapes is None:
            self._place_shapes = self._by_place_shape()
        # All that an outcome depends on, for each place: whether it is inside and whether a part
        # of it is, and the same of its country.
        seen = {
            place: (place in codes or place[:2] in codes, place in partly, place[:2] in partly)
            for place in {
                place for _, slots in self._place_shapes for slot in slots for place in slot
            }
        }
        column = bytearray(len(self))
        for numbers, slots in self._place_shapes:
            outcomes: dict[tuple[object, ...], int] = {}
            patterns = zip(*(map(seen.__getitem__, slot) for slot in slots), strict=True)
            for number, pattern in zip(numbers, patterns, strict=True):
                known = outcomes.get(pattern)
                if known is None:
                    outcome = self[number].judge(
                        codes, policy, partly, subdivision_sources, covering
                    )
                    known = outcomes[pattern] = encode_outcome(*outcome)
                column[number] = known
        return bytes(column)

    def _by_place_shape(self) -> list[tuple[array[int], list[tuple[str, ...]]]]:
        """Do what `_by_shape` does, with places for codes where a claim has some.

        The shape also holds which of the places are in one country.
        """
        rows: dict[tuple[object, ...], list[tuple[str, ...]]] = {}
        numbers: dict[tuple[object, ...], array[int]] = {}
        for number, claim in enumerate(self):
            votes = claim.places
            named = [vote.place for vote in votes] or list(claim.claimed)
            countries = [place[:2] for place in (claim.country, *named)]
            shape = (
                claim.status,
                claim.silent,
                claim.abstentions,
                claim.country == NO_COUNTRY,
                claim.networks,
                *map(countries.index, countries),
                bool(votes),
                *((*astuple(vote)[1:],) for vote in votes),
                *(count for _, count in claim.votes if not votes),
            )
            rows.setdefault(shape, []).append((claim.country, *named))
            numbers.setdefault(shape, array("I")).append(number)
        return [(numbers[shape], list(zip(*rows[shape], strict=True))) for shape in rows]

    def _by_shape(self) -> list[tuple[array[int], list[tuple[str, ...]]]]:
        """Return the claims' numbers, and their codes slot by slot, for each shape.

        The shape is all that an outcome depends on, except for the codes. The slots are
        the country and the votes' codes.
        """
        counts = self._counts.tolist()
        codes = _core.pairs(self._codes)
        countries = _core.pairs(self.countries)
        networks = [0] * len(self) if self.networks is None else self.networks.tolist()
        columns = (
            self.statuses, countries, self._silent, self._abstained.tolist(), self._votes, networks,
        )  # fmt: skip
        rows: dict[tuple[object, ...], list[tuple[str, ...]]] = {}
        numbers: dict[tuple[object, ...], array[int]] = {}
        at = 0
        for number, (status, country, silent, abstained, votes, used) in enumerate(
            zip(*columns, strict=True)
        ):
            end = at + votes
            shape = (status, country == NO_COUNTRY, silent, abstained, used, *counts[at:end])
            rows.setdefault(shape, []).append((country, *codes[at:end]))
            numbers.setdefault(shape, array("I")).append(number)
            at = end
        return [(numbers[shape], list(zip(*rows[shape], strict=True))) for shape in rows]


class _PlaceVotes:
    """The votes for places of all claims by number."""

    def __init__(self, image: Image, places: Sequence[str]) -> None:
        self._numbers = bytes(image.section("claim.places"))
        numbers = bytes(image.section("place.vote"))
        self._votes = memoryview(numbers).cast("H")
        self._counts = memoryview(bytes(image.section("place.count"))).cast("H")
        self._flags = bytes(image.section("place.flags"))
        self._places = places
        self._at: array[int] | None = None
        total = sum(self._numbers)
        for name, items in (
            ("place.vote", len(self._votes)),
            ("place.count", len(self._counts)),
            ("place.flags", len(self._flags)),
        ):
            if items != total:
                image.fail(f"section {name}: {items} items, expected {total}")
        if self._flags.translate(None, bytes(range(16))):
            image.fail("section place.flags: unknown values")
        if not all(map(self._is_known, _core.count16(numbers))):
            image.fail("section place.vote: unknown values")

    def _is_known(self, pair: bytes) -> bool:
        number = int.from_bytes(pair, "little")
        if number >= FIRST_PLACE:
            return number - FIRST_PLACE < len(self._places)
        return all(letter in _LETTERS for letter in number.to_bytes(2))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> tuple[PlaceVote, ...]:
        if not self._numbers[number]:
            return ()
        if self._at is None:
            self._at = array("I", accumulate(self._numbers, initial=0))
        return tuple(
            PlaceVote(
                place_text(self._votes[i], self._places),
                self._counts[i],
                full=bool(self._flags[i] & _FULL),
                is_deep=bool(self._flags[i] & _DEEP),
                authoritative=bool(self._flags[i] & _AUTHORITATIVE),
                is_cut=bool(self._flags[i] & _CUT),
            )
            for i in range(self._at[number], self._at[number + 1])
        )


def place_text(number: int, places: Sequence[str]) -> str:
    """Return the code of a country or subdivision that has a number in a dataset file."""
    if number >= FIRST_PLACE:
        return places[number - FIRST_PLACE]
    return number.to_bytes(2).decode("ascii")


def read_places(image: Image) -> tuple[str, ...]:
    """Return the codes of the subdivisions that a dataset's sources name; it may have none."""
    if "place.code" not in image.sections:
        return ()
    text = bytes(image.section("place.code")).decode("ascii", "replace")
    places = tuple(text[at : at + 6].rstrip("\0") for at in range(0, len(text), 6))
    unknown = [code for code in places if code not in subdivisions().parents]
    if list(places) != sorted(set(places)) or not all(map(CODE.fullmatch, unknown)):
        image.fail("section place.code: not codes of subdivisions, sorted")
    if unknown:
        image.fail(f"section place.code: {unknown[0]} is unknown; upgrade geolookup")
    return places


def _possible(status: Status, country: str, votes: int) -> bool:
    """Say whether a claim can have this form; `Claim.judge` relies on it."""
    if status is Status.OVERRIDE:
        return True
    if status in (Status.ASSIGNED, Status.UNCONFIRMED):
        return country != NO_COUNTRY and votes == 1
    if status is Status.DISPUTED:
        return country != NO_COUNTRY and votes > 1
    return country == NO_COUNTRY and votes == 0


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """One input of a dataset.

    Attributes:
        name: its name in this dataset.
        licence: SPDX identifier or name.
        date: of its data, YYYY-MM-DD.
        coverage: how its statements count; see `claims.Coverage`.
        origin: sources of one origin are one vote.
        attribution: the text that the licence asks for; may be empty.
        url: where it comes from; may be empty.
        ranges: how many it holds.
        mute: the codes that it cannot know; see `claims.Mute`.
        depth: whether it names subdivisions, too.
        within: number of prefixes that bound what it may speak of; 0: it has no bounds.
        ranges_outside: how many of its ranges lie, at least in part, outside of these.
        lines_left_out: number of lines of its files that could not be read.
        max_age: days after its date from which the dataset is stale; 0: none.
        keep_days: days for which its licence allows to keep the data; 0: any time.
    """

    name: str
    licence: str
    date: str
    coverage: Coverage
    origin: str
    attribution: str
    url: str
    ranges: int
    mute: Mute = ()
    within: int = 0
    ranges_outside: int = 0
    lines_left_out: int = 0
    max_age: int = 0
    keep_days: int = 0
    depth: Depth = "country"


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """One list of networks that a dataset was built with.

    Attributes:
        name: its name in this dataset.
        licence: SPDX identifier or name.
        date: of its data, YYYY-MM-DD.
        kinds: of all its networks; empty: the list says them.
        vouches: whether it names the country of each range's users.
        attribution: the text that the licence asks for; may be empty.
        url: where it comes from; may be empty.
        ranges: how many it holds.
    """

    name: str
    licence: str
    date: str
    kinds: tuple[Network, ...]
    vouches: bool
    attribution: str
    url: str
    ranges: int


def read_networks(
    image: Image, metadata: Mapping[str, Any]
) -> tuple[tuple[NetworkInfo, ...], tuple[Network, ...]]:
    """Return the lists of networks, and the kinds that hide where their users are."""
    try:
        lists = tuple(
            NetworkInfo(**{**entry, "kinds": tuple(Network[name] for name in entry["kinds"])})
            for entry in metadata.get("networks", ())
        )
        for one in lists:
            texts = (one.name, one.licence, one.date, one.attribution, one.url)
            if not all(isinstance(text, str) for text in texts) or type(one.ranges) is not int:
                raise TypeError("a list")
            date.fromisoformat(one.date)
        covering = tuple(Network[name] for name in metadata.get("covering", COVERING))
    except (TypeError, ValueError, KeyError):
        image.fail("section metadata: networks or covering of the wrong form")
    return lists, covering


@dataclass(frozen=True, slots=True)
class ExpiringOverride:
    """An operator's override that has a last day, and applied when the dataset was compiled.

    Attributes:
        number: its position among the overrides of the manifest, from 1.
        expires: the last day on which it applies.
        comment: the operator's own; may be empty.
    """

    number: int
    expires: date
    comment: str

    def as_json(self) -> dict[str, object]:
        """Return it as an object that JSON can hold."""
        return {"number": self.number, "expires": self.expires.isoformat(), "comment": self.comment}

    def __str__(self) -> str:
        comment = f" ({self.comment})" if self.comment else ""
        return f"override {self.number}{comment}: expired after {self.expires.isoformat()}"


@dataclass(frozen=True, slots=True)
class RuntimeOverrides:
    """The overrides of a file that were laid over a dataset.

    Attributes:
        base: id of the dataset that they were laid over: 64 hexadecimal digits.
        file: SHA-256 of their file, likewise.
        active: how many act.
        expired: how many of the file do not any more.
        until: when the next one expires; None: none does.
    """

    base: str
    file: str
    active: int
    expired: int
    until: datetime | None

    def as_json(self) -> dict[str, object]:
        """Return it as an object that JSON can hold."""
        until = None if self.until is None else self.until.isoformat().replace("+00:00", "Z")
        return {
            "base": self.base,
            "file": self.file,
            "active": self.active,
            "expired": self.expired,
            "until": until,
        }


def read_runtime_overrides(image: Image, metadata: Mapping[str, Any]) -> RuntimeOverrides | None:
    """Return what the metadata says of overrides that were laid over; None: there are none."""
    described = metadata.get("runtime_overrides")
    if described is None:
        return None
    try:
        until = described["until"]
        found = RuntimeOverrides(
            described["base"],
            described["file"],
            described["active"],
            described["expired"],
            None if until is None else datetime.fromisoformat(until),
        )
        if not all(isinstance(text, str) for text in (found.base, found.file)):
            raise TypeError("base or file")
        if type(found.active) is not int or type(found.expired) is not int:
            raise TypeError("active or expired")
        if found.until is not None and found.until.utcoffset() is None:
            raise ValueError("until")
    except (TypeError, ValueError, KeyError):
        image.fail("section metadata: runtime_overrides of the wrong form")
    return found


def read_metadata(image: Image) -> tuple[dict[str, Any], datetime, tuple[SourceInfo, ...]]:
    """Return the metadata, and of it when the dataset was built (UTC) and from what."""
    raw = bytes(image.section("metadata"))
    try:
        metadata = json.loads(raw.decode())
        # One text a value: no double keys, no NaN, no lone surrogates.
        canonical = canonical_json(metadata) == raw
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        image.fail("section metadata: not canonical JSON")
    try:
        built = datetime.fromisoformat(metadata["built"])
        if built.utcoffset() is None:
            raise ValueError("no time zone")
        built = built.astimezone(UTC)
        sources = tuple(read_source(source) for source in metadata["sources"])
    except (TypeError, ValueError, KeyError, OverflowError):
        image.fail("section metadata: built or sources of the wrong form")
    return metadata, built, sources


def read_expiring(image: Image, metadata: Mapping[str, Any]) -> tuple[ExpiringOverride, ...]:
    """Return the overrides with a last day that the metadata lists; it may list none."""
    try:
        return tuple(
            _read_expiring(entry["number"], entry["expires"], entry["comment"])
            for entry in metadata.get("expiring_overrides", ())
        )
    except (TypeError, ValueError, KeyError):
        image.fail("section metadata: expiring_overrides of the wrong form")


def _read_expiring(number: object, expires: object, comment: object) -> ExpiringOverride:
    if type(number) is not int or number < 1 or not isinstance(comment, str):
        raise TypeError("number or comment")
    if not isinstance(expires, str):
        raise TypeError("expires")
    return ExpiringOverride(number, date.fromisoformat(expires), comment)


def read_age_limit(image: Image, metadata: Mapping[str, Any]) -> AgeLimit:
    """Return how old the dataset may be, of which the metadata may say nothing."""
    days, stale = metadata.get("max_age", 0), metadata.get("stale", "warn")
    if type(days) is not int or not 0 <= days <= MAX_DAYS or stale not in STALE:
        image.fail("section metadata: max_age or stale of the wrong form")
    return AgeLimit(days, stale)


_COUNTS_OF_SOURCE: Final = (
    "within",
    "ranges_outside",
    "lines_left_out",
    "max_age",
    "keep_days",
)
_NEEDED_OF_SOURCE: Final = (
    "name",
    "licence",
    "date",
    "coverage",
    "origin",
    "attribution",
    "url",
    "ranges",
)


def read_source(source: dict[str, Any]) -> SourceInfo:
    """Return one of the dicts in `Dataset.info`'s "sources".

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    needed = {name: source[name] for name in _NEEDED_OF_SOURCE}
    mute = tuple((code, tuple(filed)) for code, filed in source.get("mute", {}).items())
    counts = {name: source.get(name, 0) for name in _COUNTS_OF_SOURCE}
    info = SourceInfo(**needed, mute=mute, **counts, depth=source.get("depth", "country"))
    texts = (info.name, info.licence, info.date, info.origin, info.attribution, info.url)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("not a text")
    if info.coverage not in COVERAGES:
        raise ValueError("coverage")
    if info.depth not in DEPTHS:
        raise ValueError("depth")
    codes = [code for unknown, filed in mute for code in (unknown, *filed)]
    if not all(isinstance(code, str) for code in codes):
        raise TypeError("mute")
    for number in (info.ranges, *counts.values()):
        if type(number) is not int or number < 0:
            raise ValueError("a count")
    if info.max_age or info.keep_days:
        date.fromisoformat(info.date)
        if max(info.max_age, info.keep_days) > MAX_DAYS:
            raise ValueError("days")
    return info
