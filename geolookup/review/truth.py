"""Known places, from files: where operators say that their own networks are."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from geolookup.answer.intervals import FAMILIES, Family
from geolookup.answer.overrides import read_prefix
from geolookup.build import readers
from geolookup.build.readers import SILENCE, SourceRanges, code_text, decompression, detection
from geolookup.build.readers.ranges import read_code_number
from geolookup.errors import SourceError
from geolookup.review.evaluation import Group, Place

_GROUP: Final = ("group", "operator", "provider", "network_operator", "name", "owner")
_NO_LIMIT: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known.

    Attributes:
        groups: by operator, sorted by name.
        findings: lines that can't be read and were left out.
    """

    groups: tuple[Group, ...]
    findings: tuple[str, ...]

    @property
    def prefixes(self) -> int:
        """How many prefixes are known."""
        return sum(
            len({place.prefix for place in group.places[family]})
            for group in self.groups
            for family in FAMILIES
        )


def read_truth(paths: Sequence[Path]) -> Truth:
    """Read files of known places.

    A file is a geofeed (RFC 8805), whose operator is its name without the ending, or CSV with
    a header that names a column for the prefix (``prefix``, ``network``, ``cidr``), one for
    the code (``country_code``, ``country``, ``cc``) and one for the operator (``operator``,
    ``group``, ``name``). Files may be compressed.

    Of an operator's prefixes the more specific one wins. Those without a code, and those for
    which it names two, are not known.

    Raises:
        SourceError: a file can't be read, or no place is known.
    """
    rows: dict[str, SourceRanges] = {}
    findings: list[str] = []
    feeds: list[Path] = []
    tables = 0
    for path in paths:
        for part in decompression.parts(path):
            columns = _columns(detection.beginning(next(part.blocks(), b"")).header())
            if columns is not None:
                _read_table(part, tables, columns, rows, findings)
                tables += 1
            elif part.path not in feeds:
                feeds.append(part.path)
    if feeds:
        _read_geofeeds(feeds, tables, rows, findings)
    groups = []
    for name in sorted(rows):
        places: dict[Family, list[Place]] = {
            4: _places(rows[name], 4, findings),
            6: _places(rows[name], 6, findings),
        }
        if places[4] or places[6]:
            groups.append(Group(name, places))
    if not groups:
        raise SourceError("no place is known: the files hold no prefix with a country's code")
    return Truth(tuple(groups), tuple(findings))


def _columns(header: list[str]) -> tuple[int, int, int] | None:
    network = detection.column(header, detection.NETWORK)
    code = detection.column(header, detection.CODE)
    group = detection.column(header, _GROUP)
    return None if network is None or code is None or group is None else (network, code, group)


def _read_geofeeds(
    paths: Sequence[Path], before: int, rows: dict[str, SourceRanges], findings: list[str]
) -> None:
    faults = readers.Faults(_NO_LIMIT)
    found = readers.read(paths, format_name="geofeed", faults=faults)
    findings += [*faults.found, *faults.notes]
    names = [Path(name).name.partition(".")[0] for name in found.files]
    for feed in found.ipv4, found.ipv6:
        for index, (first, last, code) in enumerate(feed):
            file, line = feed.place(index)
            into = rows.setdefault(names[file], SourceRanges())
            family = into.ipv4 if feed is found.ipv4 else into.ipv6
            family.append(first, last, code, file=before + file, line=line)


def _read_table(
    part: decompression.Part,
    file: int,
    columns: tuple[int, int, int],
    rows: dict[str, SourceRanges],
    findings: list[str],
) -> None:
    network, code, group = columns
    lines = csv.reader(_lines(part), skipinitialspace=True)
    try:
        for row in lines:
            place = f"{part.name}:{lines.line_num}"
            if lines.line_num == 1 or not row:
                continue
            try:
                name = row[group].strip()
                if not name:
                    raise ValueError("names no operator")
                first, last = read_prefix(row[network].strip())
                number = read_code_number(row[code].strip())
            except IndexError:
                findings.append(f"{place}: too few fields; left out")
            except (ValueError, SourceError) as error:
                findings.append(f"{place}: {error}; left out")
            else:
                into = rows.setdefault(name, SourceRanges())
                family = into.ipv4 if len(first) == 4 else into.ipv6
                family.append(
                    int.from_bytes(first),
                    int.from_bytes(last),
                    number,
                    file=file,
                    line=lines.line_num,
                )
    except csv.Error as error:
        raise SourceError(f"{part.name}:{lines.line_num}: {error}") from error


def _lines(part: decompression.Part) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for block in decompression.text(part.blocks(), part.name):
        *lines, rest = (rest + decoder.decode(block)).split("\n")
        for line in lines:
            yield line.replace("\0", "\N{REPLACEMENT CHARACTER}") + "\n"
    if rest:
        yield rest


def _places(rows: SourceRanges, family: Family, findings: list[str]) -> list[Place]:
    ranges = rows.ipv4 if family == 4 else rows.ipv6
    flat, clashes = ranges.flattened()
    findings += [
        f"line {ranges.place(index)[1]}: names another country than line {ranges.place(other)[1]}"
        " for the same prefix; left out"
        for other, index in clashes
    ]
    numbers: dict[tuple[int, int], int] = {}
    return [
        Place(first, last, code_text(code), numbers.setdefault(flat.place(index), len(numbers)))
        for index, (first, last, code) in enumerate(flat)
        if code != SILENCE
    ]
