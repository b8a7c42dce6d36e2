"""The first notebook runs from top to bottom, with the real model, and shows what it says."""

import re
from pathlib import Path

import pytest

from tests.helpers.notebooks import committed_code, run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01-first-study.ipynb"


def test_notebook_is_small_and_committed_without_outputs():
    code = committed_code(NOTEBOOK)
    own = next(cell.source for cell in code if "(sim.Strategy)" in cell.source)
    assert len(own.splitlines()) < 30


@pytest.mark.weights
def test_notebook_runs_and_shows_table_plot_and_report(smollm2, tmp_path, monkeypatch):
    (tmp_path / "scenarios").symlink_to(NOTEBOOK.parents[1] / "scenarios")
    shown, text = run(NOTEBOOK, smollm2, tmp_path, monkeypatch, timeout_s=600)
    for wanted in ("shortathome", "requantized from Q4_1", "unvalidated", "perplexity"):
        assert wanted in text
    assert sum("image/png" in o.get("data", {}) for o in shown) >= 2
    assert not re.search(r"\bUserWarning\b", text)
    assert (tmp_path / "out" / "first-study.html").stat().st_size > 100_000
    assert (tmp_path / "out" / "first-study.parquet").exists()
