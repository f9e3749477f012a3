"""Lists of networks, from their files to verdicts: held to the oracle for all small cases."""

from __future__ import annotations

import ipaddress
from datetime import date
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import reference

from geolookup import Dataset, DatasetError, Network, Policy, Reason, SourceError, Verdict
from geolookup.answer.claims import VOUCHED, Claim, Status, network_bits, read_kinds
from geolookup.answer.dataset import encode
from geolookup.answer.derivation import derive
from geolookup.answer.file_format import DatasetContent
from geolookup.answer.overrides import Override
from geolookup.build import manifest
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.compiler import compile_manifest
from geolookup.build.readers import Faults, SourceRanges, network_list
from geolookup.build.readers.ranges import code_number
from geolookup.build.sources import NetworkList, Source

DAY = date(2026, 11, 1)
COVERING = {"TOR", "VPN", "PROXY", "RELAY"}


# --- all small cases -----------------------------------------------------------------

SAID = list(product(("CN", "HK", None), repeat=2))
"""What two full sources say."""
LISTED = [
    frozenset(some)
    for n in range(3)
    for some in combinations(("TOR", "VPN", "RELAY", "HOSTING"), n)
]
"""The lists that an address is in."""
VOUCHED_FOR = ("not in it", "no country", "CN", "HK")
"""What a relay's own list says."""
CASES = list(product(SAID, LISTED, VOUCHED_FOR))


def address(case: int) -> bytes:
    return (0x01000000 + 2 * case).to_bytes(4)


def compiled(
    covering: tuple[Network, ...] | None = None, opened_with: Any = None, **more: object
) -> Dataset:
    """Return a dataset in which each case is one address."""
    sources = [
        (
            Source(f"s{which}", "x", DAY),
            SourceRanges.of(
                (address(at), address(at), said[which] or "")
                for at, (said, _, _) in enumerate(CASES)
                if said[which]
            ),
        )
        for which in (0, 1)
    ]
    lists = []
    for name in ("TOR", "VPN", "RELAY", "HOSTING"):
        ranges = SourceRanges()
        for at, (_, listed, _) in enumerate(CASES):
            if name in listed:
                value = int.from_bytes(address(at))
                ranges.ipv4.append(value, value, Network[name].bit)
        lists.append((NetworkList(name.lower(), "x", DAY, (Network[name],)), ranges))
    vouching = SourceRanges.of(
        (address(at), address(at), "" if vouched == "no country" else vouched)
        for at, (_, _, vouched) in enumerate(CASES)
        if vouched != "not in it"
    )
    lists.append((NetworkList("egress", "x", DAY, (Network.RELAY,), vouches=True), vouching))
    given = {} if covering is None else {"covering": covering}
    content = compile_sources(sources, networks=lists, **given, **more)
    image = encode(content, optional=content.optional)
    return Dataset.from_buffer(image, covering=opened_with)


def expected(
    case: tuple[tuple[str | None, ...], frozenset[str], str],
    region: frozenset[str],
    policy: str,
    covering: set[str],
) -> tuple[set[str], str, str]:
    """Return kinds, verdict and reason, as docs/answers.md has them."""
    said, listed, vouched = case
    kinds = set(listed)
    has_word = vouched in ("CN", "HK")
    if has_word:  # it is that relay, whatever else hides users there
        kinds = (kinds - COVERING) | {"RELAY"}
    elif vouched == "no country":
        kinds |= {"RELAY"}
    sources = [
        reference.Source("s0"),
        reference.Source("s1"),
        reference.Source("egress", "partial"),
    ]
    oracle = reference.Oracle(sources)
    all_said = (*said, vouched if has_word else None)
    if not any(all_said):
        return kinds, "UNDETERMINED", "UNASSIGNED"
    if kinds & covering:
        if not has_word:
            return kinds, "UNDETERMINED", "COVERED"
        policy = "UNANIMOUS"
    return (
        kinds,
        oracle.verdict(all_said, region, policy),
        oracle.reason(all_said, region, policy),
    )


REGIONS = {"CN": frozenset(["CN"]), "CN+HK": frozenset(["CN", "HK"]), "JP": frozenset(["JP"])}


