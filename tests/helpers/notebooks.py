"""Notebooks as tests: how they are committed, and what they show when they run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest


def committed_code(notebook: Path) -> list[Any]:
    """The code cells of a notebook that is small and was committed without outputs."""
    book = nbformat.read(notebook, as_version=4)
    nbformat.validate(book)
    assert len(book.cells) <= 40
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    return code


def run(
    notebook: Path, model: Path | None, folder: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: int
) -> tuple[list[Any], str]:
    """Outputs of a notebook run in `folder`, with `model` (or none) in a cache of its own, and their text."""
    if model is not None:
        cache = folder / "cache" / "edgellm" / "models" / model.parent.name
        cache.mkdir(parents=True)
        try:
            os.link(model, cache / model.name)
        except OSError:  # another file system
            shutil.copyfile(model, cache / model.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return run_without_model(notebook, folder, timeout_s)


def run_without_model(notebook: Path, folder: Path, timeout_s: int) -> tuple[list[Any], str]:
    """Outputs of a notebook run in `folder`, and their text."""
    book = nbformat.read(notebook, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=timeout_s, kernel_name="python3", resources=where).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [o for o in shown if o.output_type == "error"]
    return shown, "\n".join(
        str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in shown
    )
