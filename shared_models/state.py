"""What a node's core remembers between wakes: one flat record, the same in C and in Python.

C sees it as ``noria_core_t``; the store saves and restores it as bytes. Lists run newest first.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from shared_models.moments import CLASSES, PHI, TARGETS, TRIANGLE
from shared_models.network import ACTIVATIONS, INPUTS, OUTPUTS

CORE_VERSION = 5
"""The layout of :data:`STATE_FIELDS` in the store; a record of another version is not restored."""
DAWNS = 4
"""Dawn readings kept per probe: enough for a change over three days."""

_FORMATS = {"u32": "I", "i32": "i", "u16": "H", "i16": "h", "u8": "B", "i8": "b"}
_C_TYPES = {
    "u32": "uint32_t",
    "i32": "int32_t",
    "u16": "uint16_t",
    "i16": "int16_t",
    "u8": "uint8_t",
    "i8": "int8_t",
}


class Item(NamedTuple):
    """One field of a record shared with C."""

    name: str
    type: str
    remark: str
    length: int = 1


STATE_FIELDS = (
    Item("backbone_id", "u32", "backbone the sums belong to; 0 = none yet"),
    Item("model_tag", "u32", "self-test word of the model seen last"),
    Item("last_dose_s", "u32", "start of the last dose; 0 = never"),
    Item("stop_until_s", "u32", "farmer's stop; 0 = none"),
    Item("last_telemetry_s", "u32", "0 = never"),
    Item("last_statistics_s", "u32", "last time statistics were due"),
    Item("water_season_um", "u32", "water given this season"),
    Item("light_sum", "u32", "W/m2 summed over the day's wakes"),
    Item("uptake_sum", "u32", "the same weighted by the model's ET factor (Q12)"),
    Item("model_energy", "u32", "running mean of the model's squared error, 1/16 steps squared"),
    Item("baseline_energy", "u32", "the same of the baseline"),
    Item("probation_model_energy", "u32", "sum of the model's squared error since it was activated"),
    Item("probation_baseline_energy", "u32", "the same of the baseline"),
    Item("probation_rival_energy", "u32", "the same of the model before, its own where that is not known"),
    Item("forecast_spread", "u32", "squares of the forecasts' leads, 2^8 steps^4, fading", CLASSES),
    Item("forecast_lead", "i32", "average's squared error less the head's, by window class, fading", CLASSES),
    Item("day", "i32", "days since 1970, dawn to dawn local"),
    Item("first_day", "i32", "day of the first wake"),
    Item("depletion_um", "i32", "Dr at the last dawn"),
    Item("dose_today_um", "i32", "water given since the last dawn"),
    Item("humidity_sum", "i32", "0.01 % summed over the day's wakes"),
    Item("soil_sum", "i32", "0.01 degC summed over the day's wakes"),
    Item("et0_um", "i32", "ET0 of the last whole day"),
    Item("et0_average_um", "i32", "running ET0"),
    Item("et0_dry_um", "i32", "running ET0 of the days behind the dry rate"),
    Item("dry_rate_q4", "i32", "own dry-rate average, 1/16 of 1e-4 per day"),
    Item("probe_q4", "i32", "smoothed probes, 1/16 of 1e-4", 2),
    Item("anchor_sum", "i32", "dawn readings summed for the anchor, 1e-4", 2),
    Item("drained_et_um", "i32", "crop ET since water reached the deep probe"),
    Item("gram", "i32", "upper triangles of A by window class", CLASSES * TRIANGLE),
    Item("moment", "i32", "b by target", TARGETS * PHI),
    Item("energy", "i32", "sum of y squared by target", TARGETS),
    Item("count", "u16", "windows by class", CLASSES),
    Item("season", "u16", "season the sums belong to"),
    Item("light_count", "u16", "wakes with light today"),
    Item("humidity_count", "u16", "wakes with humidity today"),
    Item("soil_count", "u16", "wakes with soil temperature today"),
    Item("wetting_q4", "u16", "days since wetting, 1/16 d"),
    Item("trust_windows", "u16", "windows behind model_energy"),
    Item("probation_windows", "u16", "windows behind the probation sums"),
    Item("forecast_windows", "u16", "windows behind the forecasts' errors, by class", CLASSES),
    Item("pending_water_e1_mm", "u16", "farmer's dose to give now"),
    Item("probe_last_e4", "i16", "last raw reading", 2),
    Item("dawn_e4", "i16", "dawn readings, probe by probe", 2 * DAWNS),
    Item("upper_limit_e4", "i16", "drained upper limit in the probe's own units", 2),
    Item("awc_e4", "i16", "available water capacity"),
    Item("initial_deficit_e4", "i16", "deficit of soil the roots have not reached"),
    Item("root_depth_mm", "i16", "Zr"),
    Item("kc_e3", "i16", "Kc"),
    Item("air_low_c100", "i16", "today's lowest"),
    Item("air_high_c100", "i16", "today's highest"),
    Item("air_mean_c100", "i16", "of the last whole day"),
    Item("air_range_c100", "i16", "of the last whole day"),
    Item("soil_mean_c100", "i16", "of the last whole day"),
    Item("humidity_mean_e2", "i16", "of the last whole day"),
    Item("humidity_average_e2", "i16", "running"),
    Item("light_mean_q4", "i16", "of the last whole day, 1/16 W/m2"),
    Item("innovation_q10", "i16", "last innovation of the observer, of TAW"),
    Item("innovation_average_q10", "i16", "running"),
    Item("uptake_residual_q4", "i16", "running uptake residual, 1/16 step"),
    Item("start_rate_q4", "i16", "dry rate at the last dawns", CLASSES),
    Item("start_phi", "u8", "activations above zero at the last dawns", CLASSES * ACTIVATIONS),
    Item("start_known", "u8", "whether start_phi holds", CLASSES),
    Item("start_output", "i8", "uptake and 24 h dry-down forecast at the last dawn", 2),
    Item("rival_output", "i8", "start_output of the model before, while one is on probation", 2),
    Item("rival_known", "u8", "whether rival_output holds"),
    Item("start_forecast", "i8", "dry-down outputs for 24, 48, 72 h at the last dawns", CLASSES * CLASSES),
    Item("features", "i8", "network inputs since dawn", INPUTS),
    Item("activations", "i8", "second layer", ACTIVATIONS),
    Item("outputs", "i8", "uptake, dry-down 24, 48, 72 h", OUTPUTS),
    Item("calm", "u8", "whether the last days were undisturbed dry-downs", CLASSES),
    Item("bad_wakes", "u8", "weight of implausible wakes: shallow, deep, soil, air, light", 5),
    Item("good_wakes", "u8", "plausible in a row while at fault", 5),
    Item("same_wakes", "u8", "identical probe readings in a row", 2),
    Item("faults", "u8", "frames.TelemetryFlag bits of the sensors at fault"),
    Item("initialised", "u8", "the first wake has been"),
    Item("anchored", "u8", "the upper limit was read on drained soil"),
    Item("anchor_count", "u8", "dawns behind anchor_sum"),
    Item("soaks", "u8", "soaks behind the upper limit"),
    Item("drained_dawns", "u8", "dawns since water reached the deep probe, undisturbed; 0 = none to wait for"),
    Item("started", "u8", "the balance runs: the crop is planted"),
    Item("decided", "u8", "today's decision is taken"),
    Item("distrusted", "u8", "the head is no better than the baseline"),
    Item("mode", "u8", "codes.Mode"),
    Item("last_reason", "u8", "codes.Reason"),
    Item("statistics_sequence", "u8", "snapshots so far, modulo 256"),
    Item("probes_used", "u8", "probes behind the last dawn: 1 shallow, 2 deep"),
    Item("air_seen", "u8", "air temperature was seen today"),
    Item("evaluated", "u8", "activations and outputs belong to the features and the model seen last"),
    Item("battery_low", "u8", "the battery may not open a valve"),
    Item("disagreeing", "u8", "probes and balance contradict each other"),
    Item("contrary_dawns", "u8", "dawns in a row that speak against the present agreement or disagreement"),
)

READING_FIELDS = (
    Item("time_s", "u32", "Unix seconds UTC"),
    Item("vwc_shallow_e4", "i16", "nominal water content at 0.15 m, 1e-4 m3/m3"),
    Item("vwc_deep_e4", "i16", "at 0.35 m"),
    Item("soil_temp_c100", "i16", "0.01 degC"),
    Item("air_temp_c100", "i16", "0.01 degC"),
    Item("rh_e2", "i16", "0.01 %"),
    Item("light_w_m2", "i16", "global radiation"),
    Item("battery_mv", "i16", "battery"),
    Item("reserved", "u16", "zero"),
)
"""All but time may be NO_VALUE (−32768): broken or absent."""

OUTCOME_FIELDS = (
    Item("open_s", "u32", "open the valve for so long; 0 = leave it"),
    Item("depletion_um", "i32", "Dr at the last dawn"),
    Item("taw_um", "i32", "TAW"),
    Item("dose_e1_mm", "u16", "water of this decision"),
    Item("threshold_permille", "u16", "depletion that triggers a dose in this mode, of TAW"),
    Item("water_season_e1_mm", "u16", "water given this season, this dose included"),
    Item("forecast_e4", "i16", "expected change of root-zone water in 24, 48, 72 h without water", 3),
    Item("mode", "u8", "codes.Mode"),
    Item("reason", "u8", "codes.Reason of the last decision"),
    Item("faults", "u8", "frames.TelemetryFlag bits"),
    Item("new_faults", "u8", "sensors that failed at this wake"),
    Item("recovered", "u8", "sensors that came back at this wake"),
    Item("dawn", "u8", "a day was closed at this wake"),
    Item("decided", "u8", "a decision was taken at this wake"),
    Item("close", "u8", "close the valve now: the farmer said stop"),
    Item("anchored", "u8", "the upper limit is known from a soak"),
    Item("anchored_now", "u8", "it became known at this wake"),
    Item("send_telemetry", "u8", "a telemetry frame is due"),
    Item("send_statistics", "u8", "a snapshot is due"),
    Item("battery_low", "u8", "the battery may not open a valve"),
    Item("battery_changed", "u8", "it became so, or no longer is, at this wake"),
    Item("disagreeing", "u8", "probes and balance contradict each other"),
    Item("agreement_changed", "u8", "they began to, or no longer do, at this wake"),
)


def c_record(name: str, items: tuple[Item, ...]) -> str:
    """A C structure of naturally aligned fields, its size asserted."""
    lines = ["typedef struct {"]
    for item in items:
        array = f"[{item.length}]" if item.length > 1 else ""
        lines.append(f"    {_C_TYPES[item.type]} {item.name}{array}; /* {item.remark} */")
    lines.append(f"}} {name};")
    lines.append(f'_Static_assert(sizeof({name}) == {record_struct(items).size}, "{name}");')
    return "\n".join(lines) + "\n\n"


def record_struct(items: tuple[Item, ...]) -> struct.Struct:
    """The packed layout; equal to C's because wide fields come first."""
    text = "".join(f"{item.length}{_FORMATS[item.type]}" for item in items)
    size = struct.calcsize("<" + text)
    return struct.Struct(f"<{text}{-size % 4}x")


