"""Datasets: one compiled file, opened, and its lookups.

Reading a file's bytes is `Dataset.from_buffer`; `open` is a thin layer over that.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache, partial, wraps
from html import escape
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast

from geolookup import _core
from geolookup.answer import age as ages
from geolookup.answer.addresses import core_address, core_roster, packed_buffer
from geolookup.answer.arrow import column_claims, objects
from geolookup.answer.claims import (
    SUBDIVISION_SOURCES,
    Network,
    Policy,
    Reason,
    Status,
    Verdict,
    encode_outcome,
    ignores_networks,
    network_bits,
    networks_of,
    read_kinds,
    read_policy,
    stale_outcomes,
)
from geolookup.answer.file_format import (
    FORMAT,
    ClaimTable,
    DatasetContent,
    ExpiringOverride,
    Image,
    NetworkInfo,
    RuntimeOverrides,
    SourceInfo,
    assemble,
    header_digest,
    read_age_limit,
    read_expiring,
    read_metadata,
    read_networks,
    read_runtime_overrides,
)
from geolookup.answer.intervals import Family, joined, ranges_of
from geolookup.answer.participants import claims_of_people, paired, whose
from geolookup.answer.region_sets import RegionSet, RegionSets
from geolookup.answer.results import Answer, Perspective, RosterResult
from geolookup.atomic import replacing
from geolookup.errors import DatasetClosedError, DatasetError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from geolookup.answer.addresses import Address, Roster
    from geolookup.answer.decision_record import DecisionRecord
    from geolookup.answer.evidence import Evidence, SourceEvidence
    from geolookup.answer.explanation import Explanation
    from geolookup.answer.overlay import AppliedOverrides
    from geolookup.answer.overrides import Overrides
    from geolookup.answer.participants import ById

_CACHED_REGION_SETS: Final = 256
"""Tables of outcomes kept of each dataset, at one byte a claim."""

_KEPT_REPLIES: Final = 100_000
"""Ten times the claims of a dataset; some 20 MB."""

_UNANIMOUS: Final = Policy.UNANIMOUS

_OUTCOMES: Final = 1 + max(encode_outcome(Verdict.UNDETERMINED, reason) for reason in Reason)
"""Outcomes are below this."""


_FOR_USERS: Final = (
    *("country", "lookup", "classify", "classify_many", "explain"),
    *("id", "built", "sources", "attributions", "region_sets", "info"),
    *(
        "age",
        "expired_overrides",
        "runtime_overrides",
        "kept_too_long",
        "from_buffer",
        "close",
        "closed",
    ),
)


class _FewAnswers(dict[int, "Answer | None"]):
    """Answers by claim; None where none was made."""

    def __missing__(self, claim: int) -> None:
        return None


class _Listed(type):
    """Has `dir`, and what completes names by it, list what users call.

    The other names are for geolookup's own modules: the service, exports, reviews.
    """

    def __dir__(cls) -> list[str]:
        return [*_FOR_USERS, *(name for name in super().__dir__() if name.startswith("__"))]


class Dataset(metaclass=_Listed):
    """One dataset, opened: it says in which country an address is, and where a roster.

    Made by `geolookup.open` and `from_buffer`. Immutable, and safe to use from
    several threads. A context manager that closes it at the end.

    An address is text, 4 or 16 packed bytes in network order, or an `ipaddress`
    object. What is no address by its value ("1.2.3", 5 bytes) gets an answer
    whose status is INVALID; what is none by its type (an int, None) is a
    TypeError. IPv6 addresses that carry an IPv4 address are answered by that.

    `region_set` is a `RegionSet` or an expression such as "CN", "EU" or
    "EEA-NO"; `policy` a `Policy` or its name in any letter case.
    """

    _age_limit: ages.AgeLimit
    _answers: tuple[list[Answer | None] | _FewAnswers, ...]
    _built: datetime
    _claim: Callable[[Address], int]
    _claims: ClaimTable
    _country: Callable[[Address], str]
    _expiring: tuple[ExpiringOverride, ...]
    _id: str
    _image: Image | None
    _intervals: tuple[int, int]
    _claim_results: _core.ClaimResults
    _covering: tuple[Network, ...]
    _covering_recorded: str
    _metadata: dict[str, Any]
    _networks: tuple[NetworkInfo, ...]
    _perspective_of: Callable[[str | RegionSet, Policy, bool], Perspective]
    _plain: Perspective
    _region_sets: RegionSets
    _replies: _core.Replies
    _runtime_overrides: RuntimeOverrides | None
    _sources: tuple[SourceInfo, ...]
    _stale_from: int | None
    _stale_replies: _core.Replies
    _subdivision_sources: int
    _table: _core.Table

    def __init__(self) -> None:
        raise TypeError("use geolookup.open() or Dataset.from_buffer()")

    @classmethod
    def from_buffer(
        cls,
        buffer: Buffer,
        name: str = "dataset",
        *,
        region_sets: RegionSets | None = None,
        max_age: int | None = None,
        stale: ages.Stale | None = None,
        subdivision_sources: int = SUBDIVISION_SOURCES,
        covering: Iterable[Network | str] | None = None,
        overrides: Overrides | None = None,
    ) -> Dataset:
        """Return the dataset whose file is in *buffer*.

        Args:
            buffer: the file's bytes. `bytes` and read-only `mmap` objects are
                used in place; anything else, which may change, is copied.
            name: how error texts call it, such as the path.
            region_sets: what `region_set` may name; the built-in sets if None.
            max_age: see `open`.
            stale: see `open`.
            subdivision_sources: as in `geolookup.open`.
            covering: see `open`.
            overrides: see `open`.

        Raises:
            DatasetError: damaged, or of an unknown format. The text begins with
                *name* and says what and where.
            SourceError: see `open`.
            TypeError: *covering* has something else than kinds.
            ValueError: *max_age* or *stale* is out of bounds, or *covering* has an unknown kind.
        """
        hiding = None if covering is None else _covering(covering)
        if subdivision_sources < 1:
            raise ValueError("subdivision_sources: expected 1 or more")
        view = memoryview(buffer)
        if not (view.readonly and type(buffer) in (bytes, mmap.mmap)):
            view = memoryview(view.tobytes())
        self = cls.__new__(cls)
        sets = region_sets or RegionSets.builtin()
        image = Image(view, name)
        if overrides is not None:
            open_image = partial(
                cls.from_buffer,
                name=name,
                region_sets=sets,
                max_age=max_age,
                stale=stale,
                subdivision_sources=subdivision_sources,
                covering=hiding,
            )
            return _with_overrides(image, overrides, open_image)
        self._read(image, sets, subdivision_sources, max_age, stale, hiding)
        return self

    def _read(
        self,
        image: Image,
        region_sets: RegionSets,
        subdivision_sources: int,
        max_age: int | None,
        stale: ages.Stale | None,
        chosen: tuple[Network, ...] | None,
    ) -> None:
        with image.interval_sections() as columns:
            ipv4_first, ipv4_claims, ipv6_high, ipv6_low, ipv6_claims = columns
            claims = ClaimTable(image)
            try:
                table = _core.Table(
                    ipv4_first,
                    ipv4_claims,
                    ipv6_high,
                    ipv6_low,
                    ipv6_claims,
                    _core.pairs(claims.countries),
                    convert=core_address,
                )
            except ValueError as error:
                image.fail(str(error))
        metadata, built, sources = read_metadata(image)
        networks, compiled = read_networks(image, metadata)
        covering = compiled if chosen is None else chosen
        limit = _age_limit(read_age_limit(image, metadata), max_age, stale)
        stale_from = ages.stale_from(built, limit, sources)
        plain = Perspective(
            *(image.id, claims.countries, claims.statuses),
            regions=claims.regions,
            networks=claims.network_bytes,
        )
        # A cache holds the replies of one state alone.
        replies = _core.Replies(table, _KEPT_REPLIES)
        withholds = stale_from is not None and limit.stale == "undetermined"
        # The labels are the codes.
        country = cast("Callable[[Address], str]", table.label)
        self._set(
            # Before the method of this name, whose call would take as long as the answer.
            country=country,
            _age_limit=limit,
            # By outcome, and there by claim; outcome 0: no region set was asked for. Those
            # without a verdict are few in each of many.
            _answers=(
                *([None] * len(claims) for _ in range(Verdict.UNDETERMINED)),
                *(_FewAnswers() for _ in range(Verdict.UNDETERMINED, _OUTCOMES)),
            ),
            _built=built,
            _claim=table.claim,
            _claims=claims,
            _id=image.id,
            _image=image,
            _country=country,
            _expiring=read_expiring(image, metadata),
            _claim_results=_core.ClaimResults(
                claims.countries, claims.statuses, claims.network_bytes
            ),
            _intervals=(len(ipv4_first) // 4, len(ipv6_high) // 8),
            _covering=covering,
            # Where there are no lists nothing is covered, whatever an operator says.
            _covering_recorded=(
                ""
                if claims.networks is None or set(covering) == set(compiled)
                else ",".join(kind.name for kind in covering) or "IGNORE"
            ),
            _metadata=metadata,
            _networks=networks,
            _perspective_of=_cached_perspectives(
                claims,
                plain,
                region_sets,
                subdivision_sources,
                stale_from if withholds else None,
                network_bits(covering) if claims.networks is not None else 0,
            ),
            _plain=plain,
            _region_sets=region_sets,
            _replies=replies,
            _runtime_overrides=read_runtime_overrides(image, metadata),
            _sources=sources,
            _stale_from=stale_from,
            _stale_replies=_core.Replies(table, _KEPT_REPLIES) if withholds else replies,
            _subdivision_sources=subdivision_sources,
            _table=table,
        )

    def __dir__(self) -> list[str]:
        return dir(type(self))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(one.name)}</td><td>{escape(str(one.date))}</td>"
            f"<td>{escape(one.coverage)}</td></tr>"
            for one in self._sources
        )
        return (
            f"<p>dataset {self._id[:12]}, built {self._built:%Y-%m-%d}</p>"
            f"<table><tr><th>source</th><th>date</th><th>coverage</th></tr>{rows}</table>"
        )

    # --- one address

    def country(self, address: Address) -> str:
        """Return the code of an address: two letters, "ZZ" for no country.

        Where sources disagree this is what the first that speaks says; `lookup`
        tells such answers from the others.

        Raises:
            TypeError: *address* is none by its type.
            DatasetClosedError: after `close`.
        """
        return self._country(address)

    def lookup(
        self,
        address: Address,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = _UNANIMOUS,
        networks: str | None = None,
    ) -> Answer:
        """Return what is known of an address, and where it is seen from a region set.

        Args:
            address: see the class.
            region_set: see the class; without one the answer has no verdict.
            policy: see the class.
            networks: "IGNORE": networks that hide where their users are have a verdict, too.

        Raises:
            TypeError: an argument's type.
            RegionSetError: an unknown region set.
            ValueError: an unknown policy, or another value of *networks*.
            DatasetClosedError: after `close`.
        """
        outcomes = None
        if region_set is not None or policy is not _UNANIMOUS or networks is not None:
            outcomes = self._perspective(region_set, policy, networks).outcomes
        claim = self._claim(address)
        outcome = 0 if outcomes is None else outcomes[claim]
        return self._answers[outcome][claim] or self._answer(claim, outcome)

    def _answer(self, claim: int, outcome: int) -> Answer:
        known = self._claims[claim]
        answer = Answer(
            country=known.country,
            region=known.region,
            status=known.status,
            claimed=known.claimed if known.status is Status.DISPUTED else (),
            verdict=Verdict.numbered(outcome & 3) if outcome else None,
            dataset=self._id,
            reason=Reason.numbered(outcome >> 2) if outcome else None,
            networks=networks_of(known.networks),
        )
        # Two threads may both make it; they are equal, and either may stay.
        self._answers[outcome][claim] = answer
        return answer

    # --- many addresses

    def classify(
        self,
        roster: Roster | ById | None = None,
        *,
        ipv4: Buffer | None = None,
        ipv6: Buffer | None = None,
        groups: Iterable[int] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = _UNANIMOUS,
        networks: str | None = None,
        record: bool = False,
    ) -> RosterResult:
        """Return what is known of each address of a roster, in its order.

        Exactly one of the first three is given. The type of a buffer's items says what
        they are: bytes are packed addresses, a uint32 is an IPv4 address as an integer
        in the byte order of its type; other types are refused.

        Args:
            roster: addresses (see the class) in any mixture. A missing value (None, NaN)
                is INVALID. Or a column of Arrow, whatever library has it: text, packed
                addresses as binary of 4 or 16 bytes, or IPv4 addresses as uint32, uint64 or
                int64; a null is INVALID here and null in `RosterResult.to_arrow`. Or a
                mapping of ids to lists of addresses: of participants, about whom the result
                answers by id. It needs a region set.
            ipv4: 4 bytes an address, in network order.
            ipv6: 16 bytes an address, in network order; IPv4 addresses stand
                there in IPv4-mapped form.
            groups: how many of the addresses, one after another, are the first participant's,
                the second's, and so on. The result's positions are those of participants
                then. It needs a region set.
            region_set: see the class; without one the result has no verdicts.
            policy: see the class.
            networks: as in `lookup`.
            record: whether the result has a decision record; see `DecisionRecord`.

        Raises:
            TypeError: an argument's type, or that of an item of the roster: the
                text names its position.
            RosterError: a buffer that can't be packed addresses, a participant without an
                address, or groups of more or fewer addresses than the roster has.
            RegionSetError: an unknown region set.
            ValueError: an unknown policy, or a record or participants without a region set.
            DatasetClosedError: after `close`.
        """
        perspective = self._plain
        if region_set is not None or policy is not _UNANIMOUS or networks is not None:
            perspective = self._perspective(region_set, policy, networks)
        table = self._table
        if (roster is None) + (ipv4 is None) + (ipv6 is None) != 2:
            raise TypeError("classify: expected exactly one of roster, ipv4 and ipv6")
        participants = None
        # The common forms are not asked whether they are mappings, which takes a while.
        if groups is not None or not (roster is None or type(roster) is list):
            participants = whose(roster, groups, region_set)
        present = None
        if ipv4 is not None:
            claims = table.classify_ipv4(packed_buffer(ipv4, "ipv4", 4))
        elif ipv6 is not None:
            claims = table.classify_ipv6(packed_buffer(ipv6, "ipv6", 16))
        elif isinstance(roster, (list, tuple)):
            claims = _claims_of_items(table, roster)
        elif isinstance(roster, Mapping):
            claims, participants = claims_of_people(table, roster)
        else:
            claims, present = _claims_of_roster(table, roster)
        result = RosterResult(claims, perspective, participants, present)
        if record:
            if region_set is None or perspective.policy is None:
                raise ValueError("record: needs a region set; name one with region_set=")
            inside, outside, undetermined = result.verdict_counts().values()
            result.record = self.record(
                region_set,
                perspective.policy,
                statuses=result.status_counts(),
                inside=inside,
                outside=outside,
                undetermined=undetermined,
                reasons=result.reason_counts(),
                networks="" if networks is None else networks.upper(),
            )
        return result

    def classify_many(
        self,
        rosters: Iterable[Roster | ById] | None = None,
        *,
        ipv4: Iterable[Buffer] | None = None,
        ipv6: Iterable[Buffer] | None = None,
        groups: Iterable[Iterable[int]] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = _UNANIMOUS,
        networks: str | None = None,
        record: bool = False,
    ) -> Iterator[RosterResult]:
        """Yield the result of each roster, in order; see `Client.classify_many`.

        An error of the caller's iterator, or of a roster, is raised after the results before it.
        """
        self._perspective(region_set, policy, networks)
        if (rosters is None) + (ipv4 is None) + (ipv6 is None) != 2:
            raise TypeError("classify_many: expected exactly one of rosters, ipv4 and ipv6")
        classify = partial(
            self.classify, region_set=region_set, policy=policy, networks=networks, record=record
        )
        if ipv4 is not None:
            return (classify(ipv4=packed, groups=some) for packed, some in paired(ipv4, groups))
        if ipv6 is not None:
            return (classify(ipv6=packed, groups=some) for packed, some in paired(ipv6, groups))
        return (classify(roster, groups=some) for roster, some in paired(rosters or (), groups))

    def answer(
        self,
        roster: _core.WireRoster,
        region_set: str | None,
        policy: Policy,
        networks: str | None = None,
    ) -> _core.RosterAnswer:
        """Begin the answer to a roster that lies in the bytes of a request.

        For the service, which takes and gives bytes; others `classify`.

        Args:
            roster: its last address is whole.
            region_set: an expression; None: no verdicts are asked for.
            policy: how claims become verdicts.
            networks: as in `lookup`.

        Raises:
            RegionSetError: an unknown region set.
            DatasetClosedError: after `close`.
        """
        outcomes = None
        if region_set is not None:
            ignored = networks is not None
            outcomes = self._perspective_of(region_set, policy, ignored).outcomes
        table = self._table
        if isinstance(table, _ClosedTable):
            raise _closed()
        return _core.RosterAnswer(table, self._claim_results, outcomes, roster)

    @property
    def core(self) -> tuple[_core.Table, _core.ClaimResults]:
        """What the core answers from, for the service, which keeps it for as long as it needs it.

        Raises:
            DatasetClosedError: after `close`.
        """
        if isinstance(self._table, _ClosedTable):
            raise _closed()
        return self._table, self._claim_results

    @property
    def replies(self) -> _core.Replies:
        """Where the service keeps what it answers to lookups, for now.

        They are found by claim, and no address is kept. The dataset's answers change once at
        most, at `withholds_from`, and then it is another cache. Who keeps a reply asks for the
        cache before the answer, so that no earlier answer gets into the later one.
        """
        return self._stale_replies if self.withholds_verdicts else self._replies

    @property
    def withholds_from(self) -> int | None:
        """The second since 1970, UTC, from which each verdict is UNDETERMINED; None: never."""
        return self._stale_from if self._age_limit.stale == "undetermined" else None

    @property
    def withholds_verdicts(self) -> bool:
        """Whether each verdict is UNDETERMINED, because the dataset is too old."""
        at = self.withholds_from
        return at is not None and ages.clock() >= at

    def record(
        self,
        region_set: str | RegionSet,
        policy: Policy,
        *,
        statuses: Mapping[Status, int],
        inside: int,
        outside: int,
        undetermined: int,
        reasons: Mapping[Reason, int] | None = None,
        networks: str = "",
        time: datetime | None = None,
    ) -> DecisionRecord:
        """Return the record of a decision whose counts are known.

        Args:
            region_set: see the class. A `RegionSet` is recorded by its codes, since its
                name may mean another set elsewhere.
            policy: how claims became verdicts.
            statuses: addresses for each status that occurs.
            inside: addresses inside the region set, or participants of a roster in groups.
            outside: those outside.
            undetermined: those that are neither.
            reasons: these, for each reason that occurs; None: a record without reasons.
            networks: "IGNORE" where the request has covering networks ignored; else empty.
            time: when it was decided; None: now.

        Raises:
            RegionSetError: an unknown region set.
            RecordError: counts that contradict each other.
        """
        from geolookup.answer.decision_record import DecisionRecord  # noqa: PLC0415

        if isinstance(region_set, RegionSet):
            # Not by its expression, which may be longer than those that may be asked for.
            resolved = RegionSet(region_set.expression, region_set.codes)
            region_set = resolved.name
        else:
            resolved = self._region_sets.resolve(region_set)
        return DecisionRecord(
            time=(time or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0),
            dataset=self._id,
            dataset_built=self._built.replace(microsecond=0),
            region_set=region_set,
            region_set_version=resolved.version,
            codes=tuple(sorted(resolved.codes)),
            policy=policy,
            size=inside + outside + undetermined,
            inside=inside,
            outside=outside,
            undetermined=undetermined,
            statuses=statuses,
            reasons=reasons,
            subdivision_sources=self._subdivision_sources if resolved.partly else None,
            addresses=None if reasons is None else sum(statuses.values()),
            networks=networks or self._covering_recorded,
            base_dataset="" if self._runtime_overrides is None else self._runtime_overrides.base,
            overrides="" if self._runtime_overrides is None else self._runtime_overrides.file,
        )

    def with_overrides(self, overrides: Overrides, now: float) -> Dataset:
        """Return a dataset of its own: this one with overrides laid over it, as of a time.

        Args:
            overrides: to be laid over it.
            now: the second since 1970, UTC, that decides which of them have expired, once.

        Raises:
            SourceError: as `open`.
            DatasetClosedError: after `close`.
        """
        from geolookup.answer.overlay import lay_over  # noqa: PLC0415

        image = self._image
        if image is None:
            raise _closed()
        pieces = lay_over(image, overrides, now)
        return Dataset.from_buffer(
            image.buffer if pieces is None else b"".join(pieces),
            image.name,
            region_sets=self._region_sets,
            max_age=self._age_limit.max_age,
            stale=self._age_limit.stale,
            subdivision_sources=self._subdivision_sources,
            covering=self._covering,
        )

    def outcome_column(
        self,
        region_set: str | RegionSet,
        policy: Policy | str = _UNANIMOUS,
        networks: str | None = None,
    ) -> bytes:
        """Return one byte a claim, in the order of `claims`: its `claims.encode_outcome`.

        Raises:
            RegionSetError, ValueError, TypeError, DatasetClosedError: as `lookup`.
        """
        outcomes = self._perspective(region_set, policy, networks).outcomes
        if outcomes is None:
            raise TypeError("region_set: expected str or RegionSet, not NoneType")
        return outcomes

    def _perspective(
        self, region_set: str | RegionSet | None, policy: Policy | str, networks: str | None
    ) -> Perspective:
        if type(policy) is not Policy:
            policy = read_policy(policy)
        ignored = networks is not None and ignores_networks(networks)
        if region_set is None:
            return self._plain
        if not isinstance(region_set, (str, RegionSet)):
            raise TypeError(
                f"region_set: expected str or RegionSet, not {type(region_set).__name__}"
            )
        return self._perspective_of(region_set, policy, ignored)

    # --- about the dataset

    @property
    def id(self) -> str:
        """64 hexadecimal digits (SHA-256) that pin every byte of the dataset."""
        return self._id

    @property
    def base(self) -> str:
        """The id of its file: `id`, unless overrides of a file act."""
        over = self._runtime_overrides
        return self._id if over is None else over.base

    @property
    def built(self) -> datetime:
        """When it was built, in UTC; reproducible builds state their newest source's date."""
        return self._built

    @property
    def age(self) -> ages.Age:
        """How old it is now, how old it may be, and whether it is stale."""
        return ages.age_of(self._built, self._age_limit, self._sources)

    def kept_too_long(self, today: date | None = None) -> tuple[ages.KeptSource, ...]:
        """Return the sources whose licences forbid to keep data that old.

        Args:
            today: the day that decides. Default: the present day, UTC.
        """
        today = today or datetime.fromtimestamp(ages.clock(), UTC).date()
        return ages.kept_too_long(self._sources, today)

    @property
    def sources(self) -> tuple[SourceInfo, ...]:
        """What it was built from, in order of precedence."""
        return self._sources

    @property
    def attributions(self) -> tuple[str, ...]:
        """The texts that licences, of sources and lists of networks, ask to be shown, each once."""
        texts = [source.attribution for source in self._sources]
        texts += [one.attribution for one in self._networks]
        return tuple(dict.fromkeys(text for text in texts if text))

    @property
    def region_sets(self) -> RegionSets:
        """The named region sets that `region_set` may use."""
        return self._region_sets

    @property
    def subdivision_sources(self) -> int:
        """As in `geolookup.open`."""
        return self._subdivision_sources

    @property
    def has_subdivisions(self) -> bool:
        """Whether a source or an override names subdivisions."""
        return bool(self._claims.places)

    @property
    def network_lists(self) -> tuple[NetworkInfo, ...]:
        """The lists of networks that the dataset was built with."""
        return self._networks

    @property
    def covering(self) -> tuple[Network, ...]:
        """The kinds of networks that hide where their users are: these have no verdict."""
        return self._covering

    @property
    def covering_recorded(self) -> str:
        """What records say of `covering`, as `DecisionRecord.networks`."""
        return self._covering_recorded

    @property
    def claims(self) -> ClaimTable:
        """What all the sources say, by claim number."""
        return self._claims

    @property
    def expiring_overrides(self) -> tuple[ExpiringOverride, ...]:
        """The operator's overrides with a last day, in the manifest's order.

        That day is held against the calendar when a dataset is compiled, and never by an
        answer: in a dataset that stays in use they decide beyond it.
        """
        return self._expiring

    @property
    def runtime_overrides(self) -> RuntimeOverrides | None:
        """The overrides of a file that act; None: there are none, or all have expired."""
        return self._runtime_overrides

    @property
    def expires(self) -> bool:
        """Whether it becomes another dataset while it is open, because overrides in it expire."""
        return False

    def expired_overrides(self, today: date | None = None) -> tuple[ExpiringOverride, ...]:
        """Return those of `expiring_overrides` that still decide and no longer should.

        Args:
            today: the day that decides. Default: the present day, UTC.
        """
        today = today or datetime.now(UTC).date()
        return tuple(one for one in self._expiring if one.expires < today)

    def info(self) -> dict[str, Any]:
        """Return a description of the dataset that JSON can hold.

        Keys: "id", "format", "built" (RFC 3339), "ipv4_intervals",
        "ipv6_intervals", "claims" (their number), "sources" (a dict each, with
        the attributes of `SourceInfo`), "attributions", "expired_overrides" (a
        dict each, with the attributes of `ExpiringOverride`, as of today), "age" (a dict
        with the attributes of `Age`), "kept_too_long" (a dict each, as `KeptSource`), and
        what else the compiler noted, such as "special_purpose", "nat64_prefixes",
        "expiring_overrides" where there are some, "subdivision_sources" (see
        `geolookup.open`) where a source names subdivisions, and, where there are lists of
        networks, "networks" (a dict each, with the attributes of `NetworkInfo`) and "covering".
        """
        # Through JSON, so that what the caller changes is a copy.
        return {
            **json.loads(json.dumps(self._metadata)),
            "id": self._id,
            "format": FORMAT,
            "ipv4_intervals": self._intervals[0],
            "ipv6_intervals": self._intervals[1],
            "claims": len(self._claims),
            **({"subdivision_sources": self._subdivision_sources} if self._claims.places else {}),
            **({"covering": [kind.name for kind in self._covering]} if self._networks else {}),
            "attributions": list(self.attributions),
            "expired_overrides": [one.as_json() for one in self.expired_overrides()],
            "age": self.age.as_json(),
            "kept_too_long": [one.as_json() for one in self.kept_too_long()],
        }

    def intervals(self, family: Family) -> Iterator[tuple[int, int, int]]:
        """Yield the intervals of one family, without gaps: first, last, claim number.

        Addresses are numbers, ascending from 0; an interval ends at its last
        address. IPv6 addresses that carry an IPv4 address have one of the
        `geolookup.answer.embedded_ipv4.EMBEDDED_*` numbers, which is no index into `claims`.

        The file stays mapped until the iterator ends, `close` or not.

        Raises:
            ValueError: *family* is neither 4 nor 6.
            DatasetError: the content was damaged since it was opened.
            DatasetClosedError: after `close`.
        """
        image = self._image
        if image is None:
            raise _closed()
        if family == 4:
            first: Iterable[int] = image.section("ipv4.first").cast("I")
            numbers = image.section("ipv4.claims").cast("H")
        elif family == 6:
            high, low = image.section("ipv6.high").cast("Q"), image.section("ipv6.low").cast("Q")
            first = joined(high, low)
            numbers = image.section("ipv6.claims").cast("H")
        else:
            raise ValueError("family: expected 4 or 6")
        return ranges_of(family, first, numbers)

    def explain(self, address: Address) -> Explanation:
        """Return why an address has the answer it has.

        Slow beside `lookup`: for people who must account for single decisions.

        Raises:
            TypeError: *address* is none by its type.
            DatasetError: the evidence is damaged.
            DatasetClosedError: after `close`.
        """
        # Only explanations need these.
        from geolookup.answer.explanation import explain  # noqa: PLC0415

        form = core_address(address)
        image = self._image
        if image is None:
            raise _closed()
        return explain(
            form,
            image.interval,
            self._claims,
            self._evidence(),
            self._sources,
            self._id,
            self._subdivision_sources if self.has_subdivisions else None,
            self._networks,
            None if self._runtime_overrides is None else self._applied().override,
        )

    def _applied(self) -> AppliedOverrides:
        from geolookup.answer.overlay import SECTION, AppliedOverrides  # noqa: PLC0415

        image, described = self._image, self._runtime_overrides
        section = self.optional_section(SECTION)
        assert image is not None and described is not None  # noqa: S101, PT018 - as the caller saw
        if section is None:
            image.fail(f"section {SECTION} is missing")
        return AppliedOverrides(section, described.file, image.fail)

    def views(self) -> tuple[SourceEvidence, ...]:
        """Return what each source says, in order of precedence; nothing without evidence.

        Raises:
            DatasetError: the evidence is damaged.
            DatasetClosedError: after `close`.
        """
        evidence = self._evidence()
        return () if evidence is None else evidence.sources

    def _evidence(self) -> Evidence | None:
        from geolookup.answer.evidence import SECTION, Evidence  # noqa: PLC0415

        known = self.__dict__.get("_evidence_read")
        if known is None:
            section = self.optional_section(SECTION)
            if section is None or self._image is None:
                return None
            known = Evidence(section, self._image.name, self._claims.places)
            if [one.name for one in known.sources] != [source.name for source in self._sources]:
                self._image.fail(f"section {SECTION}: of other sources than the metadata has")
            # Two threads may both read it; the second reading is as good.
            self._set(_evidence_read=known)
        return known

    def optional_section(self, name: str) -> memoryview | None:
        """Return a section of the file, held against its checksum; None: it has none of that name.

        Opening reads all sections that answers need. What else the file holds
        is read here, when it is wanted.

        Raises:
            DatasetError: its content is damaged.
            DatasetClosedError: after `close`.
        """
        image = self._image
        if image is None:
            raise _closed()
        return image.section(name) if name in image.sections else None

    def check_sections(self) -> dict[str, int]:
        """Hold all sections against their checksums, and return the size of each by name.

        Opening leaves alone what answers don't need, such as the evidence; so this is for
        those who want to know that the whole file is sound.

        Raises:
            DatasetError: a section is damaged.
            DatasetClosedError: after `close`.
        """
        image = self._image
        if image is None:
            raise _closed()
        sizes = {name: len(image.section(name)) for name in image.sections}
        self._evidence()
        return sizes

    # --- life

    def close(self) -> None:
        """Close the file; may be called again.

        Calls of other threads that are in progress finish, and existing results
        stay usable. Later lookups raise `DatasetClosedError`; what describes
        the dataset (`id`, `sources`, `info` and so on) stays.
        """
        self._replies.close()
        self._stale_replies.close()
        self._set(
            _claim=_refuse,
            _evidence_read=None,
            _image=None,
            _country=_refuse,
            country=_refuse,
            _perspective_of=_refuse,
            _table=_ClosedTable(),
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._image is None

    def __enter__(self) -> Self:
        if self.closed:
            raise _closed()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set(self, **values: object) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Dataset is immutable: {name} can't be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Dataset is immutable: {name} can't be deleted")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Dataset can't be pickled or copied: open its file where it is needed")

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<Dataset {self._id[:12]}..., built {self._built:%Y-%m-%d}{state}>"


