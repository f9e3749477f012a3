"""Builds what the fuzzers run, with clang: instrumented modules, and the programs in C.

All of it has AddressSanitizer, UndefinedBehaviorSanitizer and libFuzzer's coverage counters.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrumented import ROOT, build

HERE = Path(__file__).resolve().parent
PROGRAMS = {path.stem: path for path in sorted(HERE.glob("*.c"))}

LIBRARIES = {"connection": ("-D_GNU_SOURCE", "-lnghttp2", "-pthread")}
"""What a program needs beside our headers."""
if shutil.which("pkg-config") is None or subprocess.call(["pkg-config", "--exists", "libnghttp2"]):
    del PROGRAMS["connection"]

SANITIZERS = "address,undefined"
# Cython's wrappers add 0 to NULL; the programs in C hold our own code to that as well.
MODULE_FLAGS = ["-fno-sanitize=pointer-overflow"]
FLAGS = ["-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
# Of the modules and of the programs. What runs in Python is mostly Python and sanitizers.
LASTING = ("-O1 -g", "-O2 -g")
QUICK = ("-O0 -gline-tables-only", "-O0 -gline-tables-only")
"""Sooner built by four fifths: for runs that take less time than the build would."""


class MissingToolError(Exception):
    """A tool is not there; the text says which, and how it is had."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was built.

    Attributes:
        site: folder with the package, to put first on the path.
        runtime: library to preload: the sanitizers' and libFuzzer's, which Python lacks.
        programs: the targets in C.
    """

    site: Path
    runtime: Path
    programs: dict[str, Path]


def find_clang() -> str:
    """Return a clang with libFuzzer.

    Raises:
        MissingToolError: there is none.
    """
    names = ("clang", *(f"clang-{version}" for version in range(25, 13, -1)))
    found = next((name for name in names if shutil.which(name)), None)
    if found is None:
        raise MissingToolError("no clang (Debian: clang, libclang-rt-14-dev)")
    if not _archive(found, "fuzzer_no_main").is_file():
        raise MissingToolError(f"{found} has no libFuzzer (Debian: libclang-rt-14-dev)")
    return found


def build_all(clang: str, folder: Path, levels: tuple[str, str]) -> Built:
    """Build everything, or return what is there if nothing has changed since.

    *levels* is `LASTING` or `QUICK`.

    Raises:
        subprocess.CalledProcessError: a build failed; it has printed why.
    """
    site, runtime = folder / "site", folder / "runtime.so"
    programs = {name: folder / name for name in PROGRAMS}
    stamp, state = folder / "state", f"{levels} {_state(clang)}"
    if not (stamp.is_file() and stamp.read_text() == state):
        stamp.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        of_modules, level = levels
        flags = [of_modules, *FLAGS, f"-fsanitize={SANITIZERS},fuzzer-no-link", *MODULE_FLAGS]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            builds: list[Future[Any]] = [
                # The target `connection` has the native transport's code for itself.
                pool.submit(build, folder, flags, compiler=clang, native=False),
                pool.submit(_build_runtime, clang, runtime),
                *(
                    pool.submit(_build_program, clang, level, source, programs[name])
                    for name, source in PROGRAMS.items()
                ),
            ]
        for one in builds:
            one.result()
        stamp.write_text(state)
    return Built(site, runtime, programs)


def _state(clang: str) -> str:
    """Return what tells one state of the code, and one compiler, from another."""
    version = subprocess.run([clang, "--version"], check=True, capture_output=True).stdout
    digest = hashlib.sha256(version)
    files = [*ROOT.glob("ext/*"), *ROOT.glob("geolookup/**/*"), *HERE.glob("*.[ch]")]
    for path in sorted([*files, HERE / "building.py", ROOT / "setup.py"]):
        if path.is_file() and path.suffix not in {".so", ".pyc"}:
            digest.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _archive(clang: str, name: str) -> Path:
    found = subprocess.run(
        [clang, f"-print-file-name=libclang_rt.{name}-x86_64.a"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(found.stdout.strip())


def _build_program(clang: str, level: str, source: Path, target: Path) -> None:
    command = [clang, *level.split(), "-std=c11", "-Wall", "-Wextra", "-Werror", *FLAGS]
    command += [f"-fsanitize={SANITIZERS},fuzzer", f"-I{ROOT / 'ext'}", str(source)]
    subprocess.run([*command, "-o", str(target), *LIBRARIES.get(source.stem, ())], check=True)


def _build_runtime(clang: str, target: Path) -> None:
    """Link the sanitizers' runtime and libFuzzer into one library.

    Preloaded apart, the runtime's empty stand-ins for the coverage functions would win.
    """
    address = target.with_name("asan.a")
    shutil.copy(_archive(clang, "asan"), address)
    members = subprocess.run(["ar", "t", str(address)], check=True, capture_output=True, text=True)
    # Initialises early in programs, and has no place in a library.
    early = [name for name in members.stdout.split() if name.startswith("asan_preinit")]
    subprocess.run(["ar", "d", str(address), *early], check=True)
    whole = ["-Wl,--whole-archive", str(_archive(clang, "fuzzer_no_main")), str(address)]
    libraries = ["-Wl,--no-whole-archive", "-lstdc++", "-lpthread", "-ldl", "-lrt", "-lm"]
    subprocess.run([clang, "-shared", "-fPIC", "-o", str(target), *whole, *libraries], check=True)
