"""A refresh follows the fleet's moments, changes few numbers on the running grid, and says no where it is no help."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_cases import KEY, new_store, random_image, release, shared_truth, sums_of
from typer.testing import CliRunner

from server import commands, federation, lock, releases
from server.backbones import running_release
from server.cli import app as cli
from server.config import RefreshSection, ServerSettings
from server.refresh import judging, need, running, screening, selection, tilting
from server.refresh.fleet import digest, moments_of
from server.refresh.grid import BACKBONE_NUMBERS, FIRST, FIRST_BIAS, HEAD, NUMBERS, SECOND, Grid, place, split
from server.refresh.lessons import Lessons, Objective, lessons_of
from server.refresh.making import Evidence, payload_of
from server.refresh.registry import register_refresh
from server.refresh.retraining import retrain
from server.refresh.running import LOCK_FILE, RefreshError, refresh
from server.releases import ReleaseError, Signed
from server.service import Server
from server.strategy import Collected, SiteSums
from server.training import samples
from server.training.samples import Samples
from shared_models.factory import factory_image
from shared_models.network import INPUTS, ModelImage, head_weights, quantise_head

TARGETS = (1, 2, 3)
GRID = Grid(factory_image())
WINDOWS, FIELDS = 1500, 30
VPD = 15
"""The feature that the planted unit sees."""
NOW_S = 9_000


def windows(seed: int, world: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return Samples(
        features=rng.integers(-100, 100, (WINDOWS, INPUTS)).astype(np.int8),
        targets=rng.integers(-40, 40, (WINDOWS, 4)).astype(np.int16),
        mask=np.ones((WINDOWS, 4), np.bool_),
        season=np.sort(rng.integers(0, FIELDS, WINDOWS)).astype(np.int32),
        world=np.full(WINDOWS, world, np.int8),
    )


def planted(seed: int, world: int = 0, strength: float = 0.15, noise: float = 2.0) -> Lessons:
    """Lessons in which a unit that nobody has tells something."""
    made = lessons_of(windows(seed, world), np.full(WINDOWS, 1 / WINDOWS), GRID, TARGETS, world)
    phi = GRID.phi(GRID.numbers, made.features)
    heads = GRID.head_rows(GRID.numbers)[list(TARGETS)]
    told = np.maximum(made.features[:, VPD] - 20, 0)[:, None] * np.array([1.0, 0.8, 0.9]) * strength
    off = told - told.mean(axis=0) + np.random.default_rng(seed).normal(0, noise, told.shape)
    labels = phi @ heads.T + off
    return replace(
        made,
        labels=labels,
        running=(made.weights * off**2).sum(axis=0),
        physics=(made.weights * labels**2).sum(axis=0),
    )


SPARE = GRID.spare_units[0]


def with_unit(weight: int = -110, below: int = 4) -> np.ndarray:
    """A row with a first-layer unit that sees the planted quantity, heard by one unit below the head."""
    row = GRID.numbers.copy()
    row[place(FIRST, SPARE, VPD)], row[place(FIRST_BIAS, SPARE)] = 32, -20 * 32
    row[place(SECOND, below, SPARE)] = weight
    return row


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_tilting_recovers_the_moments_of_a_known_tilt(seed: int, moments: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (4000, moments))
    known = rng.uniform(-0.6, 0.6, moments)
    truth = tilting.weights_of(values, known) @ values
    contributed = values - truth
    found = tilting.tilt(contributed, np.full(moments, 1e-3))
    weights = tilting.weights_of(contributed, found)
    assert weights.sum() == pytest.approx(1)
    assert np.abs(weights @ contributed).max() < 1e-4
    assert found == pytest.approx(known, abs=1e-3)


def test_windows_are_weighed_toward_the_fleets_sums() -> None:
    """The fleet lives in half of the population: its means and squares are hit, to what the slack allows."""
    population, image = windows(1), factory_image()
    dry = population.features[:, 8] > 20
    parts = [samples.sums(population.where(dry & (population.season % 4 == part)), image) for part in range(4)]
    moments = moments_of(parts, TARGETS)
    scales = tilting.spread(population, image, moments)
    contributed = tilting.contributions(population, image, moments, scales)
    found = tilting.tilt(contributed, tilting.slack_of(moments, scales))
    weights = tilting.weights_of(contributed, found)
    equal = np.full(WINDOWS, 1 / WINDOWS)
    assert tilting.missed(contributed, equal) > 0.3
    assert tilting.missed(contributed, weights) < 0.1
    assert weights[dry].sum() > 0.8
    assert tilting.effective(equal, population.season) > tilting.effective(weights, population.season) > 5


def test_a_mean_that_sites_disagree_on_is_followed_less() -> None:
    agreeing = [sums_of(1, shared_truth()) for _ in range(3)]
    differing = [sums_of(seed, seed * shared_truth(seed)) for seed in range(1, 4)]
    assert max(moment.variance for moment in moments_of(agreeing, TARGETS)) < 1e-20
    assert min(moment.variance for moment in moments_of(differing, TARGETS)) > 0
    with pytest.raises(ValueError, match="1 sites say nothing"):
        moments_of(agreeing[:1], TARGETS)
    assert digest({"a": agreeing[0]}) != digest({"a": differing[0]})


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_a_row_is_the_model_number_by_number(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(random_image(seed % 50))
    assert grid.image(grid.numbers).pack() == grid.base.pack()
    row = grid.numbers.copy()
    chosen = rng.choice(NUMBERS, 12, replace=False)
    row[chosen] += rng.integers(-40, 41, 12)
    row = grid.clipped(row)
    image = ModelImage.unpack(grid.image(row).pack())
    features = rng.integers(-128, 128, (64, INPUTS)).astype(np.int8)
    assert (grid.phi(row, features.astype(np.float64)) == image.moments_input(image.forward(features)[0])).all()
    assert grid.head_rows(row) == pytest.approx(head_weights(image))


def test_simulated_labels_leave_the_running_head_nothing_to_gain() -> None:
    """However wrong a simulator is about the head, the fleet's is the best there is on the units there are."""
    lessons = lessons_of(windows(3), np.full(WINDOWS, 1 / WINDOWS), GRID, TARGETS, 0)
    phi = GRID.phi(GRID.numbers, lessons.features)
    for place_, (gram, moment) in enumerate(zip(*lessons.sums(phi), strict=True)):
        best = np.linalg.lstsq(gram, moment, rcond=None)[0]
        heads = GRID.head_rows(GRID.numbers)[list(TARGETS)].copy()
        heads[place_] = best
        assert lessons.errors(phi, heads)[place_] > 0.999 * lessons.running[place_]


