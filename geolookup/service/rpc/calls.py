"""What every call passes, whoever carries it: admission, permission, deadline, handler, counting.

A transport takes calls from the network. For each it takes one of the `Slots`, has `Calls.answer`
(or the `Stream` of `Calls.stream`) turn bytes into bytes, and tells the client what
comes back: bytes, or a `RequestError`. So the transports differ in nothing that a client,
an operator or a test could see.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from geolookup import _meter
from geolookup.service import log, tls
from geolookup.service.monitoring import counters
from geolookup.service.rpc import envoy_authz, handlers
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.request import INTERNAL_ERROR, Call, Code, RequestError

if TYPE_CHECKING:
    from geolookup.service.monitoring.counters import Meter
    from geolookup.service.monitoring.tracing import Tracer
    from geolookup.service.settings import Limits, Settings

SERVICE: Final = "geolookup.v1.GeoLookupService"
_STANDARD: Final = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")

UNARY: Final = {
    f"/{SERVICE}/{counters.METHODS[number]}": number
    for number in (
        *(counters.LOOKUP, counters.CLASSIFY_ROSTER, counters.EXPLAIN),
        *(counters.LIST_REGION_SETS, counters.GET_DATASET),
    )
}
"""The unary methods of the service by path, and their numbers."""

RETRY_HINT: Final = ("grpc-retry-pushback-ms", "100")
"""Metadata with which a call that is shed ends: gRPC's clients wait so long before they try
again, if they try again. A worker answers thousands of calls in that time."""

_OK: Final = 0
_CANCELLED: Final = 1
_DEADLINE: Final = RequestError(Code.DEADLINE_EXCEEDED, "the deadline has passed")
_CANCELLED_BY_CLIENT: Final = RequestError(Code.CANCELLED, "the client has cancelled the call")

Handler = Callable[..., bytes]
Metadata = Iterable[tuple[str, "str | bytes"]]


class ShedError(RequestError):
    """A call that is refused because of the load, to be told `RETRY_HINT`."""


class Slots(_meter.Slots):
    """So many at once. Thread-safe; the native transport takes them without Python."""

    def __init__(self, number: int, what: str) -> None:
        self.refusal = ShedError(Code.RESOURCE_EXHAUSTED, f"{what}: over the limit of {number}")


class Calls:
    """Everything about calls that is no transport's own. Thread-safe.

    Args:
        settings: limits, and who may call what.
        numbers: where calls are counted.
        snapshot: what they are answered from; swapped by assignment, and each call and
            each stream keeps the one that it began with.
        tracer: makes spans; None: nobody asked for them.

    Raises:
        MissingExtraError: Envoy's authorization is asked for, and its messages are not installed.
    """

    def __init__(
        self, settings: Settings, numbers: Meter, snapshot: Snapshot, tracer: Tracer | None = None
    ) -> None:
        self._snapshot = snapshot
        self.on_snapshot: Callable[[Snapshot], None] | None = None
        """Called with each new snapshot, before a call is answered from it."""
        self.meter = numbers
        self.unary_slots = Slots(settings.max_calls, "calls")
        self.stream_slots = Slots(settings.max_streams, "streams")
        self._settings = settings
        self._limits = settings.limits
        self._tracer = tracer
        # Found here and not at the top, so that a test's own handlers are found.
        self._handlers: dict[int, Handler] = {
            counters.LOOKUP: handlers.lookup,
            counters.CLASSIFY_ROSTER: handlers.classify_roster,
            counters.EXPLAIN: handlers.explain,
            counters.LIST_REGION_SETS: handlers.list_region_sets,
            counters.GET_DATASET: handlers.get_dataset,
        }
        self._stream_handler: Handler = handlers.stream_rosters
        self.unary = dict(UNARY)
        """The unary methods that are answered, by path, and their numbers."""
        self.services: tuple[str, ...] = (SERVICE, *_STANDARD)
        """What reflection lists."""
        if settings.authz or settings.authz_rules is not None:
            self._add_authorization()

    @property
    def snapshot(self) -> Snapshot:
        """What calls are answered from; assigned to, it is what new ones are."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        if self.on_snapshot is not None:
            self.on_snapshot(snapshot)

    @property
    def traced(self) -> bool:
        """Whether spans are made of calls."""
        return self._tracer is not None

    def _add_authorization(self) -> None:
        envoy_authz.load_messages()

        def check(snapshot: Snapshot, body: bytes, _limits: Limits, call: Call) -> bytes:
            return envoy_authz.check(
                snapshot.dataset, body, snapshot.rules or envoy_authz.Rules(), call
            )

        self._handlers[counters.AUTHORIZATION_CHECK] = check
        self.unary[f"/{envoy_authz.SERVICE}/Check"] = counters.AUTHORIZATION_CHECK
        self.services = (*self.services, envoy_authz.SERVICE)

    def shed(self, slots: Slots, method: int) -> ShedError:
        """Count that a call of this method got no slot, and return what it is refused with."""
        self.meter.shed(method)
        return slots.refusal

    def check(self, method: int, auth_context: Callable[[], object]) -> None:
        """Return if who calls may call this method.

        Args:
            method: index into `counters.METHODS`.
            auth_context: returns gRPC's; only called if there is a list.

        Raises:
            RequestError: PERMISSION_DENIED.
        """
        if not self._settings.allow:
            return
        name = counters.METHODS[method]
        who = tls.identities(auth_context())  # type: ignore[arg-type]  # gRPC's own mapping
        if not tls.permitted(self._settings, name, who):
            raise RequestError(Code.PERMISSION_DENIED, tls.refusal(name))

    def answer(
        self,
        method: int,
        body: bytes,
        *,
        accepted: int,
        deadline: float | None = None,
        auth_context: Callable[[], object] = dict,
        metadata: Metadata = (),
    ) -> bytes:
        """Answer a unary call.

        Args:
            method: index into `counters.METHODS`; one of `unary`.
            body: the request.
            accepted: `time.monotonic_ns` when the call came.
            deadline: `time.monotonic` from which on nobody waits for the answer.
            auth_context: see `check`.
            metadata: the call's.

        Raises:
            RequestError: what the client is to be told instead.
        """
        answering = Answering(self, method, accepted, deadline, metadata)
        return answering.answer(body, auth_context)

    def begin(
        self,
        method: int,
        *,
        accepted: int,
        deadline: float | None = None,
        metadata: Metadata = (),
        is_cancelled: Callable[[], bool] | None = None,
    ) -> Answering:
        """Return the state of a unary call, whose `Answering.answer` is `answer`.

        For a transport that may hear of its end while it is being answered: `is_cancelled`
        says whether it has.
        """
        answering = Answering(self, method, accepted, deadline, metadata)
        answering.is_cancelled = is_cancelled
        return answering

    def stream(
        self,
        *,
        accepted: int,
        deadline: float | None = None,
        auth_context: Callable[[], object] = dict,
        metadata: Metadata = (),
    ) -> Stream:
        """Begin a stream of rosters; see `answer`. A context manager for as long as it lasts."""
        answering = Answering(self, counters.STREAM_ROSTERS, accepted, deadline, metadata)
        return Stream(self, answering, auth_context, self._stream_handler, self._limits)

    def other(self, method: int, *, accepted: int, metadata: Metadata = ()) -> Answering:
        """Begin a call that a standard service answers (health, reflection), to count it."""
        return Answering(self, method, accepted, None, metadata)


