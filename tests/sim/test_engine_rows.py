"""The table of requests that a simulation writes while it runs."""

import gc

from engine_world import SMALL, Requests, World, fleet, request, simulated

from edgellm import sim
from edgellm.sim.engine.simulation import Simulation


class Hedged(sim.Strategy):
    """Finishes at once; a task that nobody waits for goes on working for the request."""

    def __init__(self, late: int) -> None:
        self.late = late

    def setup(self, fleet):
        self.bill = []

    def handle(self, req, here):
        yield here.run(sim.Decode(SMALL, 1))
        self.bill.append(req)
        req.finish(model=SMALL)
        if req.id == self.late:
            here.spawn(self.server(here), daemon=True)

    def server(self, here):
        yield sim.sleep(1000.0)
        for req in self.bill[:2]:
            yield here.run(sim.Compute(2.0), charge=[req])


def test_row_is_corrected_when_work_goes_on_after_the_answer():
    specs = [request(i, 2.0 * i) for i in range(5)]
    rows = simulated(Hedged(late=4), *specs, duration_s=1500.0).requests
    assert rows["energy_j"].round(9).tolist() == [6.3, 6.3, 0.3, 0.3, 0.3]  # a token, and 2 s at 3 W
    assert rows["status"] == ["ok"] * 5


def test_row_is_corrected_after_it_became_columns(monkeypatch):
    from edgellm.sim.engine import rows as room

    monkeypatch.setattr(room, "_CHUNK", 2)
    specs = [request(i, 2.0 * i) for i in range(5)]
    rows = simulated(Hedged(late=4), *specs, duration_s=1500.0).requests
    assert rows["energy_j"].round(9).tolist() == [6.3, 6.3, 0.3, 0.3, 0.3]


def test_rows_are_in_order_of_arrival_whatever_ends_first():
    specs = [request(i, 0.0, output_tokens=50 - 10 * i) for i in range(5)]
    rows = simulated(sim.Local(), *specs).requests
    assert rows["id"].tolist() == [0, 1, 2, 3, 4]
    assert rows["e2e_s"].tolist() == sorted(rows["e2e_s"].tolist(), reverse=True)


def test_answered_requests_leave_nothing_for_the_garbage_collector():
    specs = tuple(request(i, 2.0 * i) for i in range(50))
    simulation = Simulation(World(fleet(), Requests(specs)), sim.Gateway(), 1, {})
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        simulation.run()
        gc.collect()
        kinds = {type(thing).__name__ for thing in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not kinds & {"Request", "Task", "Transfer", "_Calling"}
