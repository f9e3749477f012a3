"""Answers as arrays of pyarrow, for engines that take texts and no dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from geolookup.answer.results import RosterResult


def text_array(result: RosterResult, field: str) -> Any:
    """Return one column of `RosterResult.to_arrow` as a string array."""
    return pa.array(result.text_column(field).array()).dictionary_decode()


def struct_array(result: RosterResult, fields: Sequence[str]) -> Any:
    """Return columns of `RosterResult.to_arrow` as a struct array, null where the address was."""
    columns = [text_array(result, field) for field in fields]
    nulls = columns[0].is_null()
    return pa.StructArray.from_arrays(
        columns, names=list(fields), mask=nulls if nulls.true_count else None
    )
