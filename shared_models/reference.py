"""The node's core in Python: the reference that the firmware's C must equal bit for bit (invariant I5).

``NodeReference(settings).wake(reading, image)`` is one wake; everything it remembers is in ``.state``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from shared_models import balance, features, plausibility, policy, windows
from shared_models.agronomy import AWC_DEFAULT_E4, ROOT_DEPTH_START_MM, growth_stage
from shared_models.codes import Mode
from shared_models.fixed import EXP_ONE, EXP_TABLE, NO_VALUE, clamp, day_number, elapsed_s, quotient
from shared_models.layout import c_constants
from shared_models.moments import CLASSES, Snapshot
from shared_models.network import ACTIVATIONS, OUTPUTS, ModelImage
from shared_models.state import DAWNS, State

if TYPE_CHECKING:
    from shared_models.settings import Settings

ET0_START_UM = 4000
DRY_RATE_START_Q4 = 25 * 16
WETTING_START_Q4 = 5 * 16
AIR_START_C100, HUMIDITY_START_E2, RANGE_START_C100, LIGHT_START_Q4 = 2000, 6000, 1200, 3520

Features = npt.NDArray[np.int8]


@dataclass(slots=True)
class Reading:
    """What the sensors said at one wake; NO_VALUE is broken or absent."""

    time_s: int
    vwc_shallow_e4: int = NO_VALUE
    vwc_deep_e4: int = NO_VALUE
    soil_temp_c100: int = NO_VALUE
    air_temp_c100: int = NO_VALUE
    rh_e2: int = NO_VALUE
    light_w_m2: int = NO_VALUE
    battery_mv: int = 3000
    reserved: int = 0


@dataclass(slots=True)
class Outcome:
    """What a wake leads to; the fields are ``state.OUTCOME_FIELDS``."""

    open_s: int = 0
    depletion_um: int = 0
    taw_um: int = 0
    dose_e1_mm: int = 0
    threshold_permille: int = 0
    water_season_e1_mm: int = 0
    forecast_e4: list[int] = field(default_factory=lambda: [0, 0, 0])
    mode: int = 0
    reason: int = 0
    faults: int = 0
    new_faults: int = 0
    recovered: int = 0
    dawn: int = 0
    decided: int = 0
    close: int = 0
    anchored: int = 0
    anchored_now: int = 0
    send_telemetry: int = 0
    send_statistics: int = 0
    battery_low: int = 0
    battery_changed: int = 0
    disagreeing: int = 0
    agreement_changed: int = 0


@dataclass(frozen=True, slots=True)
class Probation:
    """A model's record since it was activated, over ``windows`` finished 24 h windows."""

    model_energy: int
    baseline_energy: int
    rival_energy: int
    """Of the model before; the model's own in windows for which that is not known."""
    windows: int

    @classmethod
    def of(cls, state: State) -> Probation:
        """What a core's state says."""
        return cls(
            state.probation_model_energy,
            state.probation_baseline_energy,
            state.probation_rival_energy,
            state.probation_windows,
        )


class Lesson(NamedTuple):
    """A finished window as training wants it: what the network saw at its start, and the residuals."""

    features: Features
    length: int
    uptake: int
    """Target 0; valid where ``length`` is 1."""
    drying: int
    """Target ``length``."""


