"""Adapters: what ChirpStack v4 and The Things Stack v3 say over MQTT, as one neutral vocabulary."""

from __future__ import annotations

from gateway.network_servers.base import (
    Downlink,
    Joined,
    NetworkServerAdapter,
    PayloadError,
    Transmitted,
    Uplink,
)
from gateway.network_servers.chirpstack import ChirpStack
from gateway.network_servers.thethingsstack import TheThingsStack


def adapter(kind: str, application: str) -> NetworkServerAdapter:
    """The adapter for a configured network server; ``kind`` as in ``config.NetworkServer``."""
    return ChirpStack(application) if kind == "chirpstack" else TheThingsStack(application)


__all__ = [
    "ChirpStack",
    "Downlink",
    "Joined",
    "NetworkServerAdapter",
    "PayloadError",
    "TheThingsStack",
    "Transmitted",
    "Uplink",
    "adapter",
]
