"""Dry-down windows: what a calm day teaches, summed on the node, and whether the head deserves its place.

A window of 24, 48 or 72 h ends at a dawn when each of its days was calm: anchored, both probes plausible, no
water given, no rise, ET measured. φ is what the network's second layer said at the window's first dawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared_models.fixed import NO_VALUE, clamp, quotient
from shared_models.layout import c_constants
from shared_models.moments import CLASSES, MAX_WINDOWS, PHI, TARGET_CLASS, TARGET_LIMITS, TARGETS, TRIANGLE
from shared_models.network import ACTIVATIONS, ModelImage
from shared_models.state import DAWNS, State

TRUST_AFTER = 12
"""Windows before the head can lose its trust."""
FORECAST_AFTER = 24
"""Windows of a length before the head's forecast for it can earn its place: a record of fewer is mostly luck."""
RECORD_SHIFT = 6
"""A record forgets 1/64 of itself with every window: this season counts, and the one before fades."""
SPREAD_SHIFT = 8
"""The spread is kept in units of 2⁸ steps⁴, so that it fits 32 bits."""
ROW_LIMIT = 1 << 21
"""Bound of a head's real weight in 1/2¹⁴ steps per φ: 128 steps are all a head can say."""
MOST_SQUARE = (1 << 30) - 1
"""Bound of a record's sums of squares at its beginning."""


def reset(state: State) -> None:
    """Forget the sums: another backbone, another season."""
    state.gram = [0] * (CLASSES * TRIANGLE)
    state.moment = [0] * (TARGETS * PHI)
    state.energy = [0] * TARGETS
    state.count = [0] * CLASSES
    state.start_known = [0] * CLASSES
    state.calm = [0] * CLASSES


def reset_trust(state: State) -> None:
    """A model not seen before: its squared errors are counted from now on; of its forecasts see :func:`credit`."""
    state.model_energy = state.baseline_energy = 0
    state.trust_windows = state.distrusted = 0
    state.probation_model_energy = state.probation_baseline_energy = 0
    state.probation_rival_energy = state.probation_windows = 0
    state.rival_known = 0


def reset_forecasts(state: State) -> None:
    """Another backbone: whatever its head says, no head like it has said before."""
    state.forecast_lead = [0] * CLASSES
    state.forecast_spread = [0] * CLASSES
    state.forecast_windows = [0] * CLASSES


def credit(state: State, image: ModelImage) -> None:
    """What the sums of the season say of a new head's forecasts, for a record to begin with.

    Where they hold too few windows, it inherits its predecessor's: heads come often and differ little. Its squared
    error over every window that they hold is Σy² − 2wᵀb + wᵀAw, so its lead is 2wᵀb − wᵀAw. How much that sum scatters
    they do not say; of small forecasts f of a noisy y it is about 4 Σf² Σy²/n.
    """
    for k in range(CLASSES):
        if state.count[k] < FORECAST_AFTER:
            break
        state.forecast_lead[k], state.forecast_spread[k] = record_of(
            image,
            k,
            state.gram[k * TRIANGLE : (k + 1) * TRIANGLE],
            state.moment[(k + 1) * PHI : (k + 2) * PHI],
            state.energy[k + 1],
            state.count[k],
        )
        state.forecast_windows[k] = state.count[k]


def record_of(
    image: ModelImage, k: int, gram: Sequence[int], moment: Sequence[int], energy: int, count: int
) -> tuple[int, int]:
    """Lead and spread of a head's forecasts over ``k`` + 1 days, as :class:`State` keeps them.

    Args:
        image: Whose head.
        k: Class of the windows, from 0.
        gram: Upper triangle of their A.
        moment: b of their dry-down target.
        energy: Its Σy².
        count: How many, not none.
    """
    head = image.head
    numbers = [*head.weights[k + 1].tolist(), int(head.bias[k + 1])]
    half = 1 << 16 - head.shift
    row = [clamp(number * head.multiplier + half >> 17 - head.shift, -ROW_LIMIT, ROW_LIMIT) for number in numbers]
    entries = iter(gram)
    full = [[0] * PHI for _ in range(PHI)]
    for i in range(PHI):
        for j in range(i, PHI):
            full[i][j] = full[j][i] = next(entries)
    along = [sum(entry * weight for entry, weight in zip(entries_of, row, strict=True)) >> 14 for entries_of in full]
    square = sum(part * weight for part, weight in zip(along, row, strict=True))
    agreed = sum(part * weight for part, weight in zip(moment, row, strict=True))
    square = clamp(square >> 14, 0, MOST_SQUARE)
    lead = clamp((agreed >> 13) - square, -MOST_SQUARE, MOST_SQUARE)
    return lead, clamp(quotient(energy, count) * square >> SPREAD_SHIFT - 2, 0, MOST_SQUARE)


def forecasts_better(state: State, k: int) -> bool:
    """Whether the head's forecasts over ``k`` + 1 days have beaten the dry-rate average on this very field.

    A gate of its own for every horizon. A new head's record begins with what it would have said of the season's windows
    (:func:`credit`); a first head's is empty, and the gate closed: nobody loses by an average that is kept a month
    longer. The lead in squared error must exceed the standard error of such a sum, √Σ(each window's lead)²: a few wet
    days make most of it. A window of three days begins every day, so three of them tell about as much as one: their
    squares count three times.
    """
    lead = state.forecast_lead[k]
    if state.forecast_windows[k] < FORECAST_AFTER or lead <= 0:
        return False
    return (lead * lead) >> SPREAD_SHIFT > (k + 1) * state.forecast_spread[k]


