"""Reads profiles from TOML: the shipped ones by name, a user's own by path. Unknown keys are errors."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from . import schema
from .constant import Constant, ProfileError
from .model_profile import QUANTS, CitedQuality, ModelProfile
from .parts import (
    METERS,
    BatteryProfile,
    IdleState,
    PowerProfile,
    RadioProfile,
    SizeFactor,
    ThermalProfile,
    TlsProfile,
)
from .profile import LINK_CLASSES, PROFILE_SCHEMA, DeviceProfile, LinkProfile
from .reading import (
    Field,
    check_keys,
    read_constant,
    read_fields,
    read_sources,
    read_table,
    read_text,
    required,
)
from .toml_lines import line_of, parse_toml
from .units import UnitError, near_matches, parse_quantity

_P = TypeVar("_P")

#: A profile is a page of text; anything bigger is not one.
MAX_PROFILE_BYTES = 1 << 20
_KIND_DIRS = {"device": "devices", "link": "links", "model": "models"}
_HEAD = ("schema", "kind", "name", "title", "notes", "sources")


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
        slash or ends in ".toml". "NAME@RUNTIME" is the device with another engine of its profile.
    base : Path or None
        Folder that a relative path starts from; None for the current one.

    Raises
    ------
    ProfileError
        If the name or the runtime is unknown, or the file is malformed; the message names file and key.

    Examples
    --------
    >>> int(load_device("raspberry-pi-5").cores.value)
    4
    """
    plain, runtime = name, ""
    if not name.endswith(".toml") and "@" in name:
        plain, _, runtime = name.rpartition("@")
    return _load("device", plain, base, functools.partial(device_from_mapping, runtime=runtime))


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


def device_from_mapping(
    data: Mapping[str, Any], where: str = "<profile>", runtime: str = ""
) -> DeviceProfile:
    """Build a device profile from parsed TOML.

    Parameters
    ----------
    data : mapping
        The file's content.
    where : str
        The file named in errors.
    runtime : str
        One of the file's `[runtimes]`, or "" or the file's own `runtime` for its default one.
    """
    known = (*_HEAD, *schema.DEVICE_FIELDS, *schema.DEVICE_TEXTS, *schema.DEVICE_TABLES)
    _check_head(data, "device", known, where)
    sources = read_sources(data, where)
    found: dict[str, Any] = dict(read_fields(data, schema.DEVICE_FIELDS, sources, where))
    cores = found["cores"]
    if cores.value != int(cores.value):
        raise ProfileError(f"{where}: cores: must be a whole number, got {cores.value}")
    found |= _runtime_tables(data, sources, where)
    name, own = read_text(data, "name", where), read_text(data, "runtime", where, default="")
    firmware = read_text(data, "firmware", where, default="")
    others = _runtimes(data, sources, where)
    if own in others:
        raise ProfileError(f"{where}: runtimes.{own}: is the name of the default runtime too")
    if runtime and runtime != own:
        if runtime not in others:
            names = [*others, own] if own else list(others)
            raise ProfileError(f"{where}: {name!r} has no runtime {runtime!r}{near_matches(runtime, names)}")
        chosen = others[runtime]
        found |= chosen
        name, own, firmware = f"{name}@{runtime}", runtime, chosen.get("firmware", firmware)
    for constants, prefix in ((found, ""), *((found | o, f"runtimes.{n}.") for n, o in others.items())):
        if constants["active_w"].value < constants["idle_w"].value:
            raise ProfileError(f"{where}: {prefix}active_w: must be at least idle_w, since it includes it")
    stamp = read_table(data, "stamp", where)
    for key, text in stamp.items():
        if not isinstance(text, str):
            raise ProfileError(f"{where}: stamp.{key}: must be text, got {text!r}")
    found |= {"firmware": firmware}
    return DeviceProfile(
        name=name,
        title=read_text(data, "title", where),
        notes=read_text(data, "notes", where, default=""),
        stamp=MappingProxyType({str(k): str(v) for k, v in stamp.items()}),
        power=_power(data, sources, where),
        thermal=_thermal(data, sources, where),
        battery=_part(data, "battery", schema.BATTERY_FIELDS, BatteryProfile, sources, where),
        runtime=own,
        runtimes=tuple(others),
        **found,
    )


