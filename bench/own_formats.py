"""The same data in the file formats that IP2Location and GeoIP2Fast alone read.

Both formats are simple, and each is written here as its reader wants it, with the index that
makes it fast. As with MMDB, a file is kept under the dataset's id; see `bench.mmdb`.
"""

from __future__ import annotations

import gzip
import pickle
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.intervals import merged, prefixes, read_intervals
from bench.mmdb import cached
from geolookup.answer.dataset import Dataset

NOWHERE = "-"
"""How IP2Location's files say that there is no country."""

GEOIP2FAST_PRIVATE = 16
"""The first names in GeoIP2Fast's list are those of private networks."""
GEOIP2FAST_CHUNK = 2000
"""Networks in each of GeoIP2Fast's lists; its own files hold about as many."""


def ip2location_of(dataset: Dataset) -> Path:
    """Return the path of the dataset's BIN file; writes it if it isn't there yet."""
    return cached(dataset, ".bin", write_ip2location)


def write_ip2location(dataset: Dataset, path: Path) -> None:
    """Write the countries of a dataset as an IP2Location BIN file of type 1.

    Numbers are little-endian, offsets in the header count from 1. Behind the header stand, for
    each family, an index with the first and the last row of each /16, and the rows: first address
    and where the country's name is. A row ends where the next begins.
    """
    lines = {version: merged(read_intervals(dataset, version)) for version in (4, 6)}
    index = 8 << 16
    rows = {4: 64 + 2 * index, 6: 0}
    rows[6] = rows[4] + 8 * (len(lines[4][0]) + 1)
    names = rows[6] + 20 * (len(lines[6][0]) + 1)
    places: dict[str, int] = {}
    texts = bytearray()
    for country in sorted({*lines[4][1], *lines[6][1]}):
        places[country] = names + len(texts)
        name = NOWHERE if country == "ZZ" else country
        # The code, and in the same place for all, three bytes on, the name.
        texts += bytes([len(name)]) + name.encode().ljust(2, b"\0")
        texts += bytes([len(name)]) + name.encode()
    texts += bytes(256)  # the reader takes as much, whatever a text's length
    with path.open("wb") as file:
        header = (1, 2, 20, 1, 1, len(lines[4][0]), rows[4] + 1, len(lines[6][0]), rows[6] + 1)
        file.write(struct.pack("<5B6I2B", *header, 65, 65 + index, 1, 0).ljust(64, b"\0"))
        for version, (first, _) in lines.items():
            file.write(_index(first, 32 if version == 4 else 128))
        for version, (first, countries) in lines.items():
            size = version if version == 4 else 16
            last = (1 << 8 * size) - 1
            for start, country in zip([*first, last], [*countries, countries[-1]], strict=True):
                file.write(start.to_bytes(size, "little") + struct.pack("<I", places[country]))
        file.write(texts)


def _index(first: list[int], bits: int) -> bytes:
    heads = [value >> (bits - 16) for value in first]
    rows = array("I")
    row = 0
    for head in range(1 << 16):
        while row + 1 < len(first) and first[row + 1] <= head << (bits - 16):
            row += 1
        low = row
        while row + 1 < len(first) and heads[row + 1] == head:
            row += 1
        rows.extend((low, row))
    return rows.tobytes()


def geoip2fast_of(dataset: Dataset) -> Path:
    """Return the path of the dataset's file for GeoIP2Fast; writes it if it isn't there yet."""
    return cached(dataset, ".dat.gz", write_geoip2fast)


def write_geoip2fast(dataset: Dataset, path: Path) -> None:
    """Write the countries of a dataset as a file of GeoIP2Fast, with countries only.

    It is a pickle of lists of networks, IPv4's numbers before IPv6's: first addresses, numbers
    of countries and prefix lengths, each cut in chunks, with the first address of each chunk.
    """
    networks = [network for version in (4, 6) for network in prefixes(dataset, version)]
    codes = sorted({country for *_, country in networks})
    numbers = {code: GEOIP2FAST_PRIVATE + at for at, code in enumerate(codes)}
    # As its own files begin; what comes before the first network would get the last one's country.
    networks.insert(0, (0, 8, "ZZ"))
    numbers["ZZ"] = 0
    names = [f"{at:02}:private" for at in range(GEOIP2FAST_PRIVATE)]
    names += [f"{code}:{code}" for code in codes]

    def chunks(of: Callable[[tuple[int, int, str]], int]) -> list[list[int]]:
        values = [of(network) for network in networks]
        step = GEOIP2FAST_CHUNK
        return [values[at : at + step] for at in range(0, len(values), step)]

    first = chunks(lambda network: network[0])
    database: list[Any] = [
        [chunk[0] for chunk in first],
        names,
        first,
        chunks(lambda network: numbers[network[2]]),
        chunks(lambda network: network[1]),
    ]
    source = {"info": "geolookup bench", "country": True, "city": False, "asn": False}
    with gzip.open(path, "wb", compresslevel=1) as file:
        pickle.dump((120, source, len(networks), database), file)
