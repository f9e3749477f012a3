"""Refreshing a dataset: what is downloaded, what is refused, and that a refusal changes nothing.

The publishers are a server on this machine (`publishers`). No test waits by the clock.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import io
import json
import lzma
import os
import shutil
import socket
import ssl
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import publishers
import pytest
import trustme
from command_line import Ended, run_command
from publishers import (
    AFRINIC,
    ARIN,
    DBIP,
    SMALL_CATALOGUE,
    Behaviour,
    Server,
    bare,
    chunked,
    content,
    dbip_path,
    md5_file,
    publishing,
    redirect,
    registry_path,
    stall,
    status,
    trickle,
)

import geolookup
from geolookup import DatasetError
from geolookup.answer import dataset
from geolookup.build import compiler
from geolookup.build import manifest as manifests
from geolookup.change_limits import ChangeLimits
from geolookup.errors import SourceError
from geolookup.review.verification import read_canaries
from geolookup.update import (
    Cache,
    Catalogue,
    Check,
    MissingError,
    RefreshedSource,
    Replacement,
    TransferLimits,
    UpdateError,
    Validators,
    acceptance,
    builtin_text,
    catalogue,
    downloads,
    fetch,
    load_manifest,
    refresh,
    replace,
    transfer,
    used_by,
    write_manifest,
)

TODAY = date(2026, 11, 17)
ANY_COVERAGE = ChangeLimits(min_coverage=Fraction(0))
PATH = "/file"
BODY = b"some bytes of data\n" * 100

ONCE = TransferLimits(stall=20, attempts=1)
"""No second attempt, and time enough for a machine that is busy."""
SHORT = TransferLimits(stall=0.2, attempts=1)
"""For servers that stall."""


@pytest.fixture
def server() -> Iterator[Server]:
    with publishing() as running:
        yield running


# --- one file over HTTP ---------------------------------------------------------------


class Got(NamedTuple):
    """What a transfer brought."""

    reply: transfer.Reply
    body: bytes
    waits: list[float]


def get(server: Server, path: str = PATH, **given: Any) -> Got:
    into = io.BytesIO()
    waits: list[float] = []
    options: dict[str, Any] = {"largest": 1_000_000, "limits": TransferLimits(stall=20)} | given
    reply = fetch(server.url + path, into, wait=waits.append, **options)
    return Got(reply, into.getvalue(), waits)


def refused(server: Server, path: str = PATH, **options: Any) -> UpdateError:
    with pytest.raises(UpdateError) as caught:
        get(server, path, **options)
    for hidden in ("127.0.0.1", str(server.server_port), "http://", "https://"):
        assert hidden not in str(caught.value)
    return caught.value


def test_file_is_downloaded_with_its_validators(server: Server) -> None:
    server.plan(PATH, content(BODY, etag='W/"one"'))
    got = get(server)
    assert got.body == BODY
    assert got.reply == transfer.Reply(False, Validators('W/"one"', publishers.MODIFIED))


def test_request_names_the_project_and_asks_for_no_encoding(server: Server) -> None:
    server.plan(PATH, content(BODY))
    get(server)
    (request,) = server.asked_for(PATH)
    assert request.headers["User-Agent"] == f"geolookup/{geolookup.__version__}"
    assert request.headers["Accept-Encoding"] == "identity"
    assert "If-None-Match" not in request.headers


def test_known_version_is_not_downloaded_again(server: Server) -> None:
    server.plan(PATH, content(BODY))
    known = get(server).reply.validators
    again = get(server, known=known)
    assert again.reply.unchanged
    assert again.body == b""
    by_date = get(server, known=Validators(modified=known.modified))
    assert by_date.reply.unchanged


def test_query_of_a_url_is_sent(server: Server) -> None:
    server.plan("/file?month=11", content(BODY))
    assert get(server, "/file?month=11").body == BODY


def test_progress_ends_at_the_length(server: Server) -> None:
    server.plan(PATH, content(BODY))
    steps: list[tuple[int, int | None]] = []
    get(server, on_progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (bare(b"", length=10**15), "larger than the limit: 1,000,000,000,000,000 of 1,000 bytes"),
        (bare(bytes(1001)), "larger than the limit of 1,000 bytes"),
        (chunked(bytes(600), bytes(600), whole=True), "larger than the limit of 1,000 bytes"),
        (trickle(b"HTTP/1.1 200 OK\r\n\r\n", bytes(600)), "larger than the limit of 1,000 bytes"),
        (bare(b"abc", length=100), "the connection broke before the end"),
        (chunked(b"abc", whole=False), "the connection broke before the end"),
        (stall(), "the server stalled"),
        (stall(b"HTTP/1.1 200 OK\r\nContent-Le"), "the server stalled"),
        (stall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "the server stalled"),
        (status(304), "HTTP status 304, to a request without a condition"),
        (status(206), "HTTP status 206"),
        (status(302), "HTTP status 302"),
        (status(403), "HTTP status 403"),
        (status(404), "HTTP status 404"),
        (status(410), "HTTP status 410"),
        (status(500), "HTTP status 500"),
        (stall(b"SSH-2.0-OpenSSH_9.2\r\n"), "the connection broke before the end"),
        (redirect("http://127.0.0.1:1/"), "redirected to what is not https:"),
        (redirect("/elsewhere"), "redirected to what is not https:"),
        (redirect("ftp://127.0.0.1/"), "redirected to what is not https:"),
        (redirect("file:///etc/passwd"), "redirected to what is not https:"),
        (redirect("https://[::1"), "redirected to what is not https:"),
        (redirect("https://127.0.0.1:1/"), "the server can't be reached"),
        (redirect("https://me:secret@127.0.0.1:1/"), "the URL names a user"),
    ],
)
def test_failed_download_says_what_is_wrong(
    server: Server, behaviour: Behaviour, expected: str
) -> None:
    server.plan(PATH, behaviour)
    limits = SHORT if expected == "the server stalled" else ONCE
    assert str(refused(server, largest=1_000, limits=limits)).startswith(expected)


@pytest.mark.parametrize("length", ["-3", "many", ""])
def test_malformed_length_is_ignored(server: Server, length: str) -> None:
    server.plan(PATH, bare(BODY, Content_Length=length))
    assert get(server).body == BODY


def test_absent_server_is_an_error() -> None:
    with publishing() as server:
        pass
    assert str(refused(server, limits=ONCE)) == "the server can't be reached"


@pytest.mark.parametrize(
    "behaviour",
    [
        trickle(b"HTTP/1.1 200 OK\r\n", b"X-More: of the same\r\n"),
        trickle(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n", b"x"),
        trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
    ],
    ids=["headers", "a header", "no length", "a length", "chunks", "the size of a chunk"],
)
def test_slow_server_is_abandoned(server: Server, behaviour: Behaviour) -> None:
    server.plan(PATH, behaviour)
    limits = TransferLimits(stall=20, total=0.3, attempts=1)
    assert str(refused(server, limits=limits)) == "not complete within 0.3 s"


@pytest.mark.parametrize(
    "failure",
    [status(500), status(503), status(429), status(408), bare(b"abc", length=9), stall()],
    ids=["500", "503", "429", "408", "truncated", "stalled"],
)
def test_transient_failure_is_retried(server: Server, failure: Behaviour) -> None:
    server.plan(PATH, failure, failure, content(BODY))
    got = get(server, limits=TransferLimits(stall=1, attempts=3, pause=2))
    assert got.body == BODY
    assert got.waits == [2, 4]


def test_broken_attempt_leaves_nothing(server: Server) -> None:
    server.plan(PATH, bare(bytes(5000), length=9000), content(BODY))
    assert get(server).body == BODY


def test_attempts_are_bounded(server: Server) -> None:
    server.plan(PATH, status(500))
    assert str(refused(server)) == "HTTP status 500 in 4 attempts"
    assert len(server.asked_for(PATH)) == 4


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_lasting_failure_is_not_retried(server: Server, code: int) -> None:
    server.plan(PATH, status(code))
    assert isinstance(refused(server), MissingError) == (code in (404, 410))
    assert len(server.asked_for(PATH)) == 1


@pytest.mark.parametrize(
    ("after", "expected"),
    [("7", 7), ("1", 2), ("Tue, 17 Nov 2026 06:00:00 GMT", 2), ("-9", 2), ("nan", 2)],
)
def test_retry_after_is_waited_for(server: Server, after: str, expected: float) -> None:
    server.plan(PATH, status(503, Retry_After=after), content(BODY))
    assert get(server).waits == [expected]


def test_retry_after_of_minutes_ends_the_download(server: Server) -> None:
    server.plan(PATH, status(503, Retry_After="120"), content(BODY))
    assert str(refused(server)) == "HTTP status 503"


def test_pauses_end_at_the_total_time(server: Server) -> None:
    server.plan(PATH, status(500), content(BODY))
    assert str(refused(server, limits=TransferLimits(total=10, pause=11))) == "HTTP status 500"


@pytest.mark.parametrize(
    ("url", "insecure", "why"),
    [
        ("https://example.org/file", False, ""),
        ("http://example.org/file", False, "http: is not encrypted; use https:"),
        ("http://example.org/file", True, ""),
        ("http://127.0.0.1:8000/file", False, ""),
        ("http://localhost/file", False, ""),
        ("http://[::1]/file", False, ""),
        ("http://127.0.0.1.example.org/", False, "http: is not encrypted; use https:"),
        ("http://localhost.example.org/", False, "http: is not encrypted; use https:"),
        ("http://0.0.0.0/", False, "http: is not encrypted; use https:"),
        ("ftp://example.org/file", True, "neither https: nor http:"),
        ("file:///etc/passwd", True, "can't be read as a URL"),
        ("https:///file", False, "can't be read as a URL"),
        ("https://example.org:99999/", False, "can't be read as a URL"),
        ("https://[::1/", False, "can't be read as a URL"),
        ("https://example.org/a b", False, "can't be read as a URL"),
        ("https://example.org/\r\nX: y", False, "can't be read as a URL"),
        ("https://exämple.org/", False, "can't be read as a URL"),
        ("https://user:secret@example.org/", False, "names a user"),
    ],
)
def test_url_without_encryption_is_refused(url: str, insecure: bool, why: str) -> None:
    found = transfer.unsafe_reason(url, insecure=insecure)
    assert found.startswith(why) if why else found == ""
    if why:  # and so nothing is asked
        with pytest.raises(UpdateError, match="the URL "):
            fetch(url, io.BytesIO(), largest=1, insecure=insecure)


# --- TLS ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this machine trusts."""
    path = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return authority


