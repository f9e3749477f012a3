"""The catalogue: publishers, their files and URLs, licences and size limits.

The built-in one is ``geolookup/data/publishers.toml``. An operator with a mirror gives a
file of the same form, which replaces it as a whole. Reading is strict: see `tomlfile`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, Final

from geolookup import tomlfile
from geolookup.answer.claims import COVERAGES, Coverage, Mute, Network
from geolookup.build.manifest import OVERLAPS, read_days, read_mute, read_network_kinds
from geolookup.build.readers import FORMATS
from geolookup.build.sources import Overlaps, read_prefixes
from geolookup.tomlfile import Table
from geolookup.update.problems import UpdateError
from geolookup.update.transfer import unsafe_reason

DATES: Final = ("url", "registry", "ipfire", "modified")
"""Where the date of a file's data is.

``url``: the month that took the place of ``{year}`` and ``{month}``. ``registry``: the header
of a registry's statistics. ``ipfire``: the header of an IPFire database. ``modified``: nowhere
in the file; it is the Last-Modified header, or the day of the download.
"""

EXPORTED: Final = "ipfire"
"""The format of a source whose file is IPFire's database, which no reader reads: IPFire's own
tool makes of it what is of this format."""

LIST: Final = "networks"
"""The format of a list of networks, whose form is recognised by its content."""
VOUCHING: Final = "geofeed"
"""The format of a list of networks that vouches for countries."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_RESERVED: Final = ("state.json", "geolookup.toml")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of a publisher.

    Attributes:
        name: its name in the cache. ``.gz`` and ``.xz`` say how it is compressed.
        url: its URL; ``{year}`` and ``{month}`` stand for a month, as 2026 and 06.
        date: one of `DATES`.
        smallest: least number of bytes, decompressed.
        largest: bytes that are downloaded at most.
        largest_unpacked: bytes that are decompressed at most.
        checksum: URL of its MD5 checksum, or empty.
    """

    name: str
    url: str
    date: str
    smallest: int
    largest: int
    largest_unpacked: int
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Publisher:
    """A source or a list of networks as it is published.

    Attributes:
        name: its name here and in datasets.
        format: one of `readers.FORMATS`; of a list of networks `LIST` or `VOUCHING`.
        licence: SPDX identifier or name of its licence.
        attribution: the text that the licence asks for.
        url: the publisher's page.
        notice: what the licence asks of a user of the dataset, in a few sentences.
        coverage: as in `sources.Source`.
        origin: as in `sources.Source`.
        file: its files.
        default: whether it is downloaded if no source is named.
        insecure: whether ``http:`` to other machines is accepted.
        grace_days: number of days of a month on which the last month's file is accepted.
        mute: as in `sources.Source`.
        overlaps: as in `sources.Source`.
        within: prefixes that it may speak of, as in `sources.Source`.
        keep_days: as in `sources.Source`.
        kinds: of a list of networks, what they are used for; empty: it is a source.
        vouches: as in `sources.NetworkList`.
    """

    name: str
    format: str
    licence: str
    attribution: str
    url: str
    notice: str
    coverage: Coverage
    origin: str
    file: tuple[PublishedFile, ...]
    default: bool = False
    insecure: bool = False
    grace_days: int = 0
    mute: Mute = ()
    overlaps: Overlaps | None = None
    within: tuple[str, ...] = ()
    keep_days: int = 0
    kinds: tuple[Network, ...] = ()
    vouches: bool = False


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The publishers, in order of precedence, and behind them those of lists of networks.

    Names of publishers and of files are unique.
    """

    publishers: tuple[Publisher, ...]

    def chosen(self, names: Sequence[str]) -> tuple[Publisher, ...]:
        """Return the publishers of these names, in their order; without names the default ones.

        Raises:
            UpdateError: there is none of that name, or it is named twice.
        """
        if not names:
            return tuple(publisher for publisher in self.publishers if publisher.default)
        known = {publisher.name: publisher for publisher in self.publishers}
        for name in names:
            if name not in known:
                raise UpdateError(f"no source of that name; there are: {', '.join(known)}")
            if names.count(name) > 1:
                raise UpdateError(f"{name} is named twice")
        return tuple(known[name] for name in names)


def builtin_text() -> str:
    """Return the built-in catalogue, as TOML."""
    return resources.files("geolookup").joinpath("data/publishers.toml").read_text("utf-8")


def load(path: Path | None = None) -> Catalogue:
    """Read a catalogue; without a path, the built-in one.

    Raises:
        UpdateError: it can't be read, or says what makes no sense. The text names file and key.
    """
    if path is None:
        return read(builtin_text(), "the built-in catalogue")
    return read(tomlfile.read_raw(path, UpdateError), str(path))


