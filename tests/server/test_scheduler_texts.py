"""The scheduler: the text of each is the text alone; nobody stalls, stops or leaks because of another."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import edgellm
from edgellm._schedule import Prompt, Schedule, Text
from edgellm.generation import Request, Sampling, Token
from edgellm.scheduler import Handle, Scheduler
from tests.helpers import tiny_model

PROMPTS = ["the cat", "a", "in the of and " * 20, "on", "he is at the " * 5, "water or fire"]


def test_texts_of_a_batch_are_the_texts_alone(model: edgellm.Model) -> None:
    wishes = [
        dict(max_tokens=20 + 3 * i, temperature=0.0 if i % 3 == 0 else 2.5, seed=i, top_k=(0, 20)[i % 2])
        for i in range(30)
    ]
    with Scheduler(model, max_sessions=7, step_tokens=11) as scheduler:
        handles = []
        for i, wish in enumerate(wishes):
            rest = dict(wish)
            request = Request(max_tokens=int(rest.pop("max_tokens")), sampling=Sampling(**rest))  # type: ignore[arg-type]  # a dict of options
            handles.append(scheduler.submit(model.tokenizer.encode(PROMPTS[i % 6]), request))
        got = [handle.result(60) for handle in handles]
    for i, (done, wish) in enumerate(zip(got, wishes, strict=True)):
        alone = model.generate(PROMPTS[i % 6], **wish)  # type: ignore[arg-type]  # a dict of options
        assert (done.text, done.ids, done.finish_reason) == (alone.text, alone.ids, alone.finish_reason)


def test_tokens_come_one_by_one_and_only_once(model: edgellm.Model) -> None:
    with Scheduler(model) as scheduler:
        handle = scheduler.submit(model.tokenizer.encode("the"), Request(max_tokens=30))
        tokens = list(handle)
        assert [token.id for token in tokens if token.id is not None] == handle.result().ids
        assert "".join(token.text for token in tokens) == handle.result().text
        assert list(handle) == []
        assert handle.done
        assert 0 <= handle.queue_s <= handle.ttft_s <= handle.total_s  # type: ignore[operator]  # none is None


def test_texts_of_one_prompt_read_it_once(model: edgellm.Model) -> None:
    ids = model.tokenizer.encode("in the water of and on the " * 5)
    for prompt in (ids, ids[:1], ids[:2]):
        with Scheduler(model, step_tokens=16) as scheduler:
            requests = [
                Request(max_tokens=9, sampling=Sampling(temperature=3.0, seed=3), stream=i) for i in range(5)
            ]
            handles = scheduler.submit_many(prompt, requests)
            texts = [handle.result(60).ids for handle in handles]
            stats = scheduler.stats()
        assert texts[0] == model.generate(prompt, max_tokens=9, temperature=3.0, seed=3).ids
        assert len({tuple(text) for text in texts}) > 1
        assert stats.prompt_tokens == len(prompt) + 4  # each of the others evaluates the last token itself
        with Scheduler(model) as scheduler:
            assert [scheduler.submit(prompt, request).result(60).ids for request in requests] == texts


class Steps:
    """A schedule without a thread, and what came of it."""

    def __init__(self, model: edgellm.Model, **options: Any) -> None:
        options = {"max_sessions": 4, "max_bytes": None, "step_tokens": 16, **options}
        self.schedule = Schedule(model, **options)
        self.model = model
        self.tokens: dict[Text, list[Token]] = {}
        self.ended: list[Text] = []
        self.number = 0

    def add(self, ids: list[int], max_tokens: int = 8, count: int = 1, priority: int = 0) -> list[Text]:
        context = min(len(ids) + max_tokens, self.model.config.context)
        need = self.schedule.need_bytes(context)
        prompt = Prompt(ids, context, need, priority, self.number)
        self.number += 1
        prompt.texts = [Text(Request(max_tokens=max_tokens, stream=i), prompt, 0.0) for i in range(count)]
        self.schedule.add(prompt)
        return list(prompt.texts)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            for text, tokens in self.schedule.step():
                self.tokens.setdefault(text, []).extend(tokens)
                if text.done:
                    self.ended.append(text)

    def run(self) -> None:
        while self.schedule.busy:
            self.step()


def test_a_long_prompt_does_not_stop_a_text(model: edgellm.Model) -> None:
    steps = Steps(model)
    (writer,) = steps.add([5], max_tokens=40)
    steps.step()
    (reader,) = steps.add([7] * 200, max_tokens=4)
    before = writer.generated
    steps.step(10)
    assert writer.generated == before + 10
    assert reader.generated == 0
    assert reader.generation is not None
    assert reader.generation.prompt_left == 200 - 10 * 16  # in parts, at least 16 in each step
    steps.run()
    assert len(steps.ended) == 2


def test_every_step_reads_some_of_a_prompt(model: edgellm.Model) -> None:
    steps = Steps(model, step_tokens=1)
    steps.add([5], max_tokens=100)
    steps.add([6], max_tokens=100)
    steps.step(2)
    (reader,) = steps.add([7] * 48, max_tokens=4)
    steps.step(4)
    assert reader.generated >= 1


def test_places_go_by_priority_then_by_arrival(model: edgellm.Model) -> None:
    steps = Steps(model, max_sessions=1)
    texts = [steps.add([5], 3, priority=priority)[0] for priority in (0, 0, -1, 1, -1)]
    steps.run()
    assert steps.ended == [texts[2], texts[4], texts[0], texts[1], texts[3]]


def test_memory_decides_who_gets_a_place(model: edgellm.Model) -> None:
    steps = Steps(model)
    need = steps.schedule.need_bytes(9)
    steps = Steps(model, max_bytes=2 * need)
    texts = [steps.add([5], 8)[0] for _ in range(3)]
    steps.step()
    assert steps.schedule.held_bytes == 2 * need
    assert [text.admitted_s is not None for text in texts] == [True, True, False]
    steps.run()
    assert [text.completion is not None for text in texts] == [True] * 3
    assert steps.schedule.held_bytes == 0
    with Scheduler(model, max_bytes=need) as scheduler:
        scheduler.submit([5], Request(max_tokens=8)).result(60)
        with pytest.raises(MemoryError, match=f"positions need {need * 2} bytes, max_bytes is {need}"):
            scheduler.submit_many([5], [Request(max_tokens=8)] * 2)


def test_a_session_that_is_refused_fails_alone(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = type(model).session

    def refusing(self: edgellm.Model, context: int, kv: str | None = None) -> edgellm.Session:
        if context == 77:
            raise MemoryError("refused for this test")
        return session(self, context, kv)

    monkeypatch.setattr(type(model), "session", refusing)
    steps = Steps(model)
    (first,) = steps.add([5], 8)
    (refused,) = steps.add([5], 76)
    (after,) = steps.add([5], 8)
    steps.run()
    assert isinstance(refused.error, MemoryError)
    assert first.completion is not None
    assert after.completion is not None


@pytest.mark.parametrize("where", ["wants", "take"])
def test_a_failing_text_fails_alone(
    model: edgellm.Model, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgellm.generation import Generation

    method = getattr(Generation, where)

    def failing(self: Generation, value: Any) -> Any:
        if self.session.context == 29 and self.generated == 3:
            raise ZeroDivisionError("a defect, for this test")
        return method(self, value)

    want = model.generate([9, 8], max_tokens=12).ids
    monkeypatch.setattr(Generation, where, failing)
    with Scheduler(model) as scheduler:
        good = [scheduler.submit([9, 8], Request(max_tokens=12)) for _ in range(3)]
        bad = scheduler.submit([9], Request(max_tokens=28))
        with pytest.raises(ZeroDivisionError):
            bad.result(60)
        assert [handle.result(60).ids for handle in good] == [want] * 3
        assert scheduler.stats().session_bytes == 0


def test_a_failing_step_is_tried_one_by_one(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Schedule._eval

    def failing(self: Schedule, work: Any) -> Any:
        if any(text.prompt.ids == [9] and text.generated == 3 for text, _, _ in work):
            raise RuntimeError("a step that fails, for this test")
        return evaluate(self, work)

    monkeypatch.setattr(Schedule, "_eval", failing)
    steps = Steps(model)
    texts = [steps.add(ids, 8)[0] for ids in ([5], [9], [6, 7])]
    steps.run()
    assert isinstance(texts[1].error, RuntimeError)
    for text, ids in ((texts[0], [5]), (texts[2], [6, 7])):
        assert text.completion is not None
        assert text.completion.ids == model.generate(ids, max_tokens=8).ids


def test_cancelling_ends_within_a_step_and_frees_the_place(model: edgellm.Model) -> None:
    steps = Steps(model, max_sessions=1)
    (first,) = steps.add([5], 50)
    (second,) = steps.add([6], 3)
    (third,) = steps.add([7], 3)
    steps.step(2)
    first.cancelled = third.cancelled = steps.schedule.cancels = True
    steps.step()
    assert first.completion is not None
    assert (first.completion.finish_reason, len(first.completion.ids)) == ("cancelled", 2)
    assert third.completion is not None
    assert third.completion.ids == []
    assert second.generated == 1
    steps.run()
    assert steps.schedule.held_bytes == 0


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_cancelling_one_text_of_a_prompt_leaves_the_others(model: edgellm.Model, victim: int) -> None:
    steps = Steps(model)
    ids = [5, 6, 7] * 15
    texts = steps.add(ids, 6, count=3)
    steps.step()
    texts[victim].cancelled = steps.schedule.cancels = True
    steps.run()
    for i, text in enumerate(texts):
        assert text.completion is not None
        if i == victim:
            assert text.completion.finish_reason == "cancelled"
        else:
            assert text.completion.ids == model.generate(ids, max_tokens=6).ids
    assert steps.schedule.held_bytes == 0


def test_a_full_queue_is_an_error_that_says_when(model: edgellm.Model) -> None:
    with Scheduler(model, max_sessions=2, max_waiting=3) as scheduler:
        handles = [scheduler.submit([5], Request(max_tokens=200)) for _ in range(5)]
        with pytest.raises(edgellm.BusyError, match="busy: 5 texts") as busy:
            scheduler.submit([5])
        assert 1.0 <= busy.value.retry_after_s <= 60.0
        for handle in handles:
            handle.cancel()
        assert {handle.result(60).finish_reason for handle in handles} == {"cancelled"}
        assert scheduler.submit([5], Request(max_tokens=2)).result(60).ids


@pytest.mark.parametrize(
    ("ids", "request_", "told"),
    [
        ([], Request(), "no tokens"),
        ([10**6], Request(), "token ids"),
        ([-1], Request(), "token ids"),
        ([5], Request(max_tokens=0), "max_tokens"),
        ([5], Request(sampling=Sampling(top_p=2.0)), "top_p"),
        ([5] * 300, Request(), "do not fit in a context of 256"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_at_once(
    model: edgellm.Model, ids: list[int], request_: Request, told: str
) -> None:
    with Scheduler(model) as scheduler:
        with pytest.raises(ValueError, match=told):
            scheduler.submit(ids, request_)
        assert scheduler.stats().waiting == 0


def test_news_come_once_for_each_step(model: edgellm.Model) -> None:
    news: list[list[tuple[Handle, list[Token]]]] = []
    with Scheduler(model) as scheduler:
        handles = [scheduler.submit([5], Request(max_tokens=10), deliver=news.append) for _ in range(4)]
        for handle in handles:
            handle.result(60)
        steps = scheduler.stats().steps
    assert len(news) <= steps
    for handle in handles:
        ids = [
            t.id
            for batch in news
            for own, tokens in batch
            if own is handle
            for t in tokens
            if t.id is not None
        ]
        assert ids == handle.result().ids


def test_a_failing_receiver_harms_nobody(model: edgellm.Model) -> None:
    def broken(news: object) -> None:
        raise RuntimeError("for this test")

    with Scheduler(model) as scheduler:
        scheduler.submit([5], Request(max_tokens=5), deliver=broken)
        assert len(scheduler.submit([5], Request(max_tokens=5)).result(60).ids) == 5


def test_close_drains_or_cancels_and_joins(model: edgellm.Model) -> None:
    scheduler = Scheduler(model, max_sessions=1)
    handles = [scheduler.submit([5], Request(max_tokens=20)) for _ in range(3)]
    scheduler.close()
    assert [len(handle.result(0).ids) for handle in handles] == [20] * 3
    with pytest.raises(ValueError, match="closed"):
        scheduler.submit([5])
    scheduler.close()

    scheduler = Scheduler(model, max_sessions=1)
    handles = [scheduler.submit([5], Request(max_tokens=250)) for _ in range(3)]
    scheduler.close(drain=False)
    assert handles[2].result(0).finish_reason == "cancelled"
    assert not any(thread.name == "edgellm-scheduler" for thread in threading.enumerate())


def test_a_closed_model_ends_every_text(tmp_path: Path) -> None:
    with edgellm.load(tiny_model.write(tmp_path / "tiny.gguf")) as own, Scheduler(own) as scheduler:
        handles = [scheduler.submit([5], Request(max_tokens=250)) for _ in range(3)]
        next(iter(handles[0]))
        own.close()
        for handle in handles:
            with pytest.raises(ValueError, match="closed"):
                handle.result(60)


def test_idle_costs_no_processor_time(model: edgellm.Model) -> None:
    with Scheduler(model) as scheduler:
        scheduler.submit([5], Request(max_tokens=2)).result(60)
        steps, before = scheduler.stats().steps, time.process_time()
        time.sleep(0.2)
        assert scheduler.stats().steps == steps
        assert time.process_time() - before < 0.1


def test_a_child_process_is_told(model: edgellm.Model) -> None:
    with Scheduler(model) as scheduler:
        pid = os.fork()
        if pid == 0:
            try:
                scheduler.submit([5])
            except RuntimeError:
                scheduler.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert scheduler.submit([5], Request(max_tokens=2)).result(60).ids


def test_submissions_from_many_threads_are_all_served(model: edgellm.Model) -> None:
    want = model.generate([5, 6], max_tokens=6).ids
    found: list[list[int]] = []

    def ask() -> None:
        found.extend(scheduler.submit([5, 6], Request(max_tokens=6)).result(60).ids for _ in range(10))

    with Scheduler(model, max_sessions=5) as scheduler:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == [want] * 80
