"""Users who ask on, leave and try again: closed turns, patience, retries, and what is counted for them."""

import math

import numpy as np
import pytest
from engine_world import SMALL, World, device, fleet, in_child, log_of

from edgellm import sim
from edgellm.sim import Decode
from edgellm.sim._build_initial import Initial
from edgellm.sim.engine.run import RunTask
from edgellm.sim.metrics import SloLimits, reasons, request_metrics
from edgellm.sim.workload import (
    Conversation,
    Exponential,
    Fixed,
    FixedTime,
    Kind,
    Poisson,
    Stream,
    Trace,
    TraceRow,
    Workload,
)

KIND = Kind("chat", 1.0, SMALL, Fixed(10), Fixed(5))


def users(conversation, *dates_s, kind=KIND, backlog=0):
    rows = tuple(TraceRow(date_s, "home/device0") for date_s in dates_s or (0.0,))
    return Workload((Stream("s", "home", "device", Trace(rows), (kind,), conversation, backlog),))


def run(strategy, workload, seed=1, **world):
    nodes = world.pop("nodes", None) or fleet()
    keyed = tuple(
        type(n)(n.name, n.site, n.role, n.index, n.device, n.models, n.parent, n.instance, n.role)
        for n in nodes.nodes
    )
    nodes = type(nodes)(keyed, nodes.links)
    scenario = World(fleet=nodes, workload=workload, **world)
    return in_child(RunTask(scenario, strategy, seed, {}))


class Slow(sim.Strategy):
    """Answers after a second of sleep."""

    def __init__(self, seconds=1.0):
        self.seconds = seconds

    def handle(self, req, here):
        yield sim.sleep(self.seconds)
        req.finish(model=req.model)


class Fails(sim.Strategy):
    """Fails as often as told, then answers."""

    def __init__(self, times):
        self.times, self.seen = times, 0

    def handle(self, req, here):
        self.seen += 1
        print(f"[{here.now}, {self.seen}]")
        yield sim.sleep(1.0)
        if self.seen <= self.times:
            req.reject("not now")
        else:
            req.finish(model=req.model)


def test_the_next_turn_comes_when_the_answer_has_been_read():
    talk = Conversation(turns=Fixed(4), think_time=FixedTime(10.0))
    columns = run(Slow(), users(talk)).requests
    assert columns["arrival_s"].tolist() == [0.0, 11.0, 22.0, 33.0]
    assert columns["turn"].tolist() == [0, 1, 2, 3]
    assert columns["conversation"].tolist() == [0] * 4
    assert columns["e2e_s"] == pytest.approx([1.0] * 4)


def test_a_turn_that_would_come_after_the_period_does_not():
    talk = Conversation(turns=Fixed(50), think_time=FixedTime(10.0))
    columns = run(Slow(), users(talk)).requests
    assert columns["arrival_s"].max() == 99.0
    assert len(columns["id"]) == 10


def test_a_conversation_ends_with_a_request_that_is_not_served():
    talk = Conversation(turns=Fixed(4), think_time=FixedTime(10.0))
    columns = run(Fails(1), users(talk)).requests
    assert list(columns["status"]) == ["rejected"]


def test_the_same_turn_has_the_same_id_and_lengths_under_every_strategy():
    talk = Conversation(turns=Fixed(3), think_time=Exponential(10.0), context_tokens=1000)
    quick, slow = (run(Slow(s), users(talk, 0.0, 3.0)).requests for s in (0.1, 2.0))
    for name in ("id", "conversation", "turn", "prompt_tokens", "output_tokens"):
        assert quick[name].tolist() == slow[name].tolist()
    thought = [r["arrival_s"][1:3] - (r["arrival_s"] + r["e2e_s"])[0:2] for r in (quick, slow)]
    assert thought[0] == pytest.approx(thought[1])


def test_a_user_without_patience_leaves_and_the_work_stops():
    class Works(sim.Strategy):
        def handle(self, req, here):
            try:
                yield here.run(Decode(SMALL, 100))
            except sim.Cancelled as error:
                print(f"[{here.now}, {error.done.tokens}]")
                req.reject("was cancelled")  # nobody is there to hear it
                raise
            req.finish(model=SMALL)

    result = run(Works(), users(Conversation(patience=FixedTime(3.0))))
    columns = result.requests
    assert (list(columns["status"]), list(columns["reason"])) == (["failed"], ["abandoned"])
    assert math.isinf(columns["e2e_s"][0])
    assert log_of(result)[0][0] == 3.0
    busy_s = result.nodes["busy_s"][result.nodes["node"].index("home/device0")]
    assert busy_s == pytest.approx(3.0)  # of 10
    assert columns["energy_j"][0] == pytest.approx(3.0 * 3.0)  # it is still charged for


def test_an_answer_that_comes_to_late_changes_nothing():
    class Stubborn(sim.Strategy):
        def handle(self, req, here):
            try:
                yield sim.sleep(9.0)
            except sim.Cancelled:
                yield sim.sleep(9.0)
            req.finish(model=req.model)

    columns = run(Stubborn(), users(Conversation(patience=FixedTime(3.0)))).requests
    assert list(columns["reason"]) == ["abandoned"]


