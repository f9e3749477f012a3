"""The server's options, each by what it does on a real connection to a real server.

gRPC takes a name that it does not know for no option at all, in silence: that an option is
set shows nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import http2
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not in the stubs
from grpc_servers import PATIENCE, Running, serving, start
from http2 import Connection
from hyperframe.frame import Frame, GoAwayFrame
from servers import ROOT

from geolookup.service.rpc import grpc_options
from geolookup.service.rpc.grpc_options import channel_options
from geolookup.service.settings import RosterLimits, Settings, SettingsError

NEVER = 2**31 - 1
ECHO, COUNT, WAIT = "/test/Echo", "/test/Count", "/test/Wait"


def ask(
    running: Running, path: str, body: bytes, options: Any = (), **how: Any
) -> grpc.StatusCode | bytes:
    with grpc.insecure_channel(
        running.target, [("grpc.max_receive_message_length", -1), *options]
    ) as channel:
        try:
            answer: bytes = channel.unary_unary(path)(body, timeout=PATIENCE, **how)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return answer


# what is asked for


def test_each_option_is_among_those_that_are_tested_here() -> None:
    assert [name for name, _ in channel_options(Settings(), share_port=True)] == [
        "grpc.so_reuseport",
        "grpc.max_receive_message_length",
        "grpc.compression_enabled_algorithms_bitset",
        "grpc.http2.bdp_probe",
        "grpc.http2.lookahead_bytes",
        "grpc.experimental.tcp_max_read_buffer_size",
        "grpc.max_metadata_size",
        "grpc.absolute_max_metadata_size",
        "grpc.max_allowed_incoming_connections",
        "grpc.server_handshake_timeout_ms",
        "grpc.http2.settings_timeout",
        "grpc.max_connection_idle_ms",
        "grpc.keepalive_time_ms",
        "grpc.keepalive_timeout_ms",
        "grpc.http2.ping_timeout_ms",
        "grpc.keepalive_permit_without_calls",
        "grpc.max_connection_age_ms",
        "grpc.max_connection_age_grace_ms",
        "grpc.http2.min_ping_interval_without_data_ms",
        "grpc.http2.max_ping_strikes",
        "grpc.max_concurrent_streams",
        "grpc.enable_channelz",
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"keepalive": 0}, {"grpc.keepalive_time_ms": NEVER}),
        ({"keepalive": 0}, {"grpc.http2.ping_timeout_ms": 20_000}),
        ({"keepalive": 1.5}, {"grpc.keepalive_time_ms": 1_500}),
        ({"keepalive": 1.5}, {"grpc.http2.ping_timeout_ms": 1_500}),
        ({"keepalive": 60}, {"grpc.keepalive_time_ms": 60_000}),
        ({"keepalive": 60}, {"grpc.http2.ping_timeout_ms": 20_000}),
        ({"max_connection_idle": 0}, {"grpc.max_connection_idle_ms": NEVER}),
        ({"max_connection_age": 0}, {"grpc.max_connection_age_ms": NEVER}),
        ({"max_connection_age": 86_400}, {"grpc.max_connection_age_ms": 86_400_000}),
        # No grace is a short one, and not one without end.
        ({"grace": 0}, {"grpc.max_connection_age_grace_ms": 1}),
        ({"grace": 0.0001}, {"grpc.max_connection_age_grace_ms": 1}),
        ({"handshake_timeout": 0.1}, {"grpc.server_handshake_timeout_ms": 100}),
    ],
)
def test_seconds_are_milliseconds_and_zero_is_never(
    settings: dict[str, float], expected: dict[str, int]
) -> None:
    options = dict(channel_options(Settings(**settings), share_port=False))
    assert options.items() >= expected.items()
    assert all(0 <= value <= NEVER for value in options.values())


# the port


def test_a_port_that_is_not_shared_is_an_error_for_the_second() -> None:
    with serving() as first, pytest.raises(RuntimeError):
        start(channel_options(Settings(), share_port=False), first.target)


def test_a_shared_port_is_listened_on_by_several() -> None:
    options = channel_options(Settings(), share_port=True)
    first, running = start(options)
    second, other = start(options, running.target)
    assert other.port == running.port
    for server in (first, second):
        server.stop(0).wait(PATIENCE)


# messages


def test_a_message_has_the_size_of_the_largest_request_at_most() -> None:
    limits = RosterLimits(roster=1_000)
    with serving(limits=limits) as running:
        largest = limits.message_bytes
        assert ask(running, COUNT, bytes(largest)) == str(largest).encode()
        too_large = ask(running, COUNT, bytes(largest + 1))
        assert too_large is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_is_sent_before_it_is_wanted_is_bounded_however_fast_the_connection_is() -> None:
    """Else refusing large rosters costs as much as reading them."""
    large = http2.message(bytes(4_000_000))
    limits = RosterLimits(roster=1_000_000)
    with serving(limits=limits) as running, Connection(running.port) as connection:
        for stream in range(1, 21, 2):
            connection.open(stream, COUNT)
            assert connection.data(stream, large) is None
            assert b"4000000" in connection.body(stream)
        assert connection.is_alive()
        window = connection.their_settings.get(http2.INITIAL_WINDOW_SIZE, 65_535)
        # Older releases (1.72) stay at HTTP/2's own.
        assert window in {65_535, 512 * 1_024}


def test_a_response_may_be_larger_than_a_request() -> None:
    """One of a million addresses is: the limit is on what comes in."""
    with serving(limits=RosterLimits(roster=100_000)) as running:
        body = bytes(4_800_000)  # above gRPC's own limit of 4 MiB, which is the client's
        assert ask(running, ECHO, body) == body


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_is_refused(algorithm: grpc.Compression) -> None:
    with serving() as running:
        refused = ask(running, COUNT, bytes(10_000), compression=algorithm)
        assert refused is grpc.StatusCode.UNIMPLEMENTED


needs_bounded = pytest.mark.skipif(
    grpc_options._release() < grpc_options._BOUNDED_SINCE,
    reason="this release of gRPC unpacks without a bound",
)


@needs_bounded
def test_gzip_and_nothing_else_is_read_where_it_is_allowed() -> None:
    with serving(compression=True) as running:
        assert ask(running, COUNT, bytes(10_000), compression=grpc.Compression.Gzip) == b"10000"
        refused = ask(running, COUNT, bytes(10_000), compression=grpc.Compression.Deflate)
        assert refused is grpc.StatusCode.UNIMPLEMENTED


@needs_bounded
def test_a_message_that_unpacks_to_more_than_the_limit_is_refused() -> None:
    limits = RosterLimits(roster=1)
    with serving(compression=True, limits=limits) as running:
        gzip_ = {"compression": grpc.Compression.Gzip}
        assert ask(running, COUNT, bytes(limits.message_bytes), **gzip_) == b"65584"
        refused = ask(running, COUNT, bytes(limits.message_bytes + 1), **gzip_)
        assert refused is grpc.StatusCode.RESOURCE_EXHAUSTED


SERVE = """
import resource, sys
sys.path[:0] = sys.argv[1:]
from geolookup.service import log
log.silence_grpc()
from geolookup.service.settings import RosterLimits
from grpc_servers import serving
with serving(compression=True, limits=RosterLimits(roster=1)) as running:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(running.port, flush=True)
    sys.stdin.readline()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
