"""GGUF headers: what is read, and what each fault is called."""

import os
import struct
import threading

import gguf
import numpy as np
import pytest
from helpers import raw_gguf as raw
from helpers import tiny_model

import edgellm.gguf
from edgellm._core import FormatError
from edgellm.conversion.gguf_writer import GgufWriter

U32 = struct.Struct("<I").pack
U64 = struct.Struct("<Q").pack
ONE = raw.tensor("w", (32,), raw.Q4_0, 0)  # 18 bytes of data


@pytest.fixture
def write(tmp_path):
    def writer(content: bytes):
        path = tmp_path / "file.gguf"
        path.write_bytes(content)
        return path

    return writer


def test_tiny_model_reads_as_it_was_written(tmp_path):
    tiny = tiny_model.Tiny()
    header = edgellm.gguf.read(tiny_model.write(tmp_path / "tiny.gguf", tiny))
    assert (header.version, header.alignment, header.data_offset % 32) == (3, 32, 0)
    wanted = tiny_model.entries(tiny)
    assert list(header.metadata) == list(wanted)
    for key, (value, kind) in wanted.items():
        assert header.kind(key) == kind
        got = header.metadata[key]
        if kind == "f32":
            assert got == np.float32(value)
        else:
            assert (list(got) == list(value)) if kind.startswith("array") else (got == value)
    tensors = tiny_model.tensors(tiny)
    assert [tensor.name for tensor in header.tensors] == list(tensors)
    for tensor in header.tensors:
        assert tensor.shape == tensors[tensor.name].shape
    last = header.tensors[-1]
    assert last.offset + last.nbytes <= header.file_bytes == os.path.getsize(header.path)


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_gguf_package_reads_what_we_write(tmp_path, alignment):
    path = tiny_model.write(tmp_path / "tiny.gguf", quant="q5_1", tied=False, alignment=alignment)
    theirs = gguf.GGUFReader(path)
    ours = edgellm.gguf.read(path)
    assert ours.alignment == alignment
    for tensor, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (tensor.name, tensor.offset, tensor.nbytes) == (other.name, other.data_offset, other.n_bytes)
        assert tensor.type == other.tensor_type.name.lower()
        assert tensor.shape == tuple(int(n) for n in reversed(other.shape))
    for key, value in ours.metadata.items():
        other = theirs.fields[key].contents()
        if ours.kind(key) == "array of string":
            assert list(value) == other
        elif isinstance(value, np.ndarray):
            assert value.tolist() == list(other)
        else:
            assert value == other


def test_every_kind_of_value_is_read(tmp_path):
    path = tmp_path / "kinds.gguf"
    numbers = {"u8": 255, "i8": -128, "u16": 65535, "i16": -2, "u32": 2**32 - 1, "i32": -3}
    numbers |= {"u64": 2**64 - 1, "i64": -(2**63), "f32": 0.5, "f64": 1e300, "bool": True, "string": "a\0é"}
    writer = GgufWriter()
    for kind, value in numbers.items():
        writer.add(kind, value, kind)
        writer.add(f"{kind}.array", [value, value], f"array of {kind}")
        writer.add(f"{kind}.none", [], f"array of {kind}")
    with open(path, "wb") as file:
        writer.write(file, [])
    read = edgellm.gguf.read(path)
    for kind, value in numbers.items():
        assert read.metadata[kind] == value
        assert type(read.metadata[kind]) is type(value)
        assert list(read.metadata[f"{kind}.array"]) == [value, value]
        assert len(read.metadata[f"{kind}.none"]) == 0
        assert read.kind(f"{kind}.array") == f"array of {kind}"
    strings = read.metadata["string.array"]
    assert (strings[-1], strings[0:2], strings.raw(1)) == ("a\0é", ["a\0é"] * 2, "a\0é".encode())
    with pytest.raises(IndexError):
        strings[2]


def test_string_that_is_no_utf8_shows_a_replacement(write):
    header = edgellm.gguf.read(write(raw.file((raw.entry("k", raw.STRING, raw.string(b"a\xff")),))))
    assert header.metadata["k"] == "a\ufffd"


def test_version_2_is_read(write):
    header = edgellm.gguf.read(write(raw.file((), (ONE,), bytes(18), version=2)))
    assert (header.version, header.tensors[0].nbytes) == (2, 18)


def test_header_longer_than_the_first_window_is_read(write):
    tokens = b"".join(raw.string(f"token {i}") for i in range(300_000))
    content = raw.file(
        (raw.entry("t", raw.ARRAY, raw.array(raw.STRING, 300_000, tokens)),), (ONE,), bytes(18)
    )
    header = edgellm.gguf.read(write(content))
    assert header.metadata["t"][299_999] == "token 299999"
    assert header.tensors[0].offset == len(content) - 18


