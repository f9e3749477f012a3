"""From a dataset file to memory that nobody can change: read, sealed, checked, opened.

Workers answer from a sealed copy and not from the file. Whoever overwrites or cuts a
file that is mapped changes the answers of the process that has it mapped, or ends it
(SIGBUS); nothing that happens to the file reaches the copy. All workers map the same
copy, so it is in memory once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import stat
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from geolookup.answer.dataset import EMBEDDED, Dataset
from geolookup.answer.file_format import MAGIC, why_no_dataset
from geolookup.answer.region_sets import RegionSets
from geolookup.errors import DatasetError, GeoLookupError, RegionSetError
from geolookup.service import log
from geolookup.service.rpc.envoy_authz import RuleError, Rules
from geolookup.service.settings import Settings

_LARGEST: Final = 4 << 30
"""Bytes of a dataset. The whole internet in both families takes some 30 MiB."""
_LARGEST_TEXT: Final = 16 << 20
"""Bytes of a file of region sets, or of rules."""
_PIECE: Final = 1 << 20
_MAX_LISTED: Final = 5
"""Reasons that an error text lists."""

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MFD_NOEXEC_SEAL: Final = 0x8  # of Linux 6.3; Python has no name for it yet
_TRANSIENT: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}
"""Errors of opening a file that say nothing of the file."""
_NO_MEMFD: Final = {errno.ENOSYS, errno.EPERM, errno.EACCES}
"""How kernels and sandboxes say that there is no such thing."""


class TransientError(GeoLookupError):
    """What could not be loaded for a reason that lies not in it; it may work another time."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file's content in memory of its own.

    Attributes:
        descriptor: the memory's; who holds a `Sealed` closes it, once.
        name: the file's, for error texts.
        size: in bytes.
    """

    descriptor: int
    name: str
    size: int

    def map(self) -> mmap.mmap | bytes:
        """Return the content in place. The mapping outlives the descriptor."""
        if not self.size:
            return b""  # which can't be mapped
        # Private, since kernels before 6.7 refuse to share a mapping of memory that is
        # sealed against writing. Of a mapping that nobody can write to the pages are shared.
        return mmap.mmap(self.descriptor, self.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

    def close(self) -> None:
        """Let go of the memory; mappings keep it."""
        os.close(self.descriptor)


def seal(content: bytes, name: str) -> Sealed:
    """Return a sealed copy of what is in memory already.

    Raises:
        OSError: there is no memory or no descriptor for it.
    """
    descriptor = _memory()
    try:
        _write(descriptor, content)
        _close_for_writing(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return Sealed(descriptor, name, len(content))


def anonymous(size: int) -> int:
    """Return the descriptor of so many zero bytes that processes can share and write to.

    Raises:
        OSError: there is no memory or no descriptor for it.
    """
    descriptor = _memory()
    try:
        os.truncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@dataclass(frozen=True, slots=True)
class Loaded:
    """A dataset and the region sets that belong to it, ready for workers.

    Attributes:
        dataset: opened on the sealed copy, in this process.
        file: the sealed copy of its file.
        region_sets: that of the file of region sets; None: there is none.
        rules: that of the rules of Envoy's authorization; None: there are none.
        identity: what is the same only if every byte of all of them is.
    """

    dataset: Dataset
    file: Sealed
    region_sets: Sealed | None
    rules: Sealed | None
    identity: tuple[str, ...]

    def close(self) -> None:
        """Let go of it. Workers that have it keep it."""
        self.dataset.close()
        for sealed in (self.file, self.region_sets, self.rules):
            if sealed is not None:
                sealed.close()


def paths(settings: Settings) -> tuple[Path, ...]:
    """Return the files whose change is a reason to load again.

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


def load(settings: Settings, before: Loaded | None = None) -> Loaded:
    """Read the dataset, the region sets and the rules, seal them, and check the sealed copies.

    Args:
        settings: which files, who must have signed, the canaries and the limits.
        before: what is in service. A change from it is held against the limits;
            of the same dataset nothing is checked again.

    Raises:
        GeoLookupError: a file can't be read, is damaged, not signed as it should be, or
            a canary or a limit speaks against it. The text names the file.
        TransientError: there is no memory or no descriptor for it now.
    """
    name = EMBEDDED if settings.dataset is None else os.fspath(settings.dataset)
    try:
        return _load(settings, name, before)
    except OSError as error:
        raise TransientError(f"{name}: can't be loaded: {error.strerror}") from None
    except MemoryError:
        raise TransientError(f"{name}: can't be loaded: no memory") from None
    except GeoLookupError as error:
        # Whoever could not open a file beside the dataset has named it in the text.
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _TRANSIENT:
            raise TransientError(str(error)) from None
        raise


def _load(settings: Settings, name: str, before: Loaded | None) -> Loaded:
    with contextlib.ExitStack() as undo:
        file = _seal_file(name, MAGIC, _LARGEST)
        undo.callback(file.close)
        region_sets = _seal_text(settings.region_sets, RegionSetError, undo)
        rules = _seal_text(settings.authz_rules, RuleError, undo)
        dataset = open_sealed(file, region_sets)
        undo.callback(dataset.close)
        # Opening leaves out what only explanations need. A service does not, since of what
        # is damaged there nobody would hear until somebody has to explain a decision.
        dataset.check_sections()
        open_rules(rules, dataset)
        texts = ("" if sealed is None else _digest(sealed) for sealed in (region_sets, rules))
        identity = (dataset.id, *texts)
        if settings.public_key is not None:
            from geolookup.answer import signature  # noqa: PLC0415

            signature.check(name, dataset.id, settings.public_key)
        if before is None or dataset.id != before.dataset.id:
            _check(settings, name, dataset, None if before is None else before.dataset)
        undo.pop_all()
    return Loaded(dataset, file, region_sets, rules, identity)


