"""iptoasn's TSV files: ``first last code``, or ``first last number code description``.

Addresses are text, or integers in the files named ``u32``. Silence is ``None``, for
what is not routed, and ``Unknown``.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.ranges import SILENCE, read_code_number
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines

NAME = "iptoasn"


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    row = detection.beginning(head).row("\t")
    return len(row) in (3, 5) and detection.is_range(row)


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    row = detection.beginning(file.head).row("\t")
    with_numbers = len(row) >= 5
    dialect = Dialect(
        "ranges",
        separator="\t",
        integers=bool(row) and detection.is_number(row[0]),
        least=5 if with_numbers else 3,
        most=5 if with_numbers else 3,
        last=1,
        code=3 if with_numbers else 2,
    )
    read_lines(file, state, dialect, read_code=_read_code)


def _read_code(raw: str) -> int:
    return SILENCE if raw == "Unknown" else read_code_number(raw)
