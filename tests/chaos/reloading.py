"""Faults of reloading: one after another, files that are no datasets, nothing to load them with."""

from __future__ import annotations

import contextlib
import itertools
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from chaos.datasets import Version, damaged, versions
from chaos.outcome import Fault, Outcome
from chaos.subject import Caller, Controlled, OpenStream, controlled, seconds_until
from geolookup.answer.signature import SUFFIX, sign
from geolookup.service.admin.control import Outcome as Ended
from geolookup.service.admin.control import ServiceStatus

_REFUSED: Final = Ended.REFUSED
_LONG: Final = 300.0
_MANY: Final = 1_000
"""Reloads, at least, of a run of `_LONG` seconds or more."""
_WARM: Final = 4
"""Reloads after which nothing more is opened for the first time."""
_STREAM: Final = 0.7
"""Seconds for which a stream is open. Some reloads happen meanwhile."""
_ROOM: Final = 5 << 20
"""Bytes of address space that a process may still take when memory is short: something, and not
enough to map another of the datasets, of 20 MB."""


# --- who publishes, and who asks for it to be read


class _Publisher:
    """Puts files in the place of the one that a service was given.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "served.geolookup"
        self._new = folder / "new"

    def put(self, content: bytes, suffix: str = "") -> None:
        """Replace the file, or the one beside it whose name has a suffix."""
        self._new.write_bytes(content)
        self._new.replace(self.path.with_name(self.path.name + suffix))


@contextlib.contextmanager
def _publishing() -> Iterator[_Publisher]:
    with tempfile.TemporaryDirectory() as folder:
        yield _Publisher(Path(folder))


def _by_signal(service: Controlled) -> None:
    service.service.process.send_signal(signal.SIGHUP)


def _by_rpc(service: Controlled) -> None:
    service.control.reload()


def _by_rename(_service: Controlled) -> None:
    """Ask nobody: the file is watched."""


_WAYS: Final = (_by_signal, _by_rpc, _by_signal, _by_rpc, _by_rename)
"""In turn. The last one takes the time of two looks at the file."""


def _serving(
    publisher: _Publisher, known: tuple[Version, ...], *options: str
) -> contextlib.AbstractContextManager[Controlled]:
    """Run a service of the first dataset; answers are right that the dataset gives they name."""
    countries = {version.id: version.country for version in known}

    def right(answer: Any) -> bool:
        return bool(countries.get(answer.dataset) == answer.country)

    publisher.put(known[0].content)
    return controlled(
        "--dataset",
        str(publisher.path),
        "--watch",
        "0.1",
        *options,
        honest=lambda target: Caller(target, right),
    )


def _after(
    way: Callable[[Controlled], None], service: Controlled, ended: Callable[[ServiceStatus], bool]
) -> float | None:
    """Ask for a reload; return the seconds until it has ended, or None: it does not."""
    began = time.monotonic()
    way(service)
    waited = seconds_until(lambda: ended(service.control.status()), pause=0.002)
    return None if waited is None else time.monotonic() - began


def _answer_from(version: Version) -> Callable[[ServiceStatus], bool]:
    """Say whether all workers answer from a dataset, and the reload has ended."""

    def ended(status: ServiceStatus) -> bool:
        datasets = {status.dataset, *(worker.dataset for worker in status.workers)}
        reload = status.last_reload
        return datasets == {version.id} and reload is not None and reload.outcome != _REFUSED

    return ended


def _refused_since(before: ServiceStatus) -> Callable[[ServiceStatus], bool]:
    """Say whether a reload was refused since a moment."""

    def ended(status: ServiceStatus) -> bool:
        new = status.last_reload_time != before.last_reload_time
        return new and status.last_reload is not None and status.last_reload.outcome is _REFUSED

    return ended


def _count_refused(service: Controlled) -> float:
    return service.metrics()[f'geolookup_reloads_total{{outcome="{_REFUSED}"}}']


# --- reload after reload


class _Streams:
    """A client that opens a stream, keeps it for a while, and opens the next.

    Attributes:
        ended: how many it has opened, and asked to their end.
        changed: how many of them had answers of another dataset than their first.
        failed: how they failed, if they did.
    """

    def __init__(self, target: str) -> None:
        self.ended = self.changed = 0
        self.failed: list[str] = []
        self._target = target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with grpc.insecure_channel(self._target) as channel:
            while not self._stop.is_set():
                try:
                    datasets = self._keep(channel)
                except grpc.RpcError as error:
                    self.failed.append(error.code().name)
                else:
                    self.ended += 1
                    self.changed += len(datasets) > 1

    def _keep(self, channel: grpc.Channel) -> set[str]:
        end = time.monotonic() + _STREAM
        with contextlib.closing(OpenStream(channel)) as stream:
            datasets = {stream.first}
            while time.monotonic() < end and not self._stop.wait(0.02):
                datasets.add(stream.ask())
            return datasets


def _reload_often(seconds: float) -> Outcome:
    outcome, known = Outcome(), versions()
    asked: list[float] = []
    noticed: list[float] = []
    memory: list[int] = []
    descriptors: int | None = None
    mapped: list[list[int] | None] = []
    end = time.monotonic() + seconds
    with _publishing() as publisher, _serving(publisher, known) as service:
        pids = service.pids()
        with _Streams(service.target) as streams:
            for number in itertools.count(1):
                version, way = known[number % 2], _WAYS[number % len(_WAYS)]
                publisher.put(version.content)
                waited = _after(way, service, _answer_from(version))
                outcome.require(waited is not None, "each dataset is answered from")
                if waited is None:
                    break
                (noticed if way is _by_rename else asked).append(waited)
                memory.append(service.memory())
                if number <= _WARM:
                    descriptors = service.descriptors()
                    mapped.append(service.mappings())
                many = seconds < _LONG or number >= _MANY
                if number > _WARM and time.monotonic() > end and many:
                    break
        service.settle(descriptors)
        outcome.require(not service.left_open(descriptors), "no descriptor is left open")
        most = max(map(_total, mapped), default=0)
        let_go = seconds_until(lambda: _total(service.mappings()) <= most, pause=0.05)
        outcome.require(not mapped or let_go is not None, "no dataset is left mapped")
        if let_go is None:
            mapped.append(service.mappings())
            outcome.measured["mapped"] = ", ".join(map(str, mapped))
        outcome.require(service.pids() == pids, "no process ends")
        outcome.require(not _count_refused(service), "no reload is refused")
    outcome.measured["reloads"] = f"{len(asked) + len(noticed):,}"
    outcome.measure("reload, asked for", asked)
    outcome.measure("reload, noticed", noticed)
    outcome.measured["streams"] = (
        f"{streams.ended:,} kept for {_STREAM:g} s, {streams.changed} changed their dataset"
    )
    outcome.require(streams.ended > 0 and not streams.failed, "streams go on")
    outcome.require(not streams.changed, "a stream keeps the dataset that it began with")
    outcome.require_level(memory)
    outcome.require_answers(service.honest)
    return outcome


def _total(mappings: list[int] | None) -> int:
    """Return how many datasets are mapped; 0: we may not know."""
    return sum(mappings or ())


# --- files that are no datasets


class _Signer:
    """Signs datasets with one of two keys, of which a service knows the first."""

    def __init__(self, folder: Path) -> None:
        self.public = folder / "ours.pub"
        self._private = [folder / "ours.pem", folder / "theirs.pem"]
        for path in self._private:
            key = Ed25519PrivateKey.generate()
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            if path.stem == self.public.stem:
                self.public.write_bytes(
                    key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                )

    def sign(self, version: Version, key: int = 0) -> bytes:
        """Return the signature of a dataset by one of the keys."""
        return sign(version.id, self._private[key])


def _bad(
    version: Version, other: Version, signer: _Signer, seed: int
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield what must be refused: what is wrong with it, the file and its signature."""
    signature = signer.sign(version)
    for what, content in damaged(version.content, seed):
        yield what, content, signature
    yield "no signature", version.content, b""
    yield "another's signature", version.content, signer.sign(version, key=1)
    yield "the signature of another dataset", version.content, signer.sign(other)


