"""IP2Location's ``.BIN`` files of countries and more, such as ``IP2LOCATION-LITE-DB1.IPV6.BIN``.

A header, and for each family rows that begin at an address and end where the next begins;
of a row, the number behind the address says where the country's code is and, in DB3 and larger
ones, the next number where the name of a subdivision is. Numbers are little-endian, and
offsets in the header count from 1. The publisher's package for Python looks addresses up and
can't list rows, so they are read here; the tests hold this to it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from geolookup.build.readers.source_file import ReadState, SourceFile
from geolookup.errors import SourceError

NAME = "ip2location-bin"

_HEADER: Final = struct.Struct("<5B6I2B")
_COUNTRIES: Final = 1
"""The number of the product, in files since 2021: addresses by country and more."""
_SINCE: Final = 21
_LARGEST: Final = 1 << 31
"""Bytes of a file. The publisher's largest edition has some 0.7 GB."""
_MAPPED: Final = 0xFFFF << 32
_FIRST_WITH_REGIONS: Final = 3
"""DB3: country, region, city."""


def recognises(head: bytes, name: str = "") -> bool:
    """Return whether a file with this beginning and name has this format."""
    return name.lower().endswith(".bin") and _is_header(head)


def read(file: SourceFile, state: ReadState) -> None:
    """Add a database's ranges to a source; IPv4-mapped addresses are read as IPv4 addresses.

    Raises:
        SourceError: not a database of countries in this format, or a damaged one; or it has
            no subdivisions, and these are asked for.
    """
    content = file.content(_LARGEST)
    deep = state.options.depth == "subdivision"
    if deep and _is_header(content) and content[0] < _FIRST_WITH_REGIONS:
        raise SourceError(f"{file.name}: depth: its rows have no subdivision")
    try:
        if not _is_header(content):
            raise ValueError("no header")
        _, columns, *_, rows4, at4, rows6, at6, _, _, _, _ = _HEADER.unpack_from(content)
        texts = struct.Struct("<2I" if deep else "<I")
        numbers: dict[tuple[int, ...], int] = {}
        for size, rows, at in ((4, rows4, at4), (16, rows6, at6)):
            if rows and (size == 4 or at):
                for first, last, places in _rows(content, size, columns, rows, at - 1, texts):
                    number = numbers.get(places)
                    if number is None:
                        country, *regions = (_text(content, place) for place in places)
                        if len(country) > 2:
                            raise ValueError("no code of a country")
                        number = numbers[places] = state.places.read(country, *regions)
                    _append(file, state, size, first, last, number)
    except (ValueError, IndexError, struct.error) as error:
        raise SourceError(f"{file.name}: no IP2Location database, or a damaged one") from error


def _is_header(content: bytes | bytearray) -> bool:
    if len(content) < _HEADER.size:
        return False
    kind, columns, year, month, day, rows4, at4, _, _, _, _, product, _ = _HEADER.unpack_from(
        content
    )
    return bool(
        1 <= kind <= columns <= 32
        and columns >= 2
        and year <= 99
        and 1 <= month <= 12
        and 1 <= day <= 31
        and rows4 > 0
        and at4 > _HEADER.size
        and (product == _COUNTRIES or year < _SINCE)
    )


def _rows(
    content: bytearray, size: int, columns: int, rows: int, at: int, texts: struct.Struct
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Yield first and last address of each row, and where its first texts are.

    Raises:
        ValueError, struct.error: the rows are not in the file, or not in ascending order.
    """
    width = size + 4 * (columns - 1)
    if at < 0 or at + rows * width + size > len(content):
        raise ValueError("rows outside of the file")
    view = memoryview(content)
    top = (1 << 8 * size) - 1
    first = int.from_bytes(view[at : at + size], "little")
    for row in range(at, at + rows * width, width):
        end = int.from_bytes(view[row + width : row + width + size], "little")
        # The last row holds the last address of the space, which has no row of its own.
        last = end if end == top else end - 1
        if last < first:
            raise ValueError("rows in another order")
        yield first, last, texts.unpack_from(content, row + size)
        first = end


def _text(content: bytearray, place: int) -> str:
    """Return the text at a place: its length, then its letters."""
    end = place + 1 + content[place]
    if end > len(content):
        raise ValueError("a text outside of the file")
    return content[place + 1 : end].decode("iso-8859-1")


def _append(
    file: SourceFile, state: ReadState, size: int, first: int, last: int, number: int
) -> None:
    if not number:
        return
    into = state.into.ipv4 if size == 4 else state.into.ipv6
    if size == 16 and first >= _MAPPED and last < _MAPPED + (1 << 32):
        into, first, last = state.into.ipv4, first - _MAPPED, last - _MAPPED
    into.append(first, last, number, file=file.number)
