"""``geolookup sign``: a signature beside a dataset file."""

from __future__ import annotations

import click

from geolookup.answer.dataset import open as open_dataset
from geolookup.cli.output_file import check_output, open_output


@click.command(name="sign", short_help="Sign a dataset file.")
@click.argument("file", metavar="FILE")
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False),
    metavar="KEY",
    required=True,
    help="An Ed25519 private key: PKCS #8 in PEM, without a passphrase.",
)
def sign_dataset(file: str, key: str) -> None:
    """Sign the dataset FILE: write FILE.sig, which is replaced as a whole or not at all.

    The signature is over the dataset's id, which pins every byte of the file; all of the
    file is held against it first. With --public-key the other commands accept only
    signed datasets. docs/trust.md says how keys are made and replaced.

    \b
    Examples:
      openssl genpkey -algorithm ed25519 -out key.pem
      openssl pkey -in key.pem -pubout -out public.pem
      geolookup sign countries.geolookup --key key.pem
      geolookup info --dataset countries.geolookup --public-key public.pem
    """
    # Only this command needs it.
    from geolookup.answer import signature  # noqa: PLC0415

    path = f"{file}{signature.SUFFIX}"
    check_output(path, [key], option="FILE")
    with open_dataset(file) as dataset:
        dataset.check_sections()
        identity = dataset.id
    content = signature.sign(identity, key)
    with open_output(path) as written:
        written.write(content)
    click.echo(f"{path}: signed\ndataset {identity}")
