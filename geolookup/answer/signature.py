"""Signatures: who made a dataset, shown by a file beside it.

A signature (Ed25519, RFC 8032) is over the dataset's id, which pins every byte of the
dataset file. docs/trust.md describes the signature file and the keys.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from geolookup.errors import DatasetError, GeoLookupError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SUFFIX: Final = ".sig"
"""What the name of the signature file ends with, after the whole name of the dataset file."""

_WORD = "geolookup-signature-1"
_DOMAIN = b"geolookup dataset signature, format 1\n"
"""What is signed begins with it, so that nothing signed for another purpose passes."""
# Of the last letter four bits say nothing, and are zero: one text a signature.
_LINE = re.compile(rf"{_WORD} ([0-9a-f]{{64}}) ([A-Za-z0-9+/]{{85}}[AQgw]==)", re.ASCII)
_LARGEST = 1 << 14
"""Bytes of a signature or key file. A signature is 175, and a few keys are one or two thousand."""
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class KeyFileError(GeoLookupError, ValueError):
    """A file of keys can't be used. The text begins with its name."""


def sign(identity: str, private_key: str | os.PathLike[str]) -> bytes:
    """Return the content of a signature file: one line.

    Args:
        identity: the dataset's id.
        private_key: file with an Ed25519 key, PKCS #8 in PEM, without a passphrase.

    Raises:
        KeyFileError: the key can't be used.
        MissingExtraError: the package `cryptography` is missing.
    """
    signed = _load_private(os.fsdecode(private_key)).sign(_message(identity))
    return f"{_WORD} {identity} {base64.b64encode(signed).decode()}\n".encode()


def check(name: str, identity: str, public_keys: str | os.PathLike[str]) -> None:
    """Hold a dataset against the signature file beside it.

    Args:
        name: path of the dataset file; that of the signature file follows from it.
        identity: the dataset's id.
        public_keys: file with one or more Ed25519 public keys in PEM. A signature by
            one of them will do, so that keys can be replaced.

    Raises:
        DatasetError: not signed, or not by one of these keys. The text begins with *name*.
        KeyFileError: the keys can't be used.
        MissingExtraError: the package `cryptography` is missing.
    """
    keys = _load_public(os.fsdecode(public_keys))
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    known = list(_signatures(name))
    signatures = [signature for signed, signature in known if signed == identity]
    if not signatures:
        raise DatasetError(f"{name}: not signed: {name}{SUFFIX} is about another dataset")
    for key in keys:
        for signature in signatures:
            try:
                key.verify(signature, _message(identity))
            except InvalidSignature:
                continue
            return
    raise DatasetError(
        f"{name}: the signature in {name}{SUFFIX} was not made with a key of"
        f" {os.fsdecode(public_keys)}"
    )


def _message(identity: str) -> bytes:
    return _DOMAIN + bytes.fromhex(identity)


def _signatures(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the signature of each line."""
    path = f"{name}{SUFFIX}"
    try:
        raw = _read(path)
    except FileNotFoundError:
        raise DatasetError(f"{name}: not signed: there is no file {path}") from None
    except OSError as error:
        raise DatasetError(f"{name}: {path} can't be read: {error.strerror}") from error
    lines = raw.decode("ascii", "replace").splitlines()
    if not lines or len(raw) > _LARGEST:
        raise DatasetError(f"{name}: {path} is no signature file")
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise DatasetError(f"{name}: {path}:{number}: not a signature")
        yield found[1], base64.b64decode(found[2])


def _load_private(path: str) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    raw = _read_key(path)
    try:
        key = load_pem_private_key(raw, password=None)
    except TypeError:
        raise KeyFileError(f"{path}: the key has a passphrase, which is not supported") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path}: not a private key in PEM") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key")
    return key


def _load_public(path: str) -> list[Ed25519PublicKey]:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    keys = []
    for number, block in enumerate(_PEM.findall(_read_key(path)), start=1):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError(f"{path}: key {number}: can't be read") from None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise KeyFileError(f"{path}: key {number}: not an Ed25519 key")
        keys.append(key)
    if not keys:
        raise KeyFileError(f"{path}: holds no public key in PEM")
    return keys


def _read_key(path: str) -> bytes:
    try:
        raw = _read(path)
    except OSError as error:
        raise KeyFileError(f"{path}: can't be read: {error.strerror}") from error
    if len(raw) > _LARGEST:
        raise KeyFileError(f"{path}: too large for a key")
    return raw


def _read(path: str) -> bytes:
    """Return the file's bytes, at most one more than `_LARGEST`."""
    with open(path, "rb") as file:
        return file.read(_LARGEST + 1)


def _need_cryptography() -> None:
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "cryptography":
            raise
        raise MissingExtraError("signatures", "cryptography", "sign") from None
