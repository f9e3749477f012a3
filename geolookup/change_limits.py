"""Limits that operators set for new datasets: change and coverage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from geolookup.answer.claims import Network
from geolookup.answer.country_codes import COUNTRIES, nearest_code
from geolookup.errors import GeoLookupError

EVERY_CODE: Final = "*"
"""Stands for each code that has no limit of its own."""
DISPUTED: Final = "DISPUTED"
"""Stands for what became or ceased to be disputed."""

_SHARE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(%?)", re.ASCII)


class LimitError(GeoLookupError, ValueError):
    """A limit is not valid. The text does not repeat it."""


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """What is accepted of a new dataset.

    Attributes:
        max_change: by code, `EVERY_CODE`, `DISPUTED` or kind of networks: the largest change,
            as a share of what there was. What has no limit may change as it likes.
        min_coverage: the least share of the IPv4 space that has a country; None: the
            default of who asks.
    """

    max_change: Mapping[str, Fraction] = field(default_factory=dict)
    min_coverage: Fraction | None = None


def read_share(text: str) -> Fraction:
    """Return the share that ``0.5%`` or ``0.005`` says.

    Raises:
        LimitError: it says none; or it is 1 or more and has no ``%``, since "5" may
            mean 5 % or five times as much.
    """
    found = _SHARE.fullmatch(text)
    if found is None:
        raise LimitError("expected a share such as 0.5% or 0.005")
    number = Fraction(found[1])
    if not found[2] and number >= 1:
        raise LimitError("a number of 1 or more needs its unit, such as 5% or 500%")
    return number / (100 if found[2] else 1)


def read_part(text: str) -> Fraction:
    """Return the share that a text says, of a whole that can't have more than all of it.

    Raises:
        LimitError: as `read_share`; or it is over 100 %.
    """
    share = read_share(text)
    if share > 1:
        raise LimitError("there is no more than 100%")
    return share


def read_limited(text: str) -> str:
    """Return what a limit is about: a country's code, ``*``, ``DISPUTED`` or a kind of networks.

    Raises:
        LimitError: it is none of these.
    """
    if text in (EVERY_CODE, DISPUTED) or text in COUNTRIES or text in Network.__members__:
        return text
    nearest = DISPUTED if text.upper() == DISPUTED else nearest_code(text)
    hint = f"; did you mean {nearest}?" if nearest else ""
    raise LimitError(f"expected a country's code in capitals, {EVERY_CODE} or {DISPUTED}{hint}")
