"""Answer in the cloud."""

from __future__ import annotations

from .gateway import Gateway


class Cloud(Gateway):
    """Every device sends its prompt to the cloud: fast and strong, but the text leaves the home and costs
    money.

    Parameters
    ----------
    model : str
        Variant to answer with; "" for the one that each request asks for.
    to : str
        Role, site or name of the node that answers.

    Examples
    --------
    >>> Cloud(model="smollm2-135m:q8_0").to
    'cloud'
    """

    to = "cloud"
