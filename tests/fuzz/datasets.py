"""Targets: dataset files, and the columns of a result that came over the network.

A dataset file is held to checksums, which no fuzzer guesses. Both targets therefore put the
right ones where they belong, so that what the sections hold reaches the code behind.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
import struct
from datetime import date

from geolookup.answer.claims import MAX_CLAIMS, Policy, Status, encode_outcome
from geolookup.answer.dataset import Dataset, encode
from geolookup.answer.overrides import Override, read_prefix
from geolookup.answer.results import RosterResult
from geolookup.build import compiler
from geolookup.build.readers import SourceRanges
from geolookup.build.sources import Source
from geolookup.errors import DatasetError, RosterError

HEADER = struct.Struct("<8sIIQII")
ENTRY = struct.Struct("<16sIIQQ32s")
SIZE, DIGEST = 4096, 32
NEEDED = 1

WORDS = (b'{"', b'":', b'"sources":[', b'"built":"', b"null", b"[[", b"1e999", b"\xff\xff")
BITMAP_WORDS = (b"\x3a\x30\0\0", b"\x3b\x30\0\0", b"\x3b\x30\x01\0", b"\xff\xff")


@functools.cache
def small() -> bytes:
    """Return a dataset of a few kilobytes that has everything: evidence, overrides, all forms."""

    def rows(*given: tuple[str, str]) -> SourceRanges:
        return SourceRanges.of((*read_prefix(prefix), code) for prefix, code in given)

    compiled = compiler.compile(
        [
            (
                Source("one", "CC0-1.0", date(2026, 1, 1), attribution="thanks"),
                rows(("9.0.0.0/8", "DE"), ("9.9.0.0/16", "AT"), ("2a00::/16", "FR")),
            ),
            (
                Source("two", "CC0-1.0", date(2026, 1, 1)),
                rows(("9.0.0.0/9", "DE"), ("2a00::/17", "CH"), ("2a00::/127", "EU")),
            ),
            (
                Source("three", "CC0-1.0", date(2026, 1, 1), coverage="partial"),
                rows(("9.9.9.0/24", "US"), ("9.9.9.9/32", "CN")),
            ),
        ],
        overrides=[
            Override(*read_prefix("10.0.0.0/8"), "CH", "office"),
            Override(*read_prefix("2a00:1::/32"), "ZZ", "lab", date(2030, 1, 1)),
        ],
        nat64_prefixes=["2a01:64::/32", "2a02:64::/96"],
        special_purpose=False,
        today=date(2026, 1, 2),
    )
    return encode(compiled, optional=compiled.optional)


@functools.cache
def parts() -> tuple[tuple[bytes, int, bytes], ...]:
    """Return the small dataset's sections: name, flags, content."""
    image = small()
    count = HEADER.unpack_from(image)[4]
    entries = [ENTRY.unpack_from(image, HEADER.size + i * ENTRY.size) for i in range(count)]
    return tuple(
        (name.rstrip(b"\0"), flags, image[offset : offset + size])
        for name, flags, _, offset, size, _ in entries
    )


def put_together(sections: list[tuple[bytes, int, bytes]]) -> bytes:
    entries = body = b""
    for name, flags, content in sections:
        body += bytes(-len(body) % 64)
        digest = hashlib.sha256(content).digest()
        entries += ENTRY.pack(name, flags, 0, SIZE + len(body), len(content), digest)
        body += content
    header = HEADER.pack(b"\x89GLK\r\n\x1a\n", 1, 1, SIZE + len(body), len(sections), 0)
    header = (header + entries).ljust(SIZE - DIGEST, b"\0")
    return header + hashlib.sha256(header).digest() + body


def sections(data: bytes) -> None:
    """The small dataset with other sections: each is a number, a length (2 bytes) and content.

    Number 255 is a section that no version knows; from 128 to 254 a section goes.
    """
    have = dict(enumerate(parts()))
    at = 0
    while at + 3 <= len(data):
        number, size = data[at], int.from_bytes(data[at + 1 : at + 3], "little")
        content = data[at + 3 : at + 3 + size]
        at += 3 + size
        if number == 255:
            have[number] = (b"other", content[0] & 3 if content else 0, content)
        elif number >= 128:
            have.pop(number % len(parts()), None)
        else:
            name, flags, _ = parts()[number % len(parts())]
            have[number % len(parts())] = (name, flags, content)
    ask(put_together([have[number] for number in sorted(have)]))


