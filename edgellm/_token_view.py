"""Tokens coloured by their probability, as HTML for notebooks.

The bounds and colours are those of the page that `edgellm serve` shows (``server/page.html``): the paler,
the surer. Text of a model is hostile, so everything is escaped and nothing in it can steer the display.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgellm.generation import TokenLogprob

BOUNDS = (0.9, 0.75, 0.5, 0.25, 0.1, 0.03, 0.01)
COLOURS = ("transparent", "#fff6d1", "#ffecad", "#ffdd85", "#ffc966", "#ffb05c", "#ff9466", "#f77c7c")

_STEERING = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
_CARD = (
    "background:#fff;color:#1b1f24;border:1px solid #d0d7de;border-radius:8px;padding:.5em .75em;"
    "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;line-height:1.75"
)


def shade(probability: float) -> int:
    """Index of a probability's colour; what is no number is taken for the worst.

    Examples
    --------
    >>> shade(1.0), shade(0.6), shade(0.0), shade(float("nan"))
    (0, 2, 7, 7)
    """
    return sum(not probability >= bound for bound in BOUNDS)


def visible(text: str) -> str:
    r"""Text with characters that nobody sees, or that steer the display, spelled out.

    Examples
    --------
    >>> visible(" a\n\u202e")
    '␣a⏎U+202E'
    """
    shown = {" ": "␣", "\n": "⏎", "\t": "⇥"}
    return "".join(
        shown.get(c, f"U+{ord(c):04X}" if unicodedata.category(c) in _STEERING else c) for c in text
    )


def _tame(text: str) -> str:
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _STEERING else "\ufffd" for c in text)


def tokens_html(tokens: Sequence[TokenLogprob], note: str = "") -> str:
    """A card with the tokens of a text; each says, where the pointer rests, what else it could have been.

    Parameters
    ----------
    tokens : sequence of TokenLogprob
        As `Completion.logprobs` holds them.
    note : str
        A line below them.

    Returns
    -------
    str
        HTML without scripts or addresses.

    Examples
    --------
    >>> from edgellm.generation import TokenLogprob
    >>> print(tokens_html([TokenLogprob(5, "<b>", -0.01)]).split(">", 1)[1].split("</div>")[0])
    <span title="&lt;b&gt;: 99.0 %">&lt;b&gt;</span>
    """
    parts = []
    for token in tokens:
        others = token.top if any(other.id == token.id for other in token.top) else (token, *token.top)
        title = "\n".join(f"{visible(other.text)}: {100 * math.exp(other.logprob):.1f} %" for other in others)
        level = shade(math.exp(token.logprob))
        style = f' style="background:{COLOURS[level]};border-radius:3px"' if level else ""
        parts.append(f'<span title="{html.escape(title)}"{style}>{html.escape(_tame(token.text))}</span>')
    below = f'<div style="color:#57606a;font-size:.85em">{html.escape(note)}</div>' if note else ""
    return f'<div style="{_CARD}">{"".join(parts)}</div>{below}'
