"""Messages on links: headers, records, slow start and connections, against hand-made sums."""

from dataclasses import replace

import pytest

from edgellm import cost
from edgellm.cost import network

WAN = cost.load_link("home-broadband")
PLAIN = replace(WAN, link_class="")


def test_message_without_a_class_is_latency_plus_bytes_over_rate() -> None:
    for nbytes in (0, 1, 1500, 10**7):
        got = network.message(PLAIN, nbytes, up=False, tls=True)
        assert got.time_s == pytest.approx(PLAIN.transfer_time_s(nbytes, up=False), rel=1e-12)
        assert got.wire_bytes == got.payload_bytes == nbytes
    assert network.connection(PLAIN, tls=True).wait_s == 0.0


def test_wire_bytes_are_payload_records_and_headers() -> None:
    kind = network.network_classes()["wan"]
    header, mss = kind.header_bytes.value, kind.mss_bytes.value
    assert network.wire_bytes(WAN, 1) == 1 + header
    assert network.wire_bytes(WAN, mss) == mss + header
    assert network.wire_bytes(WAN, mss + 1) == mss + 1 + 2 * header
    # 40000 bytes are three records of 16 KiB
    sent = 40000 + 3 * 22
    assert network.wire_bytes(WAN, 40000, tls=True) == sent + header * -(-sent // mss)


def test_large_messages_reach_the_rate_of_the_profile() -> None:
    for name in ("ethernet-1g", "wifi-5", "fibre", "4g"):
        link = cost.load_link(name)
        message = network.message(link, 10**9)
        assert message.airtime_s == pytest.approx(8e9 / link.up_bit_per_s.value, rel=1e-5)


def test_slow_start_waits_what_its_rounds_say() -> None:
    kind = network.network_classes()["wan"]
    window, growth, mss = kind.window_bytes.value, kind.growth.value, kind.mss_bytes.value
    rate, rtt_s = WAN.up_bit_per_s.value, 2 * WAN.latency_s.value
    first_s = rtt_s + 8 * mss / rate - 8 * window / rate
    second_s = rtt_s + 8 * mss / rate - 8 * window * growth / rate
    base_s = WAN.latency_s.value + kind.message_overhead_s.value
    assert network.message(WAN, window).wait_s == pytest.approx(base_s)
    assert network.message(WAN, window + 1).wait_s == pytest.approx(base_s + first_s)
    beyond = network.message(WAN, window * (1 + growth) + 1).wait_s
    assert beyond == pytest.approx(base_s + first_s + max(second_s, 0.0))


@pytest.mark.parametrize("name", cost.known_profiles("link"))
def test_time_and_bytes_grow_with_size_and_encryption(name: str) -> None:
    link = cost.load_link(name)
    assert link.link_class in cost.network.network_classes()
    sizes = (0, 1, 10, 100, 1000, 3000, 30_000, 300_000, 3_000_000)
    for up in (True, False):
        times = [network.message_time_s(link, n, up) for n in sizes]
        assert times == sorted(times)
        assert times[0] == link.latency_s.value
        for nbytes in sizes[1:]:
            sealed = network.message(link, nbytes, up, tls=True)
            assert sealed.wire_bytes > network.wire_bytes(link, nbytes) > nbytes
            assert sealed.payload_bytes < sealed.wire_bytes
            new_s = network.message_time_s(link, nbytes, up, tls=True, new_connection=True)
            assert new_s > sealed.time_s


def test_connection_takes_a_round_trip_and_another_for_tls() -> None:
    rtt_s = 2 * WAN.latency_s.value
    assert network.connection(WAN).wait_s == rtt_s
    sealed = network.connection(WAN, tls=True)
    assert 2 * rtt_s < sealed.wait_s < 3 * rtt_s
    assert sealed.down.wire_bytes > sealed.up.wire_bytes > network.connection(WAN).up.wire_bytes


def test_link_keys_stand_in_for_those_of_the_class() -> None:
    def number(value: float) -> cost.Constant:
        return cost.Constant(value, "", "test")

    link = replace(WAN, header_bytes=number(100.0), mss_bytes=number(1000.0), message_overhead_s=number(0.5))
    assert network.wire_bytes(link, 2500) == 2800
    assert network.message(link, 1).wait_s == WAN.latency_s.value + 0.5
    tls = cost.parts.TlsProfile(number(3), number(6000), number(500), number(50), number(1e6), number(10.0))
    link = replace(link, tls=tls)
    assert network.wire_bytes(link, 1000, tls=True) == 1000 + 2 * 50 + 2 * 100
    slow, quick = (network.connection(link, tls=True, ops_per_s=speed).wait_s for speed in (1e6, 1e7))
    assert slow - quick == pytest.approx(0.9)
    assert network.message(link, 100, tls=True, ops_per_s=1e3).wait_s == pytest.approx(
        WAN.latency_s.value + 1.5
    )


def test_sizes_of_a_profile_multiply_rate_and_latency() -> None:
    def number(value: float) -> cost.Constant:
        return cost.Constant(value, "", "test")

    entries = tuple(
        cost.parts.SizeFactor(number(b), number(r), number(f)) for b, r, f in ((0, 1, 1), (10_000, 0.5, 3))
    )
    link = replace(WAN, sizes=entries)
    small, large = network.message(link, 5_000), network.message(link, 20_000)
    assert small.airtime_s == network.message(WAN, 5_000).airtime_s
    assert large.airtime_s == 2 * network.message(WAN, 20_000).airtime_s
    assert large.wait_s - small.wait_s == pytest.approx(2 * WAN.latency_s.value)


@pytest.mark.parametrize("nbytes", [-1.0, float("nan"), float("inf")])
def test_message_of_no_size_is_refused(nbytes: float) -> None:
    with pytest.raises(ValueError, match="nbytes must be finite"):
        network.message(WAN, nbytes)
