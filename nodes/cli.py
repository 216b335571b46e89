"""``noria node``: build firmware, provision and flash nodes, look into them, and at what they cost."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from shared_models.codes import Board

if TYPE_CHECKING:
    from nodes.emulator.firmware import Firmware
    from nodes.programmer import Tool, What

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Build, provision, flash and inspect nodes.",
)
console = Console()
errors = Console(stderr=True)

FAILED = 1
UNUSABLE = 2

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FirmwareOption = Annotated[Path | None, typer.Option("--firmware", help="ELF instead of the one built here.")]


def fail(text: str, code: int = UNUSABLE) -> NoReturn:
    """Say why and leave."""
    errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def print_json(value: Any) -> None:  # noqa: ANN401  whatever JSON can hold
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def say(text: str) -> None:
    """A line for people."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def load_firmware(board: Board, path: Path | None) -> Firmware:
    """A board's firmware, or a clear end."""
    from nodes.emulator.firmware import Firmware, FirmwareError
    from nodes.firmware.build import elf_path

    chosen = path or elf_path(board)
    if path is None and not chosen.is_file():
        fail(f"the firmware for {board.name.lower()} is not built; run: noria node build")
    try:
        firmware = Firmware.load(chosen)
    except FirmwareError as error:
        fail(str(error))
    if firmware.board != board:
        fail(f"--firmware: {chosen} is for {firmware.board.name.lower()}, the node is {board.name.lower()}")
    return firmware


@app.callback()
def node() -> None:
    """Build, provision, flash and inspect nodes."""


@app.command()
def build() -> None:
    """Build both boards' firmware with PlatformIO, offline."""
    from nodes.firmware.build import FirmwareBuildError
    from nodes.firmware.build import build as build_firmware

    try:
        build_firmware()
    except FirmwareBuildError as error:
        fail(str(error), FAILED)


# noria node provision


