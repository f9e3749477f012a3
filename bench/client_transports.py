"""What a call costs over each transport of the clients: ``python -m bench.client_transports``.

One service on the first core; clients on the last, one transport after the other in each
turn, so that both meet the same machine. Figures are medians of the turns. By default it
takes 50 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from geolookup.client import AsyncClient, Client
from geolookup.client.transports import NAMES

THREADS = 32
ADDRESSES = [f"{1 + i % 200}.{i % 250}.{i % 7}.{i % 11}" for i in range(4_096)]
REGION_SET = "EU"


def alone(client: Client, seconds: float) -> int:
    """One lookup after another; return how many."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        client.lookup(ADDRESSES[count % 4_096], REGION_SET)
        count += 1
    return count


def latency(client: Client, seconds: float) -> float:
    """Return the median of what one lookup after another takes, in microseconds."""
    times, end = [], time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        client.lookup(ADDRESSES[len(times) % 4_096], REGION_SET)
        times.append(time.monotonic() - began)
    return statistics.median(times) * 1e6


def crowd(client: Client, seconds: float) -> int:
    """As many threads as `THREADS` do so at the same time."""
    counts = [0] * THREADS

    def run(number: int) -> None:
        counts[number] = alone(client, seconds)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return sum(counts)


async def tasks(client: AsyncClient, seconds: float) -> int:
    """As many tasks do so."""
    end = time.monotonic() + seconds

    async def run() -> int:
        count = 0
        while time.monotonic() < end:
            await client.lookup(ADDRESSES[count % 4_096], REGION_SET)
            count += 1
        return count

    return sum(await asyncio.gather(*(run() for _ in range(THREADS))))


def measured(make: Callable[[], int]) -> tuple[float, float]:
    """Return calls in a second, and microseconds of this process's time for each."""
    began, processor = time.monotonic(), time.process_time()
    count = make()
    return count / (time.monotonic() - began), (time.process_time() - processor) / count * 1e6


def works(target: str, transport: str, seconds: float) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield what each kind of work came to over a transport."""
    for name, work, coalesce in (
        ("Client, alone", alone, False),
        (f"Client, {THREADS} threads", crowd, False),
        (f"Client, {THREADS} threads, coalesced", crowd, True),
    ):
        with Client(target, transport=transport, coalesce=coalesce) as client:
            work(client, seconds / 4)
            yield name, measured(lambda work=work, client=client: work(client, seconds))  # type: ignore[misc]

    async def by_tasks(coalesce: bool) -> tuple[float, float]:
        async with AsyncClient(target, transport=transport, coalesce=coalesce) as client:
            await tasks(client, seconds / 4)
            began, processor = time.monotonic(), time.process_time()
            count = await tasks(client, seconds)
            spent = time.process_time() - processor
            return count / (time.monotonic() - began), spent / count * 1e6

    yield f"AsyncClient, {THREADS} tasks", asyncio.run(by_tasks(False))
    yield f"AsyncClient, {THREADS} tasks, coalesced", asyncio.run(by_tasks(True))


@contextlib.contextmanager
def service(core: int) -> Iterator[str]:
    """Run a service with one worker on a core; yield its address."""
    command = [sys.executable, "-m", "geolookup", "serve", "--listen", "127.0.0.1:0"]
    command += ["--workers", "1", "--admin", "none", "--metrics", "none", "--no-spare-worker"]
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        os.sched_setaffinity(0, own)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.client_transports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.7, metavar="S", help="(default: 0.7)")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    latencies: dict[str, list[float]] = defaultdict(list)
    with service(cores[0]) as target:
        os.sched_setaffinity(0, {cores[-1]})
        for turn in range(given.rounds):
            for transport in NAMES if turn % 2 else NAMES[::-1]:
                with Client(target, transport=transport) as client:
                    latency(client, given.seconds / 4)
                    latencies[transport].append(latency(client, given.seconds))
                for name, figures in works(target, transport, given.seconds):
                    found[name, transport].append(figures)
    print("| work | calls/s: grpcio | native | times | CPU, µs a call: grpcio | native | times |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in dict.fromkeys(name for name, _ in found):
        columns = []
        for at, digits in ((0, 0), (1, 1)):
            before, after = (
                statistics.median(one[at] for one in found[name, transport])
                for transport in ("grpcio", "native")
            )
            columns += [f"{before:,.{digits}f}", f"{after:,.{digits}f}", f"{after / before:.2f}"]
        print(f"| {name} | {' | '.join(columns)} |")
    before, after = (statistics.median(latencies[transport]) for transport in ("grpcio", "native"))
    print(
        f"\nA lookup alone, median: {before:.0f} µs over grpcio, {after:.0f} over native.", end=" "
    )
    print(f"That is {after / before:.2f} of the time.")
    gathered = f"Client, {THREADS} threads, coalesced"
    for name in (f"Client, {THREADS} threads", gathered):
        calls, processor = (
            statistics.median(one[at] for one in found[name, "native"])
            / statistics.median(one[at] for one in found[gathered, "grpcio"])
            for at in (0, 1)
        )
        print(
            f"{name}, over native: {calls:.1f} times the joins over grpcio coalesced,"
            f" {1 / processor:.1f} times by processor time."
        )


if __name__ == "__main__":
    main()
