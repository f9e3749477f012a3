"""Whether a dataset file can be trusted: sound as a file, and with plausible answers."""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

from geolookup import tomlfile
from geolookup._core import parse
from geolookup.answer.age import Age, KeptSource
from geolookup.answer.claims import MAX_CLAIMS, NO_COUNTRY, Network, Status
from geolookup.answer.country_codes import COUNTRIES, nearest_code
from geolookup.answer.dataset import Dataset
from geolookup.answer.embedded_ipv4 import EMBEDDED_NAT64_64
from geolookup.answer.file_format import ExpiringOverride
from geolookup.answer.intervals import BITS, ROUTABLE, Family
from geolookup.answer.results import Answer
from geolookup.errors import DatasetError, SourceError

MIN_COVERAGE: Final = Fraction(1, 2)
"""Share of the IPv4 space that must have a country, by default. Of a dataset
made from any source of the whole world it is more than 80 %."""

Progress = Callable[[int, int], None]
"""Called with (intervals done, intervals in all)."""

_PROGRESS_EVERY = 1 << 14
_STATUSES = {status.name: status for status in Status if status is not Status.INVALID}


@dataclass(frozen=True, slots=True)
class Canary:
    """An address whose answer is known.

    Attributes:
        location: file and line, such as ``canaries.csv:3``, which error texts name.
        line: the line alone, from 1; its position where a TOML file's lines are not known.
        address: the address, packed.
        expected: a country's code; ``ZZ``: none; the name of a status; or empty: any answer.
        networks: kinds that its network has, perhaps among others; empty: it has none; None:
            it may have any.
    """

    location: str
    line: int
    address: bytes = field(repr=False)
    expected: str
    networks: tuple[Network, ...] | None = None

    def accepts(self, answer: Answer) -> bool:
        """Say whether an answer is as expected. A code is accepted whether disputed or not."""
        if self.networks is not None and (
            not set(self.networks).issubset(answer.networks)
            if self.networks
            else answer.networks != ()
        ):
            return False
        if self.expected in _STATUSES:
            return answer.status.name == self.expected
        return self.expected in ("", answer.country)

    def __str__(self) -> str:
        """Return what is expected."""
        kinds = [] if self.networks is None else [_shown(self.networks)]
        return ", ".join([*filter(None, [self.expected]), *kinds])


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A canary whose answer differs from the expected one.

    Attributes:
        canary: the canary.
        country: the country in the answer.
        status: the status in the answer.
        networks: the kinds of its network.
    """

    canary: Canary
    country: str
    status: Status
    networks: tuple[Network, ...] = ()

    def __str__(self) -> str:
        found = f"{self.country} ({self.status.name})"
        if self.canary.networks is not None:
            found += f", {_shown(self.networks)}"
        return f"{self.canary.location}: expected {self.canary}, found {found}"


def _shown(networks: Sequence[Network]) -> str:
    return " ".join(kind.name for kind in networks) or "no kind of network"


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of one family's space has a country.

    Attributes:
        family: 4 or 6.
        space: addresses that could have one: neither special-purpose nor carriers of an
            IPv4 address; of IPv6, those in 2000::/3.
        answered: of these, addresses that have one.
        codes: number of different codes.
        intervals: number of intervals.
        statuses: addresses of the space by status.
    """

    family: Family
    space: int
    answered: int
    codes: int
    intervals: int
    statuses: dict[Status, int]

    @property
    def share(self) -> Fraction:
        """The share of the space that has a country; 0 where there is no space."""
        return Fraction(self.answered, self.space) if self.space else Fraction(0)


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a dataset that is sound as a file.

    Attributes:
        dataset: its id.
        sections: names of all sections, whose checksums are right, with their sizes.
        coverage: of IPv4 and of IPv6.
        min_coverage: the share of IPv4 that was required.
        canaries: how many were looked up.
        mismatched: those whose answer differs from the expected one.
        expired_overrides: those that still decide after their last day. They are no
            failure: the file is as it was compiled.
        age: how old it is; None: not known. To be too old is no failure of the file either.
        kept_too_long: its sources whose licences forbid to keep data that old.
    """

    dataset: str
    sections: dict[str, int]
    coverage: tuple[Coverage, Coverage]
    min_coverage: Fraction
    canaries: int
    mismatched: tuple[Mismatch, ...]
    expired_overrides: tuple[ExpiringOverride, ...] = ()
    age: Age | None = None
    kept_too_long: tuple[KeptSource, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """What speaks against the dataset, a sentence each; none has an address in it."""
        found = []
        share = self.coverage[0].share
        if share < self.min_coverage:
            found.append(
                # Rounded down, so that it is not the same number as what was expected.
                f"{math.floor(share * 10_000) / 100:.2f}% of the IPv4 space has a country,"
                f" expected are at least {float(self.min_coverage):.2%}"
            )
        found += map(str, self.mismatched)
        return tuple(found)


def verify(
    dataset: Dataset,
    *,
    canaries: Sequence[Canary] = (),
    min_coverage: Fraction | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a dataset: all of its file, and whether its answers are plausible.

    What opening a dataset checks is not checked again: structure, the checksums of what
    answers need, the first address and the order of the intervals. Checked here are the
    sections that opening leaves unread, such as the evidence, and all intervals.

    Args:
        dataset: the dataset, opened.
        canaries: addresses whose answers are known.
        min_coverage: the least share of the IPv4 space that must have a country;
            None: `MIN_COVERAGE`.
        progress: called with the number of intervals of both families that were checked.

    Raises:
        DatasetError: the file is not sound.
        DatasetClosedError: the dataset was closed.
    """
    sections = dataset.check_sections()
    described = dataset.info()
    counts = [described["ipv4_intervals"], described["ipv6_intervals"]]

    def on_progress(done: int) -> None:
        if progress is not None:
            progress(done, sum(counts))

    coverage = (
        _coverage(dataset, 4, on_progress),
        _coverage(dataset, 6, lambda done: on_progress(counts[0] + done)),
    )
    mismatched = []
    for canary in canaries:
        answer = dataset.lookup(canary.address)
        if not canary.accepts(answer):
            mismatched.append(Mismatch(canary, answer.country, answer.status, answer.networks))
    return Verification(
        dataset=dataset.id,
        sections=sections,
        coverage=coverage,
        min_coverage=MIN_COVERAGE if min_coverage is None else min_coverage,
        canaries=len(canaries),
        mismatched=tuple(mismatched),
        expired_overrides=dataset.expired_overrides(),
        age=dataset.age,
        kept_too_long=dataset.kept_too_long(),
    )


