"""The strict text parser, on every path of the core and through each of its doors."""

from __future__ import annotations

import ipaddress
import itertools
import random
import string

import pytest
from address_texts import MALFORMED, VALID
from hypothesis import example, given
from hypothesis import strategies as st

from geolookup import _core

ISAS = _core.isa_paths()

every_isa = pytest.mark.parametrize("isa", ISAS)


def reference(text: str) -> bytes | None:
    """Return the packed address by Python's parser and the rule for zones."""
    head, percent, zone = text.partition("%")
    try:
        address = ipaddress.ip_address(head)
    except ValueError:
        return None
    if percent:
        visible = all("!" <= character <= "~" for character in zone)
        if not 1 <= len(zone) <= 64 or not visible or "%" in zone or "/" in zone:
            return None
        if address not in ipaddress.ip_network("fe80::/10"):
            return None
    return address.packed


def check(texts: list[str]) -> None:
    """Compare both doors of every path with the reference."""
    expected = [reference(text) for text in texts]
    families = bytes({0: 0, 4: 4, 16: 6}[len(packed or b"")] for packed in expected)
    column = b"".join((packed or b"").rjust(16, b"\0") for packed in expected)
    for isa in ISAS:
        for text, packed in zip(texts, expected, strict=True):
            assert _core.parse(text, isa=isa) == packed, (isa, text)
        assert _core.parse_many(texts, isa=isa) == (column, families), isa


@every_isa
@pytest.mark.parametrize(("text", "packed"), VALID)
def test_valid_text_is_parsed(text: str, packed: str, isa: str) -> None:
    expected = bytes.fromhex(packed)
    assert _core.parse(text, isa=isa) == expected
    family = 4 if len(expected) == 4 else 6
    assert _core.parse_many([text], isa=isa) == (expected.rjust(16, b"\0"), bytes([family]))


@every_isa
@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_text_is_invalid(fault: str, isa: str) -> None:
    for text in MALFORMED[fault]:
        assert _core.parse(text, isa=isa) is None, text
        # Between addresses, to see that what follows is read from the right place.
        row = ["1.2.3.4", text, "::5"]
        packed, families = _core.parse_many(row, isa=isa)
        assert families == b"\4\0\6", text
        assert packed == bytes(12) + b"\1\2\3\4" + bytes(16) + bytes(15) + b"\5", text


def test_reference_parser_agrees_with_the_tables() -> None:
    check([text for text, _ in VALID])
    check([text for texts in MALFORMED.values() for text in texts])


def test_ipv4_octet_of_each_length_is_held_to_255() -> None:
    numbers = ["0", "1", "9", "10", "99", "100", "199", "249", "255", "256", "260", "300", "999",
               "00", "01", "09", "010", "099", "000", "1000", "0255", ""]  # fmt: skip
    check([".".join(four) for four in itertools.product(numbers[:9], repeat=4)])
    others = ["7", "42", "111"]
    for place in range(4):
        for rest in itertools.product(others, repeat=3):
            check([".".join([*rest[:place], number, *rest[place:]]) for number in numbers])


def test_ipv4_with_any_character_at_any_place_agrees_with_reference() -> None:
    """All 81 ways to write four numbers of one to three digits."""
    characters = "\0 !+,-./0123456789:;?AZaz\x7f"
    for lengths in itertools.product((1, 2, 3), repeat=4):
        text = ".".join("213"[:length] for length in lengths)
        changed = [text, text + ".", text + "1", "1" + text]
        for place, character in itertools.product(range(len(text)), characters):
            changed.append(text[:place] + character + text[place + 1 :])
        changed += [text[:place] + text[place + 1 :] for place in range(len(text))]
        check(changed)


