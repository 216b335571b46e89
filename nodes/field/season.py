"""AquaCrop by the day: one crop on one soil, watered from outside.

AquaCrop is the judge of every evaluation and belongs to the field alone; nothing that trains a model sees it.
"""

from __future__ import annotations

import builtins
import warnings
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from nodes.field.crops import FIELD_CROPS
from nodes.field.soils import Hydraulics
from nodes.field.weather import Weather
from shared_models.codes import Crop

LONGEST_SEASON_DAYS = 215
PROFILE_M = 1.2
COMPARTMENT_M = 0.1
PROBE_DEPTHS_M = (0.15, 0.35)
PROBE_COMPARTMENTS = (1, 3)
"""Compartments of 0.1 m whose centres are the probes' depths."""
DEEPEST_ROOTS_M = 1.0
"""AquaCrop stretches the lower compartments for roots beyond 1.2 m, and the probes would move with them."""
CALENDAR_DOSE_MM = 25.0
CALENDAR_INTERVAL_DAYS = 5


@dataclass(frozen=True, slots=True)
class Plot:
    """Soil, crop and date of planting of one field."""

    crop: Crop
    hydraulics: Hydraulics
    planting: date
    initial_vwc: tuple[float, float]
    """Water content at the probes' depths when AquaCrop takes over, m³/m³; constant above and below them.

    After a soak that is a whole profile drained to about its upper limit: planting on a full store, as after winter
    rain or a pre-irrigation. A field planted on a dry subsoil would need more water than this one.
    """


@dataclass(frozen=True, slots=True)
class Truth:
    """What nobody in the field can see."""

    vwc: tuple[float, float]
    """At the probes' depths, m³/m³."""
    depletion_mm: float
    """Dr of the root zone."""
    taw_mm: float
    """Total available water of the root zone."""
    canopy_cover: float


@dataclass(frozen=True, slots=True)
class Harvest:
    """The end of a season."""

    yield_t_ha: float
    """Dry matter."""
    water_mm: float
    """Irrigation that reached the crop."""
    season_days: int
    """Planting to maturity, or to the crop's early death."""
    drained_mm: float
    """Deep percolation: what left the profile below."""


class CropSeason:
    """A growing season, one call a day."""

    def __init__(self, weather: Weather, plot: Plot) -> None:
        """Args: weather reaching from planting to maturity; the field."""
        self._plot = plot
        self._model = _aquacrop_model(weather, plot)
        self._harvest: Harvest | None = None
        self._truth = self._read_truth()
        self._days = 0
        self._water_mm = 0.0

    @property
    def finished(self) -> bool:
        """Whether the crop has matured or died."""
        return self._harvest is not None

    @property
    def days(self) -> int:
        """Days stepped so far."""
        return self._days

    def step(self, irrigation_mm: float) -> None:
        """Live through one day; a finished season stays as it is.

        Args:
            irrigation_mm: water given on this day.
        """
        if self._harvest is not None:
            return
        # AquaCrop's own way in: its irrigation method 5 reads the day's depth from here.
        self._model._param_struct.IrrMngt.depth = float(irrigation_mm)
        self._model.run_model(initialize_model=False)
        self._days += 1
        self._water_mm += irrigation_mm
        if self._model._clock_struct.model_is_finished:
            results = self._model.get_simulation_results()
            self._harvest = Harvest(
                yield_t_ha=float(results["Dry yield (tonne/ha)"].iloc[0]),
                water_mm=self._water_mm,
                season_days=self._days,
                drained_mm=float(self._model.get_water_flux()["DeepPerc"].sum()),
            )
        else:
            self._truth = self._read_truth()

    def finish(self) -> Harvest:
        """The harvest; a season still running is lived to its end without irrigation, on the measured weather."""
        while self._harvest is None:
            self.step(0.0)
        return self._harvest

    def truth(self) -> Truth:
        """Soil and crop as they are now; after the harvest, as they were before it."""
        return self._truth

    def _read_truth(self) -> Truth:
        state = self._model._init_cond
        vwc = [float(value) for value in state.th]
        roots_m = min(max(float(state.z_root), 0.3), PROFILE_M)
        depletion_mm, top_m = 0.0, 0.0
        soil = self._plot.hydraulics
        for content in vwc:
            thickness_m = min(COMPARTMENT_M, max(roots_m - top_m, 0.0))
            depletion_mm += (soil.field_capacity - content) * thickness_m * 1000
            top_m += COMPARTMENT_M
        return Truth(
            vwc=(vwc[PROBE_COMPARTMENTS[0]], vwc[PROBE_COMPARTMENTS[1]]),
            depletion_mm=max(0.0, depletion_mm),
            taw_mm=(soil.field_capacity - soil.wilting_point) * roots_m * 1000,
            canopy_cover=float(state.canopy_cover),
        )


