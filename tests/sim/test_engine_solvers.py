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
RATE = (1e6, 2.5e6, 1e6, 3e6)  # of the streamed links, of which the last is everybody's trunk
WAYS = (((0, True), (3, True)), ((1, True), (3, True)), ((2, True), (3, True), (0, False)), ((3, True),))


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
        kind = draw(st.sampled_from(["exec", "up", "down", "stream", "stream"]))
        starts.append(
            Start(
                kind,
                draw(st.integers(0, 3 if kind == "stream" else 2)),
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
    streamed = [engine.link(0.01, i != 3, rate, rate) for i, rate in enumerate(RATE)]
    for way in WAYS:
        engine.route([(streamed[i], up) for i, up in way])
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
        elif one.kind == "stream":
            amount = round(one.seconds * 1e6)
            hops = [(streamed[i], up, amount / RATE[i]) for i, up in WAYS[one.where]]
            tickets[i] = engine.stream(hops, LATENCY_S[i % 3], ended)
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


def test_simgrid_idle_for_long_takes_up_at_the_right_date():
    def run(solver):
        engine = _sim.Engine(solver)
        host, link = engine.host(), engine.link(0.0, True, 1e6, 1e6)
        engine.seal()
        seen = []

        def note():
            seen.append(engine.now)

        for date_s in (0.0, 1.0, 86_400.0, 86_400.5, 1e6):
            engine.timer(date_s, lambda: engine.stream([(link, True, 1.0)], 0.25, note))
            engine.timer(date_s + 0.125, lambda: engine.exec(host, 0.125, 1.0, note))
        engine.timer(43_200.0, note)
        engine.run()
        return seen

    exact = in_child(run, "exact")
    assert exact == [
        0.25,
        1.25,
        1.25,
        2.25,
        43_200.0,
        86_400.25,
        86_400.75,
        86_401.75,
        86_402.25,
        1e6 + 0.25,
        1e6 + 1.25,
    ]
    assert in_child(run, "simgrid") == pytest.approx(exact, rel=1e-12)


def test_simgrid_refuses_what_it_cannot_do():
    def run():
        engine = _sim.Engine("simgrid")
        host = engine.host()
        one, two = (engine.link(0.0, True, 1e6, 1e6) for _ in range(2))
        with pytest.raises(ValueError, match="one rate"):
            engine.link(0.0, False, 1e6, 2e6)
        engine.seal()
        with pytest.raises(RuntimeError, match="routes that were named"):
            engine.stream([(one, True, 1.0), (two, True, 1.0)], 0.0, print)
        with pytest.raises(RuntimeError, match="sealed"):
            engine.host()
        with pytest.raises(RuntimeError, match="speed"):
            engine.speed(host, 0.5)
        engine.exec(host, 1.0, 1.0, print, 1.0, 0.5)
        with pytest.raises(ValueError, match="one budget"):
            engine.exec(host, 1.0, 1.0, print, 0.5, 1.0)
        return engine.load(host)

    assert in_child(run) == (1.0, 1.0, 0.5)
