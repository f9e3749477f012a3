"""Types of the compiled core. Held to the module by mypy's stubtest.

Claims are uint16 in the machine's byte order, one an address, in a `bytes`
object. Addresses in buffers are in network byte order. Buffers may be any
object with the buffer protocol that is C-contiguous; only their bytes count.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, final

from typing_extensions import Buffer

@final
class Table:
    """Immutable lookup table over the sorted interval arrays of both families.

    The arrays (native byte order) are kept by reference, not copied: `first`
    values ascend strictly from 0, and interval i ends before first[i + 1].
    They must not change for as long as the table lives. Any number of threads
    may use one table; rosters of more than 256 addresses are classified with
    the GIL released.

    Args:
        ipv4_first: uint32, host order values.
        ipv4_claims: uint16, as many.
        ipv6_first_high: uint64, upper halves.
        ipv6_first_low: uint64, lower halves, as many.
        ipv6_claims: uint16, as many.
        labels: one object a claim number, such as its country's str.
        isa: the code path, one of isa_paths(); the widest by default.
        convert: makes text or packed bytes of what `claim` and `label` get
            that is neither, or raises TypeError.

    Raises:
        ValueError: the arrays differ in length, are empty, are not aligned to
            their items, do not begin at 0, do not ascend strictly, or hold a
            claim that is neither below len(labels) (and 0xFF00) nor one of the
            embedded forms (IPv6 only). The text names the array and the
            position. Or the code path is unknown.
    """

    def __new__(
        cls,
        ipv4_first: Buffer,
        ipv4_claims: Buffer,
        ipv6_first_high: Buffer,
        ipv6_first_low: Buffer,
        ipv6_claims: Buffer,
        labels: Sequence[object],
        *,
        isa: str | None = None,
        convert: Callable[[object], str | bytes] | None = None,
    ) -> Table: ...
    def handle(self) -> object:
        """Return what other extension modules look up with, as a capsule.

        Good for as long as the table is.
        """

    @property
    def index_size(self) -> int:
        """Bytes of memory that the indexes over the arrays take."""

    def claim(self, address: object, /) -> int:
        """Return the claim of one address: text, or 4 or 16 packed bytes.

        0 (INVALID) for text or bytes that are no address. TypeError for other types.
        """

    def label(self, address: object, /) -> object:
        """Return the label of one address's claim, like labels[claim(address)]."""

    def classify_ipv4(self, packed: Buffer, /) -> bytes:
        """Return the claims of packed IPv4 addresses. ValueError: not 4·N bytes."""

    def classify_ipv6(self, packed: Buffer, /) -> bytes:
        """Return the claims of packed IPv6 addresses. ValueError: not 16·N bytes."""

    def classify_text(self, addresses: Sequence[str | bytes], /) -> bytes:
        """Return the claims of a list or tuple of str (text) and bytes (packed).

        The items are read before any other thread can change the list.
        TypeError names the position of an item of another type.
        """

    def classify_people(self, mapping: dict[Any, Any], /) -> tuple[tuple[Any, ...], bytes, bytes]:
        """Return a dict's keys, classify_text of all addresses in its lists, and their sizes.

        All as of one moment. Sizes are uint32 in native byte order. TypeError: a value is no list
        or tuple, or as of classify_text, where the position is one among all addresses.
        """

def api() -> object:
    """Return the functions that other extension modules answer with, as a capsule.

    ext/core_api.h has them.
    """

def no_table() -> object:
    """Return what other extension modules parse addresses with, as `Table.handle`.

    It has no table, and so no claims.
    """

def isa_paths() -> tuple[str, ...]:
    """Return the names of the code paths that this processor supports, plainest first."""

def parse(address: str, /, *, isa: str | None = None) -> bytes | None:
    """Return an address in text as 4 or 16 packed bytes; None if it is no address.

    Strict: IPv4 is four decimal numbers without leading zeros; IPv6 is RFC 4291
    text, with an optional dotted IPv4 tail. A zone (``%eth0``) is allowed on
    link-local addresses (fe80::/10) only, and is dropped; it is 1 to 64
    characters of visible ASCII, but for % and /.
    """

def parse_many(addresses: Sequence[str], /, *, isa: str | None = None) -> tuple[bytes, bytes]:
    """Return (16·N packed bytes, N family bytes) of a list or tuple of texts.

    Families are 4, 6 and 0 (no address). IPv4 stands in the last 4 of its 16
    bytes, the others are 0.
    """

def parse_people(
    lists: Sequence[Sequence[str]], /, *, isa: str | None = None
) -> tuple[bytes, bytes, bytes]:
    """Return what parse_many does of all texts in lists, and their sizes as classify_people.

    TypeError: one is no list or tuple, or as of parse_many, where the position is one among all.
    """

