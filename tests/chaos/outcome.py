"""A row of the table of faults, and what came of one: figures, and broken requirements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from chaos.subject import Honest

GROWTH: Final = 0.05
"""Share by which memory may grow when a fault goes on; see `growth`."""
ENOUGH: Final = 20
"""Rounds after which growth says something. The first ones fill what is allocated once (the
allocator's arenas, buffers); it takes up to ten until the memory levels off."""
LASTING: Final = 20.0
"""Seconds from which on a run is held to times. A shorter one is a test among others, on a machine
that is busy with them."""


@dataclass
class Outcome:
    """What came of a fault.

    Attributes:
        measured: figures, by what they say.
        broken: requirements that were not met, a text each.
    """

    measured: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def require(self, met: bool, requirement: str) -> None:
        """Note a requirement that is not met."""
        if not met and requirement not in self.broken:
            self.broken.append(requirement)

    def require_answers(self, honest: Honest, allowed: Set[str] = frozenset()) -> None:
        """Note how honest calls ended; those that failed must have ended as is allowed."""
        self.measured["honest calls"] = honest.told()
        self.require(honest.outcomes["OK"] > 0, "honest clients are answered")
        self.require(
            honest.failed.keys() <= allowed,
            f"honest calls are answered{' or refused' if allowed else ''}",
        )

    def measure(self, what: str, took: Iterable[float]) -> list[float]:
        """Note how many seconds something took, each time; return them sorted."""
        times = sorted(took)
        self.measured[what] = spread(times)
        return times

    def require_time(self, what: str, took: Iterable[float], limit: float, seconds: float) -> None:
        """Note how long something took, each time; in a long run it must be within a limit.

        The median must: of many times some fall into a moment in which the machine is busy
        with others.

        Args:
            what: it is.
            took: seconds of each time.
            limit: seconds.
            seconds: of the run.
        """
        times = self.measure(what, took)
        if seconds >= LASTING:
            middle = times[len(times) // 2] if times else 0.0
            self.require(middle <= limit, f"{what}: within {limit:g} s")

    def require_level(self, memory: Sequence[int]) -> None:
        """Note what memory was used after each round; after enough of them it must not grow."""
        grown = growth(memory)
        self.measured["memory"] = (
            f"{memory[0] >> 20} MB, at most {max(memory) >> 20}, at last {memory[-1] >> 20},"
            f" growth {grown:+.1%} in {len(memory)} rounds"
        )
        if len(memory) >= ENOUGH:
            self.require(grown <= GROWTH, f"memory grows by {GROWTH:.0%} at most")

    @property
    def met(self) -> bool:
        """Whether all requirements are met."""
        return not self.broken


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        name: what it is called by.
        done: what is done.
        required: the required outcome.
        run: does it for about so many seconds, and returns what came of it.
    """

    name: str
    done: str
    required: str
    run: Callable[[float], Outcome]


def growth(memory: Sequence[int]) -> float:
    """Return the share by which memory has grown, of what was used after each round.

    From the most in the second quarter to the least in the last: what leaks is never given
    back. The allocator keeps tens of megabytes for some rounds and gives them back in others
    (so it does with gRPC's server alone), which says nothing.
    """
    quarter = len(memory) // 4
    if not quarter:
        return 0.0
    return min(memory[-quarter:]) / max(memory[quarter : 2 * quarter]) - 1


def spread(times: Sequence[float]) -> str:
    """Return what sorted times are, in milliseconds."""
    if not times:
        return "never"
    some = {
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "max": times[-1],
    }
    figures = (f"{name} {_milliseconds(seconds)}" for name, seconds in some.items())
    return f"{len(times):,}: {', '.join(figures)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1_000:,.{1 if seconds < 0.01 else 0}f} ms"
