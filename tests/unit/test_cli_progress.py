"""What people see while they wait."""

import io
import sys
import time
from typing import Any

import pytest

from edgellm import _progress
from edgellm._progress import Progress, patience


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def attach(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal; within the test, as pytest sets it anew after the fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_patience_speaks_only_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    err = attach(monkeypatch)
    with patience("working", after_s=30.0):
        pass
    assert err.getvalue() == ""
    with patience("working", after_s=0.0):
        for _ in range(1000):
            if err.getvalue():
                break
            time.sleep(0.01)
    assert err.getvalue() == "[working]\n"


def test_progress_without_a_terminal_is_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with Progress("file", 100_000_000) as bar:
        for second in range(10):
            now[0] = float(second)
            bar.advance(10_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "file: 20.0 of 100.0 MB (20 %)"
    assert lines[-1] == "file: 100.0 of 100.0 MB (100 %)"
    assert 4 <= len(lines) <= 6


def test_progress_of_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("file", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == ""


def test_progress_works_on_a_terminal_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    err = attach(monkeypatch)

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(_progress.importlib, "import_module", missing)
    with Progress("file", None, unit="tokens") as bar:
        bar.advance(3)
        bar._next_line_s = 0.0
        bar.advance(2)
    assert err.getvalue() == "file: 5 tokens\n"
