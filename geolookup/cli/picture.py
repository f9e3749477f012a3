"""What all commands that draw have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from geolookup.pictures.drawing import ImageFormat

_FORMATS: Final[dict[str, ImageFormat]] = {".png": "png", ".svg": "svg"}


def picture_format(path: Path, option: str) -> ImageFormat:
    """Return the format that a file's name asks for.

    Raises:
        UsageError: none that is known, or there is no such folder.
    """
    image_format = _FORMATS.get(path.suffix.lower())
    if image_format is None:
        raise click.UsageError(f"{option}: the file's name ends in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {path.absolute().parent}")
    return image_format


@contextlib.contextmanager
def written_picture(path: Path) -> Iterator[BinaryIO]:
    """Give a file to draw into, which replaces *path* as a whole or not at all.

    The libraries for pictures take a while to import, and may not be there: they are
    imported in the block.
    """
    from geolookup.atomic import replacing  # noqa: PLC0415

    try:
        with replacing(path) as file:
            yield file
    except ModuleNotFoundError as error:
        if error.name not in ("matplotlib", "numpy"):
            raise
        raise GeoLookupError(
            f"pictures need {error.name}, which is not installed: pip install 'geolookup[map]'"
        ) from None
