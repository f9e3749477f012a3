"""What every call passes on any transport: authorization, deadline, handler, counters.

A transport takes calls from the network. It admits each call by one of the `Slots`, begins it
here, passes the request's bytes to `ActiveCall.answer` or `Stream.answer`, and sends the client
the bytes that come back, or the `RequestError`. So clients, operators and tests see no
difference between transports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from geolookup.service import log, tls
from geolookup.service.methods import (
    ENVOY_AUTHORIZATION,
    GEOLOOKUP,
    HEALTH,
    REFLECTION,
    REFLECTION_V1ALPHA,
    Method,
)
from geolookup.service.rpc import envoy_authz, handlers
from geolookup.service.rpc.admission import ShedError, Slots
from geolookup.service.rpc.check_address import CheckAddress
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.request import INTERNAL_ERROR, Call, Code, RequestError

if TYPE_CHECKING:
    from geolookup.service.monitoring.counters import Counters
    from geolookup.service.monitoring.tracing import Tracer
    from geolookup.service.settings import RosterLimits, Settings

_OK: Final = 0
_CANCELLED: Final = 1
_DEADLINE_PASSED: Final = RequestError(Code.DEADLINE_EXCEEDED, "the deadline has passed")
_CANCELLED_BY_CLIENT: Final = RequestError(Code.CANCELLED, "the client has cancelled the call")

_NO_MEMORY: Final = ShedError(
    Code.RESOURCE_EXHAUSTED, "memory: over memory_budget, with what others sent"
)
_SMALL_REQUEST: Final = 65_536
"""Bytes of the largest request that is not reckoned, as GL_LARGE."""

JOINS: Final = (Method.LOOKUP, Method.AUTHORIZATION_CHECK)
"""The methods that are called when someone joins a meeting: each about one address."""

Handler = Callable[..., bytes]
Metadata = Iterable[tuple[str, "str | bytes"]]


class Calls:
    """The calls of a worker, without the part that is a transport's own. Thread-safe.

    Args:
        settings: the limits, and which client may call which method.
        counters: of this worker.
        snapshot: what calls are answered from. It is swapped by assignment; each call and
            each stream keeps the snapshot that it began with.
        tracer: makes spans; None: tracing is off.

    Raises:
        MissingExtraError: Envoy's authorization is enabled, and its messages are not installed.
    """

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        snapshot: Snapshot,
        tracer: Tracer | None = None,
    ) -> None:
        self._snapshot = snapshot
        self.on_snapshot: Callable[[Snapshot], None] | None = None
        """Called with each new snapshot."""
        self.counters = counters
        self.unary_slots = Slots(settings.max_calls, "calls")
        # Of their own: no roster may keep anyone from joining.
        self.join_slots = Slots(settings.max_calls, "calls")
        self.stream_slots = Slots(settings.max_streams, "streams")
        self._settings = settings
        self._limits = settings.limits
        self._tracer = tracer
        # Looked up now and not at import, so that tests can replace handlers.
        self._handlers: dict[Method, Handler] = {
            Method.LOOKUP: handlers.lookup,
            Method.CLASSIFY_ROSTER: handlers.classify_roster,
            Method.EXPLAIN: handlers.explain,
            Method.LIST_REGION_SETS: handlers.list_region_sets,
            Method.GET_DATASET: handlers.get_dataset,
        }
        self._stream_handler: Handler = handlers.stream_rosters
        self.services: tuple[str, ...] = (
            GEOLOOKUP,
            HEALTH,
            REFLECTION,
            REFLECTION_V1ALPHA,
        )
        """The services that reflection lists."""
        if settings.answers_checks:
            self._add_authorization(settings)
        self.unary = tuple(self._handlers)
        """The unary methods, but for the standard services'."""

    def take_memory(self, size: int) -> int:
        """Take memory of the budget for a request of so many bytes, and for its answer.

        For transports without a budget of their own. What it returns is given back by
        `Counters.give_back_memory`.

        Raises:
            ShedError: others have too much.
        """
        if size <= _SMALL_REQUEST:
            return 0
        memory = 2 * size
        if not self.counters.take_memory(memory, self._settings.worker_memory):
            raise self.no_memory()
        return memory

    def no_memory(self) -> ShedError:
        """Return the refusal of a request for which no memory is left in the budget."""
        return _NO_MEMORY.copy()

    def slots_of(self, method: Method) -> Slots:
        """Return the slots of a unary method's calls: lookups and Envoy's checks have their own."""
        return self.join_slots if method in JOINS else self.unary_slots

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot for new calls and new streams; assign one to swap it."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        if self.on_snapshot is not None:
            self.on_snapshot(snapshot)

    @property
    def traced(self) -> bool:
        """Whether calls make spans."""
        return self._tracer is not None

    def _add_authorization(self, settings: Settings) -> None:
        envoy_authz.load_messages()
        whose = CheckAddress.of(settings)
        no_rules = envoy_authz.Rules(label=settings.labels_checks)

        def check(snapshot: Snapshot, body: bytes, _limits: RosterLimits, call: Call) -> bytes:
            return envoy_authz.check(
                snapshot.dataset, body, snapshot.rules or no_rules, call, whose
            )

        self._handlers[Method.AUTHORIZATION_CHECK] = check
        self.services = (*self.services, ENVOY_AUTHORIZATION)

    def shed(self, slots: Slots, method: Method) -> ShedError:
        """Count a call that got no slot, and return its refusal."""
        self.counters.shed(method)
        return slots.refusal

    def authorize(self, method: Method, auth_context: Callable[[], object]) -> None:
        """Return if the client may call this method.

        Args:
            method: the rpc.
            auth_context: returns gRPC's; called only if the settings restrict methods.

        Raises:
            RequestError: PERMISSION_DENIED.
        """
        if not self._settings.allow:
            return
        client = tls.identities(auth_context())  # type: ignore[arg-type]  # gRPC's own mapping
        if not tls.permitted(self._settings, method.label, client):
            raise RequestError(Code.PERMISSION_DENIED, tls.refusal(method.label))

    def begin(
        self,
        method: Method,
        *,
        accepted: int,
        deadline: float | None = None,
        metadata: Metadata = (),
        gone: Callable[[], int] | None = None,
    ) -> ActiveCall:
        """Begin a call.

        Args:
            method: the rpc.
            accepted: `time.monotonic_ns` when the call arrived.
            deadline: `time.monotonic` after which the client no longer waits.
            metadata: of the call.
            gone: returns CANCELLED or DEADLINE_EXCEEDED if the client no longer waits, else 0;
                for a transport that learns it while another thread answers.
        """
        call = ActiveCall(self, method, accepted, deadline, metadata)
        call.gone = gone
        return call

    def begin_stream(
        self,
        *,
        accepted: int,
        deadline: float | None = None,
        auth_context: Callable[[], object] = dict,
        metadata: Metadata = (),
    ) -> Stream:
        """Begin a stream of rosters; see `begin` and `authorize`."""
        call = ActiveCall(self, Method.STREAM_ROSTERS, accepted, deadline, metadata)
        return Stream(self, call, auth_context, self._stream_handler, self._limits)


