"""The log: fixed events and fields, one line each, and never what a request or a peer said."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import malformed
import pytest
from servers import PATIENCE, serving

from geolookup.service import log

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "100.99.98.97"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., list[str]]]:
    """Installs the log as told, or returns the lines that were written since then."""
    root, own = logging.getLogger(), logging.getLogger(log.OWN)
    before = (root.handlers, root.level, own.level, logging.raiseExceptions)
    hooks = (threading.excepthook, sys.unraisablehook, sys.excepthook)
    written: list[str] = []

    def lines(*arguments: Any, **named: Any) -> list[str]:
        if arguments or named:
            log.install(*arguments, **named)
        written.extend(capsys.readouterr().err.splitlines())
        return written

    yield lines
    root.handlers, level, own_level, logging.raiseExceptions = before
    root.setLevel(level)
    own.setLevel(own_level)
    threading.excepthook, sys.unraisablehook, sys.excepthook = hooks


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


# events


def test_an_event_is_one_line_of_text(lines: Callable[..., list[str]]) -> None:
    lines("text")
    log.event("reload", "warning", outcome="refused", reason="no such file", seconds=0.5)
    (line,) = lines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING geolookup\.service: reload "
        r'outcome=refused reason="no such file" seconds=0\.500',
        line,
    )


def test_an_event_is_one_object_of_json(lines: Callable[..., list[str]]) -> None:
    lines("json", worker=3)
    log.event("worker_exit", "error", pid=7, exit_code=-9)
    (record,) = parsed(lines())
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "error",
        "logger": "geolookup.service",
        "event": "worker_exit",
        "worker": 3,
        "pid": 7,
        "exit_code": -9,
    }


@pytest.mark.parametrize("name", get_args(log.Event))
@pytest.mark.parametrize("format_", ["text", "json"])
def test_every_event_can_be_logged(
    lines: Callable[..., list[str]], name: Any, format_: str
) -> None:
    lines(format_)
    log.event(name)
    (line,) = lines()
    assert name in line


def test_events_and_fields_are_those_of_the_lists(lines: Callable[..., list[str]]) -> None:
    lines("text")
    with pytest.raises(ValueError, match="not in the list of events"):
        log.event(ADDRESS)
    with pytest.raises(ValueError, match="ready: a field that is not in the list") as caught:
        log.event("ready", peer=ADDRESS)  # type: ignore[call-arg]
    assert ADDRESS not in str(caught.value)
    with pytest.raises(TypeError, match="ready: worker has a value of another type") as wrong:
        log.event("ready", worker=ADDRESS)
    assert ADDRESS not in str(wrong.value)
    assert lines() == []


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_value_can_not_begin_a_line_or_fill_the_log(
    lines: Callable[..., list[str]], format_: str
) -> None:
    lines(format_)
    log.event("reload", reason="a\nb\r\x1b[31m\x00\u2028c" + "x" * 100_000)
    (line,) = lines()
    assert line.isprintable()
    assert len(line) < 1_500


@pytest.mark.parametrize(
    ("level", "written"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
)
def test_the_level_is_the_least_that_is_written(
    lines: Callable[..., list[str]], level: str, written: int
) -> None:
    lines("text", level)
    for each in get_args(log.Level):
        log.event("ready", each)
    assert len(lines()) == written


@pytest.mark.parametrize(("level", "written"), [("debug", 2), ("warning", 2), ("error", 1)])
def test_other_libraries_say_warnings_at_most(
    lines: Callable[..., list[str]], level: str, written: int
) -> None:
    lines("json", level)
    other = logging.getLogger("some.library")
    for say in (other.debug, other.info, other.warning, other.error):
        say("about %s", ADDRESS)
    records = parsed(lines())
    assert len(records) == written
    assert all(re.fullmatch(r"message from line \d+", record["text"]) for record in records)


@pytest.mark.parametrize("format_", ["text", "json"])
def test_no_text_of_an_exception_is_written(lines: Callable[..., list[str]], format_: str) -> None:
    lines(format_)

    def fail() -> None:
        raise ValueError(ADDRESS)

    try:
        fail()
    except ValueError as error:
        log.logger.exception("own")
        logging.getLogger("other").exception(ADDRESS)
        log.event("call_failed", "error", method="Lookup", error=log.describe(error))
        sys.excepthook(type(error), error, error.__traceback__)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    written = lines()
    assert len(written) == 5
    assert all("builtins.ValueError < test_log:" in line and ":fail" in line for line in written)
    assert ADDRESS not in "".join(written)


def test_a_record_that_can_not_be_formatted_is_not_shown(
    lines: Callable[..., list[str]],
) -> None:
    lines("text")
    log.logger.error("%d", ADDRESS)
    assert lines() == []


# calls that were shed


def test_shed_calls_are_summed_up_at_intervals(lines: Callable[..., list[str]]) -> None:
    lines("json")
    now, shed = 1_000.0, 5
    report = log.CountReport("shed", lambda: shed, 10, lambda: now)
    report.update()
    assert lines() == []  # what was before is not news
    shed = 6
    report.update()
    assert [record["calls"] for record in parsed(lines())] == [1]  # the first at once
    assert parsed(lines())[0]["event"] == "shed"
    for _ in range(9):
        now, shed = now + 1, shed + 100
        report.update()
    assert len(lines()) == 1
    now += 1
    report.update()
    assert [record["calls"] for record in parsed(lines())] == [1, 900]
    now += 100
    report.update()
    assert len(lines()) == 2


# gRPC's own log


def test_the_operators_own_choice_for_grpcs_log_stands() -> None:
    environment = {"GRPC_VERBOSITY": "ERROR"}
    log.silence_grpc(environment)
    assert environment == {"GRPC_VERBOSITY": "ERROR"}


MALFORMED_CLIENTS = """
import sys
from geolookup.service import log
if sys.argv[1] == "silent":
    log.silence_grpc()
