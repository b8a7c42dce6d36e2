"""Edge images: the same model as the GGUF they were made from, in every way that can be asked."""

import hashlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from helpers import tiny_model

import edgellm
from edgellm import _core

TEXT = "The cats and the other things<|im_end|> on the whole, 1234 of them"
QUANTS = [
    ("f32", 64), ("f16", 64), ("bf16", 64), ("q4_0", 64), ("q4_1", 64), ("q5_0", 64), ("q5_1", 64),
    ("q8_0", 64), ("iq4_nl", 64), ("q2_k", 256), ("q3_k", 256), ("q4_k", 256), ("q5_k", 256), ("q6_k", 256),
    ("tq1_0", 256), ("tq2_0", 256),
]  # fmt: skip


def both(folder, convert=None, **tiny):
    """The paths of a tiny GGUF and of its image."""
    gguf, image = folder / "tiny.gguf", folder / "tiny.edge"
    tiny_model.write(gguf, **tiny)
    edgellm.convert(gguf, image, **(convert or {}))
    return gguf, image


def logits_hash(model):
    ids = model.tokenizer.encode(TEXT, parse_special=True)
    return hashlib.sha256(model.session().eval(ids, "all").tobytes()).hexdigest()


@pytest.mark.parametrize(("quant", "width"), QUANTS)
def test_image_gives_the_logits_of_its_gguf(tmp_path, quant, width):
    gguf, image = both(tmp_path, quant=quant, width=width, ffn=2 * width, tied=width == 64)
    with edgellm.load(gguf) as a, edgellm.load(image) as b, edgellm.load(image, resident=True) as c:
        assert logits_hash(a) == logits_hash(b) == logits_hash(c)


def test_image_is_the_model_in_all_that_can_be_asked(tmp_path):
    metadata = {"general.license": ("Apache-2.0", "string"), "edgellm.requantized_from": ("Q4_1", "string")}
    gguf, image = both(tmp_path, metadata=metadata, convert={"version": 7})
    messages = [{"role": "user", "content": "the other"}]
    with edgellm.load(gguf) as a, edgellm.load(image) as b:
        assert a.config == b.config
        assert a.default_kv == b.default_kv
        for name in ("name", "licence", "chat_template"):
            assert a.info[name] == b.info[name]
        assert b.info["requantized_from"] == "Q4_1"
        assert b.info["file_bytes"] == image.stat().st_size
        facts = b.info["image"]
        assert (facts["machine"], facts["version"], facts["signed"]) == ("portable", 7, False)
        assert facts["numerics"] == edgellm.__numerics__
        assert a.chat(messages, max_tokens=5).ids == b.chat(messages, max_tokens=5).ids
        assert a.perplexity(TEXT * 3) == b.perplexity(TEXT * 3)
        assert a.tokenizer.special_tokens == b.tokenizer.special_tokens
        assert a.tokenizer.end_ids == b.tokenizer.end_ids
        assert b.plan().image_bytes == image.stat().st_size
        assert b.plan().weights_bytes == b.plan().tokenizer_bytes == 0
        assert a.plan().scratch_bytes == b.plan().scratch_bytes


def test_sessions_move_between_a_gguf_and_its_image(tmp_path):
    gguf, image = both(tmp_path)
    with edgellm.load(gguf) as a, edgellm.load(image) as b:
        saved = a.session()
        saved.eval([5, 6, 7])
        moved = b.session_from_bytes(saved.to_bytes())
        assert np.array_equal(saved.eval([8]), moved.eval([8]))


def test_tokens_of_any_text_are_those_of_the_gguf(tmp_path):
    gguf, image = both(tmp_path, metadata={"tokenizer.ggml.pre": ("llama-bpe", "string")})
    rng = np.random.default_rng(1)
    with edgellm.load(gguf) as a, edgellm.load(image) as b:
        for n in range(60):
            text = bytes(rng.choice(list(b"the inon\n <|im_start|>12\xc3\xa9"), n)).decode(errors="replace")
            for flags in ({}, {"add_special": True}, {"parse_special": True}):
                ids = a.tokenizer.encode(text, **flags)
                assert b.tokenizer.encode(text, **flags) == ids
                assert b.tokenizer.decode(ids) == a.tokenizer.decode(ids)


