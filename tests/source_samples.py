"""Samples of the formats that sources have, databases made from a few rows, and what was read."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping, Sequence

from geolookup.build import readers
from geolookup.build.readers import SourceRanges

Row = tuple[str, str, str]

TOR = b"""\
# This file has been converted from the IPFire Location database
# using Tor's geoip-db-tool, which is available in the
#
# Vendor:    IPFire Project
#
15726992,15726999,??
16777216,16777471,AU
16777472,16778239,CN
"""
TOR6 = b"""\
# Last updated based on:
#
2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP
2a14:5908::,2a14:593f:ffff:ffff:ffff:ffff:ffff:ffff,EU
2a0f:85c1:cc6::,2a0f:85c1:cc6:1:ffff:ffff:ffff:ffff,UN
"""
RIR = b"""\
2.3|apnic|20260617|79183|19830613|20260616|+1000
# a comment
apnic|*|asn|*|12985|summary
apnic|*|ipv4|*|53911|summary
apnic|AU|asn|4608|1|19950101|assigned|A91872ED
apnic|AU|ipv4|1.0.0.0|256|20110811|assigned|A91872ED
apnic|CN|ipv4|1.0.1.0|768|20110414|allocated|A92E1062
apnic||ipv4|1.1.64.0|256||available|
apnic||ipv4|1.1.65.0|256||reserved|
apnic|JP|ipv6|2001:200::|35|19990813|allocated|A9173591
apnic|AP|ipv6|2001:7fa::|48|20020801|assigned|A91872ED
"""
RIR_PLAIN = b"""\
2|ripencc|1781733599|250043|19830705|20260617|+0200
ripencc|*|ipv4|*|93204|summary
ripencc|FR|ipv4|2.0.0.0|1048576|20100712|allocated
ripencc|EU|ipv4|2.56.16.0|1024|20190312|assigned
ripencc|GB|ipv6|2001:600::|32|19990826|allocated
"""
GEOFEED = b"""\
# IETF106 (Singapore) - November 2019 - Singapore, SG
130.129.0.0/16,SG,SG-01,Singapore,
  # an indented comment
2001:df8::/32 , SG , SG-01 , "Singapore, the city" ,

