"""The dataset file: written whole or not at all, the same each time, and refused when damaged."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import os
import random
import struct
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pytest
import small_dataset
import strategies  # noqa: F401 - loads the hypothesis profile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_dataset import CLAIMS, Content

import geolookup
from geolookup import Dataset, DatasetError, Policy, Status
from geolookup.answer import file_format
from geolookup.answer.claims import MAX_CLAIMS, Claim, outcome_column
from geolookup.answer.dataset import encode, write

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "geolookup" / "data" / "embedded.geolookup"

HEADER = 4096
TABLE = 32
ENTRY = 72


@cache
def small() -> bytes:
    return encode(small_dataset.content())


@cache
def embedded() -> bytes:
    return EMBEDDED.read_bytes()


# --- a reader and a writer of their own, after docs/dataset-format.md -----------------


@dataclass(frozen=True)
class Section:
    name: bytes
    flags: int
    data: bytes


def take_apart(image: bytes) -> list[Section]:
    magic, version, order, size, count, zero = struct.unpack_from("<8sIIQII", image)
    assert magic == bytes.fromhex("89474C4B0D0A1A0A")
    assert (version, order, size, zero) == (1, 1, len(image), 0)
    assert hashlib.sha256(image[:4064]).digest() == image[4064:HEADER]
    assert not any(image[TABLE + ENTRY * count : 4064])
    sections = []
    end = HEADER
    for i in range(count):
        at = TABLE + ENTRY * i
        name, flags, zero, offset, size, digest = struct.unpack_from("<16sIIQQ32s", image, at)
        assert zero == 0
        assert offset == (end + 63) // 64 * 64
        assert not any(image[end:offset])
        data = image[offset : offset + size]
        assert hashlib.sha256(data).digest() == digest
        sections.append(Section(name.rstrip(b"\0"), flags, data))
        end = offset + size
    assert end == len(image)
    return sections


def put_together(
    sections: list[Section],
    *,
    table: Callable[[int, list[int | bytes]], None] = lambda _i, _entry: None,
    magic: bytes = b"\x89GLK\r\n\x1a\n",
    version: int = 1,
    order: int = 1,
    zero: int = 0,
    added_size: int = 0,
    added_count: int = 0,
    padding: bytes = b"\0",
) -> bytes:
    """Return a file whose checksums are right, whatever else is not.

    *table* may change an entry (name, flags, zero, offset, size, digest) before it is packed.
    """
    entries = b""
    body = b""
    for i, section in enumerate(sections):
        body += padding * (-len(body) % 64)
        digest = hashlib.sha256(section.data).digest()
        entry: list[int | bytes] = [section.name, section.flags, 0]
        entry += [HEADER + len(body), len(section.data), digest]
        table(i, entry)
        entries += struct.pack("<16sIIQQ32s", *entry)
        body += section.data
    size = HEADER + len(body) + added_size
    header = struct.pack("<8sIIQII", magic, version, order, size, len(sections) + added_count, zero)
    header = (header + entries).ljust(4064, b"\0")
    return header + hashlib.sha256(header).digest() + body


def with_section(name: bytes, data: bytes | Callable[[bytes], bytes]) -> bytes:
    """Return the small file with another content of one section."""
    sections = take_apart(small())
    assert name in {section.name for section in sections}
    return put_together(
        [
            replace(one, data=data(one.data) if callable(data) else data)
            if one.name == name
            else one
            for one in sections
        ]
    )


def with_entry(at: int, field: int, value: int | bytes) -> bytes:
    """Return the small file with another value in one entry of the table."""

    def change(i: int, entry: list[int | bytes]) -> None:
        if i == at:
            entry[field] = value

    return put_together(take_apart(small()), table=change)


def with_metadata(**changes: object) -> bytes:
    return with_section(b"metadata", canonical(small_dataset.metadata() | changes))


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def with_item(kind: str, at: int, value: int) -> Callable[[bytes], bytes]:
    """Return a change of one item of a section."""

    def change(data: bytes) -> bytes:
        items = array(kind, data)
        items[at] = value
        return items.tobytes()

    return change


def added(name: bytes, flags: int, data: bytes = b"evidence") -> bytes:
    return put_together([*take_apart(small()), Section(name, flags, data)])


def source(**changes: object) -> dict[str, object]:
    sources = small_dataset.metadata()["sources"]
    assert isinstance(sources, list)
    return sources[0] | changes


def test_written_file_has_the_documented_format() -> None:
    sections = take_apart(small())
    assert put_together(sections) == small()
    content = small_dataset.content()
    columns = {section.name.decode(): section.data for section in sections}
    assert {section.flags for section in sections} == {1}
    votes = [vote for claim in CLAIMS for vote in claim.votes]
    assert columns == {
        "ipv4.first": content.ipv4_first,
        "ipv4.claims": content.ipv4_claims,
        "ipv6.high": content.ipv6_first_high,
        "ipv6.low": content.ipv6_first_low,
        "ipv6.claims": content.ipv6_claims,
        "claim.status": bytes(claim.status for claim in CLAIMS),
        "claim.country": "".join(claim.country for claim in CLAIMS).encode(),
        "claim.silent": bytes(claim.silent for claim in CLAIMS),
        "claim.abstained": array("H", (claim.abstentions for claim in CLAIMS)).tobytes(),
        "claim.votes": bytes(len(claim.votes) for claim in CLAIMS),
        "vote.country": "".join(code for code, _ in votes).encode(),
        "vote.count": array("H", (count for _, count in votes)).tobytes(),
        "metadata": canonical(content.metadata),
    }


def test_written_content_is_read_back() -> None:
    content = small_dataset.content()
    dataset = Dataset.from_buffer(small())
    assert tuple(dataset.claims) == CLAIMS
    assert dataset.claims[-1] == CLAIMS[-1]
    assert dataset.claims[1:5:2] == CLAIMS[1:5:2]
    with pytest.raises(IndexError):
        dataset.claims[len(CLAIMS)]
    assert dataset.id == small()[4064:HEADER].hex()
    assert dataset.info()["ipv4_intervals"] == len(content.ipv4_first) // 4
    assert dataset.info()["ipv6_intervals"] == len(content.ipv6_first_low) // 8


def test_equal_content_gives_equal_bytes() -> None:
    backwards = dict(reversed(small_dataset.metadata().items()))
    assert encode(replace(small_dataset.content(), metadata=backwards)) == small()


def test_id_changes_with_the_content() -> None:
    other = small_dataset.content()
    other.metadata["built"] = "2026-06-18T00:00:00Z"
    assert Dataset.from_buffer(encode(other)).id != Dataset.from_buffer(small()).id


def test_arrays_may_be_any_buffer() -> None:
    content = small_dataset.content()
    views = replace(
        content,
        ipv4_first=array("I", content.ipv4_first),
        ipv6_claims=memoryview(content.ipv6_claims).cast("H"),
    )
    assert encode(views) == small()


# --- damage --------------------------------------------------------------------------

Damaged = tuple[str, Callable[[], bytes], str]

DEEP = b"[" * 100_000 + b"]" * 100_000

DAMAGED: tuple[Damaged, ...] = (
    # not such a file
    ("empty", lambda: b"", "is empty"),
    ("gzip", lambda: gzip.compress(b"x"), "not a geolookup dataset: it is compressed with gzip"),
    ("text", lambda: b"first,last,code\n" * 1000, "not a geolookup dataset"),
    ("zeros", lambda: bytes(10_000), "not a geolookup dataset"),
    ("magic alone", lambda: small()[:8], "truncated: 8 bytes"),
    ("line ends changed", lambda: small().replace(b"\r\n", b"\n"), "not a geolookup dataset"),
    # header
    ("half a header", lambda: small()[:2048], "truncated: 2048 bytes"),
    ("header alone", lambda: small()[:HEADER], "truncated: 4096 bytes, and the header says"),
    ("a byte lost", lambda: small()[:-1], "truncated"),
    ("a byte added", lambda: small() + b"\0", "bytes were added"),
    ("twice", lambda: small() * 2, "bytes were added"),
    (
        "a later format",
        lambda: put_together(take_apart(small()), version=2),
        "format 2 is unknown; this geolookup reads format 1: compile the dataset again, or upgrade",
    ),
    ("format 0", lambda: put_together(take_apart(small()), version=0), "format 0 is unknown"),
    ("big-endian", lambda: put_together(take_apart(small()), order=2), "unknown byte order"),
    ("reserved bytes", lambda: put_together(take_apart(small()), zero=1), "keeps zero"),
    ("size", lambda: put_together(take_apart(small()), added_size=64), "truncated"),
    ("no sections", lambda: put_together([]), "section ipv4.first is missing"),
    (
        "one section too many",
        lambda: put_together(take_apart(small()), added_count=1),
        "section 14: its name is not printable ASCII",
    ),
    (
        "one section too few",
        lambda: put_together(take_apart(small()), added_count=-1),
        "the sections do not fill the file",
    ),
    (
        "billions of sections",
        lambda: put_together(take_apart(small()), added_count=2**32 - 14),
        "4294967295 sections, and has room for 56",
    ),
    # table
    ("name not ASCII", lambda: with_entry(0, 0, b"ipv4.f\xc3\xaf"), "not printable ASCII"),
    ("name with a line end", lambda: with_entry(0, 0, b"ipv4\nfirst"), "not printable ASCII"),
    ("no name", lambda: with_entry(3, 0, b""), "section 4: its name"),
    ("a name twice", lambda: with_entry(1, 0, b"ipv4.first"), "ipv4.first stands there twice"),
    ("unknown flag", lambda: with_entry(2, 1, 3), "section ipv6.high: unknown flags"),
    ("reserved bytes of an entry", lambda: with_entry(2, 2, 1), "ipv6.high: unknown flags"),
    ("offset before", lambda: with_entry(1, 3, HEADER), "ipv4.claims: it does not lie where"),
    ("offset in the header", lambda: with_entry(0, 3, 0), "ipv4.first: it does not lie where"),
    ("offset not aligned", lambda: with_entry(1, 3, HEADER + 60), "ipv4.claims: it does not lie"),
    ("offset far away", lambda: with_entry(1, 3, 2**64 - 1), "ipv4.claims: it does not lie"),
    ("size far too big", lambda: with_entry(0, 4, 2**64 - 1), "ipv4.first: it does not lie"),
    ("size wraps", lambda: with_entry(0, 4, 2**64 - HEADER), "ipv4.first: it does not lie"),
    ("size too small", lambda: with_entry(12, 4, 8), "the sections do not fill the file"),
    ("digest", lambda: with_entry(0, 5, bytes(32)), "section ipv4.first: the content does not"),
    (
        "padding between sections",
        lambda: put_together(take_apart(small()), padding=b"\1"),
        "the padding before section ipv4.claims is not zero",
    ),
    ("a needed section of the future", lambda: added(b"signature", 1), "signature is needed and"),
    (
        "a section is missing",
        lambda: put_together([one for one in take_apart(small()) if one.name != b"ipv6.low"]),
        "section ipv6.low is missing",
    ),
    # intervals
    ("no IPv4 interval", lambda: with_section(b"ipv4.first", b""), "ipv4_first: empty"),
    ("half an item", lambda: with_section(b"ipv4.first", b"\0\0\0\0\0\0"), "no multiple of 4"),
    ("one item", lambda: with_section(b"ipv6.low", bytes(8)), "ipv6_first_low: 1 items, but"),
    (
        "a gap at 0",
        lambda: with_section(b"ipv4.first", with_item("I", 0, 1)),
        "ipv4_first: does not begin at 0",
    ),
    (
        "a gap at ::",
        lambda: with_section(b"ipv6.low", with_item("Q", 0, 1)),
        "ipv6_first_low: does not begin at 0",
    ),
    (
        "overlap",
        lambda: with_section(b"ipv4.first", with_item("I", 2, 1)),
        "ipv4_first: does not ascend at position 2",
    ),
    (
        "claim out of range",
        lambda: with_section(b"ipv4.claims", with_item("H", 3, len(CLAIMS))),
        "ipv4_claims: unknown claim at position 3",
    ),
    (
        "embedded form in IPv4",
        lambda: with_section(b"ipv4.claims", with_item("H", 3, 0xFFFF)),
        "ipv4_claims: unknown claim at position 3",
    ),
    (
        "IPv6 claim out of range",
        lambda: with_section(b"ipv6.claims", with_item("H", 4, 0xFFF7)),
        "ipv6_claims: unknown claim at position 4",
    ),
    # what would be copied or read as a whole
    (
        "endless metadata",
        lambda: with_section(b"metadata", b" " * (2**24 + 1)),
        "section metadata: 16,777,217 items, more than 16,777,216",
    ),
    (
        "endless votes",
        lambda: with_section(b"vote.count", bytes(2 * 255 * MAX_CLAIMS + 2)),
        "section vote.count: 16,646,401 items, more than 16,646,400",
    ),
    # claims
    ("no claims", lambda: with_section(b"claim.status", b""), "0 claims, not in 3..65280"),
    (
        "too many claims",
        lambda: with_section(b"claim.status", b"\4" * (MAX_CLAIMS + 1)),
        "section claim.status: 65,281 items, more than 65,280",
    ),
    ("status 0", lambda: with_section(b"claim.status", with_item("B", 5, 0)), "unknown values"),
    ("status 8", lambda: with_section(b"claim.status", with_item("B", 5, 8)), "unknown values"),
    ("lower case", lambda: with_section(b"claim.country", bytes.lower), "claim.country: unknown"),
    ("silent 2", lambda: with_section(b"claim.silent", with_item("B", 5, 2)), "claim.silent: unkn"),
    (
        "a column too short",
        lambda: with_section(b"claim.silent", lambda data: data[1:]),
        "section claim.silent: 11 items, expected 12",
    ),
    (
        "more votes than there are",
        lambda: with_section(b"claim.votes", with_item("B", 3, 255)),
        "section vote.country: 10 items, expected 264",
    ),
    ("votes too few", lambda: with_section(b"vote.count", b"\1\0"), "vote.count: 1 items"),
    ("vote for no code", lambda: with_section(b"vote.country", bytes.swapcase), "vote.country: un"),
    (
        "fixed claims changed",
        lambda: with_section(b"claim.status", with_item("B", 1, Status.OVERRIDE)),
        "the first claims are not the fixed ones",
    ),
    (
        "assigned by nobody",
        lambda: with_section(b"claim.status", with_item("B", 10, Status.ASSIGNED)),
        "ASSIGNED of the wrong form",
    ),
    (
        "disputed by one",
        lambda: with_section(b"claim.status", with_item("B", 3, Status.DISPUTED)),
        "DISPUTED of the wrong form",
    ),
    (
        "a country that is special-purpose",
        lambda: with_section(b"claim.status", with_item("B", 10, Status.SPECIAL_PURPOSE)),
        "SPECIAL_PURPOSE of the wrong form",
    ),
    # metadata
    *(
        (
            f"expiring overrides: {name}",
            partial(with_metadata, expiring_overrides=wrong),
            "expiring_overrides of the wrong form",
        )
        for name, wrong in {
            "a number": 1,
            "a text": "1",
            "no table": [1],
            "no comment": [{"number": 1, "expires": "2026-06-01"}],
            "position 0": [{"number": 0, "expires": "2026-06-01", "comment": ""}],
            "position true": [{"number": True, "expires": "2026-06-01", "comment": ""}],
            "no day": [{"number": 1, "expires": "2026-06-31", "comment": ""}],
            "day as a number": [{"number": 1, "expires": 20260601, "comment": ""}],
        }.items()
    ),
    ("metadata empty", lambda: with_section(b"metadata", b""), "metadata: not canonical JSON"),
    ("metadata not JSON", lambda: with_section(b"metadata", b"{"), "not canonical JSON"),
    ("metadata not UTF-8", lambda: with_section(b"metadata", b'"\xff"'), "not canonical JSON"),
    ("metadata nested deeply", lambda: with_section(b"metadata", DEEP), "not canonical JSON"),
    ("metadata with space", lambda: with_section(b"metadata", b'{ "a":1}'), "not canonical JSON"),
    ("a key twice", lambda: with_section(b"metadata", b'{"a":1,"a":2}'), "not canonical JSON"),
    ("NaN", lambda: with_section(b"metadata", b'{"a":NaN}'), "not canonical JSON"),
    ("a surrogate", lambda: with_section(b"metadata", b'{"a":"\\ud800"}'), "not canonical JSON"),
    ("a long number", lambda: with_section(b"metadata", b"9" * 10_000), "not canonical JSON"),
    ("metadata a list", lambda: with_section(b"metadata", b"[]"), "built or sources"),
    ("metadata a text", lambda: with_section(b"metadata", b'"built"'), "built or sources"),
    ("no build date", lambda: with_section(b"metadata", b'{"sources":[]}'), "built or sources"),
    ("build date a number", lambda: with_metadata(built=5), "built or sources"),
    ("build date no date", lambda: with_metadata(built="June"), "built or sources"),
    ("no time zone", lambda: with_metadata(built="2026-06-17T00:00:00"), "built or sources"),
    ("before all time", lambda: with_metadata(built="0001-01-01T00:00:00+23:00"), "built or"),
    ("sources a number", lambda: with_metadata(sources=5), "built or sources"),
    ("a source a text", lambda: with_metadata(sources=["one"]), "built or sources"),
    ("source without name", lambda: with_metadata(sources=[{}]), "built or sources"),
    ("source named 5", lambda: with_metadata(sources=[source(name=5)]), "built or sources"),
    ("half coverage", lambda: with_metadata(sources=[source(coverage="half")]), "built or"),
    ("coverage a list", lambda: with_metadata(sources=[source(coverage=[])]), "built or"),
    ("ranges below 0", lambda: with_metadata(sources=[source(ranges=-1)]), "built or sources"),
    ("ranges a truth", lambda: with_metadata(sources=[source(ranges=True)]), "built or sources"),
)

Door = Callable[[bytes], Dataset]


@pytest.fixture(params=["from_buffer", "open"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Door:
    """Both ways in; each names the file "damaged"."""
    if request.param == "from_buffer":
        return lambda image: Dataset.from_buffer(image, "damaged")

    def through_file(image: bytes) -> Dataset:
        path = tmp_path / "damaged"
        path.write_bytes(image)
        return geolookup.open(path)

    return through_file


@pytest.mark.parametrize(
    ("damaged", "text"), [(damaged, text) for _, damaged, text in DAMAGED],
    ids=[name.replace(" ", "-") for name, _, _ in DAMAGED],
)  # fmt: skip
def test_a_damaged_file_is_refused(door: Door, damaged: Callable[[], bytes], text: str) -> None:
    with pytest.raises(DatasetError) as caught:
        door(damaged())
    start, _, what = str(caught.value).partition("damaged: ")
    assert text in what
    assert not start or start.startswith("/")


def test_undamaged_file_opens(door: Door) -> None:
    assert door(small()).country("1.0.1.1") == "CN"


def flipped(image: bytes, at: int, bit: int) -> bytes:
    return image[:at] + bytes([image[at] ^ 1 << bit]) + image[at + 1 :]


def test_each_flipped_bit_of_a_small_file_is_detected() -> None:
    image = small()
    for at in range(len(image)):
        for bit in range(8):
            with pytest.raises(DatasetError):
                Dataset.from_buffer(flipped(image, at, bit))


def test_each_truncation_of_a_small_file_is_detected() -> None:
    image = small()
    for size in range(len(image)):
        with pytest.raises(DatasetError, match=r"truncated|not a geolookup dataset|is empty"):
            Dataset.from_buffer(image[:size])


def test_flipped_bits_of_the_embedded_file_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "flipped.geolookup"
    path.write_bytes(embedded())
    rng = random.Random(2)
    size = len(embedded())
    places = [rng.randrange(HEADER) for _ in range(50)]
    places += [rng.randrange(page, min(page + 4096, size)) for page in range(4096, size, 4096 * 29)]
    places += [size - 1]
    with path.open("r+b") as file:
        for at in places:
            right = embedded()[at]
            for wrong in (right ^ 1 << rng.randrange(8), right):
                file.seek(at)
                file.write(bytes([wrong]))
                file.flush()
                if wrong != right:
                    # What only explanations need is looked at when one is asked for.
                    with (
                        pytest.raises(DatasetError, match=r"flipped\.geolookup: "),
                        geolookup.open(path) as dataset,
                    ):
                        dataset.explain("1.0.1.1")
    geolookup.open(path).close()


@pytest.mark.parametrize("has_threads", [True, False])
def test_checksum_of_intervals_is_named_before_what_is_wrong_in_them(
    monkeypatch: pytest.MonkeyPatch, *, has_threads: bool
) -> None:
    """Whether another thread checks them or, where there is none to be had, the same one."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    if not has_threads:
        monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(file_format, "_WORTH_A_THREAD", 0)
    image = bytearray(small())
    assert Dataset.from_buffer(bytes(image)).id
    image[HEADER + 4 : HEADER + 8] = bytes(4)  # the second address of IPv4 is the first again
    with pytest.raises(DatasetError, match=r"section ipv4\.first: the content does not match"):
        Dataset.from_buffer(bytes(image))
    monkeypatch.undo()
    with pytest.raises(DatasetError, match="ipv4_first: does not ascend at position 1"):
        Dataset.from_buffer(with_section(b"ipv4.first", with_item("I", 1, 0)))


