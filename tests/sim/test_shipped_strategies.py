"""The strategies of edgellm.sim.examples against arithmetic that a person, or a plain loop, can do."""

import random
from dataclasses import dataclass
from typing import Any

import pytest
from engine_world import LARGE, SMALL, Requests, Script, World, device, fleet, in_child, log_of, request, wire

from edgellm import sim
from edgellm.sim.engine.run import RunTask
from edgellm.sim.examples import Batching, Bundle, Hedge, TrainTogether, ring, tree
from edgellm.sim.fleet import Fleet, Link, Node


def near(x: float) -> Any:
    return pytest.approx(x, abs=1e-7)


# Continuous batching.


def step_s(tokens, contexts):
    """Seconds of a step: its start, what it computes, what it attends to."""
    attended = sum(n * (c + n / 2) for n, c in zip(tokens, contexts, strict=True))
    return 0.05 + 0.001 * sum(tokens) + 1e-5 * attended


@dataclass(frozen=True)
class Batches(World):
    """A world whose steps take `step_s`."""

    def work_time_s(self, node, work):
        if isinstance(work, sim.Step):
            return step_s(work.new_tokens, work.contexts)
        return super().work_time_s(node, work)


def token_by_token(specs, ram_positions, most, chunk, latency_s):
    """(first token, answer, prompt chunks of one token) of every request: a server as a loop over steps."""
    todo = sorted((s.arrival_s + latency_s, s.id) for s in specs)
    spec = {s.id: s for s in specs}
    now_s, line, slots, out = 0.0, [], {}, {s.id: [None, None, 0] for s in specs}
    while todo or line or slots:
        if not line and not slots:
            now_s = max(now_s, todo[0][0])
        while todo and todo[0][0] <= now_s:
            line.append(todo.pop(0)[1])
        while line and len(slots) < most:
            whole = spec[line[0]].prompt_tokens + spec[line[0]].output_tokens
            if whole > ram_positions:
                out[line.pop(0)] = ["does not fit", now_s + latency_s, 0]
            elif sum(slot["whole"] for slot in slots.values()) + whole <= ram_positions:
                slots[line.pop(0)] = {"whole": whole, "read": 0, "said": 0}
            else:
                break
        tokens, contexts, ids, left = [], [], [], chunk
        for i, slot in slots.items():
            missing = spec[i].prompt_tokens - slot["read"]
            if missing > 0 and left > 0:
                take = min(missing, left)
                left -= take
            elif missing > 0:
                continue
            else:
                take = 1
            tokens.append(take)
            contexts.append(slot["read"] + slot["said"])
            ids.append(i)
        if not ids:
            continue
        now_s += step_s(tokens, contexts)
        for i, take in zip(ids, tokens, strict=True):
            slot = slots[i]
            if slot["read"] < spec[i].prompt_tokens:
                slot["read"] += take
                out[i][2] += take == 1  # looks like a decoded token
                continue
            slot["said"] += 1
            if slot["said"] == 1:
                out[i][0] = now_s + latency_s - spec[i].arrival_s
            if slot["said"] == spec[i].output_tokens:
                out[i][1] = now_s + latency_s - spec[i].arrival_s
                del slots[i]
    return out


@pytest.mark.parametrize("seed", range(8))
def test_batching_server_agrees_with_a_loop_over_its_steps(seed):
    rnd = random.Random(seed)
    ram = rnd.choice((400, 700, 9000))
    most, chunk = rnd.choice((1, 3, 8)), rnd.choice((7, 32, 500))
    specs, t = [], 0.0
    for i in range(60):
        t += rnd.expovariate(2.0)
        prompt, output = rnd.randint(1, 120), rnd.randint(1, 60)
        specs.append(
            request(
                i,
                t,
                node=f"home/device{i % 2}",
                prompt_tokens=prompt * (9 if i == 30 else 1),
                output_tokens=output,
                prompt_bytes=0,
                answer_bytes=0,
                model=LARGE,
            )
        )
    world = fleet(cloud=device("server", ram_bytes=1000.0 + ram, usd_per_hour=3600.0))
    scenario = Batches(fleet=world, workload=Requests(tuple(specs)), duration_s=1000.0)
    result = in_child(RunTask(scenario, Batching(most=most, chunk=chunk), 1, {}))
    expected = token_by_token(specs, ram, most, chunk, 0.03)
    columns = result.requests
    for i, id_ in enumerate(columns["id"]):
        first_s, end_s, alike = expected[int(id_)]
        if first_s == "does not fit":
            assert columns["reason"][i] == "model does not fit"
        else:
            assert columns["first_token_s"][i] == near(first_s)
            assert columns["e2e_s"][i] == near(end_s)
            assert columns["tokens_wasted"][i] == alike
    served = {int(i): expected[int(i)][0] != "does not fit" for i in columns["id"]}
    busy_s = result.nodes["busy_s"][list(result.nodes["node"]).index("cloud/server")]
    assert columns["cloud_s"].sum() == near(busy_s)  # split among those in the batch, and whole
    assert sum(served.values()) == sum(status == "ok" for status in columns["status"])


# All-reduce.


def star(n, **changes):
    """Members under one switch, each on its own link."""
    nodes = [Node("home/switch", "home", "gateway", 0, device("switch"), (), None, "home")]
    links = []
    for i in range(n):
        name = f"home/device{i}"
        nodes.append(Node(name, "home", "device", i, device(), (SMALL,), "home/switch", "home"))
        links.append(Link(f"{name}>switch", wire("lan", **changes), name, "home/switch"))
    return Fleet(tuple(nodes), tuple(links))


