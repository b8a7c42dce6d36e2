"""What goes in comes out, on random worlds: energy, bytes and requests."""

import random
from dataclasses import replace

import numpy as np
import pytest
from engine_world import SMALL, Script, constant, device, fleet, request, simulated, wire
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edgellm import sim
from edgellm.cost import BatteryProfile, IdleState, PowerProfile, RadioProfile, ThermalProfile, power_of
from edgellm.sim import Compute, Decode, Prefill
from edgellm.sim.engine.ledger import ACTIVE_STATES, STATES
from edgellm.sim.fleet import Upkeep


def numbers(draw, **ranges):
    return {key: constant(draw(st.floats(*limits))) for key, limits in ranges.items()}


@st.composite
def devices(draw, battery=False):
    tables = {}
    power = numbers(draw, compute_w=(0, 5), memory_w=(0, 5)) if draw(st.booleans()) else {}
    asleep = IdleState(**numbers(draw, w=(0, 0.5), wake_s=(0, 2), wake_j=(0, 3)))
    power |= {"supply_efficiency": constant(draw(st.floats(0.5, 1)))}
    tables["power"] = PowerProfile(
        states={"sleep": asleep}, meter=draw(st.sampled_from(["wall", "chip"])), **power
    )
    if draw(st.booleans()):
        heat = numbers(draw, r_k_per_w=(3, 12), c_j_per_k=(0.2, 5), throttle_c=(50, 60), resume_c=(40, 48))
        heat |= numbers(draw, factor=(0.3, 1), power_factor=(0.2, 1))
        tables["thermal"] = ThermalProfile(**heat)
    if battery and draw(st.booleans()):
        tables["battery_j"] = draw(st.floats(20, 600))
        tables["battery"] = BatteryProfile(
            **numbers(
                draw, discharge_efficiency=(0.5, 1), self_discharge_per_s=(0, 0.01), peukert=(1, 1.3),
                rated_w=(0.5, 4), cutoff=(0, 0.3), temperature_per_k=(0, 0.02), rated_c=(10, 30),
            )
        )  # fmt: skip
    return device(**tables)


@st.composite
def wires(draw):
    changes = {
        "sharing": draw(st.sampled_from(["shared", "split"])),
        "loss": draw(st.sampled_from([0.0, 0.3])),
    }
    changes |= {f"energy_{way}_j_per_bit": draw(st.floats(0, 1e-3)) for way in ("up", "down")}
    if draw(st.booleans()):
        radio = numbers(draw, tx_w=(0.2, 2), rx_w=(0.2, 1.5), idle_w=(0, 0.2), sleep_w=(0, 0.02))
        radio |= numbers(draw, promotion_s=(0, 1), promotion_w=(0, 2))
        if draw(st.booleans()):
            radio |= numbers(draw, tail_s=(0, 8))
        changes["radio"] = RadioProfile(**radio)
    return wire("wifi", **changes)


@st.composite
def worlds(draw):
    wifi, box, hub = draw(wires()), draw(devices(battery=True)), draw(devices(battery=True))
    world = fleet(box, hub, draw(devices()), wifi=wifi, group=draw(st.sampled_from(["", "wifi"])))
    upkeep = Upkeep(
        ambient_c=draw(st.floats(-5, 40)),
        charge=draw(st.floats(0.3, 1)),
        sleep_after_s=draw(st.sampled_from([0.0, 3.0, 20.0, float("inf")])),
        at_wall=draw(st.booleans()),
    )
    outages = draw(st.sampled_from([(), (), ((20.0, 15.0), (60.0, 5.0))]))
    nodes = [replace(n, upkeep=upkeep, outages=outages if n.role != "cloud" else ()) for n in world.nodes]
    forwarding = draw(st.sampled_from(["store", "store", "stream"]))
    links = [replace(link, forwarding=forwarding) for link in world.links]
    return replace(world, nodes=tuple(nodes), links=tuple(links))


