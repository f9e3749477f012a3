"""Answers: for one address, and for a whole roster.

Plain values that hold no address. What follows from the claims of a roster is
computed on first use, and kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar, overload

from geolookup import _core
from geolookup.answer.claims import (
    NO_COUNTRY,
    REASON_OF,
    VERDICT_OF,
    Network,
    Policy,
    Reason,
    Status,
    Verdict,
    networks_of,
)
from geolookup.answer.country_codes import COUNTRIES
from geolookup.errors import RegionSetError, RosterError, RosterTooLargeError

if TYPE_CHECKING:
    from pyroaring import BitMap

    from geolookup._arrow import Array
    from geolookup.answer.arrow import TextColumn, Validity
    from geolookup.answer.decision_record import DecisionRecord
    from geolookup.answer.participants import Participants

MAX_SIZE: Final = 2**32 - 1
"""Addresses in a roster: positions are uint32."""

_LETTERS = bytes(range(ord("A"), ord("Z") + 1))
_VERDICTS: Final = {verdict.number: verdict for verdict in Verdict}
_STATUSES: Final = {status.number: status for status in Status}
_STATUS_BYTES = bytes(_STATUSES)
_REASONS: Final = {reason.number: reason for reason in Reason}
_REASON_BYTES = bytes(_REASONS)
_ANY_BYTES = bytes(range(256))
_CODE_BYTES = _LETTERS + b"0123456789-\0"
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one address.

    Attributes:
        country: the code, or "ZZ" for no country.
        region: the subdivision that the sources name, such as "UA-43"; empty where none does,
            or where they name different ones.
        status: why.
        claimed: all codes that sources claim, sorted, when the status is
            DISPUTED; else empty.
        verdict: where the address is, seen from the region set that was asked
            for; None when none was.
        dataset: id of the dataset that answered.
        reason: why there is no verdict; DECIDED where there is one. None when no region
            set was asked for, or by a service of a version that has no reasons.
        networks: what the network is used for, as lists say that the dataset has.
    """

    country: str
    status: Status
    claimed: tuple[str, ...]
    verdict: Verdict | None
    dataset: str
    reason: Reason | None = None
    region: str = ""
    networks: tuple[Network, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as values that JSON can hold: names, and lists of names."""
        return {
            "country": self.country,
            "region": self.region,
            "status": self.status.name,
            "claimed": list(self.claimed),
            "verdict": None if self.verdict is None else self.verdict.name,
            "reason": None if self.reason is None else self.reason.name,
            "networks": [kind.name for kind in self.networks],
            "dataset": self.dataset,
        }


T = TypeVar("T")


class _Column(Sequence[T]):
    """A read-only column of a roster, equal to columns, lists and tuples of the same items."""

    __slots__ = ("_raw",)
    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def tobytes(self) -> bytes:
        """Return the column's bytes, of the same size for each address."""
        return self._raw

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Column):
            return type(self) is type(other) and self._raw == other._raw
        if isinstance(other, (list, tuple)):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __repr__(self) -> str:
        first = ", ".join(str(getattr(item, "name", item)) for item in self[:8])
        more = ", ..." if len(self) > 8 else ""
        return f"<{type(self).__name__} of {len(self)}{': ' if first else ''}{first}{more}>"


class _Numbers(_Column[T]):
    """A column of 1 byte per item: its number."""

    __slots__ = ()
    _item: ClassVar[Any]  # a static function that returns the item of a number

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> T | Self:
        if isinstance(index, slice):
            return type(self)(self._raw[index])
        item: T = self._item(self._raw[index])
        return item

    def __iter__(self) -> Iterator[T]:
        return map(self._item, self._raw)


class Countries(_Column[str]):
    """The codes of a roster in its order: a read-only sequence of two-letter str.

    Equal to other such sequences, lists and tuples of the same codes. `tobytes` returns
    2 ASCII letters per address.
    """

    __slots__ = ()

    def tolist(self) -> list[str]:
        """Return the codes as a list, which takes half as long as `list` of this."""
        return _core.pairs(self._raw)

    def __len__(self) -> int:
        return len(self._raw) // 2

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Countries: ...
    def __getitem__(self, index: int | slice) -> str | Countries:
        pairs = memoryview(self._raw).cast("H")
        if isinstance(index, slice):
            return Countries(pairs[index].tobytes())
        return _core.pairs(pairs[index : index + 1 or None].tobytes())[0]

    def __iter__(self) -> Iterator[str]:
        return iter(_core.pairs(self._raw))


