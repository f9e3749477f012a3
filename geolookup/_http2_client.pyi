"""Types of the compiled HTTP/2 client. Held to the module by mypy's stubtest.

There where geolookup was built with libnghttp2. `geolookup.client.transports.native` uses it.
"""

from typing import Final, final

LIBRARY: Final[str]
"""The release of libnghttp2 that it was built with."""
HAS_TLS: Final[bool]
"""Whether it was built with OpenSSL."""

_Outcome = bytes | tuple[int, str, int | None, bool]
"""What came of a call: the answer's bytes; or gRPC's code, the text that came with it, the
milliseconds of grpc-retry-pushback-ms (below 0: never; None: there was none), and whether the
service has not seen the call."""

@final
class Context:
    """What TLS is spoken with, as PEM.

    Args:
        authorities: that are trusted; None: the system's.
        chain: of certificates that is shown; None: none.
        key: of the first certificate of the chain.

    Raises:
        ValueError: OpenSSL does not take them, or there is no OpenSSL.
    """

    def __new__(
        cls, authorities: bytes | None, chain: bytes | None, key: bytes | None, /
    ) -> Context: ...

@final
class Call:
    """A call that an event loop waits for.

    Attributes:
        future: what `Connection.begin` was given.
        deadline: when it is to be cancelled, on the clock of `Connection.begin`.
    """

    @property
    def future(self) -> object: ...
    @property
    def deadline(self) -> float: ...

@final
class Connection:
    """A connection over a socket that is connected, for calls from several threads at once.

    Or for an event loop, by the methods from `begin` on; nothing keeps threads apart there.

    Args:
        descriptor: the socket, which does not block; the connection closes it.
        context: for TLS; None: there is none.
        name: the DNS name or IP address that the server's certificate must have; as the next two,
            ASCII.
        authority: what calls say whom they are for.
        agent: what they say whom they are from.
        keepalive: seconds of silence after which the server is probed; 0: never.
        keepalive_answer: seconds that it has to answer.

    Raises:
        MemoryError: there is none. The socket is closed.
        UnicodeEncodeError: a text is not ASCII. The socket is closed.
    """

    def __new__(
        cls,
        descriptor: int,
        /,
        *,
        context: Context | None,
        name: str,
        authority: str,
        agent: str,
        keepalive: float,
        keepalive_answer: float,
    ) -> Connection: ...
    @property
    def usable(self) -> bool:
        """Whether calls can be begun: the server speaks HTTP/2 and has not said that it ends."""

    @property
    def problem(self) -> str | None:
        """Why it has ended, in words that `geolookup.client.failures` reads; None: it has not."""

    def settle(self, timeout: float, /) -> bool:
        """Shake hands and wait for the server's settings; False: not within so many seconds."""

    def call(self, path: bytes, body: bytes, timeout: float, limit: int, /) -> _Outcome:
        """Make a call and wait for what comes of it, without the interpreter lock.

        Args:
            path: the method, as ``/service/method``.
            body: the message.
            timeout: seconds, for this side and the server.
            limit: bytes of the largest answer.

        Raises:
            KeyboardInterrupt: or what a signal's handler raises; the call is cancelled.
        """

    def close(self) -> None:
        """End the connection and its calls, which fail as unavailable."""

    def forget(self) -> None:
        """Close the socket in a process that was forked, while the other goes on with it."""

    @property
    def descriptor(self) -> int:
        """The socket."""

    @property
    def wants_write(self) -> bool:
        """Whether the socket is to be watched for room, too."""

    def begin(
        self,
        path: bytes,
        body: bytes,
        now: float,
        timeout: float,
        limit: int,
        future: object,
        /,
    ) -> Call | None:
        """Begin a call, which `flush` sends; None: the connection takes none."""

    def flush(self) -> None:
        """Send what there is to send."""

    def progress(self) -> None:
        """Do what can be done now: read, write, probe."""

    def finished(self) -> list[tuple[Call, _Outcome]]:
        """Return the calls that are over, each once, in the order in which they ended."""

    def cancel(self, call: Call, /) -> None:
        """End a call that is not waited for any more; `finished` does not return it."""

def attend(connections: list[Connection], wake: int, timeout: float, /) -> None:
    """Answer for connections without calls: the server's pings, probes, their ends.

    Returns when the descriptor *wake* can be read, one of the connections takes no more calls, or
    so many seconds are over. Without the interpreter lock.
    """
