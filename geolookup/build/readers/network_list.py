"""Lists of networks: which ranges are VPNs, hosting, Tor's exits, ...

A list has one kind for all its ranges, or says the kinds itself. Each of these is read, and told
apart by its content:

- lines with a prefix, an address, or a first and a last address; what else a line has is ignored,
  and a header may name the columns (``network``, ``start`` and ``end``, ...);
- Tor's exit list (``ExitAddress 192.0.2.1 2026-11-01 00:00:00``);
- JSON with prefixes anywhere in it: the clouds' and GitHub's;
- MaxMind's Anonymous-IP CSV, and MMDB with such flags or GeoIP2's ``traits``: they say the kinds;
- IP2Proxy's CSV, whose third column says the kind.

Prefixes may be there twice, and within others.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from geolookup._core import parse
from geolookup._sweep import Dialect
from geolookup.answer.claims import Network, network_bits, networks_of
from geolookup.answer.overrides import read_prefix
from geolookup.build.readers import decompression, detection, mmdb
from geolookup.build.readers.ranges import SourceRanges
from geolookup.build.readers.source_file import Faults, ReadState, SourceFile, read_lines
from geolookup.errors import SourceError

_FLAGS: Final = {
    "is_tor_exit_node": Network.TOR,
    "is_anonymous_vpn": Network.VPN,
    "is_public_proxy": Network.PROXY,
    "is_residential_proxy": Network.PROXY,
    "is_anonymous_proxy": Network.PROXY,
    "is_hosting_provider": Network.HOSTING,
    "is_satellite_provider": Network.SATELLITE,
    "is_anycast": Network.ANYCAST,
}
_ANONYMOUS = "is_anonymous"
"""Set beside one of the others; by itself it is a proxy of no kind that is known."""

_PROXY_TYPES: Final = {
    "VPN": Network.VPN,
    "TOR": Network.TOR,
    "DCH": Network.HOSTING,
    "PUB": Network.PROXY,
    "WEB": Network.PROXY,
    "RES": Network.PROXY,
    "EPN": Network.PROXY,
    "CPN": Network.RELAY,
}
"""IP2Proxy's types; SES (search engines) and "-" are none."""

_TOR = ("ExitNode", "ExitAddress", "Published", "LastStatus")


def read(
    files: Sequence[Path],
    kinds: int,
    *,
    faults: Faults | None = None,
    on_read: Callable[[int], None] | None = None,
) -> SourceRanges:
    """Read a list's files; the code of each range is its kinds' bits.

    Args:
        files: where it is; of a folder or an archive, the files in it.
        kinds: the bits of the kinds of all its ranges; 0: the list says them.
        faults: takes the lines that can't be read, as far as it allows any.
        on_read: called repeatedly with the number of bytes read so far.

    Raises:
        SourceError: a file can't be read or holds no range, or a line makes no sense:
            ``file:line:column: what``. Or neither the list nor *kinds* has kinds, or the
            list says them and marks no network as any of *kinds*.
    """
    parts = [part for path in files for part in decompression.parts(path)]
    state = ReadState(
        SourceRanges(files=tuple(part.name for part in parts)), faults=faults or Faults()
    )
    before = 0
    for number, part in enumerate(parts):
        already = len(state.into)

        def on_block(position: int, before: int = before) -> None:
            if on_read is not None:
                on_read(before + position)

        file = SourceFile(part, number, next(part.blocks(), b""), on_block)
        _read(file, state, kinds)
        if len(state.into) == already:
            raise SourceError(f"{file.name}: holds no range")
        before += part.size
    if not any(bits for family in (state.into.ipv4, state.into.ipv6) for _, _, bits in family):
        names = "/".join(kind.name for kind in networks_of(kinds)) or "a kind that is known"
        raise SourceError(f"{files[0]}: marks no network as {names}")
    return state.into


def recognises(head: bytes) -> bool:
    """Return whether a file with this beginning may be a list whose kind is known."""
    begin = detection.beginning(head)
    if mmdb.recognises(head) or not begin.lines:
        return mmdb.recognises(head)
    if begin.lines[0].lstrip().startswith(("{", "[")) or begin.lines[0].split(" ", 1)[0] in _TOR:
        return True
    try:
        _dialect(begin.row(), begin.header())
    except ValueError:
        return False
    return True


