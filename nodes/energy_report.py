"""A node's energy budget: emulated stretches of its life, scaled to years on one CR2032.

The shipped firmware runs on the emulated board through a week of the growing season, statistics included, and through
one update of each kind by radio, signature check included. What an update costs is what the stretch took beyond the
same time without it. Every day of the year is taken as a day of the growing season.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from rich.table import Table

from nodes.emulator.energy import (
    CR2032_UAH,
    CURRENTS,
    HOURS_PER_YEAR,
    MODEM_ACTIVE,
    MODEM_SLEEP,
    MODEM_TRANSMIT,
    PROBES,
    RESERVOIR,
    SELF_DISCHARGE_PER_YEAR,
    SHT4X_IDLE,
    SHT4X_MEASURE,
    capacity_share,
    reservoir_mf,
)
from nodes.emulator.firmware import Firmware
from nodes.emulator.interfaces import Downlink, Radio
from nodes.emulator.node import EmulatedNode
from nodes.firmware.build import build
from nodes.trial import TrialPlot
from shared_models.airtime import airtime_s
from shared_models.codes import Board, Crop, EventCode, FPort
from shared_models.container import build_full, build_head, sign
from shared_models.factory import factory_image
from shared_models.fragmentation import FragmentationAnswer, Fragmenter, SessionSetupAnswer, SessionStatusAnswer
from shared_models.frames import PAYLOAD_LIMIT, TELEMETRY_LAYOUT, Event, decode_uplink
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.settings import Settings

FULL_UPDATES_PER_YEAR = 4
HEAD_UPDATES_PER_YEAR = 8
DAYS_PER_YEAR = HOURS_PER_YEAR / 24
START_S = 1_780_272_000
"""2026-06-01 00:00 UTC."""
RATE_MM_H = 10.0
_DAY_S = 86_400
_SETTLING_DAYS = 10
"""Soaked, drained, anchored, planted, and past the initial stage of a short season: windows count."""
_MEASURED_DAYS = 7
_SECRET = bytes([7]) * 32


class EnergyReportError(RuntimeError):
    """A stretch did not do what it stands for; the text says which."""


@dataclass(frozen=True)
class EnergyReport:
    """One board at one data rate and temperature."""

    board: str
    data_rate: int
    spreading_factor: int
    temperature_c: float
    life_years: float
    capacity_uah: float
    total_uah_per_day: float
    consumers_uah_per_day: dict[str, float]
    """Largest first; updates are an entry of their own. A valve has its own supply."""
    full_update_uah: float
    head_update_uah: float
    full_update_days: float
    """From the first fragment offered to the switch."""
    head_update_days: float
    frames_per_day: float
    """Without updates."""
    air_time_s_per_day: float
    core_cycles_per_wake: float
    """Stalls on buses included."""
    reservoir_mf: float
    """Capacitor that carries a telemetry frame."""

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and benchmarks; figures to four digits."""
        return {key: _rounded(value) for key, value in asdict(self).items()}

    def to_table(self) -> Table:
        """For a terminal."""
        title = f"{self.board}, SF{self.spreading_factor}, {self.temperature_c:g} °C: {self.life_years:.1f} years"
        table = Table(title=title, box=None, padding=(0, 2, 0, 0), title_justify="left")
        table.add_column("consumer")
        for heading in ("µAh/day", "share, %"):
            table.add_column(heading, justify="right")
        for name, value in self.consumers_uah_per_day.items():
            table.add_row(name, f"{value:.2f}", f"{100 * value / self.total_uah_per_day:.1f}")
        table.add_row("total", f"{self.total_uah_per_day:.2f}", "100.0", style="bold")
        return table


