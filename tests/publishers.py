"""Publishers for tests: a real HTTP server on this machine, which serves, lies and stalls as told.

The samples are in the publishers' own formats, with a few lines instead of hundreds
of thousands. Nothing waits by the clock: what stalls does so until the server is closed.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from geolookup.update import builtin_text

MODIFIED = "Tue, 17 Nov 2026 06:00:00 GMT"

SMALL_CATALOGUE = """
[[source]]
name = "mirror"
format = "range-csv"
licence = "CC0-1.0"
attribution = ""
url = ""
notice = ""
coverage = "full"
origin = ""
[[source.file]]
name = "ranges.csv"
url = "https://mirror.example/ranges.csv"
date = "modified"
smallest = 1
largest = 10
largest_unpacked = 10
"""

DBIP = b"""\
0.0.0.0,0.255.255.255,ZZ
1.0.0.0,1.0.0.255,AU
1.0.1.0,1.0.3.255,CN
1.0.4.0,1.0.7.255,AU
2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP
"""

ARIN = b"""\
2.3|arin|1789736421462|3|19700101|20261116|-0400
arin|*|asn|*|1|summary
arin|*|ipv4|*|1|summary
arin|*|ipv6|*|1|summary
arin|US|asn|1|1|20010920|assigned|e5e3b9c13678dfc483fb1f819d70883c
arin|US|ipv4|8.0.0.0|16777216|19921201|allocated|e5e3b9c13678dfc483fb1f819d70883c
arin|US|ipv6|2001:400::|32|19990803|allocated|e5e3b9c13678dfc483fb1f819d70883c
"""
RIPENCC = b"""\
2|ripencc|1789768799|3|19830705|20261116|+0100
ripencc|*|ipv4|*|2|summary
ripencc|*|asn|*|0|summary
ripencc|*|ipv6|*|1|summary
ripencc|FR|ipv4|2.0.0.0|1048576|20100712|allocated|e0ff3a72-6f1a-4d2c-8b3e-0c6a9a9a2b11
ripencc|EU|ipv4|193.0.24.0|1280|19931222|assigned|8c9a3a72-6f1a-4d2c-8b3e-0c6a9a9a2b12
ripencc|DE|ipv6|2001:600::|32|19990826|allocated|e0ff3a72-6f1a-4d2c-8b3e-0c6a9a9a2b11
"""
APNIC = b"""\
#
# statement of conditions of use
#
2.3|apnic|20261117|3||20261116|+1000
apnic|*|asn|*|0|summary
apnic|*|ipv4|*|2|summary
apnic|*|ipv6|*|1|summary
apnic|AU|ipv4|1.0.0.0|256|20110811|assigned|A91872ED
apnic|CN|ipv4|1.0.1.0|256|20110414|allocated|A92E1062
apnic|JP|ipv6|2001:200::|35|19990813|allocated|A916A983
"""
LACNIC = b"""\
2.3|lacnic|20261117|2|19870101|20261115|-0300
lacnic|*|ipv4|*|1|summary
lacnic|*|ipv6|*|1|summary
lacnic|*|asn|*|0|summary
lacnic|BR|ipv4|177.0.0.0|131072|20110131|allocated|254234
lacnic|BR|ipv6|2001:1280::|25|20010606|allocated|254234
"""
AFRINIC = b"""\
2|afrinic|20261117|3|00000000|20261117|00000
afrinic|*|asn|*|0|summary
afrinic|*|ipv4|*|2|summary
afrinic|*|ipv6|*|1|summary
afrinic|ZA|ipv4|41.0.0.0|2097152|20071126|allocated|F367B9C3
afrinic|ZZ|ipv4|41.57.112.0|2048||reserved||
afrinic|ZA|ipv6|2001:4200::|32|20051021|allocated|F36B9F4B
"""
REGISTRIES = {
    "arin": ("/pub/stats/arin/", ARIN),
    "ripencc": ("/pub/stats/ripencc/", RIPENCC),
    "apnic": ("/stats/apnic/", APNIC),
    "lacnic": ("/pub/stats/lacnic/", LACNIC),
    "afrinic": ("/pub/stats/afrinic/", AFRINIC),
}

IPTOASN4 = b"0.0.0.0\t0.255.255.255\tNone\n1.0.0.0\t1.0.0.255\tUS\n1.0.1.0\t1.0.3.255\tCN\n"
IPTOASN6 = b"2001:200::\t2001:200:ffff:ffff:ffff:ffff:ffff:ffff\tJP\n"


GEO_WHOIS_ASN4 = b"1.0.0.0,1.0.0.255,AU\n1.0.1.0,1.0.3.255,CN\n8.0.0.0,8.255.255.255,US\n"
GEO_WHOIS_ASN6 = b"2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP\n"


LISTS = {
    "/X4BNet/lists_vpn/main/output/vpn/ipv4.txt": b"1.0.0.0/26\n8.8.0.0/16\n",
    "/X4BNet/lists_vpn/main/output/vpn/ipv6.txt": b"2001:550:1d05::/48\n2001:678:8b4::/48\n",
    "/X4BNet/lists_vpn/main/output/datacenter/ipv4.txt": b"1.0.0.0/25\n8.8.0.0/16\n",
    "/X4BNet/lists_vpn/main/output/datacenter/ipv6.txt": b"2001:550:1d05::/48\n",
    "/exit-addresses": (
        b"ExitNode 0011BD2485AD45D984EC4159C88FC066E5E3300E\n"
        b"Published 2026-11-16 19:43:07\nLastStatus 2026-11-16 20:00:00\n"
        b"ExitAddress 8.9.0.7 2026-11-16 20:08:50\n"
    ),
    "/egress-ip-ranges.csv": (
        b"8.10.0.0/31,US,US-CA,Los Angeles,\n8.10.0.2/32,CA,CA-ON,Toronto,\n"
        b"2a02:26f7:1::/64,DE,,,\n"
    ),
    "/local-ip-ranges.csv": b"8.11.0.0/24,US,US-TX,Dallas,\n8.11.1.0/24,,,,\n",
    "/feed.csv": b"8.12.0.0/24,US,US-WA,Seattle,\n",
    "/ip-ranges.json": (
        b'{"syncToken": "1", "createDate": "2026-11-16-20-00-00", "prefixes": [{"ip_prefix":'
        b' "8.13.0.0/24", "region": "us-east-1"}, {"ip_prefix": "8.13.0.0/16", "region": "x"}],'
        b' "ipv6_prefixes": [{"ipv6_prefix": "2600:1f00::/24", "region": "us-east-1"}]}'
    ),
    "/ipranges/cloud.json": (
        b'{"syncToken": "1", "creationTime": "2026-11-16T20:00:00", "prefixes": [{"ipv4Prefix":'
        b' "8.14.0.0/24"}, {"ipv6Prefix": "2600:1900::/35"}]}'
    ),
    "/en-us/iaas/tools/public_ip_ranges.json": (
        b'{"last_updated_timestamp": "2026-11-16T20:00:00", "regions": [{"region": "eu-zurich-1",'
        b' "cidrs": [{"cidr": "8.15.0.0/24", "tags": ["OCI"]}]}]}'
    ),
    "/meta": (
        b'{"verifiable_password_authentication": false, "ssh_keys": ["ssh-ed25519 AAAAC3"],'
        b' "hooks": ["8.16.0.0/22"], "domains": {"website": ["*.github.com"]}}'
    ),
    "/ipranges/cloud_geofeed": b"8.14.0.0/24,US,US-OR,The Dalles,\n",
    "/Netflix/nflx-geofeed/HEAD/geofeed.csv": b"8.17.0.0/24,US,US-CA,Los Gatos,\n",
}
"""The lists of networks and operators' feeds, by path, in their publishers' forms."""


def geo_whois_asn_path(family: str) -> str:
    """Return where ip-location-db has the file of a family, ipv4 or ipv6."""
    return f"/sapics/ip-location-db/releases/download/latest/geo-whois-asn-country-{family}.csv"


def dbip_path(month: str) -> str:
    """Return where DB-IP has the file of a month such as 2026-11."""
    return f"/free/dbip-country-lite-{month}.csv.gz"


def registry_path(registry: str) -> str:
    """Return where a registry has its statistics."""
    return f"{REGISTRIES[registry][0]}delegated-{registry}-extended-latest"


def md5_file(registry: str, content: bytes) -> bytes:
    """Return what a registry writes into the checksum file of its statistics."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if registry == "arin":
        return f"{digest}  delegated-arin-extended-20261117\n".encode()
    return f"MD5 (delegated-{registry}-extended-latest) = {digest}\n".encode()