"""


@contextlib.contextmanager
def growing_by(most: int) -> Iterator[int]:
    """Serve, in a process of its own that may take so many bytes more; yields its port."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(ROOT / "tests")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.write("\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) * 1_024 < most


@needs_bounded
def test_a_bomb_of_gzip_is_unpacked_no_further_than_the_limit() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(1 << 20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(200)) + packer.flush()
    assert len(bomb) > 150_000  # packed, it is over the limit; so it is sent in one message alone
    small = gzip.compress(bytes(50 << 20))
    assert len(small) < 65_584  # and this one is within it
    with growing_by(20 << 20) as port:
        for packed in (bomb, small):
            for _ in range(3):
                with Connection(port) as connection:
                    connection.open(1, COUNT, ("grpc-encoding", "gzip"))
                    early = connection.data(1, http2.message(packed, compressed=True))
                    # Headers alone: refused. A count would come as data.
                    found = [early] if early else connection.rest(1)
                    assert http2.DATA not in {one.type for one in found}
                    assert http2.ends(found[-1], 1)


@needs_bounded
def test_what_is_in_no_window_is_read_in_bounded_pieces() -> None:
    """Headers that go on: room would be made for as much as came in the burst before."""
    first, more = http2.block(http2.request(COUNT)), http2.block([("x", "v" * 16_000)])
    with growing_by(32 << 20) as port, Connection(port) as connection:
        for stream in range(1, 5, 2):
            burst = http2.frame(http2.CONTINUATION, 0, stream, more) * 100
            connection.send(http2.HEADERS, 0, stream, first)
            for _ in range(160):
                connection.raw(burst)
            connection.send(http2.CONTINUATION, http2.END_HEADERS, stream, b"")
            assert http2.ends(connection.rest(stream)[-1], stream)
        assert connection.is_alive()  # so it has read all of it; a ping a stream would be too many


