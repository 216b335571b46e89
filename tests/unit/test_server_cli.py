"""What operators type about releases, campaigns and the audit log, without a running server."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from server_cases import KEY, new_store, random_image, release, shared_truth
from typer.testing import CliRunner

from server import campaigns, releases, signing, store
from server.campaigns import Action, Plan
from server.cli import app, ota_app, terminal
from server.cli.campaigns import progress_picture
from shared_models.network import quantise_head


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    """A server's store with releases 1 and 2, one site of four nodes, and its configuration beside it."""
    made = new_store(tmp_path)
    made.execute("INSERT INTO rounds (id, started_s, state, backbone_id, base_version) VALUES (1, 1, 'released', 1, 1)")
    base = releases.find(made, 1)
    evidence = {"targets": [{"target": "uptake", "decision": "kept"}], "held_back": {"tunis": "hurt"}}
    provenance = {
        "code": {"version": "0.1.0", "hash": "c0de" * 16},
        "base_content_hash": base.content_hash,
        "sites": {"champion": {"contributors": 4, "windows": 600}},
    }
    image = quantise_head(base.image, shared_truth())
    release(made, image, base, provenance=provenance, evidence=evidence)
    made.execute("INSERT INTO sites VALUES ('champion', 1, '{}')")
    made.executemany(
        "INSERT INTO nodes VALUES (?, 'champion', 1, 1, ?, 3000, 1, 1, ?)",
        [(f"{number:016x}", random_image().backbone_id, rate) for number, rate in enumerate((5, 5, 3, None))],
    )
    signing.generate(tmp_path / "key", KEY.secret[:32])
    (tmp_path / "server.toml").write_text(f'state_dir = "{tmp_path}"\nkey_file = "{tmp_path / "key"}"\n')
    return made


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console measured its terminal when it was imported, by whichever test came first."""
    monkeypatch.setattr(terminal.console, "width", 240)


def typed(folder: Path, text: str, code: int = 0) -> str:
    """What a command prints, and that it ends with ``code``."""
    group, *arguments = text.split()
    command = app if group == "server" else ota_app
    done = CliRunner().invoke(command, [*arguments, "--config", str(folder / "server.toml")])
    assert done.exit_code == code, done.output
    return done.output


def answered(folder: Path, text: str, code: int = 0) -> Any:
    return json.loads(typed(folder, f"{text} --json", code))


@pytest.mark.usefixtures("connection")
def test_the_registry_lists_shows_compares_and_verifies(tmp_path: Path) -> None:
    listed = answered(tmp_path, "server release list")["releases"]
    assert [(entry["version"], entry["nodes"]) for entry in listed] == [(1, 4), (2, 0)]
    shown = answered(tmp_path, "server release show 2")
    assert shown["evidence"] == {"reason": "", "targets": {"uptake": "kept"}, "held_back": ["tunis"], "set_aside": []}
    for artefact in shown["artefacts"]:
        frames = artefact["frames"]
        assert frames["DR0"] >= frames["DR3"] >= frames["DR5"] >= 1
    text = typed(tmp_path, "server release show 2")
    for part in (
        "made by Noria 0.1.0, code c0de",
        "champion",
        "downlinks at DR3",
        "held back: tunis",
        "0 nodes run it",
    ):
        assert part in text
    difference = answered(tmp_path, "server release diff 1 2")
    assert [layer["weights"] > 0 for layer in difference["layers"]] == [False, False, True]
    assert "the head alone changed" in typed(tmp_path, "server release diff 1 2")
    assert "2 releases with 4 containers are whole" in typed(tmp_path, "server release verify")
    for missing in ("show 9", "diff 1 9", "verify 9"):
        assert "no release 9" in typed(tmp_path, f"server release {missing}", code=1)


def test_a_registry_that_was_touched_ends_verify_with_an_error(connection: sqlite3.Connection, tmp_path: Path) -> None:
    connection.execute("DROP TRIGGER artefacts_stay_as_they_are")
    connection.execute("UPDATE artefacts SET container = x'00' WHERE version = 2 AND kind = 'head'")
    problems = answered(tmp_path, "server release verify", code=1)["problems"]
    assert all(problem.startswith("release 2: head for backbone") for problem in problems)
    assert typed(tmp_path, "server release verify 1").startswith("1 releases with 2 containers are whole")
    stranger = signing.generate(tmp_path / "stranger", bytes(range(32)))
    file = signing.public_key_path(tmp_path / "stranger")
    assert file.read_text().strip() == stranger.public.hex()
    assert "not by a trusted key" in typed(tmp_path, f"server release verify 1 --public-key {file}", code=1)
    typed(tmp_path, f"server release verify --public-key {tmp_path / 'none'}", code=2)


def test_the_audit_log_is_shown_and_checked(connection: sqlite3.Connection, tmp_path: Path) -> None:
    for number in range(3):
        store.audit(connection, number, "ann", "campaign.start", f"campaign {number}")
    head = answered(tmp_path, "server audit --verify")["head"]
    assert head.startswith("3:")
    assert f"head {head}" in typed(tmp_path, "server audit --verify")
    assert len(answered(tmp_path, "server audit --limit 2")["audit"]) == 2
    assert "campaign 1" in typed(tmp_path, "server audit")
    store.audit(connection, 9, "ann", "campaign.abort", "campaign 2")
    assert answered(tmp_path, f"server audit --verify --since {head}")["problems"] == []
    connection.execute("DROP TRIGGER audit_is_kept")
    connection.execute("DELETE FROM audit WHERE id = 2")
    assert "row 2 is missing" in answered(tmp_path, "server audit --verify", code=1)["problems"]
    typed(tmp_path, "server audit --verify --since 7", code=2)
    typed(tmp_path, f"server audit --since {head}", code=2)


@pytest.mark.usefixtures("connection")
def test_a_dry_run_needs_no_server_and_changes_nothing(tmp_path: Path) -> None:
    expected = answered(tmp_path, "ota plan --group 1 --group 100% --hours 22-5 --not-before 2026-06-01")
    assert [group["nodes"] for group in expected["groups"]] == [1, 3]
    assert expected["data_rates_unknown"] == 1
    slow, fast = (next(node["cost"] for node in expected["devices"] if node["data_rate"] == rate) for rate in (None, 5))
    assert slow["charge_uah"] > fast["charge_uah"]
    text = typed(tmp_path, "ota create --dry-run --battery 2000 --healthy")
    assert "1 nodes' data rates are not known" in text
    assert answered(tmp_path, "ota list") == {"campaigns": []}


@pytest.mark.usefixtures("connection")
@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("ota plan --release newest", 2, "a release is a number, or latest"),
        ("ota plan --release 7", 1, "there is no release 7"),
        ("ota plan --not-before tomorrow", 2, "not a time"),
        ("ota plan --hours night", 2, "hours are given as in 22-5"),
        ("ota plan --hours 5-5", 1, "leave no time"),
        ("ota plan --group 1 --canary 2", 1, "either groups or canary"),
        ("ota plan --group 1", 1, "3 of 4 nodes are in none of the groups"),
        ("ota plan --running new", 1, "versions"),
        ("ota plan --automatic", 1, "needs not_before"),
        ("ota plan --unhealthy", 1, "no node matches"),
        ("ota start", 2, "either a campaign's number or --release"),
        ("ota start 1 --release 2", 2, "either a campaign's number or --release"),
        ("ota status 9", 1, "there is no campaign 9"),
        ("ota abort 9", 2, "no server runs"),
        ("server release withdraw 2 --reason bad", 2, "no server runs"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(tmp_path: Path, text: str, code: int, reason: str) -> None:
    assert reason in typed(tmp_path, text, code)


def test_a_campaign_is_shown_as_bars_with_its_expected_end(connection: sqlite3.Connection, tmp_path: Path) -> None:
    campaign = campaigns.create(connection, "ann", Plan(release=2, groups=["1", "100%"]), 100)
    for action in (Action.APPROVE, Action.START):
        campaigns.act(connection, "ann", campaign, action, 1000)
    assert "not known before a node has confirmed" in typed(tmp_path, "ota status 1")
    canary, *others = connection.execute("SELECT dev_eui FROM campaign_nodes ORDER BY group_index, dev_eui").fetchall()
    # As after reports at 5000 s: the canary took 4000 s, so the second group should be through as long after it opened.
    connection.execute("UPDATE campaigns SET open_group = 1")
    connection.execute("UPDATE campaign_nodes SET opened_s = 5000 WHERE group_index = 1")
    mark = "UPDATE campaign_nodes SET state = ?, updated_s = 5000, ailment = ? WHERE dev_eui = ?"
    connection.execute(mark, ("confirmed", "", canary["dev_eui"]))
    connection.execute(mark, ("activated", "unhealthy since it runs the release", others[0]["dev_eui"]))
    connection.execute(mark, ("refused", "", others[1]["dev_eui"]))
    overview = answered(tmp_path, "ota status 1")
    assert overview["expected_end_s"] == 9000
    assert (overview["confirmed"], overview["failed"], overview["ailing"], overview["pending"]) == (1, 1, 1, 1)
    console = Console(width=120, record=True, file=(tmp_path / "out").open("w", encoding="utf-8"))
    console.print(progress_picture(overview))
    lines = console.export_text().splitlines()
    assert lines[0] == f"   canary {'█' * 40} 1 of 1 confirmed, 0 failed"
    assert lines[1] == f"  group 2 {'▓' * 13}{'░' * 14}{'x' * 13} 0 of 3 confirmed, 1 failed, 1 ailing"
    assert lines[3].strip() == "end: 1970-01-01 02:30 UTC at the pace so far"


def test_watching_ends_with_the_campaign(connection: sqlite3.Connection, tmp_path: Path) -> None:
    campaign = campaigns.create(connection, "ann", Plan(release=2), 100)
    campaigns.act(connection, "ann", campaign, Action.ABORT, 200)
    text = typed(tmp_path, "ota status 1 --watch")
    assert text.startswith("campaign 1, release 2: aborted")
    assert text.count("canary") == 1
