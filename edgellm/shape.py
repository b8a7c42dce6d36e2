"""What a model file states of its shape, and what it will cost in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder, as its file states it. Extents count values, not bytes.

    Attributes
    ----------
    architecture : str
        The family: "llama", "qwen2", "qwen3", "gemma3", "phi3" or "gpt2".
    context : int
        Positions that the model was trained for.
    rope_dims : int
        Leading values of a head that are rotated; 0 where positions are learned.
    rope_original : int
        A session of more positions uses the frequencies for long ones; 0 where there is one set.
    window, window_pattern : int
        Positions that a layer with a sliding window sees, its own included (0: no layer has one). The last
        layer of every `window_pattern` sees all positions; 0: none does.
    rope_local_base : float
        `rope_base` of the layers with a window; 0 where it is the same.
    rope_scale, rope_magnitude : float
        Factor of linear or YaRN scaling, and what cosines and sines are multiplied by.
    attention_scale, embed_scale : float
        What scores and the token embedding are multiplied by.
    tied : bool
        Whether the head is the token embedding.
    """

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
    rope_original: int
    window: int
    window_pattern: int
    rope_base: float
    rope_local_base: float
    rope_scale: float
    rope_magnitude: float
    norm_eps: float
    attention_scale: float
    embed_scale: float
    tied: bool

    @property
    def parameters(self) -> int:
        """Number of weights, a tied head counted once; biases where the family always has them."""
        attention = self.width * self.head_dim * 2 * (self.heads + self.kv_heads)
        layer = attention + 3 * self.width * self.ffn + 2 * self.width
        total = self.layers * (layer + self._extra_of_layer) + self.width
        if self.architecture == "gpt2":
            total += self.width * (1 + self.context)  # bias of the last norm, positions
        return total + (1 if self.tied else 2) * self.vocab * self.width

    @property
    def _extra_of_layer(self) -> int:
        """What a layer has more (or less) than one of Llama."""
        biases = self.head_dim * (self.heads + 2 * self.kv_heads)
        extra = {
            "qwen2": biases,
            "qwen3": 2 * self.head_dim,
            "gemma3": 2 * self.head_dim + 2 * self.width,
            "gpt2": biases + self.ffn + 4 * self.width - self.width * self.ffn,
        }
        return extra.get(self.architecture, 0)


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
