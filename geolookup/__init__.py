"""In which region is this address? For single joins and whole meeting rosters.

>>> import geolookup
>>> dataset = geolookup.open()
>>> dataset.country("1.1.8.8")
'CN'
>>> dataset.classify(["1.1.8.8", "8.8.8.8", "10.0.0.1"], region_set="CN").inside
BitMap([0])
"""

from geolookup.claims import Policy, Status, Verdict
from geolookup.dataset import Dataset, open  # noqa: A004 - geolookup.open() is what one looks for
from geolookup.errors import (
    DatasetClosedError,
    DatasetError,
    GeoLookupError,
    RegionSetError,
    RosterError,
    RosterTooLargeError,
    ServiceError,
    ServiceUnavailableError,
    SourceError,
)
from geolookup.regions import RegionSet
from geolookup.roster import Answer, RosterResult

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Dataset",
    "DatasetClosedError",
    "DatasetError",
    "GeoLookupError",
    "Policy",
    "RegionSet",
    "RegionSetError",
    "RosterError",
    "RosterResult",
    "RosterTooLargeError",
    "ServiceError",
    "ServiceUnavailableError",
    "SourceError",
    "Status",
    "Verdict",
    "__version__",
    "open",
]
