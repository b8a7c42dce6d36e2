"""Ed25519 keys and the hashes of edge images. Needs the package `cryptography` (the extra ``verify``)."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm import _core, cpu

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_RAW_BYTES = 32
_PEM = b"-----BEGIN"
_MOST_KEY_BYTES = 1 << 16


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ImportError(
            "signatures of edge images need the package cryptography: pip install 'edgellm[verify]'"
        ) from None
    return ed25519


def _key_bytes(key: object, what: str) -> bytes:
    """The bytes of a key that is a path, the text of a PEM file, or the bytes of either."""
    if isinstance(key, str) and key.lstrip().startswith(_PEM.decode()):
        return key.encode()
    if isinstance(key, str | os.PathLike):
        with open(key, "rb") as file:
            return file.read(_MOST_KEY_BYTES)
    if isinstance(key, bytes | bytearray | memoryview):
        return bytes(key)
    raise TypeError(f"{what} must be a path, bytes or an Ed25519 key object, got {key.__class__.__name__}")


def public_key(key: object) -> Ed25519PublicKey:
    """The public key that a user means.

    Parameters
    ----------
    key : path-like, str, bytes or Ed25519PublicKey
        A file of 32 bytes or PEM, the PEM text itself, 32 bytes, or a key of `cryptography`.

    Raises
    ------
    ValueError
        If it is no Ed25519 public key.
    ImportError
        If `cryptography` is not installed.
    """
    ed25519 = _ed25519()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key  # type: ignore[no-any-return]  # `ed25519` is imported late, so untyped
    raw = _key_bytes(key, "verify")
    if len(raw) == _RAW_BYTES:
        return ed25519.Ed25519PublicKey.from_public_bytes(raw)  # type: ignore[no-any-return]  # as above
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(raw)
    except Exception as error:
        raise ValueError(f"verify: not a public key (PEM or 32 bytes): {type(error).__name__}") from None
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise ValueError(f"verify: a key of Ed25519 is needed, not {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # as above


def private_key(key: object) -> Ed25519PrivateKey:
    """As `public_key`, of a private key; one that needs a password is refused."""
    ed25519 = _ed25519()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key  # type: ignore[no-any-return]  # `ed25519` is imported late, so untyped
    raw = _key_bytes(key, "sign")
    if len(raw) == _RAW_BYTES:
        return ed25519.Ed25519PrivateKey.from_private_bytes(raw)  # type: ignore[no-any-return]  # as above
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(raw, password=None)
    except Exception as error:
        raise ValueError(f"sign: not a private key (PEM or 32 bytes): {type(error).__name__}") from None
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise ValueError(f"sign: a key of Ed25519 is needed, not {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # as above


def new_key_pair(private: str | os.PathLike[str]) -> tuple[str, str]:
    """Make an Ed25519 key pair: `private` (PEM, readable by its owner alone) and `private` + ".pub".

    Returns
    -------
    paths : (str, str)
        Both files.

    Raises
    ------
    FileExistsError
        If either file is there: a key is never overwritten.
    """
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = _ed25519().Ed25519PrivateKey.generate()
    secret, public = os.fspath(private), os.fspath(private) + ".pub"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if os.path.lexists(public):
        raise FileExistsError(17, os.strerror(17), public)
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    Path(public).write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return secret, public


def check_image(image: _core.EdgeImage, key: object, path: str) -> None:
    """Check the signature of an image, then every hash: so every byte of the file.

    Raises
    ------
    FormatError
        If it is not signed, not by this key, or a byte has changed; it says which part.
    """
    from cryptography.exceptions import InvalidSignature

    public = public_key(key)
    signature = image.signature
    if signature is None:
        raise _core.FormatError(f"load: {path}: the image is not signed")
    try:
        public.verify(signature, image.manifest)
    except InvalidSignature:
        raise _core.FormatError(
            f"load: {path}: the signature is not of this key, or the manifest was changed"
        ) from None
    check_hashes(image, path, "load")


def check_hashes(image: _core.EdgeImage, path: str, where: str) -> None:
    """Check every hash; FormatError names the part that does not have its own."""
    names = ("config", "info", "plan", "rope", "tokenizer", "tensors", "weights")
    sections, tensors = image.sections, image.tensors
    with memoryview(image) as view:

        def intact(offset: int, nbytes: int, digest: bytes) -> bool:
            with view[offset : offset + nbytes] as part:
                return hashlib.sha256(part).digest() == digest  # without the GIL

        for name, (offset, nbytes, digest) in zip(names[:-1], sections[:-1], strict=True):
            if not intact(offset, nbytes, digest):
                raise _core.FormatError(f"{where}: {path}: section {name} does not have its hash")
        joined = b"".join(tensor[-1] for tensor in tensors)
        if hashlib.sha256(joined).digest() != sections[-1][2]:
            raise _core.FormatError(f"{where}: {path}: section weights does not have its hash")
        with ThreadPoolExecutor(cpu.count()) as pool:
            results = list(pool.map(lambda t: intact(*t[-3:]), tensors))
    for tensor, fine in zip(tensors, results, strict=True):
        if not fine:
            raise _core.FormatError(f"{where}: {path}: tensor {tensor[0]} does not have its hash")
