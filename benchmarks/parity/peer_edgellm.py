"""Our engine behind the pipe of `serving.py`, so that it is measured exactly as the others are.

edgellm is imported by the first request that needs it: what a process held before is then known. Requests,
by their "do" (ids are lists of token ids, times are those of `serving.timed`):

- ``open``: model, context, threads, cpus, sequences (a Batch where more than 1), isa -> what was opened
- ``prefill``: ids -> times of one evaluation from an empty cache
- ``decode``: ids, start -> times of single steps for ids[start:], behind ids[:start]
- ``batch``: ids, start, steps -> times of steps that append one token to each sequence
- ``score``: ids (.npy), windows, out (.npz) -> as in peer_llama.py
- ``load``: model, threads, repeat, session -> times of each load, and of load and first session
- ``memory``: -> resident bytes
"""

from typing import Any

import numpy as np
from serving import pin, serve, timed


class Ours:
    """One model with one session, or several."""

    def __init__(self) -> None:
        self.model: Any = None
        self.sessions: list[Any] = []
        self.batch_of: Any = None

    def about(self) -> dict[str, Any]:
        """Versions, and what this machine runs."""
        import edgellm

        return {
            "version": edgellm.__version__,
            "numerics": edgellm.__numerics__,
            "isas": edgellm.cpu.runnable_isas(),
            "features": edgellm.cpu.features(),
        }

    def open(
        self,
        model: str,
        context: int,
        threads: int,
        cpus: list[int] | None = None,
        sequences: int = 1,
        isa: str | None = None,
    ) -> dict[str, Any]:
        """Load a file and make its sessions; what was open before is closed."""
        import edgellm

        self.close()
        pin(cpus)
        self.model = edgellm.load(model, threads=threads, isa=isa)
        self.sessions = [self.model.session(context) for _ in range(sequences)]
        self.batch_of = None
        if sequences > 1:
            self.batch_of = edgellm.Batch(self.model, self.sessions)
        plan = self.model.plan(context)
        return {"isa": self.model.isa, "plan_bytes": plan.total_bytes, "weights_bytes": plan.weights_bytes}

    def close(self) -> dict[str, Any]:
        """Give memory and threads back."""
        self.sessions, self.batch_of = [], None
        if self.model is not None:
            self.model.close()
            self.model = None
        return {}

    def prefill(self, ids: list[int]) -> dict[str, float]:
        """Time one evaluation of a prompt."""
        session = self.sessions[0]
        session.truncate(0)
        return timed(lambda: session.eval(ids))

    def decode(self, ids: list[int], start: int) -> dict[str, float]:
        """Time single steps behind the start of a prompt."""
        session = self.sessions[0]
        session.truncate(0)
        session.eval(ids[:start])

        def steps() -> None:
            for token in ids[start:]:
                session.eval([token])

        return timed(steps)

    def batch(self, ids: list[int], start: int, steps: int) -> dict[str, float]:
        """Time steps of all sequences together; sequence i has the prompt shifted by i."""
        count = len(self.sessions)
        for i, session in enumerate(self.sessions):
            session.truncate(0)
            session.eval(ids[i : i + start])
        rows = [[[ids[start + i + step]] for i in range(count)] for step in range(steps)]

        def work() -> None:
            for row in rows:
                self.batch_of.eval(row)

        return timed(work)

    def score(self, ids: str, windows: int, out: str) -> dict[str, Any]:
        """Log-probability of every token after the first of a window, and the most likely one there."""
        session = self.sessions[0]
        logprob, top = [], []
        for window in np.load(ids).reshape(windows, -1):
            session.truncate(0)
            row = session.score(window.tolist())
            logprob.append(row[0])
            top.append(row[1])
        np.savez(out, logprob=np.array(logprob), top=np.array(top))
        return {}

    def load(self, model: str, threads: int, repeat: int, context: int) -> dict[str, Any]:
        """Time loads of a file; with the session it is ready for the first token."""
        import edgellm

        self.close()
        loads, ready = [], []
        for _ in range(repeat):
            held: list[Any] = []
            load = timed(lambda held=held: held.append(edgellm.load(model, threads=threads)))  # type: ignore[misc]  # a default argument binds the list of this turn
            session = timed(lambda held=held: held.append(held[0].session(context)))  # type: ignore[misc]  # as above
            held[0].close()
            loads.append(load)
            ready.append({key: load[key] + session[key] for key in load})
        return {"load": loads, "ready": ready}


if __name__ == "__main__":
    serve(Ours())