def test_truncations_of_the_embedded_file_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "short.geolookup"
    path.write_bytes(embedded())
    rng = random.Random(3)
    size = len(embedded())
    sizes = sorted(
        {size - 1, size - 64, 4096, 4095, 1, 0, *(rng.randrange(size) for _ in range(60))}
    )
    for shorter in reversed(sizes):
        os.truncate(path, shorter)
        with pytest.raises(DatasetError):
            geolookup.open(path)


@settings(max_examples=300)
@given(data=st.data())
def test_a_table_of_any_content_opens_or_is_refused(data: st.DataObject) -> None:
    """Checksums are no proof of sense: they may be right and the rest not."""
    numbers = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 8192), st.sampled_from([2**63]))

    def change(_: int, entry: list[int | bytes]) -> None:
        if data.draw(st.integers(0, 9)) == 0:
            entry[0] = data.draw(st.binary(max_size=16))
            entry[1] = data.draw(st.integers(0, 2))
            entry[3] = data.draw(numbers)
            entry[4] = data.draw(numbers)

    image = put_together(
        take_apart(small()),
        table=change,
        order=data.draw(st.sampled_from([1, 1, 1, 0])),
        added_count=data.draw(st.sampled_from([0, 0, -1, 1, 40])),
    )
    opens_and_answers_or_is_refused(image)


