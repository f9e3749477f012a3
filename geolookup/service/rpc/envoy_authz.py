"""Envoy's external authorization, answered from the dataset: joins are decided at the gateway.

Envoy calls ``envoy.service.auth.v3.Authorization/Check`` for each request. The address is
``attributes.source.address``: the peer that Envoy saw, or what its listener filters (PROXY
protocol) say. Envoy leaves ``X-Forwarded-For`` out of it. Headers are read where the operator
says so alone; see `check_address`.

A rule decides about an address, in one of two modes. A measure in one place refuses only
addresses INSIDE it; a service offered in some places admits only addresses INSIDE them.
These treat UNDETERMINED in opposite ways, so there is no default. Before a rule decides, it can
count; and without any rule, requests can be labelled for what decides later.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from geolookup.answer.claims import Policy, Verdict, encode_outcome, network_bits
from geolookup.errors import GeoLookupError, MissingExtraError, RegionSetError
from geolookup.service.rpc.check_address import PEER, CheckAddress
from geolookup.service.rpc.request import NULL_CALL, Call, Code, RequestError
from geolookup.tomlfile import Table, parse, read

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.results import Answer

UNAVAILABLE_FOR_LEGAL_REASONS: Final = 451
"""RFC 7725."""

_HEADER: Final = "x-geo-"
COUNTRY: Final = "country"
STATUS: Final = "status"
NETWORKS: Final = "networks"
VERDICT: Final = "verdict"
REASON: Final = "reason"
DATASET: Final = "dataset"
"""Labels of a request that passes: each is a header behind ``x-geo-``, and a key of metadata."""

_OK: Final = 0
_PERMISSION_DENIED: Final = 7
_RULE_KEYS: Final = (
    "name",
    "region_set",
    "mode",
    "policy",
    "hosts",
    "path_prefix",
    "reference",
    "blocked_by",
)
_EXTENSION: Final = "geolookup."
_ROUTE_KEYS: Final = frozenset(("region_set", "mode", "policy", "reference", "blocked_by"))


class RuleError(GeoLookupError, ValueError):
    """A rule is not valid. The text names the file and the key."""


class Mode(StrEnum):
    """What a rule does with a verdict."""

    DENY_INSIDE = "deny_inside"
    """A measure in one place: INSIDE is refused; OUTSIDE and UNDETERMINED pass."""
    ADMIT_INSIDE = "admit_inside"
    """A service offered in some places: INSIDE passes; OUTSIDE and UNDETERMINED are refused."""
    COUNT = "count"
    """A measure before it acts: the verdict is labelled and counted, and all pass."""
    LABEL = "label"
    """No region set and no verdict: what is known of the address is labelled, and all pass. Of
    routes alone, and of the service's setting: a file of rules labels without it."""

    @property
    def has_metadata(self) -> bool:
        """Whether the labels stand in Envoy's dynamic metadata, too."""
        return self in (Mode.COUNT, Mode.LABEL)

    def passes(self, verdict: Verdict) -> bool:
        """Return whether a request with this verdict passes."""
        return self.has_metadata or (verdict is Verdict.INSIDE) is (self is Mode.ADMIT_INSIDE)


_DECIDING: Final = {mode.value: mode for mode in Mode if mode is not Mode.LABEL}
"""Those with a region set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        name: the rule's name in routes and error texts.
        region_set: the region set of the verdict; empty where the mode has none.
        mode: what the rule does with the verdict.
        policy: how claims become the verdict.
        hosts: the hosts of the requests to which the rule applies, as `canonical_host`
            writes them; none: all.
        path_prefix: the beginning of the paths to which the rule applies, as
            `canonical_path` writes them.
        reference: of the legal demand; the response to a refused request shows it.
        blocked_by: URL of the authority, for the ``blocked-by`` link of RFC 7725.

    Raises:
        RuleError: a string can't be part of a header, or a host or prefix can never match.
    """

    name: str
    region_set: str
    mode: Mode
    policy: Policy = Policy.UNANIMOUS
    hosts: frozenset[str] = frozenset()
    path_prefix: str = ""
    reference: str = ""
    blocked_by: str = ""

    def __post_init__(self) -> None:
        for key, text in (("reference", self.reference), ("blocked_by", self.blocked_by)):
            if not (text.isascii() and text.isprintable()):
                raise RuleError(f"{key}: expected printable ASCII")
        if set(self.blocked_by) & set("<> "):
            raise RuleError("blocked_by: expected a URL")
        for position, host in enumerate(sorted(self.hosts), start=1):
            reason = _why_no_host(host)
            if reason is not None:
                raise RuleError(f"hosts: entry {position} can never match: {reason}")
        if self.path_prefix:
            reason = _why_no_prefix(self.path_prefix)
            if reason is not None:
                raise RuleError(f"path_prefix: can never match: {reason}")

    def applies(self, host: str, path: str) -> bool:
        """Return whether the rule applies to this canonical host and path."""
        if self.hosts and host not in self.hosts:
            return False
        return path.startswith(self.path_prefix)