@dataclass(frozen=True)
class Request:
    """A request that the server got."""

    path: str
    headers: Message


Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers requests as the server's `behaviours` say, and keeps a record of them."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.guard:
            self.server.requests.append(Request(self.path, self.headers))
            planned = self.server.behaviours.get(self.path, [status(404)])
            behave = planned.pop(0) if len(planned) > 1 else planned[0]
        behave(self)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1. A path without a behaviour answers 404."""

    daemon_threads = False  # closing waits for the handlers, which `closing` ends
    request_queue_size = 16

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.guard = threading.Lock()  # of what follows
        self.behaviours: dict[str, list[Behaviour]] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.scheme = "http"

    def handle_error(self, *_: object) -> None:
        pass  # clients that go away in the middle are what the tests are about

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def plan(self, path: str, *behaviours: Behaviour) -> None:
        """Answer requests for a path in these ways, one after the other, the last one for ever."""
        with self.guard:
            self.behaviours[path] = list(behaviours)

    def asked_for(self, path: str) -> list[Request]:
        """Return the requests for a path, in their order."""
        with self.guard:
            return [request for request in self.requests if request.path == path]

    def publish(self, *, month: str = "2026-11") -> None:
        """Serve all sources but IPFire's, as their publishers do."""
        self.plan(dbip_path(month), content(gzip.compress(DBIP, mtime=0)))
        self.plan(geo_whois_asn_path("ipv4"), content(GEO_WHOIS_ASN4))
        self.plan(geo_whois_asn_path("ipv6"), content(GEO_WHOIS_ASN6))
        for registry, (_, statistics) in REGISTRIES.items():
            self.plan(registry_path(registry), content(statistics))
            self.plan(f"{registry_path(registry)}.md5", content(md5_file(registry, statistics)))
        for path, body in LISTS.items():
            self.plan(path, content(body))
        self.plan("/data/ip2country-v4.tsv.gz", content(gzip.compress(IPTOASN4, mtime=0)))
        self.plan("/data/ip2country-v6.tsv.gz", content(gzip.compress(IPTOASN6, mtime=0)))

    def catalogue(self, **limits: int) -> str:
        """Return the built-in catalogue with this server instead of the publishers', as TOML."""
        lines, is_file = [], False
        for line in builtin_text().splitlines():
            if line.startswith("[["):
                is_file = line.endswith(".file]]")
            own = rf'\1 = "{self.url}/'
            lines.append(
                re.sub(r'^(url|checksum) = "https://[^/"]+/', own, line) if is_file else line
            )
        text = "\n".join(lines)
        for key, value in ({"smallest": 10} | limits).items():
            text = re.sub(rf"^{key} = \d\w*$", f"{key} = {value}", text, flags=re.MULTILINE)
        return text


