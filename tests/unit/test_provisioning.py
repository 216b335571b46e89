"""A node's image is what was asked for, or nothing; and a dump tells what it holds, however damaged."""

import json
import random
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nodes import flash_map, intel_hex, programmer
from nodes.cli import app
from nodes.inspection import InspectionError, inspect, load_region, read_log
from nodes.provisioning import (
    FirmwareImage,
    ProvisioningError,
    gateway_tables,
    provision,
    read_form,
    read_forms,
    read_release_keys,
    warnings_about,
    write,
)
from nodes.scenario import spread_phase_s
from shared_models.codes import Board, Crop, Valve
from shared_models.factory import factory_image
from shared_models.settings import NO_KEY, SETTINGS_LAYOUT, Settings

HAL = Path(__file__).resolve().parents[2] / "nodes/firmware/core/hal.h"
ANSWERS = {
    "dev_eui": "70:B3:D5:7E:D0:00:00:01",
    "board": "stm32l072",
    "crop": "dry-bean",
    "planting_date": "2027-05-01",
    "timezone": "Africa/Tunis",
    "area_m2": 500,
    "flow_l_h": 4000,
}
KEY = bytes(range(32))
FIRMWARE = {
    board: FirmwareImage(board, b"\x12\x34\x56\x78" * 40, part.region) for board, part in flash_map.PARTS.items()
}


def form(**changes):
    return read_form(ANSWERS | changes)


def made(**changes):
    filled = form(**changes)
    return provision(filled, (KEY, NO_KEY), factory_image(), FIRMWARE[filled.board])


def test_the_map_is_that_of_the_firmware():
    defined = {
        name: int(value, 16) for name, value in re.findall(r"NORIA_FLASH_(\w+) (0x[0-9A-Fa-f]+)u", HAL.read_text())
    }
    single = {"SETTINGS": flash_map.SETTINGS, "STAGING": flash_map.STAGING}
    double = {"BOOT": flash_map.BOOT, "MODEL": flash_map.MODELS, "CHANGES": flash_map.CHANGES, "STATE": flash_map.STATE}
    assert defined["SIZE"] == flash_map.REGION_SIZE
    for name, area in single.items():
        assert (area.offset, area.size) == (defined[name], defined[f"{name}_SIZE"])
    for name, areas in double.items():
        assert [area.offset for area in areas] == [defined[f"{name}_A"], defined[f"{name}_B"]]
        assert {area.size for area in areas} == {defined[f"{name}_SIZE"]}


@pytest.mark.parametrize("board", list(Board))
def test_a_region_holds_page_and_model_and_is_blank_elsewhere(board):
    node = made(board=board.name.lower(), texture="loam", valve="latching", dose_mm=12.5)
    settings = Settings.unpack(node.region)
    assert (settings.dev_eui, settings.crop, settings.valve) == ("70b3d57ed0000001", Crop.DRY_BEAN, Valve.LATCHING)
    assert settings.planting_time_s == 1_809_147_600  # 2027-05-01 05:00 UTC, an hour behind Tunis
    assert (settings.utc_offset_min, settings.season, settings.season_days) == (60, 2027, 110)
    assert (settings.application_rate_e2_mm_h, settings.dose_e1_mm, settings.awc_prior_permille) == (800, 125, 155)
    assert settings.wake_phase_s == spread_phase_s(settings.dev_eui)
    assert settings.public_keys == (KEY, NO_KEY)
    assert settings.app_key.hex() == node.record["app_key"]
    slot = flash_map.MODELS[0].offset
    assert node.region[slot:].startswith(factory_image().pack())
    used = {*range(SETTINGS_LAYOUT.size), *range(slot, slot + len(factory_image().pack()))}
    assert {byte for at, byte in enumerate(node.region) if at not in used} == {flash_map.PARTS[board].erased}
    assert intel_hex.parse(node.hex_text) == [
        (flash_map.FLASH_BASE, FIRMWARE[board].image),
        (flash_map.PARTS[board].region, node.region),
    ]


