"""Writes device profiles as TOML that `load_device` reads back."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from edgellm._atomic import replacing

from .load import device_from_mapping, user_profile_dir
from .profile import PROFILE_SCHEMA, DeviceProfile


def profile_toml(profile: DeviceProfile) -> str:
    """Return a device profile as TOML that `load_device` reads back."""
    lines = [
        "# Written by edgellm calibrate; docs/profiles.md explains the keys.",
        f"schema = {PROFILE_SCHEMA}",
        'kind = "device"',
        f"name = {_quoted(profile.name)}",
        f"title = {_quoted(profile.title)}",
        f"notes = {_quoted(profile.notes)}",
        *(f"{key} = {_quoted(text)}" for key in ("runtime", "firmware") if (text := getattr(profile, key))),
    ]
    if profile.power is not None:
        lines.append(f"power.meter = {_quoted(profile.power.meter)}")
    for key, constant in profile.constants():
        parts = [f"value = {float(constant.value)!r}"]
        parts += [
            f"{name} = {float(bound)!r}"
            for name, bound in (("low", constant.low), ("high", constant.high))
            if bound is not None
        ]
        parts.append(f"source = {_quoted(constant.source)}")
        if constant.guess:
            parts.append("guess = true")
        lines.append(f"{key} = {{ {', '.join(parts)} }}")
    lines += ["", "[stamp]", *(f"{_quoted(key)} = {_quoted(text)}" for key, text in profile.stamp.items())]
    return "\n".join(lines) + "\n"


def write_profile(profile: DeviceProfile, path: Path | None = None) -> Path:
    """Write a profile where scenarios find it, whole or not at all; return the path.

    Raises
    ------
    OSError
        If the file cannot be written.
    ProfileError
        If the profile would not be accepted when it is read back; nothing is written.
    """
    target = user_profile_dir() / "this-machine.toml" if path is None else path
    text = profile_toml(profile)
    device_from_mapping(tomllib.loads(text), str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(text.encode())
    return target


def _quoted(text: str) -> str:
    """Return a TOML string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
