"""Datasets to reload, and files that are none."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import small_dataset

from chaos.subject import PACKED
from geolookup.answer.claims import Claim, Status
from geolookup.answer.dataset import EMBEDDED, encode
from geolookup.answer.file_format import HEADER_SIZE, ClaimTable, Image, read_metadata
from geolookup.answer.intervals import covering_ipv4

COUNTRY: Final = "CN"
"""Of `ADDRESS`, in a dataset that nobody has changed."""
_OTHER: Final = "DE"


@dataclass(frozen=True)
class Version:
    """A dataset.

    Attributes:
        content: its file's.
        id: by which answers name it.
        country: of `ADDRESS`.
    """

    content: bytes
    id: str
    country: str

    @classmethod
    def of(cls, content: bytes, country: str) -> Version:
        """Return the dataset that a file is."""
        return cls(content, Image(memoryview(content), "dataset").id, country)


@functools.cache
def versions(*, small: bool = False) -> tuple[Version, Version]:
    """Return two datasets that differ in the country of `ADDRESS`: of 20 MB, or of 10 kB."""
    content = encode(small_dataset.content()) if small else Path(EMBEDDED).read_bytes()
    return Version.of(content, COUNTRY), Version.of(_changed(content), _OTHER)


def _changed(content: bytes) -> bytes:
    """Return a dataset with another country for the interval that holds `ADDRESS`."""
    image = Image(memoryview(content), "dataset")
    other = Claim(Status.OVERRIDE, _OTHER)
    claims = [*ClaimTable(image), other]
    # The compiler makes each claim once, and so must we.
    number = claims.index(other)
    firsts = image.section("ipv4.first").cast("I")
    numbers = bytearray(image.section("ipv4.claims"))
    at, _, _ = covering_ipv4(firsts, int.from_bytes(PACKED))
    numbers[2 * at : 2 * at + 2] = number.to_bytes(2, "little")
    return encode(
        small_dataset.Content(
            ipv4_first=bytes(firsts),
            ipv4_claims=bytes(numbers),
            ipv6_first_high=bytes(image.section("ipv6.high")),
            ipv6_first_low=bytes(image.section("ipv6.low")),
            ipv6_claims=bytes(image.section("ipv6.claims")),
            claims=claims[: max(len(claims) - 1, number + 1)],
            metadata=read_metadata(image)[0],
        )
    )


def damaged(content: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield files that were a dataset before something happened to them, and what did."""
    chance = random.Random(seed)
    image = Image(memoryview(content), "dataset")
    yield "empty", b""
    yield "another format", b"<!DOCTYPE html>\n" + content
    yield "a format to come", content[:8] + (2).to_bytes(4, "little") + content[12:]
    yield "longer", content + bytes(64)
    for name, end in (
        ("cut in the magic", 5),
        ("cut in the header", chance.randrange(9, HEADER_SIZE)),
        ("cut at the header's end", HEADER_SIZE),
        ("cut in a section", chance.randrange(HEADER_SIZE + 1, len(content) - 1)),
        ("cut by a byte", len(content) - 1),
    ):
        yield name, content[:end]
    yield (
        "a flipped bit in the header",
        _flipped(content, chance.randrange(12, HEADER_SIZE), chance),
    )
    for name, section in image.sections.items():
        if section.size:
            at = section.offset + chance.randrange(section.size)
            yield f"a flipped bit in {name}", _flipped(content, at, chance)


def _flipped(content: bytes, at: int, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)
