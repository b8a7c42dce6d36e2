"""Small helpers that several verbs share."""

import math
from collections.abc import Iterable, Sequence
from typing import Any


def printable(text: str, limit: int = 200) -> str:
    """Text out of a file, safe to show on a terminal: nothing that moves a cursor, nothing endless.

    Examples
    --------
    >>> printable("a\\x1b[31mb" + "c" * 9, limit=8)
    'a?[31mbc...'
    """
    shown = "".join(char if char.isprintable() else "?" for char in text[:limit])
    return shown + ("..." if len(text) > limit else "")


def size_text(nbytes: float) -> str:
    """Bytes as people write them.

    Examples
    --------
    >>> size_text(512), size_text(98_362_432)
    ('512 B', '98.4 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes:.0f} B"


def count_text(count: float) -> str:
    """A large number as people write it.

    Examples
    --------
    >>> count_text(134_515_008), count_text(999)
    ('134.5 M', '999')
    """
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f}"


def json_number(value: float) -> float | None:
    """A float for JSON, which knows neither NaN nor infinity: None for those."""
    return value if math.isfinite(value) else None


def table(rows: Sequence[Sequence[Any]], right: Iterable[int] = ()) -> str:
    """Rows of cells in columns as wide as needed; the columns in `right` end flush.

    Examples
    --------
    >>> print(table([["a", 1], ["bcd", 100]], right=[1]))
    a      1
    bcd  100
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    flush = set(right)
    lines = (
        "  ".join(
            c.rjust(w) if i in flush else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)