def test_a_certificate_of_a_trusted_authority_is_accepted(trusted: trustme.CA) -> None:
    with publishing(server_context(trusted, "127.0.0.1")) as server:
        server.plan(PATH, content(BODY))
        assert get(server).body == BODY


def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    with publishing(server_context(authority, "127.0.0.1")) as server:
        server.plan(PATH, content(BODY))
        assert str(refused(server)) == "the server's certificate is not valid"
        assert not server.requests


def test_a_certificate_for_another_host_is_refused(trusted: trustme.CA) -> None:
    with publishing(server_context(trusted, "publisher.example")) as server:
        server.plan(PATH, content(BODY))
        assert str(refused(server)) == "the server's certificate is not valid"
        assert not server.requests


def test_redirects_are_followed_from_https_to_https(trusted: trustme.CA) -> None:
    with publishing(server_context(trusted, "127.0.0.1")) as server:
        server.plan("/a", redirect("/b", 301))
        server.plan("/b", redirect(f"{server.url}/c", 307))
        server.plan("/c", content(BODY))
        assert get(server, "/a").body == BODY


def test_redirects_are_bounded(trusted: trustme.CA) -> None:
    with publishing(server_context(trusted, "127.0.0.1")) as server:
        server.plan(PATH, redirect(PATH))
        assert str(refused(server)) == "redirected more than 5 times"
        assert len(server.asked_for(PATH)) == 6


def test_a_redirect_from_https_to_http_is_refused(trusted: trustme.CA, server: Server) -> None:
    server.plan(PATH, content(BODY))
    with publishing(server_context(trusted, "127.0.0.1")) as secure:
        secure.plan(PATH, redirect(server.url + PATH))
        assert str(refused(secure)) == "redirected to what is not https:"
    assert not server.requests


def test_stalled_handshake_is_abandoned() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and says nothing
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        limits = TransferLimits(stall=20, total=0.3, attempts=1)
        before = time.monotonic()
        with pytest.raises(UpdateError, match=r"^not complete within 0\.3 s$"):
            fetch(url, io.BytesIO(), largest=1, limits=limits)
        assert time.monotonic() - before < 10


def test_server_without_tls_is_an_error(server: Server) -> None:
    url = server.url.replace("http:", "https:")
    with pytest.raises(UpdateError, match=r"^the encryption failed$"):
        fetch(url, io.BytesIO(), largest=1, limits=ONCE)


# --- the files of a source ------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache") as entered:
        yield entered


once = functools.partial(fetch, limits=ONCE)


def catalogue_of(server: Server, **limits: int) -> Catalogue:
    return catalogue.read(server.catalogue(**limits), "the catalogue")


def refreshed(
    server: Server,
    cache: Cache,
    *names: str,
    today: date = TODAY,
    fetch: downloads.Fetch = once,
    **limits: int,
) -> tuple[RefreshedSource, ...]:
    chosen = catalogue_of(server, **limits).chosen(names)
    return refresh(chosen, cache, today=today, fetch=fetch)


def states(found: Sequence[RefreshedSource]) -> dict[str, bool]:
    """Return of each file whether it is new."""
    return {download.file.name: download.new for one in found for download in one.downloads}


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder with what they hold."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_downloads_are_kept_unchanged(server: Server, cache: Cache) -> None:
    server.publish()
    found = refreshed(server, cache, "dbip", "registry", "iptoasn")
    assert all(states(found).values())
    assert len(states(found)) == 8
    assert gzip.decompress(cache.path("dbip-country-lite.csv.gz").read_bytes()) == DBIP
    assert cache.path("delegated-arin-extended-latest").read_bytes() == ARIN


def test_without_names_what_may_be_passed_on_is_downloaded(server: Server, cache: Cache) -> None:
    server.publish()
    assert [one.publisher.name for one in refreshed(server, cache)] == [
        "dbip", "geo-whois-asn", "registry", "x4bnet-vpn", "x4bnet-datacenter",
    ]  # fmt: skip


def test_sources_keep_the_order_of_their_names(server: Server, cache: Cache) -> None:
    server.publish()
    found = refreshed(server, cache, "iptoasn", "dbip")
    assert [one.publisher.name for one in found] == ["iptoasn", "dbip"]


def test_dates_are_read_from_the_data(server: Server, cache: Cache) -> None:
    server.publish()
    dbip, registry, iptoasn = refreshed(server, cache, "dbip", "registry", "iptoasn")
    assert dbip.date == date(2026, 11, 1)
    assert registry.date == date(2026, 11, 15)  # the oldest: LACNIC's
    assert iptoasn.date == date(2026, 11, 17)  # when the server says it was modified


