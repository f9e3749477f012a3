"""What all commands that draw have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from geolookup.cli.output_file import STANDARD_OUTPUT, check_output, open_output
from geolookup.errors import MissingExtraError

if TYPE_CHECKING:
    from geolookup.pictures.charts import ImageFormat

_FORMATS: Final[dict[str, ImageFormat]] = {".png": "png", ".svg": "svg"}


def picture_format(
    path: Path,
    option: str,
    inputs: Iterable[str | Path | None] = (),
    *,
    standard_output: ImageFormat | None = None,
) -> ImageFormat:
    """Return the format that a file's name asks for.

    Args:
        path: the file, or "-".
        option: the option that names it.
        inputs: files that the command reads; none of them may be the picture.
        standard_output: the format for "-"; None: "-" is refused.

    Raises:
        UsageError: no known format, there is no such folder, or the file is an input.
    """
    if str(path) == STANDARD_OUTPUT:
        image_format = standard_output
    else:
        image_format = _FORMATS.get(path.suffix.lower())
    if image_format is None:
        raise click.UsageError(f"{option}: the file's name ends in .png or .svg")
    check_output(path, inputs, option=option, binary=True)
    return image_format


@contextlib.contextmanager
def written_picture(path: Path) -> Iterator[BinaryIO]:
    """Give a file to draw into, which replaces *path* as a whole or not at all.

    The libraries for pictures take a while to import, and may not be there: they are
    imported in the block.
    """
    try:
        with open_output(path) as file:
            yield file
    except ModuleNotFoundError as error:
        if error.name not in ("matplotlib", "numpy"):
            raise
        raise MissingExtraError("pictures", error.name, "map") from None
