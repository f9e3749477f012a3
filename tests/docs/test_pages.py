"""What pages name exists: links, paths, tools, options; and pages that the code names exist."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pages import ROOT, anchors, fences, in_backticks, pages, prose, read, tracked

from geolookup.build import manifest
from geolookup.cli import command as command_line
from geolookup.service.settings import model, source

LINK = re.compile(r"\]\(([^)\s]+)\)")
TOOL = re.compile(r"python3? -m ((?:bench|tests)(?:\.\w+)*)")
PATH = re.compile(
    r"(?<![\w/.-])((?:tests|bench|docs|deploy|geolookup|ext|proto|data|examples)/(?:[\w.-]+/)*"
    r"[\w-]+\.(?:py|pyi|pyx|pxd|md|h|c|toml|ya?ml|json|service|timer|proto|svg|csv|geolookup))\b"
)
FOREIGN = {
    "--benchmark-only",
    "--benchmark-disable",  # pytest-benchmark's
    "--clients",
    "--data",
    "--rps",  # h2load's
    "--inplace",  # setuptools'
}
"""Options of other people's tools that pages name by themselves."""
LONGEST = 120
"""Characters of a line, so that a change of a page can be read beside the page."""
TEXT = {".py", ".pyi", ".pyx", ".pxd", ".h", ".c", ".toml", ".yml", ".yaml", ".proto", ".service"}

each_page = pytest.mark.parametrize("page", pages(), ids=str)


def test_the_pages_are_found() -> None:
    assert {Path("README.md"), Path("docs/answers.md"), Path("bench/README.md")} <= set(pages())


@each_page
def test_link_targets_exist(page: Path) -> None:
    for link in LINK.findall(read(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = ROOT / page.parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.relative_to(ROOT)), link


@each_page
def test_tools_that_are_named_exist(page: Path) -> None:
    for name in TOOL.findall(read(page)):
        assert importlib.util.find_spec(name), name


@each_page
def test_paths_in_backticks_exist(page: Path) -> None:
    """Those whose first folder is one of the project's. A `*` stands for any name."""
    folders = {path.parts[0] for path in tracked() if len(path.parts) > 1}
    for name in sorted(in_backticks(page)):
        if not re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?|[\w.-]+/", name):
            continue
        if name.split("/")[0] in folders:
            assert next(ROOT.glob(name.rstrip("/")), None), name


@each_page
def test_tests_that_are_named_exist(page: Path) -> None:
    named = {name for name in in_backticks(page) if re.fullmatch(r"test_\w+", name)}
    assert not named - names_of_tests()


def names_of_tests() -> set[str]:
    """Return the names of all tests."""
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }


def options(command: click.Command) -> Iterator[str]:
    """Yield all options of a command and of those below it."""
    context = click.Context(command)
    for parameter in command.get_params(context):
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below)


def of_tools() -> set[str]:
    """Return the options of the tools in `bench` and `tests`, and of the suite."""
    return {
        option
        for path in tracked()
        if path.suffix == ".py" and path.parts[0] in {"bench", "tests", "proto"}
        for option in re.findall(r'"(--[a-z][\w-]*)"', (ROOT / path).read_text(encoding="utf-8"))
    }


@each_page
def test_options_in_backticks_exist(page: Path) -> None:
    text = prose(page)
    named = {
        option
        for token in re.findall(r"`([^`\n]+)`", text)
        for option in re.findall(r"(?<![\w-])(--[a-z][\w-]*)", token)
    }
    assert not named - set(options(command_line)) - of_tools() - FOREIGN


def test_every_command_is_named_on_a_page() -> None:
    text = "".join(map(read, pages()))
    commands = command_line.list_commands(click.Context(command_line))
    assert not [name for name in commands if f"geolookup {name}" not in text]


def test_every_key_of_a_manifest_is_on_its_page() -> None:
    keys = {*manifest._MANIFEST_KEYS, *manifest._SOURCE_KEYS, *manifest.OVERRIDE_KEYS}
    page = Path("docs/manifest.md")
    named = {re.sub(r"[^\w]", "", name) for name in in_backticks(page)}
    assert not keys - named


@each_page
def test_variables_that_are_named_exist(page: Path) -> None:
    known = {row.variable for row in model.table()}
    known |= {"GEOLOOKUP_CONFIG", *source._NOT_OURS}
    named = {
        name for name in re.findall(r"\bGEOLOOKUP_[A-Z_]+\b", prose(page)) if name != "GEOLOOKUP_"
    }
    # What Kubernetes says of a Service of this name, which is none of ours.
    named -= {"GEOLOOKUP_SERVICE_HOST", "GEOLOOKUP_PORT"}
    assert not named - known


@each_page
def test_lines_are_short(page: Path) -> None:
    # The table of settings is written by a test, a row a line.
    text = re.sub(r"<!-- settings -->.*<!-- end of settings -->", "", read(page), flags=re.S)
    long = [line[:60] for line in text.splitlines() if len(line) > LONGEST]
    assert not long


def test_the_knee_in_the_picture_is_the_one_on_the_page() -> None:
    (knee,) = re.findall(r"knee: ([\d,]+)/s", (ROOT / "docs/knee.svg").read_text(encoding="utf-8"))
    assert f"{knee} joins a second" in read(Path("docs/load.md"))


def test_architecture_answers_ten_questions_with_two_files_each() -> None:
    table = read(Path("docs/architecture.md")).partition("\n| question | files |\n")[2]
    rows = [row.split(" | ")[1] for row in table.partition("\n\n")[0].splitlines()[1:]]
    assert [len(re.findall("`[^`]+`", files)) for files in rows] == [
        len(files.split(", ")) for files in rows
    ]
    assert len(rows) == 10
    assert all(len(files.split(", ")) <= 2 for files in rows)


def test_every_page_is_in_the_index() -> None:
    index = Path("docs/index.md")
    listed = {
        (ROOT / index.parent / link.partition("#")[0]).resolve().relative_to(ROOT)
        for link in LINK.findall(read(index))
        if "://" not in link
    }
    expected = {page for page in pages() if page.name != "index.md"}
    assert listed >= expected, expected - listed


@pytest.mark.parametrize("name", sorted({path.parts[0] for path in tracked()}))
def test_files_named_in_code_exist(name: str) -> None:
    """Pages, tests and others, in comments, docstrings and texts; also without first folders."""
    names = [f"/{path}" for path in tracked()]
    for path in tracked():
        if path.parts[0] != name or not (path.suffix in TEXT or name == ".ci"):
            continue
        for named in PATH.findall((ROOT / path).read_text(encoding="utf-8")):
            assert any(one.endswith(f"/{named}") for one in names), f"{path}: {named}"


@each_page
def test_toml_blocks_can_be_read(page: Path) -> None:
    import tomllib  # noqa: PLC0415

    for fence in fences(page):
        if fence.kind == "toml":
            tomllib.loads(fence.text)
