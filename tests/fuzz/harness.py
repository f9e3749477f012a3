"""Runs Python targets under atheris, one after the other: ``python -m fuzz.harness``.

Started by __main__.py, which sets the path and preloads the sanitizers. To import and instrument
takes seconds, so that is done once, and each target runs in a fork. A line of standard input is a
JSON list: the file for what the target prints, its name, and libFuzzer's arguments. A line of
standard output has the fork's process id, and the next one its exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

import atheris

with atheris.instrument_imports(include=["geolookup", "maxminddb", "tomllib", "zipfile"]):
    from fuzz.targets import TARGETS

    with contextlib.suppress(ImportError):
        import maxminddb.decoder  # noqa: F401 - the reader of MMDB imports it when it needs it


def main() -> None:
    for line in sys.stdin:
        log, name, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _fuzz(log, name, arguments)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _fuzz(log: str, name: str, arguments: list[str]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    atheris.Setup([name, *arguments], TARGETS[name].run)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    main()
