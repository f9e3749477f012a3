"""``geolookup compile``: from sources to a dataset file."""

from __future__ import annotations

from pathlib import Path

import click

from geolookup.cli.output import Progress


@click.command(name="compile", short_help="Make a dataset file from sources.")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False), metavar="MANIFEST")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    required=True,
    help="The dataset file to write. It is replaced as a whole or not at all.",
)
@click.option(
    "--no-evidence",
    is_flag=True,
    help="Leave out what each source says, which only 'geolookup explain' needs.",
)
@click.option(
    "--lenient",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Leave out up to N lines that can't be read, of all sources together, and list them."
    " Without it the first one ends the compilation.",
)
def compile_dataset(manifest: str, output: Path, no_evidence: bool, lenient: int) -> None:
    """Compile the sources that MANIFEST (TOML) describes into a dataset file.

    The same manifest and sources give the same bytes, on every machine. What is odd
    about the sources is reported on standard error and does not stop the compilation.

    \b
    Examples:
      geolookup compile data/geolookup.toml -o countries.geolookup
      geolookup info --dataset countries.geolookup
    """
    if not output.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {output.absolute().parent}")
    # Only this command needs the compiler.
    from geolookup.answer import dataset  # noqa: PLC0415
    from geolookup.build import compiler  # noqa: PLC0415
    from geolookup.build.manifest import load  # noqa: PLC0415

    with Progress("reading") as progress:
        compiled = compiler.compile_manifest(
            load(manifest),
            progress=lambda done, total, name: progress.update(done, total, f"reading {name}"),
            lenient=lenient,
            with_evidence=not no_evidence,
        )
    for finding in compiled.findings:
        click.echo(f"geolookup: {finding}", err=True)
    identity = dataset.write(compiled, output, optional=compiled.optional)
    click.echo(f"{output}: {output.stat().st_size:,} bytes\ndataset {identity}")
