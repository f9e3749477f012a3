"""How many instructions the hot loops take: ``python -m bench.instructions``.

Times change with the machine and its load; instructions do not, so that a loop that became
a twentieth longer is seen on any machine, however busy. What is counted, by valgrind's
callgrind, is held against ``instructions.json`` beside this file: ``--update`` writes that.

Each loop is run once and then twice over the same roster, drawn from the embedded dataset,
and the difference is reported, for one address: starting, opening and what else happens once
is not in it. The loops in C are in ``kernels/instructions.c``, for each instruction set that
valgrind knows, which AVX-512 is not among; the single lookup is Python's own. Of a call over the
native transport all that the event loop does is counted, with libnghttp2 and without the kernel.

Compilers write different code. Counts made with another compiler, C library or, for lookups from
Python and calls, another Python or libnghttp2 than the kept ones are printed and not compared.

Exit code: 0 no loop is above its kept count by more than 5 % (lookups from Python and calls 25 %),
or nothing could be compared; 1 one is; 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geolookup
from bench.addresses import DRAWS, draw, mixed_texts
from geolookup import _core
from geolookup.answer.dataset import Dataset
from geolookup.service.rpc.transports import build
from geolookup.v1 import geolookup_pb2 as v1

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(__file__).with_name("instructions.json")
SOURCE = Path(__file__).with_name("kernels") / "instructions.c"

ALLOWANCE = 1.05
"""More than what the order of a few basic blocks changes, less than anything worth keeping."""

ALLOWANCE_IN_PYTHON = 1.25
"""Counted in two builds of the same sources by the same tools, it differed by 11 %."""

ROSTER = 4000
"""Addresses: 16 batches, the last of them part of one; and few enough to be counted in a second."""

IN_VALGRIND = 2
"""Of the core's instruction sets those up to AVX2."""

FLAGS = ("-O3", "-std=c11", "-fPIC")
"""As setup.py and a Python of today build the core."""

LOOKUPS = {"dataset.country(IPv4 text)": 4, "dataset.country(IPv6 text)": 6}
LOOKING_UP = """\
import collections, sys
import geolookup
times, path = int(sys.argv[1]), sys.argv[2]
with open(path, encoding="ascii") as file:
    texts = file.read().split() * times
with geolookup.open() as dataset:
    collections.deque(map(dataset.country, texts), maxlen=0)
"""
"""Without a loop in Python, whose own instructions would be two thirds of what is counted."""

CALL = "call of Lookup (native transport)"
WITH_PYTHON = (*LOOKUPS, CALL)
"""Whose counts depend on how the extension modules were built."""

CALLS = 1000
CALLING = """\
import sys
import geolookup
from bench import h2load
from bench.transport_targets import alone
from geolookup.service.server import Server
from geolookup.service.settings.model import Settings
from geolookup.v1 import geolookup_pb2 as v1
request = v1.LookupRequest(text="1.0.1.1", region_set="EU")
with geolookup.open() as dataset:
    server = Server(dataset, Settings(listen="127.0.0.1:0", transport="native"))
    framed = h2load.framed(request.SerializeToString())
    alone(str(server.address), framed, 600, calls=int(sys.argv[1]))
    server.stop(0)
"""
"""Each call is a turn of the event loop, as one join at a time is. Counted with the connection's
beginning, whose share of so many calls is small."""

SECTIONS = {
    "first4": "ipv4.first",
    "claim4": "ipv4.claims",
    "high6": "ipv6.high",
    "low6": "ipv6.low",
    "claim6": "ipv6.claims",
    "countries": "claim.country",
    "statuses": "claim.status",
}
"""Sections of the dataset's file by the name that they have for the C program."""


