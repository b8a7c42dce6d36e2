"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import edgellm
import edgellm.sim

# Flags that let an example be readable: spaces free, `...` for what varies.
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules() -> list[str]:
    """Every importable module of the package and of the testbed."""
    found = ["edgellm"]
    for package in (edgellm, edgellm.sim):
        walk = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        found += [info.name for info in walk if not info.name.endswith("__main__")]
    return sorted(set(found))


@pytest.mark.parametrize("name", modules())
def test_examples_of_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    with np.printoptions(legacy=False):
        result = doctest.testmod(module, optionflags=FLAGS, extraglobs={"np": np, "edgellm": edgellm})
    assert result.failed == 0


def test_walk_reaches_the_testbed():
    assert "edgellm.sim.strategy" in modules()
