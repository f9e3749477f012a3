"""gRPC's public server with a pool of threads: the transport that any release of gRPC has.

A call waits in a thread from its headers to its answer, so a client that sends its headers
and then nothing holds one. Streams and health watches, health checks, and refusals have
threads of their own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from geolookup.service.lasting import LastingCalls
from geolookup.service.monitoring import counters
from geolookup.service.pool import Pool
from geolookup.service.rpc.calls import RETRY_HINT, SERVICE, Calls, ShedError, Slots
from geolookup.service.rpc.grpc_options import channel_options
from geolookup.service.rpc.request import RequestError
from geolookup.service.rpc.transports.listening import listen
from geolookup.service.rpc.transports.standard import parsed
from geolookup.service.watches import Watches

if TYPE_CHECKING:
    from geolookup.service.settings import ListenAddress, Settings

_STATUS: Final = {code.value[0]: code for code in grpc.StatusCode}
_REFUSERS: Final = 2
"""Threads that tell clients that their calls are shed."""
_CHECKERS: Final = 2
"""Threads for health checks, which wait for no other call."""

_FOR_EVER: Final = 1e8
"""Seconds (three years) from which on a deadline is none."""

Behaviour = Callable[..., Any]


class ThreadTransport:
    """See `Transport`."""

    def __init__(
        self, settings: Settings, calls: Calls, address: ListenAddress, *, share_port: bool
    ) -> None:
        # Calls that last as long as the client likes; they must not hold up a stop.
        self._lasting = LastingCalls()
        self._watches = Watches(("", SERVICE))
        self._server = grpc.server(
            _Pool(settings.threads, "geolookup-call", calls.unary_slots),
            options=[*channel_options(settings, share_port=share_port)],
        )
        streams = _Pool(settings.max_streams, "geolookup-stream", calls.stream_slots)
        self._server.add_generic_rpc_handlers(
            (_Admission(calls, _methods(calls, self._watches, self._lasting, streams)),)
        )
        self.address = listen(
            settings,
            address,
            calls.meter,
            insecure=self._server.add_insecure_port,
            secure=self._server.add_secure_port,
        )
        self._server.start()

    def health(self, serving: bool) -> None:
        """See `Transport.health`."""
        for name in ("", SERVICE):
            self._watches.set(name, serving=serving)

    def stop(self, grace: float) -> threading.Event:
        """See `Transport.stop`."""
        self._watches.stop()
        stopped = self._server.stop(grace)
        self._lasting.cancel()
        self._watches.cut_off(stopped)
        return stopped


class _Pool(Pool):
    """Threads for calls that took a slot. It is given back when the call's work is done.

    Not when the handler returns, since of a call that its client cancels before the
    request is there no handler is run.
    """

    def __init__(self, threads: int, name: str, slots: Slots) -> None:
        super().__init__(threads, name)
        self._slots = slots

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            # A callback of the future's would take its lock once more, and in turn.
            return super().submit(self._work, fn, args, kwargs)
        except BaseException:
            self._slots.give_back()
            raise

    def _work(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            self._slots.give_back()


class _Method:
    """A method: its number, the slots that it needs, and what makes a handler for one call."""

    def __init__(
        self,
        number: int,
        slots: Slots | None,
        handler: Callable[[int], grpc.RpcMethodHandler[Any, Any]],
        refusing: Callable[[Behaviour], grpc.RpcMethodHandler[Any, Any]],
    ) -> None:
        self.number = number
        self.slots = slots
        self.handler = handler
        self.refusing = refusing


class _Admission(grpc.GenericRpcHandler):
    """Admits or refuses each call before it takes a thread. Runs in the server's own thread."""

    def __init__(self, calls: Calls, methods: dict[str, _Method]) -> None:
        self._calls = calls
        self._methods = methods
        refusals = Pool(_REFUSERS, "geolookup-refusal")
        # Made once: while calls are shed there is no time for anything.
        self._refusing = {
            name: method.refusing(_placed(_refuse_with(method.slots.refusal), refusals))
            for name, method in methods.items()
            if method.slots is not None
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return what answers a call; None: no such method."""
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        if method.slots is not None and not method.slots.take():
            self._calls.shed(method.slots, method.number)
            return self._refusing[handler_call_details.method]
        return method.handler(time.monotonic_ns())


def _methods(
    calls: Calls, watches: Watches, lasting: LastingCalls, streams: _Pool
) -> dict[str, _Method]:
    """Return all methods, by their full names."""
    methods = {
        path: _Method(
            number,
            calls.unary_slots,
            _unary(calls, number),
            # As if the request were a stream: a refusal does not wait for it.
            grpc.stream_unary_rpc_method_handler,
        )
        for path, number in calls.unary.items()
    }
    methods[f"/{SERVICE}/StreamRosters"] = _Method(
        counters.STREAM_ROSTERS,
        calls.stream_slots,
        lambda accepted: grpc.stream_stream_rpc_method_handler(
            _placed(_stream(calls, accepted), streams)
        ),
        grpc.stream_stream_rpc_method_handler,
    )

    checks = Pool(_CHECKERS, "geolookup-check")
    methods[f"/{health.SERVICE_NAME}/Check"] = _Method(
        counters.CHECK,
        None,  # never shed
        lambda accepted: grpc.unary_unary_rpc_method_handler(
            _placed(_counted(calls, counters.CHECK, accepted, watches.check), checks),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        ),
        grpc.unary_unary_rpc_method_handler,
    )
    methods[f"/{health.SERVICE_NAME}/Watch"] = _Method(
        counters.WATCH,
        calls.stream_slots,
        lambda accepted: grpc.unary_stream_rpc_method_handler(
            _placed(_watch(calls, accepted, watches), streams),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        ),
        grpc.stream_stream_rpc_method_handler,
    )

    reflecting = reflection.ReflectionServicer(calls.services)
    reflect = lasting.tracked(reflecting.ServerReflectionInfo)
    methods[f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"] = _Method(
        counters.SERVER_REFLECTION_INFO,
        calls.stream_slots,
        lambda accepted: grpc.stream_stream_rpc_method_handler(
            _placed(_counted_stream(calls, accepted, reflect), streams),
            # Parsed by us: of a stream with a request that can't be read gRPC never lets go.
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        ),
        grpc.stream_stream_rpc_method_handler,
    )
    return methods


# Requests and responses stay bytes here: what gRPC would log of a request
# that can't be read is then never its concern, and a response is made once.


def _unary(calls: Calls, method: int) -> Callable[[int], grpc.RpcMethodHandler[bytes, bytes]]:
    def handler(accepted: int) -> grpc.RpcMethodHandler[bytes, bytes]:
        def answer(body: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return calls.answer(
                    method,
                    body,
                    accepted=accepted,
                    deadline=_deadline(context),
                    auth_context=context.auth_context,
                    metadata=context.invocation_metadata(),
                )
            except RequestError as error:
                refusal = _said(error)
            _abort(context, refusal)

        return grpc.unary_unary_rpc_method_handler(answer)

    return handler


def _stream(calls: Calls, accepted: int) -> Behaviour:
    def answer(bodies: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            with calls.stream(
                accepted=accepted,
                deadline=_deadline(context),
                auth_context=context.auth_context,
                metadata=context.invocation_metadata(),
            ) as stream:
                stream.check()
                # One roster at a time: a client that is ahead waits in HTTP/2's flow
                # control, and one that reads slowly holds up only itself.
                while (body := _next(bodies)) is not None:
                    yield stream.answer(body)
                if not context.is_active():
                    stream.cancel()
            return
        except RequestError as error:
            refusal = _said(error)
        _abort(context, refusal)

    return answer


def _next(bodies: Iterator[bytes]) -> bytes | None:
    """Return the next request; None: there are no more, or the client has cancelled."""
    try:
        return next(bodies)
    except StopIteration:
        return None
    except grpc.RpcError:  # gRPC's way to tell of a cancelled call
        return None


def _counted(calls: Calls, method: int, accepted: int, behaviour: Behaviour) -> Behaviour:
    def counted(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            metadata = context.invocation_metadata()
            with calls.other(method, accepted=accepted, metadata=metadata) as answering:
                calls.check(method, context.auth_context)
                response = behaviour(request, context)
                code = context.code()  # type: ignore[attr-defined]  # the stubs don't know it
                if code is not None:
                    answering.code = code.value[0]
                return response
        except RequestError as error:
            refusal = _said(error)
        _abort(context, refusal)

    return counted


def _counted_stream(calls: Calls, accepted: int, behaviour: Behaviour) -> Behaviour:
    method = counters.SERVER_REFLECTION_INFO

    def counted(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            metadata = context.invocation_metadata()
            with calls.other(method, accepted=accepted, metadata=metadata):
                calls.check(method, context.auth_context)
                # The loop asks for the next request itself, and so hears of a cancelled call.
                bodies = iter(lambda: _next(requests), None)
                kind = reflection_pb2.ServerReflectionRequest
                yield from behaviour((parsed(kind, body) for body in bodies), context)
            return
        except RequestError as error:
            refusal = _said(error)
        _abort(context, refusal)

    return counted


def _watch(calls: Calls, accepted: int, watches: Watches) -> Behaviour:
    def watching(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            metadata = context.invocation_metadata()
            with calls.other(counters.WATCH, accepted=accepted, metadata=metadata):
                calls.check(counters.WATCH, context.auth_context)
                # A client that has had enough ends it: that is no failure.
                with contextlib.suppress(GeneratorExit):
                    yield from watches.watch(request, context)
            return
        except RequestError as error:
            refusal = _said(error)
        _abort(context, refusal)

    return watching


def _placed(behaviour: Behaviour, pool: Pool) -> Behaviour:
    """Have a behaviour run in a pool of its own."""
    behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return behaviour


def _refuse_with(error: RequestError) -> Behaviour:
    refusal = _said(error)

    def refuse(_request: Any, context: grpc.ServicerContext) -> NoReturn:
        _abort(context, refusal)

    return refuse


def _deadline(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    # Without a deadline gRPC says a time beyond all ages, or nothing.
    return None if remaining is None or remaining > _FOR_EVER else time.monotonic() + remaining


_Said = tuple[int, str, bool]


def _said(refusal: RequestError) -> _Said:
    """Return what the client is told: code, text, and whether to come back.

    An exception in a variable would keep itself and all of its call, which gRPC then
    counts as open, until the garbage is collected.
    """
    return refusal.code, refusal.text, isinstance(refusal, ShedError)


def _abort(context: grpc.ServicerContext, refusal: _Said) -> NoReturn:
    code, text, shed = refusal
    if shed:
        context.set_trailing_metadata((RETRY_HINT,))
    context.abort(_STATUS[code], text)
    raise AssertionError  # abort has raised
