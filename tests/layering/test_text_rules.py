"""Rules of CONVENTIONS that any file can break."""

import ast
import re

import pytest
from rooms import ROOT, text_of, tracked_files

TEXTS = [p for p in tracked_files() if text_of(p) is not None]
CODE = [
    p
    for p in TEXTS
    if p.suffix in {".py", ".c", ".h", ".cpp", ".def", ".sh", ".toml", ".pyi"} or not p.suffix
]
HERE = {p for p in TEXTS if p.parent == ROOT / "tests" / "layering"}  # these files name what they forbid

RULES = {
    "the build must not depend on the machine": (TEXTS, r"-m(?:arch|cpu|tune)=native"),
    "the path of one machine": (TEXTS, r"(?<![\w.$~}])/(?:work|farm|root|tmp|home/\w+)/"),
    "the host of a registry": (TEXTS, r"\b(?:pypi\.org|pythonhosted\.org|deb\.debian\.org)\b"),
    "an open end without an issue number": (CODE, r"\b(?:TODO|FIXME|XXX)\b(?!\s*\(?#\d+)"),
    "unresolved conflict": (TEXTS, r"(?m)^(?:<{7}|>{7}) "),
    "trailing white space": (CODE, r"(?m)[ \t]+$"),
    "a tab (Makefiles apart)": ([p for p in CODE if p.name != "Makefile"], r"\t"),
}


@pytest.mark.parametrize("rule", RULES)
def test_no_file_breaks(rule):
    paths, pattern = RULES[rule]
    found = []
    for path in paths:
        if path in HERE:
            continue
        text = text_of(path) or ""
        for match in re.finditer(pattern, text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]!r}")
    assert found == []


def test_silenced_checkers_say_why():
    bare = re.compile(r"#\s*(?:type:\s*ignore(?:\[[^\]]*\])?|noqa(?::\s*[A-Z0-9, ]+)?)\s*$")
    found = []
    for path in TEXTS:
        if path.suffix in {".py", ".pyi"} and path not in HERE:
            lines = (text_of(path) or "").splitlines()
            found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if bare.search(line)]
    assert found == []


def test_tests_are_named_as_claims():
    short = []
    for path in TEXTS:
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests"):
            for node in ast.walk(ast.parse(text_of(path) or "")):
                if (
                    isinstance(node, ast.FunctionDef)
                    and node.name.startswith("test_")
                    and node.name.count("_") < 2
                ):
                    short.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert short == [], "test_<subject>_<claim>"


def test_no_test_asserts_time():
    """A busy machine must not fail the suite: speed is measured in benchmarks/."""
    found = []
    for path in TEXTS:
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests") and path not in HERE:
            for node in ast.walk(ast.parse(text_of(path) or "")):
                if isinstance(node, ast.Assert) and re.search(
                    r"perf_counter\(|monotonic\(", ast.unparse(node.test)
                ):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
