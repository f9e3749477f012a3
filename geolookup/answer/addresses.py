"""What counts as an address, and how the forms that only Python has reach the core."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Set
from math import isnan
from typing import TYPE_CHECKING, TypeAlias

from geolookup.errors import RosterError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from typing_extensions import Buffer

Address: TypeAlias = "str | bytes | IPv4Address | IPv6Address"
"""An address: text, 4 or 16 packed bytes in network order, or an `ipaddress` object."""

Roster: TypeAlias = "Iterable[Address]"
"""Addresses in the caller's order, of any mixture of forms."""

_EXPECTED = "{}: expected str, an ipaddress address or packed bytes, not {}"


def core_form(address: object) -> str | bytes | None:
    """Return an address as the core reads it: text or packed bytes. None: none by its type."""
    if isinstance(address, str):
        return address
    if isinstance(address, bytes):
        # numpy's are items of an array of type S, and text: numpy cuts zero bytes off their end.
        if type(address).__module__ == "numpy":
            return address.decode("ascii", "replace")
        return bytes(address)
    # An `ipaddress` object exists only if the module is loaded; others don't pay for it.
    ipaddress = sys.modules.get("ipaddress")
    if ipaddress is None:
        return None
    packed: bytes
    if isinstance(address, ipaddress.IPv4Address):
        packed = address.packed
        return packed
    if isinstance(address, ipaddress.IPv6Address):
        # `packed` has no zone, and the core reads the zone from text.
        packed = address.packed
        return packed if address.scope_id is None else str(address)
    return None


def core_address(address: object) -> str | bytes:
    """Return an address as the core reads it.

    Raises:
        TypeError: none by its type. The text names the type, never the value.
    """
    form = core_form(address)
    if form is None:
        raise TypeError(_EXPECTED.format("address", type(address).__name__))
    return form


def core_roster(
    roster: object, place: Callable[[int], str] = "roster: position {}".format
) -> list[str | bytes]:
    """Return a roster of any mixture of forms as a list for the core.

    A missing value (None, NaN, pandas' NA and NaT) is an empty text, which no address is.

    Args:
        roster: an iterable of addresses.
        place: returns how errors call the item at a position.

    Raises:
        TypeError: no iterable of addresses. The text names the position of an
            item that is none by its type.
    """
    refusal = why_no_roster(roster)
    if refusal is not None:
        raise TypeError(f"roster: {refusal}")
    assert isinstance(roster, Iterable)  # noqa: S101 - what is none was refused
    items = list(roster)
    for position, item in enumerate(items):
        # Not isinstance: a subclass may be numpy's, whose bytes are text.
        if type(item) is not str and type(item) is not bytes:
            form = "" if _is_missing(item) else core_form(item)
            if form is None:
                raise TypeError(_EXPECTED.format(place(position), type(item).__name__))
            items[position] = form
    return items


def why_no_roster(roster: object) -> str | None:
    """Return why a value is no iterable of addresses in an order; None: it may be one."""
    name = type(roster).__name__
    if isinstance(roster, Mapping):
        return (
            f"a {name} iterates over its keys; pass list(mapping.values()), "
            "whose positions are those of list(mapping)"
        )
    if not isinstance(roster, (str, bytes, list, tuple)) and _holds_numbers(roster):
        return f"{name} is a buffer; packed and integer addresses go to ipv4= or ipv6="
    if hasattr(roster, "columns") or hasattr(roster, "column_names"):
        return f"a {name} has several columns; pass one of them, such as frame['ip']"
    if hasattr(roster, "readline"):
        return f"a {name} yields lines with their ends; pass [line.strip() for line in file]"
    if isinstance(roster, (str, bytes)) or not isinstance(roster, Iterable):
        return (
            f"expected a sequence of addresses, not {name}; "
            "for one address there is lookup(), for packed addresses ipv4= and ipv6="
        )
    if isinstance(roster, Set):
        return (
            f"expected a sequence of addresses, not {name}, "
            "which has no order that positions could refer to"
        )
    return None


def _is_missing(item: object) -> bool:
    if item is None:
        return True
    if isinstance(item, float):
        return isnan(item)
    return type(item).__name__ in _MISSING and type(item).__module__.startswith("pandas")


_MISSING = ("NAType", "NaTType")


def packed_buffer(packed: Buffer, place: str, width: int) -> Buffer:
    """Return addresses of *width* bytes in network order, for the core.

    The type of a buffer's items (PEP 3118) says what they are: bytes (``B``, ``c``, numpy's
    ``V4`` and ``V16``) are packed addresses; a uint32 is an IPv4 address as an integer,
    in the byte order that its type names, so that one in host order is converted.

    Raises:
        TypeError: no buffer.
        RosterError: not contiguous, items of another type, rows of another width, or
            a length that is no multiple of *width*.
    """
    if type(packed) is bytes:
        view: Buffer = packed
        size = len(packed)
    else:
        contiguous = _contiguous(packed, place)
        size = contiguous.nbytes
        view = _in_network_order(contiguous, place, width)
    if size % width:
        raise RosterError(f"{place}: {size} bytes are no multiple of {width}")
    return view


def _contiguous(packed: Buffer, place: str) -> memoryview:
    try:
        view = memoryview(packed)
    except TypeError:
        raise TypeError(
            f"{place}: expected a buffer such as bytes, not {type(packed).__name__}"
        ) from None
    except (BufferError, ValueError) as error:
        raise RosterError(f"{place}: not a usable buffer: {error}") from None
    if not view.c_contiguous:
        raise RosterError(f"{place}: the buffer is not C-contiguous; copy it first")
    return view


def _in_network_order(view: memoryview, place: str, width: int) -> Buffer:
    items = view.format.lstrip("@=<>!")
    if items in ("B", "c"):
        if view.ndim > 1 and view.shape is not None and view.shape[-1] != width:
            raise RosterError(f"{place}: rows of {view.shape[-1]} bytes, expected {width}")
        return view
    if items == f"{width}x":  # numpy's V: bytes without a meaning of their own
        return view
    if items in ("I", "L") and view.itemsize == width:
        order = {"<": "little", ">": "big", "!": "big"}.get(view.format[0], sys.byteorder)
        if order == "big":
            return view
        swapped = array("I", view.tobytes())
        swapped.byteswap()
        return swapped
    if _is_text_or_object(view.format):
        raise RosterError(f"{place}: the buffer holds text or objects; pass it as the roster")
    integers = ", or uint32 for addresses as integers" if width == _IPV4_WIDTH else ""
    raise RosterError(
        f"{place}: the buffer's items are of type {view.format!r}; expected bytes{integers}"
    )


_IPV4_WIDTH = 4


def _holds_numbers(roster: object) -> bool:
    """Say whether a roster is a buffer of numbers or bytes, such as an `array`.

    numpy arrays of text and of objects are buffers too, but iterate over addresses.
    """
    try:
        view = memoryview(roster)  # type: ignore[arg-type]
    except (TypeError, BufferError, ValueError):
        return False
    return not _is_text_or_object(view.format)


def _is_text_or_object(buffer_format: str) -> bool:
    # PEP 3118: O is a pointer to an object, w and u are characters, s is text of bytes.
    return not {"O", "w", "u", "s"}.isdisjoint(buffer_format)
