"""What the compiler makes of the core: hot loops that never touch Python."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from Cython.Compiler.Main import CompilationOptions, compile_single
from Cython.Compiler.Options import default_options

EXT = Path(__file__).resolve().parents[2] / "ext"
HEADERS = sorted(EXT.glob("*.h"))
MODULES = ("_arrow", "_core", "_http2", "_http2_client", "_meter", "_sweep")

# With the GIL released, generated code may mark its place and call the headers.
HARMLESS = {"__Pyx_FastGIL_Remember", "__Pyx_FastGIL_Forget"}

# Macros that read or write a field of an object, and call nothing.
MACROS = {
    "PyUnicode_Check",
    "PyUnicode_GET_LENGTH",
    "PyBytes_CheckExact",
    "PyBytes_GET_SIZE",
    "PyBytes_AS_STRING",
    "PyTuple_GET_ITEM",
    "PyTuple_Check",
    "PyList_SET_ITEM",
    "PyList_Check",
    "PySequence_Fast_GET_SIZE",
    "PySequence_Fast_ITEMS",
}
COUNTING = {"__Pyx_INCREF", "__Pyx_DECREF", "Py_INCREF"}


@dataclass(frozen=True)
class Hot:
    """Lines of a .pyx that run for each address, or for each text of a line.

    Attributes:
        module: where they are.
        begins: the statement that they begin with; they are its block, and itself.
        calls: what they may call, of Python.
        cold: statements whose blocks run once and not each time. Those that raise are too.
    """

    module: str
    begins: str
    calls: frozenset[str]
    cold: tuple[str, ...] = ()


HOT = (
    # A roster of texts is read with the GIL held.
    Hot("_core", "while begin < n:", frozenset(MACROS)),
    # One address: the ways of text and of packed bytes.
    Hot("_core", "if PyUnicode_Check(item):", frozenset(MACROS)),
    Hot("_core", "if PyBytes_CheckExact(item):", frozenset(MACROS)),
    # The claim, whose value alone says whether to ask for an error, and one more reference.
    Hot(
        "_core",
        "return <object>PyTuple_GET_ITEM(self.labels",
        frozenset(
            {*MACROS, *COUNTING, "__Pyx_XDECREF", "PyErr_Occurred"}
            | {"__pyx_f_9geolookup_5_core_5Table__claim"}
        ),
    ),
    # Codes as str: an object that exists is counted once more, and put in its place.
    Hot("_core", "for i in range(n):", frozenset(MACROS | COUNTING), ("if text == NULL:",)),
    Hot(
        "_core",
        "for group in range(n):",
        frozenset(MACROS | {"PyLong_CheckExact", "PyLong_AsLongLongAndOverflow"}),
    ),
    Hot("_sweep", "for index in range(0, size, 2):", frozenset()),
)


def without_comments(source: str) -> str:
    return re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)


@functools.cache
def source(module: str) -> tuple[str, ...]:
    return tuple((EXT / f"{module}.pyx").read_text(encoding="utf-8").splitlines())


@functools.cache
def generated(module: str) -> str:
    """Return the C that Cython makes of a module."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, f"{module}.c")
        options = CompilationOptions(
            default_options, language_level=3, output_file=str(target), include_path=[str(EXT)]
        )
        result = compile_single(str(EXT / f"{module}.pyx"), options, f"geolookup.{module}")
        assert result.num_errors == 0
        return target.read_text(encoding="utf-8")


def python_calls(code: str) -> set[str]:
    return set(re.findall(r"\b(_*[Pp]y\w+)\s*\(", code))


def depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def block(lines: tuple[str, ...], begin: int) -> list[int]:
    """Return the numbers, from 0, of a statement's line and of those of its block."""
    found = [begin]
    for number in range(begin + 1, len(lines)):
        if lines[number].strip() and depth(lines[number]) <= depth(lines[begin]):
            break
        found.append(number)
    return found


def raising(lines: tuple[str, ...], inside: list[int]) -> Iterator[int]:
    """Yield the lines of blocks that end by raising."""
    for number in inside:
        if not lines[number].lstrip().startswith("raise "):
            continue
        at = number
        while depth(lines[at]) >= depth(lines[number]):
            yield at
            at -= 1
        yield from block(lines, number)