LABEL: Final = Rule(name="label", region_set="", mode=Mode.LABEL)


class Rules:
    """The rules of a file, in its order. A route's own rule comes with the request.

    Args:
        rules: those of the file.
        file: its name, for error texts.
        label: whether requests without any rule are labelled, where there is no file; else they
            are an error.

    ::

        [[rule]]
        name = "measure-17"
        region_set = "CN"
        mode = "deny_inside"          # or "admit_inside", "count"; there is no default
        policy = "unanimous"          # the default
        hosts = ["meet.example.com"]  # left out: all
        path_prefix = "/join"         # left out: all
        reference = "order 17/2026"   # shown to those who are refused
        blocked_by = "https://authority.example/17"
    """

    def __init__(self, rules: Iterable[Rule] = (), file: str = "", *, label: bool = False) -> None:
        self._rules = tuple(rules)
        self._label = label
        self._place = f"{file}: " if file else ""
        self._by_name = {rule.name: rule for rule in self._rules}

    @classmethod
    def load(cls, path: Path) -> Rules:
        """Read a file of rules.

        Raises:
            RuleError: the file can't be read, or is not valid.
        """
        return cls._of(read(path, ("rule",), RuleError), str(path))

    @classmethod
    def parse(cls, text: bytes, name: str) -> Rules:
        """Read the content of such a file; error texts call it *name*.

        Raises:
            RuleError: the content is not valid.
        """
        return cls._of(parse(text, name, ("rule",), RuleError), name)

    @classmethod
    def _of(cls, table: Table, file: str) -> Rules:
        rules: dict[str, Rule] = {}
        for entry in table.tables("rule", _RULE_KEYS):
            rule = _rule(entry)
            if rules.setdefault(rule.name, rule) is not rule:
                raise entry.error("name: an earlier rule has it")
        if not rules:
            raise table.error("rule: there is none; expected tables, each under [[rule]]")
        return cls(rules.values(), file)

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)

    def check(self, dataset: Dataset) -> None:
        """Check that the dataset knows every region set.

        Raises:
            RuleError: a region set is not known. The text names file, rule and key.
        """
        for number, rule in enumerate(self._rules, start=1):
            try:
                dataset.outcome_column(rule.region_set, rule.policy)
            except RegionSetError as error:
                raise RuleError(f"{self._place}rule {number}: region_set: {error}") from None

    def of(self, host: str, path: str, extensions: Mapping[str, str]) -> list[Rule]:
        """Return the rules that decide about a request.

        Args:
            host: of the request, perhaps with a port.
            path: of the request.
            extensions: the route's ``context_extensions``. ``geolookup.rule`` names a rule
                of the file. ``geolookup.region_set`` and ``geolookup.mode`` make a rule of
                the route's own, with ``policy``, ``reference`` and ``blocked_by`` as options;
                the mode ``label`` stands alone.
                Without them, the rules of the file that match host and path apply.

        Raises:
            RequestError: the extensions are not valid, or there is no rule at all.
        """
        own = {
            key.removeprefix(_EXTENSION): value
            for key, value in extensions.items()
            if key.startswith(_EXTENSION)
        }
        if not own:
            if not self._rules and self._label:
                return [LABEL]
            if not self._rules:
                raise _misconfigured("the route names no rule, and there is no file of rules")
            host, path = canonical_host(host), canonical_path(path)
            return [rule for rule in self._rules if rule.applies(host, path)]
        if "rule" in own:
            rule = self._by_name.get(own["rule"])
            if rule is None or len(own) > 1:
                raise _misconfigured("the route's rule is not in the file, or names more than it")
            return [rule]
        if own == {"mode": Mode.LABEL}:
            return [LABEL]
        try:
            if not own.keys() <= _ROUTE_KEYS:
                raise KeyError
            rule = Rule(
                name="route",
                region_set=own["region_set"],
                mode=_DECIDING[own["mode"]],
                policy=Policy[own.get("policy", "unanimous").upper()],
                reference=own.get("reference", ""),
                blocked_by=own.get("blocked_by", ""),
            )
        except (KeyError, ValueError):
            raise _misconfigured(
                "the route needs geolookup.region_set and geolookup.mode "
                f"({', '.join(_DECIDING)}), or {Mode.LABEL} alone, and knows no other settings "
                "than docs/envoy.md says"
            ) from None
        return [rule]


