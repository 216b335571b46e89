"""Frames built by the firmware are, byte for byte, those of the reference."""

from __future__ import annotations

import ctypes

from hypothesis import given, settings
from hypothesis import strategies as st
from update_cases import LIBRARY

from shared_models.codes import Board, EventCode, Mode, Reason, ResetCause
from shared_models.frames import (
    Event,
    FrameError,
    Telemetry,
    TelemetryFlag,
    decode_override,
    decode_uplink,
    split_statistics,
)

U8, U16, U32, I16 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_int16
ANY_U16, ANY_U32, ANY_I16 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(-0x8000, 0x7FFF)
for name in ("telemetry", "event", "statistics"):
    getattr(LIBRARY, f"noria_frame_{name}").restype = ctypes.c_size_t
LIBRARY.noria_frame_statistics_count.restype = U8
LIBRARY.noria_frame_override.restype = ctypes.c_bool


class CTelemetry(ctypes.Structure):
    _fields_ = (
        ("time_s", U32), ("flags", U8), ("mode", U8), ("board", U8), ("last_reason", U8), ("probation", U8),
        ("battery_mv", U16), ("vwc_shallow_e4", I16), ("vwc_deep_e4", I16), ("soil_temp_c100", I16),
        ("air_temp_c100", I16),
        ("depletion_e1_mm", I16), ("taw_e1_mm", U16), ("threshold_permille", U16), ("forecast_24h_e4", I16),
        ("water_season_e1_mm", U16), ("model_version", U32), ("backbone_id", U32),
    )  # fmt: skip


class CEvent(ctypes.Structure):
    _fields_ = (
        ("time_s", U32), ("code", U8), ("reason", U8), ("detail", U8), ("dose_e1_mm", U16),
        ("depletion_e1_mm", I16), ("taw_e1_mm", U16), ("threshold_permille", U16), ("model_version", U32),
    )  # fmt: skip


class CStatistics(ctypes.Structure):
    _fields_ = (("session", U8), ("season", U16), ("backbone_id", U32), ("data", ctypes.c_char_p), ("length", U16))


class COverride(ctypes.Structure):
    _fields_ = (("action", U8), ("argument", U32))


def built(name: str, frame: ctypes.Structure) -> bytes:
    out = ctypes.create_string_buffer(64)
    size = getattr(LIBRARY, f"noria_frame_{name}")(out, ctypes.byref(frame))
    return out.raw[:size]


@settings(max_examples=100)
@given(st.data())
def test_telemetry_is_the_references(data: st.DataObject) -> None:
    choices = {"mode": Mode, "board": Board, "last_reason": Reason, "probation": (0, 1)}
    values = {
        name: int(data.draw(st.sampled_from(choices[name]) if name in choices else kinds))
        for name, kinds in (
            (name, {U8: st.integers(0, 255), U16: ANY_U16, U32: ANY_U32, I16: ANY_I16}[kind])
            for name, kind in CTelemetry._fields_
        )
    }
    payload = built("telemetry", CTelemetry(**values))
    reference = Telemetry(**{**values, "flags": TelemetryFlag(values["flags"])})
    assert payload == reference.encode()
    assert decode_uplink(10, payload) == reference


@settings(max_examples=100)
@given(
    ANY_U32,
    st.sampled_from(EventCode),
    st.sampled_from(Reason),
    st.sampled_from([*ResetCause]),
    ANY_U16,
    ANY_I16,
    ANY_U32,
)
def test_events_are_the_references(
    time_s: int, code: EventCode, reason: Reason, detail: int, dose: int, depletion: int, version: int
) -> None:
    frame = CEvent(time_s, code, reason, detail, dose, depletion, 900, 200, version)
    reference = Event(code, time_s, reason, detail, dose, depletion, 900, 200, version)
    assert built("event", frame) == reference.encode()


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=700), st.sampled_from([9, 10, 51, 115, 222]))
def test_statistics_fragments_are_the_references(snapshot: bytes, limit: int) -> None:
    frame = CStatistics(5, 2024, 0xDEADBEEF, snapshot, len(snapshot))
    try:
        reference = split_statistics(snapshot, session=5, season=2024, backbone_id=0xDEADBEEF, payload_limit=limit)
    except FrameError:
        reference = []
    assert LIBRARY.noria_frame_statistics_count(ctypes.byref(frame), U16(limit)) == len(reference)
    for index in range(len(reference) + 1):
        out = ctypes.create_string_buffer(limit + 1)
        size = LIBRARY.noria_frame_statistics(out, U16(limit), ctypes.byref(frame), U8(index))
        assert out.raw[:size] == (reference[index].encode() if index < len(reference) else b"")


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=8), st.builds(
    lambda action, argument: bytes([action]) + argument.to_bytes(4, "little"), st.integers(0, 4),
    st.one_of(st.integers(0, 1100), ANY_U32),
)))  # fmt: skip
def test_overrides_are_read_and_refused_alike(payload: bytes) -> None:
    override = COverride()
    accepted = LIBRARY.noria_frame_override(payload, ctypes.c_size_t(len(payload)), ctypes.byref(override))
    try:
        reference = decode_override(payload)
    except FrameError:
        assert not accepted
        return
    assert accepted
    assert (override.action, override.argument) == (reference.action, reference.argument)
