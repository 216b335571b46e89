"""The world one node stands in: soil and crop by AquaCrop, weather by the station, errors by the seed.

AquaCrop lives by the day, a node by the quarter of an hour. The day's step is taken at **10:00 local**, after the
watering window, with exactly the water that the valve gave since the step before; what flows later counts for the
next day. From then on the soil moves from the old state to the new one:

* a layer that gets wetter approaches it exponentially, within hours;
* a layer that dries follows the sun from 10:00 to sunset and rests at night.

So a dawn-to-dawn change at a probe is one AquaCrop day's change, nothing is seen before its cause, and no water
appears or vanishes. Before planting the probes watch a covered soak drain (:class:`Character`); AquaCrop starts
from where it has come to. After harvest the soil is left as the crop left it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import cos, exp, floor, nan, pi

from nodes.field.battery import battery_mv
from nodes.field.character import Character, generator
from nodes.field.season import CropSeason, Harvest, Plot, Truth, reference_harvest
from nodes.field.sky import Sky
from nodes.field.weather import Weather
from nodes.scenario import DAY_S, WAKE_PERIOD_S, FarmPlan, Fault, NodePlan, Scenario

STEP_HOUR = 10
"""Local hour of AquaCrop's day step."""
WETTING_S = (5400.0, 10_800.0)
"""Time constants of a wetting front's arrival at the shallow and the deep probe, s."""
PROBE_NOISE = 0.003
"""White noise of one reading, m³/m³."""
PROBE_DRIFT = 0.0012
"""Daily innovation of the probes' slow drift, m³/m³; it forgets 3 % a day."""
DRIFT_MEMORY = 0.97
LIGHT_NOISE = 0.03
AIR_NOISE_C = 0.2
HUMIDITY_NOISE = 1.5
SOIL_TEMPERATURE_NOISE_C = 0.1
SUPPLY_MV = 3300
_SLOTS_PER_DAY = DAY_S // WAKE_PERIOD_S
_PROBE_PARTS = ("probe_shallow", "probe_deep")


@dataclass(frozen=True, slots=True)
class FieldResult:
    """What came of a field, beside what would have come of it without nodes."""

    water_mm: float
    """Everything the valve gave."""
    yield_t_ha: float
    rainfed_yield_t_ha: float
    calendar_water_mm: float
    calendar_yield_t_ha: float
    season_days: int
    ripe: bool
    """Whether the crop was finished when the run ended; if not, its season went on without irrigation."""


