"""How requests end, what is said of mistakes, and what a node knows of itself."""

import math

import pytest
from engine_world import LARGE, SMALL, Script, device, fleet, log, request, simulated, wire

from edgellm import sim
from edgellm.sim import Compute, Prefill
from edgellm.sim.engine.run import StrategyError


def near(x):
    return pytest.approx(x, abs=2e-9)


def test_simulation_goes_on_until_the_last_answer():
    def handle(req, here, log):
        yield sim.sleep(250)

    assert simulated(Script(handle)).simulated_s == 250.0


class Forgetful(sim.Strategy):
    """Finishes every second request."""

    def setup(self, fleet):
        fleet["cloud/server"].spawn(self.tick(), daemon=True)

    def tick(self):
        while True:
            yield sim.sleep(50)

    def handle(self, req, here):
        yield sim.sleep(1)
        if req.id % 2:
            req.finish()


def test_request_that_nobody_settles_is_unfinished():
    columns = simulated(Forgetful(), request(0), request(1)).requests
    assert columns["status"] == ["unfinished", "ok"]
    assert "neither finished nor rejected" in columns["reason"][0]
    assert math.isinf(columns["e2e_s"][0])


def test_request_that_nobody_settles_misses_its_deadline():
    columns = simulated(Forgetful(), request(0, deadline_s=5.0), request(1)).requests
    assert columns["status"] == ["failed", "ok"]
    assert columns["reason"] == ["deadline missed", ""]


def test_deadline_missed_is_a_failure_with_infinite_latency():
    columns = simulated(
        sim.strategy.Local(), request(0, deadline_s=0.7), request(1, 50.0, deadline_s=0.5)
    ).requests
    assert columns["status"] == ["ok", "failed"]
    assert columns["reason"] == ["", "deadline missed"]
    assert math.isinf(columns["e2e_s"][1])
    assert math.isinf(columns["first_token_s"][1])
    assert columns["energy_j"][1] == near(3.0 * 0.6)


def test_rejected_request_keeps_its_reason():
    class Picky(sim.Strategy):
        def handle(self, req, here):
            req.reject("not today")
            return
            yield

    columns = simulated(Picky()).requests
    assert (columns["status"], columns["reason"], columns["model"]) == (["rejected"], ["not today"], [""])


def test_link_that_cannot_carry_it_is_a_reason():
    world = fleet(wifi=wire("lora", max_payload_bytes=50, duty_cycle=0.01, max_transfer_s=1))
    columns = simulated(sim.strategy.Cloud(), fleet=world).requests
    why = "link infeasible: 100 bytes over lora are 2 frames and 5.06 s at 1 % duty, more than 1 s"
    assert (columns["status"], columns["reason"]) == (["failed"], [why])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise KeyError('oops')", "KeyError"),
        ("yield 3", "yielded 3"),
        ("yield here.run(sim.Prefill('huge:q4_0', 1))", "no model variant 'huge:q4_0'"),
        ("yield here.send('nowhere', 'p', None, 1)", "nowhere"),
        ("yield here.call('cloud', 'x', None, -1)", "nbytes"),
        ("yield here.call('cloud', 'x', None, 1, data_class='secrets')", "data_class"),
        ("yield sim.sleep(float('nan'))", "sleep"),
        ("req.finish(); req.finish()", "already settled"),
        ("req.finish(model='huge:q4_0')", "no model variant"),
        ("yield here.run('prefill')", "run needs"),
        ("yield here.call('cloud', 'generate', 'hello', 1)", "takes a request"),
    ],
)
def test_mistake_of_a_strategy_names_it_and_the_request(body, text):
    namespace = {"sim": sim}
    exec(
        f"class Wrong(sim.Strategy):\n    def handle(self, req, here):\n        {body}\n        yield",
        namespace,
    )
    with pytest.raises(
        StrategyError, match=r"strategy Wrong raised .* on request 7 \('question' at home/device0\)"
    ) as e:
        simulated(namespace["Wrong"](), request(7))
    assert text in str(e.value)
    assert "Traceback" in str(e.value)


def test_strategy_without_a_generator_is_told_so():
    class Wrong(sim.Strategy):
        def handle(self, req, here):
            return [here.run(Prefill(SMALL, 1))]

    with pytest.raises(StrategyError, match="must be a generator"):
        simulated(Wrong())


def test_setup_that_raises_stops_the_run():
    def setup(fleet):
        fleet["nowhere"]

    with pytest.raises(StrategyError, match="nowhere"):
        log(lambda req, here, log: iter(()), setup=setup)


def test_rng_of_a_node_depends_on_seed_and_name_only():
    def handle(req, here, log):
        log(here.rng.random())
        yield sim.sleep(0)

    both = [request(i, node=f"home/device{i}") for i in range(2)]
    first = [x for _, x in log(handle, *both)]
    alone = [x for _, x in log(handle, both[1])]
    assert first[1] == alone[0]
    assert first[0] != first[1]
    assert log(handle, both[1], seed=2)[0][1] != alone[0]


def test_confidence_is_the_same_each_time_and_ordered_like_hardness():
    seen = []

    def handle(req, here, log):
        log([req.confidence(SMALL), req.confidence(SMALL), req.confidence(LARGE)])
        yield sim.sleep(0)

    values = {SMALL: (0.0, 0.5, 1.0), LARGE: (0.8, 1.0)}
    specs = [request(i, float(i)) for i in range(20)]
    seen = [x for _, x in log(handle, *specs, confidence=values)]
    assert all(a == b for a, b, _ in seen)
    assert all(0.8 <= c <= 1.0 for *_, c in seen)
    assert sorted(seen, key=lambda x: x[0]) == sorted(seen, key=lambda x: x[2])
    assert len({a for a, *_ in seen}) == 20


def test_node_names_its_state():
    def handle(req, here, log):
        log(
            [
                here.name,
                here.node.role,
                list(here.models),
                here.running,
                here.fits(SMALL, 9000),
                here.fits(SMALL, 9001),
            ]
        )
        log(here.battery_j == math.inf)
        yield sim.sleep(0)

    assert log(handle, fleet=fleet(device())) == [
        [0.0, ["home/device0", "device", [SMALL], 0, True, False]],
        [0.0, True],
    ]


def test_work_happens_only_where_the_generator_runs():
    nodes = []

    def handle(req, here, log):
        yield nodes[0].run(Compute(1.0))

    with pytest.raises(StrategyError, match="on home/device0 cannot run work on cloud/server"):
        log(handle, setup=lambda fleet: nodes.append(fleet["cloud/server"]))


def test_what_ends_at_the_limit_is_in_time():
    def handle(req, here, log):
        log((yield sim.within(here.run(Compute(1.0)), 1.0)).steps)
        yield sim.within(sim.sleep(1.0), 1.0)
        log()

    assert log(handle) == [[1.0, 1], [2.0, None]]
