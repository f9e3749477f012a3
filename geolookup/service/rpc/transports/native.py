"""The native transport: HTTP/2 by libnghttp2 in an event loop that needs no interpreter lock.

The loop (`geolookup._http2`) answers lookups, rosters and health by itself. What is left is
here: it listens, hands over datasets and certificates, and lends threads to large rosters and
to what only Python can answer. See docs/transports.md.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import zlib
from array import array
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from geolookup import _core, _http2
from geolookup.answer.claims import Policy, Status, Verdict, networks_of
from geolookup.errors import RegionSetError
from geolookup.service import log, tls
from geolookup.service.methods import GEOLOOKUP, Method
from geolookup.service.rpc import envoy_authz, handlers
from geolookup.service.rpc.admission import ShedError
from geolookup.service.rpc.calls import Stream
from geolookup.service.rpc.request import Code, RequestError
from geolookup.service.rpc.transports.sockets import listening_sockets
from geolookup.service.rpc.transports.standard import parse
from geolookup.service.settings.cores import available_cores
from geolookup.v1 import geolookup_pb2 as v1

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geolookup.service.certificate_files import Certificate
    from geolookup.service.monitoring.counters import Counters
    from geolookup.service.rpc.admission import Slots
    from geolookup.service.rpc.calls import ActiveCall, Calls
    from geolookup.service.rpc.handlers import Snapshot
    from geolookup.service.rpc.reflection import Reflection
    from geolookup.service.settings import ListenAddress, Settings

_ROSTER_NICENESS: Final = 10
"""Of threads for large rosters, as nice(2) counts: a tenth of the loop's share where both want a
core."""

_METHODS: Final = tuple(Method)
_NATIVE: Final = {
    Method.LOOKUP: _http2.LOOKUP,
    Method.CLASSIFY_ROSTER: _http2.ROSTER,
    Method.AUTHORIZATION_CHECK: _http2.AUTHORIZATION,
}


Handler = Callable[["_http2.Job"], None]
"""Ends a job by `answer`, `done` or `refuse`, or raises `RequestError`."""


class NativeTransport:
    """See `Transport`.

    Args:
        settings: the limits, and the certificate.
        calls: answers the calls.
        address: to listen on.
        share_port: see `open_transport`.
        supervisor: see `open_transport`.
        more: methods beside the service's own, by path: whether their calls are
            `_http2.PYTHON` or `_http2.PYTHON_STREAM`, and what does their jobs. They need slots
            as the service's own, and are not counted.
    """

    def __init__(
        self,
        settings: Settings,
        calls: Calls,
        address: ListenAddress,
        *,
        share_port: bool,
        supervisor: socket.socket | None = None,
        more: Mapping[str, tuple[int, Handler]] = MappingProxyType({}),
    ) -> None:
        self._more = more
        self._settings = settings
        self._calls = calls
        self._reflection: Reflection | None = None
        # Streams that Python counts, by their numbers. The loop has one message of each at a
        # time under way, so no two threads have the same entry.
        self._streams: dict[int, Stream | ActiveCall] = {}
        # What the loop was taught, newest last: a new dataset begins with it.
        self._region_sets: dict[tuple[str, Policy, int], None] = {}
        self._routes: dict[bytes, Mapping[str, str]] = {}
        self._knowing = threading.Lock()
        self._server = _http2.Server(
            api=_core.api(),
            meter=calls.counters.handle(),
            settings=_server_settings(settings, metadata=calls.traced or bool(more)),
            methods=_methods(calls, more),
            allow=_allow(settings),
        )
        self._stopped = threading.Event()
        self._over = threading.Event()
        self._given = threading.Lock()
        self._set_snapshot(calls.snapshot)
        certificates = self._set_certificates()
        self.address, self._path = self._listen(address, share_port)
        calls.on_snapshot = self._set_snapshot
        if supervisor is not None:
            supervisor.setblocking(False)
            self._server.serve_supervisor(supervisor.detach())
        cores = max(1, available_cores() // settings.workers)
        workers = [
            # Rosters are work for a core: with more of them at a time each would take longer.
            *[("geolookup-roster", self._work_on_rosters)] * min(settings.threads, cores),
            # The rest may wait for a disk.
            *[("geolookup-work", self._work)] * settings.threads,
        ]
        self._threads = [
            threading.Thread(target=target, name=f"{name}_{number}", daemon=True)
            for number, (name, target) in enumerate(workers)
        ]
        if certificates is not None and settings.watch:
            self._threads.append(
                threading.Thread(
                    target=self._watch,
                    args=(certificates,),
                    name="geolookup-certificates",
                    daemon=True,
                )
            )
        try:
            for thread in self._threads:
                thread.start()
            threading.Thread(target=self._run, name="geolookup-loop", daemon=True).start()
        except RuntimeError:
            self._server.stop(0)
            self._server.run()  # which ends those that have started
            raise

    def health(self, serving: bool) -> None:
        """See `Transport.health`. Any thread may call it."""
        self._server.set_serving(serving)

    def retire_connections(self) -> None:
        """See `Transport.retire_connections`. Any thread may call it."""
        self._server.retire_connections()

    def stop(self, grace: float) -> threading.Event:
        """See `Transport.stop`. Any thread may call it."""
        self._over.set()
        self._server.stop(round(grace * 1e9))
        return self._stopped

    # --- making it

    def _listen(self, address: ListenAddress, share_port: bool) -> tuple[ListenAddress, str]:
        sockets, actual = listening_sockets(address, share_port=share_port)
        for one in sockets:
            self._server.listen(one.detach())
        return actual, address.path

    def prepare(self, snapshot: Snapshot) -> None:
        """See `Transport.prepare`."""
        snapshot.heads = _heads(snapshot)
        self._compute_outcomes(snapshot)

    def _compute_outcomes(self, snapshot: Snapshot) -> list[_Known]:
        """Return the outcomes of all region sets that were asked for; the dataset keeps them."""
        with self._knowing:
            region_sets = list(self._region_sets)
        # A dataset's first outcomes take many times as long as those after them.
        for region_set in islice(snapshot.dataset.region_sets, 1):
            snapshot.dataset.outcome_column(region_set)
        perspectives = []
        for name, policy, networks in region_sets:
            with contextlib.suppress(RegionSetError):  # one that the new dataset does not have
                known = _perspective(snapshot, name, policy, networks, self._calls.counters)
                if known is not None:
                    perspectives.append(known)
        return perspectives

    def _set_snapshot(self, snapshot: Snapshot) -> None:
        """Have calls that come from now on answered from it.

        What was asked before is prepared, so that no call waits for Python because the dataset
        is new.
        """
        begin, heads = snapshot.heads or _heads(snapshot)
        snapshot.heads = None
        claims = snapshot.dataset.claims
        table, results = snapshot.dataset.core
        counters = self._calls.counters
        with self._knowing:
            routes = dict(self._routes)
        authorization = None
        # Chains of proxies are Python's to read.
        if Method.AUTHORIZATION_CHECK in self._calls.unary and not self._settings.authz_trusted:
            authorization = _authorization(snapshot, counters, routes, self._settings)
        perspectives = self._compute_outcomes(snapshot)
        with self._given:
            self._server.set_snapshot(
                snapshot,
                table=table,
                results=results,
                statuses=claims.statuses,
                heads=heads,
                begin=begin,
                tail=v1.LookupResponse(dataset=snapshot.dataset.id).SerializeToString(),
                named=snapshot.named,
                networks=claims.network_bytes,
                has_regions=snapshot.dataset.has_subdivisions,
                stale_from=snapshot.dataset.withholds_from or 0,
                authorization=authorization,
                perspectives=perspectives,
            )

    def _set_certificates(self) -> tls.Certificates | None:
        if self._settings.tls_certificate is None:
            return None
        certificates = tls.Certificates(self._settings, self._calls.counters)
        certificates.hand_to(self._set_certificate)
        return certificates

    def _set_certificate(self, certificate: Certificate) -> None:
        self._server.set_certificate(
            certificate.chain, certificate.key, certificate.client_authorities
        )

    # --- its threads

    def _run(self) -> None:
        try:
            self._server.run()
        except OSError as error:
            log.event("call_failed", "error", method="transport", error=log.describe(error))
        self._over.set()
        self._calls.on_snapshot = None
        for thread in self._threads:
            thread.join()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._stopped.set()

    def _watch(self, certificates: tls.Certificates) -> None:
        """Look at the certificates' files now and then, also while nobody connects."""
        while not self._over.wait(self._settings.watch):
            certificates.reload()

    def _work_on_rosters(self) -> None:
        # The loop, which answers joins, does not wait for a core that a roster has.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _ROSTER_NICENESS)
        self._server.work()

    def _work(self) -> None:
        while True:
            job = None
            try:
                job = self._server.next()  # a MemoryError here ends a call, and no thread
                if job is None:
                    return
                self._do(job)
            except Exception as error:
                log.event("call_failed", "error", method="transport", error=log.describe(error))
            # Nothing of a request outlives its answer. A job without one ends here.
            del job

    # --- what it does for the loop

    def _do(self, job: _http2.Job) -> None:
        try:
            if job.path in self._more and job.kind != _http2.UNPACK:
                self._more[job.path][1](job)
                return
            match job.kind:
                case _http2.BEGIN:
                    self._begin(job)
                    job.done()
                case _http2.END:
                    self._end(job)
                    job.done()
                case _http2.UNARY:
                    job.answer(self._unary(job))
                case _http2.MESSAGE:
                    job.answer(self._message(job))
                case _http2.NEXT:
                    job.answer(self._next(job))
                case _http2.LAST:
                    job.done(finished=True)
                case _:
                    job.answer(self._unpack(job))
        except RequestError as error:
            job.refuse(int(error.code), error.text, isinstance(error, ShedError))

    def _unary(self, job: _http2.Job) -> bytes:
        method = _METHODS[job.method]
        answering = self._calls.begin(
            method,
            accepted=job.accepted,
            deadline=job.deadline,
            metadata=job.metadata,
            gone=job.gone,
        )
        # The loop's: after an answer from a new dataset there is none from the old one.
        answer = answering.answer(job.body, job.auth_context, job.snapshot)
        if method == Method.LOOKUP:
            known = _core.read_lookup(job.body)
            if known is not None:
                self._teach(job, *known[1:])
        elif method == Method.CLASSIFY_ROSTER:
            self._teach_roster(job, _core.read_roster(job.body))
        elif method == Method.AUTHORIZATION_CHECK:
            self._teach_route(job)
        return answer

    def _message(self, job: _http2.Job) -> bytes:
        """Answer a roster of a stream that the loop counts."""
        answering = self._calls.begin(
            Method.STREAM_ROSTERS,
            accepted=job.accepted,
            deadline=job.deadline,
            gone=job.gone,
        )
        try:
            answering.check_active()
            answer = handlers.stream_rosters(
                job.snapshot, job.body, self._settings.limits, job.position, answering
            )
        except Exception as error:
            raise answering.refusal(error) from None
        self._teach_roster(job, _core.read_roster(job.body, True))
        return answer

    def _teach_roster(self, job: _http2.Job, roster: _core.WireRoster | None) -> None:
        if roster is not None:
            self._teach(job, roster.region_set, roster.policy, roster.networks)

    def _teach(self, job: _http2.Job, region_set: str, number: int, networks: int) -> None:
        """Have the loop answer by itself what is asked about a region set that it did not know."""
        if region_set:
            policy = handlers.policy_of(number)
            taught = _perspective(job.snapshot, region_set, policy, networks, self._calls.counters)
            if taught is not None:
                name, number, counted, outcomes, stale = taught
                job.learn(name, number, counted, outcomes, stale=stale)
                with self._knowing:
                    key = (region_set, policy, networks)
                    _note(self._region_sets, key, None, _http2.PERSPECTIVES)

    def _teach_route(self, job: _http2.Job) -> None:
        """Have the loop answer by itself what comes of a route that it did not know."""
        route = job.route()
        if route:
            extensions = envoy_authz.own_extensions(job.body)
            rule = _rule(
                _rule_of_route(extensions, job.snapshot), job.snapshot, self._calls.counters
            )
            if not job.snapshot.dataset.withholds_verdicts:
                job.learn_route(route, rule)
                with self._knowing:
                    _note(self._routes, route, extensions, _http2.ROUTES)

    def _begin(self, job: _http2.Job) -> None:
        calls, method = self._calls, _METHODS[job.method]
        answering: Stream | ActiveCall
        if method == Method.STREAM_ROSTERS:
            answering = calls.begin_stream(
                accepted=job.accepted,
                deadline=job.deadline,
                auth_context=job.auth_context,
                metadata=job.metadata,
            )
        else:
            answering = calls.begin(method, accepted=job.accepted, metadata=job.metadata)
        answering.__enter__()
        self._streams[job.stream] = answering
        try:
            calls.authorize(method, job.auth_context)
        except RequestError as error:
            raise answering.refusal(error) from None

    def _next(self, job: _http2.Job) -> bytes:
        answering = self._streams[job.stream]
        try:
            if isinstance(answering, Stream):
                return answering.answer(job.body)
            message = self._reflect(job.body)
        except Exception as error:
            raise answering.refusal(error) from None
        return message

    def _reflect(self, body: bytes) -> bytes:
        # Imported on first use: it brings gRPC, a third of a worker's memory.
        from grpc_reflection.v1alpha import reflection_pb2  # noqa: PLC0415

        from geolookup.service.rpc.reflection import Reflection  # noqa: PLC0415

        if self._reflection is None:
            self._reflection = Reflection(self._calls.services)
        request = parse(reflection_pb2.ServerReflectionRequest, body)
        message: bytes = self._reflection.answer(request).SerializeToString()
        return message

    def _end(self, job: _http2.Job) -> None:
        answering = self._streams.pop(job.stream, None)
        if answering is not None:
            code = job.gone()
            if code and isinstance(answering, Stream):
                answering.cancel(code)
            answering.__exit__(None, None, None)

    def _unpack(self, job: _http2.Job) -> bytes:
        """Unpack a message by gzip, no further than the limit."""
        if job.gone():
            raise RequestError(Code.CANCELLED, "the client has cancelled the call")
        limit = self._settings.limits.message_bytes
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            body = unpacker.decompress(job.body, limit + 1)
        except zlib.error:
            raise RequestError(Code.INTERNAL, "request: not gzip") from None
        if len(body) > limit:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED,
                f"received a message larger than max ({limit}) when unpacked",
            )
        if not unpacker.eof:
            raise RequestError(Code.INTERNAL, "request: not whole gzip")
        return body


