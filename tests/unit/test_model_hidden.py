"""Hidden states: what a model's head is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgellm
from tests.helpers import tiny_model

IDS = np.random.default_rng(8).integers(0, 300, 140).tolist()  # more than a micro-batch


@pytest.fixture(scope="module", params=["f32", "q4_1"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hidden") / f"{request.param}.gguf"
    return tiny_model.write(path, quant=request.param, tied=False)


def test_hidden_state_times_the_head_gives_the_bits_of_the_logits(tiny: Path) -> None:
    weights = tiny_model.tensors(tiny_model.Tiny(quant=tiny.stem, tied=False))
    head = weights["output.weight"]
    with edgellm.load(tiny, threads=2) as m:
        logits = m.session().eval(IDS, logits="all")
        hidden = m.session()._core.hidden(IDS)
    assert hidden.shape == (len(IDS), 64)
    assert np.array_equal(edgellm.ops.matmul(head, hidden), logits)


def test_hidden_states_do_not_depend_on_chunks_and_threads_and_append_their_tokens(tiny: Path) -> None:
    seen = []
    for threads, sizes in ((1, (140,)), (3, (1, 7, 132)), (2, (139, 1))):
        with edgellm.load(tiny, threads=threads) as m:
            session, at, rows = m.session(), 0, []
            for size in sizes:
                rows.append(session._core.hidden(IDS[at : at + size]))
                at += size
                assert session.position == at
            seen.append(np.concatenate(rows).tobytes())
            following = session.eval([5])
            again = m.session()
            again.eval(IDS)
            assert np.array_equal(following, again.eval([5]))
    assert len(set(seen)) == 1


def test_hidden_refuses_what_eval_refuses(tiny: Path) -> None:
    with edgellm.load(tiny, threads=1) as m:
        session = m.session(context=16)
        with pytest.raises(ValueError, match="empty"):
            session._core.hidden([])
        with pytest.raises(edgellm.ContextError, match="17 tokens do not fit"):
            session._core.hidden(IDS[:17])
        assert session.position == 0
