"""Prefix lists: a prefix or an address a line, all of one country.

The country is the manifest's option ``country``, or else in the file's name:
``cn.zone``, ``cn-aggregated.zone``. Empty lines and comments (``#``) are left out.
"""

from __future__ import annotations

import re

from geolookup._sweep import Dialect
from geolookup.answer.country_codes import read_code
from geolookup.build.readers import detection
from geolookup.build.readers.ranges import code_number
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines
from geolookup.errors import SourceError

NAME = "prefix-list"
DIALECT = Dialect("networks", comments=True, spaces=True, least=1, most=1)

# No other suffix: my.txt need not be a list of Malaysia's.
_NAMED = re.compile(r"([A-Za-z]{2})(?:-aggregated)?\.zone")


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    begin = detection.beginning(head)
    return bool(begin.lines) and detection.is_network(begin.lines[0].strip())


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source.

    Raises:
        SourceError: as `read_lines`; or neither the option nor the name has a country.
    """
    named = _NAMED.fullmatch(file.part.file_name)
    try:
        code = read_code(state.options.country or (named[1] if named else ""))
    except ValueError:
        code = None
    if code is None:
        raise SourceError(
            f"{file.name}: a list of prefixes without a country: give the source's entry in the"
            ' manifest one, such as country = "DE", or call the file de.zone'
        )
    number = code_number(code)
    read_lines(file, state, DIALECT, read_code=lambda _: number)
