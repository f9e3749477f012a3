"""Kinds of values: how to read them from strings or TOML, check them, and print them."""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from geolookup.answer.claims import Network, read_kinds
from geolookup.service.settings.listening import ListenAddress
from geolookup.service.settings.problems import SettingsError

T = TypeVar("T")

NONE = "none"
"""How an optional setting that is not set is written, since TOML has no null."""

AS_COMPILED = "as-compiled"
"""How a setting is written that leaves the matter to the dataset's manifest."""

Plain = str | int | float | bool | list[str] | dict[str, list[str]]
"""A value that TOML and JSON both have."""


class UnfitError(ValueError):
    """A value is not of its kind. The text has what was expected, and not the value."""


class Kind(ABC, Generic[T]):
    """A kind of value.

    Attributes:
        metavar: stands for a value in the help; empty: the flag has none.
        expected: the values of this kind, to follow the word "expected".
    """

    metavar: str
    expected: str

    @abstractmethod
    def from_text(self, text: str, folder: Path) -> T:
        """Read a value from a flag or a variable; paths are relative to *folder*.

        Raises:
            UnfitError: it is not of this kind.
        """

    def from_toml(self, value: object, folder: Path) -> T:  # noqa: ARG002 - of paths alone
        """Read a value as a TOML reader gives it; paths are relative to *folder*.

        Raises:
            UnfitError: it is not of this kind.
        """
        return self.check(value)

    @abstractmethod
    def check(self, value: Any) -> T:
        """Return a value that is of this kind and within its bounds.

        Raises:
            UnfitError: it is not.
        """

    def plain(self, value: Any) -> Plain:
        """Return a value as `from_toml` reads it."""
        plain: Plain = value
        return plain

    def unfit(self) -> UnfitError:
        """Return the error of a value that is not of this kind."""
        return UnfitError(f"expected {self.expected}")


class WholeNumber(Kind[int]):
    """A whole number within bounds."""

    def __init__(self, least: int, most: int, metavar: str = "N") -> None:
        self.least, self.most, self.metavar = least, most, metavar
        self.expected = f"a whole number from {least:,} to {most:,}"

    def from_text(self, text: str, folder: Path) -> int:  # noqa: ARG002
        # As in TOML. int() would also take spaces, and digits of other scripts.
        if not re.fullmatch(r"[0-9]+(_[0-9]+)*", text, re.ASCII) or len(text) > 20:
            raise self.unfit()
        return self.check(int(text))

    def check(self, value: Any) -> int:
        if type(value) is not int or not self.least <= value <= self.most:
            raise self.unfit()
        return value


class Seconds(Kind[float]):
    """Seconds within bounds. 0 is allowed, too, if *zero* has its meaning."""

    metavar = "SECONDS"

    def __init__(self, least: float, most: float, zero: str = "") -> None:
        self.least, self.most, self.zero = least, most, zero
        self.expected = f"seconds from {least:g} to {most:,.10g}{f' (0: {zero})' if zero else ''}"

    def from_text(self, text: str, folder: Path) -> float:  # noqa: ARG002
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII):
            raise self.unfit()
        return self.check(float(text))

    def check(self, value: Any) -> float:
        if type(value) not in {int, float} or not math.isfinite(value):
            raise self.unfit()
        if not (self.least <= value <= self.most or (self.zero and value == 0)):
            raise self.unfit()
        return float(value)

    def plain(self, value: Any) -> float:
        return int(value) if value == int(value) else float(value)


_SWITCHES: Final = {
    **dict.fromkeys(("true", "True", "TRUE", "1"), True),
    **dict.fromkeys(("false", "False", "FALSE", "0"), False),
}
"""Values of a switch in flags and variables. YAML has three spellings, and the templates that fill
variables from it write any of them."""


class Switch(Kind[bool]):
    """On or off."""

    metavar = ""
    expected = "true or false"

    def from_text(self, text: str, folder: Path) -> bool:  # noqa: ARG002
        value = _SWITCHES.get(text)
        if value is None:
            raise self.unfit()
        return value

    def check(self, value: Any) -> bool:
        if type(value) is not bool:
            raise self.unfit()
        return value


class Choice(Kind[str]):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = "|".join(words)
        self.expected = f"{', '.join(words[:-1])} or {words[-1]}"

    def from_text(self, text: str, folder: Path) -> str:  # noqa: ARG002
        return self.check(text)

    def check(self, value: Any) -> str:
        if type(value) is not str or value not in self.words:
            raise self.unfit()
        return value


