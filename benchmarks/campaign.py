"""A release for ten thousand nodes over a lossy air, and one that harms: what campaigns cost, and what they hold up.

The server's campaigns and store, several sites' gateways on their stores, and every node's update code in C are the
real ones (``benchmarks/field.py`` has the air and the network server's queues). Nodes are reset and lose power in the
middle of flash operations, gateways and server begin again from their stores at random moments, data rates wander.
"""

from __future__ import annotations

import base64
import dataclasses
import random
import sqlite3
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress as Bar

from benchmarks.field import FieldNode, Site, Weather, World
from gateway.clock import DAY_S
from gateway.config import DownlinkSection
from gateway.status import send_status
from server import campaigns, fleet, releases, store
from server.campaigns import Action, Plan
from server.signing import SigningKey
from shared_models.codes import UpdateState
from shared_models.container import build_delta, build_full, build_head, sign
from shared_models.messages import Artefact, Assignment, Progress, SiteStatus
from shared_models.network import (
    ACTIVATIONS,
    HIDDEN,
    INPUTS,
    OUTPUTS,
    Layer,
    ModelImage,
    quantise_head,
    quantise_multiplier,
)

NODES = 10_000
SITES = 20
START_S = 1_777_593_600
"""2026-05-01 00:00 UTC."""
LIMIT_DAYS = 120
SERVER_PERIOD_S = 4 * 3600
"""How often messages between gateways and server are carried over; they are kept meanwhile."""
KEY = SigningKey.from_seed(bytes(range(32)))
RELEASED = 2
UNDER_WAY = (UpdateState.PENDING, UpdateState.SENDING, UpdateState.ACTIVATED)


@dataclass(frozen=True)
class Case:
    """One campaign.

    Args:
        nodes: In all.
        sites: Farms.
        plan: The operator's.
        weather: Of the field.
        other_backbone: Share of nodes whose model has another backbone: they need the full model.
        unreachable: Share of nodes that were heard once and never again.
        harm: Squared errors of the release relative to the rule without ML, as the nodes' own judgement sees them.
        windows_per_day: Dry-downs a node's judgement gets to see.
        gateway_restarts: Chance a day and site.
        server_restarts: Chance every :data:`SERVER_PERIOD_S`.
        limits: Of each site's downlinks.
    """

    nodes: int
    sites: int
    plan: Plan
    weather: Weather = field(default_factory=Weather)
    other_backbone: float = 0.3
    unreachable: float = 0.01
    harm: float = 0.8
    windows_per_day: float = 1.0
    gateway_restarts: float = 0.3
    server_restarts: float = 0.05
    limits: DownlinkSection = field(default_factory=DownlinkSection)
    seed: int = 1


BAD = Case(200, 4, Plan(release=RELEASED, canary=10, growth=10), harm=3.0, unreachable=0)
"""The campaign of a release that harms."""


@dataclass
class Models:
    """What may run on a node."""

    factory: ModelImage
    elsewhere: ModelImage
    """What some nodes run as version 1: another backbone."""
    release: ModelImage

    @cached_property
    def _known(self) -> dict[int, tuple[bytes, ...]]:
        return {1: (self.factory.pack(), self.elsewhere.pack()), RELEASED: (self.release.pack(),)}

    def allow(self, version: int, image: bytes) -> bool:
        """Whether these bytes are that version."""
        return image in self._known.get(version, ())


def models(*, flipped: bool = False) -> Models:
    """The models of a case; ``flipped``: the release's head has every sign the wrong way."""
    weights = np.random.default_rng(5).normal(0, 0.1, (OUTPUTS, ACTIVATIONS + 1))
    factory = quantise_head(_trained(1), weights)
    change = np.random.default_rng(6).normal(0, 0.02, weights.shape)
    return Models(
        factory, quantise_head(_trained(2), weights), quantise_head(factory, -weights if flipped else weights + change)
    )


