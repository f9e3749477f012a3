"""Reads a dataset with what belongs to it, seals it, checks it, and opens it.

Region sets, overrides and Envoy's rules belong to it. Overrides are laid over it here, once for
all workers: they open the result as they would open the dataset.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from geolookup.answer import age as ages
from geolookup.answer.claims import SUBDIVISION_SOURCES
from geolookup.answer.dataset import EMBEDDED, Dataset
from geolookup.answer.file_format import Image, RuntimeOverrides, check_header, header_digest
from geolookup.answer.region_sets import RegionSets
from geolookup.errors import DatasetError, GeoLookupError, RegionSetError, SourceError
from geolookup.service.processes.rollback import Hold, Identity, RollbackFolder
from geolookup.service.processes.sealed_memory import (
    TRANSIENT_ERRORS,
    SealedCopy,
    seal_file,
    seal_pieces,
)
from geolookup.service.rpc.envoy_authz import RuleError, Rules
from geolookup.service.settings import Settings

if TYPE_CHECKING:
    from geolookup.answer.overrides import Overrides

_LARGEST: Final = 4 << 30
"""Bytes of a dataset. The whole internet in both families takes some 30 MiB."""
_LARGEST_TEXT: Final = 16 << 20
"""Bytes of a file of region sets, of overrides, or of rules."""
_MAX_LISTED: Final = 5
"""Reasons in one error text. Thousands of canaries may fail at once."""


class TransientError(GeoLookupError):
    """The files could not be loaded for a reason outside them; a later attempt may succeed."""


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """A dataset with its region sets, overrides and rules, ready for workers.

    Attributes:
        dataset: opened on `file`, in this process.
        file: what workers answer from: `base`, or that with overrides laid over it.
        base: the sealed copy of the dataset file.
        region_sets: the sealed copy of the file of region sets, if there is one.
        rules: the sealed copy of the rules of Envoy's authorization, if there are any.
        overrides_file: the sealed copy of the file of overrides, if there is one.
        overrides: what stands in it.
        runtime_overrides: which of them act, if there is such a file, whether any act or none.
        identity: digests of the parts that are used; equal only if every byte of all is.
        hold: what a rollback still holds back; the parts that it kept are among those above.
        signature: content of the dataset's signature file; empty: no key is set.
    """

    dataset: Dataset
    file: SealedCopy
    base: SealedCopy
    region_sets: SealedCopy | None
    rules: SealedCopy | None
    overrides_file: SealedCopy | None
    overrides: Overrides | None
    runtime_overrides: RuntimeOverrides | None
    identity: Identity
    hold: Hold
    signature: bytes

    @property
    def parts(self) -> tuple[SealedCopy, SealedCopy | None, SealedCopy | None, SealedCopy | None]:
        """The sealed copies of the files, in the order of `identity`."""
        return self.base, self.region_sets, self.rules, self.overrides_file

    @property
    def until(self) -> float | None:
        """The second since 1970 at which the next override expires; None: none does."""
        until = None if self.runtime_overrides is None else self.runtime_overrides.until
        return None if until is None else until.timestamp()

    def close(self) -> None:
        """Close the dataset and the copies. Workers that have opened them keep them."""
        self.dataset.close()
        if self.file is not self.base:
            self.file.close()
        for sealed in self.parts:
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
    others = (settings.region_sets, settings.authz_rules, settings.overrides)
    found += [path for path in others if path is not None]
    return tuple(found)


def load(
    settings: Settings, before: LoadedDataset | None = None, hold: Hold | None = None
) -> LoadedDataset:
    """Read the files, seal them, check the sealed copies, and lay the overrides over the dataset.

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
            _seal_text(settings.overrides, SourceError, undo),
        ]
        sealed = tuple(parts)
        found = [_digest_of(part, number) for number, part in enumerate(parts)]
        for number, withdrawn in enumerate(hold.withdrawn):
            if withdrawn and withdrawn == found[number]:
                parts[number] = _kept(settings, before, hold, number, undo)
        base, region_sets, rules, overrides_file = parts
        assert base is not None  # noqa: S101 - there is always a dataset
        digests = [_digest_of(part, number) for number, part in enumerate(parts)]
        overrides = _read_overrides(overrides_file, digests[3], before)
        file, over = _laid_over(base, overrides, ages.clock(), undo)
        dataset = open_sealed(file, region_sets, settings)
        undo.callback(dataset.close)
        # Opening a dataset skips the sections that only explanations need. A service checks
        # them, or damage there would stay hidden until a decision has to be explained.
        dataset.check_sections()
        open_rules(rules, dataset)
        signature = b""
        if settings.public_key is not None:
            if before is not None and base is not sealed[0]:
                # It was checked. The signature file is about the dataset that was withdrawn.
                signature = before.signature
            else:
                signature = _check_signature(base.name, dataset.base, settings.public_key)
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
        base,
        region_sets,
        rules,
        overrides_file,
        overrides,
        over,
        (digests[0], digests[1], digests[2], digests[3]),
        hold.after_load(found),
        signature,
    )


