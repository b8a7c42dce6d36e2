"""The shipped library of profiles: sizes that authors state, and rows that its sources cite."""

import itertools
import math
from pathlib import Path

import pytest

from edgellm import cost

# Millions of weights, as stated on model cards and in papers.
PARAMS = {
    "stories260k": 0.26, "stories15m": 15.2, "stories42m": 41.7, "stories110m": 109.5,
    "gpt2-small": 124.4, "gpt2-medium": 354.8, "gpt2-large": 774.0, "gpt2-xl": 1557.6,
    "pythia-160m": 162.3, "pythia-410m": 405.3, "pythia-1.4b": 1414.6, "pythia-6.9b": 6857.3,
    "smollm-135m": 134.5, "smollm-360m": 361.8, "smollm-1.7b": 1711.0,
    "smollm2-135m": 134.5, "smollm2-360m": 361.8, "smollm2-1.7b": 1711.0, "smollm3-3b": 3075.0,
    "tinyllama-1.1b": 1100.0, "llama-2-7b": 6738.0, "llama-2-13b": 13016.0, "llama-2-70b": 68977.0,
    "llama-3-8b": 8030.0, "llama-3.1-8b": 8030.0, "llama-3.1-70b": 70554.0, "llama-3.2-1b": 1236.0,
    "llama-3.2-3b": 3213.0, "llama-3.3-70b": 70554.0,
    "deepseek-r1-distill-llama-8b": 8030.0, "deepseek-r1-distill-qwen-1.5b": 1777.0,
    "deepseek-r1-distill-qwen-7b": 7616.0, "deepseek-r1-distill-qwen-14b": 14770.0,
    "qwen2-0.5b": 494.0, "qwen2-1.5b": 1544.0, "qwen2-7b": 7616.0,
    "qwen2.5-0.5b": 494.0, "qwen2.5-1.5b": 1544.0, "qwen2.5-3b": 3086.0, "qwen2.5-7b": 7616.0,
    "qwen2.5-14b": 14770.0, "qwen2.5-32b": 32764.0,
    "qwen3-0.6b": 596.0, "qwen3-1.7b": 1720.0, "qwen3-4b": 4022.0, "qwen3-8b": 8191.0,
    "qwen3-14b": 14768.0, "qwen3-32b": 32762.0, "qwen3-30b-a3b": 30532.0, "qwen1.5-moe-a2.7b": 14316.0,
    "mistral-7b": 7248.0, "mixtral-8x7b": 46703.0, "olmo-2-7b": 7299.0, "olmoe-1b-7b": 6919.0,
    "gemma-2b": 2506.0, "gemma-2-2b": 2614.0, "gemma-2-9b": 9242.0, "gemma-2-27b": 27227.0,
    "gemma-3-270m": 268.0, "gemma-3-1b": 1000.0, "gemma-3-4b": 3880.0, "gemma-3-12b": 11766.0,
    "gemma-3-27b": 27009.0,
    "phi-1.5": 1418.0, "phi-2": 2780.0, "phi-3-mini": 3821.0, "phi-3.5-mini": 3821.0, "phi-4-mini": 3836.0,
    "phi-4": 14660.0, "phi-3.5-moe": 41873.0, "falcon-7b": 6922.0, "falcon-40b": 41303.0,
    "gpt-oss-20b": 20915.0, "stablelm-3b": 2795.0, "internlm2-1.8b": 1889.0, "chatglm3-6b": 6244.0,
    "bitnet-3b": 3324.0, "bitnet-2b-4t": 2413.0, "minicpm4-0.5b": 434.0,
}  # fmt: skip
# Millions of weights that one token meets, as stated.
ACTIVE = {"qwen3-30b-a3b": 3300, "mixtral-8x7b": 12900, "olmoe-1b-7b": 1300, "gpt-oss-20b": 3600}


@pytest.mark.parametrize("name", cost.known_profiles("model"))
def test_model_params_are_within_1_percent_of_what_its_authors_state(name: str) -> None:
    assert abs(cost.load_model(name).params / (PARAMS[name] * 1e6) - 1) <= 0.01


@pytest.mark.parametrize(("name", "stated"), ACTIVE.items())
def test_experts_leave_the_active_weights_that_the_authors_state(name: str, stated: float) -> None:
    model = cost.load_model(name)
    tables = 1 if model.tied else 2
    active = model.active_matrix_params + tables * model.embedding_params
    # authors differ in whether they count both tables
    assert min(abs((active - k * model.embedding_params) / (stated * 1e6) - 1) for k in (0, 1)) <= 0.02


def test_models_reach_from_260_thousand_to_70_billion() -> None:
    sizes = sorted(cost.load_model(name).params for name in cost.known_profiles("model"))
    assert sizes[0] < 3e5
    assert sizes[-1] > 7e10
    assert all(b / a < 60 for a, b in itertools.pairwise(sizes))