def hot_lines(hot: Hot) -> set[int]:
    lines = source(hot.module)
    begins = [number for number, line in enumerate(lines) if line.lstrip().startswith(hot.begins)]
    assert begins, hot.begins
    found: set[int] = set()
    for begin in begins:
        inside = block(lines, begin)
        cold = set(raising(lines, inside))
        for number in inside:
            if lines[number].strip() in hot.cold:
                cold |= set(block(lines, number)[1:])
        found |= {number for number in inside if lines[number].strip()} - cold
    return found


@functools.cache
def by_line(module: str) -> dict[int, str]:
    """Return the C of each line of a module, by the line's number from 0."""
    found: dict[int, str] = {}
    # Cython quotes each line, with its place, before the code for it.
    parts = re.split(rf'/\* "[^"]*{module}\.pyx":(\d+)\n.*?\*/', generated(module), flags=re.DOTALL)
    for number, code in zip(parts[1::2], parts[2::2], strict=True):
        # What follows the last line of a function is its way out.
        body = re.split(r"\n\}|\n  /\* function exit code \*/", code)[0]
        found[int(number) - 1] = found.get(int(number) - 1, "") + without_comments(body)
    return found


def test_headers_of_the_loops_include_no_python() -> None:
    names = {path.name for path in HEADERS}
    assert {"address.h", "bulk.h", "columns.h", "lookup.h", "roaring.h", "wire.h"} <= names
    assert {"cpu_dispatch.h", "index.h", "roster_answer.h", "roster_text.h"} <= names
    for path in HEADERS:
        code = without_comments(path.read_text(encoding="utf-8"))
        assert not re.search(r"\bPy[A-Z_]\w*|\bPython\.h\b|__pyx", code), path.name


@pytest.mark.parametrize("module", MODULES)
def test_wrapper_has_no_loop_without_the_gil(module: str) -> None:
    """Inside each `with nogil` stands one call into the headers."""
    lines = source(module)
    blocks = 0
    for number, line in enumerate(lines):
        if line.strip() != "with nogil:":
            continue
        blocks += 1
        body = [lines[inside].strip() for inside in block(lines, number)[1:]]
        call = " ".join(part for part in body if part)
        call = re.sub(r"^\w+ = ", "", call)
        assert re.fullmatch(r"(glc?_\w+|(self\.isa|path)\.\w+|self\._run)\(.*\)", call), call
    assert blocks > {"_core": 10, "_http2": 2, "_http2_client": 4}.get(module, -1)


@pytest.mark.parametrize(
    "module", ["_core", "_http2", "_http2_client"]
)  # the others never release it
def test_generated_code_calls_no_python_while_the_gil_is_released(module: str) -> None:
    code = without_comments(generated(module))
    regions = re.findall(r"\bPyEval_SaveThread\(\);(.*?)\bPyEval_RestoreThread\(", code, re.DOTALL)
    assert len(regions) > {"_core": 10, "_http2": 2, "_http2_client": 4}[module]
    for region in regions:
        called = python_calls(region) - HARMLESS
        methods = {name for name in called if re.search(r"_5_core_5Table__run$", name)}
        assert called == methods, region


def test_the_method_that_runs_without_the_gil_calls_no_python() -> None:
    run = re.search(
        r"static CYTHON_INLINE void \w+_5Table__run\([^;{]*\)\s*\{.*?\n\}",
        without_comments(generated("_core")),
        re.DOTALL,
    )
    assert run is not None
    assert not python_calls(run.group().partition("{")[2])


@pytest.mark.parametrize("hot", HOT, ids=lambda hot: hot.begins)
def test_code_per_address_under_the_gil_only_reads_objects(hot: Hot) -> None:
    lines = hot_lines(hot)
    code = by_line(hot.module)
    assert lines & set(code), "Cython no longer says which line its code is for"
    for number in sorted(lines):
        called = python_calls(code.get(number, ""))
        assert called <= hot.calls, f"{hot.module}.pyx:{number + 1}: {called - hot.calls}"
