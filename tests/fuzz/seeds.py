"""Writes the committed corpora from the samples of the tests: ``python -m tests.fuzz.seeds``.

The same files each time. Inputs that brought out a fault are kept beside them, named
``found-...``; this does not touch those.
"""

from __future__ import annotations

import functools
import gzip
import io
import lzma
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # where tests find what they share

import source_samples as samples  # noqa: E402 - needs the path above
from address_texts import MALFORMED, VALID  # noqa: E402
from core_tables import packed4, packed6  # noqa: E402
from mmdb_writer import MMDBWriter  # noqa: E402
from netaddr import IPSet  # noqa: E402
from pyroaring import BitMap  # noqa: E402
from roster_requests import PLAIN, STREAMED, UNUSUAL, sized, varint  # noqa: E402
from servers import OWN_REGION_SETS  # noqa: E402

from fuzz import connections, datasets, sources  # noqa: E402
from fuzz.addresses import NAMES, SHAPES  # noqa: E402

Seeds = Iterator[tuple[str, bytes]]
"""Name and content."""


def parse() -> Seeds:
    for number, (text, _) in enumerate(VALID[3::3]):
        yield f"valid-{number}", text.encode()


def text() -> Seeds:
    yield "valid", "\n".join(text for text, _ in VALID).encode()
    for fault in ("leading zeros", "gaps", "dotted tails", "zones"):
        lines = "\n".join(MALFORMED[fault])
        yield fault.replace(" ", "-"), lines.encode("utf-8", "surrogateescape")[:390]


def table() -> Seeds:
    yield "wide", bytes([24 | 128, 1, 3, 16 | 128, 5, 4, 125, 1, 5, 112, 7, 6])
    yield "alike", bytes([8 | 128, 1, 3]) * 300
    yield "narrow", bytes([0 | 128, 1, 3, 0, 1, 4, 0 | 128, 1, 5, 0, 1, 6]) * 60
    yield "deep", bytes([125, 1, 1]) + bytes([64, 1, 9, 63, 1, 8]) * 200
    yield "forms", b"".join(bytes([112, 1, claim, 112, 1, 9]) for claim in range(248, 256))


def packed() -> Seeds:
    for name in ("one interval", "embedded forms", "clustered 1", "deep in one /64"):
        number, shape = NAMES.index(name), SHAPES[name]
        yield f"ipv4-{number}", bytes([number, 2]) + packed4(shape.probes4()[:300])
        yield f"ipv6-{number}", bytes([number, 0x43]) + packed6(shape.probes6()[:70])


def wire() -> Seeds:
    yield from named(PLAIN)
    # More than are classified at a time, and those of packed addresses.
    texts = sized(1, b"1.0.1.1") + sized(1, b"2001:200::1") + sized(1, b"::x")
    yield "many-texts", sized(3, 120 * texts) + sized(4, b"EU")
    many = sized(1, bytes([1, 0, 1, 1, 2, 0, 0, 1]) * 515) + sized(4, b"EU")
    yield "many-packed", many
    # Of three, and a large one at the end.
    yield "many-groups", many + sized(8, b"\3" * 100 + varint(730))


def requests() -> Seeds:
    yield from named(UNUSUAL)
    yield from named(STREAMED)
    yield from named({f"{name}, of a stream": sized(1, body) for name, body in PLAIN.items()})


def named(bodies: Mapping[str, bytes]) -> Seeds:
    for name, body in bodies.items():
        if len(body) < 300:
            yield name.replace(",", "").replace(" ", "-").replace("'", ""), body


def dataset() -> Seeds:
    for number, (name, _, content) in enumerate(datasets.parts()):
        yield name.decode(), bytes([number]) + len(content).to_bytes(2, "little") + content
    yield "unknown", bytes([255, 3, 0]) + b"\0ab"


def dataset_file() -> Seeds:
    yield "small", datasets.small()


def bitmaps() -> Seeds:
    splits = {
        "short": (range(5), range(5, 7), range(7, 20)),
        "runs": (range(70_000), range(70_000, 140_000), range(140_000, 200_000)),
        "arrays": (range(0, 999, 3), range(1, 999, 3), range(2, 999, 3)),
    }
    for name, sets in splits.items():
        pieces = []
        for one in sets:
            made = BitMap(one)
            made.run_optimize()
            pieces.append(made.serialize())
        size = sum(map(len, sets))
        head = size.to_bytes(3, "little") + b"".join(
            len(piece).to_bytes(2, "little") for piece in pieces[:2]
        )
        yield name, head + b"".join(pieces)