class UnavailableError(Exception):
    """Nothing can be counted here; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """One loop: instructions for an address, and what they were when they were last kept."""

    name: str
    count: float
    kept: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times what was kept."""
        return None if self.kept is None else self.count / self.kept

    @property
    def verdict(self) -> str:
        """``above``, ``below``, ``same``, or ``new`` where there is nothing to compare with."""
        allowance = ALLOWANCE_IN_PYTHON if self.name in WITH_PYTHON else ALLOWANCE
        if self.ratio is None:
            return "new"
        if self.ratio > allowance:
            return "above"
        return "below" if self.ratio < 1 / allowance else "same"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.instructions", description="Counts the hot loops' instructions."
    )
    parser.add_argument("--update", action="store_true", help=f"keep the counts in {KEPT.name}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    try:
        find_tools()
        with geolookup.open() as dataset:
            made_by, counts = makers(dataset), count_all(dataset)
    except UnavailableError as missing:
        print(f"skipped: {missing}", file=sys.stderr if chosen.json else sys.stdout)
        return 0
    if chosen.update:
        KEPT.write_text(json.dumps({"made_by": made_by, "counts": counts}, indent=2) + "\n")
    return report(made_by, counts, json.loads(KEPT.read_text()), as_json=chosen.json)


# ------------------------------------------------------------------------- comparing


def report(
    made_by: Mapping[str, str],
    counts: Mapping[str, float],
    kept: Mapping[str, Any],
    *,
    as_json: bool = False,
) -> int:
    """Print what was counted beside what was kept; return the exit code."""
    rows, notes = compare(made_by, counts, kept)
    above = [row.name for row in rows if row.verdict == "above"]
    below = [row.name for row in rows if row.verdict == "below"]
    if above:
        notes.append(f"ABOVE by more than is allowed: {'; '.join(above)}")
    if below:
        notes.append(f"well below, please keep it with --update: {'; '.join(below)}")
    if as_json:
        fields = [
            {"name": row.name, "count": row.count, "kept": row.kept, "ratio": row.ratio}
            for row in rows
        ]
        print(json.dumps({"made_by": made_by, "loops": fields, "notes": notes, "above": above}))
    else:
        print(f"| instructions an address | {'now':>8} | {'kept':>8} | ratio |")
        print("| :--- | ---: | ---: | ---: |")
        for row in rows:
            beside = "" if row.kept is None else f"{row.kept:.2f}"
            ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
            print(f"| {row.name:48} | {row.count:8.2f} | {beside:>8} | {ratio:>5} |")
        print("", *notes, sep="\n")
    return int(bool(above))


def compare(
    made_by: Mapping[str, str], counts: Mapping[str, float], kept: Mapping[str, Any]
) -> tuple[list[Row], list[str]]:
    """Return a row a loop, and what a reader must know of them."""
    other = {
        name: f"{name} is {made_by[name]}, the kept counts' {kept['made_by'].get(name)}"
        for name in made_by
        if made_by[name] != kept["made_by"].get(name)
    }
    notes = []
    if "dataset" in other:
        notes.append(f"compared all the same: {other.pop('dataset')}")
    built = [other.pop(name) for name in ("python", "transport") if name in other]
    if other:
        notes.append(f"NOT COMPARED: {'; '.join(other.values())}")
    elif built:
        notes.append(f"lookups from Python and calls NOT COMPARED: {'; '.join(built)}")
    rows = []
    for name, count in counts.items():
        comparable = not other and not (built and name in WITH_PYTHON)
        rows.append(Row(name, count, kept["counts"].get(name) if comparable else None))
    if missing := [name for name in kept["counts"] if name not in counts]:
        notes.append(f"kept and not counted here: {'; '.join(missing)}")
    return rows, notes


def makers(dataset: Dataset) -> dict[str, str]:
    """Return what counts depend on besides the code."""
    asked = subprocess.run(  # noqa: S603 - the machine's compiler
        [compiler(), "--version"], capture_output=True, text=True, check=True
    )
    return {
        "compiler": asked.stdout.splitlines()[0],
        "machine": platform.machine(),
        "instruction sets": ", ".join(_core.isa_paths()[:IN_VALGRIND]),
        "C library": " ".join(platform.libc_ver()),
        "python": f"{platform.python_version()} ({platform.python_compiler()})",
        "transport": build.description(),
        "dataset": dataset.id,
    }


# -------------------------------------------------------------------------- counting


def count_all(dataset: Dataset) -> dict[str, float]:
    """Return the instructions that each loop takes for an address."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_inputs(dataset, folder)
        with ThreadPoolExecutor(2) as pool:
            in_c = pool.submit(count_kernels, folder)
            in_python = pool.submit(count_lookups, dataset, folder)
            a_call = pool.submit(count_call, folder)
            return in_c.result() | in_python.result() | a_call.result()


def count_kernels(folder: Path, prefix: str = "") -> dict[str, float]:
    """Count the loops in C.

    Args:
        folder: where `write_inputs` has written.
        prefix: of the names of those to count.
    """
    program, out = folder / "instructions", folder / "kernels"
    command = [compiler(), *FLAGS, f"-I{ROOT / 'ext'}", str(SOURCE), "-o", str(program)]
    subprocess.run(command, check=True)  # noqa: S603 - our own source, the machine's compiler
    printed = run_callgrind(
        out,
        [str(program), str(folder), prefix],
        "--toggle-collect=measured",
        "--dump-after=measured",
    )
    counts = {}
    for number, line in enumerate(printed.splitlines()):
        name, size = line.split("\t")
        once, twice = (read_total(Path(f"{out}.{2 * number + i}")) for i in (1, 2))
        counts[name] = round((twice - once) / int(size), 3)
    return counts


def count_lookups(dataset: Dataset, folder: Path) -> dict[str, float]:
    """Count single lookups from Python, with what the interpreter does for each."""
    counts = {}
    for name, version in LOOKUPS.items():
        texts = folder / f"lookups{version}"
        texts.write_text(" ".join(draw(dataset, version, "assigned", ROSTER).texts))
        totals = []
        for times in (1, 2):
            out = folder / f"lookups{version}-{times}"
            run_callgrind(out, [sys.executable, "-c", LOOKING_UP, str(times), str(texts)])
            totals.append(read_total(out))
        counts[name] = round((totals[1] - totals[0]) / ROSTER, 3)
    return counts


def count_call(folder: Path) -> dict[str, float]:
    """Count what the event loop does for a call; nothing where there is no native transport."""
    if build.missing() is not None:
        return {}
    out = folder / "call"
    command = [sys.executable, "-c", CALLING, str(CALLS)]
    run_callgrind(out, command, "--toggle-collect=gl_turn")
    return {CALL: round(read_total(out) / CALLS, 1)}


def write_inputs(dataset: Dataset, folder: Path) -> None:
    """Write what ``kernels/instructions.c`` reads: the arrays of a dataset, and rosters."""
    for name, section in SECTIONS.items():
        content = dataset.optional_section(section)
        assert content is not None
        (folder / name).write_bytes(content)
    (folder / "outcomes").write_bytes(dataset.outcome_column("EU"))
    for version in (4, 6):
        for kind in DRAWS:
            packed = draw(dataset, version, kind, ROSTER).packed
            (folder / f"{kind}{version}").write_bytes(packed)
        texts = draw(dataset, version, "assigned", ROSTER).texts
        text = v1.TextAddresses(addresses=texts)
        (folder / f"text{version}").write_bytes(text.SerializeToString())
        request = v1.ClassifyRosterRequest(text=text, region_set="EU")
        (folder / f"request-text{version}").write_bytes(request.SerializeToString())
    mixed = v1.TextAddresses(addresses=mixed_texts(dataset, "assigned", ROSTER))
    (folder / "mixed").write_bytes(mixed.SerializeToString())
    packed = draw(dataset, 4, "assigned", ROSTER).packed
    request = v1.ClassifyRosterRequest(ipv4=packed, region_set="EU")
    (folder / "request-packed").write_bytes(request.SerializeToString())


def run_callgrind(out: Path, command: list[str], *options: str) -> str:
    """Run a program under callgrind, which writes to *out*; return what it printed."""
    done = subprocess.run(  # noqa: S603 - our own programs
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *options, *command],  # noqa: S607
        cwd=ROOT,
        # Else sets of str would have another order each time.
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed under callgrind:\n{done.stderr}")
    return done.stdout


def read_total(path: Path) -> int:
    """Return how many instructions a file of callgrind's counts."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("summary:"))


def compiler() -> str:
    return os.environ.get("CC", "cc")


def find_tools() -> None:
    """Raise an UnavailableError if a tool is missing."""
    if shutil.which("valgrind") is None:
        raise UnavailableError("no valgrind (Debian: valgrind)")
    if shutil.which(compiler()) is None:
        raise UnavailableError(f"no C compiler ({compiler()})")


if __name__ == "__main__":
    sys.exit(main())
