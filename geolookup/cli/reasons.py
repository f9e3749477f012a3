"""Reasons in words, for people who read them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geolookup.answer.claims import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geolookup.answer.claims import Verdict

TEXTS: Final = {
    Reason.DISPUTED: "sources disagree",
    Reason.UNCONFIRMED: "a source is silent",
    Reason.UNASSIGNED: "no source knows it",
    Reason.SPECIAL_PURPOSE: "special-purpose address",
    Reason.INVALID: "not an address",
    Reason.COVERED: "the network hides where its users are",
    Reason.SUBDIVISION_UNKNOWN: "only the country is known",
    Reason.NO_COUNTRY: "an override says no country",
    Reason.STALE: "the dataset is too old",
}


def verdict_text(verdict: Verdict, reason: Reason | None, claimed: Sequence[str]) -> str:
    """Return a verdict, and why there is none: "UNDETERMINED: sources disagree, HK or CN"."""
    if reason is None or reason is Reason.DECIDED:
        return verdict.name
    text = f"{verdict.name}: {TEXTS[reason]}"
    if reason is Reason.DISPUTED and claimed:
        *others, last = claimed
        text += f", {', '.join(others)} or {last}" if others else f", {last}"
    return text
