"""Requests for rosters as bytes, which no serialiser would write for the most part."""

from __future__ import annotations

import google.protobuf


def varint(value: int, length: int = 0) -> bytes:
    """Return a varint, padded to a length that is longer than it needs."""
    groups: list[int] = []
    while value >= 0x80 or len(groups) + 1 < length:
        groups.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*groups, value])


def field(number: int, kind: int, content: bytes) -> bytes:
    return varint(number << 3 | kind) + content


def sized(number: int, content: bytes) -> bytes:
    return field(number, 2, varint(len(content)) + content)


IPV4 = sized(1, bytes([1, 0, 1, 1, 2, 0, 0, 1]))
IPV6 = sized(2, bytes(16))
TEXT = sized(3, sized(1, b"1.0.1.1") + sized(1, b"no address"))
EU = sized(4, b"EU")

PLAIN = {
    "nothing": b"",
    "ipv4": IPV4,
    "ipv6": IPV6,
    "text": TEXT,
    "no ipv4": sized(1, b""),
    "no ipv6": sized(2, b""),
    "no text": sized(3, b""),
    "an empty text": sized(3, sized(1, b"")),
    "half an address": sized(1, bytes(7)) + EU,
    "another order": field(6, 0, b"\1") + field(5, 0, b"\2") + EU + IPV4,
    "a member that is 0": IPV4 + sized(4, b"") + field(5, 0, b"\0") + field(6, 0, b"\0"),
    "no policy": IPV4 + field(5, 0, b"\4") + EU,
    "a negative policy": IPV4 + EU + field(5, 0, varint(2**64 - 1)),
    "the least policy": IPV4 + EU + field(5, 0, varint(2**64 - 2**31)),
    "a policy over 32 bits": IPV4 + EU + field(5, 0, varint(2**32 + 2)),
    "a large truth": IPV4 + EU + field(6, 0, varint(2**64 - 1)),
    "record without region set": IPV4 + field(6, 0, b"\1"),
    "reasons": IPV4 + EU + field(7, 0, b"\1"),
    "reasons and record": IPV4 + EU + field(6, 0, b"\1") + field(7, 0, b"\1"),
    "reasons without region set": IPV4 + field(7, 0, b"\1"),
    "groups": IPV4 + EU + sized(8, b"\1\1"),
    "one group": IPV4 + EU + field(7, 0, b"\1") + sized(8, b"\2"),
    "groups and record": TEXT + EU + field(6, 0, b"\1") + sized(8, b"\2"),
    "groups before addresses": sized(8, b"\2") + EU + IPV4,
    "groups of no addresses": sized(1, b"") + EU + sized(8, b"\1"),
    "groups of half an address": sized(1, bytes(7)) + EU + sized(8, b"\1"),
    "groups without region set": IPV4 + sized(8, b"\2"),
    "groups without addresses": EU + sized(8, b"\2"),
    "a group of 0": IPV4 + EU + sized(8, b"\1\0\1"),
    "groups of 0": IPV4 + EU + sized(8, b"\0\0\2"),
    "groups of too few": IPV4 + EU + sized(8, b"\1"),
    "groups of too many": IPV4 + EU + sized(8, b"\1\1\1"),
    "a large group": IPV4 + EU + sized(8, varint(128)),
    "a group of 0 after a large one": IPV4 + EU + sized(8, varint(300) + b"\0\0"),
    "the largest group": IPV4 + EU + sized(8, b"\2" + varint(2**32 - 1)),
    "groups whose sum is 32 bits of 2": IPV4 + EU + sized(8, varint(2**32 - 1) + b"\3"),
    "an address as a group": IPV4 + EU + sized(8, varint(0x01000101)),
    "networks": IPV4 + EU + field(6, 0, b"\1") + field(10, 0, b"\1"),
    "unknown networks": IPV4 + EU + field(10, 0, b"\2"),
    "negative networks": IPV4 + EU + field(10, 0, varint(2**64 - 1)),
    "unknown region set": IPV4 + sized(4, b"OCENIA"),
    "a region set in UTF-8": IPV4 + sized(4, "C\u00d6".encode()),
    "a text of 127 characters": sized(3, sized(1, b"1" * 127)),
    "a text of 128 characters": sized(3, sized(1, b"1" * 128) + sized(1, b"1.0.1.1")),
    # As many as the core's marks for other forms than text.
    "texts of 244 to 255 characters": b"".join(
        [b"\x1a", varint(sum(n + 3 for n in range(244, 256)))]
        + [sized(1, b"1.0.1.1" + b"1" * (n - 7)) for n in range(244, 256)]
    ),
    "a text of 20,000 characters": sized(3, sized(1, b"1" * 20_000)),
    "texts in UTF-8": sized(
        3,
        b"".join(
            sized(1, text.encode())
            for text in (
                "1.0.1.\u0661",
                "\x7f\x80",
                "\u07ff\u0800",
                "\ud7ff\ue000\uffff",
                "\U00010000\U0010ffff",
            )
        ),
    ),
    "a zero byte in a text": sized(3, sized(1, b"1.0.1.1\0")),
    "over the limit": sized(1, bytes(4 * 13)),
    "over the limit in text": sized(3, sized(1, b"1.0.1.1") * 13),
}
"""What the reader reads."""

