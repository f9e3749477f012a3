"""Signatures: a dataset that must be signed opens only with the right one beside it."""

from __future__ import annotations

import base64
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import small_dataset
from command_line import run_command

import geolookup
from geolookup import DatasetError, GeoLookupError
from geolookup.answer.dataset import encode
from geolookup.answer.signature import KeyFileError

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from keys import pem, public_pem
from servers import COMMAND, ON_FREE_PORTS

ROOT = Path(__file__).resolve().parents[2]
OPENSSL = shutil.which("openssl")
DOMAIN = b"geolookup dataset signature, format 1\n"


class Place:
    """A folder with a dataset, two pairs of keys, and the command in this process."""

    def __init__(self, folder: Path, run: Callable[..., tuple[int, str, str]]) -> None:
        self.folder = folder
        self.run = run
        self.dataset = folder / "small.geolookup"
        self.dataset.write_bytes(encode(small_dataset.content()))
        self.signature = folder / "small.geolookup.sig"
        for name in ("ours", "theirs"):
            key = ed25519.Ed25519PrivateKey.generate()
            self.keep(f"{name}.pem", pem(key))
            self.keep(f"{name}.pub", public_pem(key))

    def keep(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def sign(self, key: str = "ours.pem") -> None:
        code, out, err = self.run("sign", str(self.dataset), "--key", self.path(key))
        assert (code, err) == (0, "")
        assert str(self.signature) in out

    def refused(self, public_key: str = "ours.pub") -> str:
        with pytest.raises(DatasetError) as caught:
            geolookup.open(self.dataset, public_key=self.path(public_key))
        assert str(caught.value).startswith(f"{self.dataset}: ")
        return str(caught.value)

    def opens(self, public_key: str = "ours.pub") -> None:
        with geolookup.open(self.dataset, public_key=self.path(public_key)) as dataset:
            assert dataset.country("1.0.1.1") == "CN"


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, partial(run_command, capsys))


def test_a_signed_dataset_opens(place: Place) -> None:
    place.sign()
    place.opens()


def test_a_dataset_without_a_signature_is_refused_only_if_one_is_asked_for(place: Place) -> None:
    assert "not signed: there is no file" in place.refused()
    geolookup.open(place.dataset).close()


def test_the_signature_of_another_key_is_refused(place: Place) -> None:
    place.sign("theirs.pem")
    assert "was not made with a key of" in place.refused()


def test_the_signature_of_another_dataset_is_refused(place: Place) -> None:
    place.sign()
    content = small_dataset.content()
    content.metadata["built"] = "2026-06-18T00:00:00Z"
    place.dataset.write_bytes(encode(content))
    assert "is about another dataset" in place.refused()


def test_signature_for_another_purpose_is_refused(place: Place) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    place.keep("ours.pub", public_pem(key))
    with geolookup.open(place.dataset) as dataset:
        identity = dataset.id
    for message, passes in (
        (DOMAIN + bytes.fromhex(identity), True),
        (bytes.fromhex(identity), False),
        (identity.encode(), False),
    ):
        signed = base64.b64encode(key.sign(message)).decode()
        place.signature.write_text(f"geolookup-signature-1 {identity} {signed}\n")
        if passes:
            place.opens()
        else:
            place.refused()


def test_each_changed_byte_of_a_signature_file_is_refused(place: Place) -> None:
    place.sign()
    good = place.signature.read_bytes()
    rng = random.Random(5)
    for at in range(len(good) - 1):
        changed = bytearray(good)
        changed[at] ^= 1 << rng.randrange(7)
        place.signature.write_bytes(changed)
        place.refused()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"geolookup-signature-1\n", b"\xff" * 100, b"x" * 100_000, b"\0" * 175],
)
def test_malformed_signature_file_is_refused(place: Place, content: bytes) -> None:
    place.signature.write_bytes(content)
    place.refused()


def test_a_folder_in_place_of_the_signature_is_refused(place: Place) -> None:
    place.signature.mkdir()
    assert "can't be read" in place.refused()


def test_one_of_several_trusted_keys_is_enough(place: Place) -> None:
    both = Path(place.path("ours.pub")).read_bytes() + Path(place.path("theirs.pub")).read_bytes()
    place.keep("both.pub", b"# the second is the new one\n" + both)
    for key in ("ours.pem", "theirs.pem"):
        place.sign(key)
        place.opens("both.pub")


def test_one_file_may_hold_the_signatures_of_the_old_and_the_new_dataset(place: Place) -> None:
    place.sign()
    first, old = place.signature.read_bytes(), place.dataset.read_bytes()
    content = small_dataset.content()
    content.metadata["built"] = "2026-06-18T00:00:00Z"
    place.dataset.write_bytes(encode(content))
    place.sign()
    place.signature.write_bytes(first + place.signature.read_bytes())
    place.opens()
    place.dataset.write_bytes(old)
    place.opens()


