"""The rows of a dataset, which every format writes.

Neighbouring intervals with the same value are one row. The code of a row: with
"primary" it is what `Dataset.country` answers for each address of the row; with "omit",
the same where the status is ASSIGNED or OVERRIDE, and ``ZZ`` elsewhere. With regions it is
the subdivision where as many independent sources name it as the dataset was opened to ask for.

With networks a row also has the kinds of its network, as far as they were asked for.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from geolookup.answer.claims import (
    MAX_CLAIMS,
    NO_COUNTRY,
    VOUCHED,
    Claim,
    Network,
    Status,
    network_bits,
    networks_of,
)
from geolookup.answer.dataset import Dataset
from geolookup.answer.intervals import BITS, FAMILIES, Family

Disputed = Literal["omit", "primary"]

Progress = Callable[[int, int], None]
"""Called with (how much is done, how much there is)."""

EMBEDDED_IPV4: Final = "EMBEDDED_IPV4"
"""Stands for a status where each address is answered by the IPv4 address that it carries."""

_AGREED = (Status.ASSIGNED, Status.OVERRIDE)
_PROGRESS_EVERY = 1 << 12  # intervals between two calls of the progress function


@dataclass(frozen=True, slots=True)
class RowValue:
    """What a dataset has for the addresses of a row.

    Attributes:
        code: the country or subdivision, or ``ZZ``.
        status: the name of the `Status`, or `EMBEDDED_IPV4`.
        claimed: all codes that sources claim where they do not all name the same
            one (DISPUTED, UNCONFIRMED), sorted; else empty.
        form: where the IPv4 address lies, one of the `EMBEDDED_*` numbers of
            `geolookup.answer.embedded_ipv4`; 0 for all other rows.
        networks: what the network is used for, of the kinds that were asked for.
        vouched: whether a relay's operator says in which country its users are.
    """

    code: str
    status: str
    claimed: tuple[str, ...] = ()
    form: int = 0
    networks: tuple[Network, ...] = ()
    vouched: bool = False


class Row(NamedTuple):
    """A range of addresses, as numbers, that have one value."""

    first: int
    last: int
    value: RowValue


class Span(NamedTuple):
    """A range of addresses, as numbers, in one country or subdivision."""

    first: int
    last: int
    code: str


class Rows:
    """A dataset as rows, and what else the formats need of it.

    Args:
        dataset: the dataset.
        disputed: see the module.
        codes: only rows with these codes or in these countries; None: all rows, without gaps.
        regions: whether subdivisions stand in place of countries where they are known.
        networks: the kinds that are told; empty: rows do not depend on them.
        only_networks: whether rows without any of these kinds are left out.
        progress: called with the number of intervals of both families that were read.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        disputed: Disputed = "omit",
        codes: Collection[str] | None = None,
        regions: bool = False,
        networks: Collection[Network] = (),
        only_networks: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.dataset = dataset
        self.regions = regions
        self.networks = tuple(kind for kind in Network if kind in networks)
        self.only_networks = only_networks
        told = network_bits(self.networks)
        needed = dataset.subdivision_sources if regions else None
        self.codes = None if codes is None else frozenset(codes)
        self._progress = progress
        one: dict[RowValue, RowValue] = {}
        self._values = [
            one.setdefault(value, value)
            for value in (_row_value(c, disputed, needed, told) for c in dataset.claims)
        ]
        described = dataset.info()
        self._before = {4: 0, 6: described["ipv4_intervals"]}
        self._total = described["ipv4_intervals"] + described["ipv6_intervals"]

    def of(self, family: Family) -> Iterator[Row]:
        """Yield the rows of one family, ascending."""
        codes = self.codes
        for row in self._merged(family):
            if self.only_networks and not row.value.networks:
                continue
            if codes is None or not codes.isdisjoint((row.value.code, row.value.code[:2])):
                yield row

    def whole(self, family: Family) -> Iterator[Row]:
        """Yield all rows of one family, ascending and without gaps."""
        return self._merged(family)

    def network_spans(self, family: Family) -> Iterator[tuple[Network, int, int]]:
        """Yield kind, first and last of each kind's ranges; those of one ascend and are apart."""
        open_: dict[Network, tuple[int, int]] = {}
        for row in self._merged(family):
            for kind in [kind for kind in open_ if kind not in row.value.networks]:
                yield kind, *open_.pop(kind)
            for kind in row.value.networks:
                open_[kind] = open_.get(kind, (row.first,))[0], row.last
        for kind, (first, last) in open_.items():
            yield kind, first, last

    def spans(self, family: Family) -> Iterator[Span]:
        """Yield the ranges that have a code, ascending; neighbours of one code are one."""
        first = last = -1
        code = NO_COUNTRY
        for row in self.of(family):
            if row.value.code == code and row.first == last + 1:
                last = row.last
                continue
            if code != NO_COUNTRY:
                yield Span(first, last, code)
            first, last, code = row.first, row.last, row.value.code
        if code != NO_COUNTRY:
            yield Span(first, last, code)

    def prefix_values(self) -> Iterator[tuple[str, str]]:
        """Yield prefixes as text with their code, IPv4 before IPv6; those without one are left out.

        With networks alone, their kinds in place of the code, with commas between them.
        """
        for family in FAMILIES:
            for first, last, value in self._valued(family):
                for address, length in prefixes(family, first, last):
                    yield f"{text(family, address)}/{length}", value

    def _valued(self, family: Family) -> Iterator[tuple[int, int, str]]:
        if not self.only_networks:
            yield from self.spans(family)
            return
        first = last = -1
        kinds: tuple[Network, ...] = ()
        for row in self.of(family):
            if row.value.networks != kinds or row.first != last + 1:
                if kinds:
                    yield first, last, ",".join(kinds)
                first, kinds = row.first, row.value.networks
            last = row.last
        if kinds:
            yield first, last, ",".join(kinds)

    def heading(self) -> list[str]:
        """Return the lines with which a file names its origin."""
        return [
            f"geolookup dataset {self.dataset.id}",
            f"built {self.dataset.built:%Y-%m-%d}",
            *self.dataset.attributions,
        ]

    def comments(self) -> Iterator[str]:
        """Yield the heading as comments that begin with a number sign."""
        return (f"# {line}" for line in self.heading())

    def _merged(self, family: Family) -> Iterator[Row]:
        known, forms = self._values, dict[int, RowValue]()
        done = self._before[family]
        start, value = 0, None
        last = -1
        for first, end, number in self.dataset.intervals(family):
            if number < MAX_CLAIMS:
                current = known[number]
            else:
                current = forms.setdefault(number, RowValue(NO_COUNTRY, EMBEDDED_IPV4, form=number))
            if current is not value:
                if value is not None:
                    yield Row(start, last, value)
                start, value = first, current
            last = end
            done += 1
            if done % _PROGRESS_EVERY == 0 and self._progress is not None:
                self._progress(done, self._total)
        if value is not None:
            yield Row(start, last, value)
        if self._progress is not None:
            self._progress(done, self._total)


def _row_value(
    claim: Claim, disputed: Disputed, subdivision_sources: int | None, told: int
) -> RowValue:
    agreed = claim.status in _AGREED
    region = "" if subdivision_sources is None else claim.confirmed_region(subdivision_sources)
    code = region or claim.country
    return RowValue(
        code=code if agreed or disputed == "primary" else NO_COUNTRY,
        status=claim.status.name,
        claimed=() if agreed else claim.claimed,
        networks=networks_of(claim.networks & told),
        vouched=bool(claim.networks & VOUCHED and told & Network.RELAY.bit),
    )


def text(family: Family, address: int) -> str:
    """Return an address as text."""
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, address.to_bytes(4))
    return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16))


def prefixes(family: Family, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest prefixes that make up a range: first address and length."""
    bits = BITS[family]
    while first <= last:
        size = (last - first + 1).bit_length() - 1
        if first:
            size = min(size, (first & -first).bit_length() - 1)
        yield first, bits - size
        first += 1 << size
