"""Reads requests in JSON: proto3's JSON mapping, without what it forgives.

A field that is not known, is given twice or has the wrong type is an error: a service that
ignored it would answer another question than the one that was asked. Error texts name the
field and the position, and never repeat a name or a value of the request.

The form of each message follows from its descriptor, so that a new field needs nothing here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from geolookup.service.methods import Method
from geolookup.service.rpc.request import Code, RequestError
from geolookup.v1 import geolookup_pb2 as v1

_UINT32_MAX: Final = 2**32 - 1
_PACKED: Final = frozenset({4, 16})
"""Bytes of one address."""

_OTHER_PARTS: Final = 1_024
"""Parts of the largest request beside its addresses and group_sizes, and commas in its texts."""
_PART: Final = 96
"""Bytes of an address in text in Python, its place in a list, and that in protobuf."""

_REQUESTS: Final[dict[Method, type[Message]]] = {
    Method.LOOKUP: v1.LookupRequest,
    Method.CLASSIFY_ROSTER: v1.ClassifyRosterRequest,
    Method.EXPLAIN: v1.ExplainRequest,
    Method.LIST_REGION_SETS: v1.ListRegionSetsRequest,
    Method.GET_DATASET: v1.GetDatasetRequest,
}

METHODS: Final = tuple(_REQUESTS)
"""The methods that are called in JSON: all unary ones of the service."""

_Object = tuple[tuple[str, Any], ...]
"""A JSON object in the order of its text, duplicates included. JSON's arrays are lists."""


class _NumberError(ValueError):
    """A number that no field has: with a fraction, an exponent, or not finite."""


def _refuse_number(_: str) -> NoReturn:
    raise _NumberError


_decode: Final = json.JSONDecoder(
    object_pairs_hook=tuple, parse_float=_refuse_number, parse_constant=_refuse_number
).decode


def read(method: Method, body: bytes) -> bytes:
    """Return a request on the wire.

    Args:
        method: one of `METHODS`.
        body: the request in JSON, UTF-8.

    Raises:
        RequestError: INVALID_ARGUMENT: it is not the method's request, whole and exact.
    """
    return _READERS[method](_parse(body), "").SerializeToString()


def memory(body: bytes, roster: int) -> int:
    """Return the bytes that the parts of a large request take in Python, and its other forms.

    They take several times the request's own bytes: an address in text is an object.

    Args:
        body: the request in JSON.
        roster: addresses in the largest roster.

    Raises:
        RequestError: INVALID_ARGUMENT: it has more parts than any request within the limits.
    """
    # Each part but the last of its object or array is followed by a comma.
    parts = body.count(b",")
    if parts > 2 * roster + _OTHER_PARTS:
        raise _invalid("request", f"over {2 * roster + _OTHER_PARTS} parts")
    wide = 1 if body.isascii() else 4  # Python's own form of what is not ASCII
    return _PART * parts + (2 + 2 * wide) * len(body)