def flatten(record: object, items: tuple[Item, ...]) -> list[int]:
    """A record's numbers in order."""
    numbers: list[int] = []
    for item in items:
        value = getattr(record, item.name)
        numbers.extend(value if item.length > 1 else (value,))
    return numbers


class State:
    """The core's memory; the fields are :data:`STATE_FIELDS`, all zero at first."""

    __slots__ = tuple(item.name for item in STATE_FIELDS)

    backbone_id: int
    model_tag: int
    last_dose_s: int
    stop_until_s: int
    last_telemetry_s: int
    last_statistics_s: int
    water_season_um: int
    light_sum: int
    uptake_sum: int
    model_energy: int
    baseline_energy: int
    probation_model_energy: int
    probation_baseline_energy: int
    probation_rival_energy: int
    forecast_spread: list[int]
    forecast_lead: list[int]
    day: int
    first_day: int
    depletion_um: int
    dose_today_um: int
    humidity_sum: int
    soil_sum: int
    et0_um: int
    et0_average_um: int
    et0_dry_um: int
    dry_rate_q4: int
    probe_q4: list[int]
    anchor_sum: list[int]
    drained_et_um: int
    gram: list[int]
    moment: list[int]
    energy: list[int]
    count: list[int]
    season: int
    light_count: int
    humidity_count: int
    soil_count: int
    wetting_q4: int
    trust_windows: int
    probation_windows: int
    forecast_windows: list[int]
    pending_water_e1_mm: int
    probe_last_e4: list[int]
    dawn_e4: list[int]
    upper_limit_e4: list[int]
    awc_e4: int
    initial_deficit_e4: int
    root_depth_mm: int
    kc_e3: int
    air_low_c100: int
    air_high_c100: int
    air_mean_c100: int
    air_range_c100: int
    soil_mean_c100: int
    humidity_mean_e2: int
    humidity_average_e2: int
    light_mean_q4: int
    innovation_q10: int
    innovation_average_q10: int
    uptake_residual_q4: int
    start_rate_q4: list[int]
    start_phi: list[int]
    start_known: list[int]
    start_output: list[int]
    rival_output: list[int]
    rival_known: int
    start_forecast: list[int]
    features: list[int]
    activations: list[int]
    outputs: list[int]
    calm: list[int]
    bad_wakes: list[int]
    good_wakes: list[int]
    same_wakes: list[int]
    faults: int
    initialised: int
    anchored: int
    anchor_count: int
    soaks: int
    drained_dawns: int
    started: int
    decided: int
    distrusted: int
    mode: int
    last_reason: int
    statistics_sequence: int
    probes_used: int
    air_seen: int
    evaluated: int
    battery_low: int
    disagreeing: int
    contrary_dawns: int

    def __init__(self) -> None:
        for item in STATE_FIELDS:
            setattr(self, item.name, [0] * item.length if item.length > 1 else 0)

    def pack(self) -> bytes:
        """The bytes C has in memory."""
        return STATE_STRUCT.pack(*flatten(self, STATE_FIELDS))

    @classmethod
    def unpack(cls, data: bytes) -> State:
        """The record behind C's bytes.

        Raises:
            struct.error: the length is wrong.
        """
        numbers = iter(STATE_STRUCT.unpack(data))
        state = cls()
        for item in STATE_FIELDS:
            value = [next(numbers) for _ in range(item.length)]
            setattr(state, item.name, value if item.length > 1 else value[0])
        return state


STATE_STRUCT = record_struct(STATE_FIELDS)
READING_STRUCT = record_struct(READING_FIELDS)
OUTCOME_STRUCT = record_struct(OUTCOME_FIELDS)


def c_definitions() -> str:
    """What C must know of this module."""
    return (
        f"#define NORIA_CORE_VERSION {CORE_VERSION}\n#define NORIA_DAWNS {DAWNS}\n\n"
        + c_record("noria_core_t", STATE_FIELDS)
        + c_record("noria_reading_t", READING_FIELDS)
        + c_record("noria_outcome_t", OUTCOME_FIELDS)
    )
