"""The cost of steps as a few numbers, made once for a model on a device and then cheap to evaluate.

`edgellm.cost.roofline` states the formula and has the functions that most callers want; a simulation that
asks for a million steps keeps a `StepCosts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .constant import Constant
from .model_profile import ModelProfile
from .profile import DeviceProfile


class Budget(NamedTuple):
    """What work takes when it runs alone: its time, and its mean share of the device's two budgets.

    `compute` and `memory` are shares of the arithmetic and of the memory bandwidth, from 0 to 1. Work that
    runs together slows down only where the shares of all add up to more than 1.
    """

    seconds: float
    compute: float
    memory: float


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Coefficients of a step; seconds, or seconds per token, head, expert or attended position."""

    overhead_s: float  # all layers, in a step of one token per sequence
    prefill_overhead_s: float
    host_s: float
    read_s: float  # weights that every step reads
    prefill_read_s: float
    expert_read_s: float  # of each expert, over all layers
    prefill_expert_read_s: float
    experts: int
    experts_used: int
    token_s: float  # arithmetic
    head_s: float
    position_s: float  # attention, in layers that see everything
    window_position_s: float
    window: int
    cache_share: float  # share of attention that reading the cache takes
    occupancy: float

    def decode_s(self, tokens: int, context: int) -> float:
        """Return the seconds of `tokens` steps of one token each, the first at `context`."""
        step_s = self.overhead_s + max(self._read_s(1, True), self.token_s + self.head_s)
        return tokens * (step_s + self.host_s) + self._attention_s(tokens, context)

    def step_s(self, new_tokens: Sequence[int], contexts: Sequence[int], heads: int | None = None) -> float:
        """Return the seconds of one step; the head runs `heads` times, or once for each sequence."""
        overhead_s, read_s, ops_s, attention_s = self._parts(new_tokens, contexts, heads)
        return overhead_s + max(read_s, ops_s) + attention_s + self.host_s

    def decode_budget(self, tokens: int, context: int) -> Budget:
        """Return time and shares of `decode_s`."""
        if tokens == 0:
            return Budget(0.0, 1.0, 0.0)
        read_s, ops_s = tokens * self._read_s(1, True), tokens * (self.token_s + self.head_s)
        attention_s = self._attention_s(tokens, context)
        return self._budget(self.decode_s(tokens, context), read_s, ops_s, attention_s)

    def step_budget(
        self, new_tokens: Sequence[int], contexts: Sequence[int], heads: int | None = None
    ) -> Budget:
        """Return time and shares of `step_s`."""
        overhead_s, read_s, ops_s, attention_s = self._parts(new_tokens, contexts, heads)
        seconds = overhead_s + max(read_s, ops_s) + attention_s + self.host_s
        return self._budget(seconds, read_s, ops_s, attention_s)

    def _parts(
        self, new_tokens: Sequence[int], contexts: Sequence[int], heads: int | None
    ) -> tuple[float, float, float, float]:
        """Return the seconds of overheads, reading, arithmetic and attention."""
        tokens, attention_s = 0, 0.0
        for new, context in zip(new_tokens, contexts, strict=True):
            tokens += new
            attention_s += self._attention_s(new, context)
        decode = tokens == len(new_tokens)
        logits = len(new_tokens) if heads is None else heads
        ops_s = tokens * self.token_s + logits * self.head_s
        overhead_s = self.overhead_s if decode else self.prefill_overhead_s
        return overhead_s, self._read_s(tokens, decode), ops_s, attention_s

    def _read_s(self, tokens: int, decode: bool) -> float:
        fixed_s = self.read_s if decode else self.prefill_read_s
        if not self.experts:
            return fixed_s
        each_s = self.expert_read_s if decode else self.prefill_expert_read_s
        return fixed_s + each_s * self.experts * (1.0 - (1.0 - self.experts_used / self.experts) ** tokens)

    def _attention_s(self, tokens: int, context: int) -> float:
        end = context + tokens
        found = tokens * (context + tokens / 2) * self.position_s
        if self.window:
            # the positions beyond the window, which its layers do not see
            beyond = (max(end - self.window, 0) ** 2 - max(context - self.window, 0) ** 2) / 2
            found += (tokens * (context + tokens / 2) - beyond) * self.window_position_s
        return found

    def _budget(self, seconds: float, read_s: float, ops_s: float, attention_s: float) -> Budget:
        if seconds <= 0.0:
            return Budget(0.0, 1.0, 0.0)
        idle_s = (1.0 - self.occupancy) * max(read_s - ops_s, 0.0)
        memory_s = read_s + attention_s * self.cache_share
        return Budget(seconds, 1.0 - idle_s / seconds, min(memory_s / seconds, 1.0))


