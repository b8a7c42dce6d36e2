"""Small made-up runs, so that the study can be tested without SimGrid and without weights."""

from types import SimpleNamespace

import numpy as np

from edgellm.sim.columns import REQUEST_COLUMNS
from edgellm.sim.quality import QUANTILES, Quality
from edgellm.sim.runs import Run, make_run
from edgellm.sim.study import Study

VARIANTS = ("smollm2-135m:q4_0", "smollm2-135m:q4_1", "smollm2-135m:q8_0")
STRATEGIES = ("local", "gateway", "cloud", "cascade(threshold=0.6)")


def make_result(strategy: str, base: str, seed: int, n: int = 200) -> SimpleNamespace:
    """Return what the simulation engine would: random, the same for the same arguments."""
    rng = np.random.default_rng(
        [seed, len(strategy), len(base), VARIANTS.index(base) if base in VARIANTS else 9]
    )
    family = strategy.split("(")[0]
    near = {"local": 0.0, "gateway": 0.0, "cloud": 1.0, "cascade": 0.35}.get(family, 0.5)
    away = rng.random(n) < near
    scale = {"q4_0": 1.0, "q4_1": 1.08, "q8_0": 1.6}.get(base.split(":")[-1], 1.0)
    tokens = rng.integers(8, 64, n)
    speed_s = np.where(away, 0.02, 0.05 * scale) * (0.4 if family == "gateway" else 1.0)
    ttft = np.where(away, 0.25, 0.6 * scale) * rng.lognormal(0.0, 0.35, n)
    e2e = ttft + speed_s * (tokens - 1)
    failed = rng.random(n) < 0.03
    late = (e2e > 4.0) & ~failed
    status = np.where(failed | late, "failed", "ok").astype(object)
    reason = np.where(failed, "link infeasible: 900 bytes", np.where(late, "deadline missed", "")).astype(
        object
    )
    ok = status == "ok"
    prompt = rng.integers(60, 400, n)
    left = np.where(away, prompt, 0)
    requests = {
        "id": np.arange(n),
        "node": np.array([f"home{i % 40}/hub" for i in range(n)], dtype=object),
        "arrival_s": np.sort(rng.random(n) * 3600.0),
        "kind": np.full(n, "command", dtype=object),
        "prompt_tokens": prompt // 4,
        "output_tokens": tokens,
        "data_class": np.full(n, "text", dtype=object),
        "deadline_s": np.full(n, 4.0),
        "status": status,
        "reason": reason,
        "model": np.where(ok, np.where(away, "cloud-8b:q4_k", base), "").astype(object),
        "first_token_s": np.where(failed, np.inf, ttft),
        "e2e_s": np.where(ok, e2e, np.inf),
        "tpot_s": np.where(ok, speed_s, np.nan),
        "energy_j": e2e * np.where(away, 9.0, 3.5),
        "device_energy_j": e2e * np.where(away, 0.1, 3.5 if family != "gateway" else 0.2),
        "bytes_up": np.where(away, prompt, 0),
        "bytes_down": np.where(away, tokens * 5, 0),
        "left_home_bytes": left,
        "left_home_text_bytes": left,
        "cloud_s": np.where(away, 0.5, 0.0),
        "cost_usd": np.where(away, 0.5 * 1.2 / 3600, 0.0),
        "escalated": away if family == "cascade" else np.zeros(n, dtype=bool),
        "tokens_wasted": np.where(away & (family == "cascade"), tokens, 0),
    }
    assert {c.name for c in REQUEST_COLUMNS} >= set(requests)
    homes = np.array([f"home{i}/hub" for i in range(40)] + ["cloud"], dtype=object)
    active = np.append(np.full(40, requests["device_energy_j"].sum() / 40), 5000.0 * near)
    idle = np.append(np.full(40, 2.0 * 3600), 50.0 * 3600)
    nodes = {
        "node": homes,
        "site": np.array(["home"] * 40 + ["cloud"], dtype=object),
        "role": np.array(["device"] * 40 + ["cloud"], dtype=object),
        "busy_s": active / 3.5,
        "energy_j": active + idle,
        "idle_energy_j": idle,
        "active_energy_j": active,
        "battery_left_j": np.full(41, np.nan),
    }
    links = {
        "link": np.array(["a", "b"], dtype=object),
        "profile": np.array(["wifi", "broadband"], dtype=object),
        "bytes_up": np.full(2, float(requests["bytes_up"].sum())),
        "bytes_down": np.full(2, float(requests["bytes_down"].sum())),
        "energy_j": np.array([3.0, 1.0]),
    }
    return SimpleNamespace(strategy=strategy, seed=seed, requests=requests, nodes=nodes, links=links)


def make_run_of(strategy: str, base: str, seed: int, n: int = 200) -> Run:
    """Return a `Run` of made-up requests."""
    return make_run(strategy, base, seed, make_result(strategy, base, seed, n))


def make_study(
    seeds: tuple[int, ...] = (1, 2),
    variants: tuple[str, ...] = VARIANTS,
    strategies: tuple[str, ...] = STRATEGIES,
) -> Study:
    """Return a study of made-up runs."""
    runs = tuple(make_run_of(s, v, seed) for s in strategies for v in variants for seed in seeds)
    confidence = tuple(float(x) for x in np.linspace(0.2, 0.95, QUANTILES))
    qualities = {
        v: Quality(v, 14.0 + i, 0.4, 1.0 - 0.1 * i, 0.01, 2000, "measured", confidence, "measured")
        for i, v in enumerate(variants)
    }
    qualities["cloud-8b:q4_k"] = Quality(
        "cloud-8b:q4_k", 7.3, label="cited: perplexity 7.3 on WikiText-2 (a paper)"
    )
    meta = {
        "scenario": {
            "name": "made-up",
            "title": "A made-up study",
            "digest": "0" * 64,
            "schema": 1,
            "duration_s": 3600.0,
        },
        "slo": {"ttft_s": 1.0, "tpot_s": None, "e2e_s": 3.0, "target": 0.95},
        "strategies": [
            {
                "label": s,
                "family": s.split("(")[0],
                "class": s.split("(")[0].title(),
                "summary": "Made up.",
                "validation": "a table" if s == "local" else "",
            }
            for s in strategies
        ],
        "seeds": list(seeds),
        "models": list(variants),
        "variants": [
            {
                "name": v,
                "model": "SmolLM2 135M",
                "params": 134515008,
                "quant": v.split(":")[1],
                "bytes": 9.2e7,
                "weights": "smollm2-135m",
            }
            for v in variants
        ],
        "quality": {"text": "smart_home", "tokens": 2048, "context": 512, "kv": "f16"},
        "fleet": [
            {
                "site": "home",
                "role": "device",
                "device": "Raspberry Pi 5",
                "uplink": "Wi-Fi",
                "models": VARIANTS[0],
                "count": 40,
            },
            {
                "site": "cloud",
                "role": "cloud",
                "device": "Cloud GPU",
                "uplink": "",
                "models": "cloud-8b:q4_k",
                "count": 1,
            },
        ],
        "constants": [
            {
                "profile": "rpi5",
                "constant": "idle_w",
                "value": 2.7,
                "unit": "W",
                "low": None,
                "high": None,
                "guess": False,
                "source": "a measurement",
            },
            {
                "profile": "wifi",
                "constant": "loss",
                "value": 0.01,
                "unit": "1",
                "low": 0.0,
                "high": 0.05,
                "guess": True,
                "source": "general knowledge <b>&",
            },
        ],
        "numerics": "1",
        "edgellm": "0.1.0",
    }
    return Study(meta, runs, qualities)
