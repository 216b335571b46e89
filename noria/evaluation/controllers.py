"""Daily controllers that the node is measured against, from no water at all to one that knows the soil and the sky.

Each is a rule of one number, its *setting*, and is run over several of them: a controller is a curve, not a point.
Every rule that watches the soil asks for the same 12 mm and, where nothing else is said, stops for the last 5 % of the
season as the node does, so that what is compared is how depletion is known. None of them knows that its plot's
emitters give a little more or less than they say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nodes.field.soils import TEXTURES
from nodes.field.trial import Controller, Morning
from shared_models import agronomy

DOSE_MM = 12.0
CALENDAR_DOSE_MM = 25.0
LEAST_REFILL_MM, LARGEST_REFILL_MM = 8.0, 40.0
LEAST_AWC = 0.06
"""Of the soak-anchored rule, m³/m³, where a probe's error leaves half its anchor below any soil's."""
STRESS_SHARE = 0.5
"""p of FAO-56 eq. 84: the share of TAW that a crop draws without stress."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of controller and the settings it is run at."""

    name: str
    meaning: str
    """What it knows and what its setting is, for the table."""
    settings: tuple[float, ...]
    """From thirsty to dry."""
    make: Callable[[float], Controller]
    """A fresh controller at a setting; it may remember, so each season has its own."""
    bound: bool = False
    """Whether it knows what nobody in a field can know."""


def season_ending(morning: Morning) -> bool:
    """Whether the last 5 % of the season have begun: water given now no longer makes yield."""
    return morning.day * 20 >= morning.season_days * 19


def rainfed(setting: float) -> Controller:
    """No water."""
    del setting
    return lambda _: 0.0


def calendar(interval_days: float) -> Controller:
    """25 mm every so many days until harvest."""
    return lambda morning: CALENDAR_DOSE_MM if morning.day and morning.day % int(interval_days) == 0 else 0.0


def raw_vwc(threshold: float) -> Controller:
    """A dose below one water content as the probes show it, m³/m³, the same for every soil and probe."""
    return lambda morning: _dose(morning, _mean(morning.vwc) < threshold)


def texture(threshold: float, *, stops: bool = True) -> Controller:
    """A dose past a share of the available water of the soil map's texture, by uncalibrated probes."""

    def decide(morning: Morning) -> float:
        soil = TEXTURES[morning.field.texture]
        depleted = (soil.field_capacity - _mean(morning.vwc)) / (soil.field_capacity - soil.wilting_point)
        return _dose(morning, depleted > threshold, stops=stops)

    return decide


def texture_to_the_end(threshold: float) -> Controller:
    """:func:`texture` without the stop at the season's end."""
    return texture(threshold, stops=False)


def calibrated(threshold: float) -> Controller:
    """A dose past a share of the available water, by probes that a laboratory has calibrated on this soil."""

    def decide(morning: Morning) -> float:
        full, empty = _mean(morning.probe_fc), _mean(morning.probe_wp)
        return _dose(morning, (full - _mean(morning.vwc)) / (full - empty) > threshold)

    return decide


def soak_anchored(threshold: float) -> Controller:
    """A dose past a share of the available water, which is taken as half of what the probes showed after the soak."""

    def decide(morning: Morning) -> float:
        full = _mean(morning.soaked_vwc)
        return _dose(morning, (full - _mean(morning.vwc)) / max(full / 2, LEAST_AWC) > threshold)

    return decide


