"""Manifests: TOML files that describe what a dataset is compiled from.

::

    nat64_prefixes = []              # an operator's own; the well-known one is built in
    special_purpose = true           # the IANA registries
    max_age = 60                     # days after which the dataset is stale
    stale = "undetermined"           # what follows then; or "warn"
    canaries = "canaries.csv"        # addresses with the codes expected; see docs/trust.md
    covering = ["TOR", "VPN"]        # kinds of networks that hide where their users are

    [limits]                         # what is accepted of a new dataset
    max_change = { CN = "0.5%", "*" = "5%", DISPUTED = "1%" }
    min_coverage = "60%"             # of the IPv4 space

    [[source]]                       # in order of precedence
    name = "dbip"
    files = ["dbip-ipv4.csv.xz"]     # relative to the manifest
    format = "range-csv"             # left out: by content; all are in docs/formats.md
    country = "DE"                   # of lists of prefixes, whose lines say none
    country_from = "country"         # of MaxMind's data; or "registered_country"
    licence = "CC-BY-4.0"
    attribution = "IP Geolocation by DB-IP (https://db-ip.com)"
    url = "https://db-ip.com/"
    date = 2026-06-01
    coverage = "full"                # "partial", "advisory" or "authoritative"; docs/answers.md
    depth = "country"                # or "subdivision": ISO 3166-2 is read, too
    origin = "dbip"                  # sources of one origin are one vote; left out: the name
    mute = { XK = ["AL", "RS"] }     # what it cannot know, and what it says instead; or ["XK"]
    lenient = 20                     # number of its lines that may be unreadable
    overlaps = "smallest"            # which of its ranges decides; or "last-begins"
    max_age = 120                    # days after its date from which the dataset is stale
    keep_days = 30                   # for which its licence allows to keep the data
    within = ["192.0.2.0/24"]        # what it may speak of; or a file of prefixes, one per line

    [[network]]                      # what networks are used for; docs/answers.md has the kinds
    name = "vpns"
    files = ["vpns.txt"]             # prefixes, ranges, CSV, JSON, MMDB: docs/formats.md
    kind = "VPN"                     # or several; left out where the list says it
    licence = "MIT"
    date = 2026-11-01
    vouches = false                  # of a relay's own list that names its users' countries

    [[override]]
    prefix = "10.0.0.0/8"            # or range = "10.0.0.0-10.0.0.9"
    code = "DE"                      # or "DE-BY", or "ZZ"
    comment = "our own network"
    expires = 2027-01-01             # the last day on which it applies

Reading is strict: a key that is not known, or a value of another kind, is an error
that names the key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, get_args

from geolookup.answer.age import MAX_DAYS, STALE, AgeLimit
from geolookup.answer.claims import COVERAGES, COVERING, DEPTHS, Depth, Mute, Network
from geolookup.answer.country_codes import COUNTRIES, nearest_code
from geolookup.answer.embedded_ipv4 import nat64_prefix
from geolookup.answer.overrides import KEYS as OVERRIDE_KEYS
from geolookup.answer.overrides import Override, read_override
from geolookup.build.readers import FORMATS, FORMATS_WITH_KINDS, CountryFrom, Options
from geolookup.build.sources import (
    NetworkList,
    Overlaps,
    Source,
    read_prefixes,
)
from geolookup.change_limits import ChangeLimits, LimitError, read_limited, read_part, read_share
from geolookup.errors import SourceError
from geolookup.tomlfile import Table, decode, read, read_raw, shown


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """A source of a manifest.

    Attributes:
        source: what it is.
        files: where its data is, files or folders; they exist when the manifest is loaded.
        format: one of `readers.FORMATS`, or None: by content.
        options: how it is read, besides.
        lenient: number of its lines that may be unreadable; None: as for all sources together.
    """

    source: Source
    files: tuple[Path, ...]
    format: str | None
    options: Options = field(default_factory=Options)
    lenient: int | None = None


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """A list of networks of a manifest.

    Attributes:
        network_list: what it is.
        files: where its data is, files or folders; they exist when the manifest is loaded.
        lenient: number of its lines that may be unreadable; None: as for all sources together.
        format: of a source of countries that marks kinds: one of `readers.FORMATS_WITH_KINDS`;
            None: a list, by its content.
    """

    network_list: NetworkList
    files: tuple[Path, ...]
    lenient: int | None = None
    format: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a dataset is compiled from.

    Attributes:
        path: the manifest's own file.
        sources: in order of precedence.
        overrides: in the manifest's order.
        nat64_prefixes: an operator's own NAT64 prefixes.
        special_purpose: whether the IANA registries count.
        limits: what is accepted of a dataset that is compiled from it.
        canaries: a file of addresses with the codes expected, or None.
        age_limit: how old a dataset may be that is compiled from it, and what follows.
        networks: lists of networks, in the manifest's order.
        covering: the kinds of networks that hide where their users are.
    """

    path: Path
    sources: tuple[SourceEntry, ...]
    overrides: tuple[Override, ...]
    nat64_prefixes: tuple[str, ...]
    special_purpose: bool
    limits: ChangeLimits = field(default_factory=ChangeLimits)
    canaries: Path | None = None
    age_limit: AgeLimit = field(default_factory=AgeLimit)
    networks: tuple[NetworkEntry, ...] = ()
    covering: tuple[Network, ...] = COVERING

    def files(self) -> tuple[Path, ...]:
        """Return the files and folders that it names: what compiling it reads."""
        named = [path for entry in self.sources for path in entry.files]
        named += [path for network in self.networks for path in network.files]
        return (*named, *(() if self.canaries is None else (self.canaries,)))


