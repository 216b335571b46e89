"""What a node is given before it goes to its field: identity, keys, field settings, and the factory model.

A :class:`NodeForm` is what a person fills in, on the command line or as a row of a table; :func:`provision` makes of
it the node's data region, a file for the programmer, and the record by which the network server knows the node.
"""

from __future__ import annotations

import csv
import json
import secrets
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nodes import intel_hex
from nodes.field.crops import FIELD_CROPS
from nodes.flash_map import FLASH_BASE, MODELS, PARTS, REGION_SIZE, SETTINGS
from nodes.scenario import DAWN, spread_phase_s
from shared_models.codes import Board, Crop, Valve
from shared_models.configuration import create_file, explain
from shared_models.container import key_id
from shared_models.messages import DevEui
from shared_models.network import ModelError, ModelImage
from shared_models.settings import (
    KEY_COUNT,
    KEY_SIZE,
    NO_KEY,
    NO_UPDATE_KEY,
    SHIPPED_THRESHOLD_PERMILLE,
    UPDATE_KEY_SIZE,
    Settings,
    SettingsError,
)

APP_KEY_BYTES = 16
SECRET_MODE, PUBLIC_MODE = 0o600, 0o644
RATE_LOW_MM_H, RATE_HIGH_MM_H = 0.2, 60.0
FARTHEST_PLANTING_DAYS = 366
LOCAL_TIME_KEYS = ("timezone", "utc_offset_min")

AWC_BY_TEXTURE_PERMILLE = {
    "sand": 80,
    "loamy_sand": 90,
    "sandy_loam": 130,
    "loam": 155,
    "silt_loam": 160,
    "silt": 180,
    "silt_clay_loam": 155,
    "silty_clay": 160,
    "clay": 160,
}
"""FAO-56 table 19: the middle of the range of θFC − θWP, ‰ of volume."""

Texture = Literal[
    "sand", "loamy_sand", "sandy_loam", "loam", "silt_loam", "silt", "silt_clay_loam", "silty_clay", "clay"
]


class ProvisioningError(ValueError):
    """A node that cannot be provisioned as asked; the text says what to change."""


# The form


def _hexadecimal(value: object) -> object:
    """Hexadecimal as people copy it: with colons, hyphens or spaces, in either case."""
    return (
        "".join(character for character in value if character not in ":- ").lower() if isinstance(value, str) else value
    )


def _by_name(kind: type[Board | Crop | Valve]) -> BeforeValidator:
    def read(value: object) -> object:
        if isinstance(value, kind):
            return value
        name = value.strip().lower().replace("-", "_").upper() if isinstance(value, str) else ""
        if name in kind.__members__:
            return kind[name]
        raise ValueError(f"must be one of {', '.join(member.lower() for member in kind.__members__)}")

    return BeforeValidator(read)