@pytest.mark.parametrize(
    ("covering", "networks"),
    [
        (None, None),
        (None, "IGNORE"),
        ((), None),
        ((Network.HOSTING, Network.TOR), None),
        ((Network.RELAY,), None),
    ],
    ids=["default", "ignored", "none", "hosting and Tor", "relays"],
)
def test_each_small_case_is_the_oracles(
    covering: tuple[Network, ...] | None, networks: str | None
) -> None:
    hiding = COVERING if covering is None else {kind.name for kind in covering}
    if networks == "IGNORE":
        hiding = set()
    packed = b"".join(address(at) for at in range(len(CASES)))
    with compiled(covering) as dataset:
        for (name, region), policy in product(REGIONS.items(), Policy):
            result = dataset.classify(
                ipv4=packed, region_set=name, policy=policy, networks=networks
            )
            verdicts = dict.fromkeys(result.inside, "INSIDE")
            verdicts |= dict.fromkeys(result.outside, "OUTSIDE")
            for at, case in enumerate(CASES):
                kinds, verdict, reason = expected(case, region, policy.name, hiding)
                assert {kind.name for kind in result.networks[at]} == kinds, case
                assert verdicts.get(at, "UNDETERMINED") == verdict, (case, name, policy)
                assert result.reasons[at] == reason, (case, name, policy)
                answer = dataset.lookup(address(at), name, policy, networks)
                assert answer.networks == result.networks[at]
                assert (answer.verdict, answer.reason) == (verdict, reason)
            counts = result.network_counts()
            assert counts == {
                kind: sum(kind in kinds for kinds in result.networks) for kind in counts
            }
            for kind in Network:
                assert list(result.positions(kind)) == [
                    at for at, kinds in enumerate(result.networks) if kind in kinds
                ]


def test_derivation_of_each_small_case_leads_to_the_answer() -> None:
    with compiled() as dataset:
        for at, policy, networks in product(range(len(CASES)), Policy, (None, "IGNORE")):
            why = dataset.explain(address(at))
            answer = dataset.lookup(address(at), "CN", policy, networks=networks)
            hiding = () if networks else dataset.covering
            found = derive(why, answer, "CN", REGIONS["CN"], policy, covering=hiding)
            last = found.steps[-1]
            assert (last.verdict, last.reason) == (answer.verdict, answer.reason)
            assert last.question != "does the dataset keep all votes?"


@pytest.mark.parametrize(
    ("covering", "vouched", "region_set", "verdict", "reason"),
    [
        # The sources place the relay's machine in a part of the country, and not its users.
        (None, "UA", "UA/43", "UNDETERMINED", "SUBDIVISION_UNKNOWN"),
        (None, "UA", "UA/30", "UNDETERMINED", "SUBDIVISION_UNKNOWN"),
        (None, "UA", "UA-UA/43", "UNDETERMINED", "SUBDIVISION_UNKNOWN"),
        (None, "UA", "UA", "INSIDE", "DECIDED"),
        (None, "UA", "UA+PL/14", "INSIDE", "DECIDED"),
        (None, "UA", "PL/14", "OUTSIDE", "DECIDED"),
        (None, "PL", "UA/43", "UNDETERMINED", "DISPUTED"),
        (None, "", "UA/43", "UNDETERMINED", "COVERED"),
        # Where relays do not cover, they are networks as others are.
        ((), "UA", "UA/43", "INSIDE", "DECIDED"),
        ((), "UA", "UA/30", "OUTSIDE", "DECIDED"),
    ],
)
@pytest.mark.parametrize("policy", Policy)
def test_relay_that_is_vouched_for_is_never_decided_below_the_country(
    covering: tuple[Network, ...] | None,
    vouched: str,
    region_set: str,
    verdict: str,
    reason: str,
    policy: Policy,
) -> None:
    one = address(0)
    sources = [(Source("registry", "x", DAY), SourceRanges.of([(one, one, "UA")]))]
    for name in ("cities", "towns"):
        ranges = SourceRanges()
        at = int.from_bytes(one)
        ranges.ipv4.append(at, at, code_number("UA-43"), line=1)
        sources.append((Source(name, "x", DAY, depth="subdivision"), ranges))
    egress = NetworkList("egress", "x", DAY, (Network.RELAY,), vouches=True)
    given = {} if covering is None else {"covering": covering}
    content = compile_sources(
        sources, networks=[(egress, SourceRanges.of([(one, one, vouched)]))], **given
    )
    with Dataset.from_buffer(encode(content, optional=content.optional)) as dataset:
        answer = dataset.lookup(one, region_set, policy)
        assert (answer.verdict, answer.reason) == (verdict, reason)
        found = dataset.region_sets.resolve(region_set)
        derived = derive(
            dataset.explain(one), answer, region_set, found.codes, policy, found.partly
        )
        assert (derived.steps[-1].verdict, derived.steps[-1].reason) == (verdict, reason)
        if covering is None:
            assert derived.steps[-1].question != "does the dataset keep all votes?"


