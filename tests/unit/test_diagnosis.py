"""`edgellm.doctor` on a sound machine, and on one whose kernels disagree."""

from __future__ import annotations

import pytest

import edgellm
from edgellm import diagnosis


def test_doctor_finds_this_machine_sound() -> None:
    report = edgellm.doctor()
    assert report.ok, str(report)
    assert report.isas == tuple(edgellm.cpu.runnable_isas())
    assert report.kernels == edgellm.cpu.kernels()
    text = str(report)
    assert "All is well" in text
    assert all(op in text for op in report.kernels)


def test_doctor_names_the_run_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    true_digest = diagnosis._digest

    def digest(path, isa, threads, feed):
        odd = path.stem == "q8_0" and threads == 2
        return "odd" if odd else true_digest(path, "ref", 1, diagnosis._whole)

    monkeypatch.setattr(diagnosis, "_digest", digest)
    report = edgellm.doctor()
    assert not report.ok
    (bad,) = [check for check in report.checks if not check.ok]
    assert "q8_0" in bad.name
    assert "2 threads, token by token" in bad.detail
    assert "SOMETHING IS WRONG" in str(report)
