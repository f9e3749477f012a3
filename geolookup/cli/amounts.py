"""Amounts of address space in the units of tables: IPv4 addresses, and /48s of IPv6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from geolookup.answer.intervals import Family

UNIT_NAMES: Final[Mapping[Family, str]] = {4: "addresses", 6: "/48s"}
JSON_UNITS: Final[Mapping[Family, str]] = {4: "address", 6: "/48"}


def amount(family: Family, addresses: int) -> str:
    """Return a number of units for people; a part of one is not nothing."""
    from geolookup.review.pieces import UNIT  # noqa: PLC0415 - only reviews need it

    return f"{-(-addresses // UNIT[family]):,}"


def size(family: Family, addresses: int) -> float:
    """Return a number of units for programs."""
    from geolookup.review.pieces import UNIT  # noqa: PLC0415

    unit = UNIT[family]
    return addresses if unit == 1 else addresses / unit
