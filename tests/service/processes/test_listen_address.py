"""The held listen address: a port or path in use is refused at once, and a held one is kept."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from geolookup.service.processes.listen_address import HeldListenAddress
from geolookup.service.settings import ListenAddress, ListenError, SettingsError

PATIENCE = 30


@contextlib.contextmanager
def held(text: str, workers: int = 2) -> Iterator[HeldListenAddress]:
    listen_address = HeldListenAddress(ListenAddress.parse(text), workers)
    try:
        yield listen_address
    finally:
        listen_address.release()


@contextlib.contextmanager
def bound(
    *options: int, host: str = "127.0.0.1", port: int = 0, listening: bool = True
) -> Iterator[int]:
    """Hold a port as another program would; yield its number."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        for option in options:
            held.setsockopt(socket.SOL_SOCKET, option, 1)
        held.bind((host, port))
        if listening:
            held.listen()
        yield held.getsockname()[1]


def has_ipv6() -> bool:
    try:
        with bound(host="::1"):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


# TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104
def test_a_free_port_is_chosen_and_is_the_same_for_all_workers(host: str) -> None:
    with held(f"{host}:0", workers=3) as listen_address:
        (address,) = listen_address.addresses
        assert address.host == host
        assert address.port > 0
        assert [listen_address.of_worker(worker) for worker in range(3)] == [address] * 3


@needs_ipv6
def test_an_ipv6_address_stands_in_brackets() -> None:
    with held("[::1]:0") as listen_address, socket.socket(socket.AF_INET6) as probe:
        with pytest.raises(OSError, match="in use"):
            probe.bind(("::1", listen_address.addresses[0].port))
        assert str(listen_address.addresses[0]) == f"[::1]:{listen_address.addresses[0].port}"


@pytest.mark.parametrize(
    "options",
    [
        (),
        (socket.SO_REUSEADDR,),
        # Silence would be worst: half of the connections would reach the other service.
        (socket.SO_REUSEPORT,),
        (socket.SO_REUSEADDR, socket.SO_REUSEPORT),
    ],
)
def test_a_port_that_another_service_listens_on_is_an_error_at_once(
    options: tuple[int, ...],
) -> None:
    with bound(*options) as port, pytest.raises(ListenError) as refused:
        HeldListenAddress(ListenAddress.parse(f"127.0.0.1:{port}"), 2)
    assert str(refused.value) == (
        f"listen: can't listen on 127.0.0.1:{port}: Address already in use; stop what listens "
        "there, or choose another port with --listen"
    )


def test_a_port_that_a_service_has_on_all_addresses_is_an_error() -> None:
    with bound(host="0.0.0.0") as port, pytest.raises(ListenError, match="in use"):  # noqa: S104
        HeldListenAddress(ListenAddress.parse(f"127.0.0.1:{port}"), 2)


def test_a_port_on_another_address_is_free() -> None:
    with bound(host="127.0.0.2") as port, held(f"127.0.0.1:{port}") as listen_address:
        assert listen_address.addresses[0].port == port


def test_a_second_service_finds_the_reserved_port_in_use() -> None:
    with held("127.0.0.1:0") as first:
        text = str(first.addresses[0])
        for _ in range(2):  # refusing it once changes nothing
            with pytest.raises(ListenError, match="Address already in use"):
                HeldListenAddress(ListenAddress.parse(text), 2)
    with held(text) as again:
        assert str(again.addresses[0]) == text


def test_a_program_that_would_share_it_with_everybody_does_not_get_it() -> None:
    """Only sockets of SO_REUSEPORT share it, and only those of the same user."""
    with held("127.0.0.1:0") as listen_address:
        port = listen_address.addresses[0].port
        with pytest.raises(OSError, match="in use"), bound(socket.SO_REUSEADDR, port=port):
            pass


def test_connections_to_earlier_workers_are_no_reason_to_refuse() -> None:
    with socket.socket() as listening:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as gRPC sets them
            listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        accepted, _ = listening.accept()
        accepted.close()  # first, so this end has to remember the connection (TIME_WAIT)
        client.recv(1)
        client.close()
    with socket.socket() as strict, pytest.raises(OSError, match="in use"):
        strict.bind(("127.0.0.1", port))
    with held(f"127.0.0.1:{port}") as listen_address:
        assert listen_address.addresses[0].port == port


