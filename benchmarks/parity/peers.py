"""Talk to the peers: llama.cpp behind a pipe, transformers in a process of its own.

Their environments are heavy and are never those of edgellm; README.md says how `make parity` builds them.
"""

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENTS = Path(os.environ.get("EDGELLM_PEERS", ROOT / ".venv-parity"))
RESULTS = ROOT / "benchmarks" / "results"


class PeerMissing(Exception):
    """The environment of a peer has not been built."""


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment ("llama" or "torch")."""
    path = ENVIRONMENTS / name / "bin" / "python"
    if not path.exists():
        raise PeerMissing(f"the {name} peer is not built: `make parity` builds it (minutes, about 1.5 GB)")
    return path


class Llama:
    """llama.cpp in a process of its own; each method is a request of peer_llama.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(python_of("llama")), str(HERE / "peer_llama.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the llama.cpp peer died at {do!r}: exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> "Llama":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def torch_script(name: str, *arguments: str) -> None:
    """Run a script of this folder in the environment that has torch and transformers."""
    subprocess.run([str(python_of("torch")), str(HERE / name), *arguments], check=True)
