"""What counts as an address, and how the forms that only Python has reach the core."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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
    if isinstance(address, (str, bytes)):
        return address
    # Whoever has such an object has loaded the module; the others don't pay for it.
    ipaddress = sys.modules.get("ipaddress")
    if ipaddress is None:
        return None
    packed: bytes
    if isinstance(address, ipaddress.IPv4Address):
        packed = address.packed
        return packed
    if isinstance(address, ipaddress.IPv6Address):
        # packed drops the zone, and only the text tells the core to look at it.
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


def core_roster(roster: object) -> list[str | bytes]:
    """Return a roster of any mixture of forms as a list for the core.

    Raises:
        TypeError: no iterable of addresses. The text names the position of an
            item that is none by its type.
    """
    if isinstance(roster, (str, bytes)) or not isinstance(roster, Iterable):
        raise TypeError(
            f"roster: expected a sequence of addresses, not {type(roster).__name__}; "
            "for one address there is lookup(), for packed addresses ipv4= and ipv6="
        )
    if isinstance(roster, (set, frozenset)):
        raise TypeError(
            f"roster: expected a sequence of addresses, not {type(roster).__name__}, "
            "which has no order that positions could refer to"
        )
    if not isinstance(roster, (list, tuple)) and _holds_numbers(roster):
        raise TypeError(
            f"roster: {type(roster).__name__} is a buffer; packed addresses go to ipv4= or ipv6="
        )
    items = list(roster)
    for position, item in enumerate(items):
        if not isinstance(item, (str, bytes)):
            form = core_form(item)
            if form is None:
                place = f"roster: position {position}"
                raise TypeError(_EXPECTED.format(place, type(item).__name__))
            items[position] = form
    return items


def packed_buffer(packed: Buffer, place: str, width: int) -> Buffer:
    """Return a buffer that holds packed addresses of *width* bytes, for the core.

    Raises:
        TypeError: no buffer.
        RosterError: not contiguous, its length is no multiple of *width*, or it
            holds objects or text, whose bytes in memory are no addresses.
    """
    if type(packed) is bytes:
        view: bytes | memoryview = packed
        size = len(packed)
    else:
        view = _contiguous(packed, place)
        size = view.nbytes
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
    if _is_text_or_object(view.format):
        raise RosterError(f"{place}: the buffer holds text or objects, not packed addresses")
    return view


def _holds_numbers(roster: Iterable[object]) -> bool:
    """Say whether a roster is a buffer of numbers or bytes, such as an `array`.

    numpy arrays of text and of objects are buffers too, but iterate over addresses.
    """
    try:
        view = memoryview(roster)  # type: ignore[arg-type]
    except (TypeError, BufferError, ValueError):
        return False
    return not _is_text_or_object(view.format)


def _is_text_or_object(buffer_format: str) -> bool:
    # PEP 3118: O is a pointer to an object, w and u are characters.
    return not {"O", "w", "u"}.isdisjoint(buffer_format)
