"""One step of a model that is split over nodes by tensors: every layer by heads and rows (tensor parallel).

Each node holds a share of every matrix, computes its share of each layer, and the nodes add up their
activations twice per layer. Then::

    compute = g * ( c*l + max((S/n + R) / B, ...) + a*L/n ) + t_host      of the root node
    sync = s * syncs * (1 + ((n - 1) / k)^4) + bytes / bandwidth + skew * (compute between syncs)

S and R are what is sharded and what the root keeps whole (vectors, and in engines that do not shard it the
head), s is `sync_message_s`, k `sync_senders` (a switch with small buffers collapses when many send at once),
skew `sync_skew`: the root waits for the slowest node, and by so much the longer the more there is to compute.

Sources: the counts of bytes are those that distributed-llama prints (b4rtaz/distributed-llama README.md at
4c38a2e; danielcorrea-hellomatik/distributed-llama at 394402f), exactly. That waiting goes with compute and
not with bytes is what both show: with more nodes, transfers get shorter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model_profile import KV_BYTES, ModelProfile
from .profile import DeviceProfile
from .step_costs import step_costs

#: Where the head is computed: on the root alone, or a share of it on each node.
HEADS = ("root", "sharded")
#: Additions of activations in a layer: after attention and after the feed-forward part.
_SYNCS_PER_LAYER = 2
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class SplitStep:
    """What a step of one token takes: seconds at the root, and bytes that the root sends and receives."""

    compute_s: float
    sync_s: float
    sent_bytes: float
    received_bytes: float

    @property
    def seconds(self) -> float:
        """The step in all."""
        return self.compute_s + self.sync_s


def split_bytes(
    model: ModelProfile, nodes: int, *, buffer: str = "q8_0", head: str = "sharded"
) -> tuple[float, float]:
    """Return the bytes that the root sends and receives for one token.

    Twice per layer activations go to every other node and come back, in the buffer's type. An engine that
    shards the head also sends the token's embedding and receives the other nodes' logits, in float32.

    Parameters
    ----------
    model : ModelProfile
    nodes : int
        Nodes in all, the root included.
    buffer : str
        Type of the activations on the network: "f32", "f16" or "q8_0".
    head : str
        "root" or "sharded".

    Examples
    --------
    >>> from edgellm.cost import load_model
    >>> sum(split_bytes(load_model("llama-3-8b"), 4, head="root")) / 1024  # as distributed-llama prints it
    1632.0
    """
    _check(model, nodes, head)
    if buffer not in KV_BYTES:
        raise ValueError(f"unknown buffer {buffer!r}; known: {', '.join(KV_BYTES)}")
    others = nodes - 1
    activations = _SYNCS_PER_LAYER * model.layers * model.width * KV_BYTES[buffer]
    sent = received = others * activations
    if head == "sharded":
        sent += others * model.width * _FLOAT_BYTES
        received += model.vocab * _FLOAT_BYTES * others / nodes
    return sent, received


def split_step(
    model: ModelProfile,
    quant: str,
    device: DeviceProfile,
    nodes: int,
    context: int,
    *,
    kv: str = "f16",
    buffer: str = "q8_0",
    head: str = "sharded",
    head_quant: str | None = None,
    slowdown: float = 1.0,
) -> SplitStep:
    """Return what one token takes on `nodes` equal devices, at `context` positions.

    Parameters
    ----------
    model, quant, device
        What runs, stored how, and on which device each share runs; its `sync_*` constants say what joining
        takes (0 seconds and no bound where a profile does not say).
    nodes : int
        At most as many as the model has key-value heads.
    context : int
        Positions already in the cache.
    kv, buffer : str
        Types of the cache and of activations on the network.
    head : str
        "root" or "sharded".
    head_quant : str or None
        Storage type of the head; None for that of a GGUF file.
    slowdown : float
        Threads and heat, as in `roofline.step_time_s`.

    Raises
    ------
    ValueError
        If the model cannot be split so, or a number is out of range.

    Examples
    --------
    >>> from edgellm.cost import load_device, load_model
    >>> pi, m = load_device("raspberry-pi-5"), load_model("llama-3-8b")
    >>> one, four = (split_step(m, "q4_0", pi, n, 100).compute_s for n in (1, 4))
    >>> 0.25 < four / one < 0.5
    True
    """
    _check(model, nodes, head)
    if context < 0:
        raise ValueError(f"context must be 0 or more, got {context}")
    share = _share(model, nodes, head)
    costs = step_costs(share, quant, device, kv=kv, head=head_quant, slowdown=slowdown)
    compute_s = costs.decode_s(1, context)
    if nodes == 1:
        return SplitStep(compute_s, 0.0, 0.0, 0.0)
    sent, received = split_bytes(model, nodes, buffer=buffer, head=head)
    between_s = compute_s - device.host_overhead_s.value
    if head == "root":
        faster = 1.0 if device.head_bandwidth is None else device.head_bandwidth.value
        rate = device.bandwidth_decode_bytes_per_s.value * faster / slowdown
        between_s = max(between_s - model.head_bytes(quant, head_quant) / rate, 0.0)
    return SplitStep(compute_s, _sync_s(device, model, nodes, max(sent, received), between_s), sent, received)


def _sync_s(device: DeviceProfile, model: ModelProfile, nodes: int, nbytes: float, between_s: float) -> float:
    message_s = 0.0 if device.sync_message_s is None else device.sync_message_s.value
    if device.sync_senders is not None:
        message_s *= 1.0 + ((nodes - 1) / device.sync_senders.value) ** 4
    found = (_SYNCS_PER_LAYER * model.layers + 1) * message_s
    if device.sync_bytes_per_s is not None:
        found += nbytes / device.sync_bytes_per_s.value
    if device.sync_skew is not None:
        found += device.sync_skew.value * between_s
    return found


def _share(model: ModelProfile, nodes: int, head: str) -> ModelProfile:
    """Return the model that the root computes: its share of the matrices, all of the vectors."""
    if nodes == 1:
        return model
    return replace(
        model,
        heads=model.heads // nodes,
        kv_heads=model.kv_heads // nodes,
        ffn=-(-model.ffn // nodes),
        expert_ffn=-(-model.expert_ffn // nodes),
        shared_ffn=-(-model.shared_ffn // nodes),
        extra_params=-(-model.extra_params // nodes),
        vocab=model.vocab if head == "root" else -(-model.vocab // nodes),
    )


def _check(model: ModelProfile, nodes: int, head: str) -> None:
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    if nodes < 1 or model.heads % nodes or model.kv_heads % nodes:
        raise ValueError(
            f"{model.name} cannot be split over {nodes} nodes: it has {model.kv_heads} key-value heads"
        )
