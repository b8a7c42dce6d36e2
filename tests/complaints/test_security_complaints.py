"""Classes of security defects that other engines had, one named test each, with the advisories."""

import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import raw_gguf as raw
from helpers import tiny_model

import edgellm
import edgellm.gguf
from edgellm.chat import render_chat

HUGE = (2**31, 2**32 - 1, 2**32, 2**61, 2**62 + 1, 2**63, 2**64 - 1)
MEMORY_BYTES = 1 << 30


def refused(tmp_path: Path, raw_file: bytes) -> str:
    """What `load` says of a file that it must refuse, in little memory."""
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw_file)
    with pytest.raises((edgellm.FormatError, ValueError)) as caught:
        edgellm.load(str(path), threads=1, max_bytes=MEMORY_BYTES)
    return str(caught.value)


def tiny(tmp_path: Path, **changes: object) -> Path:
    return tiny_model.write(tmp_path / "tiny.gguf", layers=1, **changes)


@pytest.mark.parametrize("count", HUGE)
def test_size_arithmetic_does_not_wrap(tmp_path, count):
    """CVE-2024-21802, -21836, -23605, CVE-2025-53630, CVE-2026-27940: products of counts and extents."""
    refused(tmp_path, raw.file(n_entries=count))
    refused(tmp_path, raw.file(n_tensors=count))
    refused(tmp_path, raw.file(tensors=(raw.tensor("t", (count, 2**33), 0, 0),), data=bytes(64)))
    refused(tmp_path, raw.file(tensors=(raw.tensor("t", (32, count), raw.Q4_0, 0),), data=bytes(64)))
    refused(tmp_path, raw.file(entries=(raw.entry("a", raw.ARRAY, raw.array(raw.U64, count, b"")),)))


@pytest.mark.parametrize("length", HUGE)
def test_count_larger_than_the_bytes_left_is_refused(tmp_path, length):
    """CVE-2024-21825, -23496: strings and arrays longer than the file."""
    refused(tmp_path, raw.file(entries=(raw.entry("a", raw.STRING, raw.string("b", length)),)))
    refused(tmp_path, raw.file(entries=(raw.string("key", length),), n_entries=1))
    strings = raw.array(raw.STRING, length, raw.string("x"))
    refused(tmp_path, raw.file(entries=(raw.entry("a", raw.ARRAY, strings),)))


def test_header_that_ends_anywhere_frees_only_what_it_took(tmp_path):
    """CVE-2024-32878: a pointer that was never set is freed when parsing fails half-way."""
    whole = tiny(tmp_path).read_bytes()
    end = edgellm.gguf.read(tmp_path / "tiny.gguf").data_offset
    path = tmp_path / "cut.gguf"
    for keep in range(0, end, 97):
        path.write_bytes(whole[:keep])
        with pytest.raises(edgellm.FormatError):
            edgellm.gguf.read(path)


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("tokenizer.ggml.tokens", [1, 2, 3], "array of u32"),
        ("tokenizer.ggml.token_type", ["a"], "array of string"),
        ("tokenizer.ggml.merges", [0.5], "array of f32"),
        ("tokenizer.ggml.model", 7, "u32"),
        ("llama.block_count", "two", "string"),
        ("llama.attention.layer_norm_rms_epsilon", "small", "string"),
        ("general.architecture", 3, "u32"),
    ],
)
def test_declared_type_is_the_type_that_is_read(tmp_path, key, value, kind):
    """CVE-2024-21802 and its like: a value read as another type than the file says."""
    assert key in edgellm.gguf.read(tiny(tmp_path)).metadata
    changed = tiny(tmp_path, metadata={key: (value, kind)})
    with pytest.raises((edgellm.FormatError, ValueError), match=rf"{key.rpartition('.')[2]}|tokenizer"):
        edgellm.load(str(changed), threads=1)


@pytest.mark.parametrize("offset", [64, 2**31, 2**63, 2**64 - 32])
def test_offset_past_the_file_is_refused(tmp_path, offset):
    """CVE-2026-7482 (Ollama): a tensor beyond the end of the file takes foreign memory into a new model."""
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw.file(tensors=(raw.tensor("t", (16,), 0, offset),), data=bytes(64)))
    for use in (edgellm.gguf.read, edgellm.load):
        with pytest.raises(edgellm.FormatError):
            use(str(path))
    target = tmp_path / "new.gguf"
    with pytest.raises(edgellm.FormatError):
        edgellm.convert(path, target, "q8_0")
    assert not target.exists()


