"""Whose address it is: the client's, and never a proxy's or what the client claims."""

from __future__ import annotations

import socket
import struct

import pytest
import strategies  # noqa: F401 - loads the hypothesis profile
from hypothesis import given
from hypothesis import strategies as st

import geolookup
from geolookup import AddressSource, ClientAddress, Status

TRUSTED = ("10.0.0.0/8", "192.0.2.1", "2001:db8:1::/48")
LB, CDN, LB6 = "10.0.0.1", "192.0.2.1", "2001:db8:1::5"
CLIENT, OTHER, CLIENT6 = "203.0.113.7", "198.51.100.9", "2001:db8:2::7"
PEER, PROXY = AddressSource.PEER, AddressSource.PROXY
XFF, FORWARDED = AddressSource.X_FORWARDED_FOR, AddressSource.FORWARDED


def found(
    peer: str, value: str | None = None, header: str = "x-forwarded-for"
) -> tuple[str, AddressSource]:
    headers = None if value is None else {header: value}
    result = ClientAddress(TRUSTED, header=header).find(peer, headers)
    assert (result.problem is None) == bool(result.address)
    return result.address, result.source


DIRECT = {
    "without headers": (CLIENT, None),
    "with a forged header": (CLIENT, OTHER),
    "with a port": (f"{CLIENT}:443", OTHER),
    "as gRPC writes it": (f"ipv4:{CLIENT}:443", OTHER),
    "beside a trusted prefix": (CLIENT, LB),
}


@pytest.mark.parametrize("name", DIRECT)
def test_peer_that_is_no_proxy_is_the_client(name: str) -> None:
    assert found(*DIRECT[name]) == (CLIENT, PEER)


@pytest.mark.parametrize(
    "peer", [CLIENT6, f"[{CLIENT6}]:443", f"ipv6:%5B{CLIENT6}%5D:443", f"ipv6:[{CLIENT6}]:443"]
)
def test_ipv6_peer_is_read_in_each_form(peer: str) -> None:
    assert found(peer) == (CLIENT6, PEER)


