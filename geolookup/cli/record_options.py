"""Options that say where the addresses of a file's records are."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import click

from geolookup.change_limits import LimitError, read_part
from geolookup.cli.records import FORMS, Selection


def record_options(function: Callable[..., object]) -> Callable[..., object]:
    """Add --column, --pattern, --form and --max-invalid.

    The function gets `selection`, a `Selection`, and `max_invalid`, a share.
    """

    @functools.wraps(function)
    def select(
        *, column: str | None, pattern: re.Pattern[str] | None, form: str, **others: Any
    ) -> object:
        if column is not None and pattern is not None:
            raise click.UsageError("--column is for records, --pattern for lines; choose one")
        return function(selection=Selection(column, pattern, form), **others)

    for option in (
        click.option(
            "--max-invalid",
            callback=_share,
            default="50%",
            show_default=True,
            metavar="SHARE",
            help="Fail with exit code 5 if more of the file than this is no address.",
        ),
        click.option(
            "--form",
            type=click.Choice(FORMS),
            default=FORMS[0],
            show_default=True,
            help="What the values are: an address alone, one with a port, or a list of which "
            "the first counts, as the client's side of a proxy wrote it.",
        ),
        click.option(
            "--pattern",
            callback=_pattern,
            metavar="REGEX",
            help="FILE has lines of any form, such as a log, and the first group of this regular "
            "expression (or the one named address) is the address.",
        ),
        click.option(
            "--column",
            metavar="NAME",
            help="This column of CSV or Parquet, or key of JSON lines, has the addresses.",
        ),
    ):
        select = option(select)
    return select


def _pattern(_: click.Context, param: click.Parameter, text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"no regular expression: {error.msg}", param=param) from None
    if not pattern.groups:
        raise click.BadParameter("expected a group around the address: '^(\\S+)'", param=param)
    return pattern


def _share(_: click.Context, param: click.Parameter, text: str) -> Fraction:
    try:
        return read_part(text)
    except LimitError as error:
        raise click.BadParameter(str(error), param=param) from None
