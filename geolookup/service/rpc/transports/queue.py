"""An event loop on gRPC's completion queue: the transport that costs the least.

One thread takes what happened from the queue, and answers small calls at once. What
takes longer (large rosters, evidence from disk) goes to a pool of threads. A call
waits as an entry in the queue and holds no thread, whatever its client does. See
docs/transports.md; all that is used of grpcio's internals is named in `interface`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not in the stubs
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from geolookup.service import log
from geolookup.service.monitoring import counters
from geolookup.service.rpc.calls import RETRY_HINT, SERVICE, ShedError
from geolookup.service.rpc.grpc_options import channel_options
from geolookup.service.rpc.request import Code, RequestError
from geolookup.service.rpc.transports.crowd import Crowd
from geolookup.service.rpc.transports.listening import listen
from geolookup.service.rpc.transports.standard import parsed
from geolookup.service.rpc.transports.way import Way
from geolookup.service.settings.cores import available_cores
from geolookup.service.watches import LAST_WORDS

if TYPE_CHECKING:
    from geolookup.service.rpc.calls import Answering, Calls, Slots, Stream
    from geolookup.service.settings import ListenAddress, Settings

_ASKED: Final = 32
"""Calls that gRPC may hand over before the loop asks for more: as many as a burst brings. They come
ahead of what else happens, so that with more of them a burst would take all slots before
the first call of it has ended, and be refused though there is time for all of it."""

_PATIENCE: Final = 50_000
"""Nanoseconds, for each slot there is, within which a unary call over the limit can still be let
in: what a `Lookup` takes."""

_CROWD: Final = 1_024
"""Calls over the limit that wait at most."""
_PASSED: Final = 16
"""Events of unary calls after which one of those leaves all the same."""

_LARGE: Final = 65_536
"""Bytes of a request or a response that are not the loop's business: all other calls
would wait for as long as the work takes, which is more than handing it to a thread costs."""

_NO_DEADLINE: Final = 1e11
"""Unix time (in 3,000 years) from which on a deadline is none."""

# In the words of gRPC's public server, where they repeat nothing.
_NO_METHOD: Final = RequestError(Code.UNIMPLEMENTED, "Method not found!")
_NO_MESSAGE: Final = RequestError(Code.UNIMPLEMENTED, "exactly one request message is required")
_STOPPING: Final = RequestError(Code.CANCELLED, "the service stops")

# Operations without metadata and texts hold nothing, so all calls share them.
_BEGIN: Final = cygrpc.SendInitialMetadataOperation(None, 0)
_OK: Final = cygrpc.SendStatusFromServerOperation(None, 0, b"", 0)

Event = Any
"""Of the queue: `RequestCallEvent` or `BatchOperationEvent`."""
Operation = Any
Step = Callable[[Event], None]


class QueueTransport:
    """See `Transport`. Its state belongs to the loop's thread, unless it says otherwise."""

    def __init__(
        self, settings: Settings, calls: Calls, address: ListenAddress, *, share_port: bool
    ) -> None:
        self.calls = calls
        self.health_service = health.HealthServicer()
        self.reflection_service = reflection.ReflectionServicer(calls.services)
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(channel_options(settings, share_port=share_port), False)
        self._server.register_completion_queue(self._queue)
        self.health(serving=True)
        self.address = listen(
            settings,
            address,
            calls.meter,
            insecure=lambda where: self._server.add_http2_port(where.encode()),
            secure=lambda where, credentials: self._server.add_http2_port(
                where.encode(),
                credentials._credentials,  # type: ignore[attr-defined]
            ),
        )
        # By path, as gRPC has it.
        self._kinds = _kinds(calls.unary)
        # Rosters are work for a core. With more of them at a time each would only take longer,
        # and the loop, which answers joins meanwhile, would have to wait for its turn.
        cores = max(1, available_cores() // settings.workers)
        self.rosters = _Pool(min(settings.threads, cores))
        # The rest may wait for a disk.
        self.others = _Pool(settings.threads)
        # Calls that end only when the client likes. Others read it, and only the loop writes.
        self.lasting: set[_Watch | _Reflection] = set()
        self._max_calls = settings.max_calls
        self.crowd = Crowd[_Unary](_PATIENCE * self._max_calls, _CROWD)
        self._way = Way()
        self.stopping = False
        # What must come out of the queue before it is empty for good: calls asked for, calls
        # that are not over, and the server's own end.
        self._due = 1
        # Held by whoever speaks to the server from without, and when it is destroyed.
        self._lock = threading.Lock()
        self._destroyed = False
        self._stopped = threading.Event()
        self._server.start()
        for _ in range(_ASKED):
            self._ask()
        threading.Thread(target=self._run, name="geolookup-loop", daemon=True).start()

    def health(self, serving: bool) -> None:
        """See `Transport.health`. Any thread may call it."""
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            self.health_service.set(name, status.SERVING if serving else status.NOT_SERVING)

    def stop(self, grace: float) -> threading.Event:
        """See `Transport.stop`. Any thread may call it."""
        with self._lock:
            if self._destroyed:
                return self._stopped
            self.stopping = True
            # The watches are told, each ends when it has heard it.
            self.health_service.enter_graceful_shutdown()
            self._server.shutdown(self._queue, self._shut_down)
            for one in list(self.lasting):
                one.stop()
            if not grace:
                self._server.cancel_all_calls()
                return self._stopped
        threading.Thread(target=self._cut_off_after, args=(grace,), daemon=True).start()
        return self._stopped

    def _cut_off_after(self, grace: float) -> None:
        first = min(grace, LAST_WORDS)
        if not self._stopped.wait(first):
            with self._lock:
                for one in list(self.lasting):
                    one.cut_off()
        if not self._stopped.wait(grace - first):
            with self._lock:
                if not self._destroyed:
                    self._server.cancel_all_calls()

    # --- the loop

    def _run(self) -> None:
        poll, crowd = self._queue.poll, self.crowd
        nothing, passed = cygrpc.CompletionType.queue_timeout, 0
        while self._due:
            if crowd:
                # First what has happened: a call that ends gives its slot back, and only who
                # knows all that have come knows who came last.
                event = poll(0)
                if event.completion_type == nothing and self.thronged and self._made_way():
                    event = poll(0)
                empty = event.completion_type == nothing
                passed += 1
                if empty or passed >= _PASSED or crowd.full:
                    passed = 0
                    self._thin_out()
                if empty:
                    continue
                if not _is_unary(event.tag):
                    # A stream's roster takes as long as several calls, and streams alone can
                    # keep the loop busy.
                    passed = _PASSED
            else:
                event = poll()
            step: Step = event.tag
            try:
                step(event)
            except Exception as error:
                self._failed(getattr(step, "__self__", None), error)
            # The last reference to a call must not be kept until the next event.
            del event, step
        with self._lock:
            self._destroyed = True
            self._server.destroy()
            self._queue.shutdown()
        # Nobody else adds to it now. What is left are notes to calls that are over.
        while poll().completion_type != cygrpc.CompletionType.queue_shutdown:
            pass
        self.rosters.stop()
        self.others.stop()
        self._stopped.set()

    def _failed(self, call: object, error: Exception) -> None:
        """Log what nobody foresaw, and end the call in whose step it came up."""
        log.event("call_failed", "error", method="transport", error=log.describe(error))
        if isinstance(call, _Call):
            try:
                call.give_up()
            except Exception as another:
                log.event("call_failed", "error", method="transport", error=log.describe(another))

    def _ask(self) -> None:
        try:
            self._server.request_call(self._queue, self._queue, self._accept)
        except ValueError:
            # It has begun to stop since it was looked at.
            return
        self._due += 1

    def _accept(self, event: Event) -> None:
        """Begin a call, or learn that there will be none."""
        accepted = time.monotonic_ns()
        self._due -= 1
        if not event.success:
            return
        if not self.stopping:
            self._ask()
        kind, method = self._kinds.get(event.call_details.method, _UNKNOWN)
        call = kind(self, event, accepted, method)
        self._due += 1
        self._take(call, call.begin)

    def _take(self, call: _Call, step: Callable[[], None]) -> None:
        """Take a step with a call that is none of its events."""
        try:
            step()
        except Exception as error:
            self._failed(call, error)

    def _thin_out(self) -> None:
        """Let one of the crowd in, or refuse one, or both."""
        free = self.calls.unary_slots.free > 0
        enters, leaves = self.crowd.leave(time.monotonic_ns(), free)
        if enters is not None:
            self._take(enters, enters.let_in)
        if leaves is not None:
            self._take(leaves, leaves.refuse)

    @property
    def thronged(self) -> bool:
        """Whether more wait than can be under way. Few are answered as well in order of arrival."""
        return len(self.crowd) > self._max_calls

    def _made_way(self) -> bool:
        """Let gRPC's threads read who came last, if they want this core; say whether they could."""
        # A roster that is worked on would take it for much longer.
        if self.rosters.busy or self.others.busy or not self._way.give():
            return False
        # Others' turns with the core make all of them late at once: those of two are forgiven.
        self.crowd.forgiven = 2 * self._way.lost
        return True

    def over(self) -> None:
        """Note that a call is over: nothing of it is in the queue, or will be."""
        self._due -= 1

    def _shut_down(self, _event: Event) -> None:
        """Learn that the listener is closed and no call is left to gRPC."""
        self._due -= 1


class _Pool:
    """Threads for work that would hold up the loop."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._works: SimpleQueue[tuple[Callable[[bytes], None], bytes] | None] = SimpleQueue()
        # An entry for each thread that works.
        self._working: deque[None] = deque()
        for number in range(threads):
            name = f"geolookup-work_{number}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether there is work."""
        return bool(self._working) or not self._works.empty()

    def submit(self, work: Callable[[bytes], None], body: bytes) -> None:
        """Have a thread do some work, which raises nothing. Calls' slots bound what can wait."""
        self._works.put((work, body))

    def stop(self) -> None:
        """End the threads when all is done that was submitted."""
        for _ in range(self._threads):
            self._works.put(None)

    def _run(self) -> None:
        while (one := self._works.get()) is not None:
            work, body = one
            self._working.append(None)
            work(body)
            self._working.pop()
            # Nothing of a request outlives its answer.
            del one, work, body


class _Call:
    """A call from its headers to its end. It is over when nothing of it is outstanding.

    gRPC counts a call as open until the last reference to its object is gone, so nothing
    that a call owns may lead back to it when it is over.

    A step is what follows on an event: it takes its batch off what is outstanding, does
    something, and posts the next batch or sees whether the call is over.
    """

    __slots__ = (
        *("_accepted", "_call", "_details", "_metadata", "_method", "_outstanding"),
        *("_slots", "_transport"),
    )

    def __init__(self, transport: QueueTransport, event: Event, accepted: int, method: int) -> None:
        self._transport = transport
        self._call = event.call
        self._details = event.call_details
        self._metadata = event.invocation_metadata
        self._accepted = accepted
        self._method = method
        # Where it has taken a slot.
        self._slots: Slots | None = None
        # Batches that are in the queue, and work that is in the pool; negative: it is over.
        self._outstanding = 0

    def begin(self) -> None:
        """Do what its headers ask for."""
        raise NotImplementedError

    def give_up(self) -> None:
        """End it after a step has failed."""
        self._call.cancel()
        self._see_whether_over()

    def _enter(self, slots: Slots) -> bool:
        """Take a slot, if there is one. It is given back when the call is over."""
        if slots.take():
            self._slots = slots
            return True
        return False

    def _shed(self, slots: Slots) -> None:
        """End it because there is no slot for it."""
        self._end(_BEGIN, _refusing(self._transport.calls.shed(slots, self._method)))

    def _post(self, operations: tuple[Operation, ...], step: Step) -> None:
        """Have gRPC do something and put it in the queue when it is done. Only for the loop."""
        if self._call.start_server_batch(operations, step):
            raise RuntimeError("gRPC refused a batch")
        self._outstanding += 1

    def _end(self, *operations: Operation) -> None:
        """Send what ends it, and wait until it has ended."""
        self._post((*operations, cygrpc.ReceiveCloseOnServerOperation(0)), self._ended)

    def _ended(self, _event: Event) -> None:
        self._outstanding -= 1
        self._see_whether_over()

    def _see_whether_over(self) -> None:
        if self._outstanding == 0:
            self._outstanding = -1
            self._over()

    def _over(self) -> None:
        """Give back what it has. Run once, in the loop."""
        if self._slots is not None:
            self._slots.give_back()
        self._transport.over()

    def _hand_over(self, body: bytes, pool: _Pool) -> None:
        """Have a thread answer a request."""
        self._outstanding += 1
        pool.submit(self._work, body)

    def _work(self, body: bytes) -> None:
        """Answer a request in a thread. Its batch takes the work's place in what is outstanding."""
        try:
            operations, step = self._answered(body)
            refused = self._call.start_server_batch(operations, step)
        except Exception as error:
            log.event("call_failed", "error", method="transport", error=log.describe(error))
            refused = True
        if refused:
            # The loop waits for an event all the same; an empty batch is one at once.
            self._call.cancel()
            self._call.start_server_batch((), self._ended)

    def _answered(self, body: bytes) -> tuple[tuple[Operation, ...], Step]:
        """Answer a request, and return the batch that sends the answer and what follows on it."""
        raise NotImplementedError

    def _deadline(self) -> float | None:
        deadline: float = self._details.deadline  # as Unix time
        if deadline > _NO_DEADLINE:
            return None
        return time.monotonic() + (deadline - time.time())

    def _auth_context(self) -> Mapping[str, Iterable[bytes]]:
        context = cygrpc.auth_context(self._call)
        return {name.decode(): values for name, values in context.items()}


class _Unknown(_Call):
    """A call of a method that there is not."""

    __slots__ = ()

    def begin(self) -> None:
        self._end(_BEGIN, _refusing(_NO_METHOD))


class _OneRequest(_Call):
    """A call with one request, before which nothing is done."""

    __slots__ = ()

    def begin(self) -> None:
        self._post((cygrpc.ReceiveMessageOperation(0),), self._received)

    def _received(self, event: Event) -> None:
        self._outstanding -= 1
        body = event.batch_operations[0].message()
        if body is None:
            # The client has cancelled, has gone, or has sent too much, which gRPC has told
            # it; or it has nothing to say.
            self._end(_BEGIN, _refusing(_NO_MESSAGE))
        else:
            self._asked(body)

    def _asked(self, body: bytes) -> None:
        """Do what the request asks for."""
        raise NotImplementedError


class _Unary(_OneRequest):
    """A call of one of `Calls.unary`."""

    __slots__ = ("_answering",)

    _answering: Answering

    def begin(self) -> None:
        transport = self._transport
        # Where many wait it waits with them: those who are let in one by one are answered one
        # by one, and whoever is answered beside others takes as long as all of them.
        if transport.thronged or not self._enter(transport.calls.unary_slots):
            transport.crowd.add(self, self._accepted)
        else:
            super().begin()

    def let_in(self) -> None:
        """Begin it, since there is a slot."""
        self._enter(self._transport.calls.unary_slots)
        super().begin()

    def refuse(self) -> None:
        """End it instead of beginning it."""
        self._shed(self._transport.calls.unary_slots)

    def _asked(self, body: bytes) -> None:
        transport = self._transport
        reads = self._method == counters.EXPLAIN
        answering = transport.calls.begin(
            self._method,
            accepted=self._accepted,
            deadline=self._deadline(),
            metadata=self._metadata,
        )
        self._answering = answering
        if reads or len(body) > _LARGE:
            # While a thread works on it, its client may go.
            self._post((cygrpc.ReceiveCloseOnServerOperation(0),), self._closed)
            self._hand_over(body, transport.others if reads else transport.rosters)
        else:
            operations, _ = self._answered(body)
            self._end(*operations)

    def _answered(self, body: bytes) -> tuple[tuple[Operation, ...], Step]:
        try:
            response = self._answering.answer(body, self._auth_context)
        except RequestError as refusal:
            return (_BEGIN, _refusing(refusal)), self._ended
        return (_BEGIN, cygrpc.SendMessageOperation(response, 0), _OK), self._ended

    def _closed(self, event: Event) -> None:
        self._outstanding -= 1
        if event.batch_operations[0].cancelled():
            self._answering.cancelled = True
        self._see_whether_over()


class _Check(_OneRequest):
    """A health check. It is never shed."""

    __slots__ = ("_code",)

    _code: grpc.StatusCode | None

    def _asked(self, body: bytes) -> None:
        calls = self._transport.calls
        self._code = None
        try:
            request = parsed(health_pb2.HealthCheckRequest, body)
            with calls.other(counters.CHECK, accepted=self._accepted, metadata=self._metadata):
                calls.check(counters.CHECK, self._auth_context)
                response = self._transport.health_service.Check(request, self)
                if self._code is not None:
                    raise RequestError(Code(self._code.value[0]), "")
            self._end(_BEGIN, cygrpc.SendMessageOperation(response.SerializeToString(), 0), _OK)
        except RequestError as refusal:
            self._end(_BEGIN, _refusing(refusal))

    def set_code(self, code: grpc.StatusCode) -> None:
        """As `grpc.ServicerContext`, for the health service."""
        self._code = code


class _Watch(_OneRequest):
    """A health watch: told the latest state whenever it has taken the one before."""

    __slots__ = ("_answering", "_begun", "_callbacks", "_latest", "_sending")

    _answering: Answering

    def _asked(self, body: bytes) -> None:
        calls = self._transport.calls
        try:
            request = parsed(health_pb2.HealthCheckRequest, body)
            calls.check(counters.WATCH, self._auth_context)
            if not self._enter(calls.stream_slots):
                raise calls.shed(calls.stream_slots, self._method).anew()
        except RequestError as refusal:
            self._end(_BEGIN, _refusing(refusal))
            return
        self._post((cygrpc.ReceiveCloseOnServerOperation(0),), self._ended)
        self._begun = self._sending = False
        self._latest: bytes | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._answering = calls.other(
            counters.WATCH, accepted=self._accepted, metadata=self._metadata
        )
        self._answering.__enter__()
        self._transport.lasting.add(self)
        self._transport.health_service.Watch(request, self, self._tell)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """As `grpc.ServicerContext`, for the health service."""
        self._callbacks.append(callback)
        return True

    def stop(self) -> None:
        """End it when it has heard of it. Any thread may call it."""
        self._call.start_server_batch((), self._told)

    def cut_off(self) -> None:
        """End it at once. Any thread may call it."""
        self._call.cancel()

    def _tell(self, response: health_pb2.HealthCheckResponse | None) -> None:
        """Have it told. Any thread calls it, but not when the watch is over; see `_over`."""
        if response is not None:
            self._latest = response.SerializeToString()
            # An empty batch is at once in the queue: a note to the loop.
            self._call.start_server_batch((), self._told)

    def _told(self, _event: Event) -> None:
        if self._outstanding > 0 and not self._sending:
            self._send()

    def _send(self) -> None:
        latest, self._latest = self._latest, None
        stopping = self._transport.stopping
        operations = () if self._begun else (_BEGIN,)
        if latest is not None:
            operations += (cygrpc.SendMessageOperation(latest, 0),)
        if stopping:
            operations += (_refusing(_STOPPING),)
        if operations:
            self._begun = self._sending = True
            self._post(operations, self._sent_last if stopping else self._sent)

    def _sent(self, event: Event) -> None:
        self._outstanding -= 1
        self._sending = False
        if event.success and (self._latest is not None or self._transport.stopping):
            self._send()
        self._see_whether_over()

    def _sent_last(self, _event: Event) -> None:
        # It is still `_sending`: nothing more may follow.
        self._outstanding -= 1
        self._see_whether_over()

    def _over(self) -> None:
        entered = self._slots is not None
        super()._over()
        if entered:
            self._transport.lasting.discard(self)
            for callback in self._callbacks:
                # Waits for the health service's lock, so nobody is telling it any more.
                callback()
            # They know our method, so each would keep the other.
            self._callbacks.clear()
            self._answering.__exit__(None, None, None)


class _Streaming(_Call):
    """A call of many requests, each answered before the one after the next is read.

    A client that is ahead waits in HTTP/2's flow control, and one that reads slowly
    holds up only itself.
    """

    __slots__ = ("_begun", "_refused")

    def begin(self) -> None:
        slots = self._transport.calls.stream_slots
        self._begun = self._refused = False
        if not self._enter(slots):
            self._shed(slots)
            return
        self._post((cygrpc.ReceiveCloseOnServerOperation(0),), self._closed)
        self._make()
        try:
            self._check()
        except RequestError as error:
            self._post(self._ending(error), self._ended)
        else:
            self._receive()

    def _receive(self) -> None:
        self._post((cygrpc.ReceiveMessageOperation(0),), self._received)

    def _received(self, event: Event) -> None:
        self._outstanding -= 1
        body = event.batch_operations[-1].message()
        if body is None:
            # The client has said all, or has cancelled.
            self._post((*self._begin(), _OK), self._ended)
        elif (pool := self._pool_for(body)) is not None:
            self._hand_over(body, pool)
        else:
            self._post(*self._answered(body))

    def _answered(self, body: bytes) -> tuple[tuple[Operation, ...], Step]:
        try:
            response = self._answer(body)
        except Exception as error:
            return self._ending(error), self._ended
        sending = (*self._begin(), cygrpc.SendMessageOperation(response, 0))
        if len(response) > _LARGE:
            # Kept until the batch is done, and the next request may be long in coming.
            return sending, self._sent
        return (*sending, cygrpc.ReceiveMessageOperation(0)), self._received

    def _sent(self, _event: Event) -> None:
        self._outstanding -= 1
        self._receive()

    def _ending(self, error: Exception) -> tuple[Operation, ...]:
        self._refused = True
        return (*self._begin(), _refusing(self._refusal(error)))

    def _begin(self) -> tuple[Operation, ...]:
        begun, self._begun = self._begun, True
        return () if begun else (_BEGIN,)

    def _closed(self, event: Event) -> None:
        self._outstanding -= 1
        # What it was refused with is how it ended, whatever the client did then.
        if event.batch_operations[0].cancelled() and not self._refused:
            self._cancelled()
        self._see_whether_over()

    # What kind of stream it is:

    def _make(self) -> None:
        """Begin to count it."""
        raise NotImplementedError

    def _check(self) -> None:
        """Return if who calls may."""
        raise NotImplementedError

    def _pool_for(self, body: bytes) -> _Pool | None:
        """Return whose a request is; None: the loop's."""
        raise NotImplementedError

    def _answer(self, body: bytes) -> bytes:
        """Answer a request, or raise."""
        raise NotImplementedError

    def _refusal(self, error: Exception) -> RequestError:
        """Return what the client is told of an exception."""
        raise NotImplementedError

    def _cancelled(self) -> None:
        """Note that the client has cancelled it."""
        raise NotImplementedError


class _Rosters(_Streaming):
    """A call of `StreamRosters`."""

    __slots__ = ("_stream",)

    _stream: Stream

    def _make(self) -> None:
        self._stream = self._transport.calls.stream(
            accepted=self._accepted,
            deadline=self._deadline(),
            auth_context=self._auth_context,
            metadata=self._metadata,
        )
        self._stream.__enter__()

    def _check(self) -> None:
        self._stream.check()

    def _pool_for(self, body: bytes) -> _Pool | None:
        return self._transport.rosters if len(body) > _LARGE else None

    def _answer(self, body: bytes) -> bytes:
        return self._stream.answer(body)

    def _refusal(self, error: Exception) -> RequestError:
        return self._stream.refusal(error)

    def _cancelled(self) -> None:
        self._stream.cancel()

    def _over(self) -> None:
        entered = self._slots is not None
        super()._over()
        if entered:
            self._stream.__exit__(None, None, None)
            # It knows our method, so each would keep the other.
            del self._stream


class _Reflection(_Streaming):
    """A call of `ServerReflectionInfo`."""

    __slots__ = ("_answering",)

    _answering: Answering

    def _make(self) -> None:
        self._transport.lasting.add(self)
        self._answering = self._transport.calls.other(
            self._method, accepted=self._accepted, metadata=self._metadata
        )
        self._answering.__enter__()

    def _check(self) -> None:
        self._transport.calls.check(self._method, self._auth_context)

    def _pool_for(self, body: bytes) -> _Pool | None:  # noqa: ARG002
        return self._transport.others  # the answer may be large: files with all that they import

    def _answer(self, body: bytes) -> bytes:
        request = parsed(reflection_pb2.ServerReflectionRequest, body)
        # Its behaviour is a generator over all requests of a call; each stands for itself.
        service = self._transport.reflection_service
        (response,) = service.ServerReflectionInfo(iter((request,)), None)
        message: bytes = response.SerializeToString()
        return message

    def _refusal(self, error: Exception) -> RequestError:
        return self._answering.refusal(error)

    def _cancelled(self) -> None:
        pass  # it is how it ends

    def stop(self) -> None:
        """End it at once. Any thread may call it."""
        self._call.cancel()

    cut_off = stop

    def _over(self) -> None:
        entered = self._slots is not None
        super()._over()
        if entered:
            self._transport.lasting.discard(self)
            self._answering.__exit__(None, None, None)


_UNKNOWN: Final = (_Unknown, 0)


def _is_unary(step: Step) -> bool:
    """Say whether a call comes, or a step is one of a unary call."""
    return isinstance(getattr(step, "__self__", None), (QueueTransport, _Unary))


def _kinds(unary: Mapping[str, int]) -> Mapping[bytes, tuple[type[_Call], int]]:
    """Return what a call of each method is, by its path."""
    kinds: dict[str, tuple[type[_Call], int]] = {
        path: (_Unary, number) for path, number in unary.items()
    }
    kinds[f"/{SERVICE}/StreamRosters"] = (_Rosters, counters.STREAM_ROSTERS)
    kinds[f"/{health.SERVICE_NAME}/Check"] = (_Check, counters.CHECK)
    kinds[f"/{health.SERVICE_NAME}/Watch"] = (_Watch, counters.WATCH)
    reflecting = (_Reflection, counters.SERVER_REFLECTION_INFO)
    kinds[f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"] = reflecting
    return {path.encode(): kind for path, kind in kinds.items()}


def _refusing(refusal: RequestError) -> Operation:
    """Return the operation that tells a client what it gets instead of an answer."""
    hint = (RETRY_HINT,) if isinstance(refusal, ShedError) else None
    return cygrpc.SendStatusFromServerOperation(hint, int(refusal.code), refusal.text.encode(), 0)
