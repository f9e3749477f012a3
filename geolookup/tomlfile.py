"""TOML files read strictly: an unknown key or a value of another type is an error that names it."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Final, TypeVar

from geolookup.errors import GeoLookupError

T = TypeVar("T")
C = TypeVar("C", bound=str)

MakeError = Callable[[str], GeoLookupError]
"""Makes the error to raise from its text: an error class, for most files."""

MAX_BYTES: Final = 16 << 20
"""Size of a file. Tens of thousands of overrides or canaries fit."""

_EXPECTED: Final[dict[type, str]] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "a table",
    date: "a date such as 2026-06-01, without quotes and time",
}


def read(path: Path, known: tuple[str, ...], error: MakeError) -> Table:
    """Return the content of a file.

    Args:
        path: the file.
        known: the keys that it may have.
        error: makes what is raised. Its text begins with the path and repeats no value.
    """
    return parse(read_raw(path, error), str(path), known, error)


def parse(text: str | bytes, name: str, known: tuple[str, ...], error: MakeError) -> Table:
    """Return the content of a TOML text; *name* is the file's in error texts."""
    return Table(load(text, name, error), f"{name}: ", known, error)


def read_raw(path: Path, error: MakeError, max_bytes: int = MAX_BYTES) -> bytes:
    """Return a file's bytes; a file that can't be read, or is larger, is an error."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}") from problem
    if len(content) > max_bytes:
        raise error(f"{path}: larger than {max_bytes:,} bytes")
    return content


def decode(raw: bytes, name: str, error: MakeError) -> str:
    """Return a file's bytes as text, without a byte order mark."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise error(f"{name}: UTF-16 text; save it as UTF-8")
    with contextlib.suppress(UnicodeDecodeError):
        return raw.decode("utf-8-sig")
    raise error(f"{name}: not UTF-8 text")  # outside, because the error above quotes bytes


def load(text: str | bytes, name: str, error: MakeError) -> dict[str, object]:
    """Return the content of a TOML text, unchecked."""
    if isinstance(text, bytes):
        text = decode(text, name, error)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        what = _location_first(str(problem))
    except (RecursionError, ValueError):  # nested too deeply, numbers of too many digits
        what = " can't be read as TOML"
    # Raised here, so that the text of the error above, which may quote keys, is no part of it.
    raise error(f"{name}:{what}")


class Table:
    """A table of a TOML file: typed values, and errors that name file and key."""

    def __init__(
        self, content: dict[str, object], prefix: str, known: tuple[str, ...], error: MakeError
    ) -> None:
        self._content = content
        self._prefix = prefix
        self._make_error = error
        for key in content:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise self.error(f"{shown(key)}: unknown key; expected {', '.join(near or known)}")

    def error(self, what: str) -> GeoLookupError:
        """Return an error that says what is wrong in this table."""
        return self._make_error(f"{self._prefix}{what}")

    @contextlib.contextmanager
    def locating(self, key: str = "") -> Iterator[None]:
        """Put file, table and key before the text of an error that names none of them."""
        try:
            yield
        except GeoLookupError as error:
            if str(error).startswith(self._prefix):  # it came from this table, or one below
                raise
            raise self.error(f"{key}: {error}" if key else str(error)) from error

    def has(self, key: str, kind: type = object) -> bool:
        """Return whether the key is there, with a value of this type."""
        return key in self._content and isinstance(self._content[key], kind)

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the keys, in the file's order."""
        return iter(self._content)

    def value(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return a value of exactly this type; without a default, the key must be there."""
        value = self._content.get(key, default)
        if value is None:
            raise self.error(f"{key}: missing")
        # Exactly: to Python true is an int too, and a time with its date a date.
        if type(value) is not kind:
            raise self.error(f"{key}: expected {_EXPECTED[kind]}")
        return value

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self.value(key, str)
        if not value.strip():
            raise self.error(f"{key}: empty")
        return value

    def choice(self, key: str, choices: tuple[C, ...]) -> C:
        """Return one of *choices*."""
        text = self.value(key, str)
        for choice in choices:
            if text == choice:
                return choice
        raise self.error(f"{key}: expected one of: {', '.join(choices)}")

    def texts(self, key: str, default: list[object] | None = None) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self.value(key, list, default)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) < len(values):
            raise self.error(f"{key}: expected a list of texts")
        return texts

    def table(self, key: str, known: tuple[str, ...]) -> Table:
        """Return the table under a key; *known* are the keys that it may have."""
        return self._table(self.value(key, dict), key, known)

    def tables(self, key: str, known: tuple[str, ...]) -> Iterator[Table]:
        """Yield the tables under ``[[key]]``; *known* are the keys that each may have."""
        for position, value in enumerate(self.value(key, list, []), start=1):
            if not isinstance(value, dict):
                raise self.error(f"{key}: expected tables, each under [[{key}]]")
            yield self._table(value, f"{key} {position}", known)

    def _table(self, content: dict[str, object], name: str, known: tuple[str, ...]) -> Table:
        return Table(content, f"{self._prefix}{name}: ", known, self._make_error)


def shown(key: str) -> str:
    """Return a key as an error text may repeat it: anything else may be an address."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key) else "a key"


def _location_first(text: str) -> str:
    """Turn the ``what (at line 3, column 8)`` of tomllib into ``3:8: what``, without keys."""
    text, at_end, _ = text.partition(" (at end of document)")
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", text, re.DOTALL)
    what = re.sub(r"\(.*\)|'..+'", "...", found[1] if found else text, flags=re.DOTALL)
    return f"{found[2]}:{found[3]}: {what}" if found else f" {what}{at_end}"
