"""The special-purpose registries are IANA's, and every row of them is known."""

from __future__ import annotations

import hashlib
import ipaddress

import pytest
import reference

from geolookup.answer import embedded_ipv4
from geolookup.build import special_purpose
from geolookup.errors import SourceError

# SHA-256 of what IANA served between the registries' change of 2025-10-09 and the next one.
DIGESTS = {
    "iana-ipv4-special-registry.csv": (
        "e3e39e76d00b1677335db8e9a805c7b9480ea2f4dc9e33f0b93cd3a905128d73"
    ),
    "iana-ipv6-special-registry.csv": (
        "775feea0621dec8735a44fbf30f762e721e8f0a1b3ab7eb341961a88cfce2139"
    ),
}

# Each of these is special-purpose by an RFC of its own; written down here by hand.
KNOWN = {
    "10.0.0.0/8": "Private-Use",
    "100.64.0.0/10": "Shared Address Space",
    "169.254.0.0/16": "Link Local",
    "192.0.0.171/32": "NAT64/DNS64 Discovery",
    "192.0.2.0/24": "Documentation (TEST-NET-1)",
    "198.18.0.0/15": "Benchmarking",
    "224.0.0.0/4": "Multicast",
    "255.255.255.255/32": "Limited Broadcast",
    "::1/128": "Loopback Address",
    "64:ff9b:1::/48": "IPv4-IPv6 Translat.",
    "2001:db8::/32": "Documentation",
    "3fff::/20": "Documentation",
    "fc00::/7": "Unique-Local",
    "fe80::/10": "Link-Local Unicast",
    "fec0::/10": "Site-Local Unicast, deprecated",
    "ff00::/8": "Multicast",
}


@pytest.mark.parametrize("name", special_purpose.REGISTRIES)
def test_embedded_registries_are_the_files_of_iana(name: str) -> None:
    content = (reference.REGISTRIES / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == DIGESTS[name]


def test_every_row_is_read_and_nothing_else() -> None:
    expected = [
        prefix
        for name in special_purpose.REGISTRIES
        for prefix in reference.read_registry(reference.REGISTRIES / name)
    ]
    assert len(expected) == 26 + 25  # one row of 25 holds two prefixes
    found = [row.prefix for row in special_purpose.special_purpose_prefixes()]
    assert found[: len(expected)] == expected
    assert sorted(found[len(expected) :]) == sorted(reference.MORE_SPECIAL_PURPOSE)


@pytest.mark.parametrize("prefix", KNOWN)
def test_registry_row_names_the_purpose(prefix: str) -> None:
    (row,) = (row for row in special_purpose.special_purpose_prefixes() if row.prefix == prefix)
    assert row.name == KNOWN[prefix]
    assert row.rfc.startswith("[RFC")
    assert len(row.allocated) == len("2010-01")


def test_row_texts_are_one_line_without_quotes() -> None:
    rows = special_purpose.special_purpose_prefixes()
    assert rows[0].name == "This network"
    assert {row.rfc for row in rows if row.prefix == "fc00::/7"} == {"[RFC4193] [RFC8190]"}
    assert not [row for row in rows if {"\n", '"'} & set(row.name + row.rfc)]


def test_embedded_forms_are_those_of_every_dataset() -> None:
    assert [(form.prefix, form.claim) for form in embedded_ipv4.EMBEDDED] == [
        ("::ffff:0:0/96", embedded_ipv4.EMBEDDED_LOW32),
        ("64:ff9b::/96", embedded_ipv4.EMBEDDED_LOW32),
        ("2001::/32", embedded_ipv4.EMBEDDED_TEREDO),
        ("2002::/16", embedded_ipv4.EMBEDDED_6TO4),
    ]


@pytest.mark.parametrize("length", [32, 40, 48, 56, 64, 96])
def test_a_nat64_prefix_may_have_the_lengths_of_rfc_6052(length: int) -> None:
    form = embedded_ipv4.nat64_prefix(f"2001:db8::/{length}")
    assert form.prefix == f"2001:db8::/{length}"
    name = "EMBEDDED_LOW32" if length == 96 else f"EMBEDDED_NAT64_{length}"
    assert form.claim == getattr(embedded_ipv4, name)


@pytest.mark.parametrize("length", sorted(set(range(129)) - {32, 40, 48, 56, 64, 96}))
def test_a_nat64_prefix_may_have_no_other_length(length: int) -> None:
    network = ipaddress.IPv6Network(f"2001:db8::/{length}", strict=False)
    with pytest.raises(SourceError, match="32, 40, 48, 56, 64 or 96 bits"):
        embedded_ipv4.nat64_prefix(str(network))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("2001:db8::1/96", "bits set beyond its length"),
        ("2001:db8:0:0:100::/96", "bits 64 to 71"),
        ("2001:db8::", "32, 40, 48"),
        ("192.0.2.0/24", "not an IPv6 prefix"),
        ("nonsense", "not an IPv6 prefix"),
        ("", "not an IPv6 prefix"),
    ],
)
def test_malformed_nat64_prefix_is_refused_without_repeating_it(text: str, what: str) -> None:
    with pytest.raises(SourceError, match=what) as caught:
        embedded_ipv4.nat64_prefix(text)
    assert not text or text not in str(caught.value)
    assert caught.value.__context__ is None  # whose text would quote it
