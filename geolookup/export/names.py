"""Names that a caller chooses in an export, checked before anything is written."""

from __future__ import annotations

import re

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

_WORDS = """
accept add ah all and arp bridge cgroup chain comment comp constant continue counter cpu create ct
day dccp define delete describe device devices dnat drop dst dup dynamic ecn element elements eq
esp ether exists expires export exthdr fib flags flow flowtable flush frag fwd ge get goto gt
handle hbh hook hour ibriport ibrname icmp icmpv6 igmp iif iifgroup iifname iiftype import include
index inet insert interval ip ip6 ipsec jhash jump le limit list log lshift lt map mark masquerade
meta meter mh missing monitor ne netdev nftrace not notrack numgen obriport obrname offload oif
oifgroup oifname oiftype or osf pkttype policy position priority queue quota random redefine
redirect reject rename replace reset return rshift rt rt0 rt2 rtclassid rule ruleset sctp secmark
set size skgid skuid snat socket srh symhash synproxy table tcp th time timeout tproxy type typeof
udp udplite undefine update vlan vmap xor xt
destroy geneve gre gretap last vni vxlan
"""
NFT_WORDS = frozenset(_WORDS.split())
"""What nft 1.0.6 refuses as a table's name, found by trying. Capital letters make it a name.
Those of the last line came with versions up to 1.1."""

_DATABASE_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ()=._-]{0,63}")
_KINDS_OF_COUNTRY_DATABASES = ("Country", "City", "Enterprise")


def check_table(name: str) -> None:
    """Refuse a name of a table that nft would refuse or take for something else.

    Raises:
        ValueError: it is none.
    """
    if _TABLE.fullmatch(name) is None:
        raise ValueError("at most 64 letters, digits and _, beginning with a letter")
    if name in NFT_WORDS:
        raise ValueError("a word of nft's own language, which nft refuses as a name")


def check_database_type(name: str, *, only_networks: bool) -> None:
    """Refuse a database type by which readers would take records for others than they are.

    Raises:
        ValueError: it names no kind of database, or another one.
    """
    if _DATABASE_TYPE.fullmatch(name) is None:
        raise ValueError("at most 64 letters, digits and -._()= and spaces, as in GeoIP2-Country")
    if only_networks and "Anonymous-IP" not in name:
        raise ValueError("a database of kinds of networks has Anonymous-IP in its type")
    if not only_networks and not any(kind in name for kind in _KINDS_OF_COUNTRY_DATABASES):
        raise ValueError("a database of countries has Country, City or Enterprise in its type")
