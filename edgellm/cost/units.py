"""Strict parsing of quantities with units: "30 Mbit/s", "24 h", "512 MiB", "7 W", "15 kJ".

A quantity is a finite number, one optional space and a unit of the expected dimension. Prefixes are exact:
decimal ones (k, M, G, T) are powers of 1000 and binary ones (Ki, Mi, Gi, Ti) powers of 1024; `B` is a byte
and `bit` a bit, and the two are never confused. A bare number is accepted only where the caller's key carries
the unit in its name.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def _with(prefixes: Mapping[str, float], unit: str) -> dict[str, float]:
    return {prefix + unit: factor for prefix, factor in prefixes.items()}


_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {**_with(_DECIMAL, "B"), **_with(_BINARY, "B")}
_JOULES = {**_with(_DECIMAL, "J"), "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9, "Wh": 3600.0, "kWh": 3.6e6, "mWh": 3.6}

#: Dimension -> {unit: factor to the base unit named by the dimension}.
DIMENSIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "s": _SECONDS,
        "bytes": _BYTES,
        "bytes_per_s": {unit + "/s": factor for unit, factor in _BYTES.items()},
        "bit_per_s": _with(_DECIMAL, "bit/s"),
        "w": {**_with(_DECIMAL, "W"), "mW": 1e-3, "uW": 1e-6},
        "j": _JOULES,
        "j_per_bit": {unit + "/bit": factor for unit, factor in {**_with(_SMALL, "J"), "pJ": 1e-12}.items()},
        "ops_per_s": {**_with(_DECIMAL, "op/s"), **_with({"M": 1e6, "G": 1e9, "T": 1e12}, "OPS")},
        "weights_per_s": _with(_DECIMAL, "weights/s"),
        "per_s": {"/s": 1.0, "/min": 1 / 60.0, "/h": 1 / 3600.0, "/d": 1 / 86400.0},
        "usd": {"USD": 1.0},
        "usd_per_hour": {"USD/h": 1.0},
        "usd_per_kwh": {"USD/kWh": 1.0},
        "usd_per_gb": {"USD/GB": 1.0},
        "k_per_w": {"K/W": 1.0},
        "j_per_k": {"J/K": 1.0},
        "per_k": {"/K": 1.0, "%/K": 0.01},
        "c": {"C": 1.0},  # degrees Celsius
        "ratio": {"": 1.0, "%": 0.01},
        "count": {"": 1.0},
    }
)

_EXAMPLE = {
    "s": "24 h", "bytes": "512 MiB", "bytes_per_s": "9.5 GB/s", "bit_per_s": "30 Mbit/s", "w": "7 W",
    "j": "15 kJ", "j_per_bit": "20 nJ/bit", "ops_per_s": "40 GOPS", "per_s": "24 /d", "usd": "80 USD",
    "usd_per_hour": "1.2 USD/h", "usd_per_kwh": "0.3 USD/kWh", "usd_per_gb": "0.09 USD/GB", "ratio": "1 %",
    "count": "4", "weights_per_s": "15 Gweights/s", "k_per_w": "5 K/W",
    "j_per_k": "50 J/K", "per_k": "0.5 %/K", "c": "25 C",
}  # fmt: skip
_PATTERN = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?) ?([A-Za-z/%]*)")


class UnitError(ValueError):
    """A quantity that cannot be read: wrong unit, no unit, or not a finite number."""


def parse_quantity(value: object, dimension: str, *, bare: bool = False) -> float:
    """Read a quantity and return it in the base unit of its dimension.

    Parameters
    ----------
    value : str, int or float
        "30 Mbit/s", or a number where `bare` allows it.
    dimension : str
        A key of `DIMENSIONS`, for example "bit_per_s".
    bare : bool
        Accept a number without a unit as being in the base unit already.

    Returns
    -------
    float
        Finite; in the base unit (seconds, bytes, bit/s, watts, joules, ...).

    Raises
    ------
    UnitError
        If the value is not a finite number with a unit of this dimension.

    Examples
    --------
    >>> parse_quantity("30 Mbit/s", "bit_per_s")
    30000000.0
    >>> parse_quantity("512 MiB", "bytes")
    536870912.0
    >>> parse_quantity("5 W", "usd")
    Traceback (most recent call last):
        ...
    edgellm.cost.units.UnitError: '5 W' has unit 'W'; expected one of USD
    """
    units = DIMENSIONS[dimension]
    example = _EXAMPLE[dimension]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise UnitError(f'{value!r} is not a quantity; write for example "{example}"')
    if isinstance(value, (int, float)):
        if not bare and "" not in units:
            raise UnitError(f'{value!r} has no unit; write for example "{example}"')
        number = _finite(value, value)
    else:
        match = _PATTERN.fullmatch(value.strip())
        if match is None:
            raise UnitError(f'{value!r} is not a quantity; write for example "{example}"')
        unit = match.group(2)
        if unit not in units:
            if unit == "":
                raise UnitError(f'{value!r} has no unit; write for example "{example}"')
            raise UnitError(
                f"{value!r} has unit {unit!r}; expected one of {', '.join(u or '(none)' for u in units)}"
            )
        number = _finite(float(match.group(1)), value) * units[unit]
    return _finite(number, value)


def _finite(number: int | float, original: object) -> float:
    try:
        result = float(number)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise UnitError(f"{original!r} is not a finite number")
    return result


def near_matches(name: str, known: Iterable[str], *, label: str = "known") -> str:
    """Return "; did you mean 'x'?; known: ..." for an error about an unknown name.

    Examples
    --------
    >>> near_matches("raspbery-pi-5", ["raspberry-pi-5", "n100"])
    "; did you mean 'raspberry-pi-5'? known: n100, raspberry-pi-5"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} {label}: {', '.join(names) if names else '(none)'}"