UNUSUAL = {
    "ipv4 twice": IPV4 + sized(1, bytes(4)),
    "ipv4, then ipv6": IPV4 + IPV6,
    "ipv6, then no ipv4": IPV6 + sized(1, b""),
    "text, then ipv4": TEXT + IPV4,
    "ipv4, then text": IPV4 + TEXT,
    "two texts, which are merged": TEXT + TEXT,
    "text, ipv4, text, which are not": TEXT + IPV4 + TEXT,
    "an empty text after another": TEXT + sized(3, b""),
    "region set twice": IPV4 + EU + sized(4, b"CN"),
    "region set and none": IPV4 + EU + sized(4, b""),
    "policy twice": IPV4 + EU + field(5, 0, b"\1") + field(5, 0, b"\3"),
    "record twice": IPV4 + EU + field(6, 0, b"\1") + field(6, 0, b"\0"),
    "groups that are not packed": IPV4 + EU + field(8, 0, b"\1") + field(8, 0, b"\1"),
    "groups in two parts": IPV4 + EU + sized(8, b"\1") + sized(8, b"\1"),
    "groups in both forms": IPV4 + EU + sized(8, b"\1") + field(8, 0, b"\1"),
    "no groups": IPV4 + EU + sized(8, b""),
    "a long group": IPV4 + EU + sized(8, varint(2, 3)),
    "a group over 32 bits": IPV4 + EU + sized(8, varint(2**32 + 2)),
    "a negative group": IPV4 + EU + sized(8, varint(2**64 - 1)),
    "an unknown number": IPV4 + field(15, 0, b"\1"),
    "reasons twice": IPV4 + EU + field(7, 0, b"\1") + field(7, 0, b"\0"),
    "an unknown number above 15": field(1000, 0, b"\1") + IPV4,
    "the highest field": field(2**29 - 1, 0, b"\1") + IPV4,
    "unknown bytes": IPV4 + sized(9, b"anything"),
    "unknown fixed numbers": IPV4 + field(8, 1, bytes(8)) + field(8, 5, bytes(4)),
    "an unknown group": IPV4 + field(7, 3, field(1, 0, b"\1")) + field(7, 4, b""),
    "a group in a group": field(7, 3, field(1, 3, b"") + field(1, 4, b"")) + field(7, 4, b""),
    "unknown fields of text": sized(3, sized(1, b"1.0.1.1") + field(2, 0, b"\1")),
    "an unknown group in text": sized(3, field(2, 3, b"") + field(2, 4, b"") + sized(1, b"::1")),
    "ipv4 as a number": field(1, 0, b"\4") + IPV6,
    "text's member as a number": sized(3, field(1, 0, b"\4")),
    "policy as bytes": IPV4 + sized(5, b"\1"),
    "policy as a fixed number": IPV4 + field(5, 5, bytes(4)),
    "a long tag": b"\x8a\0" + IPV4[1:],
    "a long size": IPV4[:1] + varint(8, 2) + IPV4[2:],
    "a size of 5 bytes": IPV4[:1] + varint(8, 5) + IPV4[2:],
    "a long policy": IPV4 + EU + field(5, 0, varint(1, 4)),
    "a policy over 64 bits": IPV4 + EU + field(5, 0, b"\xff" * 9 + b"\2"),
    "a long truth": IPV4 + EU + field(6, 0, varint(1, 9)),
    "a long size in text": sized(3, b"\x0a" + varint(7, 2) + b"1.0.1.1"),
}
"""What is left to protobuf, which reads it."""

