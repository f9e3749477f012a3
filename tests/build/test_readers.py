"""Readers: what a source's files say becomes ranges, and what they can't say an error."""

from __future__ import annotations

import bz2
import gzip
import io
import ipaddress
import itertools
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from source_samples import texts

from geolookup._sweep import RangeLines, Ranges
from geolookup.build import readers
from geolookup.build.readers import SourceRanges, code_number, decompression
from geolookup.build.readers.ranges import read_code_number
from geolookup.errors import SourceError

# From the files of data/sources/: an ordinary line, one address, silence, and IPv6 finer than /64.
SAMPLE = b"""\
1.0.0.0,1.0.0.255,AU
1.0.1.0,1.0.3.255,CN
2.56.16.1,2.56.16.1,EU
2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP
2001:208::,2001:208::7f,SG
"""
EXPECTED = [
    ("1.0.0.0", "1.0.0.255", "AU"),
    ("1.0.1.0", "1.0.3.255", "CN"),
    ("2.56.16.1", "2.56.16.1", ""),
    ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
    ("2001:208::", "2001:208::7f", "SG"),
]

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "xz": lzma.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz in two streams": lambda data: lzma.compress(data[:40]) + lzma.compress(data[40:]),
    "gzip in two members": lambda data: gzip.compress(data[:40]) + gzip.compress(data[40:]),
}

# name, the line, column of the fault, what is wrong with it
MALFORMED = [
    ("one field", b"1.0.0.0", 1, "expected three fields: first,last,code"),
    ("two fields", b"1.0.0.0,1.0.0.255", 1, "expected three fields: first,last,code"),
    ("four fields", b"1.0.0.0,1.0.0.255,AU,x", 1, "expected three fields: first,last,code"),
    ("a comma at the end", b"1.0.0.0,1.0.0.255,AU,", 1, "expected three fields: first,last,code"),
    ("a header", b"first,last,code", 1, "the first address can't be read"),
    ("a comment", b"# a,b,c", 1, "the first address can't be read"),
    (
        "a byte order mark",
        b"\xef\xbb\xbf1.0.0.0,1.0.0.255,AU",
        1,
        "the first address can't be read",
    ),
    ("an empty first", b",1.0.0.255,AU", 1, "the first address can't be read"),
    ("an empty last", b"1.0.0.0,,AU", 9, "the last address can't be read"),
    ("a leading zero", b"01.0.0.0,1.0.0.255,AU", 1, "the first address can't be read"),
    ("a space before", b" 1.0.0.0,1.0.0.255,AU", 1, "the first address can't be read"),
    ("a space between", b"1.0.0.0, 1.0.0.255,AU", 9, "the last address can't be read"),
    ("a prefix", b"1.0.0.0/24,1.0.0.255,AU", 1, "the first address can't be read"),
    ("an integer", b"16777216,16777471,AU", 1, "the first address can't be read"),
    ("quotes", b'"1.0.0.0","1.0.0.255","AU"', 1, "the first address can't be read"),
    ("tabs", b"1.0.0.0\t1.0.0.255\tAU", 1, "expected three fields: first,last,code"),
    ("a NUL", b"1.0.0.0\0,1.0.0.255,AU", 1, "the first address can't be read"),
    ("a zone", b"fe80::1%eth0,fe80::2,AU", 1, "the first address can't be read"),
    ("too large a number", b"1.0.0.0,1.0.0.256,AU", 9, "the last address can't be read"),
    ("IPv6 cut short", b"2001:200::,2001:200:ffff,JP", 12, "the last address can't be read"),
    ("IPv4, then IPv6", b"1.0.0.0,2001::,AU", 9, "first and last are not of one family"),
    ("IPv6, then IPv4", b"2001::,1.0.0.0,AU", 8, "first and last are not of one family"),
    ("backwards", b"1.0.0.255,1.0.0.0,AU", 11, "the range ends before it begins"),
    ("backwards by one", b"2001::1,2001::,AU", 9, "the range ends before it begins"),
    ("an unknown code", b"1.0.0.0,1.0.0.255,QQ", 19, "'QQ' is not a country code"),
    ("a name", b"1.0.0.0,1.0.0.255,Australia", 19, "not a country code"),
    ("an address for a code", b"1.0.0.0,1.0.0.255,1.2.3.4", 19, "not a country code"),
    ("a space after", b"1.0.0.0,1.0.0.255,AU ", 19, "not a country code"),
    ("a code in Latin-1", b"1.0.0.0,1.0.0.255,\xc5\xc5\xc5\xc5", 19, "not a country code"),
    ("carriage returns", b"1.0.0.0,1.0.0.255,AU\r\r", 19, "not a country code"),
]


