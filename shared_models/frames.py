"""Application frames between node and gateway: telemetry, statistics fragments, events, overrides, settings.

Fragmentation answers on fPort 201 are decoded by :mod:`shared_models.fragmentation`. Every decoder refuses
what it does not understand with :class:`FrameError` and never reads past the payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag

from shared_models.codes import Board, EventCode, FPort, Mode, Reason, Refusal, ResetCause
from shared_models.fragmentation import FragmentationAnswer, FragmentationError, decode_answers
from shared_models.layout import Field, Layout, LayoutError, c_constants, c_enumeration
from shared_models.settings import Setting

FRAME_VERSION = 1
NO_VALUE = -32768
"""A sensor that is absent or broken."""


class FrameError(ValueError):
    """A frame that cannot be used; the text says why."""


class TelemetryFlag(IntFlag):
    """State bits of a telemetry frame."""

    VALVE_OPEN = 1
    SHALLOW_FAULT = 2
    DEEP_FAULT = 4
    SOIL_TEMP_FAULT = 8
    AIR_FAULT = 16
    LIGHT_FAULT = 32
    UPDATE_ACTIVE = 64
    """A fragmentation session is incomplete."""
    ANCHORED = 128
    """The drained upper limit is known."""


SENSOR_FAULTS = (
    TelemetryFlag.SHALLOW_FAULT
    | TelemetryFlag.DEEP_FAULT
    | TelemetryFlag.SOIL_TEMP_FAULT
    | TelemetryFlag.AIR_FAULT
    | TelemetryFlag.LIGHT_FAULT
)

TELEMETRY_LAYOUT = Layout(
    "telemetry",
    [
        Field("version", "u8", "1", low=FRAME_VERSION, high=FRAME_VERSION),
        Field("flags", "u8", "frames.TelemetryFlag"),
        Field("mode", "u8", "codes.Mode"),
        Field("board", "u8", "codes.Board"),
        Field("time_s", "u32", "Unix seconds UTC"),
        Field("battery_mv", "u16", "battery, mV"),
        Field("vwc_shallow_e4", "i16", "probe at 0.15 m, 1e-4 m3/m3; -32768 = none"),
        Field("vwc_deep_e4", "i16", "probe at 0.35 m, 1e-4 m3/m3; -32768 = none"),
        Field("soil_temp_c100", "i16", "soil, 0.01 degC; -32768 = none"),
        Field("air_temp_c100", "i16", "air, 0.01 degC; -32768 = none"),
        Field("depletion_e1_mm", "i16", "Dr, 0.1 mm"),
        Field("taw_e1_mm", "u16", "TAW, 0.1 mm"),
        Field("threshold_permille", "u16", "depletion that triggers a dose, of TAW"),
        Field("forecast_24h_e4", "i16", "expected change of root-zone water in 24 h, 1e-4 m3/m3"),
        Field("water_season_e1_mm", "u16", "water given this season, 0.1 mm"),
        Field("model_version", "u32", "running model; 0 = none"),
        Field("backbone_id", "u32", "running backbone; 0 = none"),
        Field("last_reason", "u8", "codes.Reason of the last decision"),
        Field("probation", "u8", "1 while the running model may still be rolled back", high=1),
    ],
)

EVENT_LAYOUT = Layout(
    "event",
    [
        Field("version", "u8", "1", low=FRAME_VERSION, high=FRAME_VERSION),
        Field("code", "u8", "codes.EventCode"),
        Field("reason", "u8", "codes.Reason of a decision, else 0"),
        Field(
            "detail", "u8", "codes.Refusal of an update, codes.ResetCause of BOOTED, flags of failed sensors, else 0"
        ),
        Field("time_s", "u32", "Unix seconds UTC"),
        Field("dose_e1_mm", "u16", "water given, 0.1 mm"),
        Field("depletion_e1_mm", "i16", "Dr before the dose, 0.1 mm"),
        Field("taw_e1_mm", "u16", "TAW, 0.1 mm"),
        Field("threshold_permille", "u16", "depletion that triggers a dose, of TAW"),
        Field("model_version", "u32", "the model meant, or running"),
    ],
)

STATISTICS_LAYOUT = Layout(
    "statistics_header",
    [
        Field("session", "u8", "snapshot counter modulo 256"),
        Field("index", "u8", "fragment, from 0"),
        Field("count", "u8", "fragments of this snapshot", low=1),
        Field("season", "u16", "calendar year of planting"),
        Field("backbone_id", "u32", "backbone whose activations these are"),
    ],
)

_WITH_REFUSAL = frozenset({EventCode.UPDATE_REFUSED, EventCode.MODEL_ROLLED_BACK})

STATISTICS_FRAGMENT_LIMIT = 32
"""Most fragments of one snapshot; a receiver refuses more."""

OVERRIDE_LAYOUT = Layout(
    "override",
    [
        Field("action", "u8", "frames.OverrideAction"),
        Field("argument", "u32", "STOP: until, Unix seconds; WATER: dose, 0.1 mm; RESUME: 0"),
    ],
)

SETTINGS_ACTION = 4
"""First byte of a settings change; smaller ones are overrides."""
SETTINGS_ENTRY_LIMIT = 8
"""Most entries of one change: it fits the smallest payload limit."""
SETTINGS_ENTRY_LAYOUT = Layout(
    "settings_entry",
    [
        Field("setting", "u8", "settings.Setting", low=min(Setting), high=max(Setting)),
        Field("value", "u32", "in the field's own unit; two's complement where it is signed"),
    ],
)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """fPort 10: how the node and its field are."""

    time_s: int
    flags: TelemetryFlag
    mode: Mode
    board: Board
    battery_mv: int
    vwc_shallow_e4: int
    vwc_deep_e4: int
    soil_temp_c100: int
    air_temp_c100: int
    depletion_e1_mm: int
    taw_e1_mm: int
    threshold_permille: int
    forecast_24h_e4: int
    water_season_e1_mm: int
    last_reason: Reason
    model_version: int
    backbone_id: int
    probation: int
    """1 while the running model may still be rolled back, else 0."""

    @property
    def valve_open(self) -> bool:
        """The valve was open when the frame was built."""
        return bool(self.flags & TelemetryFlag.VALVE_OPEN)

    @property
    def sensor_fault(self) -> bool:
        """At least one sensor is broken or absent."""
        return bool(self.flags & SENSOR_FAULTS)

    @property
    def update_active(self) -> bool:
        """A fragmentation session is incomplete."""
        return bool(self.flags & TelemetryFlag.UPDATE_ACTIVE)

    @property
    def anchored(self) -> bool:
        """The drained upper limit is known."""
        return bool(self.flags & TelemetryFlag.ANCHORED)

    def encode(self) -> bytes:
        """The payload."""
        return _pack(TELEMETRY_LAYOUT, self)


@dataclass(frozen=True, slots=True)
class Event:
    """fPort 12: something happened, and why."""

    code: EventCode
    time_s: int
    reason: Reason = Reason.NOT_NEEDED
    detail: int = 0
    """Of UPDATE_REFUSED and MODEL_ROLLED_BACK a :class:`Refusal`, of BOOTED a :class:`ResetCause`, of SENSOR_FAULT and
    SENSOR_RECOVERED the :class:`TelemetryFlag` bits of the sensors meant."""
    dose_e1_mm: int = 0
    depletion_e1_mm: int = 0
    taw_e1_mm: int = 0
    threshold_permille: int = 0
    model_version: int = 0

    @property
    def refusal(self) -> Refusal:
        """Why an update was refused or given up; NONE in every other event."""
        return Refusal(self.detail) if self.code in _WITH_REFUSAL else Refusal.NONE

    @property
    def reset_cause(self) -> ResetCause | None:
        """Why the node started; None in every event but BOOTED."""
        return ResetCause(self.detail) if self.code is EventCode.BOOTED else None

    def encode(self) -> bytes:
        """The payload.

        Raises:
            FrameError: the detail means nothing in this event.
        """
        payload = _pack(EVENT_LAYOUT, self)
        _event(payload)
        return payload


@dataclass(frozen=True, slots=True)
class StatisticsFragment:
    """fPort 11: one piece of a cumulative snapshot."""

    session: int
    index: int
    count: int
    season: int
    backbone_id: int
    data: bytes

    def encode(self) -> bytes:
        """The payload."""
        try:
            header = STATISTICS_LAYOUT.pack({f.name: getattr(self, f.name) for f in STATISTICS_LAYOUT.fields})
        except LayoutError as error:
            raise FrameError(str(error)) from error
        return header + self.data


class OverrideAction(IntEnum):
    """What a farmer can ask of a node on fPort 13."""

    STOP = 1
    WATER = 2
    RESUME = 3


@dataclass(frozen=True, slots=True)
class Override:
    """fPort 13, downlink: the farmer's word."""

    action: OverrideAction
    argument: int = 0
    """STOP: until (Unix seconds); WATER: dose (0.1 mm, at most 1000); RESUME: 0."""

    def encode(self) -> bytes:
        """The payload.

        Raises:
            FrameError: the argument does not suit the action.
        """
        payload = _pack(OVERRIDE_LAYOUT, self)
        decode_override(payload)
        return payload


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """fPort 13, downlink: fields of the settings page and their new values, all or nothing."""

    changes: Mapping[Setting, int]

    def encode(self) -> bytes:
        """The payload.

        Raises:
            FrameError: no entry, more than a node takes, or a value no page can hold.
        """
        _check_changes(self.changes)
        entries = (
            SETTINGS_ENTRY_LAYOUT.pack({"setting": int(setting), "value": value & 0xFFFFFFFF})
            for setting, value in self.changes.items()
        )
        return bytes([SETTINGS_ACTION]) + b"".join(entries)


