"""A virtual ChirpStack v4: on MQTT a gateway cannot tell it from a real one.

Uplinks, joins, acknowledgements and log entries of the emulated air are published as ChirpStack's MQTT integration
publishes them (JSON of ``chirpstack-api``'s ``integration`` messages); ``command/down`` is queued for the air.
Identifiers are derived, not drawn, so that a run with the same seed publishes the same bytes.
"""

from __future__ import annotations

import base64
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from uuid import NAMESPACE_URL, UUID, uuid5

from nodes.emulator.air import (
    Acknowledgement,
    AirEvents,
    DiscardedDownlink,
    Joined,
    QueuedDownlink,
    ReceivedUplink,
    TransmittedDownlink,
)
from nodes.emulator.broker_link import BrokerLink
from nodes.scenario import FarmPlan, NodePlan
from shared_models.airtime import spreading_factor

_LOG = logging.getLogger(__name__)

COMMAND_LIMIT = 4096
"""Longest command accepted, bytes."""
DOWNLINK_LIMIT = 242
"""Longest application payload LoRaWAN knows, bytes."""
ID_LIMIT = 64
TENANT = UUID("52f14cd4-c6f1-4fbd-8f87-4025e1d49242")
PROFILE = UUID("14855bf7-d10d-4aee-b618-ebfcb64dc7ad")
REGION = "eu868"
DOWNLINK_POWER_DBM = 14


class CommandError(ValueError):
    """A ``command/down`` that cannot be queued."""


@dataclass(frozen=True, slots=True)
class _Registration:
    """What the network server knows of one device."""

    farm: FarmPlan
    node: NodePlan

    @property
    def application(self) -> str:
        return str(self.farm.application_id)

    @property
    def dev_addr(self) -> str:
        """Eight hex digits in the experimental NetID's range."""
        return f"00{blake2b(self.node.dev_eui.encode(), digest_size=3).hexdigest()}"

    @property
    def gateway_id(self) -> str:
        return blake2b(f"gateway/{self.farm.site}".encode(), digest_size=8).hexdigest()

    def unique(self, *parts: object, session: int = 0) -> str:
        """The same identifier for the same thing, in every run; another in every session."""
        names = [self.node.dev_eui, *map(str, parts), *([f"session {session}"] if session else [])]
        return str(uuid5(self.farm.application_id, "/".join(names)))

    def device_info(self) -> dict[str, object]:
        return {
            "tenantId": str(TENANT),
            "tenantName": "Noria",
            "applicationId": self.application,
            "applicationName": self.farm.site,
            "deviceProfileId": str(PROFILE),
            "deviceProfileName": "noria-node",
            "deviceName": self.node.name,
            "devEui": self.node.dev_eui,
            "deviceClassEnabled": "CLASS_A",
            "tags": {},
        }


