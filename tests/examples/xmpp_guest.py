"""Real XMPP clients for tests, each with an address of its own, and what they see of a room."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import slixmpp
from prosody_server import BRIDGE, CHAT, CLIENTS, COMPONENTS, History, Prosody
from servers import PATIENCE
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

MUC, MUC_USER = "http://jabber.org/protocol/muc", "http://jabber.org/protocol/muc#user"


@dataclass(frozen=True)
class Seen:
    """A presence, as a client gets it.

    Attributes:
        room: whose.
        nick: of whom it is.
        kind: "available", "unavailable" or "error".
        codes: its status codes.
        reason: of a removal; or the text of an error.
        affiliation: in the room.
        condition: of an error.
        text: all of it.
    """

    room: str
    nick: str
    kind: str
    codes: frozenset[str]
    reason: str
    affiliation: str
    condition: str
    text: str

    @classmethod
    def of(cls, presence: ElementTree.Element) -> Seen:
        user = f"{{{MUC_USER}}}"
        room, _, nick = presence.get("from", "").partition("/")
        x = presence.find(f"{user}x")
        item = None if x is None else x.find(f"{user}item")
        statuses = [] if x is None else x.findall(f"{user}status")
        error = presence.find("{jabber:client}error")
        reason = "" if item is None else item.findtext(f"{user}reason", "")
        condition = ""
        for child in () if error is None else error:
            name = child.tag.partition("}")[2]
            if name == "text":
                reason = child.text or ""
            else:
                condition = condition or name
        return cls(
            room=room.partition("@")[0],
            nick=nick,
            kind=presence.get("type", "available"),
            codes=frozenset(str(status.get("code")) for status in statuses),
            reason=reason,
            affiliation="" if item is None else item.get("affiliation", ""),
            condition=condition,
            text=ElementTree.tostring(presence, encoding="unicode"),
        )


class FromAnAddress:
    """A connection from an address of its own."""

    source: str
    loop: asyncio.AbstractEventLoop

    async def _attempt_connection(self, host: str, port: int, *_: Any) -> bool:
        protocol: Any = self
        await self.loop.create_connection(lambda: protocol, host, port, local_addr=(self.source, 0))
        return True


class Component(FromAnAddress, slixmpp.ComponentXMPP):
    """A component with a connection of its own."""

    def __init__(self, server: Prosody, source: str) -> None:
        super().__init__(BRIDGE, "any")
        self.loop = asyncio.get_running_loop()
        self.source = source
        self._server = server

    async def log_in(self) -> None:
        """Connect, and wait until the session has started."""
        started = asyncio.ensure_future(self.wait_until("session_start", PATIENCE))
        self.connect(COMPONENTS, self._server.ports[COMPONENTS])
        await started


class Guest(FromAnAddress, slixmpp.ClientXMPP):
    """A client that connects from an address of its own.

    Attributes:
        chat: the component whose rooms it joins.
        seen: the presences that it got.
        heard: the messages that it got: nick and text.
    """

    def __init__(self, server: Prosody, domain: str, name: str, source: str) -> None:
        mechanism = "PLAIN" if name else "ANONYMOUS"
        jid = f"{name}@{domain}" if name else domain
        super().__init__(jid, "any", sasl_mech=mechanism)
        self.loop = asyncio.get_running_loop()
        self.source = source
        self._server = server
        self.enable_direct_tls = self.enable_starttls = False
        self.enable_plaintext = True
        self.plugin["feature_mechanisms"].unencrypted_plain = True
        self.seen, self.heard = History(), History()
        for kind, handler in (("presence", self._on_presence), ("message", self._on_message)):
            matcher = MatchXPath(f"{{jabber:client}}{kind}")
            self.register_handler(Callback(f"all of {kind}", matcher, handler))
        self._tasks: set[asyncio.Task[None]] = set()
        self.chat = CHAT

    def _keep(self, history: History, item: object) -> None:
        task = asyncio.ensure_future(history.add(item))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_presence(self, stanza: Any) -> None:
        self._keep(self.seen, Seen.of(stanza.xml))

    def _on_message(self, stanza: Any) -> None:
        nick = stanza.xml.get("from", "").partition("/")[2]
        if stanza["body"]:
            self._keep(self.heard, (nick, stanza["body"]))

    async def log_in(self) -> None:
        """Connect, and wait until the session has started."""
        started = asyncio.ensure_future(self.wait_until("session_start", PATIENCE))
        self.reconnect_from(self.source)
        await started

    def reconnect_from(self, source: str) -> None:
        """Connect from an address."""
        self.source = source
        self.connect(CLIENTS, self._server.ports[CLIENTS])

    def send_join(self, room: str, nick: str) -> None:
        """Ask to join a room, without waiting for what comes of it."""
        presence = self.make_presence(pto=f"{room}@{self.chat}/{nick}")
        presence.xml.append(ElementTree.Element(f"{{{MUC}}}x"))
        presence.send()

    async def joins(self, room: str, nick: str) -> Seen:
        """Ask to join a room; return the presence that says what came of it."""
        after = len(self.seen.items)
        self.send_join(room, nick)
        return await self.outcome(room, after)

    async def outcome(self, room: str, after: int = 0) -> Seen:
        """Return the presence that says what came of a join."""
        found: Seen = await self.seen.find(
            lambda seen: seen.room == room and (seen.kind == "error" or "110" in seen.codes), after
        )
        return found

    async def removal(self, room: str) -> Seen:
        """Wait until it is out of a room; return the presence that says so."""
        found: Seen = await self.seen.find(
            lambda seen: seen.room == room and seen.kind == "unavailable" and "110" in seen.codes
        )
        return found

    async def leaving(self, room: str, nick: str) -> Seen:
        """Wait until it sees somebody else leave a room; return the presence that says so."""
        found: Seen = await self.seen.find(
            lambda seen: (seen.room, seen.nick, seen.kind) == (room, nick, "unavailable")
        )
        return found

    def say(self, room: str, text: str) -> None:
        """Say something to a room."""
        self.send_message(mto=f"{room}@{self.chat}", mbody=text, mtype="groupchat")

    async def hears(self, nick: str, text: str) -> None:
        """Wait until it hears something."""
        await self.heard.find(lambda heard: heard == (nick, text))

    def left(self, room: str) -> list[str]:
        """Return who left a room as this client saw it, in order."""
        return [
            seen.nick for seen in self.seen.items if (seen.room, seen.kind) == (room, "unavailable")
        ]
