"""Invariant I5 over a whole season: both boards, the host's C and the Python reference think the same bits.

A field by AquaCrop with noisy, drifting probes and one that breaks for some days. Both boards live in fields of their
own, which stay equal only if every decision is; after each wake what they remember is compared with the reference's
and the host's, and at the end every frame with what the reference would have said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from conftest import FACTORY_MODEL
from plot import Ether

from nodes.emulator.converter import CALIBRATION, REFERENCE_MV
from nodes.emulator.farm import settings_page
from nodes.emulator.node import EmulatedNode
from nodes.field.world import FieldWorld
from nodes.hostcore import HostNode
from nodes.scenario import Scenario
from shared_models.codes import Board, EventCode, Mode
from shared_models.fixed import NO_VALUE
from shared_models.frames import Event, StatisticsFragment, Telemetry, split_statistics
from shared_models.network import ModelImage
from shared_models.reference import NodeReference, Outcome, Reading
from shared_models.settings import NO_KEY, Settings
from shared_models.state import STATE_STRUCT, State

DAYS = 139
SUPPLY_MV = 2950
SCENARIO = Scenario.model_validate(
    {
        "name": "one-field",
        "seed": 41,
        "start": "2004-05-01",
        "days": DAYS,
        "farms": [
            {
                "site": "champion",
                "climate": "champion",
                "application_id": "6f0d3c0e-52a1-4c7e-9d0b-0a51c7a20001",
                "nodes": [
                    {
                        "name": "river",
                        "dev_eui": "4e4f524941020304",
                        "board": "stm32l072",
                        "crop": "maize",
                        "soil": "sandy_loam",
                        "faults": [{"part": "probe_deep", "kind": "broken", "from_day": 70, "to_day": 75}],
                    }
                ],
            }
        ],
    }
)


class Field:
    """The field, asked at whole seconds and watered for whole minutes: boards of different speed must see the same.

    One of them takes most of a second to write down its promise to close the valve.
    """

    def __init__(self) -> None:
        farm = SCENARIO.farms[0]
        self._world = FieldWorld(SCENARIO, farm, farm.nodes[0])
        self.shown: dict[str, float] = {}

    def probe_mv(self, channel: int, time_s: float) -> int:
        self.shown[f"probe {channel}"] = value = self._world.probe_mv(channel, math.floor(time_s))
        return value

    def soil_temp_c(self, time_s: float) -> float:
        self.shown["soil"] = value = self._world.soil_temp_c(math.floor(time_s))
        return value

    def light_w_m2(self, time_s: float) -> float:
        self.shown["light"] = value = self._world.light_w_m2(math.floor(time_s))
        return value

    def air(self, time_s: float) -> tuple[float, float]:
        self.shown["air"], self.shown["humidity"] = value = self._world.air(math.floor(time_s))
        return value

    def battery_mv(self, time_s: float) -> int:
        return SUPPLY_MV

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001
        phase_s = SCENARIO.farms[0].nodes[0].wake_phase_s
        self._world.valve(open, math.floor((time_s - phase_s) / 60) * 60 + phase_s)

    def reading(self, time_s: int) -> Reading:
        """What core/sensors.c makes of the last look."""
        supply = 3000 * CALIBRATION // round(REFERENCE_MV * 4095 / SUPPLY_MV)

        def millivolts(value: float) -> int:
            raw = min(max(round(value * 4095 / SUPPLY_MV), 0), 4095)
            return (raw * supply + 2047) // 4095

        probes = [
            NO_VALUE if mv < 100 else math.trunc((mv - 300) * 5 / 2)
            for mv in (millivolts(self.shown[f"probe {channel}"]) for channel in range(2))
        ]
        ticks_t = min(max(round((self.shown["air"] + 45.0) * 65535 / 175), 0), 65535)
        ticks_h = min(max(round((self.shown["humidity"] + 6.0) * 65535 / 125), 0), 65535)
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


@dataclass
class Season:
    """What one board lived through."""

    readings: list[Reading] = field(default_factory=list)
    remembered: list[bytes] = field(default_factory=list)
    ether: Ether = field(default_factory=Ether)


def live(firmware, page: bytes) -> Season:
    season, world = Season(), Field()
    start_s, phase_s = SCENARIO.start_time_s, Settings.unpack(page).wake_phase_s
    node = EmulatedNode(firmware, page, FACTORY_MODEL.read_bytes(), world, season.ether, start_s, 3)
    memory = firmware.symbols["memory"]
    for wake in range(DAYS * 96):
        wake_s = start_s + wake * 900 + phase_s
        node.run_until(wake_s + 300)
        assert node.wakes == wake + 1
        season.readings.append(world.reading(wake_s))
        season.remembered.append(bytes(node._board.engine.mem_read(memory, STATE_STRUCT.size)))
    return season


def told(reading: Reading, outcome: Outcome, image: ModelImage) -> bytes:
    """The telemetry of a wake."""
    return Telemetry(
        time_s=reading.time_s,
        flags=outcome.faults | (128 if outcome.anchored else 0),
        mode=Mode(outcome.mode),
        board=Board.STM32L072,
        battery_mv=reading.battery_mv,
        vwc_shallow_e4=reading.vwc_shallow_e4,
        vwc_deep_e4=reading.vwc_deep_e4,
        soil_temp_c100=reading.soil_temp_c100,
        air_temp_c100=reading.air_temp_c100,
        depletion_e1_mm=outcome.depletion_um // 100,
        taw_e1_mm=outcome.taw_um // 100,
        threshold_permille=outcome.threshold_permille,
        forecast_24h_e4=outcome.forecast_e4[0],
        water_season_e1_mm=outcome.water_season_e1_mm,
        last_reason=outcome.reason,
        model_version=1,
        backbone_id=image.backbone_id,
        probation=0,
    ).encode()


def differences(ours: bytes, theirs: State) -> list[tuple[str, object, object]]:
    state = State.unpack(ours)
    return [
        (name, getattr(state, name), getattr(theirs, name))
        for name in State.__slots__
        if getattr(state, name) != getattr(theirs, name)
    ]


def test_a_whole_season_is_the_same_on_both_boards_the_host_and_in_the_reference(firmwares) -> None:
    page = settings_page(SCENARIO, SCENARIO.farms[0], SCENARIO.farms[0].nodes[0], (NO_KEY, NO_KEY))
    image = ModelImage.unpack(FACTORY_MODEL.read_bytes())
    small, large = (live(firmwares[board], page) for board in Board)
    assert small.readings == large.readings
    assert [frame[1:] for frame in small.ether.uplinks] == [frame[1:] for frame in large.ether.uplinks]

    reference, host = NodeReference(Settings.unpack(page)), HostNode(Settings.unpack(page), sanitize=True)
    telemetry, fragments, watered, modes = [], [], [], set()
    for wake, reading in enumerate(small.readings):
        outcome = reference.wake(reading, image)
        assert host.wake(reading, image) == outcome, f"wake {wake}"
        expected = reference.state.pack()
        assert host.state_bytes == expected, f"wake {wake}"
        for season in (small, large):
            if season.remembered[wake] != expected:
                raise AssertionError(f"wake {wake}: {differences(season.remembered[wake], reference.state)}")
        modes.add(outcome.mode)
        if outcome.send_telemetry:
            telemetry.append(told(reading, outcome, image))
        if outcome.open_s:
            watered.append((reading.time_s, outcome.dose_e1_mm, outcome.reason, outcome.depletion_um // 100))
        if outcome.send_statistics:
            fragments += split_statistics(
                reference.snapshot().encode(),
                session=reference.state.statistics_sequence,
                season=reference.state.season,
                backbone_id=image.backbone_id,
                payload_limit=115,
            )
    sent = small.ether.uplinks
    assert [payload for _, f_port, payload in sent if f_port == 10] == telemetry
    assert small.ether.decoded(StatisticsFragment) == fragments
    assert [
        (event.time_s, event.dose_e1_mm, event.reason, event.depletion_e1_mm)
        for event in small.ether.decoded(Event)
        if event.code is EventCode.WATERED
    ] == watered
    assert modes >= {Mode.MODEL, Mode.COMMISSIONING}
    assert len(telemetry) > 100
    assert len(watered) > 8
    assert len(fragments) > 20
