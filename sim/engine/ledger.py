"""The energy of nodes by state, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .node import NodeState

#: What caused it: the work of requests, daemons and their messages. Together `active_energy_j`.
ACTIVE_STATES = ("wake", "compute", "memory", "radio_tx", "radio_rx", "radio_promotion")
#: What is drawn anyway, and what a battery loses.
BASE_STATES = ("idle", "sleep", "radio_idle", "radio_sleep", "battery_loss", "self_discharge")
#: Every state of a node; the columns `<state>_energy_j` add up to `energy_j`.
STATES = (*BASE_STATES, *ACTIVE_STATES)


def energy_by_state(state: NodeState, end_s: float) -> dict[str, float]:
    """Return the joules of a node by state over a simulation that has been closed.

    As metered: on a socket each state includes its part of what the power supply loses, where the scenario
    meters at the wall.
    """
    power, meter, radio, scale = state.power, state.meter, state.radio, state.scale
    work_s, compute_s, memory_s = state.work_s, state.compute_s, state.memory_s
    joules = dict.fromkeys(STATES, 0.0)
    if meter is None:
        joules["idle"] = scale * power.idle_w * (end_s - state.off_s)
    else:
        joules["idle"] = scale * power.idle_w * meter.idle_s
        if meter.asleep_s:
            joules["sleep"] = scale * power.modes[meter.upkeep.sleep_mode].w * meter.asleep_s
        joules["wake"] = scale * meter.wake_j
        joules["battery_loss"], joules["self_discharge"] = meter.battery_loss_j, meter.self_discharge_j
        more = meter.slow_cost - 1.0
        work_s += more * meter.slow_work_s
        compute_s += more * meter.slow_compute_s
        memory_s += more * meter.slow_memory_s
    joules["compute"] = scale * (power.active_w * work_s + power.compute_w * compute_s)
    joules["memory"] = scale * power.memory_w * memory_s
    joules["radio_tx"], joules["radio_rx"] = state.tx_j, state.rx_j
    if radio is not None:
        joules["radio_idle"] = scale * radio.power.idle_w * radio.awake_s
        joules["radio_sleep"] = scale * radio.power.sleep_w * radio.asleep_s
        joules["radio_promotion"] = scale * radio.power.promotion_w * radio.promotion_s
    return joules


def energy_columns(states: Sequence[NodeState], end_s: float) -> dict[str, NDArray[np.float64]]:
    """Return the columns of energy and of what belongs to it, one row per node.

    `energy_j` is the sum of the states; `active_energy_j` of those that work caused, which is what requests
    were charged for and `unattributed_energy_j` together.
    """
    table = np.empty((len(STATES), len(states)))
    for i, state in enumerate(states):
        table[:, i] = list(energy_by_state(state, end_s).values())
    columns = {"energy_j": table.sum(axis=0), "active_energy_j": table[len(BASE_STATES) :].sum(axis=0)}
    columns |= {f"{name}_energy_j": row for name, row in zip(STATES, table, strict=True)}

    def column(values: Sequence[float]) -> NDArray[np.float64]:
        return np.array(values, dtype=np.float64)

    meters = [s.meter for s in states]
    columns["unattributed_energy_j"] = column([s.unattributed_j for s in states])
    columns["battery_left_j"] = column([s.battery_j for s in states])
    columns["battery_drawn_j"] = column([0.0 if m is None else m.drawn_j for m in meters])
    columns["asleep_s"] = column([0.0 if m is None else m.asleep_s for m in meters])
    columns["throttled_s"] = column([0.0 if m is None else m.slow_s for m in meters])
    columns["peak_c"] = column([np.nan if m is None or m.thermal is None else m.peak_c for m in meters])
    columns["off_s"] = column([s.off_s for s in states])
    return columns