def _runtimes(data: Mapping[str, Any], sources: Mapping[str, str], where: str) -> dict[str, dict[str, Any]]:
    """Return what each runtime replaces."""
    found: dict[str, dict[str, Any]] = {}
    optional = {
        key: Field(rule.dimension, rule.minimum, rule.strict, rule.least, rule.maximum, optional=True)
        for key, rule in schema.RUNTIME_FIELDS.items()
    }
    for name, value in read_table(data, "runtimes", where).items():
        inside = f"{where}: runtimes.{name}"
        if not isinstance(value, dict):
            raise ProfileError(f"{inside}: must be a table, got {value!r}")
        if not name.strip() or "@" in name or "/" in name:
            raise ProfileError(f"{inside}: the name of a runtime is not empty and has no '@' or '/'")
        check_keys(value, (*optional, *schema.RUNTIME_TABLES, "firmware"), inside)
        found[name] = {
            **read_fields(value, optional, sources, inside),
            **_runtime_tables(value, sources, inside),
        }
        if "firmware" in value:
            found[name]["firmware"] = read_text(value, "firmware", inside)
    return found


def _runtime_tables(
    data: Mapping[str, Any], sources: Mapping[str, str], where: str
) -> dict[str, Mapping[Any, Constant]]:
    """Return the tables of constants that are there: by threads, and by storage type."""
    found: dict[str, Mapping[Any, Constant]] = {}
    for table, rule in schema.RUNTIME_TABLES.items():
        if table not in data:
            continue
        entries: dict[Any, Constant] = {}
        for key, raw in read_table(data, table, where).items():
            inside = f"{where}: {table}.{key}"
            if table == "threads":
                if not key.isascii() or not key.isdigit() or not 1 <= int(key) <= 4096:
                    raise ProfileError(f"{inside}: must be a number of threads")
                entries[int(key)] = read_constant(raw, rule, sources, inside)
                continue
            if key not in QUANTS:
                raise ProfileError(f"{inside}: unknown quantization{near_matches(key, QUANTS)}")
            entries[key] = read_constant(raw, rule, sources, inside)
        found[table] = MappingProxyType(entries)
    return found


def _power(data: Mapping[str, Any], sources: Mapping[str, str], where: str) -> PowerProfile | None:
    if "power" not in data:
        return None
    table = read_table(data, "power", where)
    check_keys(table, (*schema.POWER_FIELDS, "states", "meter"), where, "power.")
    meter = read_text(table, "meter", f"{where}: power", default="wall")
    if meter not in METERS:
        raise ProfileError(f"{where}: power.meter: unknown value {meter!r}{near_matches(meter, METERS)}")
    states: dict[str, IdleState] = {}
    for name, value in read_table(table, "states", f"{where}: power").items():
        prefix = f"power.states.{name}."
        if not isinstance(value, dict):
            raise ProfileError(f"{where}: {prefix[:-1]}: must be a table, got {value!r}")
        check_keys(value, schema.IDLE_STATE_FIELDS, where, prefix)
        states[name] = IdleState(**read_fields(value, schema.IDLE_STATE_FIELDS, sources, where, prefix))
    found = read_fields(table, schema.POWER_FIELDS, sources, where, "power.")
    return PowerProfile(states=MappingProxyType(states), meter=meter, **found)


def _thermal(data: Mapping[str, Any], sources: Mapping[str, str], where: str) -> ThermalProfile | None:
    thermal = _part(data, "thermal", schema.THERMAL_FIELDS, ThermalProfile, sources, where)
    if thermal is not None and thermal.resume_c.value >= thermal.throttle_c.value:
        raise ProfileError(f"{where}: thermal.resume_c: must be below throttle_c")
    return thermal


