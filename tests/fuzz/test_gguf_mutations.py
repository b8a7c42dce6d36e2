"""Ten thousand broken files: each is read or refused, in bounded memory, and nothing crashes or hangs."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutants
import pytest

import edgellm.gguf
from edgellm._core import FormatError

HERE = Path(__file__).parent
SANITIZED = "EDGELLM_SANITIZED" in os.environ
MUTANTS = 2_000 if SANITIZED else 12_000
BATCH = MUTANTS // 8


def run(folder: Path, first: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    command = [sys.executable, str(HERE / "mutants.py"), str(folder), "2026", str(first), str(BATCH)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_mutated_files_are_read_or_refused(tmp_path):
    """In processes of their own, so that a crash is a failure of this test and not the end of it."""
    outcomes = {"refused": 0, "header": 0, "model": 0}
    with ThreadPoolExecutor(2) as pool:
        starts = range(0, MUTANTS, BATCH)
        done = list(pool.map(lambda first: run(tmp_path / f"from-{first}", first), starts))
    for child in done:
        assert child.returncode == 0, child.stderr[-4000:]
        for word in child.stdout.split():
            outcome, count = word.split("=")
            outcomes[outcome] += int(count)
    assert sum(outcomes.values()) == MUTANTS
    # The mutations are neither all fatal nor all harmless, or this test would see little.
    assert min(outcomes.values()) > MUTANTS // 20


def test_mutants_are_the_same_each_time_and_differ(tmp_path):
    seeds = mutants.seedlings(tmp_path)
    made = [mutants.mutant(seeds, 1, number) for number in range(300)]
    assert made == [mutants.mutant(seeds, 1, number) for number in range(300)]
    assert {name for name, _ in made} == {mutation.__name__ for mutation in mutants.MUTATIONS}
    changed = [raw for _, raw in made if raw not in [seed.raw for seed in seeds]]
    assert len(set(changed)) > 270


def test_seedlings_know_where_their_numbers_stand(tmp_path):
    """Every offset that mutations aim at holds the number it is said to hold."""
    for seed in mutants.seedlings(tmp_path):
        word = [int.from_bytes(seed.raw[at : at + 8], "little") for at in seed.wide]
        assert max(word) <= len(seed.raw)  # counts, lengths, extents and offsets of a good file
        kinds = [int.from_bytes(seed.raw[at : at + 4], "little") for at in seed.narrow]
        assert max(kinds) <= 35
        assert seed.tensors[-1][1] <= seed.data < seed.tensors[-1][1] + 64


@pytest.mark.parametrize("path", sorted((HERE / "corpus").glob("*.gguf")), ids=lambda path: path.stem)
def test_corpus_file_is_read_or_refused(path):
    """The seeds of the C harness (fuzz_gguf.c)."""
    good = {"empty", "every-kind", "metadata", "version-2"}
    if path.stem in good:
        edgellm.gguf.read(path)
    else:
        with pytest.raises(FormatError):
            edgellm.gguf.read(path)


def test_every_bit_of_a_small_header_may_flip(tmp_path):
    raw = (HERE / "corpus" / "version-2.gguf").read_bytes()
    path = tmp_path / "flipped.gguf"
    refused = 0
    for at in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
            try:
                edgellm.gguf.read(path)
            except FormatError:
                refused += 1
    assert refused > 4 * 24


def test_bytes_of_chance_are_refused(tmp_path):
    path = tmp_path / "chance.gguf"
    rng = random.Random(5)
    for _ in range(300):
        path.write_bytes(b"GGUF\3\0\0\0" + rng.randbytes(rng.randrange(200)))
        with pytest.raises(FormatError):
            edgellm.gguf.read(path)