def test_explanation_names_the_lists_with_their_dates() -> None:
    case = CASES.index((("CN", "CN"), frozenset(["TOR", "HOSTING"]), "not in it"))
    with compiled() as dataset:
        why = dataset.explain(address(case))
        assert why.networks == (Network.TOR, Network.HOSTING)
        assert [(one.network_list, one.date, one.kinds) for one in why.network_lists] == [
            ("tor", "2026-11-01", (Network.TOR,)),
            ("hosting", "2026-11-01", (Network.HOSTING,)),
        ]
        assert "1.0." not in repr(why)
    with compiled(with_evidence=False) as dataset:
        why = dataset.explain(address(case))
        assert why.networks == (Network.TOR, Network.HOSTING)
        assert why.network_lists == ()


def test_override_decides_whatever_the_network_is() -> None:
    override = Override(address(0), address(0), "CN")
    special = Override(address(1), address(1), "ZZ")
    at = CASES.index((("CN", "CN"), frozenset(["VPN"]), "not in it"))
    vpn = Override(address(at), address(at), "HK")
    with compiled(overrides=[override, special, vpn]) as dataset:
        assert dataset.lookup(address(0), "CN").verdict is Verdict.INSIDE
        assert dataset.lookup(address(1), "CN").reason is Reason.NO_COUNTRY
        answer = dataset.lookup(address(at), "CN")
        assert (answer.verdict, answer.networks) == (Verdict.OUTSIDE, (Network.VPN,))


@pytest.mark.parametrize("kinds", [(), ("vpn",), (Network.RELAY, "HOSTING"), tuple(Network)])
def test_dataset_opened_with_covering_answers_as_one_compiled_with_them(
    kinds: tuple[Network | str, ...],
) -> None:
    chosen = read_kinds(kinds)
    with compiled(chosen) as known, compiled(opened_with=kinds) as dataset:
        assert (dataset.covering, dataset.info()["covering"]) == (
            chosen,
            [kind.name for kind in chosen],
        )
        for at, policy in product(range(len(CASES)), Policy):
            given, answer = (one.lookup(address(at), "CN", policy) for one in (known, dataset))
            assert (answer.verdict, answer.reason) == (given.verdict, given.reason)
            found = derive(
                dataset.explain(address(at)), answer, "CN", REGIONS["CN"], policy, covering=chosen
            )
            assert found.steps[-1].question != "does the dataset keep all votes?"


@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        ("VPN", TypeError),
        (b"VPN", TypeError),
        (1, TypeError),
        ([1], TypeError),
        (["X"], ValueError),
    ],
)
def test_covering_of_anything_else_is_refused(kinds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="covering: expected"):
        compiled(opened_with=kinds)


@pytest.mark.parametrize("wrong", [True, 1, b"IGNORE"])
def test_networks_of_another_type_are_refused(wrong: object) -> None:
    with compiled() as dataset, pytest.raises(TypeError, match="networks: expected str"):
        dataset.lookup("1.0.0.0", "CN", networks=wrong)


def test_networks_that_are_unknown_are_refused() -> None:
    with compiled() as dataset, pytest.raises(ValueError, match="networks: unknown"):
        dataset.classify(["1.0.0.0"], region_set="CN", networks="COVER")


def test_dataset_without_lists_has_the_bytes_that_it_had() -> None:
    sources = [(Source("s", "x", DAY), SourceRanges.of([(b"\1\0\0\0", b"\1\0\0\3", "CN")]))]
    plain = compile_sources(sources)
    assert "networks" not in plain.metadata
    image = encode(plain, optional=plain.optional)
    assert b"claim.networks" not in image
    with Dataset.from_buffer(image) as dataset:
        assert dataset.lookup("1.0.0.1").networks == ()
        result = dataset.classify(["1.0.0.1", "x"])
        assert list(result.networks) == [(), ()]
        assert result.network_counts() == {}


