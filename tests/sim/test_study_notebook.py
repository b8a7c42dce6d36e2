"""The first notebook runs from top to bottom, with the real model, and shows what it says."""

import os
import re
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01-first-study.ipynb"


def test_notebook_is_small_and_committed_without_outputs():
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert len(book.cells) <= 40
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    own = next(cell.source for cell in code if "(sim.Strategy)" in cell.source)
    assert len(own.splitlines()) < 30


@pytest.mark.weights
def test_notebook_runs_and_shows_table_plot_and_report(smollm2, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "edgellm" / "models" / smollm2.parent.name
    cache.mkdir(parents=True)
    try:
        os.link(smollm2, cache / smollm2.name)
    except OSError:  # another file system
        shutil.copyfile(smollm2, cache / smollm2.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "scenarios").symlink_to(NOTEBOOK.parents[1] / "scenarios")
    book = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [o for o in shown if o.output_type == "error"]
    text = "\n".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in shown)
    for wanted in ("shortathome", "requantized from Q4_1", "unvalidated", "perplexity"):
        assert wanted in text
    assert sum("image/png" in o.get("data", {}) for o in shown) >= 2
    assert not re.search(r"\bUserWarning\b", text)
    assert (tmp_path / "out" / "first-study.html").stat().st_size > 100_000
    assert (tmp_path / "out" / "first-study.parquet").exists()
