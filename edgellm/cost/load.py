"""Reads profiles from TOML: the shipped ones by name, a user's own by path. Unknown keys are errors."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from .profile import (
    PROFILE_SCHEMA,
    QUANTS,
    CitedQuality,
    Constant,
    DeviceProfile,
    LinkProfile,
    ModelProfile,
    ProfileError,
)
from .units import UnitError, near_matches, parse_quantity

_P = TypeVar("_P")

#: A profile is a page of text; anything bigger is not one.
MAX_PROFILE_BYTES = 1 << 20
_KIND_DIRS = {"device": "devices", "link": "links", "model": "models"}


@dataclass(frozen=True, slots=True)
class _Field:
    """How one constant is read: its dimension, its bounds, and whether a profile may leave it out."""

    dimension: str
    minimum: float = 0.0
    strict: bool = True  # the minimum itself is excluded
    least: float = 0.0  # a positive value below this is absurd
    maximum: float = 1e24
    optional: bool = False


_DEVICE_FIELDS: Mapping[str, _Field] = {
    "cores": _Field("count"),
    "ram_bytes": _Field("bytes"),
    "storage_bytes_per_s": _Field("bytes_per_s", least=1.0),
    "bandwidth_theoretical_bytes_per_s": _Field("bytes_per_s", least=1.0),
    "bandwidth_memcpy_bytes_per_s": _Field("bytes_per_s", least=1.0),
    "bandwidth_decode_bytes_per_s": _Field("bytes_per_s", least=1.0),
    "bandwidth_prefill_bytes_per_s": _Field("bytes_per_s", least=1.0),
    "ops_per_s": _Field("ops_per_s", least=1.0),
    "attention_ops_per_s": _Field("ops_per_s", least=1.0),
    "layer_overhead_s": _Field("s", strict=False),
    "host_overhead_s": _Field("s", strict=False),
    "idle_w": _Field("w", strict=False),
    "active_w": _Field("w"),
    "price_usd": _Field("usd", strict=False),
    "battery_j": _Field("j", optional=True),
    "usd_per_hour": _Field("usd_per_hour", strict=False, optional=True),
}
_LINK_FIELDS: Mapping[str, _Field] = {
    "up_bit_per_s": _Field("bit_per_s", least=0.01),
    "down_bit_per_s": _Field("bit_per_s", least=0.01),
    "latency_s": _Field("s", strict=False),
    "loss": _Field("ratio", strict=False, maximum=0.9),
    "energy_up_j_per_bit": _Field("j_per_bit", strict=False),
    "energy_down_j_per_bit": _Field("j_per_bit", strict=False),
    "max_payload_bytes": _Field("bytes", optional=True),
    "duty_cycle": _Field("ratio", least=1e-6, maximum=1.0, optional=True),
    "max_transfer_s": _Field("s", optional=True),
}
_MODEL_INTS = ("layers", "width", "heads", "kv_heads", "head_dim", "ffn", "vocab", "context")
_CONSTANT_KEYS = ("value", "low", "high", "source", "guess")


def user_profile_dir() -> Path:
    """Return the folder of the user's own profiles, where `edgellm calibrate` writes (it may not exist)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "edgellm" / "profiles"


def known_profiles(kind: str) -> tuple[str, ...]:
    """Return the names of the shipped profiles of a kind ("device", "link" or "model"), sorted.

    Examples
    --------
    >>> "raspberry-pi-5" in known_profiles("device")
    True
    """
    folder = resources.files("edgellm.cost").joinpath("profiles", _KIND_DIRS[kind])
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def load_device(name: str, base: Path | None = None) -> DeviceProfile:
    """Load a device profile by its name, or by the path of a user's own TOML file.

    Parameters
    ----------
    name : str
        A shipped name, "this-machine" (written by `edgellm calibrate`), or a path: anything that contains a
        slash or ends in ".toml".
    base : Path or None
        Folder that a relative path starts from; None for the current one.

    Raises
    ------
    ProfileError
        If the name is unknown, or the file is malformed; the message names file and key.

    Examples
    --------
    >>> int(load_device("raspberry-pi-5").cores.value)
    4
    """
    return _load("device", name, base, device_from_mapping)


def load_link(name: str, base: Path | None = None) -> LinkProfile:
    """Load a link profile by name or path, as `load_device`.

    Examples
    --------
    >>> load_link("wifi-5").sharing
    'shared'
    """
    return _load("link", name, base, link_from_mapping)


def load_model(name: str, base: Path | None = None) -> ModelProfile:
    """Load the shape of a model by name or path, as `load_device`.

    Examples
    --------
    >>> load_model("smollm2-135m").params
    134515008
    """
    return _load("model", name, base, model_from_mapping)