def _part(
    data: Mapping[str, Any],
    key: str,
    rules: Mapping[str, Field],
    build: Callable[..., _P],
    sources: Mapping[str, str],
    where: str,
) -> _P | None:
    """Return a table of constants as its class, None where the profile does not have it."""
    if key not in data:
        return None
    table = read_table(data, key, where)
    check_keys(table, rules, where, f"{key}.")
    return build(**read_fields(table, rules, sources, where, f"{key}."))


def link_from_mapping(data: Mapping[str, Any], where: str = "<profile>") -> LinkProfile:
    """Build a link profile from parsed TOML; `where` is the file named in errors."""
    known = (*_HEAD, *schema.LINK_FIELDS, "sharing", "class", "tls", "sizes", "radio")
    _check_head(data, "link", known, where)
    sources = read_sources(data, where)
    found = read_fields(data, schema.LINK_FIELDS, sources, where)
    sharing = read_text(data, "sharing", where)
    if sharing not in ("shared", "split"):
        raise ProfileError(f'{where}: sharing: must be "shared" or "split", got {sharing!r}')
    link_class = read_text(data, "class", where, default="")
    if link_class and link_class not in LINK_CLASSES:
        raise ProfileError(
            f"{where}: class: unknown value {link_class!r}{near_matches(link_class, LINK_CLASSES)}"
        )
    return LinkProfile(
        name=read_text(data, "name", where),
        title=read_text(data, "title", where),
        notes=read_text(data, "notes", where, default=""),
        sharing=sharing,
        link_class=link_class,
        tls=_part(data, "tls", schema.TLS_FIELDS, TlsProfile, sources, where),
        radio=_part(data, "radio", schema.RADIO_FIELDS, RadioProfile, sources, where),
        sizes=_sizes(data, sources, where),
        **found,
    )


def _sizes(data: Mapping[str, Any], sources: Mapping[str, str], where: str) -> tuple[SizeFactor, ...]:
    raw = data.get("sizes", [])
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise ProfileError(f"{where}: sizes: must be a list of tables, got {raw!r}")
    found: list[SizeFactor] = []
    for i, entry in enumerate(raw):
        prefix = f"sizes.{i}."
        check_keys(entry, schema.SIZE_FIELDS, where, prefix)
        found.append(SizeFactor(**read_fields(entry, schema.SIZE_FIELDS, sources, where, prefix)))
        if i and found[i].bytes.value <= found[i - 1].bytes.value:
            raise ProfileError(f"{where}: {prefix}bytes: must be more than in the entry before")
    return tuple(found)


def model_from_mapping(data: Mapping[str, Any], where: str = "<profile>") -> ModelProfile:
    """Build a model profile from parsed TOML; `where` is the file named in errors."""
    head = ("schema", "kind", "name", "title", "source", "quality")
    keys = (*head, *schema.MODEL_FLAGS, *schema.MODEL_INTS, *schema.MODEL_OPTIONAL_INTS)
    _check_head(data, "model", keys, where)
    sizes = {key: _whole(required(data, key, where), key, where, 1) for key in schema.MODEL_INTS}
    sizes |= {key: _whole(data.get(key, 0), key, where, 0) for key in schema.MODEL_OPTIONAL_INTS}
    _check_shape(sizes, where)
    flags = {key: data.get(key, default) for key, default in schema.MODEL_FLAGS.items()}
    for key, flag in flags.items():
        if not isinstance(flag, bool):
            raise ProfileError(f"{where}: {key}: must be true or false, got {flag!r}")
    quality = {
        str(quant): _cited(value, f"{where}: quality.{quant}", str(quant))
        for quant, value in read_table(data, "quality", where).items()
    }
    return ModelProfile(
        name=read_text(data, "name", where),
        title=read_text(data, "title", where),
        source=read_text(data, "source", where),
        quality=MappingProxyType(quality),
        tied=flags["tied"],
        qkv_bias=flags["qkv_bias"],
        gated=flags["gated"],
        **sizes,
    )


