"""IPFire's ``location.db``, through its own package ``location`` (Debian: python3-location).

Networks lie in each other, and the smaller one is the more specific. A network without a
country is silence. The package is in C and reads the file as it is: take the database from
IPFire or a distribution, which check its signature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from geolookup._core import parse
from geolookup.build.readers.ranges import SILENCE
from geolookup.build.readers.source_file import ReadState, SourceFile, read_unchecked_code
from geolookup.errors import SourceError

NAME = "libloc"

_MAGIC: Final = b"LOCDBXX"
_PROGRESS_EVERY: Final = 1 << 14
"""Networks between two calls of the progress function."""
_NETWORKS: Final = 1_300_000
"""About as many as a database has."""


class Network(Protocol):
    """What of the package's networks is asked for."""

    country_code: str | None
    first_address: str
    last_address: str

    def has_flag(self, flag: int, /) -> bool:
        """Return whether the network has a flag."""


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file with this beginning has this format."""
    return head.startswith(_MAGIC)


def read(file: SourceFile, state: ReadState) -> None:
    """Add a database's ranges to a source.

    Raises:
        SourceError: the package is missing, or can't read the database.
    """
    codes: dict[str, int] = {"": SILENCE}

    def add(network: Network, first: int, last: int, bits: int) -> None:
        raw = network.country_code or ""
        number = codes.get(raw)
        if number is None:
            number = codes[raw] = read_unchecked_code(raw, file, state)
        into = state.into.ipv4 if bits == 32 else state.into.ipv6
        into.append(first, last, number, file=file.number)

    each_network(file, add)


def package(file: SourceFile) -> Any:
    """Return IPFire's package.

    Raises:
        SourceError: it is missing; the text names the way round.
    """
    try:
        import location  # noqa: PLC0415 - distributions have it, and PyPI does not
    except ImportError:
        raise SourceError(
            f"{file.name}: IPFire's database needs its package 'location' for this Python (Debian,"
            " Ubuntu: python3-location); or export it by 'location export --directory=DIR"
            " --format=list' and name the folder"
        ) from None
    return location


def each_network(file: SourceFile, add: Callable[[Network, int, int, int], None]) -> None:
    """Call *add* with each network, its first and last address, and the bits of these.

    A network comes before those inside it.

    Raises:
        SourceError: as `read`.
    """
    location = package(file)
    # The package opens a path, and the file may be in an archive.
    with file.unpacked("location.db") as path:
        try:
            for count, network in enumerate(location.Database(str(path)).networks, start=1):
                first, last = parse(network.first_address), parse(network.last_address)
                if first is None or last is None:
                    raise ValueError("no addresses")
                add(network, int.from_bytes(first), int.from_bytes(last), 8 * len(first))
                if file.on_read is not None and count % _PROGRESS_EVERY == 0:
                    file.on_read(min(file.part.size, file.part.size * count // _NETWORKS))
        # Of the package, whose errors are of many kinds.
        except (OSError, ValueError, SystemError) as error:
            raise SourceError(f"{file.name}: no IPFire database, or a damaged one") from error