def _read(file: SourceFile, state: ReadState, kinds: int) -> None:
    begin = detection.beginning(file.head)
    if mmdb.recognises(file.head):
        mmdb.read_records(file, state, lambda record: kinds_of_record(record) & (kinds or ~0))
        return
    if not begin.lines:
        raise SourceError(f"{file.name}: is empty")
    row = begin.row()
    if not kinds and len(row) > 2 and detection.is_range(row) and _is_proxy_type(row[2]):
        integers = detection.is_number(row[0])
        dialect = Dialect("ranges", quotes=True, integers=integers, least=3, last=1, code=2)
        read_lines(file, state, dialect, read_code=_proxy_bits)
        return
    header = begin.header()
    if _ANONYMOUS in header:
        _read_flags(file, state, kinds or ~0)
        return
    if not kinds:
        raise SourceError(
            f"{file.name}: does not say what its networks are used for; give its entry in the"
            ' manifest a kind, such as kind = "VPN"'
        )
    if begin.lines[0].lstrip().startswith(("{", "[")):
        _read_json(file, state, kinds)
    elif begin.lines[0].split(" ", 1)[0] in _TOR:
        _read_tor(file, state, kinds)
    else:
        try:
            skip, dialect = _dialect(row, header)
        except ValueError as error:
            raise SourceError(f"{file.name}:1: {error}") from None
        read_lines(file, state, dialect, skip=skip, read_code=lambda _: kinds)


def _dialect(row: list[str], header: list[str]) -> tuple[int, Dialect]:
    """Return the lines of the header, and how the others are read. ValueError: as nothing."""
    common: Any = {"quotes": True, "comments": True, "spaces": True}
    if detection.is_range(row):
        integers = detection.is_number(row[0])
        return 0, Dialect("ranges", **common, integers=integers, least=2, last=1)
    if row and detection.is_network(row[0]):
        return 0, Dialect("networks", **common, least=1)
    network = detection.column(header, detection.NETWORK)
    if network is not None:
        return 1, Dialect("networks", **common, least=network + 1, first=network)
    first = detection.column(header, detection.FIRST)
    last = detection.column(header, detection.LAST)
    if first is None or last is None:
        raise ValueError("neither a prefix, nor a range, nor names of columns")
    return 1, Dialect("ranges", **common, least=max(first, last) + 1, first=first, last=last)


def _read_json(file: SourceFile, state: ReadState, kinds: int) -> None:
    try:
        document = json.loads(b"".join(decompression.text(file.blocks(), file.name)))
    except (ValueError, RecursionError):
        raise SourceError(f"{file.name}: not JSON") from None
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, str) and detection.is_network(value):
            _append(file, state, value, kinds, file.name)


def _read_tor(file: SourceFile, state: ReadState, kinds: int) -> None:
    for number, line in enumerate(_lines(file), start=1):
        word, *fields = line.split()[:2] or [""]
        if word == "ExitAddress":
            _append(file, state, "".join(fields), kinds, f"{file.name}:{number}", number)
        elif word and word not in _TOR:
            state.faults.add(f"{file.name}:{number}", "no line of an exit list")


def _read_flags(file: SourceFile, state: ReadState, wanted: int) -> None:
    rows = csv.DictReader(_lines(file))
    names = [name.casefold() for name in rows.fieldnames or ()]
    rows.fieldnames = names
    network = next((name for name in detection.NETWORK if name in names), None)
    if network is None:
        raise SourceError(f"{file.name}:1: no column is called network")
    for row in rows:
        flags = {name: row.get(name) in ("1", "true", "True", "TRUE") for name in names}
        bits = _flag_bits(flags) & wanted
        if bits:
            place = f"{file.name}:{rows.line_num}"
            _append(file, state, row[network] or "", bits, place, rows.line_num)


def _append(
    file: SourceFile, state: ReadState, text: str, bits: int, place: str, line: int = 0
) -> None:
    try:
        alone = parse(text)
        first, last = read_prefix(text) if alone is None else (alone, alone)
    except SourceError as error:
        state.faults.add(place, str(error))
        return
    family = state.into.ipv4 if len(first) == 4 else state.into.ipv6
    family.append(int.from_bytes(first), int.from_bytes(last), bits, file=file.number, line=line)


def kinds_of_record(record: Any) -> int:
    """Return the bits of the kinds that a record of an MMDB database marks.

    It has MaxMind's flags, or ``traits`` with such flags.
    """
    if not isinstance(record, Mapping):
        return 0
    traits = record.get("traits", record)
    return _flag_bits(traits) if isinstance(traits, Mapping) else 0


def _flag_bits(flags: Mapping[str, Any]) -> int:
    bits = network_bits(kind for name, kind in _FLAGS.items() if flags.get(name) is True)
    if not bits and flags.get(_ANONYMOUS) is True:
        return Network.PROXY.bit
    return bits


def _is_proxy_type(text: str) -> bool:
    return text in _PROXY_TYPES or text in ("SES", "-")


def _proxy_bits(raw: str) -> int:
    # Several types stand as "VPN/DCH".
    types = raw.split("/")
    if not all(map(_is_proxy_type, types)):
        raise ValueError("not a type of IP2Proxy's")
    return network_bits(_PROXY_TYPES[one] for one in types if one in _PROXY_TYPES)


def _lines(file: SourceFile) -> Iterator[str]:
    rest = b""
    for block in decompression.text(file.blocks(), file.name):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r")
