"""A gateway's store that is missing, locked or damaged: the ClientApp says so, and nothing of it is changed."""

import random
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from gateway_cases import BACKBONE, START_S, snapshot

from gateway.config import GatewaySettings, NetworkServer
from gateway.federation import app
from gateway.store import Store, StoreError
from gateway.sums import load_sums

NODES = 40


@pytest.fixture(autouse=True)
def as_in_a_task(monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Forty nodes' snapshots, some 40 pages, everything in the one file."""
    path = tmp_path_factory.mktemp("store") / "gateway.db"
    settings = GatewaySettings(site="champion", store=path, network=NetworkServer(application="app"), nodes=[])
    rng = np.random.default_rng(1)
    with Store(path) as made:
        made.configure(settings)
        with made.transaction():
            for node in range(NODES):
                payload = snapshot(rng, 8 + node).encode()
                made.execute(
                    "INSERT INTO snapshots VALUES (?, ?, 2025, 1, ?, ?, ?)",
                    (f"{node:016x}", BACKBONE, 3 * (8 + node), START_S, payload),
                )
    return path


def ask(path, deadline=30.0):
    node_config = {"store": str(path), "site": "champion", "deadline": deadline}
    context = Context(run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config={})
    content = RecordDict({"config": ConfigRecord({"backbone": BACKBONE, "round": 1})})
    return app(Message(content, dst_node_id=2, message_type="train"), context).content


def test_a_missing_store_is_named_as_such(tmp_path):
    with pytest.raises(StoreError, match="no store; has the gateway run yet"):
        ask(tmp_path / "gateway.db")


def test_a_store_locked_for_longer_than_the_patience_is_an_answer_before_the_watchdog_strikes(store, tmp_path):
    path = shutil.copy(store, tmp_path / "gateway.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        holder.execute("INSERT INTO counters VALUES ('held', 1)")
        with pytest.raises(StoreError, match=r"stayed locked for 0\.5 s"):
            ask(path, deadline=1.0)
        holder.execute("ROLLBACK")
    assert set(ask(path)) == {"sums", "counts", "site"}, "once it is free again nothing is missing"


@pytest.mark.parametrize("kept", [0, 100, 4096, 6000, 0.5, 0.9])
def test_a_truncated_store_is_refused(store, tmp_path, kept):
    data = store.read_bytes()
    size = kept if isinstance(kept, int) else int(kept * len(data))
    path = tmp_path / "gateway.db"
    path.write_bytes(data[:size])
    with pytest.raises(StoreError):
        ask(path)
    assert path.read_bytes() == data[:size], "a reader repairs nothing and loses nothing"


def test_flipped_bits_are_refused_or_changed_no_count_and_never_raise_anything_else(store, tmp_path):
    rng, data, path = random.Random(1), store.read_bytes(), tmp_path / "gateway.db"
    true, refused = load_sums(store, BACKBONE), 0
    for _ in range(300):
        spoiled = bytearray(data)
        for _ in range(rng.choice([1, 8, 64])):
            spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        path.write_bytes(spoiled)
        try:
            farm = load_sums(path, BACKBONE)
        except StoreError:
            refused += 1
        else:
            # SQLite keeps no checksums: a code inside a snapshot may have changed to another a node could have sent.
            assert farm.windows == true.windows or farm.contributors < true.contributors
    assert 50 < refused < 300


def test_pages_of_noise_are_refused(store, tmp_path):
    rng, data, path = random.Random(2), store.read_bytes(), tmp_path / "gateway.db"
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'snapshots'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    spoiled = bytearray(data)
    spoiled[(root - 1) * size : root * size] = rng.randbytes(size)
    path.write_bytes(spoiled)
    with pytest.raises(StoreError):
        ask(path)