class NodeForm(BaseModel):
    """One node and its field, in the units people use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dev_eui: Annotated[DevEui, BeforeValidator(_hexadecimal)]
    board: Annotated[Board, _by_name(Board)]
    crop: Annotated[Crop, _by_name(Crop)]
    planting_date: date
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The field's name; the DevEUI when left out."""
    join_eui: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$"), BeforeValidator(_hexadecimal)] = "0" * 16
    app_key: Annotated[str | None, BeforeValidator(_hexadecimal)] = Field(
        default=None, pattern=r"^[0-9a-f]{32}$", repr=False
    )
    """LoRaWAN root key; made at random when left out."""
    timezone: str | None = None
    """An IANA name; its offset on the planting day holds for the season."""
    utc_offset_min: Annotated[int, Field(ge=-720, le=840)] | None = None
    season_days: Annotated[int, Field(ge=10, le=400)] | None = None
    """Planting to harvest; the crop's when left out."""
    area_m2: Annotated[float, Field(gt=0.0, le=10_000_000.0)] | None = None
    flow_l_h: Annotated[float, Field(gt=0.0)] | None = None
    application_rate_mm_h: float | None = None
    texture: Texture | None = None
    """Of the soil, if it is known."""
    dose_mm: Annotated[float, Field(ge=1.0, le=100.0)] = 20.0
    threshold: Annotated[float, Field(ge=0.05, le=0.8)] = SHIPPED_THRESHOLD_PERMILLE / 1000
    """Fraction of TAW depleted at which the node waters."""
    window_start_h: Annotated[int, Field(ge=0, le=23)] = 6
    window_end_h: Annotated[int, Field(ge=1, le=24)] = 10
    min_interval_h: Annotated[int, Field(ge=0, le=255)] = 20
    max_on_min: Annotated[int, Field(ge=1, le=1440)] = 240
    daily_cap_mm: Annotated[int, Field(ge=1, le=255)] = 40
    seasonal_cap_mm: Annotated[int, Field(ge=1, le=65_535)] = 900
    root_depth_max_cm: Annotated[int, Field(ge=10, le=300)] = 100
    commissioning_days: Annotated[int, Field(ge=1, le=60)] = 8
    telemetry_period_h: Annotated[int, Field(ge=1, le=255)] = 24
    statistics_period_h: Annotated[int, Field(ge=1, le=65_535)] = 168
    valve: Annotated[Valve, _by_name(Valve)] = Valve.HELD

    @model_validator(mode="after")
    def _identified(self) -> Self:
        if set(self.dev_eui) == {"0"}:
            raise ValueError("dev_eui: all zero is nobody; it is printed on the modem's label")
        return self

    @model_validator(mode="after")
    def _located_in_time(self) -> Self:
        if (self.timezone is None) == (self.utc_offset_min is None):
            raise ValueError("timezone or utc_offset_min: give one of the two, the node keeps local hours")
        if self.timezone is not None:
            try:
                ZoneInfo(self.timezone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(
                    f"timezone: {self.timezone!r} is not known here; a name such as Africa/Tunis, or utc_offset_min"
                ) from error
        return self

    @model_validator(mode="after")
    def _watered(self) -> Self:
        if (self.application_rate_mm_h is None) == (self.flow_l_h is None):
            raise ValueError("application_rate_mm_h or flow_l_h: give one of the two, flow_l_h with area_m2")
        if self.flow_l_h is not None and self.area_m2 is None:
            raise ValueError("area_m2 is needed with flow_l_h: the flow of all emitters on the area they water")
        if not RATE_LOW_MM_H <= self.rate_mm_h <= RATE_HIGH_MM_H:
            how = f"{self.flow_l_h:g} l/h on {self.area_m2:g} m² is " if self.flow_l_h and self.area_m2 else ""
            raise ValueError(
                f"application_rate_mm_h: {how}{self.rate_mm_h:.2f} mm/h; irrigation gives {RATE_LOW_MM_H:g} to "
                f"{RATE_HIGH_MM_H:g} mm/h, so check area_m2 and the flow of all emitters together"
            )
        if self.window_start_h >= self.window_end_h:
            raise ValueError("window_start_h must be before window_end_h: the watering window is empty")
        return self

    @model_validator(mode="after")
    def _within_caps(self) -> Self:
        if self.dose_mm > self.daily_cap_mm:
            raise ValueError(f"daily_cap_mm: one dose of {self.dose_mm:g} mm is more than {self.daily_cap_mm} mm a day")
        if self.daily_cap_mm > self.seasonal_cap_mm:
            raise ValueError("seasonal_cap_mm is less than daily_cap_mm")
        needs_min = 60 * self.dose_mm / self.rate_mm_h
        if needs_min > self.max_on_min:
            raise ValueError(
                f"max_on_min: a dose of {self.dose_mm:g} mm at {self.rate_mm_h:.2f} mm/h takes {needs_min:.0f} min, "
                f"and the valve may stay open {self.max_on_min} min; raise it or lower dose_mm"
            )
        return self

    @property
    def rate_mm_h(self) -> float:
        """What the valve delivers: 1 l on 1 m² is 1 mm."""
        if self.application_rate_mm_h is not None:
            return self.application_rate_mm_h
        return (self.flow_l_h or 0.0) / (self.area_m2 or 1.0)

    @property
    def season_length_days(self) -> int:
        """Planting to harvest."""
        return self.season_days or FIELD_CROPS[self.crop].season_days

    @property
    def offset_min(self) -> int:
        """Local time minus UTC on the day of planting."""
        if self.timezone is None:
            return self.utc_offset_min or 0
        offset = datetime.combine(self.planting_date, DAWN, ZoneInfo(self.timezone)).utcoffset()
        return int((offset or timedelta()).total_seconds()) // 60

    @property
    def planting_time_s(self) -> int:
        """06:00 local of the day of planting, Unix seconds."""
        return int(datetime.combine(self.planting_date, DAWN, UTC).timestamp()) - 60 * self.offset_min

    def with_app_key(self, app_key: str | None) -> NodeForm:
        """The same node, with this AppKey unless it names its own."""
        return self.model_copy(update={"app_key": self.app_key or app_key})

    def settings(self, app_key: bytes, public_keys: tuple[bytes, bytes], update_key: bytes) -> Settings:
        """The node's settings page."""
        return Settings(
            dev_eui=self.dev_eui,
            join_eui=self.join_eui,
            app_key=app_key,
            public_keys=public_keys,
            update_key=update_key,
            board=self.board,
            crop=self.crop,
            planting_time_s=self.planting_time_s,
            season_days=self.season_length_days,
            season=self.planting_date.year,
            utc_offset_min=self.offset_min,
            wake_phase_s=spread_phase_s(self.dev_eui),
            application_rate_e2_mm_h=round(100 * self.rate_mm_h),
            dose_e1_mm=round(10 * self.dose_mm),
            threshold_permille=round(1000 * self.threshold),
            awc_prior_permille=AWC_BY_TEXTURE_PERMILLE[self.texture] if self.texture else 0,
            max_on_s=60 * self.max_on_min,
            min_interval_h=self.min_interval_h,
            daily_cap_mm=self.daily_cap_mm,
            seasonal_cap_mm=self.seasonal_cap_mm,
            window_start_h=self.window_start_h,
            window_end_h=self.window_end_h,
            commissioning_days=self.commissioning_days,
            telemetry_period_h=self.telemetry_period_h,
            statistics_period_h=self.statistics_period_h,
            root_depth_max_cm=self.root_depth_max_cm,
            valve=self.valve,
        )


def read_form(values: Mapping[str, Any]) -> NodeForm:
    """Check what was filled in; blank entries count as left out.

    Raises:
        ProvisioningError: a key is unknown, missing or out of range; the text names each.
    """
    try:
        return NodeForm.model_validate({key: value for key, value in values.items() if value not in (None, "")})
    except ValidationError as error:
        raise ProvisioningError(explain(error).replace("(top level): ", "").replace("Value error, ", "")) from error


def read_forms(path: Path, defaults: Mapping[str, Any]) -> list[NodeForm]:
    """Many nodes from a table: CSV with a heading line, or TOML with ``[defaults]`` and ``[[nodes]]``.

    Args:
        path: The table; its ending tells which.
        defaults: What holds for nodes whose row says nothing else.

    Raises:
        ProvisioningError: the file or one of its rows cannot be used; the text names the row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".toml":
            table = tomllib.loads(text)
            unknown = set(table) - {"defaults", "nodes"}
            rows = [_over(table.get("defaults", {}), row) for row in table.get("nodes", [])]
            if unknown:
                raise ProvisioningError(f"{path}: {', '.join(sorted(unknown))}: unknown table")
        else:
            rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True, restkey="more cells than headings"))
    except OSError as error:
        raise ProvisioningError(f"{path}: cannot read it: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ProvisioningError(f"{path}: not a table of nodes: {error}") from error
    if not rows:
        raise ProvisioningError(f"{path}: no nodes in it; one row per node, columns named like the options")
    forms = []
    for number, row in enumerate(rows, 1):
        given = {key: value for key, value in row.items() if value not in (None, "")}
        try:
            forms.append(read_form(_over(defaults, given)))
        except ProvisioningError as error:
            raise ProvisioningError(f"{path}: node {number} ({given.get('dev_eui', 'no dev_eui')}): {error}") from error
    repeated = [dev_eui for dev_eui, times in Counter(form.dev_eui for form in forms).items() if times > 1]
    if repeated:
        raise ProvisioningError(f"{path}: dev_eui {repeated[0]} is there twice")
    return forms


def _over(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A row above its defaults; where a row says it one way, the default's other way does not hold."""
    overruled: set[str] = set()
    if any(key in given for key in LOCAL_TIME_KEYS):
        overruled |= set(LOCAL_TIME_KEYS)
    if "application_rate_mm_h" in given:
        overruled.add("flow_l_h")
    elif "flow_l_h" in given:
        overruled.add("application_rate_mm_h")
    return {key: value for key, value in defaults.items() if key not in overruled} | dict(given)


def warnings_about(form: NodeForm, today: date) -> list[str]:
    """What is allowed and yet worth a second look.

    Raises:
        ProvisioningError: the season is over or lies too far ahead, so a date must be wrong.
    """
    planting, harvest = form.planting_date, form.planting_date + timedelta(days=form.season_length_days)
    if harvest <= today:
        raise ProvisioningError(
            f"planting_date: {form.dev_eui}, planted on {planting}: the season ended on {harvest}; check the year"
        )
    if planting > today + timedelta(days=FARTHEST_PLANTING_DAYS):
        raise ProvisioningError(f"planting_date: {form.dev_eui}: {planting} is more than a year ahead; check the year")
    notes = []
    soak = planting - timedelta(days=form.commissioning_days)
    if soak < today:
        notes.append(
            f"the commissioning soak belonged on {soak}; without it the node learns its upper limit at a later "
            "soaking and is more careful until then"
        )
    hours = form.dose_mm / form.rate_mm_h
    if hours > form.window_end_h - form.window_start_h:
        notes.append(
            f"a dose takes {hours:.1f} h, and the watering window, {form.window_start_h} to {form.window_end_h} h, "
            "cuts it short"
        )
    if form.timezone is not None:
        later = datetime.combine(harvest, DAWN, ZoneInfo(form.timezone)).utcoffset()
        if later != timedelta(minutes=form.offset_min):
            notes.append(
                f"{form.timezone} changes its clocks during the season; the node keeps the planting day's time"
            )
    return notes


# Keys and model


def read_release_keys(paths: Sequence[Path]) -> tuple[bytes, bytes]:
    """The public keys whose releases a node trusts, in the settings page's two places.

    Raises:
        ProvisioningError: too many, unreadable, not a public key, or the private one.
    """
    if len(paths) > KEY_COUNT:
        raise ProvisioningError(f"release_key: a node trusts {KEY_COUNT} keys at most")
    keys = []
    for path in paths:
        if path.suffix != ".pub" and path.with_name(path.name + ".pub").exists():
            raise ProvisioningError(f"release_key: {path} is the private key; nodes get {path.name}.pub")
        try:
            key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except OSError as error:
            raise ProvisioningError(f"release_key: {path}: {error.strerror}; made by: noria server keygen") from error
        except ValueError:
            key = b""
        if len(key) != KEY_SIZE or key == NO_KEY:
            raise ProvisioningError(f"release_key: {path} is not a public key of {KEY_SIZE} bytes in hexadecimal")
        keys.append(key)
    first, second = (*keys, NO_KEY, NO_KEY)[:KEY_COUNT]
    return first, second


def read_model(path: Path) -> ModelImage:
    """A model image for slot A.

    Raises:
        ProvisioningError: unreadable, or no usable model.
    """
    try:
        return ModelImage.unpack(path.read_bytes())
    except (OSError, ModelError) as error:
        raise ProvisioningError(f"model: {path}: {error}") from error


# What comes out


@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """The code a programmer writes besides the data region."""

    board: Board
    image: bytes
    """From the start of flash on."""
    data_region: int
    """Address, as the linker placed it."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Everything about one node that is written to disk."""

    form: NodeForm
    region: bytes = field(repr=False)
    hex_text: str = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    """Identity and AppKey for the network server."""


def build_region(settings: Settings, model: ModelImage) -> bytes:
    """The data region of a node that has never run.

    Raises:
        SettingsError: a setting is outside its range.
    """
    region = bytearray([PARTS[settings.board].erased]) * REGION_SIZE
    for area, data in ((SETTINGS, settings.pack()), (MODELS[0], model.pack())):
        region[area.offset : area.offset + len(data)] = data
    return bytes(region)


def read_update_keys(path: Path) -> dict[str, bytes]:
    """Update keys by DevEUI.

    Raises:
        ProvisioningError: unreadable, or a row is not a DevEUI and a key.
    """
    made_by = "made by: noria server update-keys"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="ascii").splitlines()))
        keys = {row["dev_eui"].lower(): bytes.fromhex(row["update_key"]) for row in rows}
    except OSError as error:
        raise ProvisioningError(f"update_keys: {path}: {error.strerror}; {made_by}") from error
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise ProvisioningError(f"update_keys: {path} is not a table of dev_eui and update_key; {made_by}") from error
    if wrong := [dev_eui for dev_eui, key in keys.items() if len(key) != UPDATE_KEY_SIZE or not any(key)]:
        raise ProvisioningError(f"update_keys: {path}: {wrong[0]} has no key of {UPDATE_KEY_SIZE} bytes; {made_by}")
    return keys


