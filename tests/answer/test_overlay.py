"""Overrides of a file: laid over a dataset they answer like those of a manifest, until they expire.

The oracles are a second compilation with the overrides in the manifest, and a walk over the
rows of the file, address by address.
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import small_dataset
import small_networks
from hypothesis import given
from hypothesis import strategies as st

import geolookup
from geolookup import Dataset, DatasetError, SourceError, Status
from geolookup.answer import age as ages
from geolookup.answer import overlay
from geolookup.answer.claims import MAX_CLAIMS
from geolookup.answer.dataset import encode
from geolookup.answer.decision_record import from_json, to_json
from geolookup.answer.file_format import Image
from geolookup.answer.overrides import Overrides

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
IMAGE = encode(small_dataset.content())
OTHER = encode(
    replace(
        small_dataset.content(),
        metadata=small_dataset.metadata() | {"built": "2026-06-18T00:00:00Z"},
    )
)
ONE_OF_EACH4 = [one for one in small_dataset.ONE_OF_EACH if one.count(".") == 3 and ":" not in one]


def parse(text: str) -> Overrides:
    return Overrides.parse(text.encode(), "o.toml")


def entry(where: str, code: str, **more: object) -> str:
    key = "range" if "-" in where else "prefix"
    rows = [f'{key} = "{where}"', f'code = "{code}"']
    rows += [f'{name} = "{value}"' for name, value in more.items() if name != "expires"]
    if "expires" in more:
        rows.append(f"expires = {more['expires']}")
    return "[[override]]\n" + "\n".join(rows) + "\n"


def laid_over(text: str, image: bytes = IMAGE, now: float = NOW) -> Dataset:
    with Dataset.from_buffer(image) as dataset:
        return dataset.with_overrides(parse(text), now)


# --- the answers


def holder(rows: list[tuple[int, int, str]], address: int) -> str | None:
    """Return the code of the smallest row that holds an address; None: no row does."""
    holding = [(last - first, code) for first, last, code in rows if first <= address <= last]
    return min(holding)[1] if holding else None


@st.composite
def rows6(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    """Return the same of IPv6: around the dataset's edges, and where upper halves are equal."""
    edges = [int(ipaddress.IPv6Address(one)) for one in EDGES6]
    edge = st.sampled_from(edges).flatmap(
        lambda at: st.integers(max(0, at - 2), min((1 << 128) - 1, at + 2))
    )
    rows: dict[int, tuple[int, int, str]] = {}
    for one, other in draw(st.lists(st.tuples(edge, edge), min_size=1, max_size=8)):
        first, last = sorted((one, other))
        rows[last - first] = (first, last, draw(st.sampled_from(["DE", "CN", "FR", "ZZ"])))
    return list(rows.values())


@given(rows6())
def test_override_of_smallest_ipv6_range_answers_but_for_embedded_addresses(
    rows: list[tuple[int, int, str]],
) -> None:
    text = "".join(
        entry(f"{ipaddress.IPv6Address(first)}-{ipaddress.IPv6Address(last)}", code)
        for first, last, code in rows
    )
    plain = Dataset.from_buffer(IMAGE)
    carrying = [(first, last) for first, last, n in plain.intervals(6) if n >= MAX_CLAIMS]
    if any(first <= low and high <= last for low, high, _ in rows for first, last in carrying):
        with pytest.raises(SourceError, match="has no effect"):
            laid_over(text)
        return
    dataset = laid_over(text)
    near = {at + step for first, last, _ in rows for at in (first, last) for step in (-1, 0, 1)}
    near |= {int(ipaddress.IPv6Address(one)) + step for one in EDGES6 for step in (-1, 0, 1)}
    for value in sorted(at for at in near if 0 <= at < 1 << 128):
        address, code = value.to_bytes(16), holder(rows, value)
        before, after = plain.lookup(address, "DE"), dataset.lookup(address, "DE")
        if code is None or plain.explain(address).form != "IPv6":
            assert after == replace(before, dataset=dataset.id)
        else:
            assert (after.country, after.status) == (code, Status.OVERRIDE)
            why = dataset.explain(address).override
            assert why is not None
            assert why.country == code
            assert int(ipaddress.IPv6Address(why.first)) <= value
            assert value <= int(ipaddress.IPv6Address(why.last))


