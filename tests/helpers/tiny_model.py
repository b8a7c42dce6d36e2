"""The tiny model of `edgellm.conversion.sample`, by the name that tests use, and more vocabularies for it."""

from typing import Any

from edgellm.conversion.sample import Tiny, entries, random_tensor, tensors, vocabulary, write

__all__ = ["Tiny", "entries", "random_tensor", "spm_entries", "tensors", "vocabulary", "write"]


def spm_entries() -> dict[str, tuple[Any, str] | None]:
    """What `Tiny` takes as `metadata` for a SentencePiece vocabulary of its 300 tokens."""
    some = [
        "▁t",
        "▁a",
        "he",
        "in",
        "▁th",
        "▁the",
        "▁s",
        "at",
        "▁w",
        "on",
        "an",
        "▁c",
        "it",
        "is",
        "▁ca",
        "▁cat",
    ]
    pieces = [*some, "▁", *"abcdefghijklmnopqrstuvwxyz"[: 41 - len(some) - 1]]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return {
        "tokenizer.ggml.model": ("llama", "string"),
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": (tokens, "array of string"),
        "tokenizer.ggml.token_type": ([2, 3, 3, *[6] * 256, *[1] * 41], "array of i32"),
        "tokenizer.ggml.scores": ([0.0] * 259 + [-float(i) for i in range(41)], "array of f32"),
        "tokenizer.ggml.add_space_prefix": None,
        "tokenizer.ggml.add_bos_token": None,
    }