def _trained(seed: int) -> ModelImage:
    """A model whose weights are spread as training spreads them: its container is as long as a real one's."""
    rng = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int, input_zero: int, output_zero: int) -> Layer:
        weights = np.clip(np.rint(rng.normal(0, 35, (outputs, inputs))), -127, 127).astype(np.int8)
        bias = rng.normal(0, 1500, outputs).astype(np.int32)
        return Layer(weights, bias, *quantise_multiplier(0.004), input_zero, output_zero)

    return ModelImage(
        layer(INPUTS, HIDDEN, -3, -128), layer(HIDDEN, ACTIVATIONS, -128, -128), layer(ACTIVATIONS, OUTPUTS, -128, 0)
    )


class Server:
    """The server's store and campaigns; every message is one call, as the service makes it."""

    def __init__(self, folder: Path, made: Models) -> None:
        self._path = folder / "server.db"
        store.create(self._path)
        self.connection = store.connect(self._path)
        base = releases.register_factory(self.connection, KEY, made.factory, {"name": "factory"}, START_S)
        self.connection.execute(
            "INSERT INTO rounds (id, started_s, state, backbone_id, base_version) VALUES (1, ?, 'released', ?, 1)",
            (START_S, made.factory.backbone_id),
        )
        signed = releases.sign(KEY, made.release, releases.upcoming(self.connection, made.release))
        releases.register_improvement(
            self.connection, signed, made.release, base, 1, START_S, provenance={}, evidence={}
        )

    def restart(self) -> None:
        """It was killed, and begins again."""
        self.connection.close()
        self.connection = store.connect(self._path)
        campaigns.republish_active(self.connection)

    def hear(self, site: str, said: tuple[list[Progress], list[SiteStatus]], now_s: int) -> None:
        """What a gateway said."""
        for status in said[1]:
            fleet.record_status(self.connection, site, status)
        for progress in said[0]:
            campaigns.record_progress(self.connection, site, progress, now_s)

    def begin(self, plan: Plan, now_s: int) -> int:
        """An operator drafts, another approves, the first starts."""
        campaign = campaigns.create(self.connection, "ann", plan, now_s)
        campaigns.act(self.connection, "bob", campaign, Action.APPROVE, now_s)
        campaigns.act(self.connection, "ann", campaign, Action.START, now_s)
        return campaign

    def publish(self, sites: dict[str, Site]) -> None:
        """New assignments reach their gateways."""
        for row in campaigns.unpublished(self.connection):
            sites[row["site"]].assign(row["campaign"], row["message"].encode())
            campaigns.mark_published(self.connection, row)

    def standing(self, campaign: int) -> tuple[str, list[sqlite3.Row]]:
        """The campaign's state, and the nodes of its open groups."""
        row = self.connection.execute("SELECT state, open_group FROM campaigns WHERE id = ?", (campaign,)).fetchone()
        nodes = self.connection.execute(
            "SELECT dev_eui, state, group_index FROM campaign_nodes WHERE campaign = ? AND group_index <= ?",
            (campaign, row["open_group"]),
        ).fetchall()
        return row["state"], nodes


