"""Changes of keys: signed by whom they must be signed, carried by campaigns like releases, taken by nodes."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from pathlib import Path

import pytest
from server_cases import KEY, new_store

from server import campaigns, key_changes, making, releases
from server.campaigns import Plan
from server.config import ServerSettings
from server.key_changes import KeyChangeError
from server.making import MakingError
from server.signing import SigningKey
from server.verification import verify
from shared_models.codes import Board
from shared_models.container import RECOVERY_KEY, RELEASE_KEY, KeyChange, Receiver, open_container

RECOVERY, SUCCESSOR = SigningKey.from_seed(bytes([1]) * 32), SigningKey.from_seed(bytes([2]) * 32)
RECEIVER = Receiver(Board.STM32L072, (KEY.public, RECOVERY.public), 1)


def register(connection: sqlite3.Connection, place: str, key: bytes) -> dict:
    """A change that the server signs itself."""
    return key_changes.keep(connection, asyncio.run(key_changes.sign_here(connection, KEY, place, key)), 5, "ada")


def carried(connection: sqlite3.Connection, version: int) -> bytes:
    (row,) = connection.execute("SELECT * FROM artefacts WHERE version = ?", (version,)).fetchall()
    assert row["kind"] == "keys"
    return bytes(row["container"])


def test_the_release_key_hands_over_to_its_successor(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    outcome = register(connection, "release", SUCCESSOR.public)
    assert outcome["version"] == 2
    opened = open_container(carried(connection, 2), RECEIVER)
    assert opened == KeyChange(RELEASE_KEY, SUCCESSOR.public)
    assert releases.find(connection, "latest").version == 1
    assert verify(connection, [KEY.public])[-1].problems == ()
    (entry,) = connection.execute("SELECT * FROM audit WHERE subject = 'release 2'").fetchall()
    assert (entry["actor"], SUCCESSOR.public.hex() in entry["detail"]) == ("ada", True)


def test_a_change_signed_offline_is_checked_before_it_is_taken_over(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    change = key_changes.signed_change(RECOVERY, "release", SUCCESSOR.public, 2)
    with pytest.raises(KeyChangeError, match="not signed by"):
        key_changes.signed_elsewhere(connection, KEY, change, KEY.public)
    with pytest.raises(KeyChangeError, match="not a container"):
        key_changes.signed_elsewhere(connection, KEY, change[:70], RECOVERY.public)
    full = base64.b64decode(releases.artefacts(connection, 1, [])[0].container)
    later = key_changes.signed_change(RECOVERY, "release", SUCCESSOR.public, 3)
    for other in (full, change[:-1]):
        with pytest.raises(KeyChangeError, match="holds no change"):
            key_changes.signed_elsewhere(connection, KEY, other, KEY.public)
    with pytest.raises(KeyChangeError, match="the next is 2"):
        key_changes.signed_elsewhere(connection, KEY, later, RECOVERY.public)
    assert connection.execute("SELECT count(*) FROM releases").fetchone()[0] == 1
    signed = key_changes.signed_elsewhere(connection, KEY, change, RECOVERY.public)
    key_changes.keep(connection, signed, 5, "ada")
    assert open_container(carried(connection, 2), RECEIVER) == KeyChange(RELEASE_KEY, SUCCESSOR.public)
    assert verify(connection, [KEY.public])[-1].problems == ()


def test_the_recovery_key_can_be_replaced_and_removed_by_itself(tmp_path: Path) -> None:
    for key in (SUCCESSOR.public, bytes(32)):
        change = key_changes.signed_change(RECOVERY, "recovery", key, 2)
        assert open_container(change, RECEIVER) == KeyChange(RECOVERY_KEY, key)


@pytest.mark.parametrize(
    ("place", "key"),
    [("third", bytes([9]) * 32), ("release", bytes(31)), ("release", KEY.public), ("recovery", bytes(32))],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, place: str, key: bytes) -> None:
    with pytest.raises(KeyChangeError):
        register(new_store(tmp_path), place, key)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"place": "release"},
        {"place": "release", "new_key": "00"},
        {"place": "x", "new_key": "00" * 32},
        {"container": "00" * 16},
        {"container": "zz" * 20, "signed_by": "00" * 32},
        {"container": "00" * 20, "signed_by": "00" * 32},
        {"place": "release", "new_key": "00" * 32, "container": "00" * 16, "signed_by": "00" * 32},
        {"more": 1},
    ],
)
def test_commands_are_refused_in_words(tmp_path: Path, arguments: dict) -> None:
    connection = new_store(tmp_path)
    settings = ServerSettings(state_dir=tmp_path, key_file=tmp_path / "key")
    with pytest.raises(MakingError):
        asyncio.run(making.prepare(connection, settings, KEY, making.KEYS, arguments))
    with pytest.raises(MakingError):
        asyncio.run(making.prepare(connection, settings, KEY, making.FARM_HEADS, arguments))
    assert connection.execute("SELECT count(*) FROM releases").fetchone()[0] == 1


def test_a_campaign_carries_it_to_any_node(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    connection.execute("INSERT INTO sites VALUES ('farm', 1, '{}')")
    connection.execute("INSERT INTO nodes VALUES ('00000000000000aa', 'farm', 1, 1, 7, 3000, 1, 1, 0)")
    register(connection, "release", SUCCESSOR.public)
    campaign = campaigns.create(connection, "ada", Plan(release=2), 6)
    for action in ("approve", "start"):
        campaigns.act(connection, "ada", campaign, campaigns.Action(action), 6, second_operator=False)
    (row,) = campaigns.unpublished(connection)
    message = json.loads(row["message"])
    assert [(artefact["kind"], artefact["base"]) for artefact in message["artefacts"]] == [("keys", 0)]
