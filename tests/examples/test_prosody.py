"""Meetings in a real Prosody under measures: who leaves, who stays, and what each of them sees.

Everybody comes from an address of their own, of 127.0.0.0/8, which the dataset places in a country
by an override: see `OVERRIDES`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from malformed_measures import MALFORMED, REFERENCE, measure
from prosody_server import (
    ANONYMOUS,
    BRIDGE,
    CHAT,
    EXAMPLE,
    HTTP,
    IMPATIENT,
    NAMED,
    Background,
    Prosody,
    Relay,
    run_lua,
    unpack,
)
from pyroaring import BitMap
from servers import PATIENCE, ROOT, Service, serving

from geolookup.answer import decision_record

slixmpp = pytest.importorskip("slixmpp", reason="no XMPP client: pip install slixmpp")

from xmpp_guest import MUC, Component, Guest, Seen  # noqa: E402 - needs slixmpp

INSIDE, OUTSIDE, UNKNOWN = "127.0.1.1", "127.0.2.1", "127.0.3.1"
MOVES = "127.0.2.7"
"""Outside in the first dataset, inside in the second."""
OVERRIDES = {"127.0.1.0/24": "CN", "127.0.2.0/24": "DE", "2001:db8:1::/48": "CN"}
"""What lies outside of them is special-purpose, and so UNDETERMINED."""
ADDRESS = re.compile(r"127\.0\.[123]\.\d|2001:db8")
"""What no log, no head of a call and no presence may have."""


DENY, ADMIT = measure(), measure("admit_inside")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    running = Background()
    yield running
    running.close()


def compile_dataset(path: Path, overrides: dict[str, str]) -> None:
    manifest = path.with_suffix(".toml")
    manifest.write_text(
        "".join(
            f'[[override]]\nprefix = "{prefix}"\ncode = "{code}"\n'
            for prefix, code in overrides.items()
        )
    )
    subprocess.run(
        [sys.executable, "-m", "geolookup", "compile", str(manifest), "-o", str(path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset in service; its sibling `next.geolookup` is the one after it."""
    path = tmp_path_factory.mktemp("dataset") / "served.geolookup"
    compile_dataset(path, OVERRIDES)
    compile_dataset(path.with_name("next.geolookup"), OVERRIDES | {f"{MOVES}/32": "CN"})
    return path


@pytest.fixture(scope="module")
def geolookup(served: Path, root: Path) -> Iterator[Service]:  # noqa: ARG001 - skips first
    with serving("--dataset", str(served), "--http", "127.0.0.1:0") as service:
        yield service
        assert not ADDRESS.search(service.log())


@pytest.fixture(scope="module")
def relay(geolookup: Service, background: Background) -> Relay:
    async def make() -> Relay:
        return Relay(geolookup.announced["http"][0].removeprefix("http://"))

    return background.run(make())


@pytest.fixture(scope="module")
def prosody(
    root: Path, relay: Relay, background: Background, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prosody]:
    async def start() -> Prosody:
        server = Prosody(root, tmp_path_factory.mktemp("prosody"))
        await server.start(await relay.start())
        return server

    server = background.run(start())
    yield server
    assert background.run(server.stop()) == 0
    background.run(relay.stop())
    ours = [line for line in server.log.items if re.match(r"\S+:muc_geolookup\s", line)]
    assert ours
    assert not [line for line in ours if ADDRESS.search(line)]
    faults = [line for line in server.log.items if re.search(r"\serror\s|traceback", line)]
    assert not [line for line in faults if "the former measures stay in force" not in line]


@asynccontextmanager
async def meeting(
    prosody: Prosody, *, domain: str = ANONYMOUS, **sources: str
) -> AsyncIterator[dict[str, Guest]]:
    """Log people in, each from an address; log them out at the end."""
    guests = {
        name: Guest(prosody, domain, name if domain == NAMED else "", source)
        for name, source in sources.items()
    }
    try:
        await asyncio.gather(*(guest.log_in() for guest in guests.values()))
        yield guests
    finally:
        await asyncio.gather(*(guest.disconnect(wait=0) for guest in guests.values()))


Play = Callable[[Any], Any]