@settings(max_examples=300)
@given(data=st.data())
def test_sections_of_any_content_open_or_are_refused(data: st.DataObject) -> None:
    sections = take_apart(small())
    for i in data.draw(st.sets(st.integers(0, len(sections) - 1), min_size=1, max_size=3)):
        content = bytearray(sections[i].data)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.one_of(st.integers(0, 11), st.integers(0, 255)))
        sections[i] = replace(sections[i], data=bytes(content))
    opens_and_answers_or_is_refused(put_together(sections))


@settings(max_examples=300)
@given(st.binary(max_size=300))
@example(b"")
def test_random_bytes_are_refused(noise: bytes) -> None:
    for image in (noise, small()[:8] + noise, small()[:HEADER] + noise):
        with pytest.raises(DatasetError):
            Dataset.from_buffer(image)


def opens_and_answers_or_is_refused(image: bytes) -> None:
    try:
        dataset = Dataset.from_buffer(image)
    except DatasetError:
        return
    codes = frozenset(["CN", "DE"])
    for policy in Policy:
        column = outcome_column(dataset.claims, codes, policy)
        assert dataset.outcome_column("CN+DE", policy) == column
    for address in small_dataset.ONE_OF_EACH:
        dataset.lookup(address, "CN")
    result = dataset.classify(list(small_dataset.ONE_OF_EACH), region_set="CN")
    assert len(list(result.countries)) == len(list(result.statuses)) == len(result)
    dataset.info()


