"""The handful of parameters of one device with one engine: priors, the profile they make, what they predict.

Mechanisms, not rows: bandwidth, unpacking, seconds per layer, arithmetic and attention are common to all
models and formats of a device; a format may differ by a factor that is close to 1 beforehand. What a
calibrating row does not tell apart stays at its prior: the shipped profile of the device where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from .constant import Constant
from .estimate import Estimate, Prior, estimate
from .load import load_device
from .profile import DeviceProfile
from .roofline import thread_slowdown
from .split import HEADS, SplitStep, split_bytes, split_step
from .step_costs import step_costs
from .tables import Figure, Setting

#: How well two runs of the same thing agree, as a standard deviation of the logarithm, by measure.
NOISE: Mapping[str, float] = MappingProxyType(
    {"tok_per_s": 0.04, "ms_per_token": 0.04, "compute_ms": 0.04, "sync_ms": 0.12, "ttft_ms": 0.06,
     "prefill_tok_per_s": 0.06, "j_per_token": 0.05, "watts": 0.05}
)  # fmt: skip
_PREFILL = ("ttft_ms", "prefill_tok_per_s")
_ENERGY = ("j_per_token", "watts")
#: Where nothing is known of a device: seconds of a step outside the model.
_HOST_S = 5e-4
#: Reading a byte from memory and bringing it to a core: about 20 pJ per bit in all.
_MEMORY_J_PER_BYTE = 1.5e-10
#: Seconds per layer of an engine that splits layers: barriers and copies of its own, at least about so many.
_SPLIT_LAYER_S = 3e-4
#: Speed of a head that the root computes alone, from float32 activations, beside that of the layers.
_ROOT_HEAD = 0.3
#: Weights that are unpacked in the time that a byte takes to read, where nobody has measured it: formats of
#: 4 bits are then just bound by memory.
_UNPACKED_PER_BYTE = 2.2


class Machine:
    """One device with one engine, and the figures that were measured on it."""

    def __init__(self, figures: Sequence[Figure]) -> None:
        name = figures[0].device
        self.known = bool(name)
        self.figures = figures
        self.used = [f for f in figures if f.calibrates and f.measure in NOISE and not waits_alone(f)]
        settings = [f.setting for f in figures]
        counts = [s.threads for s in settings if s.threads is not None]
        self.threads = sorted(set(counts))
        self.most = max(counts, default=1)
        self.formats = {s.format: s.quant for s in settings}
        self.split_head = "sharded"  # of rows that do not say
        self.base = load_device(name) if name else _unknown(figures)
        self.priors = self._priors(figures)
        self.estimates: dict[str, Estimate] = {}

    def fit(self) -> dict[str, Estimate]:
        """Fit to the calibrating figures; return the parameters.

        Where rows of several nodes do not say which node computes the head, what fits better is taken.
        """
        if not self.used:
            return self.estimates
        open_question = any(f.setting.nodes > 1 and not f.setting.split_head for f in self.used)
        best = math.inf
        for split_head in HEADS if open_question else (self.split_head,):
            self.estimates = {}
            self.split_head = split_head
            self.priors = self._priors(self.figures)
            starts: list[dict[str, float]] = [{}]
            if "unpack" in self.priors:
                starts.append({"unpack": self.priors["unpack"].value * 0.6})
            found = estimate(self._misfit, self.priors, starts)
            loss = self._loss({name: one.value for name, one in found.items()})
            if loss < best:
                best, chosen = loss, (split_head, self.priors, found)
        self.split_head, self.priors, self.estimates = chosen
        return self.estimates

    def _loss(self, values: Mapping[str, float]) -> float:
        data = sum(x * x for x in self._misfit(values))
        return data + sum((math.log(values[n] / p.value) / p.spread) ** 2 for n, p in self.priors.items())

    def values(self) -> dict[str, float]:
        """Return the parameters: fitted, or as they were known before."""
        if self.estimates:
            return {name: found.value for name, found in self.estimates.items()}
        return {name: prior.value for name, prior in self.priors.items()}

    def predict(self, figure: Figure, values: Mapping[str, float] | None = None) -> float:
        """Return what the parameters predict for a figure, in the unit of its measure."""
        chosen = self.values() if values is None else values
        return self._predicted(figure, chosen, self.device(chosen, form=figure.setting.format))

    def stated(self, figure: Figure) -> float | None:
        """Return what the shipped profile predicts with no fit; None for a device without one."""
        if not self.known:
            return None
        base, s = self.base, figure.setting
        slower = 1.0 if s.threads is None else thread_slowdown(base, s.threads)
        values = {"watts": base.active_w.value, "memory_j": 0.0}
        return self._predicted(figure, values, base, slower)

    def _misfit(self, values: Mapping[str, float]) -> list[float]:
        devices = {form: self.device(values, form=form) for form in self.formats}
        return [
            math.log(self._predicted(f, values, devices[f.setting.format]) / f.value) / NOISE[f.measure]
            for f in self.used
        ]

    def _predicted(
        self, figure: Figure, values: Mapping[str, float], device: DeviceProfile, slower: float | None = None
    ) -> float:
        s, measure = figure.setting, figure.measure
        if measure.endswith("_bytes"):
            return counted_bytes(s, measure)
        if slower is None:
            slower = self._slowdown(s.threads, values)
            device = self._with_slower_compute(device, s.threads, slower, values)
        if measure in _PREFILL:
            costs = step_costs(s.model, s.quant, device, kv=s.kv, head=s.head, slowdown=slower)
            seconds = costs.step_s((s.prompt,), (s.context,))
            return 1000.0 * seconds if measure == "ttft_ms" else s.prompt / seconds
        step = self._step(s, device, slower)
        if measure in _ENERGY:
            watts = (
                values["watts"] + values["memory_j"] * s.model.active_bytes(s.quant, s.head) / step.seconds
            )
            return watts if measure == "watts" else watts * step.seconds
        if measure == "compute_ms":
            return 1000.0 * step.compute_s
        if measure == "sync_ms":
            return 1000.0 * max(step.sync_s, 1e-9)
        return 1.0 / step.seconds if measure == "tok_per_s" else 1000.0 * step.seconds

    def _step(self, s: Setting, device: DeviceProfile, slower: float) -> SplitStep:
        where = s.split_head or self.split_head
        return split_step(
            s.model, s.quant, device, s.nodes, s.context,
            kv=s.kv, buffer=s.buffer, head=where, head_quant=s.head, slowdown=slower,
        )  # fmt: skip

    def _slowdown(self, threads: int | None, values: Mapping[str, float]) -> float:
        """Return g: a share that does not shrink with threads, one that does, and a factor close to 1."""
        if threads is None or threads == self.most:
            return 1.0
        share = min(values["threads"], 1.2)
        law = max(1.0 - share + share * self.most / threads, 0.05)
        return law * values.get(f"threads.{threads}", 1.0)

    def _with_slower_compute(
        self, device: DeviceProfile, threads: int | None, slower: float, values: Mapping[str, float]
    ) -> DeviceProfile:
        """Return the device with the arithmetic of few threads: it is nearer to 1/threads than reading is."""
        if threads is None or threads == self.most:
            return device
        more = (self.most / threads / slower) ** values["compute_threads"]
        return replace(
            device,
            ops_per_s=_times(device.ops_per_s, 1.0 / more),
            attention_ops_per_s=_times(device.attention_ops_per_s, 1.0 / more),
        )

    def device(self, values: Mapping[str, float], source: str = "fitted", form: str = "") -> DeviceProfile:
        """Return the profile that the parameters make, with the factors of one of the table's formats."""
        base, found = self.base, self.estimates

        def constant(name: str, unit: str) -> Constant:
            e = found.get(name)
            low, high = (e.low, e.high) if e is not None and e.value == values[name] else (None, None)
            return Constant(values[name], unit, source, low, high)

        read = constant("bandwidth", "bytes_per_s")
        changed: dict[str, Any] = {
            "bandwidth_decode_bytes_per_s": read,
            "bandwidth_prefill_bytes_per_s": read,
            "layer_overhead_s": constant("layer_overhead", "s"),
            "ops_per_s": constant("ops", "ops_per_s"),
            "attention_ops_per_s": constant("attention", "ops_per_s"),
        }
        for name, key, unit in _OPTIONAL:
            if name in values:
                changed[key] = constant(name, unit)
        if "unpack" in values:  # fitted as weights per byte, so that both sides of the maximum move together
            changed["unpack_weights_per_s"] = _times(constant("unpack", "weights_per_s"), values["bandwidth"])
        made = replace(base, **changed)
        for table in ("format_bandwidth", "format_ops"):
            ratios = {
                self.formats[name.partition(":")[2]]: constant(name, "ratio")
                for name in values
                if name.startswith(f"{table}:") and form in ("", name.partition(":")[2])
            }
            if ratios:
                table_of: Any = {table: MappingProxyType({**getattr(base, table), **ratios})}
                made = replace(made, **table_of)
        return made

    def profile(self, source: str) -> DeviceProfile:
        """Return the fitted profile whole: with its table of threads, and power at full use."""
        values = self.values()
        made = self.device(values, source)
        if len(self.threads) > 1:
            slower = {n: Constant(self._slowdown(n, values), "ratio", source) for n in self.threads}
            made = replace(made, threads=MappingProxyType(slower), cores=Constant(self.most, "count", source))
        if "watts" in values:
            memory_w = values["memory_j"] * values["bandwidth"]
            made = replace(made, active_w=Constant(values["watts"] + memory_w, "w", source))
        return made

    def _priors(self, figures: Sequence[Figure]) -> dict[str, Prior]:
        """Return the parameters that the figures can say something about."""
        base, known = self.base, self.known
        nodes = max(f.setting.nodes for f in figures)
        prefills = [f for f in self.used if f.measure in _PREFILL]
        rate = base.bandwidth_decode_bytes_per_s.value
        found = {
            "bandwidth": Prior(rate, 0.5 if known else 1.5),
            "layer_overhead": Prior(max(base.layer_overhead_s.value, 1e-7), 0.8),
            "ops": Prior(base.ops_per_s.value, 1.0 if known else 2.0),
            "attention": Prior(base.attention_ops_per_s.value, 0.7 if known else 1.0),
        }
        formats = sorted(self.formats)
        if any(f.setting.model.active_bytes(f.setting.quant) < 0.9 * f.setting.model.params for f in figures):
            stated = base.unpack_weights_per_s
            found["unpack"] = Prior(_UNPACKED_PER_BYTE if stated is None else stated.value / rate, 0.7)
        if len(formats) > 1:
            found |= {f"format_bandwidth:{name}": Prior(1.0, 0.2) for name in formats}
        if prefills:
            found["prefill_layer_overhead"] = self._prefill_overhead(prefills)
            computed = sorted({f.setting.format for f in figures if f.measure in _PREFILL})
            if len(computed) > 1:
                found |= {f"format_ops:{name}": Prior(1.0, 0.5) for name in computed}
        if any((f.setting.split_head or self.split_head) == "root" for f in figures):
            stated = base.head_bandwidth
            found["head"] = Prior(_ROOT_HEAD if stated is None else stated.value, 0.35)
        if len(self.threads) > 1:
            found["threads"] = Prior(0.8, 0.3)
            found["compute_threads"] = Prior(0.6, 0.5)
            found |= {f"threads.{n}": Prior(1.0, 0.04) for n in self.threads[:-1]}
        if nodes > 1:
            found["layer_overhead"] = Prior(max(base.layer_overhead_s.value, _SPLIT_LAYER_S), 1.2)
            found |= self._sync_priors(nodes)
        if any(f.measure in _ENERGY for f in figures):
            found["watts"] = Prior(base.active_w.value, 0.7 if known else 2.0)
            found["memory_j"] = Prior(_MEMORY_J_PER_BYTE, 0.7)
        return found

    def _prefill_overhead(self, prefills: Sequence[Figure]) -> Prior:
        """Return a prior that needs no knowledge of the device: a tenth of the shortest prefill."""
        stated = self.base.prefill_layer_overhead_s
        if stated is not None:
            return Prior(stated.value, 1.0)
        seconds, layers = min(
            (f.value / 1000 if f.measure == "ttft_ms" else f.setting.prompt / f.value, f.setting.model.layers)
            for f in prefills
        )
        return Prior(0.1 * seconds / layers, 1.0)

    def _sync_priors(self, nodes: int) -> dict[str, Prior]:
        base = self.base

        def value(constant: Constant | None, otherwise: float) -> float:
            return otherwise if constant is None or constant.value <= 0 else constant.value

        found = {
            "message": Prior(value(base.sync_message_s, 120e-6), 0.7),
            "sync_bandwidth": Prior(value(base.sync_bytes_per_s, 117e6), 0.2),
            "skew": Prior(value(base.sync_skew, 0.2), 0.7),
        }
        if nodes > 5:
            found["senders"] = Prior(value(base.sync_senders, 5.0), 0.5)
        return found


