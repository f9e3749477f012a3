"""Loading: what workers answer from can't be changed, and what is not right never gets there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import mmap
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small_dataset
from hypothesis import given
from hypothesis import strategies as st

import geolookup
from geolookup import machine
from geolookup.answer import file_format
from geolookup.answer.dataset import encode
from geolookup.errors import DatasetError, GeoLookupError, RegionSetError
from geolookup.review import verification
from geolookup.service.processes import dataset_loading, sealed_memory
from geolookup.service.processes.dataset_loading import (
    LoadedDataset,
    TransientError,
    load,
    open_sealed,
    watched_files,
)
from geolookup.service.processes.sealed_memory import SealedCopy, make_shared_memory, seal
from geolookup.service.settings import Settings

PATIENCE = 60
IMAGE = encode(small_dataset.content())
SETS = '[region_sets.ALPS]\ncodes = ["AT", "CH"]\nversion = "1"\nsource = "us"\n'
ALL_OF = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def other_image() -> bytes:
    """Return a dataset in which what was China's is Germany's."""
    content = small_dataset.content()
    claims = bytearray(content.ipv4_claims)
    for at in range(0, len(claims), 2):
        if claims[at] == small_dataset.CN:
            claims[at] = small_dataset.DE
    content.ipv4_claims = bytes(claims)
    return encode(content)


OTHER = other_image()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.geolookup"
    path.write_bytes(IMAGE)
    return path


@pytest.fixture
def keep() -> Iterator[Callable[[Any], Any]]:
    """Close at the end what a test was given."""
    kept: list[Any] = []

    def keep(one: Any) -> Any:
        kept.append(one)
        return one

    yield keep
    for one in kept:
        one.close()


Keep = Callable[[Any], Any]


@pytest.fixture(scope="module", autouse=True)
def nothing_else_is_collected() -> Iterator[None]:
    """What other tests left takes a collection of all objects a tenth of a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever came of it, no descriptor may be left: reloads go on for years."""
    if "keep" in request.fixturenames:
        request.getfixturevalue("keep")
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()  # a failure that pytest.raises holds has its frames
    # `keep` closes after this; what it has is known to the test.
    if "keep" not in request.fixturenames:
        assert set(os.listdir("/proc/self/fd")) <= before


# sealed memory


@pytest.mark.parametrize("content", [b"", b"x", b"x" * mmap.PAGESIZE, os.urandom(3_000_000)])
def test_a_sealed_copy_is_what_it_was_made_of(keep: Keep, content: bytes) -> None:
    sealed: SealedCopy = keep(seal(content, "name"))
    assert bytes(sealed.map()) == content
    assert (sealed.name, sealed.size) == ("name", len(content))
    assert not os.get_inheritable(sealed.descriptor)


def test_sealed_copy_can_not_be_written_cut_or_grown(keep: Keep) -> None:
    sealed = keep(seal(b"content", "name"))
    assert fcntl.fcntl(sealed.descriptor, fcntl.F_GET_SEALS) & ALL_OF == ALL_OF
    attempts: list[Callable[[], object]] = [
        lambda: os.pwrite(sealed.descriptor, b"x", 0),
        lambda: os.pwrite(sealed.descriptor, b"x", 7),
        lambda: os.truncate(sealed.descriptor, 0),
        lambda: os.truncate(sealed.descriptor, 100),
        lambda: mmap.mmap(sealed.descriptor, 7, mmap.MAP_SHARED, mmap.PROT_WRITE),
        lambda: fcntl.fcntl(sealed.descriptor, fcntl.F_ADD_SEALS, 0),
        lambda: os.close(os.open(f"/proc/self/fd/{sealed.descriptor}", os.O_RDWR | os.O_TRUNC)),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match=r"not permitted|Permission denied"):
            attempt()
    assert bytes(sealed.map()) == b"content"


def test_a_mapping_can_be_read_only_and_outlives_the_descriptor() -> None:
    sealed = seal(b"content", "name")
    mapped = sealed.map()
    sealed.close()
    assert isinstance(mapped, mmap.mmap)
    with pytest.raises(TypeError, match="readonly"):
        mapped[0] = 0
    assert bytes(mapped) == b"content"
    mapped.close()


def test_another_process_maps_the_same_memory(keep: Keep) -> None:
    sealed = keep(seal(IMAGE, "dataset"))
    code = (
        "import sys\nfrom geolookup.service.processes.dataset_loading import open_sealed\n"
        "from geolookup.service.processes.sealed_memory import SealedCopy\n"
        "file = SealedCopy(int(sys.argv[1]), 'dataset', int(sys.argv[2]))\n"
        "print(open_sealed(file, None).country('1.0.1.1'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sealed.descriptor), str(sealed.size)],
        pass_fds=(sealed.descriptor,),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "CN\n"


def test_shared_memory_is_zero_and_shared() -> None:
    descriptor = make_shared_memory(100)
    one, other = mmap.mmap(descriptor, 100), mmap.mmap(descriptor, 100)
    os.close(descriptor)
    assert bytes(one) == bytes(100)
    one[5] = 7
    assert other[5] == 7
    one.close()
    other.close()


@pytest.mark.parametrize(
    "function",
    [lambda: seal(b"x", "x"), lambda: make_shared_memory(1)],
    ids=["sealed", "shared"],
)
@pytest.mark.parametrize("call", ["write", "truncate", "memfd_create"])
def test_memory_that_can_not_be_had_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[], object], call: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(os, call, refuse)
    before = set(os.listdir("/proc/self/fd"))
    try:
        found = function()
    except OSError as error:
        assert error.errno == errno.ENOMEM  # noqa: PT017 - some of the calls don't meet it
    else:
        assert (call == "truncate") == isinstance(found, SealedCopy)
        os.close(found.descriptor if isinstance(found, SealedCopy) else found)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EACCES])
def test_where_there_is_no_such_memory_a_file_without_a_name_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
    keep: Keep,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sealed = keep(seal(b"content", "name"))
    assert list(tmp_path.iterdir()) == []
    assert bytes(sealed.map()) == b"content"
    assert not os.get_inheritable(sealed.descriptor)
    (record,) = caplog.records
    assert record.__dict__["fields"]["reason"].startswith("no sealed memory here")


def test_a_kernel_that_does_not_know_the_newest_flag_has_sealed_memory_all_the_same(
    monkeypatch: pytest.MonkeyPatch, keep: Keep, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.memfd_create

    def create(name: str, flags: int) -> int:
        if flags & sealed_memory._MFD_NOEXEC_SEAL:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", create)
    sealed = keep(seal(b"content", "name"))
    assert fcntl.fcntl(sealed.descriptor, fcntl.F_GET_SEALS) & ALL_OF == ALL_OF
    assert not caplog.records


# from the file


def test_a_file_is_loaded(keep: Keep, path: Path) -> None:
    loaded: LoadedDataset = keep(load(Settings(dataset=path)))
    assert loaded.dataset.country("1.0.1.1") == "CN"
    assert loaded.file.size == len(IMAGE)
    assert loaded.region_sets is None
    assert loaded.identity == (loaded.dataset.id, "", "", "")


def test_the_embedded_dataset_is_loaded(keep: Keep, dataset: Any) -> None:
    loaded = keep(load(Settings()))
    assert loaded.identity == (dataset.id, "", "", "")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(5_000))


HARM: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda path: path.write_bytes(bytes(len(IMAGE))),
    "overwritten in place": overwrite,
    "truncated": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, 4_096),
    "grown": lambda path: os.truncate(path, 10 * len(IMAGE)),
    "removed": lambda path: path.unlink(),
    "replaced by another": lambda path: path.write_bytes(OTHER),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_nothing_that_happens_to_the_file_reaches_the_copy(
    keep: Keep, path: Path, harm: Callable[[Path], object]
) -> None:
    loaded = keep(load(Settings(dataset=path)))
    harm(path)
    assert bytes(loaded.file.map()) == IMAGE
    for address, claim in small_dataset.ONE_OF_EACH.items():
        assert loaded.dataset.lookup(address).status == small_dataset.CLAIMS[claim].status


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"g",
    "half of the beginning": IMAGE[:4],
    "the beginning alone": IMAGE[:8],
    "half of the header": IMAGE[:2_048],
    "cut in the middle": IMAGE[: len(IMAGE) // 2],
    "cut by a byte": IMAGE[:-1],
    "a byte too many": IMAGE + b"\0",
    "two of them": IMAGE + IMAGE,
    "zeroes": bytes(len(IMAGE)),
    "a byte changed in the header": IMAGE[:40] + bytes([IMAGE[40] ^ 1]) + IMAGE[41:],
    "a byte changed at the end": IMAGE[:-64] + bytes([IMAGE[-64] ^ 1]) + IMAGE[-63:],
    "text": b"hello\n" * 1_000,
    "an archive": b"\x1f\x8b" + bytes(1_000),
    "the region sets": SETS.encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_by_name_and_leaves_nothing_open(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(DatasetError) as refused:
        load(Settings(dataset=path))
    assert str(refused.value).startswith(f"{path}: ")


def test_refusing_again_and_again_needs_no_collector(path: Path) -> None:
    path.write_bytes(IMAGE[:-1])
    before = set(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for _ in range(20):
            with contextlib.suppress(DatasetError):
                load(Settings(dataset=path))
        assert set(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


@given(at=st.integers(0, len(IMAGE) - 1), bit=st.integers(0, 7))
def test_each_changed_bit_is_refused_or_changes_no_answer(at: int, bit: int) -> None:
    """Of optional sections opening reads the checksum of what it needs, and no more."""
    image = bytearray(IMAGE)
    image[at] ^= 1 << bit
    sealed = seal(bytes(image), "dataset")
    try:
        with open_sealed(sealed, None) as opened:
            for address, claim in small_dataset.ONE_OF_EACH.items():
                assert opened.lookup(address).status == small_dataset.CLAIMS[claim].status
    except DatasetError:
        pass
    finally:
        sealed.close()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


NOT_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "can't be read: No such file or directory"),
    "a folder": (lambda path: path.mkdir(), "not a regular file"),
    # Which would be waited for until somebody writes to it.
    "a fifo": (os.mkfifo, "not a regular file"),
    "a socket": (make_socket, "can't be read: No such device or address"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "a link to nothing": (
        lambda path: path.symlink_to("nothing"),
        "can't be read: No such file or directory",
    ),
    "a link to itself": (
        lambda path: path.symlink_to(path.name),
        "can't be read: Too many levels of symbolic links",
    ),
}


@pytest.mark.parametrize("what", ["dataset", "region_sets"])
@pytest.mark.parametrize(("make", "text"), NOT_FILES.values(), ids=NOT_FILES)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], text: str, what: str
) -> None:
    path = tmp_path / "it"
    make(path)
    with pytest.raises(DatasetError if what == "dataset" else RegionSetError) as refused:
        load(Settings(**{what: path}))
    assert str(refused.value) == f"{path}: {text}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x" * 300, "File name too long"),
        ("file/inside", "Not a directory"),
        ("nul\0", "not a path"),
    ],
)
def test_what_is_no_path_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=rf": can't be read: {text}$"):
        dataset_loading.seal_file(f"{tmp_path}/{name}", 100)


def test_a_file_that_is_too_large_is_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sparse = tmp_path / "sparse"
    sparse.touch()
    os.truncate(sparse, dataset_loading._LARGEST + 1)
    with pytest.raises(DatasetError, match=r": larger than 4,294,967,296 bytes$"):
        load(Settings(dataset=sparse))
    os.truncate(sparse, dataset_loading._LARGEST_TEXT + 1)
    with pytest.raises(RegionSetError, match=r": larger than 16,777,216 bytes$"):
        load(Settings(dataset=path, region_sets=sparse))
    monkeypatch.setattr(dataset_loading, "_LARGEST", len(IMAGE))
    load(Settings(dataset=path)).close()
    monkeypatch.setattr(dataset_loading, "_LARGEST", len(IMAGE) - 1)
    with pytest.raises(DatasetError, match="larger than"):
        load(Settings(dataset=path))


def test_a_file_that_grows_while_it_is_read_is_read_no_further(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_memory, "_PIECE", 4_096)
    real = sealed_memory._write

    def write(descriptor: int, content: bytes) -> None:
        real(descriptor, content)
        with path.open("ab") as file:
            file.write(content)

    monkeypatch.setattr(sealed_memory, "_write", write)
    with pytest.raises(DatasetError, match=r": it grew while it was read$"):
        load(Settings(dataset=path))


def test_file_of_another_size_than_its_header_says_is_not_copied(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(path, 2**31)  # sparse

    def write(*_: object) -> None:
        pytest.fail("it was copied")

    monkeypatch.setattr(sealed_memory, "_write", write)
    said = rf"^{path}: bytes were added: 2147483648 bytes, and the header says {len(IMAGE)}$"
    with pytest.raises(DatasetError, match=said):
        load(Settings(dataset=path))
    # The same in process, where nothing is copied.
    with pytest.raises(DatasetError, match=said):
        geolookup.open(path)


def test_file_larger_than_the_memory_left_is_not_copied(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as little:
        little.setattr(machine, "memory_left", lambda: len(IMAGE) - 1)
        little.setattr(sealed_memory, "_write", lambda *_: pytest.fail("it was copied"))
        with pytest.raises(TransientError) as refused:
            load(Settings(dataset=path))
    n = len(IMAGE)
    assert str(refused.value) == (
        f"{path}: can't be loaded: it takes {n:,} bytes of memory, and {n - 1:,} are left"
    )
    monkeypatch.setattr(machine, "memory_left", lambda: n)
    load(Settings(dataset=path)).close()


def test_index_larger_than_the_memory_left_is_not_built(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_left", lambda: 100)
    geolookup.open(path).close()  # too small to ask
    monkeypatch.setattr(file_format, "_USUAL_INTERVALS", 100)
    said = rf"^{path}: its index needs up to \d+ bytes, and 100 bytes of memory are left$"
    with pytest.raises(DatasetError, match=said):
        geolookup.open(path)


def test_what_does_not_begin_like_a_dataset_is_not_copied(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"x" + IMAGE)

    def write(*_: object) -> None:
        pytest.fail("it was copied")

    monkeypatch.setattr(sealed_memory, "_write", write)
    with pytest.raises(DatasetError, match="it does not begin like one"):
        load(Settings(dataset=path))


# region sets


def test_region_sets_are_loaded_beside_the_dataset(keep: Keep, path: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.toml"
    sets.write_text(SETS)
    loaded = keep(load(Settings(dataset=path, region_sets=sets)))
    assert loaded.dataset.lookup("4.0.0.1", region_set="ALPS+DE").verdict.name == "INSIDE"
    assert loaded.region_sets is not None
    sets.write_text(SETS + "# the same, but for this\n")
    again = keep(load(Settings(dataset=path, region_sets=sets), loaded))
    assert again.identity[0] == loaded.identity[0]
    assert again.identity[1] != loaded.identity[1]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xff", "not UTF-8"),
        (b"hello", "Expected '='"),
        (b"a = " + b"[" * 100_000, "can't be read as TOML"),
        (b"other = 1", "unknown key"),
        (b"[region_sets.ALPS]\ncodes = []", ""),
    ],
)
def test_region_sets_that_make_no_sense_are_refused(
    path: Path, tmp_path: Path, content: bytes, text: str
) -> None:
    sets = tmp_path / "sets.toml"
    sets.write_bytes(content)
    with pytest.raises(RegionSetError) as refused:
        load(Settings(dataset=path, region_sets=sets))
    assert str(refused.value).startswith(f"{sets}:")
    assert text in str(refused.value)


def test_no_region_sets_at_all_are_some(keep: Keep, path: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.toml"
    sets.touch()
    loaded = keep(load(Settings(dataset=path, region_sets=sets)))
    assert loaded.dataset.lookup("1.0.1.1", region_set="CN").verdict.name == "INSIDE"


# what an operator knows of a dataset


@pytest.fixture
def signed(tmp_path: Path, path: Path) -> Settings:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    from keys import pem, public_pem  # noqa: PLC0415

    from geolookup.answer.signature import sign  # noqa: PLC0415

    for name in ("ours", "theirs"):
        key = ed25519.Ed25519PrivateKey.generate()
        (tmp_path / f"{name}.pem").write_bytes(pem(key))
        (tmp_path / f"{name}.pub").write_bytes(public_pem(key))
    sealed = seal(IMAGE, "dataset")
    with open_sealed(sealed, None) as opened:
        line = sign(opened.id, tmp_path / "ours.pem")
    sealed.close()
    Path(f"{path}.sig").write_bytes(line)
    return Settings(dataset=path, public_key=tmp_path / "ours.pub")


def test_a_signed_dataset_is_loaded(keep: Keep, signed: Settings) -> None:
    keep(load(signed))


def test_a_dataset_that_is_not_signed_is_refused(signed: Settings, path: Path) -> None:
    Path(f"{path}.sig").unlink()
    with pytest.raises(DatasetError, match="not signed"):
        load(signed)


def test_a_signature_of_the_dataset_before_is_refused(
    keep: Keep, signed: Settings, path: Path
) -> None:
    before = keep(load(signed))
    path.write_bytes(OTHER)
    with pytest.raises(DatasetError, match="about another dataset"):
        load(signed, before)


def test_a_signature_is_asked_for_of_the_same_dataset_as_well(
    keep: Keep, signed: Settings, path: Path
) -> None:
    before = keep(load(signed))
    Path(f"{path}.sig").write_bytes(b"nothing")
    with pytest.raises(DatasetError):
        load(signed, before)


def test_the_signature_of_another_key_is_refused(signed: Settings, tmp_path: Path) -> None:
    (tmp_path / "ours.pub").write_bytes((tmp_path / "theirs.pub").read_bytes())
    with pytest.raises(DatasetError, match="was not made with a key"):
        load(signed)


def with_canaries(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "canaries.csv"
    path.write_text(text)
    return path


def test_canaries_that_live_let_a_dataset_pass(keep: Keep, path: Path, tmp_path: Path) -> None:
    canaries = with_canaries(tmp_path, "1.0.1.1,CN\n2.0.0.1,DE\n")
    keep(load(Settings(dataset=path, canaries=canaries)))


def test_a_canary_refuses_the_first_dataset_and_a_later_one(
    keep: Keep, path: Path, tmp_path: Path
) -> None:
    canaries = with_canaries(tmp_path, "1.0.1.77,CN\n")
    settings = Settings(dataset=path, canaries=canaries)
    before = keep(load(settings))
    path.write_bytes(OTHER)
    for known in (None, before):
        with pytest.raises(DatasetError) as refused:
            load(settings, known)
        assert str(refused.value).startswith(f"{path}: ")
        assert f"{canaries}:1" in str(refused.value)
        assert "1.0.1" not in str(refused.value)


def test_many_mismatched_canaries_are_listed_in_part(path: Path, tmp_path: Path) -> None:
    canaries = with_canaries(tmp_path, "1.0.1.1,FR\n" * 1_000)
    with pytest.raises(DatasetError) as refused:
        load(Settings(dataset=path, canaries=canaries))
    assert str(refused.value).endswith("; and 995 more")
    assert str(refused.value).count(";") == dataset_loading._MAX_LISTED


@pytest.mark.parametrize("text", ["", "1.0.1.1\n", "1.0.1.1,cn\n", "nothing,CN\n"])
def test_canaries_that_make_no_sense_refuse_a_dataset(
    path: Path, tmp_path: Path, text: str
) -> None:
    with pytest.raises(GeoLookupError, match=r"canaries\.csv") as refused:
        load(Settings(dataset=path, canaries=with_canaries(tmp_path, text)))
    assert not isinstance(refused.value, TransientError)


def with_limits(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    return path


def test_a_change_beyond_a_limit_is_refused(keep: Keep, path: Path, tmp_path: Path) -> None:
    limits = with_limits(tmp_path, '[limits.max_change]\nCN = "0.0001%"\n')
    settings = Settings(dataset=path, change_limits=limits)
    before = keep(load(settings))  # of a first dataset nothing is a change
    path.write_bytes(OTHER)
    with pytest.raises(DatasetError, match=rf"^{path}: .*CN"):
        load(settings, before)
    limits.write_text('[limits.max_change]\nCN = "100%"\n')
    assert keep(load(settings, before)).dataset.country("1.0.1.1") == "DE"


def test_a_later_dataset_of_which_nothing_is_expected_is_not_walked_over(
    keep: Keep, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the embedded dataset that took ten times as long as all the rest."""
    monkeypatch.setattr(verification, "verify", None)
    before = keep(load(Settings(dataset=path)))
    path.write_bytes(OTHER)
    assert keep(load(Settings(dataset=path), before)).dataset.country("1.0.1.1") == "DE"


