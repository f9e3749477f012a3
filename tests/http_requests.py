"""A client of JSON over HTTP/1.1 that sends what it is given, also what no client would."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from servers import PATIENCE

from geolookup.service import Server


@dataclass
class Response:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])

    @property
    def message(self) -> str:
        return str(self.json["message"])


@dataclass
class Connection:
    """A client's socket, which sends what it is given."""

    socket: socket.socket
    _read: bytearray = field(default_factory=bytearray)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _until(self, size: int) -> bool:
        while len(self._read) < size:
            try:
                more = self.socket.recv(65_536)
            except ConnectionResetError:
                more = b""
            if not more:
                return False
            self._read += more
        return True

    def response(self, *, is_head: bool = False) -> Response | None:
        """Return the next answer; None: the connection has ended."""
        while b"\r\n\r\n" not in self._read:
            if not self._until(len(self._read) + 1):
                assert not self._read, "half an answer"
                return None
        head, _, rest = bytes(self._read).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
        self._read[:] = rest
        status = int(first.split(" ")[1])
        size = 0 if status == 100 or is_head else int(headers["content-length"])
        assert self._until(size)
        body = bytes(self._read[:size])
        del self._read[:size]
        return Response(status, headers, body)

    def is_closed(self) -> bool:
        """Wait for more; return whether there is none."""
        return not self._read and not self._until(1)


def request(
    method: str = "Lookup",
    body: bytes | str | Mapping[str, Any] = b"",
    headers: Mapping[str, str | None] | None = None,
    *,
    verb: str = "POST",
    path: str | None = None,
) -> bytes:
    """Return a request; a header that is None is left out."""
    if isinstance(body, Mapping):
        body = json.dumps(body)
    content = body.encode() if isinstance(body, str) else body
    all_headers = {
        "Host": "geolookup.example",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **(headers or {}),
    }
    path = f"/geolookup.v1.GeoLookupService/{method}" if path is None else path
    lines = [f"{name}: {value}" for name, value in all_headers.items() if value is not None]
    return "\r\n".join([f"{verb} {path} HTTP/1.1", *lines, "", ""]).encode() + content


@contextlib.contextmanager
def connected(server: Server) -> Iterator[Connection]:
    address = server.http_address
    assert address is not None
    with socket.create_connection((address.host, address.port), PATIENCE) as one:
        yield Connection(one)


def ask(server: Server, *args: Any, **kwargs: Any) -> Response:
    with connected(server) as connection:
        connection.send(request(*args, **kwargs))
        response = connection.response()
        assert response is not None
        return response
