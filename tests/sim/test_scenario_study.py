"""`[study]`: how many replications, with which seeds, of what kind."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from edgellm.sim.scenario import ScenarioError, StudySettings, load_scenario

FIRST = tomllib.loads((Path(__file__).parents[2] / "scenarios" / "first_steps.toml").read_text())


def _study(**keys: Any) -> StudySettings:
    return load_scenario(FIRST | {"study": keys}).study


def test_a_comparison_takes_ten_replications_unless_told_otherwise() -> None:
    assert _study().seeds_for(compared=True) == tuple(range(1000, 1010))
    assert _study().seeds_for(compared=False) == (1000,)
    assert _study(replications=3).seeds_for(compared=True) == (1000, 1001, 1002)
    assert _study(mode="steady").seeds_for(compared=True) == (1000,)


def test_seeds_of_neighbouring_studies_are_disjoint() -> None:
    seeds = [set(_study(seed=s, replications=1000).seeds_for(compared=True)) for s in range(4)]
    assert len(set.union(*seeds)) == 4000


def test_named_seeds_are_taken_as_they_are() -> None:
    assert _study(seeds=[7, 3]).seeds_for(compared=True) == (7, 3)
    assert _study(seeds=[7, 3, 1], replications=2).seeds_for(compared=True) == (7, 3)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"seeds": [1], "replications": 2}, "study.replications: 2 of 1 seeds"),
        ({"replications": 0}, "study.replications: must be a whole number from 1"),
        ({"mode": "forever"}, "study.mode: unknown value 'forever'"),
        ({"batches": 10}, "study.batches: only of a study"),
        ({"mode": "steady", "warmup": "2 h"}, "study.warmup: must be shorter"),
        ({"mode": "steady", "warmup": "soon"}, "study.warmup"),
        ({"mode": "steady", "batches": 1}, "study.batches: must be a whole number from 2"),
        ({"seed": -1}, "study.seed: must be a whole number from 0"),
    ],
)
def test_mistakes_name_their_key(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ScenarioError, match=text):
        _study(**keys)


def test_metadata_says_how_runs_are_to_be_read() -> None:
    assert _study().to_meta() == {"mode": "terminating", "warmup_s": None, "batches": 20}
    steady = _study(mode="steady", warmup="5 min", batches=30).to_meta()
    assert steady == {"mode": "steady", "warmup_s": 300.0, "batches": 30}