def test_a_change_is_held_against_what_is_in_service_and_not_the_file(
    keep: Keep, path: Path, tmp_path: Path
) -> None:
    limits = with_limits(tmp_path, '[limits.max_change]\nCN = "0.0001%"\n')
    settings = Settings(dataset=path, change_limits=limits)
    before = keep(load(settings))
    for _ in range(2):  # a refused dataset is nothing that a second try is compared with
        path.write_bytes(OTHER)
        with pytest.raises(DatasetError):
            load(settings, before)
    path.write_bytes(IMAGE)
    assert keep(load(settings, before)).identity == before.identity


def test_the_least_coverage_is_asked_of_each_dataset(path: Path, tmp_path: Path) -> None:
    limits = with_limits(tmp_path, '[limits]\nmin_coverage = "99%"\n')
    with pytest.raises(DatasetError, match=r"coverage|%"):
        load(Settings(dataset=path, change_limits=limits))


@pytest.mark.parametrize("text", ["[limits]\nmin_coverage = 3\n", "hello", "[limits]\nother = 1\n"])
def test_limits_that_make_no_sense_refuse_a_dataset(path: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(GeoLookupError, match=r"limits\.toml"):
        load(Settings(dataset=path, change_limits=with_limits(tmp_path, text)))


def test_the_same_dataset_is_not_checked_again(
    keep: Keep, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(dataset=path, canaries=with_canaries(tmp_path, "1.0.1.1,CN\n"))
    before = keep(load(settings))

    def check(*_: object) -> None:
        pytest.fail("it was checked again")

    monkeypatch.setattr(dataset_loading, "_check", check)
    assert keep(load(settings, before)).identity == before.identity


# not now


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["open", "memfd_create", "write"])
def test_what_lies_not_in_the_file_may_work_another_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, refuse)
        with pytest.raises(TransientError) as refused:
            load(Settings(dataset=path))
    assert str(refused.value) == f"{path}: can't be loaded: {os.strerror(number)}"
    load(Settings(dataset=path)).close()