class VirtualChirpStack:
    """One network server for any number of farms, each an application."""

    def __init__(self, link: BrokerLink, farms: Sequence[FarmPlan]) -> None:
        """Args: the connection, before it runs; the farms whose devices are registered."""
        self._link = link
        self._devices = {node.dev_eui: _Registration(farm, node) for farm in farms for node in farm.nodes}
        self._queues: dict[str, list[QueuedDownlink]] = defaultdict(list)
        self._known_ids: set[str] = set()
        self.counters: Counter[str] = Counter()
        """By event published, and of commands ``down``, ``down_repeated``, ``down_refused``."""
        for farm in farms:
            link.handle(f"application/{farm.application_id}/device/+/command/down", self.command)

    # From the air to the gateway

    async def publish_joins(self, site: str, time_s: float) -> None:
        """Every node of a farm joins.

        Args:
            site: the farm.
            time_s: Unix seconds.
        """
        for device in self._devices.values():
            if device.farm.site == site:
                await self._publish_join(Joined(device.node.dev_eui, time_s, 0))

    async def publish(self, events: AirEvents) -> None:
        """Publish what happened on the air, in order of time.

        Of one moment and device, the uplink comes first, then what it acknowledges, then the downlink it made possible.

        Args:
            events: as :meth:`nodes.emulator.air.Air.take` or a farm's worker handed them over.
        """
        happened: list[Joined | ReceivedUplink | Acknowledgement | DiscardedDownlink | TransmittedDownlink] = [
            *events.joined,
            *events.uplinks,
            *events.acknowledged,
            *events.discarded,
            *events.transmitted,
        ]
        for event in sorted(happened, key=lambda event: (event.time_s, event.dev_eui)):
            match event:
                case Joined():
                    await self._publish_join(event)
                case ReceivedUplink():
                    await self.publish_uplink(event)
                case Acknowledgement():
                    await self._publish_ack(event)
                case DiscardedDownlink():
                    await self._publish_discarded(event)
                case TransmittedDownlink():
                    await self._publish_txack(event)

    async def publish_uplink(self, uplink: ReceivedUplink) -> None:
        """Publish one uplink; returns when the broker has it."""
        device = self._devices[uplink.dev_eui]
        identity = device.unique("up", uplink.f_cnt, session=uplink.session)
        stamp = _timestamp(uplink.time_s)
        body: dict[str, object] = {
            "deduplicationId": identity,
            "time": stamp,
            "deviceInfo": device.device_info(),
            "devAddr": device.dev_addr,
            "adr": False,
            "dr": uplink.data_rate,
            "fCnt": uplink.f_cnt,
            "fPort": uplink.f_port,
            "confirmed": uplink.confirmed,
            "data": _base64(uplink.payload),
            "rxInfo": [
                {
                    "gatewayId": device.gateway_id,
                    "uplinkId": UUID(identity).int & 0xFFFFFFFF,
                    "gwTime": stamp,
                    "nsTime": stamp,
                    "rssi": uplink.rssi,
                    "snr": uplink.snr,
                    "context": _base64(UUID(identity).bytes[:4]),
                    "metadata": {"region_config_id": REGION, "region_common_name": "EU868"},
                    "crcStatus": "CRC_OK",
                }
            ],
            "txInfo": {"frequency": uplink.frequency_hz, "modulation": _modulation(uplink.data_rate)},
            "regionConfigId": REGION,
        }
        await self._publish(device, "up", body)

    async def _publish_join(self, event: Joined) -> None:
        device = self._devices[event.dev_eui]
        body: dict[str, object] = {
            "deduplicationId": device.unique("join", event.session),
            "time": _timestamp(event.time_s),
            "deviceInfo": device.device_info(),
            "devAddr": device.dev_addr,
            "regionConfigId": REGION,
        }
        await self._publish(device, "join", body)

    async def _publish_ack(self, event: Acknowledgement) -> None:
        device = self._devices[event.dev_eui]
        body: dict[str, object] = {
            "deduplicationId": device.unique("ack", event.f_cnt_down, session=event.session),
            "time": _timestamp(event.time_s),
            "deviceInfo": device.device_info(),
            "queueItemId": event.id,
            "acknowledged": event.acknowledged,
            "fCntDown": event.f_cnt_down,
        }
        await self._publish(device, "ack", body)

    async def _publish_txack(self, event: TransmittedDownlink) -> None:
        device = self._devices[event.dev_eui]
        body: dict[str, object] = {
            "downlinkId": UUID(device.unique("down", event.f_cnt_down, session=event.session)).int & 0xFFFFFFFF,
            "time": _timestamp(event.time_s),
            "deviceInfo": device.device_info(),
            "queueItemId": event.id,
            "fCntDown": event.f_cnt_down,
            "gatewayId": device.gateway_id,
            "txInfo": {
                "frequency": event.frequency_hz,
                "power": DOWNLINK_POWER_DBM,
                "modulation": _modulation(event.data_rate, inverted=True),
            },
        }
        await self._publish(device, "txack", body)

    async def _publish_discarded(self, event: DiscardedDownlink) -> None:
        device = self._devices[event.dev_eui]
        body: dict[str, object] = {
            "time": _timestamp(event.time_s),
            "deviceInfo": device.device_info(),
            "level": "ERROR",
            "code": "DOWNLINK_PAYLOAD_SIZE",
            "description": event.reason,
            "context": {"queue_item_id": event.id},
        }
        await self._publish(device, "log", body)

    async def _publish(self, device: _Registration, event: str, body: dict[str, object]) -> None:
        topic = f"application/{device.application}/device/{device.node.dev_eui}/event/{event}"
        await self._link.publish(topic, json.dumps(body, separators=(",", ":")).encode())
        self.counters[event] += 1

    # From the gateway to the air

    def command(self, topic: str, payload: bytes) -> None:
        """Take a ``command/down``; what cannot be queued is logged, counted and forgotten.

        Args:
            topic: ``application/{application}/device/{devEui}/command/down``.
            payload: JSON of ChirpStack's ``DownlinkCommand``.
        """
        try:
            device, downlink = self._parse(topic, payload)
        except CommandError as error:
            self.counters["down_refused"] += 1
            _LOG.warning("refused a downlink command on %s: %s", topic[:200], error)
            return
        if downlink.id in self._known_ids:
            self.counters["down_repeated"] += 1
            return
        self._known_ids.add(downlink.id)
        self._queues[device.farm.site].append(downlink)
        self.counters["down"] += 1

    def take_downlinks(self, site: str) -> list[QueuedDownlink]:
        """What was commanded for a farm since the last call, in the order of arrival."""
        return self._queues.pop(site, [])

    def _parse(self, topic: str, payload: bytes) -> tuple[_Registration, QueuedDownlink]:
        _, application, _, dev_eui, *_ = [*topic.split("/"), "", "", ""]
        device = self._devices.get(dev_eui.lower())
        if device is None or device.application != application:
            raise CommandError("no such device in this application")
        if len(payload) > COMMAND_LIMIT:
            raise CommandError(f"{len(payload)} bytes are more than {COMMAND_LIMIT}")
        try:
            body = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"not JSON: {type(error).__name__}") from error
        if not isinstance(body, dict):
            raise CommandError("not a JSON object")
        if str(body.get("devEui", "")).lower() != device.node.dev_eui:
            raise CommandError("devEui is not the topic's")
        confirmed = body.get("confirmed", False)
        if not isinstance(confirmed, bool):
            raise CommandError("confirmed is not a boolean")
        f_port = body.get("fPort", 0)
        if isinstance(f_port, bool) or not isinstance(f_port, int) or not 1 <= f_port <= 223:
            raise CommandError("fPort is not a number from 1 to 223")
        identity = body.get("id") or str(uuid5(NAMESPACE_URL, f"{topic}/{self.counters['down']}"))
        if not isinstance(identity, str) or len(identity) > ID_LIMIT:
            raise CommandError(f"id is not a text of at most {ID_LIMIT} characters")
        data = _decode(body.get("data", ""))
        return device, QueuedDownlink(identity, device.node.dev_eui, f_port, data, confirmed)


def _decode(data: object) -> bytes:
    if not isinstance(data, str):
        raise CommandError("data is not base64")
    try:
        payload = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise CommandError("data is not base64") from error
    if not 1 <= len(payload) <= DOWNLINK_LIMIT:
        raise CommandError(f"data is not 1 to {DOWNLINK_LIMIT} bytes long")
    return payload


def _modulation(data_rate: int, *, inverted: bool = False) -> dict[str, object]:
    lora: dict[str, object] = {
        "bandwidth": 125_000,
        "spreadingFactor": spreading_factor(data_rate),
        "codeRate": "CR_4_5",
    }
    if inverted:
        lora["polarizationInversion"] = True
    return {"lora": lora}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _timestamp(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="microseconds")
