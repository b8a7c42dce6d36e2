"""Speculation: whatever is guessed, and however often, the text is the plain one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgellm
from edgellm import _core
from edgellm.generation import Completion, Generation, Request, drafts
from edgellm.generation.drafts import Pace
from tests.helpers import windowed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[edgellm.Model]:
    from tests.helpers.tiny_model import write

    with edgellm.load(write(folder / "tiny.gguf", quant="q8_0"), threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def other(folder: Path) -> Iterator[edgellm.Model]:
    from tests.helpers.tiny_model import write

    with edgellm.load(write(folder / "other.gguf", quant="q8_0", seed=7), threads=1) as model:
        yield model


class Eager:
    """Drafts as much as possible, whatever it costs."""

    SHARE = 0.0
    solvent = True
    hopeless = False

    def __init__(self, *_: object) -> None:
        pass

    def length(self, level: int, most: int) -> int:
        return min(most, drafts.MOST_DRAFTED)

    def looked(self, seconds: float) -> None:
        pass

    def stepped(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def eager() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts, "Pace", Eager)
        yield


def same(one: Completion, other: Completion) -> bool:
    return (one.text, one.ids, one.finish_reason, one.logprobs) == (
        other.text,
        other.ids,
        other.finish_reason,
        other.logprobs,
    )


OPTIONS = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 40),
        "temperature": st.sampled_from([0.0, 0.3, 1.0]),
        "top_k": st.sampled_from([0, 3]),
        "top_p": st.sampled_from([1.0, 0.8]),
        "repeat_penalty": st.sampled_from([1.0, 1.2]),
        "seed": st.integers(0, 5),
        "logprobs": st.sampled_from([None, 0, 2]),
        "logit_bias": st.sampled_from([None, {3: 2.0, 5: -float("inf")}]),
        "stop": st.sampled_from([(), ("e",), ("th", "zz")]),
        "context": st.sampled_from([None, 60]),
    }
)
PROMPTS = st.lists(st.integers(0, 30), min_size=1, max_size=6).flatmap(
    lambda unit: st.integers(1, 8).map(lambda times: unit * times)
)


@pytest.mark.usefixtures("eager")
@settings(max_examples=60)
@given(prompt=PROMPTS, options=OPTIONS)
def test_lookup_gives_the_plain_text(
    model: edgellm.Model, prompt: list[int], options: dict[str, Any]
) -> None:
    assert same(
        model.generate(prompt, draft="lookup", **options),
        model.generate(prompt, **options),
    )


@pytest.mark.usefixtures("eager")
@settings(max_examples=40)
@given(prompt=PROMPTS, options=OPTIONS)
def test_draft_model_gives_the_plain_text(
    model: edgellm.Model, other: edgellm.Model, prompt: list[int], options: dict[str, Any]
) -> None:
    plain = model.generate(prompt, **options)
    assert same(model.generate(prompt, draft=other, **options), plain)
    itself = model.generate(prompt, draft=model, **options)
    assert same(itself, plain)
    assert itself.speculation is not None
    if len(prompt) <= 16:  # it has seen all: the same random numbers make every guess right
        assert itself.speculation.accepted == itself.speculation.drafted


class RandomDrafter:
    """Guesses what follows in the plain text, now and then wrongly."""

    def __init__(self, truth: Sequence[int], seed: int) -> None:
        self.truth, self.rng, self.at = truth, np.random.default_rng(seed), 0

    def look(self, text: Sequence[int]) -> int:
        self.at = len(text)
        return int(self.rng.integers(-1, 5))

    def guess(self, count: int) -> list[int]:
        guesses = list(self.truth[self.at : self.at + int(self.rng.integers(0, count + 1))])
        return [int(self.rng.integers(0, 20)) if self.rng.random() < 0.2 else token for token in guesses]


@pytest.mark.usefixtures("eager")
@settings(max_examples=60)
@given(prompt=PROMPTS, options=OPTIONS, seed=st.integers(0, 1000))
def test_random_guesses_give_the_plain_text(
    model: edgellm.Model, prompt: list[int], options: dict[str, Any], seed: int
) -> None:
    plain = model.generate(prompt, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts, "LookupDrafter", lambda capacity: RandomDrafter(prompt + plain.ids, seed))
        assert same(model.generate(prompt, draft="lookup", **options), plain)


@pytest.mark.usefixtures("eager")
def test_session_holds_prompt_and_text_whatever_was_guessed(model: edgellm.Model) -> None:
    session = model.session(context=100)
    generation = Generation(model, [4, 5] * 10, Request(30, draft="lookup"), session)
    while not generation.done:
        ids, rows = generation.wants(9)
        assert len(ids) <= 9
        got = _core.batch_eval(model._core, (session._core,), (ids,), (rows,))[0]
        generation.take(got)
        assert session.position == len(generation.held)
    assert generation.held == ([4, 5] * 10 + generation.result().ids)[: session.position]
    fresh = model.session(context=100)
    fresh.eval(generation.held)
    assert np.array_equal(fresh.eval([1]), session.eval([1]))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_drafts_beyond_a_sliding_window_give_the_plain_text(folder: Path, kv: str) -> None:
    path = folder / f"windowed-{kv}.gguf"
    ids = windowed.write(path, 500)
    with edgellm.load(path, threads=2) as model:
        for temperature in (0.0, 1.0):
            options: dict[str, Any] = {"max_tokens": 150, "temperature": temperature, "kv": kv}
            plain = model.generate(ids, **options)
            assert len(plain.ids) > 20
            for draft in ("lookup", model):
                assert same(model.generate(ids, draft=draft, **options), plain)


def test_speculation_counts_are_consistent(model: edgellm.Model) -> None:
    done = model.generate([4, 5] * 10, max_tokens=60, draft="lookup")
    assert done.speculation is not None
    spec = done.speculation
    assert 0 <= spec.accepted <= spec.drafted
    assert spec.steps + spec.accepted == len(done.ids) - 1 + (done.finish_reason == "stop")
    assert model.generate([1, 2], max_tokens=3).speculation is None


def test_draft_that_cannot_be_is_refused(model: edgellm.Model, folder: Path) -> None:
    from tests.helpers.tiny_model import write

    with pytest.raises(ValueError, match="draft"):
        model.generate([1], draft="magic")
    with pytest.raises(TypeError, match="draft"):
        model.generate([1], draft=3)  # type: ignore[arg-type]  # the point of the test
    with edgellm.load(write(folder / "closed.gguf", quant="q8_0")) as closed:
        pass
    with pytest.raises(ValueError, match="draft: the model is closed"):
        model.generate([1], draft=closed)


class TestPace:
    """The account, on costs that are given instead of measured."""

    @staticmethod
    def run(right: Any, look_s: float = 0.0, steps: int = 400) -> tuple[float, float]:
        """Seconds of drafting and of plain steps for the same tokens."""
        costs = drafts.StepCosts()
        pace = Pace(costs, prefill_s=0.0)
        rng = np.random.default_rng(1)
        spent, tokens = 0.0, 0
        for step in range(steps):
            count = 0
            if pace.solvent:
                pace.looked(look_s)
                spent += look_s
                count = pace.length(int(rng.integers(0, 5)), 15)
            accepted = right(step, count)
            seconds = 1.0 + 0.05 * count + 0.6 * (count > 7)
            pace.stepped(2, count, accepted, seconds)
            spent, tokens = spent + seconds, tokens + accepted + 1
        return spent, float(tokens)

    def test_wrong_guesses_cost_less_than_a_twentieth(self) -> None:
        drafted, plain = self.run(lambda step, count: 0, look_s=0.01)
        assert drafted < 1.05 * plain

    def test_guesses_that_turn_wrong_cost_less_than_they_gained(self) -> None:
        drafted, plain = self.run(lambda step, count: count if step % 40 < 4 else 0)
        assert drafted < 1.05 * plain

    def test_right_guesses_pay(self) -> None:
        drafted, plain = self.run(lambda step, count: count)
        assert drafted < plain / 3


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 20))
def test_lookup_finds_the_longest_and_latest_occurrence(text: list[int], limit: int) -> None:
    index = _core.Lookup(len(text))
    index.push(text[:3])
    index.push(text[3:])
    guess, length = index.guess(limit)
    best = (0, -1)
    for at in range(len(text) - 1):  # the last token of an occurrence
        agreed = 0
        while agreed <= at and agreed < 64 and text[at - agreed] == text[len(text) - 1 - agreed]:
            agreed += 1
        best = max(best, (agreed, at))
    occurrences = sum(text[i : i + 2] == text[-2:] for i in range(len(text) - 2))
    if best[0] < 2:
        assert (guess, length) == ([], 0)
    elif occurrences < 40:  # of more it looks at the latest only
        again = text[best[1] + 1 :]
        assert length == best[0]
        assert guess == [again[i % len(again)] for i in range(limit)]
