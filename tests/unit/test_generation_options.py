"""What the options of a generation promise: probabilities, bias, stops, grammars, several texts, vectors."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgellm
from edgellm import _core
from edgellm.generation import Request, Sampling

INF = float("inf")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[edgellm.Model]:
    from tests.helpers.tiny_model import write

    with edgellm.load(write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", quant="q8_0"), threads=2) as model:
        yield model


def test_logprobs_are_those_that_score_gives(model: edgellm.Model) -> None:
    prompt = [1, 2, 3]
    bias = {5: 4.0, 7: -INF}
    done = model.generate(
        prompt, 30, temperature=1.0, seed=2, repeat_penalty=1.2, logit_bias=bias, logprobs=3
    )
    assert done.logprobs is not None
    logprob, top, _ = model.session(context=64).score(prompt + done.ids)
    assert [x.id for x in done.logprobs] == done.ids
    assert [x.logprob for x in done.logprobs] == logprob[2:].tolist()
    assert [x.top[0].id for x in done.logprobs] == top[2:].tolist()
    for x in done.logprobs:
        assert [y.logprob for y in x.top] == sorted((y.logprob for y in x.top), reverse=True)
        assert len({y.id for y in x.top}) == 3
        assert x.text == model.tokenizer.decode([x.id])


def test_logprobs_of_all_tokens_sum_to_one(model: edgellm.Model) -> None:
    vocab = model.config.vocab
    done = model.generate([1, 2, 3], 1, logprobs=vocab)
    assert done.logprobs is not None
    assert sum(np.exp(x.logprob) for x in done.logprobs[0].top) == pytest.approx(1.0, abs=1e-5)
    plain = model.generate([1, 2, 3], 1, logprobs=0)
    assert plain.logprobs is not None
    assert (plain.logprobs[0].top, plain.logprobs[0].logprob) == ((), done.logprobs[0].logprob)
    assert model.generate([1, 2, 3], 1).logprobs is None


def test_penalties_take_off_what_was_generated(model: edgellm.Model) -> None:
    prompt, presence, frequency = [1, 2, 3], 0.5, 0.25
    options: dict[str, Any] = {"presence_penalty": presence, "frequency_penalty": frequency}
    done = model.generate(prompt, 40, **options)
    session = model.session(context=64)
    logits, counts = session.eval(prompt), np.zeros(model.config.vocab)
    for token in done.ids:
        assert token == np.argmax(logits - (presence * (counts > 0) + frequency * counts).astype(np.float32))
        counts[token] += 1
        logits = session.eval([token])
    assert counts.max() < np.bincount(model.generate(prompt, 40).ids).max()
    assert model.generate(prompt, 40, draft="lookup", **options).ids == done.ids
    encouraged = model.generate(prompt, 40, presence_penalty=-1e6)
    assert len(set(encouraged.ids)) == 1


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalties_out_of_range_are_refused(model: edgellm.Model, name: str) -> None:
    for value in (float("nan"), INF, 1e7):
        with pytest.raises(ValueError, match=name):
            model.generate([1], 1, **{name: value})


def test_bias_forbids_adds_and_forces(model: edgellm.Model) -> None:
    plain = model.generate([1, 2, 3], 20, temperature=1.0, seed=4)
    banned = {i: -INF for i in set(plain.ids)}
    other = model.generate([1, 2, 3], 20, temperature=1.0, seed=4, logit_bias=banned)
    assert not set(other.ids) & set(plain.ids)
    forced = model.generate([1, 2, 3], 20, temperature=1.0, logit_bias={9: INF, 11: INF})
    assert set(forced.ids) <= {9, 11}
    assert model.generate([1, 2, 3], 5, logit_bias={9: 1e9}).ids == [9] * 5
    assert model.generate([1, 2, 3], 20, temperature=1.0, seed=4, logit_bias={9: 0.0}).ids == plain.ids
    everything = dict.fromkeys(range(model.config.vocab), -INF)
    with pytest.raises(ValueError, match="no token is allowed"):
        model.generate([1, 2, 3], 5, logit_bias=everything)


def test_bias_is_added_to_the_logit() -> None:
    logits = np.array([1.0, 2.0, 3.0, -np.inf], np.float32)

    def choose(bias: dict[int, float]) -> int:
        sampler = _core.Sampler(0.0, 0, 1.0, 0.0, 1.0, 0, 0, list(bias), tuple(bias.values()))
        return sampler.choose(logits.copy(), (), 0)

    assert choose({1: 1.5}) == 1
    assert choose({1: 0.5}) == 2
    assert choose({3: 1e30}) == 2  # what is forbidden stays so
    assert choose({3: INF}) == 2
    assert choose({0: INF, 3: INF}) == 0
    assert choose({0: 3.4e38, 1: 3.4e38}) == 0  # sums stay finite, equals rank by id
    with pytest.raises(ValueError, match="NaN"):
        choose({1: float("nan")})


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"logit_bias": {-1: 1.0}}, ValueError),
        ({"logit_bias": {10**6: 1.0}}, ValueError),
        ({"logit_bias": {1: float("nan")}}, ValueError),
        ({"logit_bias": {"1": 1.0}}, TypeError),
        ({"logprobs": -1}, ValueError),
        ({"logprobs": 10**7}, ValueError),
        ({"logprobs": 1.5}, TypeError),
        ({"draft": "magic"}, ValueError),
        ({"max_tokens": 1.5}, TypeError),
        ({"seed": -1}, ValueError),
        ({"kv": "f8"}, ValueError),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, ValueError),
        ({"grammar": 3}, TypeError),
        ({"colour": 1}, TypeError),
    ],
)
def test_bad_options_are_named(model: edgellm.Model, bad: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(bad)) if error is ValueError else None):
        next(iter(model.stream([1, 2], **bad)))


@pytest.mark.parametrize("prompt", [[], "", [10**6], [-1], [2**40]])
def test_bad_prompts_are_refused(model: edgellm.Model, prompt: Any) -> None:
    with pytest.raises(ValueError, match=r"prompt|ids"):
        model.generate(prompt, 5)


@pytest.mark.parametrize("draft", [None, "lookup"])
def test_stop_strings_reach_across_tokens(model: edgellm.Model, draft: str | None) -> None:
    for seed in range(6):
        done = model.generate([1, 2, 3], 60, temperature=1.0, seed=seed)
        for at in (3, 9):
            stop = done.text[at : at + 5]
            cut = model.generate(
                [1, 2, 3], 60, temperature=1.0, seed=seed, stop=["\0never", stop], draft=draft
            )
            assert cut.text == done.text[: done.text.index(stop)]
            assert cut.finish_reason == "stop"


class Ruled:
    """A grammar for tests: a list of ids, or a set of ids where there is a choice, then the end."""

    def __init__(self, rule: list[set[int]], ends: list[int]) -> None:
        self.rule, self.ends = rule, ends

    def matcher(self) -> RuledMatcher:
        return RuledMatcher(self, 0)


class RuledMatcher:
    """Where a text is in it."""

    def __init__(self, ruled: Ruled, at: int) -> None:
        self.ruled, self.at = ruled, at

    @property
    def finished(self) -> bool:
        return self.at == len(self.ruled.rule)

    @property
    def shortest(self) -> int:
        return len(self.ruled.rule) - self.at

    def mask(self, logits: NDArray[np.float32], tokens_left: int | None = None) -> None:
        assert tokens_left is None or tokens_left >= self.shortest
        allowed = list(self.ruled.ends if self.finished else self.ruled.rule[self.at])
        kept = logits[allowed].copy()
        logits[:] = -np.inf
        logits[allowed] = kept

    def accept(self, id: int) -> None:
        if self.finished or id not in self.ruled.rule[self.at]:
            raise ValueError(f"{id} is not allowed")
        self.at += 1

    def copy(self) -> RuledMatcher:
        return RuledMatcher(self.ruled, self.at)

    def forced(self, limit: int) -> list[int]:
        found: list[int] = []
        for options in self.ruled.rule[self.at : self.at + limit]:
            if len(options) != 1:
                break
            found += options
        return found


RULE = [{5}, {6, 7, 8}, {9}, {10}, {11}, {5, 6}, {5}, {6}, {5}, {6}, {5}, {6, 9}, {12}]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_grammar_decides_and_what_it_forces_is_not_evaluated_alone(
    model: edgellm.Model, temperature: float
) -> None:
    ruled = Ruled(RULE, model.tokenizer.end_ids)
    for seed in range(4):
        texts = [
            model.generate(
                [1, 2, 3],
                max_tokens,
                temperature=temperature,
                seed=seed,
                grammar=ruled,
                draft=draft,
                logprobs=logprobs,
            )
            for max_tokens in (13, 50)
            for draft in (None, "lookup")
            for logprobs in (None, 1)
        ]
        assert len({(tuple(done.ids), done.text) for done in texts}) == 1
        assert all(token in allowed for token, allowed in zip(texts[0].ids, RULE, strict=True))
        assert texts[-1].finish_reason == "stop"
        jumped, _ = texts[6].speculation, texts[7].speculation
        assert jumped is not None
        assert jumped.steps < 6


def test_grammar_that_does_not_fit_says_how_much_it_needs(model: edgellm.Model) -> None:
    ruled = Ruled(RULE, model.tokenizer.end_ids)
    with pytest.raises(ValueError, match="max_tokens: the grammar may need 13 tokens, room is for 12"):
        model.generate([1, 2, 3], 12, grammar=ruled)
    with pytest.raises(ValueError, match="13 tokens, room is for 8"):
        model.generate([1, 2, 3], 40, grammar=ruled, context=10)
    with pytest.raises(ValueError, match="logit_bias forbids every token that the grammar allows"):
        model.generate([1, 2, 3], 40, grammar=ruled, logit_bias={11: -INF})
    forced_by_bias = model.generate([1, 2, 3], 40, grammar=ruled, logit_bias={8: INF, 250: INF})
    assert forced_by_bias.ids[:2] == [5, 8]


def test_grammar_of_another_vocabulary_is_refused(model: edgellm.Model) -> None:
    letters = edgellm.Tokenizer([*"abc", "<end>"], [1, 1, 1, 3], [], "gpt-2", eos=3)
    strange = edgellm.grammar.from_gbnf(letters, 'root ::= "a"+')
    with pytest.raises(ValueError, match="grammar: it was compiled for another vocabulary"):
        model.generate([1, 2], 9, grammar=strange)


def test_completions_are_those_of_their_streams(model: edgellm.Model) -> None:
    prompt = [1, 2, 3] * 5
    options: dict[str, Any] = {"temperature": 1.0, "seed": 5, "logprobs": 1, "draft": "lookup"}
    three = model.completions(prompt, 3, max_tokens=30, **options)
    assert three[0].ids == model.generate(prompt, 30, **options).ids
    assert [x.ids for x in model.completions(prompt, 2, max_tokens=30, **options)] == [
        x.ids for x in three[:2]
    ]
    assert len({tuple(x.ids) for x in three}) == 3
    assert all(x.logprobs is not None and len(x.logprobs) == len(x.ids) for x in three)
    assert model.completions([1], 1, max_tokens=4)[0].ids == model.generate([1], 4).ids
    with pytest.raises(ValueError, match="n must be"):
        model.completions(prompt, 0)


def test_tokens_of_a_stream_are_the_completion(model: edgellm.Model) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "seed": 3, "logprobs": 2, "stop": "\0never"}
    done = model.generate([1, 2, 3], 40, **options)
    tokens = list(model.stream_tokens([1, 2, 3], 40, **options))
    assert "".join(t.text for t in tokens) == done.text
    assert [t.id for t in tokens if t.id is not None] == done.ids
    assert done.logprobs is not None
    assert [t.logprob for t in tokens if t.id is not None] == [x.logprob for x in done.logprobs]
    assert all(t.id is not None for t in tokens[:-1])


def test_closed_stream_lets_go_of_its_session(model: edgellm.Model) -> None:
    def sessions() -> int:
        gc.collect()
        return sum(isinstance(o, edgellm.Session) for o in gc.get_objects())

    before = sessions()
    steps = model.stream([1, 2, 3], 400, temperature=1.0)
    next(steps)
    assert sessions() == before + 1
    steps.close()  # type: ignore[attr-defined]  # it is a generator
    assert sessions() == before


def test_threads_generate_with_one_model(model: edgellm.Model) -> None:
    want = [model.generate([1, 2, seed], 30, temperature=1.0, seed=seed).ids for seed in range(6)]
    got: dict[int, list[int]] = {}

    def work(seed: int) -> None:
        got[seed] = model.generate([1, 2, seed], 30, temperature=1.0, seed=seed, draft="lookup").ids

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[seed] for seed in range(6)] == want


def test_vectors_are_pooled_hidden_states(model: edgellm.Model) -> None:
    rng = np.random.default_rng(1)
    lengths = (1, 5, 140, *range(2, 22), 256, 3)  # more than are evaluated together, and a long one
    texts = [rng.integers(0, model.config.vocab, n).tolist() for n in lengths]
    means = model.embed(texts, normalize=False)
    lasts = model.embed(texts, pooling="last", normalize=False)
    assert means.dtype == np.float32
    for ids, mean, last in zip(texts, means, lasts, strict=True):
        hidden = model.session(context=256)._core.hidden(ids)
        assert np.array_equal(last, hidden[-1])
        np.testing.assert_allclose(mean, hidden.astype(np.float64).mean(axis=0), rtol=1e-6)
    unit = model.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(unit.astype(np.float64), axis=1), 1.0, rtol=1e-6)
    for i in range(3):
        assert np.array_equal(model.embed([texts[i]])[0], unit[i])
    assert np.array_equal(model.embed("some text"), model.embed(["some text"]))
    assert model.embed([]).shape == (0, model.config.width)
    with pytest.raises(ValueError, match=r"texts\[1\] has no tokens"):
        model.embed(["a", ""])
    with pytest.raises(ValueError, match="pooling"):
        model.embed(["a"], pooling="max")
    with pytest.raises(edgellm.ContextError, match=r"texts\[0\] has"):
        model.embed([[1] * (model.config.context + 1)])


def test_request_is_checked_where_it_is_used(model: edgellm.Model) -> None:
    for bad in (
        Request(max_tokens=0),
        Request(sampling=Sampling(temperature=float("nan"))),
        Request(stop=("",)),
        Request(logit_bias=((10**6, 1.0),)),
    ):
        with pytest.raises(ValueError, match=r"max_tokens|temperature|stop|logit_bias"):
            bad.check(model)


@pytest.mark.parametrize("kv", ["f16", "f32", "q8_0"])
def test_cached_beginning_gives_the_same_text(model: edgellm.Model, kv: str) -> None:
    prompt = np.random.default_rng(4).integers(0, model.config.vocab, 150).tolist()
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 1.0, "seed": 1, "kv": kv}
    want = model.generate(prompt, **options)
    with edgellm.PrefixCache(model, max_bytes=10_000_000, kv=kv) as cache:
        assert model.generate(prompt, cache=cache, **options).ids == want.ids
        assert (cache.hits, cache.misses) == (0, 1)
        assert model.generate(prompt, cache=cache, draft="lookup", **options).ids == want.ids
        assert cache.hits == 1
        assert [x.ids for x in model.completions(prompt, 2, cache=cache, **options)] == [
            x.ids for x in model.completions(prompt, 2, **options)
        ]
        further = prompt + want.ids + [1, 2]  # the text is known too
        with model.session(context=256, kv=kv) as session:
            assert cache.load(session, further) == 128


def test_shifting_context_lets_the_text_go_on(model: edgellm.Model) -> None:
    for seed in range(3):
        options: dict[str, Any] = {"max_tokens": 90, "temperature": 1.0, "seed": seed, "context": 32}
        short = model.generate([1, 2, 3], **options)
        long = model.generate([1, 2, 3], overflow="shift", **options)
        assert long.ids[: len(short.ids)] == short.ids
        if short.finish_reason == "length":
            assert len(long.ids) > len(short.ids)
        assert model.generate([1, 2, 3], overflow="shift", draft="lookup", **options).ids == long.ids
    with pytest.raises(ValueError, match="overflow"):
        model.generate([1, 2, 3], overflow="wrap")  # type: ignore[arg-type]  # the point of the test


def test_sessions_are_closed_at_the_end(model: edgellm.Model) -> None:
    before = model.live_bytes
    model.generate([1, 2, 3], 5, draft=model)
    model.completions([1, 2, 3], 3, max_tokens=5)
    with pytest.raises(ValueError, match="no token is allowed"):
        model.generate([1, 2, 3], 5, logit_bias=dict.fromkeys(range(model.config.vocab), -INF))
    assert model.live_bytes == before