class FieldWorld:
    """A :class:`nodes.emulator.interfaces.SensorWorld`."""

    def __init__(self, scenario: Scenario, farm: FarmPlan, node: NodePlan) -> None:
        """Args: the scenario, the farm the field belongs to, the node that stands in it."""
        self._scenario, self._node = scenario, node
        self.character = Character.draw(scenario.seed, node.dev_eui, node.soil)
        # The running means of light and soil need a month to forget where they began.
        first = scenario.start - timedelta(days=30)
        last = scenario.start + timedelta(days=max(scenario.days, scenario.commissioning_days + 215) + 2)
        self._weather = Weather.covering(farm.climate, first, last)
        self._sky = Sky(self._weather, farm.utc_offset_min)
        self._start_s = scenario.start_time_s
        self._first_step_s = scenario.planting_time_s(farm) + (STEP_HOUR - 6) * 3600
        soaked_days = (self._first_step_s - self._start_s) / DAY_S
        self._plot = Plot(
            crop=node.crop,
            hydraulics=self.character.hydraulics,
            planting=scenario.planting_date(),
            initial_vwc=(
                self.character.draining_vwc(0, soaked_days),
                self.character.draining_vwc(1, soaked_days),
            ),
        )
        self._season = CropSeason(self._weather, self._plot)
        self._steps = 0
        self._before = self._after = self._plot.initial_vwc
        self._stepped_s = float(self._first_step_s)
        self._sun = (6.0, 12.0)
        self._open_since_s: float | None = None
        self._pending_mm = 0.0
        self._water_mm = 0.0
        self._drawn_uah: Callable[[], float] = float
        self._noise_day = -1
        self._noise: list[list[float]] = []
        self._drift = self._draw_drift()
        self._stuck: dict[str, float] = {}

    def attach_battery(self, drawn_uah: Callable[[], float]) -> None:
        """Let the battery's voltage follow a node's energy ledger.

        Args:
            drawn_uah: charge drawn since the battery was new, µAh.
        """
        self._drawn_uah = drawn_uah

    # What the node senses

    def probe_mv(self, channel: int, time_s: float) -> int:
        """Output of an uncalibrated probe, mV; see :class:`SensorWorld`."""
        part = _PROBE_PARTS[channel]
        fault = self._fault(part, time_s)
        if fault and fault.kind == "broken":
            return 0
        if fault and part in self._stuck:
            return round(self._stuck[part])
        character = self.character
        vwc = (
            character.probe_gain[channel] * self.vwc(channel, time_s)
            + character.probe_offset[channel]
            + self._drift[self._day(time_s)][channel]
            + PROBE_NOISE * self._normal(channel, time_s)
        )
        reading_mv = max(0, min(SUPPLY_MV, round(300 + 4000 * vwc)))
        self._stuck[part] = reading_mv
        return reading_mv

    def soil_temp_c(self, time_s: float) -> float:
        """Soil temperature between the probes, °C."""
        noise = SOIL_TEMPERATURE_NOISE_C * self._normal(2, time_s)
        true = self._sky.soil_temperature_c(time_s) + self.character.soil_temperature_offset_c
        return self._sensed("soil_temperature", true + noise, time_s)

    def air(self, time_s: float) -> tuple[float, float]:
        """Air temperature, °C, and relative humidity, %."""
        temperature = self._sky.air_temperature_c(time_s) + self.character.air_offset_c
        humidity = self._sky.relative_humidity(time_s) + self.character.humidity_offset
        humidity = max(0.0, min(100.0, humidity + HUMIDITY_NOISE * self._normal(4, time_s)))
        temperature += AIR_NOISE_C * self._normal(3, time_s)
        return self._sensed("air", temperature, time_s), self._sensed("air", humidity, time_s, "humidity")

    def light_w_m2(self, time_s: float) -> float:
        """Global radiation as an uncalibrated sensor sees it, W/m²."""
        noise = max(0.0, 1 + LIGHT_NOISE * self._normal(5, time_s))
        return self._sky.radiation_w_m2(time_s) * self.character.light_gain * noise

    def battery_mv(self, time_s: float) -> int:  # noqa: ARG002 (the protocol's)
        """Supply voltage, mV."""
        return battery_mv(self._drawn_uah())

    # What the node does

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001 (the protocol's)
        """The valve opens or closes; water flows at the true rate while it is open."""
        self._live_until(time_s)
        fault = self._fault("valve", time_s)
        self._meter(time_s)
        if open:
            self._open_since_s = time_s
        elif fault is None or fault.kind == "broken":
            self._open_since_s = None

    # What only the simulation knows

    def vwc(self, layer: int, time_s: float) -> float:
        """True water content at a probe's depth, m³/m³.

        Args:
            layer: 0 shallow, 1 deep.
            time_s: no earlier than the last step.
        """
        self._live_until(time_s)
        if self._steps == 0:
            return self.character.draining_vwc(layer, (time_s - self._start_s) / DAY_S)
        before, after = self._before[layer], self._after[layer]
        elapsed_s = max(0.0, time_s - self._stepped_s)
        share = _wetted(elapsed_s, WETTING_S[layer]) if after > before else _dried(elapsed_s, *self._sun)
        return before + (after - before) * share

    def truth(self, time_s: float) -> Truth:
        """Soil and crop after the last step."""
        self._live_until(time_s)
        return self._season.truth()

    def water_mm(self, time_s: float) -> float:
        """Water given so far, mm."""
        self._live_until(time_s)
        self._meter(time_s)
        return self._water_mm

    @property
    def days_after_planting(self) -> int:
        """AquaCrop days lived."""
        return self._season.days

    def finish(self, time_s: float) -> FieldResult:
        """Close the books; the world is not to be used after it.

        Args:
            time_s: the run's end.
        """
        water_mm = self.water_mm(time_s)
        ripe = self._season.finished
        harvest = self._season.finish()
        rainfed, calendar = (self._reference(watered=watered) for watered in (False, True))
        return FieldResult(
            water_mm=water_mm,
            yield_t_ha=harvest.yield_t_ha,
            rainfed_yield_t_ha=rainfed.yield_t_ha,
            calendar_water_mm=calendar.water_mm,
            calendar_yield_t_ha=calendar.yield_t_ha,
            season_days=harvest.season_days,
            ripe=ripe,
        )

    def _reference(self, *, watered: bool) -> Harvest:
        return reference_harvest(self._weather, self._plot, self._steps, watered=watered)

    # Time

    def _live_until(self, time_s: float) -> None:
        """Take every AquaCrop step due by ``time_s``."""
        while (due_s := self._first_step_s + self._steps * DAY_S) <= time_s:
            self._meter(due_s)
            # What the last state was heading for has been reached; the next day starts from there.
            self._before = self._after if self._steps else self._plot.initial_vwc
            self._season.step(self._pending_mm)
            self._pending_mm = 0.0
            self._after = self._before if self._season.finished else self._season.truth().vwc
            day = self._sky.day(due_s)
            self._sun = (day.sunrise_h, day.daylight_h)
            self._stepped_s = float(due_s)
            self._steps += 1

    def _meter(self, time_s: float) -> None:
        """Count the water that has flowed since the meter was last read."""
        if self._open_since_s is None or time_s <= self._open_since_s:
            return
        hours = (time_s - self._open_since_s) / 3600
        fault = self._fault("valve", self._open_since_s)
        if not (fault and fault.kind == "broken"):
            given_mm = hours * self._node.application_rate_mm_h * self.character.flow_factor
            self._pending_mm += given_mm
            self._water_mm += given_mm
        self._open_since_s = time_s

    # Errors

    def _day(self, time_s: float) -> int:
        return max(0, min(len(self._drift) - 1, floor((time_s - self._start_s) / DAY_S)))

    def _draw_drift(self) -> list[tuple[float, float]]:
        innovations = generator(self._scenario.seed, self._node.dev_eui, "drift").standard_normal(
            (self._scenario.days + 2, 2)
        )
        shallow = deep = 0.0
        drift = []
        for first, second in innovations.tolist():
            drift.append((shallow, deep))
            shallow = DRIFT_MEMORY * shallow + PROBE_DRIFT * first
            deep = DRIFT_MEMORY * deep + PROBE_DRIFT * second
        return drift

    def _normal(self, channel: int, time_s: float) -> float:
        """Noise of a channel in this quarter of an hour: a function of time, however often it is asked."""
        slot = floor(time_s / WAKE_PERIOD_S)
        day, within = divmod(slot, _SLOTS_PER_DAY)
        if day != self._noise_day:
            rng = generator(self._scenario.seed, self._node.dev_eui, "noise", day)
            self._noise = rng.standard_normal((6, _SLOTS_PER_DAY)).tolist()
            self._noise_day = day
        return self._noise[channel][within]

    def _fault(self, part: str, time_s: float) -> Fault | None:
        if not self._node.faults:
            return None
        day = (time_s - self._start_s) / DAY_S
        for fault in self._node.faults:
            if fault.part == part and fault.from_day <= day < fault.to_day:
                return fault
        return None

    def _sensed(self, part: str, value: float, time_s: float, quantity: str = "temperature") -> float:
        """The value, or what a defective sensor makes of it."""
        fault = self._fault(part, time_s)
        if fault is None:
            return value
        return nan if fault.kind == "broken" else self._stuck.setdefault(f"{part}/{quantity}", value)


def _wetted(elapsed_s: float, constant_s: float) -> float:
    """Share of a wetting that has arrived; complete after a day."""
    return min(1.0, (1 - exp(-elapsed_s / constant_s)) / (1 - exp(-DAY_S / constant_s)))


def _dried(elapsed_s: float, sunrise_h: float, daylight_h: float) -> float:
    """Share of a day's drying done: the radiation from 10:00 to now over that from 10:00 to sunset."""
    hour = min(STEP_HOUR + elapsed_s / 3600, sunrise_h + daylight_h)
    at_step = cos(pi * (STEP_HOUR - sunrise_h) / daylight_h)
    return (at_step - cos(pi * (hour - sunrise_h) / daylight_h)) / (at_step + 1)
