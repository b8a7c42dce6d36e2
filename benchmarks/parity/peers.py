"""Talk to engines behind pipes: ours, llama.cpp, and transformers, each in a process of its own.

The environments of the peers are heavy and are never that of edgellm; README.md says how `make peers` builds
them.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "benchmarks" / "results"
sys.path.append(str(ROOT))  # for tests.helpers; last, so that an installed edgellm wins

MOST_S = 900.0  # a request that takes longer has hung


class PeerMissing(Exception):
    """The environment of a peer has not been built."""


class EngineDied(Exception):
    """The process of an engine ended in the middle of a request."""


def environments() -> Path:
    """The folder that holds the peers' environments: ``EDGELLM_PEERS``, or ``.venv-parity``."""
    return Path(os.environ.get("EDGELLM_PEERS") or ROOT / ".venv-parity")


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment ("llama" or "torch").

    Raises
    ------
    PeerMissing
        If there is none; the message names the command that makes it.
    """
    path = environments() / name / "bin" / "python"
    if not path.exists():
        raise PeerMissing(
            f"the {name} peer is not built: `make peers` builds it (minutes, about 1.5 GB for both); "
            "EDGELLM_PEERS names a folder where it is"
        )
    return path


class Engine:
    """An engine in a process of its own; each request is a method of its script (`peer_*.py`).

    Parameters
    ----------
    python : path
        Interpreter of its environment.
    script : str
        Name of the script in this folder.
    """

    def __init__(self, python: Path, script: str) -> None:
        self.script = script
        # The tokenizers package of the torch peer warns of forks; MALLOC_ and OMP_ settings stay the user's.
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [str(python), str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us; an engine ends when its standard input does
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and return the answer.

        Raises
        ------
        EngineDied
            If the process ended, or gave no answer in time; what it said is on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], MOST_S)
        if not ready:
            self._process.kill()
        line = self._process.stdout.readline()
        if not line:
            raise EngineDied(f"{self.script} died at {do!r}: exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()


class Llama(Engine):
    """llama.cpp; requests are those of peer_llama.py."""

    def __init__(self) -> None:
        super().__init__(python_of("llama"), "peer_llama.py")


class Torch(Engine):
    """transformers on PyTorch; requests are those of peer_torch.py."""

    def __init__(self) -> None:
        super().__init__(python_of("torch"), "peer_torch.py")


class Ours(Engine):
    """edgellm, in the environment that runs this; requests are those of peer_edgellm.py."""

    def __init__(self) -> None:
        super().__init__(Path(sys.executable), "peer_edgellm.py")


class Limits(Engine):
    """What the machine can do at most; requests are those of peer_limits.py."""

    def __init__(self) -> None:
        super().__init__(Path(sys.executable), "peer_limits.py")
