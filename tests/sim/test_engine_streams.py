"""Flows that hold several links at once: max-min fair paces, by hand and by their definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm import _sim


class Links:
    """Streamed links by name, of rates per second, and a log of ends."""

    def __init__(self, latency_s=0.0, duplex=True, **rates):
        self.engine, self.rates, self.ends = _sim.Engine(), rates, {}
        self.ids = {
            name: self.engine.link(latency_s, duplex, float(rate), float(rate))
            for name, rate in rates.items()
        }
        self.engine.seal()

    def stream(self, name, way, amount, latency_s=0.0, up=True, again=1.0):
        hops = [(self.ids[link], up, again * amount / self.rates[link]) for link in way]
        return self.engine.stream(hops, latency_s, lambda: self.end(name))

    def end(self, name):
        self.ends[name] = self.engine.now

    def run(self):
        self.engine.run()
        return self.ends


def test_flow_alone_goes_at_the_pace_of_its_slowest_link():
    links = Links(fast=100, slow=10)
    links.stream("one", ["fast", "slow"], 20, latency_s=0.5)
    assert links.run() == {"one": 2.5}


def test_flow_held_elsewhere_leaves_its_share_to_the_others():
    links = Links(a=10, b=100, trunk=50)
    links.stream("held", ["a", "trunk"], 20)
    links.stream("free", ["b", "trunk"], 100)
    # held at 10 by its own link, free takes the other 40; after 2 s all 50
    assert links.run() == {"held": 2.0, "free": 2.4}


def test_three_links_in_a_row_are_the_textbook_case():
    """One flow over both links and one on each: the long flow gets half of the narrower link."""
    links = Links(left=10, right=20)
    links.stream("long", ["left", "right"], 10)
    links.stream("left", ["left"], 10)
    links.stream("right", ["right"], 15)
    # 5, 5 and 15 per second: right ends at 1, the others at 2
    assert links.run() == {"right": 1.0, "long": 2.0, "left": 2.0}


@pytest.mark.parametrize(("duplex", "end_s"), [(True, 1.0), (False, 2.0)])
def test_directions_share_only_where_the_link_is_shared(duplex, end_s):
    links = Links(duplex=duplex, one=10)
    links.stream("up", ["one"], 10, up=True)
    links.stream("down", ["one"], 10, up=False)
    assert links.run() == {"up": end_s, "down": end_s}


def test_transfer_and_stream_share_a_link():
    links = Links(latency_s=0.5, one=10)
    links.engine.transfer(links.ids["one"], True, 1.0, lambda: links.end("message"))
    links.stream("stream", ["one"], 30)
    # the stream alone to 0.5 (5 done), both to 2.5 (15 done), the stream alone to 4
    assert links.run() == {"message": 2.5, "stream": 4.0}


def test_amounts_sent_again_take_air_time_and_share_by_what_arrives():
    links = Links(one=10)
    links.stream("clean", ["one"], 10)
    fast = links.engine.link(0.0, True, 1e6, 1e6)
    lossy = [(links.ids["one"], True, 2.0), (fast, True, 10 / 1e6)]  # 10 arrive, 20 are sent over the first
    links.engine.stream(lossy, 0.0, lambda: links.end("lossy"))
    # one air time for each of clean, two for each of lossy: a third of the rate each
    assert links.run() == {"clean": pytest.approx(3.0), "lossy": pytest.approx(3.0)}


def test_cancel_frees_the_way_and_says_what_was_left():
    links = Links(a=10, b=20, trunk=20)
    goes = links.stream("goes", ["a", "trunk"], 20)
    links.stream("stays", ["b", "trunk"], 30)
    waits = links.stream("waits", ["a"], 10, latency_s=5.0)
    left = []
    links.engine.timer(1.0, lambda: left.append(links.engine.cancel(goes)))
    links.engine.timer(1.0, lambda: left.append(links.engine.cancel(waits)))
    assert links.run() == {"stays": 2.0}
    assert left == [1.0, 1.0]
    assert links.engine.remaining(goes) == 0.0


def test_empty_stream_takes_the_latency():
    links = Links(a=10, b=10)
    links.stream("empty", ["a", "b"], 0.0, latency_s=0.75)
    links.stream("now", ["a"], 0.0)
    links.stream("other", ["a"], 10.0)
    assert links.run() == {"now": 0.0, "empty": 0.75, "other": 1.0}


ways = st.lists(
    st.tuples(st.sets(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 40), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


@given(st.lists(st.integers(1, 50), min_size=5, max_size=5), ways)
def test_every_stream_has_a_full_link_where_nobody_is_faster(rates, streams):
    """The definition of max-min fairness (Bertsekas and Gallager, Data Networks, section 6.5.2)."""
    links = Links(**{f"l{i}": rate for i, rate in enumerate(rates)})
    tickets = [
        links.stream(i, [f"l{j}" for j in sorted(way)], float(amount))
        for i, (way, amount, _) in enumerate(streams)
    ]
    before = [links.engine.remaining(ticket) for ticket in tickets]
    step_s = 1e-3  # before anything ends
    paces = []

    def measure():
        for (_, amount, _), ticket, was in zip(streams, tickets, before, strict=True):
            paces.append((was - links.engine.remaining(ticket)) / was * amount / step_s)

    links.engine.timer(step_s, measure)
    links.engine.run()
    for i, (way, _, _) in enumerate(streams):
        used = {j: [p for (w, _, _), p in zip(streams, paces, strict=True) if j in w] for j in way}
        assert all(sum(used[j]) <= rates[j] * (1 + 1e-6) for j in way)
        assert any(
            sum(used[j]) >= rates[j] * (1 - 1e-6) and max(used[j]) <= paces[i] * (1 + 1e-6) for j in way
        ), f"stream {i} could go faster"


@given(st.lists(st.integers(1, 50), min_size=5, max_size=5), ways)
def test_order_of_starting_changes_nothing(rates, streams):
    def ends(order):
        links = Links(**{f"l{i}": rate for i, rate in enumerate(rates)})
        for i in order:
            way, amount, start = streams[i]

            def begin(i=i, way=way, amount=amount):
                links.stream(i, [f"l{j}" for j in sorted(way)], float(amount))

            links.engine.timer(0.37 * start, begin)
        return links.run()

    forth, back = ends(range(len(streams))), ends(range(len(streams) - 1, -1, -1))
    assert {i: pytest.approx(t, rel=1e-9) for i, t in forth.items()} == back


def test_two_thousand_flows_over_access_links_and_one_trunk():
    n, sizes = 2000, np.random.default_rng(3).exponential(1.0, 2000)
    links = Links(trunk=1.0, **{f"a{i}": 5.0 for i in range(n)})
    for i in range(n):
        links.stream(i, [f"a{i}", "trunk"], float(sizes[i]))
    ends = np.sort(list(links.run().values()))
    ordered = np.sort(sizes)
    shared = np.cumsum(ordered) + ordered * np.arange(n - 1, -1, -1)
    np.testing.assert_allclose(ends, shared, rtol=1e-9)  # no access link is ever the narrower one: 1 < 5


def test_bad_ways_are_refused():
    engine = _sim.Engine()
    plain, streamed = engine.link(0.0, True), engine.link(0.0, False, 10.0, 10.0)
    engine.seal()
    for hops, match in [
        ([], "1 to 64"),
        ([(streamed, True, 1.0)] * 65, "1 to 64"),
        ([(plain, True, 1.0)], "no such streamed"),
        ([(99, True, 1.0)], "no such streamed"),
        ([(streamed, True, -1.0)], "airtime_s"),
        ([(streamed, True, 1.0), (streamed, False, 1.0)], "once"),  # both directions are one
    ]:
        with pytest.raises(ValueError, match=match):
            engine.stream(hops, 0.0, print)
    with pytest.raises(ValueError, match="latency_s"):
        engine.stream([(streamed, True, 1.0)], -1.0, print)
    with pytest.raises(TypeError, match="hop"):
        engine.stream([5], 0.0, print)
    for rate in (-1.0, 1e16, float("nan")):
        with pytest.raises(ValueError, match="rates"):
            engine.link(0.0, True, rate, 1.0)
    engine.run()
    assert engine.events == 0


def test_streams_come_and_go_without_loss_of_amounts():
    """The trunk is never idle: n amounts through it take n seconds, however they are cut."""
    links = Links(trunk=1.0, **{f"a{i}": 3.0 for i in range(7)})
    counter = itertools.count()

    def again(i):
        def ended():
            k = next(counter)
            if k < 3000:
                links.engine.stream(
                    [(links.ids[f"a{i}"], True, 1.0 / 3.0), (links.ids["trunk"], True, 1.0)], 0.0, ended
                )

        return ended

    for i in range(7):
        again(i)()
    links.engine.run()
    assert links.engine.now == pytest.approx(3000.0, rel=1e-12)
