"""Strict units of scenarios: "30 Mbit/s", "24 h", "512 MiB", "7 W", "15 kJ".

The parser lives in `edgellm.cost.units`, since profiles use it too and costs may not depend on the testbed.
"""

from edgellm.cost.units import DIMENSIONS, UnitError, near_matches, parse_quantity

__all__ = ["DIMENSIONS", "UnitError", "near_matches", "parse_quantity"]