class _ClosedTable:
    """Stands where the table was, so that no call needs to ask whether it is there."""

    def classify_ipv4(self, packed: object) -> NoReturn:
        _refuse(packed)

    classify_ipv6 = classify_text = classify_people = classify_ipv4

    def handle(self) -> NoReturn:
        _refuse()


def _load_overrides(path: str | os.PathLike[str]) -> Overrides:
    from geolookup.answer.overrides import Overrides  # noqa: PLC0415

    return Overrides.load(path)


def _with_overrides(
    base: Image, overrides: Overrides, open_buffer: Callable[[Buffer], Dataset]
) -> Dataset:
    """Return a dataset with overrides laid over it, which expire while it is open."""
    from geolookup.answer.overlay import lay_over  # noqa: PLC0415

    def laid_over() -> tuple[Dataset, float | None]:
        now = ages.clock()
        pieces = lay_over(base, overrides, now)
        image = base.buffer if pieces is None else b"".join(pieces)
        return open_buffer(image), overrides.until(now)

    dataset, until = laid_over()
    return dataset if until is None else _ExpiringDataset(dataset, until, laid_over)


class _ExpiringDataset(Dataset):
    """A dataset whose overrides expire: each call is answered by one that is as of its time.

    Args:
        dataset: as of now.
        until: the second since 1970 at which the next override expires.
        laid_over: returns both as of the time of its call.
    """

    def __init__(
        self,
        dataset: Dataset,
        until: float,
        laid_over: Callable[[], tuple[Dataset, float | None]],
    ) -> None:
        # One object, so that threads see both of one time.
        self._set(_now=(dataset, until), _laid_over=laid_over, _lock=threading.Lock())

    def current(self) -> Dataset:
        """Return the dataset as of now."""
        dataset, until = self.__dict__["_now"]
        if until is None or ages.clock() < until:
            return cast("Dataset", dataset)
        with self.__dict__["_lock"]:
            dataset, until = self.__dict__["_now"]
            if until is not None and ages.clock() >= until and not dataset.closed:
                # The one before is not closed: a call of another thread may be under way.
                dataset, until = self.__dict__["_laid_over"]()
                self._set(_now=(dataset, until))
        return cast("Dataset", dataset)

    @property
    def expires(self) -> bool:
        """See `Dataset.expires`."""
        return self.__dict__["_now"][1] is not None

    def __enter__(self) -> Self:
        self.current().__enter__()
        return self

    def close(self) -> None:
        with self.__dict__["_lock"]:
            self.__dict__["_now"][0].close()


