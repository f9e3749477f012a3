"""``geolookup map``: a picture of a dataset."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geolookup.answer.claims import SUBDIVISION_SOURCES
from geolookup.answer.dataset import open as open_dataset
from geolookup.answer.subdivisions import subdivisions
from geolookup.cli.country_code import read_country_code
from geolookup.cli.options import region_set_option, region_sets_option
from geolookup.cli.output_file import STANDARD_OUTPUT, written
from geolookup.cli.picture import picture_format, written_picture

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.region_sets import RegionSet
    from geolookup.pictures.subjects import Subject


@click.command(name="map", short_help="Draw the IPv4 space: countries, agreement, changes.")
@click.argument("file", required=False, metavar="[FILE]")
@click.option(
    "--code",
    metavar="CODE",
    callback=lambda _, param, given: given and read_country_code(given, param),
    help="Show one country: where all sources see it, and where only some.",
)
@region_set_option("Show a region set, such as EEA-NO, in the same way.")
@region_sets_option
@click.option(
    "--subdivisions",
    "divided",
    metavar="CODE",
    callback=lambda _, param, given: given and _divided_country(given, param),
    help="Show the subdivisions of one country, the largest in colours.",
)
@click.option(
    "--subdivision-sources",
    type=click.IntRange(1, 255),
    metavar="N",
    help="Independent sources that must tell in which part of a country an address is; 2"
    " by default.",
)
@click.option("--disputed", is_flag=True, help="Show what the sources agree about.")
@click.option("--diff", "old", metavar="OLD", help="Show what is different from this dataset.")
@click.option(
    "--resolution",
    type=click.Choice(["16", "20"]),
    default="16",
    show_default=True,
    help="The smallest square of the map is a prefix of this length.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    metavar="OUT",
    required=True,
    help="The file to write, .png or .svg. It is replaced as a whole or not at all. '-' is a PNG"
    " on standard output.",
)
def draw_map(
    *,
    file: str | None,
    code: str | None,
    region_set: str | None,
    region_sets: str | None,
    divided: str | None,
    subdivision_sources: int | None,
    disputed: bool,
    old: str | None,
    resolution: str,
    output: Path,
) -> None:
    """Draw the IPv4 space of the dataset FILE, by default the embedded one.

    The address line is laid along a Hilbert curve, so that each prefix is a square or
    half of one. Without an option the countries are shown, the largest in colours. The
    legend has the totals in addresses.

    \b
    Examples:
      geolookup map -o countries.png
      geolookup map countries.geolookup --code HK --resolution 20 -o hk.png
      geolookup map cities.geolookup --subdivisions US -o states.png
      geolookup map new.geolookup --diff old.geolookup -o changes.svg
    """
    if sum((code is not None, region_set is not None, bool(divided), disputed, bool(old))) > 1:
        raise click.UsageError(
            "--code, --region-set, --subdivisions, --disputed and --diff are different pictures;"
            " choose one"
        )
    needed = SUBDIVISION_SOURCES if subdivision_sources is None else subdivision_sources
    if region_sets is not None and region_set is None:
        raise click.UsageError("--region-sets is for --region-set")
    image_format = picture_format(
        output, "--output", [file, old, region_sets], standard_output="png"
    )
    with ExitStack() as opened:
        dataset = opened.enter_context(
            open_dataset(file, region_sets=region_sets, subdivision_sources=needed)
        )
        if divided is not None and not dataset.has_subdivisions:
            raise click.UsageError(
                '--subdivisions: the dataset has none; a source needs depth = "subdivision"'
            )
        before = None if old is None else opened.enter_context(open_dataset(old))
        found = None
        if region_set is not None:
            found = dataset.region_sets.resolve(region_set)
        elif code is not None:
            found = dataset.region_sets.resolve(code)
        with written_picture(output) as picture:
            from geolookup.pictures import drawing  # noqa: PLC0415

            subject = _subject(dataset, found, divided, disputed, before)
            drawing.draw(subject, picture, image_format, prefix_length=int(resolution))
    if str(output) != STANDARD_OUTPUT:
        click.echo(f"{written(output)}\ndataset {dataset.id}")


def _divided_country(text: str, param: click.Parameter) -> str:
    """Return the code of a country with subdivisions."""
    code = read_country_code(text, param)
    if code not in subdivisions().children:
        raise click.BadParameter(f"{code} has no subdivisions in ISO 3166-2", param=param)
    return code


def _subject(
    dataset: Dataset,
    region_set: RegionSet | None,
    divided: str | None,
    disputed: bool,
    old: Dataset | None,
) -> Subject:
    from geolookup.pictures import subjects  # noqa: PLC0415

    if divided is not None:
        return subjects.country_subdivisions(dataset, divided)
    if region_set is not None:
        return subjects.one_region_set(dataset, region_set)
    if old is not None:
        return subjects.difference(old, dataset)
    return subjects.agreement(dataset) if disputed else subjects.codes(dataset)
