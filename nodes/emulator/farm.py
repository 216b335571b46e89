"""One farm in motion: every node's firmware in its own field, on one air.

Nodes of a farm share the air but never hear one another, so each lives through a stretch of time on its own; what
happened is put in order afterwards, and the result does not depend on how a run is cut into stretches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

from nodes.emulator.air import Air, AirEvents, QueuedDownlink, Traffic
from nodes.emulator.firmware import Firmware
from nodes.emulator.node import EmulatedNode
from nodes.field.world import FieldResult, FieldWorld
from nodes.scenario import FarmPlan, NodePlan, Scenario
from shared_models.codes import Board, EventCode
from shared_models.frames import Event, FrameError, Telemetry, decode_uplink
from shared_models.settings import NO_KEY, NO_UPDATE_KEY, Settings


@dataclass(frozen=True, slots=True)
class FarmSetup:
    """Everything a farm's simulation starts from; small enough to be sent to a worker process."""

    scenario: Scenario
    site: str
    firmware: Mapping[Board, Path]
    """The ELF files the nodes execute."""
    factory_image: bytes | None
    """Contents of model slot A as the factory writes it; None leaves the slots empty."""
    public_keys: tuple[bytes, bytes] = (NO_KEY, NO_KEY)
    """Release keys the nodes trust."""
    update_keys: Mapping[str, bytes] = field(default_factory=dict)
    """The nodes' update keys, by DevEUI; who has none takes no personal heads."""
    joined: bool = True
    """Whether the modems have a session when the simulation starts; else each node joins through the air."""

    @property
    def farm(self) -> FarmPlan:
        """The farm's part of the scenario."""
        for farm in self.scenario.farms:
            if farm.site == self.site:
                return farm
        raise ValueError(f"scenario {self.scenario.name} has no farm {self.site}")


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node's field as the simulation knows it; for a demo's eyes, never for a decision."""

    dev_eui: str
    name: str
    days_after_planting: int
    vwc: tuple[float, float]
    """True water content at the probes' depths, m³/m³."""
    depletion_mm: float
    taw_mm: float
    canopy_cover: float
    water_mm: float


@dataclass(slots=True)
class Advance:
    """What a stretch of time brought."""

    time_s: float
    air: AirEvents
    nodes: list[NodeState]
    frames_sent: int
    """Uplinks on air since the beginning, lost ones included."""
    frames_lost: int


@dataclass(frozen=True, slots=True)
class FieldReport:
    """A node's season."""

    dev_eui: str
    name: str
    board: str
    crop: str
    soil: str
    result: FieldResult
    traffic: Traffic
    model_version: int
    """As last told by the node itself; 0 if it never did."""
    events: dict[str, int]
    """Events the node sent, by name, whether heard or not."""
    wakes: int
    cycles: int
    energy_uah: float
    energy_by_consumer_uah: dict[str, float]
    projected_life_years: float
    downlinks_waiting: int
    """Left in the network server's queue."""

    @property
    def relative_to_calendar(self) -> float:
        """Yield over the calendar's."""
        return self.result.yield_t_ha / self.result.calendar_yield_t_ha

    @property
    def cycles_per_wake(self) -> float:
        """Mean, updates included."""
        return self.cycles / self.wakes if self.wakes else 0.0


