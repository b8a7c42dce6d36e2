"""The notebook of the engine runs from top to bottom, with the real model, and shows what it says."""

import os
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02-the-engine.ipynb"


def test_engine_notebook_is_small_and_committed_without_outputs():
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert len(book.cells) <= 40
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.weights
def test_engine_notebook_runs_and_its_checks_hold(smollm2, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "edgellm" / "models" / smollm2.parent.name
    cache.mkdir(parents=True)
    try:
        os.link(smollm2, cache / smollm2.name)
    except OSError:  # another file system
        shutil.copyfile(smollm2, cache / smollm2.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    book = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=where).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [o for o in shown if o.output_type == "error"]
    text = "\n".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in shown)
    assert text.count("same bits: True") == 4
    for wanted in ("same text: True", "same bits on all: True", "tool_calls {'name': 'set_lamp'"):
        assert wanted in text
    assert text.count("refused:") == 2
    assert "False" not in text.replace("'on': False", "")
    assert any("<span title=" in o.get("data", {}).get("text/html", "") for o in shown)