def map8(claims: bytes, column: bytes, /) -> bytes:
    """Return column[claim] (1 byte) for each claim. ValueError: a claim beyond the column."""

def map16(claims: bytes, column: bytes, /) -> bytes:
    """Return column[2·claim : 2·claim + 2] for each claim. ValueError as in map8."""

def map48(claims: bytes, column: bytes, /) -> bytes:
    """Return column[6·claim : 6·claim + 6] for each claim. ValueError as in map8."""

def count8(column: bytes, /) -> dict[int, int]:
    """Return how often each byte value that occurs does."""

def count16(column: bytes, /) -> dict[bytes, int]:
    """Return how often each 2-byte value that occurs does."""

def positions8(column: bytes, value: int, /, *, isa: str | None = None) -> bytes:
    """Return the positions (uint32, native order) at which the column holds the byte."""

def positions16(column: bytes, value: bytes, /, *, isa: str | None = None) -> bytes:
    """Return the positions (uint32, native order) at which the column holds the 2 bytes."""

def partition(
    claims: bytes, verdicts: bytes, /, *, isa: str | None = None
) -> tuple[bytes, bytes, bytes]:
    """Split 0..N-1 by verdict: (inside, outside, undetermined) as uint32 positions.

    Args:
        claims: as returned by Table.classify_*.
        verdicts: one byte a claim number: 1 inside, 2 outside, else undetermined.
        isa: the code path, as for Table.
    """

def roaring8(column: bytes, value: int, /, *, isa: str | None = None) -> bytes:
    """Return the positions at which the column holds the byte, as a Roaring bitmap.

    In the portable serialisation, each container in its smallest form.
    """

def roaring16(column: bytes, value: bytes, /, *, isa: str | None = None) -> bytes:
    """Return the positions at which the column holds the 2 bytes, as roaring8 does."""

def roaring_partition(
    claims: bytes, verdicts: bytes, /, *, isa: str | None = None
) -> tuple[bytes, bytes, bytes]:
    """Split 0..N-1 by verdict as partition does, into bitmaps as of roaring8."""

def roaring_split(column: bytes, /, *, isa: str | None = None) -> tuple[bytes, bytes, bytes]:
    """Return where a column holds 1, where 2, and where neither, as bitmaps of roaring8."""

def group_sizes(groups: Sequence[int], /) -> bytes:
    """Return the numbers in a list or tuple of int as uint32 in native byte order.

    TypeError, OverflowError: the text names the position of an item that is no int, or not
    in 0..4294967295.
    """

def keys_and_values(mapping: dict[Any, Any], /) -> tuple[list[Any], list[Any]]:
    """Return the keys and the values of a dict, in its order and as of one moment."""

def group_total(sizes: bytes, /) -> tuple[int, int]:
    """Return the sum of uint32 sizes, and the position of the first that is 0 (-1: none is)."""

def participant_outcomes(claims: bytes, outcomes: bytes, sizes: bytes, /) -> bytes:
    """Return one outcome for each participant; ext/participants.h has the rule.

    An outcome is a byte: the number of a `Verdict`, and that of a `Reason` from bit 2 on.

    Args:
        claims: of the participants' addresses, one participant after the other.
        outcomes: one byte for each claim.
        sizes: addresses of each participant: uint32 in native byte order, at least 1.

    Raises:
        ValueError: a claim beyond the outcomes, a size of 0, or another sum than there are claims.
    """

def pairs(column: bytes, /) -> list[str]:
    """Return each 2 ASCII bytes of a column as a str; the same two are one object."""

@final
class WireRoster:
    """A roster where it lies in the bytes of its request, as `read_roster` finds it.

    Attributes:
        form: which addresses it has: "ipv4", "ipv6" or "text"; None: none.
        nbytes: bytes that the addresses take.
        size: number of whole addresses.
        rest: bytes after the last whole address.
        region_set: the requested region set; empty: none.
        policy: the number that stands for the policy; any int32.
        record: whether a decision record is requested.
        reasons: whether the column of reasons is.
        participants: how many there are; None: the roster is not in groups.
        grouped: the sum of their addresses.
        without: position of the first participant without an address; None: all have one.
        networks: 1: covering networks are ignored; 0: not.
    """

    @property
    def form(self) -> Literal["ipv4", "ipv6", "text"] | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def rest(self) -> int: ...
    @property
    def region_set(self) -> str: ...
    @property
    def policy(self) -> int: ...
    @property
    def record(self) -> bool: ...
    @property
    def regions(self) -> bool: ...
    @property
    def reasons(self) -> bool: ...
    @property
    def participants(self) -> int | None: ...
    @property
    def grouped(self) -> int: ...
    @property
    def without(self) -> int | None: ...
    @property
    def networks(self) -> int: ...

