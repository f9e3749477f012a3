"""Declares the extension modules; everything else is in pyproject.toml."""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

# CI builds with GEOLOOKUP_WERROR=1. A user's newer compiler must not fail the
# build over a warning that was not known when this was released.
STRICT = ["-Wall", "-Wextra", "-Werror"] if os.environ.get("GEOLOOKUP_WERROR") == "1" else []
# Who sets a level of optimisation in CFLAGS, as sanitizers do, gets it.
LEVEL = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O3"]
ARGS = [*LEVEL, "-std=c11", *STRICT]
HEADERS = sorted([*glob("ext/*.h"), *glob("ext/*.pxd")])

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"geolookup.{name}",
                [f"ext/{name}.pyx"],
                ["ext"],
                depends=HEADERS,
                extra_compile_args=ARGS,
            )
            for name in ("_core", "_sweep", "_meter")
        ],
        build_dir="build/cython",
        include_path=["ext"],  # of the .pxd files
        language_level=3,
    )
)