_SUCCESSFUL: Final = "geolookup_last_reload_successful"


def _publish_bad(seconds: float) -> Outcome:
    outcome, known = Outcome(), versions(small=True)
    refused: list[float] = []
    repaired: list[float] = []
    kinds: set[str] = set()
    ways = itertools.cycle(_WAYS)
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        publisher = stack.enter_context(_publishing())
        signer = _Signer(publisher.path.parent)
        publisher.put(signer.sign(known[0]), SUFFIX)
        options = ("--public-key", str(signer.public))
        service = stack.enter_context(_serving(publisher, known, *options))
        pids = service.pids()
        current, other = known
        for seed in itertools.count():
            for what, content, signature in _bad(other, current, signer, seed):
                kinds.add(what)
                before = service.control.status()
                publisher.put(signature, SUFFIX)
                publisher.put(content)
                waited = _after(next(ways), service, _refused_since(before))
                outcome.require(waited is not None, f"{what}: refused")
                refused.append(waited or 0.0)
                _require_refusal(outcome, service, current, what)
                publisher.put(signer.sign(other), SUFFIX)
                publisher.put(other.content)
                waited = _after(next(ways), service, _answer_from(other))
                outcome.require(waited is not None, f"{what}: a good one is loaded afterwards")
                repaired.append(waited or 0.0)
                said = service.metrics()[_SUCCESSFUL]
                outcome.require(said == 1, f"{what}: metrics say that it is repaired")
                current, other = other, current
                if outcome.broken:
                    break
            if time.monotonic() > end or outcome.broken:
                break
        counted = _count_refused(service)
        outcome.require(counted >= len(refused), "each is counted")
        outcome.require(service.pids() == pids, "no process ends")
    outcome.measured["files"] = f"{len(refused):,} of {len(kinds)} kinds, {counted:,.0f} refused"
    outcome.measure("refusal", refused)
    outcome.measure("good one after it", repaired)
    outcome.require_answers(service.honest)
    return outcome