#: Parameter -> the optional constant of a profile that it is, and its unit.
_OPTIONAL = (
    ("prefill_layer_overhead", "prefill_layer_overhead_s", "s"),
    ("head", "head_bandwidth", "ratio"),
    ("message", "sync_message_s", "s"),
    ("sync_bandwidth", "sync_bytes_per_s", "bytes_per_s"),
    ("skew", "sync_skew", "ratio"),
    ("senders", "sync_senders", "count"),
)


def waits_alone(figure: Figure) -> bool:
    """Say whether a figure is the waiting of a single node, which has nobody to wait for."""
    return figure.measure == "sync_ms" and figure.setting.nodes == 1


def counted_bytes(s: Setting, measure: str) -> float:
    """Return bytes per token, which follow from shapes and formats alone."""
    if measure == "weight_bytes":
        return s.model.active_bytes(s.quant, s.head)
    # all nodes together are counted as activations alone; a root's own counters see token and logits too
    head = s.split_head or ("root" if measure == "network_bytes" else "sharded")
    sent, received = split_bytes(s.model, s.nodes, buffer=s.buffer, head=head)
    return {"sent_bytes": sent, "received_bytes": received}.get(measure, sent + received)


def _times(constant: Constant, factor: float) -> Constant:
    low, high = (None if bound is None else bound * factor for bound in (constant.low, constant.high))
    return replace(constant, value=constant.value * factor, low=low, high=high)