Uplink = Telemetry | StatisticsFragment | Event | FragmentationAnswer


def decode_uplink(f_port: int, payload: bytes) -> Uplink:
    """Decode a node's frame.

    Raises:
        FrameError: unknown port, wrong length or version, or a field outside its range.
    """
    try:
        if f_port == FPort.TELEMETRY:
            return _telemetry(payload)
        if f_port == FPort.EVENTS:
            return _event(payload)
        if f_port == FPort.STATISTICS:
            return _statistics(payload)
        if f_port == FPort.FRAGMENTATION:
            return decode_answers(payload)
    except FrameError:
        raise
    except (LayoutError, FragmentationError, ValueError) as error:
        raise FrameError(f"fPort {f_port}: {error}") from error
    raise FrameError(f"fPort {f_port}: not one of ours")


def decode_override(payload: bytes) -> Override:
    """Decode a farmer's override, as the node does.

    Raises:
        FrameError: wrong length, unknown action, or an argument out of range.
    """
    try:
        values = OVERRIDE_LAYOUT.unpack(payload)
        override = Override(OverrideAction(int(values["action"])), int(values["argument"]))
    except ValueError as error:
        raise FrameError(f"override: {error}") from error
    if override.action is OverrideAction.WATER and not 1 <= override.argument <= 1000:
        raise FrameError("override: a dose is 0.1 to 100 mm")
    if override.action is OverrideAction.RESUME and override.argument:
        raise FrameError("override: resume takes no argument")
    return override


