"""The line between supervisor and worker: whole messages, files with them, and no trust."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geolookup.service.processes import channel as module
from geolookup.service.processes.channel import Channel, ChannelError, Packet

PATIENCE = 30


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()


@pytest.fixture
def raw() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel whose other end says whatever it likes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiving = Channel(ours)
    try:
        yield receiving, theirs
    finally:
        receiving.close()
        theirs.close()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def is_open_elsewhere(reading: int) -> bool:
    """Say whether the writing end of a pipe whose own one was closed is open somewhere."""
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 1) != b""
    except BlockingIOError:
        return True


# messages


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


@given(
    sent=st.lists(
        st.tuples(
            st.text(max_size=20),
            st.dictionaries(st.from_regex(r"f_[a-z]{1,5}", fullmatch=True), JSON, max_size=5),
        ),
        max_size=5,
    )
)
def test_packets_arrive_whole_and_in_order(sent: list[tuple[str, dict[str, Any]]]) -> None:
    ours, theirs = Channel.pair()
    for kind, fields in sent:
        ours.send(kind, **fields)
    ours.close()
    received = []
    while (message := theirs.receive()) is not None:
        received.append((message.kind, message.fields))
        assert (message.descriptors, message.incomplete) == ((), False)
    theirs.close()
    assert received == sent


def test_both_ends_send(ends: tuple[Channel, Channel]) -> None:
    for one, other in (ends, reversed(ends)):
        one.send("hello", to="you")
        assert other.receive() == Packet("hello", {"to": "you"})


def test_packet_of_the_largest_size_arrives(ends: tuple[Channel, Channel]) -> None:
    text = "x" * (module._LARGEST - len(json.dumps(["long", {"text": ""}])))
    ends[0].send("long", text=text)
    message = ends[1].receive()
    assert message is not None
    assert message.fields["text"] == text
    with pytest.raises(ChannelError, match=r"^a packet of long is too large$"):
        ends[0].send("long", text=text + "x")


def test_inherited_end_works_in_another_process() -> None:
    ours, theirs = Channel.pair()
    code = (
        "import sys; from geolookup.service.processes.channel import Channel\n"
        "channel = Channel.of_descriptor(int(sys.argv[1]))\n"
        "message = channel.receive()\n"
        "channel.send('answer', twice=2 * message.fields['number'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
    ) as process:
        theirs.close()
        ours.send("question", number=21)
        assert ours.receive() == Packet("answer", {"twice": 42})
        # Its end was its own: it has ended with it.
        assert ours.receive() is None
        assert process.wait(PATIENCE) == 0
    ours.close()


@pytest.mark.parametrize("of", ["pair", "of_descriptor"])
def test_end_is_not_inherited(of: str) -> None:
    ours, theirs = Channel.pair()
    if of == "of_descriptor":
        number = os.dup(theirs.fileno())
        os.set_inheritable(number, True)
        theirs.close()
        theirs = Channel.of_descriptor(number)
    assert not os.get_inheritable(ours.fileno())
    assert not os.get_inheritable(theirs.fileno())
    ours.close()
    theirs.close()


# files


def test_descriptors_arrive_as_own_descriptors(ends: tuple[Channel, Channel]) -> None:
    reading, writing = os.pipe()
    ends[0].send("files", writing)
    os.close(writing)
    message = ends[1].receive()
    assert message is not None
    (descriptor,) = message.descriptors
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"through")
    assert os.read(reading, 10) == b"through"
    message.close()
    assert not is_open_elsewhere(reading)
    os.close(reading)


def test_descriptors_keep_their_order(ends: tuple[Channel, Channel]) -> None:
    pipes = [os.pipe() for _ in range(module._DESCRIPTORS)]
    ends[0].send("files", *(writing for _, writing in pipes))
    message = ends[1].receive()
    assert message is not None
    assert not message.incomplete
    for number, descriptor in enumerate(message.descriptors):
        os.write(descriptor, bytes([number]))
    message.close()
    assert [os.read(reading, 1) for reading, _ in pipes] == [bytes([n]) for n in range(4)]
    for ends_of_pipe in pipes:
        for end in ends_of_pipe:
            os.close(end)


def test_too_many_descriptors_are_an_error(ends: tuple[Channel, Channel]) -> None:
    with pipe() as (reading, _), pytest.raises(ChannelError, match="too large"):
        ends[0].send("files", *[reading] * (module._DESCRIPTORS + 1))


def test_closed_descriptor_is_an_error(ends: tuple[Channel, Channel]) -> None:
    with pipe() as (reading, _):
        pass
    with pytest.raises(ChannelError, match=r"^can't send: Bad file descriptor$"):
        ends[0].send("files", reading)


RECEIVE_WITHOUT_ROOM = """
import os, resource, sys
from geolookup.service.processes.channel import Channel
ours, theirs = Channel.pair()
reading, writing = os.pipe()
ours.send("files", reading, writing)
most = max(map(int, os.listdir("/proc/self/fd"))) + 8
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
# What is free below the limit is used up, but for as many as the argument says.
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
for descriptor in taken[len(taken) - int(sys.argv[1]):]:
    os.close(descriptor)
