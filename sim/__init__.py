"""The testbed: where in a fleet of constrained devices should a language model run?

>>> from edgellm import sim
>>> callable(sim.evaluate)
True

A study in four lines::

    from edgellm import sim
    study = sim.evaluate("scenarios/smart_home.toml", ["local", "gateway", "cloud", "cascade"], seeds=[1, 2])
    print(study.summary())
    study.report("report.html")

A strategy of your own is a generator over simulated resources::

    class Mine(sim.Strategy):
        def handle(self, req, here):
            yield here.run(sim.Prefill(req.model, req.prompt_tokens))
            answer = yield here.call("cloud", "generate", req, req.nbytes)
            req.finish(answer, model=answer.model)

Names are imported when they are first used, so that `import edgellm.sim` needs NumPy only; what else is
missing then is said in one line that names the command to install it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgellm.sim.engine.errors import EngineMissing, SimulationError, StrategyError
    from edgellm.sim.evaluation import evaluate
    from edgellm.sim.extras import MissingExtra
    from edgellm.sim.pareto import Search, search
    from edgellm.sim.quality import Quality, QualityError
    from edgellm.sim.scenario import Scenario, ScenarioError, load_scenario
    from edgellm.sim.strategy import (
        BUILT_IN,
        Answer,
        Cancelled,
        Cascade,
        Cloud,
        Done,
        Event,
        Gateway,
        Generate,
        Interrupted,
        LinkDown,
        Local,
        NodeDown,
        Queue,
        Rejected,
        Strategy,
        TimedOut,
        every,
        first,
        gather,
        race,
        sleep,
        spawn,
        until,
        within,
    )
    from edgellm.sim.study import Study, StudyError
    from edgellm.sim.uncertainty import Sensitivity, sensitivity
    from edgellm.sim.work import Compute, Decode, Load, Prefill, Step, Train, Verify

_ROOMS = {
    "engine.errors": ("EngineMissing", "SimulationError", "StrategyError"),
    "evaluation": ("evaluate",),
    "extras": ("MissingExtra",),
    "pareto": ("Search", "search"),
    "quality": ("Quality", "QualityError"),
    "scenario": ("Scenario", "ScenarioError", "load_scenario"),
    "strategy": (
        "BUILT_IN", "Answer", "Cancelled", "Cascade", "Cloud", "Done", "Event", "Gateway", "Generate",
        "Interrupted", "LinkDown", "Local", "NodeDown", "Queue", "Rejected", "Strategy", "TimedOut", "every",
        "first", "gather", "race", "sleep", "spawn", "until", "within",
    ),
    "study": ("Study", "StudyError"),
    "uncertainty": ("Sensitivity", "sensitivity"),
    "work": ("Compute", "Decode", "Load", "Prefill", "Step", "Train", "Verify"),
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "BUILT_IN",
    "Answer",
    "Cancelled",
    "Cascade",
    "Cloud",
    "Compute",
    "Decode",
    "Done",
    "EngineMissing",
    "Event",
    "Gateway",
    "Generate",
    "Interrupted",
    "LinkDown",
    "Load",
    "Local",
    "MissingExtra",
    "NodeDown",
    "Prefill",
    "Quality",
    "QualityError",
    "Queue",
    "Rejected",
    "Scenario",
    "ScenarioError",
    "Search",
    "Sensitivity",
    "SimulationError",
    "Step",
    "Strategy",
    "StrategyError",
    "Study",
    "StudyError",
    "TimedOut",
    "Train",
    "Verify",
    "evaluate",
    "every",
    "first",
    "gather",
    "load_scenario",
    "race",
    "search",
    "sensitivity",
    "sleep",
    "spawn",
    "until",
    "within",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgellm.sim' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"edgellm.sim.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
