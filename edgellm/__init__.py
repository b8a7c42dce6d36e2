"""Language models on constrained devices: a C engine with the same bits everywhere.

The engine is here: `load` gives a `Model`, which generates text, chats and scores. `edgellm.ops` and
`edgellm.quant` have the arithmetic, `edgellm.cpu` what this machine can do. `edgellm.sim` is the testbed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgellm import _core
from edgellm._core import ContextError, EdgellmError, FormatError, GrammarError, Tokenizer
from edgellm.batch import Batch
from edgellm.generation import ChatCompletion, Completion, Speculation, Timings, Token, TokenLogprob
from edgellm.model import Model, load
from edgellm.session import Session
from edgellm.shape import ModelConfig, Plan

if TYPE_CHECKING:
    from edgellm.prefix_cache import PrefixCache
    from edgellm.scheduler import BusyError, Scheduler

__version__ = "0.1.0"
__numerics__ = _core.NUMERICS

__all__ = [
    "Batch",
    "BusyError",
    "ChatCompletion",
    "Completion",
    "ContextError",
    "EdgellmError",
    "FormatError",
    "GrammarError",
    "Model",
    "ModelConfig",
    "Plan",
    "PrefixCache",
    "Scheduler",
    "Session",
    "Speculation",
    "Timings",
    "Token",
    "TokenLogprob",
    "Tokenizer",
    "__numerics__",
    "__version__",
    "load",
]

_MODULES = frozenset(
    {
        "chat",
        "conversion",
        "cost",
        "cpu",
        "gguf",
        "grammar",
        "models",
        "ops",
        "quant",
        "scheduler",
        "server",
        "sim",
        "tools",
    }
)
_NAMES = {
    "BusyError": "edgellm.scheduler",
    "PrefixCache": "edgellm.prefix_cache",
    "Scheduler": "edgellm.scheduler",
    "convert": "edgellm.conversion",
    "doctor": "edgellm.diagnosis",
}


def __getattr__(name: str) -> Any:
    """Rooms that not every user enters are imported at first use."""
    if name in _MODULES:
        return importlib.import_module(f"edgellm.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'edgellm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NAMES})
