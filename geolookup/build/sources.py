"""The inputs of a dataset, as a manifest describes them: sources and an operator's overrides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from geolookup.answer.claims import (
    COVERAGES,
    DEPTHS,
    Coverage,
    Depth,
    Mute,
    Network,
)
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.overrides import read_prefix
from geolookup.errors import SourceError

Overlaps = Literal["smallest", "last-begins"]
"""Which of several ranges of a source that hold an address decides: the smallest one, or the
one that begins last and of these the smallest."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input dataset.

    Attributes:
        name: what it is called in this dataset; no two sources share one.
        licence: SPDX identifier or name of its licence.
        date: date of its data.
        coverage: how its statements count; see `claims.Coverage`.
        depth: whether it names subdivisions, too.
        origin: who says so; all sources of one origin are one vote. Empty: its name.
        attribution: the text that its licence asks for, or empty.
        url: where it is published, or empty.
        mute: the codes that it cannot know; see `claims.Mute`.
        overlaps: which of its own ranges that hold an address decides; see `Overlaps`.
            None: the smallest, and those that overlap in part are reported.
        max_age: days after its date from which the dataset is stale; 0: none.
        keep_days: days for which its licence allows to keep the data; 0: any time.
        within: first and last address (packed) of each prefix that it may speak of. What it
            says of others is left out. Empty: of any, which an authoritative source may not.
    """

    name: str
    licence: str
    date: date
    coverage: Coverage = "full"
    origin: str = ""
    attribution: str = ""
    url: str = ""
    mute: Mute = ()
    within: tuple[tuple[bytes, bytes], ...] = ()
    overlaps: Overlaps | None = None
    max_age: int = 0
    keep_days: int = 0
    depth: Depth = "country"

    def __post_init__(self) -> None:
        if not self.name:
            raise SourceError("a source has a name")
        if self.coverage not in COVERAGES:
            raise SourceError(f"coverage is one of: {', '.join(COVERAGES)}")
        if self.depth not in DEPTHS:
            raise SourceError(f"depth is one of: {', '.join(DEPTHS)}")
        for code in {code for unknown, filed in self.mute for code in (unknown, *filed)}:
            if code not in COUNTRIES:
                raise SourceError("mute: expected the codes of countries")
        if self.coverage == "authoritative" and not self.within:
            raise SourceError(
                "within: missing; an authoritative source decides alone, so it needs bounds"
            )
        if self.coverage == "full" and self.within:
            raise SourceError("within: a full source has no bounds; its silence counts everywhere")
        if not self.origin:
            object.__setattr__(self, "origin", self.name)


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A list of networks that are used for something, such as VPNs.

    Attributes:
        name: what it is called in this dataset; no other list or source has it.
        licence: SPDX identifier or name of its licence.
        date: date of its data.
        kinds: what all its networks are used for; empty: the list says it.
        vouches: whether it names the country of each range's users, as the operator of a
            relay may. It is a source, too, then, of coverage ``partial``.
        origin: who says so; see `Source.origin`.
        attribution: the text that its licence asks for, or empty.
        url: where it is published, or empty.
    """

    name: str
    licence: str
    date: date
    kinds: tuple[Network, ...] = ()
    vouches: bool = False
    origin: str = ""
    attribution: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise SourceError("a list of networks has a name")
        if self.vouches and self.kinds != (Network.RELAY,):
            raise SourceError('vouches: only a list of kind = "RELAY" can')
        if not self.origin:
            object.__setattr__(self, "origin", self.name)

    @property
    def source(self) -> Source:
        """What a list that vouches says of countries."""
        return Source(
            name=self.name,
            licence=self.licence,
            date=self.date,
            coverage="partial",
            origin=self.origin,
            attribution=self.attribution,
            url=self.url,
        )


def read_prefixes(lines: Iterable[str]) -> tuple[tuple[bytes, bytes], ...]:
    """Return first and last address (packed) of the prefix in each line.

    Empty lines, and what follows ``#``, do not count.

    Raises:
        SourceError: a line can't be read. The text has its number and does not repeat it.
    """
    prefixes = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            prefixes.append(read_prefix(text))
        except SourceError as error:
            raise SourceError(f"{number}: {error}") from error
    if not prefixes:
        raise SourceError("holds no prefix")
    return tuple(prefixes)