def test_a_damaged_file_can_not_be_signed(place: Place) -> None:
    image = bytearray(encode(small_dataset.content(), optional={"extra": b"something"}))
    image[-1] ^= 1
    place.dataset.write_bytes(image)
    code, _, err = place.run("sign", str(place.dataset), "--key", place.path("ours.pem"))
    assert code == 3
    assert "section extra" in err
    assert not place.signature.exists()


# --- keys -----------------------------------------------------------------------------

RSA = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "not a private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a private key"),
        (pem(RSA), "not an Ed25519 key"),
        (pem(ed25519.Ed25519PrivateKey.generate(), b"secret"), "the key has a passphrase"),
        (public_pem(RSA), "not a private key in PEM"),
        (b"x" * 100_000, "too large for a key"),
    ],
    ids=["empty", "no key", "RSA", "passphrase", "public", "large"],
)
def test_unusable_private_key_is_refused(place: Place, content: bytes, what: str) -> None:
    key = place.keep("bad.pem", content)
    code, _, err = place.run("sign", str(place.dataset), "--key", key)
    assert code == 1
    assert err.startswith(f"geolookup: {key}: {what}")
    assert not place.signature.exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key 1: can't be read"),
        (public_pem(RSA), "key 1: not an Ed25519 key"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "holds no public key"),
    ],
    ids=["empty", "no key", "RSA", "private"],
)
def test_unusable_public_key_is_refused(place: Place, content: bytes, what: str) -> None:
    place.sign()
    key = place.keep("bad.pub", content)
    with pytest.raises(KeyFileError) as caught:
        geolookup.open(place.dataset, public_key=key)
    assert str(caught.value).startswith(f"{key}: {what}")


def test_missing_public_key_is_an_error(place: Place) -> None:
    place.sign()
    with pytest.raises(KeyFileError, match="No such file"):
        geolookup.open(place.dataset, public_key=place.path("nothing.pub"))


@pytest.mark.skipif(OPENSSL is None, reason="needs the openssl command")
def test_openssl_makes_keys_and_checks_signatures(place: Place) -> None:
    def openssl(*arguments: str) -> None:
        assert OPENSSL is not None
        subprocess.run([OPENSSL, *arguments], cwd=place.folder, check=True, capture_output=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "o.pem")
    openssl("pkey", "-in", "o.pem", "-pubout", "-out", "o.pub")
    place.sign("o.pem")
    place.opens("o.pub")
    _, identity, signed = place.signature.read_text().split()
    place.keep("message", DOMAIN + bytes.fromhex(identity))
    place.keep("raw", base64.b64decode(signed))
    openssl(
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "o.pub",
        "-in",
        "message",
        "-sigfile",
        "raw",
    )


# --- where a key is configured --------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("lookup", "1.0.1.1", "--dataset", "{}"),
        ("info", "--dataset", "{}"),
        ("explain", "1.0.1.1", "--dataset", "{}"),
        ("verify", "{}", "--min-coverage", "0"),
        ("diff", "{}", "{}"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_refuse_an_unsigned_dataset_with_exit_code_3(
    place: Place, arguments: tuple[str, ...]
) -> None:
    filled = [one.format(place.dataset) for one in arguments]
    ours = ("--public-key", place.path("ours.pub"))
    code, _, err = place.run(*filled, *ours)
    assert code == 3
    assert "not signed" in err
    place.sign()
    assert place.run(*filled, *ours)[0] == 0
    assert place.run(*filled, "--public-key", place.path("theirs.pub"))[0] == 3


def test_serve_refuses_an_unsigned_dataset(place: Place) -> None:
    done = subprocess.run(
        [
            *COMMAND,
            *ON_FREE_PORTS,
            "--dataset",
            str(place.dataset),
            "--public-key",
            place.path("ours.pub"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert "not signed" in done.stderr
    assert "address:" not in done.stdout


def test_public_key_with_server_is_wrong_usage(place: Place) -> None:
    code, _, err = place.run(
        "lookup", "1.0.1.1", "--server", "127.0.0.1:1", "--public-key", place.path("ours.pub")
    )
    assert code == 2
    assert "--public-key" in err


def test_missing_cryptography_package_names_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.sign()
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(GeoLookupError, match=r"pip install 'geolookup\[sign\]'"):
        geolookup.open(place.dataset, public_key=place.path("ours.pub"))


def test_opening_without_a_key_loads_no_cryptography() -> None:
    code = "import geolookup, sys; geolookup.open().close(); print('cryptography' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