class ActiveCall(Call):
    """One call from its arrival to its end: a context manager that counts it.

    An unexpected exception is logged by its type and stack, and becomes `INTERNAL_ERROR`.
    """

    __slots__ = (
        "_accepted",
        "_addresses",
        "_calls",
        "_counters",
        "_deadline",
        "_method",
        "_span",
        "cancelled",
        "code",
        "gone",
    )

    def __init__(
        self,
        calls: Calls,
        method: Method,
        accepted: int,
        deadline: float | None,
        metadata: Metadata,
    ) -> None:
        self._calls = calls
        self._counters = calls.counters
        self._method = method
        self._accepted = accepted
        self._deadline = deadline
        self._addresses: int | None = None
        tracer = calls._tracer
        self._span = None if tracer is None else tracer.start(method, metadata)
        self.code = _OK
        """gRPC's status code that the call ends with."""
        self.cancelled = False
        """Whether the client has cancelled the call. The transport sets it, ..."""
        self.gone: Callable[[], int] | None = None
        """... or this returns the code with which it did: see `Calls.begin`."""

    def __enter__(self) -> ActiveCall:
        self._counters.begin(self._method)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.code = _code(error)
        self._counters.end(self._method, self.code, time.monotonic_ns() - self._accepted)
        if self._span is not None:
            dataset = self._calls.snapshot.dataset.id
            self._span.end(self.code, addresses=self._addresses, dataset=dataset)
        if isinstance(error, Exception) and not isinstance(error, RequestError):
            # No variable holds the refusal: it would keep the call's frames alive.
            raise self.refusal(error) from None

    def refusal(self, error: Exception) -> RequestError:
        """Note the code that the call ends with, and return what to send the client."""
        if not isinstance(error, RequestError):
            name = self._method.label
            log.event("call_failed", "error", method=name, error=log.describe(error))
            error = INTERNAL_ERROR.copy()
        self.code = error.code
        return error

    def answer(
        self,
        body: bytes,
        auth_context: Callable[[], object] = dict,
        snapshot: Snapshot | None = None,
        decode: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """Answer a unary call, from its beginning to its end.

        Args:
            body: the request.
            auth_context: see `Calls.authorize`.
            snapshot: from which it is answered; None: from the newest.
            decode: returns the request on the wire, from another form; None: it has that form.

        Raises:
            RequestError: what to send the client instead.
        """
        calls, method = self._calls, self._method
        with self:
            calls.authorize(method, auth_context)
            self.check_active()
            if decode is not None:
                body = decode(body)
            return calls._handlers[method](snapshot or calls.snapshot, body, calls._limits, self)

    def check_active(self) -> None:
        """See `Call.check_active`."""
        # The deadline first: gRPC cancels a call whose deadline has passed.
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise _DEADLINE_PASSED.copy()
        code = _CANCELLED if self.cancelled else 0 if self.gone is None else self.gone()
        if code:
            gone = _CANCELLED_BY_CLIENT if code == _CANCELLED else _DEADLINE_PASSED
            raise gone.copy()

    def record_lookup(self, status: int, region_set: str, outcome: int, networks: int) -> None:
        """See `Call.record_lookup`."""
        self._addresses = 1
        number = self._counters.region_set(region_set) if outcome else 0
        self._counters.address(status, number, outcome, networks)

    def record_check(self, status: int) -> None:
        """See `Call.record_check`."""
        self._addresses = 1
        self._counters.check(status)

    def record_roster(
        self,
        statuses: tuple[int, ...],
        region_set: str,
        verdicts: tuple[int, int, int] | None,
        reasons: tuple[int, ...] | None,
        networks: tuple[int, ...],
    ) -> None:
        """See `Call.record_roster`."""
        if self._span is not None:
            self._addresses = (self._addresses or 0) + sum(statuses)
        number = 0 if verdicts is None else self._counters.region_set(region_set)
        self._counters.roster(statuses, number, verdicts, reasons, networks)


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
        call: ActiveCall,
        auth_context: Callable[[], object],
        handler: Handler,
        limits: RosterLimits,
    ) -> None:
        self._calls = calls
        self._call = call
        self._auth_context = auth_context
        self._handler = handler
        self._limits = limits
        self._snapshot = calls.snapshot
        self._position = 0

    def __enter__(self) -> Stream:
        self._call.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._call.__exit__(kind, error, trace)

    def authorize(self) -> None:
        """Return if the client may; see `Calls.authorize`."""
        self._calls.authorize(Method.STREAM_ROSTERS, self._auth_context)

    def refusal(self, error: Exception) -> RequestError:
        """See `ActiveCall.refusal`."""
        return self._call.refusal(error)

    def cancel(self, code: int = _CANCELLED) -> None:
        """Note that the client no longer waits: CANCELLED, or DEADLINE_EXCEEDED."""
        self._call.cancelled = True
        self._call.code = code

    def answer(self, body: bytes) -> bytes:
        """Answer the next roster.

        Raises:
            RequestError: what to send the client instead; the stream ends with it.
        """
        self._call.check_active()
        position, self._position = self._position, self._position + 1
        return self._handler(self._snapshot, body, self._limits, position, self._call)
