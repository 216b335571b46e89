"""Farms' own heads: where farms on the whole gain, for those they do not harm, and for their nodes alone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from server_cases import KEY, new_store, random_image, shared_truth, sums_of

from server import campaigns, farm_heads, federation, improvement, releases, store, withdrawals
from server.campaigns import Plan
from server.config import FederationSection, ServerSettings
from server.farm_heads import FarmHeadsError
from server.strategy import Collected, SiteSums, Verdict
from server.update_keys import UpdateKeys
from server.verification import verify
from shared_models.codes import Board
from shared_models.container import Receiver, open_container
from shared_models.moments import PHI, TARGETS
from shared_models.network import ModelImage

KEYS = UpdateKeys(bytes(range(32)))
FARMS = 8
NOW_S = 3_000


def own_truth(farm: int, spread: float) -> np.ndarray:
    """What the whole fleet shares, and what is this farm's alone."""
    return shared_truth() + np.random.default_rng(100 + farm).normal(0, spread, (TARGETS, PHI))


def hold_round(connection: sqlite3.Connection, season: int, spread: float, turned: int | None = None) -> int:
    """A round after so many seasons: cumulative sums; ``turned`` is a farm whose later windows say the contrary."""
    base = releases.find(connection, "latest")
    number = connection.execute(
        "INSERT INTO rounds (started_s, state, backbone_id, base_version) VALUES (1, 'asking', ?, ?)",
        (base.backbone_id, base.version),
    ).lastrowid
    sites = []
    for farm in range(FARMS):
        total = sums_of(farm, own_truth(farm, spread))
        for later in range(1, season):
            truth = own_truth(farm, spread)
            if farm == turned:
                truth = shared_truth() - 3 * (truth - shared_truth())
            total = total.add(sums_of(1000 * later + farm, truth))
        sites.append(SiteSums(f"farm-{farm}", 4, int(total.count.sum()), total))
    verdicts = tuple(Verdict(index, entry.site, "accepted") for index, entry in enumerate(sites))
    federation.keep(connection, number, Collected(tuple(sites), verdicts))
    return int(number or 0)


def fleet(connection: sqlite3.Connection, version: int) -> None:
    """Two nodes per farm, all running ``version``."""
    backbone = releases.find(connection, "latest").backbone_id
    for farm in range(FARMS):
        connection.execute("INSERT OR REPLACE INTO sites VALUES (?, 1, '{}')", (f"farm-{farm}",))
        for node in range(2):
            connection.execute(
                "INSERT OR REPLACE INTO nodes VALUES (?, ?, 1, ?, ?, 3000, 1, 1, 0)",
                (f"{farm:08x}{node:08x}", f"farm-{farm}", version, backbone),
            )


def two_seasons(folder: Path, spread: float = 0.012, turned: int | None = None) -> sqlite3.Connection:
    """A fleet whose head is released after one season, and a second season of what it saw."""
    connection = new_store(folder)
    settings = ServerSettings(state_dir=folder, key_file=folder / "key", federation=FederationSection(minimum_sites=2))
    for season in (1, 2):
        number = hold_round(connection, season, spread, turned)
        base = releases.find(connection, "latest")
        outcome = asyncio.run(improvement.decide(connection, settings, KEY, base, number, 2_000, asyncio.Lock()))
        state = "released" if "version" in outcome else "refused"
        connection.execute("UPDATE rounds SET state = ?, finished_s = 2 WHERE id = ?", (state, number))
    fleet(connection, releases.find(connection, "latest").version)
    return connection


def make(connection: sqlite3.Connection) -> dict:
    heads = asyncio.run(farm_heads.prepare(connection, KEY, KEYS, 0.02))
    return farm_heads.keep(connection, heads, NOW_S, "ada")


def test_every_node_gets_its_farms_head_in_the_smallest_frame(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path)
    base = releases.find(connection, "latest")
    outcome = make(connection)
    assert outcome["version"] == base.version + 1
    assert (len(outcome["farms"]), outcome["nodes"]) == (FARMS, 2 * FARMS)
    for row in connection.execute("SELECT * FROM artefacts WHERE version = ?", (outcome["version"],)):
        assert (row["kind"], row["base"]) == ("personal", base.version)
        assert row["size_bytes"] <= 51
        site = f"farm-{int(row['device'][:8], 16)}"
        wanted = farm_heads.image_of(connection, outcome["version"], site)
        receiver = Receiver(Board.STM32L072, (), base.version, base.image, 0, row["device"], KEYS.of(row["device"]))
        opened = open_container(row["container"], receiver)
        assert isinstance(opened, ModelImage)
        assert wanted is not None
        assert opened.pack() == wanted.pack() != base.image.pack()
        assert (opened.head.weights[0] == base.image.head.weights[0]).all(), "what moves water is the fleet's"