@app.command()
def provision(
    dev_eui: Annotated[str | None, typer.Option(help="16 hex digits from the modem's label.")] = None,
    board: Annotated[str | None, typer.Option(help="stm32l072 or stm32l432.")] = None,
    crop: Annotated[
        str | None, typer.Option(help="maize, soybean, potato, dry_bean, tomato, sugar_beet, sorghum or wheat.")
    ] = None,
    planting_date: Annotated[str | None, typer.Option(help="Local day of planting, YYYY-MM-DD.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Such as Africa/Tunis; or --utc-offset-min.")] = None,
    utc_offset_min: Annotated[int | None, typer.Option(help="Local time minus UTC, minutes.")] = None,
    area_m2: Annotated[float | None, typer.Option(help="What the valve waters; with --flow-l-h.")] = None,
    flow_l_h: Annotated[float | None, typer.Option(help="Flow of all its emitters together.")] = None,
    application_rate_mm_h: Annotated[float | None, typer.Option(help="Instead of --flow-l-h.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Many nodes: CSV or TOML; options hold where a row is blank.")
    ] = None,
    release_key: Annotated[
        list[Path] | None,
        typer.Option(help="Public key (.pub) that signs releases; a second one can replace it should it be stolen."),
    ] = None,
    update_keys: Annotated[
        Path | None, typer.Option(help="Table from: noria server update-keys; without, no personal heads.")
    ] = None,
    no_updates: Annotated[bool, typer.Option("--no-updates", help="Trust no key: the node is never updated.")] = False,
    name: Annotated[str | None, typer.Option(help="The field's name.")] = None,
    join_eui: Annotated[str | None, typer.Option(help="LoRaWAN join server; zeros unless given.")] = None,
    app_key_file: Annotated[Path | None, typer.Option(help="32 hex digits, mode 0600; else made at random.")] = None,
    season_days: Annotated[int | None, typer.Option(help="Planting to harvest; else the crop's.")] = None,
    texture: Annotated[str | None, typer.Option(help="Of the soil if known: sand, loam, silt_loam, clay …")] = None,
    dose_mm: Annotated[float | None, typer.Option(help="One dose [20].")] = None,
    threshold: Annotated[float | None, typer.Option(help="Part of TAW depleted at which it waters [0.25].")] = None,
    window_start_h: Annotated[int | None, typer.Option(help="Watering allowed from, local hour [6].")] = None,
    window_end_h: Annotated[int | None, typer.Option(help="… until [10].")] = None,
    min_interval_h: Annotated[int | None, typer.Option(help="Least time between doses [20].")] = None,
    max_on_min: Annotated[int | None, typer.Option(help="Longest the valve stays open [240].")] = None,
    daily_cap_mm: Annotated[int | None, typer.Option(help="Most water in a day [40].")] = None,
    seasonal_cap_mm: Annotated[int | None, typer.Option(help="Most water in a season [900].")] = None,
    root_depth_max_cm: Annotated[int | None, typer.Option(help="Where roots end, if the soil does [100].")] = None,
    commissioning_days: Annotated[int | None, typer.Option(help="Drainage watched before planting [8].")] = None,
    telemetry_period_h: Annotated[int | None, typer.Option(help="Hours between telemetry [24].")] = None,
    statistics_period_h: Annotated[int | None, typer.Option(help="Hours between statistics [168].")] = None,
    valve: Annotated[str | None, typer.Option(help="held or latching [held].")] = None,
    model: Annotated[Path | None, typer.Option(help="Model for slot A instead of the packaged factory model.")] = None,
    firmware: FirmwareOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is written.")] = Path("nodes-out"),
    force: Annotated[bool, typer.Option("--force", help="Replace files; a node keeps its AppKey.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a node's image from its identity, keys and field.

    Per node it writes DEVEUI.hex (firmware and data region for the programmer), DEVEUI.bin (the data region alone)
    and DEVEUI.json (DevEUI, JoinEUI and AppKey for the network server), all readable by you only; and, without
    secrets, the [[nodes]] tables of the gateway's configuration.

    **Examples**

    * `noria node provision --dev-eui 70b3d57ed0000001 --board stm32l072 --crop maize --planting-date 2027-05-01
      --timezone Africa/Tunis --area-m2 500 --flow-l-h 4000 --release-key signing.key.pub -o north`

    * `noria node provision --table fields.csv --board stm32l072 --timezone Europe/Madrid
      --release-key signing.key.pub`
    """
    given = dict(locals())
    from nodes import provisioning
    from shared_models.configuration import ConfigurationError, read_secret
    from shared_models.factory import factory_image
    from shared_models.settings import NO_UPDATE_KEY

    answers = {key: given[key] for key in provisioning.NodeForm.model_fields if given.get(key) is not None}
    try:
        if app_key_file is not None:
            answers["app_key"] = read_secret(app_key_file).get_secret_value()
        if table is not None and {"dev_eui", "app_key", "name"} & set(answers):
            fail("--dev-eui, --name and --app-key-file belong to one node; in --table they are columns")
        forms = provisioning.read_forms(table, answers) if table else [provisioning.read_form(answers)]
        if bool(release_key) == no_updates:
            fail("give --release-key FILE.pub (made by: noria server keygen), or --no-updates, not both or neither")
        keys = provisioning.read_release_keys(release_key or [])
        personal = provisioning.read_update_keys(update_keys) if update_keys else {}
        if missing := [form.dev_eui for form in forms if update_keys and form.dev_eui not in personal]:
            fail(f"--update-keys: {update_keys} has no key for {missing[0]}")
        image = provisioning.read_model(model) if model else factory_image()
        today = datetime.now(UTC).date()
        notes = {form.dev_eui: provisioning.warnings_about(form, today) for form in forms}
        images = {
            each: provisioning.FirmwareImage(each, loaded.image, loaded.data_region)
            for each in {form.board for form in forms}
            for loaded in [load_firmware(each, firmware)]
        }
        made = [
            provisioning.provision(
                form.with_app_key(provisioning.app_key_on_record(output, form.dev_eui)),
                keys,
                image,
                images[form.board],
                personal.get(form.dev_eui, NO_UPDATE_KEY),
            )
            for form in forms
        ]
        paths = provisioning.write(made, output, force=force)
    except ConfigurationError as error:
        fail(f"--app-key-file: {error}")
    except provisioning.ProvisioningError as error:
        fail(str(error) if table else _as_options(str(error), provisioning.NodeForm.model_fields))
    if as_json:
        nodes = [
            {key: value for key, value in each.record.items() if key != "app_key"}
            | {"warnings": notes[each.form.dev_eui]}
            for each in made
        ]
        print_json({"nodes": nodes, "files": [str(path) for path in paths]})
        return
    for path in paths:
        say(f"{path}")
    for dev_eui_of, texts in notes.items():
        for text in texts:
            errors.print(f"{dev_eui_of}: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    say(f"next: noria node flash {paths[1]} (first with --emulator); DEVEUI.json is for the network server")


def _as_options(text: str, fields: Mapping[str, Any]) -> str:
    """The keys of a form in the words of the command line."""
    for key in sorted([*fields, "release_key", "update_keys"], key=len, reverse=True):
        option = "--app-key-file" if key == "app_key" else f"--{key.replace('_', '-')}"
        if "_" in key:
            text = text.replace(key, option)
        elif text.startswith(f"{key}:") or f"; {key}:" in text:
            text = text.replace(f"{key}:", f"{option}:")
    return text.replace("Field required", "is needed")


# noria node show


@app.command()
def show(
    image: Annotated[Path, typer.Argument(help="A .hex or .bin of provision, or a dump of a node's flash.")],
    as_json: JsonOption = False,
) -> None:
    """Tell what is in a node's data region: settings, models, boot record, last state. Keys are never printed.

    A damaged dump is told as far as it reads.

    **Examples**

    * `noria node show north/70b3d57ed0000001.hex`

    * `openocd -f interface/stlink.cfg -f target/stm32l4x.cfg -c init -c "reset halt"
      -c "dump_image dump.bin 0x0803A000 0x6000" -c shutdown; noria node show dump.bin`
    """
    from nodes.inspection import InspectionError, inspect, load_region

    try:
        told = inspect(load_region(image))
    except InspectionError as error:
        fail(str(error))
    if as_json:
        print_json(told)
        return
    for part, values in told.items():
        rows = values if isinstance(values, list) else [values]
        for row in rows:
            grid = Table(title=part.replace("_", " "), title_justify="left", show_header=False, box=None)
            for key, value in row.items():
                grid.add_row(key.replace("_", " "), "none" if value is None else str(value))
            console.print(grid)


# noria node flash


@app.command()
def flash(
    image: Annotated[Path, typer.Argument(help="The .hex of noria node provision.")],
    tool: Annotated[str | None, typer.Option(help="openocd or pyocd; else what is installed.")] = None,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Firmware only: settings, statistics, models and state stay.")
    ] = False,
    data_only: Annotated[
        bool, typer.Option("--data-only", help="Data region only: a new season, a new field.")
    ] = False,
    option_bytes: Annotated[
        bool, typer.Option("--option-bytes", help="Also set the brown-out reset to level 1 (L0 1.8 V, L4 2.0 V).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and do nothing.")] = False,
    emulator: Annotated[bool, typer.Option("--emulator", help="Run the image on the emulated board instead.")] = False,
    days: Annotated[int, typer.Option(min=1, max=400, help="With --emulator: how long.")] = 14,
    data_rate: Annotated[int, typer.Option(min=0, max=5, help="With --emulator: EU868 data rate.")] = 3,
    firmware: FirmwareOption = None,
    as_json: JsonOption = False,
) -> None:
    """Program a board, verify, and start it; or try the image on the emulated board.

    --option-bytes: below the voltage at which flash may be written a core does not stop, it goes wrong. The brown-out
    reset holds it in reset there, with the valve's line low. It is set once per board, and power must be steady.

    **Examples**

    * `noria node flash north/70b3d57ed0000001.hex --emulator --days 20`

    * `noria node flash north/70b3d57ed0000001.hex --option-bytes`

    * `noria node flash new-release.hex --keep-data --dry-run`
    """
    from nodes.inspection import InspectionError
    from nodes.programmer import ProgrammerError, load_image

    if tool not in (None, "openocd", "pyocd"):
        fail("--tool: must be openocd or pyocd")
    if keep_data and data_only:
        fail("--keep-data and --data-only exclude each other")
    what: What = "firmware" if keep_data else "data" if data_only else "all"
    try:
        if emulator:
            loaded = load_image(image)
            _try_out(loaded.board, loaded.firmware, loaded.region, firmware, days, data_rate, as_json=as_json)
        else:
            _program(image, what, tool, option_bytes=option_bytes, dry_run=dry_run, as_json=as_json)  # type: ignore[arg-type]
    except InspectionError as error:
        fail(str(error))
    except ProgrammerError as error:
        fail(str(error), FAILED)


def _program(image: Path, what: What, tool: Tool | None, *, option_bytes: bool, dry_run: bool, as_json: bool) -> None:
    """Through a debug probe."""
    import tempfile

    from nodes import programmer

    loaded = programmer.load_image(image)
    segments = programmer.select(loaded, what)
    chosen = (tool or "openocd") if dry_run else programmer.choose_tool(loaded.board, tool)
    with tempfile.TemporaryDirectory() as folder:
        selection = image.resolve() if what == "all" else Path(folder) / f"{what}.hex"
        if what != "all" and not dry_run:
            programmer.write_selection(segments, selection)
        lines = programmer.commands(chosen, loaded.board, selection, option_bytes=option_bytes)
        shown = [programmer.shell(line) for line in lines]
        if not dry_run:
            programmer.run(lines)
    written = [{"address": f"{start:#010x}", "bytes": len(data)} for start, data in segments]
    if as_json:
        print_json({"board": loaded.board.name.lower(), "written": written, "commands": shown, "done": not dry_run})
    elif dry_run:
        for line in shown:
            say(line)
    else:
        say(f"{loaded.board.name.lower()}: {what} written, verified and started")


def _try_out(
    board: Board,
    image: bytes | None,
    region: bytes | None,
    elf: Path | None,
    days: int,
    data_rate: int,
    *,
    as_json: bool,
) -> None:
    """On the emulated board."""
    from nodes.trial import TrialError, lines, try_out

    try:
        trial = try_out(load_firmware(board, elf), image, region or b"", days, data_rate)
    except TrialError as error:
        fail(str(error))
    if as_json:
        print_json(trial.as_json())
        return
    for line in lines(trial):
        say(line)
    doses = ", ".join(f"{minutes:g} min" for minutes in trial.doses_min) or "none"
    say(f"{trial.days} days: {trial.wakes} wakes, {trial.frames_sent} frames, {trial.air_time_s:.1f} s on air")
    say(f"doses: {doses}; {trial.resets} reset(s); {trial.cycles / max(trial.wakes, 1):,.0f} cycles a wake")
    largest = ", ".join(f"{name} {charge:.0f}" for name, charge in list(trial.energy_uah.items())[:4])
    say(f"charge, µAh: {largest}; at this rate one CR2032 lasts {trial.projected_life_years:.1f} years")


# noria node size, budget, energy


@app.command()
def size(*, as_json: JsonOption = False) -> None:
    """Flash and RAM of each board's image, from its ELF file."""
    from nodes.firmware.build import FirmwareBuildError, sizes

    try:
        used = {board.name.lower(): sizes(board) for board in Board}
    except FirmwareBuildError as error:
        fail(str(error), FAILED)
    if as_json:
        print_json({board: {"flash_bytes": each["flash"], "ram_bytes": each["ram"]} for board, each in used.items()})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("board", "flash, B", "static RAM, B"):
        table.add_column(heading, justify="right" if heading != "board" else "left")
    for board, each in used.items():
        table.add_row(board, f"{each['flash']:,}", f"{each['ram']:,}")
    console.print(table)


@app.command()
def budget(*, as_json: JsonOption = False) -> None:
    """Measure flash, RAM, stack and cycles on both boards against what they must be; exit code 1 if one is over.

    Builds the firmware if need be and runs it in the emulator for some seconds.
    """
    from nodes.budget import BudgetError, measure
    from nodes.firmware.build import FirmwareBuildError

    try:
        figures = measure()
    except (FirmwareBuildError, BudgetError) as error:
        fail(str(error), FAILED)
    if as_json:
        print_json({"figures": [figure.as_json() for figure in figures]})
    else:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("figure", "core", "value", "must be", "moonshot", ""):
            table.add_column(heading, justify="left" if heading in ("figure", "core", "") else "right")
        for figure in figures:
            sign = "≥" if figure.more_is_better else "≤"
            limits = [f"{sign} {limit:,}" if limit else "" for limit in (figure.must, figure.moonshot)]
            verdict = "" if figure.must is None else "pass" if figure.passes else "[red]over[/]"
            verdict = "moonshot" if figure.reaches_moonshot else verdict
            table.add_row(figure.name, figure.board, f"{figure.value:,} {figure.unit}", *limits, verdict)
        console.print(table)
    if not all(figure.passes for figure in figures):
        raise typer.Exit(FAILED)


@app.command()
def energy(
    board: Annotated[str, typer.Option(help="stm32l072 or stm32l432.")] = "stm32l072",
    data_rate: Annotated[int, typer.Option(min=0, max=5, help="EU868 data rate; 3 is SF9.")] = 3,
    temperature_c: Annotated[float, typer.Option(min=-40, max=85, help="Of the coin cell, all year.")] = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Tell where a year's charge goes and how long one coin cell lasts."""
    if board.upper() not in Board.__members__:
        fail(f"--board: must be one of {', '.join(each.name.lower() for each in Board)}")
    from nodes.energy_report import EnergyReportError, energy_report

    try:
        report = energy_report(Board[board.upper()], data_rate, temperature_c)
    except EnergyReportError as error:
        fail(str(error), FAILED)
    if as_json:
        print_json(report.to_json())
    else:
        console.print(report.to_table())
