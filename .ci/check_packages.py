"""Build the sdist and the wheel, and hold them to what is promised of them.

The sdist carries no generated C; the wheel is built from it, is at most 12 MB
and answers from a virtual environment of its own, outside of this folder. Where
there is no compiler, the sdist says what to install.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

MAX_WHEEL_BYTES = 12_000_000
CORE = ("ext/_core.pyx", "ext/core_headers.pxd", "ext/index.h")
# What the tests in an sdist read.
TESTED = (
    ".ci/run",
    "data/geolookup.toml",
    "deploy/helm/geolookup/templates/_helpers.tpl",
    "deploy/kustomize/base/geolookup.yaml",
    "examples/clients/java/pom.xml",
    "examples/clients/rust/Cargo.lock",
    "examples/enforcement/enforcement.py",
    "findings/README.md",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The test command has built in an environment of its own, from what pyproject.toml names.
        # What is in it is looked at, not how fast it is: half the time goes without optimisation.
        os.environ["CFLAGS"] = "-O1"
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", name, ".")
        (sdist,) = folder.glob("*.tar.gz")
        (wheel,) = folder.glob("*.whl")
        check_sdist(sdist)
        check_wheel(wheel)
        check_installed(wheel, folder)
        check_without_compiler(sdist, folder)


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [member.split("/", 1)[-1] for member in archive.getnames()]
        generated = [
            member.name
            for member in archive
            if member.name.endswith(".so")
            or (member.name.endswith(".c") and b"Cython" in read(archive, member)[:100])
        ]
    assert not generated, f"{sdist.name} holds generated files: {generated}"
    for needed in ("LICENSE", "NOTICE", *CORE, *TESTED):
        assert needed in names, f"{sdist.name} lacks {needed}"
    print(f"{sdist.name}: {sdist.stat().st_size:,} bytes, {len(names)} files, no generated C")


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, f"{member.name} is no file"
    return file.read()


def check_wheel(wheel: Path) -> None:
    size = wheel.stat().st_size
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert size <= MAX_WHEEL_BYTES, f"{wheel.name} has {size:,} bytes"
    assert "geolookup/data/embedded.geolookup" in names
    assert "geolookup/py.typed" in names
    print(f"{wheel.name}: {size:,} bytes of {MAX_WHEEL_BYTES:,}")


def check_installed(wheel: Path, folder: Path) -> None:
    environment = folder / "venv"
    venv.create(environment)
    python = str(environment / "bin/python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", str(wheel))
    command = [str(environment / "bin/geolookup"), "lookup", "1.0.1.1", "--json"]
    answer = json.loads(subprocess.check_output(command, cwd=folder))
    assert answer["country"] == "CN", "the installed wheel does not know the example address"
    print("the installed wheel answers")


def check_without_compiler(sdist: Path, folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(folder / "none"),
    ]
    environment = os.environ | {"CC": "/absent/cc"}
    done = subprocess.run(
        [*command, str(sdist)], env=environment, check=False, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert done.returncode, "there is a wheel without a compiler"
    assert "can't be built without the C compiler /absent/cc" in said, said
    assert "apt-get install gcc" in said, said
    print("without a compiler the sdist says what to install")


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main()
