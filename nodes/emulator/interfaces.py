"""What an emulated board sees of the outside: the world its sensors stand in, and the air its modem talks into.

Both sides of the emulator meet here: :mod:`nodes.field` and :mod:`nodes.emulator.air` implement these protocols,
the peripheral models call them. Times are Unix seconds UTC; a board asks only with times that never go backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SHALLOW = 0
"""Probe channel at 0.15 m."""
DEEP = 1
"""Probe channel at 0.35 m."""


@dataclass(frozen=True, slots=True)
class Downlink:
    """One application frame that arrived in a receive window."""

    f_port: int
    payload: bytes
    pending: bool = False
    """The network announced that more waits (FPending)."""


class SensorWorld(Protocol):
    """The field around one node.

    A world may also have ``internal_ohm(time_s: float) -> float``, the battery's resistance: the supply then drops
    while the modem transmits. Without it the battery is ideal.
    """

    def probe_mv(self, channel: int, time_s: float) -> int:
        """Output of a soil moisture probe, mV; nominally ``vwc_e4 = (mV - 300) * 5 / 2``.

        Args:
            channel: :data:`SHALLOW` or :data:`DEEP`.
            time_s: when it is sampled.
        """
        ...

    def soil_temp_c(self, time_s: float) -> float:
        """Soil temperature between the probes, °C; NaN for a broken wire."""
        ...

    def air(self, time_s: float) -> tuple[float, float]:
        """Air temperature, °C, and relative humidity, %; NaN in either makes the sensor fall silent."""
        ...

    def light_w_m2(self, time_s: float) -> float:
        """Instantaneous global radiation, W/m²."""
        ...

    def battery_mv(self, time_s: float) -> int:
        """Open-circuit voltage of the board's battery, mV."""
        ...

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001 (the words of the trade)
        """The valve's drive line changed; called at every change and never otherwise."""
        ...


class Radio(Protocol):
    """The LoRaWAN air and the network server behind it, as class A modems meet them.

    An implementation that derives from this class has a network that is always there and tells the true time.
    """

    def uplink(
        self,
        dev_eui: str,
        time_s: float,
        f_port: int,
        payload: bytes,
        data_rate: int,
        confirmed: bool,  # noqa: FBT001 (a field of the frame)
    ) -> list[Downlink]:
        """Put one frame on air.

        Args:
            dev_eui: sixteen lower-case hexadecimal digits.
            time_s: the end of the transmission.
            f_port: application port, 1 to 223.
            payload: application payload, already within the data rate's limit.
            data_rate: EU868 data rate, 0 (SF12) to 5 (SF7).
            confirmed: whether the modem asked for an acknowledgement.

        Returns:
            What came back in RX1 or RX2; empty when nothing was waiting or a frame was lost.
        """
        ...

    def join(self, dev_eui: str, time_s: float, data_rate: int) -> bool:
        """Put a join request on air.

        Args:
            dev_eui: sixteen lower-case hexadecimal digits.
            time_s: the end of the transmission.
            data_rate: EU868 data rate.

        Returns:
            Whether an acceptance came back.
        """
        del dev_eui, time_s, data_rate
        return True

    def answers(self, dev_eui: str) -> bool:
        """Whether the network's answer to MAC commands in the device's last uplink arrived."""
        del dev_eui
        return True

    def network_time_s(self, time_s: float) -> float:
        """What the network takes for the time at ``time_s``, Unix seconds UTC."""
        return time_s
