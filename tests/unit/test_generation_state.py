"""The state machine of one text: whoever drives it, in whatever steps and company, the text is the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import edgellm
from edgellm import _core
from edgellm.generation import Completion, Generation, Request, Sampling


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[edgellm.Model]:
    from tests.helpers.tiny_model import write

    with edgellm.load(write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", quant="q8_0"), threads=2) as model:
        yield model


def drive(model: edgellm.Model, generations: list[Generation], limit: int) -> list[Completion]:
    """All of them together, at most `limit` tokens of each in a step."""
    while running := [g for g in generations if not g.done]:
        wanted = [g.wants(limit) for g in running]
        members = tuple(g.session._core for g in running)
        got = _core.batch_eval(
            model._core, members, tuple(ids for ids, _ in wanted), tuple(rows for _, rows in wanted)
        )
        for generation, logits in zip(running, got, strict=True):
            generation.take(logits)
    return [g.result() for g in generations]


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_generations_in_a_batch_give_the_text_of_each_alone(model: edgellm.Model, limit: int) -> None:
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, model.config.vocab, n).tolist() for n in (1, 7, 40)]
    requests = [
        Request(20, Sampling(temperature=t, repeat_penalty=p, seed=s))
        for t, p, s in ((0.0, 1.0, 0), (1.0, 1.3, 4), (0.7, 1.0, 9))
    ]
    alone = [
        model.generate(
            ids,
            20,
            temperature=r.sampling.temperature,
            repeat_penalty=r.sampling.repeat_penalty,
            seed=r.sampling.seed,
        )
        for ids, r in zip(prompts, requests, strict=True)
    ]
    together = [
        Generation(model, ids, r, model.session(context=64)) for ids, r in zip(prompts, requests, strict=True)
    ]
    for one, other in zip(alone, drive(model, together, limit), strict=True):
        assert (one.text, one.ids, one.finish_reason) == (other.text, other.ids, other.finish_reason)


def test_generation_goes_on_from_what_the_session_holds(model: edgellm.Model) -> None:
    ids = [5, 9, 2, 7, 7, 1]
    session = model.session(context=64)
    session.eval(ids[:4])
    warm = Generation(model, ids, Request(12), session)
    assert warm.wants(100) == ([7, 1], 1)
    assert drive(model, [warm], 100)[0].ids == model.generate(ids, 12).ids
    with pytest.raises(ValueError, match="the session holds"):
        Generation(model, ids, Request(12), session)


def test_cancelled_generation_wants_nothing_and_keeps_its_text(model: edgellm.Model) -> None:
    generation = Generation(model, [1, 2, 3], Request(50), model.session(context=64))
    for _ in range(5):
        ids, _ = generation.wants(8)
        generation.take(generation.session.eval(ids)[None])
    generation.cancel()
    done = generation.result()
    assert generation.done
    assert generation.wants(8) == ([], 0)
    assert (len(done.ids), done.finish_reason) == (5, "cancelled")
    assert done.ids == model.generate([1, 2, 3], 5).ids


def test_rows_of_a_batch_are_those_of_the_last_tokens(model: edgellm.Model) -> None:
    ids = [[3] * 140, [4] * 150, [5]]
    rows = (20, 0, 1)
    sessions = [model.session(context=200) for _ in ids]
    got = _core.batch_eval(model._core, tuple(s._core for s in sessions), tuple(ids), rows)
    assert got[1] is None
    for own, wanted, logits in ((ids[0], 20, got[0]), (ids[2], 1, got[2])):
        assert logits is not None
        assert np.array_equal(logits, model.session(context=200).eval(own, logits="all")[-wanted:])
    for bad in ((2, 1, 2), (-1, 1, 1), (1, 1)):
        with pytest.raises(ValueError, match="rows"):
            _core.batch_eval(model._core, tuple(s._core for s in sessions), ([1], [1], [1]), bad)
