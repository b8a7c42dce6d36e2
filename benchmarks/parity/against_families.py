"""Models of every family with float32 weights beside transformers, and beside llama.cpp where it agrees.

The cases of tests/helpers/families.py and as many drawn at random; every logit is compared. llama.cpp is a
second oracle for how a file is to be read: it computes GELU from a table of float16 values, so where a
family has one it is held to a wider bound, and what it is known to do otherwise is left out by name.
"""

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import HERE, EngineDied, Llama, python_of
from random_families import cases as drawn_cases

import edgellm
from tests.helpers import families, family_gguf
from tests.helpers.families import Case

MAX_DIFFERENCE = 1e-3
MAX_DIFFERENCE_OF_LLAMA_CPP = 1e-3
MAX_DIFFERENCE_OF_ITS_GELU = 2e-2
MAX_GOLDEN_DIFFERENCE = 1e-4  # another build of PyTorch sums in another order
DRAWN_PER_FAMILY = 12
SEED = 20


def check_goldens() -> dict[str, float]:
    """Compute the committed goldens again: the largest difference of each to what is committed."""
    command = [str(python_of("torch")), str(HERE / "families.py"), "check"]
    far: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return far


def theirs(cases: list[Case], folder: Path) -> list[NDArray[np.float32]]:
    """Logits of transformers."""
    source, out = folder / "cases.json", folder / "families.npz"
    source.write_text(json.dumps([dataclasses.asdict(case) for case in cases]), "utf-8")
    subprocess.run(
        [str(python_of("torch")), str(HERE / "families.py"), "logits", str(source), str(out)], check=True
    )
    with np.load(out) as held:
        return [held[f"arr_{i}"] for i in range(len(cases))]


def why_llama_cpp_differs(case: Case) -> str | None:
    """What llama.cpp is known to do otherwise than transformers with this model."""
    if case.family in ("mistral", "phi3") and (case.get("sliding_window") or case.tokens) < case.tokens:
        return "it ignores the window"
    if case.rope.get("beta_slow", 1.0) != 1.0:
        return "it ignores yarn_beta_slow"
    if case.family == "qwen3" and case.get("attention_bias"):
        return "it knows no biases of Qwen3"
    if "long_factor" in case.rope:
        original = case.config["original_max_position_embeddings"]
        if (case.tokens > original) != (-(-case.tokens // 256) * 256 > original):
            return "it rounds the context up to 256 before it chooses LongRoPE's factors"
    return None


def ours(path: Path, case: Case, threads: int) -> NDArray[np.float32]:
    """Our logits."""
    with edgellm.load(path, threads=threads) as model:
        return model.session(context=case.tokens).eval(families.ids(case).tolist(), logits="all")


def of_llama_cpp(peer: Llama, path: Path, case: Case, folder: Path) -> NDArray[np.float32]:
    """llama.cpp's logits with a float32 cache."""
    out = folder / "logits.npy"
    peer.ask("open", model=str(path), context=case.tokens, ubatch=512, threads=1, flash=False, kv="f32")
    peer.ask("logits", ids=families.ids(case).tolist(), out=str(out))
    peer.ask("close")  # the next model has the same path
    return np.load(out)


def compare(folder: Path, threads: int, per_family: int = DRAWN_PER_FAMILY) -> dict[str, dict[str, Any]]:
    """Compare all cases.

    Returns
    -------
    rows : dict
        By family: how many models, the largest differences, what was left out, and ``ok``.
    """
    named = {**families.CASES}
    named |= {f"drawn {i}: {case}": case for i, case in enumerate(drawn_cases(per_family, SEED))}
    rows: dict[str, dict[str, Any]] = {
        family: {
            "models": 0, "to_transformers": 0.0, "models_beside_llama_cpp": 0, "to_llama_cpp": 0.0,
            "left_out": {}, "failed": [],
        }
        for family in families.FAMILIES
    }  # fmt: skip
    peer = Llama()
    for (name, case), want in zip(named.items(), theirs(list(named.values()), folder), strict=True):
        row, path = rows[case.family], family_gguf.write(folder / "family.gguf", case)
        got = ours(path, case, threads)
        far = float(np.abs(got - want).max())
        row["models"] += 1
        row["to_transformers"] = max(row["to_transformers"], far)
        if not far <= MAX_DIFFERENCE:  # NaN fails
            row["failed"].append(f"{name}: {far:.1e} from transformers")
        reason = why_llama_cpp_differs(case)
        if reason is None:
            try:
                beside = float(np.abs(got - of_llama_cpp(peer, path, case, folder)).max())
            except EngineDied as error:
                row["failed"].append(f"{name}: {error}")
                peer = Llama()
                continue
            gelu = case.family in ("gemma3", "gpt2")
            row["models_beside_llama_cpp"] += 1
            row["to_llama_cpp"] = max(row["to_llama_cpp"], beside)
            if not beside <= (MAX_DIFFERENCE_OF_ITS_GELU if gelu else MAX_DIFFERENCE_OF_LLAMA_CPP):
                row["failed"].append(f"{name}: {beside:.1e} from llama.cpp")
        else:
            row["left_out"][reason] = row["left_out"].get(reason, 0) + 1
    peer.close()
    for row in rows.values():
        row["ok"] = not row["failed"]
    return rows
