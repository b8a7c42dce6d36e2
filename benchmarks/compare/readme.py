"""The paragraph of the front page that states speed, from a results file: pure."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .figures import LLAMA, OURS

BEGIN, END = "<!-- speed: made by compare_engines.py --readme -->", "<!-- end of speed -->"
MARKED = re.compile(re.escape(BEGIN) + r"\n(.*?)\n?" + re.escape(END), re.DOTALL)
WIDTH = 120


def between(values: Sequence[float]) -> str:
    """Least and largest, never rounded up.

    Examples
    --------
    >>> between([2.199, 5.06]), between([12.9])
    ('2.1 to 5', '12')
    """
    shown = []
    for value in (min(values), max(values)):
        digits = math.floor(value) if value >= 10 else math.floor(value * 10) / 10
        shown.append(f"{digits:g}")
    return " to ".join(dict.fromkeys(shown))


def paragraph(found: Mapping[str, Any], name: str) -> str:
    """What the front page says of a complete result.

    Parameters
    ----------
    found : mapping
        The JSON that compare_engines.py wrote.
    name : str
        Its file name without the ending.
    """
    ratios: dict[str, list[float]] = {}
    parts: list[float] = []
    for row in found["rows"]:
        if row["model"] == "SmolLM2-135M" and LLAMA in row.get("ratio", {}):
            ratios.setdefault(row["kind"], []).append(row["ratio"][LLAMA]["median"])
        if row["kind"] == "memory" and LLAMA in row["beyond_bytes"]:
            parts.append(row["beyond_bytes"][OURS] / row["beyond_bytes"][LLAMA])
    said = [
        f"{verb} {between(ratios[kind])} times"
        for kind, verb in (
            ("decode", "writes"),
            ("prefill", "reads prompts"),
            ("batch", "writes eight answers at once"),
            ("load", "loads a GGUF"),
            ("load edge", "loads an edge image"),
        )
        if kind in ratios
    ]
    machine = found["stamp"]["machine"]
    share = f"; it needs {min(parts):.2f} to {max(parts):.2f} of the memory" if parts else ""
    text = (
        f"On {machine['cores']} cores of {machine['cpu']} ({found['stamp']['isas'][-1]}) it "
        f"{', '.join(said)} as fast as llama.cpp, built for that machine and in its fastest configuration "
        f"(SmolLM2-135M in four formats, 1 and 2 threads, medians of interleaved runs){share} "
        f"([results](benchmarks/results/{name}.md), `make bench`)."
    )
    return wrapped(text)


def wrapped(text: str) -> str:
    """Lines of at most `WIDTH` characters where words allow."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return "\n".join(lines)


def replaced(page: str, text: str) -> str:
    """The page with this paragraph between its marks.

    Raises
    ------
    ValueError
        If the page has no marks.
    """
    if MARKED.search(page) is None:
        raise ValueError("the page has no marks for the paragraph on speed")
    return MARKED.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page)
