"""The table of settings, from which flags, variables, TOML keys and their documentation come."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from geolookup.answer.age import MAX_DAYS, STALE, WARN_DAYS, Stale
from geolookup.answer.claims import SUBDIVISION_SOURCES, Network
from geolookup.machine import memory_limit
from geolookup.service.methods import Method
from geolookup.service.settings.cores import available_cores
from geolookup.service.settings.kinds import (
    AS_COMPILED,
    AllowLists,
    Choice,
    Covering,
    FilePath,
    FolderPath,
    HeaderName,
    Kind,
    Listener,
    Listeners,
    Prefixes,
    Seconds,
    Switch,
    UnfitError,
    WholeNumber,
)
from geolookup.service.settings.listening import ListenAddress
from geolookup.service.settings.problems import SettingsError

T = TypeVar("T")

MAX_TEXT_BYTES: Final = 48
"""Wire bytes of one address in text: at most 45 characters ("::ffff:" forms with a dotted
tail are the longest) and 2 of framing, rounded up."""
_OTHER_FIELDS: Final = 65_536
_C_INT_MAX: Final = 2**31 - 1
"""gRPC keeps sizes and milliseconds in a C int, and its largest value means "no limit"."""
_LONGEST: Final = 86_400.0
"""A day. A limit on time that is longer than that is rather a slip (milliseconds)."""

ADMIN: Final = "admin"
"""In `Settings.allow`: all rpcs of the admin listener."""
OTHERS: Final = "*"
"""In `Settings.allow`: the rpcs of clients that are not named, but for `HEALTH`."""
HEALTH: Final = (Method.CHECK.label, Method.WATCH.label)
"""The rpcs of grpc.health.v1: open to all unless they are named."""


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        name: as in TOML; the flag is ``--name`` with hyphens, the variable
            ``GEOLOOKUP_NAME``.
        group: the heading that it stands under.
        kind: what its values are.
        help: what it does, as a sentence without its full stop.
        default: its value where none is given.
        at_start: computes the default when a service starts, where that depends on
            the machine.
        beside: computes the default from the other settings' values, where it depends on these.
        default_text: such a default in the documentation.
        path: the attributes that lead from `Settings` to its value.
    """

    name: str
    group: str
    kind: Kind[Any]
    help: str
    default: object
    at_start: Callable[[], object] | None
    beside: Callable[[Mapping[str, object]], object] | None
    default_text: str
    path: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The command's option."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's variable."""
        return "GEOLOOKUP_" + self.name.upper()

    def value(self, settings: Settings) -> object:
        """Return its value in *settings*."""
        value: object = settings
        for attribute in self.path:
            value = getattr(value, attribute)
        return value


def _setting(
    default: T,
    group: str,
    kind: Kind[Any],
    text: str,
    *,
    name: str = "",
    at_start: Callable[[], object] | None = None,
    beside: Callable[[Mapping[str, object]], object] | None = None,
    default_text: str = "",
) -> T:
    """Declare a row of the table as a field. It has the type of its default."""
    row = {"name": name, "group": group, "kind": kind, "help": text}
    row |= {"at_start": at_start, "beside": beside, "default_text": default_text}
    made: Any
    if isinstance(default, dict):
        made = dataclasses.field(default_factory=default.copy, metadata=row)
    else:
        made = dataclasses.field(default=default, metadata=row)
    return made  # type: ignore[no-any-return]  # the field stands for its value


def _max_connection_age(values: Mapping[str, object]) -> float:
    """Return an hour where clients need certificates.

    These are held against the authorities when a connection begins, and never again.
    """
    return 0.0 if values["tls_client_ca"] is None else 3_600.0


@dataclass(frozen=True, slots=True)
class RosterLimits:
    """Limits of one roster.

    Attributes:
        roster: addresses in a roster.
    """

    # Bounded so that the message sizes, which follow from it, fit in a C int.
    roster: int = _setting(
        1_000_000,
        "Requests",
        WholeNumber(1, (_C_INT_MAX - _OTHER_FIELDS) // MAX_TEXT_BYTES),
        "Addresses in one roster; the size of the largest request follows from it",
        name="max_roster",
    )

    @property
    def message_bytes(self) -> int:
        """Bytes of the largest request that can be within the limits."""
        return self.roster * MAX_TEXT_BYTES + _OTHER_FIELDS


def _default_lame_duck() -> float:
    return 5.0 if os.getpid() == 1 else 0.0


def _default_memory_budget() -> int:
    most = available_cores() * _LARGEST_SHARE
    return max(_SMALLEST_BUDGET, int(min(memory_limit() / 4, most)))


_LARGEST_SHARE: Final = 512 << 20
"""Bytes for each core; a worker with more would take longer for them than clients wait."""
_SMALLEST_BUDGET: Final = 16 << 20

_LISTEN = "Listeners"
_DATA = "Data"
_WORK = "Workers"
_REQUESTS = "Requests"
_CONNECTIONS = "Connections"
_TLS = "TLS"
_WATCHING = "Logs, traces and crashes"
_STOP = "Stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a service. Each field's row has its meaning and bounds.

    All values are checked at construction. `source.read` makes settings from flags, variables
    and a file; made directly, all defaults are constants (one worker).

    Raises:
        SettingsError: a value is not valid, alone or beside the others.
    """

    listen: str = _setting(
        "127.0.0.1:50051",
        _LISTEN,
        Listener(),
        "Where clients connect; port 0 takes a free one",
    )
    admin: str | None = _setting(
        "127.0.0.1:50052",
        _LISTEN,
        Listener(optional=True),
        "Where operators connect: the admin service, and health that is never shed",
    )
    http: str | None = _setting(
        None,
        _LISTEN,
        Listener(optional=True),
        "Where clients connect that speak JSON over HTTP/1.1; see docs/http.md",
    )
    metrics: str | None = _setting(
        "127.0.0.1:9464",
        _LISTEN,
        Listener(optional=True, unix=False),
        "Where Prometheus connects, over HTTP",
    )
    insecure: tuple[str, ...] = _setting(
        (),
        _LISTEN,
        Listeners(
            "listen",
            "http",
            "metrics",
            never={
                ADMIN: "who reaches it could stop the service; it needs tls_certificate,"
                " tls_client_ca and allow.admin"
            },
        ),
        "Listeners that other machines may reach without TLS, by commas, in TOML as a list",
    )

    dataset: Path | None = _setting(
        None,
        _DATA,
        FilePath(),
        "The dataset; none: the embedded one",
    )
    region_sets: Path | None = _setting(
        None,
        _DATA,
        FilePath(),
        "TOML file with region sets of your own",
    )
    overrides: Path | None = _setting(
        None,
        _DATA,
        FilePath(),
        "TOML file of ranges whose codes win over all that the dataset says, until they expire; see"
        " docs/overrides.md",
    )
    public_key: Path | None = _setting(
        None,
        _DATA,
        FilePath(),
        "Ed25519 public keys (PEM), one of which must have signed the dataset; see docs/trust.md",
    )
    canaries: Path | None = _setting(
        None,
        _DATA,
        FilePath(),
        "Addresses and the answers that a dataset must give",
    )
    change_limits: Path | None = _setting(
        None,
        _DATA,
        FilePath(),
        "TOML file of what a new dataset may change, as [limits] in a manifest",
    )
    authz: bool = _setting(
        False,
        _DATA,
        Switch(),
        "Answer Envoy's external authorization as well; see docs/envoy.md",
    )
    authz_rules: Path | None = _setting(
        None,
        _DATA,
        FilePath(),
        "TOML file with the rules of Envoy's authorization, which is then answered; none: its"
        " routes have the rules",
    )
    authz_no_rule: str = _setting(
        "error",
        _DATA,
        Choice("error", "label"),
        "What becomes of a check whose route has no rule, where there is no file of them: an error,"
        " or it passes with labels of what is known of the address",
    )
    authz_address_header: str | None = _setting(
        None,
        _DATA,
        HeaderName("x-forwarded-for", "forwarded"),
        "The one request header in which Envoy's checks carry the client's address; none: the"
        " connection's peer, as Envoy saw it. Envoy must overwrite it; see docs/envoy.md",
    )
    authz_trusted: tuple[str, ...] = _setting(
        (),
        _DATA,
        Prefixes(),
        "Prefixes of the proxies in front of Envoy, by commas, in TOML as a list: through them"
        " alone authz_chain is read, as in docs/client-address.md; none: the peer is the client",
    )
    authz_chain: str = _setting(
        "x-forwarded-for",
        _DATA,
        Choice("x-forwarded-for", "forwarded"),
        "The header that all of authz_trusted write",
    )
    rollback_folder: Path | None = _setting(
        None,
        _DATA,
        FolderPath(),
        "Where the dataset of a rollback is kept, so that it holds after a restart; none: beside"
        " the dataset, by its name and .rollback",
    )
    watch: float = _setting(
        1.0,
        _DATA,
        # Less than 0.1 s would find writers at work rather than files that changed.
        Seconds(0.1, _LONGEST, "they are read again only on a reload"),
        "Time between checks of the files in use (dataset, region sets, overrides, rules,"
        " certificates)",
    )

    warn_age: int = _setting(
        WARN_DAYS,
        _DATA,
        WholeNumber(0, MAX_DAYS),
        "Days after which the age of the dataset is logged as a warning; 0: never",
    )
    max_age: int = _setting(
        0,
        _DATA,
        WholeNumber(0, MAX_DAYS),
        "Days after which the dataset is stale; 0: as its manifest says",
    )
    stale: str = _setting(
        AS_COMPILED,
        _DATA,
        Choice(AS_COMPILED, *STALE),
        "What follows where it is: warn says so, undetermined makes each verdict UNDETERMINED,"
        f" too; {AS_COMPILED}: as its manifest says",
    )

    subdivision_sources: int = _setting(
        SUBDIVISION_SOURCES,
        _DATA,
        WholeNumber(1, 255),
        "Independent sources that must tell whether an address is inside, where a region set"
        " divides its country and the policy is UNANIMOUS; 1 trusts a single one",
    )
    covering: tuple[Network, ...] | None = _setting(
        None,
        _DATA,
        Covering(),
        "Kinds of networks that hide where their users are, by commas, in TOML as a list; "
        f"{AS_COMPILED}: as the dataset's manifest says",
    )

    workers: int = _setting(
        1,
        _WORK,
        WholeNumber(1, 1_024),  # more than the cores of any machine
        "Processes that share the port",
        at_start=available_cores,
        default_text="the cores it may use",
    )
    spare_worker: bool = _setting(
        True,
        _WORK,
        Switch(),
        "Keep a standby process ready to replace a worker that ends; it takes some 30 MB",
    )
    worker_timeout: float = _setting(
        5.0,
        _WORK,
        Seconds(1, 300, "none is replaced for that"),
        "Time in which a worker has to answer the lookup that its supervisor asks it for each"
        " second; then it is replaced",
    )
    transport: str = _setting(
        "native",
        _WORK,
        Choice("native", "threads"),
        "native: over libnghttp2, where geolookup was built with it; threads: gRPC's public server",
    )
    threads: int = _setting(
        16,
        _WORK,
        WholeNumber(1, 1_024),  # each has a stack, and all share one interpreter lock
        "Threads for calls in a worker; with native for those that Python answers (Explain,"
        " reflection, ...), and no more than cores for large rosters",
    )

    limits: RosterLimits = RosterLimits()
    max_calls: int = _setting(
        256,
        _REQUESTS,
        WholeNumber(1, 65_536),
        "Unary calls under way in a worker, lookups and Envoy's checks apart from all others; one"
        " more is refused",
    )
    max_streams: int = _setting(
        64,
        _REQUESTS,
        WholeNumber(1, 65_536),
        "Streams open in a worker, reflection included; one more is refused",
    )
    memory_budget: int = _setting(
        512 << 20,
        _REQUESTS,
        WholeNumber(1 << 20, 1 << 46, metavar="BYTES"),
        "Memory for large requests under way and their answers, shared out among the workers; what"
        " is over it is refused",
        at_start=_default_memory_budget,
        default_text="a quarter of the memory that the service may use, at most 512 MiB for each"
        " core",
    )
    max_metadata: int = _setting(
        16_384,
        _REQUESTS,
        # gRPC's own headers and a trace context take several hundred bytes. A mebibyte
        # is what a request may make a worker hold before it is known to be one.
        WholeNumber(1_024, 1_048_576, metavar="BYTES"),
        "Metadata in one request; more is refused",
    )
    compression: bool = _setting(
        False,
        _REQUESTS,
        Switch(),
        "Read compressed requests; otherwise they are refused. Responses never are compressed",
    )

    max_connections: int = _setting(
        4_096,
        _CONNECTIONS,
        WholeNumber(1, 1_000_000),
        "Connections to a worker. One more takes the place of one that has made no call, or is"
        " closed at once. Each takes a file descriptor",
    )
    max_connection_age: float = _setting(
        0.0,
        _CONNECTIONS,
        Seconds(1, _LONGEST, "never"),
        "Age at which a connection is closed gracefully, so that clients spread over the workers,"
        " and none outlives by far the authority that its certificate came from",
        beside=_max_connection_age,
        default_text="0; with tls_client_ca 3600",
    )
    max_connection_idle: float = _setting(
        300.0,
        _CONNECTIONS,
        Seconds(1, _LONGEST, "never"),
        "Time without a call after which a connection is closed",
    )
    keepalive: float = _setting(
        60.0,
        _CONNECTIONS,
        Seconds(1, _LONGEST, "never"),
        "Silence after which a connection is probed, and closed if nothing answers",
    )
    handshake_timeout: float = _setting(
        10.0,
        _CONNECTIONS,
        Seconds(0.1, 300),
        "Time that a new connection has for its TLS and HTTP/2 handshake",
    )
    transfer_timeout: float = _setting(
        60.0,
        _CONNECTIONS,
        Seconds(1, _LONGEST, "never"),
        "Time in which a request has to come whole, and for which an answer may wait for a client"
        " that takes nothing of it (native only)",
    )

    tls_certificate: Path | None = _setting(
        None,
        _TLS,
        FilePath(),
        "The service's certificate chain (PEM); none: no TLS",
    )
    tls_key: Path | None = _setting(
        None,
        _TLS,
        FilePath(),
        "The certificate's private key (PEM)",
    )
    tls_client_ca: Path | None = _setting(
        None,
        _TLS,
        FilePath(),
        "Authorities of client certificates (PEM); none: clients need no certificate",
    )
    allow: Mapping[str, frozenset[str]] = _setting(
        {},
        _TLS,
        AllowLists(*(method.label for method in Method), OTHERS, ADMIN),
        "Identity that may call an rpc; * stands for all that are not named, admin for the"
        " admin listener; may be repeated",
    )

    log_format: str = _setting(
        "text",
        _WATCHING,
        Choice("text", "json"),
        "How log lines are written",
    )
    log_level: str = _setting(
        "info",
        _WATCHING,
        Choice("debug", "info", "warning", "error"),
        "The least important lines that are written",
    )
    tracing: bool = _setting(
        False,
        _WATCHING,
        Switch(),
        "Make OpenTelemetry spans, exported by the OTEL_* variables",
    )
    channelz: bool = _setting(
        False,
        _WATCHING,
        Switch(),
        "Serve channelz on the admin listener; it shows the clients' addresses",
    )
    core_dumps: bool = _setting(
        False,
        _WATCHING,
        Switch(),
        "Let a crash write a core dump; it would hold addresses",
    )

    lame_duck: float = _setting(
        0.0,
        _STOP,
        Seconds(0, _LONGEST),
        "Time for which a service that is to stop says NOT_SERVING and still answers all calls, so"
        " that balancers notice; grace follows",
        at_start=_default_lame_duck,
        default_text="5 where it is process 1, as in a container, else 0",
    )
    grace: float = _setting(
        20.0,
        _STOP,
        # With the lame duck of a container and what follows, less than the 30 s of Kubernetes.
        Seconds(0, _LONGEST),
        "Time that calls in flight have to finish when the service stops",
    )

    @property
    def answers_checks(self) -> bool:
        """Whether Envoy's authorization is answered."""
        return self.authz or self.authz_rules is not None

    @property
    def labels_checks(self) -> bool:
        """Whether Envoy's checks pass without any rule."""
        return self.authz_no_rule == "label"

    @property
    def worker_memory(self) -> int:
        """The bytes of `memory_budget` that each worker has."""
        return self.memory_budget // self.workers

    @property
    def age_limit(self) -> tuple[int | None, Stale | None]:
        """The arguments `max_age` and `stale` of `Dataset.from_buffer`."""
        stale = None if self.stale == AS_COMPILED else cast("Stale", self.stale)
        return self.max_age or None, stale

    def __post_init__(self) -> None:
        for row in table():
            try:
                row.kind.check(row.value(self))
            except UnfitError as error:
                raise SettingsError(row.name, str(error)) from None
        _check_authorization(self)
        _check_tls(self)
        _check_listeners(self)


