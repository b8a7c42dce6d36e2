"""The protocol: waits, interruptions and what they tell, messages, services, tasks."""

import pytest
from engine_world import LARGE, SMALL, Script, log, request, simulated

from edgellm import sim
from edgellm.sim import Compute, Decode, Step


def near(x):
    return pytest.approx(x, abs=2e-9)


def test_gather_gives_the_values_in_order():
    def handle(req, here, log):
        log((yield sim.gather(wait(2, "a"), wait(1, "b"), sim.sleep(1.5))))

    def wait(seconds, value):
        yield sim.sleep(seconds)
        return value

    assert log(handle) == [[2.0, ["a", "b", None]]]


def test_gather_cancels_the_rest_when_one_fails():
    def handle(req, here, log):
        try:
            yield sim.gather(here.run(Decode(SMALL, 50)), refuse(), wait(log))
        except sim.Rejected as error:
            log([error.reason, error.done[0].tokens, error.done[2]])

    def refuse():
        yield sim.sleep(1.05)
        raise sim.Rejected("no")

    def wait(log):
        try:
            yield sim.sleep(10)
        except sim.Cancelled as error:
            log(error.done)

    assert log(handle) == [[near(1.05), ["no", 10, near(1.05)]], [near(1.05), near(1.05)]]


def test_first_lets_the_others_go_on():
    def handle(req, here, log):
        slow = sim.spawn(wait(log, 3), here)
        log((yield sim.first(slow, sim.sleep(1))))
        yield slow

    def wait(log, seconds):
        yield sim.sleep(seconds)
        log("slow")

    assert log(handle) == [[1.0, [1, None]], [3.0, "slow"]]


def test_race_cancels_the_losers():
    def handle(req, here, log):
        run = sim.spawn(compute(here, log), here)
        log((yield sim.race(run, sim.sleep(1))))
        yield here.run(Compute(1.0))
        log("alone")

    def compute(here, log):
        try:
            yield here.run(Decode(SMALL, 100))
        except sim.Cancelled as error:
            log(error.done.tokens)

    assert log(handle) == [[1.0, [1, None]], [1.0, 10], [near(2.0), "alone"]]


def test_race_goes_on_while_one_may_still_succeed():
    def handle(req, here, log):
        log((yield sim.race(refuse(1), wait(2))))
        try:
            yield sim.race(refuse(1), refuse(2))
        except sim.Rejected as error:
            log(error.reason)

    def refuse(seconds):
        yield sim.sleep(seconds)
        raise sim.Rejected(f"after {seconds}")

    def wait(seconds):
        yield sim.sleep(seconds)
        return seconds

    assert log(handle) == [[2.0, [1, 2]], [4.0, "after 2"]]


def test_within_throws_with_the_progress():
    def handle(req, here, log):
        try:
            yield sim.within(here.run(Decode(SMALL, 50)), 1.25)
        except sim.TimedOut as error:
            log([error.reason, error.done.tokens, error.done.work_s])
        done = yield sim.within(here.run(Decode(SMALL, 50)), 5.0)
        log(done.tokens)

    assert log(handle) == [[near(1.25), ["timed out", 12, near(1.25)]], [near(6.25), 50]]


def test_event_wakes_everyone_once_and_keeps_its_value():
    def handle(req, here, log):
        event = sim.Event()
        tasks = [sim.spawn(wait(event, log, i), here) for i in range(3)]
        yield sim.sleep(1)
        event.set("go")
        event.set("again")
        yield sim.gather(*tasks)
        log((yield event))

    def wait(event, log, i):
        log([i, (yield event)])

    assert log(handle) == [[1.0, [0, "go"]], [1.0, [1, "go"]], [1.0, [2, "go"]], [1.0, "go"]]


def test_stop_ends_the_repetition_with_the_step_in_progress():
    def handle(req, here, log):
        stop = sim.Event()
        run = sim.spawn(compute(here, stop), here)
        yield sim.sleep(0.42)
        stop.set()
        done = yield run
        log([done.steps, done.tokens, done.seconds])
        log((yield here.run(Compute(1.0), repeat=5, stop=stop)).steps)

    def compute(here, stop):
        return (yield here.run(Decode(SMALL, 1, context=10), repeat=50, stop=stop))

    assert log(handle) == [[near(0.5), [5, 5, near(0.5)]], [near(0.5), 0]]


def test_repeat_with_another_on_the_node_stops_at_its_own_step():
    def handle(req, here, log):
        stop = sim.Event()
        other = sim.spawn(compute(here, 10.0), here)
        run = sim.spawn(steps(here, stop), here)
        yield sim.sleep(2.5)  # half speed: 1.25 steps are done
        stop.set()
        log((yield run).steps)
        other.cancel()

    def compute(here, seconds):
        yield here.run(Compute(seconds))

    def steps(here, stop):
        return (yield here.run(Compute(1.0), repeat=4, stop=stop))

    assert log(handle) == [[near(4.0), 2]]


def test_queue_hands_items_to_who_waited_longest():
    def handle(req, here, log):
        queue = sim.Queue()
        tasks = [sim.spawn(take(queue, log, i), here) for i in range(2)]
        yield sim.sleep(1)
        for item in "abc":
            queue.put(item)
        yield sim.gather(*tasks)
        log([len(queue), (yield queue)])

    def take(queue, log, i):
        log([i, (yield queue)])

    assert log(handle) == [[1.0, [0, "a"]], [1.0, [1, "b"]], [1.0, [1, "c"]]]