EDGES6 = [
    "::",
    "::1",
    "::ffff:0:0",
    "::ffff:ffff:ffff",
    "2001::",
    "2001:0:ffff:ffff::",
    "2001:200::",
    "2001:300::",
    "2001:300::8000:0:0:0",
    "2001:300:0:1::",
    "2002::",
    "2003::",
    "4000::",
    "fe80::",
    "febf:ffff:ffff:ffff::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
]


@st.composite
def rows4(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    """Return overlapping ranges, no two of one size, with edges where the dataset has its own."""
    edges = [0, 0x01000100, 0x010001FF, 0x02000000, 0x02FFFFFF, 0x0A010000, 0xFFFFFFFF, 0x08080808]
    edge = st.sampled_from(edges).flatmap(
        lambda at: st.integers(max(0, at - 2), min(0xFFFFFFFF, at + 2))
    )
    rows: dict[int, tuple[int, int, str]] = {}
    for one, other in draw(st.lists(st.tuples(edge, edge), min_size=1, max_size=8)):
        first, last = sorted((one, other))
        code = draw(st.sampled_from(["DE", "CN", "FR", "ZZ", "US-CA", "UA-43"]))
        rows[last - first] = (first, last, code)
    return list(rows.values())


@given(rows4())
def test_override_of_smallest_range_answers_and_nothing_else_changes(
    rows: list[tuple[int, int, str]],
) -> None:
    text = "".join(
        entry(f"{ipaddress.IPv4Address(first)}-{ipaddress.IPv4Address(last)}", code)
        for first, last, code in rows
    )
    plain = Dataset.from_buffer(IMAGE)
    dataset = laid_over(text)
    near = {at + step for first, last, _ in rows for at in (first, last) for step in (-1, 0, 1)}
    near |= {int(ipaddress.IPv4Address(one)) for one in ONE_OF_EACH4}
    for value in sorted(at for at in near if 0 <= at < 1 << 32):
        address = value.to_bytes(4)
        before, after, code = (
            plain.lookup(address, "DE"),
            dataset.lookup(address, "DE"),
            holder(rows, value),
        )
        if code is None:
            assert (after.country, after.status, after.verdict, after.reason) == (
                before.country,
                before.status,
                before.verdict,
                before.reason,
            )
        else:
            assert (after.country, after.region) == (code[:2], code if "-" in code else "")
            assert after.status is Status.OVERRIDE
        assert dataset.classify([address]).dataset == after.dataset == dataset.id
        mapped = bytes(10) + b"\xff\xff" + address
        assert dataset.lookup(mapped) == dataset.lookup(address)
    dataset.check_sections()


ROWS = (
    ("1.0.0.0/22", "DE"),
    ("1.0.2.0/25", "UA-43"),
    ("1.0.9.128-1.0.10.3", "ZZ"),
    ("2.0.0.0/8", "US-CA"),
    ("2.0.2.0/24", "FR"),
    ("10.0.0.0/8", "CH"),
    ("255.255.255.255/32", "JP"),
    ("::/3", "GB"),
    ("2001:db8::/32", "CN"),
    ("2001:db8::8000-2001:db8:0:1::7", "AT"),
    ("ffff::/16", "ZZ"),
)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_answers_are_those_of_a_dataset_compiled_with_the_overrides(
    deep: bool, lists: bool
) -> None:
    content = small_networks.compiled(deep=deep, lists=lists)
    text = "".join(entry(where, code) for where, code in ROWS)
    dataset = laid_over(text, encode(content, optional=content.optional))
    compiled = small_networks.compiled(
        deep=deep, lists=lists, more=[(parse(entry(*row)).entries[0]) for row in ROWS]
    )
    expected = Dataset.from_buffer(encode(compiled, optional=compiled.optional))
    random_values = random.Random(1)
    for family, bits in ((4, 32), (6, 128)):
        edges = {first for first, _, _ in expected.intervals(family)}
        edges |= {first for first, _, _ in dataset.intervals(family)}
        values = {edge + step for edge in edges for step in (-1, 0, 1)}
        values |= {random_values.getrandbits(bits) for _ in range(100)}
        for value in sorted(at for at in values if 0 <= at < 1 << bits):
            address = value.to_bytes(bits // 8)
            for region_set in ("DE", "UA/43+CN", "US-US/CA"):
                for policy in geolookup.Policy:
                    one = dataset.lookup(address, region_set, policy)
                    other = expected.lookup(address, region_set, policy)
                    assert one == replace(other, dataset=dataset.id)
            why, wanted = dataset.explain(address), expected.explain(address)
            assert why.sources == wanted.sources
            assert (why.networks, why.network_lists) == (wanted.networks, wanted.network_lists)
    assert len(list(dataset.intervals(4))) == len(list(expected.intervals(4)))
    assert len(list(dataset.intervals(6))) == len(list(expected.intervals(6)))


def test_explanation_names_the_override_and_its_file() -> None:
    overrides = parse(
        entry("1.0.0.0/8", "DE", comment="all")
        + entry("1.0.1.0/24", "FR", comment="Büro", expires="2026-12-01T10:00:00+01:00")
    )
    with Dataset.from_buffer(IMAGE) as base:
        dataset = base.with_overrides(overrides, NOW)
    found = dataset.explain("1.0.1.9").override
    assert found is not None
    assert (found.number, found.file, found.country) == (2, overrides.digest, "FR")
    assert (found.comment, found.expires) == ("Büro", "2026-12-01T09:00:00Z")
    assert (found.first, found.last) == ("1.0.1.0", "1.0.1.255")
    piece = dataset.explain("1.0.2.0").override
    assert piece is not None
    assert (piece.number, piece.first, piece.last) == (1, "1.0.2.0", "1.255.255.255")
    # Those of the manifest are no file's.
    assert dataset.explain("10.1.0.1").override is None  # this dataset has no evidence


def test_dataset_names_its_base_its_file_and_their_numbers() -> None:
    overrides = parse(
        entry("1.0.1.0/24", "FR")
        + entry("2.0.0.0/8", "FR", expires="2026-11-29")
        + entry("2.0.0.0/9", "FR", expires="2026-11-30")
    )
    with Dataset.from_buffer(IMAGE) as base:
        assert (base.base, base.runtime_overrides) == (base.id, None)
        dataset = base.with_overrides(overrides, NOW)
    found = dataset.runtime_overrides
    assert found is not None
    assert (found.base, dataset.base, found.file) == (base.id, base.id, overrides.digest)
    assert (found.active, found.expired) == (2, 1)
    assert found.until == datetime(2026, 12, 1, tzinfo=UTC)
    assert dataset.info()["runtime_overrides"] == found.as_json()
    record = dataset.classify(["1.0.1.1"], region_set="FR", record=True).record
    assert record is not None
    assert (record.base_dataset, record.overrides) == (base.id, overrides.digest)
    assert from_json(to_json(record)) == record


def test_id_pins_dataset_file_and_what_has_expired() -> None:
    one = entry("1.0.1.0/24", "FR") + entry("2.0.0.0/8", "FR", expires="2026-11-30")
    ids = {
        laid_over(text, image, now).id
        for text in (one, one + "# reviewed\n")
        for image in (IMAGE, OTHER)
        for now in (NOW, NOW + 1, NOW + 86_400)
    }
    assert len(ids) == 2 * 2 * 2


@pytest.mark.parametrize(
    "text", ["", "# none yet\n", entry("1.0.1.0/24", "FR", expires="2026-11-29")]
)
def test_file_without_active_overrides_leaves_the_dataset_as_it_is(text: str) -> None:
    dataset = laid_over(text)
    with Dataset.from_buffer(IMAGE) as base:
        assert (dataset.id, dataset.runtime_overrides) == (base.id, None)


def test_overrides_are_not_laid_over_twice() -> None:
    dataset = laid_over(entry("1.0.1.0/24", "FR"))
    with pytest.raises(DatasetError, match="laid over it already"):
        dataset.with_overrides(parse(entry("1.0.1.0/24", "FR")), NOW)


def test_damaged_section_of_overrides_is_named() -> None:
    with Dataset.from_buffer(IMAGE) as base:
        image = Image(memoryview(IMAGE), "d")
        pieces = overlay.lay_over(image, parse(entry("1.0.1.0/24", "FR")), NOW)
        assert pieces is not None
        damaged = b"".join(pieces)[:-1] + b"?"
    with (
        Dataset.from_buffer(damaged, "d") as dataset,
        pytest.raises(DatasetError, match=r"^d: section overrides: "),
    ):
        dataset.explain("1.0.1.1")
    assert base.closed


# --- what is refused

MALFORMED = (
    ("no TOML", "[[override]]\nprefix =\n", "o.toml:2:9: "),
    ("an unknown table", "[[overrides]]\n", "o.toml: overrides: unknown key; expected override"),
    ("no table", "override = 1\n", "o.toml: override: expected a list"),
    (
        "an unknown key",
        entry("1.0.0.0/8", "DE") + "why = 'x'\n",
        "o.toml:4: override 1: why: unknown",
    ),
    (
        "a slip in the second",
        "# ours\n" + entry("1.0.0.0/8", "DE") + "\n" + entry("2.0.0.0/8", "UK"),
        "o.toml:8: override 2: code: the code is a country's, a subdivision's, or ZZ; did you mean",
    ),
    ("no code", '\n[[override]]\nprefix = "1.0.0.0/8"\n', "o.toml:2: override 1: code: missing"),
    ("no range", '[[override]]\ncode = "DE"\n', "o.toml:1: override 1: range: missing"),
    ("bits beyond", entry("1.2.3.4/8", "DE"), "o.toml:2: override 1: prefix: the prefix has bits"),
    ("backwards", entry("1.0.0.9-1.0.0.1", "DE"), "o.toml:2: override 1: range: the range ends"),
    ("families", entry("1.0.0.9-::1", "DE"), "o.toml:2: override 1: range: first and last are"),
    ("a text", entry("1.0.0.0/8", "DE", expires='"2027-01-01"'), "o.toml:4: override 1: expires: "),
    (
        "a time without its offset",
        entry("1.0.0.0/8", "DE", expires="2027-01-01T00:00:00"),
        "o.toml:4: override 1: expires: a time needs its offset",
    ),
    ("a table in line", "override = [{prefix = 'x', code = 'DE'}]", "o.toml: override 1: prefix: "),
    (
        "two that contradict each other",
        entry("1.0.0.0/24", "DE") + entry("1.0.0.0/8", "DE") + entry("1.0.0.0/24", "FR"),
        "o.toml:7: override 3: names another code than override 1 ",
    ),
    (
        "two that a third hides",
        entry("1.0.0.0-1.0.0.1", "DE") + entry("1.0.0.1-1.0.0.2", "FR") + entry("1.0.0.1/32", "FR"),
        "o.toml:4: override 2: names another code than override 1 ",
    ),
    ("an embedded address", entry("2002:100::/24", "DE"), "o.toml:1: override 1: has no effect"),
)


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in MALFORMED], ids=lambda one: one[:9]
)
def test_malformed_file_is_refused_with_file_line_and_key(text: str, expected: str) -> None:
    with pytest.raises(SourceError) as refused:
        laid_over(text)
    assert str(refused.value).startswith(expected)
    assert "1.0.0" not in str(refused.value)
    assert "1.2.3" not in str(refused.value)