def test_who_waits_for_a_first_token_stays_when_it_has_come():
    for until, status in (("answer", "failed"), ("first token", "ok")):
        patient = Conversation(patience=FixedTime(0.3), until=until)
        columns = run(sim.strategy.Local(), users(patient)).requests  # 0.1 s prefill, 0.5 s decode
        assert list(columns["status"]) == [status]


def test_a_retried_request_counts_once_from_when_it_was_meant_to_arrive():
    result = run(Fails(2), users(Conversation(retries=3, backoff_s=4.0)))
    columns = result.requests
    assert list(columns["status"]) == ["retried", "retried", "ok"]
    assert list(columns["reason"]) == ["not now", "not now", ""]
    assert columns["attempt"].tolist() == [0, 1, 2]
    assert columns["id"].tolist() == [0, 1, 2]
    assert columns["arrival_s"].tolist() == [0.0] * 3
    begun = [date_s for date_s, _ in log_of(result)]
    first, second = begun[1] - 1.0, begun[2] - begun[1] - 1.0
    assert 2.0 <= first <= 6.0
    assert 4.0 <= second <= 12.0  # twice as long, with jitter of a half
    assert columns["e2e_s"][2] == pytest.approx(begun[2] + 1.0)
    figures = request_metrics(columns, SloLimits(), 100.0)
    assert (figures["requests"], figures["served_share"], figures["attempts_per_request"]) == (1, 1, 3)
    assert figures["e2e_p50_s"] == figures["e2e_p99_s"] == columns["e2e_s"][2]
    assert reasons(columns) == {}


def test_the_last_attempt_is_the_outcome():
    columns = run(Fails(9), users(Conversation(retries=2, backoff_s=1.0))).requests
    assert list(columns["status"]) == ["retried", "retried", "rejected"]
    figures = request_metrics(columns, SloLimits(), 100.0)
    assert (figures["requests"], figures["served_share"]) == (1, 0)
    assert figures["e2e_p50_s"] == math.inf
    assert reasons(columns) == {"not now": 1}


def test_nobody_tries_again_after_the_deadline_or_out_of_patience():
    late = Kind("chat", 1.0, SMALL, Fixed(10), Fixed(5), deadline_s=3.0)
    for workload in (
        users(Conversation(retries=5, backoff_s=10.0), kind=late),
        users(Conversation(retries=5, backoff_s=10.0, patience=FixedTime(3.0))),
    ):
        assert list(run(Fails(9), workload).requests["status"]) == ["rejected"]


def test_a_retry_that_the_end_cuts_off_is_a_request_that_was_not_finished():
    columns = run(Fails(9), users(Conversation(retries=1, backoff_s=1e6))).requests
    assert list(columns["status"]) == ["retried", "unfinished"]
    assert "ended" in columns["reason"][1]


@pytest.mark.parametrize("seed", range(6))
def test_every_arrival_has_one_outcome_whatever_users_do(seed):
    class Moody(sim.Strategy):
        def handle(self, req, here):
            draw = here.rng.random()
            yield here.run(Decode(SMALL, 1 + int(20 * draw)))
            if draw < 0.3:
                req.reject("moody")
            elif draw < 0.9:
                req.finish(model=req.model)

    behaviour = Conversation(
        turns=Fixed(4),
        think_time=Exponential(3.0),
        patience=Exponential(6.0),
        retries=2,
        backoff_s=1.0,
        context_tokens=50,
    )
    workload = Workload((Stream("s", "home", "device", Poisson(0.3), (KIND,), behaviour),))
    columns = run(Moody(), workload, seed).requests
    assert len(columns["id"]) > 20
    keys = list(zip(columns["conversation"], columns["turn"], strict=True))
    status = list(columns["status"])
    last = {key: s for key, s in zip(keys, status, strict=True) if s != "retried"}
    assert len(last) == len(set(keys)) == sum(s != "retried" for s in status)
    assert len(set(columns["id"].tolist())) == len(keys)
    tries = np.array(status) == "retried"
    assert sum(columns["attempt"] > 0) == tries.sum()
    ends = {key: i for i, key in enumerate(keys)}
    for (talk, turn), i in ends.items():
        if turn > 0:
            before = ends[talk, turn - 1]
            assert status[before] == "ok"
            assert columns["arrival_s"][i] >= columns["arrival_s"][before] + columns["e2e_s"][before]


def test_declared_memory_charge_and_queue_are_there_when_the_run_begins():
    nodes = fleet(device(battery_j=100.0))
    cold = {"home/device": Initial(resident=(), charge=0.25)}
    warm, empty = (run(sim.strategy.Local(), users(None), nodes=nodes, initial=i) for i in ({}, cold))
    assert empty.requests["e2e_s"][0] == pytest.approx(warm.requests["e2e_s"][0] + 2.0)  # reading weights
    at = warm.nodes["node"].index("home/device1")  # idles at 2 W: 100 J last 50 s, 25 J last 12.5 s
    assert (warm.nodes["down_s"][at], empty.nodes["down_s"][at]) == pytest.approx((50.0, 12.5))


def test_a_backlog_is_served_from_the_beginning():
    columns = run(Slow(), users(None, 5.0, backlog=2)).requests
    assert columns["arrival_s"].tolist() == [0.0] * 4 + [5.0]
