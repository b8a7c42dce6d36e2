"""Thousands of broken edge images: each is used or refused, in bounded memory; nothing crashes or hangs."""

import os
import subprocess
import sys
from pathlib import Path

import mutants_edge

HERE = Path(__file__).parent
MUTANTS = 1_000 if "EDGELLM_SANITIZED" in os.environ else 5_000


def test_mutated_images_are_used_or_refused(tmp_path):
    command = [sys.executable, str(HERE / "mutants_edge.py"), str(tmp_path), "2026", "0", str(MUTANTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = {word.split("=")[0]: int(word.split("=")[1]) for word in done.stdout.split()}
    assert sum(outcomes.values()) == MUTANTS
    # Neither all fatal nor all harmless, or this test would see little.
    assert min(outcomes.values()) > MUTANTS // 20


def test_mutants_of_images_are_the_same_each_time(tmp_path):
    seeds = mutants_edge.seedlings(tmp_path)
    made = [mutants_edge.mutant(seeds, 1, number) for number in range(200)]
    assert made == [mutants_edge.mutant(seeds, 1, number) for number in range(200)]
    assert {name for name, _ in made} == {mutation.__name__ for mutation in mutants_edge.MUTATIONS}
