"""A few days of a provisioned node on the emulated board, written down: its image is tried before it is flashed.

The plot is a bucket of soil by formula: it drains after a soak, dries evenly, and is wetted by its valve. It shows
that a node lives, not how well it waters; that is the season's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from nodes.emulator.firmware import Firmware
from nodes.emulator.interfaces import DEEP, Downlink, Radio
from nodes.emulator.node import EmulatedNode
from nodes.inspection import settings_of
from shared_models.codes import EventCode, Mode, Reason
from shared_models.fragmentation import FragmentationAnswer, Fragmenter, SessionSetupAnswer, SessionStatusAnswer
from shared_models.frames import Event, FrameError, StatisticsFragment, Telemetry, decode_uplink
from shared_models.settings import SETTINGS_SIZE, Settings, SettingsError

DAY_S = 86_400
UPPER_LIMIT, SOAKED, DRIEST, WETTEST = 0.30, 0.38, 0.08, 0.45
DRY_RATE_PER_DAY = 0.008
DRAINAGE_PER_DAY = 1.5
ROOT_ZONE_MM = 500.0
BATTERY_MV = 2950


class TrialError(ValueError):
    """An image that cannot be tried; the text says why."""


@dataclass(slots=True)
class TrialPlot:
    """The field: water content by formula between valve events."""

    start_s: float
    rate_mm_h: float
    vwc: float = SOAKED
    valve_events: list[tuple[bool, float]] = field(default_factory=list)
    _time_s: float = 0.0

    def __post_init__(self) -> None:
        self._time_s = self.start_s

    def _advance(self, time_s: float) -> None:
        days = (time_s - self._time_s) / DAY_S
        if days <= 0.0:
            return
        if self.valve_events and self.valve_events[-1][0]:
            self.vwc = min(self.vwc + days * 24.0 * self.rate_mm_h / ROOT_ZONE_MM, WETTEST)
        excess = max(self.vwc - UPPER_LIMIT, 0.0)
        self.vwc = max(self.vwc - excess * (1.0 - math.exp(-DRAINAGE_PER_DAY * days)) - DRY_RATE_PER_DAY * days, DRIEST)
        self._time_s = time_s

    @staticmethod
    def _sun(time_s: float) -> float:
        return max(0.0, math.sin((time_s / DAY_S - 0.25) * 2.0 * math.pi))

    def probe_mv(self, channel: int, time_s: float) -> int:
        """The probes' nominal curve; it is wetter below."""
        self._advance(time_s)
        return round(300.0 + (self.vwc + (0.02 if channel == DEEP else 0.0)) * 4000.0)

    def soil_temp_c(self, time_s: float) -> float:
        """16 ± 3 °C."""
        return 16.0 + 3.0 * math.sin((time_s / DAY_S - 0.4) * 2.0 * math.pi)

    def air(self, time_s: float) -> tuple[float, float]:
        """17 °C and 70 % at night, 26 °C and 40 % at noon."""
        return 17.0 + 9.0 * self._sun(time_s), 70.0 - 30.0 * self._sun(time_s)

    def light_w_m2(self, time_s: float) -> float:
        """A clear day."""
        return 800.0 * self._sun(time_s)

    def battery_mv(self, time_s: float) -> int:
        """A fresh cell."""
        del time_s
        return BATTERY_MV

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001 (the words of the trade)
        """Water runs or stops."""
        self._advance(time_s)
        if open != bool(self.valve_events and self.valve_events[-1][0]):
            self.valve_events.append((open, time_s))


