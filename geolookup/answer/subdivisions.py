"""Places below the country: the codes of ISO 3166-2, such as ``UA-43``, and their hierarchy.

A subdivision may lie in another one: ``GB-LND`` in ``GB-ENG``. What ISO lists as a country, too
(Hong Kong, Puerto Rico, Réunion, ...), is that country and no subdivision.

The table is a dated file beside this package, which data/subdivisions.py writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache

_FILE = "subdivisions.txt"

CODE = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")
"""The form of a code."""


@dataclass(frozen=True, slots=True)
class Subdivisions:
    """The table of subdivisions.

    Attributes:
        parents: by code, where it lies: another subdivision or the country. In the order of
            the codes.
        children: by subdivision or country, the subdivisions right below it.
        countries: by the code of ISO 3166-2, the country that is the same place.
        spellings: by what sources write, the code that is meant.
    """

    parents: Mapping[str, str]
    children: Mapping[str, tuple[str, ...]]
    countries: Mapping[str, str]
    spellings: Mapping[str, str]

    def below(self, code: str) -> Iterator[str]:
        """Yield all subdivisions in a country or a subdivision, without itself."""
        for child in self.children.get(code, ()):
            yield child
            yield from self.below(child)

    def above(self, code: str) -> Iterator[str]:
        """Yield all subdivisions in which a subdivision lies, from the nearest on."""
        while len(code := self.parents[code]) > 2:
            yield code

    def lowest(self, codes: Set[str]) -> str:
        """Return the lowest place that holds each of some places, or nothing where none does.

        Args:
            codes: countries and subdivisions; at least one.
        """
        paths = [[*reversed(self.path(code))] for code in codes]
        common = ""
        for level in zip(*paths, strict=False):
            if len(set(level)) > 1:
                break
            common = level[0]
        return common

    def path(self, code: str) -> tuple[str, ...]:
        """Return a place and all in which it lies, the country last."""
        return (code,) if len(code) == 2 else (code, *self.above(code), code[:2])

    def read(self, country: str, region: str) -> str | None:
        """Return the place that a source means by a country and a code below it.

        Args:
            country: the country's code.
            region: what the source has, such as ``43`` or ``UA-43``, in any letter case.

        Returns:
            The code of a subdivision of that country, or of the country that is the same
            place (``RE`` for ``FR`` and ``974``); None: there is no such code.
        """
        code = region.upper() if region.isascii() else region
        if not code.startswith(f"{country}-"):
            code = f"{country}-{code}"
        code = self.spellings.get(code, code)
        return code if code in self.parents else self.countries.get(code)


@cache
def subdivisions() -> Subdivisions:
    """Return the table, which is read on the first call."""
    import importlib.resources  # noqa: PLC0415 - half a megabyte, and few datasets need the table

    file = importlib.resources.files("geolookup").joinpath("data", _FILE)
    parents: dict[str, str] = {}
    children: dict[str, tuple[str, ...]] = {}
    same: dict[str, str] = {}
    for line in file.read_text(encoding="ascii").splitlines():
        if line.startswith("#"):
            continue
        code, equals, other = line.partition(" = ")
        if equals:
            same[code] = other
            continue
        parent, _, listed = line.partition(": ")
        children[parent] = tuple(f"{parent[:2]}-{part}" for part in listed.split())
        parents.update(dict.fromkeys(children[parent], parent))
    return Subdivisions(
        parents=dict(sorted(parents.items())),
        children=children,
        countries={code: other for code, other in same.items() if len(other) == 2},
        spellings={code: other for code, other in same.items() if len(other) > 2},
    )
