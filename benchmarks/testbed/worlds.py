"""The scenarios that benchmarks of the testbed simulate: homes of five devices and a gateway, and a cloud."""

from __future__ import annotations

from typing import Any

DAY_S = 86_400.0
DEVICES_PER_HOME = 5


def homes(
    devices: int, requests: int, duration_s: float = DAY_S, fair_link: str = "", requests_from: str = "device"
) -> dict[str, Any]:
    """A day of homes whose devices ask their gateway: compute twice, send twice, about four activities each.

    Parameters
    ----------
    devices : int
        In homes of five.
    requests : int
        Expected over the whole period.
    duration_s : float
        Length of the period.
    fair_link : str
        Name of a link profile: all devices of a home share one such link fairly; "" gives each its own Wi-Fi.
    requests_from : str
        Kind of node where requests arrive.

    Examples
    --------
    >>> sorted(homes(10, 100)["fleet"])
    ['cloud', 'home']
    """
    count = max(1, devices // DEVICES_PER_HOME)
    rate = requests / (count * DEVICES_PER_HOME) / duration_s
    uplink: dict[str, Any] = {"to": "gateway", "link": fair_link or "wifi-4"}
    if fair_link:
        uplink["group"] = "air"
    kind = {"model": "small", "prompt_tokens": 100, "output_tokens": 20}
    return {
        "schema": 1,
        "name": f"{devices} devices",
        "duration": f"{duration_s:g} s",
        "models": {"small": {"profile": "smollm2-135m", "quant": "q4_0"}},
        "network": {"factors": False},  # latency plus bytes over rate, as the SimPy models have it
        "fleet": {
            "home": {
                "count": count,
                "device": {
                    "count": DEVICES_PER_HOME,
                    "device": "raspberry-pi-4b",
                    "models": ["small"],
                    "uplink": uplink,
                },
                "gateway": {
                    "device": "n100-mini-pc",
                    "models": ["small"],
                    "uplink": {"to": "cloud/server", "link": "home-broadband"},
                },
            },
            "cloud": {"server": {"device": "cloud-cpu", "models": ["small"]}},
        },
        "workload": {
            "questions": {
                "at": f"home/{requests_from}",
                "arrivals": {"process": "poisson", "rate": f"{rate * 3600.0!r} /h"},
                "kinds": {"question": kind},
            }
        },
    }