FAULTS = {
    "empty file": (b"", "not a GGUF file: 0 bytes"),
    "short file": (b"GGUF\3\0\0\0", "not a GGUF file: 8 bytes"),
    "other magic": (b"PK\3\4" + bytes(100), "does not start with 'GGUF'"),
    "version 1": (raw.file(version=1), "GGUF version 1; only 2 and 3"),
    "version 4": (raw.file(version=4), "GGUF version 4; only 2 and 3"),
    "big-endian": (raw.file(version=0x03000000), "big-endian"),
    "too many tensors": (raw.file(n_tensors=2**63), "9223372036854775808 tensors and 0 metadata entries"),
    "too many entries": (raw.file(n_entries=2**64 - 1), "0 tensors and 18446744073709551615 metadata"),
    "entries past the end": (raw.file(n_entries=1), "0 tensors and 1 metadata entries do not fit"),
    "entries for ever": (
        raw.file(n_entries=70_000) + bytes(1 << 20),
        "70000 metadata entries and 0 tensors; at most 65536",
    ),
    "empty key": (raw.file((raw.entry("", raw.U32, U32(1)),)), "metadata entry 0 has an empty name"),
    "long key": (raw.file((raw.entry("k" * 65536, raw.U32, U32(1)),)), "longer than 65535"),
    "key with NUL": (
        raw.file((raw.entry("a\0b", raw.U32, U32(1)),)),
        r"metadata 'a\?b' .* no printable UTF-8",
    ),
    "key with newline": (raw.file((raw.entry("a\nb", raw.U32, U32(1)),)), r"metadata 'a\?b' .* no printable"),
    "key with C1 control": (raw.file((raw.entry("a\x9bb", raw.U32, U32(1)),)), "no printable UTF-8"),
    "key of half a character": (raw.file((raw.entry(b"a\xc3", raw.U32, U32(1)),)), "no printable UTF-8"),
    "key of a surrogate": (raw.file((raw.entry(b"\xed\xa0\x80", raw.U32, U32(1)),)), "no printable UTF-8"),
    "key past the end": (raw.file((raw.string("k", 10**6) + bytes(30),)), "longer than 65535"),
    "key runs out": (
        raw.file((raw.string("k", 60000) + bytes(30),)),
        "entry 0 runs past the end of the file",
    ),
    "unknown value type": (
        raw.file((raw.entry("k", 13, bytes(8)),)),
        "metadata 'k' has an unknown value type",
    ),
    "string past the end": (raw.file((raw.entry("k", raw.STRING, raw.string("v", 2**63)),)), "'k' runs past"),
    "array past the end": (
        raw.file((raw.entry("k", raw.ARRAY, raw.array(raw.U64, 2**61, b"")),)),
        "metadata 'k' runs past the end",
    ),
    "strings past the end": (
        raw.file((raw.entry("k", raw.ARRAY, raw.array(raw.STRING, 2**40, raw.string("v"))),)),
        "metadata 'k' runs past the end",
    ),
    "array of arrays": (
        raw.file((raw.entry("k", raw.ARRAY, raw.array(raw.ARRAY, 1, raw.array(raw.U8, 1, b"1"))),)),
        "metadata 'k' is an array of arrays",
    ),
    "array of unknown": (raw.file((raw.entry("k", raw.ARRAY, raw.array(99, 1, bytes(8))),)), "unknown type"),
    "bool of 2": (raw.file((raw.entry("k", raw.BOOL, b"\2"),)), "metadata 'k' has a bool that is neither"),
    "bools of 2": (
        raw.file((raw.entry("k", raw.ARRAY, raw.array(raw.BOOL, 3, b"\0\1\2")),)),
        "metadata 'k' has a bool that is neither",
    ),
    "key twice": (raw.file((raw.entry("k", raw.U8, b"1"), raw.entry("k", raw.U8, b"1"))), "'k' occurs twice"),
    "tensor twice": (
        raw.file((), (ONE, raw.tensor("w", (32,), raw.Q4_0, 32)), bytes(64)),
        "tensor 'w' occurs twice",
    ),
    "alignment 0": (raw.file((raw.entry("general.alignment", raw.U32, U32(0)),)), "general.alignment is 0"),
    "alignment 48": (raw.file((raw.entry("general.alignment", raw.U32, U32(48)),)), "alignment is 48"),
    "alignment 2^31": (raw.file((raw.entry("general.alignment", raw.U32, U32(2**31)),)), "is 2147483648"),
    "alignment of text": (
        raw.file((raw.entry("general.alignment", raw.STRING, raw.string("32")),)),
        "'general.alignment' is not an integer",
    ),
    "alignment -32": (
        raw.file((raw.entry("general.alignment", raw.I32, U32(2**32 - 32)),)),
        "'general.alignment' is negative",
    ),
    "no dimension": (raw.file((), (raw.tensor("w", (), 0, 0) + bytes(8),), bytes(4)), "1 to 4 dimensions"),
    "5 dimensions": (raw.file((), (raw.tensor("w", (1,) * 5, 0, 0),), bytes(4)), "1 to 4 dimensions"),
    "billions of dimensions": (
        raw.file((), (raw.tensor("w", (1,), 0, 0, dims=2**32 - 1),), bytes(4)),
        "tensor 'w' does not have 1 to 4",
    ),
    "extent 0": (raw.file((), (raw.tensor("w", (32, 0), 0, 0),), bytes(64)), "'w' has an extent of zero"),
    "rows of 33": (
        raw.file((), (raw.tensor("w", (33,), 2, 0),), bytes(64)),
        "rows of 33 values, no multiple",
    ),
    "extents overflow": (
        raw.file((), (raw.tensor("w", (2**32, 2**32), 0, 0),), bytes(64)),
        "tensor 'w' is larger than the file",
    ),
    "extents overflow to 32": (
        raw.file((), (raw.tensor("w", (2**63 + 32, 2), 2, 0),), bytes(64)),
        "tensor 'w' is larger than the file",
    ),
    "type IQ2_XXS": (
        raw.file((), (raw.tensor("w", (256,), 16, 0),), bytes(66)),
        r"'w' has type 16 \(IQ2_XXS\)",
    ),
    "type Q8_K": (raw.file((), (raw.tensor("w", (256,), 15, 0),), bytes(300)), r"'w' has type 15 \(Q8_K\)"),
    "type 999": (
        raw.file((), (raw.tensor("w", (256,), 999, 0),), bytes(66)),
        r"'w' has type 999 \(unknown\)",
    ),
    "offset not aligned": (
        raw.file((), (raw.tensor("w", (4,), 0, 4),), bytes(64)),
        "offset that is not aligned",
    ),
    "data missing": (
        raw.file((), (ONE,), bytes(17)),
        r"'w' has data past the end of the file \(is the file cut",
    ),
    "offset past the end": (
        raw.file((), (raw.tensor("w", (4,), 0, 2**64 - 32),), bytes(64)),
        "'w' has data past the end",
    ),
    "overlap": (
        raw.file((), (raw.tensor("a", (64,), 0, 0), raw.tensor("b", (8,), 0, 32)), bytes(256)),
        "tensor 'b' overlaps another tensor",
    ),
    "same place": (
        raw.file((), (raw.tensor("a", (8,), 0, 0), raw.tensor("b", (8,), 0, 0)), bytes(256)),
        "overlaps another tensor",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(write, fault):
    content, words = FAULTS[fault]
    with pytest.raises(FormatError, match=words) as caught:
        edgellm.gguf.read(write(content))
    assert str(caught.value).startswith("file.gguf: ")


def test_every_truncation_is_refused(write, tmp_path):
    """Cut at any byte of the header or the data, down to nothing."""
    whole = tiny_model.write(tmp_path / "tiny.gguf", width=32, ffn=32, heads=4).read_bytes()
    end = edgellm.gguf.read(tmp_path / "tiny.gguf").tensors[-1]
    end_of_data = end.offset + end.nbytes
    cuts = {*range(0, 9000, 37), *range(len(whole) - 400, end_of_data, 7)}
    for cut in sorted(cuts):
        with pytest.raises(FormatError):
            edgellm.gguf.read(write(whole[:cut]))


def test_equal_names_among_many_are_found(write):
    """Keys that differ only at their end, sorted the wrong way round: quadratic work would take minutes."""
    keys = [f"{'k' * 200}{i:06}" for i in reversed(range(60_000))]
    content = raw.file(tuple(raw.entry(key, raw.U8, b"1") for key in [*keys, keys[0]]))
    with pytest.raises(FormatError, match="occurs twice"):
        edgellm.gguf.read(write(content))


def test_folder_pipe_and_missing_file_are_os_errors(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ["", "pipe", "missing.gguf"]:
        with pytest.raises(OSError, match=r"not a regular file|No such file"):
            edgellm.gguf.read(tmp_path / name)


def test_file_cut_short_while_read_is_an_os_error(tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(raw.file())
    with open(path, "rb") as file, pytest.raises(OSError, match="ends 4 bytes early"):
        edgellm.gguf.read_exactly(file.fileno(), 0, path.stat().st_size + 4, str(path))


def test_one_file_is_read_by_many_threads(tmp_path):
    path = tiny_model.write(tmp_path / "tiny.gguf")
    counts = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(edgellm.gguf.read(path).tensors))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20] * 8
