"""Conversations as they are drawn: turns, histories, thinking, ids, and what is keyed by what."""

from dataclasses import replace

import numpy as np
import pytest

from edgellm import cost
from edgellm.sim.fleet import Fleet, Node
from edgellm.sim.workload import (
    Conversation,
    Exponential,
    Fixed,
    FixedTime,
    Kind,
    LogNormal,
    LogNormalTime,
    Poisson,
    Stream,
    Trace,
    TraceRow,
    Uniform,
    Workload,
)

PI = cost.load_device("raspberry-pi-5")
FLEET = Fleet(tuple(Node(f"home{i}/device", "home", "device", i, PI, key="device") for i in range(5)), ())
KIND = Kind("chat", 1.0, "m", LogNormal(20.0, 0.5), Uniform(5, 50), prefix_tokens=30)
TALK = Conversation(Uniform(1, 6), Exponential(20.0), context_tokens=10_000)


def requests(*streams, seed=1, duration_s=3600.0):
    return Workload(streams).requests(FLEET, duration_s, np.random.default_rng(seed))


def stream(name="s", **more):
    return Stream(name, "home", "device", Poisson(0.005), (KIND,), **more)


def test_a_turn_repeats_what_was_said_before():
    table = requests(stream(conversation=TALK))
    talks = {}
    for spec in table:
        talks.setdefault(spec.conversation, []).append(spec)
    assert len(talks) == table.conversations
    assert {len(talk) for talk in talks.values()} == {1, 2, 3, 4, 5, 6}
    for talk in talks.values():
        said = 0
        for k, spec in enumerate(talk):
            assert (spec.turn, spec.context_tokens) == (k, said)
            new = spec.prompt_tokens - 30 - said
            assert new >= 1
            assert spec.prompt_bytes == np.ceil(said * 4.0) + np.ceil(new * 4.0)
            assert np.isnan(spec.arrival_s) == (k > 0)
            said += new + spec.output_tokens


def test_history_is_kept_as_far_back_as_asked():
    table = requests(stream(conversation=replace(TALK, context_tokens=64)))
    assert max(spec.context_tokens for spec in table) == 64
    assert all(s.context_tokens == 0 for s in requests(stream(conversation=replace(TALK, context_tokens=0))))


def test_conversations_come_in_order_and_their_turns_follow_each_other():
    table = requests(stream("a", conversation=TALK), stream("b"))
    opening = [spec.arrival_s for spec in table.openings()]
    assert opening == sorted(opening)
    assert [spec.conversation for spec in table.openings()] == list(range(table.conversations))
    for row, spec in enumerate(table):
        after = table.next_turn(row)
        if after is not None:
            assert (table[after].conversation, table[after].turn) == (spec.conversation, spec.turn + 1)
            assert table.think_s(after) > 0.0


def test_ids_leave_room_for_attempts():
    table = requests(stream("a", conversation=Conversation(retries=2)), stream("b"))
    ids = [spec.id for spec in table]
    rows = [spec.row >= 0 for spec in table]
    assert all(later - at == (3 if may else 1) for at, later, may in zip(ids, ids[1:], rows, strict=False))


def test_random_streams_are_keyed_by_stream_and_purpose():
    plain = [(s.arrival_s, s.node, s.prompt_tokens, s.output_tokens) for s in requests(stream("a"))]
    with_users = requests(stream("a", conversation=Conversation(patience=Exponential(9.0), retries=3)))
    assert plain == [(s.arrival_s, s.node, s.prompt_tokens, s.output_tokens) for s in with_users]
    beside = requests(stream("b", conversation=TALK), stream("a"))
    kept = [s for s in beside if s.row < 0]
    assert plain == [(s.arrival_s, s.node, s.prompt_tokens, s.output_tokens) for s in kept]
    longer = requests(stream("a", conversation=TALK))
    assert [row[0] for row in plain] == [s.arrival_s for s in longer.openings()]


def test_a_backlog_waits_at_every_node_when_the_run_begins():
    table = requests(stream(backlog=3))
    at_once = [s.node for s in table if s.arrival_s == 0.0]
    assert sorted(at_once) == sorted(f"home{i}/device" for i in range(5) for _ in range(3))
    plain = [(s.arrival_s, s.node) for s in requests(stream())]
    assert [(s.arrival_s, s.node) for s in table][15:] == plain


def test_a_trace_begins_conversations():
    rows = (TraceRow(5.0, "home3/device", prompt_tokens=7, output_tokens=9), TraceRow(2.0))
    told = Stream("s", "home", "device", Trace(rows), (KIND,), replace(TALK, turns=Fixed(3)))
    table = requests(told)
    assert [s.turn for s in table] == [0, 1, 2, 0, 1, 2]
    second = table[3:]
    assert {s.node for s in second} == {"home3/device"}
    assert (second[0].prompt_tokens, second[0].output_tokens) == (37, 9)
    assert second[1].context_tokens == 16


@pytest.mark.parametrize(
    ("times", "mean"),
    [(FixedTime(3.0), 3.0), (Exponential(3.0), 3.0), (LogNormalTime(2.0, 0.5), 2.0 * np.exp(0.125))],
)
def test_times_have_their_mean(times, mean):
    drawn = times.sample(np.random.default_rng(1), 100_000)
    assert drawn.min() >= 0.0
    assert drawn.mean() == pytest.approx(mean, rel=0.02)


def test_expected_counts_turns_and_backlog():
    workload = Workload((stream(conversation=replace(TALK, turns=Fixed(4)), backlog=2),))
    assert workload.expected(FLEET, 1000.0)["s"] == pytest.approx((0.005 * 1000 * 5 + 10) * 4)


def test_a_million_requests_are_columns_not_objects():
    import tracemalloc

    many = Stream("s", "home", "device", Poisson(2.0), (replace(KIND, prompt_tokens=Fixed(9)),))
    tracemalloc.start()
    table = requests(many, duration_s=20_000.0)
    assert len(table) > 190_000
    count = sum(1 for _ in table.openings())
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == len(table)
    assert kept / len(table) <= 150  # bytes of a request
