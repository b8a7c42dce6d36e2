"""Encoding speed beside the `tokenizers` package, with the same vocabulary and a check of the ids.

    python benchmarks/compare_tokenizers.py TEXT MODEL.gguf ...

Prints MB of UTF-8 per second of CPU time, one thread, best of interleaved rounds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from edgellm import gguf, tokenizer

ROUNDS = 3
TEXT_BYTES = 1_000_000
USER_DEFINED = 4
MARK = "▁"


def peer_of(metadata: Any, ours: tokenizer.Tokenizer) -> tokenizers.Tokenizer:
    """The package's tokenizer from the parts of a SentencePiece file."""
    tokens = [str(token) for token in metadata["tokenizer.ggml.tokens"]]
    types = list(metadata["tokenizer.ggml.token_type"])
    scores = [float(score) for score in metadata["tokenizer.ggml.scores"]]
    ids = {token: i for i, token in enumerate(tokens)}
    spaces = pre_tokenizers.Metaspace(prepend_scheme="always" if ours.add_space_prefix else "never")
    if metadata["tokenizer.ggml.model"] == "t5":
        rows = list(zip(tokens, scores, strict=True))
        peer = tokenizers.Tokenizer(models.Unigram(rows, unk_id=ours.unk_id, byte_fallback=6 in types))
        if "tokenizer.ggml.precompiled_charsmap" in metadata:
            raw = metadata["tokenizer.ggml.precompiled_charsmap"].tobytes()
            peer.normalizer = normalizers.Precompiled(raw)
        peer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    else:
        plain = {token for token, kind in zip(tokens, types, strict=True) if kind in (1, 5)}
        merges = [
            (token[:i], token[i:])
            for token in sorted(plain, key=lambda t: -scores[ids[t]])
            for i in range(1, len(token))
            if token[:i] in plain and token[i:] in plain
        ]
        model = models.BPE(ids, merges, unk_token=tokens[ours.unk_id or 0], fuse_unk=True, byte_fallback=True)
        peer = tokenizers.Tokenizer(model)
        first = [normalizers.Prepend(MARK)] if ours.add_space_prefix else []
        peer.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", MARK)])
    users = [t for t, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    peer.add_tokens([tokenizers.AddedToken(t, normalized=False) for t in users])
    return peer


def cpu_s(run: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    start_s = time.process_time()
    run()
    return time.process_time() - start_s


def main(text: str, paths: list[str]) -> None:
    """Compare on every file."""
    os.environ["TOKENIZERS_PARALLELISM"] = "0"
    text = text.encode()[:TEXT_BYTES].decode(errors="ignore")
    megabytes = len(text.encode()) / 1e6
    for path in paths:
        ours = tokenizer.load(path)
        peer = peer_of(gguf.read(path).metadata, ours)
        times = [(cpu_s(lambda: ours.encode(text)), cpu_s(lambda: peer.encode(text))) for _ in range(ROUNDS)]  # noqa: B023  called at once
        here, there = (min(column) for column in zip(*times, strict=True))
        same = ours.encode(text) == peer.encode(text).ids
        print(
            f"{Path(path).name}: edgellm {megabytes / here:.1f} MB/s, "
            f"tokenizers {megabytes / there:.1f} MB/s, "
            f"{there / here:.1f} times as fast, ids {'equal' if same else 'DIFFER'}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2:])
