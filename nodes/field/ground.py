"""Soil water at the probes at any second: the soak that drains, then AquaCrop's day steps joined by how soils move.

See :mod:`nodes.field.world` for why the step is taken at 10:00 and what lies between two of them.
"""

from __future__ import annotations

from math import pi

import numpy as np

from nodes.field.character import Character
from nodes.field.season import CropSeason
from nodes.field.sky import DAY_S, Floats, Sky, Times

STEP_HOUR = 10
"""Local hour of AquaCrop's day step."""
WETTING_S = (5400.0, 10_800.0)
"""Time constants of a wetting front's arrival at the shallow and the deep probe, s."""


class Ground:
    """The soil around one node's probes; whoever holds the clock takes the steps."""

    def __init__(
        self,
        season: CropSeason,
        character: Character,
        sky: Sky,
        initial_vwc: tuple[float, float],
        start_s: float,
        first_step_s: float,
    ) -> None:
        """Take over a field.

        Args:
            season: AquaCrop on the morning of planting.
            character: whose soak drains until then.
            sky: its sun dries.
            initial_vwc: where AquaCrop starts, at the probes' depths, m³/m³.
            start_s: when the field was soaked, Unix seconds.
            first_step_s: when the first step is due, Unix seconds.
        """
        self._season, self._character, self._sky = season, character, sky
        self._start_s, self._first_step_s = start_s, first_step_s
        self._before = self._after = initial_vwc
        self._sun = (6.0, 12.0)
        self.steps = 0
        """Day steps taken, those after the harvest included."""

    @property
    def due_s(self) -> float:
        """When the next step is due, Unix seconds."""
        return self._first_step_s + self.steps * DAY_S

    def step(self, water_mm: float) -> None:
        """Take the step that is due.

        Args:
            water_mm: what the valve gave since the step before.
        """
        day = self._sky.day(self.due_s)
        self._sun = (day.sunrise_h, day.daylight_h)
        # What the last state was heading for has been reached; the next day starts from there.
        self._before = self._after
        self._season.step(water_mm)
        self._after = self._before if self._season.finished else self._season.truth().vwc
        self.steps += 1

    def vwc(self, layer: int, time_s: Times) -> Floats:
        """True water content at a probe's depth, m³/m³.

        Args:
            layer: 0 shallow, 1 deep.
            time_s: from the last step, or the soak, until the next step.
        """
        if self.steps == 0:
            return self._character.draining_vwc(layer, (np.asarray(time_s) - self._start_s) / DAY_S)
        before, after = self._before[layer], self._after[layer]
        elapsed_s = np.maximum(0.0, np.asarray(time_s) - (self.due_s - DAY_S))
        share = _wetted(elapsed_s, WETTING_S[layer]) if after > before else _dried(elapsed_s, *self._sun)
        return before + (after - before) * share


def _wetted(elapsed_s: Floats, constant_s: float) -> Floats:
    """Share of a wetting that has arrived; complete after a day."""
    share: Floats = np.minimum(1.0, (1 - np.exp(-elapsed_s / constant_s)) / (1 - np.exp(-DAY_S / constant_s)))
    return share


def _dried(elapsed_s: Floats, sunrise_h: float, daylight_h: float) -> Floats:
    """Share of a day's drying done: the radiation from 10:00 to now over that from 10:00 to sunset."""
    hour = np.minimum(STEP_HOUR + elapsed_s / 3600, sunrise_h + daylight_h)
    at_step = np.cos(pi * (STEP_HOUR - sunrise_h) / daylight_h)
    share: Floats = (at_step - np.cos(pi * (hour - sunrise_h) / daylight_h)) / (at_step + 1)
    return share


def applied_mm(open_s: float, application_rate_mm_h: float, flow_factor: float) -> float:
    """What reaches the soil while a valve stands open: the nominal rate times what is true of the emitters, mm."""
    return open_s / 3600 * application_rate_mm_h * flow_factor
