"""The scanner finds an address in every form that it could be leaked in, and nothing else."""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import struct
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
from leaks import Scanner, forms

IPV4, IPV6 = "185.243.217.142", "2a0d:9b41:c7e3:f5d8:a1b9:8c6e:d347:e92f"
SHORT = "2a0d:9b41::7e3:f5"
PEER = "127.83.45.67"
CANARIES = (IPV4, IPV6, SHORT, PEER)


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def number(address: str) -> int:
    return int(ipaddress.ip_address(address))


# Written here by other means than in the scanner, so that a fault there shows.
FORMS: dict[str, Callable[[str], str | bytes]] = {
    "text": str,
    "text in capitals": str.upper,
    "expanded": lambda a: ipaddress.ip_address(a).exploded,
    "with dashes": lambda a: a.replace(".", "-").replace("::", ":0:0:0:0:").replace(":", "-"),
    "a URL": lambda a: f"http://[{a}]/",
    "percent-encoded": lambda a: urllib.parse.quote(a, safe=""),
    "percent-encoded dots": lambda a: a.replace(".", "%2E").replace(":", "%3a"),
    "reverse DNS": lambda a: ipaddress.ip_address(a).reverse_pointer,
    "UTF-16": lambda a: a.encode("utf-16"),
    "UTF-32": lambda a: a.encode("utf-32-le"),
    "hex of text": lambda a: a.encode().hex(),
    "packed": packed,
    "packed, reversed": lambda a: packed(a)[::-1],
    "repr of packed": lambda a: repr(packed(a)),
    "list of packed": lambda a: str(list(packed(a))),
    "JSON of packed": lambda a: json.dumps(packed(a).decode("latin-1")),
    "JSON of packed, in UTF-8": lambda a: packed(a).decode("latin-1").encode(),
    "octal": lambda a: "".join(f"\\{byte:03o}" for byte in packed(a)),
    "percent-encoded bytes": lambda a: "".join(f"%{byte:02X}" for byte in packed(a)),
    "hex": lambda a: packed(a).hex(),
    "hex in capitals": lambda a: packed(a).hex().upper(),
    "hex with colons": lambda a: packed(a).hex(":"),
    "hex with spaces": lambda a: packed(a).hex(" "),
    "a hex dump": lambda a: packed(a).hex(" ", 2),
    "C's bytes": lambda a: ", ".join(f"0x{byte:02x}" for byte in packed(a)),
    "hex of a number": lambda a: f"{number(a):#x}",
    "a number": lambda a: str(number(a)),
    "a number in the other order": lambda a: str(int.from_bytes(packed(a), "little")),
    "base64 of text": lambda a: base64.b64encode(a.encode()),
    "base64 after 1": lambda a: base64.b64encode(b"x" + a.encode() + b"yy"),
    "base64 after 2": lambda a: base64.b64encode(b"xx" + a.encode() + b"y"),
    "base64 of packed": lambda a: base64.b64encode(packed(a)),
    "base64 of packed after 1": lambda a: base64.b64encode(b"\0" + packed(a)),
    "base64 of packed after 2": lambda a: base64.b64encode(b"\0\1" + packed(a) + b"\2"),
    "base64 for URLs": lambda a: base64.urlsafe_b64encode(packed(a)),
    "base64 of reversed": lambda a: base64.b64encode(packed(a)[::-1]),
}
ONLY_IPV4: dict[str, Callable[[str], str | bytes]] = {
    "the first three octets": lambda a: a.rpartition(".")[0] + ".0/24",
    "the first three, with a mask": lambda a: a.rpartition(".")[0] + ".xxx",
    "the first three in hex": lambda a: packed(a)[:3].hex() + "00",
    "the first three in base64": lambda a: base64.b64encode(packed(a)[:3]),
    "the first three, escaped": lambda a: repr(packed(a)[:3]),
    "mapped": lambda a: f"::ffff:{a}",
    "mapped in hex": lambda a: f"::ffff:{packed(a)[:2].hex()}:{packed(a)[2:].hex()}",
    "mapped and packed": lambda a: bytes(10) + b"\xff\xff" + packed(a),
    "mapped and a number": lambda a: struct.pack("<QQ", 0xFFFF << 32 | number(a), 0),
    "6to4": lambda a: str(ipaddress.IPv6Address(0x2002 << 112 | number(a) << 80)),
    "NAT64": lambda a: str(ipaddress.IPv6Address(0x64FF9B << 96 | number(a))),
    "Teredo": lambda a: str(ipaddress.IPv6Address(0x20010000 << 96 | number(a) ^ 0xFFFFFFFF)),
    "Teredo, packed": lambda a: bytes(byte ^ 0xFF for byte in packed(a)),
    "a socket's address": lambda a: struct.pack("<HH4s8x", 2, 443, packed(a)),
}
ONLY_IPV6: dict[str, Callable[[str], str | bytes]] = {
    "the first four groups": lambda a: ":".join(
        f"{int(group, 16):x}" for group in ipaddress.ip_address(a).exploded.split(":")[:4]
    ),
    "the first four, expanded": lambda a: ipaddress.ip_address(a).exploded[:19],
    "the last four, expanded": lambda a: ipaddress.ip_address(a).exploded[20:],
    "the first half, packed": lambda a: packed(a)[:8],
    "the last half, packed": lambda a: packed(a)[8:],
    "the first half, a number": lambda a: str(number(a) >> 64),
    "the first half in the other order": lambda a: packed(a)[:8][::-1],
    "two numbers of 64 bits": lambda a: struct.pack("=QQ", number(a) >> 64, 1),
    "upper-case with a port": lambda a: f"[{a.upper()}]:443",
}

CASES = [
    (address, name, form)
    for address in CANARIES
    for name, form in (FORMS | (ONLY_IPV6 if ":" in address else ONLY_IPV4)).items()
]


@pytest.mark.parametrize(
    ("address", "form"), [(a, form) for a, _, form in CASES], ids=[f"{a} {n}" for a, n, _ in CASES]
)
def test_each_form_is_found(address: str, form: Callable[[str], str | bytes]) -> None:
    made = form(address)
    planted = made.encode() if isinstance(made, str) else made
    scanner = Scanner(CANARIES)
    for data in (planted, b"line before\nfield=" + planted + b" line after\n"):
        found = scanner.leaks("here", data)
        assert address in {leak.canary for leak in found}
        assert {leak.place for leak in found} == {"here"}


def test_no_form_is_found_where_there_is_none() -> None:
    """In much text and noise; a scanner that cries at everything would prove nothing."""
    scanner = Scanner(CANARIES)
    folder = Path(__file__).parents[1]
    for path in sorted(folder.rglob("test_[a-k]*.py")):
        assert scanner.leaks(path.name, path.read_bytes()) == []
    assert scanner.leaks("noise", random.Random(7).randbytes(200_000)) == []


def test_another_address_nearby_is_not_found() -> None:
    scanner = Scanner((IPV4, IPV6))
    others = ("185.243.218.142", "185.242.217.142", "2a0d:9b41:c7e3:f5d9:a1b9:8c6e:d347:e92e")
    for other in others:
        assert scanner.leaks("here", f"{other} {packed(other).hex()}".encode()) == []


def test_patterns_are_long_enough_not_to_occur_by_chance() -> None:
    for canary in CANARIES:
        assert min(len(pattern) for _, pattern in forms(canary)) >= 4
