"""Quality: what is computed, what is cached and what the label says.

With a model small enough to check by hand.
"""

import json
import math
import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgellm.sim import quality as q

VOCAB = 256


class FakeModel:
    """Predicts the byte after b to be b + shift, with the given probability."""

    def __init__(self, path):
        self.shift, self.log_odds = {b"a": (1, 3.0), b"b": (1, 2.0), b"c": (2, 3.0), b"n": (1, math.nan)}[
            Path(path).read_bytes()[:1]
        ]
        self.tokenizer = SimpleNamespace(encode=lambda text: list(text.encode()))
        self.closed = False

    def session(self, context, kv):
        return SimpleNamespace(truncate=lambda n: None, eval=self._eval)

    def _eval(self, ids, logits):
        assert logits == "all"
        out = np.zeros((len(ids), VOCAB), np.float32)
        out[np.arange(len(ids)), (np.asarray(ids) + self.shift) % VOCAB] = self.log_odds
        return out

    def close(self):
        self.closed = True


class FakeEngine:
    """Counts what is asked of it; requantizing to q4_0 gives model b, to anything else model c."""

    def __init__(self):
        self.__numerics__ = "1"
        self.loads = 0

    def load(self, path):
        self.loads += 1
        return FakeModel(path)

    def convert(self, src, dst, *, quant):
        Path(dst).write_bytes(b"b" if quant == "q4_0" else b"c")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.Q4_1.gguf"
    path.write_bytes(b"a" * 100)
    return path


def text(content="abcdefgh" * 40, **changes):
    settings = {"name": "t", "content": content, "tokens": 300, "context": 64, "kv": "f16"} | changes
    return q.Text(**settings)


def measure(weights, tmp_path, quants=("q4_1", "q4_0", "q8_0"), engine=None, **options):
    engine = engine or FakeEngine()
    wanted = [q.Wanted(f"m:{x}", weights, x, "q4_1") for x in quants]
    return q.measure(
        wanted, options.pop("text", text()), engine=engine, cache_dir=tmp_path / "cache", **options
    )


def test_perplexity_and_agreement_match_numbers_worked_out_by_hand(weights, tmp_path):
    got = measure(weights, tmp_path)
    content = (b"abcdefgh" * 40)[:300]
    scored = [(i, content[i], content[i + 1]) for i in range(299) if (i + 1) % 64]
    hits = np.array([b == a + 1 for _, a, b in scored])
    for name, odds, shift in (("m:q4_1", 3.0, 1), ("m:q4_0", 2.0, 1), ("m:q8_0", 3.0, 2)):
        hit = hits if shift == 1 else np.array([b == a + 2 for _, a, b in scored])
        log_sum = math.log(math.exp(odds) + VOCAB - 1)
        want = math.exp(np.mean(log_sum - np.where(hit, odds, 0.0)))
        assert got[name].perplexity == pytest.approx(want, rel=1e-5)
        assert got[name].scored == len(scored)
    assert got["m:q4_1"].agreement == got["m:q4_0"].agreement == 1.0
    assert got["m:q8_0"].agreement == 0.0
    assert got["m:q4_0"].perplexity_se > 0


def test_labels_say_what_was_requantized(weights, tmp_path):
    got = measure(weights, tmp_path)
    assert got["m:q4_1"].label == "measured"
    assert got["m:q4_0"].label == got["m:q8_0"].label == "measured, requantized from Q4_1"
    assert got["m:q4_1"].confidence_label == "measured"


def test_a_second_study_runs_no_model(weights, tmp_path):
    first = measure(weights, tmp_path)
    engine = FakeEngine()
    assert measure(weights, tmp_path, engine=engine) == first
    assert engine.loads == 0
    assert measure(weights, tmp_path, engine=engine, mode="refresh") == first
    assert engine.loads == 3


@pytest.mark.parametrize(
    "change",
    [{"kv": "q8_0"}, {"context": 32}, {"tokens": 200}, {"content": "xyz" * 200}],
    ids=lambda c: next(iter(c)),
)
def test_any_change_of_the_measurement_is_another_cache_entry(weights, tmp_path, change):
    measure(weights, tmp_path, quants=["q4_1"])
    engine = FakeEngine()
    measure(weights, tmp_path, quants=["q4_1"], engine=engine, text=text(**change))
    assert engine.loads == 1


def test_another_model_file_or_numerics_version_is_another_cache_entry(weights, tmp_path):
    measure(weights, tmp_path, quants=["q4_1"])
    engine = FakeEngine()
    engine.__numerics__ = "2"
    measure(weights, tmp_path, quants=["q4_1"], engine=engine)
    assert engine.loads == 1
    weights.write_bytes(b"a" * 101)
    measure(weights, tmp_path, quants=["q4_1"], engine=engine)
    assert engine.loads == 2


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"nll": 1}', '{"nll": NaN, "nll_se": 1, "top1": [1], "confidence": []}']
)
def test_a_damaged_cache_entry_is_measured_again(weights, tmp_path, damage):
    first = measure(weights, tmp_path, quants=["q4_1"])
    (entry,) = (tmp_path / "cache").glob("*.json")
    entry.write_text(damage)
    engine = FakeEngine()
    assert measure(weights, tmp_path, quants=["q4_1"], engine=engine) == first
    assert engine.loads == 1
    json.loads(entry.read_text())


def test_cached_mode_never_runs_a_model_and_says_so(weights, tmp_path):
    engine = FakeEngine()
    got = measure(weights, tmp_path, engine=engine, mode="cached")
    assert engine.loads == 0
    assert all(item.label.startswith("not measured") and math.isnan(item.perplexity) for item in got.values())


def test_logits_that_are_not_finite_are_an_error(weights, tmp_path):
    weights.write_bytes(b"n")
    with pytest.raises(q.QualityError, match="not finite"):
        measure(weights, tmp_path, quants=["q4_1"])
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True


def test_a_text_that_is_too_short_is_an_error(weights, tmp_path):
    with pytest.raises(q.QualityError, match="fewer than"):
        measure(weights, tmp_path, quants=["q4_1"], text=text("short"))


def test_confidence_quantiles_are_sorted_probabilities(weights, tmp_path):
    quantiles = measure(weights, tmp_path)["m:q4_1"].confidence
    assert len(quantiles) == q.QUANTILES
    assert all(0 <= a <= b <= 1 for a, b in pairwise(quantiles))
    want = math.exp(3.0) / (math.exp(3.0) + VOCAB - 1)
    assert quantiles[50] == pytest.approx(want, abs=1e-4)


def test_quality_survives_json(weights, tmp_path):
    for item in [*measure(weights, tmp_path).values(), q.Quality("x")]:
        back = q.Quality.from_json(json.loads(json.dumps(item.to_json())))
        assert back == item or (math.isnan(back.perplexity) and back.label == item.label)


def test_texts_that_ship_are_there_and_unknown_ones_are_named():
    for name in q.BUILT_IN_TEXTS:
        assert len(q.read_text(name)) > 15_000
    with pytest.raises(q.QualityError, match="no-such"):
        q.read_text("no-such")


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x"
    q.write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        q.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