@pytest.fixture
def play(prosody: Prosody, background: Background) -> Iterator[Play]:
    """Run a scene; afterwards there is no measure and nothing is held."""
    yield background.run
    background.run(prosody.impose())
    background.run(prosody.impose(chat=IMPATIENT))


def test_takedown_removes_exactly_occupants_inside(play: Play, prosody: Prosody) -> None:
    transcript: list[str] = []

    async def scene() -> None:
        people = {
            "host": OUTSIDE, "anna": INSIDE, "ben": UNKNOWN, "carla": OUTSIDE, "dong": INSIDE,
        }  # fmt: skip
        async with meeting(prosody, **people) as guests:
            for name, guest in guests.items():
                seen = await guest.joins("monday", name)
                owner = " and owns the new room" if seen.affiliation == "owner" else ""
                transcript.append(f"{name} joins{owner}")
            await prosody.impose(DENY)
            transcript.append("the measure begins")
            for name in ("anna", "dong"):
                own = await guests[name].removal("monday")
                assert own.codes == {"307", "110"}
                transcript.append(f"{name} is removed: status 307, reason {own.reason}")
                for other in ("host", "ben", "carla"):
                    seen = await guests[other].leaving("monday", name)
                    assert (seen.codes, seen.reason) == (frozenset(), "")
                    assert REFERENCE not in seen.text
                    transcript.append(f"{other} sees {name} leave: no status, no reason")
            guests["host"].say("monday", "we go on")
            for name in ("ben", "carla"):
                await guests[name].hears("host", "we go on")
                transcript.append(f"{name} hears host say: we go on")
            for name in ("host", "ben", "carla"):
                assert sorted(guests[name].left("monday")) == ["anna", "dong"]
            # The room is the host's: only an owner may configure it.
            form = guests["host"].make_iq_get(ito=f"monday@{CHAT}")
            form.xml.append(ElementTree.Element(f"{{{MUC}#owner}}query"))
            assert (await form.send())["type"] == "result"
            transcript.append("host still owns the room")
            again = await guests["anna"].joins("monday", "anna")
            assert (again.kind, again.condition) == ("error", "not-allowed")
            transcript.append(f"anna joins again and is refused: {again.reason}")
            for guest in guests.values():
                assert not [seen for seen in guest.seen.items if ADDRESS.search(seen.text)]

    play(scene())
    assert "\n".join(transcript) in (EXAMPLE / "README.md").read_text()
    kept = decision_record.read(prosody.records)[-1]
    assert (kept.size, kept.inside, kept.outside, kept.undetermined) == (5, 2, 2, 1)
    assert (kept.reference, kept.region_set) == (REFERENCE, "CN")
    written = prosody.records.read_text()
    assert not [secret for secret in ("127.0.", "anna", "monday", ANONYMOUS) if secret in written]


@pytest.mark.parametrize(
    ("imposed", "source", "admitted"),
    [
        (DENY, INSIDE, False),
        (DENY, OUTSIDE, True),
        (DENY, UNKNOWN, True),
        (ADMIT, INSIDE, True),
        (ADMIT, OUTSIDE, False),
        (ADMIT, UNKNOWN, False),
        (measure(expiry="2026-01-02T00:00:00Z"), INSIDE, True),
        (measure(start="2098-01-01T00:00:00Z"), INSIDE, True),
    ],
)
def test_join_is_checked(
    play: Play, prosody: Prosody, imposed: dict[str, str], source: str, admitted: bool
) -> None:
    async def scene() -> tuple[Seen, Seen]:
        await prosody.impose()
        async with meeting(prosody, host=OUTSIDE, late=source) as guests:
            await guests["host"].joins("checked", "host")
            await prosody.impose(imposed)
            if imposed["mode"] == "admit_inside":
                await guests["host"].removal("checked")
            seen = await guests["late"].joins("checked", "late")
            # A refused client makes no room either.
            return seen, await guests["late"].joins("fresh", "late")

    for seen in play(scene()):
        assert seen.kind == ("available" if admitted else "error")
        if not admitted:
            assert (seen.condition, seen.reason) == ("not-allowed", REFERENCE)


