"""The notebook of the engine runs from top to bottom, with the real model, and shows what it says."""

from pathlib import Path

import pytest

from tests.helpers.notebooks import committed_code, run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02-the-engine.ipynb"


def test_engine_notebook_is_small_and_committed_without_outputs():
    committed_code(NOTEBOOK)


@pytest.mark.weights
def test_engine_notebook_runs_and_its_checks_hold(smollm2, tmp_path, monkeypatch):
    shown, text = run(NOTEBOOK, smollm2, tmp_path, monkeypatch, timeout_s=300)
    assert text.count("same bits: True") == 4
    for wanted in ("same text: True", "same bits on all: True", "tool_calls {'name': 'set_lamp'"):
        assert wanted in text
    assert text.count("refused:") == 2
    assert "False" not in text.replace("'on': False", "")
    assert any("<span title=" in o.get("data", {}).get("text/html", "") for o in shown)
