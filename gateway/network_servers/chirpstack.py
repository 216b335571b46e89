"""ChirpStack v4, JSON marshaler: ``application/{application}/device/{devEui}/event/{event}``."""

from __future__ import annotations

import base64
import json
import re

from gateway.network_servers.base import (
    Downlink,
    Joined,
    PayloadError,
    Transmitted,
    Uplink,
    best_reception,
    device_eui,
    digest_id,
    frame_bytes,
    integer,
    member,
    read_json,
    text,
    unix_seconds,
)

_TOPIC = re.compile(r"application/([^/]+)/device/([0-9a-f]{16})/event/([a-z]+)")
_GIVEN_UP = frozenset({"DOWNLINK_PAYLOAD_SIZE", "EXPIRED", "F_CNT_DOWN_RETRANSMISSION"})
"""Codes of ChirpStack's ``log`` events that say a queue item was dropped."""


class ChirpStack:
    """ChirpStack v4; ``application`` is its application id."""

    def __init__(self, application: str) -> None:
        self._application = application
        self._prefix = f"application/{application}/device/"
        events = ("up", "join", "txack", "log")
        self.subscriptions: tuple[str, ...] = tuple(f"{self._prefix}+/event/{event}" for event in events)

    def owns(self, topic: str) -> bool:
        """Whether ``topic`` is below this application."""
        return topic.startswith("application/")

    def parse(self, topic: str, payload: bytes) -> Uplink | Transmitted | Joined | None:
        """See :class:`gateway.network_servers.base.NetworkServerAdapter`."""
        matched = _TOPIC.fullmatch(topic)
        if not matched or matched[1] != self._application:
            raise PayloadError("not a topic of this application")
        dev_eui, event = matched[2], matched[3]
        body = read_json(payload)
        named = member(body, "deviceInfo").get("devEui", dev_eui)
        if device_eui(named) != dev_eui:
            raise PayloadError("devEui in topic and in payload differ")
        if event == "up":
            return _uplink(dev_eui, body)
        if event == "txack":
            return Transmitted(dev_eui, text(body, "queueItemId"), sent=True)
        if event == "log" and text(body, "code") in _GIVEN_UP:
            return Transmitted(dev_eui, text(member(body, "context"), "queue_item_id"), sent=False)
        return Joined(dev_eui) if event == "join" else None

    def command(self, downlink: Downlink) -> tuple[str, bytes]:
        """ChirpStack ignores a second command with the same id while the first is in its queue."""
        body = {
            "id": downlink.downlink_id,
            "devEui": downlink.dev_eui,
            "confirmed": False,
            "fPort": downlink.f_port,
            "data": base64.b64encode(downlink.payload).decode(),
        }
        return f"{self._prefix}{downlink.dev_eui}/command/down", json.dumps(body, separators=(",", ":")).encode()


def _uplink(dev_eui: str, body: dict[str, object]) -> Uplink:
    f_port, f_cnt = integer(body, "fPort", 0, 255), integer(body, "fCnt", 0, 0xFFFFFFFF)
    payload, received_s = frame_bytes(body, "data"), unix_seconds(text(body, "time"))
    rssi_dbm, snr_db = best_reception(body, "rxInfo")
    return Uplink(
        uplink_id=text(body, "deduplicationId") or digest_id(dev_eui, f_port, f_cnt, payload, received_s),
        dev_eui=dev_eui,
        f_port=f_port,
        f_cnt=f_cnt,
        payload=payload,
        received_s=received_s,
        data_rate=integer(body, "dr", 0, 15),
        rssi_dbm=rssi_dbm,
        snr_db=snr_db,
    )
