"""Answer where the question is asked."""

from __future__ import annotations

from edgellm.sim.work import Decode, Prefill

from .base import Here, Request, Strategy
from .protocol import Script


class Local(Strategy):
    """Every device answers by itself: nothing leaves it, and it is as slow as the device is.

    Parameters
    ----------
    model : str
        Variant to answer with; "" for the one that each request asks for.

    Examples
    --------
    >>> Local(model="smollm2-135m:q4_0").name
    'local'
    """

    validation = "published times of one request on one device: docs/calibration.md"

    def __init__(self, model: str = "") -> None:
        self.model = model

    def handle(self, req: Request, here: Here) -> Script:
        """Prefill and decode on the device."""
        model = self.model or req.model
        yield here.run(Prefill(model, req.prompt_tokens))
        done = yield here.run(Decode(model, req.output_tokens, context=req.prompt_tokens))
        req.finish(done, model=model)
