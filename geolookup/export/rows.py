"""What every format says of the address line.

Neighbouring intervals of which the same is said are one row. The law of the code: with
"primary" it is what `Dataset.country` answers for each address of the row; with "omit",
the same where the status is ASSIGNED or OVERRIDE, and ``ZZ`` elsewhere.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from geolookup.answer.claims import MAX_CLAIMS, NO_COUNTRY, Claim, Status
from geolookup.answer.dataset import Dataset
from geolookup.answer.intervals import BITS, Family

Disputed = Literal["omit", "primary"]

Progress = Callable[[int, int], None]
"""Called with (how much is done, how much there is)."""

EMBEDDED_IPV4: Final = "EMBEDDED_IPV4"
"""Stands for a status where each address is answered by the IPv4 address that it carries."""

_AGREED = (Status.ASSIGNED, Status.OVERRIDE)
_PACE = 1 << 12  # intervals between two calls of the progress function


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of a row.

    Attributes:
        code: the country, or ``ZZ``.
        status: the name of the `Status`, or `EMBEDDED_IPV4`.
        claimed: all codes that sources claim where they do not all name the same
            one (DISPUTED, UNCONFIRMED), sorted; else empty.
        form: where the IPv4 address lies, one of the `EMBEDDED_*` numbers of
            `geolookup.answer.claims`; 0 for all other rows.
    """

    code: str
    status: str
    claimed: tuple[str, ...] = ()
    form: int = 0


class Row(NamedTuple):
    """A range of addresses, as numbers, of which the same is said."""

    first: int
    last: int
    said: Said


class Span(NamedTuple):
    """A range of addresses, as numbers, in one country."""

    first: int
    last: int
    code: str


class Rows:
    """A dataset as rows, and what else the formats need to know of it.

    Args:
        dataset: the dataset.
        disputed: see the module.
        codes: only rows with these codes; None: all rows, without gaps.
        progress: told how many intervals of both families have been read.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        disputed: Disputed = "omit",
        codes: Collection[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.dataset = dataset
        self.codes = None if codes is None else frozenset(codes)
        self._progress = progress
        one: dict[Said, Said] = {}
        self._said = [
            one.setdefault(said, said) for said in (_said(c, disputed) for c in dataset.claims)
        ]
        described = dataset.info()
        self._before = {4: 0, 6: described["ipv4_intervals"]}
        self._total = described["ipv4_intervals"] + described["ipv6_intervals"]

    def of(self, family: Family) -> Iterator[Row]:
        """Yield the rows of one family, ascending."""
        codes = self.codes
        for row in self._merged(family):
            if codes is None or row.said.code in codes:
                yield row

    def spans(self, family: Family) -> Iterator[Span]:
        """Yield the ranges that have a country, ascending; neighbours of one country are one."""
        first = last = -1
        code = NO_COUNTRY
        for row in self.of(family):
            if row.said.code == code and row.first == last + 1:
                last = row.last
                continue
            if code != NO_COUNTRY:
                yield Span(first, last, code)
            first, last, code = row.first, row.last, row.said.code
        if code != NO_COUNTRY:
            yield Span(first, last, code)

    def heading(self) -> list[str]:
        """Return what a file should say of its origin, a line each."""
        return [
            f"geolookup dataset {self.dataset.id}",
            f"built {self.dataset.built:%Y-%m-%d}",
            *self.dataset.attributions,
        ]

    def _merged(self, family: Family) -> Iterator[Row]:
        known, forms = self._said, dict[int, Said]()
        done = self._before[family]
        start, said = 0, None
        last = -1
        for first, end, number in self.dataset.intervals(family):
            if number < MAX_CLAIMS:
                current = known[number]
            else:
                current = forms.setdefault(number, Said(NO_COUNTRY, EMBEDDED_IPV4, form=number))
            if current is not said:
                if said is not None:
                    yield Row(start, last, said)
                start, said = first, current
            last = end
            done += 1
            if done % _PACE == 0 and self._progress is not None:
                self._progress(done, self._total)
        if said is not None:
            yield Row(start, last, said)
        if self._progress is not None:
            self._progress(done, self._total)


def _said(claim: Claim, disputed: Disputed) -> Said:
    agreed = claim.status in _AGREED
    return Said(
        code=claim.country if agreed or disputed == "primary" else NO_COUNTRY,
        status=claim.status.name,
        claimed=() if agreed else claim.claimed,
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
