from dataclasses import replace

import pytest

from edgellm import cost
from edgellm.cost import split

LLAMA = cost.load_model("llama-3-8b")
PI = cost.load_device("raspberry-pi-5")


def _constant(value: float) -> cost.Constant:
    return cost.Constant(value, "", "by hand")


# b4rtaz/distributed-llama README.md at 4c38a2e: Llama 3 8B, KiB per token, all devices, sent and received
@pytest.mark.parametrize(
    ("buffer", "nodes", "kib"),
    [
        ("f32", 2, 2048), ("f32", 4, 6144), ("f32", 8, 14336),
        ("q8_0", 2, 544), ("q8_0", 4, 1632), ("q8_0", 8, 3808),
    ],
)  # fmt: skip
def test_split_bytes_are_exactly_those_that_were_published(buffer: str, nodes: int, kib: int) -> None:
    assert sum(split.split_bytes(LLAMA, nodes, buffer=buffer, head="root")) == kib * 1024


def test_split_bytes_with_a_sharded_head_are_those_that_the_root_printed() -> None:
    # danielcorrea-hellomatik/distributed-llama at 394402f, four nodes: sent 864 kB, received 1191 kB
    sent, received = split.split_bytes(LLAMA, 4)
    assert (sent / 1024, int(received / 1024)) == (864, 1191)
    assert split.split_bytes(LLAMA, 1) == (0, 0)


def test_split_step_by_hand() -> None:
    device = replace(
        PI,
        bandwidth_decode_bytes_per_s=_constant(1e9),
        attention_ops_per_s=_constant(1e18),
        ops_per_s=_constant(1e18),
        layer_overhead_s=_constant(1e-3),
        host_overhead_s=_constant(2e-3),
        sync_message_s=_constant(1e-4),
        sync_bytes_per_s=_constant(1e8),
        sync_skew=_constant(0.25),
        sync_senders=_constant(6.0),
    )
    step = split.split_step(LLAMA, "q4_0", device, 4, 0, head="root", head_quant="q4_0")
    body, head = LLAMA.body_matrix_params * 18 / 32, LLAMA.embedding_params * 18 / 32
    vectors = 4 * LLAMA.vector_params
    cache_s = LLAMA.kv_bytes_per_token() / 4 / 2 / 1e9
    compute_s = (body / 4 + vectors + head) / 1e9 + 32e-3 + cache_s + 2e-3
    assert step.compute_s == pytest.approx(compute_s, rel=1e-9)
    between_s = compute_s - 2e-3 - head / 1e9
    messages_s = 65 * 1e-4 * (1 + 0.5**4)
    assert step.sync_s == pytest.approx(messages_s + 816 * 1024 / 1e8 + 0.25 * between_s, rel=1e-9)
    assert step.seconds == step.compute_s + step.sync_s


def test_split_over_one_node_is_the_plain_step() -> None:
    one = split.split_step(LLAMA, "q4_0", PI, 1, 77)
    assert one.seconds == cost.decode_time_s(LLAMA, "q4_0", PI, 1, 77)
    assert (one.sync_s, one.sent_bytes, one.received_bytes) == (0.0, 0.0, 0.0)


def test_split_that_cannot_be_is_an_error() -> None:
    for nodes in (0, 3, 16):
        with pytest.raises(ValueError, match="cannot be split over"):
            split.split_step(LLAMA, "q4_0", PI, nodes, 0)
    with pytest.raises(ValueError, match="head must be one of"):
        split.split_bytes(LLAMA, 2, head="both")
    with pytest.raises(ValueError, match="unknown buffer"):
        split.split_bytes(LLAMA, 2, buffer="q4_0")
    with pytest.raises(ValueError, match="context"):
        split.split_step(LLAMA, "q4_0", PI, 2, -1)


def test_head_that_is_slower_counts_as_a_longer_head() -> None:
    slow = replace(PI, head_bandwidth=_constant(0.5))
    more = cost.step_time_s(LLAMA, "q4_0", slow, [1], [9]) - cost.step_time_s(LLAMA, "q4_0", PI, [1], [9])
    assert more == pytest.approx(LLAMA.head_bytes("q4_0") / PI.bandwidth_decode_bytes_per_s.value)
