"""What is in a node's data region: an image as provisioned, or a dump of a node that came back from its field.

Nothing is trusted: every part that does not read is said to be unreadable, and the rest is still told. Keys are never
told, only the ids by which containers name them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nodes import intel_hex
from nodes.flash_map import BOOT, CHANGES, FLASH_BASE, MODELS, PARTS, REGION_SIZE, SETTINGS, STAGING, STATE, Area
from shared_models.codes import Mode, Reason
from shared_models.container import key_id
from shared_models.network import IMAGE_BYTES, ModelError, ModelImage
from shared_models.settings import KEY_SIZE, NO_KEY, Settings, SettingsError
from shared_models.state import CORE_VERSION, STATE_STRUCT, State

UNIT = 8
RECORD_MAGIC = b"NR"
NO_SLOT = 2
_BOOT = struct.Struct("<I2I2III64s4B")
_STATE_TAIL = struct.Struct("<2I")


class InspectionError(ValueError):
    """A file in which there is no data region; the text says what would be one."""


def load_segments(path: Path) -> list[tuple[int, bytes]]:
    """Flash contents of an Intel HEX file, by address.

    Raises:
        InspectionError: unreadable or damaged.
    """
    try:
        return intel_hex.parse(path.read_text(encoding="ascii"))
    except OSError as error:
        raise InspectionError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, intel_hex.HexError) as error:
        raise InspectionError(f"{path}: not an Intel HEX file: {error}") from error


def load_region(path: Path) -> bytes:
    """The data region from an image: the region alone, a dump of the whole flash, or Intel HEX.

    Raises:
        InspectionError: unreadable, or none of these.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InspectionError(f"{path}: {error.strerror}") from error
    if data.startswith(b":"):
        segments = load_segments(path)
    elif len(data) == REGION_SIZE:
        return data
    else:
        segments = [(FLASH_BASE, data)] if len(data) in {part.flash_size for part in PARTS.values()} else []
    for part in PARTS.values():
        for start, content in segments:
            if start <= part.region and part.region + REGION_SIZE == start + len(content):
                return content[part.region - start :]
    raise InspectionError(
        f"{path}: no data region in it; give a region of {REGION_SIZE} bytes, a dump of the whole flash, or an "
        "Intel HEX file of noria node provision"
    )


# Logs of core/store.c


@dataclass(frozen=True, slots=True)
class Record:
    """A complete record of a log."""

    sequence: int
    version: int
    payload: bytes