@contextlib.contextmanager
def publishing(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server while the block runs."""
    with Server() as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


def content(
    body: bytes, *, etag: str | None = None, modified: str = MODIFIED, kind: str = "text/plain"
) -> Behaviour:
    """Serve a file as a good server does: with validators, and 304 to who has it."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"' if etag is None else etag

    def behave(handler: Handler) -> None:
        since = handler.headers["If-Modified-Since"]
        have = handler.headers["If-None-Match"]
        fresh = have == etag if have else since and _time(since) >= _time(modified)
        handler.send_response(304 if fresh else 200)
        handler.send_header("ETag", etag)
        handler.send_header("Last-Modified", modified)
        if not fresh:
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if not fresh:
            handler.wfile.write(body)

    return behave


def bare(body: bytes, *, length: int | None = None, status: int = 200, **headers: str) -> Behaviour:
    """Serve bytes without validators, with any Content-Length; None: say none, and close after."""

    def behave(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def status(code: int, **headers: str) -> Behaviour:
    """Answer with a status and no more than a line."""
    return bare(b"no\n", length=3, status=code, **headers)


def redirect(to: str, code: int = 302) -> Behaviour:
    return status(code, Location=to)


def chunked(*chunks: bytes, whole: bool) -> Behaviour:
    """Serve chunks; unless *whole*, the connection ends before the last one says so."""

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for chunk in (*chunks, b"") if whole else chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    return behave


def stall(head: bytes = b"") -> Behaviour:
    """Send some bytes of an answer, and then nothing until the server is closed."""

    def behave(handler: Handler) -> None:
        handler.wfile.write(head)
        handler.server.closing.wait(60)
        handler.close_connection = True

    return behave


def trickle(head: bytes, drop: bytes) -> Behaviour:
    """Send a beginning, and then a drop again and again, faster than any wait for a byte."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(head)
        while not handler.server.closing.wait(0.02):
            handler.wfile.write(drop)

    return behave


def _time(text: str) -> float:
    return parsedate_to_datetime(text).timestamp()


def fake_location(folder: Path, *, signed: bool = True) -> Path:
    """Write a stand-in for IPFire's tool: it "exports" what stands in a text after the magic."""
    script = folder / "location"
    script.write_text(
        f"""#!/bin/sh
set -e
[ "$1" = --database ] || exit 64
database=$2
case $3 in
verify) exit {0 if signed else 1} ;;
export)
    [ "$4" = --directory ] || exit 64
    cd "$5"
    tail -n +2 "$database" | while read -r name prefix; do echo "$prefix" >> "$name.networks"; done
    : > USv4.networks ;;
*) exit 64 ;;
esac
"""
    )
    script.chmod(0o755)
    return script