class HeaderName(Kind[str | None]):
    """The name of a request header, in lower case, or none.

    Args:
        chains: headers that carry no single value.
    """

    metavar = "NAME"
    expected = f"a request header's name, or {NONE}"

    def __init__(self, *chains: str) -> None:
        self.chains = chains

    def from_text(self, text: str, folder: Path) -> str | None:  # noqa: ARG002
        return None if text == NONE else self.check(text.lower())

    def from_toml(self, value: object, folder: Path) -> str | None:
        if not isinstance(value, str):
            raise self.unfit()
        return self.from_text(value, folder)

    def check(self, value: Any) -> str | None:
        if value is None:
            return None
        # What RFC 9110 calls a token, which leaves out HTTP/2's own (":authority").
        if not isinstance(value, str) or not re.fullmatch(_HEADER_NAME, value, re.ASCII):
            raise self.unfit()
        if value in self.chains:
            raise UnfitError(f"not {value}, which is a chain; for those there is authz_trusted")
        return value

    def plain(self, value: Any) -> str:
        return NONE if value is None else str(value)


_HEADER_NAME: Final = r"[!#$%&'*+.^_`|~0-9a-z-]{1,256}"


class Prefixes(Kind[tuple[str, ...]]):
    """CIDR prefixes, each with an address or alone; in a string by commas."""

    metavar = "PREFIXES"
    expected = f"{NONE}, or prefixes such as 10.0.0.0/8"

    def from_text(self, text: str, folder: Path) -> tuple[str, ...]:  # noqa: ARG002
        return self.check(() if text == NONE else tuple(text.split(",")))

    def from_toml(self, value: object, folder: Path) -> tuple[str, ...]:
        if isinstance(value, str):
            return self.from_text(value, folder)
        if not isinstance(value, list):
            raise self.unfit()
        return self.check(tuple(value))

    def check(self, value: Any) -> tuple[str, ...]:
        if type(value) is not tuple or not all(type(one) is str for one in value):
            raise self.unfit()
        if value:
            # Not before there are some, as most services have none.
            from geolookup.answer.client_address import ClientAddress  # noqa: PLC0415

            for position, one in enumerate(value, start=1):
                try:
                    ClientAddress([one])
                except ValueError as error:
                    # The text of the other errors repeats the value.
                    trusts_all = str(error).startswith("trusted: ")
                    reason = "trusts everybody" if trusts_all else "is none"
                    raise UnfitError(
                        f"expected {self.expected}: number {position} {reason}"
                    ) from None
        return value

    def plain(self, value: Any) -> Plain:
        return list(value) or NONE


class FilePath(Kind[Path | None]):
    """A file's path, or none. A relative one in a file is relative to that file."""

    metavar = "FILE"
    expected = f"a file's path, or {NONE}"

    def from_text(self, text: str, folder: Path) -> Path | None:
        if text == NONE:
            return None
        if not text:
            raise self.unfit()
        # Links are not resolved: certificates and datasets are often replaced by changing one.
        return self.check(Path(os.path.abspath(folder / text)))

    def from_toml(self, value: object, folder: Path) -> Path | None:
        if not isinstance(value, str):
            raise self.unfit()
        return self.from_text(value, folder)

    def check(self, value: Any) -> Path | None:
        if value is None:
            return None
        if not isinstance(value, Path) or "\0" in str(value):
            raise self.unfit()
        try:
            str(value).encode()
        except UnicodeEncodeError:  # it could not be written down in TOML
            raise UnfitError("expected a path in UTF-8") from None
        return value

    def plain(self, value: Any) -> str:
        return NONE if value is None else str(value)


class FolderPath(FilePath):
    """A folder's path, or none; see `FilePath`."""

    metavar = "FOLDER"
    expected = f"a folder's path, or {NONE}"


class Listener(Kind[str | None]):
    """A listener's address.

    Args:
        optional: whether it may be none.
        unix: whether it may be a unix socket.
    """

    metavar = "ADDRESS"

    def __init__(self, *, optional: bool = False, unix: bool = True) -> None:
        self.optional, self.unix = optional, unix
        forms = ["HOST:PORT", "[IPV6]:PORT", *["unix:PATH"] * unix, *[NONE] * optional]
        self.expected = f"{', '.join(forms[:-1])} or {forms[-1]}"

    def from_text(self, text: str, folder: Path) -> str | None:
        if self.optional and text == NONE:
            return None
        path = text.removeprefix("unix:")
        if path not in {"", text}:
            text = f"unix:{os.path.abspath(folder / path)}"
        return self.check(text)

    def from_toml(self, value: object, folder: Path) -> str | None:
        if not isinstance(value, str):
            raise self.unfit()
        return self.from_text(value, folder)

    def check(self, value: Any) -> str | None:
        if value is None and self.optional:
            return None
        if not isinstance(value, str):
            raise self.unfit()
        if value.startswith("unix:") and not self.unix:
            raise self.unfit()
        try:
            ListenAddress.parse(value)
        except SettingsError as error:
            # A socket's path has errors beyond its form.
            path = value.startswith("unix:")
            raise (UnfitError(error.problem) if path else self.unfit()) from None
        return value

    def plain(self, value: Any) -> str:
        return NONE if value is None else str(value)


