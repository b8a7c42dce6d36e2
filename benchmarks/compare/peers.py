"""The engines behind their pipes, shared with benchmarks/parity, which is a folder of scripts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity"))

from peers import (  # the folder is no package: its scripts run alone, in other environments
    RESULTS,
    Engine,
    EngineDied,
    Limits,
    Llama,
    Ours,
    PeerMissing,
    Torch,
    python_of,
)

__all__ = ["RESULTS", "Engine", "EngineDied", "Limits", "Llama", "Ours", "PeerMissing", "Torch", "python_of"]