def read(text: str | bytes, name: str) -> Catalogue:
    """Read a catalogue from TOML text; errors begin with *name*."""
    table = tomlfile.parse(text, name, ("source", "network"), UpdateError)
    publishers = tuple(map(_publisher, table.tables("source", _SOURCE_KEYS)))
    if not publishers:
        raise table.error("source: there is none; expected tables, each under [[source]]")
    publishers += tuple(map(_publisher_of_list, table.tables("network", _NETWORK_KEYS)))
    names = [publisher.name for publisher in publishers]
    names += [file.name for publisher in publishers for file in publisher.file]
    for one in names:
        if names.count(one) > 1:
            raise table.error(f"the name {one} is used twice")
    return Catalogue(publishers)


def months(publisher: Publisher, today: date) -> tuple[date, ...]:
    """Return the months (their first days) whose file may be the newest, the newest one first."""
    this = today.replace(day=1)
    if today.day > publisher.grace_days:
        return (this,)
    before = date(this.year - (this.month == 1), 12 if this.month == 1 else this.month - 1, 1)
    return this, before


def url_of(url: str, month: date) -> str:
    """Return a file's URL for a month."""
    return url.replace("{year}", f"{month:%Y}").replace("{month}", f"{month:%m}")


def is_monthly(file: PublishedFile) -> bool:
    """Return whether a file's URL names a month."""
    return url_of(file.url, date(1999, 12, 1)) != file.url


def _names(kind: type[PublishedFile | Publisher]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


_NETWORK_KEYS: Final = (
    "name", "kind", "vouches", "licence", "attribution", "url", "notice", "origin", "file",
    "default", "insecure", "grace_days",
)  # fmt: skip
_SOURCE_KEYS: Final = tuple(name for name in _names(Publisher) if name not in ("kinds", "vouches"))


def _described(table: Table) -> dict[str, Any]:
    """Return what sources and lists of networks have alike."""
    insecure = table.value("insecure", bool, False)
    files = tuple(_file(entry, insecure) for entry in table.tables("file", _names(PublishedFile)))
    if not files:
        raise table.error("file: names no file")
    return {
        "name": _name(table),
        "licence": table.value("licence", str),
        "attribution": table.value("attribution", str),
        "url": table.value("url", str),
        "notice": table.value("notice", str),
        "origin": table.value("origin", str),
        "file": files,
        "default": table.value("default", bool, False),
        "insecure": insecure,
        "grace_days": table.value("grace_days", int, 0),
    }


def _publisher_of_list(table: Table) -> Publisher:
    vouches = table.value("vouches", bool, False)
    kinds = read_network_kinds(table, "kind")
    if not kinds:
        raise table.error("kind: names none")
    if vouches and kinds != (Network.RELAY,):
        raise table.error('vouches: only a list of kind = "RELAY" can')
    return Publisher(
        **_described(table),
        format=VOUCHING if vouches else LIST,
        coverage="partial",
        kinds=kinds,
        vouches=vouches,
    )


def _publisher(table: Table) -> Publisher:
    return Publisher(
        **_described(table),
        format=table.choice("format", tuple(FORMATS)),
        coverage=table.choice("coverage", COVERAGES),
        mute=read_mute(table),
        overlaps=table.choice("overlaps", OVERLAPS) if table.has("overlaps") else None,
        within=_within(table),
        keep_days=read_days(table, "keep_days"),
    )


def _within(table: Table) -> tuple[str, ...]:
    prefixes = table.texts("within", [])
    if not prefixes and table.value("coverage", str) == "authoritative":
        raise table.error("within: missing; an authoritative source needs bounds")
    if prefixes:
        with table.locating("within"):
            read_prefixes(prefixes)
    return prefixes


def _file(table: Table, insecure: bool) -> PublishedFile:
    file = PublishedFile(
        name=_name(table),
        url=table.value("url", str),
        date=table.choice("date", DATES),
        smallest=table.value("smallest", int),
        largest=table.value("largest", int),
        largest_unpacked=table.value("largest_unpacked", int),
        checksum=table.value("checksum", str, ""),
    )
    if (file.date == "url") != is_monthly(file):
        raise table.error('url: a date of "url" and {year} or {month} go together')
    if not 0 < file.smallest <= file.largest_unpacked or file.largest <= 0:
        raise table.error("smallest, largest, largest_unpacked: expected ascending sizes")
    for key, url in (("url", file.url), ("checksum", file.checksum)):
        refusal = unsafe_reason(url_of(url, date(1999, 12, 1)), insecure=insecure) if url else ""
        if refusal:
            raise table.error(f"{key}: {refusal}")
    return file


def _name(table: Table) -> str:
    name = table.value("name", str)
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise table.error("name: expected letters, digits and . _ -")
    return name
