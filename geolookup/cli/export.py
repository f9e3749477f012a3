"""``geolookup export``: a dataset in the formats of other programs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal

import click

from geolookup.answer.claims import Network
from geolookup.answer.dataset import open as open_dataset
from geolookup.cli.country_code import read_country_code
from geolookup.cli.options import region_set_option, region_sets_option
from geolookup.cli.output import Progress
from geolookup.cli.output_file import STANDARD_OUTPUT, check_output, open_output, written

# As in geolookup.export, which takes a while to import.
_FORMATS = (
    "mmdb",
    "csv",
    "prefixes",
    "parquet",
    "geofeed",
    "nftables",
    "ipset",
    "haproxy",
    "nginx",
)
_BINARY = ("mmdb", "parquet")
_SETS = ("nftables", "ipset")


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
    "database then; nftables, ipset, haproxy and nginx have kinds in place of countries. Not for "
    "geofeed.",
)
@click.option("--table", metavar="NAME", help="For nftables: the table.  [default: geolookup]")
@click.option(
    "--database-type",
    metavar="NAME",
    help="For mmdb: the name by which readers know the kind of database, such as GeoIP2-Country, "
    "without which geoip2-golang opens none.  [default: geolookup-Country]",
)
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
    database_type: str | None,
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
      geolookup export --format haproxy --region-set EU -o eu.map
      geolookup export networks.geolookup -f mmdb --network VPN -o anonymous-ip.mmdb
    """
    if (codes or region_set) and format_name == "mmdb":
        option = "--code" if codes else "--region-set"
        raise click.UsageError(f"{option}: in an MMDB file the others would read as unknown")
    if region_sets is not None and region_set is None:
        raise click.UsageError("--region-sets is for --region-set")
    if networks and format_name == "geofeed":
        raise click.UsageError("--network: a geofeed has no place for what a network is used for")
    if networks and format_name in _SETS and (codes or region_set or regions):
        raise click.UsageError(
            f"--network: {format_name} has sets of kinds or of countries; ask for one of them"
        )
    if table is not None and format_name != "nftables":
        raise click.UsageError("--table is for nftables")
    if database_type is not None and format_name != "mmdb":
        raise click.UsageError("--database-type is for mmdb")
    check_output(output, [file, region_sets], binary=format_name in _BINARY)
    # Only this command needs them.
    from geolookup import export as formats  # noqa: PLC0415
    from geolookup.export import names  # noqa: PLC0415

    if table is not None:
        with _usage_errors("--table"):
            names.check_table(table)
    if database_type is not None:
        with _usage_errors("--database-type"):
            names.check_database_type(database_type, only_networks=bool(networks))
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
                database_type=database_type,
                progress=progress.update,
            )
        identity = dataset.id
    if output != STANDARD_OUTPUT:
        click.echo(f"{written(output)}\ndataset {identity}")


@contextmanager
def _usage_errors(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
