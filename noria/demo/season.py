"""The conductor: one wake of every board after the other, until the season is over.

Order of one step: boards live for 15 minutes in their farms' processes; what their gateways' antennas heard is
published; services act; downlinks they ordered go to the air before the next step. A federated round and the start of a
campaign happen between two steps, so they too are at the same place in every run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nodes.emulator.air import AirEvents
from nodes.emulator.farm import Advance, FarmReport
from nodes.scenario import DAY_S, WAKE_PERIOD_S
from noria.demo.system import System

Hook = Callable[[int], Awaitable[None]]


def _anything(events: AirEvents) -> bool:
    """Whether the air has something to tell the network server."""
    return bool(events.uplinks or events.transmitted or events.acknowledged or events.discarded)


@dataclass
class Progress:
    """How far the season is, for whoever watches."""

    day: int
    days: int
    frames_sent: int
    frames_lost: int
    water_mm: dict[str, float]
    """Per field since planting, by ``site/name``."""
    note: str


def watch_nothing(progress: Progress) -> None:
    """For runs that nobody watches."""
    del progress


@dataclass
class Season:
    """Runs a system through its scenario's season.

    Args:
        system: what runs.
        watch: called once a simulated day and at each note.
        every_day: awaited at the start of each simulated day with its number; tests break things there.
    """

    system: System
    watch: Callable[[Progress], None] = watch_nothing
    every_day: Hook | None = None
    uplinks_published: int = 0
    _campaign_started: bool = False
    _latest: dict[str, Advance] = field(default_factory=dict)

    async def run(self) -> list[FarmReport]:
        """From boot to harvest; returns each farm's report."""
        system, scenario = self.system, self.system.scenario
        for farm in scenario.farms:
            await system.network.publish_joins(farm.site, scenario.start_time_s)
        for day in range(scenario.days):
            if self.every_day:
                await self.every_day(day)
            await self._operate(day)
            await self._live(day)
            self._tell(day + 1, "")
        # Let the last progress messages reach the server.
        await system.settle(scenario.end_time_s, everyone=True)
        workers = system.workers.values()
        return list(await asyncio.gather(*(asyncio.to_thread(worker.finish) for worker in workers)))

    async def _live(self, day: int) -> None:
        """One day, wake by wake."""
        start_s = self.system.scenario.start_time_s + day * DAY_S
        for time_s in range(start_s + WAKE_PERIOD_S, start_s + DAY_S + 1, WAKE_PERIOD_S):
            await self._step(time_s)
        self.system.processes.check()

    async def _step(self, time_s: int) -> None:
        system = self.system
        sites = list(system.workers)
        advances = await asyncio.gather(
            *(
                asyncio.to_thread(system.workers[site].advance, time_s, system.network.take_downlinks(site))
                for site in sites
            )
        )
        spoken = False
        for site, advance in zip(sites, advances, strict=True):
            self._latest[site] = advance
            if _anything(advance.air):
                spoken = True
                self.uplinks_published += len(advance.air.uplinks)
                await system.network.publish(advance.air)
        midnight = time_s % DAY_S == 0
        if spoken or midnight:
            await system.settle(time_s, everyone=midnight)

    async def _operate(self, day: int) -> None:
        """What the operator does on this day: a round, and a campaign if something was released.

        A round that was refused is tried again on the next of the scenario's days.
        """
        system = self.system
        if day not in system.scenario.improvement_days or self._campaign_started:
            return
        time_s = system.scenario.start_time_s + day * DAY_S
        await system.settle(time_s, everyone=True)
        self._tell(day, "noria server improve: gateways add up, the server proves a better head")
        answer = await system.operator.improve()
        version = answer.get("version")
        if version is None:
            self._tell(day, f"no release: {answer.get('message', '')}")
            return
        self._tell(day, f"noria ota start --release {version}")
        await system.operator.start_campaign(int(version))
        self._campaign_started = True
        await system.settle(time_s, everyone=True)

    def _tell(self, day: int, note: str) -> None:
        self.watch(
            Progress(
                day=day,
                days=self.system.scenario.days,
                frames_sent=sum(advance.frames_sent for advance in self._latest.values()),
                frames_lost=sum(advance.frames_lost for advance in self._latest.values()),
                water_mm={
                    f"{site}/{node.name}": node.water_mm
                    for site, advance in self._latest.items()
                    for node in advance.nodes
                },
                note=note,
            )
        )
