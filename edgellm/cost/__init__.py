"""Pure cost models and profiles of devices, links and models; a source for every constant.

>>> from edgellm import cost
>>> pi = cost.load_device("raspberry-pi-5")
>>> model = cost.load_model("smollm2-135m")
>>> cost.decode_time_s(model, "q4_1", pi, tokens=1, context=128) > 0
True
"""

from .battery import Battery, battery_of
from .constant import Constant, ProfileError
from .energy import IdleMode, NodePower, RadioPower, power_of, radio_of
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
    budget,
    decode_time_s,
    load_time_s,
    memory_bytes,
    prefill_time_s,
    step_time_s,
    thread_slowdown,
    verify_time_s,
    with_threads,
)
from .scores import known_errors, shipped_tables
from .split import SplitStep, split_bytes, split_step
from .step_costs import Budget, StepCosts, step_costs
from .tables import Measurements, TableError, read_measurements
from .thermal import Thermal, thermal_of
from .units import UnitError, parse_quantity
from .validation import Validation, validate

__all__ = [
    "BLOCKS",
    "KV_BYTES",
    "LINK_CLASSES",
    "MIXES",
    "PROFILE_SCHEMA",
    "QUANTS",
    "Battery",
    "BatteryProfile",
    "Budget",
    "CitedQuality",
    "Constant",
    "DeviceProfile",
    "IdleMode",
    "IdleState",
    "LinkProfile",
    "Measurements",
    "ModelProfile",
    "NodePower",
    "PowerProfile",
    "ProfileError",
    "RadioPower",
    "RadioProfile",
    "SizeFactor",
    "SplitStep",
    "StepCosts",
    "TableError",
    "Thermal",
    "ThermalProfile",
    "TlsProfile",
    "UnitError",
    "Validation",
    "battery_of",
    "budget",
    "decode_time_s",
    "device_from_mapping",
    "known_errors",
    "known_profiles",
    "link_from_mapping",
    "load_device",
    "load_link",
    "load_model",
    "load_time_s",
    "memory_bytes",
    "model_from_mapping",
    "parse_quantity",
    "power_of",
    "prefill_time_s",
    "radio_of",
    "read_measurements",
    "shipped_tables",
    "split_bytes",
    "split_step",
    "step_costs",
    "step_time_s",
    "thermal_of",
    "thread_slowdown",
    "user_profile_dir",
    "validate",
    "verify_time_s",
    "with_threads",
]