def reference_harvest(weather: Weather, plot: Plot, days: int, *, watered: bool) -> Harvest:
    """The same field under a farmer without nodes: rainfed, or 25 mm every 5 days by the calendar.

    Args:
        weather: as for the field itself.
        plot: the field.
        days: days after planting on which anyone waters; a season still running then ends without irrigation, as
            the node's own does when a scenario ends early.
        watered: whether the calendar is followed.
    """
    season = CropSeason(weather, plot)
    for day in range(days):
        due = watered and day > 0 and day % CALENDAR_INTERVAL_DAYS == 0
        # No farmer irrigates a ripe field: the calendar, too, counts only water given to a living crop.
        season.step(CALENDAR_DOSE_MM if due else 0.0)
    return season.finish()


@lru_cache(maxsize=4096)
def _round(value: float, digits: int = 0) -> float:
    """AquaCrop rounds numpy scalars, which is half of its run time; Python's floats round alike and at once.

    Most of what it rounds are the soil's constants, day after day.
    """
    return builtins.round(float(value), digits)


def _aquacrop_model(weather: Weather, plot: Plot) -> Any:  # noqa: ANN401 (AquaCrop has no types)
    """An initialised model on the morning of planting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import aquacrop
        import aquacrop.solution.root_zone_water as root_zone_water

        root_zone_water.round = _round
        planting = f"{plot.planting:%m/%d}"
        crop = aquacrop.Crop(FIELD_CROPS[plot.crop].aquacrop_name, planting_date=planting)
        crop.Zmax = min(crop.Zmax, DEEPEST_ROOTS_M)
        hydraulics = plot.hydraulics
        soil = aquacrop.Soil("custom", cn=hydraulics.curve_number, rew=hydraulics.readily_evaporable_mm)
        soil.add_layer(
            PROFILE_M,
            hydraulics.wilting_point,
            hydraulics.field_capacity,
            hydraulics.saturation,
            hydraulics.conductivity_mm_d,
            100,
        )
        last = min(plot.planting + timedelta(days=LONGEST_SEASON_DAYS), weather.days[-1].day)
        model = aquacrop.AquaCropModel(
            f"{plot.planting:%Y/%m/%d}",
            f"{last:%Y/%m/%d}",
            weather.frame,
            soil,
            crop,
            aquacrop.InitialWaterContent(
                wc_type="Num", method="Depth", depth_layer=list(PROBE_DEPTHS_M), value=list(plot.initial_vwc)
            ),
            # MaxIrr's default of 25 mm/d would quietly spill a larger dose.
            irrigation_management=aquacrop.IrrigationManagement(irrigation_method=5, MaxIrr=1000.0),
        )
        model._initialize()
    if not np.allclose(model._init_cond.th[list(PROBE_COMPARTMENTS)], plot.initial_vwc, atol=1e-3):
        raise RuntimeError("AquaCrop did not start from the given soil water; its compartments have changed")
    return model