class Statuses(_Numbers[Status]):
    """The statuses of a roster in its order: a read-only sequence of `Status`.

    Equal to other such sequences, lists and tuples of the same statuses. `tobytes` returns
    1 byte per address: the number of its status.
    """

    __slots__ = ()
    _item = staticmethod(_STATUSES.__getitem__)


class Verdicts(_Numbers[Verdict]):
    """The verdicts of a roster in its order: a read-only sequence of `Verdict`. As `Statuses`."""

    __slots__ = ()
    _item = staticmethod(_VERDICTS.__getitem__)


class Reasons(_Numbers[Reason]):
    """Why the addresses of a roster have no verdict, in its order: a sequence of `Reason`.

    As `Statuses`. It is DECIDED where there is a verdict.
    """

    __slots__ = ()
    _item = staticmethod(_REASONS.__getitem__)


class Regions(_Column[str]):
    """The subdivisions of a roster in its order: a read-only sequence of str.

    Equal to other such sequences, lists and tuples of the same codes. An empty str stands where
    none is known. `tobytes` returns 6 bytes per address: the code in ASCII, filled up with zeros.
    """

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._raw) // 6

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Regions: ...
    def __getitem__(self, index: int | slice) -> str | Regions:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            return Regions(b"".join(self._raw[6 * at : 6 * at + 6] for at in chosen))
        at = range(len(self))[index]
        return self._raw[6 * at : 6 * at + 6].rstrip(b"\0").decode("ascii")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


class Networks(_Numbers[tuple[Network, ...]]):
    """What the networks of a roster's addresses are used for: a sequence of tuples of `Network`.

    `tobytes` returns 1 byte per address: a bit for each kind, see `Network.bit`.
    """

    __slots__ = ()
    _item = staticmethod(networks_of)


class Perspective:
    """What claims mean, seen from a region set under a policy, or without a region set.

    Made once for each (dataset, region set, policy) and shared by all results.

    Attributes:
        dataset: id of the dataset whose claims these are.
        countries: 2 ASCII letters per claim.
        statuses: 1 byte per claim: the number of its `Status`.
        regions: returns 6 bytes per claim: its `Claim.region` in ASCII, filled up with zeros;
            or None: the dataset has no subdivisions.
        region_set: name or expression; None: none was asked for.
        policy: None when no region set was asked for.
        outcomes: 1 byte per claim: its `claims.encode_outcome`; None as above.
        networks: 1 byte per claim: a bit for each `Network`; None: there are no lists.
        ignores_networks: whether networks that hide where their users are have a verdict.
    """

    __slots__ = (
        *("countries", "dataset", "ignores_networks", "networks", "outcomes", "policy"),
        *("region_set", "regions", "statuses"),
    )

    def __init__(
        self,
        dataset: str,
        countries: bytes,
        statuses: bytes,
        *,
        region_set: str | None = None,
        policy: Policy | None = None,
        outcomes: bytes | None = None,
        regions: Callable[[], bytes | None] = lambda: None,
        networks: bytes | None = None,
        ignores_networks: bool = False,
    ) -> None:
        self.regions = regions
        self.dataset = dataset
        self.countries = countries
        self.statuses = statuses
        self.region_set = region_set
        self.policy = policy
        self.outcomes = outcomes
        self.networks = networks
        self.ignores_networks = ignores_networks


