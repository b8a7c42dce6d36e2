"""Imports of what only the testbed needs, with one-line errors that say what to install."""

import importlib
from typing import Any

#: Extras of the testbed besides "sim", by what they bring.
_EXTRAS = {"duckdb": "sweep", "optuna": "sweep", "distributed": "dask"}


class MissingExtra(ImportError):
    """A package or library of the testbed is not installed; the message says how to get it."""


def require(name: str) -> Any:
    """Import an optional package of the testbed.

    Parameters
    ----------
    name : str
        Module, e.g. "pandas".

    Raises
    ------
    MissingExtra
        One line that names the command which installs it.

    Examples
    --------
    >>> require("json").dumps([])
    '[]'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        extra = _EXTRAS.get(package, "sim")
        raise MissingExtra(f"the testbed needs {package} ({error}): pip install 'edgellm[{extra}]'") from None


def require_simgrid() -> Any:
    """Return the room that drives SimGrid, `edgellm.sim.engine.run`.

    Raises
    ------
    MissingExtra
        If `edgellm._sim` was not built, because SimGrid was not there when edgellm was installed.
    """
    try:
        importlib.import_module("edgellm._sim")
    except ImportError as error:
        raise MissingExtra(
            f"simulations need SimGrid ({error}): apt-get install libsimgrid-dev, then "
            "pip install --force-reinstall --no-deps edgellm (or `make build` in a clone)"
        ) from None
    return importlib.import_module("edgellm.sim.engine.run")