def _coverage(dataset: Dataset, family: Family, on_progress: Callable[[int], None]) -> Coverage:
    """Measure all intervals of a family, and check that there are no gaps."""
    claims = tuple(dataset.claims)
    start, end = ROUTABLE[family]
    sizes = defaultdict[int, int](int)
    expected = count = 0
    for count, (first, last, number) in enumerate(dataset.intervals(family), start=1):
        if first != expected or last < first:
            raise DatasetError(f"IPv{family}: interval {count} does not begin where it should")
        expected = last + 1
        if not number:
            raise DatasetError(f"IPv{family}: interval {count} is INVALID, which no address is")
        if number >= len(claims) and not (family == 6 and number >= EMBEDDED_NAT64_64):
            raise DatasetError(f"IPv{family}: interval {count} has a claim that there is not")
        if first <= end and last >= start and number < MAX_CLAIMS:
            sizes[number] += min(last, end) - max(first, start) + 1
        if not count % _PROGRESS_EVERY:
            on_progress(count)
    if expected != 1 << BITS[family]:
        raise DatasetError(f"IPv{family}: the last interval does not end where the space does")
    on_progress(count)
    statuses = Counter[Status]()
    codes = Counter[str]()
    for number, size in sizes.items():
        statuses[claims[number].status] += size
        if claims[number].status is not Status.SPECIAL_PURPOSE:
            codes[claims[number].country] += size
    del statuses[Status.SPECIAL_PURPOSE]
    return Coverage(
        family=family,
        space=codes.total(),
        answered=codes.total() - codes[NO_COUNTRY],
        codes=len(set(codes) - {NO_COUNTRY}),
        intervals=count,
        statuses=dict(sorted(statuses.items())),
    )


