"""Who of the calls that found no slot is let in next, and who is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geolookup.service.rpc.transports.crowd import Crowd

PATIENCE = 10


def crowd(*came: int, room: int = 100) -> Crowd[int]:
    """Return a crowd of calls that are told apart by when they came."""
    made = Crowd[int](PATIENCE, room)
    for one in came:
        made.add(one, one)
    return made


@pytest.mark.parametrize(
    ("came", "now", "free", "enters", "leaves"),
    [
        pytest.param([5], 5, True, 5, None, id="one, a slot"),
        pytest.param([5], 5, False, None, 5, id="one, no slot"),
        pytest.param([5], 14, True, 5, None, id="just in time"),
        pytest.param([5], 15, True, None, 5, id="too late"),
        pytest.param([1, 2, 3], 4, True, 3, None, id="the last to come is let in"),
        pytest.param([1, 2, 3], 4, False, None, 1, id="the first to come is refused"),
        pytest.param([1, 2, 3], 31, True, None, 1, id="all too late"),
        pytest.param([1, 2, 3], 31, False, None, 1, id="all too late, no slot"),
    ],
)
def test_who_is_next(
    came: list[int], now: int, free: bool, enters: int | None, leaves: int | None
) -> None:
    some = crowd(*came)
    assert some.leave(now, free) == (enters, leaves)
    rest = [one for one in came if one not in {enters, leaves}]
    assert len(some) == len(rest)
    # Those who are left are in their order.
    assert [some.leave(now, free=False)[1] for _ in rest] == rest


def test_for_two_who_are_let_in_one_is_refused() -> None:
    some = crowd(*range(1, 7), *range(25, 32))
    assert [some.leave(32, free=True) for _ in range(6)] == [
        (31, None),
        (30, 1),
        (29, None),
        (28, 2),
        (27, None),
        (26, 3),
    ]
    # Who was refused since nobody could be let in counts as well.
    assert some.leave(32, free=True) == (25, None)
    assert some.leave(32, free=False) == (None, 4)
    some.add(32, 32)
    some.add(33, 33)
    assert some.leave(34, free=True) == (33, None)
    assert some.leave(34, free=True) == (32, 5)


def test_nobody_is_late_for_what_is_forgiven_while_anybody_waits() -> None:
    some = crowd(5, 6)
    some.forgiven = 100
    assert some.leave(6 + PATIENCE + 99, free=True) == (6, None)
    assert some.leave(5 + PATIENCE + 100, free=True) == (None, 5)
    some.add(200, 200)
    assert some.leave(200 + PATIENCE, free=True) == (None, 200)


def test_nobody_leaves_where_nobody_waits() -> None:
    for free in (True, False):
        with pytest.raises(IndexError):
            crowd().leave(0, free)


def test_it_is_full_when_its_room_is_taken() -> None:
    some = crowd(1, 2, room=3)
    assert not some.full
    some.add(3, 3)
    assert some.full
    some.leave(4, free=False)
    assert not some.full


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 8))))
def test_everybody_leaves_once_and_nobody_is_let_in_late(
    steps: list[tuple[bool, bool, int]],
) -> None:
    some, now, came, gone = crowd(), 0, [], []
    for comes, free, pause in steps:
        now += pause
        if comes:
            some.add(len(came), now)
            came.append(now)
        elif some:
            enters, leaves = some.leave(now, free)
            assert enters is not None or leaves is not None
            if enters is not None:
                assert free
                assert now - came[enters] < PATIENCE
                # Nobody who came after it waits.
                assert set(range(enters, len(came))) <= {enters, *gone}
            gone += [one for one in (enters, leaves) if one is not None]
    while some:
        gone.append(some.leave(now, free=False)[1])
    assert sorted(gone) == list(range(len(came)))
