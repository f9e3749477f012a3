"""The table of faults: what is done, what is required, and the check that it is so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chaos.subject import Honest, subject

Counts = Counter[str]

GROWTH: Final = 0.05
"""Share by which memory may grow when a fault goes on; see `growth`."""
_ROUND: Final = 1.5
"""Seconds of one round."""
_ENOUGH: Final = 20
"""Rounds after which growth says something. The first ones fill what is allocated once (the
allocator's arenas, buffers); it takes up to ten until the memory levels off."""
_BOUND: Final = 400 << 20
"""Bytes that an attack may have the service use at most, beyond what it used before."""


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
        if not met:
            self.broken.append(requirement)

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


# attacks from the network

_UNHARMED: Final = (
    "every call of honest clients is answered, no process ends, no descriptor is left open, memory"
    f" is bounded ({_BOUND >> 20} MB) and levels off (growth at most {GROWTH:.0%} after 20 rounds)"
)
_SHED: Final = _UNHARMED.replace("answered", "answered or refused", 1)
_REFUSED: Final = {"RESOURCE_EXHAUSTED", "CANCELLED"}
"""Codes of honest calls that are refused because of too many others: over a limit of ours,
or by gRPC itself, which ends calls so when more than 1,000 wait to be begun. Without that
(`grpc.server.max_pending_requests`) slow readers had a worker use 2.3 GB within 6 s."""
_WORKERS: Final = ("--workers", "2")

Check = Callable[[Counts], Mapping[str, bool]]
"""Returns what an attack's own counts must show: requirements, and whether they are met."""


def _attacked(
    name: str, check: Check, *options: str, refused: bool = False
) -> Callable[[float], Outcome]:
    """Return what makes an attack in rounds.

    Args:
        name: the attack's.
        check: of its counts, of all rounds.
        options: the service's.
        refused: whether honest calls may be refused, as the attack is made of calls.
    """

    def run(seconds: float) -> Outcome:
        outcome, counts, most = Outcome(), Counts(), 0
        after: list[int] = []
        recoveries: list[float | None] = []
        with subject(*(options or _WORKERS)) as service:
            pids, descriptors, at_first = service.pids(), service.descriptors(), service.memory()
            rounds = max(1, round(seconds / _ROUND))
            for _ in range(rounds):
                some, peak = service.attack(name, seconds / rounds)
                counts, most = counts + some, max(most, peak)
                recoveries.append(service.recovery())
                service.settle(descriptors)
                after.append(service.memory())
            left = service.left_open(descriptors)
            outcome.require(service.pids() == pids, "no process ends")
        _require_honest(outcome, service.honest, refused)
        outcome.require(None not in recoveries, "honest calls are answered afterwards")
        slowest = max(recovery or 0 for recovery in recoveries)
        outcome.measured["recovery"] = f"after {slowest * 1_000:,.0f} ms at most"
        grown = growth(after)
        outcome.measured |= {
            "counts": ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())),
            "memory": f"{at_first >> 20} MB, at most {most >> 20}, at last {after[-1] >> 20},"
            f" growth {grown:+.1%} in {rounds} rounds",
        }
        if rounds >= _ENOUGH:
            outcome.require(grown <= GROWTH, f"memory grows by {GROWTH:.0%} at most")
        outcome.require(most - at_first <= _BOUND, f"it takes {_BOUND >> 20} MB more at most")
        outcome.require(not left, "no descriptor is left open")
        for requirement, met in check(counts).items():
            outcome.require(met, requirement)
        return outcome

    return run


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


def _require_honest(outcome: Outcome, honest: Honest, refused: bool) -> None:
    answered = honest.outcomes["OK"]
    others = ", ".join(f"{count:,} {code}" for code, count in sorted(honest.failed.items()))
    outcome.measured["honest calls"] = (
        f"{answered:,} answered, the slowest in {honest.slowest * 1_000:,.0f} ms"
        + (f"; {others}" if others else "")
    )
    outcome.require(answered > 0, "honest clients are answered")
    allowed = _REFUSED if refused else set()
    outcome.require(
        honest.failed.keys() <= allowed,
        f"honest calls are answered{' or refused' if refused else ''}",
    )


def _sent(counts: Counts) -> dict[str, bool]:
    some = ("frames", "connections", "calls", "rosters")
    return {"the attack takes place": sum(counts[name] for name in some) > 100}


