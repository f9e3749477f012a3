"""Declares the extension modules; everything else is in pyproject.toml."""

# ruff: noqa: S603, S607, T201 - a build script: it asks pkg-config, and says what it lacks

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command import build_ext

# The dataset file has little-endian numbers, and is used where it lies.
if sys.byteorder != "little":
    sys.exit("geolookup: can't be installed here: it needs a little-endian machine")

# CI builds with GEOLOOKUP_WERROR=1. A user's newer compiler must not fail the
# build over a warning that was not known when this was released.
STRICT = ["-Wall", "-Wextra", "-Werror"] if os.environ.get("GEOLOOKUP_WERROR") == "1" else []
if STRICT and sys.version_info >= (3, 15):
    # Of Python 3.15's PyTypeObject what Cython 3.3 writes leaves the last field out, which is 0.
    STRICT.append("-Wno-missing-field-initializers")
# Who sets a level of optimisation in CFLAGS, as sanitizers do, gets it.
LEVEL = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O3"]
ARGS = [*LEVEL, "-std=c11", *STRICT]
HEADERS = sorted([*glob("ext/*.h"), *glob("ext/*.pxd")])


def library(*names: str) -> tuple[list[str], list[str]] | None:
    """Return what compiler and linker need for these libraries; None: they are not here."""
    try:
        compiler, linker = (
            shlex.split(subprocess.check_output(["pkg-config", option, *names], text=True))
            for option in ("--cflags", "--libs")
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return compiler, linker


def extension(name: str, compiler: list[str], linker: list[str]) -> Extension:
    """Return the module that is made of the file of this name in ext/."""
    return Extension(
        f"geolookup.{name}",
        [f"ext/{name}.pyx"],
        ["ext"],
        depends=HEADERS,
        extra_compile_args=[*ARGS, *compiler],
        extra_link_args=linker,
    )


class BuildExtensions(build_ext.build_ext):
    """Compiles on all cores, and says what to install where there is nothing to compile with."""

    def finalize_options(self) -> None:
        """Take as many compilers at once as there are cores, if not told how many."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self) -> None:
        """Build all, if there are a compiler and Python's headers."""
        missing = []
        compiler = self.compiler.compiler_so[0]
        if shutil.which(compiler) is None:
            missing.append(f"the C compiler {compiler}")
        # Another processor's headers lie where whoever builds for it says.
        headers = Path(sysconfig.get_path("include"), "Python.h")
        if "_PYTHON_HOST_PLATFORM" not in os.environ and not headers.is_file():
            missing.append(f"Python's headers ({headers})")
        if missing:
            raise SystemExit(
                f"geolookup: can't be built without {' and '.join(missing)}.\n"
                "Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev\n"
                "Fedora, RHEL: dnf install gcc python3-devel\n"
                "Alpine: apk add gcc musl-dev python3-dev\n"
                "An installation from a wheel needs neither."
            )
        super().build_extensions()


extensions = [extension(name, [], []) for name in ("_core", "_arrow", "_sweep", "_meter")]
# Without these the service runs over gRPC's public server, and says so: docs/transports.md.
nghttp2, openssl = library("libnghttp2 >= 1.52"), library("openssl >= 3")
if nghttp2 is None:
    print("geolookup: built without the native transport: no libnghttp2 (libnghttp2-dev)")
else:
    compiler, linker = nghttp2
    if openssl is None:
        print("geolookup: the native transport is built without TLS: no OpenSSL 3 (libssl-dev)")
    else:
        compiler = [*compiler, *openssl[0], "-DGEOLOOKUP_TLS"]
        linker = [*linker, *openssl[1]]
    for name in ("_http2", "_http2_client"):
        extensions.append(extension(name, ["-D_GNU_SOURCE", *compiler], [*linker, "-pthread"]))

setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        include_path=["ext"],  # of the .pxd files
        language_level=3,
    ),
)
