"""The codec in a network server shows what the reference means."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import shared_models
from shared_models.codes import Board, EventCode, Mode, Reason, Refusal
from shared_models.frames import NO_VALUE, Event, Override, OverrideAction, SettingsChange, Telemetry, TelemetryFlag
from shared_models.settings import Setting

CODEC = Path(shared_models.__file__).with_name("codec.js")


def call(function: str, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run one of the codec's functions over several inputs in one Node.js process."""
    program = f"{CODEC.read_text()}\nconsole.log(JSON.stringify({json.dumps(inputs)}.map({function})));"
    result = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def up(f_port: int, payload: bytes) -> dict[str, Any]:
    return {"fPort": f_port, "bytes": list(payload)}


def test_telemetry_reads_the_same() -> None:
    frame = Telemetry(
        1_720_000_000, TelemetryFlag.VALVE_OPEN | TelemetryFlag.DEEP_FAULT | TelemetryFlag.ANCHORED, Mode.PHYSICS,
        Board.STM32L432, 2987, 2654, NO_VALUE, 1834, -512, 214, 1200, 200, -37, 2400, Reason.DEPLETED, 7, 0xDEADBEEF, 1,
    )  # fmt: skip
    (result,) = call("decodeUplink", [up(10, frame.encode())])
    assert result["warnings"] == ["sensor fault: soil_moisture_deep"]
    assert result["data"] == {
        "time": 1_720_000_000, "valve_open": True, "update_active": False, "anchored": True, "mode": "physics",
        "board": "stm32l432", "battery_v": 2.987, "soil_moisture_shallow": 0.2654, "soil_moisture_deep": None,
        "soil_temperature_c": 18.34, "air_temperature_c": -5.12, "depletion_mm": 21.4,
        "total_available_water_mm": 120.0, "threshold": 0.2, "forecast_24h": -0.0037, "water_season_mm": 240.0,
        "model_version": 7, "backbone_id": 0xDEADBEEF, "last_reason": "depleted", "probation": True,
    }  # fmt: skip
    (normal,) = call("normalizeUplink", [result])
    assert normal["data"][0]["soil"] == {"moisture": pytest.approx(26.54), "temperature": 18.34}


def test_every_code_has_its_name() -> None:
    events = [Event(code, 5, reason=Reason.DEPLETED).encode() for code in EventCode]
    events += [Event(EventCode.UPDATE_REFUSED, 5, detail=refusal).encode() for refusal in Refusal]
    events += [Event(EventCode.WATERED, 5, reason=reason, dose_e1_mm=205).encode() for reason in Reason]
    results = [result["data"] for result in call("decodeUplink", [up(12, payload) for payload in events])]
    names = [code.name.lower() for code in EventCode]
    assert [result["event"] for result in results[: len(names)]] == names
    refusals = [refusal.name.lower() for refusal in Refusal]
    assert [result["refusal"] for result in results[len(names) : len(names) + len(refusals)]] == refusals
    assert [result["reason"] for result in results[-len(Reason) :]] == [reason.name.lower() for reason in Reason]
    assert results[-1]["dose_mm"] == 20.5


def test_overrides_are_the_references_bytes() -> None:
    wanted = [
        ({"action": "stop", "until": 4_000_000_000}, Override(OverrideAction.STOP, 4_000_000_000)),
        ({"action": "water", "dose_mm": 20.5}, Override(OverrideAction.WATER, 205)),
        ({"action": "resume"}, Override(OverrideAction.RESUME)),
    ]
    results = call("encodeDownlink", [{"data": data} for data, _ in wanted])
    assert [bytes(result["bytes"]) for result in results] == [override.encode() for _, override in wanted]
    assert [result["fPort"] for result in results] == [13, 13, 13]
    assert [result["data"] for result in call("decodeDownlink", results)] == [data for data, _ in wanted]


def test_changes_of_settings_are_the_references_bytes() -> None:
    wanted = [SettingsChange({setting: edge}) for setting in Setting for edge in setting.field.limits]
    wanted.append(SettingsChange({setting: setting.field.limits[0] for setting in list(Setting)[-8:]}))
    named = [
        {"action": "settings", "settings": {setting.name.lower(): value for setting, value in change.changes.items()}}
        for change in wanted
    ]
    results = call("encodeDownlink", [{"data": data} for data in named])
    assert [bytes(result["bytes"]) for result in results] == [change.encode() for change in wanted]
    assert [result["data"] for result in call("decodeDownlink", results)] == named


def test_changes_of_settings_outside_the_references_ranges_are_errors() -> None:
    beyond = [
        (setting, value) for setting in Setting for value in (setting.field.limits[0] - 1, setting.field.limits[1] + 1)
    ]
    orders = [{"action": "settings", "settings": {setting.name.lower(): value}} for setting, value in beyond]
    orders += [{"action": "settings", "settings": change} for change in ({}, {"board": 1}, {"dose_e1_mm": 1.5})]
    orders += [{"action": "settings"}]
    orders += [{"action": "settings", "settings": {s.name.lower(): s.field.limits[0] for s in list(Setting)[:9]}}]
    assert all(result["errors"] for result in call("encodeDownlink", [{"data": order} for order in orders]))
    payloads = [
        b"\4" + bytes([s]) + (v & 0xFFFFFFFF).to_bytes(4, "little") for s, v in beyond if s.field.limits[1] < 1 << 31
    ]
    payloads += [b"\4", b"\4\6\1\0\0", b"\4\0\1\0\0\0", b"\4\x12\1\0\0\0", b"\4" + b"\6\1\0\0\0" * 2]
    assert all(result["errors"] for result in call("decodeDownlink", [up(13, payload) for payload in payloads]))


def test_nonsense_is_an_error_not_a_reading() -> None:
    frames = [up(10, b""), up(10, bytes(37)), up(10, b"\1\0\x09\1" + bytes(33)), up(12, b"\1" + bytes(19)), up(99, b"")]
    assert all(result["errors"] for result in call("decodeUplink", frames))
    orders = [{}, {"action": "water"}, {"action": "water", "dose_mm": 200}, {"action": "stop"}, {"action": "flood"}]
    assert all(result["errors"] for result in call("encodeDownlink", [{"data": order} for order in orders]))