def test_screening_and_selection_find_a_planted_unit_and_drop_what_does_not_pay() -> None:
    objective = Objective(GRID, [planted(1, 0), planted(2, 1)], TARGETS)
    found = screening.begin(objective, 2, 0.01)
    assert found[place(FIRST, SPARE, VPD)] > 0
    assert objective.solve(found)[1] < 0.8
    noisy = found.copy()
    rng = np.random.default_rng(5)
    extra = rng.choice(np.flatnonzero(found[:BACKBONE_NUMBERS] == GRID.numbers[:BACKBONE_NUMBERS]), 10, replace=False)
    noisy[extra] += rng.integers(1, 4, 10)
    size = payload_of(GRID)
    kept = selection.select(objective, noisy, size, 1e-4, 60, 40)
    assert objective.error(kept) < 0.8
    assert size(kept) <= 60
    assert (kept[extra] == GRID.numbers[extra]).sum() >= 8
    assert (split(kept)[HEAD][0] == split(GRID.numbers)[HEAD][0]).all()
    nothing = selection.select(objective, noisy, size, 1.0, 60, 40)
    assert (nothing == GRID.numbers).all()


def test_training_keeps_to_the_grid_and_to_what_it_may_change() -> None:
    """Integers in range, the running model's rescaling, no number that the uptake row hears; twice the same."""
    weights = head_weights(factory_image())
    weights[0, 2], weights[0, -1] = 0.05, 1.0
    grid = Grid(quantise_head(factory_image(), weights))
    part = lessons_of(windows(4), np.full(WINDOWS, 1 / WINDOWS), grid, TARGETS, 0)
    rows = [retrain(grid, [part], TARGETS, grid.numbers, 3, 256, 1, lambda _: None) for _ in range(2)]
    assert (rows[0] == rows[1]).all()
    assert rows[0].dtype == np.int64
    assert (np.abs(rows[0]) <= grid.limits).all()
    changed = rows[0] != grid.numbers
    assert changed.any()
    assert not changed[~grid.changeable].any()
    image = ModelImage.unpack(grid.image(rows[0]).pack())
    for layer, before in zip(
        (image.first, image.second, image.head), (grid.base.first, grid.base.second, grid.base.head), strict=True
    ):
        assert (layer.multiplier, layer.shift, layer.input_zero, layer.output_zero) == (
            *(before.multiplier, before.shift),
            *(before.input_zero, before.output_zero),
        )
    features = windows(4).features
    assert (image.forward(features)[1][:, 0] == grid.base.forward(features)[1][:, 0]).all()