@pytest.mark.parametrize(
    "key", ["attention.head_count", "attention.head_count_kv", "embedding_length", "block_count",
            "feed_forward_length", "context_length", "rope.dimension_count"],
)  # fmt: skip
def test_zero_in_the_header_divides_nothing(tmp_path, key):
    """CVE-2022-21741, CVE-2023-27579 (TensorFlow Lite): a divisor out of the file that is zero."""
    path = tiny(tmp_path, metadata={f"llama.{key}": (0, "u32")})
    with pytest.raises((edgellm.FormatError, ValueError), match=r"head|embedding|block|feed|context|rope"):
        edgellm.load(str(path), threads=1)


def test_ids_out_of_range_are_an_error_and_no_index(tmp_path):
    """CVE-2020-15212 (TensorFlow Lite): indices of the caller that are negative or too large."""
    with edgellm.load(str(tiny(tmp_path)), threads=1) as model:
        session = model.session(context=16)
        for bad in ([-1], [model.config.vocab], [2**31], [-(2**63)], [2**70]):
            with pytest.raises((ValueError, OverflowError)):
                session.eval(bad)
            with pytest.raises((ValueError, OverflowError)):
                model.tokenizer.decode(bad)
        assert session.position == 0


def test_negative_amounts_discard_nothing(tmp_path):
    """CVE-2026-21869 (llama.cpp's server): a negative count of tokens to discard writes out of bounds."""
    with edgellm.load(str(tiny(tmp_path)), threads=1) as model:
        session = model.session(context=16)
        session.eval([1, 2, 3])
        for length in (-1, 4, -(2**63), 2**63):
            with pytest.raises((ValueError, OverflowError)):
                session.truncate(length)
        assert session.position == 3
        for context in (0, -1, -(2**40), 2**40, 2**64):
            with pytest.raises((ValueError, OverflowError, MemoryError)):
                model.session(context=context)
        with pytest.raises(ValueError, match="max_tokens"):
            model.generate([1], max_tokens=-5)


def test_tokenizer_tables_are_checked_against_each_other(tmp_path):
    """CVE-2025-49847: a token of the vocabulary that is longer than an int holds, or than its buffer."""
    tokens = tiny_model.vocabulary()
    long = [*tokens[:-1], "x" * 100_000]
    path = tiny(tmp_path, metadata={"tokenizer.ggml.tokens": (long, "array of string")})
    try:
        with edgellm.load(str(path), threads=1) as model:
            assert len(model.tokenizer.decode([len(tokens) - 1])) in (0, 100_000)
            model.generate("the cat", max_tokens=3)
    except (edgellm.FormatError, ValueError):
        pass
    few = tiny(tmp_path, metadata={"tokenizer.ggml.token_type": ([1], "array of i32")})
    with pytest.raises((edgellm.FormatError, ValueError), match="token"):
        edgellm.load(str(few), threads=1)


