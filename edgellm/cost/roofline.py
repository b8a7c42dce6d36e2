"""Seconds and bytes of a step of a language model on a device: a roofline with fixed overheads.

For a step in which sequence i gets n_i new tokens at context L_i, on a model of l layers::

    t = g * ( c*l + max(W / B, N / U, (2 P sum(n_i) + 2 H s) / F) + sum(a_i) ) + t_host
    a_i = (n_i (L_i + n_i / 2)) * max(4 l h d / A, K / B)

c: seconds per layer (`layer_overhead_s`, or `prefill_layer_overhead_s` where some n_i is more than 1); W:
bytes of weights that the step reads, of a mixture of experts only those of the experts that its tokens are
expected to touch; B: bandwidth, decode-effective where every n_i is 1 and prefill-effective otherwise; N, U:
weights that the step reads and that can be unpacked per second (no bound if a profile does not say); P:
weights in the layers' matrices that a token is multiplied with; H: weights of the head, computed once for
each of the s sequences; F: operations per second; h, d: heads and head size; A: operations per second of
attention; K: bytes of cache per position; t_host: seconds per step outside the model; g: a slowdown (threads,
heat), 1 by default. B, U and F are multiplied by the device's factors for the storage type. Layers with a
sliding window attend to no more positions than it has.

Sources: the roofline of Williams, Waterman and Patterson (CACM 52(4), 2009, "Roofline"); operation counts 2 P
n and 4 l h d per attended position follow from the matrix shapes (Kaplan et al. 2020, table 1). How well it
predicts published measurements is printed in docs/calibration.md.

Everything here is pure arithmetic: no clock, no random numbers, no SimGrid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from .constant import Constant
from .model_profile import ModelProfile
from .profile import DeviceProfile
from .step_costs import Budget, step_costs

#: Bytes of activations per token and width in a step, over all buffers: residual, norm, q, k, v, ffn, logits.
_ACTIVATION_BYTES = 4.0
#: Constants of a device that change with the number of threads.
_THREAD_RATES = (
    "bandwidth_decode_bytes_per_s", "bandwidth_prefill_bytes_per_s", "ops_per_s", "attention_ops_per_s",
    "unpack_weights_per_s",
)  # fmt: skip
_THREAD_TIMES = ("layer_overhead_s", "prefill_layer_overhead_s")


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
    for new, context in zip(new_tokens, contexts, strict=True):
        _check_tokens(new, context, least=1)
    if not 0 < slowdown < math.inf:
        raise ValueError(f"slowdown must be positive and finite, got {slowdown}")
    costs = step_costs(model, quant, device, kv=kv, head=head, slowdown=slowdown)
    return costs.step_s(new_tokens, contexts)


def budget(
    model: ModelProfile,
    quant: str,
    device: DeviceProfile,
    new_tokens: Sequence[int],
    contexts: Sequence[int],
    *,
    kv: str = "f16",
) -> Budget:
    """Return the time of a step and its shares of the device's compute and memory bandwidth.

    Overheads, arithmetic and attention hold the compute; reading weights and cache holds the memory. While
    it waits for memory, work holds the share `occupancy` of the compute (all of it where a profile does not
    say: two texts decoded at once then take twice as long, which is what was seen with one thread pool each).

    Examples
    --------
    >>> from edgellm import cost
    >>> pi, m = cost.load_device("raspberry-pi-5"), cost.load_model("qwen2.5-1.5b")
    >>> decode, prefill = (budget(m, "q8_0", pi, [n], [100]) for n in (1, 512))
    >>> decode.memory > 0.9, prefill.memory < 0.1
    (True, True)
    """
    if len(new_tokens) != len(contexts) or not new_tokens:
        raise ValueError(
            f"a step needs as many contexts as sequences, got {len(new_tokens)} and {len(contexts)}"
        )
    for new, context in zip(new_tokens, contexts, strict=True):
        _check_tokens(new, context, least=1)
    return step_costs(model, quant, device, kv=kv).step_budget(new_tokens, contexts)


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
    return step_costs(model, quant, device, kv=kv).step_s((tokens,), (context,), heads=tokens)


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
    return step_costs(model, quant, device, kv=kv).decode_s(tokens, context)


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
    return math.ceil(model.weight_bytes(quant) + model.kv_bytes(context, kv) + activations)


def thread_slowdown(device: DeviceProfile, threads: int) -> float:
    """Return how many times longer a step takes with so many threads than with all cores.

    Between the numbers of threads that a profile has measured, the time is a share that does not shrink and
    a share that shrinks as 1/threads; a profile without any is taken to shrink as 1/threads, a guess that
    is too slow where memory is the limit.

    Examples
    --------
    >>> from edgellm import cost
    >>> thread_slowdown(cost.load_device("n100-mini-pc"), 4)
    1.0
    """
    cores = int(device.cores.value)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    known = {n: g.value for n, g in device.threads.items()}
    if threads in known:
        return known[threads]
    if threads >= cores:
        return 1.0
    known.setdefault(cores, 1.0)
    if len(known) == 1:
        return cores / threads
    counts = sorted(known)
    above = next((i for i, n in enumerate(counts) if n > threads), len(counts) - 1)
    low, high = counts[max(above - 1, 0)], counts[max(above, 1)]
    share = (1 / threads - 1 / high) / (1 / low - 1 / high)
    return max(known[high] + share * (known[low] - known[high]), 1e-3)


def with_threads(device: DeviceProfile, threads: int) -> DeviceProfile:
    """Return a device that uses only so many of its cores.

    Rates and overheads change by `thread_slowdown`; the power above idle is taken to go with the cores in
    use, which is a guess.

    Examples
    --------
    >>> from edgellm import cost
    >>> two = with_threads(cost.load_device("raspberry-pi-5"), 2)
    >>> two.name, two.cores.value
    ('raspberry-pi-5 (2 threads)', 2.0)

    Raises
    ------
    ValueError
        If there are not so many cores.
    """
    cores = int(device.cores.value)
    if threads > cores:
        raise ValueError(f"{device.name} has {cores} cores, not {threads}")
    if threads == cores:
        return device
    slower = thread_slowdown(device, threads)
    measured = threads in device.threads
    note = f", times {slower:.3g} for {threads} of {cores} threads"

    def scaled(constant: Constant, factor: float) -> Constant:
        low, high = (None if b is None else b * factor for b in (constant.low, constant.high))
        guess = constant.guess or not measured
        return replace(constant, value=constant.value * factor, low=low, high=high, guess=guess,
                       source=constant.source + note)  # fmt: skip

    found = dict(device.constants())
    changed = {key: scaled(found[key], 1.0 / slower) for key in _THREAD_RATES if key in found}
    changed |= {key: scaled(found[key], slower) for key in _THREAD_TIMES if key in found}
    busy = found["active_w"].value - found["idle_w"].value
    watts = found["idle_w"].value + busy * threads / cores
    changed["active_w"] = replace(
        found["active_w"],
        value=watts,
        low=None,
        high=None,
        guess=True,
        source=found["active_w"].source + note,
    )
    changed["cores"] = replace(found["cores"], value=float(threads))
    used = device.with_constants(changed)
    return replace(used, name=f"{device.name} ({threads} threads)", threads=MappingProxyType({}))


def _check_tokens(tokens: int, context: int, least: int = 0) -> None:
    if tokens < least or context < 0:
        raise ValueError(
            f"tokens must be at least {least} and context at least 0, got {tokens} and {context}"
        )
