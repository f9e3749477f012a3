"""Lookups in the core: every path, every shape of table, every boundary."""

from __future__ import annotations

import functools
import random
import sys
import threading
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from core_tables import (
    CLAIMS,
    END4,
    END6,
    LABELS,
    SHAPES,
    Arrays,
    Shape,
    column,
    packed4,
    packed6,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from geolookup import _core
from geolookup.answer.claims import INVALID, MAX_CLAIMS
from geolookup.answer.embedded_ipv4 import EMBEDDED_LOW32, EMBEDDED_NAT64_64

ISAS = _core.isa_paths()
SIZES = [*range(71), 255, 256, 257, 258, 511, 512, 513, 1000]

every_isa = pytest.mark.parametrize("isa", ISAS)
every_shape = pytest.mark.parametrize("name", SHAPES)


def text4(address: int) -> str:
    return ".".join(str(octet) for octet in address.to_bytes(4, "big"))


def text6(address: int) -> str:
    return ":".join(f"{address >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))


# --- right answers --------------------------------------------------------------------


@every_isa
@every_shape
def test_packed_ipv4_beside_each_boundary_agrees_with_oracle(name: str, isa: str) -> None:
    shape = SHAPES[name]
    probes = shape.probes4()
    expected = column([shape.claim4(address) for address in probes])
    assert shape.table(isa).classify_ipv4(packed4(probes)) == expected


@functools.cache
def more_than_a_million() -> tuple[array[int], array[int]]:
    draw = random.Random(9)
    drawn = {draw.getrandbits(32) & ~draw.getrandbits(9) for _ in range(1_200_000)}
    first = array("I", sorted({0, *drawn}))
    assert len(first) > 1 << 20
    return first, array("H", (number % CLAIMS for number in range(len(first))))


@every_isa
def test_packed_ipv4_in_table_of_more_than_a_million_agrees_with_oracle(isa: str) -> None:
    """There, the index begins with smaller ranges."""
    first, claims = more_than_a_million()
    rest = Shape().arrays()[2:]
    table = _core.Table(first, claims, *rest, LABELS, isa=isa)
    places = random.Random(9).sample(range(1, len(first)), 20_000)
    probes = [first[at] + step for at in places for step in (-1, 0)]
    expected = [(at + step) % CLAIMS for at in places for step in (-1, 0)]
    assert table.classify_ipv4(packed4(probes)) == column(expected)
    assert [table.claim(packed4([probe])) for probe in probes[:2000]] == expected[:2000]


@every_isa
@every_shape
def test_packed_ipv6_beside_each_boundary_agrees_with_oracle(name: str, isa: str) -> None:
    shape = SHAPES[name]
    probes = shape.probes6()
    expected = column([shape.claim6(address) for address in probes])
    assert shape.table(isa).classify_ipv6(packed6(probes)) == expected


@every_isa
@every_shape
def test_text_and_single_lookups_agree_with_the_oracle(name: str, isa: str) -> None:
    shape = SHAPES[name]
    table = shape.table(isa)
    four, six = shape.probes4()[:1500], shape.probes6()[-1500:]
    claims = [*map(shape.claim4, four), *map(shape.claim6, six)]
    texts = [*map(text4, four), *map(text6, six)]
    packed = [address.to_bytes(4, "big") for address in four]
    packed += [address.to_bytes(16, "big") for address in six]
    assert table.classify_text(texts) == column(claims)
    assert table.classify_text(tuple(packed)) == column(claims)
    assert [table.claim(text) for text in texts] == claims
    assert [table.claim(address) for address in packed] == claims
    assert [table.label(text) for text in texts] == [LABELS[claim] for claim in claims]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Few intervals anywhere, which hypothesis shrinks to the simplest failure."""
    claims = st.integers(0, CLAIMS - 1)
    four = draw(st.dictionaries(st.integers(1, END4 - 1), claims, max_size=30))
    forms = st.integers(EMBEDDED_NAT64_64, EMBEDDED_LOW32)
    bits = st.integers(0, 127)
    heads = st.builds(lambda head, shift: head << shift, st.integers(1, 0xFFFF), bits)
    firsts = heads.filter(lambda first: first < END6)
    six = draw(st.dictionaries(firsts, claims | forms, max_size=30))
    return Shape(
        tuple(sorted({**four, 0: draw(claims)}.items())),
        tuple(sorted({**six, 0: draw(claims)}.items())),
    )


@settings(deadline=None)  # the first tables of a process may take their time
@given(shapes())
def test_random_table_beside_each_boundary_agrees_with_oracle(shape: Shape) -> None:
    four, six = shape.probes4(), shape.probes6()
    expected4 = column([shape.claim4(address) for address in four])
    expected6 = column([shape.claim6(address) for address in six])
    for isa in ISAS:
        table = shape.table(isa)
        assert table.classify_ipv4(packed4(four)) == expected4
        assert table.classify_ipv6(packed6(six)) == expected6


@every_isa
@pytest.mark.parametrize("name", ["clustered 1", "each address of a /19", "embedded forms"])
def test_rosters_of_every_size_keep_order_and_length(name: str, isa: str) -> None:
    """Sizes around the width of vectors and of batches, each alone in its buffer.

    In the last two shapes most addresses take more than the first step.
    """
    shape = SHAPES[name]
    table = shape.table(isa)
    draw = random.Random(3)
    four, six = shape.probes4(), shape.probes6()
    for size in SIZES:
        some4, some6 = draw.choices(four, k=size), draw.choices(six, k=size)
        claims4 = [shape.claim4(address) for address in some4]
        claims6 = [shape.claim6(address) for address in some6]
        assert table.classify_ipv4(packed4(some4)) == column(claims4), size
        assert table.classify_ipv6(packed6(some6)) == column(claims6), size
        mixed: list[str | bytes] = []
        expected = []
        for i in range(size):
            kind = draw.randrange(5)
            mixed.append(
                [
                    text4(some4[i]),
                    text6(some6[i]),
                    some4[i].to_bytes(4, "big"),
                    some6[i].to_bytes(16, "big"),
                    "no address",
                ][kind]
            )
            expected.append([claims4[i], claims6[i], claims4[i], claims6[i], INVALID][kind])
        assert table.classify_text(mixed) == column(expected), size


@every_isa
def test_roster_at_any_offset_is_classified(isa: str) -> None:
    shape = SHAPES["random 1"]
    table = shape.table(isa)
    four, six = shape.probes4()[:300], shape.probes6()[:300]
    for shift in range(1, 9):
        view4 = memoryview(bytes(shift) + packed4(four))[shift:]
        view6 = memoryview(bytes(shift) + packed6(six))[shift:]
        assert table.classify_ipv4(view4) == column([shape.claim4(at) for at in four])
        assert table.classify_ipv6(view6) == column([shape.claim6(at) for at in six])


@every_isa
def test_claims_up_to_the_limit_are_distinguished(isa: str) -> None:
    """The core has numbers of its own above the claims; none of a table's may collide."""
    claims = [0, 1, 0x7FFF, 0x8000, 0xFEFE, MAX_CLAIMS - 1]
    four = tuple((i << 24, claim) for i, claim in enumerate(claims))
    six = tuple((i << 120, claim) for i, claim in enumerate(claims))
    shape = Shape(four, six)
    table = _core.Table(*shape.arrays(), range(MAX_CLAIMS), isa=isa)
    probes4, probes6 = shape.probes4(), shape.probes6()[:500]
    assert table.classify_ipv4(packed4(probes4)) == column([shape.claim4(at) for at in probes4])
    assert table.classify_ipv6(packed6(probes6)) == column([shape.claim6(at) for at in probes6])
    assert table.label("3.0.0.1") == 0x8000


def test_indexes_stay_small() -> None:
    """A dataset's worth of /24s and /48s takes a few bytes each; nothing takes a gigabyte."""
    draw = random.Random(5)
    four = sorted({draw.getrandbits(24) << 8 for _ in range(60_000)} - {0})
    heads = [draw.getrandbits(8) for _ in range(200)]
    six = sorted({0x2A00 << 112 | draw.choice(heads) << 96 | draw.getrandbits(16) << 80
                  for _ in range(60_000)})  # fmt: skip
    shape = Shape(
        ((0, 1), *((first, 2 + i % 5) for i, first in enumerate(four))),
        ((0, 1), *((first, 2 + i % 5) for i, first in enumerate(six))),
    )
    table = shape.table()
    assert table.index_size < 6 * 2**20
    some4, some6 = shape.probes4()[:20_000], shape.probes6()[:20_000]
    assert table.classify_ipv4(packed4(some4)) == column([shape.claim4(at) for at in some4])
    assert table.classify_ipv6(packed6(some6)) == column([shape.claim6(at) for at in some6])


# --- what goes in ---------------------------------------------------------------------


def small() -> _core.Table:
    return SHAPES["two halves"].table()


def test_malformed_address_has_claim_invalid() -> None:
    table = _core.Table(*Shape().arrays(), ["invalid", "unassigned"])
    for wrong in ("", "x", "1.2.3", "1.2.3.04", "1.2.3.4 ", "1.2.3.4\0", "\u0663.2.3.4", "::g", "é",
                  "\ud800", "1" * 1000, b"", b"123", b"12345", b"1" * 15, b"1" * 17):  # fmt: skip
        assert table.claim(wrong) == INVALID
        assert table.label(wrong) == "invalid"
        assert table.classify_text([wrong, "::"]) == column([INVALID, 1])


def test_str_subclass_is_text_and_bytes_subclass_goes_to_the_converter() -> None:
    """numpy's bytes_ is one, and is text: only who knows the types can say what they are."""

    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "0.0.0.0"  # noqa: S104 - an address, nothing listens

    class Packed(bytes):
        __slots__ = ()

    table = small()
    assert table.claim(Text("192.0.2.1")) == 2
    assert table.classify_text([Text("192.0.2.1"), b"\xff" * 16]) == column([2, 2])
    with pytest.raises(
        TypeError, match=r"^addresses: expected str or bytes at position 1, not Pac"
    ):
        table.classify_text([Text("192.0.2.1"), Packed(b"\xff" * 16)])
    with pytest.raises(TypeError, match=r"^address: expected str or bytes, not Packed$"):
        table.claim(Packed(b"\xff" * 16))


@pytest.mark.parametrize("wrong", [None, 1, 1.5, bytearray(4), memoryview(b"1234"), ["::"], ()])
def test_item_of_other_type_is_refused_with_its_position(wrong: Any) -> None:
    table = small()
    name = type(wrong).__name__
    with pytest.raises(TypeError, match=f"^address: expected str or bytes, not {name}$"):
        table.claim(wrong)
    with pytest.raises(TypeError, match=f"^address: expected str or bytes, not {name}$"):
        table.label(wrong)
    for before in (0, 1, 600):
        roster = ["::1"] * before + [wrong]
        text = f"^addresses: expected str or bytes at position {before}, not {name}$"
        with pytest.raises(TypeError, match=text):
            table.classify_text(roster)


def test_item_of_other_type_goes_through_the_converter() -> None:
    asked: list[object] = []

    def convert(address: Any) -> Any:
        asked.append(address)
        if isinstance(address, float):
            raise TypeError("no floats")
        return {1: "200.0.0.1", 2: bytes(4), 3: "no address", 4: 5}[address]

    table = _core.Table(*SHAPES["two halves"].arrays(), LABELS, convert=convert)
    assert [table.claim(1), table.claim(2), table.claim(3)] == [2, 1, INVALID]
    assert table.label(1) is LABELS[2]
    assert asked == [1, 2, 3, 1]
    assert [table.claim("200.0.0.1"), table.claim(bytes(16))] == [2, 1]
    assert len(asked) == 4
    with pytest.raises(TypeError, match=r"^convert: returned neither str nor bytes$"):
        table.claim(4)
    with pytest.raises(TypeError, match=r"^no floats$"):
        table.label(1.5)


@pytest.mark.parametrize("wrong", [None, "::1", b"1234", {"::1"}, iter(["::1"]), 4])
def test_text_roster_is_a_list_or_tuple(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^addresses: expected list or tuple, not "):
        small().classify_text(wrong)


def test_packed_rosters_of_odd_length_are_refused() -> None:
    table = small()
    for size in (1, 2, 3, 5, 7, 4097):
        with pytest.raises(ValueError, match=f"^packed: {size} bytes are no multiple of 4$"):
            table.classify_ipv4(bytes(size))
    for size in (1, 4, 15, 17, 4097):
        with pytest.raises(ValueError, match=f"^packed: {size} bytes are no multiple of 16$"):
            table.classify_ipv6(bytes(size))


def test_any_contiguous_buffer_is_a_roster() -> None:
    table = small()
    packed = b"\x00\x00\x00\x01\xff\x00\x00\x01"
    expected = column([1, 2])
    assert table.classify_ipv4(bytearray(packed)) == expected
    assert table.classify_ipv4(memoryview(packed)) == expected
    assert table.classify_ipv4(array("Q", packed)) == expected
    assert table.classify_ipv4(memoryview(packed).cast("B", (2, 4))) == expected
    with pytest.raises(BufferError):
        table.classify_ipv4(memoryview(packed * 2)[::2])
    with pytest.raises(TypeError):
        table.classify_ipv4("0001")


def test_empty_rosters_have_empty_answers() -> None:
    for isa in ISAS:
        table = Shape().table(isa)
        assert table.classify_ipv4(b"") == table.classify_ipv6(bytearray()) == b""
        assert table.classify_text([]) == table.classify_text(()) == b""


# --- tables that make no sense --------------------------------------------------------

GOOD = Shape(((0, 1), (256, 2), (512, 1)), ((0, 1), (1 << 64, EMBEDDED_LOW32), (1 << 65, 1)))


def with_array(index: int, *values: int) -> Arrays:
    arrays = list(GOOD.arrays())
    arrays[index] = array(arrays[index].typecode, values)
    first4, claims4, high6, low6, claims6 = arrays
    return first4, claims4, high6, low6, claims6


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (with_array(0), "ipv4_first: empty"),
        (with_array(1), "ipv4_claims: empty"),
        (with_array(2), "ipv6_first_high: empty"),
        (with_array(3), "ipv6_first_low: empty"),
        (with_array(4), "ipv6_claims: empty"),
        (with_array(0, 0, 256), "ipv4_claims: 3 items, but ipv4_first has 2"),
        (with_array(1, 1, 2, 1, 2), "ipv4_claims: 4 items, but ipv4_first has 3"),
        (with_array(3, 0, 0), "ipv6_first_low: 2 items, but ipv6_first_high has 3"),
        (with_array(4, 1), "ipv6_claims: 1 items, but ipv6_first_high has 3"),
        (with_array(0, 1, 256, 512), "ipv4_first: does not begin at 0 at position 0"),
        (with_array(2, 1, 2, 3), "ipv6_first_high: does not begin at 0 at position 0"),
        (with_array(3, 1, 0, 0), "ipv6_first_low: does not begin at 0 at position 0"),
        (with_array(0, 0, 0, 1), "ipv4_first: does not ascend at position 1"),
        (with_array(0, 0, 9, 9), "ipv4_first: does not ascend at position 2"),
        (with_array(0, 0, 9, 8), "ipv4_first: does not ascend at position 2"),
        (
            with_array(2, 0, 0, 1),
            "ipv6_first_high and ipv6_first_low: do not ascend at position 1",
        ),
        (
            with_array(2, 0, 2, 1),
            "ipv6_first_high and ipv6_first_low: do not ascend at position 2",
        ),
        (with_array(1, 1, 2, 4), "ipv4_claims: unknown claim at position 2"),
        (with_array(1, 0xFFFF, 2, 1), "ipv4_claims: unknown claim at position 0"),
        (with_array(1, 1, MAX_CLAIMS, 1), "ipv4_claims: unknown claim at position 1"),
        (with_array(4, 1, 4, 1), "ipv6_claims: unknown claim at position 1"),
        (
            with_array(4, EMBEDDED_NAT64_64 - 1, 1, 1),
            "ipv6_claims: unknown claim at position 0",
        ),
    ],
)
def test_inconsistent_arrays_are_refused(arrays: Arrays, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        _core.Table(*arrays, LABELS[:4])


def test_low_halves_that_do_not_ascend_are_refused() -> None:
    shape = Shape(ipv6=((0, 1), (5, 2), (5, 3)))
    with pytest.raises(ValueError, match=r"do not ascend at position 2$"):
        _core.Table(*shape.arrays(), LABELS)


def test_a_table_needs_labels_whole_items_and_alignment() -> None:
    arrays = list(Shape().arrays())
    with pytest.raises(ValueError, match=r"^labels: empty$"):
        _core.Table(*arrays, [])  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^ipv4_claims: unknown claim at position 0$"):
        _core.Table(*arrays, ["one"])  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^ipv4_first: 3 bytes are no multiple of 4$"):
        _core.Table(bytes(3), *arrays[1:], LABELS)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^ipv6_first_low: not aligned to 8 bytes$"):
        _core.Table(*arrays[:3], memoryview(bytes(12))[4:], arrays[4], LABELS)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _core.Table(*arrays, None)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _core.Table()  # type: ignore[call-arg]


def test_claims_beyond_the_limit_are_refused_however_many_labels_there_are() -> None:
    arrays = with_array(1, 1, MAX_CLAIMS, 1)
    with pytest.raises(ValueError, match=r"^ipv4_claims: unknown claim at position 1$"):
        _core.Table(*arrays, range(0xFFFF))


def test_faults_at_the_end_of_long_arrays_are_found() -> None:
    """The checks run over vectors; the odd ones at the end count too."""
    for size in range(2, 40):
        first = array("I", range(0, size * 256, 256))
        claims = array("H", [1] * size)
        rest = Shape().arrays()[2:]
        claims[-1] = 700
        last = f"at position {size - 1}$"
        with pytest.raises(ValueError, match=f"^ipv4_claims: unknown claim {last}"):
            _core.Table(first, claims, *rest, LABELS)
        claims[-1], first[-1] = 1, first[-2]
        with pytest.raises(ValueError, match=f"^ipv4_first: does not ascend {last}"):
            _core.Table(first, claims, *rest, LABELS)


def test_an_unknown_code_path_is_refused() -> None:
    calls: list[Callable[[], object]] = [
        lambda: Shape().table("mmx"),
        lambda: _core.parse("::", isa="mmx"),
        lambda: _core.parse_many(["::"], isa="mmx"),
        lambda: _core.positions8(b"", 1, isa="mmx"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"^isa: not one of {', '.join(ISAS)}$"):
            call()


def test_portable_path_is_always_available() -> None:
    assert ISAS[0] == "portable"
    assert len(set(ISAS)) == len(ISAS)


# --- lifetimes and threads ------------------------------------------------------------


def test_a_table_holds_its_arrays_and_labels_as_long_as_it_lives() -> None:
    arrays = [bytearray(part.tobytes()) for part in GOOD.arrays()]
    labels = [object() for _ in range(4)]
    counted = sys.getrefcount(labels[1])
    table = _core.Table(*arrays, labels)  # type: ignore[call-arg]
    for part in arrays:
        with pytest.raises(BufferError):
            part.append(0)
    same = [table.label("0.0.0.1") is labels[1] for _ in range(100)]
    assert all(same)
    # Counted outside assert, which holds on to what it looks at.
    held = sys.getrefcount(labels[1])
    del table
    left = sys.getrefcount(labels[1])
    assert (held, left) == (counted + 1, counted)
    for part in arrays:
        part.append(0)


def test_refused_table_releases_its_arrays() -> None:
    arrays = [bytearray(part.tobytes()) for part in GOOD.arrays()]
    arrays[4] += b"\0"
    with pytest.raises(ValueError, match=r"^ipv6_claims"):
        _core.Table(*arrays, LABELS)  # type: ignore[call-arg]
    for part in arrays:
        part.append(0)


def test_roster_is_released_after_the_call() -> None:
    table = small()
    text = "".join(["192.0", ".2.1"])
    roster = [text] * 1000
    counted = sys.getrefcount(text)
    table.classify_text(roster)
    with pytest.raises(TypeError):
        table.classify_text([*roster, None])
    left = sys.getrefcount(text)
    assert left == counted
    packed = bytearray(16)
    table.classify_ipv4(packed)
    with pytest.raises(ValueError, match=r"^packed"):
        table.classify_ipv6(memoryview(packed)[:3])
    packed.append(0)


def test_table_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        small().__reduce__()


def test_list_that_changes_during_the_call_is_safe() -> None:
    """Other threads empty, fill and replace the list, freeing the strings in it."""
    table = small()
    draw = random.Random(9)
    fresh = [[f"{draw.randrange(128, 256)}.{i % 256}.0.1" for i in range(3000)] for _ in range(40)]
    roster = list(fresh[0])
    stop = threading.Event()
    seen: set[int] = set()

    def classify() -> None:
        while not stop.is_set():
            seen.update(array("H", table.classify_text(roster)))

    threads = [threading.Thread(target=classify) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for texts in fresh:
            del roster[draw.randrange(1, 2000) :]
            for _ in range(30):
                roster[draw.randrange(len(roster))] = f"200.{draw.randrange(256)}.1.1"
            roster[:] = [f"{text}{len(text) % 10}" for text in texts]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    # Whatever the list held, it was addresses of one claim: read from freed strings,
    # they would be others or none.
    assert seen == {2}


def test_threads_sharing_a_table_get_right_answers() -> None:
    shape = SHAPES["clustered 2"]
    table = shape.table()
    four, six = shape.probes4() * 5, shape.probes6() * 5
    jobs = [
        (table.classify_ipv4, packed4(four), column([shape.claim4(at) for at in four])),
        (table.classify_ipv6, packed6(six), column([shape.claim6(at) for at in six])),
    ]
    wrong: list[str] = []

    def work(number: int) -> None:
        classify, roster, expected = jobs[number % 2]
        for _ in range(20):
            if classify(roster) != expected:
                wrong.append(classify.__name__)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "text"])
def test_other_threads_run_during_bulk_calls(kind: str) -> None:
    """With a switch interval of an hour, only a released GIL lets this thread in."""
    table = small()
    call: Callable[[], bytes] = {
        "ipv4": functools.partial(table.classify_ipv4, bytes(4 * 4_000_000)),
        "ipv6": functools.partial(table.classify_ipv6, bytes(16 * 2_000_000)),
        "text": functools.partial(table.classify_text, ["2001:db8:1:2:3:4:5:6"] * 300_000),
    }[kind]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        # The system may give the processor to others meanwhile, hence several tries.
        assert any(_ran_meanwhile(call) for _ in range(20))
    finally:
        sys.setswitchinterval(interval)


def _ran_meanwhile(call: Callable[[], bytes]) -> bool:
    begun = threading.Event()
    ended: list[bool] = []

    def work() -> None:
        begun.set()
        call()
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    ran = not ended
    thread.join()
    return ran