def test_app_keys_are_made_once_and_differ():
    assert made().record["app_key"] != made().record["app_key"]
    assert made(app_key="AB" * 16).record["app_key"] == "ab" * 16


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dev_eui": "0" * 16}, "dev_eui: all zero"),
        ({"dev_eui": "70b3"}, "dev_eui: String should match"),
        ({"board": "stm32f103"}, "board: must be one of stm32l072, stm32l432"),
        ({"crop": "rice"}, "crop: must be one of maize"),
        ({"planting_date": "May"}, "planting_date: "),
        ({"timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is not known"),
        ({"utc_offset_min": 60}, "timezone or utc_offset_min: give one of the two"),
        ({"flow_l_h": None}, "application_rate_mm_h or flow_l_h: give one"),
        ({"area_m2": None}, "area_m2 is needed with flow_l_h"),
        ({"area_m2": 50_000}, "4000 l/h on 50000 m² is 0.08 mm/h"),
        ({"window_start_h": 10}, "window_start_h must be before window_end_h"),
        ({"max_on_min": 60}, "a dose of 20 mm at 8.00 mm/h takes 150 min"),
        ({"daily_cap_mm": 10}, "daily_cap_mm: one dose of 20 mm"),
        ({"seasonal_cap_mm": 30}, "seasonal_cap_mm is less"),
        ({"app_key": "secret"}, "app_key: String should match"),
        ({"depth": 3}, "depth: unknown key"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, told):
    with pytest.raises(ProvisioningError, match=re.escape(told)):
        form(**changes)


def test_every_settings_limit_is_met_by_the_form_or_named():
    """Whatever passes the form packs: its corners are tried against the page's own limits."""
    for changes in (
        {"dose_mm": 100, "daily_cap_mm": 255, "seasonal_cap_mm": 65_535, "max_on_min": 1440},
        {
            "dose_mm": 1,
            "daily_cap_mm": 1,
            "seasonal_cap_mm": 1,
            "application_rate_mm_h": 0.2,
            "flow_l_h": None,
            "max_on_min": 300,
        },
        {"threshold": 0.05, "season_days": 400, "root_depth_max_cm": 300, "commissioning_days": 60, "max_on_min": 150},
        {"window_start_h": 0, "window_end_h": 24, "telemetry_period_h": 255, "statistics_period_h": 65_535},
    ):
        assert inspect(made(**changes).region)["settings"]["valid"]


def test_dates_are_looked_at():
    assert warnings_about(form(), date(2027, 4, 1)) == []
    with pytest.raises(ProvisioningError, match="the season ended on 2027-08-19"):
        warnings_about(form(), date(2027, 9, 1))
    with pytest.raises(ProvisioningError, match="more than a year ahead"):
        warnings_about(form(), date(2026, 1, 1))
    assert "commissioning soak belonged on 2027-04-23" in warnings_about(form(), date(2027, 4, 24))[0]
    slow = form(application_rate_mm_h=2, flow_l_h=None, window_end_h=8, max_on_min=900)
    assert "a dose takes 10.0 h" in warnings_about(slow, date(2027, 4, 1))[0]
    autumn = form(timezone="Europe/Madrid", season_days=220)
    assert "changes its clocks" in warnings_about(autumn, date(2027, 4, 1))[0]


def test_a_table_of_nodes_takes_defaults_and_names_the_row_at_fault(tmp_path):
    table = tmp_path / "fields.csv"
    table.write_text(
        "dev_eui,name,crop,flow_l_h,area_m2,utc_offset_min,application_rate_mm_h\n"
        "70b3d57ed0000001,north,maize,4000,500,,\n"
        "70b3d57ed0000002,south,,,,120,6.5\n"
    )
    defaults = {"board": "stm32l432", "crop": "wheat", "planting_date": "2027-05-01", "timezone": "Africa/Tunis"}
    north, south = read_forms(table, defaults | {"flow_l_h": 1000.0})
    assert (north.crop, north.rate_mm_h, north.offset_min) == (Crop.MAIZE, 8.0, 60)
    assert (south.crop, south.rate_mm_h, south.offset_min) == (Crop.WHEAT, 6.5, 120)
    table.write_text(table.read_text() + "70b3d57ed0000003,west,rice,,,60,5\n")
    with pytest.raises(ProvisioningError, match=r"node 3 \(70b3d57ed0000003\): crop: must be one of"):
        read_forms(table, defaults)
    as_toml = tmp_path / "fields.toml"
    as_toml.write_text(
        '[defaults]\nboard = "stm32l072"\ncrop = "maize"\nplanting_date = 2027-05-01\nutc_offset_min = 60\n'
        "application_rate_mm_h = 8.0\n" + 2 * '[[nodes]]\ndev_eui = "70b3d57ed0000001"\n'
    )
    with pytest.raises(ProvisioningError, match="70b3d57ed0000001 is there twice"):
        read_forms(as_toml, {})


def test_release_keys_are_public_ones(tmp_path):
    private, public = tmp_path / "signing.key", tmp_path / "signing.key.pub"
    private.write_text("11" * 32)
    public.write_text(KEY.hex() + "\n")
    assert read_release_keys([public]) == (KEY, NO_KEY)
    with pytest.raises(ProvisioningError, match=r"is the private key; nodes get signing\.key\.pub"):
        read_release_keys([private])
    public.write_text("not a key")
    with pytest.raises(ProvisioningError, match="not a public key of 32 bytes"):
        read_release_keys([public])


def test_files_with_secrets_are_the_owners_alone_and_are_not_replaced_by_accident(tmp_path):
    node = made(name="north")
    paths = write([node], tmp_path, force=False)
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in paths}
    assert modes == {".bin": 0o600, ".hex": 0o600, ".json": 0o600, ".toml": 0o644}
    assert node.record["app_key"] not in gateway_tables([node])
    with pytest.raises(ProvisioningError, match="--force replaces it"):
        write([made()], tmp_path, force=False)
    assert json.loads(paths[2].read_text()) == node.record
    assert sorted(tmp_path.iterdir()) == sorted(paths)


