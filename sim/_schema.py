"""The keys of a scenario file, in one table, and the strict reader that holds files to it.

docs/scenario.md documents every key; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from edgellm.cost.toml_lines import written_key

from .units import UnitError, near_matches, parse_quantity

#: Version of the schema of scenarios. A file with another version is refused.
SCENARIO_SCHEMA = 1

#: No quantity of a scenario is bigger, in its base unit.
ABSURD = 1e15

#: Table -> its keys. `*` stands for a name that the author of the scenario chooses.
KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "": (
            "schema", "name", "title", "description", "duration",
            "models", "session", "fleet", "network", "initial", "workload", "energy", "slo", "prices",
            "quality", "study",
        ),
        "models.*": ("profile", "quant", "weights"),
        "network": ("factors", "tls", "keep_alive"),
        "session": ("context", "kv"),
        "fleet.*": ("count", "ambient"),  # and one table per node
        "fleet.*.*": (
            "device", "threads", "role", "count", "models", "battery", "ambient", "sleep",
            "outages", "uplink",
        ),
        "fleet.*.*.battery": (
            "capacity", "charge", "charge_efficiency", "discharge_efficiency", "self_discharge", "peukert",
            "rated", "temperature_derating", "rated_temperature", "cutoff",
        ),
        "fleet.*.*.sleep": ("after", "mode", "power", "wake_time", "wake_energy"),
        "fleet.*.*.uplink": ("to", "link", "group", "tls", "outages", "forwarding"),
        "initial.*": ("resident", "charge", "backlog"),
        "workload.*": (
            "at", "arrivals", "kinds", "turns", "think_time", "context_tokens", "patience", "patience_until",
            "retries", "backoff",
        ),
        "workload.*.times": ("dist", "value", "mean", "median", "sigma"),
        "workload.*.arrivals": ("process", "rate", "hours", "start_hour", "path"),
        "workload.*.kinds.*": (
            "weight", "model", "prompt_tokens", "output_tokens", "prefix_tokens", "prompts", "data_class",
            "deadline", "bytes_per_token",
        ),
        "workload.*.kinds.*.lengths": (
            "dist", "value", "low", "high", "median", "sigma", "values", "weights",
        ),
        "energy": ("at",),
        "slo": ("ttft", "tpot", "e2e", "target"),
        "prices": ("electricity", "data"),
        "quality": ("text", "tokens", "context", "kv"),
        "study": (
            "strategies", "seeds", "models", "seed", "replications", "mode", "solver", "warmup", "batches",
        ),
    }
)  # fmt: skip

_T = TypeVar("_T")


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message names the key."""


class Table:
    """One table of the file, with its full key for errors. Every reading names the key it failed at."""

    def __init__(self, data: object, path: str, pattern: str, *, open_keys: bool = False) -> None:
        if not isinstance(data, dict):
            raise ScenarioError(f"{path or 'scenario'}: must be a table, got {_short(data)}")
        self.data: dict[str, Any] = data
        self.path = path
        if not open_keys:
            known = KEYS[pattern]
            for key in data:
                if key not in known:
                    raise ScenarioError(f"{self.key(key)}: unknown key{near_matches(str(key), known)}")

    def key(self, name: str) -> str:
        """Return the full dotted key of `name` in this table."""
        written = written_key(name)
        return f"{self.path}.{written}" if self.path else written

    def fail(self, name: str, message: str) -> ScenarioError:
        """Return the error to raise about the key `name`."""
        return ScenarioError(f"{self.key(name)}: {message}")

    def __contains__(self, name: str) -> bool:
        return name in self.data

    def table(self, name: str, pattern: str, *, open_keys: bool = False) -> Table:
        """Return a table below this one; an absent one is empty."""
        return Table(self.data.get(name, {}), self.key(name), pattern, open_keys=open_keys)

    def tables(self, pattern: str, *, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, Table]]:
        """Yield (name, table) for every table below whose name the author chose."""
        for name, value in self.data.items():
            if name in skip:
                continue
            if not str(name).strip() or ("/" in str(name) and pattern.startswith("fleet")):
                raise self.fail(str(name), "a name must not be empty nor contain '/'")
            yield name, Table(value, self.key(name), pattern)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text that is not empty."""
        value = self._get(name, default)
        if not isinstance(value, str) or (not value.strip() and value != default):
            raise self.fail(name, f"must be text, got {_short(value)}")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None where the key is absent."""
        return self.text(name) if name in self else None

    def choice(self, name: str, known: tuple[str, ...], default: str | None = None) -> str:
        """Return a text that is one of `known`."""
        value = self.text(name, default)
        if value not in known:
            raise self.fail(name, f"unknown value {value!r}{near_matches(value, known)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return a value that must be true or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.fail(name, f"must be true or false, got {_short(value)}")
        return value

    def whole(self, name: str, default: int | None = None, *, low: int = 1, high: int = 2**31 - 1) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(name, f"must be a whole number from {low} to {high}, got {_short(value)}")
        return value

    def quantity(self, name: str, dimension: str, default: object = None, *, zero: bool = False) -> float:
        """Return a positive quantity in the base unit of its dimension; 0 too where `zero` allows it."""
        return self.amount(name, self._get(name, default), dimension, zero=zero)

    def optional_quantity(self, name: str, dimension: str) -> float | None:
        """Return a positive quantity, or None where the key is absent."""
        return self.quantity(name, dimension) if name in self else None

    def amount(self, name: str, raw: object, dimension: str, *, zero: bool = False) -> float:
        """Read `raw` as a quantity and blame the key `name` for errors."""
        try:
            value = parse_quantity(raw, dimension)
        except UnitError as err:
            raise self.fail(name, str(err)) from None
        if value < 0 or (value == 0 and not zero):
            raise self.fail(name, f"must be {'0 or more' if zero else 'positive'}, got {_short(raw)}")
        if value > ABSURD:
            raise self.fail(name, f"{_short(raw)} is absurd: more than {ABSURD:g}")
        return value

    def list_of(self, name: str, kind: type[_T], default: tuple[_T, ...] | None = None) -> tuple[_T, ...]:
        """Return a list whose entries are all of one type."""
        value = self._get(name, default)
        good = isinstance(value, (list, tuple)) and all(
            isinstance(v, kind) and (kind is bool or not isinstance(v, bool)) for v in value
        )
        if not good:
            raise self.fail(name, f"must be a list of {kind.__name__}, got {_short(value)}")
        return tuple(value)

    def _get(self, name: str, default: object) -> Any:
        if name in self.data:
            return self.data[name]
        if default is None:
            raise self.fail(name, "missing")
        return default


def resolve_path(text: str, base: Path | None) -> Path:
    """Return a path of the scenario, relative ones from the folder of its file."""
    path = Path(text).expanduser()
    return path if base is None or path.is_absolute() else base / path


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
