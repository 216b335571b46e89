"""World 2: water moves by Darcy's law, roots by Feddes's reduction, and the canopy grows on heat.

Built differently from world 1 on purpose: fluxes follow Campbell's (1974) curves between unequal layers, a water
table below may feed the column by capillary rise, uptake compensates between layers (Jarvis 1989), and the crop
coefficient is a consequence of leaf area (Beer's law) rather than a curve over days.

Leaf area suffers from a shortage long before transpiration does (Hsiao 1973; Bradford and Hsiao 1982: expansive growth
is the process most sensitive to water), and dies early of a severe one. Yield is biomass: transpiration over ET0 of
the day, summed, for that ratio's worth in biomass hardly changes with climate (de Wit 1958; Steduto, Hsiao and Fereres
2007), over the same sum of a canopy that never lacked water.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.worlds.columns import SEEDED_TO_M, STEPS_PER_DAY, Array, Column, down, per_field
from server.worlds.crops import CropTraits
from server.worlds.soils import Soil

THICKNESS_MM = np.array([80.0, 80.0, 90.0, 100.0, 120.0, 150.0, 180.0, 200.0, 200.0])
CENTRES_M = (np.cumsum(THICKNESS_MM) - THICKNESS_MM / 2) / 1000
DISTANCES_MM = 1000 * np.diff(CENTRES_M)[:, None]
STEP_H = 0.25
MAXIMUM_SUBSTEPS = 4
"""Six times as many move no water content by more than a few thousandths."""
AIR_DRY_SUCTION_MM = 1.0e6
WILTING_SUCTION_MM = 160_000.0
SEEDLING_LEAF_AREA = 0.05
SENESCENCE_PER_DAY = 0.06
"""The part of the leaf area that a day of the severest shortage kills."""


@dataclass(frozen=True)
class DarcyTraits:
    """What differs from field to field beyond soil and crop."""

    water_table_m: float | None
    """Depth below the surface, or None for free drainage."""
    root_extinction: float
    compensation: float
    """Jarvis's ω_c: uptake is made up elsewhere until the weighted stress falls below it."""
    leaf_area_max: float
    light_extinction: float
    """``k`` of Beer's law for the energy that reaches the ground."""
    heat_to_full_cover_kd: float
    """Degree-days above 8 °C."""
    stress_suction_mm: tuple[float, float]
    """Feddes's h3 at 1 and 5 mm/d of demand: (low demand, high demand)."""
    surface_resistance: float
    """Scales how fast bare soil can hand water to the air, 1 = Campbell's conductivity."""
    expansion_depletion: tuple[float, float]
    """Parts of TAW at which leaves begin to grow more slowly, and stop."""
    senescence_depletion: float
    """Part of TAW beyond which leaves die."""


@dataclass(frozen=True)
class _Hydraulics:
    """Campbell's curves of a batch; ``at`` takes a part of it."""

    entry_mm: Array
    b: Array
    conductivity_mm_h: Array
    saturation: Array
    """mm in each layer (layers, fields)."""
    dry: Array
    """mm in each layer, air dry."""
    table_mm: Array
    """From the lowest layer's centre to the water table."""
    table_conductivity_mm_h: Array
    """Just above the table; nan where there is none and the column drains freely."""

    def at(self, fields: NDArray[np.intp]) -> _Hydraulics:
        return _Hydraulics(
            self.entry_mm[fields],
            self.b[fields],
            self.conductivity_mm_h[fields],
            self.saturation[:, fields],
            self.dry[:, fields],
            self.table_mm[fields],
            self.table_conductivity_mm_h[fields],
        )

    def curves(self, water: Array) -> tuple[Array, Array]:
        """Suction, mm, and conductivity, mm/h."""
        wetness = np.log(np.maximum(water, self.dry) / self.saturation)
        return (
            self.entry_mm * np.exp(-self.b * wetness),
            self.conductivity_mm_h * np.exp((2 * self.b + 3) * wetness),
        )


