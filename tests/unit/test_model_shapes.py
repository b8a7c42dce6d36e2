"""The same bits for models of many shapes: on every instruction set, thread count, chunking and batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgellm
from tests.helpers import tiny_model

ISAS = edgellm.cpu.runnable_isas()
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {"quant": "q4_1", "width": 576, "heads": 9, "kv_heads": 3, "ffn": 1536, "layers": 2},
    "smollm2 as q4_k_m": {
        "quant": "q5_0",
        "width": 576,
        "heads": 9,
        "kv_heads": 3,
        "ffn": 512,
        "types": {"token_embd": "q8_0", "attn_v": "q8_0", "ffn_down": "q6_k"},
    },
    "heads of 96": {"quant": "q8_0", "width": 384, "heads": 4, "kv_heads": 1, "ffn": 352},
    "heads of 80": {"quant": "q4_0", "width": 640, "heads": 8, "kv_heads": 4, "ffn": 320},
    "heads of 8": {"quant": "q5_1", "width": 64, "heads": 8, "kv_heads": 8, "ffn": 96, "tied": False},
    "head of 256": {"quant": "q4_k", "width": 256, "heads": 1, "kv_heads": 1, "ffn": 256},
    "mixed": {
        "quant": "iq4_nl",
        "width": 256,
        "heads": 4,
        "kv_heads": 2,
        "ffn": 512,
        "tied": False,
        "types": {
            "attn_q": "q2_k",
            "attn_k": "f16",
            "attn_v": "tq2_0",
            "attn_output": "bf16",
            "ffn_gate": "q3_k",
            "ffn_up": "f32",
            "ffn_down": "tq1_0",
            "output": "q5_k",
        },
    },
    "floats after integers": {
        "quant": "q4_0",
        "width": 96,
        "heads": 3,
        "kv_heads": 3,
        "ffn": 72,
        "types": {"ffn_down": "f16", "attn_output": "f32"},
    },
    "one layer of floats": {"quant": "f32", "width": 48, "heads": 2, "kv_heads": 1, "ffn": 40, "layers": 1},
}
TOKENS = 150  # more than two blocks of keys and than a micro-batch
GOLDEN = Path(__file__).parents[1] / "data" / "shape_hashes.json"


def digest(logits: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(logits).astype("<f4", copy=False).tobytes()).hexdigest()


def tokens(count: int, seed: int = 3) -> list[int]:
    return np.random.default_rng(seed).integers(0, 300, count).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Path]:
    path = folder / f"{request.param}.gguf"
    return request.param, tiny_model.write(path, seed=17, **SHAPES[request.param])


def chunks(ids: Sequence[int], sizes: Sequence[int]) -> Iterator[Sequence[int]]:
    at = 0
    while at < len(ids):
        for size in sizes:
            if at < len(ids):
                yield ids[at : at + size]
            at += size


# threads, sizes of chunks, cache; every ISA takes all of them, ref only the first
RUNS = [
    (1, (TOKENS,), "f16"),
    (2, (1,), "f16"),
    (3, (7, 64, 2), "f16"),
    (5, (33,), "f16"),
    (8, (1, 90), "f16"),
    (16, (TOKENS,), "f16"),
    (2, (50,), "f32"),
    (16, (3, 70), "f32"),
]


def test_shape_has_its_golden_bits_everywhere(shape: tuple[str, Path]) -> None:
    """The hashes are of float32 logits of all tokens; they were made by `ref` and hold on any machine."""
    name, path = shape
    ids, seen = tokens(TOKENS), {}
    for isa in ISAS:
        for threads, sizes, kv in RUNS[:: len(RUNS) - 2] if isa == "ref" else RUNS:
            with edgellm.load(path, threads=threads, isa=isa) as model:
                session = model.session(context=TOKENS, kv=kv)
                logits = [session.eval(part, logits="all") for part in chunks(ids, sizes)]
            seen[isa, threads, sizes, kv] = digest(np.concatenate(logits))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert {run: value for run, value in seen.items() if value != golden[run[3]]} == {}


def test_batch_of_any_composition_has_the_bits_of_each_alone(shape: tuple[str, Path]) -> None:
    """Members join, leave, pause and bring any number of tokens, in every step."""
    _, path = shape
    ids = [tokens(60, seed) for seed in range(4)]

    @settings(max_examples=6)
    @given(data=st.data(), isa=st.sampled_from(ISAS), threads=st.sampled_from([1, 2, 3, 5, 8, 16]))
    def compose(data: st.DataObject, isa: str, threads: int) -> None:
        kinds = data.draw(st.lists(st.sampled_from(["f16", "f32"]), min_size=4, max_size=4))
        got: list[list[np.ndarray]] = [[], [], [], []]
        with edgellm.load(path, threads=threads, isa=isa) as model:
            sessions = [model.session(context=64, kv=kv) for kv in kinds]
            batch = edgellm.Batch(model, sessions[:2])
            for _ in range(data.draw(st.integers(2, 10))):
                for session in sessions:
                    if data.draw(st.sampled_from([False, False, True])):
                        (batch.remove if session in batch.sessions else batch.add)(session)
                numbers = [sessions.index(session) for session in batch.sessions]
                takes = [data.draw(st.sampled_from([0, 1, 1, 2, 9, 40])) for _ in numbers]
                parts = [ids[i][sessions[i].position :][:n] for i, n in zip(numbers, takes, strict=True)]
                for i, rows in zip(numbers, batch.eval(parts, logits="all"), strict=True):
                    if rows is not None:
                        got[i].append(rows)
        with edgellm.load(path, threads=1) as model:
            for i, rows in enumerate(got):
                if not rows:
                    continue
                done = sum(map(len, rows))
                want = model.session(context=64, kv=kinds[i]).eval(ids[i][:done], logits="all")
                assert digest(np.concatenate(rows)) == digest(want)

    compose()