def busy(seed):
    """A strategy that does everything that costs energy, in an order drawn for each request."""

    def setup(fleet):
        fleet["home/gateway"].provide("relay", relay)
        fleet["cloud/server"].provide("answer", answer)
        here = fleet["home/gateway"]
        sim.spawn(beat(here), here, daemon=True)

    def beat(here):
        while True:
            yield here.run(Compute(0.3))
            yield sim.sleep(11.0)

    def answer(msg, here):
        yield here.run(Prefill(SMALL, 50))
        return "x" * 300

    def relay(msg, here):
        yield here.run(Decode(SMALL, 8))
        reply = yield here.call("cloud", "answer", msg, 80, data_class="metadata")
        return reply

    def handle(req, here, log):
        dice = random.Random(f"{seed}/{req.id}")
        for _ in range(dice.randint(1, 4)):
            deed = dice.choice(["run", "send", "call", "far", "give up", "together", "race"])
            try:
                if deed == "run":
                    yield here.run(Decode(SMALL, dice.randint(1, 40)))
                elif deed == "send":
                    yield here.send("gateway", "p", req, dice.randint(1, 4000))
                elif deed == "call":
                    yield here.call("cloud", "answer", req, dice.randint(0, 2000))
                elif deed == "far":
                    yield here.call("gateway", "relay", req, 500)
                elif deed == "give up":
                    yield sim.within(here.send("cloud", "p", req, 5000), dice.random() * 8)
                elif deed == "together":
                    yield sim.gather(here.run(Compute(2.0)), here.send("gateway", "p", req, 900))
                else:
                    yield sim.race(here.run(Compute(3.0)), here.call("cloud", "answer", req, 700))
            except sim.TimedOut:
                pass

    return Script(handle, setup)


def specs(seed, count):
    dice = random.Random(seed)
    times = sorted(dice.uniform(0, 90) for _ in range(count))
    return [request(i, t, node=f"home/device{dice.randint(0, 1)}") for i, t in enumerate(times)]


# not shrunk: each world is a process of its own
@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(worlds(), st.integers(0, 10**6), st.integers(1, 12))
def test_energy_bytes_and_requests_are_conserved(world, seed, count):
    asked = specs(seed, count)
    result = simulated(busy(seed), *asked, seed=seed, fleet=world)
    nodes, links, requests = result.nodes, result.links, result.requests
    close = {"rel": 1e-9, "abs": 1e-6}

    # a node's energy is the sum of its states, and on a battery what was drawn from it
    states = {state: np.asarray(nodes[f"{state}_energy_j"]) for state in STATES}
    assert all((values >= -1e-9).all() for values in states.values())
    assert nodes["energy_j"] == pytest.approx(sum(states.values()), **close)
    for i, node in enumerate(world.nodes):
        if node.device.battery_j is not None:
            assert nodes["energy_j"][i] == pytest.approx(nodes["battery_drawn_j"][i], **close)
            start_j = node.device.battery_j.value * node.upkeep.charge
            assert nodes["energy_j"][i] <= start_j + 1e-6
    # what work caused was charged to a request or to nobody
    active_j = sum(states[state] for state in ACTIVE_STATES)
    assert nodes["active_energy_j"] == pytest.approx(active_j, **close)
    paid_j = np.sum(requests["energy_j"]) + np.sum(nodes["unattributed_energy_j"])
    assert np.sum(active_j) == pytest.approx(paid_j, **close)
    # what links are said to have taken is what radios took
    air_j = sum(states[f"radio_{way}"].sum() for way in ("tx", "rx"))
    late_j = np.sum(links["energy_j"]) - air_j
    assert -1e-6 <= late_j <= states["radio_promotion"].sum() + 1e-6
    # bytes of links are bytes of requests: every message is some request's
    for way in ("bytes_up", "bytes_down"):
        assert np.sum(links[way]) == pytest.approx(np.sum(requests[way]), **close)
    # requests: each has one row, finished or with a reason
    assert list(requests["id"]) == [spec.id for spec in asked]
    for status, reason in zip(requests["status"], requests["reason"], strict=True):
        assert (status == "ok") == (reason == "")
    # awake, asleep and down fill the whole time
    for i, node in enumerate(world.nodes):
        power = power_of(node.device)
        wall = node.upkeep.at_wall and node.device.battery_j is None
        awake_s = result.simulated_s - nodes["off_s"][i] - nodes["asleep_s"][i]
        idle_j = awake_s * (power.wall_w(power.idle_w) if wall else power.idle_w)
        assert states["idle"][i] == pytest.approx(idle_j, **close)
