"""The examples of the pages run, and print what the pages show.

A page's fences of the kind `console` run in order, in one shell and one temporary folder in
which `data`, `deploy` and `examples` are the project's. Lines that begin with `$ ` are
commands; what follows is their output, with standard error, where any is shown. Figures,
dates and ids are masked, a line `...` stands for any lines, and a `…` for the rest of a word.
A fence after `<!-- file: NAME -->` is written to that file, when the page reaches it.
Python in `README.md` runs line by line, and gives what its comments say.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pages import ROOT, Fence, fences, pages

import geolookup

PATIENCE = 120
"""Seconds for a page."""
PORTS = (50051, 50052, 9464, 8080)
"""Of the defaults, which the examples use as a newcomer would, and of JSON over HTTP."""
LINKED = ("data", "deploy", "examples", "bench", "proto")
MARK = "@@@@"

WITH_EXAMPLES = tuple(page for page in pages() if any(f.kind == "console" for f in fences(page)))


@dataclass
class Command:
    """A command of a page, and what the page shows of its output.

    Attributes:
        text: as for the shell.
        shown: the lines shown; none: its output is not compared.
    """

    text: str
    shown: list[str] = field(default_factory=list)

    @property
    def is_in_background(self) -> bool:
        """Whether it goes on beside the next ones."""
        return self.text.rstrip().endswith(" &")

    @property
    def may_fail(self) -> bool:
        """Whether an error is what the page shows."""
        return any(line.startswith("geolookup: ") for line in self.shown)


def commands(fence: Fence) -> Iterator[Command]:
    """Yield the commands of a fence."""
    command: Command | None = None
    continued = False
    for line in fence.text.splitlines():
        if continued and command is not None:
            command.text += "\n" + line
        elif line.startswith("$ "):
            if command is not None:
                yield command
            command = Command(line[2:])
        elif command is not None:
            command.shown.append(line)
        continued = command is not None and not command.shown and line.endswith("\\")
    if command is not None:
        while command.shown and not command.shown[-1].strip():
            command.shown.pop()
        yield command


def script(page: Path) -> tuple[str, list[Command]]:
    """Return what runs the examples of a page, and the commands whose output it marks."""
    lines = ["set -u", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    run: list[Command] = []
    for fence in fences(page):
        if fence.file:
            lines.append(f"printf %s {shlex.quote(fence.text)} > {shlex.quote(fence.file)}")
        if fence.kind != "console":
            continue
        for command in commands(fence):
            lines.append(f"echo {MARK}{len(run)}")
            if command.is_in_background:
                # It has said where it listens when the next one runs; that stays its output.
                text = command.text.rstrip().removesuffix("&").partition("  #")[0]
                ready = f"ready{len(run)}"
                lines += [
                    f"mkfifo {ready}",
                    f"{text} > {ready} &",
                    f'exec {{fd}}<> {ready}; read -r line <&$fd; echo "$line"',
                ]
            else:
                lines.append(command.text)
            lines.append(f"rc=$?; echo; echo {MARK}rc $rc")
            run.append(command)
    return "\n".join(lines) + "\n", run


def masked(line: str) -> str:
    """Return a line without what differs from run to run."""
    line = re.sub(r"\b[0-9a-f]{12,64}\b", "ID", line)
    line = re.sub(r"\d[\d.,:]*", "#", re.sub(r"\d{4}-\d\d-\d\d(T[\d:.]+Z?)?", "DATE", line))
    return re.sub(r"[ \t]+", " ", line).strip()


def fits(shown: list[str], printed: list[str]) -> bool:
    """Whether what was printed is what is shown."""
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(fits(shown[1:], printed[start:]) for start in range(len(printed) + 1))
    if not printed:
        return False
    pattern = ".*".join(map(re.escape, masked(shown[0]).split("…")))
    return bool(re.fullmatch(pattern, masked(printed[0]))) and fits(shown[1:], printed[1:])


def joined(lines: list[str]) -> list[str]:
    """Return lines in which an error, which is one line however long, is not cut."""
    found: list[str] = []
    for line in lines:
        if line.startswith("  ") and found and found[-1].startswith("geolookup: "):
            found[-1] += " " + line.strip()
        else:
            found.append(line)
    return found


def alone() -> list[str]:
    """Return what runs a command in a network of its own, whose ports are all free.

    Nothing, where that can't be had and the ports are free here.
    """
    if shutil.which("unshare") and shutil.which("ip"):
        network = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        if subprocess.run([*network, "true"], capture_output=True, check=False).returncode == 0:
            return network
    with ExitStack() as stack:
        for port in PORTS:
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(
                    f"port {port}, which the examples use, is taken, and unshare is not there"
                )
    return []


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=str)
def test_examples_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    text, run = script(page)
    for program in ("curl", "openssl"):
        if re.search(rf"^{program} ", text, re.M) and shutil.which(program) is None:
            pytest.skip(f"{program}, which the page uses, is not installed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Not the transport that other tests of this process chose.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GEOLOOKUP")}
    ended = subprocess.run(
        [*alone(), "bash", "-c", text],
        cwd=tmp_path, env=own | {"PATH": path, "HOME": str(tmp_path)}, timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    outputs = re.split(rf"^{MARK}\d+\n", ended.stdout, flags=re.M)[1:]
    assert len(outputs) == len(run), ended.stdout
    for command, output in zip(run, outputs, strict=True):
        printed, _, code = output.partition(f"{MARK}rc ")
        if not command.may_fail:
            assert code.split()[0] == "0", f"$ {command.text}\n{printed}"
        if command.shown:
            # Lines of the log, of a service in the background, come whenever they do.
            kept = re.sub(r"^.* geolookup\.service: .*\n", "", printed, flags=re.M)
            lines = kept.rstrip().splitlines()
            assert fits(joined(command.shown), lines), f"$ {command.text}\n{printed}"


def test_comparison_finds_a_difference() -> None:
    shown = ["dataset  0123456789ab0123", "...", "CN  1,234  INSIDE"]
    assert fits(shown, ["dataset  ba9876543210ba98", "any", "more", "CN 5 INSIDE"])
    assert not fits(shown, ["dataset  ba9876543210ba98", "CN 5 OUTSIDE"])
    assert not fits(shown, ["dataset  ba9876543210ba98", "CN 5 INSIDE", "one more"])
    assert not fits(["one"], [])


def test_python_of_the_readme_gives_what_its_comments_say() -> None:
    (block,) = [fence.text for fence in fences(Path("README.md")) if fence.kind == "python"]
    checked = 0
    with geolookup.open() as lookup:
        space = {"geolookup": geolookup, "lookup": lookup}
        for line in block.splitlines():
            code, _, comment = line.strip().partition("  # ")
            if not line.startswith(" ") or not code:
                continue
            if re.match(r"\w+ = ", code):
                exec(code, space)  # noqa: S102 - our own page
                continue
            value = eval(code, space)  # noqa: S307 - our own page
            said = comment.partition(": ")[0] if not comment.startswith("{") else comment
            assert (
                said in {repr(value), str(value)} or said == f"{type(value).__name__}.{value.name}"
            ), code
            checked += 1
    assert checked >= 4
