"""What a round's verdict on a cohort means for its sites, and what may happen while its release is being signed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_cases import KEY, new_store, release, shared_truth, sums_of
from signing_cases import SlowSigner

from server import federation, improvement, key_changes, releases, signing, withdrawals
from server.config import FederationSection, ServerSettings
from server.improvement import _by_cohort, _by_site
from server.signing import CommandSigner, SigningKey
from server.strategy import Collected, SiteSums
from server.verification import verify
from shared_models.factory import factory_image
from shared_models.network import head_weights, quantise_head

NOW_S = 5_000
COHORTS = {"cohort 1": frozenset({"ash", "oak"}), "cohort 2": frozenset({"elm", "fir"})}


def test_a_cohort_that_is_held_back_is_all_of_its_sites() -> None:
    held_back = _by_site({"cohort 1": "hurt", "lone": "hurt more"}, COHORTS)
    assert held_back == {"ash": "hurt", "oak": "hurt", "lone": "hurt more"}


def test_a_cohort_is_compared_with_what_all_of_its_sites_run() -> None:
    factory = factory_image()
    other = quantise_head(factory, 2 * head_weights(factory))
    stayed = _by_cohort({"ash": factory, "oak": factory, "elm": factory, "fir": other}, COHORTS)
    assert stayed["cohort 1"] is factory
    assert "cohort 2" not in stayed
    assert set(stayed) == {"cohort 1", "ash", "oak", "elm", "fir"}


@pytest.fixture
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowSigner]:
    monkeypatch.setenv("PYTHONPATH", str(Path(signing.__file__).parents[1]))
    made = SlowSigner(tmp_path / "signer")
    yield made
    made.close()


def collected(connection: sqlite3.Connection) -> int:
    """A round about release 2 whose sums would become release 3."""
    first = releases.find(connection, 1)
    connection.execute(
        "INSERT INTO rounds (id, started_s, finished_s, state, backbone_id, base_version)"
        " VALUES (1, 1, 1, 'released', ?, 1)",
        (first.backbone_id,),
    )
    base = release(connection, quantise_head(first.image, 0.5 * shared_truth()), first)
    connection.execute(
        "INSERT INTO rounds (id, started_s, state, backbone_id, base_version) VALUES (2, 1, 'asking', ?, 2)",
        (base.backbone_id,),
    )
    sites = tuple(SiteSums(name, 4, 600, sums_of(seed, shared_truth())) for seed, name in enumerate("abc"))
    federation.keep(connection, 2, Collected(sites, ()))
    return 2


async def decided_while(
    connection: sqlite3.Connection, signer: SlowSigner, folder: Path, meanwhile: Callable[[], object]
) -> dict[str, Any]:
    """The outcome of a round when ``meanwhile`` is done on the event loop while its first signature waits."""
    settings = ServerSettings(state_dir=folder, key_file=folder / "key", federation=FederationSection(minimum_sites=2))
    key = CommandSigner(tuple(signer.command), KEY.public, KEY.key_id)
    number = collected(connection)
    base = releases.find(connection, "latest")
    signer.hold()
    deciding = asyncio.create_task(improvement.decide(connection, settings, key, base, number, NOW_S, asyncio.Lock()))
    await asyncio.to_thread(signer.until_asked)
    meanwhile()
    assert not deciding.done()
    signer.let_go()
    return await deciding


def test_the_store_is_free_while_a_release_is_being_signed(tmp_path: Path, signer: SlowSigner) -> None:
    connection = new_store(tmp_path)

    def meanwhile() -> None:
        assert not connection.in_transaction
        with sqlite3.connect(tmp_path / "server.db", timeout=0) as other:
            other.execute("INSERT INTO counters VALUES ('meanwhile', 1)")
        assert connection.execute("SELECT state, version FROM rounds WHERE id = 2").fetchone()[:] == ("collected", None)
        assert connection.execute("SELECT count(*) FROM artefacts WHERE version = 3").fetchone()[0] == 0

    outcome = asyncio.run(decided_while(connection, signer, tmp_path, meanwhile))
    assert outcome["version"] == 3
    assert {entry.problems for entry in verify(connection, [KEY.public])} == {()}


def test_a_base_that_is_withdrawn_while_its_heir_is_being_signed_has_none(tmp_path: Path, signer: SlowSigner) -> None:
    connection = new_store(tmp_path)
    wish = {"release": 2, "reason": "it forgets clay"}
    outcome = asyncio.run(
        decided_while(connection, signer, tmp_path, lambda: withdrawals.withdraw(connection, "ann", wish, NOW_S))
    )
    assert outcome["verdict"] == "refused"
    assert "release 2, from which it would go on, was withdrawn meanwhile: it forgets clay" in outcome["reason"]
    assert releases.find(connection, "latest").version == 1


def test_no_number_is_given_twice(tmp_path: Path, signer: SlowSigner) -> None:
    """The server makes one release at a time; whoever else writes to its store cannot break the registry either."""
    connection = new_store(tmp_path)

    def meanwhile() -> None:
        version, successor = releases.next_version(connection), SigningKey.from_seed(bytes(32))
        change = key_changes.signed_change(KEY, "release", successor.public, version)
        key_changes.keep(connection, key_changes.signed_elsewhere(connection, KEY, change, KEY.public), NOW_S, "ann")

    outcome = asyncio.run(decided_while(connection, signer, tmp_path, meanwhile))
    assert outcome["reason"] == "another release took number 3 while this one was being signed; ask again"
    assert releases.find(connection, 3).origin == "keys"
    assert connection.execute("SELECT version FROM rounds WHERE id = 2").fetchone()[0] is None