CHAINS = {
    "one proxy": (LB, CLIENT, CLIENT),
    "with a port": (LB, f"{CLIENT}:12345", CLIENT),
    "IPv6": (LB, CLIENT6, CLIENT6),
    "IPv6 in brackets": (LB, f"[{CLIENT6}]", CLIENT6),
    "IPv6 with a port": (LB, f"[{CLIENT6}]:80", CLIENT6),
    "mapped": (LB, f"::ffff:{CLIENT}", f"::ffff:{CLIENT}"),
    "a proxy over IPv6": (LB6, CLIENT, CLIENT),
    "a mapped proxy": (f"::ffff:{LB}", CLIENT, CLIENT),
    "two proxies": (LB, f"{CLIENT}, {CDN}", CLIENT),
    "two proxies, one mapped": (LB, f"{CLIENT},::ffff:{CDN}", CLIENT),
    "a forged client": (LB, f"{OTHER}, {CLIENT}", CLIENT),
    "a forged proxy": (LB, f"{OTHER}, {LB}, {CLIENT}, {CDN}", CLIENT),
    "junk of the client's": (LB, f"unknown, , \x01;'\"<>, {CLIENT}", CLIENT),
    "only machines of one's own": (LB, "10.9.9.9, 10.1.1.1", "10.9.9.9"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chain_is_read_from_the_right_through_proxies(name: str) -> None:
    peer, value, expected = CHAINS[name]
    assert found(peer, value) == (expected, XFF)


WRONG = {
    "no header": (LB, None, "sent no such header"),
    "an empty header": (LB, "", "hop 1 from the right is empty"),
    "an empty hop at the end": (LB, f"{CLIENT},", "hop 1 from the right is empty"),
    "a word": (LB, f"{CLIENT}, unknown", "hop 1 from the right is no address"),
    "a word behind a proxy": (LB, f"{CLIENT}, unknown, {CDN}", "hop 2 from the right is no addr"),
    "leading zeros": (LB, "203.0.113.07", "is no address"),
    "a port that is none": (LB, f"{CLIENT}:65536", "has a port that is none"),
    "a port without digits": (LB, f"{CLIENT}:", "has a port that is none"),
    "an open bracket": (LB, f"[{CLIENT6}", "is no address in brackets"),
    "IPv4 in brackets": (LB, f"[{CLIENT}]", "is no address in brackets"),
    "a host's name": (LB, "client.example", "is no address"),
    "a prefix": (LB, f"{CLIENT}/32", "is no address"),
    "a long header": (LB, "1" * 20_000, "over 16,384 characters"),
    "a peer that is none": ("somewhere", None, "is no address"),
    "a peer at a unix socket": ("unix:", None, "has a port that is none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_malformed_chain_is_invalid_and_never_the_next_best(name: str) -> None:
    peer, value, text = WRONG[name]
    headers = [] if value is None else [("X-Forwarded-For", value)]
    result = ClientAddress(TRUSTED).find(peer, headers)
    assert result.address == ""
    assert result.problem is not None
    assert text in result.problem
    for secret in (CLIENT, CLIENT6, LB, "client.example"):
        assert secret not in result.problem
        assert secret not in repr(result)
    with geolookup.open() as dataset:
        assert dataset.lookup(result.address, "CN").status is Status.INVALID


def test_address_is_not_in_the_repr() -> None:
    result = ClientAddress(TRUSTED).find(CLIENT)
    assert result.address == CLIENT
    assert CLIENT not in repr(result)


def test_header_that_comes_several_times_is_one_chain() -> None:
    headers = [("x-forwarded-for", OTHER), ("Host", "x"), ("X-FORWARDED-FOR", f"{CLIENT}, {CDN}")]
    assert ClientAddress(TRUSTED).find(LB, headers).address == CLIENT
    assert ClientAddress(TRUSTED).find(LB, {"X-Forwarded-For": [OTHER, CLIENT]}).address == CLIENT


RFC_7239 = {
    "a word": (f"for={CLIENT}", CLIENT),
    "other letter case": (f"For={CLIENT}", CLIENT),
    "in quotation marks": (f'for="{CLIENT}:80"', CLIENT),
    "IPv6": (f'for="[{CLIENT6}]:80"', CLIENT6),
    "among others": (f"proto=https;for={CLIENT};by=10.0.0.1", CLIENT),
    "with space": (f"proto=https ; for={CLIENT}", CLIENT),
    "with a comma and a semicolon in quotation marks": (f'by="a,;b";for={CLIENT}', CLIENT),
    "with a quoted mark": (f'by="a\\",b";for={CLIENT}', CLIENT),
    "two proxies": (f"for={CLIENT}, for={CDN}", CLIENT),
    "a forged one": (f"for={OTHER}, for={CLIENT}", CLIENT),
    "a mark that the client left open": (f'for="{OTHER}, for={CLIENT}', CLIENT),
}


@pytest.mark.parametrize("name", RFC_7239)
def test_forwarded_is_read_from_the_right(name: str) -> None:
    value, expected = RFC_7239[name]
    assert found(LB, value, "forwarded") == (expected, FORWARDED)


RFC_7239_WRONG = {
    "unknown": ("for=unknown", "is no address"),
    "a name in place of the address": ("for=_hidden", "is no address"),
    "no client": ("proto=https", "names no client"),
    "two clients": (f"for={CLIENT};for={OTHER}", "names two clients"),
    "IPv6 without quotation marks": (f"for=[{CLIENT6}]", "is none of RFC 7239"),
    "no pair": (CLIENT, "is none of RFC 7239"),
    "an open mark": (f'for="{CLIENT}', "is none of RFC 7239"),
    "nothing": ("", "names no client"),
}


@pytest.mark.parametrize("name", RFC_7239_WRONG)
def test_malformed_forwarded_is_invalid(name: str) -> None:
    value, text = RFC_7239_WRONG[name]
    result = ClientAddress(TRUSTED, header="Forwarded").find(LB, {"forwarded": value})
    assert result.address == ""
    assert text in (result.problem or "")


def test_other_header_is_never_read() -> None:
    headers = {"forwarded": f"for={OTHER}", "x-forwarded-for": CLIENT, "x-real-ip": OTHER}
    assert ClientAddress(TRUSTED).find(LB, headers).address == CLIENT
    assert ClientAddress(TRUSTED, header="forwarded").find(LB, headers).address == OTHER


def version_2(source: str, *, command: int = 1, transport: int = 1, more: bytes = b"") -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    packed = socket.inet_pton(family, source)
    body = packed + packed + struct.pack("!HH", 1, 2) + more
    kind = (2 if ":" in source else 1) << 4 | transport
    head = bytes([0x20 | command, kind]) + struct.pack("!H", len(body))
    return b"\r\n\r\n\x00\r\nQUIT\n" + head + body


PROXIED = {
    "version 1, IPv4": (f"PROXY TCP4 {CLIENT} {LB} 5 80\r\n".encode(), CLIENT),
    "version 1, IPv6": (f"PROXY TCP6 {CLIENT6} {LB6} 5 80\r\n".encode(), CLIENT6),
    "version 2, IPv4": (version_2(CLIENT), CLIENT),
    "version 2, IPv6": (version_2(CLIENT6), CLIENT6),
    "version 2, UDP": (version_2(CLIENT, transport=2), CLIENT),
    "version 2, with more fields": (version_2(CLIENT, more=b"\x04\0\1x"), CLIENT),
}


@pytest.mark.parametrize("name", PROXIED)
def test_proxy_protocol_names_the_client(name: str) -> None:
    header, expected = PROXIED[name]
    result = ClientAddress(TRUSTED).find(LB, {"x-forwarded-for": OTHER}, proxy=header)
    assert (result.address, result.source) == (expected, PROXY)


def test_proxy_protocol_of_a_stranger_is_not_believed() -> None:
    result = ClientAddress(TRUSTED).find(CLIENT, proxy=version_2(OTHER))
    assert (result.address, result.source) == (CLIENT, PEER)


def test_proxy_protocol_before_an_http_proxy() -> None:
    # The connection comes from a trusted CDN through a balancer that speaks the PROXY protocol.
    finder = ClientAddress(TRUSTED)
    result = finder.find(LB, {"x-forwarded-for": CLIENT}, proxy=version_2(CDN))
    assert (result.address, result.source) == (CLIENT, XFF)
    assert finder.find(LB, proxy=version_2(CDN)).source is PROXY


PROXIED_WRONG = {
    "nothing": (b"", "is none of the PROXY protocol"),
    "unknown": (b"PROXY UNKNOWN\r\n", "does not know the client"),
    "unknown with addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "does not know"),
    "no end": (f"PROXY TCP4 {CLIENT} {LB} 5 80".encode(), "is none of the PROXY protocol"),
    "more behind the end": (f"PROXY TCP4 {CLIENT} {LB} 5 80\r\nX".encode(), "is none of the"),
    "another family": (f"PROXY TCP4 {CLIENT6} {LB6} 5 80\r\n".encode(), "is none of the PROXY"),
    "families mixed": (f"PROXY TCP4 {CLIENT} {LB6} 5 80\r\n".encode(), "is none of the PROXY"),
    "a port too high": (f"PROXY TCP4 {CLIENT} {LB} 5 65536\r\n".encode(), "is none of the PROXY"),
    "leading zeros": (f"PROXY TCP4 203.0.113.07 {LB} 5 80\r\n".encode(), "is none of the PROXY"),
    "LOCAL": (version_2(CLIENT, command=0), "speaks for itself"),
    "a command that is none": (version_2(CLIENT, command=2), "does not know the client"),
    "a transport that is none": (version_2(CLIENT, transport=0), "does not know the client"),
    "cut short": (version_2(CLIENT)[:-1], "another length than it says"),
    "too long": (version_2(CLIENT) + b"x", "another length than it says"),
    "another version": (version_2(CLIENT).replace(b"\n\x21", b"\n\x31"), "is none of the PROXY"),
    "the signature alone": (b"\r\n\r\n\x00\r\nQUIT\n", "is none of the PROXY protocol"),
    "a short address": (
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04" + bytes(4),
        "ends in an address",
    ),
}


@pytest.mark.parametrize("name", PROXIED_WRONG)
def test_malformed_proxy_protocol_is_invalid(name: str) -> None:
    header, text = PROXIED_WRONG[name]
    result = ClientAddress(TRUSTED).find(LB, {"x-forwarded-for": OTHER}, proxy=header)
    assert (result.address, result.source) == ("", PROXY)
    assert text in (result.problem or "")


@pytest.mark.parametrize(
    ("trusted", "header", "error"),
    [
        ("10.0.0.0/8", "x-forwarded-for", TypeError),
        (["10.0.0.1/8"], "x-forwarded-for", ValueError),
        (["0.0.0.0/0"], "x-forwarded-for", ValueError),
        (["::/0"], "x-forwarded-for", ValueError),
        (["lb.example"], "x-forwarded-for", ValueError),
        ([], "x-real-ip", ValueError),
    ],
)
def test_wrong_settings_are_refused(
    trusted: list[str], header: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ClientAddress(trusted, header=header)


def test_peer_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="peer: expected str, not bytes"):
        ClientAddress([]).find(b"10.0.0.1")


PARTS = st.sampled_from(
    [
        CLIENT,
        OTHER,
        LB,
        CDN,
        CLIENT6,
        LB6,
        "unknown",
        "",
        '"',
        "\\",
        ";",
        "for=",
        ",",
        " ",
        "[",
        "]",
    ]
)


@given(
    st.sampled_from([LB, CDN, LB6, CLIENT]),
    st.lists(PARTS, max_size=8),
    st.sampled_from(["x-forwarded-for", "forwarded"]),
)
def test_what_the_client_writes_never_changes_the_answer(
    peer: str, claimed: list[str], header: str
) -> None:
    """What a trusted proxy appends decides, whatever stands before it."""
    added = f"for={OTHER}" if header == "forwarded" else OTHER
    finder = ClientAddress(TRUSTED, header=header)
    forged = finder.find(peer, {header: "".join(claimed) + ", " + added})
    assert forged == finder.find(peer, {header: added})
