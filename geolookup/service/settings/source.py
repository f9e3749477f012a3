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

_NOT_OURS: Final = frozenset(
    {"GEOLOOKUP_CLIENT_TRANSPORT", "GEOLOOKUP_FETCH", "GEOLOOKUP_WARN_AGE", "GEOLOOKUP_WERROR"}
)
"""Variables of clients, of the other commands, and of this project's build and tests."""

# Kubernetes and container links describe a service named geolookup, or geolookup-x, in
# the environment of all its neighbours: GEOLOOKUP_SERVICE_HOST, GEOLOOKUP_PORT_50051_TCP...
_SERVICE_LINK: Final = re.compile(
    r"GEOLOOKUP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|NAME|ENV_\w+)=.*"
    r"|GEOLOOKUP_(\w+_)?PORT=(tcp|udp|sctp)://.*",
    re.ASCII | re.DOTALL,
)
"""Of a name and a value, with = between them."""
_DEFAULT: Final = "default"
"""How the origin of a default begins."""
_NEAR: Final = 0.7
"""Likeness of two names from which one is taken for a slip of the other, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, and the origin of each.

    Attributes:
        settings: all settings, checked.
        origins: by setting's name: a flag, a variable, a file and line, or the source of
            the default.
        unknown_variables: names of variables that look like settings and are none.
    """

    settings: Settings
    origins: Mapping[str, str]
    unknown_variables: tuple[str, ...] = ()


def read(flags: Mapping[str, str], environment: Mapping[str, str]) -> Configuration:
    """Read all settings.

    Args:
        flags: the given flags' values by setting's name, and that of "config".
        environment: the variables; only those that begin with ``GEOLOOKUP_`` are read.

    Raises:
        SettingsError: a value is not valid, a key is not known, a variable is not and its
            name is near that of a setting, or the file can't be read. The text has the origin.
    """
    here = Path.cwd()
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for row in table():
        values[row.name] = row.default if row.at_start is None else row.at_start()
        origins[row.name] = f"{_DEFAULT}: {row.default_text}" if row.default_text else _DEFAULT

    variables, unknown = _variables(environment)
    config, origin = flags.get("config"), CONFIG_FLAG
    if config is None:
        config, origin = variables.get(CONFIG_VARIABLE), CONFIG_VARIABLE
    if config is not None:
        _from_file(_path(config, here, origin), values, origins)
    for row in table():
        if row.variable in variables:
            _put(row, variables[row.variable], here, row.variable, values, origins)
        if row.name in flags:
            _put(row, flags[row.name], here, row.flag, values, origins)
    for row in table():
        if row.beside is not None and origins[row.name].startswith(_DEFAULT):
            values[row.name] = row.beside(values)
    return Configuration(_settings(values, origins), origins, unknown)


def _put(
    row: Setting,
    text: str,
    folder: Path,
    origin: str,
    values: dict[str, object],
    origins: dict[str, str],
) -> None:
    try:
        values[row.name] = row.kind.from_text(text, folder)
    except UnfitError as error:
        raise SettingsError(row.name, str(error), origin) from None
    origins[row.name] = origin


def _settings(values: Mapping[str, object], origins: Mapping[str, str]) -> Settings:
    tree: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for row in table():
        (limits if row.path[0] == "limits" else tree)[row.path[-1]] = values[row.name]
    try:
        return Settings(limits=RosterLimits(**limits), **tree)
    except SettingsError as error:
        raise SettingsError(error.setting, error.problem, origins[error.setting]) from None


def _variables(environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables of settings, and the names of those that belong to others.

    Raises:
        SettingsError: a name is near that of a setting, which would be ignored.
    """
    ours = {name: text for name, text in environment.items() if name.startswith(_PREFIX)}
    known = {CONFIG_VARIABLE, *(row.variable for row in table())}
    unknown = []
    for name in sorted(ours.keys() - known - _NOT_OURS):
        if _SERVICE_LINK.fullmatch(f"{name}={ours[name]}"):
            continue
        # Without the beginning, in which all are alike.
        near = _near(name.removeprefix(_PREFIX), [one.removeprefix(_PREFIX) for one in known])
        if near:
            raise SettingsError(
                "environment",
                f"no setting has the variable {name}; is it "
                f"{' or '.join(_PREFIX + one for one in near)}?",
            )
        unknown.append(name)
    return {name: ours[name] for name in known & ours.keys()}, tuple(unknown)


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that *name* may be a slip of: like them, or longer or shorter."""
    near = [one for one in known if f"{name}_".startswith(f"{one}_")]
    near += [one for one in known if name and one.startswith(name)]
    near += difflib.get_close_matches(name, sorted(known), cutoff=_NEAR)
    return list(dict.fromkeys(near))[:3]


def _path(text: str, here: Path, origin: str) -> Path:
    if not text or "\0" in text:
        raise SettingsError("config", "expected a file's path", origin)
    return here / text


def _from_file(path: Path, values: dict[str, object], origins: dict[str, str]) -> None:
    error = partial(SettingsError, "config")
    raw = tomlfile.read_raw(path, error, _LARGEST_FILE)
    content = tomlfile.load(raw, str(path), error)
    text = raw.decode()
    known = {row.name: row for row in table()}
    folder = Path(os.path.abspath(path)).parent
    for key, value in content.items():
        origin = _origin(path, text, key)
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), cutoff=_NEAR)
            hint = f"; is it {' or '.join(near)}?" if near else ""
            raise SettingsError("config", f"no setting has the name {key}{hint}", origin)
        try:
            values[key] = known[key].kind.from_toml(value, folder)
        except UnfitError as error:
            raise SettingsError(key, str(error), origin) from None
        origins[key] = origin


def _origin(path: Path, text: str, key: str) -> str:
    """Return the file and the line of a key at the top level, if it is found."""
    name = re.escape(key)
    pattern = rf"^[ \t]*\[?[ \t]*(?:{name}|\"{name}\"|'{name}')[ \t]*[=.\]]"
    found = re.search(pattern, text, re.MULTILINE)
    return f"{path}:{text.count(chr(10), 0, found.start()) + 1}" if found else str(path)


def flags_of(given: Mapping[str, object]) -> dict[str, str]:
    """Return the flags for `read` from a command line's values, which are None if not given."""
    flags: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, bool):
            flags[name] = "true" if value else "false"
        elif isinstance(value, str):
            flags[name] = value
        elif isinstance(value, Sequence) and value:
            flags[name] = " ".join(value)
    return flags