message = theirs.receive()
print(message.kind, len(message.descriptors), message.incomplete)
"""


@pytest.mark.parametrize(
    ("free", "expected"), [(0, "files 0 True"), (1, "files 1 True"), (2, "files 2 False")]
)
def test_descriptors_without_room_are_reported_as_lost(free: int, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RECEIVE_WITHOUT_ROOM, str(free)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.stdout.strip() == expected, done.stderr


# the other end


def test_closed_other_end_is_reported(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    assert ours.receive() is None
    assert ours.receive() is None
    with pytest.raises(ChannelError, match=r"^can't send: Broken pipe$"):
        ours.send("hello")


def test_packets_before_the_close_arrive(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("last", words=True)
    ours.close()
    assert theirs.receive() == Packet("last", {"words": True})
    assert theirs.receive() is None


def test_end_that_closed_with_unread_packets_is_reported(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("unread")
    theirs.close()
    assert ours.receive() is None  # where the system says ECONNRESET


def test_send_to_an_end_that_does_not_read_fails_at_once(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    sent = itertools.count()

    def send_all() -> None:
        for number in range(100_000):  # far more than a socket holds
            ours.send("more", text="x" * 1_000, number=number)
            next(sent)

    with pytest.raises(ChannelError, match=r"^can't send: Resource temporarily unavailable$"):
        send_all()
    # What was sent is there, whole and in order.
    for number in range(next(sent)):
        message = theirs.receive()
        assert message is not None
        assert message.fields["number"] == number


def test_receive_on_a_closed_end_is_an_error(ends: tuple[Channel, Channel]) -> None:
    ends[0].close()
    with pytest.raises(ChannelError, match=r"^can't receive: Bad file descriptor$"):
        ends[0].receive()


# what is no message


MALFORMED = {
    "not UTF-8": b'["\xff", {}]',
    "not JSON": b"hello",
    "JSON that breaks off": b'["load", {',
    "a number": b"5",
    "null": b"null",
    "a text of two letters": b'"ab"',
    "an object of two keys": b'{"load": 1, "swap": 2}',
    "nothing in it": b"[]",
    "a kind alone": b'["load"]',
    "one more": b'["load", {}, {}]',
    "a kind that is a number": b"[1, {}]",
    "a kind that is a list": b'[["load"], {}]',
    "fields that are a list": b'["load", []]',
    "fields that are a text": b'["load", "fields"]',
    "nested too deeply": b"[" * 60_000,
    "nested too deeply, in the fields": b'["load", ' + b'{"a":' * 10_000,
    "a number too long to read": b'["load", {"a": ' + b"9" * 10_000 + b"}]",
    "larger than a message": b'["load", {}]' + b" " * module._LARGEST,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_packet_is_refused_and_its_descriptors_closed(
    raw: tuple[Channel, socket.socket], body: bytes
) -> None:
    receiving, sending = raw
    reading, writing = os.pipe()
    socket.send_fds(sending, [body], [writing])
    os.close(writing)
    with pytest.raises(ChannelError, match=r"^malformed packet$"):
        receiving.receive()
    assert not is_open_elsewhere(reading)
    os.close(reading)


def test_empty_packet_is_a_close_and_its_descriptors_closed(
    raw: tuple[Channel, socket.socket],
) -> None:
    receiving, sending = raw
    reading, writing = os.pipe()
    socket.send_fds(sending, [b""], [writing])
    os.close(writing)
    assert receiving.receive() is None
    assert not is_open_elsewhere(reading)
    os.close(reading)


def test_descriptors_beyond_the_limit_are_lost_and_closed(
    raw: tuple[Channel, socket.socket],
) -> None:
    receiving, sending = raw
    reading, writing = os.pipe()
    files = array.array("i", [writing] * (module._DESCRIPTORS + 3))
    sending.sendmsg([b'["load", {}]'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    os.close(writing)
    message = receiving.receive()
    assert message is not None
    assert len(message.descriptors) == module._DESCRIPTORS
    assert message.incomplete
    message.close()
    assert not is_open_elsewhere(reading)
    os.close(reading)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_a_close_or_an_error(body: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, contextlib.closing(Channel(ours)) as receiving:
        theirs.send(body)
        with contextlib.suppress(ChannelError):
            message = receiving.receive()
            assert message is None or isinstance(message.fields, dict)
