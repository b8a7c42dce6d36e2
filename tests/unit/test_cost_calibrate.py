"""Calibration against a fake engine whose clock is a roofline: what comes out must be what went in."""

import os
import threading
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgellm import cost
from edgellm.cost import calibrate as calibrate_module
from edgellm.cost import machine, measure, stress
from edgellm.cost.calibrate import Calibration, calibrate, steps, thread_counts
from edgellm.cost.probe import PROBE, PROBE_QUANT, second_model, write_synthetic
from edgellm.cost.profile_file import profile_toml, write_profile

SMOL = cost.load_model("smollm2-135m")
QUANT = "q4_1"


def _truth(threads: int) -> cost.DeviceProfile:
    def rate(value: float) -> cost.Constant:
        return cost.Constant(value, "", "truth")

    return replace(
        cost.load_device("n100-mini-pc"),
        bandwidth_decode_bytes_per_s=rate(4e9 * threads),
        bandwidth_prefill_bytes_per_s=rate(4e9 * threads),
        ops_per_s=rate(3e10 * threads),
        attention_ops_per_s=rate(2e9 * threads),
        layer_overhead_s=rate(3e-5),
        host_overhead_s=rate(0.0),
        format_bandwidth={"q4_0": rate(1.5), "q8_0": rate(0.8)},
        format_ops={"q4_0": rate(0.7), "q8_0": rate(1.2)},
    )


