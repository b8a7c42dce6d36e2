"""What a strategy is, as a short text: so that a study that is run again knows which runs it has.

Code counts, wherever it is: methods, base classes, the functions and values of a notebook or script that
they use. Lines and comments do not. What belongs to Python, to an installed package or to edgellm counts by
name only; versions are for those who keep results.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgellm.sim.engine.ship import global_names

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
#: Attributes of a class that belong to its making, not to its content.
_MADE = {
    "__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__firstlineno__",
    "__static_attributes__", "__abstractmethods__", "_abc_impl",
}  # fmt: skip
_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def fingerprint(*values: object) -> str:
    """Return 32 hexadecimal digits that depend on what the values are and do.

    Examples
    --------
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    True
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    digest = hashlib.sha256()
    seen: dict[int, int] = {}
    kept: list[object] = []  # what was made on the way lives on, so that no identity is used twice
    for part in _parts(values, seen, kept):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:32]


def _parts(value: Any, seen: dict[int, int], kept: list[object]) -> Iterator[bytes]:
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
        return
    if id(value) in seen:
        yield f"again {seen[id(value)]}".encode()
        return
    seen[id(value)] = len(seen)
    kept.append(value)
    for part in _content(value):
        if isinstance(part, bytes):
            yield part
        else:
            yield from _parts(part.value, seen, kept)


@dataclasses.dataclass(frozen=True, slots=True)
class _Inner:
    """Something inside: looked into in its turn."""

    value: Any


def _content(value: Any) -> Iterator[bytes | _Inner]:
    if isinstance(value, np.ndarray | np.generic):
        yield f"array {np.asarray(value).dtype} {np.shape(value)}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, tuple | list):
        yield f"{type(value).__name__} {len(value)}".encode()
        yield from map(_Inner, value)
    elif isinstance(value, set | frozenset):
        yield f"{type(value).__name__} {sorted(map(fingerprint, value))}".encode()
    elif isinstance(value, Mapping):
        yield f"{type(value).__name__} {len(value)}".encode()
        for key, inner in value.items():
            yield from (_Inner(key), _Inner(inner))
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__}".encode()
    elif isinstance(value, types.CodeType):
        yield value.co_code
        yield from map(_Inner, (value.co_names, value.co_varnames, value.co_freevars, value.co_consts))
    elif isinstance(value, types.FunctionType):
        yield from _function(value)
    elif isinstance(value, type):
        yield from _class(value)
    elif isinstance(value, types.MethodType):
        yield from (b"method", _Inner(value.__func__), _Inner(value.__self__))
    elif isinstance(value, staticmethod | classmethod):
        yield from (type(value).__name__.encode(), _Inner(value.__func__))
    elif isinstance(value, property):
        yield from (b"property", _Inner((value.fget, value.fset, value.fdel)))
    else:
        yield from _instance(value)


def _function(value: types.FunctionType) -> Iterator[bytes | _Inner]:
    yield f"function {value.__qualname__}".encode()
    if _is_installed(value.__module__) and "<" not in value.__qualname__:  # not made by a function
        yield value.__module__.encode()
        return
    yield from map(_Inner, (value.__code__, value.__defaults__, value.__kwdefaults__))
    for cell in value.__closure__ or ():
        try:
            yield _Inner(cell.cell_contents)
        except ValueError:  # not filled yet
            yield b"empty"
    for name in sorted(global_names(value.__code__)):
        if name in value.__globals__:
            yield from (name.encode(), _Inner(value.__globals__[name]))


def _class(value: type) -> Iterator[bytes | _Inner]:
    yield f"class {value.__module__}.{value.__qualname__}".encode()
    if _is_installed(value.__module__):
        return
    yield _Inner(value.__bases__)
    for name, inner in value.__dict__.items():
        if name not in _MADE and not isinstance(inner, types.MemberDescriptorType):
            yield from (name.encode(), _Inner(inner))


def _instance(value: Any) -> Iterator[bytes | _Inner]:
    """What pickle would send of it."""
    yield from (b"instance", _Inner(type(value)))
    try:
        how = value.__reduce_ex__(2)
    except Exception:  # a file, a lock: its kind is all there is to say
        return
    if isinstance(how, str):
        yield how.encode()
        return
    yield from map(_Inner, how[1:3])
    for items in how[3:5]:
        if items is not None:
            yield _Inner(list(items))


def _is_installed(module: str | None) -> bool:
    """Whether a module comes with Python, a package or edgellm, so that its name says what it holds."""
    if module is None or module == "__main__":
        return False
    if module == "edgellm" or module.startswith("edgellm."):
        return True
    found = sys.modules.get(module)
    if found is None:
        return False
    file = getattr(found, "__file__", None)
    return file is None or file.startswith(_INSTALLED)
