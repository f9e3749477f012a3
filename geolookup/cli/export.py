"""``geolookup export``: a dataset in the formats of other programs."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

import click

from geolookup.answer.claims import Network
from geolookup.answer.dataset import open as open_dataset
from geolookup.cli.country_code import read_country_code
from geolookup.cli.options import region_set_option, region_sets_option
from geolookup.cli.output import Progress
from geolookup.cli.output_file import STANDARD_OUTPUT, check_output, open_output, written

# As in geolookup.export, which takes a while to import.
_FORMATS = ("mmdb", "csv", "geofeed", "nftables", "parquet")
_TEXT = ("csv", "geofeed", "nftables")

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@click.command(
    name="export", short_help="Write the dataset in another format: mmdb, csv, nftables, ..."
)
@click.argument("file", required=False, metavar="[FILE]")
@click.option("-f", "--format", "format_name", type=click.Choice(_FORMATS), required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    metavar="OUT",
    required=True,
    help="The file to write. It is replaced as a whole or not at all. '-' is standard output.",
)
@click.option(
    "--disputed",
    type=click.Choice(["omit", "primary"]),
    default="omit",
    show_default=True,
    help="The country where not all sources name the same: none, or what the first source says.",
)
@click.option(
    "--code",
    "codes",
    metavar="CODE",
    multiple=True,
    callback=lambda _, param, given: tuple(read_country_code(code, param) for code in given),
    help="Only this country's addresses; may be given again. Not for mmdb.",
)
@region_set_option("Only addresses of this region set's countries, such as EEA-NO. Not for mmdb.")
@region_sets_option
@click.option(
    "--regions",
    is_flag=True,
    help="Subdivisions in place of their countries, where two independent sources name them.",
)
@click.option(
    "--network",
    "networks",
    type=click.Choice(tuple(Network.__members__), case_sensitive=False),
    multiple=True,
    metavar="KIND",
    help="Only networks of this kind, such as VPN; may be given again. mmdb is an Anonymous-IP "
    "database then, nftables has a set for each kind. Not for geofeed.",
)
@click.option("--table", metavar="NAME", help="For nftables: the table.  [default: geolookup]")
def export_dataset(
    *,
    file: str | None,
    format_name: str,
    output: str,
    disputed: Literal["omit", "primary"],
    codes: tuple[str, ...],
    region_set: str | None,
    region_sets: str | None,
    regions: bool,
    networks: tuple[str, ...],
    table: str | None,
) -> None:
    """Write the dataset FILE, by default the embedded one, in the format of other programs.

    A country stands only where all sources agree about it or an operator's override
    decides, unless you ask for --disputed primary. What each format can say, and what
    its readers answer then, is in docs/export.md.

    \b
    Examples:
      geolookup export --format mmdb -o country.mmdb
      geolookup export countries.geolookup --format csv -o countries.csv
      geolookup export --format nftables --code CN --code HK -o - | nft -f -
      geolookup export networks.geolookup -f mmdb --network VPN -o anonymous-ip.mmdb
    """
    if (codes or region_set) and format_name == "mmdb":
        option = "--code" if codes else "--region-set"
        raise click.UsageError(f"{option}: in an MMDB file the others would read as unknown")
    if region_sets is not None and region_set is None:
        raise click.UsageError("--region-sets is for --region-set")
    if networks and format_name == "geofeed":
        raise click.UsageError("--network: a geofeed has no place for what a network is used for")
    if networks and format_name == "nftables" and (codes or region_set or regions):
        raise click.UsageError(
            "--network: nftables has sets of kinds or of countries; ask for one of them"
        )
    if table is not None and format_name != "nftables":
        raise click.UsageError("--table is for nftables")
    if table is not None and _TABLE.fullmatch(table) is None:
        raise click.UsageError("--table: letters, digits and _, beginning with a letter")
    check_output(output, [file, region_sets], binary=format_name not in _TEXT)
    # Only this command needs them.
    from geolookup import export as formats  # noqa: PLC0415

    with open_dataset(file, region_sets=region_sets) as dataset:
        if networks and not dataset.network_lists:
            raise click.UsageError("--network: the dataset has no lists of networks")
        chosen: Collection[str] | None = codes or None
        if region_set is not None:
            named = dataset.region_sets.resolve(region_set)
            if named.partly and not regions:
                raise click.UsageError(
                    "--region-set: this set holds parts of countries; add --regions"
                )
            chosen = named.codes.union(codes)
        with open_output(output) as opened, Progress(f"writing {format_name}") as progress:
            formats.export(
                dataset,
                opened,
                format_name,
                disputed=disputed,
                codes=chosen,
                regions=regions,
                networks=[Network[name.upper()] for name in networks],
                table=table,
                progress=progress.update,
            )
        identity = dataset.id
    if output != STANDARD_OUTPUT:
        click.echo(f"{written(output)}\ndataset {identity}")
