"""A node's energy budget: emulated stretches of its life, scaled to years on one CR2032.

The shipped firmware runs on the emulated board through a week of the growing season, statistics included, and through
one update of each kind by radio, signature check included. What an update costs is what the stretch took beyond the
same time without it. Every day of the year is taken as a day of the growing season.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import asdict, dataclass, replace
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
from shared_models.airtime import MAX_PAYLOAD, airtime_s
from shared_models.codes import Board, Crop, EventCode, FPort
from shared_models.container import Container, build_delta, build_full, build_head, sign
from shared_models.factory import factory_image
from shared_models.fragmentation import FragmentationAnswer, Fragmenter, SessionSetupAnswer, SessionStatusAnswer
from shared_models.frames import TELEMETRY_LAYOUT, Event, decode_uplink
from shared_models.network import Layer, ModelImage, head_weights, quantise_head
from shared_models.settings import Settings

KINDS = ("full", "delta", "head")
TUNED = 3 / 8
"""Share of weights drawn for a step of -1, 0 or 1."""
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
    delta_update_uah: float
    head_update_uah: float
    full_update_days: float
    """From the first downlink to the switch."""
    delta_update_days: float
    head_update_days: float
    update_downlinks: dict[str, int]
    """By kind, without a loss."""
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
    full, delta, head = (_update(board, data_rate, kind) for kind in KINDS)
    consumers = dict(ordinary.consumers_uah)
    consumers["updates"] = (FULL_UPDATES_PER_YEAR * full.uah + HEAD_UPDATES_PER_YEAR * head.uah) / DAYS_PER_YEAR
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
        full_update_uah=full.uah,
        delta_update_uah=delta.uah,
        head_update_uah=head.uah,
        full_update_days=full.days,
        delta_update_days=delta.days,
        head_update_days=head.days,
        update_downlinks={kind: update.downlinks for kind, update in zip(KINDS, (full, delta, head), strict=True)},
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
    """Brings one container, one downlink per uplink, from ``begins_s`` on; knows when the node has switched.

    As the gateway does where nothing is lost: whole where it fits one frame, else in a session of TS004 version 2.
    """

    def __init__(self, container: bytes | None, data_rate: int, begins_s: float) -> None:
        whole = container is not None and len(container) <= MAX_PAYLOAD[data_rate]
        self._whole = container if whole else None
        self._fragments = Fragmenter(container, MAX_PAYLOAD[data_rate], 2, 2) if container and not whole else None
        self._begins_s = begins_s
        self._accepted = self._complete = False
        self._step = self.downlinks = 0
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
        for answer in decoded.read(2) if isinstance(decoded, FragmentationAnswer) else ():
            if isinstance(answer, SessionSetupAnswer):
                self._accepted = answer.accepted
            elif isinstance(answer, SessionStatusAnswer) and self._accepted:
                self._complete = answer.missing == 0
        if isinstance(decoded, Event) and decoded.code == EventCode.MODEL_ACTIVATED:
            self.done_s = time_s
        if self._complete or time_s < self._begins_s:
            return []
        downlink = self._next()
        if downlink is not None and self.first_s is None:
            self.first_s = time_s
        self.downlinks += downlink is not None
        return [] if downlink is None else [downlink]

    def _next(self) -> Downlink | None:
        if self._whole is not None:
            container, self._whole = self._whole, None
            return Downlink(FPort.CONTAINER, container)
        if self._fragments is None or self._step >= self._fragments.count:
            return None
        if not self._accepted:
            return Downlink(FPort.FRAGMENTATION, self._fragments.setup())
        self._step += 1
        return Downlink(FPort.FRAGMENTATION, self._fragments.fragment(self._step - 1))


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


def _tuned_model() -> ModelImage:
    """The factory's model trained a little further: a weight in four of every layer has moved by one step."""
    image, rng = factory_image(), np.random.default_rng(2)

    def moved(layer: Layer) -> Layer:
        steps = rng.integers(-1, 2, layer.weights.shape) * (rng.random(layer.weights.shape) < TUNED)
        return replace(layer, weights=np.clip(layer.weights + steps, -127, 127).astype(np.int8))

    return ModelImage(moved(image.first), moved(image.second), moved(image.head))


@dataclass(frozen=True)
class _Update:
    """One update that came through."""

    uah: float
    days: float
    downlinks: int


def _unsigned(kind: str) -> Container:
    if kind == "delta":
        return build_delta(_tuned_model(), factory_image(), 2)
    return (build_full if kind == "full" else build_head)(_next_model(), 2)


@cache
def _update(board: Board, data_rate: int, kind: str) -> _Update:
    import monocypher

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        public = monocypher.compute_signing_public_key(_SECRET)
    container = sign(_unsigned(kind), _SECRET + public)
    begins_s = START_S + _SETTLING_DAYS * _DAY_S
    campaign = _Campaign(container, data_rate, begins_s)
    node = _node(board, data_rate, campaign)
    day = 0
    while campaign.done_s is None:
        day += 1
        if day > _MEASURED_DAYS:
            raise EnergyReportError(f"{board.name}, data rate {data_rate}: the {kind} update was not taken over")
        node.run_until(begins_s + day * _DAY_S)
    spent_uah = node.energy.total_uah - _ordinary(board, data_rate).totals_uah[day]
    days = (campaign.done_s - (campaign.first_s or begins_s)) / _DAY_S
    return _Update(spent_uah, days, campaign.downlinks)
