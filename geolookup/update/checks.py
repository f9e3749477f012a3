"""What a new dataset must pass before it replaces the old one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from geolookup.answer import dataset
from geolookup.change_limits import ChangeLimits
from geolookup.review.acceptance import listed, objections
from geolookup.review.verification import Canary
from geolookup.update.problems import UpdateError

Check = Callable[[Path, Path | None], None]
"""Checks a new dataset: (the new file, the one that it would replace or None).

Raises:
    UpdateError: the new one is refused; the text says why.
"""

_MAX_LISTED = 20


def acceptance(limits: ChangeLimits, canaries: Sequence[Canary] = ()) -> Check:
    """Return the check that `acceptance.objections` finds nothing."""

    def check(new: Path, old: Path | None) -> None:
        with ExitStack() as stack:
            candidate = stack.enter_context(dataset.open(new))
            before = None if old is None else stack.enter_context(dataset.open(old))
            reasons = objections(candidate, before, limits, canaries)
        if reasons:
            raise UpdateError(listed(reasons, _MAX_LISTED))

    return check