def _delegated(name: str) -> Any:
    """Return what stands for a property or method of `Dataset` in `_ExpiringDataset`."""
    found = Dataset.__dict__[name]
    if isinstance(found, property):
        return property(lambda self: getattr(self.current(), name), doc=found.__doc__)

    @wraps(found)
    def method(self: _ExpiringDataset, *arguments: Any, **named: Any) -> Any:
        return getattr(self.current(), name)(*arguments, **named)

    return method


for _name, _found in vars(Dataset).items():
    # `classify_many` asks `classify`, roster by roster.
    if (
        _name not in {*vars(_ExpiringDataset), "classify_many", "_read", "_set"}
        and (not _name.startswith("__") or _name == "__repr__")
        and isinstance(_found, (property, FunctionType))
    ):
        setattr(_ExpiringDataset, _name, _delegated(_name))


def _refuse(*_: object) -> NoReturn:
    raise _closed()


def _closed() -> DatasetClosedError:
    return DatasetClosedError("the dataset was closed")


def _claims_of_items(table: _core.Table, roster: list[Any] | tuple[Any, ...]) -> bytes:
    try:
        return table.classify_text(roster)
    except TypeError:
        # Other forms are among them, or no addresses at all.
        return table.classify_text(core_roster(roster))


def _claims_of_roster(table: _core.Table, roster: object) -> tuple[bytes, bytes | None]:
    """Return the claims, and which are present: see `RosterResult`."""
    found = column_claims(table, roster)
    if found is not None:
        return found
    column = objects(roster)
    if column is not None:
        items, present = column
        return _claims_of_items(table, items), present
    return table.classify_text(core_roster(roster)), None