def step_costs(
    model: ModelProfile,
    quant: str,
    device: DeviceProfile,
    *,
    kv: str = "f16",
    head: str | None = None,
    slowdown: float = 1.0,
) -> StepCosts:
    """Return the coefficients of a model's steps on a device.

    Parameters
    ----------
    model, quant, device
        What runs, stored how, and where.
    kv : str
        Type of the cache.
    head : str or None
        Storage type of the output head; None for that of a GGUF file.
    slowdown : float
        The factor g of the formula: everything but the host's part takes so many times longer.
    """
    faster = _factor(device.format_bandwidth, quant)
    decode_rate = device.bandwidth_decode_bytes_per_s.value * faster / slowdown
    prefill_rate = device.bandwidth_prefill_bytes_per_s.value * faster / slowdown
    unpack = device.unpack_weights_per_s
    unpack_rate = unpack.value * faster / slowdown if unpack is not None else None
    fixed_bytes, expert_bytes = model.split_bytes(quant, head)
    if device.head_bandwidth is not None:
        # as if the head were so many times longer
        fixed_bytes += model.head_bytes(quant, head) * (1.0 / device.head_bandwidth.value - 1.0)
    fixed_weights, expert_weights = model.split_params()
    ops_rate = device.ops_per_s.value * _factor(device.format_ops, quant) / slowdown
    position_s, cache_share = _position_s(model, device, kv, slowdown)
    windowed = model.windowed_layers / model.layers
    overhead = device.layer_overhead_s.value * slowdown * model.layers
    of_prefill = device.prefill_layer_overhead_s
    occupancy = device.occupancy

    def read_s(nbytes: float, weights: float, rate: float) -> float:
        reading_s = nbytes / rate
        return reading_s if unpack_rate is None else max(reading_s, weights / unpack_rate)

    return StepCosts(
        overhead_s=overhead,
        prefill_overhead_s=(overhead if of_prefill is None else of_prefill.value * slowdown * model.layers),
        host_s=device.host_overhead_s.value,
        read_s=read_s(fixed_bytes, fixed_weights, decode_rate),
        prefill_read_s=read_s(fixed_bytes, fixed_weights, prefill_rate),
        expert_read_s=read_s(expert_bytes, expert_weights, decode_rate),
        prefill_expert_read_s=read_s(expert_bytes, expert_weights, prefill_rate),
        experts=model.experts,
        experts_used=model.experts_used,
        token_s=2.0 * model.active_matrix_params / ops_rate,
        head_s=2.0 * model.embedding_params / ops_rate,
        position_s=position_s * (1.0 - windowed),
        window_position_s=position_s * windowed,
        window=model.window if windowed else 0,
        cache_share=cache_share,
        occupancy=1.0 if occupancy is None else occupancy.value,
    )


def _factor(table: Mapping[str, Constant], quant: str) -> float:
    return table[quant].value if quant in table else 1.0


def _position_s(model: ModelProfile, device: DeviceProfile, kv: str, slowdown: float) -> tuple[float, float]:
    """Return the seconds of one attended position over all layers, and the share of reading its cache."""
    ops = 4.0 * model.layers * model.heads * model.head_dim
    compute_s = slowdown * ops / device.attention_ops_per_s.value
    read_s = slowdown * model.kv_bytes_per_token(kv) / device.bandwidth_decode_bytes_per_s.value
    longer_s = max(compute_s, read_s)
    return longer_s, read_s / longer_s
