"""How fast time passes: node-days per CPU-second of the emulator, the Python reference and the training worlds."""

from __future__ import annotations

import math
import time
from typing import Any

from nodes.emulator.firmware import Firmware
from nodes.emulator.interfaces import Downlink, Radio
from nodes.emulator.node import EmulatedNode
from nodes.firmware.build import build
from server.training.seasons import BATCH, physics_only, run_cases
from server.worlds.batch import Fields
from server.worlds.field import WORLDS, sample_case
from shared_models.codes import Board, Crop
from shared_models.factory import factory_image
from shared_models.reference import NodeReference, Reading
from shared_models.settings import Settings

START_S = 1_777_593_600
DAYS = 30
WAKES_PER_DAY = 96


def measure() -> dict[str, Any]:
    """Node-days per second of processor time, one process."""
    result: dict[str, Any] = {"days": DAYS}
    for board, path in build().items():
        result[f"emulated_{board.name.lower()}"] = _emulated(Firmware.load(path))
    result["python_reference"] = _reference()
    for world in WORLDS:
        result[f"closed_loop_{world}"] = _closed_loop(world)
    return result


class Plot:
    """A drying field by formula, so that the field costs next to nothing."""

    def _sun(self, time_s: float) -> float:
        return max(0.0, math.sin((time_s / 86400 - 0.25) * 2 * math.pi))

    def probe_mv(self, channel: int, time_s: float) -> int:
        days = (time_s - START_S) / 86400
        return round(300 + 4000 * (0.22 + 0.02 * channel + 0.1 * math.exp(-days / 20))) + int(time_s) // 900 % 3

    def soil_temp_c(self, time_s: float) -> float:
        return 16.0 + 3.0 * self._sun(time_s)

    def air(self, time_s: float) -> tuple[float, float]:
        return 17.0 + 9.0 * self._sun(time_s), 70.0 - 30.0 * self._sun(time_s)

    def light_w_m2(self, time_s: float) -> float:
        return 800.0 * self._sun(time_s)

    def battery_mv(self, time_s: float) -> int:  # noqa: ARG002 - it never runs flat
        return 2950

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001 - the protocol's names
        pass


class Silence(Radio):
    """An air that swallows everything."""

    def uplink(
        self,
        dev_eui: str,  # noqa: ARG002 - the protocol's names, here and below
        time_s: float,  # noqa: ARG002
        f_port: int,  # noqa: ARG002
        payload: bytes,  # noqa: ARG002
        data_rate: int,  # noqa: ARG002
        confirmed: bool,  # noqa: ARG002, FBT001
    ) -> list[Downlink]:
        return []


def _settings(board: Board) -> Settings:
    return Settings(
        dev_eui="00000000000000b1",
        board=board,
        crop=Crop.MAIZE,
        planting_time_s=START_S + 8 * 86400 + 6 * 3600,
        season_days=120,
        season=2026,
    )


def _emulated(firmware: Firmware) -> dict[str, float]:
    page = _settings(firmware.board).pack()
    node = EmulatedNode(firmware, page, factory_image().pack(), Plot(), Silence(), START_S, 3)
    node.run_until(START_S + 86400)
    cycles, wakes, started = node.cycles, node.wakes, time.process_time()
    node.run_until(START_S + (1 + DAYS) * 86400)
    spent = time.process_time() - started
    return {
        "node_days_per_cpu_s": round(DAYS / spent, 2),
        "cycles_per_wake": round((node.cycles - cycles) / (node.wakes - wakes)),
        "projected_life_years": round(node.energy.projected_life_years, 1),
    }


def _reference() -> dict[str, float]:
    plot, node, image = Plot(), NodeReference(_settings(Board.STM32L072)), factory_image()
    readings = []
    for wake in range(DAYS * WAKES_PER_DAY):
        now = START_S + wake * 900
        air, humidity = plot.air(now)
        shallow, deep = ((plot.probe_mv(channel, now) - 300) * 5 // 2 for channel in (0, 1))
        light, soil = round(plot.light_w_m2(now)), round(100 * plot.soil_temp_c(now))
        readings.append(Reading(now, shallow, deep, soil, round(100 * air), round(100 * humidity), light))
    started = time.process_time()
    for reading in readings:
        node.wake(reading, image)
    return {"node_days_per_cpu_s": round(DAYS / (time.process_time() - started), 1)}


def _closed_loop(world: str) -> dict[str, float]:
    cases = [sample_case(seed, world) for seed in range(BATCH)]
    fields = Fields(cases)
    started = time.process_time()
    for _ in range(DAYS):
        fields.advance(WAKES_PER_DAY)
    alone = time.process_time() - started
    started = time.process_time()
    run_cases(cases, physics_only(), days=DAYS - cases[0].commissioning_days)
    together = time.process_time() - started
    return {
        "node_days_per_cpu_s": round(BATCH * DAYS / together, 1),
        "field_days_per_cpu_s": round(BATCH * DAYS / alone, 1),
    }