def test_unknown_bits_of_claims_are_refused() -> None:
    with compiled() as dataset:
        claims = [*dataset.claims]
    content = DatasetContent(
        ipv4_first=bytes(4), ipv4_claims=b"\1\0", ipv6_first_high=bytes(8),
        ipv6_first_low=bytes(8), ipv6_claims=b"\1\0",
        claims=[*claims[:3], Claim(Status.UNASSIGNED, networks=1 << 9)],
        metadata={"built": "2026-11-01T00:00:00Z", "sources": []},
    )  # fmt: skip
    with pytest.raises(DatasetError, match=r"section claim\.networks: unknown values"):
        encode(content)
    good = Claim(Status.UNASSIGNED, networks=network_bits(Network) | VOUCHED)
    encode(DatasetContent(
        content.ipv4_first, content.ipv4_claims, content.ipv6_first_high, content.ipv6_first_low,
        content.ipv6_claims, [*claims[:3], good], content.metadata,
    ))  # fmt: skip


# --- readers -------------------------------------------------------------------------

V, T, P, H, R = (Network[name].bit for name in ("VPN", "TOR", "PROXY", "HOSTING", "RELAY"))

# Content, the kinds of its manifest, and what is read: first address, last address, bits.
GOOD: dict[str, tuple[str, int, list[tuple[str, str, int]]]] = {
    "prefixes and addresses, twice and nested": (
        "# a list\n1.0.0.0/24\n1.0.0.0/24\n\n1.0.0.128/25\n 2.0.0.1 \n2001:db8::/32\n",
        V,
        [
            ("1.0.0.0", "1.0.0.255", V),
            ("1.0.0.0", "1.0.0.255", V),
            ("1.0.0.128", "1.0.0.255", V),
            ("2.0.0.1", "2.0.0.1", V),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", V),
        ],
    ),
    "a geofeed": ("1.0.0.0/24,US,US-CA,Los Angeles,\n", H, [("1.0.0.0", "1.0.0.255", H)]),
    "ranges": ("1.0.0.0,1.0.0.9,Some Host,https://x\n", H, [("1.0.0.0", "1.0.0.9", H)]),
    "CSV with a column of prefixes": (
        "name,network\nx,1.0.0.0/24\n", H, [("1.0.0.0", "1.0.0.255", H)],
    ),
    "CSV with columns of ranges": (
        "start,end,asn\n1.0.0.0,1.0.0.9,5\n", H, [("1.0.0.0", "1.0.0.9", H)],
    ),
    "Tor's exits": (
        "ExitNode 0011\nPublished 2026-11-01 00:00:00\nLastStatus 2026-11-01 00:00:00\n"
        "ExitAddress 1.0.0.1 2026-11-01 00:00:00\n",
        T,
        [("1.0.0.1", "1.0.0.1", T)],
    ),
    "AWS": (
        '{"syncToken": "17", "createDate": "2026-11-01-00-00-00", "prefixes": '
        '[{"ip_prefix": "1.0.0.0/24", "region": "eu", "service": "EC2"},'
        '{"ip_prefix": "1.0.0.0/24", "region": "eu", "service": "AMAZON"}],'
        '"ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32"}]}',
        H,
        [
            ("1.0.0.0", "1.0.0.255", H),
            ("1.0.0.0", "1.0.0.255", H),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", H),
        ],
    ),
    "Google": ('{"prefixes": [{"ipv4Prefix": "1.0.0.0/24"}]}', H, [("1.0.0.0", "1.0.0.255", H)]),
    "Oracle": (
        '{"regions": [{"region": "x", "cidrs": [{"cidr": "1.0.0.0/24", "tags": ["OCI"]}]}]}',
        H,
        [("1.0.0.0", "1.0.0.255", H)],
    ),
    "Azure": (
        '\ufeff{"values": [{"name": "A", "properties": {"addressPrefixes": ["1.0.0.0/24"]}}]}',
        H,
        [("1.0.0.0", "1.0.0.255", H)],
    ),
    "GitHub": ('{"verifiable": true, "hooks": ["1.0.0.0/24"], "domains": {"a": ["*.x"]}}', H,
               [("1.0.0.0", "1.0.0.255", H)]),
    "Anonymous-IP": (
        "network,is_anonymous,is_anonymous_vpn,is_hosting_provider,is_public_proxy,is_tor_exit_node\n"
        "1.0.0.0/24,1,1,1,0,0\n1.0.1.0/24,1,0,0,0,1\n1.0.2.0/24,0,0,0,0,0\n1.0.3.0/24,1,0,0,0,0\n",
        0,
        [
            ("1.0.0.0", "1.0.0.255", V | H),
            ("1.0.1.0", "1.0.1.255", T),
            ("1.0.3.0", "1.0.3.255", P),
        ],
    ),
    "Anonymous-IP, of which one kind is wanted": (
        "network,is_anonymous,is_anonymous_vpn,is_hosting_provider\n1.0.0.0/24,1,1,1\n1.0.1.0/24,0,0,1\n",
        V,
        [("1.0.0.0", "1.0.0.255", V)],
    ),
    "IP2Proxy": (
        '"16777216","16777471","VPN","US","United States"\n"16777472","16777472","SES","-","-"\n'
        '"16777473","16777473","TOR","-","-"\n"16777474","16777474","VPN/DCH","-","-"\n',
        0,
        [
            ("1.0.0.0", "1.0.0.255", V),
            ("1.0.1.0", "1.0.1.0", 0),
            ("1.0.1.1", "1.0.1.1", T),
            ("1.0.1.2", "1.0.1.2", V | H),
        ],
    ),
}  # fmt: skip


