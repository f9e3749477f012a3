"""``geolookup update``: from the publishers' newest files to a dataset in service."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from geolookup.cli.diff import read_limits
from geolookup.cli.options import read_part
from geolookup.cli.output import Progress, printable, table
from geolookup.cli.output_file import check_output
from geolookup.errors import MissingExtraError

if TYPE_CHECKING:
    from fractions import Fraction

    from geolookup.build.compiler import CompiledDataset
    from geolookup.build.manifest import Manifest
    from geolookup.update import Catalogue, Check, Publisher, RefreshedSource

_EPILOG = """\b
Exit codes:
  0  the dataset was replaced, or nothing was new
  1  a download failed or was not plausible, or the new dataset was refused: nothing was replaced
  2  usage: a wrong option or argument
  3  the dataset file that is there is damaged
"""


@click.command(
    name="update",
    short_help="Download the publishers' newest files and replace a dataset.",
    epilog=_EPILOG,
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--dataset",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="The dataset file to replace, or to make.  [default: only download]",
)
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Compile what this manifest describes. It names downloaded files as the catalogue does; "
    "just the sources that it uses are downloaded.",
)
@click.option(
    "--max-change",
    metavar="CODE=SHARE",
    multiple=True,
    help="Refuse a dataset in which the code changed by more, as 'geolookup diff' says; may be "
    "given again. It wins over the manifest's [limits].",
)
@click.option(
    "--min-coverage",
    callback=read_part,
    metavar="SHARE",
    help="Refuse a dataset that has a country for a smaller share of the IPv4 space, as "
    "'geolookup verify' says.  [default: 50%]",
)
@click.option(
    "--canaries",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Refuse a dataset that has other codes for these addresses, as 'geolookup verify' says.",
)
@click.option(
    "--no-evidence",
    is_flag=True,
    help="Leave out what each source says, which only 'geolookup explain' needs.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the downloads are kept.  [default: geolookup in the user's cache folder]",
)
@click.option(
    "--catalogue",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to download what, instead of the built-in catalogue: for mirrors.",
)
@click.option(
    "--show-catalogue", is_flag=True, help="Print the built-in catalogue (TOML) and exit."
)
def update_dataset(
    *,
    sources: tuple[str, ...],
    dataset: Path | None,
    manifest: Path | None,
    max_change: tuple[str, ...],
    min_coverage: Fraction | None,
    canaries: Path | None,
    no_evidence: bool,
    cache: Path | None,
    catalogue: Path | None,
    show_catalogue: bool,
) -> None:
    """Download the newest files of each SOURCE and replace a dataset with what they make.

    The sources are dbip, registry, iptoasn and ipfire; the first that speaks of an address
    names its country. Without SOURCE they are dbip and registry, which the embedded
    dataset is made of. A download that fails or is not plausible replaces nothing, and
    neither does a dataset that is refused. Files that did not change are not sent again.
    What each source's licence asks for is said on standard error.

    \b
    Examples:
      geolookup update --dataset countries.geolookup
      geolookup update dbip registry iptoasn --dataset countries.geolookup
      geolookup update --manifest geolookup.toml --dataset countries.geolookup
      geolookup update --max-change '*=20%' --dataset countries.geolookup
    """
    refresher = _imported()
    if show_catalogue:
        click.echo(refresher.builtin_text(), nl=False)
        return
    if manifest is not None and sources:
        raise click.UsageError("SOURCE and --manifest: the manifest says which sources are used")
    if dataset is None and (max_change or min_coverage is not None or canaries):
        raise click.UsageError("what a dataset is refused for needs --dataset")
    if dataset is not None:
        check_output(dataset, [manifest, canaries, catalogue], option="--dataset")
    check = _check(manifest, max_change, min_coverage, canaries)
    publishers = _publishers(refresher.load(catalogue), sources, manifest)
    if dataset is not None:
        refresher.id_of(dataset)  # one that is damaged is better known before the downloads
    for publisher in publishers:
        click.echo(f"{publisher.name}: {printable(publisher.notice.strip())}", err=True)
    with refresher.Cache(cache or _default_cache()) as entered, Progress("") as progress:
        refreshed = refresher.refresh(
            publishers,
            entered,
            today=datetime.now(UTC).date(),
            on_progress=lambda name, done, total: progress.update(done, total or 0, name),
        )
        progress.finish()
        click.echo(table(_rows(refreshed)))
        if manifest is None:
            manifest = refresher.write_manifest(refreshed, entered)
        if dataset is None:
            click.echo(f"manifest  {manifest}")
            return
        described = refresher.load_manifest(manifest, refreshed)
        outcome = refresher.replace(
            dataset, lambda: _compiled(described, progress, not no_evidence), checks=[check]
        )
    new = "nothing new" if outcome.id == outcome.before else f"{dataset.stat().st_size:,} bytes"
    click.echo(f"{dataset}: {new}\ndataset {outcome.id}")


def _imported() -> ModuleType:
    """Import the package, which needs a library that others don't."""
    try:
        from geolookup import update as refresher  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "urllib3":
            raise
        raise MissingExtraError("update", "urllib3", "update") from None
    return refresher


def _default_cache() -> Path:
    # XDG Base Directory Specification; what is not absolute does not count.
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".cache") / "geolookup"


def _check(
    manifest: Path | None,
    max_change: tuple[str, ...],
    min_coverage: Fraction | None,
    canaries: Path | None,
) -> Check:
    """Return the check of a new dataset; what is given here wins over the manifest's limits."""
    from geolookup.build.manifest import load_canaries, load_limits  # noqa: PLC0415
    from geolookup.change_limits import ChangeLimits  # noqa: PLC0415
    from geolookup.review.verification import read_canaries  # noqa: PLC0415
    from geolookup.update import acceptance  # noqa: PLC0415

    limits = ChangeLimits() if manifest is None else load_limits(manifest)
    if canaries is None and manifest is not None:
        canaries = load_canaries(manifest)
    return acceptance(
        ChangeLimits(
            max_change={**limits.max_change, **read_limits(max_change)},
            min_coverage=limits.min_coverage if min_coverage is None else min_coverage,
        ),
        () if canaries is None else read_canaries(canaries),
    )


def _publishers(
    catalogue: Catalogue, sources: tuple[str, ...], manifest: Path | None
) -> tuple[Publisher, ...]:
    """Return the publishers that are asked."""
    from geolookup.update import UpdateError, used_by  # noqa: PLC0415

    if manifest is None:
        try:
            return catalogue.chosen(sources)
        except UpdateError as error:
            raise click.UsageError(str(error)) from None
    publishers = used_by(manifest, catalogue)
    if not publishers:
        raise UpdateError(f"{manifest}: names no file of the catalogue; use 'geolookup compile'")
    return publishers


def _rows(refreshed: tuple[RefreshedSource, ...]) -> list[tuple[str, ...]]:
    return [
        (
            one.publisher.name,
            download.file.name,
            str(download.version.date),
            "new" if download.new else "unchanged",
        )
        for one in refreshed
        for download in one.downloads
    ]


def _compiled(manifest: Manifest, progress: Progress, with_evidence: bool) -> CompiledDataset:
    from geolookup.build.compiler import compile_manifest  # noqa: PLC0415

    compiled = compile_manifest(
        manifest,
        progress=lambda done, total, name: progress.update(done, total, f"reading {name}"),
        with_evidence=with_evidence,
    )
    progress.finish()
    for finding in compiled.findings:
        click.echo(f"geolookup: {finding}", err=True)
    return compiled
