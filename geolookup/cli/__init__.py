"""The geolookup command: what every subcommand has in common, above all how it ends.

A subcommand's module is imported when it is asked for, and imports gRPC, the compiler
and other heavy parts inside the function that needs them, so that a lookup starts as
fast as the interpreter does.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from geolookup.errors import (
    DatasetError,
    GeoLookupError,
    MissingExtraError,
    NoRosterError,
    RegionSetError,
    ServiceUnavailableError,
)

ANSWERED = 0
FAILED = 1
USAGE = 2
BAD_DATASET = 3
SERVICE_NOT_REACHABLE = 4
NO_ROSTER = 5
MISSING_EXTRA = 6
INTERRUPTED = 130  # what shells report for SIGINT
READER_GONE = 141  # what shells report for SIGPIPE

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (RegionSetError, USAGE),
    (DatasetError, BAD_DATASET),
    (ServiceUnavailableError, SERVICE_NOT_REACHABLE),
    (NoRosterError, NO_ROSTER),
    (MissingExtraError, MISSING_EXTRA),
    (GeoLookupError, FAILED),
)

_EPILOG = """\b
Exit codes:
  0  answered (a text that is no address is answered too: INVALID)
  1  any failure that has no code of its own
  2  usage: a wrong option or argument, an unknown region set
  3  the dataset file is missing, damaged or of another format
  4  the service is not reachable, or not in time
  5  the input is no roster: too little of it are addresses
  6  a package is missing that an extra of geolookup brings
Interrupted by Ctrl-C: 130. The reader of the output went away: 141.
"""

# Shapes of an address, good or bad, in what was typed. Error texts repeat
# arguments, and must not repeat an address that stood in the wrong place.
_ADDRESS = re.compile(
    r"(?:[0-9A-Fa-f]{0,4}:){2,}[0-9A-Fa-f:.%]*|\d+(?:\.\d+){2,}(?:[:/]\d+)?|\d{1,3}(?:-\d{1,3}){3}"
)


_SUBCOMMANDS = {
    "admin": "admin:administer",
    "agreement": "agreement:show_agreement",
    "annotate": "annotate:annotate_records",
    "audit": "audit:audit_records",
    "authz": "serve:run_authorization",
    "classify": "classify:classify_roster",
    "compile": "compile:compile_dataset",
    "diff": "diff:show_difference",
    "evaluate": "evaluate:evaluate_sources",
    "explain": "explain:explain_address",
    "export": "export:export_dataset",
    "impact": "impact:show_impact",
    "info": "describe:show_info",
    "lookup": "lookup:lookup_addresses",
    "map": "map:draw_map",
    "region-sets": "describe:show_region_sets",
    "report": "report:report_records",
    "serve": "serve:run_service",
    "sign": "sign:sign_dataset",
    "update": "update:update_dataset",
    "verify": "verify:verify_dataset",
}
"""The module of each, in this package, and the function in it."""


class _Commands(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(_SUBCOMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUBCOMMANDS:
            return None
        module, function = _SUBCOMMANDS[cmd_name].split(":")
        subcommand: click.Command = getattr(import_module(f"geolookup.cli.{module}"), function)
        return subcommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and _ADDRESS.fullmatch(args[0]):
            raise click.UsageError("an address is no command; use 'geolookup lookup ADDRESS'", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        # Here, because click's own handling writes an empty line or exits with 1.
        try:
            result = super().invoke(ctx)
            _flush()
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise click.exceptions.Exit(READER_GONE) from None
        return result


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from geolookup import __version__  # noqa: PLC0415

        click.echo(f"geolookup {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Show the version and exit.")  # fmt: skip
def command() -> None:
    """In which region is this address? For single addresses and whole rosters.

    Without --server the commands answer in this process, from the dataset that
    comes with geolookup or from --dataset FILE, and need no network.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code. Errors are one line on standard error."""
    # gRPC has lines of its own, for a TLS handshake that fails, say. It reads this when loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    code = _run(sys.argv[1:] if arguments is None else list(arguments))
    try:
        _flush()
    except OSError:
        # Already reported; the interpreter's own flush would report it again, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or FAILED
    sys.exit(code)


def _flush() -> None:
    if sys.stdout is not None:  # None if it was closed before the start
        sys.stdout.flush()


def _run(arguments: list[str]) -> int:
    # A country's name or a strange argument must not fail on a terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command.main(arguments, prog_name="geolookup", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except Exception as error:
        code, text = _code_and_text(error)
        click.echo(f"geolookup: {' '.join(text.split())}", err=True)
    return code if isinstance(code, int) else ANSWERED


def _code_and_text(error: Exception) -> tuple[int, str]:
    """Return the exit code of an exception, and the text that is shown."""
    if isinstance(error, click.UsageError):
        return USAGE, _usage(error)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, str(error)
    if isinstance(error, OSError) and error.strerror:
        # Files are written by geolookup.atomic, whose errors name them.
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        name = error.filename or ("standard output" if full else "")
        return FAILED, f"{name}: {error.strerror}" if name else error.strerror
    return FAILED, _unforeseen(error)


def _usage(error: click.UsageError) -> str:
    text = _ADDRESS.sub("<address>", error.format_message()).rstrip(".")
    path = error.ctx.command_path if error.ctx else "geolookup"
    place = path.removeprefix("geolookup").strip()
    return f"{place + ': ' if place else ''}{text} (see {path} --help)"


def _unforeseen(error: Exception) -> str:
    """Say where an exception comes from, without its text, which may hold an address."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"unforeseen {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