def file(data: bytes) -> None:
    """A dataset file, with the right checksums wherever its own table says that they belong."""
    image = bytearray(data)
    if len(image) >= SIZE:
        for at in range(HEADER.size, SIZE - DIGEST - ENTRY.size + 1, ENTRY.size):
            name, flags, zero, offset, size, _ = ENTRY.unpack_from(image, at)
            if not any(name):
                break
            digest = hashlib.sha256(image[offset : offset + size]).digest()
            ENTRY.pack_into(image, at, name, flags, zero, offset, size, digest)
        image[SIZE - DIGEST : SIZE] = hashlib.sha256(image[: SIZE - DIGEST]).digest()
    ask(bytes(image))


def ask(image: bytes) -> None:
    """Open a dataset, and if it opens, ask it everything; its answers must agree."""
    try:
        dataset = Dataset.from_buffer(image)
    except DatasetError as error:
        assert str(error).startswith("dataset: ")
        return
    dataset.info()
    claims = tuple(dataset.claims)
    lines = [list(itertools.islice(dataset.intervals(family), 400)) for family in (4, 6)]
    addresses: list[bytes] = []
    expected: list[int | None] = []
    for width, line in zip((4, 16), lines, strict=True):
        assert line[0][0] == 0
        assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(line))
        for first, last, claim in line:
            addresses += [first.to_bytes(width), last.to_bytes(width)]
            expected += [claim if claim < MAX_CLAIMS else None] * 2
    draw = random.Random(len(image))
    addresses += [draw.randbytes(size) for size in (4, 16, 16)]
    expected += [None] * 3
    for policy in Policy:
        result = dataset.classify(addresses, region_set="EU", policy=policy)
        outcomes = dataset.outcome_column("EU", policy)
        counts = result.verdict_counts()
        assert sum(counts.values()) == len(addresses) == sum(result.counts().values())
        assert list(counts.values()) == [len(part) for part in _sets(result)]
        for address, number, country, status in zip(
            addresses, expected, result.countries, result.statuses, strict=True
        ):
            answer = dataset.lookup(address, "EU", policy)
            assert (answer.country, answer.status) == (country, status)
            assert dataset.country(address) == country
            if number is not None and len(address) == 4:
                assert (claims[number].country, claims[number].status) == (country, status)
                assert answer.verdict is not None
                assert answer.reason is not None
                assert encode_outcome(answer.verdict, answer.reason) == outcomes[number]
    for address in (*addresses[:20], *addresses[-20:], b"none"[:3]):
        try:
            why = dataset.explain(address)
        except DatasetError:
            continue
        answer = dataset.lookup(address)
        assert (why.country, why.status) == (answer.country, answer.status)
    try:
        for view in dataset.views():
            for family in (4, 6):
                list(itertools.islice(view.intervals(family), 400))
    except DatasetError:
        pass
    dataset.close()


def _sets(result: RosterResult) -> tuple[object, ...]:
    return result.inside, result.outside, result.undetermined


def bitmaps(data: bytes) -> None:
    """A result from the network: 3 bytes of size, 2 of each of two lengths, three Roaring sets."""
    if len(data) < 7:
        return
    size = min(int.from_bytes(data[:3], "little"), 300_000)
    first, second = (int.from_bytes(data[at : at + 2], "little") for at in (3, 5))
    rest = data[7:]
    pieces = (rest[:first], rest[first : first + second], rest[first + second :])
    try:
        result = RosterResult.from_columns(
            size=size,
            countries=b"DE" * size,
            statuses=bytes([Status.ASSIGNED]) * size,
            counts={"DE": size},
            inside=pieces[0],
            outside=pieces[1],
            undetermined=pieces[2],
            dataset="0" * 64,
            region_set="EU",
            policy=Policy.UNANIMOUS,
        )
        found = [set(result.inside), set(result.outside), set(result.undetermined)]
    except RosterError:
        return
    assert sum(map(len, found)) == size
    assert set().union(*found) == set(range(size))
    assert sum(result.verdict_counts().values()) == size
    repr(result)