def test_cached_files_are_not_downloaded_again(server: Server, cache: Cache) -> None:
    server.publish()
    refreshed(server, cache, "dbip", "registry")
    before = snapshot(cache.folder)
    md5 = f"{registry_path('arin')}.md5"
    asked = len(server.asked_for(md5))
    found = refreshed(server, cache, "dbip", "registry")
    assert not any(states(found).values())
    assert found[1].date == date(2026, 11, 15)
    assert snapshot(cache.folder) == before
    assert len(server.asked_for(md5)) == asked, "there was nothing to hold against a checksum"


def test_progress_names_the_file(server: Server, cache: Cache) -> None:
    server.publish()
    steps: list[tuple[str, int, int | None]] = []
    refresh(
        catalogue_of(server).chosen(["dbip"]),
        cache,
        today=TODAY,
        on_progress=lambda *step: steps.append(step),
    )
    size = cache.path("dbip-country-lite.csv.gz").stat().st_size
    assert steps[-1] == ("dbip-country-lite.csv.gz", size, size)


def test_newer_file_replaces_the_cached_one(server: Server, cache: Cache) -> None:
    server.publish()
    refreshed(server, cache)
    newer = AFRINIC.replace(b"|20261117|00000", b"|20261118|00000")
    server.plan(registry_path("afrinic"), content(newer))
    server.plan(f"{registry_path('afrinic')}.md5", content(md5_file("afrinic", newer)))
    found = states(refreshed(server, cache))
    assert [name for name, new in found.items() if new] == ["delegated-afrinic-extended-latest"]
    assert cache.path("delegated-afrinic-extended-latest").read_bytes() == newer


def test_file_without_validators_is_downloaded_again(server: Server, cache: Cache) -> None:
    server.publish()
    server.plan(dbip_path("2026-11"), bare(gzip.compress(DBIP, mtime=0)))
    refreshed(server, cache, "dbip")
    assert not any(states(refreshed(server, cache, "dbip")).values())


@pytest.mark.parametrize(
    "damage",
    [
        lambda cache: cache.path("dbip-country-lite.csv.gz").write_bytes(b"cut"),
        lambda cache: cache.path("dbip-country-lite.csv.gz").unlink(),
        lambda cache: cache.path("state.json").unlink(),
        lambda cache: cache.path("state.json").write_bytes(b"\xff{"),
        lambda cache: cache.path("state.json").write_text('["a list"]'),
        lambda cache: cache.path("state.json").write_text(
            cache.path("state.json").read_text().replace("2026-11-01", "2026-13-01")
        ),
    ],
    ids=["file cut", "file gone", "state gone", "state not JSON", "state a list", "state no date"],
)
def test_damaged_cache_is_filled_again(
    server: Server, tmp_path: Path, damage: Callable[[Cache], object]
) -> None:
    server.publish()
    with Cache(tmp_path / "cache") as cache:
        refreshed(server, cache, "dbip")
        damage(cache)
    with Cache(tmp_path / "cache") as cache:
        assert states(refreshed(server, cache, "dbip")) == {"dbip-country-lite.csv.gz": True}
        assert gzip.decompress(cache.path("dbip-country-lite.csv.gz").read_bytes()) == DBIP
    *_, last = server.asked_for(dbip_path("2026-11"))
    assert "If-None-Match" not in last.headers
    assert "If-Modified-Since" not in last.headers


def test_failed_file_does_not_stop_the_others(server: Server, cache: Cache) -> None:
    server.publish()
    server.plan(registry_path("arin"), status(404))
    server.plan(registry_path("apnic"), status(403))
    with pytest.raises(UpdateError) as caught:
        refreshed(server, cache)
    assert str(caught.value) == (
        "registry: delegated-arin-extended-latest: HTTP status 404; "
        "registry: delegated-apnic-extended-latest: HTTP status 403"
    )
    assert len(list(cache.folder.glob("d*"))) == 4
    assert states_after_repair(server, cache) == {
        "delegated-arin-extended-latest",
        "delegated-apnic-extended-latest",
    }


def states_after_repair(server: Server, cache: Cache) -> set[str]:
    """Return the files that are new once the publishers have all of them again."""
    server.publish()
    return {name for name, new in states(refreshed(server, cache)).items() if new}


GOOD = gzip.compress(DBIP, mtime=0)


# --- a month's file -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("today", "published", "expected"),
    [
        (date(2026, 11, 3), "2026-11", date(2026, 11, 1)),
        (date(2026, 11, 3), "2026-10", date(2026, 10, 1)),
        (date(2026, 11, 7), "2026-10", date(2026, 10, 1)),
        (date(2027, 1, 1), "2026-12", date(2026, 12, 1)),
        (date(2027, 3, 31), "2027-03", date(2027, 3, 1)),
    ],
)
def test_file_of_last_month_is_accepted_early_in_a_month(
    server: Server, cache: Cache, today: date, published: str, expected: date
) -> None:
    server.publish(month=published)
    (dbip,) = refreshed(server, cache, "dbip", today=today)
    assert dbip.date == expected


def test_file_of_this_month_is_required_later_in_a_month(server: Server, cache: Cache) -> None:
    server.publish(month="2026-10")
    with pytest.raises(UpdateError, match=r"^dbip: dbip-country-lite\.csv\.gz: HTTP status 404$"):
        refreshed(server, cache, "dbip", today=date(2026, 11, 8))
    assert not server.asked_for(dbip_path("2026-10"))


def test_failing_server_is_not_asked_for_the_file_of_last_month(
    server: Server, cache: Cache
) -> None:
    server.publish(month="2026-10")
    server.plan(dbip_path("2026-11"), status(500))
    with pytest.raises(UpdateError, match="HTTP status 500"):
        refreshed(server, cache, "dbip", today=date(2026, 11, 2))
    assert not server.asked_for(dbip_path("2026-10"))


def test_file_of_last_month_is_not_downloaded_twice(server: Server, cache: Cache) -> None:
    server.publish(month="2026-10")
    refreshed(server, cache, "dbip", today=date(2026, 10, 20))
    found = refreshed(server, cache, "dbip", today=date(2026, 11, 2))
    assert states(found) == {"dbip-country-lite.csv.gz": False}


def test_validators_belong_to_their_month(server: Server, cache: Cache) -> None:
    """Two files may well have the same Last-Modified date."""
    server.plan(dbip_path("2026-10"), content(GOOD, etag='"same"'))
    refreshed(server, cache, "dbip", today=date(2026, 10, 20))
    newer = DBIP.replace(b"CN", b"HK")
    server.plan(dbip_path("2026-11"), content(gzip.compress(newer, mtime=0), etag='"same"'))
    found = refreshed(server, cache, "dbip")
    assert states(found) == {"dbip-country-lite.csv.gz": True}
    assert found[0].date == date(2026, 11, 1)


# --- what is not plausible ------------------------------------------------------------

HTML = b"<!DOCTYPE html>\n<html><body>Down for maintenance.</body></html>\n"
PLAIN = "dbip-country-lite.csv.gz"