def _require_refusal(outcome: Outcome, service: Controlled, current: Version, what: str) -> None:
    status = service.control.status()
    last = status.last_reload
    datasets = {status.dataset, *(worker.dataset for worker in status.workers)}
    outcome.require(datasets == {current.id}, f"{what}: nothing changes")
    outcome.require(status.serving, f"{what}: health says SERVING")
    outcome.require(
        last is not None and "served.geolookup" in last.reason,
        f"{what}: status says what is wrong",
    )
    outcome.require(service.metrics()[_SUCCESSFUL] == 0, f"{what}: metrics say so")


# --- nothing to load with


@contextlib.contextmanager
def _limited(pid: int, kind: int, value: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, (soft, hard))


def _no_descriptor(_pid: int) -> int:
    """Return the limit with which a process opens nothing more. What is open stays so."""
    return 3


def _no_memory(pid: int) -> int:
    """Return the address space that a process has, and a little more."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    return int(status[status.index("VmSize:") + 1]) * 1_024 + _ROOM


def _lacking(kind: int, limit: Callable[[int], int]) -> Callable[[float], Outcome]:
    """Return what has reloads meet a limit, of the supervisor and of each worker in turn.

    Args:
        kind: the limit's, as `resource.prlimit` has it.
        limit: returns the value for a process.
    """

    def run(seconds: float) -> Outcome:
        outcome, known = Outcome(), versions()
        later: list[float] = []
        reasons: set[str] = set()
        end = time.monotonic() + seconds
        with _publishing() as publisher, _serving(publisher, known) as service:
            pids = service.pids()
            for number in range(_WARM):  # what is freed at first would be room
                publisher.put(known[(number + 1) % 2].content)
                _after(_by_rpc, service, _answer_from(known[(number + 1) % 2]))
            for number in itertools.count(1):
                version, pid = known[number % 2], pids[number % len(pids)]
                answered = service.honest.outcomes["OK"]
                before = service.control.status()
                with _limited(pid, kind, limit(pid)):
                    publisher.put(version.content)
                    # By renaming alone, so that the service itself must try again.
                    waited = _after(_by_rename, service, _refused_since(before))
                    after = service.control.status()
                    outcome.require(waited is not None, "the reload is refused")
                    outcome.require(after.dataset == before.dataset, "nothing changes")
                    outcome.require(
                        seconds_until(lambda: service.honest.outcomes["OK"] > answered + 20)  # noqa: B023
                        is not None,
                        "answers go on",
                    )
                if after.last_reload is not None:
                    reasons.add(after.last_reload.reason.replace(f"{publisher.path}: ", ""))
                waited = _after(_by_rename, service, _answer_from(version))
                outcome.require(waited is not None, "it is tried again, and succeeds")
                later.append(waited or 0.0)
                if number >= len(pids) and (time.monotonic() > end or outcome.broken):
                    break
            outcome.require(service.pids() == pids, "no process ends")
        outcome.measured["refused"] = f"{len(later)} times: {'; '.join(sorted(reasons))}"
        outcome.measure("loaded later", later)
        outcome.require_answers(service.honest)
        return outcome

    return run


_LACKING: Final = (
    "the reload is refused, no process ends, answers go on; without another word it is tried again,"
    " and succeeds when there is enough"
)

FAULTS: Final = (
    Fault(
        "reloads",
        "two datasets of 20 MB in turn, by SIGHUP, by the admin rpc, and by renaming the file"
        f" alone, under load and with a stream open ({_MANY:,} of them at least in the long form)",
        "no call fails, each answer is that of the dataset it names, a stream keeps the dataset"
        " that it began with, no process ends, nothing is left open or mapped, memory levels off",
        _reload_often,
    ),
    Fault(
        "bad datasets",
        "files cut off, with a bit flipped in each section, of another format or wrongly signed,"
        " in turn with good ones, under load",
        "nothing changes, each is counted, status and metrics say so, health stays SERVING; the"
        " good one after it is loaded",
        _publish_bad,
    ),
    Fault(
        "descriptor limit",
        "during a reload the supervisor, or a worker, can open no descriptor (RLIMIT_NOFILE)",
        _LACKING,
        _lacking(resource.RLIMIT_NOFILE, _no_descriptor),
    ),
    Fault(
        "memory limit",
        "during a reload the supervisor, or a worker, has no room to map another dataset"
        " (RLIMIT_AS)",
        _LACKING,
        _lacking(resource.RLIMIT_AS, _no_memory),
    ),
)