def _whole(value: object, key: str, where: str, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**31:
        need = "a positive whole number" if low else "a whole number, 0 or more"
        raise ProfileError(f"{where}: {key}: must be {need}, got {value!r}")
    return value


def _check_shape(sizes: Mapping[str, int], where: str) -> None:
    """Raise if the numbers of a model's shape do not fit together."""
    if sizes["heads"] % sizes["kv_heads"] != 0:
        raise ProfileError(
            f"{where}: kv_heads: must divide heads ({sizes['heads']}), got {sizes['kv_heads']}"
        )
    experts, used = sizes["experts"], sizes["experts_used"]
    if bool(experts) != bool(used) or used > experts:
        raise ProfileError(f"{where}: experts_used: must be from 1 to experts ({experts}), got {used}")
    if bool(experts) != bool(sizes["expert_ffn"]):
        raise ProfileError(f"{where}: expert_ffn: a mixture of experts, and only one, needs it")
    if not experts and (sizes["shared_ffn"] or sizes["dense_layers"]):
        raise ProfileError(f"{where}: shared_ffn and dense_layers: only a mixture of experts has them")
    if sizes["dense_layers"] > sizes["layers"]:
        raise ProfileError(f"{where}: dense_layers: must be at most layers ({sizes['layers']})")


def _cited(value: object, where: str, quant: str) -> CitedQuality:
    if quant not in QUANTS:
        raise ProfileError(f"{where}: unknown quantization{near_matches(quant, QUANTS)}")
    if not isinstance(value, dict):
        raise ProfileError(f"{where}: must be a table with metric, value, text and source")
    check_keys(value, ("metric", "value", "text", "source"), where)
    try:
        amount = parse_quantity(value.get("value"), "count", bare=True)
    except UnitError as err:
        raise ProfileError(f"{where}.value: {err}") from None
    texts = [read_text(value, key, where) for key in ("metric", "text", "source")]
    return CitedQuality(texts[0], amount, texts[1], texts[2])


def _load(kind: str, name: str, base: Path | None, build: Callable[[Mapping[str, Any], str], _P]) -> _P:
    if "/" in name or name.endswith(".toml"):
        path = Path(name).expanduser()
        return _build(build, _read(path if base is None else base / path), str(path))
    if name in known_profiles(kind):
        return build(_shipped(kind, name), f"{name}.toml")
    if kind == "device" and name == "this-machine":
        path = user_profile_dir() / "this-machine.toml"
        if not path.exists():
            raise ProfileError(f"device 'this-machine': not measured yet ({path}); run: edgellm calibrate")
        return _build(build, _read(path), str(path))
    hint = near_matches(name, known_profiles(kind))
    raise ProfileError(f"unknown {kind} {name!r}{hint} (or the path of a .toml file)")


def _build(build: Callable[[Mapping[str, Any], str], _P], raw: bytes, where: str) -> _P:
    """Build from the bytes of a user's file; an error names its line."""
    data = _parse(raw, where)
    try:
        return build(data, where)
    except ProfileError as err:
        what = str(err).removeprefix(f"{where}: ")
        raise ProfileError(f"{where}:{line_of(raw.decode(), what)}: {what}") from None


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
        return parse_toml(raw, where)
    except ValueError as err:
        raise ProfileError(str(err)) from None


def _check_head(data: Mapping[str, Any], kind: str, keys: tuple[str, ...], where: str) -> None:
    version = required(data, "schema", where)
    if isinstance(version, bool) or version != PROFILE_SCHEMA:
        raise ProfileError(f"{where}: schema: this version reads schema {PROFILE_SCHEMA}, got {version!r}")
    if data.get("kind") != kind:
        raise ProfileError(f"{where}: kind: expected {kind!r}, got {data.get('kind')!r}")
    check_keys(data, keys, where)
