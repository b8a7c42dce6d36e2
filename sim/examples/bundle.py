"""A periodic job: requests that can wait are sent together."""

from __future__ import annotations

from typing import Any, NamedTuple

from edgellm import sim


class _Answers(NamedTuple):
    answers: list[Any]
    nbytes: int
    data_class: str = "text"


class Bundle(sim.Strategy):
    """Devices keep their requests and send them together every `period_s`, to spare radio and battery.

    One message for many requests pays the link's latency and its smallest transfer once. A device whose
    battery is below `reserve_j` waits for better days.

    Parameters
    ----------
    period_s : float
        Time between two messages.
    to : str
        Role, site or name of the node that answers.
    reserve_j : float
        Charge below which nothing is sent.
    """

    def __init__(self, period_s: float = 600.0, to: str = "gateway", reserve_j: float = 0.0) -> None:
        self.period_s, self.to, self.reserve_j = period_s, to, reserve_j

    def setup(self, fleet: Any) -> None:
        for here in fleet:
            here.provide("bundle", self.answer)
            here.spawn(self.sync(here), daemon=True)

    def handle(self, req: Any, here: Any) -> Any:
        answered = sim.Event(f"answer to request {req.id}")
        here.inbox("later").put((req, answered))
        answer = yield answered
        if answer is None:
            req.reject("bundle lost")
        else:
            req.finish(answer, model=answer.model)

    def sync(self, here: Any) -> Any:
        clock, later = sim.every(self.period_s, first_s=self.period_s), here.inbox("later")
        while True:
            yield clock
            if not len(later) or here.battery_j < self.reserve_j:
                continue
            bundle = later.take_all()
            reqs = [req for req, _ in bundle]
            try:
                call = here.call(self.to, "bundle", reqs, sum(r.nbytes for r in reqs), data_class="text")
                answers = (yield call).answers
            except sim.Interrupted:
                answers = [None] * len(bundle)
            for (_, answered), answer in zip(bundle, answers, strict=True):
                answered.set(answer)

    def answer(self, reqs: list[Any], here: Any) -> Any:
        answers = []
        for req in reqs:
            yield here.run(sim.Prefill(req.model, req.prompt_tokens), charge=[req])
            yield here.run(sim.Decode(req.model, req.output_tokens, req.prompt_tokens), charge=[req])
            answers.append(sim.Answer(req.model, here.name, req.output_tokens, req.answer_bytes))
        return _Answers(answers, sum(req.answer_bytes for req in reqs))