def bomb() -> bytes:
    """Return 20 MB of zeros as 20 kB of gzip."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1_000_000)
    return b"".join(packer.compress(zeros) for _ in range(20)) + packer.flush()


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (content(b""), "empty"),
        (content(HTML), "a web page instead of data"),
        (content(HTML, kind="text/html"), "a web page instead of data"),
        (content(b"\xef\xbb\xbf \n<HTML>"), "a web page instead of data"),
        (content(gzip.compress(HTML)), "a web page instead of data"),
        (content(b'{"error": "quota"}'), "can't be decompressed"),
        (content(DBIP), "can't be decompressed"),
        (content(GOOD[:-9]), "truncated: the compressed data does not end"),
        (content(GOOD[:-1]), "truncated: the compressed data does not end"),
        (content(GOOD[:30]), "truncated: the compressed data does not end"),
        (content(GOOD[:-8] + bytes([GOOD[-8] ^ 1]) + GOOD[-7:]), "can't be decompressed"),
        (content(GOOD[:40] + bytes([GOOD[40] ^ 8]) + GOOD[41:]), "can't be decompressed"),
        (content(GOOD + b"and more"), "can't be decompressed"),
        (content(bomb()), "more than 1,000,000 bytes when decompressed"),
        (content(gzip.compress(b"")), "not in the format"),
        (content(gzip.compress(b"column,column\n" * 20)), "not in the format"),
        (content(gzip.compress(b"1.0.0.0,1.0.0.255,AU\n")), "implausibly small: 21 bytes"),
        (bare(GOOD, length=len(GOOD) - 20), "truncated: the compressed data does not end"),
        (bare(GOOD, length=len(GOOD) + 20), "the connection broke before the end"),
        (bare(b"", length=200_000_000), "larger than the limit"),
        (status(404), "HTTP status 404"),
        (status(500), "HTTP status 500"),
        (redirect("http://127.0.0.1:9/"), "redirected to what is not https:"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
def test_implausible_download_changes_nothing(
    server: Server, cache: Cache, first: bool, behaviour: Behaviour, expected: str
) -> None:
    server.publish()
    refreshed(server, cache, "iptoasn" if first else "dbip")
    before = snapshot(cache.folder)
    server.plan(dbip_path("2026-11"), behaviour)
    with pytest.raises(UpdateError) as caught:
        refreshed(server, cache, "dbip", largest_unpacked=1_000_000, smallest=50)
    assert str(caught.value).startswith(f"dbip: {PLAIN}: {expected}")
    assert snapshot(cache.folder) == before


def test_stalled_publisher_changes_nothing(server: Server, cache: Cache) -> None:
    server.publish()
    refreshed(server, cache, "dbip")
    before = snapshot(cache.folder)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    server.plan(dbip_path("2026-11"), stall(head + GOOD[:20]))
    with pytest.raises(UpdateError, match=r"the server stalled$"):
        refreshed(server, cache, "dbip", fetch=functools.partial(fetch, limits=SHORT))
    assert snapshot(cache.folder) == before


def test_a_file_that_lost_half_of_itself_is_refused(server: Server, cache: Cache) -> None:
    server.publish()
    server.plan(dbip_path("2026-11"), content(gzip.compress(DBIP * 3)))
    refreshed(server, cache, "dbip")
    server.publish()
    with pytest.raises(UpdateError, match=r"implausibly small: .* where the one at hand has"):
        refreshed(server, cache, "dbip")
    cache.path(PLAIN).unlink()  # as the text says
    assert states(refreshed(server, cache, "dbip")) == {PLAIN: True}


def test_a_file_that_is_older_than_the_one_at_hand_is_refused(server: Server, cache: Cache) -> None:
    server.publish()
    refreshed(server, cache, "registry")
    before = snapshot(cache.folder)
    older = ARIN.replace(b"20261116", b"20261115")
    server.plan(registry_path("arin"), content(older))
    server.plan(f"{registry_path('arin')}.md5", content(md5_file("arin", older)))
    with pytest.raises(UpdateError, match="dated 2026-11-15, older than the one at hand of"):
        refreshed(server, cache, "registry")
    assert snapshot(cache.folder) == before


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"2.3|arin|1|3|19700101|20261120|-0400", "dated 2026-11-20, which is yet to come"),
        (b"2.3|arin|1|3|19700101|20261131|-0400", "the date of its data can't be read"),
        (b"2.3|arin|1|3|19700101||-0400", "the date of its data can't be read"),
        (b"2.3|arin|1|3|19700101|2026-11-1|-0400", "the date of its data can't be read"),
    ],
)
def test_statistics_of_an_impossible_day_are_refused(
    server: Server, cache: Cache, header: bytes, expected: str
) -> None:
    server.publish()
    statistics = header + b"\n" + ARIN.partition(b"\n")[2]
    server.plan(registry_path("arin"), content(statistics))
    server.plan(f"{registry_path('arin')}.md5", content(md5_file("arin", statistics)))
    with pytest.raises(UpdateError, match=expected):
        refreshed(server, cache, "registry")


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (content(md5_file("arin", ARIN + b"\n")), "does not match its published checksum"),
        (content(b"0" * 32), "does not match its published checksum"),
        (content(HTML), "its published checksum can't be read"),
        (content(b""), "its published checksum can't be read"),
        (content(b"MD5 (delegated) = 0123"), "its published checksum can't be read"),
        (content(b"a" * 33), "its published checksum can't be read"),
        (content(b" " * 5000), "its published checksum: larger than the limit"),
        (status(404), "its published checksum: HTTP status 404"),
    ],
)
def test_file_with_another_checksum_is_refused(
    server: Server, cache: Cache, published: Behaviour, expected: str
) -> None:
    server.publish()
    server.plan(f"{registry_path('arin')}.md5", published)
    with pytest.raises(UpdateError, match=expected):
        refreshed(server, cache, "registry")
    assert not cache.path("delegated-arin-extended-latest").exists()


@pytest.mark.parametrize(
    "form", ["{}", "{}\n", "MD5 (x) = {}\n", "MD5(x)= {}", "{} *x\r\n", "{}  x\n{}  y\n"]
)
def test_checksums_are_read_in_all_their_forms(server: Server, cache: Cache, form: str) -> None:
    server.publish()
    digest = md5_file("arin", ARIN).decode().split()[0]
    server.plan(f"{registry_path('arin')}.md5", content(form.format(digest.upper(), "").encode()))
    assert all(states(refreshed(server, cache, "registry")).values())


def test_date_defaults_to_the_day_of_the_download(server: Server, cache: Cache) -> None:
    server.publish()
    for family in "46":
        lines = publishers.IPTOASN4 if family == "4" else publishers.IPTOASN6
        server.plan(f"/data/ip2country-v{family}.tsv.gz", bare(gzip.compress(lines)))
    (iptoasn,) = refreshed(server, cache, "iptoasn")
    assert iptoasn.date == TODAY


def test_data_with_an_unreadable_date_is_refused(server: Server, cache: Cache) -> None:
    server.publish()
    body = gzip.compress(publishers.IPTOASN4)
    server.plan("/data/ip2country-v4.tsv.gz", content(body, modified="yesterday"))
    with pytest.raises(UpdateError, match="the date of its data can't be read"):
        refreshed(server, cache, "iptoasn")


# --- IPFire ---------------------------------------------------------------------------


def database(day: date, *lists: str) -> bytes:
    """Return a database of that day, of which the tool's stand-in makes these lists."""
    seconds = int(datetime(day.year, day.month, day.day, 13, 5, 7, tzinfo=UTC).timestamp())
    text = "".join(f"{line}\n" for line in lists)
    header = b"LOCDBXX\x01" + struct.pack(">Q", seconds) + b"\x01" * 200
    return lzma.compress(header + f"\n{text}".encode())


def of_much_memory(packed: bytes) -> bytes:
    """Return the same xz data with a header that asks for 3 GiB to decompress it."""
    start = 12  # of the block's header; the stream's is before it
    size = (packed[start] + 1) * 4 - 4
    header = bytearray(packed[start : start + size])
    assert header[2:4] == b"\x21\x01", "LZMA2, whose one property is the dictionary's size"
    header[4] = 39
    checked = bytes(header) + zlib.crc32(header).to_bytes(4, "little")
    return packed[:start] + checked + packed[start + size + 4 :]


IPFIRE = "/databases/1/location.db.xz"
NOVEMBER = database(date(2026, 11, 10), "DEv4 2.16.6.0/23", "DEv6 2001:600::/48", "A1v4 1.0.0.0/24")


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return publishers.fake_location(folder)


def exported(found: Sequence[RefreshedSource]) -> dict[str, str]:
    ((download,),) = (one.downloads for one in found)
    return {path.name: path.read_text() for path in download.path.iterdir()}