def load(
    path: str | os.PathLike[str], *, elsewhere: Mapping[str, Sequence[Path]] | None = None
) -> Manifest:
    """Read a manifest.

    Args:
        path: the manifest's file.
        elsewhere: the files that some names stand for, instead of one relative to the
            manifest.

    Raises:
        SourceError: it can't be read, or says what makes no sense. The text
            names the manifest and the key.
    """
    path = Path(path)
    table = _read(path)
    if not table.has("source") and not table.has("override"):
        raise table.error("describes neither a source nor an override")
    sources: dict[str, SourceEntry] = {}
    for entry in table.tables("source", _SOURCE_KEYS):
        found = _source(entry, path.parent, elsewhere or {})
        if sources.setdefault(found.source.name, found) is not found:
            raise entry.error("name: an earlier source has it")
    networks: list[NetworkEntry] = []
    for entry in table.tables("network", _NETWORK_KEYS):
        listed = _network(entry, path.parent, elsewhere or {})
        name = listed.network_list.name
        if name in sources or name in (other.network_list.name for other in networks):
            raise entry.error("name: an earlier source or list has it")
        networks.append(listed)
    return Manifest(
        path=path,
        sources=tuple(sources.values()),
        overrides=tuple(
            read_override(entry, with_times=False)
            for entry in table.tables("override", OVERRIDE_KEYS)
        ),
        nat64_prefixes=_nat64_prefixes(table),
        special_purpose=table.value("special_purpose", bool, True),
        limits=_limits(table),
        canaries=_canaries(table, path.parent),
        age_limit=AgeLimit(
            read_days(table, "max_age"),
            table.choice("stale", STALE) if table.has("stale") else AgeLimit().stale,
        ),
        networks=tuple(networks),
        covering=read_network_kinds(table, "covering") if table.has("covering") else COVERING,
    )


def load_limits(path: str | os.PathLike[str]) -> ChangeLimits:
    """Read a manifest's limits alone, for those who have none of its sources at hand.

    Raises:
        SourceError: as in `load`.
    """
    return _limits(_read(Path(path)))


def load_canaries(path: str | os.PathLike[str]) -> Path | None:
    """Read from a manifest where its canaries are, and nothing else.

    Raises:
        SourceError: as in `load`.
    """
    return _canaries(_read(Path(path)), Path(path).parent)


def _read(path: Path) -> Table:
    return read(path, _MANIFEST_KEYS, SourceError)


def _limits(table: Table) -> ChangeLimits:
    if not table.has("limits"):
        return ChangeLimits()
    limits = table.table("limits", ("max_change", "min_coverage"))
    max_change = {}
    for key, value in limits.value("max_change", dict, {}).items():
        with limits.locating(f"max_change: {shown(key)}"):
            if not isinstance(value, str):
                raise LimitError('expected a text such as "0.5%"')
            max_change[read_limited(key)] = read_share(value)
    if not limits.has("min_coverage"):
        return ChangeLimits(max_change)
    text = limits.text("min_coverage")
    with limits.locating("min_coverage"):
        return ChangeLimits(max_change, read_part(text))


def _canaries(table: Table, folder: Path) -> Path | None:
    if not table.has("canaries"):
        return None
    path = folder / table.text("canaries")
    if not path.is_file():
        raise table.error(f"canaries: there is no file {path}")
    return path


def _nat64_prefixes(table: Table) -> tuple[str, ...]:
    prefixes = table.texts("nat64_prefixes", [])
    for position, text in enumerate(prefixes, start=1):
        with table.locating(f"nat64_prefixes: entry {position}"):
            nat64_prefix(text)
    return prefixes


def _source(table: Table, folder: Path, elsewhere: Mapping[str, Sequence[Path]]) -> SourceEntry:
    files = _files(table, folder, elsewhere)
    described: dict[str, Any] = {
        "name": table.text("name"),
        "licence": table.text("licence"),
        "date": table.value("date", date),
        "coverage": table.choice("coverage", COVERAGES),
        "origin": table.value("origin", str, ""),
        "attribution": table.value("attribution", str, ""),
        "url": table.value("url", str, ""),
        "mute": read_mute(table),
        "within": _within(table, folder),
        "overlaps": table.choice("overlaps", OVERLAPS) if table.has("overlaps") else None,
        "max_age": read_days(table, "max_age"),
        "keep_days": read_days(table, "keep_days"),
        "depth": _depth(table),
    }
    with table.locating():
        source = Source(**described)
    return SourceEntry(
        source,
        files,
        table.choice("format", tuple(FORMATS)) if table.has("format") else None,
        _options(table),
        _lenient(table),
    )


