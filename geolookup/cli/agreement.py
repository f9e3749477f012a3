"""``geolookup agreement``: how far the sources of a dataset agree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.dataset import open as open_dataset
from geolookup.cli.amounts import JSON_UNITS, UNIT_NAMES, amount, size
from geolookup.cli.options import (
    complete_region_set,
    json_option,
    region_set_names,
    region_sets_option,
)
from geolookup.cli.output import Progress, printable, share, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from geolookup.review.agreement import Agreement, Amount, Region

_REGION_SETS = ("CN", "HK", "MO", "TW", "DE", "US", "EU", "EEA")


@click.command(name="agreement", short_help="Measure how far the sources agree.")
@click.argument("file", required=False, metavar="[FILE]")
@click.option(
    "-r",
    "--region-set",
    "asked",
    metavar="SET",
    multiple=True,
    callback=region_set_names,
    shell_complete=complete_region_set,
    help=f"Measure this region set; may be given again.  [default: {' '.join(_REGION_SETS)}]",
)
@region_sets_option
@json_option
def show_agreement(
    *, file: str | None, asked: tuple[str, ...], region_sets: str | None, as_json: bool
) -> None:
    """Measure how far the sources of the dataset FILE, by default the embedded one, agree.

    All of it is weighted twice: by addresses (of IPv6: by /48s), and by the intervals in
    which the dataset has them. Only routable space counts: neither special-purpose
    ranges nor IPv6 addresses that carry an IPv4 address, and of IPv6 only 2000::/3.

    \b
    Examples:
      geolookup agreement
      geolookup agreement countries.geolookup -r CN -r EEA-NO --json

    With --json: dataset, ipv4, ipv6; in each unit, routable, statuses, pairs (null where the
    dataset does not tell which source said what), region_sets.
    """
    from geolookup.review.agreement import measure  # noqa: PLC0415

    with open_dataset(file, region_sets=region_sets) as dataset, Progress("comparing") as progress:
        views = dataset.views()
        described = dataset.info()
        ipv4, ipv6 = described["ipv4_intervals"], described["ipv6_intervals"]

        def after(before: int) -> Callable[[int], None]:
            return lambda done: progress.update(before + done, ipv4 + ipv6)

        sets = asked or _REGION_SETS
        measured = (
            measure(dataset, 4, sets, views=views, progress=after(0)),
            measure(dataset, 6, sets, views=views, progress=after(ipv4)),
        )
        identity = dataset.id
    if as_json:
        click.echo(
            json.dumps(
                {"dataset": identity} | {f"ipv{one.family}": _record(one) for one in measured}
            )
        )
        return
    click.echo("\n\n".join([*(_tables(one) for one in measured), f"dataset {identity}"]))


def _tables(measured: Agreement) -> str:
    unit = UNIT_NAMES[measured.family].upper()
    routable = measured.routable

    def shown(what: Amount) -> str:
        return _shown(measured, what)

    statuses = [["STATUS", unit, "SHARE", "INTERVALS", "SHARE"]]
    statuses += [
        [
            status.name,
            shown(part),
            share(part.addresses, routable.addresses),
            f"{part.intervals:,}",
            share(part.intervals, routable.intervals),
        ]
        for status, part in measured.statuses.items()
    ]
    statuses.append(["routable", shown(routable), "", f"{routable.intervals:,}", ""])
    regions = [
        ["REGION SET", "ALL AGREE", "SPLIT", "UNCONFIRMED", f"AGREE ({unit})", "(INTERVALS)"]
    ]
    policies = [["REGION SET", "POLICY", "INSIDE", "UNDETERMINED", "OF ROUTABLE", "OF CLAIMED"]]
    for region in measured.regions:
        known = region.agreed + region.split
        regions.append(
            [
                printable(region.name),
                *map(shown, (region.agreed, region.split, region.unconfirmed)),
                share(region.agreed.addresses, known.addresses),
                share(region.agreed.intervals, known.intervals),
            ]
        )
        policies += _policies(measured, region)
    blocks = [
        f"IPv{measured.family}, in {UNIT_NAMES[measured.family]}",
        table(statuses, right=(1, 2, 3, 4)),
        _pairs(measured),
        table(regions, right=range(1, 6)),
        table(policies, right=range(2, 6)),
    ]
    return "\n\n".join(blocks)


def _pairs(measured: Agreement) -> str:
    if measured.pairs is None:
        return "The dataset does not tell which source said what: it was compiled without evidence."
    unit = UNIT_NAMES[measured.family].upper()
    rows = [["SOURCES", "", "BOTH SPEAK", "SAME COUNTRY", f"AGREE ({unit})", "(INTERVALS)"]]
    rows += [
        [
            *map(printable, pair.sources),
            _shown(measured, pair.both),
            _shown(measured, pair.same),
            share(pair.same.addresses, pair.both.addresses),
            share(pair.same.intervals, pair.both.intervals),
        ]
        for pair in measured.pairs
    ]
    return (
        table(rows, right=range(2, 6)) if measured.pairs else "There are no two sources to compare."
    )


def _policies(measured: Agreement, region: Region) -> list[list[str]]:
    from geolookup.answer.claims import Policy, Verdict  # noqa: PLC0415

    rows = []
    for policy in Policy:
        verdicts = region.verdicts[policy]
        undetermined = verdicts[Verdict.UNDETERMINED]
        rows.append(
            [
                printable(region.name),
                policy.name,
                _shown(measured, verdicts[Verdict.INSIDE]),
                _shown(measured, undetermined),
                share(undetermined.addresses, measured.routable.addresses),
                share(region.open[policy].addresses, region.claimed.addresses),
            ]
        )
    return rows


def _shown(measured: Agreement, what: Amount) -> str:
    return amount(measured.family, what.addresses)


def _record(measured: Agreement) -> dict[str, Any]:
    def record(what: Amount) -> dict[str, float]:
        return {"size": size(measured.family, what.addresses), "intervals": what.intervals}

    pairs = measured.pairs
    return {
        "unit": JSON_UNITS[measured.family],
        "routable": record(measured.routable),
        "statuses": {status.name: record(part) for status, part in measured.statuses.items()},
        "pairs": None
        if pairs is None
        else [
            {"sources": list(pair.sources), "both": record(pair.both), "same": record(pair.same)}
            for pair in pairs
        ],
        "region_sets": [
            {
                "name": region.name,
                "agreed": record(region.agreed),
                "split": record(region.split),
                "unconfirmed": record(region.unconfirmed),
                "policies": {
                    policy.name: {
                        **{verdict.name: record(part) for verdict, part in verdicts.items()},
                        "claimed_and_undetermined": record(region.open[policy]),
                    }
                    for policy, verdicts in region.verdicts.items()
                },
            }
            for region in measured.regions
        ],
    }
