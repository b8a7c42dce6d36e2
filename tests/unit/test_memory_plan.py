"""What a process takes beside what `plan()` said: peak resident bytes beyond interpreter and NumPy."""

import json
import os
import subprocess
import sys

import pytest
from helpers import tiny_model, windowed

import edgellm

pytestmark = pytest.mark.skipif(
    "EDGELLM_SANITIZED" in os.environ, reason="a sanitizer takes memory of its own"
)

# Python's own objects for the package, and what the system's thread and file tables need beside the plan.
CONSTANT_BYTES = 1 << 20

CHILD = """
import json, sys
import numpy

def resident(key):
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

before = resident("VmRSS")
import edgellm

path, context, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
kv = options.pop("kv", None)
model = edgellm.load(path, **options)
session = model.session(context=context, kv=kv)
vocab = model.config.vocab
session.eval([i * 7919 % vocab for i in range(context - 8)])
for token in range(8):
    session.eval([token])
plan = model.plan(context=context, kv=kv).total_bytes
print(json.dumps({"beyond": resident("VmHWM") - before, "plan": plan}))
"""


def measure(path, context, **options):
    """Peak bytes beyond interpreter and NumPy of a fresh process, and its plan."""
    command = [sys.executable, "-c", CHILD, str(path), str(context), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 67 MB with random weights, and its image."""
    folder = tmp_path_factory.mktemp("large")
    shape = {"width": 1024, "ffn": 4096, "heads": 16, "kv_heads": 16, "layers": 2, "context": 1024}
    tiny_model.write(folder / "large.gguf", quant="f16", **shape)
    edgellm.convert(folder / "large.gguf", folder / "large.edge")
    assert (folder / "large.gguf").stat().st_size > 60_000_000
    return folder


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("large.gguf", {"threads": 1}),
        ("large.gguf", {"threads": 2}),
        ("large.edge", {"threads": 2}),
        ("large.edge", {"threads": 2, "resident": True}),
        ("large.edge", {"threads": 2, "kv": "q8_0"}),
    ],
)
def test_peak_memory_is_what_was_planned(large, name, options):
    found = measure(large / name, 256, **options)
    assert abs(found["beyond"] - found["plan"]) <= 0.02 * found["plan"] + CONSTANT_BYTES, found


def test_peak_memory_of_rings_is_what_was_planned(tmp_path):
    """Seven layers of eight heads, of which one keeps 8192 positions and six keep 256."""
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 8192}
    windowed.write(tmp_path / "m.gguf", 10, **heads)
    found = measure(tmp_path / "m.gguf", 8192, threads=1)
    assert found["plan"] > 10_000_000
    assert abs(found["beyond"] - found["plan"]) <= 0.02 * found["plan"] + CONSTANT_BYTES, found


@pytest.mark.weights
@pytest.mark.parametrize("threads", [1, 2])
def test_peak_memory_of_a_real_model_is_what_was_planned(smollm2, threads):
    """With a tokenizer of 49,152 tokens, whose making must not show."""
    found = measure(smollm2, 256, threads=threads)
    assert abs(found["beyond"] - found["plan"]) <= 0.02 * found["plan"], found
