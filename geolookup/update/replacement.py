"""From downloads to a dataset in service: a manifest, compilation, checks, replacement."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from datetime import date
from pathlib import Path
from typing import Final

from geolookup import tomlfile
from geolookup.answer import dataset
from geolookup.atomic import naming, replacing, take_place, target_of, temporary_name
from geolookup.build import manifest
from geolookup.build.compiler import CompiledDataset
from geolookup.build.manifest import Manifest
from geolookup.update.cache import Cache
from geolookup.update.catalogue import Catalogue, Publisher
from geolookup.update.checks import Check
from geolookup.update.downloads import RefreshedSource
from geolookup.update.problems import UpdateError

MANIFEST: Final = "geolookup.toml"
"""Name of the manifest of the downloads, in the cache."""
REFUSED: Final = ".refused"
"""Suffix of a dataset that was refused, beside the one that stays."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """The outcome of `replace`.

    Attributes:
        id: id of the dataset that is in the file now.
        before: id of the one before, or None. The same id: nothing was new.
    """

    id: str
    before: str | None


def write_manifest(refreshed: Sequence[RefreshedSource], cache: Cache) -> Path:
    """Describe sources and lists in a manifest in the cache, in their order; return its path."""
    text = "\n".join(_entry(one, cache.folder) for one in refreshed)
    path = cache.path(MANIFEST)
    with replacing(path) as file:
        file.write(f"# Written by geolookup update, each time.\n\n{text}".encode())
    return path


def used_by(path: Path, catalogue: Catalogue) -> tuple[Publisher, ...]:
    """Return the publishers whose files a manifest names, in the catalogue's order.

    Raises:
        UpdateError: the manifest can't be read.
    """
    content = tomlfile.load(tomlfile.read_raw(path, UpdateError), str(path), UpdateError)
    named: set[object] = set()
    # Not strict: `load_manifest` reads it again, and names what is wrong with it.
    for entries in (content.get("source"), content.get("network")):
        for entry in entries if isinstance(entries, list) else ():
            files = entry.get("files") if isinstance(entry, dict) else None
            named.update(files if isinstance(files, list) else ())
    return tuple(
        publisher
        for publisher in catalogue.publishers
        if any(file.name in named for file in publisher.file)
    )


def load_manifest(path: Path, refreshed: Sequence[RefreshedSource]) -> Manifest:
    """Read a manifest whose file names stand for downloads, where they are downloads' names.

    Other names are relative to the manifest, as always. A source or list of networks that is
    made of downloads has their date, whatever the manifest says.

    Raises:
        SourceError: as `manifest.load` does.
    """
    downloads = [download for one in refreshed for download in one.downloads]
    loaded = manifest.load(path, elsewhere={one.file.name: (one.path,) for one in downloads})
    dates = {one.path: one.version.date for one in downloads}

    def oldest(files: Sequence[Path], otherwise: date) -> date:
        known = [dates[path] for path in files if path in dates]
        # Some of it may be the operator's own.
        return min(known) if len(known) == len(files) else otherwise

    return replace_fields(
        loaded,
        sources=tuple(
            replace_fields(
                entry,
                source=replace_fields(entry.source, date=oldest(entry.files, entry.source.date)),
            )
            for entry in loaded.sources
        ),
        networks=tuple(
            replace_fields(
                entry,
                network_list=replace_fields(
                    entry.network_list, date=oldest(entry.files, entry.network_list.date)
                ),
            )
            for entry in loaded.networks
        ),
    )


def id_of(path: Path) -> str | None:
    """Return the id of a dataset file, which is read as a whole for it; None: there is no file.

    Raises:
        DatasetError: it is damaged.
    """
    if not path.exists():
        return None
    with dataset.open(path) as opened:
        return opened.id


def write(compiled: CompiledDataset, path: Path) -> None:
    """Write a compiled dataset to a file, with all its sections."""
    dataset.write(compiled, path, optional=compiled.optional)


def replace(
    path: Path,
    compile: Callable[[], CompiledDataset],  # noqa: A002 - it is what the step is called
    *,
    write: Callable[[CompiledDataset, Path], object] = write,
    checks: Sequence[Check] = (),
) -> Replacement:
    """Compile a dataset and put it in a file's place, if it is new and passes all checks.

    The new dataset is written beside the old one, opened, which checks
    all checksums, and passed to the checks in their order. One that is refused is kept
    beside the old one, with the suffix `REFUSED`: renaming it accepts it.
    A symbolic link stays: what it means is replaced, and keeps its mode and owner.

    Args:
        path: the dataset file; there may be none yet.
        compile: compiles the new dataset.
        write: writes it to a file.
        checks: what it has to pass.

    Raises:
        UpdateError: a check refused it.
        SourceError: as `compile` does.
        DatasetError: the file that is there is damaged, and can't be compared with.
        OSError: as the operating system has it, such as a full disk.
    """
    before = id_of(path)
    target = Path(target_of(path))
    candidate = Path(temporary_name(str(target)))
    refused = target.with_name(f"{target.name}{REFUSED}")
    try:
        with naming(path):
            write(compile(), candidate)
        identity = id_of(candidate)
        if identity is None:
            raise UpdateError(f"{candidate}: is gone; was it removed?")
        if identity != before:
            try:
                for check in checks:
                    check(candidate, path if before is not None else None)
            except UpdateError as error:
                candidate.replace(refused)
                raise UpdateError(f"{refused}: refused: {error}") from error
            take_place(candidate, str(target))
        refused.unlink(missing_ok=True)  # of an earlier update, and no longer the newest
    finally:
        with suppress(OSError):
            candidate.unlink()
    return Replacement(identity, before)


def _entry(refreshed: RefreshedSource, folder: Path) -> str:
    """Return the entry of a source or a list of networks."""
    publisher = refreshed.publisher
    values = {
        "name": publisher.name,
        "licence": publisher.licence,
        "attribution": publisher.attribution,
        "url": publisher.url,
        "origin": publisher.origin,
    }
    if not publisher.kinds:
        values |= {"format": publisher.format, "coverage": publisher.coverage}
    if publisher.overlaps is not None:
        values["overlaps"] = publisher.overlaps
    lines = [
        "[[network]]" if publisher.kinds else "[[source]]",
        *(f"{key} = {_text(value)}" for key, value in values.items()),
    ]
    if publisher.kinds:
        lines.append(f"kind = [{', '.join(_text(kind.name) for kind in publisher.kinds)}]")
        lines.append(f"vouches = {str(publisher.vouches).lower()}")
    if publisher.keep_days:
        lines.append(f"keep_days = {publisher.keep_days}")
    if publisher.within:
        lines.append(f"within = [{', '.join(map(_text, publisher.within))}]")
    if publisher.mute:
        listed = (f"{code} = [{', '.join(map(_text, filed))}]" for code, filed in publisher.mute)
        lines.append(f"mute = {{ {', '.join(listed)} }}")
    paths = (download.path.relative_to(folder) for download in refreshed.downloads)
    names = "".join(f"    {_text(path.as_posix())},\n" for path in paths)
    return "\n".join([*lines, f"date = {refreshed.date}", f"files = [\n{names}]\n"])


def _text(value: str) -> str:
    """Return a TOML string: JSON's, but for one character that TOML wants escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