# --- sections that need not be known --------------------------------------------------


def test_unknown_optional_section_is_ignored() -> None:
    dataset = Dataset.from_buffer(added(b"evidence", 0))
    assert dataset.country("1.0.1.1") == "CN"
    evidence = dataset.optional_section("evidence")
    assert evidence is not None
    assert bytes(evidence) == b"evidence"
    assert dataset.optional_section("other") is None


def test_unknown_section_is_verified_on_first_use() -> None:
    image = added(b"evidence", 0)
    dataset = Dataset.from_buffer(flipped(image, len(image) - 1, 0))
    with pytest.raises(DatasetError, match="section evidence: the content does not match"):
        dataset.optional_section("evidence")


def test_optional_sections_are_written_in_order_of_their_names() -> None:
    optional = {"notes": b"", "evidence": b"\1" * 65}
    image = encode(small_dataset.content(), optional=optional)
    written = [(one.name, one.flags, one.data) for one in take_apart(image)[-2:]]
    assert written == [(b"evidence", 0, b"\1" * 65), (b"notes", 0, b"")]
    notes = Dataset.from_buffer(image).optional_section("notes")
    assert notes is not None
    assert notes.nbytes == 0


@pytest.mark.parametrize("name", ["", "x" * 17, "\u00e9vidence", "a\0", "ipv4.first"])
def test_invalid_section_name_is_refused(name: str) -> None:
    with pytest.raises(DatasetError):
        encode(small_dataset.content(), optional={name: b""})


