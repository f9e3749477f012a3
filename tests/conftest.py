"""What many tests share: the embedded dataset, and one running service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import strategies  # noqa: F401 - loads the profile that all hypothesis tests run under
from servers import OWN_REGION_SETS, Service, serving

import geolookup
from geolookup import Dataset


@pytest.fixture(scope="session")
def dataset() -> Iterator[Dataset]:
    """The embedded dataset, as in the service of the fixture `service`."""
    with geolookup.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service over the embedded dataset, with one region set of the operator's own."""
    path = tmp_path_factory.mktemp("service") / "sets.toml"
    path.write_text(OWN_REGION_SETS)
    with serving("--region-sets", str(path)) as running:
        yield running
