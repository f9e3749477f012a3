"""The shape of the package, read from its imports: who may use whom, and who may open files."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
import types
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from geolookup import _moved

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "geolookup"

# Each part may import the parts above it, and itself. Where a room has an order of its own,
# its modules stand here by their names; the others of a room rank as the room.
PARTS = (
    (
        "_moved",
        "errors",
        "atomic",
        "_arrow",
        "machine",
        "_core",
        "_http2",
        "_http2_client",
        "_meter",
        "_sweep",
    ),
    ("tomlfile", "answer.subdivisions"),
    ("answer.claims", "answer.country_codes", "answer.intervals", "answer.signature", "answer.age"),
    (
        "answer.region_sets",
        "answer.embedded_ipv4",
        "answer.addresses",
        "answer.evidence",
        "answer.overrides",
    ),
    ("answer.arrow", "answer.client_address"),
    ("answer.explanation", "answer.decision_record", "answer.participants"),
    ("answer.results",),
    ("answer.file_format",),
    ("answer.overlay",),
    ("answer.dataset",),
    ("answer.default_dataset", "answer.pyarrow_columns"),
    ("__init__", "answer"),
    ("change_limits",),
    ("build.sources", "build.special_purpose", "build.subdivision_names"),
    ("build.readers",),
    ("build.manifest", "build.evidence_section"),
    ("build.compiler", "build"),
    ("review",),
    ("export", "pictures", "update"),
    ("v1", "admin"),
    ("client.tls",),
    ("client",),
    ("duckdb", "pandas", "polars", "spark"),
    ("service",),
    ("cli",),
    ("__main__",),
)
RANK = {part: rank for rank, parts in enumerate(PARTS) for part in parts}

GRPC = (
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "grpc_channelz",
    "google.protobuf",
    "geolookup.v1",
    "geolookup.admin",
)
MAY_USE_GRPC = ("service", "client", "client.tls", "v1", "admin")

MAY_OPEN_FILES = (
    "atomic",
    "machine",
    "tomlfile",
    "answer.dataset",
    "answer.decision_record",
    "answer.signature",
    "build.readers",
    "build.manifest",
    "review.verification",
    "update",
    "client.tls",
    "service",
    "cli",
)
OPENERS = {
    "open",
    "fdopen",
    "mmap",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "mkstemp",
    "mkdtemp",
    "NamedTemporaryFile",
    "TemporaryFile",
    "TemporaryDirectory",
}

MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """Return the longest part that a module belongs to: ``cli`` for ``geolookup.cli.csv``."""
    names = module.split(".")[1:] or ["__init__"]
    while names and ".".join(names) not in RANK:
        names.pop()
    return ".".join(names)


def dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return (
        path.is_dir()
        or path.with_suffix(".py").is_file()
        or path.with_suffix(".pyi").is_file()  # compiled
        or (ROOT / "ext" / f"{path.name}.pyx").is_file()
    )


def imports(path: Path, tree: ast.AST) -> Iterator[str]:
    """Yield the modules that a file imports anywhere in it, by their full names."""
    package = dotted(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                own = base.split(".")[0] == "geolookup"
                yield full if own and is_module(full) else base


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def called_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def test_every_module_has_a_place_in_the_order() -> None:
    assert MODULES
    assert {part_of(dotted(path)) for path in MODULES} <= set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(dotted(path))
    wrong = [
        name
        for name in imports(path, parse(path))
        if name.split(".")[0] == "geolookup"
        and part_of(name) != part
        and RANK[part_of(name)] >= RANK[part]
    ]
    assert not wrong, f"{path} may not import {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_grpc_stays_in_service_and_client(path: Path) -> None:
    if part_of(dotted(path)) in MAY_USE_GRPC:
        return
    wrong = [
        name
        for name in imports(path, parse(path))
        if any(name == one or name.startswith(f"{one}.") for one in GRPC)
    ]
    assert not wrong, f"{path} may not import {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_files_are_opened_in_few_places(path: Path) -> None:
    part = part_of(dotted(path))
    if part in MAY_OPEN_FILES:
        return
    tree = parse(path)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called_name(node) in OPENERS
    ]
    if part in ("build.special_purpose", "answer.subdivisions", "build.subdivision_names"):
        # Its package data, which is no file of the user's.
        assert "importlib.resources" in set(imports(path, tree))
        calls = [call for call in calls if not isinstance(call.func, ast.Attribute)]
    assert not calls, f"{path} opens a file in line {[call.lineno for call in calls]}"


def test_module_names_say_what_they_hold() -> None:
    folders = ("geolookup", "tests", "bench", "ext")
    names = {path.stem for folder in folders for path in (ROOT / folder).rglob("*.py*")}
    assert names.isdisjoint({"utils", "util", "helpers", "helper", "common", "misc", "tools"})


def test_every_folder_of_tests_is_collected(pytestconfig: pytest.Config) -> None:
    left_out = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    assert Path("tests/build") in folders
    for folder in folders:
        assert not any(fnmatch(part, pattern) for part in folder.parts for pattern in left_out)


def test_no_test_module_is_imported_by_another_file() -> None:
    """What tests share lies in modules of its own: an imported test module is collected twice."""
    files = {
        path.relative_to(ROOT)
        for name in ("tests", "bench")
        for path in (ROOT / name).rglob("*.py")
    }
    modules = {path.stem for path in files if path.name.startswith("test_")}
    assert "test_layout" in modules
    for path in files:
        imported = {part for name in imports(path, parse(path)) for part in name.split(".")}
        assert imported.isdisjoint(modules), path


def test_ext_is_no_python_package() -> None:
    assert not list((ROOT / "ext").rglob("__init__.py*"))


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh process has loaded after running *code*."""
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.split(".")[0] for name in printed.stdout.split()} | set(printed.stdout.split())


