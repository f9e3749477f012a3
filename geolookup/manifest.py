"""Manifests: TOML files that describe what a dataset is compiled from.

::

    nat64_prefixes = []              # an operator's own; the well-known one is built in
    special_purpose = true           # the IANA registries
    canaries = "canaries.csv"        # addresses with the codes expected; see docs/trust.md

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
    coverage = "full"                # or "partial"
    origin = "dbip"                  # sources of one origin are one vote; left out: the name

    [[override]]
    prefix = "10.0.0.0/8"            # or range = "10.0.0.0-10.0.0.9"
    code = "DE"                      # or "ZZ"
    comment = "our own network"
    expires = 2027-01-01             # the last day on which it applies

Reading is strict: a key that is not known, or a value of another kind, is an error
that names the key.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TypeVar, get_args

from geolookup import registry
from geolookup.codes import COUNTRIES
from geolookup.errors import SourceError
from geolookup.limits import LimitError, Limits, read_limited, read_share
from geolookup.readers import FORMATS, CountryFrom, Options
from geolookup.sources import Coverage, Override, Source, read_prefix, read_range

T = TypeVar("T")
C = TypeVar("C", bound=str)


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """A source of a manifest.

    Attributes:
        source: what it is.
        files: where its data is, files or folders; they exist when the manifest is loaded.
        format: one of `readers.FORMATS`, or None: by content.
        options: how it is read, besides.
    """

    source: Source
    files: tuple[Path, ...]
    format: str | None
    options: Options = field(default_factory=Options)


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
    """

    path: Path
    sources: tuple[SourceFiles, ...]
    overrides: tuple[Override, ...]
    nat64_prefixes: tuple[str, ...]
    special_purpose: bool
    limits: Limits = field(default_factory=Limits)
    canaries: Path | None = None


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
    content = _read(path)
    table = _Table(content, f"{path}: ", _MANIFEST_KEYS)
    if not table.has("source") and not table.has("override"):
        raise table.error("describes neither a source nor an override")
    sources: dict[str, SourceFiles] = {}
    for entry in table.tables("source", _SOURCE_KEYS):
        found = _source(entry, path.parent, elsewhere or {})
        if sources.setdefault(found.source.name, found) is not found:
            raise entry.error("name: an earlier source has it")
    return Manifest(
        path=path,
        sources=tuple(sources.values()),
        overrides=tuple(_override(entry) for entry in table.tables("override", _OVERRIDE_KEYS)),
        nat64_prefixes=_nat64_prefixes(table),
        special_purpose=table.value("special_purpose", bool, True),
        limits=_limits(table),
        canaries=_canaries(table, path.parent),
    )


def load_limits(path: str | os.PathLike[str]) -> Limits:
    """Read a manifest's limits alone, for those who have none of its sources at hand.

    Raises:
        SourceError: as in `load`.
    """
    return _limits(_Table(_read(Path(path)), f"{path}: ", _MANIFEST_KEYS))


def load_canaries(path: str | os.PathLike[str]) -> Path | None:
    """Read from a manifest where its canaries are, and nothing else.

    Raises:
        SourceError: as in `load`.
    """
    return _canaries(_Table(_read(Path(path)), f"{path}: ", _MANIFEST_KEYS), Path(path).parent)


def _limits(table: _Table) -> Limits:
    if not table.has("limits"):
        return Limits()
    limits = table.table("limits", ("max_change", "min_coverage"))
    max_change = {}
    for key, value in limits.value("max_change", dict, {}).items():
        place = f"max_change: {_shown(key)}"
        if not isinstance(value, str):
            raise limits.error(f'{place}: expected a text such as "0.5%"')
        try:
            max_change[read_limited(key)] = read_share(value)
        except LimitError as error:
            raise limits.error(f"{place}: {error}") from None
    if not limits.has("min_coverage"):
        return Limits(max_change)
    try:
        return Limits(max_change, read_share(limits.text("min_coverage")))
    except LimitError as error:
        raise limits.error(f"min_coverage: {error}") from None


def _canaries(table: _Table, folder: Path) -> Path | None:
    if not table.has("canaries"):
        return None
    path = folder / table.text("canaries")
    if not path.is_file():
        raise table.error(f"canaries: there is no file {path}")
    return path


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        what = " not UTF-8 text"
    except tomllib.TOMLDecodeError as error:
        what = _place_first(str(error))
    except (RecursionError, ValueError):  # nested too deeply, numbers of too many digits
        what = " can't be read as TOML"
    # Raised here, so that the text of the error above, which may quote keys, is no part of it.
    raise SourceError(f"{path}:{what}")


def _nat64_prefixes(table: _Table) -> tuple[str, ...]:
    prefixes = table.texts("nat64_prefixes", [])
    for position, text in enumerate(prefixes, start=1):
        with table.placing(f"nat64_prefixes: entry {position}"):
            registry.nat64_prefix(text)
    return prefixes


