"""JSON messages between gateways and server over MQTT, and the simulated clock.

Topics (``{site}`` is a gateway's site name, ``{client}`` an MQTT client name):

==============================================  ==========================  ===================
topic                                           direction                   message
==============================================  ==========================  ===================
``noria/v1/sites/{site}/campaigns/{campaign}``  server → gateway, retained  :class:`Assignment`
``noria/v1/sites/{site}/progress``              gateway → server            :class:`Progress`
``noria/v1/sites/{site}/status``                gateway → server, retained  :class:`SiteStatus`
``noria/v1/clock/tick/{client}``                conductor → service         :class:`Tick`
``noria/v1/clock/tock/{client}``                service → conductor         :class:`Tock`
==============================================  ==========================  ===================

All are QoS 1. No reading of a probe and no precise location is in any of them (invariant I7).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared_models.codes import Board, UpdateState

SITE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}$"
DEV_EUI_PATTERN = r"^[0-9a-f]{16}$"

Site = Annotated[str, Field(pattern=SITE_PATTERN)]
DevEui = Annotated[str, Field(pattern=DEV_EUI_PATTERN)]
Identity = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]


class Message(BaseModel):
    """Base: strict about unknown keys, bounded by its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Artefact(Message):
    """One container of a release; the gateway picks the smallest a node can apply."""

    kind: Literal["full", "head", "delta", "personal", "keys"]
    base: Identity
    """What a node must run: for a head its backbone id, for a delta or a personal head its model *version*; 0 for a
    full model and for a change of keys, which any node can apply."""
    device: DevEui | None = None
    """The only node it is for, where it is authenticated for one; None otherwise."""
    container: Annotated[str, Field(max_length=8192)]
    """Base64."""


class SendingHours(Message):
    """When a campaign may send: hours of the day, UTC; ``start`` after ``end`` spans midnight."""

    start: Annotated[int, Field(ge=0, le=23)]
    end: Annotated[int, Field(ge=1, le=24)]


class Assignment(Message):
    """What a gateway shall bring to which of its nodes. The newest ``sequence`` per campaign counts."""

    campaign: Annotated[int, Field(ge=1)]
    sequence: Annotated[int, Field(ge=1)]
    action: Literal["run", "pause", "abort"]
    version: Identity
    model_id: Identity
    artefacts: Annotated[list[Artefact], Field(max_length=100_000)]
    devices: Annotated[list[DevEui], Field(max_length=100_000)]
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    """Nothing is sent after it; a session under way is kept, and what the node does with it is still reported."""
    hours: SendingHours | None = None


class Progress(Message):
    """One node's step in a campaign, a fact acknowledged by the node from ``activated`` on."""

    campaign: Annotated[int, Field(ge=1)]
    dev_eui: DevEui
    state: UpdateState
    detail: Annotated[str, Field(max_length=200)] = ""
    downlinks: Annotated[int, Field(ge=0)] = 0
    time: AwareDatetime


class NodeStatus(Message):
    """One node as its gateway last heard it: inventory and health, never readings."""

    dev_eui: DevEui
    board: Board
    model_version: Identity
    backbone_id: Identity
    battery_mv: Annotated[int, Field(ge=0, le=6000)]
    last_seen: AwareDatetime
    healthy: bool
    data_rate: Annotated[int, Field(ge=0, le=15)] | None = None
    """Of its newest uplink, EU868; None where no network server said."""


class Knowledge(Message):
    """How much a site could bring to a round about one backbone: counts, never sums."""

    backbone_id: Identity
    contributors: Annotated[int, Field(ge=0, le=100_000)]
    """Nodes with at least one dry-down window."""
    windows: Annotated[int, Field(ge=0, lt=1 << 53)]
    """Of all classes."""


class SiteStatus(Message):
    """A gateway's heartbeat."""

    site: Site
    time: AwareDatetime
    nodes: Annotated[list[NodeStatus], Field(max_length=100_000)]
    counters: dict[str, int]
    knowledge: Annotated[list[Knowledge], Field(max_length=1000)] = []


class Tick(Message):
    """Simulated time for a service whose ``clock`` is ``"simulated"``.

    A service answers with a :class:`Tock` only after every message that reached it before the tick has
    been carried out and its consequences have been published, so that a run is reproducible.
    """

    sequence: Annotated[int, Field(ge=1)]
    time: AwareDatetime


class Tock(Message):
    """The answer to a tick; ``busy`` says that the service published something for others to act on."""

    sequence: Annotated[int, Field(ge=1)]
    time: datetime
    busy: bool = False


def assignment_topic(site: str, campaign: int | str) -> str:
    """Topic of one campaign's assignment; ``"+"`` as campaign subscribes to all."""
    return f"noria/v1/sites/{site}/campaigns/{campaign}"


def progress_topic(site: str) -> str:
    """Topic of a site's progress messages; ``"+"`` as site subscribes to all."""
    return f"noria/v1/sites/{site}/progress"


def status_topic(site: str) -> str:
    """Topic of a site's heartbeat; ``"+"`` as site subscribes to all."""
    return f"noria/v1/sites/{site}/status"


def tick_topic(client: str) -> str:
    """Topic on which a service receives simulated time."""
    return f"noria/v1/clock/tick/{client}"


def tock_topic(client: str) -> str:
    """Topic on which a service answers."""
    return f"noria/v1/clock/tock/{client}"