def load_messages() -> None:
    """Import Envoy's messages, which takes longer than a first call should.

    Raises:
        MissingExtraError: their package is not installed.
    """
    if importlib.util.find_spec("envoy") is None:
        raise MissingExtraError("authz", "xds-protos", "envoy")
    import envoy.service.auth.v3.external_auth_pb2  # noqa: F401, PLC0415


def check(
    dataset: Dataset,
    body: bytes,
    rules: Rules,
    call: Call = NULL_CALL,
    whose: CheckAddress = PEER,
) -> bytes:
    """Answer a ``CheckRequest`` with a serialised ``CheckResponse``.

    Each rule that is evaluated counts as one lookup. *whose* says where the address is.

    An allowed request gets the headers ``x-geo-country``, ``x-geo-status``, ``x-geo-verdict``
    and ``x-geo-reason`` (one for each rule), ``x-geo-networks`` and ``x-geo-dataset``, which
    replace those of the client; where a rule counts or labels, the same in Envoy's dynamic
    metadata. A refused request gets status 451.

    Raises:
        RequestError: not a CheckRequest, or no rule applies to the route; Envoy's
            ``failure_mode_allow`` then decides.
    """
    # Slow to import, and needed for gateways only.
    from envoy.service.auth.v3 import external_auth_pb2  # noqa: PLC0415

    try:
        attributes = external_auth_pb2.CheckRequest.FromString(body).attributes
    except (DecodeError, ValueError):
        raise RequestError(Code.INVALID_ARGUMENT, "request: not a CheckRequest") from None
    http = attributes.request.http
    address = whose.find(attributes)
    applied = rules.of(http.host, http.path, attributes.context_extensions)
    response = external_auth_pb2.CheckResponse()
    answer = dataset.lookup(address)
    verdicts, reasons = [], []
    for rule in applied:
        if rule.mode is Mode.LABEL:
            continue
        try:
            answer = dataset.lookup(address, rule.region_set, rule.policy)
        except RegionSetError:
            raise _misconfigured("the route's region set is not known") from None
        verdict, reason = answer.verdict, answer.reason
        assert verdict is not None  # noqa: S101 - a rule has a region set
        assert reason is not None  # noqa: S101
        outcome = encode_outcome(verdict, reason)
        networks = network_bits(answer.networks)
        call.record_lookup(answer.status.number, rule.region_set, outcome, networks)
        if not rule.mode.passes(verdict):
            _refuse(response, rule)
            break
        verdicts.append(verdict.name)
        reasons.append(reason.name)
    else:
        labels = _labels(answer, verdicts, reasons)
        response.status.code = _OK
        for name, value in labels.items():
            _set_or_remove(response.ok_response, name, value)
        if any(rule.mode.has_metadata for rule in applied):
            response.dynamic_metadata.update({name: v for name, v in labels.items() if v})
    call.record_check(answer.status.number)
    serialised: bytes = response.SerializeToString()
    return serialised


def own_extensions(body: bytes) -> dict[str, str]:
    """Return those of a ``CheckRequest``'s ``context_extensions`` that `Rules.of` reads."""
    from envoy.service.auth.v3 import external_auth_pb2  # noqa: PLC0415

    extensions = external_auth_pb2.CheckRequest.FromString(body).attributes.context_extensions
    return {key: value for key, value in extensions.items() if key.startswith(_EXTENSION)}


def refusal(rule: Rule) -> bytes:
    """Return the ``CheckResponse`` that refuses a request for a rule."""
    from envoy.service.auth.v3 import external_auth_pb2  # noqa: PLC0415

    response = external_auth_pb2.CheckResponse()
    _refuse(response, rule)
    serialised: bytes = response.SerializeToString()
    return serialised


def header(label: str, value: str) -> bytes:
    """Return an ``OkHttpResponse`` with a label's header, which is removed where it is empty."""
    from envoy.service.auth.v3 import external_auth_pb2  # noqa: PLC0415

    response = external_auth_pb2.OkHttpResponse()
    _set_or_remove(response, label, value)
    serialised: bytes = response.SerializeToString()
    return serialised


def metadata(label: str, value: str) -> bytes:
    """Return a ``Struct`` with a label, or without one where it is empty."""
    struct = Struct()
    if value:
        struct.update({label: value})
    return struct.SerializeToString()