def from_lines(content: bytes | list[bytes]) -> SourceRanges:
    """Return the ranges of plain lines, or of blocks of them."""
    ranges = SourceRanges()
    lines = RangeLines(ranges.ipv4, ranges.ipv6, read_code_number)
    blocks = [content] if isinstance(content, bytes) else content
    assert all(lines.feed(block) for block in blocks)
    assert lines.finish()
    assert lines.faults == []
    return ranges


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "source.csv"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("how", COMPRESSORS)
@pytest.mark.parametrize("format_name", ["range-csv", None])
def test_compression_and_format_are_detected_from_the_content(
    how: str, format_name: str | None, written: Callable[[bytes], Path]
) -> None:
    path = written(COMPRESSORS[how](SAMPLE))
    ranges = readers.read([path], format_name=format_name)
    assert texts(ranges) == EXPECTED
    assert len(ranges) == 5
    assert ranges.location(ranges.ipv4, 1) == f"{path}:2"
    assert ranges.location(ranges.ipv6, 0) == f"{path}:4"


@pytest.mark.parametrize(
    "content",
    [SAMPLE.replace(b"\n", b"\r\n"), SAMPLE.rstrip(), SAMPLE.replace(b"\n", b"\r\n")[:-1]],
    ids=["CRLF", "no last line end", "half a last line end"],
)
def test_lines_with_each_line_ending_are_read(
    content: bytes, written: Callable[[bytes], Path]
) -> None:
    assert texts(readers.read([written(content)])) == EXPECTED


def test_a_source_has_the_ranges_of_all_its_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(SAMPLE)
    two.write_bytes(b"9.0.0.0,9.0.0.1,DE\n")
    ranges = readers.read([one, two])
    assert texts(ranges) == [*EXPECTED[:3], ("9.0.0.0", "9.0.0.1", "DE"), *EXPECTED[3:]]
    assert ranges.location(ranges.ipv4, 3) == f"{two}:1"


@given(st.lists(st.integers(0, len(SAMPLE)), max_size=6))
def test_block_boundary_at_any_byte_changes_nothing(cuts: list[int]) -> None:
    edges = sorted({0, *cuts, len(SAMPLE)})
    blocks = [SAMPLE[start:end] for start, end in itertools.pairwise(edges)]
    assert texts(from_lines(blocks)) == EXPECTED


@given(
    st.lists(
        st.tuples(
            strategies.values(), st.integers(0, 2**40), st.sampled_from(["DE", "cn", "uk", "??"])
        )
    )
)
def test_written_lines_are_read_back(rows: list[tuple[tuple[int, int], int, str]]) -> None:
    lines, expected = [], []
    for (version, first), count, code in rows:
        top = 2 ** (32 if version == 4 else 128) - 1
        make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        last = min(first + count, top)
        lines.append(f"{make(first)},{make(last)},{code}\n")
        number = {"DE": "DE", "cn": "CN", "uk": "GB", "??": ""}[code]
        if version == 6 and first >> 32 == last >> 32 == 0xFFFF:  # IPv4-mapped
            inside = [str(ipaddress.IPv4Address(end & 0xFFFFFFFF)) for end in (first, last)]
            expected.append((4, (inside[0], inside[1], number)))
        else:
            expected.append((version, (str(make(first)), str(make(last)), number)))
    ranges = from_lines("".join(lines).encode())
    assert texts(ranges) == [row for _, row in sorted(expected, key=lambda pair: pair[0])]