def test_refused_first_comer_leaves_no_room_behind(play: Play, prosody: Prosody) -> None:
    async def scene() -> tuple[Seen, Seen]:
        await prosody.impose(DENY)
        async with meeting(prosody, anna=INSIDE, host=OUTSIDE) as guests:
            refused = await guests["anna"].joins("first", "anna")
            return refused, await guests["host"].joins("first", "host")

    refused, made = play(scene())
    assert refused.kind == "error"
    assert "201" in made.codes
    assert made.affiliation == "owner"


def test_exempt_client_joins_where_only_those_inside_may(play: Play, prosody: Prosody) -> None:
    async def scene() -> None:
        await prosody.impose(ADMIT)
        async with meeting(prosody, domain=NAMED, focus=UNKNOWN, other=UNKNOWN) as guests:
            assert (await guests["focus"].joins("jitsi", "focus")).kind == "available"
            assert (await guests["other"].joins("jitsi", "other")).kind == "error"

    play(scene())


def test_one_of_two_clients_of_a_person_is_removed_and_the_person_stays(
    play: Play, prosody: Prosody
) -> None:
    async def scene() -> None:
        async with meeting(prosody, domain=NAMED, host=OUTSIDE, anna=OUTSIDE) as guests:
            await guests["host"].joins("devices", "host")
            await guests["anna"].joins("devices", "anna")
            async with meeting(prosody, domain=NAMED, anna=INSIDE) as second:
                await second["anna"].joins("devices", "anna")
                await prosody.impose(DENY)
                assert (await second["anna"].removal("devices")).reason == REFERENCE
                guests["anna"].say("devices", "still here")
                await guests["host"].hears("anna", "still here")
                assert not guests["host"].left("devices")
                assert not guests["anna"].left("devices")

    play(scene())


def test_two_joins_under_one_nickname_that_wait_for_answers_end_in_one_conflict(
    play: Play, prosody: Prosody, relay: Relay
) -> None:
    async def scene() -> list[Seen]:
        await prosody.impose(DENY)
        with relay.holding():
            async with meeting(prosody, a=OUTSIDE, b=OUTSIDE) as guests:
                for guest in guests.values():
                    guest.send_join("race", "same")
                await relay.holds(2)
                relay.release()
                return [await guest.outcome("race") for guest in guests.values()]

    seen = play(scene())
    assert sorted(one.condition for one in seen) == ["", "conflict"]


def test_join_that_waits_while_its_room_is_dropped_makes_the_room_anew(
    play: Play, prosody: Prosody, relay: Relay
) -> None:
    async def scene() -> Seen:
        await prosody.impose(DENY)
        async with meeting(prosody, host=OUTSIDE) as guests:
            await guests["host"].joins("dropped", "host")
            with relay.holding():
                async with meeting(prosody, late=OUTSIDE) as later:
                    later["late"].send_join("dropped", "late")
                    await relay.holds(1)
                    guests["host"].send_presence(pto=f"dropped@{CHAT}/host", ptype="unavailable")
                    await guests["host"].removal("dropped")
                    relay.release()
                    return await later["late"].outcome("dropped")

    seen = play(scene())
    assert "201" in seen.codes
    assert seen.affiliation == "owner"


def test_connection_that_ends_while_its_join_waits_is_in_no_room(
    play: Play, prosody: Prosody, relay: Relay
) -> None:
    async def scene() -> Seen:
        await prosody.impose(DENY)
        async with meeting(prosody, host=OUTSIDE) as guests:
            before = len(prosody.log.items)
            with relay.holding():
                async with meeting(prosody, ghost=OUTSIDE) as ghosts:
                    ghosts["ghost"].send_join("empty", "ghost")
                    await prosody.log.find(lambda line: "a join waits" in line, before)
                await prosody.log.find(lambda line: "Client disconnected" in line, before)
            await prosody.log.find(lambda line: "ended while" in line, before)
            return await guests["host"].joins("empty", "host")

    assert "201" in play(scene()).codes