class FakeClock:
    """Seconds that only the fake engine moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeModel:
    """A model that takes the time the roofline says."""

    def __init__(
        self, clock: FakeClock, shape: cost.ModelProfile, quant: str, threads: int, context: int
    ) -> None:
        self.clock, self.shape, self.quant, self.device = clock, shape, quant, _truth(threads)
        self.config = SimpleNamespace(
            layers=shape.layers, width=shape.width, heads=shape.heads, kv_heads=shape.kv_heads,
            head_dim=shape.head_dim, ffn=shape.ffn, vocab=shape.vocab, tied=shape.tied, context=context,
        )  # fmt: skip
        self.length = self.limit = 0
        self.closed = False

    def plan(self, context: int) -> Any:
        return SimpleNamespace(weights_bytes=self.shape.weight_bytes(self.quant))

    def session(self, context: int) -> "FakeModel":
        self.length, self.limit = 0, context
        return self

    def eval(self, ids: Sequence[int], logits: str = "last") -> Any:
        assert len(ids) > 0
        assert self.length + len(ids) <= self.limit, "more tokens than the session holds"
        assert all(0 <= i < self.shape.vocab for i in ids)
        self.clock.now += cost.step_time_s(self.shape, self.quant, self.device, [len(ids)], [self.length])
        self.length += len(ids)
        return np.zeros(self.shape.vocab, np.float32)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= self.length
        self.length = length

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(machine, "memcpy_bytes_per_s", lambda: (5e9, 4e9, 6e9))
    monkeypatch.setattr(machine, "storage_bytes_per_s", lambda path: None)
    monkeypatch.setattr(machine, "rapl_counters", lambda: ())
    monkeypatch.setattr(machine, "installed_bytes", lambda: 16 << 30)
    monkeypatch.setattr(calibrate_module, "_RESAMPLES", 3)
    together = stress.Together((0.62, 0.6), (0.63, 0.6))
    monkeypatch.setattr(calibrate_module, "measure_together", lambda *args: together)
    return clock


def _run(clock: FakeClock, *, context: int = 8192, **more: Any) -> tuple[Calibration, list[FakeModel]]:
    models: list[FakeModel] = []

    def load(path: str, threads: int) -> FakeModel:
        shape, quant = (SMOL, QUANT)
        if path.endswith("probe.gguf"):
            shape, quant = PROBE, PROBE_QUANT
        elif "second" in path:
            shape, quant = second_model(16 << 30), path.rpartition("-")[2][: -len(".gguf")]
        models.append(FakeModel(clock, shape, quant, threads, context))
        return models[-1]

    return calibrate("/models/smol.gguf", load, threads=more.pop("threads", 4), **more), models


def test_calibrate_recovers_the_machine_behind_the_times(clock: FakeClock) -> None:
    result, models = _run(clock)
    truth = _truth(4)
    for key in (
        "bandwidth_decode_bytes_per_s",
        "bandwidth_prefill_bytes_per_s",
        "ops_per_s",
        "attention_ops_per_s",
        "layer_overhead_s",
    ):
        assert getattr(result.profile, key).value == pytest.approx(getattr(truth, key).value, rel=0.03), key
    of_formats = [f"{what}, {q}" for what in ("decode at 128", "prefill of 32") for q in ("q4_0", "q8_0")]
    assert sorted(result.held_out) == sorted(["decode at 200", "prefill of 64", *of_formats])
    assert all(abs(error) <= 0.03 for error in [*result.held_out.values(), *result.fitted.values()])
    assert {p.threads for p in result.points} == {1, 2, 3, 4}
    assert all(model.closed for model in models)


@pytest.mark.parametrize("context", [64, 128, 512])
def test_calibrate_stays_within_a_short_context(clock: FakeClock, context: int) -> None:
    result, _ = _run(clock, context=context)
    assert all(p.context + p.tokens <= context for p in result.points if p.model == "")


def test_calibrate_on_a_slow_machine_takes_shorter_prompts(clock: FakeClock) -> None:
    quick, _ = _run(clock)
    before = clock.now
    slow, _ = _run(clock, budget_s=2.0)
    assert clock.now - before <= 8.0
    assert max(p.tokens for p in slow.points) < max(p.tokens for p in quick.points)


def test_calibrate_says_what_is_guessed(clock: FakeClock) -> None:
    result, _ = _run(clock)
    guessed = {key for key, constant in result.profile.constants() if constant.guess}
    assert {"idle_w", "active_w", "storage_bytes_per_s", "price_usd", "host_overhead_s"} <= guessed
    told, _ = _run(clock, idle_w=3.0, active_w=9.0, price_usd=50.0)
    constants = dict(told.profile.constants())
    assert (constants["idle_w"].value, constants["active_w"].value) == (3.0, 9.0)
    assert not constants["idle_w"].guess
    assert not constants["price_usd"].guess


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"budget_s": 0.0}, "budget"),
        ({"threads": 0}, "threads"),
        ({"idle_w": -1.0}, "idle power must be positive"),
        ({"idle_w": 9.0, "active_w": 3.0}, "below idle power"),
    ],
)
def test_calibrate_with_bad_numbers_fails_before_it_measures(
    clock: FakeClock, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _run(clock, **more)
    assert clock.now == 0.0


def test_profile_written_is_read_back_as_this_machine(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(cost.ProfileError, match="run: edgellm calibrate"):
        cost.load_device("this-machine")
    result, _ = _run(clock, stamp={"numerics": "1", "odd": 'quote " \\ \x7f 中'})
    path = write_profile(result.profile)
    assert path == tmp_path / "edgellm" / "profiles" / "this-machine.toml"
    back = cost.load_device("this-machine")
    assert dict(back.constants()) == {
        key: replace(constant, unit=dict(back.constants())[key].unit)
        for key, constant in result.profile.constants()
    }
    assert dict(back.stamp) == dict(result.profile.stamp)
    assert back.stamp["odd"] == 'quote " \\ \x7f 中'
    assert [p.name for p in path.parent.iterdir()] == ["this-machine.toml"]


def test_profile_that_cannot_be_written_leaves_nothing(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = _run(clock)
    target = tmp_path / "mine.toml"
    target.write_text("before")
    broken = replace(result.profile, cores=cost.Constant(-1.0, "count", "nobody"))
    with pytest.raises(cost.ProfileError, match="cores"):
        write_profile(broken, target)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_profile(result.profile, target)
    assert target.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]


def test_profile_toml_is_valid(clock: FakeClock) -> None:
    result, _ = _run(clock)
    assert tomllib.loads(profile_toml(result.profile))["name"] == "this-machine"


def _counters(*values: int) -> tuple[machine.Counter, ...]:
    return tuple(machine.Counter(f"package-{i}", value, 1000) for i, value in enumerate(values))


def test_watts_follow_the_counters_across_a_wrap() -> None:
    assert machine.watts_between(_counters(100, 900), _counters(400, 100), 2.0) == pytest.approx(250e-6)
    assert machine.watts_between((), (), 1.0) is None
    assert machine.watts_between(_counters(1), _counters(1, 2), 1.0) is None


def test_rapl_counters_of_a_folder(tmp_path: Path) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    for name, text in (("name", "package-0\n"), ("energy_uj", "123\n"), ("max_energy_range_uj", "1000\n")):
        (package / name).write_text(text)
    (tmp_path / "intel-rapl:1").mkdir()  # unreadable: left out
    assert machine.rapl_counters(tmp_path) == (machine.Counter("intel-rapl:0 package-0", 123, 1000),)
    assert machine.rapl_counters(tmp_path / "absent") == ()


def test_memcpy_is_positive_and_its_spread_holds_it() -> None:
    middle, low, high = machine.memcpy_bytes_per_s(repeats=3)
    assert 0 < low <= middle <= high < 1e13


def test_storage_of_an_absent_file_is_unknown(tmp_path: Path) -> None:
    assert machine.storage_bytes_per_s(str(tmp_path / "absent")) is None


def test_probe_is_a_model_that_the_engine_runs(tmp_path: Path) -> None:
    import edgellm

    path = tmp_path / "probe.gguf"
    with path.open("wb") as file:
        write_synthetic(file, PROBE, PROBE_QUANT)
    with edgellm.load(str(path), threads=1) as model:
        for key in ("layers", "width", "heads", "kv_heads", "head_dim", "ffn", "vocab", "tied"):
            assert getattr(model.config, key) == getattr(PROBE, key), key
        assert np.all(np.isfinite(model.session(16).eval([5, 6])))


def test_profile_of_a_busy_machine_says_so(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (7.25, 0.0, 0.0))
    assert "load 7.2 on 2 cores" in machine.busy(2)
    assert "kept the machine busy" in _run(clock)[0].profile.notes or machine.usable_cores() > 14
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    assert machine.busy(2) == ""
    assert _run(clock)[0].profile.notes == ""


def test_calibration_carries_threads_formats_and_work_at_once(clock: FakeClock) -> None:
    profile = _run(clock)[0].profile
    assert sorted(profile.threads) == [1, 2, 3, 4]
    assert profile.threads[4].value == 1.0
    assert profile.threads[1].value == pytest.approx(4.0, rel=0.1)
    truth = _truth(4)
    for table in ("format_bandwidth", "format_ops"):
        for quant, factor in getattr(truth, table).items():
            assert getattr(profile, table)[quant].value == pytest.approx(factor.value, rel=0.05), (
                table,
                quant,
            )
    assert profile.occupancy is not None
    assert profile.occupancy.value == pytest.approx(1 / 0.6125 - 1, abs=0.02)
    assert profile.runtime == "edgellm"
    assert profile.firmware == machine.kernel()


def test_every_fitted_constant_has_an_interval_that_holds_the_error(clock: FakeClock) -> None:
    result, _ = _run(clock)
    worst = max(abs(error) for error in result.held_out.values())
    for key, constant in result.profile.constants():
        if "fitted to smol.gguf" not in constant.source or key.startswith("threads"):
            continue
        assert constant.low is not None, key
        assert constant.high is not None, key
        assert constant.low <= constant.value <= constant.high
        if key != "occupancy":
            assert constant.high >= constant.value * (1 + worst) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("threads", "quick", "soak_s"), [(1, False, 0), (4, False, 0), (8, True, 0), (2, True, 5)]
)
def test_steps_are_as_many_as_things_reported(
    clock: FakeClock, threads: int, quick: bool, soak_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    soak = stress.Soak((1.0, 2.0), (10.0, 10.0), (None, None))

    def soaked(*args: Any) -> stress.Soak:
        args[-1]("soak")
        return soak

    def at_once(*args: Any) -> stress.Together:
        args[-1]("at once")
        return stress.Together((0.5,), (0.5,))

    monkeypatch.setattr(calibrate_module, "measure_soak", soaked)
    monkeypatch.setattr(calibrate_module, "measure_together", at_once)
    result, _ = _run(clock, threads=threads, quick=quick, soak_s=soak_s, report=lines.append)
    assert len(lines) == steps(threads, quick, soak_s)
    assert sorted({p.threads for p in result.points}) == sorted(
        [*(thread_counts(threads)[:1] if quick else thread_counts(threads)), threads]
    )
    assert (result.profile.occupancy is None) == quick
    assert ("soak, sustained share of the pace" in result.profile.stamp) == bool(soak_s)


def test_calibrate_that_is_stopped_closes_its_models(clock: FakeClock) -> None:
    models: list[FakeModel] = []

    def load(path: str, threads: int) -> FakeModel:
        models.append(FakeModel(clock, SMOL, QUANT, threads, 512))
        return models[-1]

    def stop(line: str) -> None:
        if line.startswith("decode"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate("/models/smol.gguf", load, threads=2, report=stop)
    assert models
    assert all(model.closed for model in models)


def _soak(rates: list[float], degrees: list[float | None]) -> stress.Soak:
    return stress.Soak(tuple(10.0 * (i + 1) for i in range(len(rates))), tuple(rates), tuple(degrees))


def test_soak_that_slows_down_gives_heat_and_pace() -> None:
    # 5 W more than idle, 8 K/W, 12 J/K: the chip rises by 40 K with a time constant of 96 s
    degrees: list[float | None] = [40 + 40 * (1 - np.exp(-10.0 * (i + 1) / 96.0)) for i in range(40)]
    rates = [100.0 if celsius is not None and celsius < 70 else 60.0 for celsius in degrees]
    soak = _soak(rates, degrees)
    assert soak.sustained == pytest.approx(0.6)
    heat = soak.heat(5.0)
    assert heat is not None
    assert heat[0] == pytest.approx(8.0, rel=0.15)
    assert heat[0] * heat[1] == pytest.approx(96.0, rel=0.3)
    assert heat[2] == pytest.approx(70.0, abs=2.5)
    assert _soak([100.0] * 10, [40.0 + i for i in range(10)]).heat(5.0) is None
    assert _soak(rates, [None] * 40).heat(5.0) is None


def test_profile_of_a_soak_has_its_heat(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    degrees: list[float | None] = [40.0 + min(i, 30) for i in range(40)]
    soak = _soak([100.0] * 20 + [70.0] * 20, degrees)
    monkeypatch.setattr(calibrate_module, "measure_soak", lambda *args: soak)
    result, _ = _run(clock, soak_s=60.0, idle_w=3.0, active_w=9.0)
    assert result.profile.thermal is not None
    assert result.profile.thermal.factor.value == pytest.approx(0.7)
    assert not result.profile.thermal.r_k_per_w.guess
    path = write_profile(result.profile, tmp_path / "hot.toml")
    back = cost.load_device(str(path))
    assert back.thermal is not None
    assert back.thermal.throttle_c.value == result.profile.thermal.throttle_c.value
    assert dict(back.threads).keys() == dict(result.profile.threads).keys()
    assert back.runtime == "edgellm"


class SleepyModel:
    """A model whose step takes a moment of real time, on a processor that only one may use."""

    config = SimpleNamespace(context=128, vocab=100)

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock

    def session(self, context: int) -> "SleepyModel":
        return self

    def eval(self, ids: Sequence[int], logits: str = "last") -> None:
        with self.lock:
            time.sleep(0.001)

    def truncate(self, length: int) -> None:
        pass

    def close(self) -> None:
        pass


def _together(load: Any) -> stress.Together:
    return stress.measure_together("m", load, 1, 0.6, lambda line: None, 2)


def test_work_at_once_is_compared_with_work_alone() -> None:
    shared = threading.Lock()
    together = _together(lambda *_: SleepyModel(shared))
    assert len(together.prefill) == len(together.decode) == 2
    assert together.occupancy()[0] > 0.3
    apart = stress.measure_together(
        "m", lambda *_: SleepyModel(threading.Lock()), 1, 0.6, lambda line: None, 2
    )
    assert apart.occupancy()[0] < together.occupancy()[0]


def test_work_at_once_that_fails_raises_its_error() -> None:
    class Broken(SleepyModel):
        steps = 0

        def eval(self, ids: Sequence[int], logits: str = "last") -> None:
            self.steps += 1
            if self.steps > 3:
                raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        stress.measure_together("m", lambda *_: Broken(threading.Lock()), 1, 5.0, lambda line: None)


def test_temperature_is_that_of_the_hottest_plausible_zone(tmp_path: Path) -> None:
    for name, text in (("thermal_zone0", "41000"), ("thermal_zone1", "55500"), ("thermal_zone2", "999000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "temp").write_text(text)
    (tmp_path / "thermal_zone3").mkdir()
    assert stress.celsius(tmp_path) == 55.5
    assert stress.celsius(tmp_path / "absent") is None


def test_second_model_is_one_that_the_engine_runs(tmp_path: Path) -> None:
    import edgellm

    shape = second_model(1e8)
    for quant in calibrate_module.FORMATS:
        points = measure.measure_format(
            shape, quant, lambda path, threads: edgellm.load(path, threads=threads), 1, lambda line: None
        )
        assert [p.model for p in points] == [quant] * 4
        assert all(p.seconds > 0 for p in points)


def test_noisy_times_leave_a_bandwidth_that_is_possible(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, quiet = np.random.default_rng(3), FakeModel.eval

    def noisy(self: FakeModel, ids: Sequence[int], logits: str = "last") -> Any:
        start = clock.now
        found = quiet(self, ids, logits)
        clock.now += (clock.now - start) * float(rng.exponential(0.4))
        return found

    monkeypatch.setattr(FakeModel, "eval", noisy)
    for _ in range(4):
        rate = _run(clock, quick=True)[0].profile.bandwidth_decode_bytes_per_s.value
        assert 0.3 <= rate / _truth(4).bandwidth_decode_bytes_per_s.value <= 3.0
