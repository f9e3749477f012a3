"""Reasons in words, for people who read them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geolookup.answer.claims import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geolookup.answer.results import Answer

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


def verdict_text(answer: Answer) -> str:
    """Return the verdict, and why there is none: "UNDETERMINED: sources disagree, HK or CN"."""
    verdict, reason = answer.verdict, answer.reason
    assert verdict is not None  # noqa: S101 - as a region set was asked for
    if reason is None or reason is Reason.DECIDED:
        return verdict.name
    text = f"{verdict.name}: {TEXTS[reason]}"
    if reason is Reason.DISPUTED and answer.claimed:
        text += f", {_either(answer.claimed)}"
    return text


def _either(codes: Sequence[str]) -> str:
    *others, last = codes
    return f"{', '.join(others)} or {last}" if others else last
