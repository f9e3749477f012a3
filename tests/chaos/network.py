"""Faults that come from the network: the attacks, against a service with honest clients."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

from chaos.outcome import ENOUGH, GROWTH, Fault, Outcome
from chaos.subject import Subject, encrypted, subject

Counts = Counter[str]

_ROUND: Final = 1.5
"""Seconds of one round."""
_BOUND: Final = 400 << 20
"""Bytes that an attack may have the service use at most, beyond what it used before."""

_UNHARMED: Final = (
    "every call of honest clients is answered, no process ends, no descriptor is left open, memory"
    f" is bounded ({_BOUND >> 20} MB) and levels off (growth at most {GROWTH:.0%} after {ENOUGH}"
    " rounds)"
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
    names: str | tuple[str, ...],
    check: Check,
    *options: str,
    refused: bool = False,
    running: Callable[..., AbstractContextManager[Subject]] = subject,
) -> Callable[[float], Outcome]:
    """Return what makes an attack in rounds.

    Args:
        names: the attack's, or those of several that take turns.
        check: of its counts, of all rounds.
        options: the service's.
        refused: whether honest calls may be refused, as the attack is made of calls.
        running: runs the service.
    """

    def run(seconds: float) -> Outcome:
        outcome, counts, most = Outcome(), Counts(), 0
        after: list[int] = []
        recoveries: list[float | None] = []
        with running(*(options or _WORKERS)) as service:
            pids, descriptors, at_first = service.pids(), service.descriptors(), service.memory()
            turns = (names,) if isinstance(names, str) else names
            rounds = max(len(turns), round(seconds / _ROUND))
            for name in itertools.islice(itertools.cycle(turns), rounds):
                some, peak = service.attack(name, seconds / rounds)
                counts, most = counts + some, max(most, peak)
                recoveries.append(service.recovery())
                service.settle(descriptors)
                after.append(service.memory())
            left = service.left_open(descriptors)
            outcome.require(service.pids() == pids, "no process ends")
        outcome.require_answers(service.honest, _REFUSED if refused else frozenset())
        outcome.require(None not in recoveries, "honest calls are answered afterwards")
        slowest = max(recovery or 0 for recovery in recoveries)
        outcome.measured["recovery"] = f"after {slowest * 1_000:,.0f} ms at most"
        outcome.measured["counts"] = ", ".join(
            f"{count:,} {what}" for what, count in sorted(counts.items())
        )
        outcome.require_level(after)
        outcome.measured["peak"] = f"{most >> 20} MB, {at_first >> 20} before"
        outcome.require(most - at_first <= _BOUND, f"it takes {_BOUND >> 20} MB more at most")
        outcome.require(not left, "no descriptor is left open")
        for requirement, met in check(counts).items():
            outcome.require(met, requirement)
        return outcome

    return run


def _sent(counts: Counts) -> dict[str, bool]:
    some = ("frames", "connections", "calls", "rosters")
    # Handshakes are the slowest: a busy machine does 60 in a second.
    return {"the attack takes place": sum(counts[name] for name in some) >= 10}


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


def _are_cut_off(*kinds: str) -> Check:
    """Return the check that connections of each of these kinds were cut off."""

    def check(counts: Counts) -> dict[str, bool]:
        return _sent(counts) | {
            f"who stops after {kind} is cut off": counts[f"cut off after {kind}"] > 0
            for kind in kinds
        }

    return check


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
        _attacked(
            "half_open",
            _are_cut_off("nothing", "half a preface", "a preface", "settings", "half a frame"),
            *_WORKERS,
            "--handshake-timeout",
            "0.5",
        ),
    ),
    Fault(
        "half-open handshakes",
        "600 connections to a service with mutual TLS that go silent in six states of the"
        " handshake, or speak no TLS, and come back when cut off",
        f"{_UNHARMED}; with a handshake time-out of 0.5 s all are cut off",
        _attacked(
            "half_handshakes",
            _are_cut_off(
                "nothing",
                "half a hello",
                "a hello",
                "a hello of 16 kB that is not all there",
                "two hellos",
                "no TLS",
            ),
            *_WORKERS,
            "--handshake-timeout",
            "0.5",
            running=encrypted,
        ),
    ),
    Fault(
        "handshake flood",
        "TLS handshakes that end as soon as the service has signed its part",
        _UNHARMED,
        _attacked("handshakes", _sent, running=encrypted),
    ),
    Fault(
        "floods over TLS",
        "the floods above and slow readers in turns, by clients that have finished the handshake",
        _SHED,
        _attacked(
            (
                "rapid_reset",
                "pings",
                "settings",
                "continuation",
                "empty_frames",
                "windows",
                "slow_readers",
                "slow_streams",
            ),
            _sent,
            refused=True,
            running=functools.partial(encrypted, anybody=True),
        ),
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
            *_WORKERS,
            "--compression",
            "--max-roster",
            "10000",
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
