"""Answer on the stronger node in the same home."""

from __future__ import annotations

from .base import Generate, Here, Request, Strategy
from .protocol import Script


class Gateway(Strategy):
    """The device sends its prompt to another node, which answers; by default to the gateway of its home.

    Parameters
    ----------
    model : str
        Variant to answer with; "" for the one that each request asks for.
    to : str
        Role, site or name of the node that answers.

    Examples
    --------
    >>> Gateway(to="gateway").name
    'gateway'
    """

    to = "gateway"

    def __init__(self, model: str = "", to: str = "") -> None:
        self.model = model
        self.to = to or type(self).to

    def handle(self, req: Request, here: Here) -> Script:
        """Call the service that every node with a model offers."""
        answer = yield here.call(self.to, "generate", Generate(req, self.model), req.nbytes)
        req.finish(answer, model=answer.model)
