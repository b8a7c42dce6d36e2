"""Seconds and bytes of a step of a language model on a device: a roofline with fixed overheads.

For a step in which sequence i gets n_i new tokens at context L_i, on a model of l layers::

    t = g * ( c*l + max(W / B, (2 P sum(n_i) + 2 H s) / F) + sum(a_i) ) + t_host
    a_i = (n_i (L_i + n_i / 2)) * max(4 l h d / A, K / B)

c: seconds per layer (`layer_overhead_s`); W: bytes of weights that the step reads; B: bandwidth,
decode-effective where every n_i is 1 and prefill-effective otherwise; P: weights in the layers' matrices; H:
weights of the head, computed once for each of the s sequences; F: operations per second; h, d: heads and head
size; A: operations per second of attention; K: bytes of cache per position; t_host: seconds per step outside
the model; g: a slowdown (threads, heat), 1 by default.

Sources: the roofline of Williams, Waterman and Patterson (CACM 52(4), 2009, "Roofline"); operation counts 2 P
n and 4 l h d per attended position follow from the matrix shapes (Kaplan et al. 2020, table 1). How well it
predicts published measurements is printed in docs/calibration.md.

Everything here is pure arithmetic: no clock, no random numbers, no SimGrid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .model_profile import ModelProfile
from .profile import DeviceProfile

#: Bytes of activations per token and width in a step, over all buffers: residual, norm, q, k, v, ffn, logits.
_ACTIVATION_BYTES = 4.0


def attention_s_per_position(model: ModelProfile, device: DeviceProfile, kv: str = "f16") -> float:
    """Return the seconds that one new token spends on one attended position, over all layers."""
    ops = 4.0 * model.layers * model.heads * model.head_dim
    compute_s = ops / device.attention_ops_per_s.value
    read_s = model.kv_bytes_per_token(kv) / device.bandwidth_decode_bytes_per_s.value
    return max(compute_s, read_s)


def step_time_s(
    model: ModelProfile,
    quant: str,
    device: DeviceProfile,
    new_tokens: Sequence[int],
    contexts: Sequence[int],
    *,
    kv: str = "f16",
    slowdown: float = 1.0,
    head: str | None = None,
) -> float:
    """Return the seconds of one step that gives each sequence its new tokens.

    Parameters
    ----------
    model, quant, device
        What runs, stored how, and where.
    new_tokens : (s,) sequence of int
        New tokens of each sequence, at least 1; 1 everywhere is a decode step.
    contexts : (s,) sequence of int
        Positions already in each sequence's cache, at least 0.
    kv : str
        Type of the cache: "f16", "q8_0" or "f32".
    slowdown : float
        The factor g above, at least 0 exclusive.
    head : str or None
        Storage type of the output head; None for that of a GGUF file.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    ValueError
        If the lengths differ, nothing is asked for, or a number is out of range.

    Examples
    --------
    >>> from edgellm import cost
    >>> pi, m = cost.load_device("raspberry-pi-5"), cost.load_model("smollm2-135m")
    >>> one = step_time_s(m, "q4_0", pi, [1], [100])
    >>> one < step_time_s(m, "q4_0", pi, [1, 1], [100, 100]) < 2 * one
    True
    """
    if len(new_tokens) != len(contexts) or not new_tokens:
        raise ValueError(
            f"a step needs as many contexts as sequences, got {len(new_tokens)} and {len(contexts)}"
        )
    attended = 0.0
    for new, context in zip(new_tokens, contexts, strict=True):
        _check_tokens(new, context, least=1)
        attended += new * (context + new / 2)
    if not 0 < slowdown < math.inf:
        raise ValueError(f"slowdown must be positive and finite, got {slowdown}")
    decode = all(new == 1 for new in new_tokens)
    fixed_s, host_s = _fixed_s(model, quant, device, sum(new_tokens), len(new_tokens), decode, head)
    return slowdown * (fixed_s + attended * attention_s_per_position(model, device, kv)) + host_s


def prefill_time_s(
    model: ModelProfile, quant: str, device: DeviceProfile, tokens: int, context: int = 0, *, kv: str = "f16"
) -> float:
    """Return the seconds to read `tokens` prompt tokens into a cache that already holds `context`.

    0 tokens take no time.

    Examples
    --------
    >>> from edgellm import cost
    >>> pi, m = cost.load_device("raspberry-pi-5"), cost.load_model("smollm2-135m")
    >>> prefill_time_s(m, "q4_0", pi, 0)
    0.0
    """
    _check_tokens(tokens, context)
    if tokens == 0:
        return 0.0
    return step_time_s(model, quant, device, (tokens,), (context,), kv=kv)


def verify_time_s(
    model: ModelProfile, quant: str, device: DeviceProfile, tokens: int, context: int, *, kv: str = "f16"
) -> float:
    """Return the seconds to check `tokens` drafted tokens in one step, with logits for each of them.

    As prefill, but the head runs once for every token.

    Examples
    --------
    >>> from edgellm import cost
    >>> pi, m = cost.load_device("raspberry-pi-5"), cost.load_model("smollm2-135m")
    >>> prefill_time_s(m, "q4_0", pi, 32, 9) < verify_time_s(m, "q4_0", pi, 32, 9)
    True
    """
    _check_tokens(tokens, context)
    if tokens == 0:
        return 0.0
    fixed_s, host_s = _fixed_s(model, quant, device, tokens, tokens, tokens == 1, None)
    return fixed_s + tokens * (context + tokens / 2) * attention_s_per_position(model, device, kv) + host_s


def decode_time_s(
    model: ModelProfile, quant: str, device: DeviceProfile, tokens: int, context: int, *, kv: str = "f16"
) -> float:
    """Return the seconds to produce `tokens` one after another, the first at `context`.

    The sum of the steps in closed form: the steps differ only in their attention, which grows linearly.

    Examples
    --------
    >>> from edgellm import cost
    >>> pi, m = cost.load_device("raspberry-pi-5"), cost.load_model("smollm2-135m")
    >>> steps = sum(step_time_s(m, "q4_0", pi, [1], [50 + i]) for i in range(20))
    >>> abs(decode_time_s(m, "q4_0", pi, 20, 50) - steps) < 1e-9
    True
    """
    _check_tokens(tokens, context)
    if tokens == 0:
        return 0.0
    fixed_s, host_s = _fixed_s(model, quant, device, 1, 1, True, None)
    attended = tokens * (context + tokens / 2)
    return tokens * (fixed_s + host_s) + attended * attention_s_per_position(model, device, kv)


def load_time_s(model: ModelProfile, quant: str, device: DeviceProfile) -> float:
    """Return the seconds to read the weights from the device's storage."""
    return model.weight_bytes(quant) / device.storage_bytes_per_s.value


