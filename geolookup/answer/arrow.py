"""Columns of addresses in, and columns of answers out, by the Arrow C data interface.

No Arrow library is needed. What comes in may be of pyarrow, polars, pandas, DuckDB or whatever
else has `__arrow_c_array__` or `__arrow_c_stream__`, or a numpy array of text.
"""

from __future__ import annotations

import sys
from array import array
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from geolookup import _core
from geolookup.answer.claims import NO_COUNTRY, Reason, Status, Verdict, networks_of
from geolookup.answer.country_codes import COUNTRIES
from geolookup.errors import RosterError

if TYPE_CHECKING:
    from geolookup import _arrow

_Read = tuple[bytes, bytes | None, bytes | None]

MAX_ROWS: Final = 2**31 - 1
"""Rows of a batch that each engine takes."""


def column_claims(table: _core.Table, roster: object) -> tuple[bytes, bytes | None] | None:
    """Return the claims of a column of addresses; None: the roster is no column.

    Returns:
        Claims (uint16), and a byte for each value, 0 for a null and 1 for others; None: there
        are no nulls.

    Raises:
        TypeError: a column that holds no addresses, or several columns. The text has no value.
        RosterError: a column that is not whole.
    """
    found = _read(table.handle(), roster, False)
    return None if found is None else (found[0], found[2])


def column_addresses(roster: object) -> tuple[bytes, bytes, bytes | None] | None:
    """Return the addresses of a column; None: the roster is no column.

    Returns:
        Packed addresses and their families, as `_core.parse_many`, and as `column_claims` which
        are present.

    Raises:
        TypeError, RosterError: as `column_claims`.
    """
    found = _read(_core.no_table(), roster, True)
    if found is None or found[1] is None:
        return None
    return found[0], found[1], found[2]


def _read(table: object, roster: Any, packed: bool) -> _Read | None:
    name, library = type(roster).__name__, _library(roster)
    if library == "pandas":
        roster = _of_pandas(roster)
    elif library == "polars":
        roster = _of_polars(roster)
    is_arrow = hasattr(roster, "__arrow_c_array__") or hasattr(roster, "__arrow_c_stream__")
    if not is_arrow and not _is_text_array(roster):
        return None
    # Not before a column comes, since most callers have none.
    from geolookup import _arrow  # noqa: PLC0415

    try:
        return (_arrow.read if is_arrow else _arrow.read_fixed)(table, roster, packed)
    except TypeError as error:
        raise TypeError(f"roster: a {name} {error}") from None
    except _arrow.ColumnError as error:
        raise RosterError(f"roster: a {name} {error}") from None


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _of_pandas(column: Any) -> object:
    """Return a column of pandas as what has Arrow's interface, as far as there is such.

    pandas 2 has none for columns but hands out what is of Arrow already, and pandas 3 wants
    pyarrow for columns of objects, too.
    """
    dtype = getattr(column, "dtype", None)
    if dtype is None:
        return column
    if _are_objects(dtype):
        return None
    # Without pyarrow, or for a type that it does not have, pandas' own way remains.
    if hasattr(column, "array") and hasattr(column.array, "__arrow_array__"):
        with suppress(ImportError, NotImplementedError):
            return column.array.__arrow_array__()
    if not hasattr(column, "__arrow_c_stream__"):
        with suppress(ImportError, NotImplementedError):
            import pyarrow  # noqa: PLC0415

            return pyarrow.Array.from_pandas(column)
    return column


def _of_polars(column: Any) -> object:
    """Return a column of polars as what has Arrow's interface.

    A Series of categories or of an enum delivers its numbers in place of dictionaries before
    polars 2; its frame does not.
    """
    kind = type(getattr(column, "dtype", None)).__name__
    return column.to_frame() if kind in ("Categorical", "Enum") else column


def _are_objects(dtype: object) -> bool:
    """Say whether a type of numpy or pandas is that of Python objects, or of str among them."""
    return str(dtype) == "object" or getattr(dtype, "storage", "") == "python"


def objects(roster: object) -> tuple[list[Any], bytes | None] | None:
    """Return the items of a column of Python objects, of numpy or pandas; None: it is none.

    pandas 2 without pyarrow has no other way for columns of other types.

    Returns:
        The items, and `present` as `column_claims` returns it, with an empty text for a null.
    """
    column: Any = roster
    dtype = getattr(roster, "dtype", None)
    module = _library(roster)
    if dtype is None or module not in ("numpy", "pandas"):
        return None
    if not _are_objects(dtype) and (module == "numpy" or hasattr(roster, "__arrow_c_stream__")):
        return None
    if module == "numpy":
        return (column.tolist(), None) if column.ndim == 1 else None
    missing = column.isna()
    if not missing.any():
        return column.tolist(), None
    present = (~missing).astype("uint8")
    items = column.astype(object).where(~missing, "").tolist()
    return items, bytes(getattr(present, "to_numpy", lambda: present)().tobytes())


def _is_text_array(roster: object) -> bool:
    """Say whether a roster is a numpy array of texts of a fixed width: of type S or U."""
    return _library(roster) == "numpy" and getattr(getattr(roster, "dtype", None), "kind", "") in (
        "S",
        "U",
    )


# --- out -------------------------------------------------------------------------------