class StationBalance:
    """The water balance of FAO-56 ch. 8 on a weather station's ET0 and rain, without a probe.

    It knows the crop, the day of planting and the soil map's texture, and starts at field capacity, which the soak
    has left. Rain and doses are taken to be what the gauge and the valve say, and to enter the soil whole.
    """

    def __init__(self, threshold: float) -> None:
        """Args: threshold: depletion that asks for a dose, share of TAW."""
        self._threshold = threshold
        self._depletion_mm = 0.0
        self._given_mm = 0.0

    def __call__(self, morning: Morning) -> float:
        """Close the day just passed (eq. 85), then decide."""
        if morning.day:
            passed = morning.day - 1
            taw_mm = self._taw_mm(morning, passed)
            kc = agronomy.crop_coefficient_e3(morning.field.crop, passed, morning.season_days) / 1000
            stress = min(1.0, max(0.0, (taw_mm - self._depletion_mm) / ((1 - STRESS_SHARE) * taw_mm)))
            balance_mm = self._depletion_mm + stress * kc * morning.et0_mm - morning.rain_mm - self._given_mm
            self._depletion_mm = min(max(balance_mm, 0.0), taw_mm)
        self._given_mm = _dose(morning, self._depletion_mm > self._threshold * self._taw_mm(morning, morning.day))
        return self._given_mm

    @staticmethod
    def _taw_mm(morning: Morning, day: int) -> float:
        """TAW of the roots of that day (eq. 82); new roots find soil at field capacity."""
        soil = TEXTURES[morning.field.texture]
        roots_mm = agronomy.root_depth_mm(morning.field.crop, day, 100)
        return (soil.field_capacity - soil.wilting_point) * roots_mm


def true_state(threshold: float) -> Controller:
    """Refills what is missing, 8 to 40 mm, past a share of TAW, both as AquaCrop has them."""

    def decide(morning: Morning) -> float:
        truth = morning.truth
        if season_ending(morning) or truth.depletion_mm <= threshold * truth.taw_mm:
            return 0.0
        return _refill(truth.depletion_mm)

    return decide


def oracle(threshold: float) -> Controller:
    """:func:`true_state` that knows today and the two days after it: doses before depletion, leaves room for rain.

    Where rain will fill the root zone, it only bridges the days until then, and only when the crop would suffer.
    """

    def decide(morning: Morning) -> float:
        truth = morning.truth
        rain_mm, et0_mm = morning.ahead[0]
        kc = max(1.1 * truth.canopy_cover, 0.3)
        by_tonight_mm = truth.depletion_mm + kc * et0_mm - rain_mm
        if season_ending(morning) or by_tonight_mm <= threshold * truth.taw_mm:
            return 0.0
        missing_mm = truth.depletion_mm - sum(rain for rain, _ in morning.ahead)
        if missing_mm > 5.0:
            return _refill(missing_mm)
        return LEAST_REFILL_MM if truth.depletion_mm > (threshold + 0.1) * truth.taw_mm else 0.0

    return decide


# Dense where yield is nearly complete: straight lines between distant settings would lie above a rival's true curve.
TEXTURE_SETTINGS = (0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8)
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
BOUND_SHARES = (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)

RULES = {
    rule.name: rule
    for rule in (
        Rule("rainfed", "no water", (0.0,), rainfed),
        Rule("calendar", "25 mm every so many days", (5.0, 7.0), calendar),
        Rule("raw VWC", "one water content for every soil", (0.34, 0.30, 0.26, 0.22, 0.18), raw_vwc),
        Rule("texture, no stop", "soil map, until harvest", TEXTURE_SETTINGS, texture_to_the_end),
        Rule("texture", "soil map, uncalibrated probes", TEXTURE_SETTINGS, texture),
        Rule("soak-anchored", "probes against their own soaked reading", SHARES, soak_anchored),
        Rule("FAO-56 station", "weather station, soil map, no probe", SHARES, StationBalance),
        Rule("calibrated", "probes calibrated on this soil", SHARES, calibrated),
        Rule("true state", "knows the root zone", BOUND_SHARES, true_state, bound=True),
        Rule("oracle", "knows the root zone and three days ahead", BOUND_SHARES, oracle, bound=True),
    )
}
"""By name, in the order of the tables."""


def _mean(pair: tuple[float, float]) -> float:
    return (pair[0] + pair[1]) / 2


def _dose(morning: Morning, wanted: bool, *, stops: bool = True) -> float:  # noqa: FBT001
    return DOSE_MM if wanted and not (stops and season_ending(morning)) else 0.0


def _refill(missing_mm: float) -> float:
    return min(max(missing_mm, LEAST_REFILL_MM), LARGEST_REFILL_MM)
