"""What a campaign will cost, before anything is sent: which container each node gets, downlinks, airtime, charge.

As if no frame were lost; each lost one costs about one more. A class A node is spoken to only after it has spoken, so
that every fragment has a poll before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server import releases
from server.campaigns.plan import Draft, Plan, draft, recipient
from server.releases import ArtefactKey
from shared_models.airtime import MAX_PAYLOAD, airtime_s, payload_limit_bytes
from shared_models.fragmentation import FragmentationError, Fragmenter
from shared_models.frames import EVENT_LAYOUT

POLL_BYTES = 5
"""FragSessionStatusAns."""
TRANSMIT_UA = 87_000.0
RECEIVE_UA = 5_220.0
"""The module's currents, as nodes/emulator/energy.py has them with their sources."""
UNKNOWN_DATA_RATE = 0
"""Taken where no network server said one of LoRa's: the slowest."""
MAX_LISTED = 200
"""Nodes listed one by one in an answer."""


@dataclass(frozen=True)
class Cost:
    """What bringing one container to one node takes, up to its switch."""

    downlinks: int
    downlink_airtime_s: float
    """Of the gateway."""
    uplink_airtime_s: float
    """Of the node: polls, and the event by which it says that it switched."""
    charge_uah: float
    """Out of the node's cell."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.downlinks + other.downlinks,
            self.downlink_airtime_s + other.downlink_airtime_s,
            self.uplink_airtime_s + other.uplink_airtime_s,
            self.charge_uah + other.charge_uah,
        )

    def rounded(self) -> dict[str, float]:
        """For people and JSON."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


NOTHING = Cost(0, 0.0, 0.0, 0.0)


def cost(container: bytes, data_rate: int) -> Cost | None:
    """What a container takes at a data rate; None where no node could take it at that rate."""
    limit = payload_limit_bytes(data_rate)
    event_s = airtime_s(data_rate, EVENT_LAYOUT.size)
    if len(container) <= limit:  # One frame, in answer to whatever the node says next.
        sizes, polls = [len(container)], 0
    else:
        try:
            fragmenter = Fragmenter(container, limit, 1)
        except FragmentationError:
            return None
        sizes = [len(fragmenter.setup()), *(len(fragmenter.fragment(step)) for step in range(fragmenter.count))]
        polls = len(sizes)
    received_s = sum(airtime_s(data_rate, size) for size in sizes)
    sent_s = polls * airtime_s(data_rate, POLL_BYTES) + event_s
    return Cost(len(sizes), received_s, sent_s, (received_s * RECEIVE_UA + sent_s * TRANSMIT_UA) / 3600)


@dataclass(frozen=True)
class Expected:
    """One node's part in a campaign that has not begun."""

    dev_eui: str
    site: str
    group: int
    running: int
    """The version it runs."""
    data_rate: int | None
    artefact: str
    """In words; empty where it can be given none."""
    size_bytes: int
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """For answers."""
        return {**asdict(self), "cost": self.cost.rounded()}


@dataclass(frozen=True)
class Forecast:
    """A dry run."""

    version: int
    sizes: Sequence[int]
    """Of the groups."""
    held_back: Sequence[str]
    nodes: Sequence[Expected]

    @property
    def total(self) -> Cost:
        """Of all nodes together."""
        return sum((node.cost for node in self.nodes), NOTHING)

    def to_json(self, *, limit: int | None = None) -> dict[str, Any]:
        """For answers; ``limit`` is the most nodes to list."""
        containers: dict[str, int] = {}
        for node in self.nodes:
            name = node.artefact or "none that it can apply"
            containers[name] = containers.get(name, 0) + 1
        by_group = [
            sum((node.cost for node in self.nodes if node.group == group), NOTHING).rounded()
            for group in range(len(self.sizes))
        ]
        return {
            "version": self.version,
            "nodes": len(self.nodes),
            "groups": [{"nodes": size, **group} for size, group in zip(self.sizes, by_group, strict=True)],
            "held_back": list(self.held_back),
            "containers": containers,
            "data_rates_unknown": sum(node.data_rate is None for node in self.nodes),
            "total": self.total.rounded(),
            "devices": [node.to_json() for node in self.nodes[:limit]],
        }


def forecast(connection: sqlite3.Connection, plan: Plan) -> Forecast:
    """What :func:`server.campaigns.create` would make of ``plan`` now, and what it would cost; changes nothing.

    Raises:
        CampaignError: as it would be refused.
    """
    drafted = draft(connection, plan)
    return Forecast(drafted.release.version, drafted.sizes, drafted.held_back, _expected(connection, drafted))


def _expected(connection: sqlite3.Connection, drafted: Draft) -> list[Expected]:
    rows = connection.execute(
        "SELECT kind, base, device, container FROM artefacts WHERE version = ? ORDER BY size_bytes, kind, base, device",
        (drafted.release.version,),
    )
    kept = {(row["kind"], row["base"], row["device"]): (turn, row["container"]) for turn, row in enumerate(rows)}
    costs: dict[tuple[ArtefactKey, int], Cost | None] = {}
    expected = []
    for node, group in zip(drafted.nodes, drafted.group_of(), strict=True):
        rate = node["data_rate"] if node["data_rate"] in range(len(MAX_PAYLOAD)) else UNKNOWN_DATA_RATE
        name, size, spent = "", 0, NOTHING
        usable = [key for key in recipient(node).usable() if key in kept]
        for key in sorted(usable, key=lambda key: kept[key][0]):
            container = kept[key][1]
            if (key, rate) not in costs:
                costs[key, rate] = cost(container, rate)
            if (known := costs[key, rate]) is not None:
                name, size, spent = releases.artefact_name(*key), len(container), known
                break
        expected.append(
            Expected(
                node["dev_eui"],
                node["site"],
                group,
                node["model_version"],
                node["data_rate"],
                name,
                size,
                spent,
            )
        )
    return expected
