"""Farms with stores of their own, asked by the server's strategy through the real ClientApp, without processes."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.supercore.task_identity import TaskIdentity
from gateway_cases import BACKBONE, NODES, START_S, snapshot
from server_cases import shared_truth

from gateway.config import Federation, GatewaySettings, NetworkServer, Node, Privacy
from gateway.federation import app
from gateway.store import Store
from gateway.sums import load_sums
from server.masked import MaskedSums
from server.strategy import Collected, Conditions, total_of
from shared_models.moments import Sums

CONDITIONS = Conditions(minimum_contributors=3, minimum_windows=10)


@pytest.fixture(scope="module", autouse=True)
def as_in_a_task():
    """Flower sets this identity in each process it starts; import this fixture where messages are made."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, name, 1)
        yield


def make_farm(
    path: Path,
    site: str,
    seed: int,
    privacy: Privacy | None = None,
    contributors: int = 4,
    backbone: int = BACKBONE,
) -> Path:
    """A gateway's store with one snapshot of each of ``contributors`` nodes, all of which speak of the same soil."""
    private_key = path if privacy is not None and privacy.peers_file else None
    settings = GatewaySettings(
        site=site,
        federation=Federation(
            superlink="127.0.0.1:9", private_key=private_key, root_certificates=path.with_name("ca.pem")
        )
        if private_key
        else Federation(superlink="127.0.0.1:9", insecure=True),
        store=path,
        network=NetworkServer(application="app"),
        privacy=privacy or Privacy(),
        nodes=[Node(dev_eui=dev_eui, name="n", crop="maize", board="stm32l072") for dev_eui in NODES],
    )
    with Store(path) as store:
        store.configure(settings)
        with store.transaction():
            for number, dev_eui in enumerate(NODES[:contributors]):
                payload = snapshot(np.random.default_rng([seed, number]), 8, shared_truth()).encode()
                store.execute(
                    "INSERT INTO snapshots VALUES (?, ?, 2025, 1, 24, ?, ?)", (dev_eui, backbone, START_S, payload)
                )
    return path


def disclosures(store: Path) -> list[tuple[str | None, float]]:
    with closing(sqlite3.connect(store)) as db:
        return db.execute("SELECT cohort, rho FROM disclosures ORDER BY id").fetchall()


class Farm:
    """One site: its store, and what Flower would keep between messages."""

    def __init__(self, node: int, site: str, store: Path, identity: Path | None = None) -> None:
        self.node = node
        self.site = site
        self.store = store
        facts = {"store": str(store), "site": site, "deadline": 30.0}
        self.context = Context(
            run_id=1,
            node_id=node,
            node_config=facts | ({"identity": str(identity)} if identity else {}),
            state=RecordDict(),
            run_config={},
        )

    @property
    def exact(self) -> Sums:
        return load_sums(self.store, BACKBONE).sums

    def answer(self, question: Message) -> Message:
        """What the SuperLink would hand to the server."""
        metadata = Metadata(
            run_id=1,
            message_id=f"answer-{self.node}",
            src_node_id=self.node,
            dst_node_id=1,
            reply_to_message_id=f"question-{self.node}",
            group_id="",
            created_at=1.0,
            ttl=100.0,
            message_type=question.metadata.message_type,
        )
        try:
            content = app(question, self.context).content
        except Exception as error:  # noqa: BLE001 - as Flower does
            return make_message(metadata, error=Error(code=7, reason=f"{type(error).__name__}: {error}"))
        return make_message(metadata, content=content)


class Fleet:
    """Sites that add up under masks.

    Args:
        lost: Per kind of message and how often it has been asked for (from 0), the sites that stay silent.
    """

    def __init__(self, farms: Iterable[Farm], lost: dict[tuple[str, int], set[str]] | None = None) -> None:
        self.farms = {farm.node: farm for farm in farms}
        self.lost = lost or {}
        self.asked: dict[str, int] = {}
        self.seen: list[tuple[str, Message, Message]] = []
        """Everything that passed through the server's hands: kind, question, reply."""
        self.spoil: Callable[[str, Message], Message] = lambda _, reply: reply

    def ask(self, messages: Iterable[Message]) -> list[Message]:
        questions = list(messages)
        kinds = {question.metadata.message_type for question in questions}
        replies = []
        for question in questions:
            kind = question.metadata.message_type
            farm = self.farms[question.metadata.dst_node_id]
            if farm.site in self.lost.get((kind, self.asked.get(kind, 0)), set()):
                continue
            reply = self.spoil(farm.site, farm.answer(question))
            self.seen.append((kind, question, reply))
            replies.append(reply)
        for kind in kinds:
            self.asked[kind] = self.asked.get(kind, 0) + 1
        return replies

    def round(
        self,
        known: dict[str, frozenset[str]] | None = None,
        cohort_size: int = 3,
        conditions: Conditions = CONDITIONS,
        nodes: Iterable[int] | None = None,
        registered: dict[int, str] | None = None,
    ) -> Collected:
        strategy = MaskedSums(BACKBONE, conditions, cohort_size, known or {}, self.ask, registered)
        return strategy.collect(sorted(self.farms if nodes is None else nodes))

    def total(self, sites: Iterable[str]) -> Sums:
        return total_of(farm.exact for farm in self.farms.values() if farm.site in set(sites))


class Farms:
    """Stores made once, handed out as fresh copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def fleet(
        self,
        count: int,
        lost: dict[tuple[str, int], set[str]] | None = None,
        privacy: Privacy | None = None,
    ) -> Fleet:
        self.made += 1
        farms = []
        for index in range(count):
            site = "abcdefghij"[index]
            key = "plain" if privacy is None else str(abs(hash(privacy.model_dump_json())))
            template = self.folder / f"{site}-{key}.db"
            if not template.exists():
                make_farm(template, site, index, privacy)
            store = self.folder / f"{site}-{self.made}.db"
            shutil.copyfile(template, store)
            farms.append(Farm(index + 1, site, store))
        return Fleet(farms, lost)
