"""Options that several subcommands share, and who answers: this process or a service."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from geolookup.answer.age import MAX_DAYS, WARN_DAYS, Stale, age_warning
from geolookup.answer.claims import SUBDIVISION_SOURCES, Network, Policy, read_kinds
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.dataset import Dataset
from geolookup.answer.dataset import open as open_dataset
from geolookup.answer.region_sets import RegionSets
from geolookup.cli.connection import Connection, connection_options
from geolookup.errors import RegionSetError

if TYPE_CHECKING:
    from fractions import Fraction

    from geolookup.client import Client

_Function = TypeVar("_Function", bound=Callable[..., object])


def region_set_name(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Return a region set's expression in capitals, which all names are of; an option's callback.

    So letter case does not count on the command line, also not for a service's own sets.
    """
    return text.upper() if text is not None and text.isascii() else text


def complete_region_set(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return what a region set's expression may go on as, for shells."""
    known = RegionSets.builtin()
    if ctx.params.get("region_sets"):
        try:
            known = RegionSets.load(ctx.params["region_sets"])
        except RegionSetError:
            return []
    before = incomplete[: max(incomplete.rfind("+"), incomplete.rfind("-")) + 1]
    rest = incomplete[len(before) :].upper()
    names = [one.name for one in known] + list(COUNTRIES)
    return [f"{before}{name}" for name in names if name.startswith(rest)]


def region_set_names(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    """Return what `region_set_name` does, for an option that may be given again."""
    return tuple(name for text in texts if (name := region_set_name(ctx, param, text)) is not None)


def region_sets_option(function: _Function) -> _Function:
    """Add --region-sets: an operator's own sets."""
    return click.option(
        "--region-sets",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="TOML file with region sets of your own.",
    )(function)


def region_set_option(
    help_text: str, *names: str, required: bool = False
) -> Callable[[_Function], _Function]:
    """Return what adds --region-set, or an option of other names, with what it does there."""
    return click.option(
        *(names or ("-r", "--region-set")),
        metavar="SET",
        required=required,
        callback=region_set_name,
        shell_complete=complete_region_set,
        help=help_text,
    )


def region_set_options(function: _Function) -> _Function:
    """Add --region-set, --policy and --networks: the question beyond the country."""
    region_set = region_set_option(
        "Say which addresses are inside this region set: a country code, a set's name, or "
        "several joined by + and -, such as EEA-NO. 'geolookup region-sets' lists them."
    )
    policy = click.option(
        "-p",
        "--policy",
        type=click.Choice([member.name.lower() for member in Policy], case_sensitive=False),
        help="How the sources' claims decide about --region-set.  [default: unanimous]",
    )
    networks = click.option(
        "--networks",
        type=click.Choice(["ignore"], case_sensitive=False),
        help="Have networks that hide where their users are (VPNs, Tor, ...) decided like any "
        "other; by default they are UNDETERMINED.",
    )
    return region_set(policy(networks(function)))


def public_key_option(function: _Function) -> _Function:
    """Add --public-key: who must have signed a dataset."""
    return click.option(
        "--public-key",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="Refuse a dataset that is not signed with this Ed25519 key (PEM); see docs/trust.md.",
    )(function)


def read_covering(
    _: click.Context, param: click.Parameter, text: str | None
) -> tuple[Network, ...] | None:
    """Return the kinds of networks that an option names, "VPN,TOR" or "none"; its callback."""
    if text is None:
        return None
    try:
        return () if text.lower() == "none" else read_kinds(text.split(","))
    except ValueError as error:
        raise click.UsageError(f"{param.opts[0]}: {error}, by commas, or none") from None


def dataset_options(function: _Function) -> _Function:
    """Add --dataset, --region-sets, --overrides and others: what this process answers from."""
    # That the dataset is missing is for open() to say: exit code 3.
    dataset = click.option(
        "--dataset", metavar="FILE", help="Answer from this dataset, not from the embedded one."
    )
    max_age = click.option(
        "--max-age",
        type=click.IntRange(1, MAX_DAYS),
        metavar="DAYS",
        help="A dataset that was built earlier gives no verdicts: each is UNDETERMINED.",
    )
    subdivision_sources = click.option(
        "--subdivision-sources",
        type=click.IntRange(1, 255),
        metavar="N",
        help="Independent sources that must tell in which part of a country an address is; 2"
        " by default.",
    )
    covering = click.option(
        "--covering",
        metavar="KINDS",
        callback=read_covering,
        help="Kinds of networks that hide where their users are, by commas, or none; by default"
        " as the dataset's manifest says.",
    )
    overrides = click.option(
        "--overrides",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="TOML file of ranges whose codes win over all that the dataset says.",
    )
    options = (
        dataset,
        region_sets_option,
        overrides,
        public_key_option,
        max_age,
        subdivision_sources,
    )
    function = covering(function)
    for option in reversed(options):
        function = option(function)
    return function


def stale_of(max_age: int | None) -> Stale | None:
    """Return what --max-age has follow: where it is not given, the manifest says."""
    return None if max_age is None else "undetermined"


server_options = connection_options(
    "--server",
    "Ask a running service instead: HOST:PORT, [IPV6]:PORT or unix:PATH.",
    transports=True,
)


def json_option(function: _Function) -> _Function:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")(
        function
    )


def read_part(_: click.Context, param: click.Parameter, text: str | None) -> Fraction | None:
    """Return the share of a whole, 100 % at the most, that an option gives; its callback."""
    # Most commands have no such option.
    from geolookup import change_limits  # noqa: PLC0415

    try:
        return None if text is None else change_limits.read_part(text)
    except change_limits.LimitError as error:
        raise click.UsageError(f"{param.opts[0]}: {error}") from None


def policy_of(policy: str | None, region_set: str | None) -> Policy:
    """Return the policy that was asked for."""
    if policy is None:
        return Policy.UNANIMOUS
    if region_set is None:
        raise click.UsageError("--policy decides about a region set; add --region-set")
    return Policy[policy.upper()]


def networks_of(networks: str | None, region_set: str | None) -> str | None:
    """Return what `Dataset.lookup` takes for --networks."""
    if networks is not None and region_set is None:
        raise click.UsageError("--networks decides about a region set; add --region-set")
    return networks


def warn_of_age(dataset: Dataset) -> None:
    """Say on a terminal that a dataset is old. GEOLOOKUP_WARN_AGE has the days; 0: never."""
    if sys.stderr is None or not sys.stderr.isatty():
        return
    days = os.environ.get("GEOLOOKUP_WARN_AGE", "")
    warning = age_warning(dataset.built, int(days) if days.isdecimal() else WARN_DAYS)
    if warning is not None:
        click.echo(f"geolookup: {warning}", err=True)


@contextmanager
def open_answerer(
    *,
    dataset: str | None,
    region_sets: str | None,
    overrides: str | None,
    public_key: str | None,
    max_age: int | None,
    subdivision_sources: int | None,
    covering: tuple[Network, ...] | None,
    connection: Connection | None,
    default_timeout: float,
) -> Iterator[Dataset | Client]:
    """Open the dataset, or a client of the service, that the options name.

    Both have the same verbs.
    """
    if connection is None:
        with open_dataset(
            dataset,
            region_sets=region_sets,
            public_key=public_key,
            max_age=max_age,
            stale=stale_of(max_age),
            subdivision_sources=subdivision_sources or SUBDIVISION_SOURCES,
            covering=covering,
            overrides=overrides,
        ) as opened:
            warn_of_age(opened)
            yield opened
        return
    own = (dataset, region_sets, overrides, public_key, max_age, subdivision_sources, covering)
    if any(option is not None for option in own):
        raise click.UsageError(
            "--server answers from its own --dataset, --region-sets and --overrides, and checks its"
            " own --public-key, --max-age, --subdivision-sources and --covering"
        )
    with connect(connection, default_timeout) as client:
        yield client


@contextmanager
def connect(connection: Connection, default_timeout: float) -> Iterator[Client]:
    """Open a client of the service; it connects when it is first asked."""
    # gRPC takes longer to import than all else together.
    from geolookup.client import Client  # noqa: PLC0415

    credentials = connection.credentials
    try:
        client = Client(
            connection.target,
            timeout=connection.timeout or default_timeout,
            credentials=credentials,
            options=connection.options,
            transport=connection.transport,
        )
    except ValueError as error:  # of the transport: the rest was read before
        raise click.UsageError(str(error).replace("transport:", "--transport:")) from None
    with connection.diagnosed(), client:
        yield client
