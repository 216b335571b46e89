"""Both ELFs and the Python reference remember the same bits after every wake (invariant I5)."""

from __future__ import annotations

import math

from conftest import FACTORY_MODEL
from plot import START_S, Plot

from nodes.emulator.converter import CALIBRATION, REFERENCE_MV
from shared_models.fixed import NO_VALUE
from shared_models.network import ModelImage
from shared_models.reference import NodeReference, Reading
from shared_models.state import STATE_STRUCT, State

DAYS = 7
PHASE_S = 137
PLANTING_S = START_S + 2 * 86400 + 6 * 3600


class Recorder(Plot):
    """Keeps the last value each sensor showed."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, float] = {}

    def probe_mv(self, channel: int, time_s: float) -> int:
        self.shown[f"probe {channel}"] = value = super().probe_mv(channel, time_s)
        return value

    def soil_temp_c(self, time_s: float) -> float:
        self.shown["soil"] = value = super().soil_temp_c(time_s)
        return value

    def light_w_m2(self, time_s: float) -> float:
        self.shown["light"] = value = super().light_w_m2(time_s)
        return value

    def air(self, time_s: float) -> tuple[float, float]:
        self.shown["air"], self.shown["humidity"] = value = super().air(time_s)
        return value

    def reading(self, time_s: int) -> Reading:
        """What core/sensors.c makes of it."""
        supply = 3000 * CALIBRATION // round(REFERENCE_MV * 4095 / self.battery)

        def millivolts(value: float) -> int:
            raw = min(max(round(value * 4095 / self.battery), 0), 4095)
            return (raw * supply + 2047) // 4095

        def quotient(value: float) -> int:
            return math.trunc(value)

        probes = [quotient((millivolts(self.shown[f"probe {channel}"]) - 300) * 5 / 2) for channel in range(2)]
        ticks_t = round((self.shown["air"] + 45.0) * 65535 / 175)
        ticks_h = round((self.shown["humidity"] + 6.0) * 65535 / 125)
        return Reading(
            time_s=time_s,
            vwc_shallow_e4=probes[0],
            vwc_deep_e4=probes[1],
            soil_temp_c100=(millivolts(500.0 + 10.0 * self.shown["soil"]) - 500) * 10,
            air_temp_c100=-4500 + (17500 * ticks_t + 32767) // 65535,
            rh_e2=min(max(-600 + (12500 * ticks_h + 32767) // 65535, 0), 10000),
            light_w_m2=millivolts(self.shown["light"] * 2.0) // 2,
            battery_mv=supply,
        )


def test_the_firmware_and_the_reference_agree_after_every_wake(start, firmware) -> None:
    node, plot, _ = start(plot=Recorder(), planting_time_s=PLANTING_S, commissioning_days=2, threshold_permille=30)
    reference = NodeReference(node.settings)
    image = ModelImage.unpack(FACTORY_MODEL.read_bytes())
    memory = firmware.symbols["memory"]
    doses = 0
    for wake in range(DAYS * 96):
        wake_s = START_S + wake * 900 + PHASE_S
        node.run_until(wake_s + 60)
        outcome = reference.wake(plot.reading(wake_s), image)
        doses += outcome.open_s > 0
        remembered = bytes(node._board.engine.mem_read(memory, STATE_STRUCT.size))
        if remembered != reference.state.pack():
            ours, theirs = State.unpack(remembered), reference.state
            differences = [
                (name, getattr(ours, name), getattr(theirs, name))
                for name in State.__slots__
                if getattr(ours, name) != getattr(theirs, name)
            ]
            raise AssertionError(f"wake {wake}: (name, firmware, reference) {differences}")
    assert doses > 0
    assert len(plot.doses_s()) == doses
    assert reference.state.probe_last_e4[0] != NO_VALUE
