"""``geolookup verify``: whether a dataset file can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.dataset import open as open_dataset
from geolookup.cli.options import json_option, public_key_option, read_part
from geolookup.cli.output import Progress, printable, share, table
from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from fractions import Fraction

    from geolookup.review.verification import Verification

_MAX_LISTED = 20
"""Failures that the error text names; --json has all."""


@click.command(name="verify", short_help="Check a dataset file: sound and plausible.")
@click.argument("file", metavar="FILE")
@click.option(
    "--canaries",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CANARIES",
    help="A file of addresses with the codes expected: CSV, or TOML; see docs/trust.md.",
)
@click.option(
    "--min-coverage",
    callback=read_part,
    metavar="SHARE",
    help="The least share of the IPv4 space that must have a country.  [default: 50%]",
)
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="MANIFEST",
    help="Take canaries and min_coverage from this manifest, unless they are given.",
)
@json_option
@public_key_option
def verify_dataset(
    *,
    file: str,
    canaries: Path | None,
    min_coverage: Fraction | None,
    manifest: Path | None,
    as_json: bool,
    public_key: str | None,
) -> None:
    """Check the dataset FILE: structure, all checksums, gaps, coverage, canaries.

    Exits with 3 if it is not sound as a file, and with 1 if it is and something speaks
    against what it says: too little coverage, or a canary with another answer than
    expected. Canaries are named by their lines.

    \b
    Examples:
      geolookup verify countries.geolookup
      geolookup verify countries.geolookup --canaries canaries.csv --min-coverage 80%

    Overrides that expired since the file was compiled are named. They still decide:
    compile again. So are a dataset that is older than its manifest allows, and sources
    whose licences forbid to keep data that old.

    With --json: dataset, sections, ipv4, ipv6, canaries, mismatched, expired_overrides, age,
    kept_too_long, failures.
    """
    # Only this command needs them.
    from geolookup.review import verification  # noqa: PLC0415
    from geolookup.review.acceptance import listed  # noqa: PLC0415

    if manifest is not None:
        from geolookup.build.manifest import load_canaries, load_limits  # noqa: PLC0415

        canaries = canaries or load_canaries(manifest)
        if min_coverage is None:
            min_coverage = load_limits(manifest).min_coverage
    known = verification.read_canaries(canaries) if canaries is not None else ()
    with open_dataset(file, public_key=public_key) as dataset, Progress("verifying") as progress:
        found = verification.verify(
            dataset,
            canaries=known,
            min_coverage=min_coverage,
            progress=progress.update,
        )
    click.echo(json.dumps(_record(found)) if as_json else _text(found))
    if found.failures:
        raise GeoLookupError(f"{file}: {listed([*map(printable, found.failures)], _MAX_LISTED)}")


def _text(found: Verification) -> str:
    rows = [["", "INTERVALS", "CODES", "WITH A COUNTRY"]]
    rows += [
        [f"IPv{one.family}", f"{one.intervals:,}", str(one.codes), share(one.answered, one.space)]
        for one in found.coverage
    ]
    matched = found.canaries - len(found.mismatched)
    facts = [
        ["checksums", f"{len(found.sections)} sections, {sum(found.sections.values()):,} bytes"],
        ["gaps", "none"],
        [
            "canaries",
            f"{matched:,} of {found.canaries:,} as expected" if found.canaries else "none",
        ],
        ["dataset", found.dataset],
    ]
    warnings = [*found.expired_overrides, *found.kept_too_long]
    if found.age is not None and found.age.is_stale:
        warnings.insert(0, f"the dataset is too old: {found.age}")
    facts += [["warning", printable(str(one))] for one in warnings]
    return f"{table(rows, right=(1, 2, 3))}\n\n{table(facts)}"


def _record(found: Verification) -> dict[str, Any]:
    return {
        "dataset": found.dataset,
        "sections": found.sections,
        **{
            f"ipv{one.family}": {
                "intervals": one.intervals,
                "codes": one.codes,
                "coverage": float(one.share),
                "statuses": {
                    status.name: float(size / one.space) for status, size in one.statuses.items()
                },
            }
            for one in found.coverage
        },
        "canaries": found.canaries,
        "mismatched": [
            {
                "line": one.canary.line,
                "expected": one.canary.expected,
                "expected_networks": None
                if one.canary.networks is None
                else [kind.name for kind in one.canary.networks],
                "country": one.country,
                "status": one.status.name,
                "networks": [kind.name for kind in one.networks],
            }
            for one in found.mismatched
        ],
        "expired_overrides": [one.as_json() for one in found.expired_overrides],
        "age": found.age and found.age.as_json(),
        "kept_too_long": [one.as_json() for one in found.kept_too_long],
        "failures": list(found.failures),
    }