@cache
def table() -> tuple[Setting, ...]:
    """Return all settings, in the order of the documentation."""
    return tuple(_rows(Settings, ()))


def _rows(kind: type, path: tuple[str, ...]) -> Iterator[Setting]:
    for field in dataclasses.fields(kind):
        here = (*path, field.name)
        if not field.metadata:
            yield from _rows(type(field.default), here)
            continue
        default = (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        row = dict(field.metadata)
        yield Setting(default=default, path=here, **{**row, "name": row["name"] or field.name})


# Rules between settings. Each error names the setting to change.


def _check_authorization(settings: Settings) -> None:
    for name in ("authz_address_header", "authz_trusted"):
        if getattr(settings, name) and not settings.answers_checks:
            raise SettingsError(name, "needs authz or authz_rules: Envoy's checks are not answered")
    if settings.labels_checks and not settings.answers_checks:
        raise SettingsError("authz_no_rule", "needs authz: Envoy's checks are not answered")
    if settings.labels_checks and settings.authz_rules is not None:
        raise SettingsError(
            "authz_no_rule",
            "not beside authz_rules: where none of the file's rules applies, requests are labelled",
        )
    if settings.authz_address_header and settings.authz_trusted:
        raise SettingsError(
            "authz_trusted",
            "not beside authz_address_header: the address is in that header, or in a chain",
        )
    if settings.authz_chain != "x-forwarded-for" and not settings.authz_trusted:
        raise SettingsError("authz_chain", "needs authz_trusted: no chain is read without it")


def _check_tls(settings: Settings) -> None:
    if settings.tls_certificate and not settings.tls_key:
        raise SettingsError("tls_certificate", "needs tls_key beside it")
    if settings.tls_key and not settings.tls_certificate:
        raise SettingsError("tls_key", "needs tls_certificate beside it")
    if settings.tls_client_ca and not settings.tls_certificate:
        raise SettingsError("tls_client_ca", "needs tls_certificate: clients show theirs in TLS")
    if settings.allow and not settings.tls_client_ca:
        raise SettingsError("allow", "needs tls_client_ca: identities are in clients' certificates")
    if ADMIN in settings.allow and settings.admin is None:
        raise SettingsError("allow", "names admin, but there is no admin listener")


def _check_listeners(settings: Settings) -> None:
    listeners: dict[str, ListenAddress] = {}
    for name in ("listen", "admin", "http", "metrics"):
        text = getattr(settings, name)
        if text is None:
            continue
        address = ListenAddress.parse(text, name)
        for other, taken in listeners.items():
            if address.collides_with(taken):
                raise SettingsError(name, f"the same address as {other}")
        listeners[name] = address
        if not address.is_local:
            _check_exposed(settings, name)


def _check_exposed(settings: Settings, name: str) -> None:
    """Refuse a listener that other machines can reach unless it is protected, or meant to be."""
    encrypted = settings.tls_certificate is not None and name != "metrics"
    if not encrypted and name not in settings.insecure:
        remedies = {
            "listen": "add tls_certificate, listen on loopback or a unix socket, or add insecure"
            " = listen",
            ADMIN: "add tls_certificate, tls_client_ca and allow.admin, or listen on loopback or a"
            " unix socket",
            "http": "add tls_certificate, listen on loopback or a unix socket, or add insecure"
            " = http",
            "metrics": "listen on loopback or add insecure = metrics",
        }
        raise SettingsError(
            name, f"other machines can reach it and it has no TLS; {remedies[name]}"
        )
    # TLS without `allow` lets every client stop the service.
    if name == ADMIN and ADMIN not in settings.allow:
        raise SettingsError(name, "other machines can reach it; say in allow who may (allow.admin)")
