"""Reads a dataset with its region sets and rules, seals it, checks it, and opens it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from geolookup.answer.claims import SUBDIVISION_SOURCES
from geolookup.answer.dataset import EMBEDDED, Dataset
from geolookup.answer.file_format import check_header, header_digest
from geolookup.answer.region_sets import RegionSets
from geolookup.errors import DatasetError, GeoLookupError, RegionSetError
from geolookup.service.processes.rollback import Hold, Identity, RollbackFolder
from geolookup.service.processes.sealed_memory import TRANSIENT_ERRORS, SealedCopy, seal_file
from geolookup.service.rpc.envoy_authz import RuleError, Rules
from geolookup.service.settings import Settings

_LARGEST: Final = 4 << 30
"""Bytes of a dataset. The whole internet in both families takes some 30 MiB."""
_LARGEST_TEXT: Final = 16 << 20
"""Bytes of a file of region sets, or of rules."""
_MAX_LISTED: Final = 5
"""Reasons in one error text. Thousands of canaries may fail at once."""


class TransientError(GeoLookupError):
    """The files could not be loaded for a reason outside them; a later attempt may succeed."""


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """A dataset with its region sets and rules, ready for workers.

    Attributes:
        dataset: opened on the sealed copy, in this process.
        file: the sealed copy of the dataset file.
        region_sets: the sealed copy of the file of region sets, if there is one.
        rules: the sealed copy of the rules of Envoy's authorization, if there are any.
        identity: digests of the parts that are used; equal only if every byte of all is.
        hold: what a rollback still holds back; the parts that it kept are among those above.
        signature: content of the dataset's signature file; empty: no key is set.
    """

    dataset: Dataset
    file: SealedCopy
    region_sets: SealedCopy | None
    rules: SealedCopy | None
    identity: Identity
    hold: Hold
    signature: bytes

    @property
    def parts(self) -> tuple[SealedCopy, SealedCopy | None, SealedCopy | None]:
        """The sealed copies, in the order of `identity`."""
        return self.file, self.region_sets, self.rules

    def close(self) -> None:
        """Close the dataset and the copies. Workers that have opened them keep them."""
        self.dataset.close()
        for sealed in (self.file, self.region_sets, self.rules):
            if sealed is not None:
                sealed.close()


def watched_files(settings: Settings) -> tuple[Path, ...]:
    """Return the files that are loaded again when they change.

    The embedded dataset is not among them: it changes when this package does.
    """
    found: list[Path] = []
    if settings.dataset is not None:
        found.append(settings.dataset)
        if settings.public_key is not None:
            from geolookup.answer.signature import SUFFIX  # noqa: PLC0415

            found.append(settings.dataset.with_name(settings.dataset.name + SUFFIX))
    found += [path for path in (settings.region_sets, settings.authz_rules) if path is not None]
    return tuple(found)


def load(
    settings: Settings, before: LoadedDataset | None = None, hold: Hold | None = None
) -> LoadedDataset:
    """Read the dataset, the region sets and the rules, seal them, and check the sealed copies.

    Args:
        settings: the files, the public keys, the canaries and the limits.
        before: the dataset in service. The change from it must be within the limits;
            the same dataset is not checked again.
        hold: what a rollback holds back. A part that it withdrew is not used; what it kept is
            taken from *before*, at a start from the folder of rollbacks.

    Raises:
        GeoLookupError: a file can't be read, is damaged or not signed as required, or
            fails a canary or a limit. The text names the file.
        TransientError: there is no memory or no descriptor for it now.
    """
    name = EMBEDDED if settings.dataset is None else os.fspath(settings.dataset)
    try:
        return _load(settings, name, before, hold or Hold())
    except OSError as error:
        raise TransientError(f"{name}: can't be loaded: {error.strerror}") from None
    except MemoryError:
        raise TransientError(f"{name}: can't be loaded: no memory") from None
    except GeoLookupError as error:
        # The text names the file, where it is not the dataset.
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in TRANSIENT_ERRORS:
            raise TransientError(str(error)) from None
        raise


def _load(settings: Settings, name: str, before: LoadedDataset | None, hold: Hold) -> LoadedDataset:
    with contextlib.ExitStack() as undo:
        parts: list[SealedCopy | None] = [
            _seal_dataset(name, undo),
            _seal_text(settings.region_sets, RegionSetError, undo),
            _seal_text(settings.authz_rules, RuleError, undo),
        ]
        sealed = tuple(parts)
        found = [_digest_of(part, number) for number, part in enumerate(parts)]
        for number, withdrawn in enumerate(hold.withdrawn):
            if withdrawn and withdrawn == found[number]:
                parts[number] = _kept(settings, before, hold, number, undo)
        file, region_sets, rules = parts
        assert file is not None  # noqa: S101 - there is always a dataset
        dataset = open_sealed(file, region_sets, settings)
        undo.callback(dataset.close)
        # Opening a dataset skips the sections that only explanations need. A service checks
        # them, or damage there would stay hidden until a decision has to be explained.
        dataset.check_sections()
        open_rules(rules, dataset)
        digests = [_digest_of(part, number) for number, part in enumerate(parts)]
        signature = b""
        if settings.public_key is not None:
            if before is not None and file is not sealed[0]:
                # It was checked. The signature file is about the dataset that was withdrawn.
                signature = before.signature
            else:
                signature = _check_signature(file.name, dataset.id, settings.public_key)
        if before is None or dataset.id != before.dataset.id:
            _check(settings, name, dataset, None if before is None else before.dataset)
        undo.pop_all()
    # Those that are not used any more.
    for number, part in enumerate(parts):
        unused = sealed[number]
        if unused is not None and unused is not part:
            unused.close()
    return LoadedDataset(
        dataset,
        file,
        region_sets,
        rules,
        (digests[0], digests[1], digests[2]),
        hold.after_load(found),
        signature,
    )


def _seal_dataset(name: str, undo: contextlib.ExitStack) -> SealedCopy:
    file = seal_file(name, _LARGEST, lambda header, size: check_header(header, size, name))
    undo.callback(file.close)
    return file


def _kept(
    settings: Settings,
    before: LoadedDataset | None,
    hold: Hold,
    number: int,
    undo: contextlib.ExitStack,
) -> SealedCopy:
    """Return a copy of the part that a rollback kept, for a part that it withdrew."""
    if before is not None:
        used = before.parts[number]
        assert used is not None  # noqa: S101 - a part that is held back has one in its place
        copy = SealedCopy(os.dup(used.descriptor), used.name, used.size)
        undo.callback(copy.close)
        return copy
    path = RollbackFolder(settings).file(number, hold)
    if number == 0:
        kept = _seal_dataset(os.fspath(path), undo)
    else:
        kept = seal_file(os.fspath(path), _LARGEST_TEXT)
        undo.callback(kept.close)
    if _digest_of(kept, number) != hold.kept[number]:
        raise DatasetError(f"{path}: not the file that the rollback kept")
    return kept


def _check_signature(name: str, identity: str, public_key: Path) -> bytes:
    """Check a dataset's signature, and return the content of the signature file."""
    from geolookup.answer import signature  # noqa: PLC0415

    signature.check(name, identity, public_key)
    return Path(name + signature.SUFFIX).read_bytes()