def provision(
    form: NodeForm,
    public_keys: tuple[bytes, bytes],
    model: ModelImage,
    firmware: FirmwareImage,
    update_key: bytes = NO_UPDATE_KEY,
) -> Provisioned:
    """Make everything one node needs.

    Raises:
        ProvisioningError: a setting is out of range, or the firmware is not this board's.
    """
    part = PARTS[form.board]
    if firmware.board != form.board or firmware.data_region != part.region:
        raise ProvisioningError(f"firmware: built for {firmware.board.name.lower()}, not {form.board.name.lower()}")
    if FLASH_BASE + len(firmware.image) > part.region:
        raise ProvisioningError("firmware: it reaches into the data region")
    app_key = bytes.fromhex(form.app_key) if form.app_key else secrets.token_bytes(APP_KEY_BYTES)
    try:
        region = build_region(form.settings(app_key, public_keys, update_key), model)
    except SettingsError as error:
        raise ProvisioningError(str(error)) from error
    record = {
        "dev_eui": form.dev_eui,
        "join_eui": form.join_eui,
        "app_key": app_key.hex(),
        "name": form.name or form.dev_eui,
        "board": form.board.name.lower(),
        "crop": form.crop.name.lower(),
        "planting_date": form.planting_date.isoformat(),
        "utc_offset_min": form.offset_min,
        "season_days": form.season_length_days,
        "application_rate_mm_h": round(form.rate_mm_h, 2),
        "area_ha": round(form.area_m2 / 10_000, 6) if form.area_m2 else None,
        "takes_personal_heads": any(update_key),
        "release_key_ids": [key_id(key) for key in public_keys if key != NO_KEY],
        "model_id": f"{model.model_id:08x}",
        "lorawan": {"mac_version": "1.0.3", "class": "A", "supports_join": True},
    }
    segments = [(FLASH_BASE, firmware.image), (part.region, region)]
    return Provisioned(form, region, intel_hex.render(segments), record)


