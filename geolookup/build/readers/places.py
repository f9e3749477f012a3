"""Countries with subdivisions, as sources write them: codes of ISO 3166-2, or names."""

from __future__ import annotations

import re

from geolookup.answer.country_codes import read_code
from geolookup.answer.subdivisions import subdivisions
from geolookup.build.readers.ranges import SILENCE, code_number
from geolookup.build.subdivision_names import code_of

_CODE = re.compile(r"([A-Z]{2}-)?[A-Z0-9]{1,3}", re.ASCII)


class Places:
    """Reads places, and keeps what it does not know.

    Attributes:
        unknown: subdivisions, each with its country, that are in no table: they are read as
            the country alone.
    """

    def __init__(self) -> None:
        self.unknown: dict[tuple[str, str], None] = {}  # in the order of the source

    def read(self, country: str, *regions: str) -> int:
        """Return the number of a place.

        Args:
            country: the code as a source wrote it.
            regions: codes or names of subdivisions, each lying in the one before it; empty
                where the source has none. The lowest one that is known counts.

        Raises:
            ValueError: *country* is not a code.
        """
        code = read_code(country)
        if code is None:
            return SILENCE
        for region in reversed(regions):
            if not region or region == "-":
                continue
            place = subdivisions().read(code, region) if _CODE.fullmatch(region.upper()) else None
            # What looks like a code may be a name: "Ain" is FR-01.
            place = place or code_of(code, region)
            if place is not None:
                return code_number(place)
            self.unknown[code, region] = None
        return code_number(code)