class Campaign:
    """One case, lived through."""

    def __init__(self, case: Case, made: Models, folder: Path) -> None:
        self.case, self.made = case, made
        self.dice = random.Random(case.seed)
        self.now_s = START_S
        self.server = Server(folder, made)
        self.world = World(folder, case.weather, made.allow, self._harm, case.windows_per_day)
        names = [f"farm-{index}" for index in range(case.sites)]
        for name in names:
            self.world.site(name, case.limits)
        self.nodes: dict[str, FieldNode] = {}
        for number in range(case.nodes):
            elsewhere = self.dice.random() < case.other_backbone
            model = (made.elsewhere if elsewhere else made.factory).pack()
            site = self.world.sites[names[number % case.sites]]
            node = self.world.node(site, case.seed * 1_000_000 + number, model, KEY.public)
            self.nodes[node.dev_eui] = node
        self.updated: dict[str, tuple[int, int]] = {}
        """When each node was opened, and when it was through, Unix seconds."""
        self._opened: dict[str, int] = {}
        self._campaign = 0
        self.restarts: Counter[str] = Counter()

    def _harm(self, version: int) -> float:
        return self.case.harm if version == RELEASED else 0.8

    def run(self, bar: Bar | None = None, limit_days: int = LIMIT_DAYS) -> str:
        """From the first report on until every reachable node is through, or the campaign is halted; its state."""
        self._introduce()
        self._campaign = self.server.begin(self.case.plan, self.now_s)
        task = None if bar is None else bar.add_task("campaign", total=sum(n.reachable for n in self.nodes.values()))
        state = "running"
        for _ in range(limit_days):
            state = self._day()
            if bar is not None and task is not None:
                bar.update(task, completed=len(self.updated))
            if state != "running" or len(self.updated) == sum(n.reachable for n in self.nodes.values()):
                break
        return state

    @property
    def opened(self) -> list[FieldNode]:
        """Nodes that were assigned the release."""
        return [self.nodes[dev_eui] for dev_eui in self._opened]

    def after(self, days: int) -> None:
        """Days after a halt."""
        for _ in range(days):
            self._day()

    def _introduce(self) -> None:
        """Every node is heard once; then some fall silent for good."""
        for site in self.world.sites.values():
            site.start()
        for node in self.nodes.values():
            at_s = self.now_s + node.phase_s
            while not is_known(node):
                self.world.wake(node, at_s, day_begins=True)
                at_s += 60
        self.now_s += DAY_S
        for node in self.nodes.values():
            node.reachable = self.dice.random() >= self.case.unreachable
        for site in self.world.sites.values():
            with site.store.transaction():
                send_status(site.store, site.gateway._clock, site.name, only_changes=False)
            self.server.hear(site.name, site.to_server(), self.now_s)
        self.world.tally = type(self.world.tally)()
        for node in self.nodes.values():
            node.downlinks = 0

    def _day(self) -> str:
        begins_s = self.now_s
        self._serve(begins_s)
        self.world.day(begins_s, self._living(), SERVER_PERIOD_S, self._serve)
        self.now_s = begins_s + DAY_S
        for site in self.world.sites.values():
            site.daily()
            if self.dice.random() < self.case.gateway_restarts:
                self.restarts["gateway"] += 1
                site.restart()
        return self._serve(self.now_s)

    def _living(self) -> list[FieldNode]:
        """Nodes that have been assigned the release and have not been through with it."""
        waiting = (self.nodes[dev_eui] for dev_eui in self._opened if dev_eui not in self.updated)
        return [node for node in waiting if node.reachable]

    def _serve(self, now_s: int) -> str:
        """Messages between gateways and server; the campaign's state."""
        self.now_s = now_s
        if self.dice.random() < self.case.server_restarts:
            self.restarts["server"] += 1
            self.server.restart()
        for site in self.world.sites.values():
            self.server.hear(site.name, site.to_server(), self.now_s)
        self.server.publish(self.world.sites)
        state, rows = self.server.standing(self._campaign)
        for row in rows:
            self._opened.setdefault(row["dev_eui"], self.now_s)
            through = row["state"] not in UNDER_WAY
            if through and row["dev_eui"] not in self.updated:
                self.updated[row["dev_eui"]] = (self._opened[row["dev_eui"]], self.now_s)
        return state


def is_known(node: FieldNode) -> bool:
    """Whether its gateway has had a report of it."""
    row = node.site.store.one("SELECT reported_s FROM devices WHERE dev_eui = ?", (node.dev_eui,))
    return row is not None and row["reported_s"] is not None