def read_lookup(body: bytes, /) -> tuple[str | bytes, str, int, int] | None:
    """Return the parts of a LookupRequest; None: a protobuf runtime must read it, or refuse it.

    What is read is as for `read_roster`; besides, there must be an address, and a packed
    one must have 4 or 16 bytes.

    Returns:
        address: text, or packed.
        region_set: the requested region set; empty: none.
        policy: the number that stands for the policy; any int32.
        networks: 1: covering networks are ignored; any int32.
    """

@final
class Replies:
    """Replies to lookups, by claim, policy and region set (in its spelling).

    No address is kept. Thread-safe.

    Args:
        table: where addresses are looked up.
        limit: replies kept at most; one more discards all others.

    Raises:
        ValueError: a limit below 1.
    """

    def __new__(cls, table: Table, limit: int, /) -> Replies: ...
    def __len__(self) -> int:
        """Return the number of replies that are kept."""

    def find(self, body: bytes, /) -> Any:
        """Return the reply that was kept for an equal request; None: there is none.

        Args:
            body: a LookupRequest. For one that `read_lookup` leaves to a protobuf runtime
                nothing is kept.
        """

    def keep(self, body: bytes, reply: object, /) -> None:
        """Keep the reply for all requests with the claim, policy and region set of this one."""

    def close(self) -> None:
        """Release the table and all replies; nothing is kept from now on."""

def wire_groups(sizes: bytes, /) -> bytes:
    """Return sizes (uint32) as the field group_sizes of a ClassifyRosterRequest, with its tag."""

def read_roster(body: bytes, wrapped: bool = False, /) -> WireRoster | None:
    """Return the roster in a request, without a copy of it; None: a protobuf runtime must read it.

    None does not mean that the request is malformed. What is read is what
    serialisers write: each field at most once and with the declared type, no
    unknown fields, numbers in their shortest form, strings in UTF-8. What such a
    runtime has parsed and serialised again, without unknown fields, is of this form.

    Args:
        body: a ClassifyRosterRequest.
        wrapped: it is a StreamRostersRequest, of which None also means that it
            has no roster.
    """

@final
class ClaimResults:
    """The country and the status of each claim, from which answers to rosters are made.

    Args:
        countries: 2 capital letters for each claim.
        statuses: 1 byte for each claim: a number below 8.
        networks: 1 byte for each claim: a bit for each `Network`; None: there are no lists.

    Raises:
        ValueError: other values, or columns of different lengths.
    """

    def __new__(
        cls, countries: bytes, statuses: bytes, networks: bytes | None = None, /
    ) -> ClaimResults: ...
    def handle(self) -> object:
        """Return what other extension modules answer with, as a capsule.

        Good for as long as these are.
        """

    def __len__(self) -> int:
        """Return the number of claims."""

@final
class RosterAnswer:
    """The answer to one roster in the making, from bytes to bytes.

    `step` until it returns False, then take the counts, then `finish`.
    For one thread; different answers may be in the making at once.

    Args:
        table: where addresses are looked up.
        results: those of its claims.
        outcomes: one byte a claim, see outcome.h: 1 inside, 2 outside, else undetermined;
            None: no region set was requested.
        roster: what to answer.

    Raises:
        ValueError: the table has claims beyond *results* or *outcomes*, or the
            roster's last address is not whole, or its groups have more or fewer addresses.
    """

    def __new__(
        cls, table: Table, results: ClaimResults, outcomes: bytes | None, roster: WireRoster, /
    ) -> RosterAnswer: ...
    def step(self) -> bool:
        """Classify up to 65,536 more addresses; return whether another step is needed.

        The GIL is released for more than 256. RuntimeError: no step was needed.
        """

    @property
    def claims(self) -> bytes | None:
        """Claim of each address (uint16); None: the column of regions was not requested.

        RuntimeError: a step is missing.
        """

    @property
    def statuses(self) -> tuple[int, int, int, int, int, int, int, int]:
        """Addresses of each status, by its number. RuntimeError: a step is missing."""

    @property
    def verdicts(self) -> tuple[int, int, int] | None:
        """Addresses inside, outside and undetermined; None: no region set was requested.

        Of a roster in groups they are participants. RuntimeError: a step is missing.
        """

    @property
    def reasons(self) -> tuple[int, ...] | None:
        """The undetermined of each reason, by its number; None and errors as `verdicts`."""

    @property
    def network_counts(self) -> tuple[int, ...]:
        """Addresses of each kind of network; all 0 where there are no lists of networks.

        RuntimeError: a step is missing.
        """

    def finish(self, rest: bytes, wrapped: bool = False, /) -> bytes:
        """Return the response, a serialised ClassifyRosterResponse. May be called once.

        Args:
            rest: more fields of it, serialised with their tags: those of its dataset
                and its record.
            wrapped: return it as the field of a StreamRostersResponse.

        Raises:
            RuntimeError: a step is missing, or it was called before.
        """