def test_long_texts_are_counted_without_a_sign(tmp_path):
    """CVE-2025-52566: the number of tokens of a long text as a signed int."""
    with edgellm.load(str(tiny(tmp_path)), threads=1) as model:
        ids = model.tokenizer.encode("the cat <|im_start|>" * 100_000, parse_special=True)
        assert len(ids) > 200_000
        with pytest.raises(edgellm.ContextError):
            model.generate(ids, max_tokens=1)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch PWNED').read() }}",
        "{{ messages.__init__.__globals__ }}",
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
        "{{ namespace.__init__.__globals__['__builtins__'] }}",
        "{{ (messages|attr('__class__')).__name__ }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_template_is_no_code(tmp_path, template, monkeypatch):
    """CVE-2024-34359, CVE-2026-5760: a chat template out of a model file runs Python."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((edgellm.FormatError, ValueError)):
        render_chat(template, [{"role": "user", "content": "hi"}])
    path = tiny(tmp_path, metadata={"tokenizer.chat_template": (template, "string")})
    with edgellm.load(str(path), threads=1) as model, pytest.raises((edgellm.FormatError, ValueError)):
        model.chat([{"role": "user", "content": "hi"}], max_tokens=1)
    assert not (tmp_path / "PWNED").exists()


def test_paths_inside_a_model_are_only_text(tmp_path):
    """CVE-2022-25882, CVE-2024-27318, CVE-2026-27489 (ONNX): a model that names other files has them read."""
    secret = tmp_path / "secret"
    secret.write_text("do not read me")
    os.utime(secret, (1, 1))
    names = {"general.name": "../secret", "general.url": f"file://{secret}", "split.file": "../secret"}
    path = tiny(tmp_path, metadata={key: (value, "string") for key, value in names.items()})
    (tmp_path / "work").mkdir()
    with edgellm.load(str(path), threads=1) as model:
        model.generate([1, 2], max_tokens=2)
    edgellm.convert(path, tmp_path / "work" / "new.gguf", "q8_0")
    edgellm.convert(path, tmp_path / "work" / "new.edge", version=1)
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == ["new.edge", "new.gguf"]
    for made in (tmp_path / "work").iterdir():
        assert b"do not read me" not in made.read_bytes()
    assert secret.stat().st_mtime == 1


BOMBS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import edgellm
from edgellm.chat import render_chat
for template in ("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
                 "{{ 'a' * 10 ** 10 }}", "{{ 9 ** 99999999 }}"):
    try:
        render_chat(template, [dict(role="user", content="hi")])
    except edgellm.FormatError:
        print("refused")
with edgellm.load(sys.argv[1], threads=1, max_bytes=64 << 20) as model:
    for use in (lambda: model.session(context=10 ** 9), lambda: model.plan(context=2 ** 62)):
        try:
            use()
        except (ValueError, MemoryError):
            print("refused")
"""


def test_bombs_of_a_model_or_template_run_into_limits(tmp_path, build_env):
    """CVE-2026-5760 and its like: little input that takes all memory or time."""
    command = [sys.executable, "-c", BOMBS, str(tiny(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=build_env, check=False)
    assert done.stdout.split() == ["refused"] * 5, done.stderr[-2000:]


def test_a_file_truncated_under_our_feet_is_no_sigbus(tmp_path):
    """llama.cpp and others map the file: truncated while in use, it kills the process."""
    path = tiny(tmp_path)
    image = tmp_path / "tiny.edge"
    edgellm.convert(path, image, version=1)
    with edgellm.load(str(path), threads=1) as model, edgellm.load(str(image), resident=True) as other:
        want = model.session(context=16).eval([1, 2, 3])
        for file in (path, image):
            os.truncate(file, 100)
        assert np.array_equal(model.session(context=16).eval([1, 2, 3]), want)
        assert np.array_equal(other.session(context=16).eval([1, 2, 3]), want)


def test_a_file_truncated_while_it_is_loaded_is_an_error(tmp_path):
    """llama.cpp and others: the same, in the middle of loading."""
    path = tiny_model.write(tmp_path / "large.gguf", width=512, ffn=2048, layers=4, heads=8, quant="f32")
    whole = path.read_bytes()
    outcomes = set()
    for turn in range(12):
        path.write_bytes(whole)
        timer = threading.Timer(0.002 * turn, os.truncate, (path, len(whole) // 3))
        timer.start()
        try:
            edgellm.load(str(path), threads=1).close()
            outcomes.add("loaded")
        except (edgellm.FormatError, OSError):
            outcomes.add("refused")
        timer.join()
    assert outcomes <= {"loaded", "refused"}


def test_no_assertion_can_be_reached_by_a_file(root, tmp_path):
    """llama.cpp 24884 and its class: an assertion on what a file says ends the process."""
    for width in (0, 1, 2, 4):
        for offset in range(8, 24):
            head = bytearray(raw.file(entries=(raw.entry("a", raw.U32, struct.pack("<I", 1)),)))
            head[offset : offset + width] = b"\xff" * width
            path = tmp_path / "head.gguf"
            path.write_bytes(bytes(head))
            with pytest.raises((edgellm.FormatError, ValueError)):
                edgellm.load(str(path))
    core = [*(root / "csrc" / "format").rglob("*.c"), *(root / "csrc" / "core").rglob("*.c")]
    assert core
    for source in core:
        assert "abort(" not in source.read_text(encoding="utf-8"), source
