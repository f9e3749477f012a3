"""Builds the compiled modules with other compiler flags, in a folder outside of the tree.

For sanitizers and fuzzers. From a shell: ``CC=... python tests/instrumented.py FOLDER FLAG...``
prints the folder to put first on the path; with ``--no-native`` before FOLDER, as ``build`` says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NEEDED = ("ext", "geolookup", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
_LEFT_OUT = shutil.ignore_patterns("*.so", "__pycache__")


def build(folder: Path, flags: Sequence[str], *, compiler: str = "cc", native: bool = True) -> Path:
    """Build a copy of the package; return the folder that holds it.

    Without *native* it has no native transport and client, whose modules take a third of the time.

    Raises:
        subprocess.CalledProcessError: the build failed; it has printed why.
    """
    tree, site = folder / "tree", folder / "site"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.rmtree(site, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in _NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(ROOT / name, tree / name)
    environment = os.environ | {
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared",
        "CFLAGS": " ".join(flags),
    }
    if not native:
        environment["PKG_CONFIG_LIBDIR"] = str(folder)  # no library is found there
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-compile", "--target", str(site), str(tree)]
    subprocess.run(command, env=environment, check=True)
    return site


if __name__ == "__main__":
    native = sys.argv[1] != "--no-native"
    where, *given = sys.argv[1 if native else 2 :]
    cc = os.environ.get("CC", "cc")
    print(build(Path(where), given, compiler=cc, native=native))  # noqa: T201
