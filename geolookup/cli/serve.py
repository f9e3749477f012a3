"""``geolookup serve``: the gRPC service."""

from __future__ import annotations

from pathlib import Path

import click

from geolookup.cli.options import dataset_options


@click.command(name="serve", short_help="Run the gRPC service.")
@click.option(
    "--listen",
    default="127.0.0.1:50051",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen: HOST:PORT (port 0 takes a free one), [IPV6]:PORT or unix:PATH.",
)
@dataset_options
@click.option(
    "--max-roster",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    metavar="N",
    help="Addresses allowed in one roster. Message sizes follow from it.",
)
def run_service(
    listen: str,
    dataset: str | None,
    region_sets: str | None,
    public_key: str | None,
    max_roster: int,
) -> None:
    """Answer over gRPC until SIGTERM or Ctrl-C, then finish the calls in flight.

    Prints where it listens, the dataset, its date and attributions when it is
    ready. Standard health checks and reflection are on, so grpcurl needs no
    proto file. There is no access control: listen where only your own
    services reach it. No address is logged.

    \b
    Examples:
      geolookup serve
      geolookup serve --listen 0.0.0.0:50051 --dataset countries.geolookup
      geolookup serve --listen unix:/run/geolookup.sock --region-sets sets.toml
    """
    # gRPC takes longer to import than all else together.
    from geolookup import service  # noqa: PLC0415

    try:
        settings = service.Settings(
            listen=listen,
            dataset=Path(dataset) if dataset else None,
            region_sets=Path(region_sets) if region_sets else None,
            public_key=Path(public_key) if public_key else None,
            limits=service.Limits(roster=max_roster),
        )
    except service.SettingsError as error:
        raise click.UsageError(str(error)) from None
    service.serve(settings)
