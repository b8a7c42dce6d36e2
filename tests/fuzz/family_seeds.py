"""Good files of every family but Llama, small enough to be broken by the thousand."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.helpers import families, family_gguf

NAMES = (
    "qwen2, yarn",
    "qwen3, heads of their own size",
    "gemma3, one layer",
    "phi3, long factors of a part of a head",
    "gpt2, one layer",
)


def write(folder: Path) -> list[Path]:
    """One file for each of NAMES."""
    made = []
    for i, name in enumerate(NAMES):
        case = families.CASES[name]
        layers = {"n_layer" if case.family == "gpt2" else "num_hidden_layers": 1}
        small = dataclasses.replace(case, config=case.config | layers)
        made.append(family_gguf.write(folder / f"family-{i}.gguf", small))
    return made