@pytest.mark.usefixtures("location")
def test_ipfire_database_is_exported_to_lists(server: Server, cache: Cache) -> None:
    server.plan(IPFIRE, content(NOVEMBER))
    found = refreshed(server, cache, "ipfire")
    assert exported(found) == {
        "DEv4.networks": "2.16.6.0/23\n",
        "DEv6.networks": "2001:600::/48\n",
        "A1v4.networks": "1.0.0.0/24\n",
        "USv4.networks": "",
    }
    assert found[0].date == date(2026, 11, 10)


@pytest.mark.usefixtures("location")
def test_ipfire_lists_are_exported_again_for_another_database_only(
    server: Server, cache: Cache
) -> None:
    server.plan(IPFIRE, content(NOVEMBER))
    (before,) = refreshed(server, cache, "ipfire")[0].downloads
    (again,) = refreshed(server, cache, "ipfire")[0].downloads
    assert not again.new
    assert again.path == before.path
    server.plan(IPFIRE, content(database(date(2026, 11, 12), "FRv4 2.0.0.0/16")))
    assert exported(refreshed(server, cache, "ipfire")) == {
        "FRv4.networks": "2.0.0.0/16\n",
        "USv4.networks": "",
    }
    assert not before.path.exists(), "lists of the old one are not left behind"


@pytest.mark.usefixtures("location")
def test_missing_ipfire_lists_are_exported_again(server: Server, cache: Cache) -> None:
    server.plan(IPFIRE, content(NOVEMBER))
    (before,) = refreshed(server, cache, "ipfire")[0].downloads
    shutil.rmtree(before.path)
    (again,) = refreshed(server, cache, "ipfire")[0].downloads
    assert again.path == before.path
    assert (again.path / "DEv4.networks").read_text() == "2.16.6.0/23\n"


def test_ipfire_database_of_another_signature_is_refused(
    server: Server, cache: Cache, location: Path
) -> None:
    server.plan(IPFIRE, content(NOVEMBER))
    refreshed(server, cache, "ipfire")
    before = snapshot(cache.folder)
    publishers.fake_location(location.parent, signed=False)
    server.plan(IPFIRE, content(database(date(2026, 11, 12), "FRv4 2.0.0.0/16")))
    with pytest.raises(UpdateError, match=r"location\.db\.xz: its signature is not IPFire's"):
        refreshed(server, cache, "ipfire")
    assert snapshot(cache.folder) == before


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (database(date(2026, 11, 10)), "'location export' wrote no lists"),
        (database(date(2026, 12, 24), "DEv4 2.16.6.0/23"), "dated 2026-12-24, which is yet to"),
        (lzma.compress(b"LOCDBXX\x02" + bytes(99)), "not in the format ipfire"),
        (NOVEMBER[:-5], "truncated: the compressed data does not end"),
        (NOVEMBER + b"more", "can't be decompressed"),
        (lzma.compress(bytes(2_000_000)), "more than 1,000,000 bytes when decompressed"),
        (of_much_memory(NOVEMBER), "can't be decompressed"),
    ],
    ids=["no lists", "future", "other version", "truncated", "trailing", "bomb", "memory"],
)
@pytest.mark.usefixtures("location")
def test_implausible_ipfire_database_is_refused(
    server: Server, cache: Cache, body: bytes, expected: str
) -> None:
    server.plan(IPFIRE, content(body))
    with pytest.raises(UpdateError, match=expected):
        refreshed(server, cache, "ipfire", largest_unpacked=1_000_000)
    assert snapshot(cache.folder) == {".lock": b""}


def test_missing_ipfire_tool_stops_before_the_download(
    server: Server, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UpdateError, match="install 'location'"):
        refreshed(server, cache, "dbip", "ipfire")
    assert not server.requests


# --- the cache ------------------------------------------------------------------------


def test_a_cache_is_used_by_one_update_at_a_time(cache: Cache) -> None:
    with pytest.raises(UpdateError, match="another update is under way"), Cache(cache.folder):
        pass


def test_cache_is_unlocked_after_an_update(tmp_path: Path) -> None:
    for _ in range(2):
        with Cache(tmp_path / "new" / "cache"):
            pass


def test_cache_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UpdateError, match="Not a directory"), Cache(tmp_path / "file" / "cache"):
        pass


def test_files_of_a_killed_update_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / ".geolookup-x").mkdir(parents=True)
    (folder / ".geolookup-x" / "location.db").write_text("half of it")
    (folder / ".geolookup-y.tmp").write_text("half of it")
    with Cache(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]


# --- the catalogue --------------------------------------------------------------------


def test_built_in_catalogue_has_https_urls_only() -> None:
    found = catalogue.load().publishers
    assert [publisher.name for publisher in found if not publisher.kinds] == [
        "dbip", "geo-whois-asn", "registry", "iptoasn", "ipfire", "aws", "google-cloud", "netflix",
    ]  # fmt: skip
    for publisher in found:
        assert not publisher.insecure
        assert publisher.notice
        for file in publisher.file:
            assert file.url.startswith("https://")
            assert file.checksum in ("", f"{file.url}.md5")


def test_share_alike_source_is_no_default() -> None:
    for publisher in catalogue.load().publishers:
        if "SA" in publisher.licence:
            assert not publisher.default
            assert "share alike" in publisher.notice


def test_a_small_catalogue_is_read() -> None:
    (publisher,) = catalogue.read(SMALL_CATALOGUE, "c").publishers
    assert publisher.name == "mirror"
    assert not publisher.default


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[[source]]", "[[source", ":2:9: Expected"),
        ("[[source]]", "top = 1\n[[source]]", "top: unknown key; expected source, network"),
        (SMALL_CATALOGUE, "", "expected tables, each under [[source]]"),
        (SMALL_CATALOGUE, "source = 1", "source: expected a list"),
        (SMALL_CATALOGUE, "source = [1]", "source: expected tables, each under [[source]]"),
        ('notice = ""', "", "source 1: notice: missing"),
        ('notice = ""', "notice = 1", "source 1: notice: expected a text"),
        (
            'notice = ""',
            'notice = ""\nlicense = ""',
            "source 1: license: unknown key; expected licence",
        ),
        ('notice = ""', 'notice = ""\ninsecure = "no"', "insecure: expected true or false"),
        ('"mirror"', '"../mirror"', "source 1: name: expected letters"),
        ('"range-csv"', '"excel"', "source 1: format: expected one of: "),
        ('"full"', '"whole"', "source 1: coverage: expected one of: full, partial"),
        ('"full"', '"authoritative"', "source 1: within: missing; an authoritative source"),
        ('notice = ""', 'notice = ""\nwithin = ["1.0.0.1/8"]', "source 1: within: 1: the prefix"),
        ('notice = ""', 'notice = ""\nkeep_days = 0', "source 1: keep_days: expected a number"),
        ("[[source.file]]", "[source.file]", "source 1: file: expected a list"),
        ('"ranges.csv"', '"../ranges.csv"', "source 1: file 1: name: expected letters"),
        ('"ranges.csv"', '".hidden"', "source 1: file 1: name: expected letters"),
        ('"ranges.csv"', '"state.json"', "source 1: file 1: name: expected letters"),
        ('"ranges.csv"', '"mirror"', "the name mirror is used twice"),
        ('"modified"', '"today"', "file 1: date: expected one of: url, "),
        ('"modified"', '"url"', 'file 1: url: a date of "url" and {year} or {month} go together'),
        ("/ranges.csv", "/{month}.csv", 'file 1: url: a date of "url" and'),
        ("smallest = 1", "smallest = true", "file 1: smallest: expected a whole number"),
        ("smallest = 1", "smallest = 0", "file 1: smallest, largest, largest_unpacked"),
        ("smallest = 1", "smallest = 11", "file 1: smallest, largest, largest_unpacked"),
        ("https:", "http:", "source 1: file 1: url: http: is not encrypted; use https:"),
        ("https:", "ftp:", "source 1: file 1: url: neither https: nor http:"),
        ("smallest", 'checksum = "http://a.example/"\nsmallest', "file 1: checksum: http: is not"),
    ],
)
def test_invalid_catalogue_is_an_error(old: str, new: str, expected: str) -> None:
    assert old in SMALL_CATALOGUE
    with pytest.raises(UpdateError) as caught:
        catalogue.read(SMALL_CATALOGUE.replace(old, new, 1), "mirrors.toml")
    assert str(caught.value).startswith("mirrors.toml:")
    assert expected in str(caught.value)


