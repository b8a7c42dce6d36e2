"""JSON numbers as GBNF: digits that stay within bounds and, for integers, are multiples.

Numbers have at most 15 significant digits unless a bound needs more, so that they are exact enough in a
double to stay on their side of every bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

DIGITS = 15
MAX_REMAINDERS = 128
MAX_DIGITS = 60
MAX_LISTED = 64


class NumberError(ValueError):
    """Bounds or multiples that have no grammar."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is asked of a number: low and high (None: no bound), whether they are out themselves, step."""

    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False
    step: Fraction | None = None  # a multiple of it

    def meet(self, other: Bounds) -> Bounds:
        """Both at once."""
        low, low_open = self.low, self.low_open
        if other.low is not None and (low is None or (other.low, other.low_open) > (low, low_open)):
            low, low_open = other.low, other.low_open
        high, high_open = self.high, self.high_open
        if other.high is not None and (high is None or (-other.high, other.high_open) > (-high, high_open)):
            high, high_open = other.high, other.high_open
        return Bounds(low, high, low_open, high_open, _common(self.step, other.step))

    def has(self, x: Fraction) -> bool:
        if self.low is not None and (x < self.low or (self.low_open and x == self.low)):
            return False
        if self.high is not None and (x > self.high or (self.high_open and x == self.high)):
            return False
        return self.step is None or (x / self.step).denominator == 1


def _common(a: Fraction | None, b: Fraction | None) -> Fraction | None:
    """Least common multiple."""
    if a is None or b is None:
        return b if a is None else a
    top, bottom = a.numerator * b.denominator, b.numerator * a.denominator
    while bottom:
        top, bottom = bottom, top % bottom
    return a * b / Fraction(top, a.denominator * b.denominator)


def exact(number: int | float) -> Fraction:
    """A number of a schema as its text says it: 0.1 is a tenth."""
    return Fraction(Decimal(repr(number))) if isinstance(number, float) else Fraction(number)


def decimal(x: Fraction) -> str:
    """Digits of a fraction that has finitely many."""
    if x.denominator == 1:
        return str(x.numerator)
    text = format(Decimal(x.numerator) / Decimal(x.denominator), "f")
    if Fraction(text) != x:
        raise NumberError(f"{x} has no short decimal notation")
    return text


