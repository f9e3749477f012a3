"""The project's pages, and what stands on them: links, fences, names in backticks."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"(?:^<!-- file: (?P<file>\S+) -->\n)?^```(?P<kind>\S*)[^\n]*\n(?P<text>.*?)^```$",
    re.M | re.S,
)


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files under version control, or all of them where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        return tuple(path for path in files if not path.parts[0].startswith((".", "build")))
    return tuple(path for path in map(Path, listed.stdout.splitlines()) if (ROOT / path).exists())


@cache
def pages() -> tuple[Path, ...]:
    """Return all pages, relative to the root."""
    return tuple(path for path in tracked() if path.suffix == ".md")


@cache
def read(page: Path) -> str:
    """Return a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Fence:
    """What stands between two lines of ```.

    Attributes:
        kind: what follows the first ```, such as "console".
        text: the lines between them.
        file: the name in a comment `<!-- file: NAME -->` right before it, or empty.
    """

    kind: str
    text: str
    file: str


def fences(page: Path) -> tuple[Fence, ...]:
    """Return the fences of a page, in order."""
    return tuple(
        Fence(found["kind"], found["text"], found["file"] or "")
        for found in _FENCE.finditer(read(page))
    )


def prose(page: Path) -> str:
    """Return a page without what stands in fences."""
    return _FENCE.sub("", read(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def in_backticks(page: Path) -> set[str]:
    """Return what stands in backticks outside of fences."""
    return set(re.findall(r"`([^`\n]+)`", prose(page)))
