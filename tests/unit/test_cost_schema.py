"""Optional parts of profiles: runtimes, tables by threads and format, power, heat, battery, radio."""

import copy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgellm import cost
from edgellm.cost import schema

PROFILES = Path(cost.__file__).parent / "profiles"
DEVICE_TOML = """
runtime = "llama.cpp b4000"
firmware = "2025-01"
threads = { 1 = { value = 3.1, source = "hand" }, 2 = { value = 1.7, low = 1.6, source = "hand" } }
format_bandwidth = { q8_0 = { value = 1.2, source = "hand" } }
occupancy = { value = "40 %", source = "hand", guess = true }
sync_message_s = { value = "120 us", source = "hand" }

[runtimes."T-MAC"]
bandwidth_decode_bytes_per_s = { value = "9 GB/s", source = "hand" }
threads = { 1 = { value = 2, source = "hand" } }
firmware = "2026-01"

[power]
compute_w = { value = "6 W", source = "hand" }
meter = "chip"
supply_efficiency = { value = 0.85, source = "hand" }
states.idle.w = { value = "2.5 W", source = "hand" }
states.sleep = { w = { value = "0.1 W", source = "hand" }, wake_s = { value = "2 s", source = "hand" } }

[thermal]
r_k_per_w = { value = "5 K/W", source = "hand" }
c_j_per_k = { value = "40 J/K", source = "hand" }
throttle_c = { value = "80 C", source = "hand" }
resume_c = { value = "75 C", source = "hand" }
factor = { value = 0.7, source = "hand" }

[battery]
discharge_efficiency = { value = "95 %", source = "hand" }
peukert = { value = 1.1, source = "hand" }
rated_w = { value = "5 W", source = "hand" }
rated_c = { value = "25 C", source = "hand" }
"""
LINK_TOML = """
class = "wifi"
header_bytes = { value = 66, source = "hand" }
mss_bytes = { value = 1448, source = "hand" }
message_overhead_s = { value = "30 us", source = "hand" }
[tls]
handshake_rtts = { value = 2, source = "hand" }
handshake_bytes = { value = "4 kB", source = "hand" }
record_bytes = { value = 16384, source = "hand" }
record_overhead_bytes = { value = 22, source = "hand" }

[radio]
tx_w = { value = "1.1 W", source = "hand" }
rx_w = { value = "0.8 W", source = "hand" }
idle_w = { value = "0.3 W", source = "hand" }
tail_s = { value = "11.6 s", source = "hand" }

[[sizes]]
bytes = { value = 0, source = "hand" }
rate = { value = 0.5, source = "hand" }
latency = { value = 1, source = "hand" }

[[sizes]]
bytes = { value = "64 kB", source = "hand" }
rate = { value = 0.9, source = "hand" }
latency = { value = 1.5, source = "hand" }
"""


def _mapping(kind: str, name: str, more: str) -> dict[str, Any]:
    data = tomllib.loads((PROFILES / kind / f"{name}.toml").read_text()) | tomllib.loads(more)
    data["sources"]["hand"] = "by hand, for this test"
    return data


def _device() -> dict[str, Any]:
    return _mapping("devices", "raspberry-pi-5", DEVICE_TOML)


def test_device_named_with_a_runtime_has_its_parameters_and_the_rest_of_the_device(tmp_path: Path) -> None:
    default = cost.device_from_mapping(_device())
    other = cost.device_from_mapping(_device(), runtime="T-MAC")
    assert (default.runtime, default.firmware, default.runtimes) == ("llama.cpp b4000", "2025-01", ("T-MAC",))
    assert (other.name, other.runtime, other.firmware) == ("raspberry-pi-5@T-MAC", "T-MAC", "2026-01")
    assert other.bandwidth_decode_bytes_per_s.value == 9e9
    assert {n: c.value for n, c in default.threads.items()} == {1: 3.1, 2: 1.7}
    assert {n: c.value for n, c in other.threads.items()} == {1: 2.0}
    assert other.ops_per_s == default.ops_per_s
    assert other.power == default.power
    assert cost.device_from_mapping(_device(), runtime="llama.cpp b4000") == default
    with pytest.raises(cost.ProfileError, match=r"has no runtime 'TMAC'; did you mean 'T-MAC'"):
        cost.device_from_mapping(_device(), runtime="TMAC")
    with pytest.raises(cost.ProfileError, match="has no runtime 'x'"):
        cost.load_device("raspberry-pi-5@x")
    own = tmp_path / "a@b.toml"
    own.write_bytes((PROFILES / "devices" / "esp32-s3.toml").read_bytes())
    assert cost.load_device(str(own)).name == "esp32-s3"


def test_constants_of_tables_have_dotted_keys_and_can_be_replaced() -> None:
    device = cost.device_from_mapping(_device())
    found = dict(device.constants())
    assert found["threads.2"].value == 1.7
    assert found["power.states.sleep.wake_s"].value == 2.0
    assert found["battery.rated_c"].value == 25.0
    assert found["thermal.factor"].source == "by hand, for this test"
    new = {
        key: replace(found[key], value=9.0) for key in ("threads.2", "power.states.sleep.wake_s", "idle_w")
    }
    changed = device.with_constants(new)
    assert {k: c.value for k, c in changed.constants() if c != found[k]} == dict.fromkeys(new, 9.0)
    with pytest.raises(KeyError):
        device.with_constants({"threads.3": found["threads.2"]})


