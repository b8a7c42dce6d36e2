"""The front page is true: its Python runs, and both halves fit in the twenty lines that it promises."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
readme = importlib.import_module("compare.readme")
page = importlib.import_module("compare.page")
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_readme_has_both_halves():
    assert len(BLOCKS) == 2
    assert "import edgellm" in BLOCKS[0]
    assert "sim.Strategy" in BLOCKS[1]


@pytest.mark.parametrize("block", BLOCKS, ids=["engine", "testbed"])
def test_block_fits_in_twenty_lines(block):
    assert len([line for line in block.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("block", BLOCKS, ids=["engine", "testbed"])
def test_block_runs_as_printed(block, smollm2, tmp_path, monkeypatch, capsys):
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


def test_engine_block_gives_the_same_bits_on_each_isa(smollm2, tmp_path, monkeypatch, capsys):
    """What the last lines of the block print must be equal, or the page lies."""
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[0][BLOCKS[0].index("for isa") :], "README.md", "exec"), engine_names(smollm2))
    shown = {line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()}
    assert len(shown) == 1


def engine_names(path: Path) -> dict[str, object]:
    import edgellm

    return {"edgellm": edgellm, "path": path}


def test_speed_on_the_front_page_is_what_was_measured():
    """A result is committed and the page has its paragraph, or none is and the page claims no figure."""
    folder = ROOT / "benchmarks" / "results"
    held = readme.MARKED.search(TEXT)
    assert held is not None
    names = re.findall(r"benchmarks/results/([\w-]+)\.md", held[1])
    if not list(folder.glob("compare-*.json")):
        assert names == []
        assert not re.search(r"\d", held[1])
        return
    assert len(names) == 1
    found = json.loads((folder / f"{names[0]}.json").read_text("utf-8"))
    assert found["complete"]
    assert held[1] == readme.paragraph(found, names[0])


def test_page_of_every_comparison_is_what_its_figures_give():
    for result in (ROOT / "benchmarks" / "results").glob("compare-*.json"):
        found = json.loads(result.read_text("utf-8"))
        assert result.with_suffix(".md").read_text("utf-8") == page.page(found)


def test_readme_states_its_limits():
    assert "## Limits" in TEXT
    assert "## When the first run fails" in TEXT
