"""Spans of traced requests against a calculation by hand, and the file that Perfetto reads."""

import contextlib
import json
import math

import pytest
from engine_world import LARGE, SMALL, Requests, Script, World, device, fleet, in_child, request, simulated

from edgellm import sim
from edgellm.sim import Compute, Decode, Prefill, Study
from edgellm.sim.engine.run import RunTask
from edgellm.sim.engine.trace import Tracer
from edgellm.sim.study import StudyError

SCENARIO = {
    "schema": 1,
    "name": "traced",
    "duration": "10 min",
    "models": {"m:q4_0": {"profile": "smollm2-135m", "quant": "q4_0"}},
    "session": {"context": 512},
    "fleet": {
        "home": {
            "count": 3,
            "device": {
                "device": "raspberry-pi-5",
                "models": ["m:q4_0"],
                "uplink": {"to": "gateway", "link": "wifi-5", "group": "wifi"},
            },
            "gateway": {"device": "n100-mini-pc", "models": ["m:q4_0"]},
        }
    },
    "workload": {
        "day": {
            "at": "home/device",
            "arrivals": {"process": "poisson", "rate": "60 /h"},
            "kinds": {"question": {"model": "m:q4_0", "prompt_tokens": 30, "output_tokens": 20}},
        }
    },
}


def traced(strategy, *specs, trace=10, **world):
    """Spans of a simulation of the small world, without the id where there is one request."""
    world.setdefault("fleet", fleet())
    scenario = World(workload=Requests(specs or (request(),)), **world)
    return in_child(RunTask(scenario, strategy, 1, {}, trace))


def brief(result, request=0):
    return [
        (s.kind, s.where, round(s.start_s, 6), round(s.end_s, 6))
        for s in result.trace
        if s.request == request
    ]


def test_spans_of_a_local_answer_are_prefill_and_decode():
    assert brief(traced(sim.strategy.Local())) == [
        ("prefill", "home/device0", 0.0, 0.1),
        ("decode", "home/device0", 0.1, 0.6),
    ]


def test_spans_of_a_call_are_every_hop_the_service_and_its_work():
    # 100 bytes of 8000 bit/s are 0.1 s and 0.01 s of latency, 50 bytes on the way back half of that
    assert brief(traced(sim.strategy.Gateway())) == [
        ("transfer", "home/device0>gateway", 0.0, 0.11),
        ("service", "home/gateway", 0.11, 0.71),
        ("prefill", "home/gateway", 0.11, 0.21),
        ("decode", "home/gateway", 0.21, 0.71),
        ("transfer", "home/device0>gateway", 0.71, 0.77),
    ]


def test_waiting_for_memory_and_reading_weights_are_spans():
    def handle(req, here, log):
        yield here.run(Prefill(LARGE, 100))

    specs = [request(i) for i in range(2)]
    result = traced(
        Script(handle), *specs, fleet=fleet(device(ram_bytes=1150)), weights={SMALL: 100, LARGE: 1000}
    )
    assert brief(result, 0) == [("load", "home/device0", 0.0, 2.0), ("prefill", "home/device0", 2.0, 3.0)]
    assert brief(result, 1) == [("wait", "home/device0", 0.0, 3.0), ("prefill", "home/device0", 3.0, 4.0)]


def test_waiting_in_an_inbox_is_queueing_and_a_batch_is_paid_by_each():
    def serve(here):
        while True:
            call = yield here.recv("jobs")
            yield here.run(Compute(1.0), charge=[call.msg])
            call.reply("done")

    def setup(fleet_):
        hub = fleet_["home/gateway"]
        hub.inbox("jobs")
        hub.spawn(serve(hub), daemon=True)

    def handle(req, here, log):
        yield here.call("gateway", "jobs", req, 0)

    result = traced(Script(handle, setup), request(0), request(1))
    kinds = [[kind for kind, where, *_ in brief(result, i) if where == "home/gateway"] for i in (0, 1)]
    assert kinds == [["service", "compute"], ["service", "queue", "compute"]]
    (queue,) = (s for s in result.trace if s.kind == "queue")
    assert queue.end_s - queue.start_s == pytest.approx(1.0)


