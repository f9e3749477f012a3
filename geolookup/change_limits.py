"""What a new dataset may look like and still be trusted: limits that operators set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from geolookup.answer.country_codes import COUNTRIES
from geolookup.errors import GeoLookupError

EVERY_CODE: Final = "*"
"""Stands for each code that has no limit of its own."""
DISPUTED: Final = "DISPUTED"
"""Stands for what became or ceased to be disputed."""

_SHARE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(%?)", re.ASCII)


class LimitError(GeoLookupError, ValueError):
    """A limit makes no sense. The text does not repeat what was given."""


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """What is accepted of a new dataset.

    Attributes:
        max_change: by code, `EVERY_CODE` or `DISPUTED`: the largest change, as a share
            of what there was. What has no limit may change as it likes.
        min_coverage: the least share of the IPv4 space that has a country; None: the
            default of who asks.
    """

    max_change: Mapping[str, Fraction] = field(default_factory=dict)
    min_coverage: Fraction | None = None


def read_share(text: str) -> Fraction:
    """Return the share that ``0.5%`` or ``0.005`` says.

    Raises:
        LimitError: it says none.
    """
    found = _SHARE.fullmatch(text)
    if found is None:
        raise LimitError("expected a share such as 0.5% or 0.005")
    return Fraction(found[1]) / (100 if found[2] else 1)


def read_limited(text: str) -> str:
    """Return what a limit is about: a country's code, ``*`` or ``DISPUTED``.

    Raises:
        LimitError: it is none of these.
    """
    if text in (EVERY_CODE, DISPUTED) or text in COUNTRIES:
        return text
    raise LimitError(f"expected a country's code in capitals, {EVERY_CODE} or {DISPUTED}")
