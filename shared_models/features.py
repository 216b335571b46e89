"""The network's inputs: 24 scale-free numbers, made at dawn.

Each is ``(value − centre) >> shift``, rounded and clamped to int8; a value that cannot be had is 0, the centre.
Shares of TAW or of AWC make soils, probes and depths alike, so one model serves fields it never saw. What the dry-down
heads forecast, a fall of the probes, they are shown in its own unit, 1e-4 m³/m³ per day: a rate is a share of rates, in
any soil and with any gain of the probes, and not of a guessed AWC.
"""

from __future__ import annotations

from typing import NamedTuple

from shared_models.agronomy import total_available_um, vapour_deficit_pa
from shared_models.fixed import NO_VALUE, clamp, quotient
from shared_models.state import DAWNS, State


class Feature(NamedTuple):
    """One input: what it is, its unit, the value that maps to 0 and the binary step."""

    name: str
    unit: str
    centre: int
    shift: int


FEATURES = (
    Feature("depletion", "1/1024 TAW", 256, 3),
    Feature("innovation", "1/1024 TAW", 0, 2),
    Feature("innovation average", "1/1024 TAW", 0, 2),
    Feature("shallow deficit", "1/1024 AWC", 384, 3),
    Feature("deep deficit", "1/1024 AWC", 384, 3),
    Feature("shallow fall in 1 d", "1e-4 m³/m³", 0, 1),
    Feature("deep fall in 1 d", "1e-4 m³/m³", 0, 1),
    Feature("deep fall in 3 d", "1e-4 m³/m³", 0, 2),
    Feature("dry rate", "1e-4 m³/m³ per d", 128, 0),
    Feature("dry rate per ET0", "1/1024 in 0.5 m", 300, 3),
    Feature("days since wetting", "1/16 d", 64, 1),
    Feature("air temperature", "0.01 °C", 2000, 4),
    Feature("air temperature range", "0.01 °C", 1200, 3),
    Feature("humidity", "0.01 %", 6000, 6),
    Feature("light", "1/16 W/m²", 3520, 5),
    Feature("vapour pressure deficit", "Pa", 1000, 4),
    Feature("ET0", "µm/d", 4500, 6),
    Feature("ETc average", "µm/d", 4096, 5),
    Feature("humidity departure", "0.01 %", 0, 5),
    Feature("soil minus air", "0.01 °C", 0, 4),
    Feature("Kc", "1e-3", 800, 3),
    Feature("season progress", "1/1024", 512, 3),
    Feature("root depth", "mm", 650, 3),
    Feature("uptake residual average", "1/16 step", 0, 5),
)

_CENTRES = tuple(feature.centre for feature in FEATURES)
_SHIFTS = tuple(feature.shift for feature in FEATURES)


def share(value: int, whole: int, bits: int) -> int:
    """``value`` / ``whole`` in 1/2^bits, clamped so that it stays small."""
    return clamp(quotient(value << bits, max(whole, 1)), -8192, 8191)


def extract(state: State, progress_q10: int) -> None:
    """Make ``state.features`` from the day just closed; ``progress_q10`` is the part of the season passed."""
    awc = state.awc_e4
    taw_um = total_available_um(awc, state.root_depth_mm)
    dawn = state.dawn_e4
    values = list(_CENTRES)
    if state.started:
        values[0] = share(state.depletion_um >> 4, taw_um >> 4, 10)
    values[1] = state.innovation_q10
    values[2] = state.innovation_average_q10
    for probe in (0, 1):
        now, before = dawn[probe * DAWNS], dawn[probe * DAWNS + 1]
        if now != NO_VALUE:
            values[3 + probe] = share(state.upper_limit_e4[probe] - now, awc, 10)
            if before != NO_VALUE:
                values[5 + probe] = before - now
    now, before = dawn[DAWNS], dawn[DAWNS + 3]
    if now != NO_VALUE and before != NO_VALUE:
        values[7] = before - now
    values[8] = (state.dry_rate_q4 + 8) >> 4
    values[9] = share(state.dry_rate_q4 * 50, state.et0_dry_um, 6)
    values[10] = state.wetting_q4
    values[11] = state.air_mean_c100
    values[12] = state.air_range_c100
    values[13] = state.humidity_mean_e2
    values[14] = state.light_mean_q4
    values[15] = vapour_deficit_pa(state.air_mean_c100, state.humidity_mean_e2)
    values[16] = state.et0_um
    values[17] = quotient(state.et0_average_um * state.kc_e3, 1000)
    values[18] = state.humidity_mean_e2 - state.humidity_average_e2
    values[19] = state.soil_mean_c100 - state.air_mean_c100
    values[20] = state.kc_e3
    values[21] = progress_q10
    values[22] = state.root_depth_mm
    values[23] = state.uptake_residual_q4
    state.features = [
        clamp((value - centre + (1 << shift >> 1)) >> shift, -128, 127)
        for value, centre, shift in zip(values, _CENTRES, _SHIFTS, strict=True)
    ]


def c_definitions() -> str:
    """What C must know of this module."""
    rows = "\n".join(f"    {{{f.centre}, {f.shift}}}, /* {f.name}, {f.unit} */" for f in FEATURES)
    return (
        "#ifdef NORIA_WANT_FEATURE_TABLE\n"
        "static const struct {\n    int16_t centre;\n    uint8_t shift;\n}"
        f" noria_feature_table[{len(FEATURES)}] = {{\n{rows}\n}};\n#endif\n"
    )
