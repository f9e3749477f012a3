"""ipset: a set of prefixes for each code and family, as input of ``ipset restore``; see `sets`.

Each set is filled under another name and swapped with the one in use: rules that use the set
stay, and no packet is matched against a set that is partly filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from geolookup.answer.intervals import BITS, Family
from geolookup.export.rows import Rows, prefixes, text
from geolookup.export.sets import Ranges, sets

_KINDS = {4: "inet", 6: "inet6"}

# A limit and no allocation. The same in all files, because ipset refuses to create a set anew
# with another one.
_MAX_ELEMENTS = 1 << 24


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the spans as sets of the type ``hash:net`` named such as ``CN_ipv4``."""
    file.writelines(f"{line}\n".encode() for line in _lines(rows))


def _lines(rows: Rows) -> Iterator[str]:
    yield from rows.comments()
    for name, family, ranges in sets(rows):
        kind = f"hash:net family {_KINDS[family]} maxelem {_MAX_ELEMENTS}"
        new = f"{name}_new"
        yield f"create {name} {kind} -exist"
        yield f"create {new} {kind} -exist"
        yield f"flush {new}"
        for prefix in _prefixes(family, ranges):
            yield f"add {new} {prefix}"
        yield f"swap {name} {new}"
        yield f"destroy {new}"


def _prefixes(family: Family, ranges: Ranges) -> Iterator[str]:
    half = 1 << BITS[family] - 1
    for first, last in ranges:
        for address, length in prefixes(family, first, last):
            if length:
                yield f"{text(family, address)}/{length}"
            else:  # hash:net holds no prefix of length 0
                yield from (f"{text(family, address)}/1" for address in (0, half))
