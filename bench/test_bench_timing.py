"""What `timing` makes of contenders."""

from __future__ import annotations

import time

from bench.timing import alternate


def test_what_a_contender_does_once_does_not_set_how_often_it_is_called() -> None:
    first = [0.05]

    def opening() -> None:
        if first:
            time.sleep(first.pop())

    times = alternate({"opening": opening}, rounds=1, least_seconds=0.01)
    assert times["opening"].calls > 1