def _cached_perspectives(
    claims: ClaimTable,
    plain: Perspective,
    region_sets: RegionSets,
    subdivision_sources: int,
    withholds_from: int | None,
    covering: int,
) -> Callable[[str | RegionSet, Policy, bool], Perspective]:
    """Return what finds a perspective.

    Args:
        claims: of the dataset.
        plain: the perspective without a region set.
        region_sets: by name.
        subdivision_sources: see `open`.
        withholds_from: see `Dataset.withholds_from`.
        covering: the bits of the kinds of networks that hide where their users are.
    """

    # Of a service's clients each may send expressions of its own, hence the bounds.
    @lru_cache(_CACHED_REGION_SETS)
    def column(
        codes: frozenset[str], policy: Policy, partly: frozenset[str], covering: int
    ) -> bytes:
        return claims.outcomes(codes, policy, partly, subdivision_sources, covering)

    @lru_cache(_CACHED_REGION_SETS)
    def perspective(
        region_set: str | RegionSet, policy: Policy, ignored: bool, withheld: bool = False
    ) -> Perspective:
        if isinstance(region_set, str):
            region_set = region_sets.resolve(region_set)
        return Perspective(
            plain.dataset,
            plain.countries,
            plain.statuses,
            region_set=region_set.name,
            policy=policy,
            outcomes=stale
            if withheld
            else column(region_set.codes, policy, region_set.partly, 0 if ignored else covering),
            regions=plain.regions,
            networks=plain.networks,
            ignores_networks=ignored,
        )

    if withholds_from is None:
        return perspective
    stale = stale_outcomes(claims.statuses)

    def current(region_set: str | RegionSet, policy: Policy, ignored: bool) -> Perspective:
        # At each request, since the day may come while the dataset is open.
        return perspective(region_set, policy, ignored, ages.clock() >= withholds_from)

    return current


