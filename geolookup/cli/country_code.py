"""Country codes as arguments."""

from __future__ import annotations

import re

import click

from geolookup.answer.country_codes import COUNTRIES, nearest_code

_SAFE = re.compile(r"[A-Za-z]{1,10}")
"""What an error may repeat. An address in the wrong place is not among it."""


def read_country_code(text: str, parameter: click.Parameter) -> str:
    """Return a country's code, given in any letter case, in capitals.

    Raises:
        click.BadParameter: it is none.
    """
    code = text.upper()
    if code not in COUNTRIES:
        shown = f", not {text}" if _SAFE.fullmatch(text) else ""
        nearest = nearest_code(text)
        shown += f"; did you mean {nearest}?" if nearest else ""
        raise click.BadParameter(f"expected a country's code, such as CN{shown}", param=parameter)
    return code