def open_sealed(
    file: SealedCopy, region_sets: SealedCopy | None, settings: Settings | None = None
) -> Dataset:
    """Return the dataset in a sealed copy, mapped in place; its age is limited as set.

    Raises:
        DatasetError: damaged, or of an unknown format.
        RegionSetError: the region sets are not valid.
        OSError: there is no memory or no descriptor for the mapping.
    """
    sets = None
    if region_sets is not None:
        sets = RegionSets.builtin().extended(bytes(region_sets.map()), region_sets.name)
    max_age, stale = (None, None) if settings is None else settings.age_limit
    return Dataset.from_buffer(
        file.map(),
        file.name,
        region_sets=sets,
        max_age=max_age,
        stale=stale,
        subdivision_sources=(
            SUBDIVISION_SOURCES if settings is None else settings.subdivision_sources
        ),
        covering=None if settings is None else settings.covering,
    )


def open_rules(rules: SealedCopy | None, dataset: Dataset) -> Rules:
    """Return the rules in a sealed copy. The dataset must know each region set they name.

    Raises:
        RuleError: they are not valid.
    """
    if rules is None:
        return Rules()
    read = Rules.parse(bytes(rules.map()), rules.name)
    read.check(dataset)
    return read


def _check(settings: Settings, name: str, dataset: Dataset, before: Dataset | None) -> None:
    """Check a dataset against the operator's canaries and limits."""
    if settings.canaries is None and settings.change_limits is None:
        return
    # Imported here, since a service that checks nothing starts sooner without.
    from geolookup.build.manifest import load_limits  # noqa: PLC0415
    from geolookup.change_limits import ChangeLimits  # noqa: PLC0415
    from geolookup.review import acceptance, verification  # noqa: PLC0415

    limits = (
        ChangeLimits() if settings.change_limits is None else load_limits(settings.change_limits)
    )
    canaries = () if settings.canaries is None else verification.read_canaries(settings.canaries)
    # Without a limit, a dataset of few countries is as good as any.
    if limits.min_coverage is None:
        limits = ChangeLimits(limits.max_change, Fraction(0))
    reasons = acceptance.objections(dataset, before, limits, canaries)
    if reasons:
        raise DatasetError(f"{name}: {acceptance.listed(reasons, _MAX_LISTED)}")


def _seal_text(
    path: Path | None, error: type[GeoLookupError], undo: contextlib.ExitStack
) -> SealedCopy | None:
    """Return a sealed copy of a text file; None if there is no file."""
    if path is None:
        return None
    try:
        sealed = seal_file(os.fspath(path), _LARGEST_TEXT)
    except DatasetError as problem:
        raise error(str(problem)) from None
    undo.callback(sealed.close)
    return sealed


def _digest_of(part: SealedCopy | None, number: int) -> str:
    """Return the id of a dataset, the digest of a text; empty: there is no such file."""
    if part is None:
        return ""
    content = memoryview(part.map())
    # A dataset's id pins all of its bytes.
    return header_digest(content).hex() if number == 0 else hashlib.sha256(content).hexdigest()