def manifest() -> Seeds:
    yield (
        "everything",
        b"""\
special_purpose = false
nat64_prefixes = ["2a02:64::/96"]
canaries = "data.csv"
[limits]
min_coverage = "90%"
max_change = { "*" = "0.5%", DISPUTED = "0.01" }
[[source]]
name = "one"
files = ["data.csv"]
format = "range-csv"
licence = "CC0-1.0"
attribution = "thanks"
url = "https://example.org"
date = 2026-01-01
coverage = "full"
origin = "One"
[[override]]
prefix = "10.0.0.0/8"
code = "DE"
comment = "office"
expires = 2030-01-01
[[override]]
range = "2a00:1:: - 2a00:2::"
code = "ZZ"
""",
    )


def region_sets() -> Seeds:
    yield "codes", b"DACH+EU-FR\n" + OWN_REGION_SETS.encode()
    yield (
        "expression",
        b'OURS\n[region_sets.OURS]\nexpression = "EEA-NO"\nversion = "1"\nsource = "us"\n',
    )


def mmdb() -> bytes:
    writer = MMDBWriter(6, ipv4_compatible=True)
    writer.insert_network(IPSet(["1.0.0.0/24"]), {"country": {"iso_code": "AU"}})
    writer.insert_network(IPSet(["2001:200::/32"]), {"country_code": "JP"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "db")
        writer.to_db_file(str(path))
        content = path.read_bytes()
    # It states when it was made: always the same here.
    at = content.index(b"build_epoch") + len(b"build_epoch")
    size = 2 + (content[at] & 0x1F)
    return content[: at + 2] + bytes(size - 2) + content[at + size :]


def reader(name: str) -> Seeds:
    if name == "mmdb":
        yield "small", b"\x07" + mmdb()
        for size in (24, 28, 32):
            tree = samples.search_tree([(1, 18), (18, 2)], size)
            yield f"tree-{size}", b"\x07" + tree
        four = samples.search_tree([(1, 18), (18, 2)], record=b"\xe1\x47country\x20\x0b\x42DE")
        yield "tree-ipv4", b"\x07" + four.replace(b"ip_version\xa1\6", b"ip_version\xa1\4")
    elif name == "geoip-legacy":
        yield "ipv4", b"\x07" + samples.legacy_database({"1.0.0.0/24": 16, "9.0.0.0/8": 225})
        yield "ipv6", b"\x07" + samples.legacy_database({"2001:200::/32": 111}, 12)
    elif name == "ip2location-bin":
        rows = (("1.0.0.0", "AU"), ("1.0.1.0", "-"))
        yield "ipv4", b"\x07" + samples.ip2location_database(rows)
        mapped = (("::", "-"), ("::ffff:1.0.0.0", "AU"), ("2001:200::", "JP"))
        yield "both", b"\x07" + samples.ip2location_database(rows, mapped, columns=3)
    elif name == "geolite2":
        for number, blocks in enumerate((samples.BLOCKS, samples.BLOCKS6)):
            both = samples.LOCATIONS + sources.SEPARATOR[1:] + blocks
            yield f"blocks-{number}", b"\x07" + both
    else:
        like = "range-csv" if name == "dbip" else name
        found = [content for _, content, form, _ in samples.SAMPLES.values() if form == like]
        for number, content in enumerate(found[:4]):
            yield f"sample-{number}", b"\x07" + content


def source_files() -> Seeds:
    yield "range-csv", b"\0" + samples.RANGES
    yield "gzip", b"\0" + gzip.compress(samples.TOR, mtime=0)
    yield "xz", b"\0" + lzma.compress(samples.RIR)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in (
            ("a.csv", samples.BLOCKS),
            ("b.csv", samples.LOCATIONS),
        ):
            opened.writestr(zipfile.ZipInfo(name), content)
    yield "zip", b"\3" + archive.getvalue()


CORPORA: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "connection": connections.seeds,
    "parse": parse,
    "table": table,
    "text": text,
    "packed": packed,
    "wire": wire,
    "requests": requests,
    "dataset": dataset,
    "dataset-file": dataset_file,
    "bitmaps": bitmaps,
    "manifest": manifest,
    "region-sets": region_sets,
    "source-files": source_files,
    **{f"reader-{name}": functools.partial(reader, name) for name in sources.READERS},
}


def main() -> None:
    for target, seeds in CORPORA.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found-"):
                old.unlink()
        for name, content in seeds():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
