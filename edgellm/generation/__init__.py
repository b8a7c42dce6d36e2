"""From a prompt to text: requests, the state machine of one text, and those who drive it.

`Generation` knows how a text comes about; it asks for tokens to be evaluated and takes logits. `drivers` run
one with a session of its own, `edgellm.Scheduler` many together. `writing` and `conversation` are the methods
of `edgellm.Model`.
"""

from edgellm.generation.request import Options, Request, Sampling
from edgellm.generation.results import (
    ChatCompletion,
    Completion,
    Speculation,
    Timings,
    Token,
    TokenLogprob,
)
from edgellm.generation.state import Generation

__all__ = [
    "ChatCompletion",
    "Completion",
    "Generation",
    "Options",
    "Request",
    "Sampling",
    "Speculation",
    "Timings",
    "Token",
    "TokenLogprob",
]
