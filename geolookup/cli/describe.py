"""``geolookup info`` and ``geolookup region-sets``: what the answers are made from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.age import Age, KeptSource
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.region_sets import RegionSets
from geolookup.cli.options import (
    complete_region_set,
    connect,
    dataset_options,
    json_option,
    open_answerer,
    region_set_names,
    region_sets_option,
    server_options,
)
from geolookup.cli.output import printable, table
from geolookup.service.rpc.transports import build

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geolookup.answer.region_sets import RegionSet
    from geolookup.cli.connection import Connection

_TIMEOUT = 5.0


@click.command(name="info", short_help="Describe the dataset: id, date, sources, licences.")
@json_option
@dataset_options
@server_options
def show_info(as_json: bool, **answerer: Any) -> None:
    """Describe the dataset that answers: its id, when it was built, from what.

    Lists of networks are named with their kinds, and the kinds that hide where their users
    are as "covering". The attributions are what the licences ask you to show. With --json
    everything is one object. The last line says how `geolookup serve` takes calls
    here.

    \b
    Examples:
      geolookup info
      geolookup info --server 127.0.0.1:50051 --json
    """
    with open_answerer(**answerer, default_timeout=_TIMEOUT) as source:
        described = source.info()
    if as_json:
        click.echo(json.dumps(described))
        return
    _print_info(described)
    if answerer["connection"] is None:
        click.echo(f"\ntransport  {build.description()}")


def _subdivisions_row(described: dict[str, Any]) -> list[list[str]]:
    number = described.get("subdivision_sources")
    if number is None:
        return []
    deep = [one["name"] for one in described["sources"] if one.get("depth") == "subdivision"]
    named = ", ".join(map(printable, deep)) or "overrides alone"
    return [["subdivisions", f"of {named}; {number} must tell"]]


def _covering_row(described: dict[str, Any]) -> list[list[str]]:
    kinds = described.get("covering")  # not without lists of networks
    return [] if kinds is None else [["covering", printable(", ".join(kinds) or "none")]]


def _network_lists(described: dict[str, Any]) -> list[str]:
    rows = [["NETWORKS", "DATE", "LICENCE", "KINDS", "VOUCHES", "RANGES"]]
    for one in described.get("networks", ()):
        kinds = ", ".join(one["kinds"]) or "as the list says"
        texts = [printable(text) for text in (one["name"], one["date"], one["licence"], kinds)]
        rows.append([*texts, "yes" if one["vouches"] else "no", f"{one['ranges']:,}"])
    return [table(rows, right=(5,))] if len(rows) > 1 else []


def _print_info(described: dict[str, Any]) -> None:
    rows = [["SOURCE", "DATE", "LICENCE", "COVERAGE", "ORIGIN", "RANGES"]]
    for source in described["sources"]:
        texts = [str(source[key]) for key in ("name", "date", "licence", "coverage", "origin")]
        rows.append([*map(printable, texts), f"{source['ranges']:,}"])
    facts = [
        ["dataset", described["id"]],
        ["built", described["built"]],
        *_age_row(described),
        ["IPv4", f"{described['ipv4_intervals']:,} intervals"],
        ["IPv6", f"{described['ipv6_intervals']:,} intervals"],
        ["claims", f"{described['claims']:,}"],
        *_subdivisions_row(described),
        *_covering_row(described),
    ]
    blocks = [table(facts), table(rows, right=(5,)), *_network_lists(described)]
    expired = described.get("expired_overrides")  # a service says so in its status
    if expired:
        rows = [["EXPIRED OVERRIDE", "LAST DAY", "COMMENT"]]
        rows += [[str(one["number"]), one["expires"], printable(one["comment"])] for one in expired]
        blocks.append(table(rows))
    kept = [KeptSource(**one) for one in described.get("kept_too_long", ())]
    if kept:
        blocks.append("\n".join(f"warning: {printable(str(one))}" for one in kept))
    if described["attributions"]:
        blocks.append("\n".join(printable(text) for text in described["attributions"]))
    click.echo("\n\n".join(blocks))


def _age_row(described: dict[str, Any]) -> list[list[str]]:
    age = described.get("age")  # not of a service that is older than this
    if age is None:
        return []
    known = Age(**{name: age[name] for name in ("days", "max_age", "stale", "is_stale")})
    return [["age", printable(str(replace(known, stale_sources=tuple(age["stale_sources"]))))]]


@click.command(name="region-sets", short_help="List the region sets, or what is in one.")
@click.argument(
    "expressions",
    metavar="[SET]...",
    nargs=-1,
    callback=region_set_names,
    shell_complete=complete_region_set,
)
@click.option("--members", is_flag=True, help="Write the codes of each SET alone, one a line.")
@json_option
@region_sets_option
@server_options
def show_region_sets(
    expressions: tuple[str, ...],
    members: bool,
    as_json: bool,
    region_sets: str | None,
    connection: Connection | None,
) -> None:
    """List the named region sets, or show which countries are in each SET.

    A SET is a country code, a subdivision (UA/43), a set's name, or several joined by + and -,
    worked from left to right. Codes are sets of themselves and are not listed.

    \b
    Examples:
      geolookup region-sets
      geolookup region-sets EU_IN_FULL --members
      geolookup region-sets EEA-NO DE+AT+CH
      geolookup region-sets --region-sets sets.toml --json

    With --json each set is a line: name, codes, version, source.
    """
    if members and (as_json or not expressions):
        raise click.UsageError("--members is for a SET, without --json")
    if connection is not None:
        if expressions or region_sets is not None:
            raise click.UsageError("--server lists its own named sets; leave out SET and FILE")
        with connect(connection, _TIMEOUT) as client:
            listed: Iterable[RegionSet] = client.region_sets
    else:
        known = RegionSets.load(region_sets) if region_sets else RegionSets.builtin()
        listed = [known.resolve(text) for text in expressions] if expressions else known
    if as_json:
        for region_set in listed:
            click.echo(json.dumps(_record(region_set)))
    elif members:
        for region_set in listed:
            click.echo("\n".join(sorted(region_set.codes)))
    elif expressions:
        click.echo("\n\n".join(map(_in_full, listed)))
    else:
        rows = [["SET", "COUNTRIES", "VERSION", "SOURCE"]]
        rows += [
            [one.name, str(len(one.codes)), printable(one.version), printable(one.source)]
            for one in listed
        ]
        click.echo(table(rows, right=(1,)))


def _record(region_set: RegionSet) -> dict[str, object]:
    return {
        "name": region_set.name,
        "codes": sorted(region_set.codes),
        "version": region_set.version,
        "source": region_set.source,
    }


def _in_full(region_set: RegionSet) -> str:
    countries = sum(len(code) == 2 for code in region_set.codes)
    parts = len(region_set.codes) - countries
    counts = [f"{countries} {'country' if countries == 1 else 'countries'}"] * (countries > 0)
    counts += [f"{parts} subdivision{'s' * (parts > 1)}"] * (parts > 0)
    lines = [f"{region_set.name}: {', '.join(counts)}"]
    lines += [
        f"  {code}  {COUNTRIES.get(code[:2], '')}".rstrip() for code in sorted(region_set.codes)
    ]
    lines += [f"  {text}" for text in (region_set.version, region_set.source) if text]
    return "\n".join(map(printable, lines))