def test_held_port_accepts_no_connection() -> None:
    with held("127.0.0.1:0") as listen_address:
        address = ("127.0.0.1", listen_address.addresses[0].port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, PATIENCE)


def test_workers_share_it_and_get_all_connections() -> None:
    with contextlib.ExitStack() as stack:
        listen_address = stack.enter_context(held("127.0.0.1:0"))
        address = ("127.0.0.1", listen_address.addresses[0].port)
        workers = []
        for _ in range(2):
            worker = stack.enter_context(socket.socket())
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(address)
            worker.listen(64)
            worker.setblocking(False)
            workers.append(worker)
        for _ in range(40):
            stack.enter_context(socket.create_connection(address, PATIENCE))
        accepted = [0, 0]
        for number, worker in enumerate(workers):
            with contextlib.suppress(BlockingIOError):
                while True:
                    worker.accept()[0].close()
                    accepted[number] += 1
        assert sum(accepted) == 40
        assert min(accepted) > 0  # one chance in 2^39 to fail


def test_grpc_servers_listen_on_what_is_held() -> None:
    with held("localhost:0") as listen_address:
        address = str(listen_address.of_worker(0))
        servers = [grpc.server(None, options=[("grpc.so_reuseport", 1)]) for _ in range(2)]
        assert {server.add_insecure_port(address) for server in servers} == {
            listen_address.addresses[0].port
        }
        for server in servers:
            server.stop(0).wait(PATIENCE)


def test_after_the_release_others_may_have_it() -> None:
    with held("127.0.0.1:0") as listen_address:
        port = listen_address.addresses[0].port
        listen_address.release()
        listen_address.release()
        with bound(port=port):
            pass
        assert listen_address.of_worker(1).port == port


# several addresses behind one name


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    real = socket.getaddrinfo

    def getaddrinfo(_host: str, port: int, **arguments: object) -> list[object]:
        return [found for host in hosts for found in real(host, port, **arguments)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_one_free_port_is_found_for_all_addresses_of_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1")
    with held("everywhere:0") as listen_address:
        port = listen_address.addresses[0].port
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            with pytest.raises(OSError, match="in use"), bound(host=host, port=port):
                pass


def test_a_port_that_is_taken_on_one_of_the_addresses_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    with bound(host="127.0.0.2") as port:
        with pytest.raises(ListenError, match="in use"):
            HeldListenAddress(ListenAddress.parse(f"everywhere:{port}"), 2)
        # Nothing of the attempt is left.
        with bound(port=port):
            pass


def test_another_free_port_is_tried_where_the_first_is_taken_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    chosen: list[int] = []
    real = socket.socket.getsockname

    with contextlib.ExitStack() as stack:

        def getsockname(one: socket.socket) -> object:
            name = real(one)
            if name[0] == "127.0.0.1" and len(chosen) < 10:
                port = name[1]
                if port not in chosen:
                    chosen.append(port)
                    other = stack.enter_context(socket.socket())
                    other.bind(("127.0.0.2", port))
            return name

        monkeypatch.setattr(socket.socket, "getsockname", getsockname)
        with held("everywhere:0") as listen_address:
            assert listen_address.addresses[0].port not in chosen
            assert len(chosen) == 10


@pytest.mark.parametrize("hosts", [("192.0.2.1", "127.0.0.1"), ("127.0.0.1", "192.0.2.1")])
def test_an_address_of_another_machine_is_left_out(
    monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, str]
) -> None:
    resolve_to(monkeypatch, *hosts)
    with held("localhost:0") as listen_address:
        port = listen_address.addresses[0].port
        with pytest.raises(OSError, match="in use"), bound(port=port):
            pass


def test_an_address_of_another_machine_alone_is_an_error_that_does_not_repeat_it() -> None:
    with pytest.raises(ListenError) as refused:
        HeldListenAddress(ListenAddress.parse("192.0.2.1:0"), 2)
    assert str(refused.value) == "listen: can't listen on port 0: Cannot assign requested address"


def test_a_name_that_nobody_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ListenError, match=r"^listen: the host can't be resolved: Name or service"):
        HeldListenAddress(ListenAddress.parse("nowhere.invalid:1"), 2)


# unix sockets