HEAVY = {"grpc", "google.protobuf", "numpy", "click", "pyroaring", "hypothesis", "asyncio"}


def test_importing_geolookup_is_light() -> None:
    assert HEAVY.isdisjoint(loaded_by("import geolookup"))


def test_answering_is_light() -> None:
    loaded = loaded_by("import geolookup\nwith geolookup.open() as d: d.country('1.0.1.1')")
    assert "geolookup.answer.dataset" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_a_worker_of_the_native_transport_does_not_load_what_only_others_need() -> None:
    """gRPC is a quarter of such a worker's memory, and each worker would have it for itself."""
    loaded = loaded_by(
        "import geolookup.service.processes.worker_main\n"
        "from geolookup.service.rpc import transports\n"
        "if transports.build.missing(tls=False) is None:\n"
        "    import geolookup.service.rpc.transports.native"
    )
    assert "google.protobuf" in loaded
    assert {"grpc", "grpc_reflection", "asyncio", "ssl", "opentelemetry"}.isdisjoint(loaded)


PUBLIC = {
    "geolookup": {
        "Answer", "Dataset", "DatasetClosedError", "DatasetError", "GeoLookupError", "Policy",
        "AddressSource", "ClientAddress", "FoundAddress", "Network", "Reason",
        "RegionSet", "RegionSetError", "RosterError", "RosterResult", "RosterTooLargeError",
        "ServiceError", "ServiceUnavailableError", "SourceError", "Status", "Verdict",
        "__version__", "open",
    },
    "geolookup.client": {
        "AsyncClient", "Client", "Coalescing", "CredentialsError", "Retry", "tls_credentials",
    },
    "geolookup.errors": {
        "DatasetClosedError", "DatasetError", "GeoLookupError", "MissingExtraError",
        "NoRosterError", "RegionSetError", "RosterError", "RosterTooLargeError", "ServiceError",
        "ServiceUnavailableError", "SourceError",
    },
}  # fmt: skip
"""The public API. All other modules and names may change with any version."""


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_exactly_these(module: str) -> None:
    package = importlib.import_module(module)
    assert sorted(package.__all__) == sorted(PUBLIC[module])
    defined = {name for name in vars(package) if not name.startswith("_")}
    modules = {name for name in defined if isinstance(getattr(package, name), types.ModuleType)}
    assert defined - modules - {"annotations"} <= PUBLIC[module]
    assert PUBLIC[module] <= set(vars(package))


@pytest.mark.parametrize(
    "code",
    [
        "import geolookup.regions",
        "import geolookup.regions as regions",
        "from geolookup import regions",
        "from geolookup.regions import RegionSet",
        "import geolookup; geolookup.regions",
    ],
)
def test_old_module_name_fails_with_the_new_one(code: str) -> None:
    with pytest.raises(
        (ImportError, AttributeError), match=r"geolookup\.regions is now geolookup\.answer\.region"
    ):
        exec(code, {})  # noqa: S102 - import statements are what is tested


def test_every_old_module_name_has_a_place_that_exists() -> None:
    for old, new in _moved._MOVED.items():
        assert importlib.util.find_spec(f"geolookup.{new}")
        assert not (PACKAGE / f"{old}.py").exists()


def test_unknown_module_fails_as_usual() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'geolookup\.nowhere'"):
        importlib.import_module("geolookup.nowhere")
