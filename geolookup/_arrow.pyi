"""Columns of addresses in, columns of answers out; ext/_arrow.pyx."""

from collections.abc import Iterable
from typing import Any, final

class ColumnError(ValueError):
    """A column that is not whole. The text follows the column's name."""

def read(
    table: object, source: Any, packed: bool = False, /
) -> tuple[bytes, bytes | None, bytes | None]:
    """Return the addresses of a column that has Arrow's C data or stream interface.

    A column is text, binary of 4 or 16 bytes (packed addresses), or integers of 32 or 64 bits
    (IPv4 addresses in host order), perhaps with a dictionary, and perhaps the only one of a
    frame. The GIL is released while it is read and while its library makes its next part.

    Args:
        table: a `Table.handle`, or what `no_table` returns for *packed*.
        source: has `__arrow_c_array__` or `__arrow_c_stream__`; the first is preferred.
        packed: return packed addresses in place of claims.

    Returns:
        Claims (uint16), 0 for what is no address; None; and 1 byte for each value: 0 for a null,
        else 1, or None if there are no nulls. With *packed* what `parse_many` returns in place
        of the first two.

    Raises:
        TypeError: it holds no addresses, has several columns, or its library could not export
            it. The text follows its name, and has no value.
        ColumnError: it is not whole.
    """

def read_fixed(
    table: object, source: Any, packed: bool = False, /
) -> tuple[bytes, bytes | None, bytes | None] | None:
    """Return the same of a buffer of texts of a fixed width; None: it is none.

    Args:
        table: as `read`.
        source: a buffer of one dimension with items of PEP 3118's type s (1 byte a character)
            or w (4 bytes, in native order), as of numpy's types S and U.
        packed: as `read`.
    """

def validity(
    column: bytes, width: int, present: bytes | None = None, /
) -> tuple[bytes | None, int]:
    """Return a bit for each item that is not 0 and is present, and how many have none.

    Args:
        column: items of *width* bytes.
        width: 1 or 2.
        present: 1 byte an item; 0 for one that is not present.

    Returns:
        The bits, from the lowest of the first byte on; None if each item has one.
    """

@final
class Array:
    """An array of Arrow over bytes objects, to be handed out.

    Args:
        format: its type, as the C data interface writes it.
        length: its values.
        buffers: those of its type, in their order; None for one that is left out.
        name: that of the column.
        nulls: how many values are null.
        children: those of a struct.
        dictionary: the values that its numbers stand for.
    """

    def __new__(
        cls,
        format: str,  # noqa: A002 - Arrow's word
        length: int,
        buffers: Iterable[bytes | None],
        *,
        name: str = "",
        nulls: int = 0,
        children: Iterable[Array] = (),
        dictionary: Array | None = None,
    ) -> Array: ...
    def __len__(self) -> int: ...
    def __arrow_c_schema__(self) -> object:
        """Return a capsule of the type."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """Return capsules of the type and of the values; no other type is made on request."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule of a stream of this one array; otherwise as `__arrow_c_array__`."""
