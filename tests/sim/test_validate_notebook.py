"""The notebook about validation runs from top to bottom, and what it says holds."""

from pathlib import Path

from tests.helpers.notebooks import committed_code, run_without_model

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04-validate.ipynb"


def test_validate_notebook_is_small_and_committed_without_outputs():
    committed_code(NOTEBOOK)


def test_validate_notebook_runs_and_its_checks_hold(tmp_path):
    shown, text = run_without_model(NOTEBOOK, tmp_path, timeout_s=300)
    assert "within the interval of 99.9 %: True" in text
    assert "same device, model and format" in text
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