# --- canaries -------------------------------------------------------------------------


def read_canaries(path: str | os.PathLike[str]) -> tuple[Canary, ...]:
    """Read a file of canaries: TOML if its name ends with ``.toml``, and CSV otherwise.

    A line of CSV is ``address,code`` or ``address,code,networks``; empty lines and those that
    begin with ``#`` say nothing, and the first may be a header. In TOML each is a table
    ``[[canary]]`` with ``address``, ``code`` and ``networks``, and a ``comment`` if you like.
    Networks are kinds, in CSV with spaces between them, or ``none``; with them the code may be
    missing.

    Raises:
        SourceError: it can't be read, holds no canary, or one that makes no sense. The
            text names file and line and repeats no address.
    """
    name = os.fsdecode(path)
    raw = tomlfile.read_raw(Path(name), SourceError)
    rows = _toml_rows(name, raw) if name.endswith(".toml") else _csv_rows(name, raw)
    canaries = tuple(_canary(*row) for row in rows)
    if not canaries:
        raise SourceError(f"{name}: holds no canary")
    return canaries


def _canary(
    location: str, line: int, address: str, expected: str, networks: Sequence[str] | None
) -> Canary:
    packed = None if "%" in address else parse(address)
    if packed is None:
        raise SourceError(f"{location}: address: not an address")
    kinds = None if networks is None else _kinds(location, networks)
    if not expected and kinds is not None:
        return Canary(location, line, packed, "", kinds)
    if expected not in COUNTRIES and expected != NO_COUNTRY and expected not in _STATUSES:
        nearest = nearest_code(expected)
        hint = f"; did you mean {nearest}?" if nearest else ""
        raise SourceError(
            f"{location}: code: expected a country's code in capitals, {NO_COUNTRY}, or one of"
            f" {', '.join(_STATUSES)}{hint}"
        )
    return Canary(location, line, packed, expected, kinds)


def _kinds(location: str, names: Sequence[str]) -> tuple[Network, ...]:
    if list(names) == ["none"]:
        return ()
    if not names or not set(names) <= set(Network.__members__):
        raise SourceError(
            f"{location}: networks: expected none, or of {', '.join(Network.__members__)}"
        )
    return tuple(kind for kind in Network if kind.name in names)


_Row = tuple[str, int, str, str, Sequence[str] | None]


def _csv_rows(name: str, raw: bytes) -> Iterator[_Row]:
    text = tomlfile.decode(raw, name, SourceError)
    header = True
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [text.strip() for text in next(csv.reader([line]))]
        names = [text.lower() for text in fields]
        if header and names in (["address", "code"], ["address", "code", "networks"]):
            header = False
            continue
        header = False
        location = f"{name}:{number}"
        if len(fields) not in (2, 3):
            raise SourceError(f"{location}: expected address,code")
        # Of some canaries in a file the networks may be empty.
        networks = fields[2].split() if len(fields) == 3 and fields[2] else None
        yield location, number, fields[0], fields[1], networks


def _toml_rows(name: str, raw: bytes) -> Iterator[_Row]:
    table = tomlfile.parse(raw, name, ("canary",), SourceError)
    canaries = list(table.tables("canary", ("address", "code", "networks", "comment")))
    # The library keeps no lines. Only a text of several lines could have such a line.
    header = re.compile(rb"\s*\[\[\s*canary\s*\]\]")
    lines = [n for n, line in enumerate(raw.splitlines(), start=1) if header.match(line)]
    known = len(lines) == len(canaries)
    for position, canary in enumerate(canaries, start=1):
        line = lines[position - 1] if known else position
        location = f"{name}:{line}" if known else f"{name}: canary {position}"
        networks = canary.texts("networks") or ("none",) if canary.has("networks") else None
        code = canary.value("code", str) if networks is None else canary.value("code", str, "")
        yield location, line, canary.value("address", str), code, networks
