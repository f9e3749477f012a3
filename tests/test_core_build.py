"""What the compiler makes of the core: hot loops that never touch Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

EXT = Path(__file__).resolve().parent.parent / "ext"
HEADERS = sorted(EXT.glob("*.h"))

# With the GIL released, generated code may mark its place and call the headers.
HARMLESS = {"__Pyx_FastGIL_Remember", "__Pyx_FastGIL_Forget"}


def without_comments(source: str) -> str:
    return re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)


def test_the_loops_are_in_headers_that_know_nothing_of_python() -> None:
    assert {"address.h", "answer.h", "columns.h", "roaring.h", "table.h", "wire.h"} <= {
        path.name for path in HEADERS
    }
    for path in HEADERS:
        source = without_comments(path.read_text(encoding="utf-8"))
        assert not re.search(r"\bPy[A-Z_]\w*|\bPython\.h\b|__pyx", source), path.name


def test_the_wrapper_has_no_loop_of_its_own_without_the_gil() -> None:
    """Inside each `with nogil` stands one call into the headers."""
    lines = (EXT / "_core.pyx").read_text(encoding="utf-8").splitlines()
    blocks = 0
    for number, line in enumerate(lines):
        if line.strip() != "with nogil:":
            continue
        blocks += 1
        indent = len(line) - len(line.lstrip())
        body = []
        for following in lines[number + 1 :]:
            if following.strip() and len(following) - len(following.lstrip()) <= indent:
                break
            body.append(following.strip())
        call = " ".join(part for part in body if part)
        call = re.sub(r"^\w+ = ", "", call)
        assert re.fullmatch(r"(gl_\w+|(self\.isa|path)\.\w+|self\._run)\(.*\)", call), call
    assert blocks > 10


def test_generated_code_calls_no_python_while_the_gil_is_released(tmp_path: Path) -> None:
    """Reads the C that Cython generates for the core."""
    pytest.importorskip("Cython", reason="comes with the build, not with the tests")
    from Cython.Compiler.Main import CompilationOptions, compile_single  # noqa: PLC0415
    from Cython.Compiler.Options import default_options  # noqa: PLC0415

    generated = tmp_path / "_core.c"
    options = CompilationOptions(
        default_options, language_level=3, output_file=str(generated), include_path=[str(EXT)]
    )
    result = compile_single(str(EXT / "_core.pyx"), options, "geolookup._core")
    assert result.num_errors == 0
    source = without_comments(generated.read_text(encoding="utf-8"))
    regions = re.findall(
        r"\bPyEval_SaveThread\(\);(.*?)\bPyEval_RestoreThread\(", source, re.DOTALL
    )
    assert len(regions) > 10
    for region in regions:
        called = set(re.findall(r"\b(_*[Pp]y\w+)\s*\(", region)) - HARMLESS
        methods = {name for name in called if re.search(r"_5_core_5Table__run$", name)}
        assert called == methods, region
    run = re.search(
        r"static CYTHON_INLINE void \w+_5Table__run\([^;{]*\)\s*\{.*?\n\}", source, re.DOTALL
    )
    assert run is not None
    assert not re.findall(r"\bPy[A-Z_]\w*\s*\(", run.group())
