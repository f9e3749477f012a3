"""Runs one Python target under atheris: ``python -m fuzz.harness TARGET LIBFUZZER-ARGUMENT...``.

Started by __main__.py, which sets the path and preloads the sanitizers.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["geolookup", "maxminddb", "tomllib", "zipfile"]):
    from fuzz.targets import TARGETS

    with contextlib.suppress(ImportError):
        import maxminddb.decoder  # noqa: F401 - the reader of MMDB imports it when it needs it


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