def test_link_with_all_optional_tables_loads() -> None:
    link = cost.link_from_mapping(_mapping("links", "wifi-5", LINK_TOML))
    assert (link.link_class, link.tls is not None, link.radio is not None) == ("wifi", True, True)
    assert [s.bytes.value for s in link.sizes] == [0, 64000]
    found = dict(link.constants())
    assert found["sizes.1.rate"].value == 0.9
    changed = link.with_constants({"sizes.1.rate": replace(found["sizes.1.rate"], value=0.8)})
    assert [s.rate.value for s in changed.sizes] == [0.5, 0.8]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("power/meter", "socket", "power.meter: unknown value"),
        ("power/states/idle", 3, "power.states.idle: must be a table"),
        ("power/states/idle/wake", 3, "power.states.idle.wake: unknown key"),
        ("power/compute", 3, "power.compute: unknown key; did you mean 'compute_w'"),
        ("thermal/factor", {"value": 1.5, "source": "hand"}, "thermal.factor.value: must be at most 1"),
        ("thermal/resume_c", {"value": 90, "source": "hand"}, "resume_c: must be below throttle_c"),
        ("battery/peukert", {"value": 0.5, "source": "hand"}, "must be 1 or more"),
        ("threads/none", {"value": 1, "source": "hand"}, "threads.none: must be a number of threads"),
        ("threads/0", {"value": 1, "source": "hand"}, "threads.0: must be a number of threads"),
        ("format_ops/q9", {"value": 1, "source": "hand"}, "format_ops.q9: unknown quantization"),
        ("runtimes/x", {"cores": 1}, "runtimes.x: cores: unknown key"),
        ("runtimes/x", {"active_w": {"value": 1, "source": "hand"}}, "runtimes.x.active_w: must be at least"),
        ("runtimes/a@b", {}, "has no '@'"),
        ("runtimes/llama.cpp b4000", {}, "name of the default runtime"),
        ("runtimes", 3, "runtimes: must be a table"),
        ("occupancy", {"value": 1.5, "source": "hand"}, "at most 1"),
    ],
)
def test_device_with_a_fault_in_a_table_names_it(path: str, value: Any, message: str) -> None:
    data = copy.deepcopy(_device())
    *tables, last = path.split("/")
    at = data
    for table in tables:
        at = at.setdefault(table, {})
    at[last] = value
    with pytest.raises(cost.ProfileError) as raised:
        cost.device_from_mapping(data, "mine.toml")
    assert message in str(raised.value)
    assert str(raised.value).startswith("mine.toml: ")


def test_schema_keys_are_all_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    keys = [*schema.DEVICE_FIELDS, *schema.DEVICE_TEXTS, *schema.LINK_FIELDS, "class", "sizes", "sharing"]
    keys += [*schema.MODEL_INTS, *schema.MODEL_OPTIONAL_INTS, *schema.MODEL_FLAGS, *schema.RUNTIME_TABLES]
    for table, rules in (
        ("power", schema.POWER_FIELDS),
        ("power.states.*", schema.IDLE_STATE_FIELDS),
        ("thermal", schema.THERMAL_FIELDS),
        ("battery", schema.BATTERY_FIELDS),
        ("tls", schema.TLS_FIELDS),
        ("radio", schema.RADIO_FIELDS),
    ):
        keys += [f"{table}.{key}" for key in rules]
    keys += list(schema.SIZE_FIELDS)
    assert [key for key in keys if f"`{key}`" not in text] == []


# Qwen3-30B-A3B: 30.53 billion weights, 3.35 billion of them used by a token (its authors say 30.5B and 3.3B).
QWEN3_30B = """
schema = 1
kind = "model"
name = "qwen3-30b-a3b"
title = "Qwen3 30B-A3B"
source = "config.json of Qwen/Qwen3-30B-A3B"
layers = 48
width = 2048
heads = 32
kv_heads = 4
head_dim = 128
ffn = 6144
vocab = 151936
tied = false
context = 40960
experts = 128
experts_used = 8
expert_ffn = 768
"""


def test_mixture_of_experts_counts_what_its_authors_state() -> None:
    model = cost.model_from_mapping(tomllib.loads(QWEN3_30B))
    assert model.params == pytest.approx(30.53e9, rel=0.001)
    assert model.active_matrix_params + 2 * model.embedding_params == pytest.approx(3.35e9, rel=0.01)
    # a single token reads 8 of 128 experts; many tokens come to read them all
    one, many = model.active_bytes("q4_0"), model.active_bytes("q4_0", tokens=4096)
    whole = model.weight_bytes("q4_0") - model.vocab * model.width * 18 / 32
    assert one < 0.12 * whole
    assert many == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("experts_used", 0, "experts_used: must be from 1 to experts"),
        ("experts_used", 129, "experts_used: must be from 1 to experts"),
        ("expert_ffn", 0, "expert_ffn"),
        ("dense_layers", 49, "dense_layers"),
        ("experts", -1, "whole number, 0 or more"),
        ("gated", 1, "gated: must be true or false"),
    ],
)
def test_mixture_of_experts_that_cannot_be_is_an_error(key: str, value: Any, message: str) -> None:
    with pytest.raises(cost.ProfileError, match=message):
        cost.model_from_mapping(tomllib.loads(QWEN3_30B) | {key: value})
