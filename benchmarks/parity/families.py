"""transformers for the small models of tests/helpers/families.py; runs in the environment of the torch peer.

Usage: python families.py write|check, or python families.py logits CASES.json OUT.npz

`write` makes tests/data/family_goldens.npz; `check` says how far the committed values are from what this
environment computes; `logits` computes every logit of the cases in a file. Nothing of edgellm is imported.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "tests" / "data" / "family_goldens.npz"
sys.path.insert(0, str(ROOT))
from tests.helpers import families  # noqa: E402  # found by the line above

transformers.logging.set_verbosity_error()  # it warns of token ids that nobody uses here
CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    "phi3": (transformers.Phi3Config, transformers.Phi3ForCausalLM),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
}


def model_of(case: families.Case) -> Any:
    """The transformers model of a case; every one of its tensors is set, and no other."""
    make_config, make_model = CLASSES[case.family]
    # It keeps and completes the nested parts that it is given.
    config = make_config(**json.loads(json.dumps(case.config)), attn_implementation="eager")
    model = make_model(config).eval()
    state = {name: torch.from_numpy(value) for name, value in families.weights(case).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert missing == (["lm_head.weight"] if case.tied else []), missing
    model.tie_weights()
    return model


def evaluate(case: families.Case) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, vocab) logits, and the (tokens, width) rows after the final norm."""
    model = model_of(case)
    row = torch.from_numpy(families.ids(case))[None]
    with torch.no_grad():
        hidden = model.base_model(row, use_cache=False).last_hidden_state
        logits = model(row, use_cache=False).logits
    return logits[0].numpy(), hidden[0].numpy()


def goldens() -> dict[str, np.ndarray]:
    """What is committed of every case: some logits, and the last hidden row."""
    found = {}
    for name, case in families.CASES.items():
        logits, hidden = evaluate(case)
        assert np.isfinite(logits).all(), name
        found[name] = logits[np.ix_(*families.kept(case))]
        found[f"{name}: hidden"] = hidden[-1]
    return found


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["write"]:
            found = goldens()
            TARGET.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(TARGET, **found)
            for name, value in found.items():
                print(f"{name}: {value.shape}, largest {np.abs(value).max():.2f}")
        case ["check"]:
            found = goldens()
            with np.load(TARGET) as held:
                assert set(held) == set(found), set(held) ^ set(found)
                far = {name: float(np.abs(held[name] - value).max()) for name, value in found.items()}
            print(json.dumps(far))
        case ["logits", cases, out]:
            drawn = [families.Case(**fields) for fields in json.loads(Path(cases).read_text("utf-8"))]
            np.savez(out, *(evaluate(case)[0] for case in drawn))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
