"""Try the small model first; ask the large one when the small one is not sure."""

from __future__ import annotations

from edgellm.sim.work import Decode, Prefill

from .base import Generate, Here, Request, Strategy
from .protocol import Rejected, Script


class Cascade(Strategy):
    """The device answers; where its confidence is below a threshold, another node answers again.

    The first attempt is paid for in time and energy even where it is thrown away. A device that cannot hold
    the small model asks the large one at once.

    Parameters
    ----------
    model : str
        Variant on the device; "" for the one that each request asks for.
    large : str
        Variant to escalate to; "" for the largest that is placed on the node that is asked.
    to : str
        Role, site or name of the node to escalate to.
    threshold : float
        Escalate below this confidence, 0 to 1.

    Raises
    ------
    ValueError
        If `threshold` is not between 0 and 1.

    Source: the cascade of Chen, Zaharia and Zou 2023 ("FrugalGPT", arXiv:2305.05176), with the model's own
    confidence as the score.

    Examples
    --------
    >>> Cascade(threshold=0.6, to="gateway").threshold
    0.6
    """

    def __init__(self, model: str = "", large: str = "", to: str = "cloud", threshold: float = 0.5) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        self.model = model
        self.large = large
        self.to = to
        self.threshold = threshold

    def handle(self, req: Request, here: Here) -> Script:
        """Answer on the device, then escalate if need be."""
        model = self.model or req.model
        try:
            yield here.run(Prefill(model, req.prompt_tokens))
            done = yield here.run(Decode(model, req.output_tokens, context=req.prompt_tokens))
        except Rejected:
            sure = False
        else:
            sure = req.confidence(model) >= self.threshold
        if sure:
            req.finish(done, model=model)
        else:
            answer = yield here.call(self.to, "generate", Generate(req, self.large or "*"), req.nbytes)
            req.finish(answer, model=answer.model)