def test_it_is_a_release_like_any_other_but_never_the_latest(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path)
    before = releases.find(connection, "latest")
    version = make(connection)["version"]
    release = releases.find(connection, version)
    assert (release.origin, release.base_version) == ("farms", before.version)
    assert releases.find(connection, "latest").version == before.version
    assert verify(connection, [KEY.public], update_keys=KEYS)[-1].problems == ()
    figures = release.evidence["farms"]
    assert sum(entry["own"] for entry in figures.values()) < sum(entry["fleet"] for entry in figures.values())
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE farm_heads SET site = 'x'")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("DELETE FROM farm_heads")


def test_a_campaign_brings_each_farm_its_own_and_nobody_elses(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path)
    version = make(connection)["version"]
    campaign = campaigns.create(connection, "ada", Plan(release=version, groups=["100%"]), NOW_S)
    for action in ("approve", "start"):
        campaigns.act(connection, "ada", campaign, campaigns.Action(action), NOW_S, second_operator=False)
    messages = [json.loads(row["message"]) for row in campaigns.unpublished(connection)]
    assert len(messages) == FARMS
    for message in messages:
        devices = {artefact["device"] for artefact in message["artefacts"]}
        assert devices == set(message["devices"])
        assert {artefact["kind"] for artefact in message["artefacts"]} == {"personal"}


def test_a_farm_whose_later_windows_speak_against_its_head_keeps_the_fleets(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path, turned=3)
    outcome = make(connection)
    assert "farm-3" not in outcome["farms"]
    assert len(outcome["farms"]) >= FARMS - 2
    evidence = releases.find(connection, outcome["version"]).evidence
    assert evidence["farms"]["farm-3"]["kept"] is False


def test_farms_that_are_all_alike_get_no_heads_of_their_own(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path, spread=0.0)
    with pytest.raises(FarmHeadsError):
        make(connection)
    assert connection.execute("SELECT count(*) FROM farm_heads").fetchone()[0] == 0


def test_without_a_round_or_an_earlier_one_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    with pytest.raises(FarmHeadsError, match="no round"):
        make(connection)
    number = hold_round(connection, 1, 0.012)
    connection.execute("UPDATE rounds SET state = 'refused', finished_s = 2 WHERE id = ?", (number,))
    fleet(connection, 1)
    with pytest.raises(FarmHeadsError, match="too few have grown"):
        make(connection)


def test_the_next_round_is_judged_against_what_farms_run(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path)
    version = make(connection)["version"]
    backbone = releases.find(connection, "latest").backbone_id
    assert farm_heads.running(connection, backbone) == {}
    connection.execute("UPDATE nodes SET model_version = ? WHERE site IN ('farm-1', 'farm-2')", (version,))
    connection.execute("UPDATE nodes SET model_version = ? WHERE dev_eui = ?", (version, f"{5:08x}{0:08x}"))
    found = farm_heads.running(connection, backbone)
    assert set(found) == {"farm-1", "farm-2"}, "at farm-5 only one node does"
    assert found["farm-1"].pack() == farm_heads.image_of(connection, version, "farm-1").pack()  # type: ignore[union-attr]
    again = make(connection)
    rows = connection.execute("SELECT base, device FROM artefacts WHERE version = ?", (again["version"],)).fetchall()
    assert {row["base"] for row in rows if row["device"].startswith("00000001")} == {version}
    assert verify(connection, [KEY.public], update_keys=KEYS)[-1].problems == ()


def test_heads_for_a_release_that_is_withdrawn_before_they_are_stored_are_not_released(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path)
    base = releases.find(connection, "latest").version
    heads = asyncio.run(farm_heads.prepare(connection, KEY, KEYS, 0.02))
    withdrawals.withdraw(connection, "ada", {"release": base, "reason": "it forgets clay"}, NOW_S)
    with pytest.raises(FarmHeadsError, match=f"release {base} is not the fleet's any more"):
        farm_heads.keep(connection, heads, NOW_S, "ada")
    assert releases.next_version(connection) == heads.signed.version
    assert connection.execute("SELECT count(*) FROM farm_heads").fetchone()[0] == 0


def test_a_damaged_head_is_found(tmp_path: Path) -> None:
    connection = two_seasons(tmp_path)
    version = make(connection)["version"]
    connection.execute("DROP TRIGGER farm_heads_stay_as_they_are")
    connection.execute("UPDATE farm_heads SET image = ? WHERE site = 'farm-2'", (random_image().pack(),))
    problems = verify(connection, [KEY.public], version, KEYS)[0].problems
    assert any("farm-2" in problem for problem in problems)
    assert any("another model" in problem for problem in problems)
    assert store.get_meta(connection, "audit_head")
