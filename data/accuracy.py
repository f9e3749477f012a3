"""Writes the measured accuracy into docs/data.md, from data/accuracy.json.

    python data/accuracy.py                # write the tables of the page anew

The figures come from `geolookup evaluate --json`; the places that it was held against are not
in this repository. After a new measurement::

    python data/accuracy.py embedded=embedded.json older=older.json before=before.json

takes of each output what the tables need, writes data/accuracy.json, and then the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

FIGURES: Final = Path(__file__).with_name("accuracy.json")
PAGE: Final = Path(__file__).parents[1] / "docs" / "data.md"
BEGIN: Final = "<!-- accuracy: written by python data/accuracy.py -->\n"
END: Final = "<!-- end of accuracy -->\n"

_POLICY: Final = "UNANIMOUS"
_OUTCOMES: Final = ("wrong", "right", "undetermined")
_CODES: Final = ("US", "GB", "SG", "DE")
"""Of the table of addresses that are falsely INSIDE."""


def reduced(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return of the output of `geolookup evaluate --json` what the tables need."""
    scores = [score for score in evaluation["scores"] if score["policy"] == _POLICY]
    most = max(len(score["sources"]) for score in scores)
    return {
        "truth": evaluation["truth"],
        "scores": [
            {
                "sources": score["sources"],
                "older": score.get("older", ""),
                "family": score["family"],
                "known": round(score["prefixes"]["known"]),
                **{name: _share(score["prefixes"][name]) for name in _OUTCOMES},
                "falsely_inside": {
                    code: round(part["prefixes"], 1)
                    for code, part in sorted(score["falsely_inside"].items())
                    if code in _CODES
                },
                "falsely_inside_all": round(
                    sum(part["prefixes"] for part in score["falsely_inside"].values()), 1
                ),
                "operators": {
                    name: {outcome: round(parts[outcome]["prefixes"], 1) for outcome in _OUTCOMES}
                    for name, parts in sorted(score["operators"].items())
                },
            }
            for score in scores
            if len(score["sources"]) in (1, most)
        ],
    }


def _share(known: dict[str, Any]) -> dict[str, Any]:
    interval = known["interval"]
    return {
        "share": round(known["share"], 6),
        "interval": interval and [round(end, 6) for end in interval],
    }


# --- tables


def tables(figures: dict[str, Any]) -> str:
    """Return what stands between the marks of the page."""
    blocks = [_recipes(figures), _operators(figures), _falsely_inside(figures)]
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks)


def _recipes(figures: dict[str, Any]) -> Iterator[str]:
    yield f"| under `{_POLICY}`, % of prefixes | IPv4 wrong | right | IPv6 wrong | right |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    rows = [("**the embedded dataset**", "embedded", None, "")]
    rows += [
        (f"`{name}` alone", "embedded", name, "") for name in ("dbip", "geo-whois-asn", "registry")
    ]
    rows.append(("the embedded dataset with DB-IP of June", "older", None, "dbip"))
    rows.append(("DB-IP of June and the registry as a voter", "before", None, ""))
    for title, run, source, older in rows:
        cells = []
        for family in (4, 6):
            score = _score(figures, run, source, older, family)
            cells += [_wrong(score), f"{100 * score['right']['share']:.1f}"]
        yield f"| {title} | {' | '.join(cells)} |"


def _operators(figures: dict[str, Any]) -> Iterator[str]:
    yield "| the embedded dataset, % of prefixes | IPv4 | wrong | right | IPv6 | wrong | right |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    both = [_score(figures, "embedded", None, "", family)["operators"] for family in (4, 6)]
    for name in sorted(both[0]):
        cells = []
        for parts in (operators.get(name, {}) for operators in both):
            known = sum(parts.values())
            if known:
                shares = [f"{100 * parts[outcome] / known:.2f}" for outcome in ("wrong", "right")]
            cells += [f"{known:,.0f}", *(shares if known else ("", ""))]
        yield f"| {name} | {' | '.join(cells)} |"


def _falsely_inside(figures: dict[str, Any]) -> Iterator[str]:
    yield f"| prefixes falsely INSIDE | {' | '.join(f'`{code}`' for code in _CODES)} | all |"
    yield f"| --- |{' ---: |' * (len(_CODES) + 1)}"
    for title, run in (("the embedded dataset", "embedded"), ("the one before it", "before")):
        for family in (4, 6):
            score = _score(figures, run, None, "", family)
            counts = [score["falsely_inside"].get(code, 0) for code in _CODES]
            cells = [f"{count:,.0f}" for count in (*counts, score["falsely_inside_all"])]
            yield f"| {title}, IPv{family} | {' | '.join(cells)} |"


def _score(
    figures: dict[str, Any], run: str, source: str | None, older: str, family: int
) -> dict[str, Any]:
    """Return the score of one source, or of all that count (None)."""
    scores = figures[run]["scores"]
    most = max(len(score["sources"]) for score in scores)
    (found,) = (
        score
        for score in scores
        if score["family"] == family
        and score["older"] == older
        and (score["sources"] == [source] if source else len(score["sources"]) == most)
    )
    return dict(found)


def _wrong(score: dict[str, Any]) -> str:
    wrong = score["wrong"]
    low, high = (100 * end for end in wrong["interval"])
    return f"{100 * wrong['share']:.2f} ({low:.2f} to {high:.2f})"


def page(text: str, figures: dict[str, Any]) -> str:
    """Return the text of the page with the tables written anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: has no marks for the tables")
    return f"{before}{begin}{tables(figures)}{end}{after}"


def main(arguments: list[str]) -> None:
    """Take the outputs that are named, and write the page."""
    if arguments:
        pairs = (argument.split("=", 1) for argument in arguments)
        figures = {run: reduced(json.loads(Path(file).read_text())) for run, file in pairs}
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    figures = json.loads(FIGURES.read_text())
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
