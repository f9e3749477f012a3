"""No error text repeats an address, whichever field it was put in by mistake.

Each row of the table is a call that fails while an address is within its reach.
What Python would print of the exception (with its causes and notes) is searched for
the address in every form it could take.
"""

from __future__ import annotations

import ipaddress
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import geolookup
from geolookup import Dataset, RegionSet, _core
from geolookup.answer import embedded_ipv4, overrides
from geolookup.answer.region_sets import RegionSets
from geolookup.answer.results import RosterResult
from geolookup.client import Client

IPV4, IPV6 = "100.99.98.97", "2a0b:ee80:4242::beef"
PACKED4, PACKED6 = ipaddress.ip_address(IPV4).packed, ipaddress.ip_address(IPV6).packed
NUMBER4, NUMBER6 = int(ipaddress.ip_address(IPV4)), int(ipaddress.ip_address(IPV6))
DASHED4, DASHED6 = IPV4.replace(".", "-"), IPV6.replace(":", "-")

FORMS = {
    form.lower()
    for text, packed, number in ((IPV4, PACKED4, NUMBER4), (IPV6, PACKED6, NUMBER6))
    for form in (
        text,
        text.replace(".", "-").replace(":", "-"),
        text.replace(".", "_").replace(":", "_"),
        packed.hex(),
        packed.hex(":"),
        repr(packed)[2:-1],
        str(number),
        hex(number)[2:],
        ipaddress.ip_address(text).exploded,
    )
}


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with geolookup.open() as opened:
        yield opened


def without_region_set(dataset: Dataset) -> RosterResult:
    return dataset.classify([IPV4, IPV6])


def ask(question: Callable[[Any], object]) -> object:
    with Client("unix:/nonexistent/geolookup", timeout=5) as client:
        return question(client)


