"""A tiny model for each file of tests, and OpenAI's client of the server that the file runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import edgellm
from tests.helpers import tiny_model
from tests.helpers.server import Running


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(model_path, threads=1) as model:
        yield model


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client
