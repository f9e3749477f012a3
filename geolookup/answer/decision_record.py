"""Decision records: what was decided about a roster, without any data of the people in it.

A caller may keep them, to account for a measure or to publish how often it acted;
docs/decision-record.md describes the form. Every `DecisionRecord` is consistent: what can
be checked without the dataset is checked when it is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from geolookup.answer.claims import Network, Policy, Reason, Status
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.subdivisions import subdivisions
from geolookup.atomic import naming, replacing
from geolookup.errors import GeoLookupError

FORMAT: Final = 2
"""Version of the form."""

WITHOUT_REASONS: Final = 1
"""The version before it, of records without reasons. It is read, and kept as it is."""

MAX_REFERENCE: Final = 256
"""Characters of a reference: a file number with its authority, and no prose."""

MAX_FILE: Final = 64 << 20
"""Bytes of a file of records: some 50,000 of them, more than anybody reads at once."""

_OMITTED: Final = frozenset({"networks", "overrides", "base_dataset"})
"""Keys that a record has where they say something."""

_Kind = TypeVar("_Kind", Status, Reason)

_MAX_SIZE = 2**32 - 1
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HEX = re.compile(r"[0-9a-f]{64}")
_EXPRESSION = re.compile(r"[A-Z0-9_/+-]+")
_LONGEST_EXPRESSION = 40_000
"""Characters; all subdivisions, one by one, have 35,000. What may be asked for is shorter."""
_WHITE = re.compile(r"[ \t\r\n\ufeff]*")

_UNDETERMINED = (Status.UNASSIGNED, Status.SPECIAL_PURPOSE, Status.INVALID)
"""What has no country, and so no verdict under any policy."""

_ONLY_OF = {
    Reason.UNASSIGNED: Status.UNASSIGNED,
    Reason.SPECIAL_PURPOSE: Status.SPECIAL_PURPOSE,
    Reason.INVALID: Status.INVALID,
    Reason.NO_COUNTRY: Status.OVERRIDE,
}
"""Reasons that addresses of one status alone have."""


class RecordError(GeoLookupError, ValueError):
    """A decision record is not valid. The text names the field and repeats no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """What was decided about one roster at one time.

    Attributes:
        time: when it was decided, in UTC, to the second.
        dataset: id of the dataset that answered: 64 hexadecimal digits.
        dataset_built: when that was built, in UTC, to the second.
        region_set: the region set as it was asked for: a name or an expression.
        region_set_version: version of its definition; empty: it is made of
            country codes alone.
        codes: the codes of countries and subdivisions that it stood for, sorted.
        policy: how claims became verdicts.
        size: addresses in the roster, or its participants if it came in groups.
        inside: how many of them were inside the region set.
        outside: how many were outside.
        undetermined: how many were neither.
        statuses: addresses for each status that occurs.
        reasons: the undetermined for each reason that occurs; None: the record has
            format 1, which has none.
        addresses: addresses in the roster, by default *size*; more where participants
            have several. None in format 1, where they are *size*.
        networks: "IGNORE" where networks that hide where their users are were ignored. The
            kinds that hid them, by commas, where an operator chose others than the dataset's
            manifest. Else empty.
        reference: the caller's own, such as the number of a legal demand; see
            `with_reference`. Empty: none.
        subdivision_sources: as in `geolookup.open`, where *codes* has subdivisions; else None.
        overrides: SHA-256 of the file of overrides that acted: 64 hexadecimal digits. Empty: none
            did.
        base_dataset: id of the dataset that they were laid over; likewise.

    Raises:
        RecordError: the values contradict each other or themselves.
    """

    time: datetime
    dataset: str
    dataset_built: datetime
    region_set: str
    region_set_version: str
    codes: tuple[str, ...]
    policy: Policy
    size: int
    inside: int
    outside: int
    undetermined: int
    statuses: Mapping[Status, int] = field(hash=False)
    reasons: Mapping[Reason, int] | None = field(hash=False, default=None)
    addresses: int | None = None
    networks: str = ""
    reference: str = ""
    subdivision_sources: int | None = None
    overrides: str = ""
    base_dataset: str = ""

    def __post_init__(self) -> None:
        if self.addresses is None and self.reasons is not None:
            object.__setattr__(self, "addresses", self.size)
        _check(self)
        # Read only, and in one order, so that equal records are printed alike.
        counts = {status: self.statuses[status] for status in sorted(self.statuses)}
        object.__setattr__(self, "statuses", MappingProxyType(counts))
        if self.reasons is not None:
            reasons = {reason: self.reasons[reason] for reason in sorted(self.reasons)}
            object.__setattr__(self, "reasons", MappingProxyType(reasons))

    @property
    def format(self) -> int:
        """Version of the record's form: 2, or 1 where it has no reasons."""
        return WITHOUT_REASONS if self.reasons is None else FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 of the record's canonical form: 64 hexadecimal digits.

        It detects accidental changes. A deliberate change can include the digest; sign
        records where that matters.
        """
        return hashlib.sha256(_canonical(_plain(self))).hexdigest()

    def with_reference(self, reference: str) -> DecisionRecord:
        """Return this record with the caller's reference, such as that of a legal demand.

        It never reaches the service. What it says is the caller's to answer for: it must
        name no person and no address.

        Raises:
            RecordError: over 256 characters, or characters that are not printable.
        """
        return replace(self, reference=reference)


def to_json(record: DecisionRecord) -> str:
    """Return a record as one line of JSON, without a line end: what callers keep.

    Equal records give the same text. Its form is RFC 8785 (JCS).
    """
    return _canonical(to_mapping(record)).decode()


def to_mapping(record: DecisionRecord) -> dict[str, Any]:
    """Return a record as the object that its JSON text is."""
    return {**_plain(record), "digest": record.digest}


def from_json(text: str | bytes) -> DecisionRecord:
    """Return the record that a JSON text holds; the order of its keys is free.

    Raises:
        RecordError: it holds none, its digest is another, or its numbers contradict
            each other.
    """
    try:
        return from_mapping(_decoder.decode(_text(text)))
    except json.JSONDecodeError as error:
        line, column = error.lineno, error.colno
    except RecursionError:
        raise RecordError("record: not JSON: nested too deeply") from None
    # Not in the handler, so that the error that holds the text is no part of this one.
    raise RecordError(f"record: not JSON, at line {line}, column {column}")


def from_mapping(values: object) -> DecisionRecord:
    """Return the record that a parsed JSON object is; as `from_json`."""
    if not isinstance(values, dict):
        raise RecordError("record: expected a JSON object")
    expected = {item.name for item in fields(DecisionRecord)} | {"format", "digest"}
    number = _number(values, "format") if "format" in values else FORMAT
    if number == WITHOUT_REASONS:
        expected -= {"reasons", "addresses"}
        # A message of protobuf has all fields.
        absent = {"reasons": "{}", "addresses": "0"}
        values = {key: one for key, one in values.items() if absent.get(key) != repr(one)}
    elif number != FORMAT:
        raise RecordError("format: not 1 or 2, which are known")
    # A message of protobuf has an empty text where there is none.
    values = {key: one for key, one in values.items() if key not in _OMITTED or one != ""}
    missing = sorted(expected - values.keys() - {"reference", "subdivision_sources"} - _OMITTED)
    if missing:
        raise RecordError(f"{missing[0]}: missing")
    if values.keys() - expected:
        raise RecordError("record: a key that is not known")
    record = DecisionRecord(
        time=_read_time(values, "time"),
        dataset=_string(values, "dataset"),
        dataset_built=_read_time(values, "dataset_built"),
        region_set=_string(values, "region_set"),
        region_set_version=_string(values, "region_set_version"),
        codes=_codes(values["codes"]),
        policy=_policy(_string(values, "policy")),
        size=_number(values, "size"),
        inside=_number(values, "inside"),
        outside=_number(values, "outside"),
        undetermined=_number(values, "undetermined"),
        statuses=_counts("statuses", values["statuses"], Status),
        reasons=_counts("reasons", values["reasons"], Reason) if number == FORMAT else None,
        addresses=_number(values, "addresses") if number == FORMAT else None,
        networks=_string(values, "networks") if "networks" in values else "",
        reference=_string(values, "reference") if "reference" in values else "",
        overrides=_string(values, "overrides") if "overrides" in values else "",
        base_dataset=_string(values, "base_dataset") if "base_dataset" in values else "",
        # A message of protobuf has 0 where there is none.
        subdivision_sources=(
            _number(values, "subdivision_sources") or None
            if "subdivision_sources" in values
            else None
        ),
    )
    if values["digest"] != record.digest:
        raise RecordError("digest: not that of this record; it was altered")
    return record


def read(path: str | os.PathLike[str]) -> list[DecisionRecord]:
    """Return the records of a file, in order: JSON objects one after another.

    Raises:
        RecordError: a record makes no sense. The text names file and line.
        OSError: as the operating system has it.
    """
    return [from_place(place, values) for place, values in scan(path)]


def scan(path: str | os.PathLike[str]) -> list[tuple[str, object]]:
    """Return the JSON values of a file, each with its place (``file:line``), unchecked.

    Raises:
        RecordError: it is not JSON from some place on, or over 64 MiB.
        OSError: as the operating system has it.
    """
    name = os.fsdecode(path)
    with open(path, "rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise RecordError(f"{name}: over {MAX_FILE >> 20} MiB")
    try:
        text = _text(content)
    except RecordError as error:
        raise RecordError(f"{name}: {error}") from None
    found: list[tuple[str, object]] = []
    line, at = 1, 0
    while True:
        start = _end(_WHITE, text, at)
        line += text.count("\n", at, start)
        at = start
        if at == len(text):
            return found
        try:
            value, end = _decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            break
        found.append((f"{name}:{line}", value))
        line += text.count("\n", at, end)
        at = end
    raise RecordError(f"{name}:{line}: not JSON")


def from_place(place: str, values: object) -> DecisionRecord:
    """Return the record of one entry of `scan`.

    Raises:
        RecordError: as `from_mapping`; the text begins with the place.
    """
    try:
        return from_mapping(values)
    except RecordError as error:
        raise RecordError(f"{place}: {error}") from None


def write(path: str | os.PathLike[str], records: Iterable[DecisionRecord]) -> None:
    """Write a file of records, a line each, as a whole or not at all.

    Raises:
        OSError: as the operating system has it, such as a full disk.
    """
    with replacing(path) as file:
        for record in records:
            file.write(to_json(record).encode() + b"\n")


def append(path: str | os.PathLike[str], record: DecisionRecord) -> None:
    """Add a record to a file, which is made if it is not there, and bring it to the disk.

    Several processes may do so at the same time: a line is one write.

    Raises:
        OSError: as the operating system has it, such as a full disk.
    """
    line = to_json(record).encode() + b"\n"
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(28, "the record could be written in part only", os.fsdecode(path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain(record: DecisionRecord) -> dict[str, Any]:
    values: dict[str, Any] = {
        "format": record.format,
        "time": record.time.strftime(_TIME),
        "dataset": record.dataset,
        "dataset_built": record.dataset_built.strftime(_TIME),
        "region_set": record.region_set,
        "region_set_version": record.region_set_version,
        "codes": list(record.codes),
        "policy": record.policy.name,
        "size": record.size,
        "inside": record.inside,
        "outside": record.outside,
        "undetermined": record.undetermined,
        "statuses": {status.name: count for status, count in record.statuses.items()},
    }
    if record.reasons is not None:
        values["reasons"] = {reason.name: count for reason, count in record.reasons.items()}
        values["addresses"] = record.addresses
    if record.subdivision_sources is not None:
        values["subdivision_sources"] = record.subdivision_sources
    if record.overrides:
        values["overrides"] = record.overrides
        values["base_dataset"] = record.base_dataset
    if record.networks:
        values["networks"] = record.networks
    return values | ({"reference": record.reference} if record.reference else {})


def _canonical(values: Mapping[str, Any]) -> bytes:
    # All keys are ASCII and all numbers small integers, so this is RFC 8785.
    return json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _check(record: DecisionRecord) -> None:
    for name, time in (("time", record.time), ("dataset_built", record.dataset_built)):
        if time.utcoffset() is None or time.utcoffset() != UTC.utcoffset(None):
            raise RecordError(f"{name}: not in UTC")
        if time.microsecond or time.year < 1970:
            raise RecordError(f"{name}: expected whole seconds, from 1970 on")
    if not _HEX.fullmatch(record.dataset):
        raise RecordError("dataset: not 64 hexadecimal digits")
    if len(record.region_set) > _LONGEST_EXPRESSION or not _EXPRESSION.fullmatch(record.region_set):
        raise RecordError("region_set: not an expression of names joined by + and -")
    # The version is an operator's own text; half a character in it can't be written.
    if not _encodable(record.region_set_version):
        raise RecordError("region_set_version: not a text")
    if len(record.reference) > MAX_REFERENCE:
        raise RecordError(f"reference: over {MAX_REFERENCE} characters")
    if not record.reference.isprintable():
        raise RecordError("reference: holds characters that are not printable")
    _check_codes(record)
    counts = {
        "size": record.size,
        "inside": record.inside,
        "outside": record.outside,
        "undetermined": record.undetermined,
        **({} if record.addresses is None else {"addresses": record.addresses}),
        **{f"statuses.{status.name}": count for status, count in record.statuses.items()},
        **{f"reasons.{reason.name}": count for reason, count in (record.reasons or {}).items()},
    }
    for name, count in counts.items():
        if not 0 <= count <= _MAX_SIZE:
            raise RecordError(f"{name}: not in 0..4294967295")
    _check_rest(record)


def _check_codes(record: DecisionRecord) -> None:
    if not record.codes or list(record.codes) != sorted(set(record.codes)):
        raise RecordError("codes: expected at least one, sorted, each once")
    countries = {code for code in record.codes if len(code) == 2}
    places = set(record.codes) - countries
    if not COUNTRIES.keys() >= countries or (
        places and not subdivisions().parents.keys() >= places
    ):
        raise RecordError("codes: not all of them are codes of countries or subdivisions")
    if bool(places) != (record.subdivision_sources is not None):
        raise RecordError("subdivision_sources: belongs to codes of subdivisions")
    if record.subdivision_sources is not None and record.subdivision_sources < 1:
        raise RecordError("subdivision_sources: less than 1")


def _check_overrides(record: DecisionRecord) -> None:
    for name, digest in (("overrides", record.overrides), ("base_dataset", record.base_dataset)):
        if digest and not _HEX.fullmatch(digest):
            raise RecordError(f"{name}: not 64 hexadecimal digits")
    if bool(record.overrides) != bool(record.base_dataset):
        raise RecordError("base_dataset: belongs to overrides")


def _check_networks(networks: str) -> None:
    names = networks.split(",")
    known = [kind.name for kind in Network if kind.name in names]
    if networks not in ("", "IGNORE") and names != known:
        raise RecordError('networks: expected "IGNORE", kinds of networks, or nothing')


def _check_rest(record: DecisionRecord) -> None:
    _check_networks(record.networks)
    _check_overrides(record)
    if record.inside + record.outside + record.undetermined != record.size:
        raise RecordError("inside, outside and undetermined: their sum is not size")
    if record.addresses is not None and record.reasons is None:
        raise RecordError("addresses: in a record of format 1")
    addresses = record.size if record.addresses is None else record.addresses
    if addresses < record.size or (addresses > 0 and not record.size):
        raise RecordError("size: not that of a roster of so many addresses")
    if sum(record.statuses.values()) != addresses:
        total = "size" if record.addresses is None else "addresses"
        raise RecordError(f"statuses: their sum is not {total}")
    if 0 in record.statuses.values():
        raise RecordError("statuses: one that does not occur is counted")

    without = sum(record.statuses.get(status, 0) for status in _UNDETERMINED)
    # Of participants, too, each with a verdict has an address with a country.
    if record.inside + record.outside > addresses - without:
        raise RecordError("undetermined: less than the addresses without a country")
    if record.reasons is None:
        return
    if Reason.DECIDED in record.reasons or 0 in record.reasons.values():
        raise RecordError("reasons: one that does not occur is counted")
    if sum(record.reasons.values()) != record.undetermined:
        raise RecordError("reasons: their sum is not undetermined")
    for reason, status in _ONLY_OF.items():
        if record.reasons.get(reason, 0) > record.statuses.get(status, 0):
            raise RecordError(f"reasons.{reason.name}: more than the addresses of that status")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(content: str | bytes) -> str:
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise RecordError("record: not UTF-8")


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None  # noqa: S101 - it matches the empty text, too
    return found.end()


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise RecordError("record: a key stands there twice")
    return values


# A key that stands twice would be read in one way here and in another elsewhere.
_decoder: Final = json.JSONDecoder(object_pairs_hook=_unique)


def _string(values: Mapping[str, object], name: str) -> str:
    value = values[name]
    if not isinstance(value, str):
        raise RecordError(f"{name}: expected a text")
    return value


def _number(values: Mapping[str, object], name: str) -> int:
    value = values[name]
    if type(value) is not int:
        raise RecordError(f"{name}: expected a number")
    return value


def _read_time(values: Mapping[str, object], name: str) -> datetime:
    text = _string(values, name)
    try:
        time = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        time = None
    if time is None or time.strftime(_TIME) != text:
        raise RecordError(f"{name}: expected a time such as 2026-11-24T09:30:00Z")
    return time


def _codes(codes: object) -> tuple[str, ...]:
    if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
        raise RecordError("codes: expected a list of country codes")
    return tuple(codes)


def _policy(name: str) -> Policy:
    policy = Policy.__members__.get(name)
    if policy is None:
        raise RecordError(f"policy: expected one of {', '.join(Policy.__members__)}")
    return policy


def _counts(field: str, counts: object, kind: type[_Kind]) -> dict[_Kind, int]:
    if not isinstance(counts, dict) or not kind.__members__.keys() >= counts.keys():
        raise RecordError(f"{field}: expected numbers by the names of {field}")
    return {kind[name]: _number(counts, name) for name in counts}
