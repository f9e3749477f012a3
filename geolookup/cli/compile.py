"""``geolookup compile``: from sources to a dataset file."""

from __future__ import annotations

import click

from geolookup.cli.output import Progress
from geolookup.cli.output_file import STANDARD_OUTPUT, check_output, written


@click.command(name="compile", short_help="Make a dataset file from sources.")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False), metavar="MANIFEST")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    metavar="FILE",
    required=True,
    help="The dataset file to write. It is replaced as a whole or not at all. '-' is standard "
    "output.",
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
def compile_dataset(manifest: str, output: str, no_evidence: bool, lenient: int) -> None:
    """Compile the sources that MANIFEST (TOML) describes into a dataset file.

    The same manifest and sources give the same bytes, on every machine. What is odd
    about the sources is reported on standard error and does not stop the compilation.

    \b
    Examples:
      geolookup compile data/geolookup.toml -o countries.geolookup
      geolookup info --dataset countries.geolookup
    """
    check_output(output, [manifest], binary=True)
    # Only this command needs the compiler.
    from geolookup.answer import dataset  # noqa: PLC0415
    from geolookup.build import compiler  # noqa: PLC0415
    from geolookup.build.manifest import load  # noqa: PLC0415

    described = load(manifest)
    check_output(output, described.files())
    with Progress("reading") as progress:
        compiled = compiler.compile_manifest(
            described,
            progress=lambda done, total, name: progress.update(done, total, f"reading {name}"),
            lenient=lenient,
            with_evidence=not no_evidence,
        )
    for finding in compiled.findings:
        click.echo(f"geolookup: {finding}", err=True)
    if output == STANDARD_OUTPUT:
        click.echo(dataset.encode(compiled, optional=compiled.optional), nl=False)
        return
    identity = dataset.write(compiled, output, optional=compiled.optional)
    click.echo(f"{written(output)}\ndataset {identity}")
