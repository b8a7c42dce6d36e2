"""How activities share a host or a link: cases that a person can work out, and limits."""

import gc
import itertools
import math
import resource
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm import _sim


class World:
    """One exact engine with a host and a log of (name, date)."""

    def __init__(self):
        self.engine = _sim.Engine()
        self.host = self.engine.host()
        self.engine.seal()
        self.ends = {}

    def exec(self, name, work_s, weight=1.0, compute=1.0, memory=1.0):
        return self.engine.exec(self.host, work_s, weight, lambda: self.end(name), compute, memory)

    def end(self, name):
        self.ends[name] = self.engine.now

    def at(self, date_s, call):
        self.engine.timer(date_s, call)

    def run(self):
        self.engine.run()
        return self.ends


def test_flows_share_equally_and_the_rest_goes_to_who_stays():
    world = World()
    world.exec("short", 1.0)
    world.exec("long", 3.0)
    world.at(1.0, lambda: world.exec("late", 1.0))
    # 0-1: halves (0.5 and 0.5 done); 1-2.5: thirds (short ends), then late 0.5 and long 2.0 left, in halves
    assert world.run() == {"short": 2.5, "late": 3.5, "long": 5.0}


def test_weights_share_in_proportion():
    world = World()
    world.exec("three", 3.0, weight=3.0)
    world.exec("one", 2.0, weight=1.0)
    assert world.run() == {"three": 4.0, "one": 5.0}


def test_cancel_gives_the_capacity_to_the_others_and_says_what_was_left():
    world = World()
    world.exec("stays", 2.0)
    goes, left = world.exec("goes", 2.0), []
    world.at(1.0, lambda: left.append(world.engine.cancel(goes)))
    assert world.run() == {"stays": 2.5}
    assert left == [1.5]
    assert world.engine.cancel(goes) == world.engine.remaining(goes) == 0.0


def test_speed_changes_what_runs_and_what_is_left_stays_work():
    world = World()
    one, left = world.exec("one", 2.0), []
    world.at(1.0, lambda: world.engine.speed(world.host, 0.25))
    world.at(2.0, lambda: left.append(world.engine.remaining(one)))
    world.at(3.0, lambda: world.engine.speed(world.host, 2.0))
    assert world.run() == {"one": 3.25}
    assert left == [0.75]


def test_two_budgets_let_different_work_run_together():
    world = World()
    world.exec("reads", 4.0, compute=0.25, memory=1.0)
    assert world.engine.load(world.host) == (1.0, 0.25, 1.0)
    world.exec("computes", 4.0, compute=1.0, memory=0.25)
    assert world.engine.load(world.host) == (1.6, 1.0, 1.0)  # both at 1 / 1.25
    assert world.run() == {"reads": 5.0, "computes": 5.0}


def test_work_that_fits_beside_another_slows_nobody():
    world = World()
    world.exec("reads", 2.0, compute=0.4, memory=0.9)
    world.exec("computes", 3.0, compute=0.6, memory=0.1)
    assert world.run() == {"reads": 2.0, "computes": 3.0}


def test_budget_left_by_one_is_used_by_who_needs_no_other():
    world = World()
    for name in ("a", "b"):
        world.exec(name, 1.0, compute=1.0, memory=0.0)
    world.exec("memory", 1.0, compute=0.0, memory=0.8)
    world.exec("both", 1.0, compute=0.5, memory=0.5)
    # compute fills at x = 0.4; memory then has 0.8 left: exactly one pace of "memory"
    assert world.engine.load(world.host) == (pytest.approx(2.2), pytest.approx(1.0), pytest.approx(1.0))
    ends = world.run()
    assert ends["memory"] == pytest.approx(1.0)
    assert [ends[name] for name in ("a", "b", "both")] == [pytest.approx(2.5)] * 3


