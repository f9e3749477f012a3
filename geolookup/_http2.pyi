"""Types of the compiled HTTP/2 server. Held to the module by mypy's stubtest.

There where geolookup was built with libnghttp2. `geolookup.service.rpc.transports.native` uses
it; ext/server.h says what belongs to which thread.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias, final

from typing_extensions import disjoint_base

LIBRARY: Final[str]
"""The release of libnghttp2 that it was built with."""
HAS_TLS: Final[bool]
"""Whether it was built with OpenSSL."""

LOOKUP: Final[int]
ROSTER: Final[int]
ROSTERS: Final[int]
AUTHORIZATION: Final[int]
HEALTH_CHECK: Final[int]
HEALTH_WATCH: Final[int]
PYTHON: Final[int]
PYTHON_STREAM: Final[int]
"""How a method is answered: in the loop and its threads, or by jobs for Python."""

PERSPECTIVES: Final[int]
ROUTES: Final[int]
"""How many region sets with a policy, and routes with a rule, a dataset keeps at hand."""

DECIDES: Final[int]
COUNTS: Final[int]
LABELS: Final[int]
"""What a rule of Envoy's authorization does."""

UNARY: Final[int]
MESSAGE: Final[int]
BEGIN: Final[int]
NEXT: Final[int]
MORE: Final[int]
LAST: Final[int]
END: Final[int]
UNPACK: Final[int]
"""What a job is."""

_Fields: TypeAlias = Iterable[tuple[str, str | bytes]]

_Rule = tuple[bytes, int, int, int, bytes, bytes, bytes]
"""A rule of Envoy's authorization: an outcome for each claim, the meter's number of its region set,
DECIDES, COUNTS or LABELS, a bit for each verdict that passes, its hosts (each between zeros), its
path prefix, and the CheckResponse that refuses."""

_Authorization = tuple[
    list[_Rule],
    list[tuple[bytes, _Rule]],
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bytes,
    bool,
]
"""What answers Envoy's checks: the rules of the file; those of routes, see `Job.route`; by claim
the number of its country (uint16); where the part of each country begins, and the end (uint32);
these parts; the dataset's part; and the one without verdicts: parts are OkHttpResponse messages.
Then of the metadata where the part of each country begins, and the end (uint32); these parts; and
the dataset's: parts are Structs. Then the name, in lower case, of the request header that carries
the address, or b"": the source does; and whether requests without a rule are labelled. Numbers are
of this machine."""

@disjoint_base
class Server:
    """An HTTP/2 server that answers gRPC calls, and hands over as jobs what it can't answer.

    Made, it is given sockets, a snapshot and perhaps a certificate; then one thread is in `run`,
    some are in `work`, and some take jobs from `next`, until `run` returns. All other methods may
    be called from any thread.

    Args:
        api: of `_core.api`.
        meter: the handle of a `_meter.Meter`.
        settings: the fields of gl_server_settings (ext/server.h).
        methods: for each its path, the meter's number, how it is answered, whether its calls last
            as long as the client likes, the handle of its `_meter.Slots` or None, and what a call
            is told that finds none, and one that is not permitted. Requests that are no calls
            take the slots of the method that classifies rosters, or else of the first.
        allow: by the meter's number the names that may call a method; without an entry all may.

    Raises:
        OSError: the system has no more descriptors or memory.
    """

    def __new__(
        cls,
        *,
        api: object,
        meter: object,
        settings: dict[str, object],
        methods: list[tuple[bytes, int, int, bool, object, bytes, bytes]],
        allow: dict[int, list[bytes]],
    ) -> Server: ...
    def listen(self, descriptor: int, /) -> None:
        """Take a socket that listens and does not block; it is this server's to close.

        Raises:
            OSError: it can't be watched.
        """

    def set_snapshot(
        self,
        owner: object,
        *,
        table: object,
        results: object,
        statuses: bytes,
        heads: bytes,
        begin: bytes,
        tail: bytes,
        named: bytes,
        networks: bytes | None = None,
        has_regions: bool = False,
        stale_from: int = 0,
        authorization: _Authorization | None = None,
        perspectives: list[tuple[bytes, int, int, bytes, bool]] = ...,
    ) -> None:
        """Answer calls that come from now on from this dataset.

        Args:
            owner: what `Job.snapshot` returns; released with the rest when the last call ends.
            table: a `_core.Table`.
            results: a `_core.ClaimResults`.
            statuses: one byte for each claim.
            heads: of a LookupResponse what stands before its verdict, for each claim.
            begin: where each begins, and the end: uint32, of this machine.
            tail: of a LookupResponse what stands behind its verdict.
            named: of a ClassifyRosterResponse what stands behind its bitmaps.
            networks: one byte for each claim, a bit for each kind; None: there are no lists.
            has_regions: whether Python is to answer rosters that ask for the column of regions.
            stale_from: seconds since 1970, UTC, from which the verdicts apply that were learnt
                as stale, and no others; 0: never.
            authorization: what answers Envoy's checks before `stale_from`; None: Python does.
            perspectives: arguments of `Job.learn` that are known already, in its order.

        Raises:
            ValueError: the lengths don't fit.
        """

    def set_certificate(self, chain: bytes, key: bytes, authorities: bytes | None, /) -> None:
        """Shake hands with this certificate from now on.

        Args:
            chain: PEM.
            key: PEM.
            authorities: PEM; clients need a certificate of one of these. None: they need none.

        Raises:
            ValueError: OpenSSL does not take them, or is not here.
        """

    def set_serving(self, serving: bool, /) -> None:
        """Have health checks say SERVING, or NOT_SERVING."""

    def serve_supervisor(self, descriptor: int, /) -> None:
        """Answer each call on this connected socket as a lookup, at any load and uncounted.

        The connection needs no TLS, no slot and no permission. The socket is the server's to
        close, which it does when it begins to stop.
        """

    def retire_connections(self) -> None:
        """Tell each connection (GOAWAY) to make its further calls on another one.

        Listeners go on, and connections that come later get none.
        """

    def stop(self, grace: int, /) -> None:
        """Begin to stop; calls have this many nanoseconds. A shorter time replaces a longer one."""

    def run(self) -> None:
        """Run the event loop, without the interpreter lock, until a stop is over.

        Raises:
            OSError: the loop has failed.
        """

    def work(self) -> None:
        """Work on large rosters, without the interpreter lock, until the loop has ended."""

    def next(self) -> Job | None:
        """Wait for the next job and return it; None: the loop has ended."""