@pytest.mark.parametrize("release", ["1.72.1", "1.83.9"])
def test_a_release_that_unpacks_without_a_bound_refuses_the_setting(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(grpc, "__version__", release)
    channel_options(Settings(), share_port=False)
    with pytest.raises(SettingsError, match=r"^compression: needs grpcio 1\.84 or newer"):
        channel_options(Settings(compression=True), share_port=False)


@pytest.mark.parametrize("release", ["1.84.0", "1.100.1", "2.0.0", "1.85.0rc1"])
def test_a_release_with_the_bound_takes_the_setting(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(grpc, "__version__", release)
    channel_options(Settings(compression=True), share_port=False)


@pytest.mark.parametrize("compression", [False, pytest.param(True, marks=needs_bounded)])
def test_no_response_is_compressed(compression: bool) -> None:
    body = bytes(10_000)
    with serving(compression=compression) as running, Connection(running.port) as connection:
        connection.call(1, ECHO, body, ("grpc-accept-encoding", "identity,deflate,gzip"))
        assert connection.body(1) == http2.message(body)


# metadata


def outcomes(running: Running, *sizes: int) -> list[grpc.StatusCode]:
    """Return how calls with so many bytes of metadata end."""
    found = []
    with grpc.insecure_channel(running.target) as channel:
        count = channel.unary_unary(COUNT)
        for size in sizes:
            call = count.future(b"", metadata=[("x", "v" * size)], timeout=PATIENCE)
            found.append(call.code())
    return found


OK, EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_over_the_limit_is_refused_and_always_so() -> None:
    """GRPC's own two limits refuse what lies between them at random."""
    sizes = range(1_000, 2_800, 150)
    with serving(max_metadata=2_048) as running:
        tries = [outcomes(running, *sizes) for _ in range(3)]
    assert all(found == tries[0] for found in tries)
    accepted = tries[0].count(OK)
    # The limit counts gRPC's own headers too, and 32 bytes for each.
    assert tries[0] == [OK] * accepted + [EXHAUSTED] * (len(sizes) - accepted)
    assert 0 < accepted <= 7


def test_metadata_within_the_default_is_taken() -> None:
    with serving() as running:
        assert outcomes(running, 15_000, 17_000, 15_000) == [OK, EXHAUSTED, OK]


def test_the_limit_on_metadata_is_told_to_clients() -> None:
    with serving(max_metadata=2_048) as running, Connection(running.port) as connection:
        assert connection.their_settings[http2.MAX_HEADER_LIST_SIZE] == 2_048


# connections


def hung_up(connection: Connection) -> list[Frame]:
    """Return what came until the server hung up; it must, within `PATIENCE`."""
    return list(connection.frames())


def test_one_connection_too_many_is_closed_and_its_place_is_used_again() -> None:
    with serving(max_connections=2) as running, contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(Connection(running.port)) for _ in range(2))
        for _ in range(3):
            with pytest.raises(ConnectionError):
                Connection(running.port)
        assert first.is_alive()
        assert second.is_alive()
        first.close()
        while True:  # until the server has noticed
            with contextlib.suppress(ConnectionError):
                stack.enter_context(Connection(running.port))
                break
        assert second.is_alive()


UNFINISHED: dict[str, Callable[[Connection], None]] = {
    "nothing": lambda _: None,
    "half a preface": lambda connection: connection.raw(http2.PREFACE[:10]),
    "a preface alone": lambda connection: connection.raw(http2.PREFACE),
    "half of the settings": lambda connection: connection.raw(http2.PREFACE + b"\0\0\x06\x04"),
    "settings, and none acknowledged": lambda connection: connection.raw(
        http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0, b"")
    ),
}


@pytest.mark.parametrize("say", UNFINISHED.values(), ids=UNFINISHED)
def test_a_handshake_that_is_not_finished_is_not_waited_for(
    say: Callable[[Connection], None],
) -> None:
    with (
        serving(handshake_timeout=0.2) as running,
        Connection(running.port) as finished,
        Connection(running.port, greet=False, polite=False) as unfinished,
    ):
        say(unfinished)
        hung_up(unfinished)
        assert finished.is_alive()