def _server_settings(settings: Settings, *, metadata: bool) -> dict[str, object]:
    """Return the fields of gl_server_settings; times in milliseconds, 0 is never."""
    return {
        "message_bytes": settings.limits.message_bytes,
        "roster": settings.limits.roster,
        "metadata_bytes": settings.max_metadata,
        # Above what is admitted: what is over that limit is refused at once with a hint, and
        # must not wait in the client, which this limit would make it do.
        "streams": 4 * (2 * settings.max_calls + settings.max_streams),
        "connections": settings.max_connections,
        "memory": settings.worker_memory,
        "handshake_timeout": _milliseconds(settings.handshake_timeout),
        "transfer_timeout": _milliseconds(settings.transfer_timeout),
        "idle": _milliseconds(settings.max_connection_idle),
        "keepalive": _milliseconds(settings.keepalive),
        "age": _milliseconds(settings.max_connection_age),
        "grace": _milliseconds(settings.grace),
        "policies": 1 | sum(1 << int(policy) for policy in Policy),
        "unanimous": int(Policy.UNANIMOUS),
        "compression": int(settings.compression),
        "metadata": int(metadata),
        "identities": int(bool(settings.allow)),
        "service": GEOLOOKUP.encode(),
    }


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000)) if seconds else 0


_Method = tuple[bytes, int, int, bool, object, bytes, bytes]


