"""What sources say, for an evaluation: from a dataset's evidence, or from a manifest's files."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from geolookup.answer.dataset import Dataset
from geolookup.answer.intervals import Family
from geolookup.build import compiler, readers
from geolookup.build.manifest import Manifest, SourceEntry
from geolookup.build.readers import SourceRanges, code_text
from geolookup.errors import DatasetError
from geolookup.review.evaluation import Intervals, Statements

Progress = Callable[[str], None]
"""Called with the name of the source that is read next."""


def of_dataset(dataset: Dataset, operators: Collection[str]) -> tuple[Statements, ...]:
    """Return what the sources of a dataset say.

    Args:
        dataset: with evidence.
        operators: those whose places are known. A source whose name or origin is an
            operator's is its own publication.

    Raises:
        DatasetError: it carries no evidence, or a damaged one.
        DatasetClosedError: the dataset was closed.
    """
    views = dataset.views()
    if dataset.sources and not views:
        raise DatasetError("the dataset carries no evidence: what each source says is not known")
    return tuple(
        Statements(
            info.name,
            info.date,
            info.coverage,
            info.origin,
            info.mute,
            view.intervals,
            {name: None for name in operators if name in (info.name, info.origin)},
        )
        for info, view in zip(dataset.sources, views, strict=True)
    )


def of_manifest(
    manifest: Manifest, operators: Collection[str], progress: Progress | None = None
) -> tuple[Statements, ...]:
    """Return what the sources of a manifest say.

    Args:
        manifest: which sources.
        operators: those whose places are known. A source whose name or origin is an
            operator's is its own publication; so is a file named after an operator, such
            as ``example.csv``, of a source with several files.
        progress: called before each source.

    Raises:
        SourceError: a source can't be read.
    """
    found = []
    for entry in manifest.sources:
        if progress is not None:
            progress(entry.source.name)
        found.append(_statements(entry, operators))
    return tuple(found)


def _statements(entry: SourceEntry, operators: Collection[str]) -> Statements:
    source = entry.source
    ranges = readers.read(entry.files, format_name=entry.format, options=entry.options)
    own: dict[str, Callable[[Family], Intervals] | None] = {
        name: None for name in operators if name in (source.name, source.origin)
    }
    for name, numbers in _files_of(ranges, operators).items():
        if name not in own:
            rest = _without(ranges, numbers)
            own[name] = _intervals_of(entry, rest) if len(rest) else None
    return Statements(
        source.name,
        source.date.isoformat(),
        source.coverage,
        source.origin,
        source.mute,
        _intervals_of(entry, ranges),
        own,
    )


def _files_of(ranges: SourceRanges, operators: Collection[str]) -> Mapping[str, set[int]]:
    files: dict[str, set[int]] = {}
    for number, name in enumerate(ranges.files):
        stem = Path(name).name.partition(".")[0]
        if stem in operators:
            files.setdefault(stem, set()).add(number)
    return files


def _without(ranges: SourceRanges, files: Collection[int]) -> SourceRanges:
    rest = SourceRanges(files=ranges.files)
    for one, into in ((ranges.ipv4, rest.ipv4), (ranges.ipv6, rest.ipv6)):
        for index, (first, last, code) in enumerate(one):
            file, line = one.place(index)
            if file not in files:
                into.append(first, last, code, file=file, line=line)
    return rest


def _intervals_of(entry: SourceEntry, ranges: SourceRanges) -> Callable[[Family], Intervals]:
    flat = compiler.flatten(entry.source, ranges, []).ranges

    def intervals(family: Family) -> Iterator[tuple[int, int, str | None]]:
        if family == 4:
            low, codes, *_ = flat.ipv4.intervals()
            firsts = list(array("I", low))
        else:
            high, low, codes, *_ = flat.ipv6.intervals()
            firsts = [a << 64 | b for a, b in zip(array("Q", high), array("Q", low), strict=True)]
        names = {code: code_text(code) if code else None for code in set(array("H", codes))}
        ends = [*(first - 1 for first in firsts[1:]), (1 << (32 if family == 4 else 128)) - 1]
        yield from zip(firsts, ends, (names[code] for code in array("H", codes)), strict=True)

    return intervals
