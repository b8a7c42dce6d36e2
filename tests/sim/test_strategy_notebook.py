"""The notebook on writing a strategy runs from top to bottom, without weights, and shows what it says."""

import json
from pathlib import Path

from tests.helpers.notebooks import committed_code, run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03-write-a-strategy.ipynb"


def test_strategy_notebook_is_small_and_committed_without_outputs():
    code = committed_code(NOTEBOOK)
    own = [cell.source for cell in code if "(sim.Strategy)" in cell.source]
    assert len(own) >= 3
    assert all(len(source.splitlines()) < 30 for source in own)
    assert all('quality="off"' in c.source for c in code if "sim.evaluate(" in c.source)


def test_strategy_notebook_compares_traces_and_shows_what_is_infeasible(tmp_path, monkeypatch):
    (tmp_path / "scenarios").symlink_to(NOTEBOOK.parents[1] / "scenarios")
    shown, text = run(NOTEBOOK, None, tmp_path, monkeypatch, timeout_s=300)
    for wanted in (
        "hedge", "better: local", "transfer", "bytes over lora-sf7 are", "too long for the radio",
        "strategy Broken raised AttributeError", "mine.toml:3: duration", "no winner",
    ):  # fmt: skip
        assert wanted in text
    assert sum("image/png" in o.get("data", {}) for o in shown) == 2
    assert json.loads((tmp_path / "out" / "hedge.json").read_text())["traceEvents"]
    assert (tmp_path / "out" / "hedge.html").stat().st_size > 100_000
