"""gRPC's public server with a pool of threads: the transport that any release of gRPC has.

A call waits in a thread from its headers to its answer, so a client that sends only headers holds
one. Streams and health watches, health checks, and refusals have threads of their own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from geolookup.service.grpc_threads import (
    Behaviour,
    CallPool,
    HealthService,
    LongLivedCalls,
    Pauses,
)
from geolookup.service.methods import GEOLOOKUP, Method
from geolookup.service.rpc.admission import RETRY_HINT, ShedError, Slots
from geolookup.service.rpc.calls import JOINS, Calls
from geolookup.service.rpc.grpc_options import channel_options
from geolookup.service.rpc.reflection import Reflection
from geolookup.service.rpc.request import RequestError
from geolookup.service.rpc.transports.listening import listen
from geolookup.service.rpc.transports.private_port import PrivatePort, check_port
from geolookup.service.rpc.transports.standard import parse

if TYPE_CHECKING:
    import socket

    from geolookup.service.rpc.handlers import Snapshot
    from geolookup.service.settings import ListenAddress, Settings

_STATUS: Final = {code.value[0]: code for code in grpc.StatusCode}
_REFUSAL_THREADS: Final = 2
"""Threads that end calls which are shed."""
_CHECK_THREADS: Final = 2
"""Threads for health checks, which wait for no other call."""

_NO_DEADLINE: Final = 1e8
"""Seconds (three years) from which on gRPC's remaining time means that there is no deadline."""

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class ThreadTransport:
    """See `Transport`."""

    def __init__(
        self,
        settings: Settings,
        calls: Calls,
        address: ListenAddress,
        *,
        share_port: bool,
        supervisor: socket.socket | None = None,
    ) -> None:
        self._long_lived_calls = LongLivedCalls()
        self._health = HealthService(("", GEOLOOKUP))
        self._server = grpc.server(
            CallPool(settings.threads, "geolookup-call", calls.unary_slots),
            options=[*channel_options(settings, share_port=share_port)],
        )
        joins = CallPool(settings.threads, "geolookup-join", calls.join_slots)
        streams = CallPool(settings.max_streams, "geolookup-stream", calls.stream_slots)
        self._pauses = Pauses()
        routes = _routes(calls, self._health, self._long_lived_calls, joins, streams, self._pauses)
        self._server.add_generic_rpc_handlers((_Admission(calls, routes),))
        private = (
            None
            if supervisor is None
            else PrivatePort(self._server, calls, settings.limits, supervisor)
        )
        self.address = listen(
            settings,
            address,
            calls.counters,
            insecure=self._server.add_insecure_port,
            secure=self._server.add_secure_port,
        )
        self._server.start()
        if private is not None:
            private.open()

    def prepare(self, snapshot: Snapshot) -> None:
        """See `Transport.prepare`: nothing, since it has nothing of a snapshot for itself."""

    def health(self, serving: bool) -> None:
        """See `Transport.health`."""
        for name in ("", GEOLOOKUP):
            self._health.set(name, serving=serving)

    def retire_connections(self) -> None:
        """See `Transport.retire_connections`."""

    def stop(self, grace: float) -> threading.Event:
        """See `Transport.stop`."""
        stopped = self._health.stop(lambda: self._server.stop(grace))
        self._long_lived_calls.cancel()
        self._pauses.end(stopped)
        return stopped


@dataclass(frozen=True, slots=True)
class _Route:
    """How a method is answered.

    Attributes:
        slots: a call needs one of them; None: it is never shed.
        handler: makes the handler of one call, from the time of its arrival.
        refusal: makes the handler that ends a call which is shed.
    """

    slots: Slots | None
    handler: Callable[[int], _Handler]
    refusal: Callable[[Behaviour], _Handler]


