"""The client for threads: makes the calls that `wire`, `retry` and `coalescing` decide on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from geolookup.answer.claims import Policy
from geolookup.answer.participants import paired
from geolookup.client import wire
from geolookup.client.base import BaseClient
from geolookup.client.channel import DEFAULT_AHEAD, rosters_ahead
from geolookup.client.coalescing import Batch, Waiter
from geolookup.client.failures import EXPIRED, Failure, closed
from geolookup.client.streams import Attempt, Unanswered
from geolookup.client.transports import grpcio
from geolookup.errors import GeoLookupError, ServiceError

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

    from typing_extensions import Buffer

    from geolookup.answer.addresses import Address, Roster
    from geolookup.answer.explanation import Explanation
    from geolookup.answer.file_format import SourceInfo
    from geolookup.answer.participants import ById
    from geolookup.answer.region_sets import RegionSet, RegionSets
    from geolookup.answer.results import Answer, RosterResult
    from geolookup.client.retry import Attempts
    from geolookup.client.transports import native

_T = TypeVar("_T")


class Client(BaseClient):
    """Asks a geolookup service what a `geolookup.Dataset` answers in process.

    The verbs have the arguments, results and errors of those of `Dataset`. Each
    call has a time limit. Connects when first used, and again when need be. Safe
    to use from several threads; a context manager that closes it at the end.
    Make it after a fork, not before.

    Args:
        target: ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``; also any other
            name that gRPC resolves.
        timeout: seconds that each call may take unless the call says otherwise.
        credentials: for TLS; without them nothing is encrypted.
        options: gRPC channel options, which go before the client's own.
        channels: connections to each address of the target. A connection stays
            with one of a service's workers: a client that is to use several has
            several. Calls take turns.
        retry: how calls that fail as unavailable are made again; None: not at all.
        coalesce: whether lookups that wait at the same moment go to the service
            in one call, and how; see docs/client.md. The answers are the same.
        transport: what carries the calls: "native", "grpcio", or None for the native
            one where it can. See docs/client.md.

    Raises:
        ValueError: an argument makes no sense, or the transport can't be used.
        ServiceUnavailableError: from each call, the service can't be reached or
            not in time.
        ServiceError: from each call, any other failure.
    """

    def _begin(self) -> None:
        self._share()
        self._streams: grpcio.ThreadCalls | None = None
        self._calls: grpcio.ThreadCalls | native.ThreadCalls
        if self._native:
            from geolookup.client.transports.native import ThreadCalls  # noqa: PLC0415 - may lack

            self._calls = ThreadCalls(self._settings())
        else:
            self._calls = self._streams = self._over_grpcio()

    def _share(self) -> None:
        """Make what threads share beside the connections."""
        self._closing = threading.Event()
        self._lookups = self._coalescer(self._send, threading.Lock())
        self._opening = threading.Lock()

    def _on_fork(self) -> None:
        # Locks may be held, and lookups be waited for, by threads that this process does not have.
        self._share()
        if self._closed:
            self._closing.set()

    def _over_grpcio(self) -> grpcio.ThreadCalls:
        return grpcio.ThreadCalls(self._target, self._credentials, self._options, self._count)

    def country(self, address: Address, *, timeout: float | None = None) -> str:
        """Return the code of an address, "ZZ" for no country; see `Dataset.country`."""
        return self.lookup(address, timeout=timeout).country

    def lookup(
        self,
        address: Address,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """Return what is known of an address; see `Dataset.lookup`."""
        question = wire.Question.of(region_set, policy, networks=networks)
        packed = wire.packed_address(address)
        if self._lookups is not None:
            return self._coalesced(packed, question, self._limit(timeout))
        return self._call(wire.lookup(packed, question), timeout)

    def classify(
        self,
        roster: Roster | ById | None = None,
        *,
        ipv4: Buffer | None = None,
        ipv6: Buffer | None = None,
        groups: Iterable[int] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        record: bool = False,
        timeout: float | None = None,
    ) -> RosterResult:
        """Return what is known of each address of a roster; see `Dataset.classify`.

        Raises:
            RosterTooLargeError: over the service's limit.
        """
        question = wire.Question.of(region_set, policy, record, networks)
        return self._call(wire.classify(roster, ipv4, ipv6, question, groups), timeout)

    def classify_many(
        self,
        rosters: Iterable[Roster | ById] | None = None,
        *,
        ipv4: Iterable[Buffer] | None = None,
        ipv6: Iterable[Buffer] | None = None,
        groups: Iterable[Iterable[int]] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        record: bool = False,
        timeout: float | None = None,
        ahead: int = DEFAULT_AHEAD,
    ) -> Iterator[RosterResult]:
        """Yield the result of each roster, in order, all from one dataset.

        The rosters go through one stream and are taken from the caller's
        iterator, in a thread of its own, up to *ahead* before their results are
        requested. An error of that iterator, or of a roster, is raised after
        the results of the rosters before it.

        Args:
            rosters: each as `classify` takes it; exactly one of this and the
                next two is given.
            ipv4: buffers, as `classify` takes them.
            ipv6: buffers, as `classify` takes them.
            groups: those of each roster, as `classify` takes them; as many as rosters.
            region_set: as in `classify`, for all of them.
            policy: as in `classify`, for all of them.
            networks: as in `classify`, for all of them.
            record: as in `classify`, for all of them.
            timeout: seconds to wait for any one result.
            ahead: bound on the rosters under way, at least 1.
        """
        question = wire.Question.of(region_set, policy, record, networks)
        column, given = wire.one_of("classify_many", rosters=rosters, ipv4=ipv4, ipv6=ipv6)
        requests = (
            wire.stream_request(column, roster, some, question)
            for roster, some in paired(given, groups)
        )
        return self._stream(requests, column, self._limit(timeout), rosters_ahead(ahead))

    def explain(self, address: Address, *, timeout: float | None = None) -> Explanation:
        """Return why an address has the answer it has; see `Dataset.explain`."""
        return self._call(wire.explain(address), timeout)

    @property
    def id(self) -> str:
        """The id of the dataset in service; see `Dataset.id`."""
        return self._call(wire.ID, None)

    @property
    def built(self) -> datetime:
        """When the dataset in service was built, in UTC."""
        return self._call(wire.BUILT, None)

    @property
    def sources(self) -> tuple[SourceInfo, ...]:
        """What the dataset in service was built from, in order of precedence."""
        return self._call(wire.SOURCES, None)

    @property
    def attributions(self) -> tuple[str, ...]:
        """The texts that the sources' licences ask to be shown, each once."""
        return self._call(wire.ATTRIBUTIONS, None)

    @property
    def region_sets(self) -> RegionSets:
        """The service's named region sets."""
        return self._call(wire.REGION_SETS, None)

    def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return a description of the dataset in service; see `Dataset.info`.

        It, and each of the properties before it, is a call: of what `info` returns, all is
        of one dataset.
        """
        return self._call(wire.INFO, timeout)

    def close(self) -> None:
        """Close the connection; calls under way are cancelled. May be called again."""
        self._closed = True
        self._closing.set()
        if self._lookups is not None:
            self._lookups.close()
        self._calls.close()
        with self._opening:
            if self._streams is not None:
                self._streams.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, request: wire.Request[_T], timeout: float | None) -> _T:
        limit = self._limit(timeout)
        began = monotonic()
        body = self._calls.call(request.method, request.body, limit)
        if isinstance(body, Failure):
            body = self._call_again(body, request, limit, began)
        self._budget.refill()
        return request.read(body)

    def _call_again(
        self, failure: Failure, request: wire.Request[Any], limit: float, began: float
    ) -> bytes:
        """Return what comes of a call that failed once."""
        attempts = self._attempts(began + limit)
        while True:
            outcome = self._outcome(failure, attempts, limit, request.field)
            if isinstance(outcome, GeoLookupError):
                raise outcome
            self._closing.wait(outcome)
            if self._closed:
                raise closed()
            body = self._calls.call(request.method, request.body, attempts.remaining())
            if isinstance(body, bytes):
                return body
            failure = body

    # Coalesced lookups. The first of a question are ordinary calls of their callers' threads. What
    # waits when a call ends becomes the next one, which the thread of one of its waiters makes,
    # as long as that one waits.

    def _coalesced(self, packed: bytes | None, question: wire.Question, limit: float) -> Answer:
        lookups = self._lookups
        assert lookups is not None  # noqa: S101
        key = (question, packed is not None)
        waiter = lookups.enter(key, lambda: _Waiter(packed, limit))
        if waiter is None:
            try:
                return self._call(wire.lookup(packed, question), limit)
            finally:
                lookups.leave(key)
        try:
            while waiter.outcome is None and waiter.wait():
                if waiter.batches:
                    self._make(waiter.batches.pop(), waiter)
        finally:
            waiter.gone = True
            if waiter.outcome is None:
                lookups.give_up(waiter, question)
            while waiter.batches:  # that came too late for it
                self._pass_on(waiter.batches)
        outcome = waiter.outcome
        if outcome is None or isinstance(outcome, GeoLookupError):
            raise outcome or self._problem(EXPIRED, limit)
        return outcome

    def _send(self, batch: Batch) -> bool:
        if self._closed:
            return False
        for waiter in batch.waiters:
            assert isinstance(waiter, _Waiter)  # noqa: S101
            if waiter.gone:
                continue
            waiter.batches.append(batch)
            waiter.wake()
            if waiter.gone:  # just now: whoever of both takes the batch has it made
                self._pass_on(waiter.batches)
            return True
        return False

    def _pass_on(self, batches: list[Batch]) -> None:
        """Have another thread make what this one was to."""
        with contextlib.suppress(IndexError):
            batch = batches.pop()
            if not self._send(batch):
                self._fail(batch, EXPIRED)

    def _make(self, batch: Batch, waiter: _Waiter) -> None:
        """Make the call of a batch in the thread of one of its waiters, and hand out its answer."""
        lookups = self._lookups
        assert lookups is not None  # noqa: S101
        lookups.fill(batch)
        try:
            while True:
                timeout = max(min(batch.remaining(), waiter.remaining()), 0.001)
                body = self._calls.call(batch.request.method, batch.request.body, timeout)
                if isinstance(body, bytes):
                    lookups.on_answer(batch, body)
                    return
                if waiter.remaining() <= 0 < batch.remaining():
                    break  # the others have time yet
                wait = lookups.on_failure(batch, body)
                if wait is None:
                    return
                self._closing.wait(min(wait, max(waiter.remaining(), 0.0)))
                if waiter.remaining() <= 0 < batch.remaining() and not self._closed:
                    break
                if self._closed or batch.remaining() <= 0:
                    self._fail(batch, EXPIRED)
                    return
        except ServiceError:  # the client was closed
            lookups.on_closed(batch)
            return
        except BaseException:  # Ctrl-C in this thread is nothing to the others
            self._leave_to_others(batch, waiter)
            raise
        self._leave_to_others(batch, waiter)

    def _leave_to_others(self, batch: Batch, waiter: _Waiter) -> None:
        waiter.gone = True
        if not self._send(batch):
            self._fail(batch, EXPIRED)

    def _fail(self, batch: Batch, failure: Failure) -> None:
        assert self._lookups is not None  # noqa: S101
        self._lookups.on_failure(batch, failure)

    def _streaming(self) -> grpcio.ThreadCalls:
        with self._opening:
            if self._closed:
                raise closed()
            if self._streams is None:
                self._streams = self._over_grpcio()
            return self._streams

    def _stream(
        self,
        requests: Iterator[wire.Request[RosterResult]],
        column: str,
        limit: float,
        ahead: int,
    ) -> Iterator[RosterResult]:
        rosters = _Rosters(requests)
        attempts: Attempts | None = None
        while True:
            stream = _Stream(rosters, limit, ahead, attempts)
            failure: Failure | None = None
            try:
                for body in stream.run(self._streaming()):
                    result = wire.read_streamed(rosters.take(), body)
                    self._budget.refill()
                    yield rosters.check(result)
                    stream.timeout.on_wait()
            except grpc.RpcError as error:
                failure = EXPIRED if stream.expired.is_set() else Failure.of(error)
            finally:
                stream.end()
            if failure is None:
                if rosters.failed:
                    raise rosters.failed
                return
            if attempts is None or rosters.answered > stream.first:
                # The wait for the next result began before: for as long as one was due.
                attempts = self._attempts(monotonic() + stream.timeout.remaining())
            outcome = self._outcome(failure, attempts, limit, column)
            if isinstance(outcome, GeoLookupError):
                raise rosters.failed or outcome
            self._closing.wait(outcome)
            if self._closed:
                raise closed()


class _Rosters(Unanswered):
    """The rosters of a stream, from the caller's iterator: in one thread at a time."""

    def __init__(self, requests: Iterator[wire.Request[RosterResult]]) -> None:
        super().__init__()
        self._given = requests
        self._taking = threading.Lock()

    def numbered(self, number: int) -> wire.Request[RosterResult] | None:
        """Return the roster with a number, which may be the next one; None: there is none."""
        request = self.get(number)
        if request is not None:
            return request
        with self._taking:  # the thread of a stream that has ended may be in it
            request = self.get(number)
            if request is not None or self.is_whole:
                return request
            try:
                request = next(self._given, None)
            except Exception as error:
                self.end(error)
                return None
            if request is None:
                self.end()
            else:
                self.add(request)
            return request


