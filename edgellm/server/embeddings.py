"""/v1/embeddings: what is asked, and how the vectors are told."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.server import asking
from edgellm.server.asking import Desk
from edgellm.server.errors import bad, dumps
from edgellm.server.fields import Fields

MAX_TEXTS = 2048  # OpenAI's


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, understood."""

    texts: list[list[int]]
    base64: bool

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(map(len, self.texts))


def understand(data: dict[str, Any], desk: Desk) -> Asked:
    """A body as a request.

    Raises
    ------
    ApiError
        That names the field and what is wrong with it.
    """
    fields = Fields(data)
    desk.check_model(fields)
    fields.take("user")
    fields.refuse("dimensions", (desk.model.config.width,), f"only {desk.model.config.width} is supported")
    form = fields.choice("encoding_format", "float", ("float", "base64"))
    config = desk.model.config
    texts = asking.inputs(fields, "input", fields.take("input"), config.vocab, MAX_TEXTS)
    fields.finish()
    ids = asking.checked(lambda: [asking.prompt_ids(desk.model, text) for text in texts], "input")
    for i, own in enumerate(ids):
        if len(own) > config.context:
            told = f"input[{i}] has {len(own)} tokens, the model takes {config.context}"
            raise bad(told, "input", "context_length_exceeded")
    return Asked(ids, form == "base64")


def told(asked: Asked, vectors: NDArray[np.float32], model: str) -> bytes:
    """The answer."""
    rows: list[Any] = (
        [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
        if asked.base64
        else vectors.tolist()
    )
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    usage = {"prompt_tokens": asked.tokens, "total_tokens": asked.tokens}
    return dumps({"object": "list", "data": data, "model": model, "usage": usage})