31.133.128.0/18,sg,,Singapore,
31.133.160.0/20,,,,
5.5.5.5,DE
"""
IPINFO = b"""\
network,country,country_code,continent,continent_code,asn,as_name,as_domain
1.0.0.0/24,Australia,AU,Oceania,OC,AS13335,"Cloudflare, Inc.",cloudflare.com
1.0.1.0/24,China,CN,Asia,AS,,,
1.0.16.1,Japan,JP,Asia,AS,AS2519,"ARTERIA ""Net"" works",arteria-net.com
2001:218:e000::/35,,,,,,,
"""
IP2LOCATION = b"""\
"0","16777215","-","-"
"16777216","16777471","US","United States of America"
"16777472","16778239","CN","China"
"""
IP2LOCATION6 = b"""\
"0","281470681743359","-","-"
"281470698520576","281470698520831","US","United States of America"
"42540528726795050063891204319802818560","42540528806023212578155541913346768895","JP","Japan"
"""
BLOCKS = b"""\
network,geoname_id,registered_country_geoname_id,represented_country_geoname_id,\
is_anonymous_proxy,is_satellite_provider,is_anycast
1.0.0.0/24,2077456,1814991,,0,0,
1.0.1.0/24,1814991,1814991,,0,0,
2.16.0.0/13,6255148,2921044,,0,0,
5.62.56.0/22,,2921044,,0,0,
"""
BLOCKS6 = BLOCKS.partition(b"\n")[0] + b"\n2001:200::/32,1861060,1861060,,0,0,\n"
LOCATIONS = b"""\
geoname_id,locale_code,continent_code,continent_name,country_iso_code,country_name,\
is_in_european_union
1814991,en,AS,Asia,CN,China,0
1861060,en,AS,Asia,JP,Japan,0
2077456,en,OC,Oceania,AU,Australia,0
2921044,en,EU,Europe,DE,Germany,1
6252001,en,NA,"North America",US,"United States",0
6255148,en,EU,Europe,,,0
"""
RANGES = b"1.0.0.0,1.0.0.255,AU\n1.0.1.0,1.0.3.255,CN\n"
EXPECTED_RANGES = [("1.0.0.0", "1.0.0.255", "AU"), ("1.0.1.0", "1.0.3.255", "CN")]
LIST = b"1.0.1.0/24\n1.0.2.0/23\n2001:250::/39\n"
EXPECTED_LIST = [
    ("1.0.1.0", "1.0.1.255", "CN"),
    ("1.0.2.0", "1.0.3.255", "CN"),
    ("2001:250::", "2001:250:1ff:ffff:ffff:ffff:ffff:ffff", "CN"),
]

# What it is: (file name, content), the format that it is recognised as, its ranges.
SAMPLES: dict[str, tuple[str, bytes, str, list[Row]]] = {
    "range CSV": ("a.csv", RANGES, "range-csv", EXPECTED_RANGES),
    "range CSV with integers": (
        "a.csv",
        b"16777216,16777471,AU\n16777472,16778239,CN\n",
        "range-csv",
        EXPECTED_RANGES,
    ),
    "range CSV with integers of IPv6": (
        "a.csv",
        b"42540528726795050063891204319802818560,42540528806023212578155541913346768895,JP\n",
        "range-csv",
        [("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP")],
    ),
    "range CSV in quotes": (
        "a.csv",
        b'"1.0.0.0","1.0.0.255","AU"\n"1.0.1.0","1.0.3.255","CN"\n',
        "range-csv",
        EXPECTED_RANGES,
    ),
    "range CSV with integers in quotes": (
        "a.csv",
        b'"16777216","16777471","AU"\n"16777472","16778239","CN"\n',
        "range-csv",
        EXPECTED_RANGES,
    ),
    "range CSV with a header": (
        "a.csv",
        b"start_ip,end_ip,country,country_name,continent\n"
        b'1.0.0.0,1.0.0.255,AU,Australia,OC\n1.0.1.0,1.0.3.255,CN,"China, mainland",AS\n',
        "range-csv",
        EXPECTED_RANGES,
    ),
    "range CSV with a header and integers": (
        "a.csv",
        b'"id","ip_from","ip_to","country_code","country"\r\n'
        b'"1","16777216","16777471","AU","Australia"\r\n"2",16777472,16778239,CN,China\r\n',
        "range-csv",
        EXPECTED_RANGES,
    ),
    "range CSV with a byte order mark": (
        "a.csv",
        b"\xef\xbb\xbf" + RANGES,
        "range-csv",
        EXPECTED_RANGES,
    ),
    "DB-IP Lite": (
        "dbip-country-lite-2026-06.csv",
        b"0.0.0.0,0.255.255.255,ZZ\n1.0.0.0,1.0.0.255,AU\n::,1fff:ffff::,ZZ\n",
        "range-csv",
        [
            ("0.0.0.0", "0.255.255.255", ""),  # noqa: S104 - binds nothing
            ("1.0.0.0", "1.0.0.255", "AU"),
            ("::", "1fff:ffff::", ""),
        ],
    ),
    "prefix CSV": (
        "a.csv",
        b"1.0.1.0/24,CN\n1.0.2.0/23,cn\n2001:250::/39,CN\n",
        "prefix-csv",
        EXPECTED_LIST,
    ),
    "prefix CSV with a header": (
        "a.csv",
        b'country_code,"cidr",city\nCN,1.0.1.0/24,\n"CN","1.0.2.0/23","a ""b"", c"\n'
        b"CN,2001:250::/39,x\n",
        "prefix-csv",
        EXPECTED_LIST,
    ),
    "a prefix list named by its country": ("cn.zone", LIST, "prefix-list", EXPECTED_LIST),
    "a prefix list with comments": (
        "cn-aggregated.zone",
        b"# of a registry\n\n" + LIST.replace(b"\n", b" \r\n"),
        "prefix-list",
        EXPECTED_LIST,
    ),
    "IPFire": ("CNv6.networks", LIST, "ipfire", EXPECTED_LIST),
    "IP2Location": (
        "IP2LOCATION-LITE-DB1.CSV",
        IP2LOCATION,
        "ip2location",
        [
            ("0.0.0.0", "0.255.255.255", ""),  # noqa: S104 - binds nothing
            ("1.0.0.0", "1.0.0.255", "US"),
            ("1.0.1.0", "1.0.3.255", "CN"),
        ],
    ),
    "IP2Location for IPv6, which holds IPv4": (
        "IP2LOCATION-LITE-DB1.IPV6.CSV",
        IP2LOCATION6,
        "ip2location",
        [
            ("1.0.0.0", "1.0.0.255", "US"),
            ("::", "::fffe:ffff:ffff", ""),
            ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
        ],
    ),
    "IPinfo Lite": (
        "ipinfo_lite.csv",
        IPINFO,
        "ipinfo",
        [
            ("1.0.0.0", "1.0.0.255", "AU"),
            ("1.0.1.0", "1.0.1.255", "CN"),
            ("1.0.16.1", "1.0.16.1", "JP"),
            ("2001:218:e000::", "2001:218:ffff:ffff:ffff:ffff:ffff:ffff", ""),
        ],
    ),
    "RIR delegated-extended": (
        "delegated-apnic-extended-latest",
        RIR,
        "rir",
        [
            ("1.0.0.0", "1.0.0.255", "AU"),
            ("1.0.1.0", "1.0.3.255", "CN"),
            ("2001:200::", "2001:200:1fff:ffff:ffff:ffff:ffff:ffff", "JP"),
            ("2001:7fa::", "2001:7fa:0:ffff:ffff:ffff:ffff:ffff", ""),
        ],
    ),
    "RIR delegated": (
        "delegated-ripencc-latest",
        RIR_PLAIN,
        "rir",
        [
            ("2.0.0.0", "2.15.255.255", "FR"),
            ("2.56.16.0", "2.56.19.255", ""),
            ("2001:600::", "2001:600:ffff:ffff:ffff:ffff:ffff:ffff", "GB"),
        ],
    ),
    "iptoasn by country": (
        "ip2country-v4.tsv",
        b"1.0.0.0\t1.0.0.255\tAU\n1.0.1.0\t1.0.3.255\tNone\n",
        "iptoasn",
        [("1.0.0.0", "1.0.0.255", "AU"), ("1.0.1.0", "1.0.3.255", "")],
    ),
    "iptoasn by network": (
        "ip2asn-combined.tsv",
        b"1.0.0.0\t1.0.0.255\t13335\tUS\tCLOUDFLARENET\n1.0.1.0\t1.0.3.255\t0\tNone\tNot routed\n"
        b'59.101.179.0\t59.101.179.255\t4294901931\tUnknown\tAS"4294901931, x\n'
        b"2001:200::\t2001:200:5ff:ffff:ffff:ffff:ffff:ffff\t2500\tJP\tWIDE-BB WIDE Project\n",
        "iptoasn",
        [
            ("1.0.0.0", "1.0.0.255", "US"),
            ("1.0.1.0", "1.0.3.255", ""),
            ("59.101.179.0", "59.101.179.255", ""),
            ("2001:200::", "2001:200:5ff:ffff:ffff:ffff:ffff:ffff", "JP"),
        ],
    ),
    "iptoasn with integers": (
        "ip2country-v4-u32.tsv",
        b"16777216\t16777471\tAU\n16777472\t16778239\tNone\n",
        "iptoasn",
        [("1.0.0.0", "1.0.0.255", "AU"), ("1.0.1.0", "1.0.3.255", "")],
    ),
    "tor": (
        "geoip",
        TOR,
        "tor",
        [
            ("0.239.249.144", "0.239.249.151", ""),
            ("1.0.0.0", "1.0.0.255", "AU"),
            ("1.0.1.0", "1.0.3.255", "CN"),
        ],
    ),
    "tor for IPv6": (
        "geoip6",
        TOR6,
        "tor",
        [
            ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
            ("2a14:5908::", "2a14:593f:ffff:ffff:ffff:ffff:ffff:ffff", ""),
            ("2a0f:85c1:cc6::", "2a0f:85c1:cc6:1:ffff:ffff:ffff:ffff", ""),
        ],
    ),
}
_FEED = [
    ("130.129.0.0", "130.129.255.255", "SG"),
    ("31.133.128.0", "31.133.191.255", "SG"),
    ("31.133.160.0", "31.133.175.255", ""),
    ("5.5.5.5", "5.5.5.5", "DE"),
    ("2001:df8::", "2001:df8:ffff:ffff:ffff:ffff:ffff:ffff", "SG"),
]
for how, encoded in {
    "UTF-8": GEOFEED,
    "UTF-8 with a mark": b"\xef\xbb\xbf" + GEOFEED,
    "UTF-16": b"\xff\xfe" + GEOFEED.decode().encode("utf-16-le"),
    "UTF-16, the other way": b"\xfe\xff" + GEOFEED.decode().encode("utf-16-be"),
    "lines that end in CRLF": GEOFEED.replace(b"\n", b"\r\n"),
}.items():
    SAMPLES[f"a geofeed in {how}"] = ("geofeed.csv", encoded, "geofeed", _FEED)


def legacy_database(prefixes: Mapping[str, int], edition: int = 1) -> bytes:
    """Return a database of prefixes and the numbers of their countries; the rest has number 0."""
    bits = 32 if edition == 1 else 128
    nodes: list[list[int | None]] = [[None, None]]
    for prefix, number in prefixes.items():
        network = ipaddress.ip_network(prefix)
        path = f"{int(network.network_address):0{bits}b}"[: network.prefixlen]
        at = 0
        for step in path[:-1]:
            child = nodes[at][int(step)]
            if child is None:
                child = nodes[at][int(step)] = len(nodes)
                nodes.append([None, None])
            at = child
        nodes[at][int(path[-1])] = 0xFFFF00 + number
    children = (0xFFFF00 if child is None else child for node in nodes for child in node)
    tree = b"".join(child.to_bytes(3, "little") for child in children)
    return tree + b"\0\0\0GEO-106 a comment\xff\xff\xff" + bytes([edition])


AUSTRALIA = b"\xe1\x4ccountry_code\x42AU"


def search_tree(
    nodes: list[tuple[int, int]], size: int = 24, record: bytes = AUSTRALIA, **changed: bytes
) -> bytes:
    """Return a database with a search tree of these nodes, and a record where it is left."""
    packed = [left << size | right for left, right in nodes]
    if size == 28:
        packed = [(left & 0xFFFFFF) << 32 | left >> 24 << 28 | right for left, right in nodes]
    metadata = {
        "binary_format_major_version": b"\xa1\2",
        "binary_format_minor_version": b"\xa1\0",
        "database_type": b"\x41t",
        "ip_version": b"\xa1\6",
        "node_count": b"\xc2" + len(nodes).to_bytes(2),
        "record_size": b"\xa1" + bytes([size]),
        "description": b"\xe1\x42en\x41t",
        "languages": b"\1\4\x42en",
        "build_epoch": b"\1\2\1",
        **changed,
    }
    return (
        b"".join(node.to_bytes(size // 4) for node in packed)
        + bytes(16)
        + record
        + b"\xab\xcd\xefMaxMind.com"
        + bytes([0xE0 | len(metadata)])
        + b"".join(bytes([0x40 | len(key)]) + key.encode() + metadata[key] for key in metadata)
    )


def texts(ranges: SourceRanges) -> list[tuple[str, str, str]]:
    return [
        (str(make(first)), str(make(last)), readers.code_text(code) if code else "")
        for family, make in (
            (ranges.ipv4, ipaddress.IPv4Address),
            (ranges.ipv6, ipaddress.IPv6Address),
        )
        for first, last, code in family
    ]


def ip2location_database(
    rows4: Sequence[tuple[str, ...]],
    rows6: Sequence[tuple[str, ...]] = (),
    *,
    columns: int = 2,
    product: int = 1,
) -> bytes:
    """Return a BIN file of IP2Location with these rows: first address, and code.

    Behind the code, or the name of a region that may follow it, each row has empty columns.
    """
    texts, places = b"", {}
    for text in sorted({text for _, *found in (*rows4, *rows6) for text in found}):
        places[text] = len(texts)
        texts += bytes([len(text)]) + text.encode("iso-8859-1").ljust(2, b"\0") + b"\4name"
    sizes = {4: 4 * columns, 16: 12 + 4 * columns}
    at4 = 64
    at6 = at4 + sizes[4] * len(rows4) + 4
    names = at6 + (sizes[16] * len(rows6) + 16 if rows6 else 0)
    where6 = at6 + 1 if rows6 else 0
    content = struct.pack(
        "<5B6I2B", columns - 1, columns, 26, 6, 1, len(rows4), at4 + 1, len(rows6), where6, 0, 0,
        product, 0,
    ).ljust(64, b"\0")  # fmt: skip
    for rows, size in ((rows4, 4), (rows6, 16)):
        for first, *found in rows:
            content += ipaddress.ip_address(first).packed[::-1]
            pointers = struct.pack(f"<{len(found)}I", *(names + places[text] for text in found))
            content += pointers.ljust(4 * (columns - 1), b"\0")
        content += b"\xff" * size if rows else b""
    return content + texts + bytes(256)