def open_sealed(file: Sealed, region_sets: Sealed | None) -> Dataset:
    """Return the dataset in a sealed copy, used in place.

    Raises:
        DatasetError: damaged, or of an unknown format.
        RegionSetError: the region sets make no sense.
        OSError: there is no memory or no descriptor for the mapping.
    """
    sets = None
    if region_sets is not None:
        sets = RegionSets.builtin().extended(bytes(region_sets.map()), region_sets.name)
    return Dataset.from_buffer(file.map(), file.name, region_sets=sets)


def open_rules(rules: Sealed | None, dataset: Dataset) -> Rules:
    """Return the rules in a sealed copy, of which the dataset knows every region set.

    Raises:
        RuleError: they make no sense.
    """
    if rules is None:
        return Rules()
    read = Rules.parse(bytes(rules.map()), rules.name)
    read.check(dataset)
    return read


def _check(settings: Settings, name: str, dataset: Dataset, before: Dataset | None) -> None:
    """Hold a dataset against what its operator knows, and against the one in service."""
    asked = (settings.canaries, settings.change_limits)
    if asked == (None, None):
        return  # nothing was said that it could be held against; opening it has checked it
    # What checks is loaded when it is needed: a service without it starts sooner.
    from geolookup.build.manifest import load_limits  # noqa: PLC0415
    from geolookup.change_limits import ChangeLimits  # noqa: PLC0415
    from geolookup.review import acceptance, verification  # noqa: PLC0415

    limits = (
        ChangeLimits() if settings.change_limits is None else load_limits(settings.change_limits)
    )
    canaries = () if settings.canaries is None else verification.read_canaries(settings.canaries)
    # A dataset of few countries is a good one, unless someone says what to expect.
    if limits.min_coverage is None:
        limits = ChangeLimits(limits.max_change, Fraction(0))
    reasons = acceptance.objections(dataset, before, limits, canaries)
    if reasons:
        raise DatasetError(f"{name}: {acceptance.listed(reasons, _MAX_LISTED)}")


# --- sealing --------------------------------------------------------------------------


def _seal_file(path: str, beginning: bytes, largest: int) -> Sealed:
    """Copy a file into sealed memory. One that can't be right is not copied at all."""
    try:
        # A pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _TRANSIENT:
            raise
        raise DatasetError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError:  # a NUL
        raise DatasetError(f"{path}: can't be read: not a path") from None
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path}: not a regular file")
        if status.st_size > largest:
            raise DatasetError(f"{path}: larger than {largest:,} bytes")
        memory = _memory()
        try:
            size = _copy(descriptor, memory, path, beginning, largest)
            _close_for_writing(memory)
        except BaseException:
            os.close(memory)
            raise
    return Sealed(memory, path, size)


def _seal_text(
    path: Path | None, error: type[GeoLookupError], undo: contextlib.ExitStack
) -> Sealed | None:
    """Return a sealed copy of a file of text; None: there is none."""
    if path is None:
        return None
    try:
        sealed = _seal_file(os.fspath(path), b"", _LARGEST_TEXT)
    except DatasetError as problem:
        raise error(str(problem)) from None
    undo.callback(sealed.close)
    return sealed


def _copy(source: int, memory: int, path: str, beginning: bytes, largest: int) -> int:
    size = 0
    while piece := os.read(source, _PIECE):
        if not size and not piece.startswith(beginning):
            raise DatasetError(f"{path}: {why_no_dataset(piece)}")
        size += len(piece)
        if size > largest:  # it grows while it is read
            raise DatasetError(f"{path}: larger than {largest:,} bytes")
        _write(memory, piece)
    return size


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _memory() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            return os.memfd_create("geolookup", flags | _MFD_NOEXEC_SEAL)
        except OSError:  # a kernel that does not know the flag
            return os.memfd_create("geolookup", flags)
    except OSError as error:
        if error.errno not in _NO_MEMFD:
            raise
    # Not sealed, but without a name: nobody finds it who has no business with it.
    log.event(
        "start", "warning", reason="no sealed memory here; datasets are copied to unnamed files"
    )
    with tempfile.TemporaryFile(prefix="geolookup-") as file:
        return os.dup(file.fileno())


def _close_for_writing(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a file in place of sealed memory
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def _digest(sealed: Sealed) -> str:
    return hashlib.sha256(sealed.map()).hexdigest()


# --- noticing changes -----------------------------------------------------------------

_State = tuple[tuple[int, ...] | None, ...]


class FileWatch:
    """Notices that files are others than those that were read, and that nobody writes to them.

    Args:
        files: which.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files
        self._read: _State = ()
        self._last: _State = ()
        self.mark()

    def mark(self) -> None:
        """Remember the files as they are as those that were read. Call it before reading."""
        self._read = self._last = self._state()

    def forget(self) -> None:
        """Take the files for changed, whatever they are."""
        self._read = ()

    def look(self) -> bool:
        """Say whether they have changed, and are as they were at the look before."""
        state, before = self._state(), self._last
        self._last = state
        return state == before and state != self._read

    def _state(self) -> _State:
        return tuple(map(_stat, self._files))


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
