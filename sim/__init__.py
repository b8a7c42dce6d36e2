"""The testbed: where in a fleet of constrained devices should a language model run?

>>> from edgellm import sim
>>> callable(sim.evaluate)
True

A study in four lines::

    from edgellm import sim
    study = sim.evaluate("scenarios/smart_home.toml", ["local", "gateway", "cloud", "cascade"], seeds=[1, 2])
    print(study.table())
    study.report("report.html")

Names are imported when they are first used, so that `import edgellm.sim` needs NumPy only; what else is
missing then is said in one line that names the command to install it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgellm.sim.evaluation import evaluate
    from edgellm.sim.extras import MissingExtra
    from edgellm.sim.quality import Quality, QualityError
    from edgellm.sim.scenario import Scenario, ScenarioError, load_scenario
    from edgellm.sim.study import Study, StudyError

_HOME = {
    "evaluate": "evaluation",
    "MissingExtra": "extras",
    "Quality": "quality",
    "QualityError": "quality",
    "Scenario": "scenario",
    "ScenarioError": "scenario",
    "load_scenario": "scenario",
    "Study": "study",
    "StudyError": "study",
}

__all__ = [
    "MissingExtra",
    "Quality",
    "QualityError",
    "Scenario",
    "ScenarioError",
    "Study",
    "StudyError",
    "evaluate",
    "load_scenario",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgellm.sim' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"edgellm.sim.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
