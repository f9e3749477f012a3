"""Server reflection: what the service's messages are, for clients without the proto.

Two names of one service, whose messages are the same on the wire: newer clients ask
``grpc.reflection.v1``, older ones ``v1alpha``. grpcio-reflection 1.84 has the latter alone,
and finds no methods, which is what ``grpcurl describe SERVICE.METHOD`` asks about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from geolookup.service.methods import REFLECTION, REFLECTION_V1ALPHA, Method

_FILE: Final = "grpc/reflection/v1/reflection.proto"


class Reflection:
    """Answers requests of both services. Thread-safe.

    Args:
        names: the services to list.
    """

    def __init__(self, names: Iterable[str]) -> None:
        _describe_v1()
        self._servicer = reflection.ReflectionServicer(names)

    def answer(self, request: Any) -> Any:
        """Return the `ServerReflectionResponse` to a `ServerReflectionRequest`."""
        response = self._respond(request)
        if not response.HasField("error_response"):
            return response
        holder = _holder(request.file_containing_symbol)
        if holder is not None:
            # The same file: that of the service, message or enum which has the symbol.
            file = self._respond(type(request)(file_containing_symbol=holder))
            response.file_descriptor_response.CopyFrom(file.file_descriptor_response)
        return response

    def answers(self, requests: Iterable[Any], _context: object) -> Iterator[Any]:
        """Yield the response to each request: the rpc's behaviour in gRPC's public server."""
        return map(self.answer, requests)

    def _respond(self, request: Any) -> Any:
        # Its behaviour is a generator over all requests of a call; each stands for itself.
        (response,) = self._servicer.ServerReflectionInfo(iter((request,)), None)
        return response


def generic_handlers(behaviour: Callable[..., Any]) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of both services for gRPC's public server."""
    handler = grpc.stream_stream_rpc_method_handler(
        behaviour,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    rpc = Method.SERVER_REFLECTION_INFO.rpc
    return tuple(
        grpc.method_handlers_generic_handler(service, {rpc: handler})
        for service in (REFLECTION, REFLECTION_V1ALPHA)
    )


def _holder(symbol: str) -> str | None:
    """Return the service, message or enum that has a method, field or value of this name."""
    name, _, last = symbol.rpartition(".")
    pool = descriptor_pool.Default()
    for find, parts in (
        (pool.FindServiceByName, "methods_by_name"),
        (pool.FindMessageTypeByName, "fields_by_name"),
        (pool.FindEnumTypeByName, "values_by_name"),
    ):
        try:
            if last in getattr(find(name), parts):
                return name
        except KeyError:
            pass
    return None


def _describe_v1() -> None:
    """Put the description of the service's newer name into protobuf's pool, once."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(_FILE)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name, file.package = _FILE, REFLECTION.rpartition(".")[0]
        file.ClearField("options")
        for message in file.message_type:
            for field in message.field:
                if field.type_name:  # scalars have none
                    field.type_name = _renamed(field.type_name)
        for method in file.service[0].method:
            method.input_type = _renamed(method.input_type)
            method.output_type = _renamed(method.output_type)
        pool.AddSerializedFile(file.SerializeToString())


def _renamed(type_name: str) -> str:
    return type_name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