# Any: most of these calls are wrong by their types too.
CALLS: dict[str, Callable[[Any], object]] = {
    # one address
    "country: a number": lambda d: d.country(NUMBER4),
    "country: a list": lambda d: d.country([IPV4]),
    "country: a network": lambda d: d.country(ipaddress.ip_network(IPV4)),
    "lookup: a number": lambda d: d.lookup(NUMBER6),
    "lookup: a tuple": lambda d: d.lookup((IPV6,)),
    "lookup: an address as region set": lambda d: d.lookup(IPV4, IPV4),
    "lookup: an IPv6 address as region set": lambda d: d.lookup(IPV6, IPV6),
    "lookup: an address with dashes as region set": lambda d: d.lookup(IPV4, DASHED4),
    "lookup: an IPv6 address with dashes as region set": lambda d: d.lookup(IPV6, DASHED6),
    "lookup: packed bytes as region set": lambda d: d.lookup(IPV4, PACKED4),
    "lookup: a number as region set": lambda d: d.lookup(IPV4, str(NUMBER4)),
    "lookup: an address as policy": lambda d: d.lookup(IPV4, "CN", IPV4),
    "lookup: a number as policy": lambda d: d.lookup(IPV4, "CN", NUMBER4),
    # rosters
    "classify: a number among texts": lambda d: d.classify([IPV4, NUMBER4]),
    "classify: a list among texts": lambda d: d.classify([IPV4, [IPV6]]),
    "classify: a text instead of a list": lambda d: d.classify(IPV4),
    "classify: packed bytes instead of a list": lambda d: d.classify(PACKED4),
    "classify: a set": lambda d: d.classify({IPV4, IPV6}),
    "classify: an address as region set": lambda d: d.classify([IPV4], region_set=IPV6),
    "classify: an address in an expression": lambda d: d.classify([IPV4], region_set=f"CN+{IPV4}"),
    "classify: an address as policy": lambda d: d.classify(
        [IPV4],
        region_set="CN",
        policy=IPV6,
    ),
    "classify: ipv4 of 5 bytes": lambda d: d.classify(ipv4=PACKED4 + b"x"),
    "classify: ipv6 of 20 bytes": lambda d: d.classify(ipv6=PACKED6 + PACKED4),
    "classify: ipv4 in text": lambda d: d.classify(ipv4=IPV4),
    "classify: ipv6 in text": lambda d: d.classify(ipv6=[IPV6]),
    "classify: two rosters": lambda d: d.classify([IPV4], ipv4=PACKED4),
    # results
    "positions: an address": lambda d: without_region_set(d).positions(IPV4),
    "positions: an address with dashes": lambda d: without_region_set(d).positions(DASHED4),
    "inside without a region set": lambda d: without_region_set(d).inside,
    # region sets
    "resolve: an address": lambda _: RegionSets.builtin().resolve(IPV4),
    "resolve: an address after a minus": lambda _: RegionSets.builtin().resolve(f"EU-{IPV6}"),
    "resolve: with dashes": lambda _: RegionSets.builtin().resolve(DASHED6),
    "a region set of addresses": lambda _: RegionSet("OFFICE", frozenset([IPV4])),
    "a region set named like an address": lambda _: (
        RegionSet(IPV4, frozenset(["CN"])).codes
        and RegionSets.builtin().extended(f'["{IPV4}"]\ncodes = ["CN"]\n', "sets.toml")
    ),
    "an address among a file's codes": lambda _: RegionSets.builtin().extended(
        f'[OFFICE]\ncodes = ["CN", "{IPV6}"]\n', "sets.toml"
    ),
    "outcome_column: an address": lambda d: d.outcome_column(IPV4),
    # an operator's own ranges
    "read_prefix: too long": lambda _: overrides.read_prefix(f"{IPV4}/33"),
    "read_prefix: bits beyond the length": lambda _: overrides.read_prefix(f"{IPV6}/64"),
    "read_range: backwards": lambda _: overrides.Override(PACKED6, PACKED6[:-1] + b"\0", "CN"),
    "read_range: no range": lambda _: overrides.read_range(IPV6),
    "a file of overrides: a code": lambda _: overrides.Overrides.parse(
        f'[[override]]\nprefix = "{IPV4}/32"\ncode = "{IPV6}"\n'.encode(), "o.toml"
    ),
    "a file of overrides: a key": lambda _: overrides.Overrides.parse(
        f'[[override]]\n"{IPV4}" = 1\n'.encode(), "o.toml"
    ),
    "nat64_prefix: an address": lambda _: embedded_ipv4.nat64_prefix(IPV6),
    # the client, before anything is sent and when nobody is there
    "client: a number": lambda _: ask(lambda client: client.lookup(NUMBER4)),
    "client: a list among texts": lambda _: ask(lambda client: client.classify([IPV4, [IPV6]])),
    "client: ipv4 of 5 bytes": lambda _: ask(lambda client: client.classify(ipv4=PACKED4 + b"x")),
    "client: an address as policy": lambda _: ask(lambda client: client.lookup(IPV4, "CN", IPV4)),
    "client: lookup at no service": lambda _: ask(lambda client: client.lookup(IPV4, IPV6)),
    "client: roster at no service": lambda _: ask(lambda client: client.classify([IPV4, IPV6])),
    # the core
    "core: a number": lambda _: _core.parse(NUMBER4),
    "core: a number among texts": lambda _: _core.parse_many([IPV4, NUMBER6]),
}


def printed(error: BaseException) -> str:
    """Return what Python prints of an exception: causes and notes too, without source lines."""
    shown: list[str] = []
    queue = [traceback.TracebackException.from_exception(error)]
    while queue:
        one = queue.pop()
        shown += one.format_exception_only()
        context = None if one.__suppress_context__ else one.__context__
        queue += [other for other in (one.__cause__, context) if other is not None]
    return "".join(shown) + repr(error) + repr(error.args) + repr(vars(error))


@pytest.mark.parametrize("name", CALLS)
def test_no_address_in_the_text_of_an_error(name: str, dataset: Dataset) -> None:
    with pytest.raises((geolookup.GeoLookupError, TypeError, ValueError)) as caught:
        CALLS[name](dataset)
    text = printed(caught.value).lower()
    assert not [form for form in FORMS if form in text], text


def test_the_search_finds_an_address_in_a_cause_or_a_note() -> None:
    error = ValueError("a")
    error.__cause__ = KeyError(IPV4)
    assert IPV4 in printed(error)
    error.__cause__ = None
    error.add_note(IPV6)
    assert IPV6 in printed(error)


def test_what_is_printed_of_a_result_holds_no_address(dataset: Dataset) -> None:
    result = dataset.classify([IPV4, IPV6, "nonsense"], region_set="CN")
    for shown in (
        repr(result),
        repr(result.countries),
        repr(result.statuses),
        repr(dataset.lookup(IPV4, "CN")),
        repr(dataset),
    ):
        assert not [form for form in FORMS if form in shown.lower()], shown