@pytest.mark.parametrize(
    ("imposed", "failure", "condition"),
    [
        (DENY, "silent", ""),
        (DENY, "refused", ""),
        (measure(when_unavailable="refuse"), "silent", "remote-server-timeout"),
        (ADMIT, "refused", "remote-server-timeout"),
        (measure("admit_inside", when_unavailable="admit"), "silent", ""),
    ],
)
def test_unanswered_join_is_admitted_or_refused_as_the_measure_says_and_checked_later(
    play: Play,
    prosody: Prosody,
    relay: Relay,
    imposed: dict[str, str],
    failure: str,
    condition: str,
) -> None:
    source = INSIDE if imposed["mode"] == "deny_inside" else OUTSIDE

    async def scene() -> None:
        await prosody.impose(imposed, chat=IMPATIENT)
        with relay.holding() if failure == "silent" else relay.refusing():
            async with meeting(prosody, anna=source, ben=source) as guests:
                for guest in guests.values():
                    guest.chat = IMPATIENT
                seen = await guests["anna"].joins("unchecked", "anna")
                assert seen.condition == condition
                # No one is removed for want of an answer.
                await guests["ben"].joins("unchecked", "ben")
                relay.release()
                if not condition:
                    for guest in guests.values():
                        assert (await guest.removal("unchecked")).reason == REFERENCE

    play(scene())


def test_room_on_disk_is_held_to_a_measure_too(play: Play, prosody: Prosody) -> None:
    async def scene() -> None:
        async with meeting(prosody, anna=INSIDE, host=OUTSIDE) as guests:
            for name, guest in guests.items():
                guest.chat = IMPATIENT  # which has one room in memory
                await guest.joins("stored", name)
            await guests["host"].joins("in-memory", "host")
            await prosody.impose(DENY, chat=IMPATIENT)
            assert (await guests["anna"].removal("stored")).reason == REFERENCE
            await guests["host"].leaving("stored", "anna")
            assert guests["host"].left("stored") == ["anna"]

    play(scene())


def test_new_dataset_removes_who_is_inside_by_it(
    play: Play, prosody: Prosody, geolookup: Service, served: Path
) -> None:
    async def scene() -> None:
        await prosody.impose(DENY)
        async with meeting(prosody, host=OUTSIDE, anna=MOVES) as guests:
            for name, guest in guests.items():
                assert (await guest.joins("swap", name)).kind == "available"
            shutil.copy(served.with_name("next.geolookup"), served.with_name("new"))
            served.with_name("new").replace(served)
            geolookup.process.send_signal(signal.SIGHUP)
            assert (await guests["anna"].removal("swap")).reason == REFERENCE
            await guests["host"].leaving("swap", "anna")
            assert guests["host"].left("swap") == ["anna"]

    play(scene())


def test_resumed_stream_from_inside_is_removed(play: Play, prosody: Prosody) -> None:
    async def scene() -> None:
        await prosody.impose(DENY)
        async with meeting(prosody, host=OUTSIDE) as guests:
            await guests["host"].joins("resumed", "host")
            # An anonymous account is another one at the next login, which can't resume a stream.
            moving = Guest(prosody, NAMED, "anna", OUTSIDE)
            moving.register_plugin("xep_0198")
            enabled = asyncio.ensure_future(moving.wait_until("sm_enabled", PATIENCE))
            await moving.log_in()
            await enabled
            assert (await moving.joins("resumed", "anna")).kind == "available"
            resumed = asyncio.ensure_future(moving.wait_until("session_resumed", PATIENCE))
            moving.abort()
            moving.reconnect_from(INSIDE)
            await resumed
            assert (await moving.removal("resumed")).reason == REFERENCE
            await guests["host"].leaving("resumed", "anna")
            await moving.disconnect(wait=0)

    play(scene())


def test_person_behind_a_component_is_not_judged_by_the_component_address(
    play: Play, prosody: Prosody
) -> None:
    async def scene() -> None:
        await prosody.impose(DENY)
        bridge = Component(prosody, INSIDE)
        await bridge.log_in()
        answer = asyncio.ensure_future(bridge.wait_until("presence", PATIENCE))
        presence = bridge.make_presence(pto=f"bridged@{CHAT}/anna", pfrom=f"anna@{BRIDGE}/phone")
        presence.xml.append(ElementTree.Element(f"{{{MUC}}}x"))
        presence.send()
        assert (await answer)["type"] == "available"
        await bridge.disconnect(wait=0)

    play(scene())