def decode_settings_change(payload: bytes) -> SettingsChange:
    """Decode a change of settings, as the node does; whether the page as a whole agrees, only the node knows.

    Raises:
        FrameError: not a change of settings, wrong length, a setting unknown or named twice, or a value out of range.
    """
    body, size = payload[1:], SETTINGS_ENTRY_LAYOUT.size
    if payload[:1] != bytes([SETTINGS_ACTION]) or len(body) % size:
        raise FrameError(f"settings: an action byte {SETTINGS_ACTION} and whole entries of {size} bytes are expected")
    changes: dict[Setting, int] = {}
    for start in range(0, len(body), size):
        try:
            entry = SETTINGS_ENTRY_LAYOUT.unpack(body[start : start + size])
        except LayoutError as error:
            raise FrameError(f"settings: {error}") from error
        setting, value = Setting(int(entry["setting"])), int(entry["value"])
        if setting in changes:
            raise FrameError(f"settings: {setting.name.lower()} is named twice")
        changes[setting] = value - (1 << 32) if setting.field.type[0] == "i" and value >> 31 else value
    _check_changes(changes)
    return SettingsChange(changes)


def _check_changes(changes: Mapping[Setting, int]) -> None:
    if not 1 <= len(changes) <= SETTINGS_ENTRY_LIMIT:
        raise FrameError(f"settings: {len(changes)} changes; one downlink carries 1 to {SETTINGS_ENTRY_LIMIT}")
    for setting, value in changes.items():
        low, high = setting.field.limits
        if not low <= value <= high:
            raise FrameError(f"settings: {setting.name.lower()} {value} is not within {low}..{high}")