def test_conversion_is_deterministic_and_requantizes_as_a_gguf_would_be(tmp_path):
    gguf, image = both(tmp_path, quant="f32", convert={"quant": "q8_0"})
    edgellm.convert(gguf, tmp_path / "q8.gguf", "q8_0")
    edgellm.convert(tmp_path / "q8.gguf", tmp_path / "again.edge", machine="portable")
    assert image.read_bytes() == (tmp_path / "again.edge").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.edge", "q8.gguf", "tiny.edge", "tiny.gguf"]


def test_packed_bytes_are_the_same_for_every_machine(tmp_path):
    gguf, portable = both(tmp_path)
    for machine in ("x86-avx2", "x86-avx512", "aarch64"):
        edgellm.convert(gguf, tmp_path / "m.edge", machine=machine)
        edgellm.convert(portable, tmp_path / "r.edge", machine=machine)  # from image to image
        ours = (tmp_path / "m.edge").read_bytes()
        assert ours[640:] == portable.read_bytes()[640:]
        assert ours[:24] + ours[28:] == portable.read_bytes()[:24] + portable.read_bytes()[28:]
        assert (tmp_path / "r.edge").read_bytes() == ours


def test_image_for_an_absent_isa_is_refused_by_name(tmp_path):
    gguf, _ = both(tmp_path)
    names = {"x86-avx2": "avx2", "x86-avx512": "avx512vnni", "aarch64": "neon", "portable": "ref"}
    here = edgellm.cpu.runnable_isas()
    for machine, isa in names.items():
        edgellm.convert(gguf, tmp_path / "m.edge", machine=machine)
        if isa in here:
            edgellm.load(tmp_path / "m.edge").close()
            edgellm.load(tmp_path / "m.edge", isa=isa).close()
        else:
            with pytest.raises(edgellm.FormatError, match=f"for {machine}, which needs {isa}"):
                edgellm.load(tmp_path / "m.edge")
        if isa != "ref":
            with pytest.raises(edgellm.FormatError, match=f"for {machine}, which needs {isa}"):
                edgellm.load(tmp_path / "m.edge", isa="ref")


@pytest.mark.parametrize("isa", edgellm.cpu.runnable_isas())
def test_portable_image_gives_the_same_bits_on_every_isa(tmp_path, isa):
    _, image = both(tmp_path, quant="q4_1")
    with edgellm.load(image, isa=isa, threads=2) as m, edgellm.load(image, isa="ref", threads=1) as ref:
        assert logits_hash(m) == logits_hash(ref)


