"""What a strategy asks a node to compute, in the terms that the engine uses too.

An item says what is computed, never how long it takes: that follows from the node (`Scenario.work_time_s`).
`model` is always the name of a variant ("smollm2-135m:q4_0"); `context` is the number of positions that the
session's cache holds before the work begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index


def _whole(value: object, what: str) -> int:
    """Return a count as an int (NumPy's are numbers too); ValueError if it is none."""
    try:
        return index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise ValueError(f"{what} must be a whole number, got {value!r}") from None


@dataclass(frozen=True, slots=True)
class Prefill:
    """Read `tokens` prompt tokens at once.

    Raises
    ------
    ValueError
        If a count is negative, here and in the other kinds of work.

    Examples
    --------
    >>> Prefill("smollm2-135m:q4_0", 120).positions
    120
    """

    model: str
    tokens: int
    context: int = 0

    def __post_init__(self) -> None:
        if type(self.tokens) is not int or type(self.context) is not int:
            object.__setattr__(self, "tokens", _whole(self.tokens, "tokens"))
            object.__setattr__(self, "context", _whole(self.context, "context"))
        if not (self.tokens >= 0 and self.context >= 0):
            raise ValueError(f"tokens and context must be 0 or more: {self}")

    @property
    def positions(self) -> int:
        """Positions of cache in use when the work has ended."""
        return self.context + self.tokens


@dataclass(frozen=True, slots=True)
class Decode:
    """Produce `tokens` one after another, the first at position `context`.

    Examples
    --------
    >>> Decode("smollm2-135m:q4_0", tokens=40, context=120).positions
    160
    """

    model: str
    tokens: int = 1
    context: int = 0

    def __post_init__(self) -> None:
        if type(self.tokens) is not int or type(self.context) is not int:
            object.__setattr__(self, "tokens", _whole(self.tokens, "tokens"))
            object.__setattr__(self, "context", _whole(self.context, "context"))
        if not (self.tokens >= 0 and self.context >= 0):
            raise ValueError(f"tokens and context must be 0 or more: {self}")

    @property
    def positions(self) -> int:
        """Positions of cache in use when the work has ended."""
        return self.context + self.tokens


@dataclass(frozen=True, slots=True)
class Verify:
    """Check `tokens` drafted tokens in one step, with logits for each of them."""

    model: str
    tokens: int
    context: int = 0

    def __post_init__(self) -> None:
        if type(self.tokens) is not int or type(self.context) is not int:
            object.__setattr__(self, "tokens", _whole(self.tokens, "tokens"))
            object.__setattr__(self, "context", _whole(self.context, "context"))
        if not (self.tokens >= 0 and self.context >= 0):
            raise ValueError(f"tokens and context must be 0 or more: {self}")

    @property
    def positions(self) -> int:
        """Positions of cache in use when the work has ended."""
        return self.context + self.tokens


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a mixed batch: sequence i gets `new_tokens[i]` tokens at `contexts[i]`.

    Examples
    --------
    >>> Step("smollm2-135m:q4_0", (1, 1, 64), (200, 90, 0)).positions
    356
    """

    model: str
    new_tokens: tuple[int, ...]
    contexts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "new_tokens", tuple(_whole(n, "new_tokens") for n in self.new_tokens))
        object.__setattr__(self, "contexts", tuple(_whole(n, "contexts") for n in self.contexts))
        if not (len(self.new_tokens) == len(self.contexts) > 0):
            raise ValueError(f"one context for each sequence: {self}")
        if not (min(self.new_tokens) >= 1 and min(self.contexts) >= 0):
            raise ValueError(f"token counts out of range: {self}")

    @property
    def positions(self) -> int:
        """Positions of cache in use when the work has ended, over all sequences."""
        return sum(self.new_tokens) + sum(self.contexts)


@dataclass(frozen=True, slots=True)
class Load:
    """Read a model's weights from storage into memory."""

    model: str

    @property
    def positions(self) -> int:
        """No cache is used."""
        return 0


@dataclass(frozen=True, slots=True)
class Train:
    """Run forward, backward and update over `tokens` tokens."""

    model: str
    tokens: int

    def __post_init__(self) -> None:
        if type(self.tokens) is not int:
            object.__setattr__(self, "tokens", _whole(self.tokens, "tokens"))
        if not (self.tokens >= 0):
            raise ValueError(f"tokens must be 0 or more: {self}")

    @property
    def positions(self) -> int:
        """Positions whose activations are kept."""
        return self.tokens


@dataclass(frozen=True, slots=True)
class Compute:
    """Any other computation of `ops` operations (a multiply-add counts as two)."""

    ops: float

    def __post_init__(self) -> None:
        if not (0 <= self.ops < float("inf")):
            raise ValueError(f"ops must be finite and 0 or more: {self}")

    @property
    def positions(self) -> int:
        """No cache is used."""
        return 0


#: Any of the above.
Work = Prefill | Decode | Verify | Step | Load | Train | Compute
