"""What participants cost beside their addresses: ``python -m bench.participants``.

100,000 participants with three addresses each, against the same 300,000 addresses as a roster of
their own, in turns in one run; medians, and their ratio. The last row has groups of one to five.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from functools import partial

import geolookup
from bench import timing
from geolookup import Dataset
from geolookup.service import RosterLimits
from geolookup.service.rpc import handlers
from geolookup.v1 import geolookup_pb2 as v1

PARTICIPANTS = 100_000
ADDRESSES = 3 * PARTICIPANTS
REGION_SET = "EU"

Pair = tuple[Callable[[], object], Callable[[], object]]


def mixed(draw: random.Random) -> array[int]:
    """Return sizes of one to five whose sum is `ADDRESSES`."""
    sizes = array("I")
    left = ADDRESSES
    while left:
        sizes.append(min(left, draw.randrange(1, 6)))
        left -= sizes[-1]
    return sizes


def pairs(dataset: Dataset) -> dict[str, Pair]:
    """Return what is timed without participants and with them, by name."""
    draw = random.Random(1)
    ipv4 = draw.randbytes(4 * ADDRESSES)
    ipv6 = b"".join(
        (0x2A << 120 | draw.getrandbits(116)).to_bytes(16, "big") for _ in range(ADDRESSES)
    )
    texts = [".".join(map(str, ipv4[at : at + 4])) for at in range(0, len(ipv4), 4)]
    people = {at: texts[3 * at : 3 * at + 3] for at in range(PARTICIPANTS)}
    groups = array("I", [3] * PARTICIPANTS)

    def answered(**roster: object) -> object:
        return dataset.classify(region_set=REGION_SET, **roster).serialised()

    snapshot, limits = handlers.Snapshot(dataset), RosterLimits()

    def served(**fields: object) -> Callable[[], object]:
        request = v1.ClassifyRosterRequest(region_set=REGION_SET, **fields)
        body = request.SerializeToString()
        return partial(handlers.classify_roster, snapshot, body, limits)

    def in_process(groups: array[int], **roster: object) -> Pair:
        return partial(answered, **roster), partial(answered, **roster, groups=groups)

    def in_service(groups: array[int], **fields: object) -> Pair:
        return served(**fields), served(**fields, group_sizes=groups)

    wire = v1.TextAddresses(addresses=texts)
    return {
        "in process, IPv4": in_process(groups, ipv4=ipv4),
        "in process, IPv6": in_process(groups, ipv6=ipv6),
        "in process, text": in_process(groups, roster=texts),
        "in process, a mapping of lists": (
            partial(answered, roster=texts),
            partial(answered, roster=people),
        ),
        "in the service, IPv4": in_service(groups, ipv4=ipv4),
        "in the service, IPv6": in_service(groups, ipv6=ipv6),
        "in the service, text": in_service(groups, text=wire),
        "in the service, IPv4, one to five": in_service(mixed(draw), ipv4=ipv4),
    }


def main() -> None:
    """Print a line for each pair."""
    with geolookup.open() as dataset:
        for name, (alone, grouped) in pairs(dataset).items():
            found = timing.alternate(
                {"alone": alone, "grouped": grouped}, rounds=41, least_seconds=0.002
            )
            one, other = found["alone"].median, found["grouped"].median
            print(f"{name:35} {one / 1e6:7.2f} ms {other / 1e6:7.2f} ms  {other / one:.2f}")


if __name__ == "__main__":
    main()
