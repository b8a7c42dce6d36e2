"""Every operation of the engine on small inputs, for `edgellm.doctor`: an instruction set against `ref`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgellm import _testing, cpu
from edgellm.conversion.sample import random_tensor
from edgellm.quant import TYPES

Case = Callable[[str], list[bytes]]  # isa -> everything that the operation wrote

SIZES = (1, 7, 16, 33, 576)
ROWS = (1, 2, 5, 8, 40)  # of activations: decode, small batches, prefill


def _values(*shape: int, seed: int = 0) -> _testing.F32:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-6, 6, shape))
    return x.astype(np.float32)


def _elementwise(op: str, inputs: int) -> Case:
    def case(isa: str) -> list[bytes]:
        return [
            _testing.elementwise(op, isa, *(_values(n, seed=i) for i in range(inputs))).tobytes()
            for n in SIZES
        ]

    return case


def _norm(op: str) -> Case:
    def case(isa: str) -> list[bytes]:
        bias = None if op == "rms_norm" else _values(576, seed=2)
        return [_testing.norm(op, isa, _values(576), _values(576, seed=1), bias, 1e-5).tobytes()]

    return case


def _gemm(type: str) -> Case:
    k = 512
    raw = random_tensor(np.random.default_rng(5), type, (40, k), k**-0.5).tobytes()
    tiles = _testing.pack(type, k, np.frombuffer(raw, np.uint8).reshape(40, -1))

    def case(isa: str) -> list[bytes]:
        return [_testing.gemm(type, isa, 40, k, tiles, _values(m, k, seed=m)).tobytes() for m in ROWS]

    return case


def _attention(kind: str) -> Case:
    s, d = 100, 64
    k_cache, v_cache = _testing.kv_caches("ref", _values(s, d), _values(s, d, seed=1), 112, kind)

    def case(isa: str) -> list[bytes]:
        found = []
        for rows in (1, 3, 40):
            last = np.linspace(0 if rows > 3 else 70, s - 1, rows).astype(int).tolist()
            q = _values(rows, d, seed=rows)
            for window in (None, 40):
                y = _testing.attention(isa, q, last, 0.125, k_cache, v_cache, window=window)
                found.append(y.tobytes())
        return found

    return case


def _kv_write(kind: str) -> Case:
    return lambda isa: [
        c.tobytes() for c in _testing.kv_caches(isa, _values(19, 40), _values(19, 40, seed=1), 32, kind)
    ]


def _interleave(isa: str) -> list[bytes]:
    x = np.random.default_rng(1).integers(0, 256, 14 * 3 * 32, np.uint8)
    return [_testing.interleave(isa, x, 96, 14, 3, 8, 32, 0, 0).tobytes()]


def cases() -> dict[str, Case]:
    """One case for every operation of `edgellm.cpu.kernels()`."""
    half = _testing.to_f16("ref", _values(576))
    found: dict[str, Case] = {
        "quantize_act_q8": lambda isa: [
            _testing.quantize_act_q8(isa, _values(2, k, seed=k)).tobytes() for k in (32, 160, 576)
        ],
        "add": lambda isa: [_testing.add(isa, _values(n), _values(n, seed=1)).tobytes() for n in SIZES],
        "rope": lambda isa: [
            _testing.rope(isa, _values(3, 64), n, _values(n // 2, 2, seed=1)).tobytes() for n in (64, 48)
        ],
        "f32_to_f16": lambda isa: [_testing.to_f16(isa, _values(n)).tobytes() for n in SIZES],
        "f16_to_f32": lambda isa: [_testing.to_f32(isa, half[:n]).tobytes() for n in SIZES],
        "interleave": _interleave,
        "rms_norm": _norm("rms_norm"),
        "layer_norm": _norm("layer_norm"),
    }
    found |= {op: _elementwise(op, 1) for op in ("silu", "gelu", "gelu_tanh", "softmax")}
    found |= {op: _elementwise(op, 2) for op in ("swiglu", "geglu_tanh")}
    for kind in _testing.KINDS:
        found[f"kv_write_{kind}"] = _kv_write(kind)
        found[f"attention_{kind}"] = _attention(kind)
    for type in TYPES:
        layout = _testing.layout(type)
        found[f"gemm_{'q8' if layout in _testing.QUANTIZED else 'f32'}_{layout}"] = _gemm(type)
    return found


def differing(isa: str, proof: dict[str, Case]) -> tuple[int, list[str]]:
    """How many operations were compared under a cap at `isa`, and those that differ from `ref`."""
    bad = [op for op in sorted(cpu.kernels(isa)) if op not in proof or proof[op](isa) != proof[op]("ref")]
    return len(cpu.kernels(isa)), bad