def device_from_mapping(data: Mapping[str, Any], where: str = "<profile>") -> DeviceProfile:
    """Build a device profile from parsed TOML; `where` is the file named in errors."""
    constants = _read_constants(data, _DEVICE_FIELDS, ("stamp",), "device", where)
    cores = constants["cores"]
    if cores is not None and cores.value != int(cores.value):
        raise ProfileError(f"{where}: cores: must be a whole number, got {cores.value}")
    if constants["active_w"].value < constants["idle_w"].value:
        raise ProfileError(f"{where}: active_w: must be at least idle_w, since it includes it")
    stamp = _table(data, "stamp", where)
    for key, text in stamp.items():
        if not isinstance(text, str):
            raise ProfileError(f"{where}: stamp.{key}: must be text, got {text!r}")
    present = {key: value for key, value in constants.items() if value is not None}
    return DeviceProfile(
        name=_text(data, "name", where),
        title=_text(data, "title", where),
        notes=_text(data, "notes", where, default=""),
        stamp=MappingProxyType({str(k): str(v) for k, v in stamp.items()}),
        **present,
    )


def link_from_mapping(data: Mapping[str, Any], where: str = "<profile>") -> LinkProfile:
    """Build a link profile from parsed TOML; `where` is the file named in errors."""
    constants = _read_constants(data, _LINK_FIELDS, ("sharing",), "link", where)
    sharing = _text(data, "sharing", where)
    if sharing not in ("shared", "split"):
        raise ProfileError(f'{where}: sharing: must be "shared" or "split", got {sharing!r}')
    present = {key: value for key, value in constants.items() if value is not None}
    return LinkProfile(
        name=_text(data, "name", where),
        title=_text(data, "title", where),
        notes=_text(data, "notes", where, default=""),
        sharing=sharing,
        **present,
    )


def model_from_mapping(data: Mapping[str, Any], where: str = "<profile>") -> ModelProfile:
    """Build a model profile from parsed TOML; `where` is the file named in errors."""
    keys = ("schema", "kind", "name", "title", "source", "tied", "qkv_bias", "quality", *_MODEL_INTS)
    _check_head(data, "model", keys, where)
    sizes: dict[str, int] = {}
    for key in _MODEL_INTS:
        value = _required(data, key, where)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise ProfileError(f"{where}: {key}: must be a positive whole number, got {value!r}")
        sizes[key] = value
    if sizes["heads"] % sizes["kv_heads"] != 0:
        raise ProfileError(
            f"{where}: kv_heads: must divide heads ({sizes['heads']}), got {sizes['kv_heads']}"
        )
    flags = {key: data.get(key, False) for key in ("tied", "qkv_bias")}
    for key, flag in flags.items():
        if not isinstance(flag, bool):
            raise ProfileError(f"{where}: {key}: must be true or false, got {flag!r}")
    quality = {
        str(quant): _cited(value, f"{where}: quality.{quant}", str(quant))
        for quant, value in _table(data, "quality", where).items()
    }
    return ModelProfile(
        name=_text(data, "name", where),
        title=_text(data, "title", where),
        source=_text(data, "source", where),
        quality=MappingProxyType(quality),
        tied=flags["tied"],
        qkv_bias=flags["qkv_bias"],
        **sizes,
    )


def _cited(value: object, where: str, quant: str) -> CitedQuality:
    if quant not in QUANTS:
        raise ProfileError(f"{where}: unknown quantization{near_matches(quant, QUANTS)}")
    if not isinstance(value, dict):
        raise ProfileError(f"{where}: must be a table with metric, value, text and source")
    _unknown(value, ("metric", "value", "text", "source"), where, "")
    number = value.get("value")
    try:
        amount = parse_quantity(number, "count", bare=True)
    except UnitError as err:
        raise ProfileError(f"{where}.value: {err}") from None
    texts = [_text(value, key, where) for key in ("metric", "text", "source")]
    return CitedQuality(texts[0], amount, texts[1], texts[2])


def _load(kind: str, name: str, base: Path | None, build: Callable[[Mapping[str, Any], str], _P]) -> _P:
    if "/" in name or name.endswith(".toml"):
        path = Path(name).expanduser()
        return build(_parse(_read(path if base is None else base / path), str(path)), str(path))
    if name in known_profiles(kind):
        return build(_shipped(kind, name), f"{name}.toml")
    if kind == "device" and name == "this-machine":
        path = user_profile_dir() / "this-machine.toml"
        if not path.exists():
            raise ProfileError(f"device 'this-machine': not measured yet ({path}); run: edgellm calibrate")
        return build(_parse(_read(path), str(path)), str(path))
    hint = near_matches(name, known_profiles(kind))
    raise ProfileError(f"unknown {kind} {name!r}{hint} (or the path of a .toml file)")


