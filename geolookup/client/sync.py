"""The client for threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from geolookup.answer.claims import Policy
from geolookup.client import wire
from geolookup.client.channel import (
    DEFAULT_AHEAD,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUT,
    Retry,
    channel_count,
    channel_options,
    time_limit,
)
from geolookup.client.coalescing import Coalescing
from geolookup.client.coalescing_threads import ThreadCoalescer
from geolookup.client.failures import closed, failure, late
from geolookup.client.stream_timeout import Pace

if TYPE_CHECKING:
    from typing import Self, TypeAlias

    from typing_extensions import Buffer

    from geolookup.answer.addresses import Address, Roster
    from geolookup.answer.explanation import Explanation
    from geolookup.answer.region_sets import RegionSet
    from geolookup.answer.results import Answer, RosterResult

    _Unary: TypeAlias = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    _Stream: TypeAlias = grpc.StreamStreamMultiCallable[bytes, bytes]


class Client:
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

    Raises:
        ServiceUnavailableError: from each call, the service can't be reached or
            not in time.
        ServiceError: from each call, any other failure.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, object]] = (),
        channels: int = 1,
        retry: Retry | None = DEFAULT_RETRY,
        coalesce: bool | Coalescing = False,
    ) -> None:
        self._target = target
        self._timeout = time_limit(timeout)
        self._closed = False
        arguments = channel_options(options, retry, wire.UNARY)
        self._channels = [
            _Methods(
                grpc.insecure_channel(target, arguments)
                if credentials is None
                else grpc.secure_channel(target, credentials, arguments)
            )
            for _ in range(channel_count(channels))
        ]
        # Of an endless iterator, one step is one indivisible act among threads.
        self._turns = itertools.cycle(self._channels)
        self._coalescer = (
            ThreadCoalescer(
                Coalescing() if coalesce is True else coalesce,
                channels,
                target,
                lambda request, limit: self._call(self._methods().lookup, request, limit),
                self._methods,
            )
            if coalesce
            else None
        )

    def country(self, address: Address, *, timeout: float | None = None) -> str:
        """Return the code of an address, "ZZ" for no country; see `Dataset.country`."""
        return self.lookup(address, timeout=timeout).country

    def lookup(
        self,
        address: Address,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """Return what is known of an address; see `Dataset.lookup`."""
        question = wire.Question.of(region_set, policy)
        if self._coalescer is not None:
            limit = self._limit(timeout)
            return self._coalescer.lookup(wire.packed_address(address), question, limit)
        request = wire.lookup_request(address, question)
        return wire.answer(self._call(self._methods().lookup, request, timeout))

    def classify(
        self,
        roster: Roster | None = None,
        *,
        ipv4: Buffer | None = None,
        ipv6: Buffer | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        record: bool = False,
        timeout: float | None = None,
    ) -> RosterResult:
        """Return what is known of each address of a roster; see `Dataset.classify`.

        Raises:
            RosterTooLargeError: over the service's limit.
        """
        question = wire.Question.of(region_set, policy, record)
        request = wire.roster_request(roster, ipv4, ipv6, question)
        return wire.roster_result(
            self._call(self._methods().classify_roster, request, timeout), question
        )

    def classify_many(
        self,
        rosters: Iterable[Roster] | None = None,
        *,
        ipv4: Iterable[Buffer] | None = None,
        ipv6: Iterable[Buffer] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        record: bool = False,
        timeout: float | None = None,
        ahead: int = DEFAULT_AHEAD,
    ) -> Iterator[RosterResult]:
        """Yield the result of each roster, in order, all from one dataset.

        The rosters go through one stream and are taken from the caller's
        iterator, in a thread of its own, up to *ahead* before their results are
        asked for. An error of that iterator, or of a roster, is raised after
        the results of the rosters before it.

        Args:
            rosters: each as `classify` takes it; exactly one of this and the
                next two is given.
            ipv4: buffers, as `classify` takes them.
            ipv6: buffers, as `classify` takes them.
            region_set: as in `classify`, for all of them.
            policy: as in `classify`, for all of them.
            record: as in `classify`, for all of them.
            timeout: seconds to wait for any one result.
            ahead: bound on the rosters under way, at least 1.
        """
        question = wire.Question.of(region_set, policy, record)
        column, given = wire.one_of(rosters=rosters, ipv4=ipv4, ipv6=ipv6)
        if ahead < 1:
            raise ValueError("ahead: expected at least 1")
        requests = (wire.stream_request(column, roster, question) for roster in given)
        return self._stream(requests, question, self._limit(timeout), ahead)

    def explain(self, address: Address, *, timeout: float | None = None) -> Explanation:
        """Return why an address has the answer it has; see `Dataset.explain`."""
        return wire.explanation(
            self._call(self._methods().explain, wire.explain_request(address), timeout)
        )

    def region_sets(self, *, timeout: float | None = None) -> tuple[RegionSet, ...]:
        """Return the service's named region sets, sorted by name."""
        return wire.region_sets(self._call(self._methods().list_region_sets, wire.EMPTY, timeout))

    def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return a description of the dataset in service; see `Dataset.info`.

        Of its keys "id", "built", "ipv4_intervals", "ipv6_intervals", "claims",
        "sources" (without attribution and url) and "attributions".
        """
        return wire.info(self._call(self._methods().get_dataset, wire.EMPTY, timeout))

    def close(self) -> None:
        """Close the connection; calls under way are cancelled. May be called again."""
        self._closed = True
        if self._coalescer is not None:
            self._coalescer.close()
        for methods in self._channels:
            methods.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._target}{', closed' if self._closed else ''}>"

    def _methods(self) -> _Methods:
        return next(self._turns)

    def _limit(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else time_limit(timeout)

    def _call(
        self,
        method: Callable[..., bytes],
        request: bytes,
        timeout: float | None,
    ) -> bytes:
        limit = self._limit(timeout)
        try:
            return method(request, timeout=limit)
        except grpc.RpcError as error:
            problem = closed() if self._closed else failure(error, self._target, limit)
        except ValueError:  # gRPC's for a closed channel
            if not self._closed:
                raise
            problem = closed()
        # Here and not above, so that gRPC's texts are no part of the traceback.
        raise problem

    def _stream(
        self, requests: Iterator[bytes], question: wire.Question, limit: float, ahead: int
    ) -> Iterator[RosterResult]:
        slots = threading.Semaphore(ahead)
        ended = threading.Event()
        failed: list[Exception] = []
        pace = Pace(limit)

        def bodies() -> Iterator[bytes]:
            # gRPC runs this in a thread, and would log an error raised in it.
            try:
                while slots.acquire() and not ended.is_set():
                    body = next(requests, None)
                    if body is None:
                        return
                    pace.sending()
                    yield body
            except Exception as error:
                failed.append(error)
            finally:
                pace.sending()

        def watch() -> None:
            while not ended.wait(pace.remaining()):
                if not pace.remaining():
                    too_late.set()
                    call.cancel()
                    return

        too_late = threading.Event()
        problem: Exception | None = None
        try:
            call = self._methods().stream_rosters(bodies())
        except ValueError:
            if not self._closed:
                raise
            raise closed() from None
        threading.Thread(target=watch, name="geolookup-pace", daemon=True).start()
        try:
            pace.waiting()
            for body in call:
                pace.received()
                slots.release()
                yield wire.streamed_result(body, question)
                pace.waiting()
        except grpc.RpcError as error:
            if too_late.is_set():
                problem = late(self._target, limit)
            else:
                problem = closed() if self._closed else failure(error, self._target, limit)
        finally:
            ended.set()
            slots.release()
            call.cancel()
        if failed:
            raise failed[0]
        if problem:
            raise problem


class _Methods:
    """A channel's methods.

    Without serialisers: bytes are made and read by `wire`, where an error becomes
    one of our own and is not logged by gRPC.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.lookup: _Unary = channel.unary_unary(wire.LOOKUP)
        self.classify_roster: _Unary = channel.unary_unary(wire.CLASSIFY_ROSTER)
        self.stream_rosters: _Stream = channel.stream_stream(wire.STREAM_ROSTERS)
        self.explain: _Unary = channel.unary_unary(wire.EXPLAIN)
        self.list_region_sets: _Unary = channel.unary_unary(wire.LIST_REGION_SETS)
        self.get_dataset: _Unary = channel.unary_unary(wire.GET_DATASET)