MALFORMED = {
    "a tag alone": b"\x0a",
    "a size that doesn't end": b"\x0a\x80",
    "a size over the end": b"\x0a\x05\0\0\0\0",
    "a size over 32 bits": IPV4[:1] + varint(2**32 + 8) + IPV4[2:],
    "the largest size": IPV4[:1] + varint(2**64 - 1) + IPV4[2:],
    "a number of 11 bytes": IPV4 + b"\x28" + b"\x80" * 10 + b"\0",
    "a number that doesn't end": IPV4 + b"\x28\xff\xff",
    "field 0": field(0, 0, b"\1") + IPV4,
    "field 0 as bytes": sized(0, b"1") + IPV4,
    "type 6": field(1, 6, b""),
    "type 7": field(7, 7, b""),
    "an end without its group": IPV4 + field(7, 4, b""),
    "a group without its end": IPV4 + field(7, 3, b""),
    "a group with another's end": field(7, 3, b"") + field(8, 4, b""),
    "a fixed number over the end": IPV4 + field(8, 1, bytes(7)),
    "a text over the end": sized(3, b"\x0a\x08" + b"1.0.1.1"),
    "a text over the end of its field": sized(3, b"\x0a\x09" + b"1.0.1.1") + EU,
    "a text's tag alone": sized(3, sized(1, b"::1") + b"\x0a"),
    "groups that don't end": IPV4 + EU + sized(8, b"\1\x81"),
    "a group over 64 bits": IPV4 + EU + sized(8, b"\x80" * 10 + b"\1"),
    "groups over the end": IPV4 + EU + b"\x42\3\1\1",
    "a region set in Latin-1": IPV4 + sized(4, b"C\xd6"),
    "the first region set in Latin-1": IPV4 + sized(4, b"C\xd6") + EU,
    **{
        f"a text that is no UTF-8: {wrong.hex()}": sized(3, sized(1, b"::1") + sized(1, wrong))
        for wrong in (
            b"\x80",
            b"\xbf",
            b"\xc0\x80",
            b"\xc1\xbf",
            b"\xc2",
            b"\xc2\x41",
            b"\xc2\xc2",
            b"\xe0\x80\x80",
            b"\xe0\x9f\xbf",
            b"\xe2\x82",
            b"\xe2\x28\xa1",
            b"\xe2\x82\x28",
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xf0\x80\x80\x80",
            b"\xf0\x8f\xbf\xbf",
            b"\xf0\x9f\x98",
            b"\xf0\x28\x8c\xbc",
            b"\xf0\x90\x28\xbc",
            b"\xf0\x90\x8c\x28",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"\xff",
            b"\xfe\xfe\xff\xff",
            b"a\xffb",
        )
    },
    "one of too many that is no UTF-8": sized(3, sized(1, b"::1") * 20 + sized(1, b"\xff")),
}
"""What is refused."""
if not google.protobuf.__version__.startswith("6."):  # it takes such a size
    MALFORMED["a size of 6 bytes"] = IPV4[:1] + varint(8, 6) + IPV4[2:]


def wrapped(body: bytes) -> bytes:
    return sized(1, body)


STREAMED = {
    "no roster": b"",
    "an unknown field": field(2, 0, b"\1"),
    "an unknown field beside it": wrapped(IPV4) + field(2, 0, b"\1"),
    "an unknown field before it": field(2, 0, b"\1") + wrapped(IPV4),
    "two rosters, which are merged": wrapped(IPV4) + wrapped(EU),
    "two texts, which are merged": wrapped(TEXT) + wrapped(TEXT),
    "two rosters with one member each": wrapped(IPV4) + wrapped(TEXT),
    "roster as a number": field(1, 0, b"\1"),
    "a size over the end": wrapped(IPV4)[:-1],
    "a long size": b"\x0a" + varint(len(IPV4), 2) + IPV4,
    "a bad roster and a good one": wrapped(b"\xff") + wrapped(IPV4),
}
