"""A small HTTP server for scrapers: metrics, and whether the service is up.

No client can harm the service: one thread serves all connections, which are few and short, with
one GET of a known path each, and limits on size and time. Nothing of a request is kept or logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from geolookup.service import log
from geolookup.service.listen_errors import cannot_listen
from geolookup.service.settings import ListenAddress, ListenError

_MAX_REQUEST: Final = 8_192
"""Bytes of a request; Prometheus sends some 500."""
_MAX_CONNECTIONS: Final = 32
"""Open at once. One more closes the oldest, so that idle ones can't block a scraper."""
_TIMEOUT: Final = 5.0
"""Seconds for a request to arrive, and for a response to be read."""

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A response.

    Attributes:
        status: HTTP's status code.
        headers: without those for the connection and the length.
        body: the content.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def text_page(status: int, text: str, headers: Mapping[str, str] | None = None) -> Page:
    """Return a page of one line."""
    kind = {"Content-Type": "text/plain; charset=utf-8"}
    return Page(status, {**kind, **(headers or {})}, f"{text}\n".encode())


class HttpServer:
    """Serves *pages* until `stop`.

    Args:
        address: a host and a port to listen on.
        pages: functions by path, which get the request's headers (names in lower case). They
            may block, since they run one at a time in a thread of their own.
        setting: the setting that error texts name.

    Raises:
        ListenError: the address can't be listened on.
    """

    def __init__(
        self,
        address: ListenAddress,
        pages: Mapping[str, Callable[[Mapping[str, str]], Page]],
        setting: str,
    ) -> None:
        self._pages = dict(pages)
        listening = _listen(address, setting)
        self.address = address.with_port(listening.getsockname()[1])
        # Oldest first. Only the loop's thread uses it.
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._page_thread = ThreadPoolExecutor(1, "geolookup-page")
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listening,), name="geolookup-http", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and all connections, and wait until that is done."""
        with contextlib.suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._page_thread.shutdown()

    def _run(self, listening: socket.socket) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve(listening))

    async def _serve(self, listening: socket.socket) -> None:
        server = await asyncio.start_server(self._on_connection, sock=listening, limit=_MAX_REQUEST)
        await self._stopping.wait()
        server.close()
        open_ones = list(self._connections.items())
        for task, _ in open_ones:
            task.cancel()
        await asyncio.gather(*(task for task, _ in open_ones), return_exceptions=True)
        closed = (writer.wait_closed() for _, writer in open_ones)
        await asyncio.gather(*closed, return_exceptions=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MAX_CONNECTIONS:
            next(iter(self._connections)).cancel()
        task = self._loop.create_task(self._serve_connection(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._on_done)
        if self._stopping.is_set():
            task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        # Not close, which would wait for a peer that doesn't read. Here, since a task that
        # is cancelled before it begins runs none of its own code.
        writer = self._connections.pop(task)
        writer.transport.abort()  # by its name: from Python 3.13 a writer dropped before warns

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                try:
                    request = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    request = b""
            page = await self._page(request)
            async with asyncio.timeout(_TIMEOUT):
                writer.write(_encoded(page))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError):  # disconnected, or timed out
            pass

    async def _page(self, request: bytes) -> Page:
        try:
            method, path, headers = _parse(request)
        except ValueError:
            return text_page(400, "not a request that this server knows")
        make = self._pages.get(path)
        if make is None:
            return text_page(404, "not found")
        if method != "GET":
            return text_page(405, "only GET", {"Allow": "GET"})
        try:
            return await self._loop.run_in_executor(self._page_thread, make, headers)
        except Exception as error:
            log.logger.error("a page was not made: %s", log.describe(error))
            return text_page(500, "internal error")


def _listen(address: ListenAddress, setting: str) -> socket.socket:
    host = address.host.strip("[]")
    try:
        family, _, _, _, name = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(name[:2], family=family, backlog=_MAX_CONNECTIONS)
    except socket.gaierror as error:
        raise ListenError(f"{setting}: the host can't be resolved: {error.strerror}") from None
    except OSError as error:
        raise cannot_listen(setting, address, error.errno or 0) from None


def _parse(request: bytes) -> tuple[str, str, dict[str, str]]:
    """Return method, path without query, and headers by lower-case name; ValueError: malformed."""
    first, *lines = request.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise ValueError("version")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        # What is not printable, such as a lone line end, could end up in a response's header.
        if not colon or not name or name != name.strip() or not line.isprintable():
            raise ValueError("header")
        headers[name.lower()] = value.strip()
    return method, target.partition("?")[0], headers


def _encoded(page: Page) -> bytes:
    headers = {
        **page.headers,
        "Content-Length": str(len(page.body)),
        "Connection": "close",
        "X-Content-Type-Options": "nosniff",
    }
    lines = [f"HTTP/1.1 {page.status} {_REASONS[page.status]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + page.body