@dataclass(slots=True)
class TrialAir(Radio):
    """A network server that hears everything, and brings one update if it has one."""

    update: Fragmenter | None = None
    uplinks: list[tuple[float, int, bytes]] = field(default_factory=list)
    _accepted: bool = False
    _complete: bool = False
    _sent: int = 0

    def uplink(
        self,
        dev_eui: str,
        time_s: float,
        f_port: int,
        payload: bytes,
        data_rate: int,
        confirmed: bool,  # noqa: FBT001 (a field of the frame)
    ) -> list[Downlink]:
        """Write the frame down; answer with the update's next part."""
        del dev_eui, data_rate, confirmed
        self.uplinks.append((time_s, f_port, payload))
        if self.update is None:
            return []
        told = decode_uplink(f_port, payload)
        for answer in told.answers if isinstance(told, FragmentationAnswer) else ():
            if isinstance(answer, SessionSetupAnswer):
                self._accepted = answer.accepted
            elif isinstance(answer, SessionStatusAnswer) and self._accepted:
                self._complete = answer.missing == 0
        if self._complete:
            return []
        if not self._accepted:
            return [Downlink(201, self.update.setup())]
        self._sent += 1
        return [Downlink(201, self.update.fragment(self._sent - 1))]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the transcript."""

    time: str
    what: str
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """What happened."""

    settings: dict[str, Any]
    days: int
    entries: list[Entry]
    wakes: int
    resets: int
    frames_sent: int
    air_time_s: float
    cycles: int
    doses_min: list[float]
    energy_uah: dict[str, float]
    projected_life_years: float

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def try_out(firmware: Firmware, image: bytes | None, region: bytes, days: int, data_rate: int = 3) -> Trial:
    """Let a node live, beginning with its commissioning soak.

    Args:
        firmware: The ELF, whose symbols the emulator needs.
        image: The firmware in the image to be flashed, which must be the ELF's; None takes the ELF's.
        region: The data region.
        days: How long.
        data_rate: EU868 data rate, 0 to 5.

    Raises:
        TrialError: the image is of another firmware, or its settings are not valid.
    """
    if image is not None and image != firmware.image:
        raise TrialError(
            "the image holds another build of the firmware than the ELF; provision it again, or --firmware"
        )
    try:
        settings = Settings.unpack(region)
    except SettingsError as error:
        raise TrialError(f"a node would not start with this image: {error}") from error
    start_s = settings.planting_time_s - settings.commissioning_days * DAY_S
    plot, air = TrialPlot(start_s, settings.application_rate_e2_mm_h / 100), TrialAir()
    node = EmulatedNode(firmware, region[:SETTINGS_SIZE], None, plot, air, start_s, data_rate)
    node.provision_flash(region)
    node.run_until(start_s + days * DAY_S)
    moments: list[tuple[float, str, dict[str, Any]]] = []
    for is_open, time_s in plot.valve_events:
        moments.append((time_s, "valve opens" if is_open else "valve closes", {}))
    moments += [_heard(*uplink) for uplink in air.uplinks]
    starts = [time_s for is_open, time_s in plot.valve_events if is_open]
    ends = [time_s for is_open, time_s in plot.valve_events if not is_open and starts and time_s > starts[0]]
    return Trial(
        settings=settings_of(region),
        days=days,
        entries=[Entry(_clock(time_s), what, told) for time_s, what, told in sorted(moments, key=lambda each: each[0])],
        wakes=node.wakes,
        resets=node.counters.resets,
        frames_sent=node.frames_sent,
        air_time_s=round(node.air_time_s, 3),
        cycles=node.cycles,
        doses_min=[round((end - start) / 60, 1) for start, end in zip(starts, ends, strict=False)],
        energy_uah={name: round(charge, 3) for name, charge in node.energy.consumers_uah.items()},
        projected_life_years=round(node.energy.projected_life_years, 2),
    )


def _clock(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _heard(time_s: float, f_port: int, payload: bytes) -> tuple[float, str, dict[str, Any]]:
    """An uplink in words."""
    try:
        told = decode_uplink(f_port, payload)
    except FrameError as error:
        return time_s, f"frame on port {f_port}", {"unreadable": str(error)}
    if isinstance(told, Telemetry):
        return (
            time_s,
            "telemetry",
            {
                "mode": Mode(told.mode).name.lower(),
                "reason": Reason(told.last_reason).name.lower(),
                "vwc": [told.vwc_shallow_e4 / 10_000, told.vwc_deep_e4 / 10_000],
                "depletion_mm": told.depletion_e1_mm / 10,
                "taw_mm": told.taw_e1_mm / 10,
                "water_season_mm": told.water_season_e1_mm / 10,
                "battery_mv": told.battery_mv,
                "model_version": told.model_version,
            },
        )
    if isinstance(told, Event):
        return (
            time_s,
            EventCode(told.code).name.lower().replace("_", " "),
            {
                "reason": Reason(told.reason).name.lower(),
                "dose_mm": told.dose_e1_mm / 10,
                "depletion_mm": told.depletion_e1_mm / 10,
                "model_version": told.model_version,
            },
        )
    if isinstance(told, StatisticsFragment):
        return time_s, "statistics", {"session": told.session, "bytes": len(payload)}
    return time_s, "update protocol", {"bytes": len(payload)}


def lines(trial: Trial) -> Sequence[str]:
    """The transcript for people."""
    return [
        f"{entry.time}  {entry.what:<18}" + "  ".join(f"{key} {value}" for key, value in entry.told.items())
        for entry in trial.entries
    ]
