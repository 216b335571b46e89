"""The Things Stack v3: ``v3/{application}@{tenant}/devices/{device id}/{up|join|down/…}``."""

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

_TOPIC = re.compile(r"v3/([^/]+)/devices/([a-z0-9][a-z0-9-]{1,35})/(up|join|down/sent|down/failed)")
_DATA_RATE_OF_SPREADING = {12: 0, 11: 1, 10: 2, 9: 3, 8: 4, 7: 5}
"""EU868, 125 kHz."""
_OURS = "noria:"
"""Marks our downlink ids among correlation ids."""


class TheThingsStack:
    """The Things Stack v3; ``application`` is ``application-id@tenant-id``."""

    def __init__(self, application: str) -> None:
        self._application = application
        prefix = f"v3/{application}/devices/+"
        self.subscriptions: tuple[str, ...] = tuple(f"{prefix}/{e}" for e in ("up", "join", "down/sent", "down/failed"))

    def owns(self, topic: str) -> bool:
        """Whether ``topic`` is The Things Stack's."""
        return topic.startswith("v3/")

    def parse(self, topic: str, payload: bytes) -> Uplink | Transmitted | Joined | None:
        """See :class:`gateway.network_servers.base.NetworkServerAdapter`."""
        matched = _TOPIC.fullmatch(topic)
        if not matched or matched[1] != self._application:
            raise PayloadError("not a topic of this application")
        network_id, event = matched[2], matched[3]
        body = read_json(payload)
        dev_eui = device_eui(member(body, "end_device_ids").get("dev_eui"))
        if event == "up":
            return _uplink(dev_eui, network_id, member(body, "uplink_message"), text(body, "received_at"))
        if event == "join":
            return Joined(dev_eui)
        failed = member(member(body, "downlink_failed"), "downlink")
        correlations = (failed or body).get("correlation_ids") or body.get("correlation_ids") or []
        if not isinstance(correlations, list):
            raise PayloadError("correlation_ids is not a list")
        ours = [c.removeprefix(_OURS) for c in correlations if isinstance(c, str) and c.startswith(_OURS)]
        return Transmitted(dev_eui, ours[0][:128], sent=event == "down/sent") if ours else None

    def command(self, downlink: Downlink) -> tuple[str, bytes]:
        """``down/replace``: the queue holds this one downlink, so that publishing it twice is harmless."""
        frame = {
            "f_port": downlink.f_port,
            "frm_payload": base64.b64encode(downlink.payload).decode(),
            "confirmed": False,
            "priority": "NORMAL",
            "correlation_ids": [_OURS + downlink.downlink_id],
        }
        device = downlink.network_id or f"eui-{downlink.dev_eui}"
        body = json.dumps({"downlinks": [frame]}, separators=(",", ":")).encode()
        return f"v3/{self._application}/devices/{device}/down/replace", body


def _uplink(dev_eui: str, network_id: str, message: dict[str, object], received_at: str) -> Uplink:
    f_port, f_cnt = integer(message, "f_port", 0, 255), integer(message, "f_cnt", 0, 0xFFFFFFFF)
    payload = frame_bytes(message, "frm_payload")
    received_s = unix_seconds(text(message, "received_at") or received_at)
    lora = member(member(member(message, "settings"), "data_rate"), "lora")
    rssi_dbm, snr_db = best_reception(message, "rx_metadata")
    return Uplink(
        # Correlation ids are not stable over a redelivery; these facts are.
        uplink_id=digest_id(dev_eui, f_port, f_cnt, payload, received_s),
        dev_eui=dev_eui,
        f_port=f_port,
        f_cnt=f_cnt,
        payload=payload,
        received_s=received_s,
        data_rate=_DATA_RATE_OF_SPREADING.get(integer(lora, "spreading_factor", 0, 12)),
        rssi_dbm=rssi_dbm,
        snr_db=snr_db,
        network_id=network_id,
    )
