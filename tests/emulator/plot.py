"""A small world for emulator tests: a bucket of soil that drains after a soak, dries, and is wetted by its valve."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nodes.emulator.interfaces import Downlink, Radio
from shared_models import frames
from shared_models.codes import Board, Crop
from shared_models.settings import Settings

START_S = 1_777_593_600
"""2026-05-01 00:00 UTC."""
PLANTING_S = START_S + 8 * 86400 + 6 * 3600
APPLICATION_MM_H = 10.0
ROOT_ZONE_MM = 500.0


def settings(board: Board, **changes: object) -> Settings:
    values: dict[str, object] = {
        "dev_eui": "a1b2c3d4e5f60718",
        "board": board,
        "crop": Crop.MAIZE,
        "planting_time_s": PLANTING_S,
        "season_days": 120,
        "season": 2026,
        "wake_phase_s": 137,
        "application_rate_e2_mm_h": int(APPLICATION_MM_H * 100),
    }
    return Settings(**(values | changes))


@dataclass
class Plot:
    """Volumetric water content by formula between valve events; no randomness."""

    vwc: float = 0.38
    upper_limit: float = 0.30
    dry_rate_per_day: float = 0.006
    battery: int = 2950
    time_s: float = float(START_S)
    valve_log: list[tuple[bool, float]] = field(default_factory=list)
    open_since: float | None = None
    broken: bool = False

    def _advance(self, time_s: float) -> None:
        days = (time_s - self.time_s) / 86400
        if days <= 0:
            return
        self.time_s = time_s
        excess = max(self.vwc - self.upper_limit, 0.0)
        self.vwc -= excess * (1 - math.exp(-1.5 * days)) + self.dry_rate_per_day * days
        self.vwc = max(self.vwc, 0.08)

    def _sun(self, time_s: float) -> float:
        return max(0.0, math.sin((time_s / 86400 - 0.25) * 2 * math.pi))

    def probe_mv(self, channel: int, time_s: float) -> int:
        self._advance(time_s)
        if self.broken:
            return 0
        return round(300 + (self.vwc + 0.02 * channel) * 10000 / 2.5)

    def soil_temp_c(self, time_s: float) -> float:
        return 16.0 + 3.0 * math.sin((time_s / 86400 - 0.4) * 2 * math.pi)

    def air(self, time_s: float) -> tuple[float, float]:
        if self.broken:
            return math.nan, math.nan
        return 17.0 + 9.0 * self._sun(time_s), 70.0 - 30.0 * self._sun(time_s)

    def light_w_m2(self, time_s: float) -> float:
        return 800.0 * self._sun(time_s)

    def battery_mv(self, time_s: float) -> int:
        return self.battery

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001
        self._advance(time_s)
        self.valve_log.append((open, time_s))
        if open:
            self.open_since = time_s
        elif self.open_since is not None:
            water_mm = (time_s - self.open_since) / 3600 * APPLICATION_MM_H
            self.vwc = min(self.vwc + water_mm / ROOT_ZONE_MM, 0.45)
            self.open_since = None

    def doses_s(self) -> list[float]:
        starts = [time for opened, time in self.valve_log if opened]
        ends = [time for opened, time in self.valve_log if not opened]
        return [end - start for start, end in zip(starts, ends, strict=False)]


@dataclass
class Ether(Radio):
    """Remembers every frame; hands out queued downlinks one per uplink."""

    uplinks: list[tuple[float, int, bytes]] = field(default_factory=list)
    queue: list[Downlink] = field(default_factory=list)

    def uplink(
        self,
        dev_eui: str,
        time_s: float,
        f_port: int,
        payload: bytes,
        data_rate: int,
        confirmed: bool,  # noqa: FBT001
    ) -> list[Downlink]:
        self.uplinks.append((time_s, f_port, payload))
        return [self.queue.pop(0)] if self.queue else []

    def decoded(self, kind: type) -> list:
        frames_seen = [frames.decode_uplink(f_port, payload) for _, f_port, payload in self.uplinks]
        return [frame for frame in frames_seen if isinstance(frame, kind)]
