"""What a new dataset is asked before it takes the place of the old one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from geolookup.answer import dataset
from geolookup.review import difference, verification
from geolookup.review.verification import MIN_COVERAGE, Canary
from geolookup.update.problems import UpdateError

Check = Callable[[Path, Path | None], None]
"""A question asked of a new dataset: (the new file, the one it would replace or None).

Raises:
    UpdateError: the new one is refused; the text says why.
"""

_LISTED = 20
"""Reasons that an error text lists. Thousands of canaries may differ."""


def plausible(*, canaries: Sequence[Canary] = (), min_coverage: Fraction | None = None) -> Check:
    """Return the check that a dataset passes ``geolookup verify``: its file, coverage, canaries.

    Args:
        canaries: addresses with the codes expected; see `verification.read_canaries`.
        min_coverage: the least share of the IPv4 space that has a country. None: the
            default of `verification.verify`.
    """

    def check(new: Path, _old: Path | None) -> None:
        with dataset.open(new) as opened:
            found = verification.verify(
                opened,
                canaries=canaries,
                min_coverage=MIN_COVERAGE if min_coverage is None else min_coverage,
            )
        _refuse(found.failures)

    return check


def alike(max_change: Mapping[str, Fraction]) -> Check:
    """Return the check that a dataset passes ``geolookup diff`` with these limits.

    The first dataset, which replaces none, passes.

    Args:
        max_change: as in `change_limits.ChangeLimits`.
    """

    def check(new: Path, old: Path | None) -> None:
        if old is None or not max_change:
            return
        with dataset.open(old) as before, dataset.open(new) as after:
            exceeded = difference.compare(before, after).exceeded(max_change)
        _refuse([str(limit) for limit in exceeded])

    return check


def _refuse(reasons: Sequence[str]) -> None:
    if reasons:
        more = f"; and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
        raise UpdateError("; ".join(reasons[:_LISTED]) + more)
