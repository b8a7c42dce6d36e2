import tomllib
from pathlib import Path
from typing import Any

import pytest

from edgellm import cost


@pytest.mark.parametrize("kind", ["device", "link", "model"])
def test_profiles_shipped_all_load(kind: str) -> None:
    names = cost.known_profiles(kind)
    assert names
    for name in names:
        profile = getattr(cost, f"load_{kind}")(name)
        assert profile.name == name


def test_model_smollm2_q4_1_bytes_equal_the_shipped_file() -> None:
    model = cost.load_model("smollm2-135m")
    # sums of n_bytes over the tensors of SmolLM2-135M-Instruct.Q4_1.gguf, by the gguf package
    assert model.weight_bytes("q4_1") == 96_576_768
    assert model.params == 134_515_008


# Sizes as published: file sizes of Ollama's library and of llama.cpp's README (rounded), and the sums above.
FILE_BYTES = [
    ("llama-3.2-1b", "q8_0", 1.32e9),
    ("llama-3.2-3b", "q4_k_m", 2.02e9),
    ("qwen2.5-0.5b", "q4_k_m", 0.398e9),
    ("qwen2.5-1.5b", "q4_k_m", 0.986e9),
    ("qwen2.5-3b", "q4_k_m", 1.93e9),
    ("qwen2.5-7b", "q4_k_m", 4.68e9),
    ("llama-3-8b", "q4_k_m", 4.92e9),
    ("llama-2-7b", "q4_0", 3.826e9),
    ("phi-3-mini", "q4_0", 2.18e9),
    ("stories260k", "f32", 1.04e6),
]


@pytest.mark.parametrize(("name", "quant", "published"), FILE_BYTES)
def test_model_bytes_are_within_2_percent_of_published_files(name: str, quant: str, published: float) -> None:
    assert abs(cost.load_model(name).weight_bytes(quant) / published - 1) <= 0.02


def _device() -> dict[str, Any]:
    path = Path(cost.__file__).parent / "profiles/devices/raspberry-pi-5.toml"
    return tomllib.loads(path.read_text())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "bandwidth_memcpy_bytes_per_s",
            {"value": "-1 GB/s", "source": "hand"},
            r"\.value: must be positive",
        ),
        (
            "bandwidth_memcpy_bytes_per_s",
            {"value": "1 GW", "source": "hand"},
            "has unit 'GW'; expected one of",
        ),
        ("bandwidth_memcpy_bytes_per_s", {"value": float("nan"), "source": "hand"}, "not a finite number"),
        ("bandwidth_memcpy_bytes_per_s", {"value": float("inf"), "source": "hand"}, "not a finite number"),
        ("bandwidth_memcpy_bytes_per_s", {"value": True, "source": "hand"}, "not a quantity"),
        ("bandwidth_memcpy_bytes_per_s", {"value": "0 B/s", "source": "hand"}, "must be positive"),
        ("bandwidth_memcpy_bytes_per_s", {"value": "1 GB/s"}, "source: missing"),
        ("bandwidth_memcpy_bytes_per_s", {"value": "1 GB/s", "source": "hands"}, "did you mean 'hand'"),
        ("bandwidth_memcpy_bytes_per_s", {"value": "1 GB/s", "source": "hand", "lo": 1}, "lo: unknown key"),
        ("bandwidth_memcpy_bytes_per_s", {"value": "1 GB/s", "source": "hand", "low": "2 GB/s"}, "spread"),
        ("bandwidth_memcpy_bytes_per_s", {"value": "1 GB/s", "source": "hand", "guess": 1}, "true or false"),
        ("bandwidth_memcpy_bytes_per_s", 3.0, "must be a table"),
        ("bandwith", {"value": 1, "source": "hand"}, "unknown key"),
        ("cores", {"value": 2.5, "source": "hand"}, "whole number"),
        ("active_w", {"value": "1 W", "source": "hand"}, "at least idle_w"),
        ("schema", 2, "this version reads schema 1"),
        ("schema", True, "this version reads schema 1"),
        ("kind", "link", "kind: expected 'device'"),
        ("title", "", "title: must be text"),
        ("stamp", {"date": 3}, "stamp.date: must be text"),
    ],
)
def test_device_with_a_fault_names_file_and_key(key: str, value: Any, message: str) -> None:
    data = _device()
    data["sources"]["hand"] = "by hand"
    data[key] = value
    with pytest.raises(cost.ProfileError, match=message) as raised:
        cost.device_from_mapping(data, "mine.toml")
    assert str(raised.value).startswith("mine.toml: ")
    assert key in str(raised.value)


def test_device_without_a_key_names_it() -> None:
    for key in _device():
        if key in ("notes", "sources", "runtime", "runtimes", "threads", "power", "thermal"):
            continue
        data = _device()
        del data[key]
        with pytest.raises(cost.ProfileError, match=key):
            cost.device_from_mapping(data, "mine.toml")


def test_device_unknown_name_says_what_is_near() -> None:
    with pytest.raises(
        cost.ProfileError, match=r"unknown device 'raspbery-pi-5'; did you mean 'raspberry-pi-5'"
    ):
        cost.load_device("raspbery-pi-5")


def test_device_of_a_path_loads_relative_to_its_base(tmp_path: Path) -> None:
    shipped = Path(cost.__file__).parent / "profiles/devices/esp32-s3.toml"
    (tmp_path / "own.toml").write_bytes(shipped.read_bytes())
    assert cost.load_device("own.toml", tmp_path).name == "esp32-s3"
    (tmp_path / "own.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(cost.ProfileError, match=r"own\.toml:1: not valid TOML"):
        cost.load_device("own.toml", tmp_path)
    with pytest.raises(cost.ProfileError, match=r"absent\.toml: cannot be read"):
        cost.load_device("absent.toml", tmp_path)


def test_link_lora_makes_tensors_infeasible_and_texts_possible() -> None:
    lora = cost.load_link("lora-sf7")
    assert lora.infeasible(50) is None
    reason = lora.infeasible(2048)
    assert reason is not None
    assert reason.startswith("link infeasible: 2048 bytes over lora-sf7 are 10 frames")
    assert cost.load_link("lora-sf12").infeasible(60) is not None
    assert cost.load_link("wifi-4").infeasible(10**10) is None


@pytest.mark.parametrize("kind", ["device", "link"])
def test_constants_shipped_all_have_a_source(kind: str) -> None:
    for name in cost.known_profiles(kind):
        for key, constant in getattr(cost, f"load_{kind}")(name).constants():
            assert len(constant.source) > 10, f"{name}: {key}"
            if "not re-read" in constant.source or "not measured" in constant.source:
                known = constant.guess or constant.low is not None
                assert known, f"{name}: {key} is a guess without saying so"


def test_profile_keys_are_all_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    keys = {key for data in (_device(), *map(_raw, ("wifi-5", "lora-sf7"))) for key in data}
    keys |= {"battery_j", "usd_per_hour", "stamp", "value", "low", "high", "source", "guess", "quality"}
    keys |= {
        "layers",
        "width",
        "heads",
        "kv_heads",
        "head_dim",
        "ffn",
        "vocab",
        "tied",
        "qkv_bias",
        "context",
    }
    assert [key for key in sorted(keys) if not any(f"{mark}{key}" in text for mark in ("`", "["))] == []


def _raw(link: str) -> dict[str, Any]:
    return tomllib.loads((Path(cost.__file__).parent / f"profiles/links/{link}.toml").read_text())
