"""How long it is waited with what ends again and again."""

from __future__ import annotations

import pytest

from geolookup.service.processes.restart_delay import RestartDelay


@pytest.mark.parametrize(
    ("served", "waits"),
    [
        ((0.0,), (0.0,)),
        ((3_600.0,), (0.0,)),
        ((0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.1, 0.2, 0.4, 0.8)),
        ((9.9, 9.9, 9.9), (0.0, 0.1, 0.2)),
        # One that served long enough is forgiven what was before.
        ((0.0, 0.0, 0.0, 10.0, 0.0), (0.0, 0.1, 0.2, 0.0, 0.1)),
        ((10.0, 10.0, 10.0), (0.0, 0.0, 0.0)),
        ((0.0,) * 12, (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0)),
    ],
)
def test_delay_doubles_with_each_failure(
    served: tuple[float, ...], waits: tuple[float, ...]
) -> None:
    delay = RestartDelay()
    assert tuple(delay.next(seconds) for seconds in served) == pytest.approx(waits)


def test_delay_stays_bounded() -> None:
    delay = RestartDelay()
    assert max(delay.next(0) for _ in range(10_000)) == 30.0
