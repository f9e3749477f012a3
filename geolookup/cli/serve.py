"""``geolookup serve``: the gRPC service. Its options are the table of settings."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from geolookup.service.settings.model import Setting


class _ServeCommand(click.Command):
    """A command with an option for each setting, made when they are first asked for.

    The other commands then don't pay for reading the table.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own options and those of the settings."""
        if not any(parameter.name == "listen" for parameter in self.params):
            from geolookup.service.settings.model import table  # noqa: PLC0415

            self.params = [*(_option(row) for row in table()), *self.params]
        return super().get_params(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the headings of their groups."""
        grouped = itertools.groupby(self.get_params(ctx), _group)
        for group, options in grouped:
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(group):
                formatter.write_dl(records)


class _SettingOption(click.Option):
    group = ""


def _group(option: click.Parameter) -> str:
    return option.group if isinstance(option, _SettingOption) else "Other options"


def _option(row: Setting) -> click.Option:
    from geolookup.service.settings.kinds import AllowLists, Switch  # noqa: PLC0415

    switch = isinstance(row.kind, Switch)
    text = f"{row.help}."
    if row.default_text or row.default not in (None, False, {}):
        text += f"  [default: {row.default_text or row.kind.plain(row.default)}]"
    option = _SettingOption(
        [f"{row.flag}/--no-{row.flag[2:]}" if switch else row.flag, row.name],
        default=None,
        metavar=None if switch else row.kind.metavar,
        multiple=isinstance(row.kind, AllowLists),
        help=text,
    )
    option.group = row.group
    return option


@click.command(name="serve", cls=_ServeCommand, short_help="Run the gRPC service.")
@click.option(
    "--config",
    metavar="FILE",
    help="TOML file of settings; names as the options', with _ for -.",
)
@click.option(
    "--print-config",
    is_flag=True,
    help="Write all settings and where each was said, as a file for --config, and exit.",
)
@click.option("--json", "as_json", is_flag=True, help="Write --print-config as JSON.")
def run_service(*, print_config: bool, as_json: bool, **given: Any) -> None:
    """Answer over gRPC until SIGTERM or Ctrl-C, then finish the calls in flight.

    Prints where it listens, the dataset, its date and attributions when it is
    ready. Standard health checks and reflection are on, so grpcurl needs no
    proto file. No address is logged.

    Each option can also be said by a variable (GEOLOOKUP_MAX_ROSTER for
    --max-roster) or in a TOML file (max_roster). Options win over variables,
    variables over the file. docs/configuration.md has the table.

    \b
    Examples:
      geolookup serve
      geolookup serve --listen [::]:443 --tls-certificate c.pem --tls-key k.pem
      geolookup serve --listen unix:/run/geo.sock --admin none --metrics none
      geolookup serve --config /etc/geolookup.toml --print-config
    """
    from geolookup.service.settings import SettingsError, show, source  # noqa: PLC0415

    if as_json and not print_config:
        raise click.UsageError("--json is for --print-config")
    try:
        configuration = source.read(source.flags_of(given), os.environ)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    if print_config:
        shown = show.as_json(configuration) + "\n" if as_json else show.as_toml(configuration)
        click.echo(shown, nl=False)
        for name in configuration.unknown_variables:
            click.echo(f"geolookup: serve: no setting has the variable {name}", err=True)
        return
    from geolookup.service import log, unblocked_stream  # noqa: PLC0415

    unblocked_stream.open_missing_streams()  # before anything opens files to keep
    log.silence_grpc()  # before gRPC is imported
    # gRPC takes longer to import than all else together.
    from geolookup import service  # noqa: PLC0415

    try:
        service.serve(configuration.settings, unknown_variables=configuration.unknown_variables)
    finally:
        log.flush()  # before an error is written, which is to be the last line


@click.command(
    name="authz",
    cls=_ServeCommand,
    params=run_service.params,
    short_help="Run the service for Envoy's external authorization.",
)
def run_authorization(**given: Any) -> None:
    """Do what `geolookup serve --authz` does: answer Envoy, and all other rpcs as well.

    docs/envoy.md says what a rule is, and has a whole configuration.

    \b
    Example:
      geolookup authz --listen 127.0.0.1:50051 --authz-rules measures.toml
    """
    assert run_service.callback is not None  # noqa: S101 - it was given above
    run_service.callback(**{**given, "authz": True})
