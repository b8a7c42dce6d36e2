"""The tiny model of `edgellm.conversion.sample`, by the name that tests use, and more vocabularies for it."""

from typing import Any

from edgellm.conversion.sample import Tiny, entries, random_tensor, tensors, vocabulary, write

__all__ = [
    "Tiny",
    "entries",
    "random_tensor",
    "spm_entries",
    "tensors",
    "unigram_entries",
    "vocabulary",
    "write",
]


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
        "tokenizer.ggml.eos_token_id": (2, "u32"),
    }


def unigram_entries(charsmap: bytes = b"") -> dict[str, tuple[Any, str] | None]:
    """The same for a unigram vocabulary, with a normaliser where one is given."""
    found = spm_entries()
    tokens = found["tokenizer.ggml.tokens"]
    assert tokens is not None
    found["tokenizer.ggml.model"] = ("t5", "string")
    found["tokenizer.ggml.tokens"] = (["<pad>", "</s>", "<unk>", *tokens[0][3:]], "array of string")
    found["tokenizer.ggml.token_type"] = ([3, 3, 2, *[6] * 256, *[1] * 41], "array of i32")
    found["tokenizer.ggml.add_space_prefix"] = (True, "bool")
    found["tokenizer.ggml.remove_extra_whitespaces"] = (True, "bool")
    for key in ("bos", "eos", "unknown", "padding"):
        found[f"tokenizer.ggml.{key}_token_id"] = None
    if charsmap:
        found["tokenizer.ggml.precompiled_charsmap"] = (list(charsmap), "array of u8")
    return found
