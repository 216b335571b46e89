"""Every frame survives its journey, and nothing else is taken for one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_models.airtime import MAX_PAYLOAD
from shared_models.codes import Board, EventCode, FPort, Mode, Reason, ResetCause
from shared_models.fragmentation import SessionStatusAnswer, encode_answer
from shared_models.frames import (
    NO_VALUE,
    Event,
    FrameError,
    Override,
    OverrideAction,
    SettingsChange,
    Telemetry,
    TelemetryFlag,
    decode_override,
    decode_settings_change,
    decode_uplink,
    join_statistics,
    split_statistics,
)
from shared_models.settings import Setting

U16, U32, I16 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(-0x8000, 0x7FFF)

TELEMETRY = st.builds(
    Telemetry,
    time_s=U32,
    flags=st.integers(0, 255).map(TelemetryFlag),
    mode=st.sampled_from(Mode),
    board=st.sampled_from(Board),
    battery_mv=U16,
    vwc_shallow_e4=I16,
    vwc_deep_e4=I16,
    soil_temp_c100=I16,
    air_temp_c100=I16,
    depletion_e1_mm=I16,
    taw_e1_mm=U16,
    threshold_permille=U16,
    forecast_24h_e4=I16,
    water_season_e1_mm=U16,
    last_reason=st.sampled_from(Reason),
    probation=st.integers(0, 1),
    model_version=U32,
    backbone_id=U32,
)
EVENT = st.builds(
    Event,
    code=st.sampled_from(EventCode),
    time_s=U32,
    reason=st.sampled_from(Reason),
    detail=st.sampled_from([*ResetCause]),  # every one of them is a refusal and a mask of sensors too
    dose_e1_mm=U16,
    depletion_e1_mm=I16,
    taw_e1_mm=U16,
    threshold_permille=U16,
    model_version=U32,
)


@given(TELEMETRY)
def test_telemetry_survives_and_fits_the_slowest_data_rate(telemetry: Telemetry) -> None:
    payload = telemetry.encode()
    assert len(payload) <= MAX_PAYLOAD[0]
    assert decode_uplink(FPort.TELEMETRY, payload) == telemetry


@given(EVENT)
def test_events_survive_and_fit_the_slowest_data_rate(event: Event) -> None:
    payload = event.encode()
    assert len(payload) <= MAX_PAYLOAD[0]
    assert decode_uplink(FPort.EVENTS, payload) == event


def test_telemetry_flags_have_readable_names() -> None:
    frame = Telemetry(
        0, TelemetryFlag.DEEP_FAULT | TelemetryFlag.ANCHORED, Mode.MODEL, Board.STM32L072, 3000, 2500, NO_VALUE, 0, 0,
        0, 0, 200, 0, 0, Reason.NOT_NEEDED, 1, 2, 0,
    )  # fmt: skip
    assert frame.sensor_fault
    assert frame.anchored
    assert not frame.valve_open
    assert not frame.update_active


@given(st.binary(min_size=1, max_size=1000), st.sampled_from([51, 115, 222]), st.randoms(use_true_random=False))
def test_statistics_survive_any_order_and_duplicates(data: bytes, limit: int, shuffler: random.Random) -> None:
    fragments = split_statistics(data, session=300, season=2024, backbone_id=7, payload_limit=limit)
    decoded = []
    for fragment in [*fragments, fragments[0]]:
        payload = fragment.encode()
        assert len(payload) <= limit
        decoded.append(decode_uplink(FPort.STATISTICS, payload))
    shuffler.shuffle(decoded)
    assert join_statistics(decoded) == data


def test_incomplete_or_mixed_statistics_are_refused() -> None:
    fragments = split_statistics(bytes(100), session=1, season=2024, backbone_id=7, payload_limit=51)
    other = split_statistics(bytes(100), session=2, season=2024, backbone_id=7, payload_limit=51)
    forged = split_statistics(bytes([1]) * 100, session=1, season=2024, backbone_id=7, payload_limit=51)
    for wrong in ([], fragments[1:], [*fragments, other[0]], [*fragments, forged[0]]):
        with pytest.raises(FrameError):
            join_statistics(wrong)
    with pytest.raises(FrameError):
        split_statistics(bytes(100), session=1, season=2024, backbone_id=7, payload_limit=9)


@given(st.integers(-1, 300), st.binary(max_size=260))
def test_arbitrary_bytes_decode_or_are_refused(f_port: int, payload: bytes) -> None:
    try:
        frame = decode_uplink(f_port, payload)
    except FrameError:
        return
    assert f_port == FPort.FRAGMENTATION or frame.encode() == payload


@pytest.mark.parametrize("f_port", [FPort.TELEMETRY, FPort.EVENTS])
def test_every_wrong_length_is_refused(f_port: int) -> None:
    right = {10: 38, 12: 20}[f_port]
    for length in range(80):
        payload = bytes([1] * length)
        if length == right:
            continue
        with pytest.raises(FrameError):
            decode_uplink(f_port, payload)


@pytest.mark.parametrize(("offset", "value"), [(0, 2), (2, 4), (3, 0), (36, 200)])
def test_a_telemetry_field_outside_its_range_is_refused(offset: int, value: int) -> None:
    good = bytearray(38)
    good[0] = good[3] = 1
    decode_uplink(FPort.TELEMETRY, bytes(good))
    good[offset] = value
    with pytest.raises(FrameError):
        decode_uplink(FPort.TELEMETRY, bytes(good))


def test_fragmentation_answers_arrive_on_their_port() -> None:
    answer = SessionStatusAnswer(0, 17, 3, out_of_memory=False)
    frame = decode_uplink(FPort.FRAGMENTATION, encode_answer(answer))
    assert frame.answers == (answer,)


@pytest.mark.parametrize(
    "override",
    [
        Override(OverrideAction.STOP, 0xFFFFFFFF),
        Override(OverrideAction.WATER, 1),
        Override(OverrideAction.WATER, 1000),
        Override(OverrideAction.RESUME),
    ],
)
def test_overrides_survive(override: Override) -> None:
    assert decode_override(override.encode()) == override


@pytest.mark.parametrize(
    "payload", [b"", b"\1\0\0\0", b"\4\0\0\0\0", b"\2\0\0\0\0", b"\2\xe9\3\0\0", b"\3\1\0\0\0", bytes(6)]
)
def test_senseless_overrides_are_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode_override(payload)


@given(
    st.dictionaries(st.sampled_from(Setting), st.integers(0, 1 << 32), min_size=1, max_size=8).map(
        lambda drawn: {s: s.field.limits[0] + v % (s.field.limits[1] - s.field.limits[0] + 1) for s, v in drawn.items()}
    )
)
def test_changes_of_settings_survive_and_fit_the_slowest_downlink(changes: dict[Setting, int]) -> None:
    payload = SettingsChange(changes).encode()
    assert len(payload) <= MAX_PAYLOAD[0]
    assert decode_settings_change(payload).changes == changes


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "0 changes"),
        ({setting: setting.field.limits[0] for setting in list(Setting)[:9]}, "9 changes"),
        ({Setting.DOSE_E1_MM: 1001}, "dose_e1_mm 1001 is not within 1..1000"),
        ({Setting.UTC_OFFSET_MIN: -841}, "utc_offset_min"),
    ],
)
def test_a_change_no_node_would_take_is_not_sent(changes: dict[Setting, int], why: str) -> None:
    with pytest.raises(FrameError, match=why):
        SettingsChange(changes).encode()


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "action byte"),
        (b"\1\6\1\0\0\0", "action byte"),
        (b"\4", "0 changes"),
        (b"\4\6\1\0\0", "whole entries"),
        (b"\4\0\1\0\0\0", "setting"),
        (b"\4\x12\1\0\0\0", "setting"),
        (b"\4" + b"\6\1\0\0\0" * 2, "named twice"),
        (b"\4\6\0\0\0\0", "not within"),
        (b"\4\x11" + (-841 & 0xFFFFFFFF).to_bytes(4, "little"), "not within"),
        (b"\4\x11\x00\xfc\x00\x00", "not within"),
    ],
)
def test_senseless_changes_of_settings_are_refused(payload: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        decode_settings_change(payload)


def test_a_field_outside_its_range_is_not_sent() -> None:
    with pytest.raises(FrameError, match="dose_e1_mm"):
        Event(EventCode.WATERED, 0, dose_e1_mm=70000).encode()
    with pytest.raises(FrameError):
        Override(OverrideAction.WATER, 5000).encode()
