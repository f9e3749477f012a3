"""What a fresh process pays: ``python -m bench.coldstart``.

Every figure is a median over N new processes, whose kinds take turns. "Inside" is
measured by the process itself from its first statement on, so the interpreter's own
start is not in it; "whole" is what the shell sees. The dataset file is in the page
cache, as on any machine that runs more than one worker; the first run warms it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from bench import timing

ROOT = Path(__file__).resolve().parent.parent

BEGIN = "from time import perf_counter as now; begin = now()\n"
END = "\nprint((now() - begin) * 1e3)"

KINDS = {
    "bare interpreter": BEGIN + END,
    "import geolookup": BEGIN + "import geolookup" + END,
    "open and first lookup, imports done": (
        "import geolookup, geolookup.answer.dataset\n"
        + BEGIN
        + "geolookup.open().country('1.0.1.1')"
        + END
    ),
    "import, open and first lookup": (
        BEGIN + "import geolookup\ngeolookup.open().country('1.0.1.1')" + END
    ),
    "import, open and first roster with a region set": (
        BEGIN + "import geolookup\n"
        "geolookup.open().classify(['1.0.1.1', '8.8.8.8'], region_set='CN').inside" + END
    ),
    "import geolookup.client": BEGIN + "import geolookup.client" + END,
}


def once(code: str) -> tuple[float, float]:
    """Return (inside, whole) milliseconds of one new process."""
    begin = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - this interpreter, the code above
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout), (time.perf_counter() - begin) * 1e3


def import_times(code: str) -> list[tuple[str, float]]:
    """Return (module, own milliseconds), the costliest first, as ``-X importtime`` sees them."""
    done = subprocess.run(  # noqa: S603 - as above
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \| +(\S+)$", done.stderr, re.MULTILINE)
    return sorted(((name, int(own) / 1e3) for own, name in rows), key=lambda row: -row[1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.coldstart", description="Times fresh processes."
    )
    parser.add_argument("--runs", type=int, default=21, help="processes of each kind")
    parser.add_argument("--top", type=int, default=12, help="modules to list")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)

    inside: dict[str, list[float]] = defaultdict(list)
    whole: dict[str, list[float]] = defaultdict(list)
    for run in range(chosen.runs + 1):
        timing.progress(f"run {run} of {chosen.runs} ...")
        for kind, code in KINDS.items():
            own, all_of_it = once(code)
            if run:  # the first one fills the page cache and writes .pyc files
                inside[kind].append(own)
                whole[kind].append(all_of_it)
    timing.progress("")
    imports = import_times("import geolookup, geolookup.answer.dataset")[: chosen.top]
    report = {
        "machine": timing.machine(),
        "runs": chosen.runs,
        "milliseconds": {
            kind: {
                "inside": statistics.median(inside[kind]),
                "inside_highest": max(inside[kind]),
                "whole": statistics.median(whole[kind]),
            }
            for kind in KINDS
        },
        "imports": dict(imports),
    }
    if chosen.json:
        print(json.dumps(report))
        return 0
    print("Machine:", ", ".join(f"{key} {value}" for key, value in timing.machine().items()))
    print(f"Medians of {chosen.runs} processes, in milliseconds.\n")
    print("| what | inside | highest | whole |\n| --- | ---: | ---: | ---: |")
    for kind in KINDS:
        times = inside[kind]
        print(
            f"| {kind} | {statistics.median(times):.1f} | {max(times):.1f} "
            f"| {statistics.median(whole[kind]):.1f} |"
        )
    print("\n| module imported by geolookup | own time |\n| --- | ---: |")
    for name, own_time in imports:
        print(f"| {name} | {own_time:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
