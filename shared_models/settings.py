"""The settings page: who a node is and how its field is to be watered.

Written once when a node is provisioned, into a flash page of its own. The firmware reads it in place, so
every field sits at its natural alignment. The last four bytes are a CRC-32 (zlib's) of everything before.

Some fields may be changed later by a downlink: a :class:`Setting` each, never who the node is, what it trusts or
what keeps its valve safe. The same ranges hold for the page and for changes, in Python and in C.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from shared_models.codes import Board, Crop, Valve
from shared_models.layout import Field, Layout, LayoutError, c_constants

SETTINGS_MAGIC = int.from_bytes(b"NSET", "little")
SETTINGS_VERSION = 2
KEY_COUNT = 2
KEY_SIZE = 32
NO_KEY = bytes(KEY_SIZE)
UPDATE_KEY_SIZE = 16
NO_UPDATE_KEY = bytes(UPDATE_KEY_SIZE)
SHIPPED_THRESHOLD_PERMILLE, SHIPPED_DOSE_E1_MM = 250, 200
"""What a node leaves the house with; chosen in the training worlds, one per cent of yield being worth 25 mm."""

SETTINGS_LAYOUT = Layout(
    "settings",
    [
        Field("magic", "u32", "the letters NSET", low=SETTINGS_MAGIC, high=SETTINGS_MAGIC),
        Field("version", "u16", "2", low=SETTINGS_VERSION, high=SETTINGS_VERSION),
        Field("length", "u16", "bytes of the record, CRC included", low=164, high=164),
        Field("dev_eui", "bytes", "LoRaWAN device identity, as printed", length=8),
        Field("join_eui", "bytes", "LoRaWAN join server, as printed", length=8),
        Field("app_key", "bytes", "LoRaWAN root key", length=16),
        Field("public_key", "bytes", "two trusted Monocypher EdDSA keys of 32 bytes; all zero = none", length=64),
        Field("update_key", "bytes", "proves personal heads to this node; all zero = none", length=16),
        Field("planting_time_s", "u32", "06:00 local of the planting day, Unix seconds"),
        Field("max_on_s", "u32", "longest the valve may stay open, s", low=1, high=86_400),
        Field("season_days", "u16", "planting to harvest, days", low=1, high=400),
        Field("season", "u16", "calendar year of planting", low=2000, high=2200),
        Field("utc_offset_min", "i16", "local time minus UTC, min", low=-840, high=840),
        Field("wake_phase_s", "u16", "offset of the wakes within each 900 s", high=899),
        Field("application_rate_e2_mm_h", "u16", "what the valve delivers, 0.01 mm/h", low=1),
        Field("dose_e1_mm", "u16", "one dose, 0.1 mm", low=1, high=1000),
        Field("threshold_permille", "u16", "depletion that triggers a dose, of TAW", low=1, high=1000),
        Field("awc_prior_permille", "u16", "available water capacity if the texture is known; 0 = unknown", high=400),
        Field("seasonal_cap_mm", "u16", "most water in one season, mm"),
        Field("statistics_period_h", "u16", "hours between statistics", low=1),
        Field("root_depth_max_cm", "u16", "Zr max, cm", low=10, high=300),
        Field("board", "u8", "codes.Board", low=min(Board), high=max(Board)),
        Field("crop", "u8", "codes.Crop", low=min(Crop), high=max(Crop)),
        Field("min_interval_h", "u8", "least time between doses, h"),
        Field("daily_cap_mm", "u8", "most water in one day, mm"),
        Field("window_start_h", "u8", "watering allowed from, local hour", high=23),
        Field("window_end_h", "u8", "watering allowed until, local hour", low=1, high=24),
        Field("commissioning_days", "u8", "days of drainage watched before planting", low=1, high=60),
        Field("telemetry_period_h", "u8", "hours between telemetry frames", low=1),
        Field("valve", "u8", "codes.Valve", high=max(Valve)),
        Field("reserved", "u8", "zero", high=0),
        Field("crc32", "u32", "CRC-32 of all bytes before"),
    ],
)
SETTINGS_SIZE = SETTINGS_LAYOUT.size


class Setting(IntEnum):
    """Fields that a downlink may change, by the number that travels."""

    PLANTING_TIME_S = 1
    SEASON_DAYS = 2
    SEASON = 3
    CROP = 4
    APPLICATION_RATE_E2_MM_H = 5
    DOSE_E1_MM = 6
    THRESHOLD_PERMILLE = 7
    AWC_PRIOR_PERMILLE = 8
    MIN_INTERVAL_H = 9
    DAILY_CAP_MM = 10
    SEASONAL_CAP_MM = 11
    WINDOW_START_H = 12
    WINDOW_END_H = 13
    TELEMETRY_PERIOD_H = 14
    STATISTICS_PERIOD_H = 15
    ROOT_DEPTH_MAX_CM = 16
    UTC_OFFSET_MIN = 17

    @property
    def field(self) -> Field:
        """The field of the page."""
        return next(field for field in SETTINGS_LAYOUT.fields if field.name == self.name.lower())


class SettingsError(ValueError):
    """A settings page that a node would not accept."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A node's settings page; the units are in the names, the meanings in ``SETTINGS_LAYOUT``."""

    dev_eui: str
    """16 lower-case hex digits."""
    board: Board
    crop: Crop
    planting_time_s: int
    season_days: int
    season: int
    join_eui: str = "0000000000000000"
    app_key: bytes = bytes(16)
    public_keys: tuple[bytes, bytes] = (NO_KEY, NO_KEY)
    """The one that signs releases, and one to replace either with."""
    update_key: bytes = NO_UPDATE_KEY
    utc_offset_min: int = 0
    wake_phase_s: int = 0
    application_rate_e2_mm_h: int = 1000
    dose_e1_mm: int = SHIPPED_DOSE_E1_MM
    threshold_permille: int = SHIPPED_THRESHOLD_PERMILLE
    awc_prior_permille: int = 0
    max_on_s: int = 4 * 3600
    min_interval_h: int = 20
    daily_cap_mm: int = 40
    seasonal_cap_mm: int = 900
    window_start_h: int = 6
    window_end_h: int = 10
    commissioning_days: int = 8
    telemetry_period_h: int = 24
    statistics_period_h: int = 168
    root_depth_max_cm: int = 100
    valve: Valve = Valve.HELD

    def pack(self) -> bytes:
        """The page's bytes, CRC included.

        Raises:
            SettingsError: a field is outside its range; the text names it.
        """
        values: dict[str, int | bytes] = {
            name: int(getattr(self, name))
            for name in (field.name for field in SETTINGS_LAYOUT.fields if field.type != "bytes")
            if hasattr(self, name)
        }
        try:
            values |= {
                "magic": SETTINGS_MAGIC,
                "version": SETTINGS_VERSION,
                "length": SETTINGS_SIZE,
                "dev_eui": bytes.fromhex(self.dev_eui),
                "join_eui": bytes.fromhex(self.join_eui),
                "app_key": self.app_key,
                "public_key": b"".join(self.public_keys),
                "update_key": self.update_key,
                "reserved": 0,
                "crc32": 0,
            }
            body = SETTINGS_LAYOUT.pack(values)[:-4]
        except ValueError as error:
            raise SettingsError(str(error)) from error
        page = body + zlib.crc32(body).to_bytes(4, "little")
        Settings.unpack(page)
        return page

    def changed(self, changes: Mapping[Setting, int]) -> Settings:
        """The settings with some fields changed, as a node would have them.

        Raises:
            SettingsError: a field is outside its range, or the whole makes no sense; nothing is changed.
        """
        fields = {setting.name.lower(): value for setting, value in changes.items()}
        return Settings.unpack(dataclasses.replace(self, **fields).pack())  # type: ignore[arg-type]

    @classmethod
    def unpack(cls, data: bytes) -> Settings:
        """Read a page; bytes after the record (the rest of a flash page) are ignored.

        Raises:
            SettingsError: truncated, corrupt, of another version, or out of range.
        """
        record = bytes(data[:SETTINGS_SIZE])
        try:
            values = SETTINGS_LAYOUT.unpack(record)
            if values.pop("crc32") != zlib.crc32(record[:-4]):
                raise SettingsError("settings: wrong CRC")
            if values.pop("length") != SETTINGS_SIZE:
                raise SettingsError("settings: wrong length")
            board, crop = Board(int(values.pop("board"))), Crop(int(values.pop("crop")))
            valve = Valve(int(values.pop("valve")))
        except LayoutError as error:
            raise SettingsError(str(error)) from error
        except SettingsError:
            raise
        except ValueError as error:
            raise SettingsError(f"settings: {error}") from error
        if int(values["window_start_h"]) >= int(values["window_end_h"]):
            raise SettingsError("settings: the watering window is empty")
        keys = bytes(values.pop("public_key"))
        dev_eui, join_eui = bytes(values.pop("dev_eui")).hex(), bytes(values.pop("join_eui")).hex()
        app_key, update_key = bytes(values.pop("app_key")), bytes(values.pop("update_key"))
        for name in ("magic", "version", "reserved"):
            del values[name]
        numbers = {name: int(value) for name, value in values.items()}
        return cls(
            dev_eui=dev_eui,
            join_eui=join_eui,
            app_key=app_key,
            public_keys=(keys[:KEY_SIZE], keys[KEY_SIZE:]),
            update_key=update_key,
            board=board,
            crop=crop,
            valve=valve,
            **numbers,
        )