import grpc, trustme
from concurrent.futures import ThreadPoolExecutor
import malformed
authority = trustme.CA()
issued = authority.issue_cert("localhost")
chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
credentials = grpc.ssl_server_credentials(
    [(issued.private_key_pem.bytes(), chain)], authority.cert_pem.bytes(), True)
server = grpc.server(ThreadPoolExecutor(2))
ports = [server.add_secure_port("127.0.0.1:0", credentials),
         server.add_insecure_port("127.0.0.1:0")]
server.start()
for port in ports:
    malformed.visit(port)
server.stop(0).wait()
"""


@pytest.mark.parametrize("how", ["silent", "loud"])
def test_grpc_writes_nothing_of_clients_that_make_no_sense(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MALFORMED_CLIENTS, how],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/tests", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    # Without it there is something to see, so that this test can fail.
    assert (done.stderr == "") is (how == "silent")


def test_the_service_writes_nothing_of_clients_that_make_no_sense() -> None:
    with serving() as running:
        ports = malformed.visit(int(running.target.rpartition(":")[2]))
        assert running.stop() == 0
        written = running.log()
    assert "ready" in written
    assert not [port for port in ports if re.search(rf"\b{port}\b", written)]
    own = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ geolookup[\w.]*: ")
    assert all(own.match(line) for line in written.splitlines())


# the documentation


def documented(heading: str) -> set[str]:
    """Return the names in the first column of the table with this heading."""
    text = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    table = text.partition(f"\n| {heading} | ")[2].partition("\n\n")[0]
    return {
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`(\w+)`", row.split(" | ")[0])
    }


def test_the_documentation_names_every_event_and_no_other() -> None:
    assert documented("event") == set(get_args(log.Event))


def test_the_documentation_names_every_field_and_no_other() -> None:
    assert documented("field") == set(log.Fields.__annotations__)


def test_variable_of_others_is_a_warning_and_stops_nothing() -> None:
    with serving("--log-format", "json", GEOLOOKUP_IMAGE_TAG="secret") as service:
        assert service.stop() == 0
        (line,) = [one for one in parsed(service.log().splitlines()) if "unknown" in one["event"]]
    assert (line["event"], line["level"]) == ("unknown_variable", "warning")
    # The name alone: the value may be a secret.
    assert line["reason"] == "no setting has the variable GEOLOOKUP_IMAGE_TAG; it is ignored"
