"""The pages cannot fall behind: links lead somewhere, commands and targets exist, code blocks are valid."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from edgellm.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
    if "results" not in page.parts
)
FENCE = re.compile(r"^```(\w+)?[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [code for name, code in found if name == language]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"`(?:\.venv/bin/)?edgellm ([a-z]+)\b", text)
    for block in blocks(page, "sh"):
        shown += re.findall(r"^(?:\.venv/bin/)?edgellm ([a-z]+)\b", block, re.MULTILINE)
    assert set(shown) <= set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_make_targets_exist(page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"`make ([a-z][\w-]*)`", text)
    for block in blocks(page, "sh"):
        shown += re.findall(r"^make ([a-z][\w-]*)", block, re.MULTILINE)
    assert set(shown) <= make_targets()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_blocks_are_python(page):
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_shell_blocks_are_shell(page):
    for block in blocks(page, "sh"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for line in block.splitlines():
            shlex.split(line, comments=True)


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in folder.glob("[0-9]*.md") if f"({p.name})" not in index] == []
    numbers = [p.name[:4] for p in folder.glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


def test_changelog_has_an_entry():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ", text, re.MULTILINE)
    assert re.search(r"^- ", text, re.MULTILINE)


def test_every_page_of_docs_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {p.name for p in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"({name})" not in index} == set()
