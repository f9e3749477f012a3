"""nftables: a named interval set for each code and family, as a script for ``nft -f``; see `sets`.

Loading it again replaces the sets' content in one transaction: rules that use the sets
stay, and no packet is matched against an empty set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from geolookup.answer.intervals import Family
from geolookup.export.rows import Rows, text
from geolookup.export.sets import sets

# One element per line, for people who compare files; nft reads any layout.
_SEPARATOR = ",\n\t"


def write(rows: Rows, file: BinaryIO, *, table: str = "geolookup") -> None:
    """Write the spans as sets named such as ``CN_ipv4`` in the table ``inet`` *table*."""
    file.writelines(f"{line}\n".encode() for line in _lines(rows, table))


def _lines(rows: Rows, table: str) -> Iterator[str]:
    yield from rows.comments()
    yield f"add table inet {table}"
    for set_name, family, ranges in sets(rows):
        name = f"inet {table} {set_name}"
        yield f"add set {name} {{ type ipv{family}_addr; flags interval; }}"
        yield f"flush set {name}"
        if ranges:
            elements = (_element(family, first, last) for first, last in ranges)
            yield f"add element {name} {{\n\t{_SEPARATOR.join(elements)}\n}}"


def _element(family: Family, first: int, last: int) -> str:
    if first == last:
        return text(family, first)
    return f"{text(family, first)}-{text(family, last)}"
