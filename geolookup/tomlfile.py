"""TOML files read strictly: an unknown key or a value of another kind is an error that names it."""

from __future__ import annotations

import contextlib
import difflib
import re
import tomllib
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Final, TypeVar

from geolookup.errors import GeoLookupError

T = TypeVar("T")
C = TypeVar("C", bound=str)

_KINDS: Final[dict[type, str]] = {
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    date: "a date such as 2026-06-01, without quotes and time",
}


def read(path: Path, known: tuple[str, ...], error: type[GeoLookupError]) -> Table:
    """Return the table that a file is.

    Args:
        path: the file.
        known: the keys that it may have.
        error: what is raised. Its text begins with the path and repeats no value.
    """
    try:
        text = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}") from problem
    return parse(text, str(path), known, error)


def parse(text: bytes, name: str, known: tuple[str, ...], error: type[GeoLookupError]) -> Table:
    """Return the table that a file's bytes are; *name* is how error texts call the file."""
    try:
        content = tomllib.loads(text.decode())
    except UnicodeDecodeError:
        what = " not UTF-8 text"
    except tomllib.TOMLDecodeError as problem:
        what = _place_first(str(problem))
    except (RecursionError, ValueError):  # nested too deeply, numbers of too many digits
        what = " can't be read as TOML"
    else:
        return Table(content, f"{name}: ", known, error)
    # Raised here, so that the text of the error above, which may quote keys, is no part of it.
    raise error(f"{name}:{what}")


class Table:
    """A table of a TOML file: typed values, and errors that name file and key."""

    def __init__(
        self,
        content: dict[str, object],
        place: str,
        known: tuple[str, ...],
        error: type[GeoLookupError],
    ) -> None:
        self._content = content
        self._place = place
        self._error = error
        for key in content:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise self.error(f"{shown(key)}: unknown key; expected {', '.join(near or known)}")

    def error(self, what: str) -> GeoLookupError:
        """Return an error that says what is wrong here."""
        return self._error(f"{self._place}{what}")

    @contextlib.contextmanager
    def placing(self, key: str = "") -> Iterator[None]:
        """Put the place before the text of an error that knows none."""
        try:
            yield
        except self._error as error:
            raise self.error(f"{key}: {error}" if key else str(error)) from error

    def has(self, key: str) -> bool:
        """Say whether the key is there."""
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the keys, in the file's order."""
        return iter(self._content)

    def is_table(self, key: str) -> bool:
        """Say whether a key's value is a table."""
        return isinstance(self._content.get(key), dict)

    def is_text(self, key: str) -> bool:
        """Say whether a key's value is a text."""
        return isinstance(self._content.get(key), str)

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
        """Return a text that is not empty."""
        value = self.value(key, str)
        if not value:
            raise self.error(f"{key}: empty")
        return value

    def choice(self, key: str, choices: tuple[C, ...]) -> C:
        """Return one of *choices*."""
        text = self.value(key, str)
        for one in choices:
            if text == one:
                return one
        raise self.error(f"{key}: expected one of: {', '.join(choices)}")

    def texts(self, key: str, default: list[object] | None = None) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self.value(key, list, default)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) < len(values):
            raise self.error(f"{key}: expected a list of texts")
        return texts

    def table(self, key: str, known: tuple[str, ...]) -> Table:
        """Return the table under a key, which may have the keys *known*."""
        return Table(self.value(key, dict), f"{self._place}{key}: ", known, self._error)

    def tables(self, key: str, known: tuple[str, ...]) -> Iterator[Table]:
        """Yield the tables under ``[[key]]``, each of which may have the keys *known*."""
        for position, value in enumerate(self.value(key, list, []), start=1):
            if not isinstance(value, dict):
                raise self.error(f"{key}: expected tables, each under [[{key}]]")
            yield Table(value, f"{self._place}{key} {position}: ", known, self._error)


def shown(key: str) -> str:
    """Return a key as an error text may repeat it: anything else may be an address."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key) else "a key"


def _place_first(text: str) -> str:
    """Turn the ``what (at line 3, column 8)`` of tomllib into ``3:8: what``, without keys."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", text, re.DOTALL)
    what = re.sub(r"\(.*\)|'..+'", "...", found[1] if found else text, flags=re.DOTALL)
    return f"{found[2]}:{found[3]}: {what}" if found else f" {what}"
