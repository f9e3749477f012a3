"""Where modules that had other names are now, for code that was written before they moved."""

from __future__ import annotations

import sys
from typing import Final

_MOVED: Final = {
    "addresses": "answer.addresses",
    "agreement": "review.agreement",
    "claims": "answer.claims",
    "codes": "answer.country_codes",
    "compiler": "build.compiler",
    "dataset": "answer.dataset",
    "dataset_file": "answer.file_format",
    "difference": "review.difference",
    "evidence": "answer.evidence",
    "explain": "answer.explanation",
    "limits": "change_limits",
    "manifest": "build.manifest",
    "readers": "build.readers",
    "record": "answer.decision_record",
    "regions": "answer.region_sets",
    "registry": "build.special_purpose",
    "report": "review.transparency_report",
    "roster": "answer.results",
    "signature": "answer.signature",
    "sources": "build.sources",
    "verification": "review.verification",
}


def new_place(name: str) -> str | None:
    """Return an error text that names the new place of ``geolookup.NAME``; None: it never was."""
    new = _MOVED.get(name)
    return new and f"geolookup.{name} is now geolookup.{new}"


class _Finder:
    """Comes after all other finders, so it is asked only for modules that are not there."""

    @staticmethod
    def find_spec(fullname: str, _path: object, _target: object = None) -> None:
        package, _, name = fullname.partition(".")
        text = new_place(name) if package == "geolookup" else None
        if text is not None:
            # Without a name: `from geolookup import regions` would drop an error that has one.
            raise ModuleNotFoundError(text)


def install() -> None:
    """Have imports of the old names fail with the new ones."""
    sys.meta_path.append(_Finder())