Validity = tuple[bytes | None, int]
"""A bit per row, 0 for a null, the first row's the lowest of the first byte, and how many nulls
there are; None for the bits: there are none."""


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column of few texts.

    Attributes:
        name: its name.
        index: Arrow's name of the type of the numbers.
        numbers: the number of each row's text.
        texts: by number.
        validity: which rows are null.
    """

    name: str
    index: str
    numbers: bytes
    texts: tuple[str, ...]
    validity: Validity

    def array(self, *, numbers: bool = False) -> _arrow.Array:
        """Return it as a dictionary array, or only its numbers.

        Raises:
            RosterError: more rows than `MAX_ROWS`.
        """
        from geolookup import _arrow  # noqa: PLC0415

        rows = len(self.numbers) // WIDTHS[self.index]
        if rows > MAX_ROWS:
            raise RosterError(f"to_arrow: more than {MAX_ROWS:,} rows; classify them in parts")
        bits, nulls = self.validity
        return _arrow.Array(
            self.index,
            rows,
            (bits, self.numbers),
            name=self.name,
            nulls=nulls,
            dictionary=None if numbers else _texts(self.texts),
        )


def validity(present: bytes | None) -> Validity:
    """Return which rows are null, given 1 byte per row, 0 for a null; None: none is."""
    from geolookup import _arrow  # noqa: PLC0415

    return (None, 0) if present is None else _arrow.validity(present, 1)


def country_column(countries: bytes, present: Validity) -> TextColumn:
    """Return the column of 2 ASCII letters per row, whose texts are `COUNTRY_CODES`."""
    numbers = _core.map16(countries, _country_numbers())
    return TextColumn("country", UINT16, numbers, COUNTRY_CODES, present)


def named_column(
    name: str,
    numbers: bytes,
    kinds: type[Status] | type[Verdict] | type[Reason],
    present: Validity,
) -> TextColumn:
    """Return the column of 1 byte per row, whose texts are the names of *kinds* in their order."""
    texts = tuple(kind.name for kind in kinds)
    if next(iter(kinds)).number:
        numbers = numbers.translate(_BEFORE)
    return TextColumn(name, UINT8, numbers, texts, present)


def region_column(codes: tuple[str, ...], numbers: bytes, present: bytes | None) -> TextColumn:
    """Return the column of regions, null where none is known.

    Args:
        codes: those that occur.
        numbers: 2 bytes per row: the number of its code, from 1 on; 0: none.
        present: see `validity`.
    """
    from geolookup import _arrow  # noqa: PLC0415

    known = _arrow.validity(numbers, 2, present)
    # The first text stands for no code, and is never seen.
    return TextColumn("region", UINT16, numbers, ("", *codes), known)


def network_column(networks: bytes, present: Validity) -> TextColumn:
    """Return the column of 1 byte per row, a bit for each `Network`.

    Its texts are the combinations that occur: names with commas between them.
    """
    found = sorted(_core.count8(networks))
    numbers = bytearray(256)
    for number, bits in enumerate(found):
        numbers[bits] = number
    texts = tuple(",".join(kind.name for kind in networks_of(bits)) for bits in found)
    return TextColumn("networks", UINT8, networks.translate(numbers), texts, present)


def categories(column: TextColumn) -> Any:
    """Return a column as a pandas Categorical, for which no pyarrow is needed."""
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    numbers = np.frombuffer(column.numbers, _NUMPY_TYPES[column.index]).astype("int32")
    bits, _ = column.validity
    if bits is not None:
        known = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(numbers), bitorder="little")
        numbers = np.where(known, numbers, -1)
    return pd.Categorical.from_codes(numbers, list(column.texts))


def record_batch(columns: list[TextColumn], rows: int) -> _arrow.Array:
    """Return columns as a record batch. Raises RosterError as `TextColumn.array`."""
    from geolookup import _arrow  # noqa: PLC0415

    return _arrow.Array("+s", rows, (None,), children=[one.array() for one in columns])


# Arrow's names of types, and their bytes.
UINT8: Final = "C"
UINT16: Final = "S"
WIDTHS: Final = {UINT8: 1, UINT16: 2}
_NUMPY_TYPES: Final = {UINT8: "uint8", UINT16: "uint16"}

_BEFORE: Final = bytes((byte - 1) % 256 for byte in range(256))
"""For `bytes.translate`: numbers from 1 on become numbers from 0 on."""


COUNTRY_CODES: Final = (*sorted(COUNTRIES), NO_COUNTRY)
"""The texts of each column of countries, in this order."""

_NETWORKS: Final = tuple(",".join(kind.name for kind in networks_of(bits)) for bits in range(256))
"""By the bits of `Network`: the names of the kinds, with commas between them."""


@cache
def _country_numbers() -> bytes:
    """Return for each pair of letters, as a uint16, the number of its code in `COUNTRY_CODES`."""
    numbers = memoryview(bytearray(2 * 0x10000)).cast("H")
    for at, code in enumerate(COUNTRY_CODES):
        numbers[int.from_bytes(code.encode(), sys.byteorder)] = at
    return numbers.tobytes()


@lru_cache(16)
def _texts(values: tuple[str, ...]) -> _arrow.Array:
    from geolookup import _arrow  # noqa: PLC0415

    encoded = [value.encode() for value in values]
    offsets = array("i", accumulate(map(len, encoded), initial=0))
    return _arrow.Array("u", len(encoded), (None, offsets.tobytes(), b"".join(encoded)))


@lru_cache(8)
def numbered_regions(codes: bytes) -> tuple[tuple[str, ...], bytes]:
    """Return the regions that occur, and 2 bytes for each code: the number of its region.

    Args:
        codes: 6 bytes each, filled up with zeros.

    Returns:
        Numbers from 1 on; 0 stands for no region.
    """
    numbers: dict[bytes, int] = {bytes(6): 0}
    found = array("H")
    for at in range(0, len(codes), 6):
        found.append(numbers.setdefault(codes[at : at + 6], len(numbers)))
    del numbers[bytes(6)]
    return tuple(code.rstrip(b"\0").decode("ascii") for code in numbers), found.tobytes()