def _labels(answer: Answer, verdicts: Iterable[str], reasons: Iterable[str]) -> dict[str, str]:
    return {
        COUNTRY: answer.country,
        STATUS: answer.status.name,
        NETWORKS: ", ".join(network.name for network in answer.networks),
        VERDICT: ", ".join(verdicts),
        REASON: ", ".join(reasons),
        DATASET: answer.dataset,
    }


def _set_or_remove(response: Any, label: str, value: str) -> None:
    if value:
        _set(response.headers, f"{_HEADER}{label}", value)
    else:
        response.headers_to_remove.append(f"{_HEADER}{label}")


def _refuse(response: Any, rule: Rule) -> None:
    response.status.code = _PERMISSION_DENIED
    denied = response.denied_response
    denied.status.code = UNAVAILABLE_FOR_LEGAL_REASONS
    _set(denied.headers, "content-type", "text/plain; charset=utf-8")
    _set(denied.headers, "cache-control", "no-store")
    if rule.blocked_by:
        _set(denied.headers, "link", f'<{rule.blocked_by}>; rel="blocked-by"')
    denied.body = "Not available from this place, for legal reasons.\n"
    if rule.reference:
        denied.body += f"Measure: {rule.reference}\n"


def _set(headers: Any, name: str, value: str) -> None:
    """Set a header, and replace all of its name."""
    option = headers.add()
    option.header.key, option.header.value = name, value
    option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD


def _rule(entry: Table) -> Rule:
    with entry.locating():
        return Rule(
            name=entry.text("name"),
            region_set=entry.text("region_set"),
            mode=_DECIDING[entry.choice("mode", tuple(_DECIDING))],
            policy=Policy[
                entry.choice("policy", tuple(policy.name.lower() for policy in Policy)).upper()
                if entry.has("policy")
                else "UNANIMOUS"
            ],
            hosts=frozenset(host.lower() for host in entry.texts("hosts", [])),
            path_prefix=entry.value("path_prefix", str, ""),
            reference=entry.value("reference", str, ""),
            blocked_by=entry.value("blocked_by", str, ""),
        )


def canonical_host(host: str) -> str:
    """Return a request's host in the one form that rules have.

    That is in lower case, without a port, an empty port (``host:``) and the dot
    at the end of a whole name. An IPv6 address keeps its brackets and is as short as can be.
    """
    name, colon, port = host.rpartition(":")
    if colon and (not port or port.isdecimal()) and (":" not in name or name.endswith("]")):
        host = name
    if host.startswith("[") and host.endswith("]"):
        with contextlib.suppress(ValueError):
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
    return host.lower().removesuffix(".")


def canonical_path(path: str) -> str:
    """Return a request's path in the one form that rules have (RFC 3986, section 6.2.2).

    The query is left out, needless percent-encoding is undone, other is in upper case, ``.``
    and ``..`` are resolved. Like most servers, this takes a backslash, ``%2F`` and ``%5C``
    for a slash, and several slashes for one.
    """
    path = path.partition("?")[0].partition("#")[0]
    path = _ENCODED.sub(_decode_unreserved, path).replace("\\", "/")
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    slash = "/" if segments and path.endswith(("/", "/.", "/..")) else ""
    return f"/{'/'.join(segments)}{slash}"


_ENCODED: Final = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset(f"{string.ascii_letters}{string.digits}-._~/\\")


def _decode_unreserved(found: re.Match[str]) -> str:
    letter = chr(int(found[0][1:], 16))
    return letter if letter in _UNRESERVED else found[0].upper()


def _why_no_host(host: str) -> str | None:
    if not host or not host.isascii() or not host.isprintable() or set(host) & set("/@?# "):
        return "expected a host's name, in ASCII (xn--...) and without scheme, user and path"
    if "*" in host:
        return "there are no wildcards; name each host"
    if canonical_host(host) != host:
        return "expected no port and no dot at its end"
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return "an IPv6 address stands in brackets"
    return None


def _why_no_prefix(prefix: str) -> str | None:
    if not prefix.startswith("/"):
        return "expected / at its beginning"
    if not prefix.isascii():
        return "expected other letters than ASCII percent-encoded, as they come"
    if canonical_path(prefix) != prefix:
        return "expected no query, no //, . or .., and no needless percent-encoding"
    return None


def _misconfigured(what: str) -> RequestError:
    return RequestError(Code.FAILED_PRECONDITION, f"context_extensions: {what}")
