"""A column of texts that keeps each text once."""

import pickle

import numpy as np
import pytest

from edgellm.sim.texts import Texts


def column() -> Texts:
    return Texts(np.array([1, 0, 1], dtype=np.int32), ["a", "b"])


def test_texts_read_like_a_list():
    assert column() == ["b", "a", "b"]
    assert column()[1:] == ["a", "b"]
    assert column() != ["b", "a"]
    assert (len(column()), column()[-1]) == (3, "b")


def test_texts_become_an_array_of_shared_objects():
    array = np.asarray(column())
    assert array.dtype == object
    assert array[0] is array[2]
    assert (array == "b").tolist() == [True, False, True]


def test_texts_survive_a_pipe():
    assert pickle.loads(pickle.dumps(column())) == column()


@pytest.mark.parametrize("code", [-1, 2])
def test_texts_refuse_a_code_without_a_text(code):
    with pytest.raises(ValueError, match="codes must be"):
        Texts(np.array([code], dtype=np.int32), ["a", "b"])