@pytest.mark.parametrize("code", sorted({"eu", "EU", "Ap", "ZZ", "--", "-", "None", "", "A1"}))
def test_range_of_a_reserved_code_is_silence(code: str) -> None:
    ranges = from_lines(f"1.0.0.0,1.0.0.255,{code}\n".encode())
    assert list(ranges.ipv4) == [(0x01000000, 0x010000FF, readers.SILENCE)]


@pytest.mark.parametrize(("line", "column", "what"), [row[1:] for row in MALFORMED],
                         ids=[row[0] for row in MALFORMED])  # fmt: skip
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""], ids=["LF", "CRLF", "end"])
def test_malformed_line_is_named_with_its_position(
    line: bytes, column: int, what: str, ending: bytes, written: Callable[[bytes], Path]
) -> None:
    path = written(SAMPLE + line + ending)
    with pytest.raises(SourceError) as caught:
        readers.read([path], format_name="range-csv")
    assert str(caught.value) == f"{path}:6:{column}: {what}"


@pytest.mark.parametrize("at", [1, 3, 5])
def test_empty_line_is_malformed(at: int, written: Callable[[bytes], Path]) -> None:
    lines = SAMPLE.splitlines(keepends=True)
    path = written(b"".join([*lines[:at], b"\n", *lines[at:]]))
    with pytest.raises(SourceError) as caught:
        readers.read([path], format_name="range-csv")
    assert str(caught.value) == f"{path}:{at + 1}:1: expected three fields: first,last,code"


