"""Targets: addresses as text and packed, and columns over their claims, on every code path."""

from __future__ import annotations

import functools
from array import array
from collections import Counter

import reference
from core_tables import SHAPES, column
from pyroaring import BitMap

from geolookup import _core
from geolookup.answer.claims import INVALID

ISAS = _core.isa_paths()
NAMES = tuple(SHAPES)
WORDS = (b"::", b"::ffff:", b"fe80::", b"%eth0", b"255", b"0:0", b".0.0.", b"1.2.3.4", b"abcd:")


@functools.cache
def table(name: str, isa: str) -> _core.Table:
    return SHAPES[name].table(isa)


def text(data: bytes) -> None:
    """Lines of text: read as the reference reads them, and answered as the oracle does."""
    texts = data.decode("utf-8", "surrogateescape").split("\n")
    shape = SHAPES["embedded forms"]
    read = [reference.parse(one) for one in texts]
    packed = [None if one is None else reference.pack(one[0], [one[1]]) for one in read]
    families = bytes(0 if one is None else one[0] for one in read)
    wide = b"".join((one or b"").rjust(16, b"\0") for one in packed)
    claims = [
        INVALID if one is None else shape.claim4(one[1]) if one[0] == 4 else shape.claim6(one[1])
        for one in read
    ]
    for isa in ISAS:
        assert [_core.parse(one, isa=isa) for one in texts] == packed, isa
        assert _core.parse_many(texts, isa=isa) == (wide, families), isa
        found = table("embedded forms", isa)
        assert found.classify_text(texts) == column(claims), isa
        assert [found.claim(one) for one in texts] == claims, isa
        assert [found.claim(one or b"") for one in packed] == claims, isa


def packed(data: bytes) -> None:
    """A packed roster: byte 0 chooses the table, byte 1 family, place in memory and verdicts."""
    if len(data) < 2:
        return
    name = NAMES[data[0] % len(NAMES)]
    shape, width = SHAPES[name], 16 if data[1] & 1 else 4
    shift = data[1] >> 1 & 15
    roster = memoryview(bytes(shift) + data[2:])[shift:]
    if len(roster) % width:
        for isa in ISAS:
            one = table(name, isa)
            try:
                one.classify_ipv6(roster) if width == 16 else one.classify_ipv4(roster)
            except ValueError as error:
                assert str(error) == f"packed: {len(roster)} bytes are no multiple of {width}"
            else:
                raise AssertionError("a roster of odd length was taken")
        return
    numbers = [int.from_bytes(roster[at : at + width]) for at in range(0, len(roster), width)]
    claims = list(map(shape.claim6 if width == 16 else shape.claim4, numbers))
    expected = column(claims)
    for isa in ISAS:
        one = table(name, isa)
        found = one.classify_ipv6(roster) if width == 16 else one.classify_ipv4(roster)
        assert found == expected, (name, isa)
        items = [bytes(roster[at : at + width]) for at in range(0, len(roster), width)]
        assert one.classify_text(items) == expected, (name, isa)
    columns(claims, data[1] >> 5)


def columns(claims: list[int], kind: int) -> None:
    """Check what is made of claims; *kind* chooses how verdicts and codes follow from them."""
    verdicts = bytes((claim >> kind) % 5 for claim in range(1024))
    codes = b"".join(
        bytes([0x41 + claim % 23, 0x41 + (claim >> kind) % 7]) if kind else claim.to_bytes(2)
        for claim in range(1024)
    )
    raw = column(claims)
    said = [verdicts[claim] for claim in claims]
    pairs = [codes[2 * claim : 2 * claim + 2] for claim in claims]
    assert _core.map8(raw, verdicts) == bytes(said)
    assert _core.map16(raw, codes) == b"".join(pairs)
    assert _core.count8(bytes(said)) == dict(Counter(said))
    assert _core.count16(b"".join(pairs)) == dict(Counter(pairs))
    sets = (
        [at for at, one in enumerate(said) if one == 1],
        [at for at, one in enumerate(said) if one == 2],
        [at for at, one in enumerate(said) if one not in (1, 2)],
    )
    for isa in ISAS:
        assert _core.partition(raw, verdicts, isa=isa) == tuple(
            array("I", one).tobytes() for one in sets
        )
        for one, serialised in zip(
            sets, _core.roaring_partition(raw, verdicts, isa=isa), strict=True
        ):
            assert BitMap.deserialize(serialised) == BitMap(one)
        for pair in pairs[:3]:
            places = [at for at, one in enumerate(pairs) if one == pair]
            found = _core.positions16(b"".join(pairs), pair, isa=isa)
            assert found == array("I", places).tobytes()
            assert BitMap.deserialize(_core.roaring16(b"".join(pairs), pair, isa=isa)) == BitMap(
                places
            )
