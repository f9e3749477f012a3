"""The catalogue: which publisher has what, where, under which licence, and how large it may be.

The built-in one is ``geolookup/data/publishers.toml``. An operator with a mirror gives a
file of the same form, which takes its place as a whole. Reading is strict: a key
that is not known or missing, or a value of another kind, is an error that names it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints

from geolookup.answer.claims import Coverage
from geolookup.build.readers import FORMATS
from geolookup.update.problems import UpdateError
from geolookup.update.transfer import why_unsafe

DATES: Final = ("url", "registry", "ipfire", "modified")
"""Where the date of a file's data stands.

``url``: the month that took the place of ``{year}`` and ``{month}``. ``registry``: the header
of a registry's statistics. ``ipfire``: the header of an IPFire database. ``modified``: nowhere
in the file; it is the Last-Modified header, or the day of the download.
"""

EXPORTED: Final = "ipfire"
"""The format of a source whose file is IPFire's database, which no reader reads: IPFire's own
tool makes of it what is of this format."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_RESERVED: Final = ("state.json", "geolookup.toml")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file that a publisher has.

    Attributes:
        name: what it is called in the cache. ``.gz`` and ``.xz`` say how it is compressed.
        url: where it is; ``{year}`` and ``{month}`` stand for a month, as 2026 and 06.
        date: one of `DATES`.
        smallest: bytes, decompressed, below which it can't be what it should be.
        largest: bytes that are downloaded at most.
        largest_unpacked: bytes that are decompressed at most.
        checksum: where its MD5 checksum is, or empty.
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
    """A source, as its publisher offers it.

    Attributes:
        name: what it is called here and in datasets.
        format: one of `readers.FORMATS`.
        licence: SPDX identifier or name of its licence.
        attribution: the text that the licence asks for.
        url: the publisher's page.
        notice: what the licence means for whoever uses the dataset, in a few sentences.
        coverage: as in `sources.Source`.
        origin: as in `sources.Source`.
        file: its files.
        default: whether it is downloaded when no source is named.
        insecure: whether ``http:`` to other machines is accepted.
        grace_days: days of a month on which the file of the month before will do.
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


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The publishers, in order of precedence. Names of sources and of files are unique."""

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
    try:
        return read(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise UpdateError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UpdateError(f"{path}: not UTF-8 text") from error


def read(text: str, origin: str) -> Catalogue:
    """Read a catalogue from TOML text; errors begin with *origin*."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UpdateError(f"{origin}: not TOML: {error}") from error
    unknown = sorted(set(content) - {"source"})
    if unknown or not isinstance(content.get("source"), list) or not content["source"]:
        raise UpdateError(f"{origin}: expected [[source]] tables and nothing else")
    publishers = [
        _publisher(table, f"{origin}: source {position}")
        for position, table in enumerate(content["source"], start=1)
    ]
    names = [publisher.name for publisher in publishers]
    files = [file.name for publisher in publishers for file in publisher.file]
    for name in [*names, *files]:
        if names.count(name) + files.count(name) > 1:
            raise UpdateError(f"{origin}: the name {name} is used twice")
    return Catalogue(tuple(publishers))


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


def _publisher(table: object, place: str) -> Publisher:
    values = _values(table, Publisher, place)
    if not _NAME.fullmatch(values["name"]):
        raise UpdateError(f"{place}: name: expected letters, digits and . _ -")
    if values["format"] not in FORMATS:
        raise UpdateError(f"{place}: format: expected one of: {', '.join(FORMATS)}")
    if values["coverage"] not in get_args(Coverage):
        raise UpdateError(f"{place}: coverage: expected one of: {', '.join(get_args(Coverage))}")
    insecure = values.get("insecure", False)
    values["file"] = tuple(
        _file(entry, insecure, f"{place}: file {position}")
        for position, entry in enumerate(values["file"], start=1)
    )
    if not values["file"]:
        raise UpdateError(f"{place}: file: names no file")
    return Publisher(**values)


def _file(table: object, insecure: bool, place: str) -> PublishedFile:
    file = PublishedFile(**_values(table, PublishedFile, place))
    if not _NAME.fullmatch(file.name) or file.name in _RESERVED:
        raise UpdateError(f"{place}: name: expected letters, digits and . _ -")
    if file.date not in DATES:
        raise UpdateError(f"{place}: date: expected one of: {', '.join(DATES)}")
    if (file.date == "url") != is_monthly(file):
        raise UpdateError(f'{place}: url: a date of "url" and {{year}} or {{month}} go together')
    if not 0 < file.smallest <= file.largest_unpacked or file.largest <= 0:
        raise UpdateError(f"{place}: smallest, largest, largest_unpacked: expected ascending sizes")
    for key in ("url", "checksum"):
        url = getattr(file, key)
        refusal = why_unsafe(url_of(url, date(1999, 12, 1)), insecure=insecure) if url else ""
        if refusal:
            raise UpdateError(f"{place}: {key}: {refusal}")
    return file


def _values(table: object, kind: type[T], place: str) -> dict[str, Any]:
    """Return a table's values as arguments of a dataclass; each has just the type of its field."""
    if not isinstance(table, dict):
        raise UpdateError(f"{place}: expected a table")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise UpdateError(f"{place}: unknown key; expected {', '.join(known)}")
    hints = get_type_hints(kind)
    for key, field in known.items():
        if key not in table and field.default is MISSING:
            raise UpdateError(f"{place}: {key}: missing")
        expected = _KINDS.get(hints[key], (str, "a text"))
        if key in table and type(table[key]) is not expected[0]:
            raise UpdateError(f"{place}: {key}: expected {expected[1]}")
    return dict(table)


_KINDS: Final[dict[object, tuple[type, str]]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    tuple[PublishedFile, ...]: (list, "tables, each under [[source.file]]"),
}
