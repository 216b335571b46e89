"""``noria server`` and ``noria ota``: what operators type, one module per thing they look after."""

from server.cli import audit, campaigns, evidence, keys, releases, rounds, service, supernodes
from server.cli.terminal import app, ota_app

__all__ = ["app", "audit", "campaigns", "evidence", "keys", "ota_app", "releases", "rounds", "service", "supernodes"]
