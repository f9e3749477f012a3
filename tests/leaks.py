"""Looks for addresses in what a process wrote, in every form that they could have there.

A *canary* is an address that nothing but the test sends. `Scanner` knows how it looks as
a whole and in part (an IPv4 /24, the halves of an IPv6 address), as text, packed, as a
number, and through the usual encodings. tests/service/test_leaks.py plants each form and holds the
scanner to finding it.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LEAST = 4
"""Bytes of a pattern: fewer occur by chance. So the three bytes of a prefix are looked for in
their spelled forms only."""


@dataclass(frozen=True)
class Leak:
    """A canary that was found: which one, in what form, and where."""

    canary: str
    form: str
    place: str


class Scanner:
    """Finds canaries in bytes.

    Args:
        canaries: addresses, in text.
    """

    def __init__(self, canaries: Iterable[str]) -> None:
        self._patterns = [
            (canary, form, pattern)
            for canary in canaries
            for form, pattern in sorted(forms(canary))
        ]

    def leaks(self, place: str, data: bytes) -> list[Leak]:
        """Return what is found in *data*; *place* says what that is."""
        lowered = data.lower()
        return [
            Leak(canary, form, place)
            for canary, form, pattern in self._patterns
            # Of these alone the letters' case is part of what they say.
            if pattern in (data if form.startswith(("packed", "base64")) else lowered)
        ]


def forms(address: str) -> set[tuple[str, bytes]]:
    """Return the patterns of an address, each with the name of its form.

    All but the packed and the base64 ones are in lower case.
    """
    packed = ipaddress.ip_address(address).packed
    wholes = {"": packed, " inverted": bytes(byte ^ 0xFF for byte in packed)}
    if len(packed) == 4:
        parts = {"": packed, " first 3": packed[:3]}
        texts = _texts4(packed)
    else:
        parts = {"": packed, " first half": packed[:8], " last half": packed[8:]}
        texts = _texts6(packed)
    found: set[tuple[str, bytes]] = set()
    for name, text in texts:
        found |= {(form, encoded.lower()) for form, encoded in _encoded_text(name, text)}
        found |= {(f"base64 of {name}", encoded) for encoded in _base64(text.encode())}
    # Teredo carries IPv4 addresses inverted.
    for part, some in (parts | (wholes if len(packed) == 4 else {})).items():
        for order, ordered in (("", some), (" reversed", some[::-1])):
            what = f"{part}{order}"
            found.add((f"packed{what}", ordered))
            found |= {(f"base64 of packed{what}", encoded) for encoded in _base64(ordered)}
            found |= {(form + what, encoded.lower()) for form, encoded in _spelled(ordered)}
    return {(form, pattern) for form, pattern in found if len(pattern) >= _LEAST}


def _texts4(packed: bytes) -> Iterator[tuple[str, str]]:
    octets = [str(octet) for octet in packed]
    for part, some in (("", octets), (" first 3", octets[:3])):
        for separator in ".-_:":
            yield f"text{part}", separator.join(some)
            yield f"text reversed{part}", separator.join(reversed(some))
    # As IPv6 writes it: ::ffff:b9f3:d911, 2002:b9f3:d911::, and Teredo's inverted one.
    for name, value in (("", packed), (" inverted", bytes(byte ^ 0xFF for byte in packed))):
        high, low = value[:2].hex(), value[2:].hex()
        yield f"text in IPv6{name}", f"{high}:{low}"
        yield f"text in IPv6{name}", f"{high.lstrip('0')}:{low.lstrip('0')}"


def _texts6(packed: bytes) -> Iterator[tuple[str, str]]:
    whole = ipaddress.IPv6Address(packed)
    yield "text", str(whole)
    for part, some in (("", packed), (" first half", packed[:8]), (" last half", packed[8:])):
        groups = [some[at : at + 2].hex() for at in range(0, len(some), 2)]
        short = [group.lstrip("0") or "0" for group in groups]
        for separator in ":-_.":
            yield f"text expanded{part}", separator.join(groups)
            yield f"text{part}", separator.join(short)
        yield f"text reversed{part}", ".".join(reversed(some.hex()))


def _encoded_text(name: str, text: str) -> Iterator[tuple[str, bytes]]:
    yield name, text.encode()
    yield f"{name} in UTF-16", text.encode("utf-16-le")
    yield f"{name} in UTF-16", text.encode("utf-16-be")
    yield f"{name} in UTF-32", text.encode("utf-32-le")
    yield f"{name} in hex", text.encode().hex().encode()
    escaped = "".join(f"%{ord(letter):02x}" for letter in text)
    yield f"{name} percent-encoded", escaped.encode()
    # As most encoders do it: what needs no escape is left.
    yield f"{name} percent-encoded", urllib.parse.quote(text, safe="").encode()
    yield f"{name} percent-encoded", text.replace(".", "%2e").replace(":", "%3a").encode()


def _spelled(some: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the ways to write bytes in characters."""
    pairs = [f"{byte:02x}" for byte in some]
    for separator in ("", ":", "-", " ", ".", "_", ", ", ","):
        yield "hex", separator.join(pairs).encode()
    yield "hex", " ".join(some[at : at + 2].hex() for at in range(0, len(some), 2)).encode()
    for separator in (", ", ",", " "):
        yield "hex", separator.join(f"0x{pair}" for pair in pairs).encode()
        yield "numbers", separator.join(map(str, some)).encode()
    yield "escaped", "".join(f"\\x{pair}" for pair in pairs).encode()
    yield "escaped", repr(some)[2:-1].encode()
    yield "escaped", "".join(f"\\{byte:03o}" for byte in some).encode()
    yield "escaped", "".join(f"\\u00{pair}" for pair in pairs).encode()
    yield "escaped", "".join(f"%{pair}" for pair in pairs).encode()
    yield "escaped", json.dumps(some.decode("latin-1"))[1:-1].encode()
    yield "as Latin-1 in UTF-8", some.decode("latin-1").encode()
    if len(some) >= _LEAST:
        yield "number", str(int.from_bytes(some)).encode()


def _base64(some: bytes) -> Iterator[bytes]:
    """Yield the characters that *some* has in base64, wherever it begins in what is encoded."""
    for before in range(3):
        bits = 8 * (before + len(some))
        first, last = -(-8 * before // 6), bits // 6
        if last - first < 4:
            continue  # occurs by chance
        encoded = base64.b64encode(bytes(before) + some + bytes(3))[first:last]
        yield encoded
        yield encoded.replace(b"+", b"-").replace(b"/", b"_")