def _rounded(value: Any) -> Any:  # noqa: ANN401 (a field of any type)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def energy_report(board: Board, data_rate: int, temperature_c: float) -> EnergyReport:
    """Emulate a node and project the life of its cell.

    Args:
        board: whose firmware runs.
        data_rate: EU868 data rate, 0 (SF12) to 5 (SF7).
        temperature_c: of the cell, all its life; currents are those of 25 °C.

    Raises:
        EnergyReportError: a stretch did not do what it stands for.
    """
    ordinary = _ordinary(board, data_rate)
    full, head = _update(board, data_rate, full=True), _update(board, data_rate, full=False)
    consumers = dict(ordinary.consumers_uah)
    consumers["updates"] = (FULL_UPDATES_PER_YEAR * full[0] + HEAD_UPDATES_PER_YEAR * head[0]) / DAYS_PER_YEAR
    total = sum(consumers.values())
    capacity = CR2032_UAH * capacity_share(temperature_c)
    return EnergyReport(
        board=board.name.lower(),
        data_rate=data_rate,
        spreading_factor=12 - data_rate,
        temperature_c=temperature_c,
        life_years=capacity / total / DAYS_PER_YEAR,
        capacity_uah=capacity,
        total_uah_per_day=total,
        consumers_uah_per_day=dict(sorted(consumers.items(), key=lambda item: -item[1])),
        full_update_uah=full[0],
        head_update_uah=head[0],
        full_update_days=full[1],
        head_update_days=head[1],
        frames_per_day=ordinary.frames,
        air_time_s_per_day=ordinary.air_s,
        core_cycles_per_wake=ordinary.cycles_per_wake,
        reservoir_mf=reservoir_mf(airtime_s(data_rate, TELEMETRY_LAYOUT.size)),
    )


def sources(board: Board) -> dict[str, str]:
    """What stands behind each consumer's figure."""
    currents = CURRENTS[board]
    return {
        "modem sleep": MODEM_SLEEP.source,
        "modem active": MODEM_ACTIVE.source,
        "modem transmit": MODEM_TRANSMIT.source,
        "core stop": currents.stop.source,
        "core run": currents.run.source,
        "core sleep": currents.sleep.source,
        "watchdog": currents.watchdog.source,
        "flash": currents.flash.source,
        "converter": currents.converter.source,
        "probes": PROBES.source,
        "air sensor": SHT4X_MEASURE.source,
        "air sensor idle": SHT4X_IDLE.source,
        "reservoir leakage": RESERVOIR.source,
        "self-discharge": f"{SELF_DISCHARGE_PER_YEAR:.0%} of {CR2032_UAH / 1000:g} mAh a year",
    }


class _Campaign(Radio):
    """Brings one container, one downlink per uplink, from ``begins_s`` on; knows when the node has switched."""

    def __init__(self, container: bytes | None, data_rate: int, begins_s: float) -> None:
        self._fragments = Fragmenter(container, PAYLOAD_LIMIT[data_rate], 2) if container else None
        self._begins_s = begins_s
        self._accepted = self._complete = False
        self._step = 0
        self.first_s: float | None = None
        self.done_s: float | None = None
        self.frames: Counter[int] = Counter()
        """By port, since this was cleared."""

    def uplink(
        self,
        dev_eui: str,
        time_s: float,
        f_port: int,
        payload: bytes,
        data_rate: int,
        confirmed: bool,  # noqa: FBT001 (the protocol's)
    ) -> list[Downlink]:
        del dev_eui, data_rate, confirmed
        self.frames[f_port] += 1
        decoded = decode_uplink(f_port, payload)
        for answer in decoded.answers if isinstance(decoded, FragmentationAnswer) else ():
            if isinstance(answer, SessionSetupAnswer):
                self._accepted = answer.accepted
            elif isinstance(answer, SessionStatusAnswer) and self._accepted:
                self._complete = answer.missing == 0
        if isinstance(decoded, Event) and decoded.code == EventCode.MODEL_ACTIVATED:
            self.done_s = time_s
        if self._fragments is None or self._complete or time_s < self._begins_s:
            return []
        if self.first_s is None:
            self.first_s = time_s
        if not self._accepted:
            return [Downlink(FPort.FRAGMENTATION, self._fragments.setup())]
        self._step += 1
        return [Downlink(FPort.FRAGMENTATION, self._fragments.fragment(self._step - 1))]


