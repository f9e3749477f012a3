"""``geolookup classify``: one answer for a whole roster."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import Policy, Status
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.dataset import Dataset
from geolookup.cli.options import (
    dataset_options,
    json_option,
    open_answerer,
    policy_of,
    region_set_options,
    server_options,
)
from geolookup.cli.output import Progress, share, table
from geolookup.cli.rosters import AddressFile
from geolookup.errors import RosterError, RosterTooLargeError

if TYPE_CHECKING:
    from pyroaring import BitMap

    from geolookup.answer.results import RosterResult

_TIMEOUT = 60.0
_PIECE = 100_000
"""Addresses at a time in this process: some megabytes, and a progress bar that moves."""
_REQUEST = 1_000_000
"""Addresses in a request: a service's default limit."""
_MAX_ADDRESSES = 1 << 32
"""Positions are 32 bits wide."""
_SHOWN_POSITIONS = 20


@click.command(name="classify", short_help="Answer for a whole roster.")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE|-"
)
@click.option(
    "--column", metavar="NAME", help="FILE is CSV with a header, and this column has the addresses."
)
@region_set_options
@json_option
@dataset_options
@server_options
def classify_roster(
    file: str,
    column: str | None,
    region_set: str | None,
    policy: str | None,
    as_json: bool,
    **answerer: Any,
) -> None:
    """Count the countries of all addresses in FILE, and say which are in a region set.

    FILE has one address a line, where blank lines and lines that begin with # are
    skipped, or is CSV with a header, delimited by comma, semicolon or tab. Without
    --column it is taken for CSV if its first line has a delimiter, and the column
    is found by its name (ip, address, client_ip, ...). "-" is standard input. The
    file may have any size. A text that is no address is counted as INVALID, and so
    is an empty cell.

    Positions count addresses from 0: those of a plain list in their order,
    blank lines and comments left out; those of a CSV file by row after the header.

    \b
    Examples:
      geolookup classify roster.txt --region-set CN
      geolookup classify roster.csv --column client_ip --region-set EEA-NO --json
      geolookup classify - --server 127.0.0.1:50051 < roster.txt

    With --json: size, counts (by country), statuses, dataset; with --region-set also
    inside and undetermined (positions) and outside (a number). Against a service, rosters
    over 1,000,000 addresses are sent in pieces.
    """
    chosen = policy_of(policy, region_set)
    with (
        open_answerer(**answerer, default_timeout=_TIMEOUT) as source,
        AddressFile(file, column) as addresses,
        Progress("classifying", addresses.size) as progress,
    ):
        classify = partial(source.classify, region_set=region_set, policy=chosen)
        results: Iterator[RosterResult]
        if isinstance(source, Dataset):
            results = map(classify, addresses.pieces(_PIECE))
        else:
            many = partial(source.classify_many, region_set=region_set, policy=chosen)
            results = _requests(classify, many, addresses.pieces(_REQUEST))
        totals = _Totals()
        for result in results:
            totals.add(result)
            progress.update(addresses.consumed)
        if not totals.size:  # still to be traced, and the region set checked
            totals.add(classify([]))
    if as_json:
        for text in _json(totals, region_set):
            click.echo(text, nl=False)
    else:
        _show(totals, region_set, chosen)


@dataclass
class _Totals:
    """The merged results of a roster that was classified in pieces."""

    size: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[Status] = field(default_factory=Counter)
    inside: BitMap | None = None
    outside: int = 0
    undetermined: BitMap | None = None
    dataset: str = ""

    def add(self, result: RosterResult) -> None:
        if self.size + result.size > _MAX_ADDRESSES:
            raise RosterError(f"the roster has over {_MAX_ADDRESSES:,} addresses")
        self.dataset = result.dataset
        self.counts.update(result.counts())
        self.statuses.update(result.status_counts())
        if result.region_set is not None:
            inside, undetermined = (
                positions.shift(self.size) for positions in (result.inside, result.undetermined)
            )
            self.inside = inside if self.inside is None else self.inside | inside
            self.undetermined = (
                undetermined if self.undetermined is None else self.undetermined | undetermined
            )
            self.outside += len(result.outside)
        self.size += result.size