class _Stream(Attempt):
    """One attempt at a stream.

    Attributes:
        expired: set when that was too long.
    """

    def __init__(
        self, rosters: _Rosters, limit: float, ahead: int, attempts: Attempts | None
    ) -> None:
        super().__init__(rosters, limit, attempts)
        self.expired = threading.Event()
        self._rosters = rosters
        self._slots = threading.Semaphore(ahead)
        self._ended = threading.Event()
        self._call: Any = None

    def run(self, calls: grpcio.ThreadCalls) -> Iterator[bytes]:
        """Yield the answers.

        Raises:
            grpc.RpcError: it failed.
        """
        self._call = calls.stream_rosters(self._bodies())
        threading.Thread(target=self._watch, name="geolookup-stream-timeout", daemon=True).start()
        self.timeout.on_wait()
        for body in self._call:
            self.timeout.on_receive()
            self._slots.release()
            yield body

    def end(self) -> None:
        """Cancel it, if it has not ended."""
        self._ended.set()
        self._slots.release()
        if self._call is not None:
            self._call.cancel()

    def _bodies(self) -> Iterator[bytes]:
        # gRPC runs this in a thread, and would log an error raised in it.
        number = self.first
        try:
            while self._slots.acquire() and not self._ended.is_set():
                request = self._rosters.numbered(number)
                if request is None or self._ended.is_set():
                    return
                number += 1
                self.timeout.on_send()
                yield request.body
        finally:
            self.timeout.on_send()

    def _watch(self) -> None:
        while not self._ended.wait(self.remaining()):
            if not self.remaining():
                self.expired.set()
                self._call.cancel()
                return


class _Waiter(Waiter):
    """A thread that waits: for a lock that is released when there is something for it.

    Attributes:
        outcome: what came of it; None: nothing yet.
        batches: what it is to make, also for others.
        gone: whether it waits no more.
    """

    __slots__ = ("_woken", "batches", "gone", "outcome")

    def __init__(self, packed: bytes | None, limit: float) -> None:
        super().__init__(packed, limit)
        self.outcome: Answer | GeoLookupError | None = None
        self.batches: list[Batch] = []
        self.gone = False
        self._woken = threading.Lock()
        self._woken.acquire()

    def remaining(self) -> float:
        """Return the seconds that it waits yet."""
        return self.deadline - monotonic()

    def wait(self) -> bool:
        """Wait until there is something; False: its time is over."""
        return self._woken.acquire(timeout=max(self.remaining(), 0.0))

    def wake(self) -> None:
        """Have `wait` return; a wake-up before it has is one with it."""
        with contextlib.suppress(RuntimeError):
            self._woken.release()

    def resolve(self, outcome: Answer | GeoLookupError) -> None:
        self.outcome = outcome
        self.wake()