class Bosh:
    """A client over HTTP behind a proxy, as a browser is: XEP-0124, as far as a join needs it."""

    BIND, XMPP = "http://jabber.org/protocol/httpbind", "urn:xmpp:xbosh"

    def __init__(self, prosody: Prosody, forwarded_for: str) -> None:
        self._url = f"http://{HTTP}:{prosody.ports[HTTP]}/http-bind"
        self._headers = {"X-Forwarded-For": forwarded_for, "Host": ANONYMOUS}
        self._number = 1000
        opened = self._send(to=ANONYMOUS, wait="5", hold="1", ver="1.6")
        self._sid = opened.get("sid", "")

    def join(self, room: str, nick: str) -> Seen:
        """Log in and join; return what comes of it."""
        sasl = "urn:ietf:params:xml:ns:xmpp-sasl"
        self._send(f"<auth xmlns='{sasl}' mechanism='ANONYMOUS'/>")
        self._send(**{f"{{{self.XMPP}}}restart": "true"})
        bind = "urn:ietf:params:xml:ns:xmpp-bind"
        self._send(f"<iq xmlns='jabber:client' type='set' id='1'><bind xmlns='{bind}'/></iq>")
        answer = self._send(
            f"<presence xmlns='jabber:client' to='{room}@{CHAT}/{nick}'>"
            f"<x xmlns='{MUC}'/></presence>"
        )
        found = None
        while found is None:
            found = answer.find("{jabber:client}presence")
            answer = self._send() if found is None else answer
        return Seen.of(found)

    def _send(self, payload: str = "", **attributes: str) -> ElementTree.Element:
        body = ElementTree.Element(f"{{{self.BIND}}}body", rid=str(self._number), **attributes)
        if hasattr(self, "_sid"):
            body.set("sid", self._sid)
        if payload:
            body.append(ElementTree.fromstring(payload))  # noqa: S314 - our own
        self._number += 1
        request = urllib.request.Request(  # noqa: S310 - http
            self._url, ElementTree.tostring(body), self._headers
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return ElementTree.fromstring(answer.read())  # noqa: S314 - our Prosody's


@pytest.mark.parametrize(
    ("forwarded_for", "admitted"),
    [
        ("127.0.1.9", False),
        ("127.0.1.9:50123", False),
        ("::ffff:127.0.1.9", False),
        ("[2001:db8:1::9]:50123", False),
        ("[2001:db8:1::9]", False),
        ("127.0.2.9", True),
        ("127.0.2.9:50123", True),
        ("127.0.1.9, 127.0.2.9", True),  # the last that no proxy of ours has
        ("unknown", True),
    ],
)
def test_address_behind_a_proxy_is_read_in_each_of_its_forms(
    play: Play, prosody: Prosody, forwarded_for: str, admitted: bool
) -> None:
    play(prosody.impose(DENY))
    seen = Bosh(prosody, forwarded_for).join("browsers", forwarded_for)
    assert (seen.kind == "available") is admitted


def test_calls_carry_addresses_in_their_bodies_alone_and_nothing_of_people(
    play: Play, prosody: Prosody, relay: Relay
) -> None:
    async def scene() -> None:
        await prosody.impose(DENY)
        async with meeting(prosody, anna=OUTSIDE) as guests:
            await guests["anna"].joins("private", "anna")

    play(scene())
    assert {head.split()[1].rpartition("/")[2] for head, _ in relay.calls.items} >= {
        "Lookup",
        "GetDataset",
    }
    keys = {"text", "regionSet", "policy", "record", "reasons"}
    for head, body in relay.calls.items:
        assert not ADDRESS.search(head)
        assert json.loads(body).keys() <= keys
        assert not re.search(r"anna|private|monday|example", body)


@pytest.mark.parametrize("text", ["{", '{"measures": [{}]}', '{"measures": 1}'])
def test_file_of_measures_that_is_not_valid_leaves_the_former_ones_in_force(
    play: Play, prosody: Prosody, text: str
) -> None:
    async def scene() -> Seen:
        await prosody.impose(DENY)
        await prosody.reload(text)
        async with meeting(prosody, anna=INSIDE) as guests:
            return await guests["anna"].joins("kept", "anna")

    assert play(scene()).reason == REFERENCE


def test_module_refuses_the_measures_that_the_python_example_refuses(
    root: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(len(MALFORMED))]
    for path, (text, _) in zip(paths, MALFORMED, strict=True):
        path.write_text(text)
    printed = run_lua(root, """
        for _, path in ipairs(arg) do
            local measures, problem = part "measures".read(path)
            print(measures and "read" or problem)
        end
    """, *map(str, paths))  # fmt: skip
    expected = [f"{path}: {problem}" for path, (_, problem) in zip(paths, MALFORMED, strict=True)]
    assert printed.splitlines() == expected


def test_bitmaps_are_read_as_written(root: Path) -> None:
    sample = random.Random(17)
    bitmaps = [
        BitMap(),
        BitMap([0]),
        BitMap([65_535, 65_536, 4_294_967_295]),
        BitMap(sample.sample(range(1_000_000), 3_000)),  # arrays
        BitMap(sample.sample(range(200_000), 50_000)),  # bitsets
        BitMap(range(4096)),
        BitMap(range(4097)),
        BitMap(range(0, 8194, 2)),
        BitMap(range(10, 140_000)),  # runs, fewer containers than have offsets
        BitMap([*range(10, 400_000), 500_001]),  # runs, more
    ]
    for bitmap in bitmaps[-2:]:
        bitmap.run_optimize()
    encoded = [base64.b16encode(bitmap.serialize()).decode() for bitmap in bitmaps]
    printed = run_lua(root, """
        local function byte(digits) return string.char(tonumber(digits, 16)) end
        for line in io.lines() do
            local bytes = line:gsub("..", byte)
            print(table.concat(assert(part "roaring".positions(bytes, 2 ^ 32)), " "))
        end
    """, text="\n".join(encoded))  # fmt: skip
    found = [BitMap(map(int, line.split())) for line in printed.splitlines()]
    assert found == bitmaps


def test_damaged_bitmap_is_refused(root: Path) -> None:
    whole = BitMap([1, 5, 70_000]).serialize()
    damaged = {
        b"": "ends too early",
        whole[:-1]: "ends too early",
        whole + b"0": "bytes after its end",
        b"\1" + whole[1:]: "no Roaring bitmap",
        BitMap([5, 100_000]).serialize(): "a position that can't be",
    }
    encoded = [base64.b16encode(one).decode() for one in damaged]
    printed = run_lua(root, """
        local function byte(digits) return string.char(tonumber(digits, 16)) end
        for line in io.lines() do
            local bytes = line:gsub("..", byte)
            print(select(2, part "roaring".positions(bytes, 100000)))
        end
    """, text="\n".join(encoded))  # fmt: skip
    assert printed.splitlines() == list(damaged.values())


ADDRESSES = {
    "192.0.2.1": "192.0.2.1",
    "192.0.2.1:50123": "192.0.2.1",
    "[192.0.2.1]": None,
    "192.0.2.01": None,
    "192.0.2": None,
    "192.0.2.1:": None,
    "192.0.2.1:http": None,
    " 192.0.2.1": None,
    "2001:db8::1": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:db8::1]:443": "2001:db8::1",
    "[2001:db8::1": None,
    "2001:db8::1]:443": None,
    "[2001:db8::1]443": None,
    "::ffff:192.0.2.1": "::ffff:192.0.2.1",
    "[::ffff:192.0.2.1]:443": "::ffff:192.0.2.1",
    "fe80::1%eth0": None,
    "unknown": None,
    "_hidden": None,
    "example.org": None,
}


def test_address_is_read_without_what_a_proxy_adds(root: Path) -> None:
    printed = run_lua(root, """
        for line in io.lines() do print(part "addresses".bare(line) or "none") end
    """, text="\n".join(ADDRESSES))  # fmt: skip
    assert printed.splitlines() == [address or "none" for address in ADDRESSES.values()]
