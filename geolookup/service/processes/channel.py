"""The line between a supervisor and one of its workers: short messages and file descriptors.

A worker meets what comes from the network, so its supervisor reads no more from it than JSON.
"""

from __future__ import annotations

import json
import os
import socket
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

_LARGEST: Final = 65_536
"""Bytes of a message. What can be larger goes as a file descriptor."""
_DESCRIPTORS: Final = 4


class ChannelError(Exception):
    """A message can't be sent, or what came is none: the other end is of no use any more."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one end tells the other.

    Attributes:
        kind: what it is about.
        fields: the rest, by name.
        descriptors: open files that came with it; the receiver's to close.
        incomplete: whether descriptors got lost, since this process has none free.
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
    """One end of the line. Messages arrive whole, in order, or not at all."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends, neither of which a child process inherits."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def of_descriptor(cls, descriptor: int) -> Self:
        """Return the end that was inherited under this number."""
        connection = socket.socket(fileno=descriptor)
        connection.set_inheritable(False)
        return cls(connection)

    def fileno(self) -> int:
        """Return its descriptor, to wait for messages."""
        return self._connection.fileno()

    def send(self, kind: str, *descriptors: int, **fields: object) -> None:
        """Send a message. It never waits: an end that reads nothing is broken.

        Args:
            kind: what it is about.
            descriptors: open files; the other end gets them as its own.
            fields: what JSON can hold.

        Raises:
            ChannelError: the other end is gone, or has not read for long.
        """
        body = json.dumps([kind, fields]).encode()
        if len(body) > _LARGEST or len(descriptors) > _DESCRIPTORS:
            raise ChannelError(f"a message about {kind} is too large")
        # Not socket.send_fds and recv_fds, which take flags and leave them out.
        files = array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)] if files else []
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            self._connection.sendmsg([body], ancillary, flags)
        except OSError as error:
            raise ChannelError(f"can't send: {error.strerror}") from None

    def receive(self) -> Message | None:
        """Wait for a message and return it; None: the other end is gone.

        Raises:
            ChannelError: what came is no message, or nothing can be received.
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
            # The end of the line can't be told from an empty message. Neither brings any more.
            if not body:
                return None
            raise ChannelError("not a message")
        return Message(*content, tuple(files), bool(state & socket.MSG_CTRUNC))

    def close(self) -> None:
        """Close this end; the other one is told so."""
        self._connection.close()


def _read(body: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return a message's kind and fields; None: it is none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, list) or len(content) != 2:
        return None
    kind, fields = content
    return (kind, fields) if isinstance(kind, str) and isinstance(fields, dict) else None