def read_log(region: bytes, areas: Sequence[Area]) -> list[Record]:
    """Complete records of a log in the order they were written; torn ones and noise are passed over."""
    records = []
    for area in areas:
        position, end = area.offset, area.offset + area.size
        while position + 2 * UNIT <= end:
            record = _record_at(region, position, end)
            if record is not None:
                records.append(record)
                position += -(-len(record.payload) // UNIT) * UNIT + UNIT
            position += UNIT
    return sorted(records, key=lambda record: record.sequence)


def _record_at(region: bytes, position: int, end: int) -> Record | None:
    magic, length, sequence = struct.unpack_from("<2sHI", region, position)
    if magic != RECORD_MAGIC:
        return None
    trailer = position + UNIT + -(-length // UNIT) * UNIT
    if trailer + UNIT > end:
        return None
    version, crc = struct.unpack_from("<II", region, trailer)
    if zlib.crc32(region[position : trailer + 4]) != crc:
        return None
    return Record(sequence, version, region[position + UNIT : position + UNIT + length])


# Parts of the region


def is_blank(region: bytes, area: Area) -> bool:
    """Whether an area is erased, on either part."""
    return len(set(region[area.offset : area.offset + area.size])) == 1


def _time(time_s: int) -> str | None:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if time_s else None


def _name(kind: type[Mode | Reason], value: int) -> str:
    return kind(value).name.lower() if value in list(kind) else f"unknown ({value})"


def settings_of(region: bytes) -> dict[str, Any]:
    """The provisioning page without its keys."""
    try:
        settings = Settings.unpack(region[SETTINGS.offset : SETTINGS.offset + SETTINGS.size])
    except SettingsError as error:
        blank = is_blank(region, SETTINGS)
        return {"valid": False, "why": "blank: this node was never provisioned" if blank else str(error)}
    offset = timedelta(minutes=settings.utc_offset_min)
    planting = datetime.fromtimestamp(settings.planting_time_s, UTC) + offset
    return {
        "valid": True,
        "dev_eui": settings.dev_eui,
        "join_eui": settings.join_eui,
        "app_key": "set" if any(settings.app_key) else "not set",
        "takes_personal_heads": any(settings.update_key),
        "release_key_ids": [key_id(key) for key in settings.public_keys if key != NO_KEY],
        "board": settings.board.name.lower(),
        "crop": settings.crop.name.lower(),
        "planting_date": planting.date().isoformat(),
        "utc_offset_min": settings.utc_offset_min,
        "season": settings.season,
        "season_days": settings.season_days,
        "application_rate_mm_h": settings.application_rate_e2_mm_h / 100,
        "dose_mm": settings.dose_e1_mm / 10,
        "threshold": settings.threshold_permille / 1000,
        "awc_prior": settings.awc_prior_permille / 1000 or None,
        "window_h": [settings.window_start_h, settings.window_end_h],
        "min_interval_h": settings.min_interval_h,
        "max_on_min": settings.max_on_s / 60,
        "daily_cap_mm": settings.daily_cap_mm,
        "seasonal_cap_mm": settings.seasonal_cap_mm,
        "root_depth_max_cm": settings.root_depth_max_cm,
        "commissioning_days": settings.commissioning_days,
        "telemetry_period_h": settings.telemetry_period_h,
        "statistics_period_h": settings.statistics_period_h,
        "wake_phase_s": settings.wake_phase_s,
        "valve": settings.valve.name.lower(),
    }


def boot_of(region: bytes) -> dict[str, Any]:
    """The newest boot record."""
    records = [record for record in read_log(region, BOOT) if len(record.payload) == _BOOT.size]
    if not records:
        return {"valid": False, "why": _why_empty(region, BOOT, "none: this node has not run yet")}
    newest = records[-1]
    highest, *rest = _BOOT.unpack(newest.payload)
    versions, ids, activated_s, keys_version, keys, active, probation, boots, _ = rest[:2], rest[2:4], *rest[4:]
    trusted = [keys[start : start + KEY_SIZE] for start in range(0, len(keys), KEY_SIZE)]
    return {
        "valid": True,
        "records": len(records),
        "sequence": newest.sequence,
        "highest_version": highest,
        "active_slot": "ab"[active] if active < NO_SLOT else None,
        "slot_versions": versions,
        "slot_model_ids": [f"{each:08x}" for each in ids],
        "activated": _time(activated_s),
        "on_probation": bool(probation),
        "boots_on_probation": boots,
        "keys_version": keys_version,
        "changed_key_ids": [key_id(key) for key in trusted if key != NO_KEY] if keys_version else None,
    }


def models_of(region: bytes, boot: dict[str, Any]) -> list[dict[str, Any]]:
    """Both model slots, verified by their self-test and against the boot record."""
    slots = []
    for index, area in enumerate(MODELS):
        slot: dict[str, Any] = {"slot": "ab"[index], "valid": False}
        try:
            image = ModelImage.unpack(region[area.offset : area.offset + IMAGE_BYTES])
        except ModelError as error:
            slots.append(slot | {"why": "blank" if is_blank(region, area) else str(error)})
            continue
        slot |= {"valid": True, "model_id": f"{image.model_id:08x}", "backbone_id": f"{image.backbone_id:08x}"}
        if boot["valid"]:
            slot["version"] = boot["slot_versions"][index] or None
            slot["as_recorded"] = boot["slot_model_ids"][index] == slot["model_id"]
            slot["active"] = boot["active_slot"] == slot["slot"]
        slots.append(slot)
    return slots


def state_of(region: bytes) -> dict[str, Any]:
    """The newest saved state."""
    records = read_log(region, STATE)
    if not records:
        return {"valid": False, "why": _why_empty(region, STATE, "none: this node has not saved a day yet")}
    newest = records[-1]
    told = {"records": len(records), "sequence": newest.sequence, "layout_version": newest.version}
    if newest.version >> 8 != CORE_VERSION or len(newest.payload) < STATE_STRUCT.size + _STATE_TAIL.size:
        return told | {"valid": False, "why": "saved by a firmware with another layout"}
    state = State.unpack(newest.payload[: STATE_STRUCT.size])
    saved_s, valve_close_s = _STATE_TAIL.unpack_from(newest.payload, STATE_STRUCT.size)
    return told | {
        "valid": True,
        "saved": _time(saved_s),
        "day": (datetime.fromtimestamp(0, UTC) + timedelta(days=state.day)).date().isoformat(),
        "mode": _name(Mode, state.mode),
        "last_reason": _name(Reason, state.last_reason),
        "depletion_mm": state.depletion_um / 1000,
        "water_season_mm": state.water_season_um / 1000,
        "last_dose": _time(state.last_dose_s),
        "stopped_until": _time(state.stop_until_s),
        "valve_due_to_close": _time(valve_close_s),
        "anchored": bool(state.anchored),
        "upper_limit": [value / 10_000 for value in state.upper_limit_e4],
        "faults": state.faults,
        "backbone_id": f"{state.backbone_id:08x}",
        "windows": list(state.count),
    }


def raw_log_of(region: bytes, areas: Sequence[Area]) -> dict[str, Any]:
    """A log whose payload this version does not read: how much there is of it."""
    records = read_log(region, areas)
    if not records:
        return {"valid": False, "why": _why_empty(region, areas, "none")}
    newest = records[-1]
    return {
        "valid": True,
        "records": len(records),
        "sequence": newest.sequence,
        "layout_version": newest.version,
        "bytes": len(newest.payload),
    }


def _why_empty(region: bytes, areas: Sequence[Area], blank: str) -> str:
    return blank if all(is_blank(region, area) for area in areas) else "damaged: no complete record"


_LOGS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "state": state_of,
    "staging": lambda region: raw_log_of(region, (STAGING,)),
    "changed_settings": lambda region: raw_log_of(region, CHANGES),
}


def inspect(region: bytes) -> dict[str, Any]:
    """Everything a data region tells, as plain values.

    Raises:
        InspectionError: it has the wrong size.
    """
    if len(region) != REGION_SIZE:
        raise InspectionError(f"a data region has {REGION_SIZE} bytes, not {len(region)}")
    boot = boot_of(region)
    told = {"settings": settings_of(region), "boot": boot, "models": models_of(region, boot)}
    return told | {name: read(region) for name, read in _LOGS.items()}
