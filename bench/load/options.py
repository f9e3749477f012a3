"""The command line: what is to be run, and against whom."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.addresses import DRAWS
from bench.load import targets
from bench.load.plan import Plan
from bench.load.targets import Target, TargetError
from bench.load.work import DEFAULT_MIX, SCENARIOS, Blend, WorkError, parse, parsed_mix

CLOSED = 32
"""Calls under way at once in a closed loop."""
OPEN = 10_000
"""The most in an open loop: enough that a service which stops for a second is asked on."""
_TURNS = 10
"""Turns of each target in a comparison."""
_PICTURES = (".png", ".svg")

DESCRIPTION = """\
Loads a running geolookup service and says what it bears.

Without --rate it is a closed loop: so many callers, each of whom asks again when
answered. With --rate it is an open loop: calls are due at random times (Poisson), and
a call's time runs from when it was due, so that a service that stops is seen.
--knee looks for the most that the service bears. docs/load.md explains more."""

_WIDTH = max(map(len, SCENARIOS)) + 2

EPILOG = f"""\
scenarios:
{"".join(f"  {name:{_WIDTH}}{what}{chr(10)}" for name, what in SCENARIOS.items())}
examples:
  python -m bench.load 127.0.0.1:50051
  python -m bench.load 127.0.0.1:50051 --scenario joins,coalesced,roster-1000,stream-1000
  python -m bench.load 127.0.0.1:50051 --rate 500,1000,2000 --plot latency.png
  python -m bench.load geo.internal:443 --ca ca.pem --knee --html knee.html
  python -m bench.load --compare 127.0.0.1:50051 127.0.0.1:50061 --scenario joins

exit codes:
  0    all was measured
  1    it could not be measured, or not to the end: the service is not there, a file can't be
       used, a client process ended
  2    the command line makes no sense, or names a target that load is not sent to
  3    measured, but more than 1 % of the calls of a run failed (but for --knee)
  130  ended by Ctrl-C or SIGTERM; what was measured until then is reported