@pytest.mark.parametrize("line", [row[1] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_no_error_repeats_an_address_of_the_source(
    line: bytes, written: Callable[[bytes], Path]
) -> None:
    path = written(SAMPLE + line + b"\n")
    with pytest.raises(SourceError) as caught:
        readers.read([path], format_name="range-csv")
    error: BaseException | None = caught.value
    while error is not None:
        assert not [part for part in ("1.0.0", "2001", "fe80", "1.2.3") if part in repr(error)]
        error = error.__cause__ or error.__context__


# --- whole files ---------------------------------------------------------------------


def tarred(content: bytes, name: str = "source.csv", form: int = tarfile.GNU_FORMAT) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


SAMPLE_TAR = tarred(SAMPLE)
_LONG = tarfile.TarInfo("x")
_LONG.type, _LONG.size = tarfile.XHDTYPE, 1 << 40
LONG_HEADER = _LONG.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("inside", [bytes, gzip.compress])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_archive_reads_as_the_file_in_it(
    written: Callable[[bytes], Path],
    compress: Callable[[bytes], bytes],
    inside: Callable[[bytes], bytes],
    form: int,
) -> None:
    content = SAMPLE * 10_000
    # Longer than a header has room for, except in the oldest form.
    name = "d/source.csv" if form == tarfile.USTAR_FORMAT else f"{'long' * 60}/source.csv"
    ranges = readers.read([written(compress(tarred(inside(content), name, form)))])
    plain = readers.read([written(content)])
    assert (len(ranges.ipv4), len(ranges.ipv6)) == (len(plain.ipv4), len(plain.ipv6))
    assert ranges.files[0].endswith(f"/{name}")


# name, the file, how the error begins
UNREADABLE = [
    ("empty", b"", "{path}: holds no range"),
    ("a tar archive cut short", tarred(SAMPLE)[:700], "{path}: the tar archive is cut short"),
    ("a tar archive with a long header", LONG_HEADER, "{path}: an extended header of the tar"),
    ("a damaged tar archive", SAMPLE_TAR[:20] + b"x" + SAMPLE_TAR[21:], "{path}: a header of the"),
    ("empty, compressed", gzip.compress(b"", mtime=0), "{path}: holds no range"),
    ("xz cut short", lzma.compress(SAMPLE)[:-20], "{path}: can't be decompressed"),
    ("gzip cut short", gzip.compress(SAMPLE, mtime=0)[:-4], "{path}: can't be decompressed"),
    ("bzip2 cut short", bz2.compress(SAMPLE)[:-9], "{path}: can't be decompressed"),
    ("xz damaged", b"\xfd7zXZ\0" + bytes(60), "{path}: can't be decompressed"),
    (
        "gzip damaged",
        gzip.compress(SAMPLE, mtime=0)[:12] + bytes(60),
        "{path}: can't be decompressed",
    ),
    ("bzip2 damaged", b"BZh9" + bytes(60), "{path}: can't be decompressed"),
    (
        "gzip with rubbish after it",
        gzip.compress(SAMPLE) + b"rubbish",
        "{path}: can't be decompressed",
    ),
    ("no text", b"\x7fELF" + bytes(100_000), "{path}:1:1: the line is longer than 4,096 bytes"),
    (
        "no text after some lines",
        SAMPLE + b"x" * 5000,
        "{path}:6:1: the line is longer than 4,096 bytes",
    ),
]


@pytest.mark.parametrize(
    ("content", "what"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE]
)
def test_unreadable_file_is_named(
    content: bytes, what: str, written: Callable[[bytes], Path]
) -> None:
    path = written(content)
    with pytest.raises(SourceError) as caught:
        readers.read([path], format_name="range-csv")
    assert str(caught.value).startswith(what.format(path=path))


def test_file_of_unknown_format_is_refused_with_the_formats(
    written: Callable[[bytes], Path],
) -> None:
    for content in (b"a,b,c\n1,2,3\n", b"\x89PNG\r\n", b"\n", b"\n\n", b"1.2.3.4 5.6.7.8 DE\n"):
        path = written(content)
        with pytest.raises(SourceError) as caught:
            readers.read([path])
        formats = ", ".join(readers.FORMATS)
        assert str(caught.value) == f"{path}:1: in none of the known formats: {formats}"


def test_missing_file_and_empty_folder_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, what in ((tmp_path / "missing", "No such file"), (empty, "holds no files")):
        with pytest.raises(SourceError, match=what) as caught:
            readers.read([path])
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("how", ["folder", "zip", "tar", "tar.gz", "files"])
@pytest.mark.parametrize("empty", [b"", b"start_ip,end_ip,code\n", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("name", [None, "range-csv"])
def test_one_file_without_ranges_is_named_among_others(
    tmp_path: Path, how: str, empty: bytes, name: str | None
) -> None:
    files = {"a.csv": SAMPLE, "b.csv": empty, "c.csv": SAMPLE}
    paths = packed(tmp_path, how, files)
    with pytest.raises(SourceError, match=r"b\.csv: (is empty|holds no range)"):
        readers.read(paths, format_name=name)
    del files["b.csv"]
    (tmp_path / "again").mkdir()
    assert len(readers.read(packed(tmp_path / "again", how, files))) > 0


def packed(folder: Path, how: str, files: dict[str, bytes]) -> list[Path]:
    """Write files in one of the forms that a source may have, and return what to name."""
    place = folder / "source"
    if how in {"folder", "files"}:
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        return [place] if how == "folder" else sorted(place.iterdir())
    if how == "zip":
        with zipfile.ZipFile(place, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"inside/{name}", content)
        return [place]
    with tarfile.open(place, "w:gz" if how == "tar.gz" else "w") as tar:
        for name, content in {**files, "README.txt": b"about", "LICENSE": b"CC0"}.items():
            entry = tarfile.TarInfo(f"inside/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return [place]


def test_pipe_and_device_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for source in (path, Path("/dev/null")):
        with pytest.raises(SourceError, match="is a pipe or a device, and sources are read more"):
            readers.read([source])


def test_files_are_closed_after_errors(written: Callable[[bytes], Path]) -> None:
    path = written(SAMPLE + b"nonsense\n")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceError):
        readers.read([path], format_name="range-csv")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["plain", "xz"])
def test_progress_ends_at_the_size_of_all_files(tmp_path: Path, how: str) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_bytes(COMPRESSORS[how](SAMPLE * 20_000))
    seen: list[int] = []
    readers.read(paths, on_read=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 4
    assert seen[-1] == sum(path.stat().st_size for path in paths)


def test_decompressed_blocks_are_bounded(written: Callable[[bytes], Path]) -> None:
    path = written(lzma.compress(bytes(5_000_000)))
    sizes = [len(block) for block in decompression.blocks(path)]
    assert sum(sizes) == 5_000_000
    assert max(sizes) <= decompression.BLOCK_SIZE


# --- lines, some of which may be faulty ----------------------------------------------


def test_faulty_lines_are_listed_up_to_the_number_allowed() -> None:
    ipv4, ipv6 = Ranges(32), Ranges(128)
    lines = RangeLines(ipv4, ipv6, lambda _: 1, allowed_faults=2)
    assert lines.feed(b"x\n1.0.0.0,1.0.0.1,DE\ny,z\n1.0.0.2,1.0.0.2,DE")
    assert lines.finish()
    assert [line for line, _, _ in lines.faults] == [1, 3]
    assert [ipv4.place(index) for index in range(len(ipv4))] == [(0, 2), (0, 4)]
    assert not lines.feed(b"\n\n1.0.0.3,1.0.0.3,DE\n")
    assert len(lines.faults) == 3
    assert len(ipv4) == 2, "after too many faults nothing is read"


def test_error_outside_of_a_line_is_passed_on() -> None:
    def broken(raw: str) -> int:
        raise KeyError(len(raw))

    lines = RangeLines(Ranges(32), Ranges(128), broken)
    with pytest.raises(KeyError):
        lines.feed(b"1.0.0.0,1.0.0.1,DE\n")


@pytest.mark.parametrize("number", [-1, 0xFFFF])
def test_code_number_out_of_range_is_refused(number: int) -> None:
    lines = RangeLines(Ranges(32), Ranges(128), lambda _: number)
    with pytest.raises(OverflowError):
        lines.feed(b"1.0.0.0,1.0.0.1,DE\n")


def test_range_lines_need_the_ranges_of_ipv4_and_ipv6() -> None:
    with pytest.raises(ValueError, match="IPv4"):
        RangeLines(Ranges(128), Ranges(32), lambda _: 1)
    with pytest.raises(ValueError, match="number"):
        RangeLines(Ranges(32), Ranges(128), lambda _: 1, file=0x10000)


# --- ranges from elsewhere than files ------------------------------------------------


def test_ranges_can_be_given_as_packed_addresses() -> None:
    ranges = SourceRanges.of(
        [
            (bytes([1, 0, 0, 0]), bytes([1, 0, 0, 255]), "uk"),
            (bytes(16), bytes(15) + b"\1", "EU"),
        ]
    )
    assert list(ranges.ipv4) == [(0x01000000, 0x010000FF, code_number("GB"))]
    assert list(ranges.ipv6) == [(0, 1, readers.SILENCE)]
    assert ranges.location(ranges.ipv6, 0) == "row 2"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ((bytes(4), bytes(16), "DE"), "4 or 16 bytes"),
        ((bytes(5), bytes(5), "DE"), "4 or 16 bytes"),
        ((b"\1\0\0\0", bytes(4), "DE"), "not a range"),
        ((bytes(4), bytes(4), "QQ"), "'QQ' is not a country code"),
    ],
)
def test_invalid_row_is_refused_with_its_number(row: tuple[bytes, bytes, str], what: str) -> None:
    with pytest.raises(SourceError, match=f"row 2: .*{what}"):
        SourceRanges.of([(bytes(4), bytes(4), "DE"), row])