class RosterResult:
    """What is known of each address of a roster, in the roster's order.

    Positions count from 0. The result holds no address, and stays usable after
    the dataset it came from was closed.

    Where the roster came in groups or as a mapping, verdicts, reasons and their counts and
    positions are those of participants, and countries, statuses and their counts those of
    addresses.

    Attributes:
        record: the decision record, for the caller to keep; None: it was not requested.
            Equality ignores records.
    """

    __slots__ = (
        "_bitmaps",
        "_claims",
        "_countries",
        "_networks",
        "_outcomes",
        "_participants",
        "_perspective",
        "_present",
        "_reasons",
        "_regions",
        "_serialised",
        "_size",
        "_statuses",
        "_validity",
        "_verdicts",
        "record",
    )
    __hash__ = None  # type: ignore[assignment]  # mutable: `record` may be set

    def __init__(
        self,
        claims: bytes,
        perspective: Perspective,
        participants: Participants | None = None,
        present: bytes | None = None,
    ) -> None:
        """Make a result of claims as the core returns them; see `Perspective`.

        Args:
            claims: uint16 of each address.
            perspective: what they mean.
            participants: whose the addresses are; None: the roster came without groups.
            present: 1 byte per address: 0 where the column that it came from has a null;
                None: nowhere.

        Raises:
            RosterTooLargeError: over 4,294,967,295 addresses.
            RosterError: the participants have more or fewer addresses.
        """
        self._size = len(claims) >> 1
        if self._size > MAX_SIZE:
            raise RosterTooLargeError(f"roster: over {MAX_SIZE:,} addresses")
        if participants is not None:
            participants.check(self._size)
        self.record: DecisionRecord | None = None
        self._claims = claims
        self._perspective = perspective
        self._participants = participants
        self._present = present
        self._outcomes: bytes | None = None
        self._countries: bytes | None = None
        self._statuses: bytes | None = None
        self._reasons: bytes | None = None
        self._regions: bytes | None = None
        self._networks: bytes | None = None
        self._verdicts: bytes | None = None
        self._validity: Validity | None = None
        self._bitmaps: tuple[BitMap, BitMap, BitMap] | None = None
        self._serialised: tuple[bytes, bytes, bytes] | None = None

    @classmethod
    def from_columns(
        cls,
        *,
        size: int,
        countries: bytes,
        statuses: bytes,
        counts: Mapping[str, int] | None = None,
        inside: bytes | None = None,
        outside: bytes | None = None,
        undetermined: bytes | None = None,
        reasons: bytes | None = None,
        regions: bytes | None = None,
        networks: bytes | None = None,
        dataset: str,
        region_set: str | None = None,
        policy: Policy | None = None,
        participants: Participants | None = None,
        present: bytes | None = None,
    ) -> RosterResult:
        """Make a result of columns that came from outside, such as over the network.

        Args:
            size: number of addresses.
            countries: 2 ASCII letters per address.
            statuses: 1 byte per address: the number of its `Status`.
            counts: addresses for each code; only their sum is checked, since
                `counts` counts *countries* itself.
            inside: positions in the portable Roaring serialisation; this and
                the next two come together with *region_set* and *policy*, or
                not at all.
            outside: as *inside*.
            undetermined: as *inside*.
            reasons: 1 byte per address or participant: the number of its `Reason`; None:
                without, as from a service of a version that has none.
            regions: 6 bytes per address: the code of its subdivision, filled up with zeros;
                None: no address has one.
            networks: 1 byte per address: a bit for each `Network`; None: all are 0.
            dataset: id of the dataset that answered: 64 hexadecimal digits.
            region_set: the name or expression that was asked for.
            policy: the policy that was asked for.
            participants: whose positions the sets hold; None: those of addresses.
            present: see the constructor.

        Raises:
            RosterError: columns that contradict each other or themselves. The
                text names the field.
        """
        _check_size(size)
        _check_column("countries", countries, 2 * size, _LETTERS)
        _check_column("statuses", statuses, size, _STATUS_BYTES)
        if len(dataset) != 64 or not _HEX.issuperset(dataset):
            raise RosterError("dataset: not 64 hexadecimal digits")
        given = (inside, outside, undetermined)
        absent = [column is None for column in (*given, region_set, policy)]
        if any(absent) and not all(absent):
            raise RosterError(
                "inside, outside, undetermined, region_set and policy belong together"
            )
        self = cls(b"", Perspective(dataset, b"", b"", region_set=region_set, policy=policy))
        self._size = positions = size
        if present is not None:
            _check_column("present", present, size, b"\0\1")
            self._present = bytes(present)
        if regions is not None:
            _check_column("regions", regions, 6 * size, _CODE_BYTES)
            self._regions = bytes(regions)
        if participants is not None:
            if region_set is None:
                raise RosterError("participants: without a region set")
            participants.check(size)
            positions = len(participants)
            self._participants = participants
        self._countries = bytes(countries)
        self._statuses = bytes(statuses)
        if inside is not None and outside is not None and undetermined is not None:
            self._serialised = (bytes(inside), bytes(outside), bytes(undetermined))
            self._bitmaps = _received_sets(self._serialised, positions)
            if reasons is not None:
                _check_column("reasons", reasons, positions, _REASON_BYTES)
                undecided = self._bitmaps[2]
                decided = _deserialised("reasons", _core.roaring8(bytes(reasons), 0))
                if len(decided) + len(undecided) != positions or not decided.isdisjoint(undecided):
                    raise RosterError("reasons: not of the undetermined positions")
                self._reasons = bytes(reasons)
        elif reasons is not None:
            raise RosterError("reasons: without a region set")
        if networks is not None:
            _check_column("networks", networks, size, _ANY_BYTES)
            self._networks = bytes(networks)
        if counts is not None and sum(counts.values()) != size:
            raise RosterError(f"counts: their sum is not {size}")
        return self

    @property
    def size(self) -> int:
        """Number of addresses in the roster."""
        return self._size

    @property
    def participants(self) -> int | None:
        """Number of participants; None: the roster did not come in groups."""
        return None if self._participants is None else len(self._participants)

    @property
    def ids(self) -> tuple[Any, ...] | None:
        """The participants' ids, by position; None: the roster was no mapping."""
        return None if self._participants is None else self._participants.ids

    @property
    def dataset(self) -> str:
        """Id of the dataset that answered: 64 hexadecimal digits."""
        return self._perspective.dataset

    @property
    def region_set(self) -> str | None:
        """The region set that was asked for, by its name or expression."""
        return self._perspective.region_set

    @property
    def policy(self) -> Policy | None:
        """The policy that the verdicts follow; None when no region set was asked for."""
        return self._perspective.policy

    @property
    def countries(self) -> Countries:
        """The code of each address; "ZZ" where there is none."""
        return Countries(self._country_column())

    @property
    def regions(self) -> Regions:
        """The subdivision of each address, such as "UA-43", that the sources name.

        Empty where none does, or where they name different ones.
        """
        return Regions(self._region_column())

    @property
    def statuses(self) -> Statuses:
        """The status of each address."""
        return Statuses(self._status_column())

    @property
    def networks(self) -> Networks:
        """What each address's network is used for, as far as the dataset has lists of networks."""
        return Networks(self._network_column())

    def network_counts(self) -> dict[Network, int]:
        """Return the number of addresses for each kind of network that occurs, in their order.

        An address may be of several kinds.
        """
        counted = _core.count8(self._network_column())
        sums = {kind: sum(n for bits, n in counted.items() if bits & kind.bit) for kind in Network}
        return {kind: n for kind, n in sums.items() if n}

    @property
    def has_reasons(self) -> bool:
        """Whether `reasons` is known: with a region set, but for services of old versions."""
        return self._reasons_or_none() is not None

    @property
    def reasons(self) -> Reasons:
        """Why each address, or participant, has no verdict; DECIDED where it has one.

        Raises:
            ValueError: no region set was asked for, or the service has no reasons.
        """
        return Reasons(self._reason_column())

    @property
    def verdicts(self) -> Verdicts:
        """The verdict of each address, or participant.

        Raises:
            ValueError: no region set was asked for.
        """
        return Verdicts(self._verdict_column())

    @property
    def inside(self) -> BitMap:
        """Positions inside the region set.

        This, `outside` and `undetermined` are disjoint and together hold every
        position. Each access makes a copy, so that changing it does not change
        the result: access it once, not in each turn of a loop.

        Raises:
            ValueError: no region set was asked for.
        """
        return self._verdict_set(0)

    @property
    def outside(self) -> BitMap:
        """Positions outside the region set; see `inside`."""
        return self._verdict_set(1)

    @property
    def undetermined(self) -> BitMap:
        """Positions that are neither inside nor outside; see `inside`."""
        return self._verdict_set(2)

    @property
    def ids_inside(self) -> list[Any]:
        """The ids of the participants inside the region set, in the mapping's order.

        Raises:
            ValueError: the roster was no mapping.
        """
        return self._ids_of(0)

    @property
    def ids_outside(self) -> list[Any]:
        """The ids of those outside the region set; see `ids_inside`."""
        return self._ids_of(1)

    @property
    def ids_undetermined(self) -> list[Any]:
        """The ids of those who are neither inside nor outside; see `ids_inside`."""
        return self._ids_of(2)

    def by_id(self) -> dict[Any, Verdict]:
        """Return the verdict of each participant, by id, in the mapping's order.

        Raises:
            ValueError: the roster was no mapping.
        """
        return dict(zip(self._known_ids(), self.verdicts, strict=True))

    def counts(self) -> dict[str, int]:
        """Return the number of addresses for each code that occurs, sorted by code."""
        counted = _core.count16(self._country_column())
        return dict(sorted((raw.decode(), n) for raw, n in counted.items()))

    def region_counts(self) -> dict[str, int]:
        """Return the number of addresses for each subdivision that occurs, sorted by code."""
        regions = self.regions
        if not regions.tobytes().strip(b"\0"):
            return {}  # as in each dataset without subdivisions
        counted = Counter(regions)
        del counted[""]
        return dict(sorted(counted.items()))

    def status_counts(self) -> dict[Status, int]:
        """Return the number of addresses for each status that occurs, in their order."""
        counted = _core.count8(self._status_column())
        return {_STATUSES[number]: n for number, n in sorted(counted.items())}

    def verdict_counts(self) -> dict[Verdict, int]:
        """Return the number of addresses, or participants, for each verdict, in their order.

        Raises:
            ValueError: no region set was asked for.
        """
        if self._perspective.outcomes is None:  # the sets came from outside, or there are none
            return dict(zip(Verdict, map(len, self._verdict_sets()), strict=True))
        counted = _core.count8(self._verdict_column())
        return {verdict: counted.get(verdict.number, 0) for verdict in Verdict}

    def reason_counts(self) -> dict[Reason, int]:
        """Return the number of the undetermined for each reason that occurs, in order.

        Raises:
            ValueError: as `reasons`.
        """
        counted = _core.count8(self._reason_column())
        return {_REASONS[number]: n for number, n in sorted(counted.items()) if number}

    def positions(self, wanted: str | Status | Reason | Network) -> BitMap:
        """Return the positions that have a country's code, `Status`, `Reason` or `Network`.

        Raises:
            RegionSetError: no country code and not "ZZ".
            ValueError: a `Reason`, as `reasons`; or a country or `Status`, and the roster
                came in groups.
        """
        if isinstance(wanted, Network):
            holding = bytes(1 if bits & wanted.bit else 0 for bits in range(256))
            column = self._network_column().translate(holding)
            return _deserialised("positions", _core.roaring8(column, 1))
        if isinstance(wanted, Reason):
            return _deserialised("positions", _core.roaring8(self._reason_column(), wanted.number))
        if self._participants is not None:
            # The positions of addresses could be taken for those of participants.
            raise ValueError(
                "positions: the roster came in groups, and a participant has no country and no"
                " status; countries and statuses have those of its addresses"
            )
        if isinstance(wanted, Status):
            return _deserialised("positions", _core.roaring8(self._status_column(), wanted.number))
        if wanted not in COUNTRIES and wanted != NO_COUNTRY:
            # An empty set would hide "cn" and "UK".
            raise RegionSetError("positions: not a country code, such as 'CN', and not 'ZZ'")
        return _deserialised("positions", _core.roaring16(self._country_column(), wanted.encode()))

    def serialised(self) -> tuple[bytes, bytes, bytes]:
        """Return inside, outside and undetermined in the portable Roaring serialisation.

        Raises:
            ValueError: no region set was asked for.
        """
        if self._serialised is None:
            outcomes = self._perspective.outcomes
            if outcomes is None:
                raise ValueError(_NO_VERDICTS)
            if self._participants is None:
                self._serialised = _core.roaring_partition(self._claims, outcomes)
            else:
                self._serialised = _core.roaring_split(self._of_participants(outcomes))
        return self._serialised

    def to_arrow(self) -> Array:
        """Return the answers as a record batch: an object with Arrow's C data interface.

        pyarrow, polars, DuckDB, pandas and others take it without a copy, such as by
        `pyarrow.record_batch(result.to_arrow())`; no Arrow library is needed to make it. The
        columns are country, status, then with a region set verdict and reason, then region
        (null where none is known) and networks (names of kinds with commas between them): each
        a dictionary of texts. What was null in the roster is null in all of them.

        Raises:
            ValueError: the roster came in groups, whose verdicts are those of participants.
            RosterError: over 2,147,483,647 addresses.
        """
        from geolookup.answer.arrow import record_batch  # noqa: PLC0415

        return record_batch(self._text_columns(), self._size)

    def _text_columns(self) -> list[TextColumn]:
        names = ["country", "status"]
        if self.region_set is not None:
            names.append("verdict")
            if self.has_reasons:
                names.append("reason")
        return [self.text_column(name) for name in (*names, "region", "networks")]

    def text_column(self, name: str) -> TextColumn:
        """Return one column of `to_arrow` by its name, for geolookup's own modules.

        Raises:
            ValueError: as `to_arrow`, or there are no verdicts.
        """
        from geolookup.answer import arrow  # noqa: PLC0415

        if self._participants is not None:
            raise ValueError(
                "the roster came in groups, and its verdicts are not those of addresses;"
                " classify the addresses without groups for a table of them"
            )
        if name == "region":
            return arrow.region_column(*self._numbered_regions(), self._present)
        if self._validity is None:
            self._validity = arrow.validity(self._present)
        present = self._validity
        if name == "country":
            return arrow.country_column(self._country_column(), present)
        if name == "networks":
            return arrow.network_column(self._network_column(), present)
        if name == "status":
            return arrow.named_column(name, self._status_column(), Status, present)
        if name == "verdict":
            return arrow.named_column(name, self._verdict_column(), Verdict, present)
        return arrow.named_column(name, self._reason_column(), Reason, present)

    def _numbered_regions(self) -> tuple[tuple[str, ...], bytes]:
        """Return the regions that occur, and the number of each address's; see `arrow`."""
        from geolookup.answer.arrow import numbered_regions  # noqa: PLC0415

        if self._regions is None:
            codes = self._perspective.regions()
            if codes is None or not self._claims:
                return (), bytes(2 * self._size)
            names, numbers = numbered_regions(codes)
            return names, _core.map16(self._claims, numbers)
        return numbered_regions(self._regions)

    def to_polars(self) -> Any:
        """Return `to_arrow` as a polars DataFrame.

        Raises:
            ImportError: there is no polars.
            ValueError, RosterError: as `to_arrow`.
        """
        import polars  # noqa: PLC0415

        return polars.DataFrame(self.to_arrow())

    def to_pandas(self, index: Any = None) -> Any:
        """Return the columns of `to_arrow` as a pandas DataFrame of categories.

        It needs no pyarrow.

        Args:
            index: the frame's index, such as that of the frame the addresses are from; None:
                numbers from 0 on.

        Raises:
            ImportError: there is no pandas.
            ValueError: as `to_arrow`, or *index* has another length.
        """
        import pandas  # noqa: PLC0415

        from geolookup.answer.arrow import categories  # noqa: PLC0415

        frame = {column.name: categories(column) for column in self._text_columns()}
        return pandas.DataFrame(frame, index=index)

    def _repr_html_(self) -> str:
        rows = [(code, n) for code, n in sorted(self.counts().items(), key=lambda item: -item[1])]
        table = "".join(f"<tr><td>{code}</td><td>{n:,}</td></tr>" for code, n in rows[:20])
        more = f"<p>{len(rows) - 20} more codes</p>" if len(rows) > 20 else ""
        verdicts = ""
        if self.region_set is not None:
            verdicts = "<p>{}: {}</p>".format(
                escape(self.region_set),
                ", ".join(f"{n:,} {one.name}" for one, n in self.verdict_counts().items()),
            )
        return (
            f"<p>{self.size:,} addresses</p>{verdicts}"
            f"<table><tr><th>country</th><th>addresses</th></tr>{table}</table>{more}"
        )

    def __reduce__(self) -> tuple[Callable[..., RosterResult], tuple[object, ...]]:
        # Its own columns: the tables over all claims of a dataset have 30 kB.
        columns: dict[str, object] = {
            "size": self._size,
            "countries": self._country_column(),
            "statuses": self._status_column(),
            "networks": self._network_column(),
            "dataset": self.dataset,
            "present": self._present,
        }
        if any(self.regions.tobytes()):
            columns["regions"] = self._region_column()
        if self.region_set is not None:
            columns |= dict(zip(_SETS, self.serialised(), strict=True))
            columns |= {"region_set": self.region_set, "policy": self.policy}
            columns["reasons"] = self._reasons_or_none()
            columns["participants"] = self._participants
        return _restored, (columns, self.record)

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RosterResult):
            return NotImplemented
        return (
            self.dataset == other.dataset
            and self.region_set == other.region_set
            and self.policy == other.policy
            and self._participants == other._participants
            and self._country_column() == other._country_column()
            and self._status_column() == other._status_column()
            and self._region_column() == other._region_column()
            and (self.region_set is None or self._verdict_sets() == other._verdict_sets())
            and self._reasons_or_none() == other._reasons_or_none()
            and self._network_column() == other._network_column()
        )

    def __repr__(self) -> str:
        counts = sorted(self.counts().items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{code} {n}" for code, n in counts[:5]]
        if len(counts) > 5:
            parts.append(f"{len(counts) - 5} more codes")
        text = f"<RosterResult of {self._size}"
        if self._participants is not None:
            text += f" addresses of {len(self._participants)} participants"
        if parts:
            text += f": {', '.join(parts)}"
        if self.region_set is not None:
            inside, outside, undetermined = map(len, self._verdict_sets())
            text += (
                f"; {self.region_set}: {inside} inside, {outside} outside, "
                f"{undetermined} undetermined"
            )
        return text + ">"

    def _country_column(self) -> bytes:
        if self._countries is None:
            self._countries = _core.map16(self._claims, self._perspective.countries)
        return self._countries

    def _region_column(self) -> bytes:
        if self._regions is None:
            codes = self._perspective.regions()
            if codes is None or not self._claims:
                self._regions = bytes(6 * self._size)
            else:
                self._regions = _core.map48(self._claims, codes)
        return self._regions

    def _status_column(self) -> bytes:
        if self._statuses is None:
            self._statuses = _core.map8(self._claims, self._perspective.statuses)
        return self._statuses

    def _network_column(self) -> bytes:
        if self._networks is None:
            networks = self._perspective.networks
            self._networks = (
                bytes(self._size) if networks is None else _core.map8(self._claims, networks)
            )
        return self._networks

    def _verdict_column(self) -> bytes:
        if self._verdicts is None:
            outcomes = self._perspective.outcomes
            if outcomes is not None:
                self._verdicts = self._column(outcomes, VERDICT_OF)
            else:
                inside, _, undetermined = self._verdict_sets()
                column = bytearray([Verdict.OUTSIDE.number]) * sum(map(len, self._verdict_sets()))
                for positions, verdict in (
                    (inside, Verdict.INSIDE),
                    (undetermined, Verdict.UNDETERMINED),
                ):
                    for position in positions:
                        column[position] = verdict.number
                self._verdicts = bytes(column)
        return self._verdicts

    def _reason_column(self) -> bytes:
        if self.region_set is None:
            raise ValueError(_NO_VERDICTS)
        column = self._reasons_or_none()
        if column is None:
            raise ValueError("the result has no reasons: the service has a version without them")
        return column

    def _reasons_or_none(self) -> bytes | None:
        outcomes = self._perspective.outcomes
        if self._reasons is None and outcomes is not None:
            self._reasons = self._column(outcomes, REASON_OF)
        return self._reasons

    def _column(self, outcomes: bytes, part: bytes) -> bytes:
        """Return part of the outcome of each position, given those of the dataset's claims.

        Args:
            outcomes: 1 byte per claim.
            part: `VERDICT_OF` or `REASON_OF`.
        """
        if self._participants is None:
            return _core.map8(self._claims, outcomes.translate(part))
        return self._of_participants(outcomes).translate(part)

    def _of_participants(self, outcomes: bytes) -> bytes:
        """Return the outcome of each participant."""
        assert self._participants is not None  # noqa: S101 - the callers asked
        if self._outcomes is None:
            sizes = self._participants.sizes
            self._outcomes = _core.participant_outcomes(self._claims, outcomes, sizes)
        return self._outcomes

    def _known_ids(self) -> tuple[Any, ...]:
        if self.ids is None:
            raise ValueError("the result has no ids: it was made of a roster that is no mapping")
        return self.ids

    def _ids_of(self, which: int) -> list[Any]:
        ids = self._known_ids()
        return [ids[position] for position in self._verdict_sets()[which]]

    def _verdict_set(self, which: int) -> BitMap:
        bitmap = self._verdict_sets()[which]
        return type(bitmap)(bitmap, optimize=False)

    def _verdict_sets(self) -> tuple[BitMap, BitMap, BitMap]:
        if self._bitmaps is None:
            inside, outside, undetermined = map(_deserialised, _SETS, self.serialised())
            self._bitmaps = (inside, outside, undetermined)
        return self._bitmaps


_SETS = ("inside", "outside", "undetermined")
_NO_VERDICTS = (
    "the result has no verdicts: it was made without a region set; name one with region_set="
)


def _restored(columns: dict[str, Any], record: DecisionRecord | None) -> RosterResult:
    """Make a result of what was pickled."""
    result = RosterResult.from_columns(**columns)
    result.record = record
    return result


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        raise RosterError("size: not in 0..4294967295")


def _check_column(field: str, column: bytes, expected: int, allowed: bytes) -> None:
    if len(column) != expected:
        raise RosterError(f"{field}: {len(column)} bytes, expected {expected}")
    if bytes(column).translate(None, allowed):
        raise RosterError(f"{field}: unknown values")


def _deserialised(field: str, serialised: bytes) -> BitMap:
    # Loaded where it is needed: most callers of import geolookup ask for no sets.
    from pyroaring import BitMap  # noqa: PLC0415

    with suppress(ValueError, IndexError):  # IndexError: no bytes at all
        return BitMap.deserialize(serialised)
    raise RosterError(f"{field}: {len(serialised)} bytes are no portable Roaring bitmap")


def _received_sets(
    serialised: tuple[bytes, bytes, bytes], size: int
) -> tuple[BitMap, BitMap, BitMap]:
    """Return the sets of positions that came from outside, checked.

    pyroaring checks the serialisation (https://github.com/RoaringBitmap/RoaringFormatSpec),
    and the memory that it takes is in proportion to the bytes. It ignores bytes that follow.

    Raises:
        RosterError: a set is not valid, or they do not hold each position exactly once.
    """
    inside, outside, undetermined = map(_deserialised, _SETS, serialised)
    sets = (inside, outside, undetermined)
    for field, positions, raw in zip(_SETS, sets, serialised, strict=True):
        if len(positions.serialize()) != len(raw):
            raise RosterError(f"{field}: {len(raw)} bytes are no portable Roaring bitmap")
    # Disjoint, below the size, and as many as the size: each position once.
    if (
        sum(map(len, sets)) != size
        or any(positions and positions.max() >= size for positions in sets)
        or not inside.isdisjoint(outside)
        or not inside.isdisjoint(undetermined)
        or not outside.isdisjoint(undetermined)
    ):
        raise RosterError("inside, outside and undetermined do not hold each position exactly once")
    return sets
