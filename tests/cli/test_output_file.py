"""Where commands write: never over what they read, and to standard output where asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small_dataset
from command_line import exit_code

import geolookup
from geolookup.answer import dataset as datasets

MANIFEST = """
canaries = "canaries.csv"

[[source]]
name = "one"
files = ["one.csv", "folder"]
licence = "CC0-1.0"
date = 2026-06-01
coverage = "full"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an input of each kind, as the working folder."""
    (tmp_path / "m.toml").write_text(MANIFEST)
    (tmp_path / "one.csv").write_text("1.0.0.0,1.255.255.255,CN\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "two.csv").write_text("2.0.0.0,2.255.255.255,DE\n")
    (tmp_path / "canaries.csv").write_text("1.0.1.1,CN\n")
    (tmp_path / "sets.toml").write_text(
        '[region_sets.X]\ncodes = ["CN"]\nversion = "1"\nsource = "me"\n'
    )
    (tmp_path / "d.geolookup").write_bytes(datasets.encode(small_dataset.content()))
    (tmp_path / "old.svg").write_bytes(datasets.encode(small_dataset.content()))
    (tmp_path / "r.png").write_text("")
    (tmp_path / "link").symlink_to("one.csv")
    os.link(tmp_path / "m.toml", tmp_path / "hard")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "compile m.toml -o m.toml",
        "compile m.toml -o ./m.toml",
        "compile m.toml -o hard",
        "compile m.toml -o one.csv",
        "compile m.toml -o link",
        "compile m.toml -o canaries.csv",
        "compile m.toml -o folder/two.csv",
        "export d.geolookup -f csv -o d.geolookup",
        "export d.geolookup -f mmdb -o d.geolookup",
        "export d.geolookup -f csv -r X --region-sets sets.toml -o sets.toml",
        "map old.svg -o old.svg",
        "map --diff old.svg -o old.svg",
        "report r.png --plot r.png",
        "impact d.geolookup old.svg -r CN --plot old.svg",
        "impact d.geolookup -r CN --new-policy primary --roster r.png --plot r.png",
        "evaluate old.svg --truth one.csv --plot old.svg",
        "update --manifest m.toml --dataset m.toml",
        "update --manifest m.toml --canaries canaries.csv --dataset canaries.csv",
        "sign d.geolookup --key d.geolookup.sig",
    ],
)
def test_output_that_is_an_input_is_refused(
    place: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "d.geolookup.sig").write_text("a key")
    before = contents(place)
    assert exit_code(*command.split()) == 2
    assert "is read by this command and would be lost" in capsys.readouterr().err
    assert contents(place) == before


def test_output_in_a_folder_of_sources_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("compile", "m.toml", "-o", "folder/new.geolookup") == 2
    assert "whose files are all read as sources" in capsys.readouterr().err
    assert not (place / "folder" / "new.geolookup").exists()


def test_output_beside_inputs_is_written(place: Path) -> None:
    assert exit_code("compile", "m.toml", "-o", "new.geolookup") == 0
    with geolookup.open(place / "new.geolookup") as opened:
        assert opened.country("2.0.0.1") == "DE"


def test_hyphen_is_standard_output_of_compile(
    place: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert exit_code("compile", "m.toml", "-o", "-") == 0
    content = capfdbinary.readouterr().out
    with datasets.Dataset.from_buffer(content, "standard output") as opened:
        assert opened.country("1.0.0.1") == "CN"
    assert not (place / "-").exists()


def test_hyphen_is_a_png_on_standard_output_of_map(
    place: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert exit_code("map", "d.geolookup", "-o", "-") == 0
    assert capfdbinary.readouterr().out.startswith(b"\x89PNG\r\n")
    assert not (place / "-").exists()


@pytest.mark.parametrize("command", ["compile m.toml -o -", "map -o -", "export -f mmdb -o -"])
@pytest.mark.usefixtures("place")
def test_binary_output_on_a_terminal_is_refused(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert exit_code(*command.split()) == 2
    assert "not for terminals" in capsys.readouterr().err