def test_contradiction_of_what_has_expired_is_none() -> None:
    text = entry("1.0.0.0/24", "DE", expires="2026-11-29") + entry("1.0.0.0/24", "FR")
    assert laid_over(text).country("1.0.0.1") == "FR"


# --- expiry


@pytest.mark.parametrize(
    ("expires", "end"),
    [
        ("2026-11-30", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12-01T01:30:00+02:00", datetime(2026, 11, 30, 23, 30, tzinfo=UTC)),
    ],
)
def test_override_stops_acting_at_its_instant(
    expires: str, end: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, overrides = tmp_path / "d.geolookup", tmp_path / "o.toml"
    path.write_bytes(IMAGE)
    overrides.write_text(
        entry("1.0.1.0/24", "FR", expires=expires) + entry("2.0.0.0/8", "GB"), encoding="utf-8"
    )
    now = end.timestamp() - 0.001
    monkeypatch.setattr(ages, "clock", lambda: now)
    with geolookup.open(path, overrides=overrides) as dataset:
        country, lookup = dataset.country, dataset.lookup
        rosters = dataset.classify_many([["1.0.1.1"], ["1.0.1.1"]], region_set="FR")
        before = dataset.id
        assert (country("1.0.1.1"), lookup("1.0.1.1", "FR").verdict) == ("FR", "INSIDE")
        assert next(rosters).dataset == before
        now = end.timestamp()
        assert (country("1.0.1.1"), lookup("1.0.1.1", "FR").verdict) == ("CN", "OUTSIDE")
        assert lookup("1.0.1.1").dataset == dataset.id != before
        assert next(rosters).dataset == dataset.id
        assert country("2.0.0.1") == "GB"
        found = dataset.runtime_overrides
        assert found is not None
        assert (found.active, found.expired, found.until) == (1, 1, None)
    with pytest.raises(geolookup.DatasetClosedError):
        country("1.0.1.1")


def test_closed_dataset_stays_closed_when_an_override_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = tmp_path / "o.toml"
    overrides.write_text(entry("1.0.1.0/24", "FR", expires="2026-11-30"), encoding="utf-8")
    now = NOW
    monkeypatch.setattr(ages, "clock", lambda: now)
    dataset = Dataset.from_buffer(IMAGE, overrides=Overrides.load(overrides))
    dataset.close()
    now += 86_400
    assert dataset.closed
    with pytest.raises(geolookup.DatasetClosedError):
        dataset.country("1.0.1.1")


def test_dataset_with_overrides_has_all_that_a_dataset_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not asked of the dataset of the moment would be asked of one that is not there."""
    monkeypatch.setattr(ages, "clock", lambda: NOW)
    overrides = parse(entry("1.0.1.0/24", "FR", expires="2026-11-30"))
    expiring = Dataset.from_buffer(IMAGE, overrides=overrides)
    with Dataset.from_buffer(IMAGE) as base:
        plain = base.with_overrides(overrides, NOW)
    assert type(expiring) is not Dataset
    assert dir(expiring) == dir(plain)
    for name in dir(Dataset):
        if name.startswith("__") or not isinstance(getattr(Dataset, name), property):
            continue
        one, other = getattr(expiring, name), getattr(plain, name)
        assert type(one) is type(other), name
    for name, found in vars(Dataset).items():
        if isinstance(found, (property,)):
            assert name in vars(type(expiring)), name
    assert repr(expiring) == repr(plain)
    with pytest.raises(AttributeError, match="immutable"):
        expiring.id = ""  # type: ignore[misc]
    expiring.close()
