"""A bench for on-target tests: steady sensors, no air, and somebody who writes down what the modem line says.

So that a test firmware can see what its valve did, an open valve adds 200 mV to the probes; and one that is open for
longer than 20 s drags the battery down to 2.1 V. A question mark on the line is answered by an exclamation mark 2 s
later.
"""

from __future__ import annotations

from pathlib import Path

from nodes.emulator.board import Board
from nodes.emulator.firmware import Firmware
from nodes.emulator.interfaces import Downlink, Radio

_START_S = 1_700_000_000
_LONGEST_S = 600.0
_WET_MV = 200
_STRONG_FOR_S = 20.0
_QUESTION = ord("?")
_ANSWER_AFTER_S = 2.0


class Bench(Radio):
    """Both the world and the air of a board under test."""

    def __init__(self) -> None:
        self.open_since_s: float | None = None

    def probe_mv(self, channel: int, time_s: float) -> int:
        """1,000 mV and 1,100 mV; more while the valve is open."""
        del time_s
        return 1000 + 100 * channel + (_WET_MV if self.open_since_s is not None else 0)

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
        """3,000 mV; 2,100 mV once a valve has been open for long."""
        tired = self.open_since_s is not None and time_s > self.open_since_s + _STRONG_FOR_S
        return 2100 if tired else 3000

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001
        """Either valve moved."""
        self.open_since_s = time_s if open else None

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


def run_on_bench(elf: Path, said: bytearray | None = None) -> str:
    """Run a test firmware until its report ends or ten minutes have passed.

    Args:
        elf: the test firmware.
        said: collects what it says on the modem line, also when a BoardError ends the run.

    Returns:
        What it said.

    Raises:
        BoardError: the firmware did something the hardware would not forgive.
    """
    bench = Bench()
    board = Board(Firmware.load(elf), bench, bench, "0000000000000000", _START_S, 0, calendar_set=True)
    said = bytearray() if said is None else said

    def hear(byte: int) -> None:
        said.append(byte)
        if byte == _QUESTION:
            board.uart.feed(b"!", board.now() + _ANSWER_AFTER_S)

    board.uart.listener = hear
    while b"end:PASS" not in said and board.now() < _LONGEST_S:
        board.run_until(board.now() + 10.0)
    return said.decode("ascii", errors="replace")