def fair_paces(shares):
    """Weighted max-min over two budgets and a pace of 1, by bisection of each level in turn."""
    paces, rising = [0.0] * len(shares), set(range(len(shares)))

    def use(x, budget):
        return math.fsum(
            shares[i][budget] * (min(1.0, x * shares[i][0]) if i in rising else paces[i])
            for i in range(len(shares))
        )

    while rising:
        low, high = 0.0, 1.0 / min(shares[i][0] for i in rising)
        for _ in range(200):
            middle = (low + high) / 2
            if max(use(middle, 1), use(middle, 2)) <= 1.0:
                low = middle
            else:
                high = middle
        full = [b for b in (1, 2) if use(low * (1 + 1e-9), b) > 1.0]
        held = {i for i in rising if any(shares[i][b] > 0 for b in full)} or set(rising)
        for i in held:
            paces[i] = min(1.0, low * shares[i][0])
        rising -= held
    return paces


part = st.integers(0, 8).map(lambda n: n / 8)
share = st.tuples(st.sampled_from([0.5, 1.0, 2.0, 3.0]), part, part).filter(lambda s: s[1] + s[2] > 0)


@given(st.lists(share, min_size=1, max_size=7))
def test_paces_of_two_budgets_are_max_min_fair(shares):
    world = World()
    for i, (weight, compute, memory) in enumerate(shares):
        world.exec(i, 1.0, weight, compute, memory)
    paces = fair_paces(shares)
    load = [sum(p * s for p, s in zip(paces, column, strict=True)) for column in zip(*shares, strict=True)]
    got = world.engine.load(world.host)
    assert got == (pytest.approx(sum(paces), rel=1e-6), pytest.approx(load[1]), pytest.approx(load[2]))
    ends = world.run()
    assert min(ends.values()) == pytest.approx(1.0 / max(paces), rel=1e-6)