class _Admission(grpc.GenericRpcHandler):
    """Admits or refuses each call before it takes a thread. Runs in the server's own thread."""

    def __init__(self, calls: Calls, routes: dict[Method, _Route]) -> None:
        self._calls = calls
        self._routes = {
            path: (method, route) for method, route in routes.items() for path in method.paths
        }
        pool = CallPool(_REFUSAL_THREADS, "geolookup-refusal")
        # Made once, as there is no time for it while calls are shed.
        self._refusals = {
            method: route.refusal(pool.assign(_shed_with(route.slots)))
            for method, route in routes.items()
            if route.slots is not None
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler | None:
        """Return what answers a call; None: there is no such method."""
        found = self._routes.get(handler_call_details.method)
        if found is None:
            return None
        method, route = found
        if route.slots is not None and not route.slots.take():
            self._calls.shed(route.slots, method)
            return self._refusals[method]
        return route.handler(time.monotonic_ns())


def _routes(
    calls: Calls,
    health: HealthService,
    long_lived: LongLivedCalls,
    joins: CallPool,
    streams: CallPool,
    pauses: Pauses,
) -> dict[Method, _Route]:
    routes = {
        method: _Route(
            calls.slots_of(method),
            _unary(calls, method, joins if method in JOINS else None),
            # As if the request were a stream: the refusal does not wait for it.
            grpc.stream_unary_rpc_method_handler,
        )
        for method in calls.unary
    }
    checks = CallPool(_CHECK_THREADS, "geolookup-check")
    routes[Method.CHECK] = _Route(
        None,
        lambda accepted: grpc.unary_unary_rpc_method_handler(
            checks.assign(_tracked_check(calls, accepted, health)),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        ),
        grpc.unary_unary_rpc_method_handler,
    )

    def add_stream(
        method: Method,
        behaviour: Callable[[int], Behaviour],
        make: Callable[..., _Handler] = grpc.stream_stream_rpc_method_handler,
        **serializers: Any,
    ) -> None:
        routes[method] = _Route(
            calls.stream_slots,
            lambda accepted: make(
                streams.assign(_aborting_stream(behaviour(accepted))), **serializers
            ),
            grpc.stream_stream_rpc_method_handler,
        )

    add_stream(Method.STREAM_ROSTERS, lambda accepted: _rosters(calls, accepted, pauses))
    add_stream(
        Method.WATCH,
        lambda accepted: _tracked_stream(calls, Method.WATCH, accepted, health.watch),
        grpc.unary_stream_rpc_method_handler,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    reflect = long_lived.tracked(Reflection(calls.services).answers)
    method = Method.SERVER_REFLECTION_INFO
    add_stream(
        method,
        # Parsed here: gRPC never ends a stream with a request that it can't parse.
        lambda accepted: _tracked_stream(calls, method, accepted, _parsing(reflect)),
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return routes


# Requests and responses stay bytes here, so gRPC never logs a request that it can't
# parse, and a response is serialised once.


def _unary(calls: Calls, method: Method, pool: CallPool | None) -> Callable[[int], _Handler]:
    give_back = calls.counters.give_back_memory

    def handler(accepted: int) -> _Handler:
        def answer(body: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                check_port(context)
                memory = calls.take_memory(len(body))
                if memory and not context.add_callback(partial(give_back, memory)):
                    give_back(memory)
                call = calls.begin(
                    method,
                    accepted=accepted,
                    deadline=_deadline(context),
                    metadata=context.invocation_metadata(),
                )
                return call.answer(body, context.auth_context)
            except RequestError as error:
                if isinstance(error, ShedError):
                    _note_shed(calls, method, context)
                refusal = _refusal(error)
            _abort(context, refusal)

        return grpc.unary_unary_rpc_method_handler(answer if pool is None else pool.assign(answer))

    return handler


def _rosters(calls: Calls, accepted: int, pauses: Pauses) -> Behaviour:
    give_back = calls.counters.give_back_memory

    def answer(bodies: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        check_port(context)
        with calls.begin_stream(
            accepted=accepted,
            deadline=_deadline(context),
            auth_context=context.auth_context,
            metadata=context.invocation_metadata(),
        ) as stream:
            stream.authorize()
            # One roster at a time: a client that is ahead waits in HTTP/2's flow
            # control, and one that reads slowly delays only itself.
            while (body := pauses.wait(context, lambda: _next(bodies))) is not None:
                try:
                    memory = calls.take_memory(len(body))
                except ShedError:
                    _note_shed(calls, Method.STREAM_ROSTERS, context)
                    raise
                try:
                    yield stream.answer(body)
                finally:
                    give_back(memory)
            if not context.is_active():
                stream.cancel()

    return answer


def _next(bodies: Iterator[bytes]) -> bytes | None:
    """Return the next request; None: there are no more, or the client has cancelled."""
    try:
        return next(bodies)
    except StopIteration:
        return None
    except grpc.RpcError as error:  # gRPC's sign of a cancelled call
        # gRPC keeps the error with the call, and its traceback has the frames that refer to both:
        # the stream's snapshot would stay, mapped, until the cyclic collector came.
        error.__traceback__ = None
        return None


def _tracked_check(calls: Calls, accepted: int, health: HealthService) -> Behaviour:
    def check(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            check_port(context)
            metadata = context.invocation_metadata()
            with calls.begin(Method.CHECK, accepted=accepted, metadata=metadata) as call:
                calls.authorize(Method.CHECK, context.auth_context)
                response = health.check(request, context)
                code = context.code()  # type: ignore[attr-defined]  # missing in the stubs
                if code is not None:
                    call.code = code.value[0]
                return response
        except RequestError as error:
            refusal = _refusal(error)
        _abort(context, refusal)

    return check


def _tracked_stream(calls: Calls, method: Method, accepted: int, behaviour: Behaviour) -> Behaviour:
    """Return a standard service's behaviour that is authorized and counted."""

    def tracked(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        check_port(context)
        metadata = context.invocation_metadata()
        with calls.begin(method, accepted=accepted, metadata=metadata):
            calls.authorize(method, context.auth_context)
            # Clients end these calls by cancelling them: that is no failure.
            with contextlib.suppress(GeneratorExit):
                yield from behaviour(requests, context)

    return tracked


def _parsing(reflect: Behaviour) -> Behaviour:
    def parsing(bodies: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        # `_next` notices a cancelled call.
        kind = reflection_pb2.ServerReflectionRequest
        return reflect((parse(kind, body) for body in iter(lambda: _next(bodies), None)), context)

    return parsing


def _aborting_stream(behaviour: Behaviour) -> Behaviour:
    """Return a behaviour that ends its call when the other one refuses a request."""

    def aborting(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from behaviour(requests, context)
            return
        except RequestError as error:
            refusal = _refusal(error)
        _abort(context, refusal)

    return aborting


def _shed_with(slots: Slots) -> Behaviour:
    refusal = _refusal(slots.refusal)

    def refuse(_request: Any, context: grpc.ServicerContext) -> NoReturn:
        milliseconds = slots.shed(time.monotonic_ns())
        context.set_trailing_metadata(((RETRY_HINT, str(milliseconds)),))
        _abort(context, refusal)

    return refuse


def _note_shed(calls: Calls, method: Method, context: grpc.ServicerContext) -> None:
    """Count a call that is refused when its request has come, and say when to come again."""
    slots = calls.stream_slots if method is Method.STREAM_ROSTERS else calls.slots_of(method)
    calls.counters.shed(method)
    milliseconds = slots.shed(time.monotonic_ns())
    context.set_trailing_metadata(((RETRY_HINT, str(milliseconds)),))


def _deadline(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None or remaining > _NO_DEADLINE else time.monotonic() + remaining


_Refusal = tuple[int, str]
"""Code and text."""


def _refusal(error: RequestError) -> _Refusal:
    """Return what the client gets.

    An exception in a variable would keep itself and all frames of its call. gRPC counts the
    call as open until the garbage collector frees them.
    """
    return error.code, error.text


def _abort(context: grpc.ServicerContext, refusal: _Refusal) -> NoReturn:
    code, text = refusal
    context.abort(_STATUS[code], text)
    raise AssertionError  # abort has raised