def split_statistics(
    data: bytes, *, session: int, season: int, backbone_id: int, payload_limit: int
) -> list[StatisticsFragment]:
    """Cut an encoded snapshot into fragments that fit the data rate.

    Raises:
        FrameError: the snapshot is empty or needs more fragments than a receiver takes.
    """
    room = payload_limit - STATISTICS_LAYOUT.size
    pieces = [data[start : start + room] for start in range(0, len(data), room)] if room > 0 else []
    if not 1 <= len(pieces) <= STATISTICS_FRAGMENT_LIMIT:
        raise FrameError(f"statistics: {len(data)} bytes do not fit {STATISTICS_FRAGMENT_LIMIT} fragments")
    return [
        StatisticsFragment(session % 256, index, len(pieces), season, backbone_id, piece)
        for index, piece in enumerate(pieces)
    ]


def join_statistics(fragments: Sequence[StatisticsFragment]) -> bytes:
    """Put a complete set of fragments of one snapshot back together; any order, duplicates allowed.

    Raises:
        FrameError: fragments of different snapshots, contradicting duplicates, or one is missing.
    """
    pieces: dict[int, bytes] = {}
    if len({(f.session, f.count, f.season, f.backbone_id) for f in fragments}) != 1:
        raise FrameError("statistics: fragments of different snapshots, or none")
    for fragment in fragments:
        if pieces.setdefault(fragment.index, fragment.data) != fragment.data:
            raise FrameError(f"statistics: two different fragments {fragment.index}")
    if len(pieces) != fragments[0].count:
        raise FrameError(f"statistics: {len(pieces)} of {fragments[0].count} fragments")
    return b"".join(pieces[index] for index in sorted(pieces))


def _pack(layout: Layout, frame: Telemetry | Event | Override) -> bytes:
    values: dict[str, int | bytes] = {field.name: int(getattr(frame, field.name)) for field in fields(frame)}
    try:
        return layout.pack({"version": FRAME_VERSION} | values)
    except LayoutError as error:
        raise FrameError(str(error)) from error


def _telemetry(payload: bytes) -> Telemetry:
    values = {name: int(value) for name, value in TELEMETRY_LAYOUT.unpack(payload).items()}
    del values["version"]
    flags, mode, board = TelemetryFlag(values.pop("flags")), Mode(values.pop("mode")), Board(values.pop("board"))
    return Telemetry(flags=flags, mode=mode, board=board, last_reason=Reason(values.pop("last_reason")), **values)


def _event(payload: bytes) -> Event:
    values = {name: int(value) for name, value in EVENT_LAYOUT.unpack(payload).items()}
    del values["version"]
    code, reason = EventCode(values.pop("code")), Reason(values.pop("reason"))
    event = Event(code=code, reason=reason, **values)
    # A detail that means nothing is refused here, so that nobody trips over it later.
    try:
        _ = event.refusal, event.reset_cause
    except ValueError as error:
        raise FrameError(f"event {code.name}: {error}") from error
    return event


def _statistics(payload: bytes) -> StatisticsFragment:
    size = STATISTICS_LAYOUT.size
    values = {name: int(value) for name, value in STATISTICS_LAYOUT.unpack(payload[:size]).items()}
    if len(payload) == size:
        raise FrameError("statistics: no data")
    if values["count"] > STATISTICS_FRAGMENT_LIMIT or values["index"] >= values["count"]:
        raise FrameError(f"statistics: fragment {values['index']} of {values['count']}")
    return StatisticsFragment(data=bytes(payload[size:]), **values)


def c_definitions() -> str:
    """Frame sizes, flags and override actions for the C header."""
    constants = {
        "FRAME_VERSION": FRAME_VERSION,
        "TELEMETRY_SIZE": TELEMETRY_LAYOUT.size,
        "EVENT_SIZE": EVENT_LAYOUT.size,
        "STATISTICS_HEADER_SIZE": STATISTICS_LAYOUT.size,
        "STATISTICS_FRAGMENT_LIMIT": STATISTICS_FRAGMENT_LIMIT,
        "OVERRIDE_SIZE": OVERRIDE_LAYOUT.size,
        "OVERRIDE_DOSE_LIMIT_E1_MM": 1000,
        "SETTINGS_ACTION": SETTINGS_ACTION,
        "SETTINGS_ENTRY_LIMIT": SETTINGS_ENTRY_LIMIT,
        "SETTINGS_ENTRY_SIZE": SETTINGS_ENTRY_LAYOUT.size,
    }
    return "\n".join(
        [
            c_constants(constants),
            c_enumeration(TelemetryFlag, "telemetry_flag"),
            c_enumeration(OverrideAction, "override_action"),
        ]
    )