def test_item_of_a_cancelled_wait_goes_to_the_next():
    def handle(req, here, log):
        queue = sim.Queue()
        waiting = sim.spawn(take(queue), here)
        yield sim.sleep(1)
        queue.put("a")
        waiting.cancel()
        yield sim.sleep(0)
        log([len(queue), queue.take()])

    def take(queue):
        yield queue

    assert log(handle) == [[1.0, [1, "a"]]]


def test_message_arrives_at_the_port_it_was_sent_to():
    def handle(req, here, log):
        yield here.send("gateway", "other", "not this", 100)
        yield here.send("gateway", "port", {"x": 1}, 100)
        log((yield here.recv("answers")))

    def setup(fleet):
        gateway = fleet["home/gateway"]
        gateway.spawn(echo(gateway), daemon=True)

    def echo(here):
        while True:
            yield here.send("home/device0", "answers", (yield here.recv("port")), 100)

    assert log(handle, setup=setup) == [[near(0.33), {"x": 1}]]


def test_call_runs_the_service_on_its_node():
    def handle(req, here, log):
        log((yield here.call("gateway", "twice", 21, 100)))
        log((yield here.call("gateway", "name", None, 0)))

    def setup(fleet):
        for here in fleet.of_role("gateway"):
            here.provide("twice", twice)
            here.provide("name", lambda msg, here: here.name)

    def twice(msg, here):
        yield here.run(Compute(0.5))
        return 2 * msg

    # there 0.01 + 0.1, work 0.5, back 0.01; then 0.01 and 12 bytes back: 0.01 + 0.012
    assert log(handle, setup=setup) == [[near(0.62), 42], [near(0.652), "home/gateway"]]


def test_calls_wait_in_an_inbox_for_a_batching_server():
    def handle(req, here, log):
        log((yield here.call("cloud", "batch", req, 0)))

    def setup(fleet):
        cloud = fleet["cloud/server"]
        cloud.spawn(serve(cloud), daemon=True)

    def serve(here):
        inbox = here.inbox("batch")
        while True:
            calls = [(yield inbox)]
            yield sim.sleep(1.0)
            calls += inbox.take_all()
            n = len(calls)
            yield here.run(Step(LARGE, (1,) * n, (0,) * n), repeat=10, charge=[call.msg for call in calls])
            for call in calls:
                call.reply(n, nbytes=0)

    def two(req, here, log):
        yield from handle(req, here, log)

    specs = [request(i, 0.0, node=f"home/device{i}") for i in range(2)]
    result = simulated(Script(two, setup), *specs)
    assert [float(line.split(",")[0][1:]) for line in result.output.split()[::2]] == [near(2.06), near(2.06)]
    assert list(result.requests["cost_usd"]) == [near(0.5), near(0.5)]  # one second at 1 USD/s, shared
    assert list(result.requests["tokens_wasted"]) == [5, 5]  # 10 decoded, 5 asked for


def test_cancelled_call_stops_the_service_one_latency_later():
    def handle(req, here, log):
        try:
            yield sim.within(here.call("cloud", "long", log, 0), 1.0)
        except sim.TimedOut:
            log("late")
        yield sim.sleep(1)

    def setup(fleet):
        fleet["cloud/server"].provide("long", long)

    def long(log, here):
        try:
            yield here.run(Compute(1.0), repeat=10)
        except sim.Cancelled as error:
            log(error.done.work_s)

    assert log(handle, setup=setup) == [[1.0, "late"], [near(1.03), near(1.0)]]


def test_service_that_refuses_is_heard_of():
    def handle(req, here, log):
        for name in ("refuses", "is not there"):
            try:
                yield here.call("cloud", name, None, 0)
            except sim.Rejected as error:
                log(error.reason)

    def setup(fleet):
        fleet["cloud/server"].provide("refuses", refuse)

    def refuse(msg, here):
        yield sim.sleep(1)
        raise sim.Rejected("busy")

    assert log(handle, setup=setup) == [[near(1.06), "busy"], [near(1.12), "no such service"]]


def test_cancelled_task_may_clean_up():
    def handle(req, here, log):
        task = sim.spawn(work(here, log), here)
        yield sim.sleep(1)
        log(task.cancel().tokens)
        log((yield task))

    def work(here, log):
        try:
            yield here.run(Decode(SMALL, 50))
        except sim.Cancelled:
            yield sim.sleep(0.5)
        return "clean"

    assert log(handle) == [[1.0, 10], [1.5, "clean"]]


def test_task_can_be_cancelled_before_it_begins():
    def handle(req, here, log):
        task = sim.spawn(never(log), here)
        task.cancel()
        try:
            yield task
        except sim.Cancelled:
            log("cancelled")

    def never(log):
        log("began")
        yield sim.sleep(1)

    assert log(handle) == [[0.0, "cancelled"]]


def test_daemon_does_not_keep_the_simulation_going():
    def handle(req, here, log):
        sim.spawn(tick(), here, daemon=True)
        yield sim.sleep(1)

    def tick():
        while True:
            yield sim.sleep(7)

    result = simulated(Script(handle))
    assert result.simulated_s == 100.0
    assert result.requests["status"] == ["ok"]