def test_ipv6_with_any_number_of_groups_around_the_gap_agrees_with_reference() -> None:
    draw = random.Random(6)
    texts = []
    for left, right in itertools.product(range(10), repeat=2):
        for _ in range(3):
            groups = [f"{draw.getrandbits(16):x}".rjust(draw.randrange(5), "0") for _ in range(18)]
            texts.append(":".join(groups[:left]) + "::" + ":".join(groups[9 : 9 + right]))
            texts.append(":".join(groups[: left + right]))
            tail = ["1.2.3.4"] if draw.random() < 0.5 else ["255.254.253.252"]
            texts.append(":".join(groups[:left]) + "::" + ":".join(groups[9 : 9 + right] + tail))
    check(texts)


def test_ipv6_group_of_each_length_agrees_with_reference() -> None:
    draw = random.Random(7)
    texts = []
    for lengths in draw.sample(list(itertools.product(range(1, 5), repeat=8)), 1500):
        groups = ["".join(draw.choices("0123456789abcdefABCDEF", k=length)) for length in lengths]
        texts.append(":".join(groups))
    for place, length in itertools.product(range(8), (0, 5, 6, 8)):
        groups = ["abcd"] * 8
        groups[place] = "1" * length
        texts.append(":".join(groups))
    check(texts)


@pytest.mark.parametrize(
    "text",
    ["1.22.133.254", "10.0.0.1", "1::2:30", "2001:db8:0:12:3:45::", "::ffff:1.2.3.4",
     "1:2:3:4:5:6:7:8", "fe80::1%en0"],
)  # fmt: skip
def test_address_with_any_character_at_any_place_agrees_with_reference(text: str) -> None:
    characters = [chr(code) for code in range(128)]
    changed = []
    for place in range(len(text) + 1):
        for character in characters:
            changed.append(text[:place] + character + text[place + 1 :])
            changed.append(text[:place] + character + text[place:])
    check([*changed, *(text[:end] for end in range(len(text)))])


address_text = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.text("0123456789abcdefABCDEF:.%g /", max_size=50),
    st.text(max_size=20),
)


@given(st.lists(address_text, max_size=20))
@example(["1.2.3.4", "::", "", "fe80::%é"])
def test_random_text_agrees_with_reference(texts: list[str]) -> None:
    check(texts)


@given(st.data())
def test_damaged_address_agrees_with_reference(data: st.DataObject) -> None:
    text = str(data.draw(st.ip_addresses(v=6)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.text("0123456789abcdef:.%", max_size=3))
        text = text[:place] + piece + text[place + data.draw(st.integers(0, 3)) :]
    check([text])


@every_isa
def test_long_rosters_of_long_texts_are_read_in_full(isa: str) -> None:
    """More characters an address than room is first made for."""
    longest = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"
    zoned = "fe80::1%" + "z" * 64
    row = [longest, zoned, "f" * 111, "1.2.3.4"] * 700
    packed, families = _core.parse_many(row, isa=isa)
    assert families == b"\6\6\0\4" * 700
    one = b"\xff" * 16 + b"\xfe\x80" + bytes(13) + b"\1" + bytes(28) + b"\1\2\3\4"
    assert packed == one * 700


def test_parse_of_other_type_than_str_is_refused() -> None:
    for wrong in (None, 1, b"1.2.3.4", bytearray(b"::")):
        name = type(wrong).__name__
        with pytest.raises(TypeError, match=f"^address: expected str, not {name}$"):
            _core.parse(wrong)
        with pytest.raises(TypeError, match=f"^addresses: expected str at position 2, not {name}$"):
            _core.parse_many(["::", "::", wrong])
    for row in ("::1", None, {"::1"}):
        with pytest.raises(TypeError, match=r"^addresses: expected list or tuple, not "):
            _core.parse_many(row)
    assert _core.parse_many(()) == (b"", b"")


def test_non_ascii_character_at_any_place_is_refused() -> None:
    for character in ("\x80", "ÿ", "Ā", "\u0660", "\u200b", "😀", "\ud800"):
        assert character not in string.printable
        for place in range(8):
            text = "1.2.3.4"[:place] + character + "1.2.3.4"[place:]
            assert _core.parse(text) is None
            assert _core.parse_many([text])[1] == b"\0"
