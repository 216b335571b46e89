"""From the command line to a living node: what provision writes boots on both boards and says what it was told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from nodes import budget
from nodes.cli import app
from nodes.emulator.node import EmulatedNode
from nodes.inspection import inspect
from nodes.provisioning import FirmwareImage, provision, read_form
from nodes.stack import deepest_stack
from nodes.trial import DAY_S, TrialAir, TrialPlot
from shared_models.factory import factory_image
from shared_models.frames import Telemetry, decode_uplink
from shared_models.settings import NO_KEY, SETTINGS_SIZE


def run(*arguments):
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == 0, answer.stderr
    return answer.stdout


@pytest.fixture
def options(firmware):
    planting = (datetime.now(UTC) + timedelta(days=20)).date()
    return [
        *("--dev-eui", "70b3d57ed0000042", "--board", firmware.board.name.lower(), "--crop", "maize"),
        *("--planting-date", planting, "--utc-offset-min", "120", "--application-rate-mm-h", "10"),
        *("--threshold", "0.05", "--telemetry-period-h", "12", "--no-updates"),
    ]


def test_a_provisioned_image_is_shown_tried_and_lives_as_told(options, tmp_path) -> None:
    made = json.loads(run("provision", *options, "-o", tmp_path, "--json"))
    assert made["nodes"][0]["warnings"] == []
    image = tmp_path / "70b3d57ed0000042.hex"
    assert json.loads(run("show", image, "--json"))["settings"]["threshold"] == 0.05
    trial = json.loads(run("flash", image, "--emulator", "--days", "13", "--json"))
    assert (trial["wakes"], trial["resets"]) == (13 * 96, 1)
    telemetry = [entry["told"] for entry in trial["entries"] if entry["what"] == "telemetry"]
    assert len(telemetry) == pytest.approx(26, abs=1)
    assert telemetry[0]["mode"] == "commissioning"
    assert telemetry[-1]["mode"] == "model"
    assert trial["doses_min"][0] == pytest.approx(120, abs=1)
    dose = next(entry for entry in trial["entries"] if entry["what"] == "valve opens")
    # The watering window begins at six, local, two hours ahead of UTC.
    assert dose["time"][11:14] == "04:"


def test_provisioning_again_keeps_the_app_key(options, tmp_path) -> None:
    record = tmp_path / "70b3d57ed0000042.json"
    run("provision", *options, "-o", tmp_path)
    before = json.loads(record.read_text())
    run("provision", *options, "-o", tmp_path, "--dose-mm", "15", "--force")
    assert json.loads(record.read_text())["app_key"] == before["app_key"]


def test_a_dump_after_a_while_tells_what_telemetry_told(firmware) -> None:
    form = read_form(
        {
            "dev_eui": "70b3d57ed0000042",
            "board": firmware.board.name.lower(),
            "crop": "maize",
            "planting_date": "2027-05-01",
            "utc_offset_min": 0,
            "application_rate_mm_h": 10,
            "commissioning_days": 3,
        }
    )
    shipped = FirmwareImage(firmware.board, firmware.image, firmware.data_region)
    region = provision(form, (NO_KEY, NO_KEY), factory_image(), shipped).region
    start_s = form.planting_time_s - 3 * DAY_S
    air = TrialAir()
    node = EmulatedNode(firmware, region[:SETTINGS_SIZE], None, TrialPlot(start_s, 10.0), air, start_s, 3)
    node.provision_flash(region)
    node.run_until(start_s + 6 * DAY_S + 3600)
    frames = [decode_uplink(f_port, payload) for _, f_port, payload in air.uplinks]
    last = [frame for frame in frames if isinstance(frame, Telemetry)][-1]
    told = inspect(node.flash)
    assert told["state"]["valid"]
    assert told["state"]["day"] == "2027-05-04"
    assert told["state"]["depletion_mm"] == pytest.approx(last.depletion_e1_mm / 10, abs=0.06)
    assert told["boot"]["active_slot"] == "a"
    assert told["models"][0]["as_recorded"]
    assert told["models"][0]["active"]


def test_the_bound_on_the_stack_holds_for_a_node_that_takes_an_update(firmware) -> None:
    seen = budget.stack_watermark_bytes(firmware)
    assert 1000 < seen <= deepest_stack(firmware)


def test_inference_is_counted_and_right(firmware) -> None:
    cycles = budget.inference_cycles(firmware)
    assert len(cycles) == budget.INFERENCES
    assert 1000 < max(cycles) <= 9000
