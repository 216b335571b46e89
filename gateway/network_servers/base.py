"""The neutral vocabulary, and the checks that every adapter shares."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

MAX_EVENT_BYTES = 64 * 1024
"""Larger JSON is refused unread; ChirpStack's largest uplink events stay below 8 KB."""
MAX_FRAME_BYTES = 242
"""LoRaWAN's largest application payload."""

_DEV_EUI = re.compile(r"[0-9a-f]{16}")
_FRACTION = re.compile(r"\.\d+")


class PayloadError(ValueError):
    """A message from the network server that cannot be understood; the text says why."""


@dataclass(frozen=True)
class Uplink:
    """One received frame."""

    uplink_id: str
    """The network server's deduplication id, or a digest where it gives none."""
    dev_eui: str
    f_port: int
    f_cnt: int
    payload: bytes
    received_s: int | None
    """Unix seconds; None where the network server gave no time."""
    data_rate: int | None
    rssi_dbm: float | None
    snr_db: float | None
    network_id: str | None = None
    """The network server's own device id where it is not the devEUI."""


@dataclass(frozen=True)
class Downlink:
    """One frame for a node, sent in the receive window after its next uplink."""

    downlink_id: str
    """A UUID; the network server ignores an id it already holds."""
    dev_eui: str
    f_port: int
    payload: bytes
    network_id: str | None = None


@dataclass(frozen=True)
class Transmitted:
    """A downlink left the queue: it was sent, or the network server gave it up."""

    dev_eui: str
    downlink_id: str
    sent: bool


@dataclass(frozen=True)
class Joined:
    """The node joined: its frame counters start again."""

    dev_eui: str


class NetworkServerAdapter(Protocol):
    """One kind of network server."""

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Topic filters to subscribe to."""

    def parse(self, topic: str, payload: bytes) -> Uplink | Transmitted | Joined | None:
        """Understand one message; None for kinds that do not concern a gateway.

        Raises:
            PayloadError: it concerns a gateway and cannot be understood.
        """

    def owns(self, topic: str) -> bool:
        """Whether ``topic`` is one of this network server's."""

    def command(self, downlink: Downlink) -> tuple[str, bytes]:
        """Topic and payload that put one downlink into the device's queue."""


def read_json(payload: bytes) -> dict[str, Any]:
    """A JSON object, bounded.

    Raises:
        PayloadError: too large, not JSON, or not an object.
    """
    if len(payload) > MAX_EVENT_BYTES:
        raise PayloadError(f"{len(payload)} bytes of JSON, more than {MAX_EVENT_BYTES}")
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise PayloadError("not a JSON object")
    return value


def member(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """A nested object; empty where absent."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PayloadError(f"{key} is not an object")
    return value


def integer(parent: dict[str, Any], key: str, low: int, high: int) -> int:
    """A bounded integer; both network servers leave zeros out, so absent is 0."""
    value: object = parent.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PayloadError(f"{key} is not an integer within {low}..{high}")
    return value


def text(parent: dict[str, Any], key: str, limit: int = 128) -> str:
    """A bounded string; empty where absent."""
    value = parent.get(key, "")
    if not isinstance(value, str) or len(value) > limit:
        raise PayloadError(f"{key} is not a string of at most {limit} characters")
    return value


def frame_bytes(parent: dict[str, Any], key: str) -> bytes:
    """A frame's application payload, from base64."""
    try:
        data = base64.b64decode(text(parent, key, limit=2 * MAX_FRAME_BYTES), validate=True)
    except ValueError as error:
        raise PayloadError(f"{key} is not base64") from error
    if len(data) > MAX_FRAME_BYTES:
        raise PayloadError(f"{key} holds {len(data)} bytes, more than a LoRaWAN frame")
    return data


def device_eui(value: object) -> str:
    """A devEUI in lower case."""
    lowered = value.lower() if isinstance(value, str) else ""
    if not _DEV_EUI.fullmatch(lowered):
        raise PayloadError("no valid devEUI")
    return lowered


def unix_seconds(value: str) -> int | None:
    """An RFC 3339 time in Unix seconds, None where empty; fractions of any length are dropped."""
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", value, count=1))
    except ValueError as error:
        raise PayloadError("time is not RFC 3339") from error
    try:
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except OverflowError as error:
        raise PayloadError("time is out of range") from error


def best_reception(parent: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    """RSSI in dBm and SNR in dB at the LoRa gateway that heard the frame best; None where not said."""
    receptions = parent.get(key)
    if not isinstance(receptions, list):
        return None, None
    heard = [(_number(r.get("snr", 0)), _number(r.get("rssi", 0))) for r in receptions[:64] if isinstance(r, dict)]
    usable = [(snr, rssi) for snr, rssi in heard if snr is not None and rssi is not None]
    if not usable:
        return None, None
    snr, rssi = max(usable)
    return rssi, snr


def digest_id(dev_eui: str, f_port: int, f_cnt: int, payload: bytes, received_s: int | None) -> str:
    """An uplink's identity where the network server gives none."""
    facts = f"{dev_eui}/{f_port}/{f_cnt}/{received_s}/{payload.hex()}"
    return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -500 < value < 500:
        return None
    return float(value)