def ideal_downlinks(campaign: Campaign) -> tuple[int, float]:
    """Downlinks used by nodes that were updated, and what they would have been had each frame been needed once."""
    used, ideal = 0, 0.0
    for site in campaign.world.sites.values():
        for row in site.store.all("SELECT downlinks, fragments FROM updates WHERE state = 'confirmed'"):
            used += row["downlinks"]
            ideal += (1 + row["fragments"]) / (1 - campaign.case.weather.loss)
    return used, ideal


def figures(campaign: Campaign, state: str) -> dict[str, Any]:
    """What a case came to."""
    reachable = [node for node in campaign.nodes.values() if node.reachable]
    running = [node.version for node in reachable]
    tally = campaign.world.tally
    used, ideal = ideal_downlinks(campaign)
    days = [(through - opened) / DAY_S for opened, through in campaign.updated.values()]
    activated = Counter(row["fragments"] for site in campaign.world.sites.values() for row in site.store.all(
        "SELECT fragments FROM updates WHERE state = 'confirmed'"
    ))  # fmt: skip
    return {
        "nodes": len(campaign.nodes),
        "sites": len(campaign.world.sites),
        "reachable": len(reachable),
        "state": state,
        "updated_share_of_reachable": round(running.count(RELEASED) / len(reachable), 6),
        "looks_without_valid_model": tally.without_model,
        "downlinks_per_node": round(used / max(len(campaign.updated), 1), 2),
        "downlinks_over_ideal": round(used / ideal, 3) if ideal else None,
        "transmitted_downlinks": tally.downlinks,
        "useless_receptions": tally.duplicates,
        "median_days_to_confirmed": round(statistics.median(days), 1) if days else None,
        "longest_days_to_confirmed": round(max(days), 1) if days else None,
        "days": round((campaign.now_s - START_S) / DAY_S - 1, 1),
        "uplinks": tally.uplinks,
        "downlink_airtime_h": round(tally.airtime_s / 3600, 2),
        "longest_queue_of_a_site": tally.longest_queue,
        "node_resets": tally.resets,
        "power_cuts_in_flash_operations": tally.cuts,
        "gateway_restarts": campaign.restarts["gateway"],
        "server_restarts": campaign.restarts["server"],
        "nodes_by_fragments": {str(count): number for count, number in sorted(activated.items())},
    }


def efficiency(kind: str, data_rate: int, nodes: int, folder: Path, loss: float = 0.3) -> dict[str, Any]:
    """What one kind of artefact costs at one data rate, at ``nodes`` nodes of three farms, each given it at once.

    Nothing but the radio loses anything here, and there is no server: gateways and nodes alone.
    """
    made = models()
    tuned = made.factory if kind == "full" else finely_tuned(made.factory) if kind == "delta" else made.release
    release = made.elsewhere if kind == "full" else tuned
    built = {
        "head": lambda: build_head(release, RELEASED),
        "delta": lambda: build_delta(release, made.factory, RELEASED),
        "full": lambda: build_full(release, RELEASED),
    }[kind]()
    container = sign(built, KEY.secret)
    known = {1: made.factory.pack(), RELEASED: release.pack()}
    weather = Weather(loss=loss, data_rates=(data_rate,), moves=0, resets=0, cuts=0)
    world = World(folder, weather, lambda version, image: known.get(version) == image, lambda _: 0.8)
    sites = [world.site(f"farm-{index}", DownlinkSection()) for index in range(3)]
    everyone = [world.node(sites[number % 3], number, known[1], KEY.public) for number in range(nodes)]
    for site in sites:
        site.start()
    now_s = START_S
    for begun in (False, True):
        if begun:
            base = {"head": made.factory.backbone_id, "delta": 1, "full": 0}[kind]
            encoded = base64.b64encode(container).decode()
            artefacts = [Artefact.model_validate({"kind": kind, "base": base, "container": encoded})]
            for site in sites:
                message = Assignment(
                    campaign=1, sequence=1, action="run", version=RELEASED, model_id=release.model_id,
                    artefacts=artefacts, devices=[node.dev_eui for node in site.nodes],
                )  # fmt: skip
                site.assign(1, message.model_dump_json().encode())
        for _ in range(LIMIT_DAYS):
            states = Counter(_state(node) if begun else "waits" if not is_known(node) else "known" for node in everyone)
            if not states.keys() - {"known", "activated", "confirmed"}:
                break
            world.day(now_s, everyone, DAY_S, lambda _: None)
            now_s += DAY_S
    rows = [row for site in sites for row in site.store.all("SELECT downlinks, fragments FROM updates")]
    used, frames = sum(row["downlinks"] for row in rows), 1 + rows[0]["fragments"]
    return {
        "kind": kind,
        "data_rate": data_rate,
        "container_bytes": len(container),
        "lossless_downlinks": frames,
        "downlinks_per_node": round(used / nodes, 2),
        "over_ideal": round(used / nodes / (frames / (1 - loss)), 3),
        "useless_receptions": world.tally.duplicates,
        "nodes": nodes,
    }


