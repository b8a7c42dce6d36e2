"""`edgellm.doctor` on a sound machine, and on one whose kernels disagree."""

from __future__ import annotations

import numpy as np
import pytest

import edgellm
from edgellm import _kernel_proof, _testing, diagnosis


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
        return "odd" if odd else true_digest(path, "ref", 1, diagnosis.WAYS[0][2])

    monkeypatch.setattr(diagnosis, "_digest", digest)
    report = edgellm.doctor()
    assert not report.ok
    (bad,) = [check for check in report.checks if not check.ok]
    assert "q8_0" in bad.name
    assert "2 threads, token by token" in bad.detail
    assert "SOMETHING IS WRONG" in str(report)


def test_doctor_compares_every_kernel_with_ref() -> None:
    assert set(_kernel_proof.cases()) == set(edgellm.cpu.kernels())


def test_doctor_names_the_kernel_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    isa = edgellm.cpu.runnable_isas()[-1]
    assert isa != "ref"
    true_norm = _testing.norm

    def norm(op, isa_, *rest):
        y = true_norm(op, isa_, *rest)
        return y + np.float32(1e-6) if (op, isa_) == ("layer_norm", isa) else y

    monkeypatch.setattr(_testing, "norm", norm)
    monkeypatch.setattr(diagnosis, "TYPES", ("q8_0",))
    report = edgellm.doctor()
    (bad,) = [check for check in report.checks if not check.ok]
    assert (bad.name, bad.detail) == (f"kernels, {isa}", "differ from ref: layer_norm")