def together(n, member):
    """Run `member(here, names)` on n nodes; their results and dates, and the run."""
    done = {}

    def setup(fleet):
        names = [here.name for here in fleet.of_role("device")]
        for here in fleet.of_role("device"):
            done[here.name] = here.spawn(member(here, names))

    def handle(req, here, log):
        for task in done.values():
            log((yield task))

    specs = Requests((request(),))
    result = in_child(RunTask(World(fleet=star(n), workload=specs), Script(handle, setup), 1, {}))
    return log_of(result), result


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_ring_takes_its_time_and_its_bytes(n):
    def member(here, names):
        rank = names.index(here.name)
        return (yield from ring(here, names, [100 * rank + i for i in range(n)], 8000.0))

    seen, result = together(n, member)
    total = [sum(100 * rank + i for rank in range(n)) for i in range(n)]
    assert [value for _, value in seen] == [total] * n
    # each message crosses two links at 1000 byte/s, 0.01 s each
    assert seen[-1][0] == near(2 * (n - 1) * 2 * (0.01 + 8000.0 / n / 1000.0))
    share = 2 * (n - 1) / n * 8000.0
    assert list(result.links["bytes_up"]) == pytest.approx([share] * n)
    assert list(result.links["bytes_down"]) == pytest.approx([share] * n)


@pytest.mark.parametrize(("n", "levels"), [(1, 0), (3, 1), (7, 2), (15, 3)])
def test_tree_takes_its_time_and_its_bytes(n, levels):
    def member(here, names):
        return (yield from tree(here, names, names.index(here.name), 1000.0))

    seen, result = together(n, member)
    assert [value for _, value in seen] == [sum(range(n))] * n
    # two children send at once: their own links 1 s each, then they share their parent's for 2 s; and back
    assert seen[-1][0] == near(2 * levels * (0.01 + 1.0 + 0.01 + 2.0))
    assert result.links["bytes_up"].sum() == near(2 * (n - 1) * 1000.0)
    assert result.links["bytes_down"].sum() == near(2 * (n - 1) * 1000.0)


@pytest.mark.parametrize(("along", "round_s"), [("ring", 2 * (2 * 0.01 + 0.5 + 0.5)), ("tree", 4 * 1.01)])
def test_training_together_goes_on_beside_requests(along, round_s):
    strategy = TrainTogether(SMALL, nbytes=1000.0, tokens=10, period_s=30.0, along=along)
    scenario = World(fleet=star(2), workload=Requests((request(0, 95.0),)), duration_s=100.0)
    result = in_child(RunTask(scenario, strategy, 1, {}))
    assert list(result.requests["status"]) == ["ok"]
    assert result.links["bytes_up"].sum() == near(3 * 2 * 1000.0)
    busy = dict(zip(result.nodes["node"], result.nodes["busy_s"], strict=True))
    assert busy["home/device1"] == near(3 * 0.1)
    assert busy["home/device0"] == near(3 * 0.1 + 0.6)
    assert round_s < 30.0


# Hedging.


def test_hedge_pays_for_a_second_node_only_when_the_first_is_slow():
    specs = [request(0, 0.0), request(1, 50.0, output_tokens=40)]
    scenario = World(fleet=fleet(), workload=Requests(tuple(specs)))
    columns = in_child(RunTask(scenario, Hedge(patience_s=2.0), 1, {})).requests
    assert columns["e2e_s"][0] == near(0.6)
    assert (columns["bytes_up"][0], columns["cloud_s"][0]) == (0.0, 0.0)
    assert columns["e2e_s"][1] == near(0.1 + 4.0)  # the device is there first: 2 + 0.33 + 4.1 from the cloud
    assert columns["cloud_s"][1] == near(4.1 - 2.0 - 0.23 + 0.03)  # until word of it arrives


def test_hedge_survives_a_device_that_dies():
    world = fleet(device_=device(battery_j=100.0))
    scenario = World(fleet=world, workload=Requests((request(0, 10.0, output_tokens=400),)))
    columns = in_child(RunTask(scenario, Hedge(patience_s=2.0), 1, {})).requests
    assert list(columns["reason"]) == ["battery empty"]  # its own handler dies with it


# A periodic job.


def test_bundle_sends_what_waits_in_one_message():
    specs = [request(i, 10.0 * i + 1) for i in range(5)] + [request(5, 61.0)]
    scenario = World(fleet=fleet(), workload=Requests(tuple(specs)), duration_s=200.0)
    result = in_child(RunTask(scenario, Bundle(period_s=60.0), 1, {}))
    columns = result.requests
    # five prompts in one message of 500 bytes, five answers of 0.6 s each, 250 bytes back
    first_s = 60.0 + 0.01 + 0.5 + 5 * 0.6 + 0.01 + 0.25
    assert [a + e for a, e in zip(columns["arrival_s"][:5], columns["e2e_s"][:5], strict=True)] == [
        near(first_s)
    ] * 5
    assert columns["arrival_s"][5] + columns["e2e_s"][5] == near(120.0 + 0.01 + 0.1 + 0.6 + 0.01 + 0.05)
    assert columns["energy_j"].sum() == near(6 * 0.6 * 3.0)  # nobody is charged for the message
    paid_j = columns["energy_j"].sum() + result.nodes["unattributed_energy_j"].sum()
    assert paid_j == near(result.nodes["active_energy_j"].sum())
