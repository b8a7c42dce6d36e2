"""The shape of a language model and the bytes that its weights take; no weights are needed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

#: Values in a block and bytes of a block, by storage type. Source: the block layouts of ggml
#: (`ggml-common.h`).
BLOCKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2),
        "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34),
        "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210),
        "iq4_nl": (32, 18), "tq1_0": (256, 54), "tq2_0": (256, 66),
        # bits alone, with scales too rare to count: formats of other engines, not of GGUF
        "i8": (1, 1), "i4": (2, 1), "i2": (4, 1),
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


@dataclass(frozen=True, slots=True)
class CitedQuality:
    """Quality of a model that is not measured here: somebody else's number, always labelled as cited."""

    metric: str  # for example "perplexity"
    value: float
    text: str  # the data it was measured on
    source: str


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """The shape of a decoder-only transformer.

    Enough to count its weights, its operations and its cache; no weights are needed. In a mixture of experts
    every layer but the first `dense_layers` has a router and `experts` feed-forward networks of `expert_ffn`,
    of which each token uses `experts_used`, and one of `shared_ffn` that every token uses.
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
    gated: bool = True  # three matrices in a feed-forward layer; otherwise two
    experts: int = 0
    experts_used: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    dense_layers: int = 0
    window: int = 0  # positions that a layer with a sliding window sees; 0: no layer has one
    window_pattern: int = 0  # the last layer of every so many sees all positions; 0: none does
    positions: int = 0  # rows of a learned table of positions; 0: there is none
    extra_params: int = 0  # weights in matrices that every step reads and that the shape does not count
    quality: Mapping[str, CitedQuality] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def body_matrix_params(self) -> int:
        """Weights in the matrices of all layers, of all experts."""
        return self._matrix_params(self.experts)

    @property
    def active_matrix_params(self) -> int:
        """Weights in the matrices of all layers that one token is multiplied with."""
        return self._matrix_params(self.experts_used)

    def _matrix_params(self, experts: int) -> int:
        attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        matrices = 3 if self.gated else 2
        sparse = self.layers - self.dense_layers if self.experts else 0
        dense = self.layers - sparse
        of_experts = matrices * (experts * self.expert_ffn + self.shared_ffn) + self.experts
        feed_forward = self.width * (dense * matrices * self.ffn + sparse * of_experts)
        return self.layers * attention + feed_forward + self.extra_params

    def experts_touched(self, tokens: int) -> float:
        """Return how many experts of a layer a step of `tokens` tokens is expected to read.

        Routing is taken as uniform and independent: E (1 - (1 - k/E)^n).

        Examples
        --------
        >>> from dataclasses import replace
        >>> from edgellm.cost import load_model
        >>> m = replace(load_model("smollm2-135m"), experts=8, experts_used=2, expert_ffn=512)
        >>> m.experts_touched(1), m.experts_touched(2)
        (2.0, 3.5)
        """
        if not self.experts:
            return 0.0
        return self.experts * (1.0 - (1.0 - self.experts_used / self.experts) ** tokens)

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
        of_positions = self.positions * self.width
        return self.body_matrix_params + self.vector_params + tables * self.embedding_params + of_positions

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
        stored = self.head_quant(quant) if head is None else head
        of_positions = 4.0 * self.positions * self.width  # float32 in GGUF files
        return _active_bytes(self, quant, stored, self.experts) + untied + of_positions

    @property
    def windowed_layers(self) -> int:
        """Layers whose attention sees only a window."""
        if not self.window:
            return 0
        return self.layers - (self.layers // self.window_pattern if self.window_pattern else 0)

    def head_bytes(self, quant: str, head: str | None = None) -> float:
        """Return the bytes of the output head."""
        stored = self.head_quant(quant) if head is None else head
        return self._matrix_bytes(self.vocab, self.width, _base(stored))

    def split_bytes(self, quant: str, head: str | None = None) -> tuple[float, float]:
        """Return the bytes that every step reads, and those of one expert over all layers."""
        stored = self.head_quant(quant) if head is None else head
        fixed = _active_bytes(self, quant, stored, 0.0)
        one = _active_bytes(self, quant, stored, 1.0) - fixed if self.experts else 0.0
        return fixed, one

    def split_params(self) -> tuple[int, int]:
        """Return the weights that every step reads, and those of one expert over all layers."""
        fixed = self._matrix_params(0)
        one = self._matrix_params(1) - fixed if self.experts else 0
        return fixed + self.embedding_params, one

    def active_bytes(self, quant: str, head: str | None = None, tokens: int = 1) -> float:
        """Return the bytes of weights that a step of `tokens` tokens reads.

        Layers and head, not the embedding; of a mixture of experts only the experts that are expected to be
        touched.
        """
        stored = self.head_quant(quant) if head is None else head
        return _active_bytes(self, quant, stored, self.experts_touched(tokens))

    def kv_bytes(self, context: int, kv: str = "f16") -> float:
        """Return the bytes of the cache of `context` positions; layers with a window keep only that.

        Examples
        --------
        >>> from edgellm.cost import load_model
        >>> load_model("smollm2-135m").kv_bytes(1024) / 1024
        23040.0
        """
        windowed = self.windowed_layers / self.layers
        seen = context * (1.0 - windowed) + min(context, self.window) * windowed
        return seen * self.kv_bytes_per_token(kv)

    def kv_bytes_per_token(self, kv: str = "f16") -> float:
        """Return the bytes of cache that one position takes over all layers."""
        if kv not in KV_BYTES:
            raise ValueError(f"unknown cache type {kv!r}; known: {', '.join(KV_BYTES)}")
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_BYTES[kv]

    def _layer_bytes(self, layer: int, quant: str, experts: float) -> float:
        """Return the bytes of the matrices of one layer, with so many of its experts."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        base = _base(quant)
        better = MIXES[quant][1] if quant in MIXES and _more_bits(layer, self.layers) else base
        attention = (
            self._matrix_bytes(queries + keys, self.width, base)
            + self._matrix_bytes(keys, self.width, better)
            + self._matrix_bytes(self.width, queries, base)
        )
        if not self.experts or layer < self.dense_layers:
            return attention + self._feed_forward_bytes(self.ffn, base, better)
        shared = self._feed_forward_bytes(self.shared_ffn, base, better) if self.shared_ffn else 0.0
        router = 4.0 * self.experts * self.width  # float32 in GGUF files
        return attention + router + shared + experts * self._feed_forward_bytes(self.expert_ffn, base, better)

    def _feed_forward_bytes(self, ffn: int, base: str, better: str) -> float:
        inward = 2 if self.gated else 1
        return inward * self._matrix_bytes(ffn, self.width, base) + self._matrix_bytes(
            self.width, ffn, better
        )

    def _matrix_bytes(self, rows: int, columns: int, quant: str) -> float:
        values, nbytes = BLOCKS[_fit(quant, columns)]
        return rows * columns / values * nbytes


@functools.lru_cache(maxsize=1024)
def _active_bytes(model: ModelProfile, quant: str, head: str, experts: float) -> float:
    body = sum(model._layer_bytes(layer, quant, experts) for layer in range(model.layers))
    values, nbytes = BLOCKS[_base(quant)]
    body += model.extra_params / values * nbytes
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
