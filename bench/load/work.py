"""What is asked for: scenarios, and the requests of each."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bench.addresses import SEED, draw
from geolookup.answer.dataset import Dataset
from geolookup.client.wire import CLASSIFY_ROSTER, LOOKUP, STREAM_ROSTERS
from geolookup.v1 import geolookup_pb2 as v1

DEFAULT_MIX = {"joins": 94.0, "roster-10": 5.0, "roster-1000": 1.0}
"""A gateway's day, in percent of calls: many join, some meetings are looked at as a whole."""

NO_ADDRESS = "1.2.3.4.5"
"""What stands for bad input."""

SCENARIOS: Mapping[str, str] = {
    "joins": "Lookup, a call for each join",
    "client-joins": "the same, by tasks of geolookup.client.AsyncClient",
    "coalesced": "the same client with coalesce=True",
    "thread-joins": "the same, by threads of geolookup.client.Client (closed loop only)",
    "thread-coalesced": "that client with coalesce=True (closed loop only)",
    "roster-N": "ClassifyRoster with N addresses: roster-10, roster-1000, roster-100000",
    "stream-N": "StreamRosters with N addresses a message",
    "mix": "several of joins and roster-N, by the weights of --mix",
}

_SIZED = re.compile(r"(roster|stream)-([1-9][0-9]{0,6})")


class WorkError(Exception):
    """A scenario that there is not. The text says which."""


@dataclass(frozen=True)
class Call:
    """One call, ready to be sent.

    Attributes:
        method: as ``/service/method``.
        body: the serialised request.
        addresses: how many it asks about.
    """

    method: str
    body: bytes
    addresses: int


@dataclass(frozen=True)
class Blend:
    """How addresses are drawn and written.

    Attributes:
        text: whether they travel as text; else packed.
        ipv6: share of IPv6 addresses, 0 to 1. A packed roster with any is sent in
            16 bytes an address.
        bad: share of what is no address, 0 to 1. Packed forms can't say that, so a
            roster with any travels as text, and so does such a join.
        region_set: the region set to ask about; "": none.
        draw: how they are drawn, one of `bench.addresses.DRAWS`: from the assigned space,
            each address as likely as any other, or next to the data's boundaries.
    """

    text: bool = False
    ipv6: float = 0.0
    bad: float = 0.0
    region_set: str = "EU"
    draw: str = "assigned"


def parse(scenario: str) -> tuple[str, int]:
    """Return a scenario's kind and the addresses in each of its calls.

    Raises:
        WorkError: there is none of that name.
    """
    if match := _SIZED.fullmatch(scenario):
        return match[1], int(match[2])
    if scenario not in SCENARIOS or scenario.endswith("-N"):
        raise WorkError(f"{scenario}: no scenario; there are {', '.join(SCENARIOS)}")
    return scenario, 1


def is_native(scenario: str) -> bool:
    """Say whether a scenario's calls are made in C, and not by one of the Python clients."""
    return parse(scenario)[0] in {"joins", "roster", "mix"}


def parsed_mix(mix: Mapping[str, float]) -> Mapping[str, float]:
    """Return the weights of a mix.

    Raises:
        WorkError: it has something else than joins and rosters, or no weight.
    """
    if any(parse(name)[0] not in {"joins", "roster"} for name in mix):
        raise WorkError("mix: made of joins and roster-N only")
    if not mix or not all(0 < weight < float("inf") for weight in mix.values()):
        raise WorkError("mix: expected weights above 0")
    return mix


class Drawing:
    """Draws addresses as a `Blend` says.

    The same ones for the same dataset and number of a process.
    """

    _POOL = 20_000

    def __init__(self, dataset: Dataset, blend: Blend, number: int) -> None:
        self.blend = blend
        self._random = random.Random(f"{SEED} load {number}")
        self._pools = {
            version: draw(dataset, version, blend.draw, self._POOL) for version in (4, 6)
        }

    def one(self) -> tuple[bytes | None, str]:
        """Return an address packed and as text; None and `NO_ADDRESS`: bad input."""
        if self._random.random() < self.blend.bad:
            return None, NO_ADDRESS
        version = 6 if self._random.random() < self.blend.ipv6 else 4
        pool, at = self._pools[version], self._random.randrange(self._POOL)
        return pool.values[at].to_bytes(4 if version == 4 else 16), pool.texts[at]

    def several(self, count: int) -> list[tuple[bytes | None, str]]:
        """Return as many as asked for."""
        return [self.one() for _ in range(count)]


def address_of(packed: bytes | None, text: str, blend: Blend) -> bytes | str:
    """Return an address in the form to send."""
    return text if packed is None or blend.text else packed


def lookup_call(drawing: Drawing) -> Call:
    """Return a join."""
    address = address_of(*drawing.one(), drawing.blend)
    request = v1.LookupRequest(region_set=drawing.blend.region_set)
    if isinstance(address, bytes):
        request.packed = address
    else:
        request.text = address
    return Call(LOOKUP, request.SerializeToString(), 1)


def roster(drawing: Drawing, size: int) -> v1.ClassifyRosterRequest:
    """Return a roster."""
    rows = drawing.several(size)
    request = v1.ClassifyRosterRequest(region_set=drawing.blend.region_set)
    packed = [row for row, _ in rows if row is not None]
    if drawing.blend.text or len(packed) < size:
        request.text.addresses.extend(text for _, text in rows)
    elif all(len(row) == 4 for row in packed):
        request.ipv4 = b"".join(packed)
    else:
        mapped = bytes(10) + b"\xff\xff"
        request.ipv6 = b"".join(row if len(row) == 16 else mapped + row for row in packed)
    return request


def roster_call(drawing: Drawing, size: int) -> Call:
    """Return a takedown."""
    return Call(CLASSIFY_ROSTER, roster(drawing, size).SerializeToString(), size)


def stream_call(drawing: Drawing, size: int) -> Call:
    """Return one message of a stream."""
    request = v1.StreamRostersRequest(roster=roster(drawing, size))
    return Call(STREAM_ROSTERS, request.SerializeToString(), size)


def calls(scenario: str, drawing: Drawing, mix: Mapping[str, float]) -> list[Call]:
    """Return the calls of a scenario, to be made in turn, again and again.

    Those of the scenarios that go through a client have no body that matters.

    Raises:
        WorkError: there is no such scenario.
    """
    kind, size = parse(scenario)
    variants = max(4, min(4_096, 200_000 // size))
    if kind == "roster":
        return [roster_call(drawing, size) for _ in range(variants)]
    if kind == "stream":
        return [stream_call(drawing, size) for _ in range(variants)]
    if kind != "mix":
        return [lookup_call(drawing) for _ in range(variants)]
    parts = {name: calls(name, drawing, {}) for name in parsed_mix(mix)}
    chooser = random.Random(SEED)
    names = chooser.choices(list(mix), list(mix.values()), k=variants)
    return [chooser.choice(parts[name]) for name in names]