def _ends_with(*codes: int, cut_off: bool = False) -> Check:
    """Return the check that each call ended with one of these codes, or by being cut off."""

    def check(counts: Counts) -> dict[str, bool]:
        good = sum(counts[f"status {code}"] for code in codes)
        statuses = sum(count for name, count in counts.items() if name.startswith("status "))
        ended = good + (counts["cut off"] + counts["streams refused"] if cut_off else 0)
        return {
            "the attack takes place": counts["calls"] + counts["connections"] > 0 < ended,
            f"calls end with the code {' or '.join(map(str, codes))}": good == statuses,
        }

    return check


def _half_open_are_cut_off(counts: Counts) -> dict[str, bool]:
    unfinished = ("nothing", "half a preface", "a preface", "settings", "half a frame")
    return _sent(counts) | {
        f"who stops after {kind} is cut off": counts[f"cut off after {kind}"] > 0
        for kind in unfinished
    }


_RESOURCE_EXHAUSTED, _UNIMPLEMENTED = 8, 12

FAULTS: Final = (
    Fault(
        "rapid reset",
        "calls are begun and cancelled in the same packet, on one connection after another",
        _SHED,
        _attacked("rapid_reset", _sent, refused=True),
    ),
    Fault("ping flood", "pings, whose answers are not read", _UNHARMED, _attacked("pings", _sent)),
    Fault(
        "settings flood",
        "settings, whose acknowledgements are not read",
        _UNHARMED,
        _attacked("settings", _sent),
    ),
    Fault(
        "continuation flood",
        "headers that go on for ever",
        _UNHARMED,
        _attacked("continuation", _sent),
    ),
    Fault(
        "empty frames",
        "data frames without data, for ever",
        _UNHARMED,
        _attacked("empty_frames", _sent),
    ),
    Fault(
        "window flood",
        "windows that grow by a byte a frame",
        _UNHARMED,
        _attacked("windows", _sent),
    ),
    Fault(
        "connection flood",
        "connections that end as soon as they are made",
        _UNHARMED,
        _attacked("connections", _sent),
    ),
    Fault(
        "half-open connections",
        "700 connections that go silent in seven states, and come back when cut off",
        f"{_UNHARMED}; with a handshake time-out of 0.5 s all that did not finish it are cut off",
        _attacked("half_open", _half_open_are_cut_off, *_WORKERS, "--handshake-timeout", "0.5"),
    ),
    Fault(
        "slow readers",
        "100 connections with up to 1,000 calls each, whose answers are not read",
        _SHED,
        _attacked("slow_readers", _sent, refused=True),
    ),
    Fault(
        "slow streams",
        "rosters are sent as fast as they are taken, and no answer is read",
        _UNHARMED,
        _attacked("slow_streams", _sent),
    ),
    Fault(
        "gzip bombs",
        "messages of 100 kB that unpack to 100 MB, to a service without compression",
        f"{_UNHARMED}; UNIMPLEMENTED before unpacking",
        _attacked("bombs", _ends_with(_UNIMPLEMENTED)),
    ),
    Fault(
        "gzip bombs, compression on",
        "the same to a service that reads gzip",
        f"{_UNHARMED}; RESOURCE_EXHAUSTED, unpacked no further than the limit",
        _attacked(
            "bombs",
            _ends_with(_RESOURCE_EXHAUSTED),
            *(*_WORKERS, "--compression", "--max-roster", "10000"),
        ),
    ),
    Fault(
        "oversize messages",
        "messages of 100 MB, and some that say they have 4 GB",
        f"{_UNHARMED}; RESOURCE_EXHAUSTED at the message's first bytes",
        _attacked("large_messages", _ends_with(_RESOURCE_EXHAUSTED)),
    ),
    Fault(
        "oversize metadata",
        "metadata of 100 kB, in many fields and in one",
        f"{_UNHARMED}; RESOURCE_EXHAUSTED, or the connection is closed",
        _attacked("large_metadata", _ends_with(_RESOURCE_EXHAUSTED, cut_off=True)),
    ),
    Fault(
        "cancelled calls",
        "calls and streams are cancelled at each of their stages",
        _UNHARMED,
        _attacked("cancelled", _sent),
    ),
)
"""In the order in which they are run."""


def named(name: str) -> Fault:
    """Return the fault of this name.

    Raises:
        KeyError: there is none.
    """
    return {fault.name: fault for fault in FAULTS}[name]
