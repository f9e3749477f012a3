"""Runs one Python target under atheris: ``python -m fuzz.harness TARGET LIBFUZZER-ARGUMENT...``.

Started by __main__.py, which sets the path and preloads the sanitizers.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["geolookup", "tomllib", "zipfile"]):
    from fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
