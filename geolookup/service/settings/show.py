"""Prints settings: as TOML that can be read again, or as JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from geolookup.service.settings.kinds import Plain
from geolookup.service.settings.model import table
from geolookup.service.settings.source import Configuration


def as_toml(configuration: Configuration) -> str:
    """Return all settings as a file for --config, each with its origin.

    Paths are absolute, so that the file means the same in any folder.
    """
    return "\n".join(_lines(configuration)) + "\n"


def _lines(configuration: Configuration) -> Iterator[str]:
    yield "# All settings of geolookup serve, and where each was set."
    tables: list[str] = []
    for group, rows in itertools.groupby(table(), lambda row: row.group):
        yield ""
        yield f"# {group}"
        for row in rows:
            value = row.kind.plain(row.value(configuration.settings))
            origin = _comment(configuration.origins[row.name])
            if isinstance(value, dict):
                # Tables come last: all that follows one belongs to it.
                tables += ["", f"[{row.name}]  # {origin}"]
                tables += [f"{_text(key)} = {_toml(value[key])}" for key in value]
            else:
                yield f"{row.name} = {_toml(value)}  # {origin}"
    yield from tables


def as_json(configuration: Configuration) -> str:
    """Return all settings as one JSON object: by name, the value and the origin ("from")."""
    content = {
        row.name: {
            "value": row.kind.plain(row.value(configuration.settings)),
            "from": configuration.origins[row.name],
        }
        for row in table()
    }
    return json.dumps(content, indent=2)


def _toml(value: Plain | list[str]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(_text(one) for one in value)}]"
    return repr(value)


def _text(text: str) -> str:
    """Return a TOML string. JSON's escapes are TOML's, but for DEL, which it leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(origin: str) -> str:
    """Return an origin for a comment: without control characters."""
    return "".join(one if one.isprintable() else "?" for one in origin)