def gateway_tables(nodes: Sequence[Provisioned]) -> str:
    """The ``[[nodes]]`` tables of the gateway's configuration; no secrets."""
    tables = []
    for node in nodes:
        record = node.record
        lines = ["[[nodes]]", *(f"{key} = {json.dumps(record[key])}" for key in ("dev_eui", "name", "crop", "board"))]
        if record["area_ha"]:
            lines.append(f"area_ha = {record['area_ha']}")
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def app_key_on_record(folder: Path, dev_eui: str) -> str | None:
    """The AppKey that an earlier provisioning left in ``folder``: the network server knows the node by it."""
    try:
        record = json.loads((folder / f"{dev_eui}.json").read_text(encoding="utf-8"))
        return str(record["app_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(nodes: Sequence[Provisioned], folder: Path, *, force: bool) -> list[Path]:
    """Write every node's files and the gateway's tables.

    A file is there whole or not at all. Files that hold an AppKey are readable by their owner only.

    Raises:
        ProvisioningError: a file exists and ``force`` is not given, or the folder cannot be written.
    """
    files: list[tuple[Path, bytes, int]] = []
    for node in nodes:
        stem = node.form.dev_eui
        files += [
            (folder / f"{stem}.bin", node.region, SECRET_MODE),
            (folder / f"{stem}.hex", node.hex_text.encode("ascii"), SECRET_MODE),
            (folder / f"{stem}.json", (json.dumps(node.record, indent=2) + "\n").encode(), SECRET_MODE),
        ]
    name = f"gateway-{nodes[0].form.dev_eui}.toml" if len(nodes) == 1 else "gateway-nodes.toml"
    files.append((folder / name, gateway_tables(nodes).encode(), PUBLIC_MODE))
    existing = [path for path, _, _ in files if path.exists()]
    if existing and not force:
        raise ProvisioningError(
            f"{existing[0]} exists, and with it a node's identity; --force replaces it and keeps its AppKey"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data, mode in files:
            _write_whole(path, data, mode)
    except OSError as error:
        raise ProvisioningError(f"{error.filename or folder}: cannot write: {error.strerror}") from error
    return [path for path, _, _ in files]


def _write_whole(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        create_file(partial, data, mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