class Numbers:
    """Writes numbers as expressions; `add(name, body)` gives the name of a rule of that body."""

    def __init__(self, add: Callable[[str, str], str]) -> None:
        self._add = add

    def integer(self, b: Bounds) -> str | None:
        """An integer within the bounds, or None if there is none."""
        step = b.step.numerator if b.step is not None else 1  # of p/q, the integers are multiples of p
        low = None if b.low is None else floor(b.low) + 1 if b.low_open else ceil(b.low)
        high = None if b.high is None else ceil(b.high) - 1 if b.high_open else floor(b.high)
        if low is None and high is None and step == 1:
            return self._add("integer", '"-"? ("0" | [1-9] [0-9]{0,14})')
        most = 10**DIGITS - 1
        if low is None:
            low = min(-most, (high or 0) * 10)
        if high is None:
            high = max(most, low * 10)
        if max(len(str(abs(low))), len(str(abs(high)))) > MAX_DIGITS:
            raise NumberError(f"bounds of more than {MAX_DIGITS} digits")
        first, last = -(-low // step), high // step
        if first > last:
            return None
        if last - first < MAX_LISTED:
            return "(" + " | ".join(f'"{n * step}"' for n in range(first, last + 1)) + ")"
        if step > MAX_REMAINDERS:
            raise NumberError(f"multiples of {step}: only up to {MAX_REMAINDERS}, or few enough to be listed")
        ways = ['"0"'] if low <= 0 <= high else []
        below = self._between(max(1, -high), -low, step) if low < 0 else None
        above = self._between(max(1, low), high, step) if high > 0 else None
        ways += ([f'"-" {below}'] if below else []) + ([above] if above else [])
        return self._add("integer", " | ".join(ways))

    def _between(self, low: int, high: int, step: int) -> str | None:
        """Positive multiples of `step` from low to high, digit by digit."""
        seen: dict[tuple[int, int, bool, bool], str | None] = {}

        def digits(size: int, i: int, rest: int, at_low: bool, at_high: bool) -> str | None:
            """The digits from place i on, of `size`; while on a bound the next digit is bound too."""
            a = str(low) if len(str(low)) == size else "1" + "0" * (size - 1)
            z = str(high) if len(str(high)) == size else "9" * size
            if i == size:
                return '""' if rest == 0 else None
            if step == 1 and not at_low and not at_high:
                return f"[0-9]{{{size - i}}}"
            key = (size - i, rest, at_low, at_high)
            if key in seen and not (at_low or at_high):
                return seen[key]
            ways: dict[str, list[int]] = {}
            for d in range(int(a[i]) if at_low else 0, (int(z[i]) if at_high else 9) + 1):
                tail = digits(
                    size, i + 1, (rest * 10 + d) % step, at_low and d == int(a[i]), at_high and d == int(z[i])
                )
                if tail is not None:
                    ways.setdefault(tail, []).append(d)
            body = " | ".join(f"[{''.join(map(str, ds))}] {tail}" for tail, ds in ways.items())
            named = None if not ways else f"({body})" if at_low or at_high else self._add("digits", body)
            seen[key] = named
            return named

        ways = [digits(n, 0, 0, True, True) for n in range(len(str(low)), len(str(high)) + 1)]
        found = [w for w in ways if w is not None]
        return "(" + " | ".join(found) + ")" if found else None

    def number(self, b: Bounds) -> str | None:
        """A number within the bounds, or None if there is none."""
        if b.step is not None:
            return self._multiple(b)
        if b.low is None and b.high is None:
            return self._add(
                "number", '"-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9] [0-9]?)?'
            )
        if (
            b.low is not None
            and b.high is not None
            and (b.low > b.high or (b.low == b.high and (b.low_open or b.high_open)))
        ):
            return None
        most = Fraction(10**DIGITS - 1)
        low = b.low if b.low is not None else min(-most, (b.high or Fraction(0)) * 10)
        high = b.high if b.high is not None else max(most, low * 10)
        zero = Fraction(0)
        below = self._positive(max(zero, -high), -low, b.high_open, b.low_open) if low < 0 else None
        above = None
        if high > 0 or b.has(zero):
            above = self._positive(max(zero, low), max(high, zero), low >= 0 and b.low_open, b.high_open)
        ways = ([f'"-" {below}'] if below else []) + ([above] if above else [])
        return self._add("number", " | ".join(ways)) if ways else None

    def _multiple(self, b: Bounds) -> str | None:
        step = b.step or Fraction(1)
        if step.denominator == 1:
            return self.integer(b)
        if step.denominator & (step.denominator - 1) or step.denominator > 64:
            raise NumberError(f"multipleOf {float(step)} is not exact in binary, so validators differ on it")
        if b.low is not None and b.high is not None:
            first, last = ceil(b.low / step), floor(b.high / step)
            if last - first >= MAX_LISTED:
                raise NumberError(f"more than {MAX_LISTED} multiples of {float(step)} within bounds")
            found = [decimal(n * step) for n in range(first, last + 1) if b.has(n * step)]
            return "(" + " | ".join(f'"{text}"' for text in found) + ")" if found else None
        if b.low is not None or b.high is not None or step.numerator != 1:
            raise NumberError(f"multipleOf {float(step)} with one bound, or of more than one part")
        parts = [decimal(n * step)[2:] for n in range(1, step.denominator)]
        fraction = " | ".join(f'"{part}"' for part in parts)
        return self._add("number", f'"-"? ("0" | [1-9] [0-9]{{0,11}}) ("." ({fraction}))?')

    def _positive(self, low: Fraction, high: Fraction, low_open: bool, high_open: bool) -> str | None:
        """Numbers from low to high, neither negative."""
        a, z = decimal(low), decimal(high)
        a_whole, _, a_part = a.partition(".")
        z_whole, _, z_part = z.partition(".")
        if len(z_whole) + len(z_part) > MAX_DIGITS or len(a_whole) + len(a_part) > MAX_DIGITS:
            raise NumberError(f"bounds of more than {MAX_DIGITS} digits")
        ways = []
        first, last = int(a_whole), int(z_whole)
        if first == last:
            part = self._part(a_part, z_part, low_open, high_open, True, True)
            return None if part is None else f'"{first}" {part}'
        part = self._part(a_part, "", low_open, False, True, False)
        if part is not None:
            ways.append(f'"{first}" {part}')
        if last - first > 1:
            free = max(1, DIGITS - len(z_whole))
            ways.append(f'{self._between(first + 1, last - 1, 1)} ("." [0-9]{{1,{free}}})?')
        part = self._part("", z_part, False, high_open, False, True)
        if part is not None:
            ways.append(f'"{last}" {part}')
        return "(" + " | ".join(ways) + ")" if ways else None

    def _part(self, a: str, z: str, a_open: bool, z_open: bool, at_low: bool, at_high: bool) -> str | None:
        """What may follow the whole part: nothing, or a point and digits."""
        size = max(len(a), len(z)) + 2
        a, z = a.ljust(size, "0"), z.ljust(size, "0")

        def may_stop(i: int, at_low: bool, at_high: bool) -> bool:
            """Zeros from place i on: is that number within?"""
            low_ok = not at_low or (a[i:].strip("0") == "" and not a_open)
            return low_ok and (not at_high or z[i:].strip("0") != "" or not z_open)

        def digits(i: int, at_low: bool, at_high: bool) -> str | None:
            """One digit at least, from place i on."""
            if i == size:
                return None
            if not at_low and not at_high:
                return f"[0-9]{{1,{size - i}}}"
            ways = []
            for d in range(int(a[i]) if at_low else 0, (int(z[i]) if at_high else 9) + 1):
                low, high = at_low and d == int(a[i]), at_high and d == int(z[i])
                more = digits(i + 1, low, high)
                stop = may_stop(i + 1, low, high)
                if more is not None or stop:
                    ways.append(f'"{d}"' + ("" if more is None else f" ({more})" + ("?" if stop else "")))
            return " | ".join(ways) if ways else None

        more = digits(0, at_low, at_high)
        stop = may_stop(0, at_low, at_high)
        if more is None:
            return '""' if stop else None
        return f'("." ({more}))' + ("?" if stop else "")