def test_each_worker_has_a_socket_of_its_own(tmp_path: Path) -> None:
    with held(f"unix:{tmp_path}/socket", workers=3) as listen_address:
        expected = [f"unix:{tmp_path}/socket{suffix}" for suffix in ("", ".1", ".2")]
        assert [str(listen_address.of_worker(worker)) for worker in range(3)] == expected
        assert [str(address) for address in listen_address.addresses] == expected
    assert list(tmp_path.iterdir()) == []


def test_a_path_too_long_for_the_last_worker_is_refused(tmp_path: Path) -> None:
    path = f"{tmp_path}/".ljust(106, "x")
    HeldListenAddress(ListenAddress.parse(f"unix:{path}"), 1)
    with pytest.raises(SettingsError, match="107 bytes"):
        HeldListenAddress(ListenAddress.parse(f"unix:{path}"), 2)


@contextlib.contextmanager
def at(path: Path, kind: int = socket.SOCK_STREAM, backlog: int = 5) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as held:
        held.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            held.listen(backlog)
        yield held


@pytest.mark.parametrize("suffix", ["", ".1"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_path_where_another_program_listens_is_an_error(
    tmp_path: Path, kind: int, suffix: str
) -> None:
    path = tmp_path / "socket"
    with (
        at(Path(f"{path}{suffix}"), kind),
        pytest.raises(ListenError, match=r"^listen: another server listens at this path$"),
    ):
        HeldListenAddress(ListenAddress.parse(f"unix:{path}"), 2)


def test_a_server_too_busy_to_accept_has_its_path_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with at(path, backlog=0), contextlib.ExitStack() as stack:
        while True:  # until its queue is full, when who waits would wait for ever
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(ListenError, match="another server listens"):
            HeldListenAddress(ListenAddress.parse(f"unix:{path}"), 2)


def test_a_socket_that_was_left_behind_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with at(path):
        pass
    assert path.is_socket()
    with held(f"unix:{path}") as listen_address:
        server = grpc.server(None)
        assert server.add_insecure_port(str(listen_address.of_worker(0))) == 1
        server.stop(0).wait(PATIENCE)


@pytest.mark.parametrize("make", ["file", "folder", "fifo"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: str) -> None:
    path = tmp_path / "socket"
    making: dict[str, Callable[[], object]]
    making = {"file": path.touch, "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}
    making[make]()
    with pytest.raises(ListenError, match="there is a file at this path, and it is no socket"):
        HeldListenAddress(ListenAddress.parse(f"unix:{path}"), 1)
    assert path.exists()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="can't make a socket at this path: No such file"):
        HeldListenAddress(ListenAddress.parse(f"unix:{tmp_path}/nothing/socket"), 1)
    (tmp_path / "file").touch()
    with pytest.raises(ListenError, match="can't make a socket at this path: Not a directory"):
        HeldListenAddress(ListenAddress.parse(f"unix:{tmp_path}/file/socket"), 1)


def test_a_path_in_the_folder_one_is_in_needs_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with held("unix:socket") as listen_address:
        assert str(listen_address.of_worker(1)) == "unix:socket.1"


NOT_ALLOWED = """
import os, sys
from geolookup.service.processes.listen_address import HeldListenAddress
from geolookup.service.settings import ListenAddress, ListenError
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
try:
    HeldListenAddress(ListenAddress.parse("unix:" + sys.argv[1]), 1)
except ListenError as error:
    print(error)
"""


def test_a_socket_that_this_user_may_not_connect_to_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for folder in (tmp_path, *tmp_path.parents[:2]):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    with at(path):
        path.chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", NOT_ALLOWED, str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    expected = "listen: can't make a socket at this path: Permission denied\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_clearing_removes_what_workers_left_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen_address = HeldListenAddress(ListenAddress.parse(f"unix:{path}"), 4)
    first, second, third, fourth = (Path(str(address.path)) for address in listen_address.addresses)
    with at(first):
        pass
    second.write_text("somebody's file")
    with at(third):  # a worker that is still there
        listen_address.remove_sockets()
        listen_address.remove_sockets()
    assert not first.exists()
    assert second.read_text() == "somebody's file"
    assert third.is_socket()
    assert not fourth.exists()
    listen_address.remove_sockets()
    assert not third.exists()


def test_clearing_a_tcp_port_releases_it() -> None:
    listen_address = HeldListenAddress(ListenAddress.parse("127.0.0.1:0"), 2)
    listen_address.remove_sockets()
    with bound(port=listen_address.addresses[0].port):
        pass
