"""Writing edge images: packed by C, hashed and signed here. docs/formats.md has the format."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgellm import _core
from edgellm._atomic import replacing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MACHINES = ("portable", "x86-avx2", "x86-avx512", "aarch64")
_CHUNK_BYTES = 4 << 20
_SIGNATURE_BYTES = 64
MOST_VERSION = 2**32 - 1


def check_machine(machine: object) -> str:
    """The name of a machine, or ValueError with the known ones."""
    if machine not in MACHINES:
        raise ValueError(f"convert: unknown machine {machine!r:.60}; known are {', '.join(MACHINES)}")
    return str(machine)


def check_version(version: object) -> int:
    """A version from 0 to 2**32 - 1, or ValueError."""
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= MOST_VERSION:
        raise ValueError(f"convert: version must be an int from 0 to {MOST_VERSION}, got {version!r:.60}")
    return version


def write_image(
    source: str,
    target: str,
    machine: str,
    version: int,
    key: Ed25519PrivateKey | None,
    begin: Callable[[int], Callable[[int], None]],
) -> tuple[dict[str, str], int]:
    """Pack the GGUF `source` into the image `target`, which appears only when it is whole.

    Parameters
    ----------
    begin : callable
        Gets the bytes to be packed; what it returns gets the bytes of each step.

    Returns
    -------
    types : dict of str to str
        The format of every tensor.
    nbytes : int
        Size of the image.
    """
    writer = _core.EdgeWriter(source, machine, version, key is not None)
    tensors, sections = writer.tensors, writer.sections
    weights = sections[-1]
    report = begin(weights[3])
    digests = []
    with replacing(target) as file:
        file.seek(weights[2])
        for i, (_, _, _, _, _, tiles, tile_bytes) in enumerate(tensors):
            digest = hashlib.sha256()
            step = max(1, _CHUNK_BYTES // tile_bytes)
            for first in range(0, tiles, step):
                packed = writer.pack(i, first, min(step, tiles - first))
                digest.update(packed)
                file.write(packed)
                report(len(packed))
            digests.append(digest.digest())
        file.seek(0)
        file.write(_finished_head(writer, digests, key))
        file.seek(0, os.SEEK_END)
        size = file.tell()
    return {name: type for name, type, *_ in tensors}, size


def _finished_head(
    writer: _core.EdgeWriter, digests: list[bytes], key: Ed25519PrivateKey | None
) -> bytearray:
    """The head with hashes and signature: tensors, then the sections, of which the last is the tensors'."""
    head = writer.seal()
    for tensor, digest in zip(writer.tensors, digests, strict=True):
        head[tensor[4] : tensor[4] + len(digest)] = digest
    sections = writer.sections
    for _, _, offset, nbytes, at, _, _ in sections[:-1]:
        head[at : at + 32] = hashlib.sha256(memoryview(head)[offset : offset + nbytes]).digest()
    at = sections[-1][4]
    head[at : at + 32] = hashlib.sha256(b"".join(digests)).digest()
    if key is not None:
        manifest = sections[0][2] - _SIGNATURE_BYTES
        head[manifest : manifest + _SIGNATURE_BYTES] = key.sign(bytes(head[:manifest]))
    return head


def rewrite_image(
    image: _core.EdgeImage,
    source: str,
    target: str,
    machine: str,
    version: int,
    key: Ed25519PrivateKey | None,
    begin: Callable[[int], Callable[[int], None]],
) -> tuple[dict[str, str], int]:
    """As `write_image`, from another image: its hashes are checked, and its parts stay as they are.

    Raises
    ------
    FormatError
        If a part of the image does not have its hash: nobody should sign that.
    """
    from edgellm._signing import check_hashes

    check_hashes(image, source, "convert")
    with memoryview(image) as view, replacing(target) as file:
        report = begin(len(view))
        first = len(image.manifest) + _SIGNATURE_BYTES
        head = bytearray(view[:first])
        struct.pack_into("<I", head, 24, MACHINES.index(machine))
        struct.pack_into("<II", head, 32, version, int(key is not None))
        manifest = bytes(head[:-_SIGNATURE_BYTES])
        head[-_SIGNATURE_BYTES:] = bytes(_SIGNATURE_BYTES) if key is None else key.sign(manifest)
        file.write(head)
        for at in range(first, len(view), _CHUNK_BYTES):
            file.write(view[at : at + _CHUNK_BYTES])
            report(min(_CHUNK_BYTES, len(view) - at))
        return {name: type for name, type, *_ in image.tensors}, len(view)
