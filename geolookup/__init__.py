"""In which region is this address? For single joins and whole meeting rosters.

>>> import geolookup
>>> dataset = geolookup.open()
>>> dataset.country("1.1.8.8")
'CN'
>>> dataset.classify(["1.1.8.8", "8.8.8.8", "10.0.0.1"], region_set="CN").inside
BitMap([0])
"""

from geolookup import _moved
from geolookup.answer.claims import Network, Policy, Reason, Status, Verdict
from geolookup.answer.client_address import AddressSource, ClientAddress, FoundAddress
from geolookup.answer.dataset import Dataset, open  # noqa: A004 - geolookup.open() is what one looks for
from geolookup.answer.region_sets import RegionSet
from geolookup.answer.results import Answer, RosterResult
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

__version__ = "0.1.0"

__all__ = [
    "AddressSource",
    "Answer",
    "ClientAddress",
    "Dataset",
    "DatasetClosedError",
    "DatasetError",
    "FoundAddress",
    "GeoLookupError",
    "Network",
    "Policy",
    "Reason",
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


_moved.install()


def __getattr__(name: str) -> object:
    """Say where a module is that was here once."""
    raise AttributeError(
        _moved.new_place(name) or f"module {__name__!r} has no attribute {name!r}", name=name
    )