def _covering(kinds: Iterable[Network | str]) -> tuple[Network, ...]:
    try:
        return read_kinds(kinds)
    except TypeError as error:
        raise TypeError(f"covering: {error}") from None
    except ValueError as error:
        raise ValueError(f"covering: {error}") from None


def _age_limit(
    compiled: ages.AgeLimit, max_age: int | None, stale: ages.Stale | None
) -> ages.AgeLimit:
    """Return the limit on a dataset's age: the caller's where given, else as compiled."""
    if max_age is not None and not (type(max_age) is int and 0 <= max_age <= ages.MAX_DAYS):
        raise ValueError(f"max_age: expected a whole number of days up to {ages.MAX_DAYS:,}")
    if stale is not None and stale not in ages.STALE:
        raise ValueError(f"stale: expected one of {', '.join(ages.STALE)}")
    return ages.AgeLimit(
        compiled.max_age if max_age is None else max_age,
        compiled.stale if stale is None else stale,
    )


# --- opening -------------------------------------------------------------------------

EMBEDDED: Final = os.path.join(
    os.path.dirname(os.path.dirname(__file__)), "data", "embedded.geolookup"
)
"""The file of the dataset that comes with geolookup."""


def open(  # noqa: A001 - geolookup.open() is what one looks for
    path: str | os.PathLike[str] | None = None,
    *,
    region_sets: str | os.PathLike[str] | None = None,
    public_key: str | os.PathLike[str] | None = None,
    max_age: int | None = None,
    stale: ages.Stale | None = None,
    subdivision_sources: int = SUBDIVISION_SOURCES,
    covering: Iterable[Network | str] | None = None,
    overrides: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Open a dataset file; without a path the one that came with geolookup.

    The file is mapped into memory and stays so until the dataset is closed.
    Replace it by renaming another over it, as `write` does: writing into
    an open file changes the answers of the processes that have it open, or worse.

    Args:
        path: a file that `geolookup compile` made.
        region_sets: a TOML file that defines more region sets.
        public_key: a file with one or more Ed25519 public keys (PEM). The dataset must
            be signed with one of them, in a file of its name and ``.sig``. Needs the
            package `cryptography`.
        max_age: days after which the dataset is stale; 0: never. None: as its manifest
            says. Counted from `Dataset.built`; the limits of single sources stay.
        stale: "undetermined": from then on each verdict is UNDETERMINED, also while the
            dataset stays open. "warn": `Dataset.age` says so, and no more. None: as its
            manifest says.
        subdivision_sources: number of independent origins that must tell whether an address
            is inside, where that depends on subdivisions and the policy is UNANIMOUS. 1 trusts
            a single source; states of free data are wrong for 16 % of the addresses.
        covering: the kinds of networks that hide where their users are, as `Network` or by
            name: these have no verdict. None: as the manifest says.
        overrides: a TOML file of ranges whose codes win over all that the dataset says; see
            docs/overrides.md. Each stops acting at its time, also while the dataset is open:
            `Dataset.id` is another one then. None: no overrides but those of the manifest.

    Raises:
        SourceError: the overrides can't be read, contradict each other, or have no effect.
        TypeError: *covering* has something else than kinds.
        ValueError: *subdivision_sources* is less than 1, or *covering* has an unknown kind.
        DatasetError: damaged, unreadable or of an unknown format, or not signed as
            it should be.
        RegionSetError: the region sets can't be read.
        GeoLookupError: the public key can't be used, or `cryptography` is missing.
    """
    sets = None if region_sets is None else RegionSets.load(region_sets)
    laid_over = None if overrides is None else _load_overrides(overrides)
    name = EMBEDDED if path is None else os.fsdecode(path)
    try:
        mapped = _map(name)
    except OSError as error:
        raise DatasetError(f"{name}: can't be read: {error.strerror}") from error
    except ValueError as error:  # no path, or the file shrinks meanwhile
        raise DatasetError(f"{name!r}: can't be read: {error}") from error
    dataset = Dataset.from_buffer(
        mapped,
        name,
        region_sets=sets,
        max_age=max_age,
        stale=stale,
        subdivision_sources=subdivision_sources,
        covering=covering,
        overrides=laid_over,
    )
    if public_key is not None:
        from geolookup.answer import signature  # noqa: PLC0415

        try:
            signature.check(name, dataset.base, public_key)
        except BaseException:
            dataset.close()
            raise
    return dataset


def _map(path: str) -> mmap.mmap | bytes:
    # A pipe would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path}: not a regular file")
        if status.st_size == 0:
            return b""  # which can't be mapped
        return mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


# --- writing -------------------------------------------------------------------------


def encode(content: DatasetContent, *, optional: Mapping[str, bytes] | None = None) -> bytes:
    """Return a dataset file; the same content gives the same bytes.

    Args:
        content: what it holds.
        optional: sections that a reader may leave unread, by names of up to 16
            ASCII characters; see `Dataset.optional_section`.

    Raises:
        DatasetError: the content is not that of a dataset; `Dataset.from_buffer`
            would refuse the file.
    """
    image = assemble(content, optional or {})
    Dataset.from_buffer(image, "the compiled dataset")
    return image


def write(
    content: DatasetContent,
    path: str | os.PathLike[str],
    *,
    optional: Mapping[str, bytes] | None = None,
) -> str:
    """Write a dataset file and return the dataset's id.

    A crash at any point leaves the old file, the new one, or none, but never a
    part of one; see `geolookup.atomic.replacing`.

    Args:
        content: what it holds.
        path: an existing file is replaced; datasets open from it stay whole.
        optional: as in `encode`.

    Raises:
        DatasetError: as in `encode`; nothing was written.
        OSError: as the operating system has it, such as a full disk.
    """
    image = encode(content, optional=optional)
    with replacing(path) as file:
        file.write(image)
    return header_digest(image).hex()
