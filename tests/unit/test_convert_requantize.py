"""GGUF to GGUF: the right bytes, the right labels, and nothing half-written."""

import os
import signal
import subprocess
import sys
import textwrap

import gguf
import numpy as np
import pytest
from helpers import raw_gguf as raw
from helpers import tiny_model

import edgellm
from edgellm import quant
from edgellm._core import FormatError
from edgellm.conversion.convert import PROVENANCE_KEY

CHANGED = {"general.file_type", "general.quantization_version", PROVENANCE_KEY}


@pytest.fixture
def source(tmp_path):
    return tiny_model.write(tmp_path / "source.gguf", quant="q4_1", types={"token_embd": "q8_0"}, tied=False)


def tensors_of(path):
    data = path.read_bytes()
    header = edgellm.gguf.read(path)
    cut = {t.name: data[t.offset : t.offset + t.nbytes] for t in header.tensors}
    return {t.name: quant.from_bytes(cut[t.name], t.type, t.shape) for t in header.tensors}


def only_files(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("name", quant.QUANTIZABLE)
def test_convert_rounds_every_matrix_as_quantize_does(tmp_path, name):
    source = tiny_model.write(tmp_path / "source.gguf", quant="q6_k", width=256, ffn=512)
    done = edgellm.convert(source, tmp_path / "new.gguf", name.upper(), embedding=name)
    before, after = tensors_of(source), tensors_of(tmp_path / "new.gguf")
    assert list(before) == list(after) == list(done.types)
    for key, tensor in after.items():
        assert tensor.type == done.types[key] == (name if len(tensor.shape) == 2 else "f32")
        assert tensor.tobytes() == quant.quantize(before[key].dequantize(), tensor.type).tobytes()
    assert done.bytes_out == (tmp_path / "new.gguf").stat().st_size
    assert done.bytes_in == source.stat().st_size


def test_convert_keeps_metadata_and_says_where_weights_come_from(tmp_path, source):
    done = edgellm.convert(source, tmp_path / "new.gguf", "q4_0")
    before, after = edgellm.gguf.read(source), edgellm.gguf.read(tmp_path / "new.gguf")
    for key in set(before.metadata) - CHANGED:
        assert before.raw_value(key) == after.raw_value(key)
    assert set(after.metadata) == set(before.metadata) | CHANGED
    assert after.metadata["general.file_type"] == 2
    assert after.metadata["general.quantization_version"] == 2
    assert after.metadata[PROVENANCE_KEY] == done.requantized_from == "Q4_1"


def test_convert_of_float_weights_is_no_requantization(tmp_path):
    source = tiny_model.write(tmp_path / "source.gguf", quant="f16")
    done = edgellm.convert(source, tmp_path / "new.gguf", "q8_0")
    assert done.requantized_from is None
    assert PROVENANCE_KEY not in edgellm.gguf.read(tmp_path / "new.gguf").metadata


def test_convert_keeps_the_label_on_every_way(tmp_path, source):
    edgellm.convert(source, tmp_path / "float.gguf", "f32")
    edgellm.convert(tmp_path / "float.gguf", tmp_path / "8.gguf", "q8_0")
    done = edgellm.convert(tmp_path / "8.gguf", tmp_path / "4.gguf", "q4_0")
    assert edgellm.gguf.read(tmp_path / "8.gguf").metadata[PROVENANCE_KEY] == "Q4_1"
    assert done.requantized_from == "Q4_1, Q8_0"


def test_convert_to_the_same_format_copies(tmp_path):
    source = tiny_model.write(tmp_path / "source.gguf", quant="q4_1")
    done = edgellm.convert(source, tmp_path / "new.gguf", "q4_1", embedding="q4_1")
    assert done.requantized_from is None
    before, after = tensors_of(source), tensors_of(tmp_path / "new.gguf")
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)


@pytest.mark.parametrize(
    ("quant", "head"), [("q4_0", "q8_0"), ("tq2_0", "q8_0"), ("q8_0", "q8_0"), ("f16", "f16")]
)
def test_embedding_and_head_are_never_coarser_than_q8_0_unless_told(tmp_path, source, quant, head):
    types = edgellm.convert(source, tmp_path / "new.gguf", quant).types
    assert types["token_embd.weight"] == types["output.weight"] == head
    before, after = tensors_of(source), tensors_of(tmp_path / "new.gguf")
    same = after["token_embd.weight"].tobytes() == before["token_embd.weight"].tobytes()
    assert same == (head == "q8_0")  # it was q8_0, and is then copied


def test_embedding_and_head_may_have_another_format(tmp_path, source):
    types = edgellm.convert(source, tmp_path / "new.gguf", "q8_0", embedding="q4_0").types
    assert types["token_embd.weight"] == types["output.weight"] == "q4_0"
    assert types["blk.0.attn_q.weight"] == "q8_0"
    assert types["blk.0.attn_norm.weight"] == types["output_norm.weight"] == "f32"