def test_a_cancelled_run_has_the_span_it_ran():
    def handle(req, here, log):
        with contextlib.suppress(sim.TimedOut):
            yield sim.within(here.run(Decode(SMALL, 100)), 0.35)

    assert brief(traced(Script(handle))) == [("decode", "home/device0", 0.0, 0.35)]


def test_tracing_changes_no_result_and_is_off_by_default():
    specs = [request(i, 0.05 * i) for i in range(20)]
    plain, seen = simulated(sim.strategy.Gateway(), *specs), traced(sim.strategy.Gateway(), *specs)
    assert plain.trace == []
    assert {s.request for s in seen.trace} == set(range(0, 20, 2))
    assert plain.events == seen.events
    for name, values in plain.requests.items():
        assert repr(list(values)) == repr(list(seen.requests[name])), name


def test_tracer_spreads_what_it_traces_over_the_run():
    tracer = Tracer(200, 1_000_000)
    kept = [i for i in range(1_000_000) if tracer.of(i) is not None]
    assert len(kept) == 200
    assert kept[-1] > 900_000
    assert all(Tracer(200, 7).of(i) is not None for i in range(7))


@pytest.fixture(scope="module")
def study():
    return sim.evaluate(SCENARIO, ["local", "gateway"], [1, 2], quality="off", progress=False)


def test_trace_file_follows_the_trace_event_format(study, tmp_path):
    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    text = study.trace(tmp_path / "trace.json").read_text(encoding="utf-8")
    data = json.loads(text, parse_constant=no_constant)
    events = data["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert any(name.startswith("home0/device (local, seed 1)") for name in names.values())
    assert any(name.startswith("home0/device/uplink (gateway, seed 1)") for name in names.values())
    slices = [e for e in events if e["ph"] != "M"]
    assert {e["ph"] for e in slices} == {"X"}
    tracks = {}
    for e in slices:
        assert set(e) == {"name", "cat", "ph", "pid", "tid", "ts", "dur", "args"}
        assert isinstance(e["name"], str)
        assert math.isfinite(e["ts"])
        assert e["ts"] >= 0
        assert e["dur"] >= 0
        assert e["pid"] in names
        assert (e["pid"], e["tid"]) in threads
        tracks.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
    for spans in tracks.values():  # slices of one thread follow or enclose each other
        spans.sort(key=lambda s: (s[0], -s[1]))
        open_ = []
        for start, end in spans:
            while open_ and open_[-1] <= start + 1e-3:
                open_.pop()
            assert not open_ or end <= open_[-1] + 1e-3
            open_.append(end)


def test_time_of_a_traced_request_is_its_latency(study):
    for run in study.runs:
        assert bool(run.trace) == (run.seed == 1)
        e2e_s = dict(zip(run.requests["id"].tolist(), run.requests["e2e_s"].tolist(), strict=True))
        arrival_s = dict(zip(run.requests["id"].tolist(), run.requests["arrival_s"].tolist(), strict=True))
        for i in {span[0] for span in run.trace}:
            ends = [span[4] for span in run.trace if span[0] == i]
            assert max(ends) - arrival_s[i] == pytest.approx(e2e_s[i])


def test_a_loaded_study_writes_the_same_trace(study, tmp_path):
    again = Study.load(study.save(tmp_path / "study.parquet"))
    assert again.trace(tmp_path / "a").read_bytes() == study.trace(tmp_path / "b").read_bytes()


def test_a_study_without_traces_says_so(study, tmp_path):
    bare = Study(study.meta, tuple(run for run in study.runs if not run.trace))
    with pytest.raises(StudyError, match="no run of this study was traced"):
        bare.trace(tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