@final
class Job:
    """Work for Python: one message of a call, or a stream's beginning or end.

    A unary call is one job, UNARY. A stream is BEGIN, then NEXT for each message, LAST when its
    client has sent all, and END when the call is over, however it ended. There is one job of a
    call at a time, and the next one comes when the answer to the one before was sent. So a
    handler can answer each message, or some, or none until LAST; with *more*, it is asked for
    another answer (MORE) before the client's next message.

    One of `answer`, `done` and `refuse` is called once. A job that is dropped without one ends
    its call with INTERNAL. RuntimeError: it was ended before.

    Headers and trailers are pairs of a name in lower case and its value: bytes where the name
    ends with "-bin", else a string or bytes of printable ASCII. Headers are sent once, with the
    first answer or before it; the trailers that were given last are sent. Of each there are at
    most 64 (16 KiB); ValueError: there are more.
    """

    @property
    def body(self) -> bytes:
        """The message."""

    @property
    def kind(self) -> int:
        """UNARY, MESSAGE (of a stream counted in C), BEGIN, NEXT, MORE, LAST, END or UNPACK."""

    @property
    def method(self) -> int:
        """The meter's number of the method."""

    @property
    def path(self) -> str:
        """The method's path, as given to `Server`."""

    @property
    def stream(self) -> int:
        """A number that the stream has to itself."""

    @property
    def position(self) -> int:
        """The position of the message in its stream, from 0."""

    @property
    def accepted(self) -> int:
        """`time.monotonic_ns` when the call came."""

    @property
    def deadline(self) -> float | None:
        """`time.monotonic` from which on nobody waits; None: somebody always does."""

    @property
    def snapshot(self) -> Any:
        """The owner that was given to `Server.set_snapshot`."""

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The call's metadata, if the server was to keep it: of a stream at BEGIN alone.

        Values are bytes where the name ends with "-bin", else strings.
        """

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return who calls as gRPC's auth context has it: alternative names by kind."""

    def gone(self) -> int:
        """Return the status code of a call whose client has gone, and 0 while it waits.

        That is CANCELLED, or DEADLINE_EXCEEDED if the client gave up at its deadline.
        """

    def learn(
        self,
        region_set: bytes,
        policy: int,
        number: int,
        outcomes: bytes,
        *,
        stale: bool = False,
    ) -> None:
        """Have calls like this one answered without Python from now on.

        Args:
            region_set: the expression as the client spells it.
            policy: its number.
            number: under which the meter counts it.
            outcomes: one byte for each claim.
            stale: whether they are those of a dataset that is too old.
        """

    def route(self) -> bytes:
        """Return what the route of a CheckRequest says of a rule of its own, else nothing."""

    def learn_route(self, route: bytes, rule: _Rule) -> None:
        """Have CheckRequests of such a route answered without Python from now on.

        Raises:
            ValueError: the rule has not one outcome for each claim.
        """

    def answer(
        self,
        message: bytes,
        *,
        headers: _Fields = (),
        trailers: _Fields = (),
        more: bool = False,
        finished: bool = False,
    ) -> None:
        """Send an answer.

        Args:
            message: the response.
            headers: see `Job`.
            trailers: see `Job`.
            more: there is another answer before the stream's next message.
            finished: the stream ends with it, with OK.
        """

    def done(
        self,
        *,
        headers: _Fields = (),
        trailers: _Fields = (),
        more: bool = False,
        finished: bool = False,
    ) -> None:
        """End the job without an answer; see `answer`. Headers are sent at once."""

    def refuse(
        self,
        code: int,
        text: str,
        shed: bool = False,
        *,
        headers: _Fields = (),
        trailers: _Fields = (),
    ) -> None:
        """End the call with a status code other than 0.

        Args:
            code: gRPC's.
            text: for the client.
            shed: for want of a slot: the client is sent a time after which to come again.
            headers: see `Job`.
            trailers: see `Job`; status details are `grpc-status-details-bin`.
        """
