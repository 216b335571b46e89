"""World 2: water moves by Darcy's law, roots by Feddes's reduction, and the canopy grows on heat.

Built differently from world 1 on purpose: fluxes follow Campbell's (1974) curves between unequal
layers, a water table below may feed the column by capillary rise, uptake compensates between layers
(Jarvis 1989), and the crop coefficient is a consequence of leaf area (Beer's law) which itself
suffers from stress, rather than a curve over days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from server.worlds.columns import WaterLedger, interpolate
from server.worlds.crops import CropTraits
from server.worlds.soils import Soil

THICKNESS_MM = (80.0, 80.0, 90.0, 100.0, 120.0, 150.0, 180.0, 200.0, 200.0)
LAYERS = len(THICKNESS_MM)
CENTRES_M = tuple((sum(THICKNESS_MM[:layer]) + THICKNESS_MM[layer] / 2) / 1000 for layer in range(LAYERS))
STEP_H = 0.25
MAXIMUM_SUBSTEPS = 12
AIR_DRY_SUCTION_MM = 1.0e6
WILTING_SUCTION_MM = 160_000.0


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


class DarcyColumn:
    """One field of world 2."""

    def __init__(self, soil: Soil, crop: CropTraits, traits: DarcyTraits, theta: list[float]) -> None:
        """Start with ``theta`` (m3/m3, one per layer)."""
        self.ledger = WaterLedger()
        self._soil, self._crop, self._traits = soil, crop, traits
        self._theta = list(theta)
        self._leaf_area = 0.0
        self._ks = 1.0
        self._dry = soil.theta_at_suction(AIR_DRY_SUCTION_MM)

    def theta(self, depth_m: float) -> float:
        """Volumetric water content at a depth, m3/m3."""
        return interpolate(depth_m, CENTRES_M, self._theta)

    def storage_mm(self) -> float:
        """Water in the whole column, mm."""
        return sum(theta * thickness for theta, thickness in zip(self._theta, THICKNESS_MM, strict=True))

    def stress(self) -> float:
        """Actual over potential transpiration of the last sunlit step."""
        return self._ks

    def step(self, day_after_planting: float, water_mm: float, et0_mm: float, air_temperature_c: float) -> None:
        """Let 15 minutes pass."""
        self._redistribute(water_mm)
        growing = 0 <= day_after_planting <= self._crop.season_days
        if growing:
            self._grow(day_after_planting, air_temperature_c)
        cover = 1 - math.exp(-self._traits.light_extinction * self._leaf_area) if growing else 0.0
        self._evaporate(1.1 * et0_mm * (1 - cover))
        if growing:
            self._transpire(day_after_planting, self._crop.kcb_mid * et0_mm * cover)

    def _suction(self, theta: float) -> float:
        ratio = max(theta, self._dry) / self._soil.theta_saturation
        return self._soil.psi_entry_mm * math.exp(-self._soil.exponent_b * math.log(ratio))

    def _conductivity(self, theta: float) -> float:
        ratio = max(theta, self._dry) / self._soil.theta_saturation
        return self._soil.conductivity_mm_h * math.exp((2 * self._soil.exponent_b + 3) * math.log(ratio))

    def _redistribute(self, water_mm: float) -> None:
        """Infiltration, Darcy fluxes and the lower boundary, in as many sub-steps as stability asks for."""
        theta, sat = self._theta, self._soil.theta_saturation
        wettest = max(theta)
        diffusivity = self._conductivity(wettest) * self._soil.exponent_b * self._suction(wettest) / wettest
        substeps = min(max(math.ceil(STEP_H * diffusivity / (0.4 * THICKNESS_MM[0] ** 2)), 1), MAXIMUM_SUBSTEPS)
        dt = STEP_H / substeps
        for _ in range(substeps):
            entering = water_mm / substeps
            room = (sat - theta[0]) * THICKNESS_MM[0] + self._conductivity(theta[0]) * dt
            taken = min(entering, room)
            self.ledger.infiltration += taken
            self.ledger.runoff += entering - taken
            self._exchange(dt, taken)

    def _exchange(self, dt_h: float, taken_mm: float) -> None:
        theta, sat = self._theta, self._soil.theta_saturation
        suction = [self._suction(value) for value in theta]
        conductivity = [self._conductivity(value) for value in theta]
        change = [0.0] * LAYERS
        change[0] = taken_mm
        for upper in range(LAYERS - 1):
            lower = upper + 1
            distance = 1000 * (CENTRES_M[lower] - CENTRES_M[upper])
            gradient = (suction[lower] - suction[upper]) / distance + 1.0
            source = upper if gradient > 0 else lower
            flux = math.sqrt(conductivity[upper] * conductivity[lower]) * gradient * dt_h
            # What a step may move is a share of the contrast between the two layers: the explicit scheme
            # must not overshoot the equilibrium it is heading for.
            available = max(theta[source] - self._dry, 0.0) * THICKNESS_MM[source] * 0.25
            flux = min(max(flux, -available), available)
            change[upper] -= flux
            change[lower] += flux
        change[-1] -= self._bottom_flux(dt_h, suction[-1], conductivity[-1])
        spill = 0.0
        for layer in range(LAYERS - 1, -1, -1):
            content = theta[layer] + (change[layer] + spill) / THICKNESS_MM[layer]
            spill = max(content - sat, 0.0) * THICKNESS_MM[layer]
            theta[layer] = min(content, sat)
        if spill > 0:  # the column is full to the top: what does not fit runs off
            self.ledger.infiltration -= spill
            self.ledger.runoff += spill

    def _bottom_flux(self, dt_h: float, suction_mm: float, conductivity_mm_h: float) -> float:
        """Downward through the lower boundary, mm; negative is capillary rise."""
        table = self._traits.water_table_m
        if table is None:
            flux = conductivity_mm_h * dt_h
            flux = min(flux, max(self._theta[-1] - self._dry, 0.0) * THICKNESS_MM[-1] * 0.25)
        else:
            distance = max(1000 * (table - CENTRES_M[-1]), 50.0)
            gradient = 1.0 - (suction_mm - self._soil.psi_entry_mm) / distance
            mean = math.sqrt(conductivity_mm_h * self._conductivity(0.97 * self._soil.theta_saturation))
            flux = min(max(mean * gradient * dt_h, -0.15), 2.0)
        if flux >= 0:
            self.ledger.drainage += flux
        else:
            self.ledger.capillary_rise -= flux
        return flux

    def _grow(self, day: float, air_temperature_c: float) -> None:
        heat = max(min(air_temperature_c, 30.0) - 8.0, 0.0) / 96
        senescence = self._crop.season_days - self._crop.stage_days[3]
        if day < senescence:
            room = 1 - self._leaf_area / self._traits.leaf_area_max
            rate = 9.0 * heat / self._traits.heat_to_full_cover_kd
            self._leaf_area += rate * (self._leaf_area + 0.05) * max(room, 0.0) * (0.4 + 0.6 * self._ks)
        else:
            left = max(self._crop.season_days - day, 1.0)
            floor = self._traits.leaf_area_max * self._crop.kcb_end / self._crop.kcb_mid * 0.45
            self._leaf_area -= max(self._leaf_area - floor, 0.0) / left / 96

    def _evaporate(self, potential_mm: float) -> None:
        top = self._theta[0]
        suction = self._suction(top)
        supply = self._conductivity(top) * self._traits.surface_resistance * suction / (THICKNESS_MM[0] / 2) * STEP_H
        amount = min(potential_mm, supply, 0.5 * max(top - self._dry, 0.0) * THICKNESS_MM[0])
        self._theta[0] = top - amount / THICKNESS_MM[0]
        self.ledger.evaporation += amount

    def _transpire(self, day: float, potential_mm: float) -> None:
        zr = 0.2 + (self._crop.root_depth_m - 0.2) * min(day / (0.5 * self._crop.season_days), 1.0)
        low, high = self._traits.stress_suction_mm
        demand = min(max((potential_mm * 96 - 1.0) / 8.0, 0.0), 1.0)
        h3 = low + (high - low) * demand
        weights, stresses = [], []
        for layer in range(LAYERS):
            reach = zr - (CENTRES_M[layer] - THICKNESS_MM[layer] / 2000)
            share = min(max(reach * 1000, 0.0), THICKNESS_MM[layer])
            weights.append(share * math.exp(-self._traits.root_extinction * CENTRES_M[layer] / zr))
            suction = self._suction(self._theta[layer])
            if suction <= h3:
                stresses.append(1.0)
            else:
                stresses.append(max((WILTING_SUCTION_MM - suction) / (WILTING_SUCTION_MM - h3), 0.0))
        total = sum(weights)
        omega = sum(weight * stress for weight, stress in zip(weights, stresses, strict=True)) / total
        scale = 1 / max(omega, self._traits.compensation)
        self.ledger.potential_transpiration += potential_mm
        taken = 0.0
        for layer in range(LAYERS):
            amount = potential_mm * scale * weights[layer] * stresses[layer] / total
            amount = min(amount, max(self._theta[layer] - self._dry, 0.0) * THICKNESS_MM[layer] * 0.5)
            self._theta[layer] -= amount / THICKNESS_MM[layer]
            taken += amount
        self.ledger.transpiration += taken
        if potential_mm > 1e-6:
            self._ks = min(taken / potential_mm, 1.0)
