"""What an operator asks for, and which nodes that means."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from server import releases
from server.campaigns.groups import GROUP_PATTERN, GroupError, growing, listed
from server.campaigns.machine import ACTIVE, CampaignError
from server.releases import Recipient, Release
from shared_models.codes import Board
from shared_models.messages import DevEui, SendingHours, Site

_RANGE = r"^([0-9]{1,9}|[0-9]{1,9}-[0-9]{0,9}|-[0-9]{1,9})$"


class Plan(BaseModel):
    """A campaign to be drafted. Every filter narrows the selection; all nodes unless given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: Annotated[int, Field(ge=1)] | Literal["latest"]

    sites: Annotated[list[Site], Field(max_length=10_000)] | None = None
    boards: Annotated[list[str], Field(max_length=16)] | None = None
    """Names of ``codes.Board``, any case."""
    backbones: Annotated[list[Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]], Field(max_length=100)] | None = None
    versions: Annotated[list[Annotated[str, Field(pattern=_RANGE)]], Field(max_length=100)] | None = None
    """Versions nodes run: ``"3"``, ``"2-4"``, ``"2-"``, ``"-4"``."""
    healthy: bool | None = None
    """Only nodes whose gateway finds them healthy, or only those it does not."""
    minimum_battery_mv: Annotated[int, Field(ge=0, le=6000)] | None = None
    devices: Annotated[list[DevEui], Field(max_length=100_000)] | None = None

    groups: (
        Annotated[list[Annotated[str, Field(pattern=GROUP_PATTERN)]], Field(min_length=1, max_length=100)] | None
    ) = None
    """Numbers of nodes, or shares of the nodes left; in place of a canary that grows."""
    canary: Annotated[int, Field(ge=1)] = 1
    """Nodes in the first group."""
    growth: Annotated[float, Field(ge=1, le=100)] = 3.0
    """Each group's size relative to the one before."""

    success_threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a group that must confirm before the next opens."""
    error_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the opened nodes that may fail before the campaign halts."""
    halt_on_unhealthy: bool = True
    """Nodes that become unhealthy or silent once they run the release count like failed ones."""
    silent_days: Annotated[float, Field(gt=0, le=365)] = 3.0
    """A node its gateway has not heard for so long is silent."""

    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    hours: SendingHours | None = None
    """Hours of the day, UTC, in which gateways may send."""
    automatic: bool = False
    """Start by itself at ``not_before``, if approved."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.groups is not None and self.model_fields_set & {"canary", "growth"}:
            raise ValueError("give either groups or canary and growth")
        if self.automatic and self.not_before is None:
            raise ValueError("an automatic start needs not_before")
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError("not_before and not_after leave no time")
        if self.hours is not None and self.hours.start == self.hours.end:
            raise ValueError("the hours leave no time")
        return self

    def group_sizes(self, nodes: int) -> list[int]:
        """How many nodes each group takes.

        Raises:
            CampaignError: the groups leave nodes out.
        """
        try:
            return growing(nodes, self.canary, self.growth) if self.groups is None else listed(nodes, self.groups)
        except GroupError as error:
            raise CampaignError(str(error)) from error


@dataclass(frozen=True)
class Draft:
    """What a plan comes to with the fleet as it is."""

    release: Release
    nodes: Sequence[sqlite3.Row]
    """Rows of ``nodes``, in the order in which they have their turn."""
    sizes: Sequence[int]
    """Of the groups."""
    held_back: Sequence[str]
    """Sites left out because the release would hurt them."""

    def group_of(self) -> list[int]:
        """The group of each node."""
        return [index for index, size in enumerate(self.sizes) for _ in range(size)]


def draft(connection: sqlite3.Connection, plan: Plan, *, sparing: int = 0) -> Draft:
    """Find the nodes a plan selects and divide them into groups; changes nothing.

    Args:
        connection: The server's store.
        plan: What is asked for.
        sparing: An active campaign that may hold nodes of this one; it must have ended before this one starts.

    Raises:
        CampaignError: unknown release, site or board; withdrawn; no node selected; nobody can apply it; a node is
            taken.
    """
    try:
        release = releases.find(connection, plan.release)
    except releases.ReleaseError as error:
        raise CampaignError(str(error)) from error
    refuse_withdrawn(connection, release.version)
    nodes, held_back = _not_held_back(release, plan, _select(connection, plan))
    nodes = _that_need(connection, release, nodes)
    nodes = _that_can_apply(connection, release.version, nodes)
    refuse_taken(connection, [node["dev_eui"] for node in nodes], sparing=sparing)
    number = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM campaigns").fetchone()[0]
    ordered = sorted(nodes, key=lambda node: _turn(number, node))
    return Draft(release, ordered, plan.group_sizes(len(nodes)), held_back)


def recipient(node: sqlite3.Row) -> Recipient:
    """A row of ``nodes`` as the registry sees it."""
    return Recipient(node["dev_eui"], node["model_version"], node["backbone_id"])


def in_range(version: int, text: str) -> bool:
    """Whether a version lies in a range such as ``"3"``, ``"2-4"``, ``"2-"`` or ``"-4"``."""
    first, dash, last = text.partition("-")
    if not dash:
        return version == int(first)
    return (not first or version >= int(first)) and (not last or version <= int(last))


def _turn(campaign: int, node: sqlite3.Row) -> tuple[bool, bytes]:
    """Healthy nodes first, then in an order that is another for each campaign, so that canaries take turns."""
    shuffled = hashlib.blake2b(f"{campaign}:{node['dev_eui']}".encode(), digest_size=8).digest()
    return not node["healthy"], shuffled


def _select(connection: sqlite3.Connection, plan: Plan) -> list[sqlite3.Row]:
    nodes = connection.execute("SELECT * FROM nodes ORDER BY dev_eui").fetchall()
    if plan.sites is not None:
        known = {row["site"] for row in connection.execute("SELECT site FROM sites")}
        if unknown := sorted(set(plan.sites) - known):
            raise CampaignError(f"unknown site {', '.join(unknown)}; known: {', '.join(sorted(known)) or 'none'}")
        nodes = [node for node in nodes if node["site"] in plan.sites]
    if plan.boards is not None:
        names = {name.upper() for name in plan.boards}
        if unknown := sorted(names - {board.name for board in Board}):
            raise CampaignError(f"unknown board {', '.join(unknown)}; known: {', '.join(b.name for b in Board)}")
        nodes = [node for node in nodes if Board(node["board"]).name in names]
    if plan.backbones is not None:
        wanted = {int(text, 16) for text in plan.backbones}
        nodes = [node for node in nodes if node["backbone_id"] in wanted]
    if plan.versions is not None:
        nodes = [node for node in nodes if any(in_range(node["model_version"], text) for text in plan.versions)]
    if plan.healthy is not None:
        nodes = [node for node in nodes if bool(node["healthy"]) == plan.healthy]
    if plan.minimum_battery_mv is not None:
        nodes = [node for node in nodes if node["battery_mv"] >= plan.minimum_battery_mv]
    if plan.devices is not None:
        devices = set(plan.devices)
        nodes = [node for node in nodes if node["dev_eui"] in devices]
    if not nodes:
        raise CampaignError("no node matches the selection")
    return nodes


def _not_held_back(release: Release, plan: Plan, nodes: Sequence[sqlite3.Row]) -> tuple[list[sqlite3.Row], list[str]]:
    """Nodes of sites the release does not hurt, and the sites left out.

    Raises:
        CampaignError: a site that was asked for by name is held back, or no other is left.
    """
    reasons = release.held_back
    if named := sorted(set(plan.sites or ()) & set(reasons)):
        raise CampaignError(f"{named[0]} is held back from release {release.version}: {reasons[named[0]]}")
    held_back = sorted({str(node["site"]) for node in nodes} & set(reasons))
    kept = [node for node in nodes if node["site"] not in reasons]
    if not kept:
        raise CampaignError(f"every selected node is of a site held back from release {release.version}")
    return kept, held_back


def _that_need(connection: sqlite3.Connection, release: Release, nodes: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    needing = [node for node in nodes if node["model_version"] < release.version]
    if not needing:
        raise CampaignError(f"every selected node runs release {release.version} or a newer one already")
    if release.origin != "keys":
        return needing
    # What a node runs does not tell which keys it trusts; an earlier campaign does.
    changed = {
        row["dev_eui"]
        for row in connection.execute(
            "SELECT n.dev_eui FROM campaign_nodes AS n JOIN campaigns AS c ON c.id = n.campaign"
            " WHERE c.version = ? AND n.state = 'confirmed'",
            (release.version,),
        )
    }
    needing = [node for node in needing if node["dev_eui"] not in changed]
    if not needing:
        raise CampaignError(f"every selected node has taken the change of keys {release.version} already")
    return needing


def _that_can_apply(connection: sqlite3.Connection, version: int, nodes: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    rows = connection.execute("SELECT kind, base, device FROM artefacts WHERE version = ?", (version,))
    kept = {(row["kind"], row["base"], row["device"]) for row in rows}
    able = [node for node in nodes if not kept.isdisjoint(recipient(node).usable())]
    if not able:
        raise CampaignError(f"no selected node runs the base release {version} applies to")
    return able


def refuse_withdrawn(connection: sqlite3.Connection, version: int) -> None:
    """Refuse a release that was withdrawn."""
    if reason := releases.withdrawn(connection, version):
        raise CampaignError(f"release {version} is withdrawn: {reason}")


def refuse_taken(
    connection: sqlite3.Connection, devices: Sequence[str], campaign: int = 0, *, sparing: int = 0
) -> None:
    """Refuse devices that an active campaign other than these two holds."""
    rows = connection.execute(
        "SELECT n.dev_eui, n.campaign FROM campaign_nodes AS n JOIN campaigns AS c ON c.id = n.campaign"
        " WHERE c.state IN (?, ?, ?) AND c.id NOT IN (?, ?)",
        (*ACTIVE, campaign, sparing),
    )
    taken = {row["dev_eui"]: row["campaign"] for row in rows}
    if clashes := [device for device in devices if device in taken]:
        raise CampaignError(
            f"node {clashes[0]} is in campaign {taken[clashes[0]]}, which is still active"
            + (f" ({len(clashes)} nodes in all)" if len(clashes) > 1 else "")
        )


def parse_hours(text: str) -> dict[str, int]:
    """``"22-5"`` as :class:`SendingHours` takes it.

    Raises:
        CampaignError: not of that form.
    """
    found = re.fullmatch(r"([0-9]{1,2})-([0-9]{1,2})", text)
    if found is None:
        raise CampaignError(f"{text:.20}: hours are given as in 22-5, UTC")
    return {"start": int(found[1]), "end": int(found[2])}