@dataclass(frozen=True, slots=True)
class FarmReport:
    """A farm's season."""

    site: str
    fields: list[FieldReport]
    air_digest: str
    """SHA-256 of every byte on the farm's air, with its time."""
    refused_downlinks: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Plain values for :func:`json.dumps`."""
        return asdict(self)


def settings_page(
    scenario: Scenario,
    farm: FarmPlan,
    node: NodePlan,
    public_keys: tuple[bytes, bytes],
    update_key: bytes = NO_UPDATE_KEY,
) -> bytes:
    """The page with which a node is provisioned.

    Args:
        scenario: gives season, seed, and dates.
        farm: gives the clock's offset.
        node: gives identity and field.
        public_keys: release keys the node trusts.
        update_key: proves personal heads to it.
    """
    app_key = blake2b(f"{scenario.seed}/{node.dev_eui}/app-key".encode(), digest_size=16).digest()
    return Settings(
        dev_eui=node.dev_eui,
        board=node.board,
        crop=node.crop,
        planting_time_s=scenario.planting_time_s(farm),
        season_days=node.season_length_days,
        season=scenario.planting_date().year,
        app_key=app_key,
        public_keys=public_keys,
        update_key=update_key,
        utc_offset_min=farm.utc_offset_min,
        wake_phase_s=node.wake_phase_s,
        application_rate_e2_mm_h=round(100 * node.application_rate_mm_h),
        dose_e1_mm=round(10 * node.dose_mm),
        threshold_permille=round(1000 * node.threshold),
        commissioning_days=scenario.commissioning_days,
        telemetry_period_h=node.telemetry_period_h,
        statistics_period_h=node.statistics_period_h,
    ).pack()


@dataclass(slots=True)
class _Station:
    """A node in its field."""

    plan: NodePlan
    world: FieldWorld
    node: EmulatedNode


class FarmSimulation:
    """The farm, to be moved forward by whoever holds the clock."""

    def __init__(self, setup: FarmSetup) -> None:
        """Args: what to simulate; loads the firmware and boots every node at the scenario's start."""
        scenario, farm = setup.scenario, setup.farm
        self._site, self._time_s = farm.site, float(scenario.start_time_s)
        self._air = Air(
            scenario.seed,
            [node.dev_eui for node in farm.nodes],
            uplink_loss=scenario.radio.uplink_loss,
            downlink_loss=scenario.radio.downlink_loss,
        )
        firmware = {board: Firmware.load(setup.firmware[board]) for board in {node.board for node in farm.nodes}}
        self._stations: list[_Station] = []
        for plan in farm.nodes:
            world = FieldWorld(scenario, farm, plan)
            node = EmulatedNode(
                firmware[plan.board],
                settings_page(
                    scenario, farm, plan, setup.public_keys, setup.update_keys.get(plan.dev_eui, NO_UPDATE_KEY)
                ),
                setup.factory_image,
                world,
                self._air,
                scenario.start_time_s,
                plan.data_rate,
                joined=setup.joined,
            )
            world.attach_battery(lambda node=node: node.energy.total_uah)  # type: ignore[misc]
            self._stations.append(_Station(plan, world, node))

    def advance(self, until_s: float, downlinks: Sequence[QueuedDownlink] = ()) -> Advance:
        """Live until ``until_s``.

        Args:
            until_s: Unix seconds, not before the last call's.
            downlinks: what the network server was told to send, in order.

        Returns:
            What happened on the air, and how the fields stand.
        """
        if until_s < self._time_s:
            raise ValueError(f"time cannot go back from {self._time_s:.0f} to {until_s:.0f}")
        for downlink in downlinks:
            self._air.enqueue(downlink)
        for station in self._stations:
            station.node.run_until(until_s)
        self._time_s = until_s
        traffic = [self._air.traffic(station.plan.dev_eui) for station in self._stations]
        return Advance(
            time_s=until_s,
            air=self._air.take(),
            nodes=[self._state(station) for station in self._stations],
            frames_sent=sum(each.uplinks_sent for each in traffic),
            frames_lost=sum(each.uplinks_lost for each in traffic),
        )

    def finish(self) -> FarmReport:
        """Bring in the harvest and close the books; the simulation is over."""
        return FarmReport(
            site=self._site,
            fields=[self._report(station) for station in self._stations],
            air_digest=self._air.digest,
            refused_downlinks=dict(sorted(self._air.refused.items())),
        )

    def _state(self, station: _Station) -> NodeState:
        world, time_s = station.world, self._time_s
        truth = world.truth(time_s)
        return NodeState(
            dev_eui=station.plan.dev_eui,
            name=station.plan.name,
            days_after_planting=world.days_after_planting,
            vwc=(world.vwc(0, time_s), world.vwc(1, time_s)),
            depletion_mm=truth.depletion_mm,
            taw_mm=truth.taw_mm,
            canopy_cover=truth.canopy_cover,
            water_mm=world.water_mm(time_s),
        )

    def _report(self, station: _Station) -> FieldReport:
        plan, node = station.plan, station.node
        model_version, events = self._told_by(plan.dev_eui)
        return FieldReport(
            dev_eui=plan.dev_eui,
            name=plan.name,
            board=plan.board.name.lower(),
            crop=plan.crop.name.lower(),
            soil=plan.soil.value,
            result=station.world.finish(self._time_s),
            traffic=self._air.traffic(plan.dev_eui),
            model_version=model_version,
            events=events,
            wakes=node.wakes,
            cycles=node.cycles,
            energy_uah=node.energy.total_uah,
            energy_by_consumer_uah=dict(node.energy.consumers_uah),
            projected_life_years=node.energy.projected_life_years,
            downlinks_waiting=self._air.queued(plan.dev_eui),
        )

    def _told_by(self, dev_eui: str) -> tuple[int, dict[str, int]]:
        """Model version and events, from the node's own frames."""
        model_version = 0
        events: dict[str, int] = {}
        for frame in self._air.log:
            if frame.dev_eui != dev_eui or frame.direction != "up":
                continue
            try:
                told = decode_uplink(frame.f_port, frame.payload)
            except FrameError:
                continue
            if isinstance(told, Telemetry | Event) and told.model_version:
                model_version = told.model_version
            if isinstance(told, Event):
                name = EventCode(told.code).name.lower()
                events[name] = events.get(name, 0) + 1
        return model_version, dict(sorted(events.items()))
