"""The channel between a supervisor and a worker: packets of JSON and file descriptors."""

from __future__ import annotations

import json
import os
import socket
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

_LARGEST: Final = 65_536
"""Bytes of a packet. What can be larger goes as a file descriptor."""
_DESCRIPTORS: Final = 4


class ChannelError(Exception):
    """A packet can't be sent, or is malformed: the channel can't be used any more."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, as received.

    Attributes:
        kind: the kind of message that it holds.
        fields: the message's fields, by name.
        descriptors: open files that came with it. The receiver closes them.
        incomplete: whether descriptors were lost, since this process has none free.
    """

    kind: str
    fields: Mapping[str, Any]
    descriptors: tuple[int, ...] = field(default=())
    incomplete: bool = False

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class Channel:
    """One end of the channel. Packets arrive whole and in order, or not at all."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends. No child process inherits one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def of_descriptor(cls, descriptor: int) -> Self:
        """Return the end that this process inherited as *descriptor*."""
        connection = socket.socket(fileno=descriptor)
        connection.set_inheritable(False)
        return cls(connection)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a packet is there."""
        return self._connection.fileno()

    def send(self, kind: str, *descriptors: int, **fields: object) -> None:
        """Send a packet. It never waits: an end that does not read is broken.

        Args:
            kind: the kind of message.
            descriptors: open files; the other end gets its own descriptors of them.
            fields: the message's fields, as JSON can hold them.

        Raises:
            ChannelError: the other end is closed, or its queue is full.
        """
        body = json.dumps([kind, fields]).encode()
        if len(body) > _LARGEST or len(descriptors) > _DESCRIPTORS:
            raise ChannelError(f"a packet of {kind} is too large")
        # Not socket.send_fds and recv_fds: they ignore the flags.
        files = array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)] if files else []
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            self._connection.sendmsg([body], ancillary, flags)
        except OSError as error:
            raise ChannelError(f"can't send: {error.strerror}") from None

    def receive(self) -> Packet | None:
        """Wait for a packet and return it; None: the other end is closed.

        Raises:
            ChannelError: the packet is malformed, or nothing can be received.
        """
        files = array("i")
        room = socket.CMSG_LEN(_DESCRIPTORS * files.itemsize)
        try:
            body, ancillary, state, _ = self._connection.recvmsg(
                _LARGEST, room, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None
        except OSError as error:
            raise ChannelError(f"can't receive: {error.strerror}") from None
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                files.frombytes(data[: len(data) - len(data) % files.itemsize])
        content = None if state & socket.MSG_TRUNC else _read(body)
        if content is None:
            for descriptor in files:
                os.close(descriptor)
            # A closed channel reads as an empty packet. No valid packet is empty.
            if not body:
                return None
            raise ChannelError("malformed packet")
        return Packet(*content, tuple(files), bool(state & socket.MSG_CTRUNC))

    def close(self) -> None:
        """Close this end. The other end then receives None."""
        self._connection.close()


def _read(body: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return a packet's kind and fields; None: it is malformed."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, list) or len(content) != 2:
        return None
    kind, fields = content
    return (kind, fields) if isinstance(kind, str) and isinstance(fields, dict) else None
