"""Targets: the source readers, one a format, and files in whatever packing.

A reader must give the same ranges or the same error however its file is cut into blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geolookup.build import readers
from geolookup.build.readers import FORMATS, Faults, Options, SourceRanges, decompression
from geolookup.build.readers.source_file import ReadState, SourceFile
from geolookup.errors import SourceError

from .settings import folder

WORDS = (
    b"1.0.0.0",
    b"1.0.0.255",
    b"2001:200::",
    b"/24",
    b"/32",
    b"::ffff:1.2.3.4",
    b"16777216",
    b"AU",
    b"ZZ",
    b"None",
    b"??",
    b"\r\n",
    b"\n",
    b'"',
    b'""',
    b",",
    b"\t",
    b"|",
    b"#",
    b" ",
    b"network,",
    b"country_code",
    b"start_ip,end_ip,",
    b"geoname_id",
    b"country_iso_code",
    b"apnic|AU|ipv4|",
    b"|256|20110811|assigned",
    b"|summary",
    b"ipv6|",
    b"available",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"340282366920938463463374607431768211455",
    b"\xab\xcd\xefMaxMind.com",
    b"\xe9record_size",
    b"\xeanode_count",
    b"Kdatabase_type",
)
NAMES = {"ipfire": "DEv4.networks", "prefix-list": "de.zone"}
SEPARATOR = b"\n----\n"
"""Between the two files of a source of MaxMind's: the locations, and the blocks."""


@dataclass(frozen=True, slots=True)
class Memory(decompression.Part):
    """A file that is in memory, and comes in blocks of a given size."""

    content: bytes = b""
    block: int = 1

    def blocks(self, on_read: Callable[[int], None] | None = None) -> Iterator[bytes]:
        # The first block is a file's head, by which it is recognised, and never so short.
        yield self.content[: max(self.block, 600)]
        for at in range(max(self.block, 600), len(self.content), self.block):
            yield self.content[at : at + self.block]
        if on_read is not None:
            on_read(len(self.content))


Outcome = tuple[list[tuple[int, int, int]], list[tuple[int, int, int]], list[str], str]


def read(name: str, data: bytes) -> None:
    """A file of a format; its first byte chooses blocks and options."""
    if not data:
        return
    how, data = data[0], data[1:]
    options = Options(country_from="registered_country" if how & 16 else "country")
    faults = (0, 1, 3, 100)[how >> 5 & 3]
    contents = data.split(SEPARATOR, 1) if name == "geolite2" else [data]
    whole = outcome(name, contents, 1 << 18, options, faults)
    assert outcome(name, contents, 1 + how % 16, options, faults) == whole


def outcome(
    name: str, contents: list[bytes], block: int, options: Options, allowed: int
) -> Outcome:
    ranges = SourceRanges(files=tuple("ab"[: len(contents)]))
    faults = Faults(allowed)
    state = ReadState(ranges, options, faults)
    failed = ""
    try:
        for number, content in enumerate(contents):
            file_name = NAMES.get(name, "data")
            part = Memory(
                file_name, Path("archive"), file_name, len(content), content=content, block=block
            )
            head = next(part.blocks(), b"")[:600]
            FORMATS[name].recognises(head, part.file_name)
            FORMATS[name].read(SourceFile(part, number, head), state)
    except SourceError as error:
        failed = str(error)
        assert failed.startswith(("data", NAMES.get(name, "data")))
    check(ranges)
    return list(ranges.ipv4), list(ranges.ipv6), [*faults.found, *faults.notes], failed


def check(ranges: SourceRanges) -> None:
    """Hold ranges to what is promised of them, flattened and as intervals too."""
    for family in (ranges.ipv4, ranges.ipv6):
        end = 1 << family.bits
        for index, (first, last, code) in enumerate(family):
            assert 0 <= first <= last < end
            assert 0 <= code < 0xFFFF
            ranges.location(family, index)
        flat, _ = family.flattened()
        before = -1
        for first, last, _ in flat:
            assert before < first <= last < end
            before = last
        covered = {(first, last) for first, last, _ in family}
        assert bool(covered) == bool(len(flat))
        flat.intervals()


READERS: dict[str, Callable[[bytes], None]] = {
    # Not libloc, which another project's package reads.
    name: functools.partial(read, name)
    for name in FORMATS
    if name != "libloc"
}


def files(data: bytes) -> None:
    """A file on disk, packed or compressed or not, of whatever format; byte 0 names it."""
    if not data:
        return
    path = folder() / ("data", "de.zone", "DEv4.networks", "data.zip")[data[0] % 4]
    path.write_bytes(data[1:])
    try:
        ranges = readers.read([path], faults=Faults(data[0] >> 2))
    except SourceError as error:
        assert str(error).startswith(str(path))
    else:
        assert len(ranges)
        check(ranges)
    finally:
        path.unlink()
