"""The options of a connection to a running service: whom to ask, and how to be sure of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from geolookup.errors import ServiceUnavailableError

_Function = TypeVar("_Function", bound=Callable[..., object])

_TLS = ("ca", "certificate", "key", "server_name")


@dataclass(frozen=True, slots=True)
class Connection:
    """A service, and how it is reached.

    Attributes:
        target: HOST:PORT, [IPV6]:PORT or unix:PATH.
        timeout: seconds that each call may take; None: what the command thinks right.
        tls: whether the connection is encrypted.
        ca: file of the authorities that are trusted; None: the system's.
        certificate: file of the certificate to show.
        key: file of its private key.
        server_name: the name in the service's certificate, where the target is another.
        transport: what carries the calls, as `geolookup.client.Client` takes it.
    """

    target: str
    timeout: float | None
    tls: bool
    ca: str | None
    certificate: str | None
    key: str | None
    server_name: str | None
    transport: str | None = None

    @property
    def credentials(self) -> Any:
        """GRPC's credentials of a channel; None: there is no TLS.

        Raises:
            click.UsageError: a file can't be used.
        """
        if not self.tls:
            return None
        # gRPC takes longer to import than all else together.
        from geolookup.client.tls import CredentialsError, tls_credentials  # noqa: PLC0415

        try:
            return tls_credentials(ca=self.ca, certificate=self.certificate, key=self.key)
        except CredentialsError as error:
            raise click.UsageError(f"--{error}") from None

    @property
    def options(self) -> list[tuple[str, object]]:
        """Options of a channel."""
        name = "grpc.ssl_target_name_override"
        return [] if self.server_name is None else [(name, self.server_name)]

    @contextmanager
    def diagnosed(self) -> Iterator[None]:
        """Look again where gRPC's own error leaves open why there is no connection.

        Raises:
            ServiceUnavailableError: with what was found out.
        """
        try:
            yield
            return
        except ServiceUnavailableError as error:
            from geolookup.client import failures  # noqa: PLC0415

            guesses = (failures.CLOSED.text, failures.CLOSED_OVER_TLS.text)
            guess = next((text for text in guesses if text in str(error)), None)
            if guess is None:
                raise
            from geolookup.client.tls import probe  # noqa: PLC0415

            found = probe(self.target, tls=self.tls, certificate=self.certificate, key=self.key)
            if found is None:
                raise
            unavailable = ServiceUnavailableError(str(error).replace(guess, found))
        raise unavailable


def connection_options(
    flag: str, what: str, *, default: str | None = None, transports: bool = False
) -> Callable[[_Function], _Function]:
    """Add the options of a connection, and pass them as one `connection`.

    Args:
        flag: the option that names the service, such as "--server".
        what: its help text.
        default: the service that is asked without it; None: without it there is no connection.
        transports: whether what carries the calls can be chosen.
    """
    file = click.Path(exists=True, dir_okay=False)
    options: list[Callable[[_Function], _Function]] = [
        click.option(flag, "target", metavar="TARGET", default=default, show_default=True,
                     callback=_read_target, help=what),
        click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                     help="Longest wait for each answer."),
        click.option("--tls", is_flag=True,
                     help="Use TLS. The options below need it, and turn it on."),
        click.option("--ca", type=file, metavar="FILE",
                     help="Trust these authorities (PEM) and not the system's."),
        click.option("--certificate", type=file, metavar="FILE",
                     help="Show this certificate (PEM) to a service that asks for one."),
        click.option("--key", type=file, metavar="FILE",
                     help="Private key (PEM) of --certificate."),
        click.option("--server-name", metavar="NAME",
                     help="The name in the service's certificate, where TARGET is another."),
    ]  # fmt: skip
    if transports:
        carrier = "What carries the calls.  [default: native where it can]"
        options.append(
            click.option("--transport", type=click.Choice(["native", "grpcio"]), help=carrier)
        )

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def passing(**given: Any) -> object:
            target, timeout, tls = (given.pop(name) for name in ("target", "timeout", "tls"))
            transport = given.pop("transport", None)
            files = {name: given.pop(name) for name in _TLS}
            asked = [f"--{name.replace('_', '-')}" for name, value in files.items() if value]
            if target is None:
                others = ("--timeout", timeout), ("--tls", tls or None), ("--transport", transport)
                alone = [name for name, value in others if value is not None] + asked
                if alone:
                    raise click.UsageError(f"{alone[0]} is for {flag}")
                return function(connection=None, **given)
            if (files["certificate"] is None) != (files["key"] is None):
                raise click.UsageError("--certificate and --key belong together")
            connection = Connection(
                target, timeout, tls or bool(asked), **files, transport=transport
            )
            return function(connection=connection, **given)

        decorated: Any = passing
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _read_target(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    from geolookup.client.target import read_target  # noqa: PLC0415

    try:
        return read_target(text)
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("target: ")) from None
