"""A server that steps all its requests together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from edgellm import sim


@dataclass
class _Sequence:
    call: Any
    lease: Any
    unread: int  # tokens of the prompt
    context: int = 0
    made: int = 0


class Batching(sim.Strategy):
    """Continuous batching: requests join and leave between steps, prompts are read in chunks beside them.

    A request is admitted in its turn, once the cache of its prompt and answer can be reserved whole, so that
    nothing that runs is ever thrown out. Each step decodes one token of every request that has been read, and
    reads `chunk` tokens of the others; its energy and cost are split among them.

    Parameters
    ----------
    model : str
        Variant to answer with; "" for the one that each request asks for.
    to : str
        Role, site or name of the servers.
    most : int
        Requests in a step, at most.
    chunk : int
        Tokens of prompts in a step, at most.

    Source: iteration-level scheduling is Orca's (Yu et al. 2022, OSDI, section 3); prompts in chunks beside
    decoding are Sarathi-Serve's (Agrawal et al. 2024, arXiv:2403.02310, section 4).
    """

    def __init__(self, model: str = "", to: str = "cloud", most: int = 32, chunk: int = 256) -> None:
        self.model, self.to, self.most, self.chunk = model, to, most, chunk

    def setup(self, fleet: Any) -> None:
        for here in fleet:
            if self.to in (here.name, here.node.role, here.node.site):
                for model in here.models:
                    here.spawn(self.serve(here, model), daemon=True)

    def handle(self, req: Any, here: Any) -> Any:
        model = self.model or req.model
        answer = yield here.call(self.to, f"batch {model}", req, req.nbytes)
        req.finish(answer, model=model)

    def serve(self, here: Any, model: str) -> Any:
        inbox, waiting, running = here.inbox(f"batch {model}"), deque[Any](), list[_Sequence]()
        waiting.append((yield inbox))
        if here.fits(model):
            yield here.run(sim.Load(model))  # from now on its weights stay in memory
        while True:
            if not running and not waiting:
                waiting.append((yield inbox))
            waiting.extend(inbox.take_all())
            needs = self.admit(here, model, waiting, running)
            if running:
                yield from self.step(here, model, running)
            elif needs:  # others hold the memory: wait for so much of it, and try again
                (yield here.reserve(needs)).free()

    def admit(self, here: Any, model: str, waiting: deque[Any], running: list[_Sequence]) -> int:
        while waiting and len(running) < self.most:
            call, req = waiting[0], waiting[0].msg
            needs: int = here.cache_bytes(model, req.prompt_tokens + req.output_tokens)
            if not here.fits(model, req.prompt_tokens + req.output_tokens):
                call.refuse("model does not fit")
            elif not call.given_up:
                lease = here.try_reserve(needs)
                if lease is None:
                    return needs
                running.append(_Sequence(call, lease, req.prompt_tokens))
            waiting.popleft()
        return 0

    def step(self, here: Any, model: str, running: list[_Sequence]) -> Any:
        left, batch = self.chunk, list[tuple[_Sequence, int]]()
        for seq in running:
            n = min(seq.unread, left) if seq.unread else 1
            left -= n if seq.unread else 0
            batch += [(seq, n)] if n else []
        work = sim.Step(model, tuple(n for _, n in batch), tuple(seq.context for seq, _ in batch))
        yield here.run(work, charge=[seq.call.msg for seq, _ in batch])
        for seq, n in batch:
            req, reading = seq.call.msg, seq.unread > 0
            seq.context, seq.unread = seq.context + n, seq.unread - n * reading
            seq.made += not reading
            if seq.made == 1:
                req.first_token()
            if seq.made >= req.output_tokens and not seq.unread:
                running.remove(seq)
                seq.lease.free()
                seq.call.reply(sim.Answer(model, here.name, seq.made, req.answer_bytes, req.data_class))
