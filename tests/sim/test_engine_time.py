"""When things end: sharing of nodes and links, ties, waits; each against a calculation by hand."""

import math

import pytest
from engine_world import LARGE, SMALL, Script, fleet, log, log_of, request, simulated, wire
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import sim
from edgellm.sim import Compute, Decode, Prefill


def near(x):
    return pytest.approx(x, abs=2e-9)


def test_run_alone_takes_its_own_time():
    def handle(req, here, log):
        yield here.run(Prefill(SMALL, 10))
        log()
        yield here.run(Decode(SMALL, 5, context=10))
        log()
        yield here.run(Compute(0.25), repeat=3)
        log()

    assert [t for t, _ in log(handle)] == [near(0.1), near(0.6), near(1.35)]


def test_runs_together_share_the_node_fairly():
    def handle(req, here, log):
        long = sim.spawn(run(here, 1.0), here)
        short = sim.spawn(run(here, 0.5), here)
        yield short
        log("short")
        yield long
        log("long")

    def run(here, seconds):
        yield here.run(Compute(seconds))

    assert log(handle) == [[near(1.0), "short"], [near(1.5), "long"]]


def test_priority_doubles_the_share():
    def handle(req, here, log):
        yield sim.gather(run(here, log, 1), run(here, log, 0))

    def run(here, log, priority):
        yield here.run(Compute(1.0), priority=priority)
        log(priority)

    assert log(handle) == [[near(1.5), 1], [near(2.0), 0]]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.001, 3)), min_size=1, max_size=8))
def test_sharing_agrees_with_a_calculation_by_events(jobs):
    def handle(req, here, log):
        yield sim.gather(*(run(here, log, i, *job) for i, job in enumerate(jobs)))

    def run(here, log, i, start_s, work_s):
        yield sim.sleep(start_s)
        yield here.run(Compute(work_s))
        log(i)

    ended = {i: t for t, i in log(handle)}
    assert ended == {i: pytest.approx(t, abs=1e-7) for i, t in enumerate(processor_sharing(jobs))}


def processor_sharing(jobs):
    """Ends of (start, work) on a processor that shares itself equally."""
    now, left, ends = 0.0, {}, [math.nan] * len(jobs)
    starts = sorted((start, i) for i, (start, _) in enumerate(jobs))
    while starts or left:
        next_start = starts[0][0] if starts else math.inf
        next_end = now + min(left.values()) * len(left) if left else math.inf
        date = min(next_start, next_end)
        left = {i: work - (date - now) / len(left) for i, work in left.items()}
        now = date
        for i in [i for i, work in left.items() if work <= 1e-12]:
            ends[i] = now
            del left[i]
        while starts and starts[0][0] <= now:
            _, i = starts.pop(0)
            left[i] = jobs[i][1]
    return ends


def test_transfer_is_stored_and_forwarded_over_each_hop():
    def handle(req, here, log):
        yield here.send("cloud", "port", "hello", 100)
        log()

    # wifi: 0.01 + 800/8000; broadband: 0.02 + 800/80000
    broadband = wire("broadband", latency_s=0.02, up_bit_per_s=80_000)
    assert [t for t, _ in log(handle, fleet=fleet(broadband=broadband))] == [near(0.01 + 0.1 + 0.02 + 0.01)]


@pytest.mark.parametrize(("sharing", "down_s"), [("split", 0.11), ("shared", 0.21)])
def test_directions_contend_only_on_a_shared_link(sharing, down_s):
    def handle(req, here, log):
        yield sim.gather(here.send("gateway", "port", None, 100), here.recv("port"))
        log()

    def back(there):
        yield there.send("home/device0", "port", None, 100)

    def setup(fleet):
        fleet["home/gateway"].spawn(back(fleet["home/gateway"]))

    world = fleet(wifi=wire("wifi", sharing=sharing))
    assert [t for t, _ in log(handle, setup=setup, fleet=world)] == [near(down_s)]