def _files(table: Table, folder: Path, elsewhere: Mapping[str, Sequence[Path]]) -> tuple[Path, ...]:
    names = table.texts("files")
    if not names:
        raise table.error("files: names no file")
    files: list[Path] = []
    for position, name in enumerate(names, start=1):
        found = elsewhere.get(name, (folder / name,))
        for path in found:
            if not path.exists():  # a folder stands for the files in it
                raise table.error(f"files: entry {position}: there is no file {path}")
        files.extend(found)
    return tuple(files)


def _network(table: Table, folder: Path, elsewhere: Mapping[str, Sequence[Path]]) -> NetworkEntry:
    described: dict[str, Any] = {
        "name": table.text("name"),
        "licence": table.text("licence"),
        "date": table.value("date", date),
        "kinds": read_network_kinds(table, "kind") if table.has("kind") else (),
        "vouches": table.value("vouches", bool, False),
        "origin": table.value("origin", str, ""),
        "attribution": table.value("attribution", str, ""),
        "url": table.value("url", str, ""),
    }
    with table.locating():
        network_list = NetworkList(**described)
    form = table.choice("format", FORMATS_WITH_KINDS) if table.has("format") else None
    if form is not None and (network_list.kinds or network_list.vouches):
        raise table.error("format: such a file says the kinds itself; leave out kind and vouches")
    files = _files(table, folder, elsewhere)
    return NetworkEntry(network_list, files, _lenient(table), form)


def read_network_kinds(table: Table, key: str) -> tuple[Network, ...]:
    """Return kinds of networks: a text, or a list of them, which may be empty."""
    names = (table.text(key),) if table.has(key, str) else table.texts(key)
    for name in names:
        if name not in Network.__members__:
            raise table.error(f"{key}: expected of {', '.join(Network.__members__)}")
    return tuple(kind for kind in Network if kind.name in names)


def read_days(table: Table, key: str) -> int:
    """Return a number of days from 1 on; 0 where the table does not have the key."""
    if not table.has(key):
        return 0
    days = table.value(key, int)
    if isinstance(days, bool) or not 1 <= days <= MAX_DAYS:
        raise table.error(f"{key}: expected a number of days from 1 to {MAX_DAYS:,}")
    return days


def _lenient(table: Table) -> int | None:
    if not table.has("lenient"):
        return None
    number = table.value("lenient", int)
    if isinstance(number, bool) or number < 0:
        raise table.error("lenient: expected a number of lines")
    return number


def read_mute(table: Table) -> Mute:
    """Return what a source's table says that it cannot know; see `claims.Mute`."""
    if not table.has("mute"):
        return ()
    if not table.has("mute", dict):
        return tuple((code, ()) for code in sorted(table.texts("mute")))
    codes = table.table("mute", tuple(COUNTRIES))
    return tuple((code, codes.texts(code)) for code in sorted(codes))


def _within(table: Table, folder: Path) -> tuple[tuple[bytes, bytes], ...]:
    if not table.has("within"):
        return ()
    if table.has("within", str):
        path = folder / table.text("within")
        with table.locating("within"):
            raw = read_raw(path, SourceError)
            lines = decode(raw, str(path), SourceError).splitlines()
        with table.locating(f"within: {path}"):
            return read_prefixes(lines)
    with table.locating("within"):
        return read_prefixes(table.texts("within"))


def _depth(table: Table) -> Depth:
    return table.choice("depth", DEPTHS) if table.has("depth") else "country"


def _options(table: Table) -> Options:
    country = table.value("country", str, "")
    if country and country not in COUNTRIES:
        nearest = nearest_code(country)
        hint = f"; did you mean {nearest}?" if nearest else ""
        raise table.error(f"country: expected a country's code{hint}")
    if not table.has("country_from"):
        return Options(country=country, depth=_depth(table))
    return Options(country, table.choice("country_from", _COUNTRIES_FROM), _depth(table))


_MANIFEST_KEYS = (
    "source", "override", "nat64_prefixes", "special_purpose", "limits", "canaries", "max_age",
    "stale", "network", "covering",
)  # fmt: skip
_SOURCE_KEYS = (
    "name", "files", "format", "licence", "attribution", "url", "date", "coverage", "origin",
    "country", "country_from", "mute", "within", "overlaps", "lenient",
    "max_age", "keep_days", "depth",
)  # fmt: skip
_NETWORK_KEYS = (
    "name", "files", "kind", "licence", "attribution", "url", "date", "origin", "vouches",
    "lenient", "format",
)  # fmt: skip
OVERLAPS: tuple[Overlaps, ...] = get_args(Overlaps)
_COUNTRIES_FROM: tuple[CountryFrom, ...] = get_args(CountryFrom)