def test_file_has_at_most_56_sections() -> None:
    encode(small_dataset.content(), optional={f"x{i}": b"" for i in range(43)})
    with pytest.raises(DatasetError, match="57 sections; the format has room for 56"):
        encode(small_dataset.content(), optional={f"x{i}": b"" for i in range(44)})


# --- buffers -------------------------------------------------------------------------


def test_a_buffer_that_can_change_is_copied() -> None:
    image = bytearray(small())
    dataset = Dataset.from_buffer(image)
    image[HEADER:] = b"\xff" * (len(image) - HEADER)
    assert dataset.country("1.0.1.1") == "CN"


def test_buffer_at_any_alignment_opens() -> None:
    shifted = b"x" + small()
    assert Dataset.from_buffer(memoryview(shifted)[1:]).country("1.0.1.1") == "CN"


# --- files ---------------------------------------------------------------------------


def test_unreadable_path_is_a_dataset_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, text in (
        (tmp_path / "none", "can't be read: No such file"),
        (tmp_path, "not a regular file"),
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "none" / "x", "can't be read: No such file"),
    ):
        with pytest.raises(DatasetError) as caught:
            geolookup.open(path)
        assert str(caught.value).startswith(f"{path}: {text}")
    with pytest.raises(DatasetError, match=r"can't be read: .*embedded null"):
        geolookup.open("a\0b")