def test_mirror_without_encryption_is_used_when_the_catalogue_allows_it() -> None:
    text = SMALL_CATALOGUE.replace("https:", "http:").replace(
        'origin = ""', 'origin = ""\ninsecure = true'
    )
    (publisher,) = catalogue.read(text, "c").publishers
    assert publisher.insecure


def test_missing_catalogue_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="No such file"):
        catalogue.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(UpdateError, match="not UTF-8"):
        catalogue.load(tmp_path / "bad.toml")


@pytest.mark.parametrize("names", [("dbip", "maxmind"), ("dbip", "dbip")])
def test_source_not_in_the_catalogue_is_an_error(names: tuple[str, ...]) -> None:
    with pytest.raises(UpdateError, match=r"no source of that name|named twice"):
        catalogue.load().chosen(names)


# --- the dataset ----------------------------------------------------------------------


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "service"
    folder.mkdir()
    return folder / "countries.geolookup"


def put_in_place(
    server: Server, cache: Cache, target: Path, *names: str, **options: Any
) -> Replacement:
    found = refreshed(server, cache, *names)
    loaded = load_manifest(write_manifest(found, cache), found)
    return replace(target, lambda: compiler.compile_manifest(loaded), **options)


def test_downloads_are_compiled_to_a_dataset(server: Server, cache: Cache, target: Path) -> None:
    server.publish()
    names = ["dbip", "geo-whois-asn", "registry", "iptoasn"]
    replaced = put_in_place(server, cache, target, *names)
    assert replaced.before is None
    with geolookup.open(target) as opened:
        assert opened.id == replaced.id
        assert opened.lookup("1.0.1.1").country == "CN"
        assert opened.lookup("1.0.0.1").claimed == ("AU", "US")
        assert opened.lookup("8.8.8.8").country == "US"
        assert opened.lookup("2001:200::1").country == "JP"
        assert [source.name for source in opened.sources] == names
        assert [source.coverage for source in opened.sources] == [
            "full", "full", "advisory", "partial",
        ]  # fmt: skip
        assert opened.sources[1].mute == opened.sources[2].mute == (("XK", ("AL", "RS")),)
    assert os.listdir(target.parent) == [target.name]


def test_bounds_and_days_of_a_publisher_are_the_sources(server: Server, cache: Cache) -> None:
    server.publish()
    (found,) = refreshed(server, cache, "dbip")
    bounds = {"coverage": "authoritative", "within": ("1.0.0.0/8", "2001:db8::/32")}
    publisher = dataclasses.replace(found.publisher, keep_days=30, mute=(), **bounds)
    changed = (dataclasses.replace(found, publisher=publisher),)
    (entry,) = load_manifest(write_manifest(changed, cache), changed).sources
    assert entry.source.coverage == "authoritative"
    assert [len(first) for first, _ in entry.source.within] == [4, 16]
    assert entry.source.keep_days == 30


@pytest.mark.usefixtures("location")
def test_ipfire_lists_are_compiled_to_a_dataset(server: Server, cache: Cache, target: Path) -> None:
    server.publish()
    server.plan(IPFIRE, content(NOVEMBER))
    put_in_place(server, cache, target, "ipfire")
    with geolookup.open(target) as opened:
        assert opened.country("2.16.7.1") == "DE"
        assert opened.country("2001:600::1") == "DE"
        assert opened.country("1.0.0.1") == "ZZ"


def test_unchanged_data_leaves_the_file_alone(server: Server, cache: Cache, target: Path) -> None:
    server.publish()
    first = put_in_place(server, cache, target)
    before = target.stat()
    again = put_in_place(server, cache, target)
    assert again.id == again.before == first.id
    after = target.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_new_data_replaces_the_dataset(server: Server, cache: Cache, target: Path) -> None:
    server.publish()
    first = put_in_place(server, cache, target)
    server.plan(dbip_path("2026-11"), content(gzip.compress(DBIP.replace(b"CN", b"HK"))))
    second = put_in_place(server, cache, target)
    assert second.before == first.id != second.id
    with geolookup.open(target) as opened:
        assert opened.lookup("1.0.1.1").claimed == ("CN", "HK")


def test_open_dataset_outlives_its_replacement(server: Server, cache: Cache, target: Path) -> None:
    server.publish()
    put_in_place(server, cache, target)
    server.plan(dbip_path("2026-11"), content(gzip.compress(DBIP.replace(b"CN", b"HK"))))
    with geolookup.open(target) as opened:
        put_in_place(server, cache, target)
        assert opened.country("1.0.1.1") == "CN"


def test_check_gets_both_datasets_and_can_refuse_the_new_one(
    server: Server, cache: Cache, target: Path
) -> None:
    server.publish()
    seen: list[tuple[str, str | None]] = []

    def country(path: Path) -> str:
        with geolookup.open(path) as opened:
            return opened.country("1.0.1.1")

    def check(new: Path, old: Path | None) -> None:
        seen.append((country(new), None if old is None else country(old)))
        if old is not None:
            raise UpdateError("CN lost 100 %, more than 0.5 %")

    put_in_place(server, cache, target, checks=[check])
    before = target.read_bytes()
    server.plan(dbip_path("2026-11"), content(gzip.compress(DBIP.replace(b"CN", b"HK"))))
    for _ in range(2):  # the second time nothing is downloaded, and it is refused still
        with pytest.raises(UpdateError, match="refused: refused: CN lost 100 %"):
            put_in_place(server, cache, target, checks=[check])
    assert seen == [("CN", None), ("HK", "CN"), ("HK", "CN")]
    assert target.read_bytes() == before
    kept = target.with_name("countries.geolookup.refused")
    assert country(kept) == "HK"
    assert sorted(os.listdir(target.parent)) == [target.name, kept.name]
    kept.replace(target)  # accepted by hand
    again = put_in_place(server, cache, target, checks=[check])
    assert again.id == again.before


def test_refused_dataset_is_removed_when_a_later_one_passes(
    server: Server, cache: Cache, target: Path
) -> None:
    server.publish()

    def refuse(*_: Path | None) -> None:
        raise UpdateError("no")

    with pytest.raises(UpdateError, match=r"no$"):
        put_in_place(server, cache, target, checks=[refuse])
    assert os.listdir(target.parent) == ["countries.geolookup.refused"]
    put_in_place(server, cache, target)
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize(
    ("number", "expected", "attempts"),
    [(socket.EAI_NONAME, "the server's name does not exist", 1),
     (socket.EAI_AGAIN, "the server's name is not known in 4 attempts", 4)],
)  # fmt: skip
def test_name_that_does_not_exist_is_resolved_once(
    monkeypatch: pytest.MonkeyPatch, number: int, expected: str, attempts: int
) -> None:
    asked = []

    def resolve(host: str, *_: object) -> None:
        asked.append(host)
        raise socket.gaierror(number, "no")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UpdateError) as caught:
        fetch("https://example.invalid/x", io.BytesIO(), largest=1, wait=lambda _: None)
    assert expected in str(caught.value).replace(" (the proxy in https_proxy is not used)", "")
    assert "(the proxy in https_proxy is not used)" in str(caught.value)
    assert len(asked) == attempts


