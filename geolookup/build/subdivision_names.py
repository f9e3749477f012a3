"""Names of subdivisions as sources write them, and the codes of ISO 3166-2 that they mean.

A name means a code where ISO has the name for one subdivision of the country alone, or where
data/subdivision-names.txt says so. Nothing is guessed: any other name is the country alone.
ISO's names are those of the package `pycountry`.
"""

from __future__ import annotations

import importlib.resources
import re
import unicodedata
from collections.abc import Mapping
from functools import cache

from geolookup.answer.subdivisions import subdivisions
from geolookup.errors import MissingExtraError

_FILE = "subdivision-names.txt"
_NO_WORD = re.compile(r"[\W_]+")
# Letters that are no other letter with an accent.
_LETTERS = str.maketrans(
    {
        "ł": "l",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "æ": "ae",
        "œ": "oe",
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
    }
)


def folded(name: str) -> str:
    """Return a name without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return _NO_WORD.sub(" ", letters).strip()


def code_of(country: str, name: str) -> str | None:
    """Return the code that a name means in a country; None: it is not known.

    As for `Subdivisions.read`, that may be the code of another country, which is the same place.

    Raises:
        MissingExtraError: without the package pycountry.
    """
    return _codes().get((country, folded(name)))


@cache
def _codes() -> Mapping[tuple[str, str], str]:
    try:
        import pycountry  # noqa: PLC0415 - an extra: only names need it
    except ImportError:
        raise MissingExtraError("names of subdivisions", "pycountry", "subdivisions") from None
    table = subdivisions()
    found: dict[tuple[str, str], str | None] = {}
    for one in pycountry.subdivisions:
        code = one.code if one.code in table.parents else table.countries.get(one.code)
        key = one.country_code, folded(one.name)
        # Two places of one name: neither is meant for certain.
        found[key] = code if found.get(key, code) == code else None
    file = importlib.resources.files("geolookup").joinpath("data", _FILE)
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            code, _, names = line.partition(": ")
            found.update({(code[:2], folded(name)): code for name in names.split("; ")})
    return {key: code for key, code in found.items() if code is not None}
