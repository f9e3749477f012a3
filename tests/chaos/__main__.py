"""``python -m tests.chaos [FAULT...] [--long] [--json]``: do harm to a real service, and look.

Prints for each fault what was done, what was required, what was measured, and whether the
requirement is met; exits with 1 if one is not. The short form takes seconds a fault, the
long one minutes, and `--seconds` as long as you like.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos.faults import FAULTS, named

SHORT, LONG = 2.0, 300.0
"""Seconds of a fault."""


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("fault", nargs="*", help=f"which; all if none is named: {', '.join(names)}")
    parser.add_argument("--long", action="store_true", help=f"{LONG:g} s a fault")
    parser.add_argument("--seconds", type=float, help="seconds a fault")
    parser.add_argument("--json", action="store_true", help="print an object a line")
    told = parser.parse_args()
    for name in told.fault:
        if name not in names:
            parser.error(f"there is no fault {name!r}")
    seconds = told.seconds or (LONG if told.long else SHORT)
    missed = 0
    for name in told.fault or names:
        fault = named(name)
        outcome = fault.run(seconds)
        missed += not outcome.met
        if told.json:
            line = {
                "fault": fault.name,
                "done": fault.done,
                "required": fault.required,
                "seconds": seconds,
                "measured": outcome.measured,
                "met": outcome.met,
                "broken": outcome.broken,
            }
            print(json.dumps(line), flush=True)  # noqa: T201
            continue
        rows = [
            ("done", fault.done),
            ("required", fault.required),
            *outcome.measured.items(),
            *(("NOT MET", requirement) for requirement in outcome.broken),
        ]
        print(f"{fault.name}: {'met' if outcome.met else 'NOT MET'}")  # noqa: T201
        for what, text in rows:
            told_what = f"  {what:<19}"
            print(  # noqa: T201
                textwrap.fill(text, 100, initial_indent=told_what, subsequent_indent=" " * 21),
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
