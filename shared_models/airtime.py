"""LoRa airtime, payload limits and duty cycles of EU868: what a frame costs the air.

Airtime is Semtech's formula (SX1276 datasheet section 4.1.1.7; AN1200.13) at 125 kHz, coding rate 4/5, eight preamble
symbols, explicit header and CRC, with low-data-rate optimisation from SF11 on. Payload limits are those of RP002-1.0.4
without a repeater, duty cycles those of ERC/REC 70-03 annex 1.
"""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

MAX_PAYLOAD: Final = (51, 51, 51, 115, 222, 222)
"""Largest application payload by data rate 0 to 5, bytes, either way."""
MAC_OVERHEAD: Final = 13
"""MHDR 1, DevAddr 4, FCtrl 1, FCnt 2, FPort 1, MIC 4, bytes."""
BANDWIDTH_HZ: Final = 125_000

DUTY_WINDOW_S: Final = 3600
UPLINK_DUTY_CYCLE: Final = 0.01
"""Sub-bands g and g1, where nodes send."""
Window = Literal["rx1", "rx2"]
DOWNLINK_DUTY_CYCLE: Final[dict[Window, float]] = {"rx1": 0.01, "rx2": 0.1}
"""Of the gateway: RX1 is the uplink's own channel and data rate; RX2 is 869.525 MHz."""
RX2_DATA_RATE: Final = 0


def spreading_factor(data_rate: int) -> int:
    """LoRa spreading factor of a data rate 0 to 5."""
    return 12 - data_rate


def airtime_s(data_rate: int, payload_bytes: int) -> float:
    """Time on air of a LoRaWAN data frame, s.

    Args:
        data_rate: 0 to 5.
        payload_bytes: The application's payload.
    """
    factor = spreading_factor(data_rate)
    symbol_s = (1 << factor) / BANDWIDTH_HZ
    optimised = 2 if factor >= 11 else 0
    bits = 8 * (payload_bytes + MAC_OVERHEAD) - 4 * factor + 28 + 16
    symbols = 8 + max(ceil(bits / (4 * (factor - optimised))) * 5, 0)
    return (8 + 4.25 + symbols) * symbol_s


def payload_limit_bytes(data_rate: int | None) -> int:
    """Largest application payload at a data rate; the smallest where it is unknown or none of these."""
    known = data_rate is not None and 0 <= data_rate < len(MAX_PAYLOAD)
    return MAX_PAYLOAD[data_rate] if known and data_rate is not None else MAX_PAYLOAD[0]


def downlink_budget_s(window: Window, window_s: float = DUTY_WINDOW_S) -> float:
    """Airtime one gateway may send in ``window_s`` on one sub-band, s."""
    return DOWNLINK_DUTY_CYCLE[window] * window_s
