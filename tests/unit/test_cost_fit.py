from dataclasses import replace

import pytest

from edgellm import cost
from edgellm.cost.fit import Observation, fit_device


def test_fit_recovers_the_parameters_that_made_the_times() -> None:
    pi = cost.load_device("raspberry-pi-5")
    truth = replace(
        pi,
        bandwidth_decode_bytes_per_s=cost.Constant(5e9, "", ""),
        bandwidth_prefill_bytes_per_s=cost.Constant(5e9, "", ""),
        layer_overhead_s=cost.Constant(4e-4, "", ""),
        ops_per_s=cost.Constant(7e10, "", ""),
        attention_ops_per_s=cost.Constant(3e9, "", ""),
    )

    def point(model: str, tokens: int, context: int) -> Observation:
        profile = cost.load_model(model)
        time_s = cost.step_time_s(profile, "q4_0", truth, [tokens], [context])
        return Observation(profile, "q4_0", tokens, context, time_s)

    points = [
        point("smollm2-135m", 1, 10),
        point("smollm2-135m", 1, 2000),
        point("qwen2.5-0.5b", 1, 10),
        point("qwen2.5-0.5b", 300, 0),
    ]
    names = ("bandwidth", "layer_overhead", "ops", "attention")
    got = fit_device(pi, points, names)
    for key in ("bandwidth_decode_bytes_per_s", "layer_overhead_s", "ops_per_s", "attention_ops_per_s"):
        assert getattr(got, key).value == pytest.approx(getattr(truth, key).value, rel=1e-3)
        found = getattr(got, key)
        assert found.low < found.value < found.high
    assert got.bandwidth_decode_bytes_per_s.high < 1.1 * got.bandwidth_decode_bytes_per_s.value
    assert max(abs(p.error(got)) for p in points) <= 1e-4
    with pytest.raises(ValueError, match="4 parameters need as many observations"):
        fit_device(pi, points[:3], names)
    with pytest.raises(ValueError, match="unknown parameter 'speed'"):
        fit_device(pi, points, ["speed"])
