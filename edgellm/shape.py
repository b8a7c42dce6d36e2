"""What a model file states of its shape, and what it will cost in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder, as its file states it. Extents count values, not bytes."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rope_dims: int
    rope_base: float
    rope_scale: float
    norm_eps: float
    tied: bool

    @property
    def parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        attention = self.width * self.head_dim * 2 * (self.heads + self.kv_heads)
        layer = attention + 3 * self.width * self.ffn + 2 * self.width
        heads = 1 if self.tied else 2
        return self.layers * layer + self.width + heads * self.vocab * self.width


@dataclass(frozen=True, slots=True)
class Plan:
    """Exact memory of a model and one session, by part, in bytes.

    Known before anything is allocated; `docs/numerics.md` has the layouts behind the figures.
    """

    weights_bytes: int
    scratch_bytes: int
    tables_bytes: int
    kv_bytes: int
    session_bytes: int
    image_bytes: int = 0  # of an edge image used in place: weights, tokenizer and the rest of the file
    tokenizer_bytes: int = 0  # where it is not in the image
    program_bytes: int = 0  # the engine's own library, which every process that uses it maps

    @property
    def model_bytes(self) -> int:
        """What `load` takes, once, for all sessions."""
        own = self.weights_bytes + self.scratch_bytes + self.tables_bytes + self.tokenizer_bytes
        return own + self.image_bytes + self.program_bytes

    @property
    def total_bytes(self) -> int:
        """Model and one session."""
        return self.model_bytes + self.kv_bytes + self.session_bytes
