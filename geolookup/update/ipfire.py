"""IPFire's database, which IPFire publishes in a binary format of its own only.

IPFire's tool ``location`` (Debian package ``location``) checks the database's signature
and writes it as lists, one per country and family: ``DEv4.networks``.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from io import BufferedRandom
from pathlib import Path
from typing import Final

from geolookup.update.plausibility import blocks
from geolookup.update.problems import UpdateError

TOOL: Final = "location"

_SECONDS: Final = 1800.0
"""An export took two minutes on a machine that was busy otherwise."""


def tool() -> str:
    """Return the path of the tool.

    Raises:
        UpdateError: it is not installed.
    """
    found = shutil.which(TOOL)
    if found is None:
        raise UpdateError(
            "IPFire publishes a binary database only, which its own tool exports: install "
            f"'{TOOL}' (Debian, Ubuntu: apt install location), or leave this source out"
        )
    return found


def export(program: str, database: BufferedRandom, name: str, folder: Path) -> None:
    """Write a database as lists.

    Args:
        program: the tool.
        database: the file as published, compressed.
        name: its name, which says how.
        folder: where the lists go, all at once; there is none yet.

    Raises:
        UpdateError: the signature is not IPFire's, or the tool failed.
    """
    with tempfile.TemporaryDirectory(prefix=".geolookup-", dir=folder.parent) as place:
        plain = Path(place, "location.db")
        with plain.open("wb") as file:
            file.writelines(blocks(database, name))
        lists = Path(place, "lists")
        lists.mkdir()
        _run([program, "--database", str(plain), "verify"], "its signature is not IPFire's")
        _run(
            [program, "--database", str(plain), "export", "--directory", str(lists)],
            f"'{TOOL} export' failed",
        )
        if not any(path.stat().st_size for path in lists.iterdir()):
            raise UpdateError(f"'{TOOL} export' wrote no lists")
        lists.rename(folder)


def _run(command: list[str], failure: str) -> None:
    # Its messages may be in any language and hold anything; its exit code says what counts.
    try:
        subprocess.run(  # noqa: S603 - the tool that `tool` found
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise UpdateError(f"'{TOOL}' did not end within {_SECONDS:g} s") from error
    except (subprocess.CalledProcessError, OSError) as error:
        raise UpdateError(failure) from error