def _unknown(figures: Sequence[Figure]) -> DeviceProfile:
    """Return a profile for a device of which nothing is known, in the order of magnitude of its figures."""
    rates, ops, layer_s = [1e9], [1e10], [1e-3]
    for f in figures:
        s = f.setting
        if not f.calibrates or f.measure not in NOISE:
            continue
        if f.measure in _PREFILL:
            seconds = f.value / 1000 if f.measure == "ttft_ms" else s.prompt / f.value
            ops.append(2.0 * s.prompt * s.model.active_matrix_params / seconds)
        elif f.measure in ("tok_per_s", "ms_per_token", "compute_ms"):
            seconds = 1 / f.value if f.measure == "tok_per_s" else f.value / 1000
            rates.append(s.model.active_bytes(s.quant, s.head) / seconds / s.nodes)
            layer_s.append(0.05 * seconds / s.model.layers)
    rate = max(rates[1:], default=rates[0])
    guess = "guess: the order of magnitude of the table"

    def constant(value: float, unit: str) -> Constant:
        return Constant(value, unit, guess, None, None, True)

    read = constant(rate, "bytes_per_s")
    watts = next((f.value for f in figures if f.measure == "watts" and f.calibrates), 10.0)
    return DeviceProfile(
        name="unknown",
        title="a device without a profile",
        cores=constant(1.0, "count"),
        ram_bytes=constant(1e12, "bytes"),
        storage_bytes_per_s=constant(1e9, "bytes_per_s"),
        bandwidth_theoretical_bytes_per_s=read,
        bandwidth_memcpy_bytes_per_s=read,
        bandwidth_decode_bytes_per_s=read,
        bandwidth_prefill_bytes_per_s=read,
        ops_per_s=constant(max(ops[1:], default=20.0 * rate), "ops_per_s"),
        attention_ops_per_s=constant(1.5 * rate, "ops_per_s"),
        layer_overhead_s=constant(min(layer_s[1:], default=1e-4), "s"),
        host_overhead_s=constant(min(_HOST_S, 10.0 * min(layer_s)), "s"),
        idle_w=constant(0.0, "w"),
        active_w=constant(watts, "w"),
        price_usd=constant(0.0, "usd"),
    )
