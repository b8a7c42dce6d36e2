"""The keys of profiles, their dimensions and their bounds: what `edgellm.cost.load` accepts.

docs/profiles.md documents every key; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

from .reading import Field

_TEMPERATURE = Field("c", minimum=-273.15, strict=False, maximum=1000.0)

#: What depends on the engine: a table `[runtimes.NAME]` of a device may replace these.
RUNTIME_FIELDS: Mapping[str, Field] = {
    "bandwidth_decode_bytes_per_s": Field("bytes_per_s", least=1.0),
    "bandwidth_prefill_bytes_per_s": Field("bytes_per_s", least=1.0),
    "ops_per_s": Field("ops_per_s", least=1.0),
    "attention_ops_per_s": Field("ops_per_s", least=1.0),
    "layer_overhead_s": Field("s", strict=False),
    "host_overhead_s": Field("s", strict=False),
    "active_w": Field("w"),
    "prefill_layer_overhead_s": Field("s", strict=False, optional=True),
    "unpack_weights_per_s": Field("weights_per_s", least=1.0, optional=True),
    "head_bandwidth": Field("ratio", least=0.001, maximum=1000.0, optional=True),
    "occupancy": Field("ratio", strict=False, maximum=1.0, optional=True),
    "sync_message_s": Field("s", strict=False, optional=True),
    "sync_bytes_per_s": Field("bytes_per_s", least=1.0, optional=True),
    "sync_skew": Field("ratio", strict=False, maximum=100.0, optional=True),
    "sync_senders": Field("count", least=0.1, maximum=1e6, optional=True),
}
#: Tables of constants that a runtime may replace too: their rule, by the name of the table.
RUNTIME_TABLES: Mapping[str, Field] = {
    "threads": Field("ratio", least=0.01, maximum=10000.0),
    "format_bandwidth": Field("ratio", least=0.001, maximum=1000.0),
    "format_ops": Field("ratio", least=0.001, maximum=1000.0),
}
DEVICE_FIELDS: Mapping[str, Field] = {
    "cores": Field("count"),
    "ram_bytes": Field("bytes"),
    "storage_bytes_per_s": Field("bytes_per_s", least=1.0),
    "bandwidth_theoretical_bytes_per_s": Field("bytes_per_s", least=1.0),
    "bandwidth_memcpy_bytes_per_s": Field("bytes_per_s", least=1.0),
    "idle_w": Field("w", strict=False),
    "price_usd": Field("usd", strict=False),
    "battery_j": Field("j", optional=True),
    "usd_per_hour": Field("usd_per_hour", strict=False, optional=True),
    **RUNTIME_FIELDS,
}
DEVICE_TEXTS = ("runtime", "firmware")
DEVICE_TABLES = ("runtimes", "power", "thermal", "battery", "stamp", *RUNTIME_TABLES)

POWER_FIELDS: Mapping[str, Field] = {
    "compute_w": Field("w", strict=False, optional=True),
    "memory_w": Field("w", strict=False, optional=True),
    "supply_efficiency": Field("ratio", least=0.01, maximum=1.0, optional=True),
}
IDLE_STATE_FIELDS: Mapping[str, Field] = {
    "w": Field("w", strict=False),
    "wake_s": Field("s", strict=False, optional=True),
    "wake_j": Field("j", strict=False, optional=True),
}
THERMAL_FIELDS: Mapping[str, Field] = {
    "r_k_per_w": Field("k_per_w"),
    "c_j_per_k": Field("j_per_k"),
    "throttle_c": _TEMPERATURE,
    "resume_c": _TEMPERATURE,
    "factor": Field("ratio", least=0.001, maximum=1.0),
    "power_factor": Field("ratio", least=0.001, maximum=1.0, optional=True),
}
BATTERY_FIELDS: Mapping[str, Field] = {
    "charge_efficiency": Field("ratio", least=0.01, maximum=1.0, optional=True),
    "discharge_efficiency": Field("ratio", least=0.01, maximum=1.0, optional=True),
    "self_discharge_per_s": Field("per_s", strict=False, maximum=1.0, optional=True),
    "peukert": Field("ratio", minimum=1.0, strict=False, maximum=3.0, optional=True),
    "rated_w": Field("w", optional=True),
    "temperature_per_k": Field("per_k", strict=False, maximum=1.0, optional=True),
    "rated_c": Field("c", minimum=-273.15, strict=False, maximum=1000.0, optional=True),
    "cutoff": Field("ratio", strict=False, maximum=0.99, optional=True),
}

LINK_FIELDS: Mapping[str, Field] = {
    "up_bit_per_s": Field("bit_per_s", least=0.01),
    "down_bit_per_s": Field("bit_per_s", least=0.01),
    "latency_s": Field("s", strict=False),
    "loss": Field("ratio", strict=False, maximum=0.9),
    "energy_up_j_per_bit": Field("j_per_bit", strict=False),
    "energy_down_j_per_bit": Field("j_per_bit", strict=False),
    "max_payload_bytes": Field("bytes", optional=True),
    "duty_cycle": Field("ratio", least=1e-6, maximum=1.0, optional=True),
    "max_transfer_s": Field("s", optional=True),
    "header_bytes": Field("bytes", strict=False, maximum=1e6, optional=True),
    "mss_bytes": Field("bytes", least=1.0, maximum=1e9, optional=True),
    "message_overhead_s": Field("s", strict=False, optional=True),
}
TLS_FIELDS: Mapping[str, Field] = {
    "handshake_rtts": Field("count", strict=False, maximum=100.0),
    "handshake_bytes": Field("bytes", strict=False, maximum=1e9),
    "record_bytes": Field("bytes", least=1.0, maximum=1e9),
    "record_overhead_bytes": Field("bytes", strict=False, maximum=1e6),
    "handshake_ops": Field("count", strict=False, optional=True),
    "ops_per_byte": Field("count", strict=False, optional=True),
}
RADIO_FIELDS: Mapping[str, Field] = {
    "tx_w": Field("w", strict=False),
    "rx_w": Field("w", strict=False),
    "idle_w": Field("w", strict=False, optional=True),
    "sleep_w": Field("w", strict=False, optional=True),
    "tail_s": Field("s", strict=False, optional=True),
    "promotion_s": Field("s", strict=False, optional=True),
    "promotion_w": Field("w", strict=False, optional=True),
}
SIZE_FIELDS: Mapping[str, Field] = {
    "bytes": Field("bytes", strict=False),
    "rate": Field("ratio", least=1e-6, maximum=1000.0),
    "latency": Field("ratio", least=1e-6, maximum=10000.0),
}

MODEL_INTS = ("layers", "width", "heads", "kv_heads", "head_dim", "ffn", "vocab", "context")
#: Whole numbers that a model may leave out, and then are 0.
MODEL_OPTIONAL_INTS = (
    "experts", "experts_used", "expert_ffn", "shared_ffn", "dense_layers", "window", "window_pattern",
    "positions", "extra_params",
)  # fmt: skip
#: Flags of a model and what they are where it does not say.
MODEL_FLAGS: Mapping[str, bool] = {"tied": False, "qkv_bias": False, "gated": True}