def _methods(calls: Calls, more: Mapping[str, tuple[int, Handler]]) -> list[_Method]:
    """Return all methods as `_http2.Server` takes them."""

    def row(
        method: Method,
        kind: int,
        slots: Slots | None,
        *,
        path: str = "",
        is_long_lived: bool = False,
    ) -> _Method:
        shed = b"" if slots is None else slots.refusal.text.encode()
        refused = tls.refusal(method.label).encode()
        handle = None if slots is None else slots.handle()
        path = path or method.path
        return path.encode(), int(method), kind, is_long_lived, handle, shed, refused

    native = {} if calls.traced else _NATIVE
    unary, streams = calls.unary_slots, calls.stream_slots
    rosters = _http2.PYTHON_STREAM if calls.traced else _http2.ROSTERS
    reflection = Method.SERVER_REFLECTION_INFO
    return [
        *(
            row(method, native.get(method, _http2.PYTHON), calls.slots_of(method))
            for method in calls.unary
        ),
        row(Method.STREAM_ROSTERS, rosters, streams),
        row(Method.CHECK, _http2.HEALTH_CHECK, None),
        row(Method.WATCH, _http2.HEALTH_WATCH, streams, is_long_lived=True),
        *(
            row(
                reflection,
                _http2.PYTHON_STREAM,
                streams,
                path=path,
                is_long_lived=True,
            )
            for path in reflection.paths
        ),
        *(
            row(reflection, kind, streams if kind == _http2.PYTHON_STREAM else unary, path=path)
            for path, (kind, _) in more.items()
        ),
    ]