def _requests(
    classify: Callable[[list[str]], RosterResult],
    classify_many: Callable[[Iterable[list[str]]], Iterator[RosterResult]],
    pieces: Iterator[list[str]],
) -> Iterator[RosterResult]:
    """Ask a service for each piece, so that all are answered from one dataset."""
    first = next(pieces, [])
    second = next(pieces, None)
    size = len(first)
    while True:
        try:
            result = classify(first[:size])
            break
        except RosterTooLargeError:  # this service allows less
            if size < 2:
                raise
            size //= 2
    if second is None and size == len(first):
        yield result
        return
    # A stream is answered from one dataset, but ends at a roster that is too large:
    # hence the size was tried first, at the price of one answer.
    rest = pieces if second is None else chain([second], pieces)
    smaller = (
        piece[start : start + size]
        for piece in chain([first], rest)
        for start in range(0, len(piece), size)
    )
    yield from classify_many(smaller)


def _json(totals: _Totals, region_set: str | None) -> Iterator[str]:
    """Return the object in pieces: the positions may be many millions."""
    record: dict[str, object] = {
        "size": totals.size,
        "counts": dict(sorted(totals.counts.items())),
        "statuses": {status.name: n for status, n in sorted(totals.statuses.items())},
    }
    yield json.dumps(record)[:-1]
    if region_set is not None:
        assert totals.inside is not None  # noqa: S101  # as a region set was asked for
        assert totals.undetermined is not None  # noqa: S101
        yield ', "inside": ['
        yield from _numbers(totals.inside)
        yield f'], "outside": {totals.outside}, "undetermined": ['
        yield from _numbers(totals.undetermined)
        yield "]"
    yield f', "dataset": {json.dumps(totals.dataset)}}}\n'


def _numbers(positions: BitMap) -> Iterator[str]:
    numbers = iter(positions)
    separator = ""
    while some := ", ".join(map(str, islice(numbers, 10_000))):
        yield separator + some
        separator = ", "


def _show(totals: _Totals, region_set: str | None, policy: Policy) -> None:
    size = totals.size
    blocks = []
    if totals.inside is not None and totals.undetermined is not None:
        verdicts = [
            ("INSIDE", len(totals.inside)),
            ("OUTSIDE", totals.outside),
            ("UNDETERMINED", len(totals.undetermined)),
        ]
        rows = [[region_set or "", "ADDRESSES", "SHARE"]]
        rows += [[name, f"{number:,}", share(number, size)] for name, number in verdicts]
        blocks.append(table(rows, right=(1, 2)) + f"\n(policy {policy.name})")
        blocks.append(f"inside: {_some(totals.inside)}\nundetermined: {_some(totals.undetermined)}")
    rows = [["COUNTRY", "", "ADDRESSES", "SHARE"]]
    for code, number in sorted(totals.counts.items(), key=lambda item: (-item[1], item[0])):
        rows.append([code, COUNTRIES.get(code, "no country"), f"{number:,}", share(number, size)])
    rows.append(["total", "", f"{size:,}", ""])
    blocks.append(table(rows, right=(2, 3)))
    rows = [["STATUS", "ADDRESSES", "SHARE"]]
    for status, number in sorted(totals.statuses.items()):
        rows.append([status.name, f"{number:,}", share(number, size)])
    if len(rows) > 1:
        blocks.append(table(rows, right=(1, 2)))
    blocks.append(f"dataset {totals.dataset}")
    click.echo("\n\n".join(blocks))


def _some(positions: BitMap) -> str:
    if not positions:
        return "none"
    shown = ", ".join(map(str, islice(positions, _SHOWN_POSITIONS)))
    more = len(positions) - _SHOWN_POSITIONS
    return f"positions {shown}" + (f", and {more:,} more (--json lists all)" if more > 0 else "")
