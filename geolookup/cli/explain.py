"""``geolookup explain``: why an address has the answer it has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import NO_COUNTRY, read_kinds
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.derivation import derive
from geolookup.cli.options import (
    dataset_options,
    json_option,
    networks_of,
    open_answerer,
    policy_of,
    region_set_options,
    server_options,
)
from geolookup.cli.output import printable, table
from geolookup.cli.reasons import verdict_text

if TYPE_CHECKING:
    from geolookup.answer.claims import Network
    from geolookup.answer.derivation import Derivation
    from geolookup.answer.explanation import Explanation

_TIMEOUT = 5.0


@click.command(name="explain", short_help="Say why an address has its answer.")
@click.argument("address", metavar="ADDRESS")
@region_set_options
@json_option
@dataset_options
@server_options
def explain_address(
    address: str,
    region_set: str | None,
    policy: str | None,
    networks: str | None,
    as_json: bool,
    **answerer: Any,
) -> None:
    """Say why ADDRESS has the answer it has.

    How the address was read, the interval it lies in, what each source says with
    that source's own range, and which override or registry entry decided. A dataset
    that was compiled with --no-evidence knows only the interval and the votes.

    With --region-set also how the verdict follows: on which side each source's statement
    lies (IN or OUT; a source may be silent, or have no vote), and the questions that are
    asked one after another until one of them decides.

    \b
    Examples:
      geolookup explain 101.32.0.1
      geolookup explain 101.32.0.1 --region-set CN --policy majority
      geolookup explain 2002:0100:0101:: --json
    """
    chosen = policy_of(policy, region_set)
    networks = networks_of(networks, region_set)
    asked = address.encode("utf-8", "replace").decode()
    derivation = None
    with open_answerer(**answerer, default_timeout=_TIMEOUT) as source:
        explanation = source.explain(asked)
        if region_set is not None:
            answer = source.lookup(asked, region_set, chosen, networks=networks)
            if answer.dataset != explanation.dataset:  # the service was reloaded in between
                explanation = source.explain(asked)
            seen_from = source.region_sets.resolve(region_set)
            derivation = derive(
                explanation,
                answer,
                region_set,
                seen_from.codes,
                chosen,
                seen_from.partly,
                covering=() if networks else _covering(source.info()),
            )
    if as_json:
        record = {"address": address, **asdict(explanation)}
        if derivation is not None:
            record["derivation"] = asdict(derivation)
        click.echo(json.dumps({**record, "status": explanation.status.name}))
        return
    lines = list(_lines(address, explanation))
    if derivation is not None:
        lines[-1:] = [*_derived(derivation, explanation.claimed), lines[-1]]
    click.echo("\n".join(lines))


def _covering(described: dict[str, Any]) -> tuple[Network, ...]:
    """Return the kinds that cover; a dataset without lists of networks does not name them."""
    return read_kinds(described.get("covering", ()))


def _lines(address: str, why: Explanation) -> Iterator[str]:
    votes = ", ".join(f"{code} {count}" for code, count in zip(why.claimed, why.votes, strict=True))
    silent = f" ({why.abstentions} abstained)" if why.abstentions else ""
    rows = [
        ["address", printable(address)],
        ["read as", why.form if why.form != "none" else "no address"],
        ["looked up", why.looked_up],
        ["interval", _range(why.first, why.last)],
        ["country", f"{why.country} {_name(why.country)}".rstrip()],
        ["region", why.region],
        ["status", why.status.name],
        ["votes", votes + silent],
    ]
    if why.subdivision_sources is not None:
        number = why.subdivision_sources
        rows.append(["subdivisions", f"need {number} independent source{'s' * (number > 1)}"])
    for one in why.network_lists:
        kinds = ", ".join(kind.name for kind in one.kinds)
        vouches = ", says the country" if one.vouches else ""
        place = f"{printable(one.network_list)} of {one.date}{vouches}"
        rows.append(["network", f"{kinds} ({place}: {_range(one.first, one.last)})"])
    if why.networks and not why.network_lists:
        rows.append(["network", ", ".join(kind.name for kind in why.networks)])
    if why.override is not None:
        until = f", until {why.override.expires}" if why.override.expires else ""
        comment = f": {printable(why.override.comment)}" if why.override.comment else ""
        decided = f"{why.override.country}{comment}{until}"
        rows.append(["override", f"{decided} ({_range(why.override.first, why.override.last)})"])
        if why.override.file:
            rows.append(["overrides", f"number {why.override.number} of file {why.override.file}"])
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
                        view.region or view.country or "-",
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


def _derived(derivation: Derivation, claimed: Sequence[str]) -> Iterator[str]:
    yield ""
    yield table([["seen from", f"{derivation.region_set} (policy {derivation.policy.name})"]])
    if derivation.statements:
        yield ""
        rows = [["SOURCE", "SAYS", "SIDE", "COUNTS"]]
        rows += [
            [
                printable(statement.source),
                statement.country or "-",
                statement.side,
                "yes" if statement.counted else f"no vote ({statement.why})",
            ]
            for statement in derivation.statements
        ]
        yield table(rows)
    yield ""
    yield table(
        [["STEP", "FINDING"], *([step.question, step.finding] for step in derivation.steps)]
    )
    yield ""
    outcome = verdict_text(derivation.verdict, derivation.reason, claimed)
    yield table([["verdict", outcome]], verdicts=True)


def _name(code: str) -> str:
    return "" if code == NO_COUNTRY else COUNTRIES.get(code, "")


def _range(first: str, last: str) -> str:
    return f"{first} - {last}" if first else ""
