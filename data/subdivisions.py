"""Writes geolookup/data/subdivisions.txt: the codes of ISO 3166-2 with their hierarchy.

From the package pycountry, and from what is written down below where that differs from the
standard or from what sources write. Run it with the package's version that the file names:

    python data/subdivisions.py
"""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from pathlib import Path

import pycountry

OUT = Path(__file__).resolve().parents[1] / "geolookup" / "data" / "subdivisions.txt"

DATE = "2026-11-30"

# ISO 3166-2, Norway, as changed on 2024-01-01 (https://www.iso.org/obp/ui/#iso:code:3166:NO):
# three counties were divided again. The counties of before hold those of today, so that what a
# source still writes is never taken for a place outside of them.
ADDED = {
    "NO-31": "NO-30",  # Østfold
    "NO-32": "NO-30",  # Akershus
    "NO-33": "NO-30",  # Buskerud
    "NO-39": "NO-38",  # Vestfold
    "NO-40": "NO-38",  # Telemark
    "NO-55": "NO-54",  # Troms
    "NO-56": "NO-54",  # Finnmark
}

# Subdivisions that are the same place as a country, by ISO's own remarks: "see also separate
# country code entry under ..." (https://www.iso.org/obp/ui/). They are read as that country.
COUNTRIES = {
    "CN-HK": "HK", "CN-MO": "MO", "CN-TW": "TW",
    "FI-01": "AX",
    "FR-971": "GP", "FR-972": "MQ", "FR-973": "GF", "FR-974": "RE", "FR-976": "YT",
    "FR-BL": "BL", "FR-MF": "MF", "FR-NC": "NC", "FR-PF": "PF", "FR-PM": "PM", "FR-TF": "TF",
    "FR-WF": "WF",
    "NL-AW": "AW", "NL-CW": "CW", "NL-SX": "SX", "NL-BQ1": "BQ", "NL-BQ2": "BQ", "NL-BQ3": "BQ",
    "NO-21": "SJ", "NO-22": "SJ",
    "US-AS": "AS", "US-GU": "GU", "US-MP": "MP", "US-PR": "PR", "US-UM": "UM", "US-VI": "VI",
}  # fmt: skip

# Other spellings: Apple's egress list writes the parts of the United Kingdom with two letters;
# the counties of Norway before 2020 had other numbers.
ALIASES = {
    "GB-EN": "GB-ENG", "GB-SC": "GB-SCT", "GB-WL": "GB-WLS", "GB-NI": "GB-NIR",
    "NO-01": "NO-31", "NO-02": "NO-32", "NO-06": "NO-33", "NO-07": "NO-39", "NO-08": "NO-40",
    "NO-19": "NO-55", "NO-20": "NO-56",
}  # fmt: skip


def main() -> None:
    """Write the file."""
    parents = {one.code: one.parent_code or one.code[:2] for one in pycountry.subdivisions}
    parents |= ADDED
    for code in COUNTRIES:
        parents.pop(code)
    below: dict[str, list[str]] = defaultdict(list)
    for code, parent in parents.items():
        if parent not in parents and parent != code[:2]:
            raise ValueError(f"{code} lies in {parent}, which is not there")
        below[parent].append(code[3:])
    lines = [
        "# ISO 3166-2: a country or a subdivision, and the subdivisions right below it.",
        f"# From pycountry {importlib.metadata.version('pycountry')} (LGPL-2.1), which takes them",
        f"# from Debian's iso-codes; with the changes in data/subdivisions.py. Written {DATE}.",
        *(f"{parent}: {' '.join(sorted(codes))}" for parent, codes in sorted(below.items())),
        "# The same place as a country.",
        *(f"{code} = {country}" for code, country in sorted(COUNTRIES.items())),
        "# Other spellings, and the code that is meant.",
        *(f"{code} = {meant}" for code, meant in sorted(ALIASES.items())),
    ]
    OUT.write_text("\n".join(lines) + "\n", encoding="ascii")


main()