def test_a_file_that_shrinks_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.geolookup"
    write(small_dataset.content(), path)
    real_fstat = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real_fstat(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(path):
            os.truncate(path, 100)
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(DatasetError, match="can't be read"):
        geolookup.open(path)


def test_a_file_is_opened_by_str_and_by_path(tmp_path: Path) -> None:
    path = tmp_path / "small.geolookup"
    identity = write(small_dataset.content(), path)
    assert path.read_bytes() == small()
    assert geolookup.open(path).id == geolookup.open(str(path)).id == identity


def test_opening_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / "small.geolookup"
    write(small_dataset.content(), path)
    (tmp_path / "bad").write_bytes(b"bad")
    gc.collect()  # what other tests left would close its descriptors meanwhile
    before = sorted(os.listdir("/proc/self/fd"))
    dataset = geolookup.open(path)
    with pytest.raises(DatasetError):
        geolookup.open(tmp_path / "bad")
    # The mapping holds one of its own until the dataset is closed.
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1
    dataset.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_close_unmaps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small.geolookup"
    write(small_dataset.content(), path)
    dataset = geolookup.open(path)
    answer = dataset.lookup("3.0.0.1", "CN")
    result = dataset.classify(["1.0.1.1"], region_set="CN")
    assert mapped(path)
    dataset.close()
    assert not mapped(path)
    assert answer.claimed == ("CN", "HK")
    assert list(result.inside) == [0]
    assert tuple(dataset.claims) == CLAIMS


def test_a_dropped_dataset_unmaps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small.geolookup"
    write(small_dataset.content(), path)
    geolookup.open(path).lookup("1.0.1.1", "CN")
    assert not mapped(path)


def test_an_open_dataset_outlives_its_replacement(tmp_path: Path) -> None:
    path = tmp_path / "small.geolookup"
    write(small_dataset.content(), path)
    old = geolookup.open(path)
    other = small_dataset.content()
    other.metadata["built"] = "2026-06-18T00:00:00Z"
    write(other, path)
    new = geolookup.open(path)
    assert old.id != new.id
    assert old.built < new.built
    assert old.country("1.0.1.1") == new.country("1.0.1.1") == "CN"


@pytest.mark.parametrize("failing", ["fsync", "replace", "fdopen"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.geolookup"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write(small_dataset.content(), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_written_file_is_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.geolookup"
    steps = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append(("fsync", "folder" if where == str(tmp_path) else os.path.getsize(where)))
        real_fsync(descriptor)

    def rename(source: str, target: str) -> None:
        steps.append(("replace", os.path.dirname(source) == os.path.dirname(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    write(small_dataset.content(), path)
    assert steps == [("fsync", len(small())), ("replace", True), ("fsync", "folder")]


def test_written_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    write(small_dataset.content(), tmp_path / "small.geolookup")
    (tmp_path / "other").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("small.geolookup", "other")}
    assert len(modes) == 1


def test_relative_path_is_written_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(small_dataset.content(), "small.geolookup")
    assert (tmp_path / "small.geolookup").read_bytes() == small()


def bad_contents() -> Iterator[Content]:
    content = small_dataset.content()
    yield replace(content, claims=CLAIMS[:-1])
    yield replace(content, claims=[*CLAIMS, Claim(Status.ASSIGNED, "CN")])
    yield replace(content, claims=[*CLAIMS, Claim(Status.OVERRIDE, "China")])
    yield replace(content, claims=[*CLAIMS, Claim(Status.OVERRIDE, "\u00c4\u00d6")])
    yield replace(content, claims=[*CLAIMS, Claim(Status.OVERRIDE, "FR", abstentions=65_536)])
    codes = [f"{chr(65 + i % 26)}{chr(65 + i // 26)}" for i in range(256)]
    votes = tuple((code, 1) for code in codes)
    yield replace(content, claims=[*CLAIMS, Claim(Status.DISPUTED, "AA", votes)])
    yield replace(content, ipv4_first=content.ipv4_first[4:])
    yield replace(content, ipv4_first=b"")
    yield replace(content, metadata={})
    yield replace(content, metadata=content.metadata | {"more": object()})
    yield replace(content, metadata=content.metadata | {"more": float("nan")})
    yield replace(content, metadata=content.metadata | {"more": "\ud800"})


@pytest.mark.parametrize("content", list(bad_contents()))
def test_content_that_open_would_refuse_is_not_written(content: Content, tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        write(content, tmp_path / "bad.geolookup")
    assert os.listdir(tmp_path) == []


def test_a_dataset_may_have_as_many_claims_as_there_are_numbers() -> None:
    content = small_dataset.content()
    more = MAX_CLAIMS - len(CLAIMS)
    full = [*CLAIMS, *(Claim(Status.OVERRIDE, "FR", abstentions=i) for i in range(more))]
    claims = with_item("H", 1, MAX_CLAIMS - 1)(content.ipv4_claims)
    dataset = Dataset.from_buffer(encode(replace(content, claims=full, ipv4_claims=claims)))
    assert dataset.country("1.0.1.1") == "FR"
    with pytest.raises(DatasetError, match="65,281 items, more than"):
        encode(replace(content, claims=[*full, Claim(Status.OVERRIDE, "FR")]))


# --- the embedded dataset ------------------------------------------------------------


def test_threads_open_and_drop_the_embedded_file_at_once() -> None:
    faults = []

    def work() -> None:
        try:
            for _ in range(5):
                assert geolookup.open().country("1.1.8.8") == "CN"
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
