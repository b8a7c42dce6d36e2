"""Signed images: with any byte changed, another key or an older version, nothing of an image is used."""

import hashlib
import os
import struct
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from helpers import tiny_model

import edgellm
from edgellm import _core, _signing

PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key()
RAW_PUBLIC = PUBLIC.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    tiny_model.write(folder / "tiny.gguf", layers=1, width=32, ffn=32, kv_heads=2)
    edgellm.convert(folder / "tiny.gguf", folder / "tiny.edge", version=5, sign=PRIVATE)
    return folder / "tiny.edge"


def refused(path, why=None, **arguments):
    with pytest.raises(edgellm.FormatError, match=why) as caught:
        edgellm.load(path, **{"verify": PUBLIC, **arguments})
    assert "\n" not in str(caught.value)


def pem(key):
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_signed_image_loads_with_its_key_in_every_form(signed, tmp_path):
    (tmp_path / "key.pub").write_bytes(pem(PUBLIC))
    (tmp_path / "raw.pub").write_bytes(RAW_PUBLIC)
    keys = [PUBLIC, RAW_PUBLIC, pem(PUBLIC), pem(PUBLIC).decode(), tmp_path / "key.pub"]
    for key in [*keys, str(tmp_path / "raw.pub")]:
        for resident in (False, True):
            with edgellm.load(signed, verify=key, resident=resident, min_version=5) as model:
                assert model.info["image"]["signed"]


def test_keys_sign_alike_in_every_form(signed, tmp_path):
    (tmp_path / "key.pem").write_bytes(pem(PRIVATE))
    source = signed.parent / "tiny.gguf"
    for key in (bytes(range(32)), pem(PRIVATE), tmp_path / "key.pem"):
        edgellm.convert(source, tmp_path / "x.edge", version=5, sign=key)
        assert (tmp_path / "x.edge").read_bytes() == signed.read_bytes()


def test_no_byte_may_change(signed, tmp_path):
    """Each byte of manifest and signature, those around every border, and every 23rd of all others."""
    raw = signed.read_bytes()
    image = _core.edge_open(str(signed), False)
    borders = [offset for offset, _, _ in image.sections] + [t[4] for t in image.tensors] + [len(raw)]
    places = {*range(700), *range(0, len(raw), 23)}
    places |= {at + step for at in borders for step in (-2, -1, 0, 1)}
    zeros = [at for at in range(640, len(raw)) if not any(raw[at - 8 : at + 8])]
    places |= set(zeros[::29])  # paddings
    path = tmp_path / "changed.edge"
    for at in sorted(places & set(range(len(raw)))):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        refused(path)


def test_no_byte_may_be_missing_or_added(signed, tmp_path):
    raw = signed.read_bytes()
    path = tmp_path / "cut.edge"
    for size in (
        0,
        1,
        7,
        8,
        100,
        639,
        640,
        4096,
        len(raw) // 2,
        len(raw) - 4096,
        len(raw) - 64,
        len(raw) - 1,
    ):
        path.write_bytes(raw[:size])
        refused(path)
    for more in (b"\0", b"x", bytes(64), bytes(4096), raw):
        path.write_bytes(raw + more)
        refused(path, "bytes")


def test_sections_with_right_hashes_and_no_signature_over_them_are_refused(signed, tmp_path):
    """Whoever changes a tensor can also change its hash, the table's and the section's; not the signature."""
    raw = bytearray(signed.read_bytes())
    image = _core.edge_open(str(signed), False)
    *_, offset, nbytes, digest = image.tensors[-1]
    raw[offset] ^= 1
    changed = hashlib.sha256(raw[offset : offset + nbytes]).digest()
    raw = raw.replace(digest, changed)
    digests = [t[-1] for t in image.tensors[:-1]] + [changed]
    raw = raw.replace(image.sections[-1][2], hashlib.sha256(b"".join(digests)).digest())
    table_at, table_bytes, table_digest = image.sections[5]
    raw = raw.replace(table_digest, hashlib.sha256(raw[table_at : table_at + table_bytes]).digest())
    path = tmp_path / "forged.edge"
    path.write_bytes(raw)
    edgellm.load(path).close()  # sound as far as structure goes, and even as far as hashes go
    _signing.check_hashes(_core.edge_open(str(path), False), "x", "load")
    refused(path, "signature")


def test_wrong_key_unsigned_image_and_old_version_are_refused(signed, tmp_path):
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    refused(signed, "signature is not of this key", verify=other)
    edgellm.convert(signed, tmp_path / "unsigned.edge", version=5)
    refused(tmp_path / "unsigned.edge", "not signed")
    refused(signed, "version 5 is older than 6", min_version=6)
    refused(signed, "version 5 is older than 6", min_version=6, verify=None)
    edgellm.load(signed, min_version=5).close()
    raw = bytearray(signed.read_bytes())
    struct.pack_into("<I", raw, 32, 9)  # a version that nobody signed
    (tmp_path / "newer.edge").write_bytes(raw)
    refused(tmp_path / "newer.edge", "signature", min_version=6)


def test_signature_cannot_be_taken_away(signed, tmp_path):
    raw = bytearray(signed.read_bytes())
    struct.pack_into("<I", raw, 36, 0)
    (tmp_path / "x.edge").write_bytes(raw)
    refused(tmp_path / "x.edge", "not signed, and has a signature")
    raw[576:640] = bytes(64)
    (tmp_path / "x.edge").write_bytes(raw)
    refused(tmp_path / "x.edge", "not signed")


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (b"", ValueError),
        (b"x" * 31, ValueError),
        (b"-----BEGIN PUBLIC KEY-----\nnonsense", ValueError),
        (pem(ec.generate_private_key(ec.SECP256R1()).public_key()), ValueError),
        (pem(PRIVATE), ValueError),
        (7, TypeError),
        ("no/such/key.pub", FileNotFoundError),
    ],
)
def test_bad_keys_are_named(signed, key, error):
    with pytest.raises(error):
        edgellm.load(signed, verify=key)


def test_without_cryptography_the_extra_is_named(signed, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(ImportError, match=r"edgellm\[verify\]"):
        edgellm.load(signed, verify=RAW_PUBLIC)
    edgellm.load(signed).close()


def test_new_keys_are_private_and_never_overwrite(tmp_path, signed):
    secret, public = _signing.new_key_pair(tmp_path / "k.pem")
    assert os.stat(secret).st_mode & 0o077 == 0
    edgellm.convert(signed, tmp_path / "x.edge", sign=secret)
    edgellm.load(tmp_path / "x.edge", verify=public).close()
    before = (tmp_path / "k.pem").read_bytes()
    with pytest.raises(FileExistsError):
        _signing.new_key_pair(tmp_path / "k.pem")
    os.unlink(public)
    with pytest.raises(FileExistsError):
        _signing.new_key_pair(tmp_path / "k.pem")
    assert (tmp_path / "k.pem").read_bytes() == before


def test_resident_copy_does_not_mind_a_truncated_file(signed, tmp_path):
    path = tmp_path / "x.edge"
    path.write_bytes(signed.read_bytes())
    with edgellm.load(path, resident=True, verify=PUBLIC) as model:
        os.truncate(path, 10)
        assert model.session().eval([1, 2, 3]).shape == (300,)