def objection_to(row: np.ndarray, exam: Lessons) -> str:
    return judging.objection(judging.judge(GRID, row, exam, TARGETS, [1 - exam.world], 1), 0.005)


def test_the_gate_passes_what_helps_and_refuses_what_hurts_or_does_not_travel() -> None:
    here, elsewhere = planted(6, 0), planted(7, 1, strength=0.0)
    good = with_unit()
    objective = Objective(GRID, [planted(1, 0)], TARGETS)
    good = selection.with_heads(objective, good, objective.solve(good)[0])
    assert objection_to(good, here) == ""
    assert "no better than the running release" in objection_to(good, elsewhere)
    harmful = GRID.numbers.copy()
    split(harmful)[HEAD][1:] = -split(harmful)[HEAD][1:]
    assert "than the running release" in objection_to(harmful, here)
    assert "no better than the running release (1.000" in objection_to(GRID.numbers, here)


def test_a_refused_target_is_named() -> None:
    crossing = judging.judge(GRID, GRID.numbers, planted(6), TARGETS, [1], 1)
    uneven = crossing.model_copy(
        update={
            "targets": {"dry-down 24 h": 0.9, "dry-down 48 h": 1.01},
            "against_running": 0.95,
            "running_bound": 0.97,
            "against_physics": 0.5,
            "physics_bound": 0.6,
        }
    )
    assert "dry-down 48 h has 1.010" in judging.objection(uneven, 0.005)
    assert "not certainly" in judging.objection(uneven.model_copy(update={"running_bound": 1.01}), 0.005)
    assert "the physics" in judging.objection(uneven.model_copy(update={"against_physics": 1.2}), 0.005)


# In the store


def settings_of(folder: Path, **terms: object) -> ServerSettings:
    return ServerSettings(
        state_dir=folder, key_file=folder / "key", refresh=RefreshSection(configuration="small", **terms)
    )