class Listeners(Kind[tuple[str, ...]]):
    """Names of listeners; in a string by commas.

    Args:
        names: those that may be named.
        never: by other listeners' names, why they may not.
    """

    metavar = "LISTENERS"

    def __init__(self, *names: str, never: Mapping[str, str]) -> None:
        self.names, self.never = names, never
        self.expected = f"{NONE}, or of {', '.join(names)}"

    def from_text(self, text: str, folder: Path) -> tuple[str, ...]:  # noqa: ARG002
        if text in _SWITCHES:  # what it was once
            raise self._no_switch()
        return self.check(() if text == NONE else tuple(text.split(",")))

    def from_toml(self, value: object, folder: Path) -> tuple[str, ...]:
        if isinstance(value, bool):
            raise self._no_switch()
        if isinstance(value, str):
            return self.from_text(value, folder)
        if not isinstance(value, list):
            raise self.unfit()
        return self.check(tuple(value))

    def _no_switch(self) -> UnfitError:
        return UnfitError(
            f"expected {self.expected}: it names listeners and is no switch any more; in place "
            f"of true write {','.join(self.names)}, of false {NONE}"
        )

    def check(self, value: Any) -> tuple[str, ...]:
        if type(value) is bool:
            raise self._no_switch()
        if type(value) is not tuple:
            raise self.unfit()
        for name in value:
            if name in self.never:
                raise UnfitError(f"not {name}: {self.never[name]}")
            if name not in self.names:
                raise self.unfit()
        return value

    def plain(self, value: Any) -> Plain:
        return list(value) or NONE


class Covering(Kind[tuple[Network, ...] | None]):
    """Kinds of networks, none of them, or those of the manifest; in a string by commas."""

    metavar = "KINDS"
    expected = f"{AS_COMPILED}, {NONE}, or of {', '.join(Network.__members__)}"

    def from_text(self, text: str, folder: Path) -> tuple[Network, ...] | None:  # noqa: ARG002
        if text == AS_COMPILED:
            return None
        return self._named([] if text == NONE else text.split(","))

    def from_toml(self, value: object, folder: Path) -> tuple[Network, ...] | None:
        if isinstance(value, str):
            return self.from_text(value, folder)
        if not isinstance(value, list):
            raise self.unfit()
        return self._named(value)

    def _named(self, names: list[str]) -> tuple[Network, ...]:
        try:
            return read_kinds(names)
        except (TypeError, ValueError):
            raise self.unfit() from None

    def check(self, value: Any) -> tuple[Network, ...] | None:
        if value is not None and (
            type(value) is not tuple or not all(isinstance(kind, Network) for kind in value)
        ):
            raise self.unfit()
        return value

    def plain(self, value: Any) -> Plain:
        return AS_COMPILED if value is None else [kind.name for kind in value]


class AllowLists(Kind[Mapping[str, frozenset[str]]]):
    """Which identities may call which rpc: a table of lists; in a string RPC=IDENTITY by spaces."""

    metavar = "RPC=IDENTITY"
    expected = "for each rpc a list of at least one identity"

    def __init__(self, *rpcs: str) -> None:
        self.rpcs = rpcs

    def from_text(self, text: str, folder: Path) -> Mapping[str, frozenset[str]]:
        lists: dict[str, list[str]] = {}
        for pair in text.split():
            rpc, separator, identity = pair.partition("=")
            if not separator:
                raise UnfitError("expected RPC=IDENTITY, several separated by spaces")
            lists.setdefault(rpc, []).append(identity)
        return self.from_toml(lists, folder)

    def from_toml(self, value: object, folder: Path) -> Mapping[str, frozenset[str]]:  # noqa: ARG002
        if not isinstance(value, dict) or not all(
            isinstance(identities, list) and all(isinstance(one, str) for one in identities)
            for identities in value.values()
        ):
            raise self.unfit()
        return self.check({rpc: frozenset(identities) for rpc, identities in value.items()})

    def check(self, value: Any) -> Mapping[str, frozenset[str]]:
        if not isinstance(value, Mapping):
            raise self.unfit()
        for rpc, identities in value.items():
            if rpc not in self.rpcs:
                raise UnfitError(f"no rpc has the name {rpc}; there are {', '.join(self.rpcs)}")
            # An empty list is more likely a mistake than the intent to close an rpc.
            if not isinstance(identities, frozenset) or not identities or "" in identities:
                raise self.unfit()
        return value

    def plain(self, value: Any) -> dict[str, list[str]]:
        return {rpc: sorted(value[rpc]) for rpc in sorted(value)}