def _parse(body: bytes) -> object:
    try:
        return _decode(body.decode())
    except UnicodeDecodeError as error:
        raise _invalid("request", f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _invalid("request", f"not JSON at character {error.pos}") from None
    except _NumberError:
        raise _invalid("request", "a number with a fraction or an exponent") from None
    except (ValueError, RecursionError):  # a number of thousands of digits; nested too deep
        raise _invalid("request", "not JSON that this service reads") from None


def _invalid(place: str, problem: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, f"{place}: {problem}")


_Read = Callable[[Any, str], Any]
"""Returns a value as protobuf takes it, from JSON's value and its place."""


class _MessageReader:
    """Reads one kind of message."""

    def __init__(self, kind: type[Message]) -> None:
        descriptor = kind.DESCRIPTOR
        self._kind = kind
        self._name = descriptor.name
        self._fields: dict[str, tuple[str, str, _Read]] = {}
        for one in descriptor.fields:
            of = one.containing_oneof
            row = one.name, of.name if of is not None else one.name, _reader(one)
            self._fields[one.json_name] = self._fields[one.name] = row
        # What the errors list: the names that a caller should use.
        self._names = ", ".join(one.json_name for one in descriptor.fields) or "no fields"

    def __call__(self, value: Any, place: str) -> Message:
        if type(value) is not tuple:
            raise _invalid(place or "request", "expected an object")
        found: dict[str, Any] = {}
        given: dict[str, str] = {}  # by what there may be only one of: a field, or a oneof
        for position, (name, part) in enumerate(value, 1):
            row = self._fields.get(name)
            if row is None:
                raise self._unknown(name, place, position)
            field, alone, read_value = row
            if given.setdefault(alone, name) != name or field in found:
                raise _invalid(
                    place or "request",
                    f"field {position} and one before it: only one of them may be given",
                )
            inner = f"{place}.{name}" if place else name
            if part is None:
                raise _invalid(inner, "null; leave the field out")
            found[field] = read_value(part, inner)
        return self._kind(**found)

    def _unknown(self, name: str, place: str, position: int) -> RequestError:
        def plain(text: str) -> str:
            return text.replace("_", "").lower()

        # Only names of the contract: the one that came may hold anything.
        near = next((one for one in self._fields if plain(one) == plain(name)), None)
        hint = f" (is it {near}?)" if near else ""
        return _invalid(
            place or "request",
            f"field {position} is unknown{hint}; {self._name} has {self._names}",
        )


def _reader(field: Any) -> _Read:
    one = _SCALARS[field.type](field)
    return _list_of(field, one) if field.is_repeated else one


def _list_of(field: FieldDescriptor, read_one: _Read) -> _Read:
    kind = str if field.type == FieldDescriptor.TYPE_STRING else int

    def read_list(value: Any, place: str) -> Any:
        if type(value) is not list:
            raise _invalid(place, "expected an array")
        # All at once where all is well, which a roster of a million is quicker by.
        if set(map(type, value)) <= {kind} and _all_fit(value, kind):
            return value
        return [read_one(part, f"{place}[{index}]") for index, part in enumerate(value)]

    return read_list


def _all_fit(values: list[Any], kind: type) -> bool:
    if not values:
        return True
    if kind is int:
        return bool(min(values) >= 0 and max(values) <= _UINT32_MAX)
    return all(map(str.isascii, values))


def _string(field: FieldDescriptor) -> _Read:
    # Empty is "not given" on the wire. Here it is rather a variable that was empty, and an
    # answer without a verdict would look like one.
    must_say = field.name == "region_set"

    def read_string(value: Any, place: str) -> str:
        if type(value) is not str:
            raise _invalid(place, "expected a string")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _invalid(place, "half a surrogate pair") from None
        if must_say and not value:
            raise _invalid(place, "empty; leave it out where no verdict is asked for")
        return value

    return read_string


def _bytes(field: FieldDescriptor) -> _Read:
    sizes = _PACKED if field.name == "packed" else None
    of = " of 4 or 16 bytes" if sizes else ""

    def read_bytes(value: Any, place: str) -> bytes:
        if type(value) is not str:
            raise _invalid(place, f"expected base64{of}")
        try:
            content = binascii.a2b_base64(value, strict_mode=True)
        except ValueError:
            content = None
        # Encoded again: bits beyond the last byte must be zero, so that there is one form.
        if content is None or base64.b64encode(content) != value.encode():
            raise _invalid(place, f"expected base64{of}")
        if sizes is not None and len(content) not in sizes:
            raise _invalid(place, f"expected base64{of}")
        return content

    return read_bytes


def _bool(_: FieldDescriptor) -> _Read:
    def read_bool(value: Any, place: str) -> bool:
        if type(value) is not bool:
            raise _invalid(place, "expected true or false")
        return value

    return read_bool


def _uint32(_: FieldDescriptor) -> _Read:
    def read_uint32(value: Any, place: str) -> int:
        if type(value) is not int or not 0 <= value <= _UINT32_MAX:
            raise _invalid(place, f"expected a whole number from 0 to {_UINT32_MAX}")
        return value

    return read_uint32


def _enum(field: FieldDescriptor) -> _Read:
    assert field.enum_type is not None  # noqa: S101 - its type says so
    numbers = {one.name: one.number for one in field.enum_type.values}
    names = ", ".join(numbers)

    def read_enum(value: Any, place: str) -> int:
        number = numbers.get(value) if type(value) is str else None
        if number is None:
            raise _invalid(place, f"expected one of {names}")
        return number

    return read_enum


def _message(field: FieldDescriptor) -> _Read:
    assert field.message_type is not None  # noqa: S101 - its type says so
    return _MessageReader(getattr(v1, field.message_type.name))


_SCALARS: Final[dict[int, Callable[[FieldDescriptor], _Read]]] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_UINT32: _uint32,
    FieldDescriptor.TYPE_ENUM: _enum,
    FieldDescriptor.TYPE_MESSAGE: _message,
}

_READERS: Final = {method: _MessageReader(kind) for method, kind in _REQUESTS.items()}