class NodeReference:
    """One node's core.

    Args:
        settings: The node's settings page.
        state: Where to go on from; a new node when None.
    """

    def __init__(self, settings: Settings, state: State | None = None) -> None:
        self.settings = settings
        self.state = state or State()
        self.lessons: list[Lesson] = []
        """Windows that ended at the last dawn, for training in simulators; a real node never tells."""
        self._starts: list[Features | None] = []
        """Features at the last dawns, newest first; None in the initial stage, from which nothing is learned."""
        self._instructive = False

    @property
    def features_q(self) -> Features:
        """The network's inputs since dawn, int8 (24,)."""
        return np.array(self.state.features, np.int8)

    @property
    def activations(self) -> Features:
        """The second layer's activations since dawn, int8 (8,)."""
        return np.array(self.state.activations, np.int8)

    @property
    def probation(self) -> Probation:
        """The running model's record."""
        return Probation.of(self.state)

    def rival(self, image: ModelImage | None) -> None:
        """What the model before says at this dawn; to be called after a dawn's wake while one is on probation."""
        self.state.rival_known = int(image is not None)
        if image is not None:
            _, outputs = image.forward(self.features_q)
            self.state.rival_output = [int(value) for value in outputs[:2]]

    def snapshot(self) -> Snapshot:
        """The cumulative statistics, exact."""
        state = self.state
        return Snapshot.from_integers(state.gram, state.moment, state.energy, state.count)

    def override(self, kind: int, value: int) -> bool:
        """A farmer's order: 1 stop until a time, 2 water a dose (0.1 mm) now, 3 resume."""
        return policy.override(self.state, kind, value)

    def cut_short(self, missing_s: int) -> None:
        """Tell the core that the valve closed ``missing_s`` before its time."""
        policy.cut_short(self.state, self.settings, missing_s)

    def wake(self, reading: Reading, image: ModelImage | None = None) -> Outcome:
        """One wake: sense, close the day at dawn, run the network, decide."""
        state, settings = self.state, self.settings
        outcome = Outcome()
        day = day_number(reading.time_s, settings.utc_offset_min)
        if not state.initialised:
            self._initialise(day, reading.time_s)
        policy.forget_the_future(state, reading.time_s)
        self._meet_model(image)
        faults_before, low_before, contrary_before = state.faults, state.battery_low, state.disagreeing
        plausibility.check_probes(state, reading)
        plausibility.check_battery(state, reading.battery_mv)
        days = day - state.day
        if days < 0:
            state.day = day
        elif days > 0:
            state.day = day
            outcome.dawn = 1
            self._dawn(days, outcome)
        self._evaluate(image)
        planted = day - balance.planting_day(settings)
        state.mode = policy.choose_mode(state, planted, has_model=image is not None)
        if outcome.dawn:
            zero = image.second.output_zero if image is not None else 0
            known = image is not None and self._instructive
            windows.begin(state, [value - zero for value in state.activations], known=known)
        factor_q12 = EXP_TABLE[state.outputs[0] + 128] if state.mode == Mode.MODEL else EXP_ONE
        plausibility.add_air_and_light(state, reading, factor_q12)
        outcome.depletion_um = state.depletion_um
        outcome.taw_um = balance.taw_um(state)
        policy.decide(state, settings, outcome, reading.time_s)
        outcome.threshold_permille = policy.threshold_permille(state, settings)
        outcome.water_season_e1_mm = min(quotient(state.water_season_um, 100), 65535)
        outcome.close = int(state.stop_until_s != 0)
        outcome.mode = state.mode
        outcome.reason = state.last_reason
        outcome.faults = state.faults
        outcome.new_faults = state.faults & ~faults_before
        outcome.recovered = faults_before & ~state.faults
        outcome.anchored = state.anchored
        outcome.battery_low, outcome.battery_changed = state.battery_low, state.battery_low ^ low_before
        outcome.disagreeing, outcome.agreement_changed = state.disagreeing, state.disagreeing ^ contrary_before
        self._forecast(outcome)
        self._reports(outcome, reading.time_s, has_model=image is not None)
        return outcome

    def _initialise(self, day: int, time_s: int) -> None:
        state = self.state
        state.initialised = 1
        state.day = state.first_day = day
        state.season = self.settings.season
        state.last_statistics_s = time_s
        state.mode = Mode.COMMISSIONING
        state.et0_um = state.et0_average_um = state.et0_dry_um = ET0_START_UM
        state.dry_rate_q4 = DRY_RATE_START_Q4
        state.wetting_q4 = WETTING_START_Q4
        state.probe_q4 = [NO_VALUE] * 2
        state.probe_last_e4 = [NO_VALUE] * 2
        state.dawn_e4 = [NO_VALUE] * (2 * DAWNS)
        state.upper_limit_e4 = [NO_VALUE] * 2
        state.awc_e4 = AWC_DEFAULT_E4
        state.root_depth_mm = ROOT_DEPTH_START_MM
        state.air_mean_c100 = state.soil_mean_c100 = AIR_START_C100
        state.air_range_c100 = RANGE_START_C100
        state.humidity_mean_e2 = state.humidity_average_e2 = HUMIDITY_START_E2
        state.light_mean_q4 = LIGHT_START_Q4

    def _meet_model(self, image: ModelImage | None) -> None:
        """Sums belong to one backbone and one season; a model's record to the model."""
        state = self.state
        if state.season != self.settings.season:
            state.season = self.settings.season
            state.started = state.anchor_count = 0
            state.anchor_sum = [0, 0]
            state.first_day = state.day
            state.water_season_um = 0
            windows.reset(state)
        if image is None:
            return
        if state.backbone_id != image.backbone_id:
            state.backbone_id = image.backbone_id
            windows.reset(state)
            windows.reset_forecasts(state)
        elif state.model_tag == image.self_test:
            return
        state.model_tag = image.self_test
        state.evaluated = 0
        windows.reset_trust(state)
        windows.credit(state, image)

    def _dawn(self, days: int, outcome: Outcome) -> None:
        state, settings = self.state, self.settings
        day = balance.close_day(state, settings, days)
        outcome.anchored_now = int(day.anchored_now)
        state.decided = 0
        plausibility.check_agreement(state)
        if day.calm:
            state.uptake_residual_q4 += (day.uptake * 16 - state.uptake_residual_q4) >> 3
        starts = [self.features_q if self._instructive else None, *self._starts][:CLASSES]
        finished = windows.finish(state, days, calm=day.calm, uptake=day.uptake, mean_e4=day.mean_e4)
        known = [(start, window) for window in finished for start in starts[window.length - 1 : window.length]]
        self.lessons = [Lesson(start, *window) for start, window in known if start is not None]
        self._starts = starts if days == 1 else []
        planted = state.day - balance.planting_day(settings)
        self._instructive = growth_stage(planted, settings.season_days) > 0
        progress = quotient(clamp(planted, -settings.season_days, settings.season_days) * 1024, settings.season_days)
        features.extract(state, progress)
        state.evaluated = 0

    def _evaluate(self, image: ModelImage | None) -> None:
        """The network on the features since dawn; the answer is kept until they or the model change."""
        state = self.state
        if image is None:
            state.activations = [0] * ACTIVATIONS
            state.outputs = [0] * OUTPUTS
            state.evaluated = 0
        elif not state.evaluated:
            activations, outputs = image.forward(self.features_q)
            state.activations = activations.tolist()
            state.outputs = outputs.tolist()
            state.evaluated = 1

    def _forecast(self, outcome: Outcome) -> None:
        state = self.state
        rate = (state.dry_rate_q4 + 8) >> 4
        for h in range(CLASSES):
            earned = state.mode == Mode.MODEL and windows.forecasts_better(state, h)
            learned = state.outputs[1 + h] if earned else 0
            outcome.forecast_e4[h] = (learned - rate) * (h + 1)

    def _reports(self, outcome: Outcome, time_s: int, *, has_model: bool) -> None:
        """Daily and rarer reports go at dawn, more frequent ones at any wake."""
        state, settings = self.state, self.settings
        period_s = settings.telemetry_period_h * 3600
        if state.last_telemetry_s == 0:
            due = True
        elif settings.telemetry_period_h >= 24:
            due = bool(outcome.dawn) and elapsed_s(time_s, state.last_telemetry_s) >= period_s - 43200
        else:
            due = elapsed_s(time_s, state.last_telemetry_s) >= period_s - 450
        if due:
            state.last_telemetry_s = time_s
            outcome.send_telemetry = 1
        waited_s = elapsed_s(time_s, state.last_statistics_s)
        if outcome.dawn and waited_s >= settings.statistics_period_h * 3600 - 43200:
            state.last_statistics_s = time_s
            if has_model and state.count[0]:
                state.statistics_sequence = (state.statistics_sequence + 1) & 0xFF
                outcome.send_statistics = 1


def c_definitions() -> str:
    """What C must know of this module."""
    return c_constants(
        {
            "ET0_START_UM": ET0_START_UM,
            "DRY_RATE_START_Q4": DRY_RATE_START_Q4,
            "WETTING_START_Q4": WETTING_START_Q4,
            "AIR_START_C100": AIR_START_C100,
            "HUMIDITY_START_E2": HUMIDITY_START_E2,
            "RANGE_START_C100": RANGE_START_C100,
            "LIGHT_START_Q4": LIGHT_START_Q4,
        }
    )