class Answering(Call):
    """One call from its acceptance to its end: a context manager that counts it.

    An exception that nobody foresaw is logged by its type and place, and becomes
    `INTERNAL_ERROR`.
    """

    __slots__ = (
        *("_accepted", "_addresses", "_calls", "_deadline", "_meter", "_method", "_span"),
        *("cancelled", "code", "is_cancelled"),
    )

    def __init__(
        self,
        calls: Calls,
        method: int,
        accepted: int,
        deadline: float | None,
        metadata: Metadata,
    ) -> None:
        self._calls = calls
        self._meter = calls.meter
        self._method = method
        self._accepted = accepted
        self._deadline = deadline
        self._addresses: int | None = None
        tracer = calls._tracer
        self._span = None if tracer is None else tracer.start(method, metadata)
        self.code = _OK
        """gRPC's status code that the call ends with."""
        self.cancelled = False
        """Set by a transport that is told so by the client."""
        self.is_cancelled: Callable[[], bool] | None = None
        """Says the same, of a transport that does not set it."""

    def __enter__(self) -> Answering:
        self._meter.begin(self._method)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.code = _code(error)
        self._meter.end(self._method, self.code, time.monotonic_ns() - self._accepted)
        if self._span is not None:
            dataset = self._calls.snapshot.dataset.id
            self._span.end(self.code, addresses=self._addresses, dataset=dataset)
        if isinstance(error, Exception) and not isinstance(error, RequestError):
            # In no variable, which would keep it and the call for as long as it keeps the variable.
            raise self.refusal(error) from None

    def refusal(self, error: Exception) -> RequestError:
        """Note with what the call ends, and return what the client is told of it."""
        if not isinstance(error, RequestError):
            name = counters.METHODS[self._method]
            log.event("call_failed", "error", method=name, error=log.describe(error))
            error = INTERNAL_ERROR.anew()
        self.code = error.code
        return error

    def answer(self, body: bytes, auth_context: Callable[[], object]) -> bytes:
        """Answer it, from beginning to end; see `Calls.answer`."""
        calls, method = self._calls, self._method
        with self:
            calls.check(method, auth_context)
            self.go_on()
            return calls._handlers[method](calls.snapshot, body, calls._limits, self)

    def go_on(self) -> None:
        """Return if somebody still waits; see `Call.go_on`."""
        # First: a call whose deadline has passed is cancelled for that.
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise _DEADLINE.anew()
        if self.cancelled or (self.is_cancelled is not None and self.is_cancelled()):
            raise _CANCELLED_BY_CLIENT.anew()

    def looked_up(self, status: int, region_set: str, verdict: int) -> None:
        """Count it; see `Call.looked_up`."""
        self._addresses = 1
        self._meter.address(status, self._meter.region_set(region_set) if verdict else 0, verdict)

    def classified(
        self,
        statuses: tuple[int, ...],
        region_set: str,
        verdicts: tuple[int, int, int] | None,
    ) -> None:
        """Count it; see `Call.classified`."""
        if self._span is not None:
            self._addresses = (self._addresses or 0) + sum(statuses)
        number = 0 if verdicts is None else self._meter.region_set(region_set)
        self._meter.roster(statuses, number, verdicts)