"""


@dataclass(frozen=True)
class Options:
    """What the command line said.

    Attributes:
        plans: one of each scenario and load, against the first target.
        targets: one; or the two to compare.
        metrics: URL of each target's metrics; None: not read; "": where they usually are.
        knee: whether to look for it, and by which limit in microseconds (None: its own).
        limit: see there.
        rounds: how often each plan is run.
        processes: client processes.
        cores: that they keep to.
        dataset: that addresses are drawn from; None: the embedded one.
        ceiling: whether to measure it.
        json: whether to print JSON.
        html: file to write a page to.
        plot: file to write a picture to.
    """

    plans: tuple[Plan, ...]
    targets: tuple[Target, ...]
    metrics: tuple[str | None, ...]
    knee: bool
    limit: float | None
    rounds: int
    processes: int
    cores: tuple[int, ...]
    dataset: str | None
    ceiling: bool
    json: bool
    html: Path | None
    plot: Path | None


def read(arguments: Sequence[str] | None) -> Options:
    """Return what the command line says.

    Raises:
        SystemExit: with code 2, what is wrong with it having been printed.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return _options(given)
    except (TargetError, WorkError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("target", nargs="?", metavar="TARGET", help="HOST:PORT, [IPV6]:PORT or unix:PATH")
    add("--compare", nargs=2, metavar=("A", "B"), help="two targets instead, in turns")

    add = parser.add_argument_group("load").add_argument
    add("--scenario", default="joins", metavar="NAME,...", help="see below (default: joins)")
    add("--rate", type=_list(_above(float)), metavar="N,...", help="calls a second: an open loop")
    add("--knee", action="store_true", help="offer more and more, until the service is slow")
    limit = "p99 to hold at the knee (default: 5 times that of a light load, 10 at least)"
    add("--limit", type=_above(float), metavar="MS", help=limit)
    under_way = f"calls at once (default: {CLOSED}); in an open loop at most ({OPEN:,})"
    add("--under-way", type=_above(int), metavar="N", help=under_way)
    add("--seconds", type=_above(float), default=5.0, metavar="S", help="to measure (default: 5)")
    warm_up = "before that (default: 1)"
    add("--warm-up", type=_least(0.0), default=1.0, metavar="S", help=warm_up)
    timeout = "that a call may take (default: 5)"
    add("--timeout", type=_above(float), default=5.0, metavar="S", help=timeout)
    rounds = f"repeat all, in changing order (default: 1; with --compare {_TURNS})"
    add("--rounds", type=_above(int), metavar="N", help=rounds)

    add = parser.add_argument_group("addresses").add_argument
    add("--text", action="store_true", help="as text (default: packed)")
    ipv6 = "share of IPv6, 0 to 1 (default: 0)"
    add("--ipv6", type=_share, default=0.0, metavar="SHARE", help=ipv6)
    bad = "share of what is no address; such calls travel as text (default: 0)"
    add("--bad", type=_share, default=0.0, metavar="SHARE", help=bad)
    draw = "each of the assigned space alike, or next to the data's boundaries"
    add("--draw", choices=DRAWS, default=DRAWS[0], help=f"{draw} (default: {DRAWS[0]})")
    region_set = 'to ask about, "" for none (default: EU)'
    add("--region-set", default="EU", metavar="NAME", help=region_set)
    mix = ",".join(f"{name}={weight:g}" for name, weight in DEFAULT_MIX.items())
    add("--mix", type=_mix, default=dict(DEFAULT_MIX), metavar="NAME=WEIGHT,...", help=mix)
    add("--dataset", metavar="FILE", help="to draw from (default: the embedded one)")

    _add_means(parser)
    return parser


def _add_means(parser: argparse.ArgumentParser) -> None:
    """Add what says by which means it is measured and reported."""
    add = parser.add_argument_group("clients").add_argument
    add("--processes", type=_above(int), metavar="N", help="(default: half of the cores)")
    connections = "of each process (default: 1)"
    add("--connections", type=_above(int), default=1, metavar="N", help=connections)
    add("--cores", type=_list(_least(0)), default=(), metavar="N,...", help="to keep to")
    add("--no-ceiling", action="store_true", help="do not measure what the clients bear")

    add = parser.add_argument_group("connection").add_argument
    add("--tls", action="store_true", help="implied by the options that need it")
    add("--ca", metavar="FILE", help="certificates to trust, in PEM")
    add("--certificate", metavar="FILE", help="of the client, with --key")
    add("--key", metavar="FILE", help="its private key")
    add("--server-name", default="", metavar="NAME", help="to expect in the certificate")
    add("--public", action="store_true", help="see docs/load.md")
    add("--i-may-load-this-service", action="store_true", help="see docs/load.md")
    url = "of the service's metrics, for its processor time; none: do not read them (default: "
    url += "port 9464 of a target on port 50051); with --compare once for each"
    add("--metrics", action="append", metavar="URL", help=url)

    add = parser.add_argument_group("report").add_argument
    add("--json", action="store_true", help="print one JSON object")
    add("--html", type=Path, metavar="FILE", help="write a page, which needs nothing beside it")
    add("--plot", type=Path, metavar="FILE", help="write a picture (.png or .svg)")


def _options(given: argparse.Namespace) -> Options:
    addresses = given.compare or ([given.target] if given.target else [])
    if not addresses or (given.compare and given.target):
        raise TargetError("expected TARGET, or --compare A B")
    if given.knee and (given.rate or given.compare):
        raise TargetError("--knee goes neither with --rate nor with --compare")
    if given.limit and not given.knee:
        raise TargetError("--limit needs --knee")
    for path in (given.html, given.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise TargetError(f"{path}: there is no such folder")
    if given.plot is not None and given.plot.suffix.lower() not in _PICTURES:
        raise TargetError(f"{given.plot}: expected a name in {' or '.join(_PICTURES)}")
    for address in addresses:
        targets.permit(address, public=given.public, permission=given.i_may_load_this_service)
    chosen = tuple(_target(address, given) for address in addresses)
    plans = tuple(_plans(chosen[0], given))
    cores = tuple(given.cores)
    if missing := set(cores) - os.sched_getaffinity(0):
        raise TargetError(f"--cores: there is no core {min(missing)} for this process")
    return Options(
        plans=plans,
        targets=chosen,
        metrics=_metrics(given.metrics, len(chosen)),
        knee=given.knee,
        limit=given.limit * 1e3 if given.limit else None,
        rounds=given.rounds or (_TURNS if given.compare else 1),
        processes=given.processes or max(1, len(os.sched_getaffinity(0)) // 2),
        cores=cores,
        dataset=given.dataset,
        ceiling=not given.no_ceiling,
        json=given.json,
        html=given.html,
        plot=given.plot,
    )


def _target(address: str, given: argparse.Namespace) -> Target:
    if (given.certificate is None) != (given.key is None):
        raise TargetError("--certificate and --key go together")
    return Target(
        address,
        tls=bool(given.tls or given.ca or given.certificate or given.server_name),
        ca=targets.read_pem(given.ca),
        certificate=targets.read_pem(given.certificate),
        key=targets.read_pem(given.key),
        server_name=given.server_name,
    )


def _plans(target: Target, given: argparse.Namespace) -> list[Plan]:
    blend = Blend(given.text, given.ipv6, given.bad, given.region_set, given.draw)
    names = [name.strip() for name in given.scenario.split(",")]
    found = []
    for name in names:
        parse(name)
        if name.startswith("thread-") and (given.rate or given.knee):
            raise WorkError(f"{name}: threads make a closed loop only")
        found += [
            Plan(
                target=target,
                scenario=name,
                rate=rate,
                under_way=given.under_way or (CLOSED if rate is None else OPEN),
                seconds=given.seconds,
                warm_up=given.warm_up,
                timeout=given.timeout,
                connections=given.connections,
                blend=blend,
                mix=given.mix,
            )
            for rate in given.rate or (None,)
        ]
    if given.knee and len(found) > 1:
        raise WorkError("--knee looks at one scenario at a time")
    return found


def _metrics(urls: Sequence[str] | None, count: int) -> tuple[str | None, ...]:
    if urls is None:
        return ("",) * count
    if len(urls) != count:
        raise TargetError(f"--metrics: expected {count}, one for each target")
    return tuple(None if url == "none" else url for url in urls)


# argparse shows the text of an ArgumentTypeError, and no other's.


def _least(least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = type(least)(text)
        except ValueError:
            value = -1
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number, {least:g} or more")
        return value

    return number


def _above(kind: type[float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
        return value

    return number


def _share(text: str) -> float:
    value = _least(0.0)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 to 1")
    return value


def _list(one: Callable[[str], float]) -> Callable[[str], list[float]]:
    return lambda text: [one(part) for part in text.split(",")]


def _mix(text: str) -> dict[str, float]:
    weights = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        weights[name.strip()] = _above(float)(weight)
    try:
        return dict(parsed_mix(weights))
    except WorkError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
