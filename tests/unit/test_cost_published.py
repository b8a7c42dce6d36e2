from dataclasses import replace
from pathlib import Path

import pytest

from edgellm import cost
from edgellm.cost.fit import Observation, fit_device
from edgellm.cost.published import calibration_table, predict, published_datasets

DOC = Path(__file__).parents[2] / "docs" / "calibration.md"


def test_calibration_doc_prints_what_the_code_predicts() -> None:
    text = DOC.read_text("utf-8")
    _, _, rest = text.partition("<!-- table: begin -->\n")
    table, _, _ = rest.partition("<!-- table: end -->\n")
    assert table == calibration_table(), "run: python benchmarks/calibration_table.py"


def test_published_rows_all_have_a_finite_error() -> None:
    for dataset in published_datasets():
        assert len(dataset.source) > 10
        for prediction in predict(dataset):
            assert -0.9 <= prediction.profile_error <= 2.0, f"{dataset.id}: {prediction.row}"


def test_attention_slope_of_a_pi_5_cluster_is_within_5_percent_when_fitted_to_its_ends() -> None:
    (dataset,) = [d for d in published_datasets() if d.id == "hellomatik-pi5"]
    errors = [p.fitted_error for p in predict(dataset) if not p.row.calibrates]
    assert len(errors) == 5
    assert all(e is not None and abs(e) <= 0.05 for e in errors)


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
    assert max(abs(p.error(got)) for p in points) <= 1e-4
    with pytest.raises(ValueError, match="4 parameters need as many observations"):
        fit_device(pi, points[:3], names)
    with pytest.raises(ValueError, match="unknown parameter 'speed'"):
        fit_device(pi, points, ["speed"])
