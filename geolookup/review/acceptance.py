"""Whether a new dataset is accepted: plausible, and not too different from the one before."""

from __future__ import annotations

from collections.abc import Sequence

from geolookup.answer.dataset import Dataset
from geolookup.change_limits import ChangeLimits
from geolookup.review.difference import compare
from geolookup.review.verification import Canary, verify


def objections(
    new: Dataset, old: Dataset | None, limits: ChangeLimits, canaries: Sequence[Canary] = ()
) -> tuple[str, ...]:
    """Return what speaks against a new dataset, a sentence each; none has an address in it.

    Args:
        new: the new dataset.
        old: the dataset that it replaces; None: there is none, and no change to limit.
        limits: what is accepted of the new one. Without a `min_coverage` it is
            `verification.MIN_COVERAGE`.
        canaries: addresses whose answers are known.

    Raises:
        DatasetError: a file is not sound.
        DatasetClosedError: a dataset was closed.
    """
    failures = verify(new, canaries=canaries, min_coverage=limits.min_coverage).failures
    if old is None or not limits.max_change:
        return failures
    return (*failures, *map(str, compare(old, new).exceeded(limits.max_change)))


def listed(reasons: Sequence[str], most: int) -> str:
    """Return reasons as one text that has *most* of them; thousands of canaries may differ."""
    more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
    return "; ".join(reasons[:most]) + more
