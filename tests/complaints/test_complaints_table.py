"""docs/complaints.md says which test answers which complaint; here it is held to that."""

import ast
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def rows(root) -> list[list[str]]:
    lines = (root / "docs" / "complaints.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture(scope="module")
def docstrings(root) -> dict[str, str]:
    """Every test of the folders that the table speaks of, and its docstring."""
    found = {}
    for path in [
        *Path(root, "tests", "complaints").glob("test_*.py"),
        *Path(root, "tests", "c").glob("test_*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = ast.get_docstring(node) or ""
    return found


def test_every_complaint_has_its_test(rows, docstrings):
    assert len(rows) > 30
    for where, threads, complaint, answer in rows:
        tests = re.findall(r"`(test_\w+)`", answer)
        if not tests:
            assert answer.startswith("none: "), complaint
            assert len(answer) > 20, complaint
        for test in tests:
            assert test in docstrings, f"{complaint}: there is no {test}"
            for thread in re.findall(r"\d+", threads):
                assert re.search(rf"\b{thread}\b", docstrings[test]), f"{test} does not name {where} {thread}"


def test_every_complaint_is_listed_once(rows):
    keys = [
        (where, thread, complaint) for where, threads, complaint, _ in rows for thread in threads.split(", ")
    ]
    assert len(set(keys)) == len(keys)


def test_every_test_that_names_a_thread_is_in_the_table(rows, docstrings):
    listed = " ".join(answer for *_, answer in rows)
    for test, docstring in docstrings.items():
        if re.search(r"CVE-\d{4}-\d+|\b(?:onnxruntime|executorch|LiteRT-LM|llama-cpp-python) \d+", docstring):
            assert f"`{test}`" in listed, test