def test_a_connection_without_calls_is_closed() -> None:
    with serving(max_connection_idle=1) as running, Connection(running.port) as connection:
        kinds = [one.type for one in hung_up(connection)]
        assert http2.GOAWAY in kinds


def test_a_connection_with_a_call_is_not_idle() -> None:
    with (
        serving(max_connection_idle=1) as running,
        Connection(running.port) as busy,
        Connection(running.port) as idle,
    ):
        busy.call(1, WAIT, b"")
        assert running.begun.acquire(timeout=PATIENCE)
        hung_up(idle)
        assert busy.is_alive()


def test_a_connection_that_answers_no_probe_is_closed() -> None:
    with (
        serving(keepalive=1) as running,
        Connection(running.port, polite=False) as silent,
        Connection(running.port) as answering,
    ):
        silent.send(http2.SETTINGS, http2.ACK)
        probed = threading.Event()

        def answer() -> None:
            for one in answering.frames():
                if one.type == http2.PING:
                    probed.set()

        answers = threading.Thread(target=answer)
        answers.start()
        assert http2.PING in [one.type for one in hung_up(silent)]
        # The same time has passed for the one that answers, which has no call either.
        assert probed.is_set()
        assert answers.is_alive()
        answering.socket.shutdown(2)
        answers.join(PATIENCE)


def test_a_connection_of_a_certain_age_is_asked_to_close() -> None:
    with serving(max_connection_age=1, grace=PATIENCE) as running:
        connection = Connection(running.port)
        connection.call(1, WAIT, b"x")
        assert connection.expect(http2.GOAWAY).error_code == 0
        # The call has its grace, and its answer.
        running.go_on.set()
        assert connection.expect(http2.DATA, 1).data == http2.message(b"x")
        hung_up(connection)
        connection.close()


def test_a_call_that_outlasts_age_and_grace_is_ended() -> None:
    with serving(max_connection_age=1, grace=0.1) as running, Connection(running.port) as aged:
        aged.call(1, WAIT, b"x")
        kinds = [one.type for one in hung_up(aged)]
        assert http2.GOAWAY in kinds
        assert http2.DATA not in kinds


def test_too_many_pings_end_a_connection() -> None:
    with serving() as running, Connection(running.port) as connection:
        answered = 0
        connection.send(http2.PING, 0, 0, bytes(8))
        for found in connection.frames():
            if found.type == http2.PING:
                answered += 1
                with contextlib.suppress(ConnectionError):
                    connection.send(http2.PING, 0, 0, bytes(8))
            elif found.type == http2.GOAWAY:
                break
        assert isinstance(found, GoAwayFrame)
        assert found.error_code == http2.ENHANCE_YOUR_CALM
        assert found.additional_data.endswith(b"too_many_pings")
        # The first is welcome, the strikes are forgiven, and the next is the last.
        assert answered <= 2 + grpc_options._PING_STRIKES


def test_a_ping_now_and_then_is_answered() -> None:
    with serving() as running, Connection(running.port) as connection:
        assert connection.is_alive()
        assert connection.is_alive()


# streams


def test_streams_have_a_limit_above_that_on_calls() -> None:
    with (
        serving(max_calls=2, max_streams=1) as running,
        Connection(running.port) as connection,
    ):
        assert connection.their_settings[http2.MAX_CONCURRENT_STREAMS] == 20
        for number in range(20):
            connection.call(2 * number + 1, WAIT, b"")
        for _ in range(20):
            assert running.begun.acquire(timeout=PATIENCE)
        connection.call(41, WAIT, b"")
        assert connection.expect(http2.RST_STREAM, 41).error_code == http2.REFUSED_STREAM
        assert not running.begun.acquire(blocking=False)


# channelz


def shown() -> set[str]:
    """Return the numbers of this process's servers that channelz shows."""
    servers = json.loads(cygrpc.channelz_get_servers(0)).get("server", [])
    return {server["ref"]["serverId"] for server in servers}


@pytest.mark.parametrize("channelz", [False, True])
def test_channelz_sees_the_server_only_if_it_was_asked_for(channelz: bool) -> None:
    before = shown()
    with serving(channelz=channelz):
        assert len(shown() - before) == channelz
