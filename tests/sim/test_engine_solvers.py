"""The exact solver against SimGrid on random worlds: the same dates, the same work left."""

import math
from dataclasses import dataclass

import pytest
from engine_child import in_child
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import _sim

HOSTS, LINKS = 3, 3
LATENCY_S = (0.0, 0.013, 0.2)


@dataclass(frozen=True)
class Start:
    """An activity: when it starts, where, how much, and what follows it."""

    kind: str
    where: int
    date_s: float
    seconds: float
    weight: float
    cancel_s: float | None
    chain: int  # so many more of the kind follow, one after the other


@st.composite
def worlds(draw):
    """Numbers that look random, so that dates do not coincide but where they must."""

    def seconds(i, most=5000):
        return draw(st.integers(0, most)) * 1e-3 * (1 + i * math.pi * 1e-3)

    starts = []
    for i in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["exec", "up", "down"]))
        starts.append(
            Start(
                kind,
                draw(st.integers(0, 2)),
                0.0 if i == 0 else seconds(2 * i + 1),
                seconds(2 * i),
                draw(st.sampled_from([1.0, 1.0, 2.0, 0.25, 3.7])) if kind == "exec" else 1.0,
                draw(st.none() | st.integers(1, 4000).map(lambda n, i=i: n * 1.9e-3 + i * 1e-5)),
                draw(st.integers(0, 3)),
            )
        )
    return starts


def play(starts, solver):
    """Dates of all ends and cancellations, and the work that was left."""
    engine = _sim.Engine(solver)
    hosts = [engine.host() for _ in range(HOSTS)]
    links = [engine.link(LATENCY_S[i], i != 1) for i in range(LINKS)]
    engine.seal()
    seen, tickets = {}, {}

    def begin(i, chain):
        def ended():
            seen[i, chain] = engine.now
            tickets.pop(i)
            if chain < one.chain:
                begin(i, chain + 1)

        one = starts[i]
        if one.kind == "exec":
            tickets[i] = engine.exec(hosts[one.where], one.seconds, one.weight, ended)
        else:
            tickets[i] = engine.transfer(links[one.where], one.kind == "up", one.seconds, ended)

    def cancel(i):
        if i in tickets:
            seen[i, "left"] = engine.remaining(tickets[i])
            assert engine.cancel(tickets.pop(i)) == seen[i, "left"]

    for i, one in enumerate(starts):
        engine.timer(one.date_s, lambda i=i: begin(i, 0))
        if one.cancel_s is not None:
            engine.timer(one.date_s + one.cancel_s, lambda i=i: cancel(i))
    engine.run()
    return seen


@settings(max_examples=150)
@given(worlds())
def test_exact_dates_are_those_of_simgrid(starts):
    exact, simgrid = play(starts, "exact"), in_child(play, starts, "simgrid")
    assert exact.keys() == simgrid.keys()
    for key, date_s in exact.items():
        assert date_s == pytest.approx(simgrid[key], rel=1e-9, abs=1e-7), key


@settings(max_examples=60)
@given(worlds())
def test_world_repeats_bit_for_bit(starts):
    assert play(starts, "exact") == play(starts, "exact")


def test_both_solvers_wake_in_the_order_of_starting_at_one_date():
    def run(solver):
        engine = _sim.Engine(solver)
        hosts = [engine.host() for _ in range(5)]
        link = engine.link(0.25, False)
        engine.seal()
        seen = []
        for i in range(5):
            engine.exec(hosts[4 - i], 1.0, 1.0, lambda i=i: seen.append((engine.now, i)))
        engine.transfer(link, True, 0.75, lambda: seen.append((engine.now, "link")))
        engine.timer(1.0, lambda: seen.append((engine.now, "timer")))
        engine.run()
        return seen

    order = [0, 1, 2, 3, 4, "link", "timer"]
    for solver in ("exact", "simgrid"):
        seen = in_child(run, solver)
        assert [name for _, name in seen] == order
        assert [date_s for date_s, _ in seen] == [pytest.approx(1.0, abs=1e-12)] * 7
    assert {date_s for date_s, _ in in_child(run, "exact")} == {1.0}


def test_simgrid_runs_once_in_a_process_and_exact_worlds_often():
    def simgrid_twice():
        first = _sim.Engine("simgrid")
        with pytest.raises(RuntimeError, match="one simulation per process"):
            _sim.Engine("simgrid")
        del first
        return True

    assert in_child(simgrid_twice)
    assert [_sim.Engine().now for _ in range(3)] == [0.0] * 3


def test_simgrid_refuses_what_it_cannot_do():
    def run():
        engine = _sim.Engine("simgrid")
        host = engine.host()
        engine.seal()
        with pytest.raises(RuntimeError, match="sealed"):
            engine.host()
        with pytest.raises(RuntimeError, match="speed"):
            engine.speed(host, 0.5)
        engine.exec(host, 1.0, 1.0, print, 1.0, 0.5)
        with pytest.raises(ValueError, match="one budget"):
            engine.exec(host, 1.0, 1.0, print, 0.5, 1.0)
        return engine.load(host)

    assert in_child(run) == (1.0, 1.0, 0.5)
