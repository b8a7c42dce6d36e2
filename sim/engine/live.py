"""Real tokens inside a simulation: the engine computes what is said, the cost model how long it takes."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim.strategy.base import Done
from edgellm.sim.strategy.protocol import Cancel, Event, Interrupted, Kernel, Settle, Waitable
from edgellm.sim.work import Decode, Prefill, Verify, Work

from .compute import Run

if TYPE_CHECKING:
    from .node import NodeState
    from .simulation import Simulation


#: Room for an answer where the prompt is longer than the session that the scenario reserves.
ANSWER_TOKENS = 512
#: Models that are open, by variant: a process simulates one scenario.
_OPEN: dict[str, Any] = {}


def model_of(sim: Simulation, name: str) -> Any:
    """Return the engine's model of a variant; loaded once.

    Raises
    ------
    ValueError
        As `load_variant`.
    """
    if name not in _OPEN:
        _OPEN[name] = load_variant(sim, name)
    return _OPEN[name]


def load_variant(sim: Simulation, name: str) -> Any:
    """Load the weights of a variant, converted to its format where the file has another.

    Raises
    ------
    ValueError
        If the scenario names no weights for it, or they cannot be had; the message says what to do.
    """
    import edgellm
    from edgellm import models

    variant = sim.variant(name)
    weights = getattr(variant, "weights", None)
    if not weights:
        raise ValueError(
            f'here.open({name!r}) needs a real model: give [models."{name}"] a key `weights` '
            "(a name that `edgellm pull` knows, or the path of a GGUF file)"
        )
    source = getattr(sim.scenario, "source_path", "")
    beside = Path(source).parent / weights if source else Path(weights)
    try:
        path = beside if beside.is_file() else Path(models.resolve(weights, pull=False))
        if re.split(r"[.-]", path.stem.lower())[-1] == variant.quant:
            return edgellm.load(path)
        with tempfile.TemporaryDirectory(prefix="edgellm-live-") as folder:
            made = Path(folder) / f"{path.stem}.{variant.quant}.gguf"
            edgellm.convert(path, made, quant=variant.quant)
            return edgellm.load(made)
    except (OSError, edgellm.EdgellmError) as error:
        raise ValueError(f"here.open({name!r}) cannot load {weights!r}: {error}") from error


class LiveSession:
    """See `edgellm.sim.strategy.LiveSession`, where every call is described."""

    def __init__(self, node: NodeState, model: str, prompt: str | Sequence[int]) -> None:
        self._node, self.model = node, model
        self._model = model_of(node.sim, model)
        tokenizer = self._model.tokenizer
        ids = tokenizer.encode(prompt, add_special=True) if isinstance(prompt, str) else list(prompt)
        if not ids:
            raise ValueError("here.open needs a prompt of at least one token")
        room = max(node.sim.scenario.context, len(ids) + ANSWER_TOKENS)
        self._session = self._model.session(context=min(self._model.config.context, room))
        self._ends = frozenset(tokenizer.end_ids)
        self._logits: Any = None
        self.ids = ids
        self.prompt_tokens = len(ids)
        self.ended = False
        self.accepted = 0
        self._logs: list[float] = []  # of the probability of each token produced

    def __repr__(self) -> str:
        return f"<live session of {self.model} on {self._node.name}: {len(self.ids)} tokens>"

    @property
    def text(self) -> str:
        """What was produced after the prompt."""
        said = self.ids[self.prompt_tokens : len(self.ids) - self.ended]
        return str(self._model.tokenizer.decode(said))

    @property
    def confidence(self) -> float:
        """Geometric mean of the probabilities of the tokens produced; 1 before the first."""
        return math.exp(sum(self._logs) / len(self._logs)) if self._logs else 1.0

    def prefill(self, priority: float = 0) -> Waitable:
        return _Live(self, self._prefill, None, priority)

    def decode(self, tokens: int = 1, stop: Event | None = None, priority: float = 0) -> Waitable:
        if tokens < 0:
            raise ValueError(f"tokens must be 0 or more, got {tokens}")
        return _Live(self, partial(self._decode, tokens), stop, priority)

    def verify(self, draft: Sequence[int], priority: float = 0) -> Waitable:
        if not draft:
            raise ValueError("verify needs at least one drafted token")
        return _Live(self, partial(self._verify, list(draft)), None, priority)

    def close(self) -> None:
        self._session.close()

    # What the engine does, at once; the simulated time follows from the work that is returned.

    def _prefill(self) -> Work:
        if self._session.position == 0:
            self._logits = self._session.eval(self.ids)
        return Prefill(self.model, self.prompt_tokens)

    def _decode(self, tokens: int) -> Work:
        context = len(self.ids)
        self._ready()
        made = 0
        while made < tokens and not self.ended:
            self._append(self._best(self._logits))
            made += 1
        return Decode(self.model, made, context)

    def _verify(self, draft: list[int]) -> Work:
        """Keep the drafted tokens that the model would have said, and the one it says next."""
        context = len(self.ids)
        self._ready()
        self.accepted = 0
        for guess in draft:
            said = self._best(self._logits)
            self._append(said)
            self.accepted += said == guess
            if said != guess or self.ended:
                break
        else:
            self._append(self._best(self._logits))
        return Verify(self.model, len(draft) + 1, context)

    def _ready(self) -> None:
        if self.ended:
            raise ValueError("the text has ended: look at `session.ended` before going on")
        if self._logits is None:
            raise ValueError("a live session is prefilled before it decodes: `yield session.prefill()`")

    def _best(self, logits: Any) -> int:
        best = int(np.argmax(logits))
        shifted = logits.astype(np.float64) - float(logits[best])
        self._logs.append(-math.log(float(np.exp(shifted).sum())))
        return best

    def _append(self, token: int) -> None:
        self.ids.append(token)
        self.ended = token in self._ends
        self._node.sim.pulse += 1
        if not self.ended:
            self._logits = self._session.eval([token])

    def keep(self, context: int, made: int) -> None:
        """Forget what was produced beyond `made` tokens after `context`: the work was interrupted there."""
        length = context + made
        if length >= len(self.ids):
            return
        del self.ids[length:]
        del self._logs[length - self.prompt_tokens :]
        self.ended = False
        self._session.truncate(length - 1)
        self._logits = self._session.eval(self.ids[-1:])


class _Live(Waitable):
    """What the calls of a `LiveSession` return."""

    __slots__ = ("_compute", "_priority", "_session", "_stop")

    def __init__(self, session: LiveSession, compute: Any, stop: Event | None, priority: float) -> None:
        self._session, self._compute, self._stop, self._priority = session, compute, stop, priority

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        session = self._session
        before = len(session.ids)
        work = self._compute()

        def settled(value: Any, error: Interrupted | None) -> None:
            got = value if error is None else error.done
            forget(got)
            done(session.accepted if isinstance(work, Verify) and error is None else value, error)

        def forget(got: Any) -> None:
            whole = isinstance(got, Done) and got.steps > 0
            if isinstance(work, Decode):
                session.keep(before, got.tokens if isinstance(got, Done) else 0)
            elif isinstance(work, Verify) and not whole:
                session.keep(before, 0)

        stop = Run(session._node, work, 1, self._stop, self._priority, None).begin(kernel, settled)

        def cancel() -> Any:
            progress = stop()
            forget(progress)
            return progress

        return cancel