def _state(node: FieldNode) -> str:
    row = node.site.store.one("SELECT state FROM updates WHERE dev_eui = ?", (node.dev_eui,))
    return "" if row is None else str(row["state"])


def finely_tuned(base: ModelImage) -> ModelImage:
    """A model of which a third of all weights has moved by one step."""
    rng = np.random.default_rng(7)

    def moved(layer: Layer) -> Layer:
        steps = rng.integers(-1, 2, layer.weights.shape) * (rng.random(layer.weights.shape) < 1 / 2)
        return dataclasses.replace(layer, weights=np.clip(layer.weights + steps, -127, 127).astype(np.int8))

    return ModelImage(moved(base.first), moved(base.second), moved(base.head))


def bad_release(case: Case, folder: Path) -> dict[str, Any]:
    """A release whose head was turned round after the gate, signed with the real key."""
    campaign = Campaign(case, models(flipped=True), folder)
    state = campaign.run(limit_days=60)
    opened = campaign.opened
    halted_days = (campaign.now_s - START_S) / DAY_S - 1
    campaign.after(28)
    canaries = Counter(node.version for node in opened if node.reachable)
    others = Counter(node.version for node in campaign.nodes.values() if node not in opened)
    return {
        "nodes": case.nodes,
        "harm": case.harm,
        "windows_per_day": case.windows_per_day,
        "state": state,
        "opened": len(opened),
        "days_to_halt": round(halted_days, 1),
        "canaries_back_on_the_old_model": canaries[1],
        "canaries_still_on_the_bad_model": canaries[RELEASED],
        "others_on_the_bad_model": others[RELEASED],
        "longest_node_days_under_the_bad_model": max((node.model_days for node in opened), default=0),
        "looks_without_valid_model": campaign.world.tally.without_model,
    }


def measure() -> dict[str, Any]:
    """The large campaign, what each kind costs on the air, and the bad release."""
    warnings.simplefilter("ignore", DeprecationWarning)
    case = Case(NODES, SITES, Plan(release=RELEASED, canary=10, growth=10))
    with memory_folder() as folder, Bar() as bar:
        campaign = Campaign(case, models(), folder)
        good = figures(campaign, campaign.run(bar))
    costs = []
    for kind in ("head", "delta", "full"):
        for data_rate in (0, 3, 5):
            with memory_folder() as folder:
                costs.append(efficiency(kind, data_rate, 150, folder))
    bad = []
    for harm, windows_per_day in ((3.0, 1.0), (3.0, 0.5)):
        with memory_folder() as folder:
            bad.append(bad_release(dataclasses.replace(BAD, harm=harm, windows_per_day=windows_per_day), folder))
    return {"loss_each_way": case.weather.loss, "good_release": good, "by_kind": costs, "bad_release": bad}


@contextmanager
def memory_folder() -> Iterator[Path]:
    """In memory where there is such a place: a million transactions are not to wait for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
