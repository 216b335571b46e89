"""A bench for on-target tests: constant sensors, no air, and somebody who writes down what the modem line says."""

from __future__ import annotations

from pathlib import Path

from nodes.emulator.board import Board
from nodes.emulator.firmware import Firmware
from nodes.emulator.interfaces import Downlink, Radio

_START_S = 1_700_000_000
_LONGEST_S = 600.0


class Bench(Radio):
    """Both the world and the air of a board under test."""

    def probe_mv(self, channel: int, time_s: float) -> int:
        """1,000 mV and 1,100 mV."""
        del time_s
        return 1000 + 100 * channel

    def soil_temp_c(self, time_s: float) -> float:
        """18.5 °C."""
        del time_s
        return 18.5

    def air(self, time_s: float) -> tuple[float, float]:
        """21 °C, 55 %."""
        del time_s
        return 21.0, 55.0

    def light_w_m2(self, time_s: float) -> float:
        """300 W/m²."""
        del time_s
        return 300.0

    def battery_mv(self, time_s: float) -> int:
        """3,000 mV."""
        del time_s
        return 3000

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001
        """Nothing is connected."""

    def uplink(
        self,
        dev_eui: str,
        time_s: float,
        f_port: int,
        payload: bytes,
        data_rate: int,
        confirmed: bool,  # noqa: FBT001
    ) -> list[Downlink]:
        """Nobody listens."""
        del dev_eui, time_s, f_port, payload, data_rate, confirmed
        return []


def run_on_bench(elf: Path) -> str:
    """Run a test firmware until its report ends or ten minutes have passed; what it said on the modem line."""
    bench = Bench()
    board = Board(Firmware.load(elf), bench, bench, "0000000000000000", _START_S, 0, calendar_set=True)
    said = bytearray()
    board.uart.listener = said.append
    while b"end:PASS" not in said and board.now() < _LONGEST_S:
        board.run_until(board.now() + 10.0)
    return said.decode("ascii", errors="replace")
