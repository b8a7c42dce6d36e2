"""Pure cost models and profiles of devices, links and models; a source for every constant.

>>> from edgellm import cost
>>> pi = cost.load_device("raspberry-pi-5")
>>> model = cost.load_model("smollm2-135m")
>>> cost.decode_time_s(model, "q4_1", pi, tokens=1, context=128) > 0
True
"""

from .constant import Constant, ProfileError
from .load import (
    device_from_mapping,
    known_profiles,
    link_from_mapping,
    load_device,
    load_link,
    load_model,
    model_from_mapping,
    user_profile_dir,
)
from .model_profile import BLOCKS, KV_BYTES, MIXES, QUANTS, CitedQuality, ModelProfile
from .parts import (
    BatteryProfile,
    IdleState,
    PowerProfile,
    RadioProfile,
    SizeFactor,
    ThermalProfile,
    TlsProfile,
)
from .profile import LINK_CLASSES, PROFILE_SCHEMA, DeviceProfile, LinkProfile
from .roofline import (
    decode_time_s,
    load_time_s,
    memory_bytes,
    prefill_time_s,
    step_time_s,
    verify_time_s,
)
from .units import UnitError, parse_quantity

__all__ = [
    "BLOCKS",
    "KV_BYTES",
    "LINK_CLASSES",
    "MIXES",
    "PROFILE_SCHEMA",
    "QUANTS",
    "BatteryProfile",
    "CitedQuality",
    "Constant",
    "DeviceProfile",
    "IdleState",
    "LinkProfile",
    "ModelProfile",
    "PowerProfile",
    "ProfileError",
    "RadioProfile",
    "SizeFactor",
    "ThermalProfile",
    "TlsProfile",
    "UnitError",
    "decode_time_s",
    "device_from_mapping",
    "known_profiles",
    "link_from_mapping",
    "load_device",
    "load_link",
    "load_model",
    "load_time_s",
    "memory_bytes",
    "model_from_mapping",
    "parse_quantity",
    "prefill_time_s",
    "step_time_s",
    "user_profile_dir",
    "verify_time_s",
]
