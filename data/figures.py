"""Writes the tables of docs/data.md, from data/figures.json.

    python data/figures.py                # write the tables of the page anew

The figures come from `geolookup evaluate --json` and `geolookup agreement --json`; the places
that the sources were held against are not in this repository. After a new measurement::

    python data/figures.py embedded=embedded.json agreement=agreement.json

takes of each output what the tables need, writes data/figures.json, and then the page. What
is not named (older, before) stays as it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

FIGURES: Final = Path(__file__).with_name("figures.json")
PAGE: Final = Path(__file__).parents[1] / "docs" / "data.md"
BEGIN: Final = "<!-- {}: written by python data/figures.py -->\n"
END: Final = "<!-- end of {} -->\n"

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


# --- what the sources agree about


def _statuses(figures: dict[str, Any]) -> Iterator[str]:
    known = figures["agreement"]["ipv4"]
    whole = known["routable"]
    yield "| IPv4 | addresses | share | intervals | share |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for status, what in _STATUSES.items():
        part = known["statuses"][status]
        yield (
            f"| `{status}`: {what} | {part['size']:,} | {_percent(part['size'], whole['size'])}"
            f" | {part['intervals']:,} | {_percent(part['intervals'], whole['intervals'])} |"
        )
    yield f"| routable | {whole['size']:,} | | {whole['intervals']:,} | |"


def _statuses6(figures: dict[str, Any]) -> Iterator[str]:
    known = figures["agreement"]["ipv6"]
    yield "| `2000::/3` without special-purpose | /48s | intervals | share of the intervals |"
    yield "| --- | ---: | ---: | ---: |"
    for status in _STATUSES:
        part = known["statuses"][status]
        share = _percent(part["intervals"], known["routable"]["intervals"])
        yield f"| `{status}` | {part['size']:,.0f} | {part['intervals']:,} | {share} |"


def _pairs(figures: dict[str, Any]) -> Iterator[str]:
    yield "| IPv4 | both speak | same country | agree, by addresses | by intervals |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for family, head in (("ipv4", ""), ("ipv6", "| **IPv6**, in /48s | | | | |")):
        if head:
            yield head
        for pair in figures["agreement"][family]["pairs"]:
            if _SMALL in pair["sources"]:
                continue
            both, same = pair["both"], pair["same"]
            yield (
                f"| {' and '.join(f'`{name}`' for name in pair['sources'])}"
                f" | {both['size']:,.0f} | {same['size']:,.0f}"
                f" | {_percent(same['size'], both['size'])}"
                f" | {_percent(same['intervals'], both['intervals'])} |"
            )


def _regions(figures: dict[str, Any]) -> Iterator[str]:
    yield "| IPv4 | all agree | split | unconfirmed | agree, by addresses | by intervals |"
    yield from _rows_of_regions(figures["agreement"]["ipv4"])


def _regions6(figures: dict[str, Any]) -> Iterator[str]:
    yield "| IPv6, in /48s | all agree | split | unconfirmed | agree, by /48s | by intervals |"
    yield from _rows_of_regions(figures["agreement"]["ipv6"])


def _rows_of_regions(known: dict[str, Any]) -> Iterator[str]:
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for region in known["region_sets"]:
        agreed, split = region["agreed"], region["split"]
        shares = (_percent(agreed[by], agreed[by] + split[by]) for by in ("size", "intervals"))
        sizes = (f"{part['size']:,.0f}" for part in (agreed, split, region["unconfirmed"]))
        yield f"| `{region['name']}` | {' | '.join((*sizes, *shares))} |"


def _undetermined(figures: dict[str, Any]) -> Iterator[str]:
    known = figures["agreement"]["ipv4"]
    yield (
        "| IPv4 | `UNANIMOUS` inside | undetermined | of routable | of claimed | `PRIMARY` inside |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for region in known["region_sets"]:
        verdicts, primary = region["policies"]["UNANIMOUS"], region["policies"]["PRIMARY"]
        open_ = verdicts["UNDETERMINED"]["size"]
        claimed = sum(region[part]["size"] for part in ("agreed", "split", "unconfirmed"))
        left = verdicts["claimed_and_undetermined"]["size"]
        yield (
            f"| `{region['name']}` | {verdicts['INSIDE']['size']:,} | {open_:,}"
            f" | {_percent(open_, known['routable']['size'])} | {_percent(left, claimed)}"
            f" | {primary['INSIDE']['size']:,} |"
        )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


_STATUSES: Final = {
    "ASSIGNED": "all full sources name the country",
    "DISPUTED": "they name different ones",
    "UNCONFIRMED": "one of them is silent",
}
_SMALL: Final = "dbip-kosovo"
"""Left out of the table of pairs."""

# --- the page

BLOCKS: Final[dict[str, tuple[Callable[[dict[str, Any]], Iterator[str]], ...]]] = {
    "accuracy": (_recipes, _operators, _falsely_inside),
    "statuses": (_statuses,),
    "pairs": (_pairs,),
    "regions": (_regions,),
    "undetermined": (_undetermined,),
    "statuses of IPv6": (_statuses6,),
    "regions of IPv6": (_regions6,),
}
"""The tables between each pair of marks of the page."""


def page(text: str, figures: dict[str, Any]) -> str:
    """Return the text of the page with the tables written anew."""
    for name, blocks in BLOCKS.items():
        before, begin, rest = text.partition(BEGIN.format(name))
        _, end, after = rest.partition(END.format(name))
        if not begin or not end:
            raise SystemExit(f"{PAGE}: has no marks for the tables: {name}")
        tables = "\n".join("".join(f"{line}\n" for line in block(figures)) for block in blocks)
        text = f"{before}{begin}{tables}{end}{after}"
    return text


def main(arguments: list[str]) -> None:
    """Take the outputs that are named, and write the page."""
    if arguments:
        figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        for run, file in (argument.split("=", 1) for argument in arguments):
            output = json.loads(Path(file).read_text())
            figures[run] = output if run == "agreement" else reduced(output)
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    figures = json.loads(FIGURES.read_text())
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