def _allow(settings: Settings) -> dict[int, list[bytes]]:
    """Return who may call what, by method; methods that all may call are left out."""
    found = {}
    for method in Method:
        allowed = tls.allowed(settings, method.label)
        if allowed is not None:
            found[int(method)] = [one.encode() for one in sorted(allowed)]
    return found


def _heads(snapshot: Snapshot) -> tuple[bytes, bytes]:
    """Return where they begin, and by claim what stands before the verdict in responses."""
    heads, begin = bytearray(), array("I", [0])
    for claim in snapshot.dataset.claims:
        heads += v1.LookupResponse(
            country=claim.country,
            status=int(claim.status),  # type: ignore[arg-type]  # any number of the enum
            claimed=claim.claimed if claim.status is Status.DISPUTED else (),
            region=claim.region,
            networks=[network.number for network in networks_of(claim.networks)],  # type: ignore[misc]
        ).SerializeToString()
        begin.append(len(heads))
    return begin.tobytes(), bytes(heads)


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _note(known: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Add to what is known, at its end; what was added first makes room."""
    known.pop(key, None)
    known[key] = value
    while len(known) > most:
        known.pop(next(iter(known)), None)


_Known = tuple[bytes, int, int, bytes, bool]
"""The arguments of `_http2.Job.learn`."""


def _perspective(
    snapshot: Snapshot, region_set: str, policy: Policy, networks: int, counters: Counters
) -> _Known | None:
    """Return what `_http2.Job.learn` is given; None: the dataset has become too old just now.

    Raises:
        RegionSetError: the dataset does not know the region set.
    """
    dataset = snapshot.dataset
    stale = dataset.withholds_verdicts
    outcomes = dataset.outcome_column(region_set, policy, handlers.networks_rule(networks))
    if dataset.withholds_verdicts is not stale:
        return None
    number = int(policy) | 256 * networks  # as GL_IGNORE_NETWORKS in snapshot.h
    return region_set.encode(), number, counters.region_set(region_set), outcomes, stale


def _authorization(
    snapshot: Snapshot,
    counters: Counters,
    routes: dict[bytes, Mapping[str, str]],
    settings: Settings,
) -> _http2._Authorization | None:
    """Return what answers Envoy's checks while the dataset is not too old.

    None: it is too old. Its outcomes would count if the clock was set back.
    """
    numbers: dict[tuple[str, str, str], int] = {}
    keys = (
        (one.country, one.status.name, ", ".join(kind.name for kind in networks_of(one.networks)))
        for one in snapshot.dataset.claims
    )
    of = array("H", (numbers.setdefault(key, len(numbers)) for key in keys))
    names = (envoy_authz.COUNTRY, envoy_authz.STATUS, envoy_authz.NETWORKS)
    headers, metadata = (
        [b"".join(map(make, names, values)) for values in numbers]
        for make in (envoy_authz.header, envoy_authz.metadata)
    )
    known = []
    for route, extensions in routes.items():
        with contextlib.suppress(RequestError, RegionSetError):  # no longer what it was
            rule = _rule_of_route(extensions, snapshot)
            known.append((route, _rule(rule, snapshot, counters)))
    rules = [_rule(rule, snapshot, counters) for rule in snapshot.rules or ()]
    if snapshot.dataset.withholds_verdicts:
        return None
    return (
        rules,
        known,
        of.tobytes(),
        _begins(headers),
        b"".join(headers),
        envoy_authz.header(envoy_authz.DATASET, snapshot.dataset.id),
        envoy_authz.header(envoy_authz.VERDICT, "") + envoy_authz.header(envoy_authz.REASON, ""),
        _begins(metadata),
        b"".join(metadata),
        envoy_authz.metadata(envoy_authz.DATASET, snapshot.dataset.id),
        (settings.authz_address_header or "").encode(),
        settings.labels_checks,
    )


def _begins(parts: Iterable[bytes]) -> bytes:
    return array("I", accumulate(map(len, parts), initial=0)).tobytes()


_KINDS: Final = {
    envoy_authz.Mode.COUNT: _http2.COUNTS,
    envoy_authz.Mode.LABEL: _http2.LABELS,
}


def _rule_of_route(extensions: Mapping[str, str], snapshot: Snapshot) -> envoy_authz.Rule:
    return (snapshot.rules or envoy_authz.Rules()).of("", "", extensions)[0]


def _rule(rule: envoy_authz.Rule, snapshot: Snapshot, counters: Counters) -> _http2._Rule:
    hosts = "".join(f"\0{host}" for host in sorted(rule.hosts))
    has_verdict = rule.mode is not envoy_authz.Mode.LABEL
    dataset = snapshot.dataset
    return (
        dataset.outcome_column(rule.region_set, rule.policy)
        if has_verdict
        else bytes(len(dataset.claims.statuses)),
        counters.region_set(rule.region_set),
        _KINDS.get(rule.mode, _http2.DECIDES),
        sum(1 << verdict.number for verdict in Verdict if rule.mode.passes(verdict)),
        (hosts and f"{hosts}\0").encode(),
        rule.path_prefix.encode(),
        envoy_authz.refusal(rule),
    )