@given(st.lists(st.tuples(share, st.floats(0.01, 3), st.floats(0, 3)), min_size=1, max_size=10))
def test_budgets_are_never_exceeded_and_work_is_conserved(jobs):
    world = World()
    done = {}

    def begin(i):
        (weight, compute, memory), work_s, _ = jobs[i]
        world.exec(i, work_s, weight, compute, memory)
        check()

    def check():
        now = world.engine.now
        if done:
            last, load = done["now"], done["load"]
            done["work"] = done.get("work", 0.0) + (now - last) * load[0]
        done["now"], done["load"] = now, world.engine.load(world.host)
        assert max(done["load"][1:]) <= 1.0 + 1e-9

    class Ends(dict):
        def __setitem__(self, name, date_s):
            check()
            super().__setitem__(name, date_s)

    world.ends = Ends()
    for i, (_, _, start_s) in enumerate(jobs):
        world.at(start_s, lambda i=i: begin(i))
    world.run()
    assert done["work"] == pytest.approx(sum(work_s for _, work_s, _ in jobs), rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("n", [10_000])
def test_ten_thousand_flows_on_one_link_end_as_theory_says(n):
    sizes = np.random.default_rng(1).exponential(1.0, n)
    engine = _sim.Engine()
    link = engine.link(0.5, True)
    engine.seal()
    ends = np.zeros(n)
    for i in range(n):
        engine.transfer(link, True, float(sizes[i]), lambda i=i: ends.__setitem__(i, engine.now))
    engine.run()
    ordered = np.sort(sizes)
    theory = 0.5 + np.cumsum(ordered) + ordered * np.arange(n - 1, -1, -1)
    np.testing.assert_allclose(np.sort(ends), theory, rtol=1e-12)


def test_ten_thousand_equal_flows_end_at_one_date():
    engine = _sim.Engine()
    link = engine.link(0.0, False)
    engine.seal()
    ends = []
    for _ in range(10_000):
        engine.transfer(link, True, 0.125, lambda: ends.append(engine.now))
    engine.run()
    assert set(ends) == {1250.0}


def test_long_busy_host_keeps_its_digits():
    """Work of a second each, three at any time for 200,000 seconds: nothing drifts."""
    world = World()
    engine, host = world.engine, world.host
    started = itertools.count(3)

    def ended():
        if next(started) < 200_000:
            engine.exec(host, 1.0, 1.0, ended)

    for _ in range(3):
        engine.exec(host, 1.0, 1.0, ended)
    engine.run()
    assert engine.now == pytest.approx(200_000.0, rel=1e-13)


def test_hosts_and_links_can_come_later():
    world = World()

    def later():
        engine = world.engine
        engine.transfer(engine.link(0.5, True), True, 1.0, lambda: world.end("link"))
        engine.exec(engine.host(), 2.0, 1.0, lambda: world.end("host"))

    world.at(1.0, later)
    assert world.run() == {"link": 2.5, "host": 3.0}


def test_tickets_are_never_used_again():
    engine = _sim.Engine()
    engine.seal()
    tickets = [engine.timer(1.0, print) for _ in range(10)]
    for ticket in tickets:
        engine.cancel(ticket)
    later = [engine.timer(1.0, print) for _ in range(10)]
    assert len({*tickets, *later}) == 20
    assert tickets + later == sorted(tickets + later)
    assert [engine.remaining(t) for t in tickets] == [0.0] * 10


def test_error_of_a_callable_stops_the_run_and_is_raised():
    world = World()
    world.at(1.0, lambda: 1 / 0)
    world.exec("never", 5.0)
    with pytest.raises(ZeroDivisionError):
        world.run()
    assert world.ends == {}
    with pytest.raises(RuntimeError, match="not ready"):
        world.run()


def test_callables_are_let_go_of():
    class Call:
        def __call__(self):
            pass

    engine = _sim.Engine()
    host = engine.host()
    engine.seal()
    woken, cancelled, stopped = Call(), Call(), Call()
    engine.exec(host, 1.0, 1.0, woken)
    engine.cancel(engine.exec(host, 1.0, 1.0, cancelled))
    engine.exec(host, 100.0, 1.0, stopped)
    engine.timer(5.0, engine.stop)
    refs = [weakref.ref(x) for x in (woken, cancelled, stopped)]
    del woken, cancelled
    engine.run()
    del stopped, engine
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


def test_activities_leave_no_memory_behind():
    engine = _sim.Engine()
    host = engine.host()
    engine.seal()
    left = iter(range(400_000))

    def again():
        for _ in left:
            engine.cancel(engine.timer(engine.now + 1e6, again))
            engine.exec(host, 0.5, 1.0, again)
            return

    again()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine.run()
    assert engine.events == 400_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # KiB


@pytest.mark.parametrize(
    ("call", "args", "match"),
    [
        ("exec", (0, -1.0, 1.0, print), "work_s"),
        ("exec", (0, math.nan, 1.0, print), "work_s"),
        ("exec", (0, 1.0, 0.0, print), "weight"),
        ("exec", (0, 1.0, 1.0, print, 1.5), "compute"),
        ("exec", (0, 1.0, 1.0, print, 1.0, -0.1), "memory"),
        ("exec", (0, 1.0, 1.0, print, 0.0, 0.0), "both be 0"),
        ("exec", (7, 1.0, 1.0, print), "no such host"),
        ("exec", (2**40, 1.0, 1.0, print), "no such host"),
        ("transfer", (7, True, 1.0, print), "no such link"),
        ("transfer", (0, True, math.inf, print), "airtime_s"),
        ("timer", (math.nan, print), "date_s"),
        ("timer", (math.inf, print), "date_s"),
        ("speed", (0, 0.0), "factor"),
        ("link", (-1.0, True), "latency_s"),
    ],
)
def test_bad_numbers_are_refused_and_leave_nothing(call, args, match):
    engine = _sim.Engine()
    engine.host(), engine.link(0.0, True)
    engine.seal()
    with pytest.raises(ValueError, match=match):
        getattr(engine, call)(*args)
    engine.run()
    assert engine.events == 0


def test_wrong_types_are_refused():
    engine = _sim.Engine()
    engine.host()
    engine.seal()
    with pytest.raises(TypeError, match="arguments"):
        engine.exec(0, 1.0)
    with pytest.raises(TypeError):
        engine.exec("0", 1.0, 1.0, print)
    with pytest.raises(OverflowError):
        engine.exec(-1, 1.0, 1.0, print)
    with pytest.raises(ValueError, match="solver"):
        _sim.Engine("magic")