def test_every_byte_of_an_image_has_its_place(tmp_path):
    """Header, sections without gaps, tensors without gaps: the lengths add up to the file."""
    _, image = both(tmp_path)
    parsed = _core.edge_open(str(image), False)
    at = len(parsed.manifest) + 64
    for offset, nbytes, _ in parsed.sections:
        assert offset == at
        assert offset % 64 == 0
        at += nbytes
    assert at == image.stat().st_size
    at = parsed.sections[-1][0]
    assert at % 4096 == 0
    raw = image.read_bytes()
    for _, _, _, _, offset, nbytes, digest in parsed.tensors:
        assert offset == at
        assert nbytes % 64 == 0
        assert hashlib.sha256(raw[offset : offset + nbytes]).digest() == digest
        at += nbytes
    assert at == len(raw)
    for offset, nbytes, digest in parsed.sections[:-1]:
        assert hashlib.sha256(raw[offset : offset + nbytes]).digest() == digest


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"machine": "vax"}, "unknown machine 'vax'"),
        ({"version": -1}, "version"),
        ({"version": 2**32}, "version"),
        ({"version": True}, "version"),
        ({"embedding": "q8_0"}, "embedding"),
        ({"sign": b"short"}, "private key"),
        ({"quant": "q9"}, "q9"),
    ],
)
def test_bad_arguments_of_convert_are_refused(tmp_path, arguments, why):
    tiny_model.write(tmp_path / "tiny.gguf")
    with pytest.raises(ValueError, match=why):
        edgellm.convert(tmp_path / "tiny.gguf", tmp_path / "x.edge", **arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.gguf"]


def test_gguf_carries_no_version_signature_or_default_format(tmp_path):
    tiny_model.write(tmp_path / "tiny.gguf")
    for arguments in ({"version": 1, "quant": "q8_0"}, {"sign": bytes(32), "quant": "q8_0"}, {}):
        with pytest.raises(ValueError, match="GGUF"):
            edgellm.convert(tmp_path / "tiny.gguf", tmp_path / "x.gguf", **arguments)
    for arguments in ({"verify": bytes(32)}, {"min_version": 1}):
        with pytest.raises(edgellm.FormatError, match="no edge image"):
            edgellm.load(tmp_path / "tiny.gguf", **arguments)


def test_image_of_an_image_keeps_the_format(tmp_path):
    _, image = both(tmp_path)
    for name in ("new.edge", "new.gguf"):
        with pytest.raises(ValueError, match="packed for good"):
            edgellm.convert(image, tmp_path / name, "q8_0")
        assert not (tmp_path / name).exists()


def test_damaged_image_is_not_made_into_another(tmp_path):
    _, image = both(tmp_path)
    raw = bytearray(image.read_bytes())
    raw[-1] ^= 1
    image.write_bytes(raw)
    with pytest.raises(edgellm.FormatError, match="does not have its hash"):
        edgellm.convert(image, tmp_path / "new.edge")
    assert not (tmp_path / "new.edge").exists()


def test_tokenizer_outlives_its_model(tmp_path):
    _, image = both(tmp_path)
    for resident in (False, True):
        model = edgellm.load(image, resident=resident)
        tokenizer = model.tokenizer
        ids = tokenizer.encode(TEXT)
        model.close()
        del model
        assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
        assert tokenizer.encode(TEXT) == ids


def test_memory_cap_counts_the_image(tmp_path):
    _, image = both(tmp_path)
    with edgellm.load(image) as model:
        needed = model.plan().model_bytes
    edgellm.load(image, max_bytes=needed).close()
    with pytest.raises(MemoryError, match="max_bytes"):
        edgellm.load(image, max_bytes=needed - 1)


def test_numbers_of_another_contract_or_format_are_refused(tmp_path):
    _, image = both(tmp_path)
    raw = image.read_bytes()
    for at, value, why in ((8, 2, "format 2"), (28, 99, "contract 99"), (24, 77, "machine 77")):
        image.write_bytes(raw[:at] + struct.pack("<I", value) + raw[at + 4 :])
        with pytest.raises(edgellm.FormatError, match=why):
            edgellm.load(image)


SHARES = """
import sys, edgellm
def weights():
    sizes = {}
    inside = False
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            inside = line.rstrip().endswith(sys.argv[1])
        elif inside:
            name, value = line.split()[:2]
            sizes[name] = sizes.get(name, 0) + int(value) if value.isdigit() else 0
    return sizes
model = edgellm.load(sys.argv[1])
model.session().eval([1, 2, 3])
print("ready", flush=True)
sys.stdin.readline()
sizes = weights()
print(sizes["Rss:"], sizes["Pss:"], sizes["Shared_Clean:"], sizes["Private_Dirty:"], flush=True)
sys.stdin.readline()
"""


def test_two_processes_share_the_pages_of_an_image(tmp_path):
    _, image = both(tmp_path, width=256, ffn=1024, layers=4, quant="q8_0")
    command = [sys.executable, "-c", SHARES, str(image)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
            resident, proportional, shared, dirty = map(int, child.stdout.readline().split())
            assert resident * 1024 > image.stat().st_size * 0.9
            assert proportional <= resident * 0.55
            assert shared >= resident * 0.95
            assert dirty == 0
    finally:
        for child in children:
            child.communicate("\n", timeout=60)
