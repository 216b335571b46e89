"""What an operator is shown about a release is what the gate saw."""

from __future__ import annotations

import json
import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from server_cases import new_store, random_image, release, shared_truth, sums_of
from typer.testing import CliRunner

from server import releases
from server.cli import app, ota_app
from server.evidence_chart import evidence_chart
from server.gate import Evidence, Gate
from shared_models.moments import TARGETS

SVG = "{http://www.w3.org/2000/svg}"


def evidence_of(sites: int) -> Evidence:
    sums = {f"site-{seed:02d}": sums_of(seed, shared_truth(), 100) for seed in range(sites - 1)}
    _, evidence = Gate(0.02, 0.001).judge(random_image(), sums | {"zz-copy": sums["site-00"]})
    return evidence


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A server with releases 1 and 2."""
    connection = new_store(tmp_path)
    base = releases.find(connection, 1)
    image, _ = Gate(0.02, 0.001).judge(base.image, {f"s{i}": sums_of(i, shared_truth()) for i in range(3)})
    assert image is not None
    connection.execute(
        "INSERT INTO rounds (id, started_s, state, backbone_id, base_version) VALUES (1, 1, 'released', 1, 1)"
    )
    evidence = evidence_of(8).model_dump(mode="json")
    release(connection, image, base, evidence=evidence)
    connection.close()
    path = tmp_path / "server.toml"
    path.write_text(f'state_dir = "{tmp_path}"\nkey_file = "{tmp_path / "key"}"\n', encoding="utf-8")
    return path


def test_explain_shows_intervals_levels_and_who_was_set_aside(config: Path) -> None:
    shown = CliRunner().invoke(app, ["explain", "2", "--config", str(config)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "set aside: zz-copy, the same sums per window as site-00" in shown.output
    assert "of the squared error [" in shown.output
    assert "What heads are worth by level" in shown.output


def test_explain_draws_every_sites_error_before_and_after(config: Path, tmp_path: Path) -> None:
    plot = tmp_path / "release.svg"
    shown = CliRunner().invoke(app, ["explain", "2", "--config", str(config), "--plot", str(plot), "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["evidence"]["set_aside"]
    root = ET.parse(plot).getroot()
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert texts.count("site-03") == TARGETS
    assert texts.count("zz-copy (set aside)") == TARGETS
    dots = list(root.iter(f"{SVG}circle"))
    assert len(dots) == 3 + 2 * 8 * TARGETS, "the legend's, and two a site and target"


def test_a_release_without_evidence_cannot_be_drawn(config: Path, tmp_path: Path) -> None:
    plot = tmp_path / "factory.svg"
    shown = CliRunner().invoke(app, ["explain", "1", "--config", str(config), "--plot", str(plot)])
    assert shown.exit_code == 1
    assert not plot.exists()


def test_evidence_of_an_earlier_server_is_still_explained(config: Path, tmp_path: Path) -> None:
    """Releases are immutable: what an earlier gate wrote down has no intervals, levels or held-back sites."""
    old = evidence_of(8).model_dump(mode="json")
    for key in ("set_aside", "held_back", "levels"):
        del old[key]
    for target in old["targets"]:
        del target["against_running"], target["against_physics"]
    connection = sqlite3.connect(tmp_path / "server.db")
    connection.execute("DROP TRIGGER releases_stay_as_they_are")
    connection.execute("UPDATE releases SET evidence = ? WHERE version = 2", (json.dumps(old),))
    connection.commit()
    connection.close()
    plot = tmp_path / "old.svg"
    shown = CliRunner().invoke(app, ["explain", "2", "--config", str(config), "--plot", str(plot)])
    assert shown.exit_code == 0, shown.output
    assert plot.exists()


def test_a_campaigns_status_names_the_sites_it_leaves_out(config: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "server.db", isolation_level=None)
    connection.execute(
        "INSERT INTO campaigns (id, created_s, created_by, version, plan, held_back, state, groups)"
        """ VALUES (1, 1, 'ann', 2, '{"release": 2}', '["tunis"]', 'draft', 1)"""
    )
    connection.close()
    shown = CliRunner().invoke(ota_app, ["status", "1", "--config", str(config)], env={"COLUMNS": "200"})
    assert "held back: tunis, its nodes keep what they run" in shown.output
    as_json = CliRunner().invoke(ota_app, ["status", "1", "--config", str(config), "--json"])
    assert json.loads(as_json.output)["held_back"] == ["tunis"]


def test_the_same_evidence_gives_the_same_picture_whatever_the_sites_are_called() -> None:
    evidence = evidence_of(8).model_dump(mode="json")
    assert evidence_chart(evidence, "Release 2") == evidence_chart(json.loads(json.dumps(evidence)), "Release 2")
    hostile = json.loads(json.dumps(evidence).replace("zz-copy", "<script>&"))
    ET.fromstring(evidence_chart(hostile, "<b>"))


def test_a_large_fleet_is_drawn_in_thin_rows_without_names() -> None:
    evidence = evidence_of(8).model_dump(mode="json")
    for target in evidence["targets"]:
        target["sites"] = {f"site-{index:04d}": target["sites"]["site-01"] for index in range(500)}
    picture = evidence_chart(evidence, "Release 2")
    assert "site-0001" not in picture
    assert len(picture) < 1_000_000