class DarcyColumn(Column):
    """Fields of world 2."""

    def __init__(
        self, soils: Sequence[Soil], crops: Sequence[CropTraits], traits: Sequence[DarcyTraits], theta: Array
    ) -> None:
        """Start with ``theta`` (m3/m3, layers by fields)."""
        super().__init__(soils, crops, theta, THICKNESS_MM)
        tables_m = [trait.water_table_m for trait in traits]
        dry = per_field(soil.theta_at_suction(AIR_DRY_SUCTION_MM) for soil in soils)
        self._hydraulics = _Hydraulics(
            entry_mm=per_field(soil.psi_entry_mm for soil in soils),
            b=per_field(soil.exponent_b for soil in soils),
            conductivity_mm_h=per_field(soil.conductivity_mm_h for soil in soils),
            saturation=self._saturation,
            dry=dry * self._thickness_mm,
            table_mm=per_field(max(1000 * ((table or 3.0) - float(CENTRES_M[-1])), 50.0) for table in tables_m),
            table_conductivity_mm_h=per_field(
                soil.conductivity_mm_h * 0.97 ** (2 * soil.exponent_b + 3) if table else np.nan
                for soil, table in zip(soils, tables_m, strict=True)
            ),
        )
        self._root_extinction = per_field(trait.root_extinction for trait in traits)
        self._compensation = per_field(trait.compensation for trait in traits)
        self._leaf_area_max = per_field(trait.leaf_area_max for trait in traits)
        self._light_extinction = per_field(trait.light_extinction for trait in traits)
        self._heat_kd = per_field(trait.heat_to_full_cover_kd for trait in traits)
        self._h3 = np.array([trait.stress_suction_mm for trait in traits]).T
        self._surface = per_field(trait.surface_resistance for trait in traits)
        self._expansion = np.array([trait.expansion_depletion for trait in traits]).T
        self._senescence = per_field(trait.senescence_depletion for trait in traits)
        self._kcb_mid = per_field(crop.kcb_mid for crop in crops)
        self._ripe_day = per_field(crop.season_days - crop.stage_days[3] for crop in crops)
        self._ripe_leaf_area = self._leaf_area_max * per_field(crop.kcb_end / crop.kcb_mid * 0.45 for crop in crops)
        self._leaf_area = np.zeros((2, len(soils)))
        """Of the crop, and of one that never lacks water."""
        self._biomass = np.zeros((2, len(soils)))
        """Of both, as sums of transpiration over ET0."""

    def advance(self, day: int, water_mm: Array, et0_mm: Array, air_temperature_c: Array) -> Array:
        """Let some quarters of an hour pass; leaf area and roots are those of the day."""
        part = len(water_mm) / STEPS_PER_DAY
        growing = self._growing(day)
        self._grow(day, np.clip(air_temperature_c, 8.0, 30.0), part)
        cover = np.where(growing, 1 - np.exp(-self._light_extinction * self._leaf_area), 0.0)
        zr = self._root_depth(day)
        roots = self._root_share(zr) * self._thickness_mm * np.exp(-self._root_extinction * CENTRES_M[:, None] / zr)
        roots /= down(roots)
        history = np.empty((len(water_mm), *self._water.shape))
        taken = np.zeros(len(zr))
        wanted = self._kcb_mid * cover * et0_mm.sum(axis=0)
        for step, (arriving, et0) in enumerate(zip(water_mm, et0_mm, strict=True)):
            suction, conductivity = self._hydraulics.curves(self._water)
            self._evaporate(1.1 * et0 * (1 - cover[0]), suction[0], conductivity[0])
            taken += self._transpire(self._kcb_mid * et0 * cover[0], roots, suction)
            self._redistribute(arriving, suction, conductivity)
            history[step] = self._water
        self.ledger.transpiration += taken
        self.stress_days += np.where(wanted[0] > 0, 1 - taken / np.maximum(wanted[0], 1e-9), 0.0) * part
        et0_of_day = np.maximum(et0_mm.sum(axis=0), 1e-9) / part
        self._biomass += np.stack([taken, wanted[1]]) / et0_of_day
        return history / self._thickness_mm

    def relative_yield(self) -> Array:
        """Biomass over that of a canopy that never lacked water."""
        ratio: Array = np.where(self._biomass[1] > 0, self._biomass[0] / np.maximum(self._biomass[1], 1e-9), 1.0)
        return np.clip(ratio, 0.0, 1.0)

    def _root_depth(self, day: int) -> Array:
        grown = np.clip(day / (0.5 * self._season_days), 0.0, 1.0)
        return SEEDED_TO_M + (self._root_depth_m - SEEDED_TO_M) * grown

    def _grow(self, day: int, warmth_c: Array, part: float) -> None:
        """Leaf area after this ``part`` of a day: logistic in heat, held back and killed by depletion."""
        depletion = self.depletion_fraction(day)
        begins, stops = self._expansion
        expansion = np.stack([np.clip((stops - depletion) / (stops - begins), 0.0, 1.0), np.ones_like(depletion)])
        severity = np.clip((depletion - self._senescence) / (1 - self._senescence), 0.0, 1.0)
        heat = part * (down(warmth_c) / len(warmth_c) - 8.0)
        rate = 9.0 * heat / self._heat_kd
        room = np.maximum(1 - self._leaf_area / self._leaf_area_max, 0.0)
        young = rate * (self._leaf_area + SEEDLING_LEAF_AREA) * room * expansion
        left = np.maximum(self._season_days - day, 1.0)
        old = -np.maximum(self._leaf_area - self._ripe_leaf_area, 0.0) * part / left
        change = np.where(day < self._ripe_day, young, old)
        change[0] -= SENESCENCE_PER_DAY * severity * self._leaf_area[0] * part
        self._leaf_area = np.where(self._growing(day), self._leaf_area + change, 0.0)

    def _evaporate(self, potential_mm: Array, suction_mm: Array, conductivity_mm_h: Array) -> None:
        """What the air asks for and half of the top layer can conduct."""
        top, dry = self._water[0], self._hydraulics.dry[0]
        supply = conductivity_mm_h * self._surface * suction_mm * (STEP_H / (THICKNESS_MM[0] / 2))
        amount = np.minimum(np.minimum(potential_mm, supply), 0.5 * np.maximum(top - dry, 0.0))
        top -= amount
        self.ledger.evaporation += amount

    def _transpire(self, potential_mm: Array, roots: Array, suction_mm: Array) -> Array:
        """Feddes's reduction layer by layer, made up for in wetter ones; what was taken, mm."""
        low, high = self._h3
        h3 = low + (high - low) * np.clip((potential_mm * STEPS_PER_DAY - 1.0) / 8.0, 0.0, 1.0)
        weights = roots * np.clip((WILTING_SUCTION_MM - suction_mm) / (WILTING_SUCTION_MM - h3), 0.0, 1.0)
        wanted = potential_mm / np.maximum(down(weights), self._compensation)
        amount = np.minimum(wanted * weights, 0.5 * np.maximum(self._water - self._hydraulics.dry, 0.0))
        self._water -= amount
        return down(amount)

    def _redistribute(self, arriving_mm: Array, suction_mm: Array, conductivity_mm_h: Array) -> None:
        """Infiltration, Darcy fluxes and the lower boundary; wet fields in as many sub-steps as stability asks for."""
        soil = self._hydraulics
        # Diffusivity K b ψ / θ over the squares of the layers' thicknesses.
        pace = (conductivity_mm_h * suction_mm * soil.b / (self._water * self._thickness_mm)).max(axis=0)
        substeps = np.clip(np.ceil(pace * (STEP_H / 0.4)), 1, MAXIMUM_SUBSTEPS)
        dt_h, portion = STEP_H / substeps, arriving_mm / substeps
        self._water, flows = _exchange(soil, self._water, suction_mm, conductivity_mm_h, dt_h, portion)
        wet = np.flatnonzero(substeps > 1)
        if wet.size:
            part, water, substeps = soil.at(wet), self._water[:, wet], substeps[wet]
            for done in range(1, int(substeps.max())):
                left = substeps > done
                water, further = _exchange(
                    part, water, *part.curves(water), np.where(left, dt_h[wet], 0.0), np.where(left, portion[wet], 0.0)
                )
                flows[:, wet] += further
            self._water[:, wet] = water
        self.ledger.infiltration += arriving_mm - flows[0]
        self.ledger.runoff += flows[0]
        self.ledger.drainage += flows[1]
        self.ledger.capillary_rise += flows[2]

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Go on with the chosen fields only."""
        super().keep(chosen)
        self._hydraulics = self._hydraulics.at(np.flatnonzero(chosen))


def _exchange(
    soil: _Hydraulics, water: Array, suction_mm: Array, conductivity_mm_h: Array, dt_h: Array, arriving_mm: Array
) -> tuple[Array, Array]:
    """One explicit step; water after it, and runoff, drainage and capillary rise (3, fields)."""
    entering = np.minimum(arriving_mm, soil.saturation[0] - water[0] + conductivity_mm_h[0] * dt_h)
    # What a step may move is a share of what a layer holds: the explicit scheme must not overshoot the
    # equilibrium it is heading for.
    available = 0.25 * np.maximum(water - soil.dry, 0.0)
    gradient = (suction_mm[1:] - suction_mm[:-1]) / DISTANCES_MM + 1.0
    exchange = np.sqrt(conductivity_mm_h[:-1] * conductivity_mm_h[1:]) * dt_h
    # How far two layers would go toward their equilibrium in this time if suction changed as steeply as now; the
    # exponential's mean over the time keeps an explicit step from overshooting it.
    steepness = soil.b * suction_mm / np.maximum(water, soil.dry)
    approach = np.maximum(exchange * (steepness[:-1] + steepness[1:]) / DISTANCES_MM, 1e-6)
    flux = exchange * gradient * (-np.expm1(-approach) / approach)
    flux = np.minimum(np.maximum(flux, -available[1:]), available[:-1])
    below = _bottom_flux(soil, suction_mm[-1], conductivity_mm_h[-1], dt_h, available[-1])
    content = water.copy()
    content[0] += entering
    content[:-1] -= flux
    content[1:] += flux
    content[-1] -= below
    spill = np.zeros_like(below)
    if (content > soil.saturation).any():
        for layer in range(len(content) - 1, -1, -1):
            content[layer] += spill
            spill = np.maximum(content[layer] - soil.saturation[layer], 0.0)
            content[layer] -= spill
    # A column that is full to the top gives back what does not fit.
    return content, np.array([arriving_mm - entering + spill, np.maximum(below, 0.0), np.maximum(-below, 0.0)])


def _bottom_flux(
    soil: _Hydraulics, suction_mm: Array, conductivity_mm_h: Array, dt_h: Array, available: Array
) -> Array:
    """Downward through the lower boundary, mm; negative is capillary rise from a water table."""
    free = np.minimum(conductivity_mm_h * dt_h, available)
    gradient = 1.0 - (suction_mm - soil.entry_mm) / soil.table_mm
    exchange = np.sqrt(conductivity_mm_h * soil.table_conductivity_mm_h) * gradient * dt_h
    fluxes: Array = np.where(np.isnan(exchange), free, np.minimum(np.maximum(exchange, -0.15), 2.0))
    return fluxes