def test_link_to_dataset_stays_and_its_target_keeps_its_mode(
    server: Server, cache: Cache, target: Path
) -> None:
    server.publish()
    versions = target.parent / "versions"
    versions.mkdir()
    dataset = versions / "2026.geolookup"
    target.symlink_to(dataset)
    first = put_in_place(server, cache, target)
    assert target.is_symlink()
    dataset.chmod(0o640)
    server.plan(dbip_path("2026-11"), content(gzip.compress(DBIP.replace(b"CN", b"HK"))))

    def refuse(*_: Path | None) -> None:
        raise UpdateError("no")

    with pytest.raises(UpdateError, match=r"versions/2026\.geolookup\.refused: refused: no"):
        put_in_place(server, cache, target, checks=[refuse])
    assert sorted(os.listdir(versions)) == ["2026.geolookup", "2026.geolookup.refused"]
    second = put_in_place(server, cache, target)
    assert first.id == second.before != second.id
    assert target.is_symlink()
    assert stat.S_IMODE(dataset.stat().st_mode) == 0o640
    assert os.listdir(versions) == ["2026.geolookup"]


def test_checks_run_in_order_and_not_for_an_equal_dataset(
    server: Server, cache: Cache, target: Path
) -> None:
    server.publish()
    asked: list[str] = []
    checks = [lambda *_: asked.append("one"), lambda *_: asked.append("two")]
    put_in_place(server, cache, target, checks=checks)
    put_in_place(server, cache, target, checks=checks)
    assert asked == ["one", "two"]


def test_dataset_of_little_coverage_is_refused(server: Server, cache: Cache, target: Path) -> None:
    server.publish()
    with pytest.raises(UpdateError, match=r"of the IPv4 space has a country, expected are at"):
        put_in_place(server, cache, target, checks=[acceptance(ChangeLimits())])
    put_in_place(server, cache, target, checks=[acceptance(ANY_COVERAGE)])
    assert os.listdir(target.parent) == [target.name]


def test_dataset_with_mismatched_canaries_is_refused(
    server: Server, cache: Cache, target: Path, tmp_path: Path
) -> None:
    server.publish()
    path = tmp_path / "canaries.csv"
    path.write_text("1.0.1.1,HK\n8.8.8.8,US\n" + "1.0.1.1,TW\n" * 30)
    check = acceptance(ANY_COVERAGE, read_canaries(path))
    with pytest.raises(
        UpdateError, match=r"canaries\.csv:1: expected HK, found CN .*; and 11 more"
    ):
        put_in_place(server, cache, target, checks=[check])
    path.write_text("1.0.1.1,CN\n8.8.8.8,US\n")
    check = acceptance(ANY_COVERAGE, read_canaries(path))
    put_in_place(server, cache, target, checks=[check])


def change_check(max_change: dict[str, Fraction]) -> Check:
    return acceptance(ChangeLimits(max_change, Fraction(0)))


def test_a_dataset_that_changed_too_much_is_refused(
    server: Server, cache: Cache, target: Path
) -> None:
    server.publish()
    put_in_place(server, cache, target, checks=[change_check({"CN": Fraction(0)})])  # the first one
    before = target.read_bytes()
    server.plan(dbip_path("2026-11"), content(gzip.compress(DBIP.replace(b"CN", b"HK"))))
    with pytest.raises(UpdateError, match=r"refused: CN changed by 100 % in IPv4, allowed are 50"):
        put_in_place(
            server,
            cache,
            target,
            checks=[change_check({"CN": Fraction(1, 2)})],
        )
    assert target.read_bytes() == before
    put_in_place(
        server,
        cache,
        target,
        checks=[change_check({"AU": Fraction(1, 2)})],
    )
    server.plan(dbip_path("2026-11"), content(GOOD))
    put_in_place(server, cache, target, checks=[change_check({})])


def broken_compile() -> compiler.CompiledDataset:
    raise SourceError("file:1:1: broken")


def broken_write(_: compiler.CompiledDataset, path: Path) -> None:
    path.write_bytes(b"half a data")
    raise OSError(28, "No space left on device")


def bad_write(_: compiler.CompiledDataset, path: Path) -> None:
    path.write_bytes(b"not a dataset")


def empty() -> compiler.CompiledDataset:
    return compiler.compile([])


