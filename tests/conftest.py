"""What every test may use: the folder of the repository, and the real model file when it is there."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

# `from tests.helpers import ...` works however pytest is started; last, so that an installed edgellm wins.
sys.path.append(str(Path(__file__).resolve().parents[1]))

hypothesis.settings.register_profile("edgellm", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("edgellm")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def build_env() -> dict[str, str]:
    """An environment for child processes that build or import: no options of this run leak into it."""
    drop = ("PYTEST_", "PYTHONPATH", "EDGELLM_", "LD_PRELOAD", "ASAN_", "UBSAN_", "MAKE", "MFLAGS")
    return {key: value for key, value in os.environ.items() if not key.startswith(drop)}


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The SmolLM2-135M-Instruct file (Q4_1) that `make test` has fetched."""
    from edgellm import models

    path = models.cached(models.KNOWN["smollm2-135m"])
    assert path is not None, "run `make weights` first"
    return path