# Intel HEX


def test_hex_is_read_as_written_across_64_kb():
    segments = [(0x0800_FFF0, bytes(range(64))), (0x0802_A000, b"\xff" * 33)]
    assert intel_hex.parse(intel_hex.render(segments)) == segments


def test_a_known_hex_record_is_understood():
    record = ":10010000214601360121470136007EFE09D2190140\n"
    assert intel_hex.parse(record + ":00000001FF\n") == [(0x0100, bytes.fromhex(record[9:41]))]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (":0000000100\n", "wrong checksum"),
        ("hello", "not an Intel HEX record"),
        (":020000040800F2\n", "cut off"),
        (intel_hex.render([(0, b"ab")]).replace(":00000001FF\n", "") + intel_hex.render([(1, b"c")]), "two records"),
    ],
)
def test_damaged_hex_is_refused(text, told):
    with pytest.raises(intel_hex.HexError, match=told):
        intel_hex.parse(text)


# Looking into dumps


def test_show_tells_everything_but_keys():
    node = made(app_key="5ec7e75ec7e75ec7e75ec7e75ec7e700")
    told = inspect(node.region)
    assert told["settings"]["dev_eui"] == "70b3d57ed0000001"
    assert told["settings"]["planting_date"] == "2027-05-01"
    assert told["models"][0]["valid"]
    assert told["models"][1] == {"slot": "b", "valid": False, "why": "blank"}
    text = json.dumps(told)
    assert "5ec7e75e" not in text
    assert KEY.hex() not in text


def test_no_damage_stops_the_telling():
    rng = random.Random(5)
    healthy = made().region
    for _ in range(200):
        region = bytearray(healthy)
        for _ in range(rng.randrange(1, 40)):
            at, length = rng.randrange(len(region)), rng.randrange(1, 400)
            region[at : at + length] = rng.randbytes(len(region[at : at + length]))
        json.dumps(inspect(bytes(region)))
    noise = inspect(rng.randbytes(flash_map.REGION_SIZE))
    assert not noise["settings"]["valid"]
    assert noise["state"]["why"] == "damaged: no complete record"


