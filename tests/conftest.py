"""What many tests share: the embedded dataset, and one running service."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_dataset
import strategies  # noqa: F401 - loads the profile that all hypothesis tests run under
from servers import OWN_REGION_SETS, TRANSPORT, Service, serving

import geolookup
from geolookup import Dataset
from geolookup.answer.dataset import encode
from geolookup.client import transports
from geolookup.service.rpc.transports import build


@pytest.fixture(scope="session")
def dataset() -> Iterator[Dataset]:
    """The embedded dataset, as in the service of the fixture `service`."""
    with geolookup.open() as opened:
        yield opened


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """A file with a small dataset."""
    path = tmp_path / "small.geolookup"
    path.write_bytes(encode(small_dataset.content()))
    return path


TRANSPORTS = ("threads", "native") if build.missing() is None else ("threads",)
"""Without libnghttp2 there is no native transport, and all is tested over the public server."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--transport", choices=TRANSPORTS, help="of the service; without it: each")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background commands ignore it, and so would the processes that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "transports(*names): the test runs over these alone; it names one itself, or is about what"
        " is the same over each.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the service over each transport, or those that a mark or a module names."""
    if "transport" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--transport")
        mark = metafunc.definition.get_closest_marker("transports")
        own = mark.args if mark else getattr(metafunc.module, "TRANSPORTS", TRANSPORTS)
        names = [name for name in own if chosen in (None, name)]
        metafunc.parametrize("transport", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """The transport of all services that are started while this one is in use.

    And that of all clients, so that what is tested with a client is tested over both of theirs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRANSPORT, request.param)
        carrier = "native" if request.param == "native" else "grpcio"
        patch.setenv(transports.VARIABLE, carrier)
        yield request.param


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    transport: str,  # noqa: ARG001
) -> Iterator[Service]:
    """A service over the embedded dataset, with one region set of the operator's own."""
    path = tmp_path_factory.mktemp("service") / "sets.toml"
    path.write_text(OWN_REGION_SETS)
    with serving("--region-sets", str(path)) as running:
        yield running