def test_a_full_disk_in_place_of_memory_is_transient(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    said = rf"^{path}: can't be loaded: No space left on device in {tempfile.gettempdir()}$"
    with pytest.raises(TransientError, match=said):
        load(Settings(dataset=path))


@pytest.mark.parametrize("where", ["seal_file", "open_sealed", "_check"])
def test_too_little_memory_is_transient_wherever_it_shows(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(dataset_loading, where, refuse)
    with pytest.raises(TransientError, match=r": can't be loaded: no memory$"):
        load(Settings(dataset=path))


LOAD_WITH_FEW = """
import os, resource, sys
from pathlib import Path
from geolookup.answer import signature
from geolookup.build import manifest
from geolookup.review import difference, verification
from geolookup.errors import GeoLookupError
from geolookup.service.processes.dataset_loading import load
from geolookup.service.settings import Settings
folder = Path(sys.argv[1])
given = {name: folder / file for name, file in
    (("dataset", "small.geolookup"), ("region_sets", "sets.toml"), ("canaries", "canaries.csv"),
     ("change_limits", "limits.toml"), ("public_key", "ours.pub"))
    if (folder / file).exists()}
settings = Settings(**given)
load(settings).close()  # all that is imported on the way is there then
most = max(map(int, os.listdir("/proc/self/fd"))) + 20
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
for free in range(12):
    before = len(taken)
    try:
        load(settings).close()
        print(free, "loaded")
        break
    except GeoLookupError as error:
        print(free, type(error).__name__)
    os.close(taken.pop())
"""


def test_with_too_few_descriptors_every_failure_is_transient(
    signed: Settings, tmp_path: Path
) -> None:
    """One more is free at each try, so each place that needs one fails once."""
    assert signed.public_key is not None
    (tmp_path / "sets.toml").write_text(SETS)
    with_canaries(tmp_path, "1.0.1.1,CN\n")
    with_limits(tmp_path, '[limits.max_change]\nCN = "0.0001%"\n')
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITH_FEW, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    outcomes = [line.split()[1] for line in done.stdout.splitlines()]
    assert outcomes[-1] == "loaded", done.stderr
    assert len(outcomes) > 3
    assert set(outcomes[:-1]) == {"TransientError"}


def test_a_limit_on_the_size_of_files_is_transient(path: Path) -> None:
    """Which memory is subject to as files are (RLIMIT_FSIZE)."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from geolookup.service.processes.dataset_loading import TransientError, load\n"
        "from geolookup.service.settings import Settings\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))\n"
        "try: load(Settings(dataset=Path(sys.argv[1])))\n"
        "except TransientError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout == f"{path}: can't be loaded: File too large\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1_000


# noticing changes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ()),
        (("dataset",), ("dataset",)),
        (("region_sets",), ("region_sets",)),
        (("dataset", "public_key"), ("dataset", "dataset.sig")),
        # The embedded dataset changes when the package does.
        (("public_key", "canaries", "change_limits"), ()),
        (("dataset", "region_sets", "canaries"), ("dataset", "region_sets")),
    ],
)
def test_the_files_whose_change_matters(given: tuple[str, ...], expected: tuple[str, ...]) -> None:
    settings = Settings(**{name: Path("/etc") / name for name in given})
    assert watched_files(settings) == tuple(Path("/etc") / name for name in expected)
