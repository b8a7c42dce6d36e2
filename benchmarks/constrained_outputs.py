"""Constrained texts by the hundred thousand, each checked by the `jsonschema` package; and what masks cost.

python benchmarks/constrained_outputs.py [--count 100000] [--tokenizer MODEL.gguf]
python benchmarks/constrained_outputs.py --speed MODEL.gguf
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.random_schemas import fault, small_tokenizer, texts, walk

from edgellm import Tokenizer, tokenizer
from edgellm.grammar import JSON, from_json_schema

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"},
        "role": {"enum": ["admin", "user", "guest"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    },
    "required": ["name", "age", "role"],
}


def check(tok: Tokenizer, count: int) -> int:
    """Write and check texts; the number of faults."""
    written = refused = faults = seed = 0
    while written < count:
        schema, found = texts(tok, seed, 10)
        seed += 1
        if isinstance(found, str):
            refused += 1
            continue
        written += len(found)
        for raw in found:
            why = fault(schema, raw)
            if why is not None:
                faults += 1
                print(f"seed {seed - 1}: {why}", file=sys.stderr)
    print(f"{written} texts of {seed - refused} schemas, {refused} schemas refused, {faults} faults")
    return faults


def speed(tok: Tokenizer) -> None:
    """Times of the first text and of later ones, by schema."""
    for name, schema in {"any JSON": JSON, "person": PERSON}.items():
        started = time.perf_counter()
        grammar = from_json_schema(tok, schema)
        compiled_s = time.perf_counter() - started
        rng = np.random.default_rng(0)
        for label in ("first text", "100th text"):
            for _ in range(98 if label == "100th text" else 0):
                walk(tok, grammar.matcher(), rng, 200)
            logits = rng.standard_normal(tok.vocab_size).astype(np.float32)
            matcher = grammar.matcher()
            spent: list[float] = []
            while not matcher.finished and len(spent) < 200:
                row = logits.copy()
                rng.shuffle(row)
                begin = time.perf_counter()
                matcher.mask(row, max(200 - len(spent), matcher.shortest))
                token = int(np.argmax(row))
                if token in tok.end_ids:
                    break
                begin_accept = time.perf_counter()
                matcher.accept(token)
                spent.append(begin_accept - begin + time.perf_counter() - begin_accept)
            print(
                f"{name}: compiled in {compiled_s * 1e3:.1f} ms; {label}: "
                f"{np.mean(spent) * 1e6:.0f} us per token, "
                f"at most {np.max(spent) * 1e3:.2f} ms, {grammar.memory_bytes / 2**20:.1f} MiB"
            )


def main() -> int:
    """Run the check, or the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument(
        "--tokenizer", type=Path, help="a GGUF whose vocabulary is used instead of a small one"
    )
    parser.add_argument("--speed", type=Path, help="a GGUF for whose vocabulary masks are timed")
    options = parser.parse_args()
    if options.speed:
        speed(tokenizer.load(options.speed))
        return 0
    return (
        check(tokenizer.load(options.tokenizer) if options.tokenizer else small_tokenizer(), options.count)
        > 0
    )


if __name__ == "__main__":
    sys.exit(main())
