"""A small Gemma 3 whose windows are far shorter than its context, so that its caches are rings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tests.helpers import families, family_gguf

WINDOW = 70
CONTEXT = 2048


def case(tokens: int, **config: Any) -> families.Case:
    """A model of seven layers, of which the sixth sees all positions, and a sequence."""
    base = families.CASES["gemma3, one token"]
    more = {"sliding_window": WINDOW, "num_hidden_layers": 7, "max_position_embeddings": CONTEXT}
    return dataclasses.replace(base, config=base.config | more | config, tokens=tokens, vocabulary="bpe")


def write(path: Path, tokens: int = 600, **config: Any) -> list[int]:
    """Write the model; the token ids of the sequence."""
    made = case(tokens, **config)
    family_gguf.write(path, made)
    return [int(i) for i in families.ids(made)]
