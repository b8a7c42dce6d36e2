"""A column of texts of which few are different: a number for each row, and what the numbers stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Texts(Sequence[str]):
    """Texts, each kept once.

    Equal to any sequence of the same texts. `numpy.asarray` makes an array of shared objects of it, and
    `pyarrow.DictionaryArray.from_arrays(x.codes, x.values)` a column without a copy.

    Parameters
    ----------
    codes : (n,) ndarray of int32
        Which of the values each row is.
    values : sequence of str
        Different from one another.

    Raises
    ------
    ValueError
        If a code stands for nothing.

    Examples
    --------
    >>> column = Texts(np.array([0, 1, 0], dtype=np.int32), ["ok", "failed"])
    >>> list(column), column[1], column == ["ok", "failed", "ok"]
    (['ok', 'failed', 'ok'], 'failed', True)
    """

    __slots__ = ("codes", "values")

    def __init__(self, codes: NDArray[np.int32], values: Sequence[str]) -> None:
        if codes.size and not (codes.min() >= 0 and codes.max() < len(values)):
            raise ValueError(f"codes must be between 0 and {len(values) - 1}")
        self.codes = codes
        self.values = tuple(values)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Texts(self.codes[index], self.values)
        return self.values[self.codes[index]]

    def __iter__(self) -> Iterator[str]:
        return map(self.values.__getitem__, self.codes.tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy  # there is nothing to share
        values = np.empty(len(self.values), dtype=object)
        values[:] = self.values
        return values[self.codes].astype(object if dtype is None else dtype, copy=False)

    def __repr__(self) -> str:
        return f"Texts({list(self[:3])!r}{'...' if len(self) > 3 else ''}, {len(self)} rows)"