def text(value: int, bits: int) -> str:
    return str(ipaddress.IPv4Address(value) if bits == 32 else ipaddress.IPv6Address(value))


@pytest.mark.parametrize("name", GOOD)
def test_list_of_each_format_is_read(tmp_path: Path, name: str) -> None:
    content, kinds, ranges = GOOD[name]
    path = tmp_path / "list"
    path.write_text(content)
    found = network_list.read([path], kinds)
    assert [
        (text(first, family.bits), text(last, family.bits), bits)
        for family in (found.ipv4, found.ipv6)
        for first, last, bits in family
    ] == ranges


# Content, kinds, and what the error says.
BAD: dict[str, tuple[str, int, str]] = {
    "nothing": ("", V, "is empty"),
    "comments alone": ("# none\n", V, "is empty"),
    "no kinds": ("1.0.0.0/24\n", 0, "does not say what its networks are used for"),
    "a bad line": ("1.0.0.0/24\nx\n", V, "list:2:1: "),
    "bits beyond the prefix": ("1.0.0.0/24\n1.0.0.1/24\n", V, "list:2:"),
    "no columns": ("name,what\nx,y\n", V, "list:1: neither a prefix, nor a range"),
    "half of JSON": ('{"prefixes": [', H, "not JSON"),
    "JSON without prefixes": ('{"a": 1}', H, "holds no range"),
    "JSON, nested deeply": ("[" * 100_000, H, "not JSON"),
    "JSON with bits beyond a prefix": ('["1.0.0.1/24"]', H, "list: "),
    "no address of an exit": ("ExitNode 1\nExitAddress x 2026\n", T, "list:2: "),
    "an exit list with something else": ("ExitNode 1\nExitAddress 1.0.0.1 2\nfoo\n", T, "list:3: "),
    "flags without networks": (
        "name,is_anonymous\nx,1\n",
        0,
        "list:1: no column is",
    ),
    "flags with a bad network": ("network,is_anonymous\nx,1\n", 0, "list:2: "),
    "an unknown type of proxy": ('"1","2","VPN"\n"3","4","NEW"\n', 0, "list:2:"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_list_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    content, kinds, what = BAD[name]
    path = tmp_path / "list"
    path.write_text(content)
    with pytest.raises(SourceError) as caught:
        network_list.read([path], kinds)
    assert what in str(caught.value)


def test_lenient_list_leaves_lines_out(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("ExitAddress 1.0.0.1 2026\nExitAddress x 2026\n")
    faults = Faults(1)
    assert len(network_list.read([path], T, faults=faults)) == 1
    assert len(faults.found) == 1


# --- manifests -----------------------------------------------------------------------

MANIFEST = """
covering = ["VPN"]
[[source]]
name = "base"
files = ["base.csv"]
licence = "x"
date = 2026-01-01
coverage = "full"
[[network]]
name = "vpns"
files = ["vpns.txt"]
kind = "VPN"
licence = "MIT"
date = 2026-11-01
[[network]]
name = "egress"
files = ["egress.csv"]
kind = "RELAY"
vouches = true
licence = "x"
date = 2026-11-02
"""


def written(folder: Path, text: str = MANIFEST) -> Path:
    (folder / "base.csv").write_text("1.0.0.0,2.255.255.255,CN\n")
    (folder / "vpns.txt").write_text("1.0.0.0/24\n")
    (folder / "egress.csv").write_text("2.0.0.0/24,CN,,,\n2.0.1.0/24,HK,,,\n2.0.2.0/24,,,,\n")
    path = folder / "manifest.toml"
    path.write_text(text)
    return path


def test_manifest_has_lists_of_networks(tmp_path: Path) -> None:
    loaded = manifest.load(written(tmp_path))
    assert loaded.covering == (Network.VPN,)
    content = compile_manifest(loaded)
    with Dataset.from_buffer(encode(content, optional=content.optional)) as dataset:
        assert dataset.covering == (Network.VPN,)
        assert [
            (one.name, one.kinds, one.vouches, one.ranges) for one in dataset.network_lists
        ] == [
            ("vpns", (Network.VPN,), False, 1),
            ("egress", (Network.RELAY,), True, 3),
        ]
        assert [source.name for source in dataset.sources] == ["base", "egress"]
        assert dataset.lookup("1.0.0.1", "CN").reason is Reason.COVERED
        assert dataset.lookup("2.0.0.1", "CN").verdict is Verdict.INSIDE
        assert dataset.lookup("2.0.1.1", "CN").reason is Reason.DISPUTED
        # RELAY hides nobody here, since the manifest says so.
        assert dataset.lookup("2.0.2.1", "CN").verdict is Verdict.INSIDE
        assert dataset.info()["networks"][0]["kinds"] == ["VPN"]
        assert dataset.built.date() == date(2026, 11, 2)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (('kind = "VPN"', 'kind = "vpn"'), "kind: expected of TOR, VPN"),
        (('covering = ["VPN"]', 'covering = ["ALL"]'), "covering: expected of TOR"),
        (('name = "vpns"', 'name = "base"'), "name: an earlier source or list has it"),
        (('name = "egress"', 'name = "vpns"'), "name: an earlier source or list has it"),
        (('kind = "RELAY"', 'kind = "VPN"'), "vouches: only a list of kind"),
        (('files = ["vpns.txt"]', 'files = ["none.txt"]'), "files: entry 1: there is no file"),
        (("vouches = true", "vouches = 1"), "vouches"),
        (('kind = "VPN"', 'sort = "VPN"'), "sort"),
    ],
)
def test_manifest_with_a_wrong_list_is_refused(
    tmp_path: Path, change: tuple[str, str], what: str
) -> None:
    with pytest.raises(SourceError) as caught:
        manifest.load(written(tmp_path, MANIFEST.replace(*change)))
    assert what in str(caught.value)


def test_flags_of_a_source_of_countries_are_a_list(tmp_path: Path) -> None:
    blocks = (
        "network,geoname_id,is_anonymous_proxy,is_satellite_provider,is_anycast\n"
        "1.0.0.0/24,1,1,0,0\n1.0.1.0/24,1,0,1,1\n1.0.2.0/24,1,0,0,0\n"
    )
    (tmp_path / "blocks.csv").write_text(blocks)
    text = (
        '[[source]]\nname = "base"\nfiles = ["base.csv"]\nlicence = "x"\ndate = 2026-01-01\n'
        'coverage = "full"\n[[network]]\nname = "flags"\nfiles = ["blocks.csv"]\n'
        'format = "geolite2"\nlicence = "x"\ndate = 2026-11-01\n'
    )
    content = compile_manifest(manifest.load(written(tmp_path, text)))
    with Dataset.from_buffer(encode(content, optional=content.optional)) as dataset:
        assert dataset.lookup("1.0.0.1").networks == (Network.PROXY,)
        assert dataset.lookup("1.0.1.1").networks == (Network.SATELLITE, Network.ANYCAST)
        assert dataset.lookup("1.0.2.1").networks == ()
    with pytest.raises(SourceError, match="format: such a file says the kinds itself"):
        manifest.load(written(tmp_path, text + 'kind = "VPN"\n'))
