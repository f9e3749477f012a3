"""``geolookup lookup``: one answer an address."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import NO_COUNTRY, Policy
from geolookup.answer.country_codes import COUNTRIES
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
from geolookup.cli.records import RecordFile

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.results import Answer
    from geolookup.client import Client

_TIMEOUT = 5.0
_ROWS = 1_000
"""Rows that are aligned together, and held."""


@click.command(name="lookup", short_help="Answer for single addresses.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@region_set_options
@json_option
@dataset_options
@server_options
def lookup_addresses(
    addresses: tuple[str, ...],
    region_set: str | None,
    policy: str | None,
    networks: str | None,
    as_json: bool,
    **answerer: Any,
) -> None:
    """Say in which country each ADDRESS is, and why that can be said.

    Other users of a machine can see the arguments of its commands. With "-" the
    addresses are read from standard input, one a line (blank lines and
    lines that begin with # are skipped); with --json each is answered as it comes.

    \b
    Examples:
      geolookup lookup 1.0.1.1 2001:db8::1
      geolookup lookup 1.0.1.1 --region-set CN --json
      geolookup lookup - --server 127.0.0.1:50051 < addresses.txt

    With --json each answer is a line: address, country (ZZ: none), status, claimed
    (all codes claimed, where the sources disagree), dataset; region, where the sources name
    the same subdivision; with --region-set also verdict and reason (DECIDED, or why there is
    no verdict).
    """
    chosen = policy_of(policy, region_set)
    networks = networks_of(networks, region_set)
    with open_answerer(**answerer, default_timeout=_TIMEOUT) as source:
        answers = _answers(source, _all(addresses), region_set, chosen, networks)
        if as_json:
            for address, answer in answers:
                click.echo(json.dumps(_record(address, answer)))  # and flushes
        else:
            _show(answers)


def _all(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            with RecordFile("-") as file:
                yield from file.addresses()
        else:
            yield argument


def _answers(
    source: Dataset | Client,
    addresses: Iterable[str],
    region_set: str | None,
    policy: Policy,
    networks: str | None,
) -> Iterator[tuple[str, Answer]]:
    for argument in addresses:
        # Bytes that are no UTF-8 can't travel; as "?" they are as little of an address.
        address = argument.encode("utf-8", "replace").decode()
        yield argument, source.lookup(address, region_set, policy, networks=networks)


def _record(address: str, answer: Answer) -> dict[str, object]:
    record: dict[str, object] = {
        "address": address,
        "country": answer.country,
        **({"region": answer.region} if answer.region else {}),
        "status": answer.status.name,
        "claimed": list(answer.claimed),
    }
    if answer.verdict is not None:
        record["verdict"] = answer.verdict.name
    if answer.reason is not None:
        record["reason"] = answer.reason.name
    record["networks"] = [network.name for network in answer.networks]
    record["dataset"] = answer.dataset
    return record


def _show(answers: Iterator[tuple[str, Answer]]) -> None:
    """Print tables of some rows each: standard input may have any number of addresses."""
    widths: list[int] | None = None
    networks = False
    datasets: dict[str, None] = {}
    while some := list(islice(answers, _ROWS)):
        verdicts = some[0][1].verdict is not None
        if widths is None:  # a table has the columns of its first part
            networks = any(answer.networks for _, answer in some)
        heading = ["ADDRESS", "COUNTRY", "", "STATUS", "CLAIMED"]
        heading += [*["NETWORKS"] * networks, *["VERDICT"] * verdicts]
        rows = [] if widths else [heading]
        rows += [_row(address, answer, networks) for address, answer in some]
        click.echo(table(rows, widths=widths, verdicts=True))
        widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
        datasets.update(dict.fromkeys(answer.dataset for _, answer in some))
    for dataset in datasets:
        click.echo(f"\ndataset {dataset}")


def _row(address: str, answer: Answer, networks: bool) -> list[str]:
    verdict = answer.verdict
    return [
        printable(address),
        answer.region or answer.country,
        "" if answer.country == NO_COUNTRY else COUNTRIES.get(answer.country, ""),
        answer.status.name,
        " ".join(answer.claimed) or "-",
        *[" ".join(network.name for network in answer.networks) or "-"] * networks,
        *([] if verdict is None else [verdict_text(verdict, answer.reason, answer.claimed)]),
    ]
