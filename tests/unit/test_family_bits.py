"""The same bits for every family: on every instruction set, thread count, chunking, batch and in an image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import edgellm
from tests.helpers import families, family_gguf

ISAS = edgellm.cpu.runnable_isas()
TOKENS = 150  # more than two blocks of keys and than a micro-batch
GOLDEN = Path(__file__).parents[1] / "data" / "family_hashes.json"


def of(name: str, **config: object) -> families.Case:
    """A case of families.py with other settings, and a sequence of TOKENS."""
    case = families.CASES[name]
    return dataclasses.replace(case, config=case.config | config, tokens=TOKENS, vocabulary="bpe")


CASES = {
    "llama with biases": (of("llama, all biases", max_position_embeddings=256), "f32"),
    "qwen2": (of("qwen2, yarn"), "q4_1"),
    "qwen3": (of("qwen3, heads of their own size"), "q8_0"),
    "qwen3, heads cut by tiles": (of("qwen3, separate head", hidden_size=96), "q5_0"),
    "gemma3": (of("gemma3, one token", sliding_window=512, num_key_value_heads=2), "q4_0"),
    "gemma3, heads of 24": (of("gemma3, one layer", sliding_window=256), "f32"),
    "gemma3, beyond its window": (of("gemma3, window"), "q4_1"),
    "mistral, beyond its window": (of("mistral, window"), "q8_0"),
    "phi3": (of("phi3, part of a head rotated"), "q5_1"),
    "phi3, long": (of("phi3, long factors of a part of a head"), "f16"),
    "gpt2": (of("gpt2, tied"), "q4_1"),
    "llama, heads of 12": (of("llama, heads of 12 with biases"), "f16"),
    "qwen3, heads of 20": (of("qwen3, heads of 20"), "f32"),
    "gemma3, heads of 4": (of("gemma3, heads of 4", sliding_window=256), "f32"),
    "gpt2, heads of 7": (of("gpt2, heads of 7"), "f32"),
    "gpt2 of floats": (of("gpt2, separate head", n_positions=TOKENS), "f32"),
}
# threads, sizes of chunks, cache; every ISA takes all of them, ref only the first and the last
RUNS = [
    (1, (TOKENS,), "f16"),
    (2, (1,), "f16"),
    (3, (7, 64, 2), "f16"),
    (8, (1, 90), "f16"),
    (16, (TOKENS,), "f16"),
    (5, (3, 70), "f32"),
]


def digest(logits: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(logits).astype("<f4", copy=False).tobytes()).hexdigest()


@pytest.fixture(scope="module", params=CASES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    case, quant = CASES[request.param]
    folder = tmp_path_factory.mktemp("family")
    path, source = folder / f"{quant}.gguf", folder / "source.gguf"
    family_gguf.write(path if quant == "f32" else source, case)
    if quant != "f32":
        edgellm.convert(source, path, quant)
    return request.param, path


def ids(name: str) -> list[int]:
    return families.ids(CASES[name][0]).tolist()


def chunks(tokens: Sequence[int], sizes: Sequence[int]) -> Iterator[Sequence[int]]:
    at = 0
    while at < len(tokens):
        for size in sizes:
            if at < len(tokens):
                yield tokens[at : at + size]
            at += size


def test_family_has_its_golden_bits_everywhere(family: tuple[str, Path]) -> None:
    """The hashes are of float32 logits of all tokens; they were made by `ref` and hold on any machine."""
    name, path = family
    seen = {}
    for isa in ISAS:
        for threads, sizes, kv in RUNS[:: len(RUNS) - 1] if isa == "ref" else RUNS:
            with edgellm.load(path, threads=threads, isa=isa) as model:
                session = model.session(context=TOKENS, kv=kv)
                logits = [session.eval(part, logits="all") for part in chunks(ids(name), sizes)]
            seen[isa, threads, sizes, kv] = digest(np.concatenate(logits))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert {run: value for run, value in seen.items() if value != golden[run[3]]} == {}


def test_family_in_a_batch_has_the_bits_of_each_session_alone(family: tuple[str, Path]) -> None:
    name, path = family
    tokens = ids(name)
    takes = [(1, 40, 3), (33, 1, 1), (1, 1, 50), (60, 1, 1), (1, 9, 2)]
    with edgellm.load(path, threads=3) as model:
        sessions = [model.session(context=TOKENS, kv=kv) for kv in ("f16", "f32", "f16")]
        batch = edgellm.Batch(model, sessions)
        rows = [
            batch.eval([tokens[s.position :][:n] for s, n in zip(sessions, step, strict=True)], logits="all")
            for step in takes
        ]
        for i, (session, kv) in enumerate(zip(sessions, ("f16", "f32", "f16"), strict=True)):
            got = np.concatenate([step[i] for step in rows])
            want = model.session(context=TOKENS, kv=kv).eval(tokens[: session.position], logits="all")
            assert digest(got) == digest(want)


def test_image_of_a_family_has_the_bits_and_sessions_of_its_file(family: tuple[str, Path]) -> None:
    name, path = family
    tokens = ids(name)
    image = path.with_suffix(".edge")
    edgellm.convert(path, image)
    with edgellm.load(path, threads=2) as model, edgellm.load(image, threads=3) as used:
        assert used.config == model.config
        session = model.session(context=TOKENS)
        want = session.eval(tokens, logits="all")
        assert digest(used.session(context=TOKENS).eval(tokens, logits="all")) == digest(want)
        plan, of_file = used.plan(context=TOKENS), model.plan(context=TOKENS)
        assert plan.weights_bytes == 0
        assert plan.kv_bytes == of_file.kv_bytes
        session.truncate(100)
        moved = used.session_from_bytes(session.to_bytes(), context=TOKENS)
        assert digest(moved.eval(tokens[100:], logits="all")) == digest(want[100:])


def test_hidden_states_of_a_family_are_what_its_head_is_given(family: tuple[str, Path]) -> None:
    name, path = family
    tokens = ids(name)[:20]
    tensors = {tensor.name: tensor for tensor in edgellm.gguf.read(path).tensors}
    with edgellm.load(path, threads=2) as model:
        hidden = model.session(context=64)._core.hidden(tokens)
        logits = model.session(context=64).eval(tokens, logits="all")
        assert model.config.tied == ("output.weight" not in tensors)
    tensor = tensors.get("output.weight", tensors["token_embd.weight"])
    with open(path, "rb") as file:
        file.seek(tensor.offset)
        raw = file.read(tensor.nbytes)
    weights = edgellm.quant.from_bytes(raw, tensor.type, tensor.shape)
    assert np.array_equal(edgellm.ops.matmul(weights, hidden), logits)