def test_records_that_claim_more_than_their_area_are_passed_over():
    region = bytearray(made().region)
    end = flash_map.BOOT[0].offset + flash_map.BOOT[0].size
    region[end - 16 : end - 8] = b"NR\xff\xff\x01\0\0\0"
    assert read_log(bytes(region), flash_map.BOOT) == []


def test_files_without_a_region_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(InspectionError, match="no data region in it"):
        load_region(path)
    whole = bytearray(flash_map.PARTS[Board.STM32L432].flash_size)
    whole[-flash_map.REGION_SIZE :] = made(board="stm32l432").region
    path.write_bytes(whole)
    assert load_region(path) == whole[-flash_map.REGION_SIZE :]


# Programmers


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "node.hex"
    path.write_text(made(board="stm32l072").hex_text)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_keeping_data_writes_no_byte_of_the_data_region(image):
    loaded = programmer.load_image(image)
    assert [start for start, _ in programmer.select(loaded, "firmware")] == [flash_map.FLASH_BASE]
    assert [start for start, _ in programmer.select(loaded, "data")] == [flash_map.PARTS[Board.STM32L072].region]


def test_a_dry_run_shows_the_command(image):
    answer = run("flash", image, "--dry-run", "--json", "--option-bytes")
    told = json.loads(answer.stdout)
    assert not told["done"]
    assert "target/stm32l0_dual_bank.cfg" in told["commands"][0]
    assert "verify_image" in told["commands"][0]
    assert "0x1FF80004" in told["commands"][0]


def test_a_missing_programmer_is_named_with_its_remedy(image, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    answer = run("flash", image)
    assert answer.exit_code == 1
    assert "sudo apt-get install openocd" in answer.stderr


@pytest.mark.skipif(shutil.which("openocd") is None, reason="openocd is not installed")
@pytest.mark.parametrize("board", list(Board))
def test_openocd_knows_our_targets_and_understands_every_step(board, tmp_path):
    """Its own Tcl runs our steps; only the commands that need a probe are replaced by ones that say their arguments."""
    ((program, *arguments),) = programmer.commands("openocd", board, tmp_path / "x.hex", option_bytes=True)
    stubs = ["init", "reset", "flash", "verify_image", "mww", "sleep", "stm32l4x"]
    speak = [f'proc {name} {{args}} {{ echo "did {name} $args" }}' for name in stubs]
    speak.append("proc read_memory {args} { return 0x807000AA }")
    at = arguments.index("-c")
    line = [program, *arguments[:at], *(part for text in speak for part in ("-c", text)), *arguments[at:]]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = [text for text in done.stderr.splitlines() if text.startswith("did ")]
    assert said[-1] == "did reset run"
    if board == Board.STM32L072:
        assert "did mww 0x1FF80004 2139586680" in said  # 0x7F878078: BOR_LEV 8, and its complement above
    else:
        assert "did stm32l4x option_write 0 0x20 0x100 0x700" in said


# The command line


def test_provision_names_the_option_at_fault():
    answer = run("provision", "--dev-eui", "70b3", "--board", "stm32l072", "--crop", "maize", "--utc-offset-min", "60")
    assert answer.exit_code == 2
    assert "--dev-eui: String should match" in answer.stderr
    assert "--planting-date: is needed" in answer.stderr


def test_provision_wants_a_release_key_or_to_be_told_that_there_is_none():
    options = [f"--{key.replace('_', '-')}={value}" for key, value in ANSWERS.items()]
    answer = run("provision", *options)
    assert answer.exit_code == 2
    assert "--release-key" in answer.stderr


def test_show_prints_json(image):
    told = json.loads(run("show", image, "--json").stdout)
    assert told["settings"]["board"] == "stm32l072"


@pytest.mark.parametrize("command", ["build", "provision", "show", "flash", "size", "budget", "energy"])
def test_every_command_has_help(command):
    answer = run(command, "--help")
    assert answer.exit_code == 0
    assert "Usage" in answer.stdout
