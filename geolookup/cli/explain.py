"""``geolookup explain``: why an address has the answer it has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import NO_COUNTRY
from geolookup.answer.country_codes import COUNTRIES
from geolookup.cli.options import dataset_options, json_option, open_answerer, server_options
from geolookup.cli.output import printable, table

if TYPE_CHECKING:
    from geolookup.answer.explanation import Explanation

_TIMEOUT = 5.0


@click.command(name="explain", short_help="Say why an address has its answer.")
@click.argument("address", metavar="ADDRESS")
@json_option
@dataset_options
@server_options
def explain_address(address: str, as_json: bool, **answerer: Any) -> None:
    """Say why ADDRESS has the answer it has.

    How the address was read, the interval it lies in, what each source says with
    that source's own range, and which override or registry entry decided. A dataset
    that was compiled with --no-evidence knows only the interval and the votes.

    \b
    Examples:
      geolookup explain 101.32.0.1
      geolookup explain 2002:0100:0101:: --json
    """
    with open_answerer(**answerer, default_timeout=_TIMEOUT) as source:
        explanation = source.explain(address.encode("utf-8", "replace").decode())
    if as_json:
        record = {"address": address, **asdict(explanation)}
        click.echo(json.dumps({**record, "status": explanation.status.name}))
    else:
        click.echo("\n".join(_lines(address, explanation)))


def _lines(address: str, why: Explanation) -> Iterator[str]:
    votes = ", ".join(f"{code} {count}" for code, count in zip(why.claimed, why.votes, strict=True))
    silent = f" ({why.abstentions} abstained)" if why.abstentions else ""
    rows = [
        ["address", printable(address)],
        ["read as", why.form if why.form != "none" else "no address"],
        ["looked up", why.looked_up],
        ["interval", _range(why.first, why.last)],
        ["country", f"{why.country} {_name(why.country)}".rstrip()],
        ["status", why.status.name],
        ["votes", votes + silent],
    ]
    if why.override is not None:
        until = f", until {why.override.expires}" if why.override.expires else ""
        comment = f": {printable(why.override.comment)}" if why.override.comment else ""
        decided = f"{why.override.country}{comment}{until}"
        rows.append(["override", f"{decided} ({_range(why.override.first, why.override.last)})"])
    if why.special_purpose is not None:
        entry = why.special_purpose
        rows.append(["registry", f"{entry.prefix} {entry.name} {entry.rfc}"])
    yield table([row for row in rows if row[1]])
    if why.sources:
        yield ""
        yield table(
            [
                ["SOURCE", "SAYS", "", "COVERAGE", "COUNTS", "RANGE"],
                *(
                    [
                        printable(view.source),
                        view.country or "-",
                        _name(view.country) if view.country else "silent",
                        view.coverage,
                        "yes" if view.counted else "no",
                        _range(view.first, view.last),
                    ]
                    for view in why.sources
                ),
            ]
        )
    elif not why.evidence:
        yield "\nThe dataset carries no evidence: what each source said is not known."
    yield f"\ndataset {why.dataset}"


def _name(code: str) -> str:
    return "" if code == NO_COUNTRY else COUNTRIES.get(code, "")


def _range(first: str, last: str) -> str:
    return f"{first} - {last}" if first else ""