class Finished(NamedTuple):
    """A window that ended at this dawn: its length in days and its residuals in head steps."""

    length: int
    uptake: int
    """Of the last day; a target only where ``length`` is 1."""
    drying: int


def finish(state: State, days: int, *, calm: bool, uptake: int, mean_e4: int) -> list[Finished]:
    """End the windows that end at this dawn; those whose start saw a model are added to the sums."""
    finished: list[Finished] = []
    if days == 1:
        state.calm = [int(calm), state.calm[0], state.calm[1]]
    else:
        state.calm = [0] * CLASSES
        state.start_known = [0] * CLASSES
    if not calm or mean_e4 == NO_VALUE:
        return finished
    for length in range(1, CLASSES + 1):
        if not state.calm[length - 1]:
            break
        start = (state.dawn_e4[length] + state.dawn_e4[DAWNS + length]) >> 1
        rate = (state.start_rate_q4[length - 1] + 8) >> 4
        drying = clamp(quotient(mean_e4 - start, length) + rate, -TARGET_LIMITS[length], TARGET_LIMITS[length])
        finished.append(Finished(length, uptake, drying))
        if not state.start_known[length - 1] or state.count[length - 1] >= MAX_WINDOWS:
            continue
        if length == 1:
            _compare(state, uptake, drying)
        score_forecast(state, length - 1, drying)
        _add(state, length, uptake, drying)
    return finished


def _add(state: State, length: int, uptake: int, drying: int) -> None:
    """Add one window of ``length`` days to its class's sums."""
    k = length - 1
    phi = [*state.start_phi[k * ACTIVATIONS : (k + 1) * ACTIVATIONS], 1]
    at = k * TRIANGLE
    for i in range(PHI):
        for j in range(i, PHI):
            state.gram[at] += phi[i] * phi[j]
            at += 1
    state.count[k] += 1
    for target in range(TARGETS):
        if TARGET_CLASS[target] != k:
            continue
        y = uptake if target == 0 else drying
        for i in range(PHI):
            state.moment[target * PHI + i] += phi[i] * y
        state.energy[target] += y * y


def _compare(state: State, uptake: int, drying: int) -> None:
    """Running squared errors of the head, of the baseline, and of the model before, from the same window."""
    model = (uptake - state.start_output[0]) ** 2 + (drying - state.start_output[1]) ** 2
    baseline = uptake * uptake + drying * drying
    if state.probation_windows < MAX_WINDOWS:
        state.probation_model_energy += model
        state.probation_baseline_energy += baseline
        rival = (uptake - state.rival_output[0]) ** 2 + (drying - state.rival_output[1]) ** 2
        state.probation_rival_energy += rival if state.rival_known else model
        state.probation_windows += 1
    state.model_energy += ((model << 4) - state.model_energy) >> 4
    state.baseline_energy += ((baseline << 4) - state.baseline_energy) >> 4
    if state.trust_windows < TRUST_AFTER:
        state.trust_windows += 1
    elif state.distrusted:
        state.distrusted = int(state.model_energy >= state.baseline_energy)
    else:
        state.distrusted = int(state.model_energy > state.baseline_energy + (state.baseline_energy >> 3))


def score_forecast(state: State, k: int, drying: int) -> None:
    """By how much the head's squared error was below the average's over the window of class ``k`` that ended."""
    lead = drying * drying - (drying - state.start_forecast[k * CLASSES + k]) ** 2
    state.forecast_lead[k] += lead - (state.forecast_lead[k] >> RECORD_SHIFT)
    state.forecast_spread[k] += (lead * lead >> SPREAD_SHIFT) - (state.forecast_spread[k] >> RECORD_SHIFT)
    state.forecast_windows[k] = min(state.forecast_windows[k] + 1, MAX_WINDOWS)


def begin(state: State, lifted: list[int], *, known: bool) -> None:
    """Open the windows that start at this dawn; ``lifted`` are the activations above zero.

    Windows count only where they are ``known``: a model saw their start, and the crop has left its initial stage.
    Before that the soil above the probes gives most of the water, which they cannot see, so what they would teach
    about uptake is not true of the rest of the season.
    """
    state.start_rate_q4 = [state.dry_rate_q4, *state.start_rate_q4[:-1]]
    state.start_known = [int(known), *state.start_known[:-1]]
    state.start_phi = [*lifted, *state.start_phi[:-ACTIVATIONS]]
    state.start_output = state.outputs[:2]
    state.rival_known = 0
    state.start_forecast = [*state.outputs[1:], *state.start_forecast[:-CLASSES]]


def c_definitions() -> str:
    """What C must know of this module."""
    return c_constants(
        {
            "TRUST_AFTER": TRUST_AFTER,
            "FORECAST_AFTER": FORECAST_AFTER,
            "RECORD_SHIFT": RECORD_SHIFT,
            "SPREAD_SHIFT": SPREAD_SHIFT,
            "ROW_LIMIT": ROW_LIMIT,
            "MOST_SQUARE": MOST_SQUARE,
        }
    )
