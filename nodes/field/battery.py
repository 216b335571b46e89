"""Voltage of a CR2032 under the light load of a sleeping node."""

from __future__ import annotations

from bisect import bisect_right

CAPACITY_UAH = 225_000.0
"""Nominal, to 2.0 V (Energizer CR2032 and Murata CR2032 data sheets agree within 5 %)."""

_DRAWN = (0.0, 0.02, 0.10, 0.50, 0.80, 0.90, 0.96, 1.0, 1.05)
_VOLTAGE_MV = (3200.0, 3050.0, 2980.0, 2900.0, 2800.0, 2650.0, 2400.0, 2000.0, 0.0)
"""Typical discharge curve at 20 °C and 190 µA, read off the Energizer data sheet to about 30 mV."""


def battery_mv(drawn_uah: float) -> int:
    """Terminal voltage after so much charge was drawn, mV."""
    share = max(0.0, min(_DRAWN[-1], drawn_uah / CAPACITY_UAH))
    right = min(bisect_right(_DRAWN, share), len(_DRAWN) - 1)
    slope = (_VOLTAGE_MV[right] - _VOLTAGE_MV[right - 1]) / (_DRAWN[right] - _DRAWN[right - 1])
    return round(_VOLTAGE_MV[right - 1] + slope * (share - _DRAWN[right - 1]))
