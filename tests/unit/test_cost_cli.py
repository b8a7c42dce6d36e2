import json
from pathlib import Path

import pytest

from edgellm.cli import main
from edgellm.cost.probe import PROBE, PROBE_QUANT, write_synthetic


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "0"],
        ["--budget-s", "0"],
        ["--budget-s", "nan"],
        ["--idle-w", "-1"],
        ["--active-w", "inf"],
        ["--price-usd", "-1"],
        ["--soak", "-1"],
        ["--colour", "red"],
    ],
)
def test_calibrate_with_bad_usage_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments]) == 2
    assert "error" in capsys.readouterr().err


def test_calibrate_of_a_file_that_is_no_model_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, or not")
    out = tmp_path / "mine.toml"
    assert main(["calibrate", str(tmp_path / "bad.gguf"), "--out", str(out)]) == 1
    assert "bad.gguf" in capsys.readouterr().err
    assert not out.exists()


def test_calibrate_writes_a_profile_and_prints_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the probe itself is the smallest model there is: the profile is nonsense, the path through is whole
    path, out = tmp_path / "small.gguf", tmp_path / "mine.toml"
    with path.open("wb") as file:
        write_synthetic(file, PROBE, PROBE_QUANT)
    arguments = ["--quick", "--budget-s", "1", "--idle-w", "3", "--active-w", "9", "--threads", "1", "--json"]
    assert main(["calibrate", str(path), "--out", str(out), *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["profile"] == str(out)
    assert printed["constants"]["idle_w"] == 3.0
    assert "idle_w" not in printed["guessed"]
    assert len(printed["held_out_errors"]) == 2
    low, high = printed["intervals"]["bandwidth_decode_bytes_per_s"]
    assert low <= printed["constants"]["bandwidth_decode_bytes_per_s"] <= high
    assert out.exists()
