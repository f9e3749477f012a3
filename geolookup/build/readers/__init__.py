"""Readers of source data, one module a format.

A format is a name, a predicate that recognises it by a file's first bytes, and a
function that adds a file's ranges to a source. Compression is handled before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from geolookup.build.readers import (
    dbip,
    decompression,
    geofeed,
    geoip_legacy,
    geolite2,
    ip2location,
    ip2location_bin,
    ipfire,
    ipinfo,
    iptoasn,
    kinds,
    libloc,
    mmdb,
    prefix_csv,
    prefix_list,
    range_csv,
    rir,
    tor,
)
from geolookup.build.readers.ranges import (
    FIRST_SUBDIVISION,
    SILENCE,
    SourceRanges,
    code_number,
    code_text,
)
from geolookup.build.readers.source_file import CountryFrom, Faults, Options, ReadState, SourceFile
from geolookup.errors import SourceError

__all__ = [
    "FIRST_SUBDIVISION",
    "FORMATS",
    "FORMATS_WITH_KINDS",
    "SILENCE",
    "CountryFrom",
    "Faults",
    "Format",
    "Options",
    "SourceRanges",
    "code_number",
    "code_text",
    "kinds",
    "read",
    "read_kinds",
]


class Recognises(Protocol):
    """Whether a file with this beginning, and with this name if one is given, has a format."""

    def __call__(self, head: bytes, name: str = "", /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Format:
    """A format of source data.

    Attributes:
        name: its name in manifests.
        recognises: whether a file with this beginning, decompressed, has this format.
        read: adds a file's ranges to a source.
        options: names of the `Options` that it supports.
        is_tolerant: whether lines that can't be read are left out and listed, however many, as
            the format's standard asks for.
        is_table: whether a file with this beginning is a table that other files refer to.
        may_be_empty: whether a file with this beginning and name says nothing about ranges
            by right.
    """

    name: str
    recognises: Recognises
    read: Callable[[SourceFile, ReadState], None]
    options: frozenset[str] = frozenset()
    is_table: Callable[[bytes], bool] = lambda _: False
    may_be_empty: Callable[[bytes, str], bool] = lambda _, __: False
    is_tolerant: bool = False


_DEPTH = frozenset({"depth"})

FORMATS = {
    one.name: one
    for one in (
        Format(
            geolite2.NAME,
            geolite2.recognises,
            geolite2.read,
            frozenset({"country_from", "depth"}),
            geolite2.is_table,
            lambda head, _: geolite2.is_table(head),
        ),
        Format(ipinfo.NAME, ipinfo.recognises, ipinfo.read),
        Format(rir.NAME, rir.recognises, rir.read),
        Format(iptoasn.NAME, iptoasn.recognises, iptoasn.read),
        Format(ip2location.NAME, ip2location.recognises, ip2location.read, _DEPTH),
        Format(tor.NAME, tor.recognises, tor.read),
        Format(range_csv.NAME, range_csv.recognises, range_csv.read, _DEPTH),
        Format(dbip.NAME, dbip.recognises, dbip.read, _DEPTH),
        Format(prefix_csv.NAME, prefix_csv.recognises, prefix_csv.read, _DEPTH),
        Format(geofeed.NAME, geofeed.recognises, geofeed.read, _DEPTH, is_tolerant=True),
        Format(
            ipfire.NAME,
            ipfire.recognises,
            ipfire.read,
            may_be_empty=lambda _, name: ipfire.is_list(name),
        ),
        Format(prefix_list.NAME, prefix_list.recognises, prefix_list.read, frozenset({"country"})),
        Format(ip2location_bin.NAME, ip2location_bin.recognises, ip2location_bin.read, _DEPTH),
        Format(libloc.NAME, libloc.recognises, libloc.read),
        Format(geoip_legacy.NAME, geoip_legacy.recognises, geoip_legacy.read),
        Format(mmdb.NAME, mmdb.recognises, mmdb.read, frozenset({"country_from", "depth"})),
    )
}
"""All formats by name, in the order in which they are tried: the narrower ones first."""


def read(
    files: Sequence[Path],
    *,
    format_name: str | None = None,
    options: Options | None = None,
    faults: Faults | None = None,
    on_read: Callable[[int], None] | None = None,
) -> SourceRanges:
    """Read a source's files.

    Args:
        files: in the order in which their ranges are numbered; of a folder or a zip
            archive, the files in it.
        format_name: one of `FORMATS`; None: each file is recognised by its content.
        options: an operator's options for reading them.
        faults: takes the lines that can't be read, as far as it allows any.
        on_read: called repeatedly with the number of bytes read so far, of all files
            together, as they are on disk.

    Raises:
        SourceError: a file can't be read, holds no range, or a line makes no
            sense: ``file:line:column: what``. Or the format does not support an option.
    """
    parts, twins = _without_twins([part for path in files for part in decompression.parts(path)])
    ranges = SourceRanges(files=tuple(part.name for part in parts))
    state = ReadState(ranges, options or Options(), faults or Faults())
    state.faults.notes += [
        f"{twin.name}: left out; {part.file_name} has the same with addresses as text"
        for twin, part in twins
    ]
    chosen = [_choose(part, number, format_name) for number, part in enumerate(parts)]
    for file, form in chosen:
        _check_options(file, form, state.options)
    # Tables come first, since the other files of their source refer to them.
    chosen.sort(key=lambda pair: not pair[1].is_table(pair[0].head))
    before = tolerated = 0
    already_left_out = len(state.faults.found)
    for file, form in chosen:
        already = len(ranges)

        def on_block(position: int, before: int = before) -> None:
            if on_read is not None:
                on_read(before + position)

        own = state if not form.is_tolerant else replace(state, faults=Faults(_MOST_LEFT_OUT))
        form.read(SourceFile(file.part, file.number, file.head, on_block), own)
        if own is not state:
            tolerated += len(own.faults.found)
            state.faults.notes.extend(own.faults.found[:_LISTED])
            if len(own.faults.found) > _LISTED:
                more = len(own.faults.found) - _LISTED
                state.faults.notes.append(f"{file.part.name}: {more:,} more such lines")
        # One of many that a failed download left empty would be missed by nobody.
        if len(ranges) == already and not form.may_be_empty(file.head, file.part.file_name):
            raise SourceError(f"{file.part.name}: holds no range")
        before += file.part.size
    if files and not len(ranges):  # tables alone
        raise SourceError(f"{files[0]}: holds no range")
    state.faults.notes += [
        f"{ranges.files[0]}: {region!r} is no known subdivision of {country}; read as {country}"
        for country, region in list(state.places.unknown)[:_LISTED]
    ]
    if len(state.places.unknown) > _LISTED:
        more = len(state.places.unknown) - _LISTED
        state.faults.notes.append(f"{ranges.files[0]}: {more:,} more such subdivisions")
    left_out = tolerated + len(state.faults.found) - already_left_out
    return replace(ranges, lines_left_out=left_out) if left_out else ranges


_READERS_OF_KINDS: Final[dict[str, Callable[[SourceFile, kinds.States], None]]] = {
    geolite2.NAME: kinds.of_geolite2,
    ipfire.NAME: kinds.of_ipfire,
    libloc.NAME: kinds.of_libloc,
    mmdb.NAME: kinds.of_mmdb,
}
FORMATS_WITH_KINDS = tuple(_READERS_OF_KINDS)
"""Formats of sources of countries that also mark kinds of networks; see `read_kinds`."""


def read_kinds(
    files: Sequence[Path], *, format_name: str | None = None, faults: Faults | None = None
) -> dict[str, SourceRanges]:
    """Read what the files of a source of countries say of network kinds besides.

    Args:
        files: as in `read`.
        format_name: as in `read`. Most formats say nothing of kinds.
        faults: as in `read`; what `read` leaves out is left out here, too, once for each kind.

    Returns:
        For each of `kinds.KINDS` that the files speak of, its ranges. They have the code
        `kinds.MARKED`, or `SILENCE` where a smaller range is not of the kind.

    Raises:
        SourceError: as in `read`, but that files may hold no range.
    """
    parts, _ = _without_twins([part for path in files for part in decompression.parts(path)])
    faults = faults or Faults()
    states: dict[str, ReadState] = {}

    def state_of(kind: str) -> ReadState:
        if kind not in states:
            ranges = SourceRanges(files=tuple(part.name for part in parts))
            states[kind] = ReadState(ranges, faults=faults)
        return states[kind]

    for number, part in enumerate(parts):
        file, form = _choose(part, number, format_name)
        if form.name in _READERS_OF_KINDS:
            _READERS_OF_KINDS[form.name](file, state_of)
    return {kind: states[kind].into for kind in kinds.KINDS if kind in states}


_LISTED: Final = 100
_MOST_LEFT_OUT: Final = 100_000
"""Lines of a file of a tolerant format that may be unreadable. With more it is something else."""


def _without_twins(
    parts: Sequence[decompression.Part],
) -> tuple[list[decompression.Part], list[tuple[decompression.Part, decompression.Part]]]:
    """Return the files but for those that hold what another one does, and these with the other.

    The packages of ip-location-db have each file twice: ``-num`` with addresses as numbers.
    """
    by_name = {part.name: part for part in parts}
    twins = [
        (part, by_name[text])
        for part in parts
        if (text := re.sub(r"-num(?=\.csv(\.\w+)?$)", "", part.name)) != part.name
        and text in by_name
    ]
    left_out = {id(part) for part, _ in twins}
    return [part for part in parts if id(part) not in left_out], twins


def _choose(
    part: decompression.Part, number: int, format_name: str | None
) -> tuple[SourceFile, Format]:
    head = next(part.blocks(), b"")
    form = FORMATS[format_name] if format_name is not None else _recognise(head, part)
    return SourceFile(part, number, head), form


def _recognise(head: bytes, part: decompression.Part) -> Format:
    for candidate in FORMATS.values():
        if candidate.recognises(head, part.file_name):
            return candidate
    if not head:
        raise SourceError(f"{part.name}: is empty")
    raise SourceError(f"{part.name}:1: in none of the known formats: {', '.join(FORMATS)}")


def _check_options(file: SourceFile, form: Format, options: Options) -> None:
    for option, default in (
        ("country", ""),
        ("country_from", "country"),
        ("depth", "country"),
    ):
        if getattr(options, option) != default and option not in form.options:
            raise SourceError(f"{file.name}: {option}: means nothing for the format {form.name}")
