"""Sending a strategy to the server process, also one that was written in a notebook.

`pickle` sends classes and functions by name, which only works where the other side can import that name.
Here, what cannot be imported (a class of a notebook or script, a function inside a function, a lambda) is
sent by value: code, the globals that it uses, closures. Everything else is sent by name, as always.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import enum
import importlib
import importlib.machinery
import io
import marshal
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any, cast

#: Attributes of a class that belong to its making, not to its content.
_MADE = {"__dict__", "__weakref__", "__slots__", "_abc_impl", "__module__"}
_SLOT_TYPES = (types.MemberDescriptorType, types.GetSetDescriptorType)


def dumps(value: Any) -> bytes:
    """Return `value` as bytes that `pickle.loads` reads in a process that has never seen its classes.

    Raises
    ------
    pickle.PicklingError, TypeError, ...
        Whatever `pickle` raises where something cannot be sent (an open file, a lock).

    Examples
    --------
    >>> pickle.loads(dumps(lambda x: x + 1))(2)
    3
    """
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Message:
    """Tasks on their way to the server: each scenario once, and each task by itself.

    Attributes
    ----------
    scenarios : bytes
        The pickled list of the scenarios.
    tasks : tuple of bytes
        One for each task; see `load_task`.
    workers : int
        How many run at once.
    folder : str
        Where task i leaves its result, in a file called i.
    """

    scenarios: bytes
    tasks: tuple[bytes, ...]
    workers: int
    folder: str


def dump_task(task: Any, scenarios: list[Any]) -> bytes:
    """Return a task (a dataclass with a `scenario`) as bytes, its scenario replaced by its place in a list.

    The scenario is appended to `scenarios` if it is not there; a fleet may be large and is sent once.
    """
    place = next((i for i, known in enumerate(scenarios) if known is task.scenario), None)
    if place is None:
        place = len(scenarios)
        scenarios.append(task.scenario)
    return dumps((place, dataclasses.replace(task, scenario=None)))


def load_task(data: bytes, scenarios: list[Any]) -> Any:
    """Return what `dump_task` was given."""
    place, task = pickle.loads(data)
    return dataclasses.replace(task, scenario=scenarios[place])


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self._globals: dict[int, dict[str, Any]] = {}  # id of a module's globals -> the dict that is sent
        self._importable: dict[str, bool] = {}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.MappingProxyType):
            return _make_proxy, (dict(obj),)
        if isinstance(obj, types.ModuleType):
            return importlib.import_module, (obj.__name__,)
        if isinstance(obj, types.CodeType):
            return marshal.loads, (marshal.dumps(obj),)
        if isinstance(obj, types.CellType):
            return _make_cell, ()
        if isinstance(obj, property):
            return property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)
        if isinstance(obj, staticmethod | classmethod):
            return type(obj), (obj.__func__,)
        if isinstance(obj, type) and obj.__module__ == "builtins" and not hasattr(builtins, obj.__name__):
            return getattr, (types, next(n for n, t in vars(types).items() if t is obj))
        if obj is dataclasses.MISSING:
            return getattr, (dataclasses, "MISSING")
        if type(obj).__module__ == "dataclasses" and type(obj).__name__ == "_FIELD_BASE":
            return getattr, (dataclasses, obj.name)
        if isinstance(obj, types.FunctionType) and not self._by_name(obj):
            return self._function(obj)
        if isinstance(obj, type) and not self._by_name(obj):
            return self._class(obj)
        return NotImplemented

    def _by_name(self, obj: Any) -> bool:
        """Whether the other side finds the very same object by its name."""
        module, path = obj.__module__, obj.__qualname__
        if module == "builtins":
            return True
        if module in (None, "__main__") or "<" in path or module not in sys.modules:
            return False
        found: Any = sys.modules[module]
        for part in path.split("."):
            found = getattr(found, part, None)
        return found is obj and self._can_import(module)

    def _can_import(self, module: str) -> bool:
        if module not in self._importable:
            self._importable[module] = _find(module)
        return self._importable[module]

    def _function(self, func: types.FunctionType) -> Any:
        sent = self._globals.setdefault(
            id(func.__globals__),
            {"__name__": func.__module__, "__package__": func.__globals__.get("__package__")},
        )
        cells = func.__closure__ or ()
        used = {
            name: func.__globals__[name]
            for name in sorted(global_names(func.__code__))
            if name in func.__globals__
        }
        state = {
            "globals": used,
            "cells": [(cell, cell.cell_contents) for cell in cells if _filled(cell)],
            "attributes": {
                "__defaults__": func.__defaults__,
                "__kwdefaults__": func.__kwdefaults__,
                "__annotations__": func.__annotations__,
                "__qualname__": func.__qualname__,
                "__doc__": func.__doc__,
                "__module__": func.__module__,
            },
            "dict": func.__dict__,
        }
        return _make_function, (func.__code__, sent, func.__name__, cells), state, None, None, _fill_function

    def _class(self, cls: type) -> Any:
        if issubclass(cls, enum.Enum):
            members = {m.name: m.value for m in cls}
            return _make_enum, (cls.__bases__[-1], cls.__name__, members, cls.__module__, cls.__qualname__)
        content = dict(cls.__dict__)
        slots = content.get("__slots__")
        state = {
            key: value
            for key, value in content.items()
            if key not in _MADE and not isinstance(value, _SLOT_TYPES)
        }
        made = (type(cls), cls.__name__, cls.__bases__, cls.__module__, slots)
        return _make_class, made, state, None, None, _fill_class


def _find(module: str) -> bool:
    """Whether a fresh process with the same sys.path can import a module."""
    if module in sys.builtin_module_names or module.split(".")[0] in sys.stdlib_module_names:
        return True
    path = None
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        name = ".".join(parts[:i])
        spec = None
        for finder in sys.meta_path:
            if type(finder).__module__.startswith("_pytest"):  # it is not there in the other process
                continue
            find = getattr(finder, "find_spec", None)
            spec = find(name, path) if find is not None else None
            if spec is not None:
                break
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def global_names(code: types.CodeType) -> set[str]:
    """Return the names of globals that a function may use, those of the functions inside it included.

    Names of attributes are not among them: `here.run` does not need what a notebook happens to call `run`.

    Examples
    --------
    >>> sorted(global_names((lambda here: len(here.run)).__code__))
    ['len']
    """
    found = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= global_names(constant)
    return found


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading it is the test
    except ValueError:
        return False
    return True


# What the other side calls.


def _make_proxy(content: dict[Any, Any]) -> types.MappingProxyType[Any, Any]:
    return types.MappingProxyType(content)


def _make_cell() -> types.CellType:
    return types.CellType()


def _make_function(
    code: types.CodeType, module_globals: dict[str, Any], name: str, cells: tuple[types.CellType, ...]
) -> types.FunctionType:
    return types.FunctionType(code, module_globals, name, None, cells)


def _fill_function(func: types.FunctionType, state: dict[str, Any]) -> None:
    func.__globals__.update(state["globals"])
    for cell, contents in state["cells"]:
        cell.cell_contents = contents
    for name, value in state["attributes"].items():
        setattr(func, name, value)
    func.__dict__.update(state["dict"])


def _make_class(meta: type, name: str, bases: tuple[type, ...], module: str, slots: Any) -> type:
    def fill(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = module
        if slots is not None:
            namespace["__slots__"] = slots

    return types.new_class(name, bases, {"metaclass": meta}, fill)


def _fill_class(cls: type, state: dict[str, Any]) -> None:
    for name, value in state.items():
        setattr(cls, name, value)


def _make_enum(base: type[enum.Enum], name: str, members: dict[str, Any], module: str, qualname: str) -> type:
    functional = cast("Callable[..., type]", base)
    return functional(name, members, module=module, qualname=qualname)