# Rows that the sources of fitted devices cite: model, format, context, tokens per second; and the error that
# the profile states or better.
CITED = [
    ("raspberry-pi-5-16gb", "llama-3.2-3b", "q4_k_m", 4.88),
    ("raspberry-pi-5-16gb", "llama-3.1-8b", "q4_k_m", 2.17),
    ("raspberry-pi-5-16gb", "llama-2-13b", "q4_0", 1.36),
    ("raspberry-pi-400", "llama-3.2-3b", "q4_k_m", 1.60),
    ("n150-mini-pc", "llama-3.2-3b", "q4_k_m", 9.06),
    ("n150-mini-pc", "deepseek-r1-distill-qwen-14b", "q4_k_m", 2.13),
    ("radxa-orion-o6", "llama-3.2-3b", "q4_k_m", 16.49),
    ("radxa-orion-o6", "llama-3.1-8b", "q4_k_m", 7.60),
    ("radxa-orion-o6", "llama-2-13b", "q4_0", 4.17),
    ("jetson-orin-nx-16gb", "llama-3.2-3b", "q4_k_m", 27.2),
    ("jetson-agx-orin", "llama-2-7b", "q4_0", 7.42),
    ("ryzen-ai-5-340", "llama-3.2-3b", "q4_k_m", 23.81),
    ("surface-book-3", "llama-2-7b", "q4_0", 6.52),
    ("snapdragon-x-elite", "llama-2-7b", "q4_0", 18.7),
    ("galaxy-s22", "llama-3-8b", "q4_0", 7.85),
    ("galaxy-s24", "llama-3-8b", "q4_0", 10.91),
    ("rtx-3060", "llama-3.2-3b", "q4_k_m", 122.85),
    ("rtx-3090", "llama-3-8b", "q4_k_m", 115.42),
    ("rtx-3090", "llama-3-8b", "f16", 47.40),
    ("rtx-4090", "llama-3-8b", "q4_k_m", 130.58),
    ("rtx-4090", "llama-3-8b", "f16", 54.84),
    ("h100-pcie", "llama-2-7b", "q4_0", 133.77),
    ("h100-pcie", "llama-2-70b", "q4_0", 25.88),
    ("dgx-spark-gb10", "llama-3.2-3b", "q4_k_m", 97.93),
    ("dgx-spark-gb10", "llama-3.1-70b", "q4_k_m", 4.71),
    ("framework-desktop-395", "llama-3.2-3b", "q4_k_m", 88.14),
    ("ampereone-a192", "llama-3.1-70b", "q4_k_m", 3.86),
    ("apple-m1", "llama-3-8b", "q4_k_m", 10.20),
    ("apple-m1-max", "llama-3-8b", "q4_k_m", 35.73),
    ("apple-m1-max", "llama-3-8b", "f16", 18.75),
    ("apple-m2-ultra", "llama-3-8b", "f16", 36.90),
    ("apple-m3-max", "llama-3.1-70b", "q4_k_m", 7.65),
    ("apple-m4", "llama-3.2-3b", "q4_k_m", 41.31),
    ("apple-m3-ultra", "llama-3.1-70b", "q4_k_m", 14.08),
]


@pytest.mark.parametrize(("device", "model", "quant", "rate"), CITED)
def test_device_predicts_the_rows_that_its_sources_cite(
    device: str, model: str, quant: str, rate: float
) -> None:
    profile, shape = cost.load_device(device), cost.load_model(model)
    assert abs(cost.step_time_s(shape, quant, profile, [1], [128]) * rate - 1) <= 0.15


def test_library_holds_the_table_of_constants() -> None:
    devices, links = cost.known_profiles("device"), cost.known_profiles("link")
    assert len(devices) >= 25
    assert len(links) >= 12
    assert {"stm32h7", "nrf52840", "jetson-nano", "apple-m1", "h100-pcie", "rk3576-npu"} <= set(devices)
    assert {"nb-iot", "lte-m", "ble-1m", "zigbee", "5g", "gprs", "ethernet-2.5g"} <= set(links)


def test_library_is_listed_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text("utf-8")
    names = [*cost.known_profiles("device"), *cost.known_profiles("link")]
    assert [name for name in names if f"`{name}`" not in text] == []
    runtimes = [(n, r) for n in cost.known_profiles("device") for r in cost.load_device(n).runtimes]
    assert [r for n, r in runtimes if f"@{r}`" not in text or n not in text] == []


@pytest.mark.parametrize("name", cost.known_profiles("device"))
def test_device_is_plausible(name: str) -> None:
    device = cost.load_device(name)
    theory = device.bandwidth_theoretical_bytes_per_s
    assert device.bandwidth_decode_bytes_per_s.value <= theory.value * 1.001
    assert device.bandwidth_memcpy_bytes_per_s.value <= theory.value * 1.001
    assert device.attention_ops_per_s.value <= device.ops_per_s.value
    knowledge = [c for _, c in device.constants() if "general knowledge" in c.source and c.low is None]
    assert all(c.guess for c in knowledge), "data-sheet and general knowledge is marked as a guess"


@pytest.mark.parametrize(
    ("name", "factor", "payload"),
    [("lora-sf12", 12, 51), ("lora-sf10", 10, 51), ("lora-sf9", 9, 115), ("lora-sf7", 7, 222)],
)
def test_lora_rates_follow_the_airtime_formula(name: str, factor: int, payload: int) -> None:
    # Semtech SX1276 data sheet, 4.1.1.7: explicit header, CRC, CR 4/5, preamble of 8, 125 kHz
    symbol_s = 2**factor / 125e3
    low_rate = 1 if symbol_s > 0.016 else 0
    bits = 8 * (payload + 13) - 4 * factor + 28 + 16
    symbols = 8 + 4.25 + 8 + max(math.ceil(bits / (4 * (factor - 2 * low_rate))) * 5, 0)
    link = cost.load_link(name)
    assert link.up_bit_per_s.value == pytest.approx(8 * payload / (symbols * symbol_s), rel=0.005)
    assert link.max_payload_bytes is not None
    assert link.max_payload_bytes.value == payload
