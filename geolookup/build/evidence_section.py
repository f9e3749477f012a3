"""The evidence section of a dataset file as the compiler writes it.

`geolookup.answer.evidence` reads it.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from geolookup._sweep import renumber
from geolookup.answer.evidence import ALIGNMENT, FIRST_PLACE
from geolookup.build.readers import code_number

if TYPE_CHECKING:
    from geolookup._sweep import Ranges
    from geolookup.answer.overrides import Override
    from geolookup.build.readers import SourceRanges
    from geolookup.build.sources import NetworkList, Source
    from geolookup.build.special_purpose import SpecialPurpose


def encode(
    sources: Sequence[tuple[Source, SourceRanges]],
    overrides: Sequence[Override],
    override_ranges: SourceRanges,
    special_purpose: Sequence[SpecialPurpose],
    places: Sequence[str] = (),
    networks: Sequence[tuple[NetworkList, SourceRanges]] = (),
) -> bytes:
    """Return the evidence section; the same input gives the same bytes.

    Args:
        sources: each with its flattened ranges.
        overrides: as the operator wrote them.
        override_ranges: those that apply, flattened; a range's line is the
            position of its override, from 1.
        special_purpose: the registries' rows.
        places: the dataset's subdivisions.
        networks: lists of networks, each with its flattened ranges.
    """
    numbers = _file_numbers(places)
    columns = bytearray()

    def add(*data: bytes) -> list[int]:
        """Append columns; return the offset and size of each."""
        places = []
        for column in data:
            columns.extend(bytes(-len(columns) % ALIGNMENT))
            places += [len(columns), len(column)]
            columns.extend(column)
        return places

    index: dict[str, object] = {
        "sources": [
            {
                "name": source.name,
                **_columns(ranges.ipv4, add, numbers),
                **_columns(ranges.ipv6, add, numbers),
            }
            for source, ranges in sources
        ],
        "overrides": [
            {"country": row.code, "comment": row.comment, "expires": _iso(row)} for row in overrides
        ],
        "override_ranges": {
            "ipv4": _listed(override_ranges.ipv4),
            "ipv6": _listed(override_ranges.ipv6),
        },
        "special_purpose": [[row.prefix, row.name, row.rfc] for row in special_purpose],
    }
    if networks:
        index["networks"] = [
            {
                "name": one.name,
                **_columns(ranges.ipv4, add, None),
                **_columns(ranges.ipv6, add, None),
            }
            for one, ranges in networks
        ]
    text = json.dumps(index, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    head = len(text).to_bytes(8, "little") + text
    return head + bytes(-len(head) % ALIGNMENT) + bytes(columns)


def _file_numbers(places: Sequence[str]) -> bytes | None:
    """Return by number in `Ranges` (uint16) that of the file; None: they are the same."""
    if not places:
        return None
    numbers = array("H", range(0x10000))
    for position, place in enumerate(places):
        numbers[code_number(place)] = FIRST_PLACE + position
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _columns(
    ranges: Ranges, add: Callable[..., list[int]], numbers: bytes | None
) -> dict[str, list[int]]:
    family = "ipv4" if ranges.bits == 32 else "ipv6"
    *columns, merged, starts, boundaries = ranges.intervals()
    if numbers is not None:
        columns[-1] = renumber(columns[-1], numbers)
    # Apart, so that a reader which knows the first alone can do with that.
    return {family: add(*columns), f"{family}_ranges": add(merged, starts, boundaries)}


def _iso(override: Override) -> str:
    return override.expires.isoformat() if override.expires else ""


def _listed(ranges: Ranges) -> list[list[object]]:
    # Hexadecimal, because readers of JSON disagree about large numbers.
    return [
        [f"{first:x}", f"{last:x}", ranges.place(i)[1] - 1]
        for i, (first, last, _) in enumerate(ranges)
    ]