@functools.cache
def _shipped(kind: str, name: str) -> Mapping[str, Any]:
    file = resources.files("edgellm.cost").joinpath("profiles", _KIND_DIRS[kind], f"{name}.toml")
    data = _parse(file.read_bytes(), f"{name}.toml")
    if data.get("name") != name:
        raise ProfileError(f"{name}.toml: name: must equal the file's name, got {data.get('name')!r}")
    return data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PROFILE_BYTES + 1)
    except OSError as err:
        raise ProfileError(f"{path}: cannot be read: {err.strerror or err}") from None
    if len(raw) > MAX_PROFILE_BYTES:
        raise ProfileError(f"{path}: more than {MAX_PROFILE_BYTES} bytes; not a profile")
    return raw


def _parse(raw: bytes, where: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as err:
        raise ProfileError(f"{where}: not valid TOML: {err}") from None


def _check_head(data: Mapping[str, Any], kind: str, keys: tuple[str, ...], where: str) -> None:
    schema = _required(data, "schema", where)
    if isinstance(schema, bool) or schema != PROFILE_SCHEMA:
        raise ProfileError(f"{where}: schema: this version reads schema {PROFILE_SCHEMA}, got {schema!r}")
    if data.get("kind") != kind:
        raise ProfileError(f"{where}: kind: expected {kind!r}, got {data.get('kind')!r}")
    _unknown(data, keys, where, "")


def _read_constants(
    data: Mapping[str, Any], fields: Mapping[str, _Field], extra: tuple[str, ...], kind: str, where: str
) -> dict[str, Any]:
    """Return every constant by key, None for an optional one that is absent."""
    head = ("schema", "kind", "name", "title", "notes", "sources", *extra)
    _check_head(data, kind, (*head, *fields), where)
    sources = _table(data, "sources", where)
    for key, text in sources.items():
        if not isinstance(text, str) or not text.strip():
            raise ProfileError(f"{where}: sources.{key}: must be text that names the source, got {text!r}")
    found: dict[str, Any] = {}
    for key, rule in fields.items():
        if key not in data:
            if not rule.optional:
                raise ProfileError(f"{where}: {key}: missing")
            found[key] = None
            continue
        found[key] = _constant(data[key], rule, sources, f"{where}: {key}")
    return found


def _constant(raw: object, rule: _Field, sources: Mapping[str, str], where: str) -> Constant:
    if not isinstance(raw, dict):
        raise ProfileError(f"{where}: must be a table {{ value = ..., source = ... }}, got {raw!r}")
    _unknown(raw, _CONSTANT_KEYS, where, "")
    source = _text(raw, "source", where)
    if sources:
        if source not in sources:
            raise ProfileError(
                f"{where}.source: {source!r} is not in [sources]{near_matches(source, sources)}"
            )
        source = sources[source]
    guess = raw.get("guess", False)
    if not isinstance(guess, bool):
        raise ProfileError(f"{where}.guess: must be true or false, got {guess!r}")
    value = _number(_required(raw, "value", where), rule, f"{where}.value")
    low = _number(raw["low"], rule, f"{where}.low") if "low" in raw else None
    high = _number(raw["high"], rule, f"{where}.high") if "high" in raw else None
    if (low is not None and low > value) or (high is not None and high < value):
        raise ProfileError(f"{where}: value {value:g} is outside its own spread, low {low} to high {high}")
    return Constant(value, rule.dimension, source, low, high, guess)


def _number(raw: object, rule: _Field, where: str) -> float:
    try:
        value = parse_quantity(raw, rule.dimension, bare=True)
    except UnitError as err:
        raise ProfileError(f"{where}: {err}") from None
    if value < rule.minimum or (rule.strict and value == rule.minimum):
        need = "positive" if rule.strict else "0 or more"
        raise ProfileError(f"{where}: must be {need}, got {raw!r}")
    if 0.0 < value < rule.least:
        raise ProfileError(f"{where}: {raw!r} is absurd: less than {rule.least:g}")
    if value > rule.maximum:
        raise ProfileError(f"{where}: must be at most {rule.maximum:g}, got {raw!r}")
    return value


def _required(data: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in data:
        raise ProfileError(f"{where}: {key}: missing")
    return data[key]


def _text(data: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = _required(data, key, where) if default is None else data.get(key, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise ProfileError(f"{where}: {key}: must be text, got {value!r}")
    return value


def _table(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise ProfileError(f"{where}: {key}: must be a table, got {value!r}")
    return value


def _unknown(data: Mapping[str, Any], keys: tuple[str, ...], where: str, prefix: str) -> None:
    for key in data:
        if key not in keys:
            raise ProfileError(f"{where}: {prefix}{key}: unknown key{near_matches(key, keys)}")