def c_definitions() -> str:
    """The settings record, its constants and the ranges of its fields for the C header."""
    constants = {
        "SETTINGS_MAGIC": SETTINGS_MAGIC,
        "SETTINGS_VERSION": SETTINGS_VERSION,
        "SETTINGS_SIZE": SETTINGS_SIZE,
        "SETTING_COUNT": max(Setting),
        "PUBLIC_KEY_COUNT": KEY_COUNT,
        "PUBLIC_KEY_SIZE": KEY_SIZE,
        "UPDATE_KEY_SIZE": UPDATE_KEY_SIZE,
    }
    return "\n".join([c_constants(constants), SETTINGS_LAYOUT.c_struct(), _c_fields()])


def _c_fields() -> str:
    """One row per integer field: number (0: never changed by a downlink), offset, size, whether signed, range."""
    numbers = {setting.name.lower(): int(setting) for setting in Setting}
    rows = []
    for field in SETTINGS_LAYOUT.fields:
        if field.type == "bytes":
            continue
        low, high = field.limits
        entry = (numbers.get(field.name, 0), SETTINGS_LAYOUT.offset(field.name), field.size, int(field.type[0] == "i"))
        rows.append("    {" + ", ".join(map(str, entry)) + f", {low}, {high - low}u}}, /* {field.name} */")
    # A backslash ends every line of the macro but the last.
    return "#define NORIA_SETTINGS_FIELDS \\\n" + " \\\n".join(rows) + "\n"
