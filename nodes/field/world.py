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
from math import nan

from nodes.field.battery import battery_mv
from nodes.field.character import Character
from nodes.field.ground import STEP_HOUR, Ground, applied_mm
from nodes.field.season import CropSeason, Harvest, Plot, Truth, reference_harvest
from nodes.field.sensing import Sensing
from nodes.field.sky import Sky
from nodes.field.weather import Weather
from nodes.scenario import DAY_S, FarmPlan, Fault, NodePlan, Scenario

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
        sky = Sky(self._weather, farm.utc_offset_min)
        self._start_s = scenario.start_time_s
        first_step_s = scenario.planting_time_s(farm) + (STEP_HOUR - 6) * 3600
        self._plot = Plot(
            crop=node.crop,
            hydraulics=self.character.hydraulics,
            planting=scenario.planting_date(),
            initial_vwc=self.character.soaked_vwc((first_step_s - self._start_s) / DAY_S),
        )
        self._season = CropSeason(self._weather, self._plot)
        self._ground = Ground(self._season, self.character, sky, self._plot.initial_vwc, self._start_s, first_step_s)
        self._sensing = Sensing(scenario.seed, node.dev_eui, self.character, sky, self._start_s, scenario.days)
        self._open_since_s: float | None = None
        self._pending_mm = 0.0
        self._water_mm = 0.0
        self._drawn_uah: Callable[[], float] = float
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
        reading_mv = int(self._sensing.probe_mv(channel, self.vwc(channel, time_s), time_s))
        self._stuck[part] = reading_mv
        return reading_mv

    def soil_temp_c(self, time_s: float) -> float:
        """Soil temperature between the probes, °C."""
        return self._sensed("soil_temperature", float(self._sensing.soil_temp_c(time_s)), time_s)

    def air(self, time_s: float) -> tuple[float, float]:
        """Air temperature, °C, and relative humidity, %."""
        temperature_c, humidity = map(float, self._sensing.air(time_s))
        return self._sensed("air", temperature_c, time_s), self._sensed("air", humidity, time_s, "humidity")

    def light_w_m2(self, time_s: float) -> float:
        """Global radiation as an uncalibrated sensor sees it, W/m²."""
        return float(self._sensing.light_w_m2(time_s))

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
        return float(self._ground.vwc(layer, time_s))

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
        return reference_harvest(self._weather, self._plot, self._ground.steps, watered=watered)

    # Time

    def _live_until(self, time_s: float) -> None:
        """Take every AquaCrop step due by ``time_s``."""
        while self._ground.due_s <= time_s:
            self._meter(self._ground.due_s)
            self._ground.step(self._pending_mm)
            self._pending_mm = 0.0

    def _meter(self, time_s: float) -> None:
        """Count the water that has flowed since the meter was last read."""
        if self._open_since_s is None or time_s <= self._open_since_s:
            return
        fault = self._fault("valve", self._open_since_s)
        if not (fault and fault.kind == "broken"):
            given_mm = applied_mm(
                time_s - self._open_since_s, self._node.application_rate_mm_h, self.character.flow_factor
            )
            self._pending_mm += given_mm
            self._water_mm += given_mm
        self._open_since_s = time_s

    # Errors

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
