"""Waits that withdraw, clocks, and failures that several are told of."""

import pytest
from engine_world import SMALL, log

from edgellm import sim
from edgellm.sim import Decode


def near(x):
    return pytest.approx(x, abs=2e-9)


def test_item_of_a_cancelled_wait_wakes_the_next_who_waits():
    def handle(req, here, log):
        queue = sim.Queue()
        waiting = [sim.spawn(take(queue, log, i), here) for i in range(3)]
        yield sim.sleep(1)
        queue.put("a")
        queue.put("b")
        waiting[0].cancel()
        yield sim.gather(*waiting[1:])
        log(len(queue))

    def take(queue, log, i):
        log([i, (yield queue)])

    assert log(handle) == [[1.0, [1, "a"]], [1.0, [2, "b"]], [1.0, 0]]


def test_items_of_a_cancelled_wait_keep_their_order():
    def handle(req, here, log):
        queue = sim.Queue()
        waiting = sim.spawn(take(queue), here)
        yield sim.sleep(1)
        queue.put("a")
        queue.put("b")
        waiting.cancel()
        yield sim.sleep(0)
        log(queue.take_all())

    def take(queue):
        yield queue

    assert log(handle) == [[1.0, ["a", "b"]]]


def test_first_gives_up_a_wait_that_would_take_something():
    def handle(req, here, log):
        queue = sim.Queue()
        log((yield sim.first(queue, sim.sleep(1))))
        log((yield sim.first(sim.within(queue, 9), here.reserve(20_000 - 10_000), sim.sleep(1))))
        queue.put("kept")
        yield sim.sleep(0)
        log(queue.take_all())

    def busy(fleet):
        fleet["home/device0"].try_reserve(1)

    assert log(handle, setup=busy) == [[1.0, [1, None]], [2.0, [2, None]], [2.0, ["kept"]]]


def test_gather_of_nothing_is_an_empty_list():
    def handle(req, here, log):
        log((yield sim.gather()))

    assert log(handle) == [[0.0, []]]
    with pytest.raises(ValueError, match="race needs something"):
        sim.race()


def test_failure_told_to_several_keeps_the_progress_of_each():
    def handle(req, here, log):
        bad = sim.spawn(fail(), here)
        tasks = [sim.spawn(wait(bad, here, log, i), here) for i in (1, 2)]
        yield sim.gather(*tasks)

    def fail():
        yield sim.sleep(1.05)
        raise sim.Rejected("no")

    def wait(bad, here, log, i):
        try:
            yield sim.gather(bad, sim.sleep(i * 10.0))
        except sim.Rejected as error:
            yield sim.sleep(i)
            log([i, error.done])

    assert log(handle) == [[near(2.05), [1, [None, near(1.05)]]], [near(3.05), [2, [None, near(1.05)]]]]


def test_every_ticks_without_drift_and_leaves_out_what_was_missed():
    def handle(req, here, log):
        clock = sim.every(2.0, first_s=1.0)
        for _ in range(4):
            log((yield clock))
            yield here.run(Decode(SMALL, 5 if here.now < 4 else 30))

    assert log(handle) == [[1.0, 0], [3.0, 1], [5.0, 2], [9.0, 4]]


def test_until_waits_for_a_date_and_not_for_the_past():
    def handle(req, here, log):
        yield sim.until(5.0)
        log()
        yield sim.until(1.0)
        log()
        try:
            yield sim.within(sim.until(9.0), 1.5)
        except sim.TimedOut as error:
            log(error.done)

    assert log(handle) == [[5.0, None], [5.0, None], [6.5, 1.5]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: sim.every(0),
        lambda: sim.every(float("inf")),
        lambda: sim.until(float("nan")),
        lambda: sim.sleep(-1),
        lambda: sim.within(sim.sleep(1), -1),
    ],
)
def test_impossible_times_are_errors(make):
    with pytest.raises(ValueError, match=r"seconds|period"):
        make()


def test_things_to_wait_for_say_what_they_are():
    waits = sim.gather(sim.sleep(1), sim.race(sim.Event("ready"), sim.within(sim.Queue("jobs"), 2)))
    assert repr(waits) == "gather(sleep(1), race(Event('ready'), within(Queue('jobs'), 2)))"


def test_wait_that_is_given_up_when_its_task_ends_is_not_resumed_twice():
    def handle(req, here, log):
        try:
            yield sim.within(outer(here), 2.0)
        except sim.TimedOut:
            log("late")
        yield sim.sleep(1.0)
        log("once")

    def outer(here):
        yield sim.spawn(inner(), here)

    def inner():
        yield sim.sleep(2.0)

    assert log(handle) in ([[2.0, "late"], [3.0, "once"]], [[3.0, "once"]])