def test_rows_that_do_not_suit_a_block_get_the_stated_format(tmp_path):
    source = tiny_model.write(
        tmp_path / "source.gguf", quant="f32", width=48, heads=3, kv_heads=3, ffn=256, types={"ffn_up": "f16"}
    )
    types = edgellm.convert(source, tmp_path / "q8.gguf", "q8_0").types
    assert (types["blk.0.attn_q.weight"], types["blk.0.ffn_down.weight"]) == ("f16", "q8_0")
    types = edgellm.convert(source, tmp_path / "tq.gguf", "tq2_0").types
    assert (types["blk.0.attn_q.weight"], types["blk.0.ffn_down.weight"]) == ("f16", "tq2_0")
    source = tiny_model.write(tmp_path / "source.gguf", quant="f32", width=64)
    assert edgellm.convert(source, tmp_path / "tq.gguf", "tq1_0").types["blk.0.attn_q.weight"] == "q4_0"


def test_gguf_package_reads_what_convert_writes(tmp_path, source):
    edgellm.convert(source, tmp_path / "new.gguf", "bf16")
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "new.gguf").tensors}
    for name, tensor in tensors_of(tmp_path / "new.gguf").items():
        want = gguf.quants.dequantize(theirs[name].data, theirs[name].tensor_type)
        np.testing.assert_array_equal(tensor.dequantize(), want)


@pytest.mark.parametrize("argument", ["quant", "embedding"])
@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("q9", ValueError, "'q9' is unknown; possible are f32, f16, bf16, q4_0"),
        ("q4_k", ValueError, "'q4_k' can be read, not made; possible are"),
        (4, TypeError, "must be a string such as 'q4_0', got int"),
    ],
)
def test_convert_names_a_format_it_cannot_make(tmp_path, source, argument, name, error, words):
    arguments = {"quant": "q4_0", argument: name}
    with pytest.raises(error, match=f"{argument} {words}"):
        edgellm.convert(source, tmp_path / "new.gguf", **arguments)
    only_files(tmp_path, "source.gguf")


def test_convert_onto_its_source_is_refused(tmp_path, source):
    os.link(source, tmp_path / "alias.gguf")
    before = source.read_bytes()
    for dst in [source, tmp_path / "alias.gguf"]:
        with pytest.raises(ValueError, match="dst is src"):
            edgellm.convert(source, dst, "q4_0")
    assert source.read_bytes() == before
    only_files(tmp_path, "source.gguf", "alias.gguf")


@pytest.mark.parametrize(
    ("value", "name", "words"),
    [
        (np.nan, "q4_0", "tensor 'w' has values that are not finite"),
        (-np.inf, "f16", "tensor 'w' has values that are not finite"),
        (1e6, "f16", r"tensor 'w' has a value of 1e\+06, too large for f16"),
        (-3.4e38, "bf16", r"tensor 'w' has a value of 3\.4e\+38, too large for bf16"),
    ],
)
def test_convert_of_values_that_do_not_fit_leaves_nothing(tmp_path, value, name, words):
    data = np.zeros((2, 32), "<f4")
    data[1, 31] = value
    (tmp_path / "source.gguf").write_bytes(raw.file((), (raw.tensor("w", (32, 2), 0, 0),), data.tobytes()))
    (tmp_path / "new.gguf").write_bytes(b"before")
    with pytest.raises(FormatError, match=words):
        edgellm.convert(tmp_path / "source.gguf", tmp_path / "new.gguf", name)
    assert (tmp_path / "new.gguf").read_bytes() == b"before"
    only_files(tmp_path, "source.gguf", "new.gguf")


def test_convert_of_something_else_is_a_format_error(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    with pytest.raises(FormatError, match=r"model\.safetensors: not a GGUF file"):
        edgellm.convert(tmp_path / "model.safetensors", tmp_path / "new.gguf", "q4_0")
    only_files(tmp_path, "model.safetensors")


def test_convert_to_a_folder_or_into_none_is_an_os_error(tmp_path, source):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        edgellm.convert(source, tmp_path / "folder", "q4_0")
    with pytest.raises(FileNotFoundError):
        edgellm.convert(source, tmp_path / "none" / "new.gguf", "q4_0")
    only_files(tmp_path, "source.gguf", "folder")


def test_convert_replaces_what_a_link_points_to(tmp_path, source):
    (tmp_path / "old.gguf").write_bytes(b"before")
    (tmp_path / "link.gguf").symlink_to("old.gguf")
    edgellm.convert(source, tmp_path / "link.gguf", "q4_0")
    assert (tmp_path / "link.gguf").is_symlink()
    assert edgellm.gguf.read(tmp_path / "old.gguf").metadata["general.file_type"] == 2


def test_progress_tells_bytes_and_ends_at_all(tmp_path, source):
    told = []
    edgellm.convert(
        source, tmp_path / "new.gguf", "q4_0", progress=lambda done, total: told.append((done, total))
    )
    total = sum(tensor.nbytes for tensor in edgellm.gguf.read(source).tensors)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_error_in_progress_leaves_nothing(tmp_path, source):
    def stop(done, total):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        edgellm.convert(source, tmp_path / "new.gguf", "q4_0", progress=stop)
    only_files(tmp_path, "source.gguf")


def test_ctrl_c_leaves_nothing(tmp_path, source, build_env):
    script = """
        import sys, time, edgellm
        def wait(done, total):
            print("going", flush=True)
            time.sleep(30)
        edgellm.convert("source.gguf", "new.gguf", "q4_0", progress=wait)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, cwd=tmp_path, env=build_env, stdout=-1, stderr=-1, text=True) as child:
        assert child.stdout.readline() == "going\n"
        assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
        child.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in child.communicate(timeout=60)[1]
    only_files(tmp_path, "source.gguf")
