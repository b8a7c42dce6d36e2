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
from peers import RESULTS, ROOT, Llama, PeerMissing

import edgellm
from edgellm import models
from edgellm.cli._machine import machine
from edgellm.cpu import count

TEXT = ROOT / "benchmarks" / "data" / "shakespeare.txt"


def model_of(quant: str, folder: Path) -> Path:
    """The shipped file for q4_1, else one made from it."""
    shipped = models.resolve("smollm2-135m")
    if quant == "q4_1":
        return shipped
    made = folder / f"{quant}.gguf"
    edgellm.convert(shipped, made, quant=quant)
    return made


def measure(quants: list[str], threads: int) -> dict[str, Any]:
    """Run every comparison."""
    text = TEXT.read_text("utf-8")
    llama: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Llama() as peer:
            for quant in quants:
                path = model_of(quant, folder)
                llama[quant] = against_llama.compare(peer, path, text, folder, threads)
                print(f"llama.cpp, {quant}: {json.dumps(llama[quant])}", flush=True)
            version = peer.ask("open", model=str(path), context=64, ubatch=64, threads=1, flash=True)
        transformers = against_transformers.compare(model_of("f32", folder), text, folder, threads)
        print(f"transformers, f32: {json.dumps(transformers)}", flush=True)
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
        "transformers": {"smollm2-135m as f32": transformers},
        "families": families,
        "goldens": {"largest_difference": goldens},
        "ok": all(row["ok"] for row in [*llama.values(), transformers, *families.values()])
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
        f"llama-cpp-python {found['llama_cpp']['llama_cpp_python']}, flash attention on; SmolLM2-135M;",
        "text benchmarks/data/shakespeare.txt in windows of 512 tokens. *Distance*: mean difference of the",
        "log-probability of the observed token between us and llama.cpp at micro-batch 512. *Yardstick*:",
        "llama.cpp at micro-batch 512 from itself at micro-batch 1. Formats other than q4_1 are requantized",
        "from the shipped Q4_1 file.",
        "",
        "| format | tokens | distance | yardstick | ratio (at most 1.25) "
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
    row = found["transformers"]["smollm2-135m as f32"]
    lines += [
        "",
        "## transformers",
        "",
        "SmolLM2-135M with the shipped weights dequantized to float32; "
        f"{row['tokens']} tokens of the same text, logits as large as {row['largest_logit']:.0f}:",
        "",
        "| our KV cache | largest difference of a logit (at most 1e-3 with f32) | mean | same top token |",
        "|---|---|---|---|",
        *(
            f"| {kv} | {row[f'largest_difference_kv_{kv}']:.1e} | {row[f'mean_difference_kv_{kv}']:.1e} "
            f"| {row[f'top_1_agreement_kv_{kv}']:.1%} |"
            for kv in ("f32", "f16")
        ),
        "",
        *families_table(found),
    ]
    return "\n".join(lines)


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
