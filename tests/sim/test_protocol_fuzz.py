"""Random strategies out of the protocol's calls: nothing hangs, nothing is lost, every run is the same."""

import hashlib

import pytest
from engine_world import LARGE, SMALL, device, fleet, request, simulated, wire
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edgellm import sim

SECONDS = st.sampled_from((0.0, 0.1, 0.5, 2.0))
WORK = st.sampled_from(
    (
        sim.Compute(0.3),
        sim.Prefill(SMALL, 10),
        sim.Decode(SMALL, 7, 10),
        sim.Decode(LARGE, 3),
        sim.Step(SMALL, (1, 4), (10, 0)),
        sim.Verify(SMALL, 3, 5),
        sim.Train(SMALL, 20),
        sim.Load(LARGE),
    )
)
NODES = st.sampled_from(("cloud", "gateway", "home/device0", "home/device1"))
LEAVES = st.one_of(
    st.tuples(st.just("sleep"), SECONDS),
    st.tuples(st.just("tick"), st.sampled_from((0.3, 1.0))),
    st.tuples(st.just("run"), WORK, st.integers(0, 3), st.integers(-1, 2)),
    st.tuples(st.just("call"), NODES, st.sampled_from(("work", "inbox", "refuse", "plain", "nothing"))),
    st.tuples(st.just("send"), NODES, st.sampled_from((0, 50, 400))),
    st.tuples(st.just("reserve"), st.sampled_from((100, 5000, 9000, 20_000))),
    st.tuples(st.just("raise"), st.sampled_from(("one reason", "another"))),
    st.tuples(st.just("queue"), SECONDS),
)


def _grow(inner):
    several = st.lists(inner, min_size=1, max_size=3)
    groups = st.tuples(st.sampled_from(("gather", "race", "first")), several)
    return st.one_of(
        groups,
        st.tuples(st.just("within"), inner, SECONDS),
        st.tuples(st.just("cancel"), inner, SECONDS),
        st.tuples(st.just("steps"), several),
        st.tuples(st.just("try"), inner),
    )


PROGRAMS = st.lists(st.recursive(LEAVES, _grow, max_leaves=6), min_size=1, max_size=4)


class Program(sim.Strategy):
    """Does what it is told, step by step."""

    def __init__(self, program):
        self.program = program

    def setup(self, fleet):
        for here in fleet:
            here.provide("work", self.work)
            here.provide("refuse", self.refuse)
            here.provide("plain", lambda msg, here: "text")
            here.spawn(self.serve(here), daemon=True)

    def work(self, msg, here):
        yield here.run(sim.Compute(0.2))
        return b"x" * 60

    def refuse(self, msg, here):
        yield sim.sleep(0.1)
        raise sim.Rejected("refused")

    def serve(self, here):
        while True:
            call = yield here.inbox("inbox")
            if not call.given_up:
                yield here.run(sim.Compute(0.1), charge=[call.msg])
                call.reply("done")

    def handle(self, req, here):
        for step in self.program:
            yield from self.do(step, req, here)
        req.finish()

    def do(self, step, req, here):
        kind, *rest = step
        if kind == "sleep":
            yield sim.sleep(rest[0])
        elif kind == "tick":
            yield sim.every(rest[0])
        elif kind == "run":
            yield here.run(rest[0], repeat=rest[1], priority=rest[2])
        elif kind == "call":
            yield here.call(rest[0], rest[1], req, req.nbytes)
        elif kind == "send":
            yield here.send(rest[0], "port", req, rest[1])
        elif kind == "reserve":
            with (yield here.reserve(rest[0])):
                yield sim.sleep(0.2)
        elif kind == "raise":
            raise sim.Rejected(rest[0])
        elif kind == "queue":
            queue = sim.Queue()
            here.spawn(self.put(queue, rest[0]))
            yield queue
        elif kind == "within":
            yield sim.within(self.do(rest[0], req, here), rest[1])
        elif kind == "cancel":
            task = sim.spawn(self.do(rest[0], req, here), here)
            yield sim.first(task, sim.sleep(rest[1]))
            task.cancel()
        elif kind == "steps":
            for inner in rest[0]:
                yield from self.do(inner, req, here)
        elif kind == "try":
            try:
                yield from self.do(rest[0], req, here)
            except sim.Interrupted as error:
                yield sim.sleep(0.05 if error.done is None else 0.1)
        else:
            group = getattr(sim, kind)
            yield group(*(self.do(inner, req, here) for inner in rest[0]))

    def put(self, queue, seconds):
        yield sim.sleep(seconds)
        queue.put("item")


def fingerprint(result):
    digest = hashlib.sha256()
    for table in (result.requests, result.nodes, result.links):
        for name, values in table.items():
            digest.update(f"{name} {list(values)!r}".encode())
    return digest.hexdigest()


@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    program=PROGRAMS,
    arrivals=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=5),
    loss=st.sampled_from((0.0, 0.2)),
    battery_j=st.sampled_from((20.0, 1e6)),
)
def test_random_strategies_end_conserve_and_repeat(program, arrivals, loss, battery_j):
    specs = [request(i, t, node=f"home/device{i % 2}") for i, t in enumerate(sorted(arrivals))]
    world = fleet(device(battery_j=battery_j), wifi=wire("wifi", loss=loss, sharing="shared"))
    result = simulated(Program(program), *specs, fleet=world, duration_s=30.0)
    columns = result.requests
    assert list(columns["id"]) == list(range(len(specs)))
    assert set(columns["status"]) <= {"ok", "failed"}
    assert all((s == "ok") == (r == "") for s, r in zip(columns["status"], columns["reason"], strict=True))
    assert result.simulated_s < 3000.0
    for way in ("bytes_up", "bytes_down"):
        assert columns[way].sum() == pytest.approx(result.links[way].sum(), rel=1e-9, abs=1e-9)
    paid_j = columns["energy_j"].sum() + result.nodes["unattributed_energy_j"].sum()
    assert paid_j == pytest.approx(result.nodes["active_energy_j"].sum(), rel=1e-9, abs=1e-9)
    assert fingerprint(result) == fingerprint(
        simulated(Program(program), *specs, fleet=world, duration_s=30.0)
    )
