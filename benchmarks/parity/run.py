"""`make parity`: compare the engine with llama.cpp and transformers, and write benchmarks/results/parity.*.

Exit code 1 if a comparison is out of its bound. --quants q4_1,q4_0 chooses the formats beside llama.cpp;
those other than the shipped Q4_1 are requantized from it.
"""

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import against_families
import against_llama
import against_transformers
from make_llama_goldens import WINDOWS
from peers import RESULTS, ROOT, Llama, PeerMissing

import edgellm
from edgellm import models
from edgellm.cli._machine import machine
from edgellm.cpu import count

TEXT = ROOT / "benchmarks" / "data" / "shakespeare.txt"
SHIPPED = {"smollm2-135m": "q4_1", "gemma-3-270m": "q4_k_m"}
SCORED = {"smollm2-135m": (512, 0), "gemma-3-270m": (700, 600)}  # tokens, the first whose logits are compared


def model_of(name: str, quant: str, folder: Path) -> Path:
    """The shipped file, or one made from it in another format."""
    shipped = models.resolve(name)
    if quant == SHIPPED[name]:
        return shipped
    made = folder / f"{name}-{quant}.gguf"
    edgellm.convert(shipped, made, quant=quant)
    return made


def measure(quants: list[str], threads: int) -> dict[str, Any]:
    """Run every comparison."""
    text = TEXT.read_text("utf-8")
    here = [("smollm2-135m", quant) for quant in quants]
    if models.cached(models.KNOWN["gemma-3-270m"]) is None:
        print("gemma-3-270m is not on this machine (`edgellm pull gemma-3-270m` shows its terms): left out")
    else:
        here.append(("gemma-3-270m", "q4_k_m"))
    llama: dict[str, Any] = {}
    transformers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Llama() as peer:
            for model, quant in here:
                path = model_of(model, quant, folder)
                row = against_llama.compare(peer, path, text, folder, threads, WINDOWS[model])
                llama[f"{model} {quant}"] = row
                print(f"llama.cpp, {model} {quant}: {json.dumps(row)}", flush=True)
            version = peer.ask("about")
        for model in dict.fromkeys(model for model, _ in here):
            path = model_of(model, "f32", folder)
            row = against_transformers.compare(path, text, folder, threads, *SCORED[model])
            transformers[f"{model} as f32"] = row
            path.unlink()  # a gigabyte
            print(f"transformers, {model} as f32: {json.dumps(row)}", flush=True)
        families = against_families.compare(folder, threads)
        print(f"families: {json.dumps(families)}", flush=True)
    goldens = max(against_families.check_goldens().values())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "edgellm": edgellm.__version__,
        "numerics": edgellm.__numerics__,
        "threads": threads,
        "machine": machine(),
        "llama_cpp": {"llama_cpp_python": version["version"], "models": llama},
        "transformers": transformers,
        "families": families,
        "goldens": {"largest_difference": goldens},
        "ok": all(row["ok"] for part in (llama, transformers, families) for row in part.values())
        and goldens <= against_families.MAX_GOLDEN_DIFFERENCE,
    }


def families_table(found: dict[str, Any]) -> list[str]:
    """The part of the page on small random models."""
    lines = [
        "## Families",
        "",
        "Small models of the true architectures with random float32 weights, named ones and ones drawn at",
        f"random; every logit, float32 cache. Bound to transformers: {against_families.MAX_DIFFERENCE:.0e}.",
        "",
        "| family | models | furthest from transformers | beside llama.cpp | furthest | left out, as it |",
        "|---|---|---|---|---|---|",
    ]
    for family, row in found["families"].items():
        left_out = "; ".join(
            f"{reason.removeprefix('it ')} ({count})" for reason, count in row["left_out"].items()
        )
        lines.append(
            f"| {family} | {row['models']} | {row['to_transformers']:.1e} | {row['models_beside_llama_cpp']} "
            f"| {row['to_llama_cpp']:.1e} | {left_out or '-'} |"
        )
    far = found["goldens"]["largest_difference"]
    return [
        *lines,
        "",
        "llama.cpp reads GELU from a table of float16 values, so gemma3 and gpt2 are further from it.",
        f"The committed goldens, computed again: at most {far:.1e} away.",
        "",
    ]


def page(found: dict[str, Any]) -> str:
    """The results as markdown."""
    stamp = found["machine"]
    lines = [
        "# Parity with other engines",
        "",
        f"Made by `make parity` on {found['date']}: edgellm {found['edgellm']}, arithmetic contract "
        f"{found['numerics']}, threads: {found['threads']}, {stamp['cpu']} ({' '.join(stamp['flags'])}).",
        "",
        "## llama.cpp",
        "",
        f"llama-cpp-python {found['llama_cpp']['llama_cpp_python']}, flash attention on; SmolLM2, Gemma 3,",
        "text benchmarks/data/shakespeare.txt in windows of 512 tokens, for Gemma 3 of 1,024 that begin with",
        "its first token: twice what most of its layers see. *Distance*: mean difference of the",
        "log-probability of the observed token between us and llama.cpp at micro-batch 512. *Yardstick*:",
        "llama.cpp at micro-batch 512 from itself at micro-batch 1. SmolLM2 in formats other than q4_1 is",
        "requantized from the shipped Q4_1 file.",
        "",
        "| model and format | tokens | distance | yardstick | ratio (at most 1.25) "
        "| same top token: us, llama.cpp itself | perplexity: us, llama.cpp | difference (at most 0.5 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for quant, row in found["llama_cpp"]["models"].items():
        lines.append(
            f"| {quant} | {row['tokens_scored']} | {row['distance']:.4f} | {row['yardstick']:.4f} "
            f"| {row['ratio']:.2f} | {row['top_1_agreement']:.1%}, "
            f"{row['top_1_agreement_of_llama_cpp_with_itself']:.1%} | {row['perplexity']:.3f}, "
            f"{row['perplexity_of_llama_cpp']:.3f} ({row['perplexity_tokens']} tokens) "
            f"| {row['perplexity_share']:+.2%} |"
        )
    lines += [
        "",
        "## transformers",
        "",
        "The shipped weights dequantized to float32; logits of tokens of the same text.",
        "",
        "| model | tokens | largest logit | our KV cache | largest difference (at most 1e-3 with f32) "
        "| mean | same top token |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, row in found["transformers"].items():
        lines += [
            f"| {model} | {row['tokens']} | {row['largest_logit']:.0f} | {kv} "
            f"| {row[f'largest_difference_kv_{kv}']:.1e} | {row[f'mean_difference_kv_{kv}']:.1e} "
            f"| {row[f'top_1_agreement_kv_{kv}']:.1%} |"
            for kv in ("f32", "f16")
        ]
    return "\n".join([*lines, "", *families_table(found)])


def main() -> int:
    """Run, write, judge."""
    parser = argparse.ArgumentParser(description="compare the engine with llama.cpp and transformers")
    parser.add_argument("--quants", default="q4_1,q4_0,q8_0")
    parser.add_argument("--threads", type=int, default=count())
    args = parser.parse_args()
    try:
        found = measure(args.quants.split(","), args.threads)
    except PeerMissing as error:
        print(f"parity: {error}", file=sys.stderr)
        return 1
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "parity.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    (RESULTS / "parity.md").write_text(page(found), "utf-8")
    print(f"{'within' if found['ok'] else 'OUT OF'} the bounds; see benchmarks/results/parity.md")
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
