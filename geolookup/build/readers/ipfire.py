"""IPFire's lists, as ``location export --format=list`` writes them: ``DEv4.networks``.

One prefix a line; the country is in the file's name. A source names the files, or the
folder that holds them. The lists of flags (``A1`` proxies, ``A2`` satellites, ``A3``
anycast, ``XD`` hostile) are left out: they name no country, and their networks are in
a country's list as well. IPFire copies codes from operators' geofeeds
unchecked: one that is no country's (``FX``) is silence.
"""

from __future__ import annotations

import re

from geolookup.build.readers import prefix_list
from geolookup.build.readers.source_file import (
    ReadState,
    SourceFile,
    read_lines,
    read_unchecked_code,
)
from geolookup.errors import SourceError

NAME = "ipfire"

_NAMED = re.compile(r"([A-Z][A-Z0-9])v[46]\.networks")
_FLAGS = frozenset({"A1", "A2", "A3", "XD"})


def recognises(head: bytes, name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line and its name, if given."""
    if name and not is_list(name):
        return False
    return prefix_list.recognises(head) or (bool(name) and not head)


def is_list(name: str) -> bool:
    """Return whether a file is named as these lists are.

    They are written for all countries in both families, some without any network: empty.
    """
    return _NAMED.fullmatch(name) is not None


def read(file: SourceFile, state: ReadState) -> None:
    """Add a list's ranges to a source.

    Raises:
        SourceError: as `read_lines`; or the file's name does not have this form.
    """
    code = code_of(file)
    if code in _FLAGS:
        return  # `kinds` reads them
    number = read_unchecked_code(code, file, state)
    read_lines(file, state, prefix_list.DIALECT, read_code=lambda _: number)


def code_of(file: SourceFile) -> str:
    """Return the code in a list's name: a country's, or that of a flag.

    Raises:
        SourceError: the name does not have this form.
    """
    named = _NAMED.fullmatch(file.part.file_name)
    if named is None:
        raise SourceError(f"{file.name}: not named as such lists are, such as DEv4.networks")
    return named[1]