def _code(error: BaseException) -> int:
    """Return gRPC's status code that a call ends with."""
    if isinstance(error, RequestError):
        return error.code
    return INTERNAL_ERROR.code if isinstance(error, Exception) else _CANCELLED


class Stream:
    """One call of `StreamRosters`, answered from the snapshot that it began with."""

    def __init__(
        self,
        calls: Calls,
        answering: Answering,
        auth_context: Callable[[], object],
        handler: Handler,
        limits: object,
    ) -> None:
        self._calls = calls
        self._answering = answering
        self._auth_context = auth_context
        self._handler = handler
        self._limits = limits
        self._snapshot = calls.snapshot
        self._position = 0

    def __enter__(self) -> Stream:
        self._answering.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._answering.__exit__(kind, error, trace)

    def check(self) -> None:
        """Return if who calls may; see `Calls.check`."""
        self._calls.check(counters.STREAM_ROSTERS, self._auth_context)

    def refusal(self, error: Exception) -> RequestError:
        """Note with what it ends, and return what the client is told of it."""
        return self._answering.refusal(error)

    def cancel(self) -> None:
        """Note that the client has cancelled it."""
        self._answering.cancelled = True
        self._answering.code = _CANCELLED

    def answer(self, body: bytes) -> bytes:
        """Answer its next roster.

        Raises:
            RequestError: what the client is to be told; the stream ends with it.
        """
        self._answering.go_on()
        position, self._position = self._position, self._position + 1
        return self._handler(self._snapshot, body, self._limits, position, self._answering)

    def answers(self, bodies: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the answers to rosters, each when it is asked for."""
        for body in bodies:
            yield self.answer(body)