def _read_overrides(
    file: SealedCopy | None, digest: str, before: LoadedDataset | None
) -> Overrides | None:
    if file is None:
        return None
    if before is not None and before.overrides is not None and before.overrides.digest == digest:
        return before.overrides  # reading many takes seconds
    # Imported here, since a service without them starts sooner without.
    from geolookup.answer.overrides import Overrides  # noqa: PLC0415

    return Overrides.parse(bytes(file.map()), file.name)


def _laid_over(
    base: SealedCopy, overrides: Overrides | None, now: float, undo: contextlib.ExitStack
) -> tuple[SealedCopy, RuntimeOverrides | None]:
    """Return what workers answer from, and which overrides act in it."""
    if overrides is None:
        return base, None
    from geolookup.answer.overlay import lay_over  # noqa: PLC0415 - as above

    image = Image(memoryview(base.map()), base.name)
    active, until = len(overrides.active(now)), overrides.until(now)
    described = RuntimeOverrides(
        base=image.id,
        file=overrides.digest,
        active=active,
        expired=len(overrides.entries) - active,
        until=None if until is None else datetime.fromtimestamp(until, UTC),
    )
    pieces = lay_over(image, overrides, now)
    if pieces is None:
        return base, described
    file = seal_pieces(pieces, base.name)
    undo.callback(file.close)
    return file, described


def renew(loaded: LoadedDataset, settings: Settings, now: float) -> LoadedDataset:
    """Return a loaded dataset in which what has expired does not act, and all else is as it was.

    Nothing is read but the sealed copies: whatever the files have now, overrides expire. Neither
    are canaries and limits held against the result.

    Args:
        loaded: before; it stays as it is.
        settings: as when it was loaded.
        now: the second since 1970, UTC, that decides what has expired.

    Raises:
        TransientError: there is no memory or no descriptor for it now.
    """
    with contextlib.ExitStack() as undo:
        try:
            copies = [None if part is None else _duplicate(part, undo) for part in loaded.parts]
            base, region_sets, rules, overrides_file = copies
            assert base is not None  # noqa: S101 - there is always a dataset
            file, over = _laid_over(base, loaded.overrides, now, undo)
            dataset = open_sealed(file, region_sets, settings)
        except OSError as error:
            raise TransientError(f"{loaded.base.name}: {error.strerror}") from None
        except MemoryError:
            raise TransientError(f"{loaded.base.name}: no memory") from None
        undo.pop_all()
    return replace(
        loaded,
        dataset=dataset,
        file=file,
        base=base,
        region_sets=region_sets,
        rules=rules,
        overrides_file=overrides_file,
        runtime_overrides=over,
    )


def _duplicate(part: SealedCopy, undo: contextlib.ExitStack) -> SealedCopy:
    copy = SealedCopy(os.dup(part.descriptor), part.name, part.size)
    undo.callback(copy.close)
    return copy


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
        return _duplicate(used, undo)
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