def refused_round(connection, windows_: int = 2_000, at_s: int = 5_000, state: str = "refused") -> int:
    sites = tuple(SiteSums(name, 4, windows_ // 2, sums_of(seed, shared_truth())) for seed, name in enumerate("ab"))
    base = releases.find(connection, "latest")
    number = connection.execute(
        "INSERT INTO rounds (started_s, state, backbone_id, base_version) VALUES (?, 'asking', ?, ?)",
        (at_s, base.backbone_id, base.version),
    ).lastrowid
    federation.keep(connection, number, Collected(sites, ()))
    connection.execute(
        "UPDATE rounds SET state = ?, finished_s = ?, evidence = '{\"targets\": [1]}' WHERE id = ?",
        (state, at_s, number),
    )
    return number


def test_a_refresh_is_asked_for_when_heads_stopped_helping_and_not_again_before_they_did_anew(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path)) as connection:
        terms = RefreshSection(after_rounds=2, minimum_windows=1_000)
        never = RefreshSection()
        refused_round(connection, at_s=1)
        assert need.ask_if_due(connection, terms, 10) is None
        refused_round(connection, windows_=500, at_s=2)  # too few windows to say anything
        assert need.ask_if_due(connection, terms, 10) is None
        newest = refused_round(connection, at_s=3)
        assert need.ask_if_due(connection, never, 10) is None
        number = need.ask_if_due(connection, terms, 10)
        assert number is not None
        assert need.ask_if_due(connection, terms, 11) is None  # one at a time
        assert need.need(connection, terms, releases.find(connection, 1).backbone_id) == need.Need(newest, 2)
        commands.finish(connection, number, "done", {"message": "nothing released"}, 12)
        refused_round(connection, at_s=13)
        assert need.ask_if_due(connection, terms, 14) is None
        refused_round(connection, at_s=15)
        assert need.ask_if_due(connection, terms, 16) is not None


def test_a_release_in_between_starts_the_count_again(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path)) as connection:
        terms = RefreshSection(after_rounds=2, minimum_windows=1_000)
        for at_s, state in ((1, "refused"), (2, "released"), (3, "refused")):
            refused_round(connection, at_s=at_s, state=state)
        assert need.ask_if_due(connection, terms, 10) is None


def written(folder: Path) -> Path:
    path = folder / "server.toml"
    path.write_text(f'state_dir = "{folder}"\nkey_file = "{folder}/key"\n', encoding="utf-8")
    return path


def evidence_of(verdict: str) -> dict[str, object]:
    return Evidence(
        verdict=verdict,
        reason="tried",
        configuration="small",
        seed=1,
        code="c",
        sums="s",
        windows=[3, 2, 1],
        matched=[],
        changed_numbers=7,
        payload_bytes=30,
    ).model_dump(mode="json")


def test_what_passed_becomes_a_release_with_its_provenance_and_rounds_stay_with_what_nodes_run(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path, factory_image())) as connection:
        number = refused_round(connection)
        base = releases.find(connection, 1)
        image = GRID.image(with_unit())
        told = {
            "base_version": 1,
            "round": number,
            "evidence": evidence_of("passed"),
            "image": base64.b64encode(image.pack()).decode(),
        }
        path = tmp_path / "outcome.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        outcome = asyncio.run(running._conclude(connection, KEY, base, number, path, NOW_S, "alice"))
        release = releases.find(connection, outcome["version"])
        assert (release.origin, release.base_version, release.round) == ("refresh", 1, number)
        assert release.backbone_id == image.backbone_id != base.backbone_id
        assert {"sums", "seed", "code", "windows", "base_content_hash"} <= release.provenance.keys()
        assert "109 bytes on the air" in outcome["message"]
        audited = connection.execute("SELECT actor FROM audit WHERE action = 'release.created'").fetchall()
        assert [row["actor"] for row in audited] == ["alice"]
        connection.execute("INSERT INTO sites (site, last_status_s, counters) VALUES ('a', 1, '{}')")
        for node, backbone in ((1, base.backbone_id), (2, base.backbone_id), (3, image.backbone_id)):
            connection.execute(
                "INSERT INTO nodes (dev_eui, site, board, model_version, backbone_id, battery_mv, last_seen_s, healthy)"
                " VALUES (?, 'a', 1, 1, ?, 3000, 1, 1)",
                (f"{node:016x}", backbone),
            )
        explained = CliRunner().invoke(cli, ["explain", "2", "--config", str(written(tmp_path))])
        assert explained.exit_code == 0
        assert "release 2: refresh" in explained.stdout
        assert '"reason": "tried"' in explained.stdout
        assert running_release(connection).version == 1
        connection.execute("UPDATE nodes SET backbone_id = ?", (image.backbone_id,))
        assert running_release(connection).version == release.version
        with pytest.raises(ReleaseError, match="new backbone"):
            register_refresh(connection, Signed(3, 0, []), base.image, base, number, NOW_S, evidence_of("passed"))


