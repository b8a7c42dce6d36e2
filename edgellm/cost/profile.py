"""Profiles of devices, links and models: plain numbers, each with its source and, where known, its spread.

A profile is data only. `edgellm.cost.load` reads it from TOML; `edgellm.cost.roofline` turns a model and a
device into seconds. Every quantity that was measured or quoted is a `Constant`, so that a study can print
where each number came from and resample it within its spread.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

#: Version of the TOML schema of profiles. A file with another version is refused.
PROFILE_SCHEMA = 1

#: Values in a block and bytes of a block, by storage type. Source: the block layouts of ggml
#: (`ggml-common.h`).
BLOCKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2),
        "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34),
        "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210),
        "iq4_nl": (32, 18), "tq1_0": (256, 54), "tq2_0": (256, 66),
        "i8": (1, 1),  # one byte a weight and a scale a row: the w8a8 of neural processors, not of GGUF
    }
)  # fmt: skip
#: File types that mix two storage types: most matrices, and the more sensitive ones of some layers.
MIXES: Mapping[str, tuple[str, str]] = MappingProxyType({"q4_k_m": ("q4_k", "q6_k")})
#: Every name that a model's `quant` may have.
QUANTS: tuple[str, ...] = (*BLOCKS, *MIXES)
# Source: `tensor_type_fallback` of llama.cpp.
_FALLBACK = {
    "q2_k": "q4_0", "q3_k": "iq4_nl", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0", "tq1_0": "q4_0",
    "tq2_0": "q4_0",
}  # fmt: skip
#: Bytes that one value of the key-value cache takes.
KV_BYTES: Mapping[str, float] = MappingProxyType({"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32})


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A number with its unit, its source and its spread.

    `low` and `high` bound what was seen by different people or units; both are None where only one figure is
    known. `guess` marks data-sheet or general knowledge that nobody here measured or re-read at its source.
    """

    value: float
    unit: str
    source: str
    low: float | None = None
    high: float | None = None
    guess: bool = False

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A computer on which a model may run.

    Four bandwidths are kept apart because they differ by 1.5 to 4 times: what the memory chips could do, what
    memcpy reaches, what decoding reaches and what prefill reaches (effective: bytes of weights over time).
    """

    name: str
    title: str
    cores: Constant
    ram_bytes: Constant
    storage_bytes_per_s: Constant
    bandwidth_theoretical_bytes_per_s: Constant
    bandwidth_memcpy_bytes_per_s: Constant
    bandwidth_decode_bytes_per_s: Constant
    bandwidth_prefill_bytes_per_s: Constant
    ops_per_s: Constant  # multiply and add counted as two, reached in prefill by quantized matmuls
    attention_ops_per_s: Constant  # the same for scores and weighted sums of attention
    layer_overhead_s: Constant  # per layer and step: kernel starts, barriers, norms
    host_overhead_s: Constant  # per step: sampling, detokenizing, bookkeeping
    idle_w: Constant
    active_w: Constant  # total while computing, idle included
    price_usd: Constant
    battery_j: Constant | None = None
    usd_per_hour: Constant | None = None
    notes: str = ""
    stamp: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def constants(self) -> Iterator[tuple[str, Constant]]:
        """Yield (key, constant) for every number of the profile."""
        return _constants(self)


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """A kind of link between a node and the node above it; up is away from the device.

    `sharing` is "shared" where both directions contend for one medium (radio, half duplex) and "split" where
    each direction has its own capacity. A transfer is cut into frames of at most `max_payload_bytes`; with a
    `duty_cycle` d, a frame of t seconds is followed by t (1/d - 1) seconds of silence before the next one. A
    transfer that would take more than `max_transfer_s` is infeasible, not slow.
    """

    name: str
    title: str
    up_bit_per_s: Constant
    down_bit_per_s: Constant
    latency_s: Constant  # one way
    loss: Constant  # probability that a transfer unit is lost and sent again
    energy_up_j_per_bit: Constant  # at the lower (device) end
    energy_down_j_per_bit: Constant
    sharing: str
    max_payload_bytes: Constant | None = None
    duty_cycle: Constant | None = None
    max_transfer_s: Constant | None = None
    notes: str = ""

    def constants(self) -> Iterator[tuple[str, Constant]]:
        """Yield (key, constant) for every number of the profile."""
        return _constants(self)

    def frames(self, nbytes: float) -> int:
        """Return how many frames a message of `nbytes` takes (at least 1)."""
        if self.max_payload_bytes is None:
            return 1
        return max(1, math.ceil(nbytes / self.max_payload_bytes.value))

    def transfer_time_s(self, nbytes: float, up: bool = True) -> float:
        """Return the seconds that `nbytes` take alone on this link, silences of the duty cycle included.

        Latency is counted once. Loss is not included: it is drawn by the simulation.

        Examples
        --------
        >>> from edgellm.cost import load_link
        >>> round(load_link("wifi-5").transfer_time_s(100_000), 6)  # 1.5 ms, and 0.8 Mbit at 200 Mbit/s
        0.0055
        """
        rate = (self.up_bit_per_s if up else self.down_bit_per_s).value
        airtime_s = 8.0 * nbytes / rate
        if self.duty_cycle is not None:
            frames = self.frames(nbytes)
            full_s = airtime_s if frames == 1 else 8.0 * self._payload(nbytes) / rate
            airtime_s += (frames - 1) * full_s * (1.0 / self.duty_cycle.value - 1.0)
        return self.latency_s.value + airtime_s

    def infeasible(self, nbytes: float, up: bool = True) -> str | None:
        """Return why `nbytes` cannot cross this link, with the arithmetic, or None if it can."""
        if self.max_transfer_s is None:
            return None
        need_s = self.transfer_time_s(nbytes, up)
        if need_s <= self.max_transfer_s.value:
            return None
        frames = self.frames(nbytes)
        plural = "" if frames == 1 else "s"
        duty = "" if self.duty_cycle is None else f" at {100 * self.duty_cycle.value:g} % duty"
        return (
            f"link infeasible: {nbytes:.0f} bytes over {self.name} are {frames} frame{plural} and"
            f" {need_s:.3g} s{duty}, more than {self.max_transfer_s.value:g} s"
        )

    def _payload(self, nbytes: float) -> float:
        return nbytes if self.max_payload_bytes is None else self.max_payload_bytes.value


@dataclass(frozen=True, slots=True)
class CitedQuality:
    """Quality of a model that is not measured here: somebody else's number, always labelled as cited."""

    metric: str  # for example "perplexity"
    value: float
    text: str  # the data it was measured on
    source: str


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """The shape of a decoder-only transformer with gated feed-forward layers (Llama family).

    Enough to count its weights, its operations and its cache; no weights are needed.
    """

    name: str
    title: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    context: int
    source: str
    qkv_bias: bool = False
    quality: Mapping[str, CitedQuality] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def body_matrix_params(self) -> int:
        """Weights in the matrices of all layers."""
        attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.ffn)

    @property
    def vector_params(self) -> int:
        """Weights in norms and biases, kept in float32."""
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        return self.layers * (2 * self.width + biases) + self.width

    @property
    def embedding_params(self) -> int:
        """Weights of one vocabulary matrix."""
        return self.vocab * self.width

    @property
    def params(self) -> int:
        """All weights; a tied head is counted once."""
        tables = 1 if self.tied else 2
        return self.body_matrix_params + self.vector_params + tables * self.embedding_params

    def head_quant(self, quant: str) -> str:
        """Return the storage type of the output head in a GGUF file of type `quant`.

        The usual quantizer keeps the head (or the tied table) at q6_k, or at q8_0 where a row is not a
        multiple of 256. Source: `llama_tensor_get_type` of llama.cpp; the shipped SmolLM2-135M Q4_1 file
        agrees.
        """
        base = _base(quant)
        values, nbytes = BLOCKS[base]
        return base if 8 * nbytes / values >= 8 else _fit("q6_k", self.width)

    def weight_bytes(self, quant: str, head: str | None = None) -> float:
        """Return the bytes of all weights stored as `quant`, norms in float32.

        Parameters
        ----------
        quant : str
            A storage type of `BLOCKS`, or a mix of `MIXES`. A matrix whose rows are not whole blocks falls
            back to the type that the usual quantizer takes.
        head : str or None
            Storage type of the output head; None for that of a GGUF file (`head_quant`).

        Raises
        ------
        ValueError
            If a type is unknown.
        """
        untied = 0.0 if self.tied else self._matrix_bytes(self.vocab, self.width, _base(quant))
        return self.active_bytes(quant, head) + untied

    def active_bytes(self, quant: str, head: str | None = None) -> float:
        """Return the bytes of weights that a decode step reads: layers and head, not the embedding."""
        return _active_bytes(self, quant, self.head_quant(quant) if head is None else head)

    def kv_bytes_per_token(self, kv: str = "f16") -> float:
        """Return the bytes of cache that one position takes over all layers."""
        if kv not in KV_BYTES:
            raise ValueError(f"unknown cache type {kv!r}; known: {', '.join(KV_BYTES)}")
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_BYTES[kv]

    def _layer_bytes(self, layer: int, quant: str) -> float:
        """Return the bytes of the matrices of one layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        base = _base(quant)
        better = MIXES[quant][1] if quant in MIXES and _more_bits(layer, self.layers) else base
        return (
            self._matrix_bytes(queries + keys, self.width, base)
            + self._matrix_bytes(keys, self.width, better)
            + self._matrix_bytes(self.width, queries, base)
            + 2 * self._matrix_bytes(self.ffn, self.width, base)
            + self._matrix_bytes(self.width, self.ffn, better)
        )

    def _matrix_bytes(self, rows: int, columns: int, quant: str) -> float:
        values, nbytes = BLOCKS[_fit(quant, columns)]
        return rows * columns / values * nbytes


@functools.lru_cache(maxsize=1024)
def _active_bytes(model: ModelProfile, quant: str, head: str) -> float:
    body = sum(model._layer_bytes(layer, quant) for layer in range(model.layers))
    return body + 4.0 * model.vector_params + model._matrix_bytes(model.vocab, model.width, _base(head))


def _base(quant: str) -> str:
    if quant in MIXES:
        return MIXES[quant][0]
    if quant not in BLOCKS:
        raise ValueError(f"unknown quantization {quant!r}; known: {', '.join((*BLOCKS, *MIXES))}")
    return quant


def _fit(quant: str, columns: int) -> str:
    """Return `quant`, or what replaces it in a matrix whose rows are not whole blocks of it."""
    while columns % BLOCKS[quant][0]:
        quant = _FALLBACK.get(quant, "f16")
    return quant


def _more_bits(layer: int, layers: int) -> bool:
    """Say whether a mix spends more bits on this layer. Source: `use_more_bits` of llama.cpp."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _constants(profile: DeviceProfile | LinkProfile) -> Iterator[tuple[str, Constant]]:
    for item in fields(profile):
        value = getattr(profile, item.name)
        if isinstance(value, Constant):
            yield item.name, value