@pytest.mark.parametrize(
    ("compiled", "write", "error"),
    [
        (broken_compile, dataset.write, SourceError),
        (empty, broken_write, OSError),
        (empty, bad_write, DatasetError),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_failure_changes_no_file(
    target: Path,
    exists: bool,
    compiled: Callable[[], compiler.CompiledDataset],
    write: Callable[[compiler.CompiledDataset, Path], None],
    error: type[Exception],
) -> None:
    if exists:
        dataset.write(compiler.compile([], today=TODAY), target)
    before = snapshot(target.parent)
    with pytest.raises(error):
        replace(target, compiled, write=write)
    assert snapshot(target.parent) == before


def test_a_damaged_dataset_is_not_replaced(target: Path) -> None:
    target.write_bytes(b"damaged")
    with pytest.raises(DatasetError):
        replace(target, broken_compile)
    assert target.read_bytes() == b"damaged"


MANIFEST = """
[[source]]
name = "of the publisher"
files = ["dbip-country-lite.csv.gz"]
licence = "CC-BY-4.0"
date = 2020-01-01
coverage = "full"

[[source]]
name = "our own"
files = ["own.csv"]
licence = "ours"
date = 2020-01-01
coverage = "partial"

[[override]]
prefix = "10.0.0.0/8"
code = "DE"
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "own.csv").write_text("2.0.0.0,2.0.0.255,FR\n")
    (folder / "geolookup.toml").write_text(MANIFEST)
    return folder / "geolookup.toml"


def test_manifest_names_the_sources_to_download(server: Server, manifest: Path) -> None:
    assert [one.name for one in used_by(manifest, catalogue_of(server))] == ["dbip"]
    manifest.write_text(MANIFEST.replace('"own.csv"', '"own.csv", "ip2country-v6.tsv.gz"'))
    assert [one.name for one in used_by(manifest, catalogue_of(server))] == ["dbip", "iptoasn"]


@pytest.mark.parametrize("text", ["source = 1", "source = [1]", "[[source]]\nfiles = 1", ""])
def test_manifest_of_another_shape_names_no_download(
    server: Server, manifest: Path, text: str
) -> None:
    manifest.write_text(text)
    assert used_by(manifest, catalogue_of(server)) == ()


def test_unreadable_manifest_is_an_error(server: Server, manifest: Path) -> None:
    manifest.write_text("[")
    with pytest.raises(UpdateError, match=r"geolookup\.toml: Invalid initial"):
        used_by(manifest, catalogue_of(server))
    with pytest.raises(UpdateError, match="No such file"):
        used_by(manifest.with_name("none.toml"), catalogue_of(server))


def test_download_name_in_a_manifest_is_its_download(
    server: Server, cache: Cache, manifest: Path, target: Path
) -> None:
    server.publish()
    found = refreshed(server, cache, "dbip")
    loaded = load_manifest(manifest, found)
    assert [entry.source.date for entry in loaded.sources] == [date(2026, 11, 1), date(2020, 1, 1)]
    replace(target, lambda: compiler.compile_manifest(loaded))
    with geolookup.open(target) as opened:
        assert opened.country("1.0.1.1") == "CN"
        assert opened.country("2.0.0.1") == "FR"
        assert opened.country("10.0.0.1") == "DE"


def test_the_written_manifest_compiles_by_itself(server: Server, cache: Cache) -> None:
    server.publish()
    found = refreshed(server, cache, "dbip", "registry", "iptoasn")
    written = write_manifest(found, cache)
    alone = compiler.compile_manifest(manifests.load(written))
    assert alone.metadata == compiler.compile_manifest(load_manifest(written, found)).metadata


# --- the command ----------------------------------------------------------------------


@pytest.fixture
def run(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Ended]:  # fmt: skip
    """Run the command with a catalogue of the local server, and a cache folder of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    mirrors = tmp_path / "mirrors.toml"
    mirrors.write_text(server.catalogue())
    server.publish(month=f"{datetime.now(UTC):%Y-%m}")

    def run(*arguments: str | Path, catalogue: Path | None = mirrors) -> Ended:
        options = ["--catalogue", str(catalogue)] if catalogue else []
        return run_command(capsys, "update", *options, *arguments)

    return run


LITTLE = ("--min-coverage", "0%")
"""The samples have a country for a small part of the address space."""


def test_the_command_replaces_a_dataset(run: Callable[..., Ended], target: Path) -> None:
    ended = run(*LITTLE, "--dataset", target)
    assert ended.code == 0, ended.err
    with geolookup.open(target) as opened:
        assert f"dataset {opened.id}" in ended.out
    assert "delegated-arin-extended-latest" in ended.out
    assert ended.out.count("  new\n") == 12
    again = run(*LITTLE, "--dataset", target)
    assert again.code == 0
    assert again.out.count("  unchanged\n") == 12
    assert "nothing new" in again.out


def test_command_prints_each_licence_notice_once(run: Callable[..., Ended], tmp_path: Path) -> None:
    ended = run("dbip", "iptoasn", "--cache", tmp_path / "c")
    assert ended.err.count("CC BY 4.0") == 1
    assert ended.err.count("https://db-ip.com") == 1
    assert ended.err.count("PDDL") == 1
    assert "share alike" not in ended.err


def test_the_command_keeps_downloads_in_the_users_cache(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = run("dbip")
    assert ended.code == 0
    folder = tmp_path / "xdg" / "geolookup"
    assert (folder / "dbip-country-lite.csv.gz").exists()
    assert f"manifest  {folder / 'geolookup.toml'}" in ended.out
    loaded = json.loads((folder / "state.json").read_text())
    assert list(loaded) == ["dbip-country-lite.csv.gz"]


def test_relative_cache_folder_of_the_environment_is_ignored(
    run: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("dbip").code == 0
    assert (tmp_path / ".cache" / "geolookup" / "dbip-country-lite.csv.gz").exists()


def test_the_command_fails_when_a_download_does(
    run: Callable[..., Ended], server: Server, target: Path
) -> None:
    assert run(*LITTLE, "--dataset", target).code == 0
    before = target.read_bytes()
    server.plan(registry_path("apnic"), content(HTML))
    ended = run(*LITTLE, "--dataset", target)
    assert ended.code == 1
    assert "apnic-extended-latest: a web page instead of data" in ended.err
    assert target.read_bytes() == before


def test_the_command_refuses_to_replace_a_damaged_dataset(
    run: Callable[..., Ended], server: Server, target: Path
) -> None:
    target.write_bytes(b"damaged")
    assert run(*LITTLE, "--dataset", target).code == 3
    assert not server.requests


def test_the_command_compiles_a_manifest(
    run: Callable[..., Ended], server: Server, manifest: Path, target: Path
) -> None:
    ended = run(*LITTLE, "--manifest", manifest, "--dataset", target)
    assert ended.code == 0, ended.err
    assert not server.asked_for(registry_path("arin"))
    with geolookup.open(target) as opened:
        assert [source.name for source in opened.sources] == ["of the publisher", "our own"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--manifest", "MANIFEST", "dbip"], "the manifest says which sources"),
        (["--dataset", "/nowhere/at/all.geolookup"], "there is no folder"),
        (["maxmind"], "no source of that name"),
        (["--max-change", "CN=1%"], "needs --dataset"),
        (["--dataset", "x.geolookup", "--max-change", "CN=lots"], "--max-change, number 1: "),
        (["--dataset", "x.geolookup", "--min-coverage", "lots"], "--min-coverage: "),
        (["--manifest", "/nowhere.toml"], "does not exist"),
    ],
)
def test_command_refuses_wrong_usage(
    run: Callable[..., Ended], server: Server, manifest: Path, arguments: list[str], expected: str
) -> None:
    ended = run(*(str(manifest) if one == "MANIFEST" else one for one in arguments))
    assert ended.code == 2
    assert expected in ended.err
    assert not server.requests


def test_command_refuses_a_dataset_that_exceeds_a_limit(
    run: Callable[..., Ended], server: Server, target: Path
) -> None:
    ended = run("--dataset", target)
    assert ended.code == 1
    assert "of the IPv4 space has a country" in ended.err
    assert run(*LITTLE, "--dataset", target).code == 0
    month = f"{datetime.now(UTC):%Y-%m}"
    server.plan(dbip_path(month), content(gzip.compress(DBIP.replace(b"CN", b"HK"))))
    ended = run(*LITTLE, "--dataset", target, "--max-change", "CN=50%")
    assert ended.code == 1
    assert "CN changed by 100 % in IPv4, allowed are 50 %" in ended.err
    assert run(*LITTLE, "--dataset", target, "--max-change", "CN=100%").code == 0


def test_the_command_takes_limits_and_canaries_from_the_manifest(
    run: Callable[..., Ended], server: Server, manifest: Path, target: Path
) -> None:
    limits = '[limits]\nmin_coverage = "0%"\nmax_change = { CN = "50%" }\n'
    manifest.write_text(f'canaries = "canaries.csv"\n{limits}{MANIFEST}')
    manifest.with_name("canaries.csv").write_text("2.0.0.1,DE\n")
    arguments = ["--manifest", manifest, "--dataset", target]
    ended = run(*arguments)
    assert ended.code == 1
    assert "canaries.csv:1: expected DE, found FR" in ended.err
    manifest.with_name("canaries.csv").write_text("2.0.0.1,FR\n")
    ended = run(*arguments, "--min-coverage", "50%")
    assert ended.code == 1, "what is given wins"
    assert run(*arguments).code == 0
    month = f"{datetime.now(UTC):%Y-%m}"
    server.plan(dbip_path(month), content(gzip.compress(DBIP.replace(b"CN", b"HK"))))
    assert run(*arguments).code == 1
    assert run(*arguments, "--max-change", "CN=100%").code == 0


def test_command_keeps_evidence_by_default(run: Callable[..., Ended], target: Path) -> None:
    run(*LITTLE, "--dataset", target)
    with geolookup.open(target) as opened:
        full = set(opened.check_sections())
    run(*LITTLE, "--dataset", target, "--no-evidence")
    with geolookup.open(target) as opened:
        assert set(opened.check_sections()) < full


def test_the_command_shows_the_built_in_catalogue(run: Callable[..., Ended]) -> None:
    ended = run("--show-catalogue", catalogue=None)
    assert ended.code == 0
    assert ended.out == builtin_text()
    assert catalogue.read(ended.out, "shown") == catalogue.load()


def test_test_catalogue_has_no_url_of_a_publisher() -> None:
    """`publishers.Server.catalogue` leaves no URL of a publisher in what is downloaded."""
    with publishing() as server:
        for publisher in catalogue_of(server).publishers:
            for file in publisher.file:
                assert file.url.startswith(server.url)
                assert file.checksum in ("", f"{file.url}.md5")


def test_downloads_are_kept_under_their_own_names_only() -> None:
    """A name in the cache can't lead out of it, whatever a catalogue says."""
    for publisher in catalogue.load().publishers:
        for file in publisher.file:
            assert Path(file.name).name == file.name