def _source(table: _Table, folder: Path, elsewhere: Mapping[str, Sequence[Path]]) -> SourceFiles:
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
    source = Source(
        name=table.text("name"),
        licence=table.text("licence"),
        date=table.value("date", date),
        coverage=table.choice("coverage", _COVERAGES),
        origin=table.value("origin", str, ""),
        attribution=table.value("attribution", str, ""),
        url=table.value("url", str, ""),
    )
    return SourceFiles(
        source,
        tuple(files),
        table.choice("format", tuple(FORMATS)) if table.has("format") else None,
        _options(table),
    )


def _options(table: _Table) -> Options:
    country = table.value("country", str, "")
    if country and country not in COUNTRIES:
        raise table.error("country: expected a country's code")
    if not table.has("country_from"):
        return Options(country=country)
    return Options(country, table.choice("country_from", _COUNTRIES_FROM))


def _override(table: _Table) -> Override:
    key = "prefix" if table.has("prefix") else "range"
    if table.has("prefix") and table.has("range"):
        raise table.error("has a prefix and a range; expected one of them")
    text = table.value(key, str)
    with table.placing(key):
        first, last = read_prefix(text) if key == "prefix" else read_range(text)
    code = table.value("code", str)
    comment = table.value("comment", str, "")
    expires = table.value("expires", date) if table.has("expires") else None
    with table.placing():
        return Override(first, last, code, comment, expires)


_MANIFEST_KEYS = (
    *("source", "override", "nat64_prefixes", "special_purpose"),
    *("limits", "canaries"),
)
_SOURCE_KEYS = (
    *("name", "files", "format", "licence", "attribution"),
    *("url", "date", "coverage", "origin", "country", "country_from"),
)
_OVERRIDE_KEYS = ("prefix", "range", "code", "comment", "expires")
_COVERAGES: tuple[Coverage, ...] = get_args(Coverage)
_COUNTRIES_FROM: tuple[CountryFrom, ...] = get_args(CountryFrom)

_KINDS: dict[type, str] = {
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    date: "a date such as 2026-06-01, without quotes and time",
}


class _Table:
    """A table of the manifest: typed values, and errors that name file and key."""

    def __init__(self, content: dict[str, object], place: str, known: tuple[str, ...]) -> None:
        self._content = content
        self._place = place
        for key in content:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise self.error(f"{_shown(key)}: unknown key; expected {', '.join(near or known)}")

    def error(self, what: str) -> SourceError:
        return SourceError(f"{self._place}{what}")

    @contextlib.contextmanager
    def placing(self, key: str = "") -> Iterator[None]:
        """Put the place before the text of a SourceError that knows none."""
        try:
            yield
        except SourceError as error:
            raise self.error(f"{key}: {error}" if key else str(error)) from error

    def has(self, key: str) -> bool:
        return key in self._content

    def value(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return a value of just this type; without a default, the key must be there."""
        value = self._content.get(key, default)
        if value is None:
            raise self.error(f"{key}: missing")
        # A datetime is a date to Python and another type to TOML.
        if not isinstance(value, kind) or isinstance(value, datetime):
            raise self.error(f"{key}: expected {_KINDS[kind]}")
        return value

    def text(self, key: str) -> str:
        value = self.value(key, str)
        if not value:
            raise self.error(f"{key}: empty")
        return value

    def choice(self, key: str, choices: tuple[C, ...]) -> C:
        text = self.value(key, str)
        for one in choices:
            if text == one:
                return one
        raise self.error(f"{key}: expected one of: {', '.join(choices)}")

    def texts(self, key: str, default: list[object] | None = None) -> tuple[str, ...]:
        values = self.value(key, list, default)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) < len(values):
            raise self.error(f"{key}: expected a list of texts")
        return texts

    def table(self, key: str, known: tuple[str, ...]) -> _Table:
        return _Table(self.value(key, dict), f"{self._place}{key}: ", known)

    def tables(self, key: str, known: tuple[str, ...]) -> Iterator[_Table]:
        for position, value in enumerate(self.value(key, list, []), start=1):
            if not isinstance(value, dict):
                raise self.error(f"{key}: expected tables, each under [[{key}]]")
            yield _Table(value, f"{self._place}{key} {position}: ", known)


def _shown(key: str) -> str:
    # Anything else may be an address in the wrong place.
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key) else "a key"


def _place_first(text: str) -> str:
    """Turn the ``what (at line 3, column 8)`` of tomllib into ``3:8: what``, without keys."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", text, re.DOTALL)
    what = re.sub(r"\(.*\)|'..+'", "...", found[1] if found else text, flags=re.DOTALL)
    return f"{found[2]}:{found[3]}: {what}" if found else f" {what}"
