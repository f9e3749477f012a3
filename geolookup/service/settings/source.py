"""Where settings come from: flags over variables over a TOML file over defaults."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from geolookup import tomlfile
from geolookup.service.settings.kinds import UnfitError
from geolookup.service.settings.model import RosterLimits, Setting, Settings, table
from geolookup.service.settings.problems import SettingsError

CONFIG_FLAG: Final = "--config"
CONFIG_VARIABLE: Final = "GEOLOOKUP_CONFIG"
_PREFIX: Final = "GEOLOOKUP_"
_LARGEST_FILE: Final = 1_048_576
"""Bytes. No configuration is larger, and a wrong path may lead to something that is."""

_NOT_OURS: Final = frozenset({"GEOLOOKUP_WERROR", "GEOLOOKUP_FETCH"})
"""Said to this project's build and tests."""

# Kubernetes and container links describe a service named geolookup, or geolookup-x, in
# the environment of all its neighbours: GEOLOOKUP_SERVICE_HOST, GEOLOOKUP_PORT_50051_TCP...
_SERVICE_LINK: Final = re.compile(
    r"GEOLOOKUP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?"
    r"|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|NAME|ENV_\w+)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, and where each of them was said.

    Attributes:
        settings: all of them, checked.
        places: by setting's name, a flag, a variable, a file and line, or how the
            default came about.
    """

    settings: Settings
    places: Mapping[str, str]


def read(flags: Mapping[str, str], environment: Mapping[str, str]) -> Configuration:
    """Read all settings.

    Args:
        flags: the texts of the flags that were given, by setting's name, and of
            "config".
        environment: the variables; those that don't begin with ``GEOLOOKUP_`` are
            not looked at.

    Raises:
        SettingsError: a value makes no sense, a variable or a key is not known, or
            the file can't be read. It says where.
    """
    here = Path.cwd()
    values: dict[str, object] = {}
    places: dict[str, str] = {}
    for row in table():
        values[row.name] = row.default if row.at_start is None else row.at_start()
        places[row.name] = f"default: {row.default_text}" if row.default_text else "default"

    variables = _variables(environment)
    config, said = flags.get("config"), CONFIG_FLAG
    if config is None:
        config, said = variables.get(CONFIG_VARIABLE), CONFIG_VARIABLE
    if config is not None:
        _from_file(_path(config, here, said), values, places)
    for row in table():
        if row.variable in variables:
            _put(row, variables[row.variable], here, row.variable, values, places)
        if row.name in flags:
            _put(row, flags[row.name], here, row.flag, values, places)
    return Configuration(_settings(values, places), places)


def _put(
    row: Setting,
    text: str,
    folder: Path,
    place: str,
    values: dict[str, object],
    places: dict[str, str],
) -> None:
    try:
        values[row.name] = row.kind.of_text(text, folder)
    except UnfitError as error:
        raise SettingsError(row.name, str(error), place) from None
    places[row.name] = place


def _settings(values: Mapping[str, object], places: Mapping[str, str]) -> Settings:
    tree: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for row in table():
        (limits if row.path[0] == "limits" else tree)[row.path[-1]] = values[row.name]
    try:
        return Settings(limits=RosterLimits(**limits), **tree)
    except SettingsError as error:
        raise SettingsError(error.setting, error.problem, places[error.setting]) from None


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    ours = {name: text for name, text in environment.items() if name.startswith(_PREFIX)}
    known = {CONFIG_VARIABLE, *(row.variable for row in table())}
    for name in sorted(ours.keys() - known):
        if name not in _NOT_OURS and not _SERVICE_LINK.fullmatch(name):
            raise SettingsError(
                "environment", f"no setting has the variable {name}{_near(name, known)}"
            )
    return {name: ours[name] for name in known & ours.keys()}


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), cutoff=0.75)
    return f"; is it {' or '.join(near)}?" if near else ""


def _path(text: str, here: Path, said: str) -> Path:
    if not text or "\0" in text:
        raise SettingsError("config", "expected a file's path", said)
    return here / text


def _from_file(path: Path, values: dict[str, object], places: dict[str, str]) -> None:
    error = partial(SettingsError, "config")
    raw = tomlfile.read_raw(path, error, _LARGEST_FILE)
    content = tomlfile.load(raw, str(path), error)
    text = raw.decode()
    known = {row.name: row for row in table()}
    folder = Path(os.path.abspath(path)).parent
    for key, value in content.items():
        place = _place(path, text, key)
        if key not in known:
            raise SettingsError(
                "config", f"no setting has the name {key}{_near(key, known)}", place
            )
        try:
            values[key] = known[key].kind.of_toml(value, folder)
        except UnfitError as error:
            raise SettingsError(key, str(error), place) from None
        places[key] = place


def _place(path: Path, text: str, key: str) -> str:
    """Return the file and the line in which a key at the top level stands, if it is found."""
    name = re.escape(key)
    pattern = rf"^[ \t]*\[?[ \t]*(?:{name}|\"{name}\"|'{name}')[ \t]*[=.\]]"
    found = re.search(pattern, text, re.MULTILINE)
    return f"{path}:{text.count(chr(10), 0, found.start()) + 1}" if found else str(path)


def flags_of(given: Mapping[str, object]) -> dict[str, str]:
    """Return what `read` takes, from a command line's values: None where a flag was not given."""
    flags: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, bool):
            flags[name] = "true" if value else "false"
        elif isinstance(value, str):
            flags[name] = value
        elif isinstance(value, Sequence) and value:
            flags[name] = " ".join(value)
    return flags