@pytest.mark.parametrize(("group", "end_s"), [("", 0.11), ("wifi", 0.21)])
def test_links_of_a_group_share_one_capacity(group, end_s):
    def handle(req, here, log):
        yield here.send("gateway", "port", None, 100)
        log(req.id)

    two = [request(i, node=f"home/device{i}") for i in range(2)]
    assert log(handle, *two, fleet=fleet(group=group)) == [[near(end_s), 0], [near(end_s), 1]]


def test_empty_message_takes_the_latency():
    def handle(req, here, log):
        yield here.send("cloud", "port", None, 0)
        log()

    assert [t for t, _ in log(handle)] == [near(0.03)]


def test_ties_go_by_the_order_of_starting():
    def handle(req, here, log):
        yield sim.gather(*(wait(log, i) for i in range(5)), here.send("home/device0", "p", None, 0))

    def wait(log, i):
        yield sim.sleep(1.0)
        log(i)
        yield sim.sleep(0.0)
        log(10 + i)

    seen = log(handle)
    assert [x for _, x in seen] == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert {t for t, _ in seen} == {1.0}


def test_activity_started_before_a_timer_ends_before_it():
    def handle(req, here, log):
        yield sim.gather(run(here, log), wait(log, "timer"))

    def run(here, log):
        yield here.run(Compute(1.0))
        log("work")

    def wait(log, name):
        yield sim.sleep(1.0)
        log(name)

    assert log(handle) == [[1.0, "work"], [1.0, "timer"]]


def test_first_token_comes_after_prefill_and_one_step():
    def handle(req, here, log):
        yield here.run(Prefill(SMALL, 10))
        yield here.run(Decode(SMALL, 5, context=10))

    columns = simulated(Script(handle)).requests
    assert columns["first_token_s"][0] == near(0.2)
    assert columns["e2e_s"][0] == near(0.6)
    assert columns["tpot_s"][0] == near(0.1)


def test_first_token_from_the_cloud_comes_one_latency_later():
    columns = simulated(sim.strategy.Cloud()).requests
    there_s = 0.01 + 0.1 + 0.02 + 0.1  # 100 bytes at 8000 bit/s on both hops
    back_s = 0.01 + 0.05 + 0.02 + 0.05
    assert columns["first_token_s"][0] == near(there_s + 0.2 + 0.03)
    assert columns["e2e_s"][0] == near(there_s + 0.6 + back_s)


def test_first_token_of_a_draft_that_is_thrown_away_does_not_count():
    columns = simulated(sim.strategy.Cascade(threshold=1.0), confidence={SMALL: (0.0, 0.5)}).requests
    assert columns["escalated"][0]
    assert columns["model"] == [LARGE]
    assert columns["tokens_wasted"][0] == 5
    assert columns["first_token_s"][0] == near(0.6 + 0.23 + 0.2 + 0.03)


def test_first_token_can_be_said():
    def handle(req, here, log):
        yield sim.sleep(0.5)
        req.first_token()
        yield sim.sleep(0.5)

    columns = simulated(Script(handle)).requests
    assert (columns["first_token_s"][0], columns["e2e_s"][0]) == (0.5, 1.0)


def test_weights_that_are_not_placed_are_read_first():
    def handle(req, here, log):
        yield here.run(Prefill(LARGE, 10))
        log()
        yield here.run(Prefill(LARGE, 10))
        log()

    assert [t for t, _ in log(handle)] == [near(2.1), near(2.2)]


def test_loss_sends_again_and_takes_longer():
    def handle(req, here, log):
        yield here.send("gateway", "port", None, 1_500_000)
        log()

    world = fleet(wifi=wire("wifi", loss=0.2))
    result = simulated(Script(handle), fleet=world, duration_s=10_000.0)
    factor = result.requests["bytes_up"][0] / 1_500_000
    assert 1.2 <= factor <= 1.3  # 1 / (1 - loss) = 1.25, over 1000 units
    assert log_of(result)[0][0] == near(0.01 + 1500.0 * factor)