def memory_bytes(model: ModelProfile, quant: str, context: int, kv: str = "f16") -> int:
    """Return the bytes of memory that a model and one session of `context` positions take.

    Weights, cache, and the activations of a step; for the engine's own exact figure see `Model.plan`.

    Examples
    --------
    >>> from edgellm import cost
    >>> m = cost.load_model("smollm2-135m")
    >>> memory_bytes(m, "q4_1", 2048) > memory_bytes(m, "q4_0", 2048) > m.weight_bytes("q4_0")
    True
    """
    if context < 0:
        raise ValueError(f"context must be 0 or more, got {context}")
    activations = _ACTIVATION_BYTES * (8 * model.width + 3 * model.ffn + model.vocab)
    return math.ceil(model.weight_bytes(quant) + context * model.kv_bytes_per_token(kv) + activations)


def _fixed_s(
    model: ModelProfile,
    quant: str,
    device: DeviceProfile,
    tokens: int,
    heads: int,
    decode: bool,
    head: str | None,
) -> tuple[float, float]:
    """Return what does not depend on the context, and the host's part; the head runs `heads` times."""
    rate = device.bandwidth_decode_bytes_per_s if decode else device.bandwidth_prefill_bytes_per_s
    read_s = model.active_bytes(quant, head, tokens) / rate.value
    ops = 2.0 * (model.active_matrix_params * tokens + model.embedding_params * heads)
    compute_s = ops / device.ops_per_s.value
    return model.layers * device.layer_overhead_s.value + max(read_s, compute_s), device.host_overhead_s.value


def _check_tokens(tokens: int, context: int, least: int = 0) -> None:
    if tokens < least or context < 0:
        raise ValueError(
            f"tokens must be at least {least} and context at least 0, got {tokens} and {context}"
        )
