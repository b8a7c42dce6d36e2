"""Ask a second node when the first is slow."""

from __future__ import annotations

from typing import Any

from edgellm import sim


class Hedge(sim.Strategy):
    """The device answers; after `patience_s` the cloud is asked as well, and who is first wins.

    The other is cancelled, so what it would still have computed costs nothing; what it had is paid for. If
    the cloud cannot be reached, the device's answer counts, however late.

    Parameters
    ----------
    patience_s : float
        How long the device is given; 0 asks both at once.
    to : str
        Role, site or name of the second node.

    Source: hedged requests, Dean and Barroso 2013, "The Tail at Scale", Commun. ACM 56(2), 74-80.
    """

    def __init__(self, patience_s: float = 2.0, to: str = "cloud") -> None:
        self.patience_s, self.to = patience_s, to

    def handle(self, req: Any, here: Any) -> Any:
        mine = sim.spawn(self.local(req, here), here)
        i, answer = yield sim.first(mine, sim.sleep(self.patience_s))
        if i == 1:
            _, answer = yield sim.race(mine, here.call(self.to, "generate", req, req.nbytes))
        req.finish(answer, model=answer.model)

    def local(self, req: Any, here: Any) -> Any:
        yield here.run(sim.Prefill(req.model, req.prompt_tokens))
        return (yield here.run(sim.Decode(req.model, req.output_tokens, context=req.prompt_tokens)))