@cache
def _firmware(board: Board) -> Firmware:
    return Firmware.load(build()[board])


def _node(board: Board, data_rate: int, campaign: _Campaign) -> EmulatedNode:
    import monocypher

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        public = monocypher.compute_signing_public_key(_SECRET)
    settings = Settings(
        dev_eui="a1b2c3d4e5f60718",
        board=board,
        crop=Crop.MAIZE,
        planting_time_s=START_S + 8 * _DAY_S + 6 * 3600,
        season_days=20,
        season=2026,
        application_rate_e2_mm_h=round(100 * RATE_MM_H),
        wake_phase_s=137,
        public_keys=(public, bytes(32)),
    )
    page, image = settings.pack(), factory_image().pack()
    return EmulatedNode(_firmware(board), page, image, TrialPlot(START_S, RATE_MM_H), campaign, START_S, data_rate)


@dataclass(frozen=True)
class _Ordinary:
    """A day without updates."""

    consumers_uah: dict[str, float]
    frames: float
    air_s: float
    cycles_per_wake: float
    totals_uah: tuple[float, ...]
    """At the stretch's beginning and after each of its days, since power on."""


@cache
def _ordinary(board: Board, data_rate: int) -> _Ordinary:
    campaign = _Campaign(None, data_rate, 0.0)
    node = _node(board, data_rate, campaign)
    node.run_until(START_S + _SETTLING_DAYS * _DAY_S)
    before, frames, air_s = node.energy.consumers_uah, node.frames_sent, node.air_time_s
    wakes, cycles = node.wakes, node.cycles
    campaign.frames.clear()
    totals_uah = [node.energy.total_uah]
    for day in range(1, _MEASURED_DAYS + 1):
        node.run_until(START_S + (_SETTLING_DAYS + day) * _DAY_S)
        totals_uah.append(node.energy.total_uah)
    if node.wakes - wakes != _MEASURED_DAYS * 96 or node.counters.resets != 1:
        raise EnergyReportError(f"{board.name}: the week had {node.wakes - wakes} wakes, not {_MEASURED_DAYS * 96}")
    if campaign.frames[FPort.TELEMETRY] != _MEASURED_DAYS or not campaign.frames[FPort.STATISTICS]:
        raise EnergyReportError(f"{board.name}: the week's frames by port were {dict(campaign.frames)}")
    after = node.energy.consumers_uah
    return _Ordinary(
        {name: (after[name] - before.get(name, 0.0)) / _MEASURED_DAYS for name in after},
        (node.frames_sent - frames) / _MEASURED_DAYS,
        (node.air_time_s - air_s) / _MEASURED_DAYS,
        (node.cycles - cycles) / (node.wakes - wakes),
        tuple(totals_uah),
    )


def _next_model() -> ModelImage:
    """The factory's model with every head weight moved a little."""
    image = factory_image()
    weights = head_weights(image)
    return quantise_head(image, weights + np.random.default_rng(1).normal(0, 0.02, weights.shape))


@cache
def _update(board: Board, data_rate: int, *, full: bool) -> tuple[float, float]:
    """Charge of one update, µAh, and its days."""
    import monocypher

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        public = monocypher.compute_signing_public_key(_SECRET)
    container = sign((build_full if full else build_head)(_next_model(), 2), _SECRET + public)
    begins_s = START_S + _SETTLING_DAYS * _DAY_S
    campaign = _Campaign(container, data_rate, begins_s)
    node = _node(board, data_rate, campaign)
    day = 0
    while campaign.done_s is None:
        day += 1
        if day > _MEASURED_DAYS:
            raise EnergyReportError(f"{board.name}, data rate {data_rate}: the update was not taken over")
        node.run_until(begins_s + day * _DAY_S)
    spent_uah = node.energy.total_uah - _ordinary(board, data_rate).totals_uah[day]
    return spent_uah, (campaign.done_s - (campaign.first_s or begins_s)) / _DAY_S
