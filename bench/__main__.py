"""Everything in one go, on a quiet machine: ``python -m bench --out FOLDER``.

Runs each tool in turn as a process of its own and keeps what it prints. Takes about
half an hour; ``--quick`` sees in a minute that all of it works.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PYTEST = ("pytest", "bench", "--benchmark-only", "--benchmark-columns=median,iqr,min,max,rounds")

TOOLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # file name: (how to run it, what to add for --quick)
    "peers.md": (("bench.peers",), ("--quick",)),
    "coldstart.md": (("bench.coldstart",), ("--runs", "2")),
    "service_load.md": (("bench.service_load",), ("--rounds", "1", "--seconds", "1")),
    "server_styles.md": (("bench.server_styles",), ("--rounds", "1", "--seconds", "1")),
    "suite.txt": (
        (*PYTEST, "--benchmark-json={folder}/suite.json"),
        ("--benchmark-min-rounds=1", "--benchmark-max-time=0"),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Runs all benchmarks.")
    parser.add_argument("--out", type=Path, required=True, help="folder for what they print")
    parser.add_argument("--quick", action="store_true", help="see that it works: times mean little")
    chosen = parser.parse_args(arguments)
    folder = chosen.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if os.getloadavg()[0] > 0.3 and not chosen.quick:
        print(f"The machine is busy (load {os.getloadavg()[0]:.2f}): figures will be too high.")
    failed = []
    for name, (command, quick) in TOOLS.items():
        words = [
            word.format(folder=folder) for word in (*command, *(quick if chosen.quick else ()))
        ]
        print(f"{' '.join(words)} > {folder / name}", flush=True)
        with (folder / name).open("w", encoding="utf-8") as file:
            done = subprocess.run(  # noqa: S603 - the tools above
                [sys.executable, "-m", *words], cwd=ROOT, stdout=file, check=False
            )
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}; see there.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