def test_a_refresh_of_what_is_not_the_newest_any_more_releases_nothing(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path, factory_image())) as connection:
        number = refused_round(connection)
        base = releases.find(connection, 1)
        improved = quantise_head(base.image, 2 * head_weights(base.image))
        release(connection, improved, base)
        image = base64.b64encode(GRID.image(with_unit()).pack()).decode()
        told = {"base_version": 1, "round": number, "evidence": evidence_of("passed"), "image": image}
        path = tmp_path / "outcome.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        with pytest.raises(RefreshError, match="a newer release was made meanwhile"):
            asyncio.run(running._conclude(connection, KEY, base, number, path, NOW_S, "alice"))
        assert releases.find(connection, "latest").version == 2
        assert not connection.in_transaction


@pytest.mark.parametrize("text", ["", "{}", '{"base_version": 1, "round": 1, "image": "x", "evidence": {}}', "[1]"])
def test_an_outcome_that_is_none_releases_nothing(tmp_path: Path, text: str) -> None:
    with contextlib.closing(new_store(tmp_path)) as connection:
        base, path = releases.find(connection, 1), tmp_path / "outcome.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RefreshError, match="no usable outcome"):
            asyncio.run(running._conclude(connection, KEY, base, 1, path, 1, "x"))
        assert releases.find(connection, "latest").version == 1


def test_without_a_decided_round_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path)) as connection, pytest.raises(RefreshError, match="no round"):
        asyncio.run(refresh(connection, settings_of(tmp_path), KEY, lambda: NOW_S, asyncio.Lock()))


async def by_command(connection, configured: ServerSettings) -> dict[str, Any]:
    """As an operator's ``noria server refresh`` has it: a row in the command table, carried out by the server."""
    server = Server(configured, KEY, connection)
    number = commands.submit(connection, "alice", "refresh", {}, NOW_S)
    async with asyncio.TaskGroup() as group:
        server._group = group
        server._carry_out_pending()
        again = commands.submit(connection, "bob", "refresh", {}, NOW_S)
        server._carry_out_pending()
    rows = {row["id"]: row for row in connection.execute("SELECT * FROM commands")}
    assert (rows[again]["state"], json.loads(rows[again]["result"])) == (
        "refused",
        {"message": "a refresh is in progress"},
    )
    assert rows[number]["state"] == "done"
    audited = connection.execute("SELECT actor, outcome FROM audit WHERE action = 'refresh' AND subject = 'backbone'")
    assert [tuple(row) for row in audited] == [("alice", "done")]
    return json.loads(rows[number]["result"])


def dump(connection) -> list[str]:
    return [line for line in connection.iterdump() if 'INTO "meta"' not in line]


def test_a_refresh_stopped_half_way_leaves_nothing_half_done_and_the_next_one_ends(tmp_path: Path) -> None:
    """In real processes: cancelled after the first progress, then carried out whole; the verdict is written down."""
    with contextlib.closing(new_store(tmp_path, factory_image())) as connection:
        refused_round(connection)
        before = dump(connection)
        configured = settings_of(tmp_path, least_fields=2.0)

        async def stop_early() -> None:
            task = asyncio.create_task(refresh(connection, configured, KEY, lambda: NOW_S, asyncio.Lock()))
            while "fields" not in running.in_words(connection):  # noqa: ASYNC110  the store tells nobody
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(stop_early())
        assert dump(connection) == before
        assert running.in_words(connection) == ""
        assert not lock.is_held(tmp_path / LOCK_FILE)
        assert not (tmp_path / "refresh" / running.OUTCOME).exists()
        outcome = asyncio.run(by_command(connection, configured))
        evidence = Evidence.model_validate(outcome["evidence"])
        assert outcome["verdict"] == evidence.verdict
        assert len(evidence.matched) == 2
        assert ("version" in outcome) == (evidence.verdict == "passed")
        if evidence.verdict == "refused":
            assert outcome["message"] == f"nothing released: {evidence.reason}"
            assert releases.find(connection, "latest").version == 1
        assert list((tmp_path / "refresh").glob("*.npz"))
