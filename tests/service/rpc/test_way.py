"""Giving way on a core: always to those who are soon done, and seldom to others."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from geolookup.service.rpc.transports.way import _CREDIT, _LONG, _SHARE, Way

LONG = 4_000_000


class Core:
    """A core that others take for a time whenever they may."""

    def __init__(self, takes: Callable[[], int]) -> None:
        self.now = 0
        self.lost = 0
        self._takes = takes
        self.way = Way(lambda: self.now, self._give)

    def _give(self) -> None:
        took = self._takes()
        self.now += took
        self.lost += took

    def work(self, seconds: float, between: int = 50_000) -> list[bool]:
        """Give way again and again, and work a little between; return when it was given."""
        end, given = self.now + seconds * 1e9, []
        while self.now < end:
            given.append(self.way.give())
            self.now += between
        return given


def test_those_who_are_soon_done_always_have_it() -> None:
    core = Core(lambda: _LONG)
    assert all(core.work(1, between=_LONG))
    assert core.way.lost == 0


def test_those_who_are_not_have_a_twentieth_of_the_time() -> None:
    core = Core(lambda: LONG)
    core.work(10)
    assert core.way.lost == LONG
    assert 0.9 / _SHARE < core.lost / core.now < 1.1 / _SHARE
    # What they did not want is saved only for a while.
    core.now += 100 * _CREDIT
    had = core.lost
    while core.way.give():
        pass
    assert core.lost - had <= _CREDIT // _SHARE + LONG


def test_a_long_turn_now_and_then_keeps_nobody_else_from_theirs() -> None:
    turns = iter(range(10**9))
    core = Core(lambda: LONG if next(turns) % 2_000 == 0 else 20_000)
    core.now = _CREDIT
    assert all(core.work(3, between=30_000))


@given(st.lists(st.tuples(st.integers(0, 20_000_000), st.integers(0, 20_000_000)), max_size=200))
def test_what_is_lost_is_bounded_whatever_others_do(turns: list[tuple[int, int]]) -> None:
    took = 0
    core = Core(lambda: took)
    lost = 0
    for took, between in turns:
        if core.way.give():
            lost += core.way.lost
            assert core.way.lost in {0, took}
        core.now += between
    assert lost <= (core.now + _CREDIT) / _SHARE + 20_000_000
