"""A round killed at any statement: what the store holds afterwards leads to the very release of an undisturbed one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from server_cases import KEY, new_store, random_image, shared_truth, sums_of
from typer.testing import CliRunner

from server import improvement, lock, releases, store
from server.cli import app as cli
from server.config import FederationSection, ServerSettings
from server.federation import LOCK_FILE, keep, main, site_sums
from server.improvement import RoundError
from server.strategy import Collected, SiteSums, Verdict
from server.superlink import FlowerError

SITES = tuple(SiteSums(name, 4, 600, sums_of(seed, shared_truth())) for seed, name in enumerate(("a", "b")))
COLLECTED = Collected(
    SITES, (*(Verdict(node, site.site, "accepted") for node, site in enumerate(SITES)), Verdict(9, None, "silent"))
)
NOW_S = 5_000


def settings_of(folder: Path) -> ServerSettings:
    return ServerSettings(state_dir=folder, key_file=folder / "key", federation=FederationSection(minimum_sites=2))


def fatal_after(connection: sqlite3.Connection, left: list[int]) -> sqlite3.Connection:
    """The process dies, as of ``kill -9``, before the statement at which ``left`` has come to nothing."""

    def count(_statement: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    connection.set_trace_callback(count)
    return connection


def hold_round(folder: Path, statements: int = 10**9) -> None:
    """One round by server and ServerApp, together allowed so many statements."""
    left = [statements]
    server = fatal_after(store.connect(folder / "server.db"), left)

    async def flower(options: Mapping[str, str | int | float]) -> None:
        app = fatal_after(store.connect(folder / "server.db"), left)
        keep(app, int(options["round"]), COLLECTED)
        app.close()

    asyncio.run(improvement.improve(server, settings_of(folder), KEY, lambda: NOW_S, flower, asyncio.Lock()))
    server.close()


def resumed(connection: sqlite3.Connection, folder: Path) -> dict | None:
    """What the next server makes of what was left open."""
    return asyncio.run(improvement.resume(connection, settings_of(folder), KEY, lambda: NOW_S, asyncio.Lock()))


def killed(folder: Path, statements: int) -> bool:
    """Hold a round in a process that dies after so many statements; whether it did die."""
    child = os.fork()
    if child == 0:
        try:
            hold_round(folder, statements)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def facts(connection: sqlite3.Connection) -> dict[str, object]:
    rows = connection.execute("SELECT * FROM rounds ORDER BY id").fetchall()
    good = [row for row in rows if row["state"] == "released"]
    assert [row["state"] for row in rows if row not in good] in ([], ["failed"])
    assert [row["version"] for row in good] == [2]
    (number,) = (row["id"] for row in good)
    return {
        "image": releases.find(connection, "latest").image.pack(),
        "containers": [tuple(row) for row in connection.execute("SELECT version, kind, container FROM artefacts")],
        "sums": [(entry.site, entry.sums.gram.tobytes(), entry.windows) for entry in site_sums(connection, number)],
        "replies": connection.execute("SELECT count(*) FROM replies WHERE round = ?", (number,)).fetchone()[0],
        "round": tuple(good[0][name] for name in ("asked", "accepted", "silent", "contributors", "windows")),
        "audited": connection.execute("SELECT count(*) FROM audit WHERE action = 'release.created'").fetchone()[0],
    }


def test_killed_before_any_statement_the_server_goes_on_to_the_release_of_an_undisturbed_round(tmp_path: Path) -> None:
    new_store(tmp_path).close()  # as a file it is complete: the last connection has emptied its log
    fresh = tmp_path / "server.db"

    def folder_with_a_store(name: str) -> Path:
        (tmp_path / name).mkdir()
        shutil.copy(fresh, tmp_path / name)
        return tmp_path / name

    hold_round(folder_with_a_store("calm"))
    with store.connect(tmp_path / "calm" / "server.db") as connection:
        expected = facts(connection)
    statements, decided = 0, 0
    while True:
        folder = folder_with_a_store(str(statements))
        if not killed(folder, statements):
            break
        connection = store.connect(folder / "server.db")
        outcome = resumed(connection, folder)
        decided += outcome is not None
        assert not improvement.is_open(connection)
        done = connection.execute("SELECT count(*) FROM releases").fetchone()[0] == 2
        assert done == bool(outcome) or connection.execute("SELECT state FROM rounds").fetchone()["state"] == "released"
        if not done:
            hold_round(folder)
        assert facts(connection) == expected, f"killed before statement {statements}"
        connection.close()
        statements += 1
    assert statements > 25
    assert decided > 8, "what had been collected was used, not asked for again"


def test_what_a_run_collected_counts_even_if_the_run_dies_afterwards(tmp_path: Path) -> None:
    connection = new_store(tmp_path)

    async def flower(options: Mapping[str, str | int | float]) -> None:
        keep(connection, int(options["round"]), COLLECTED)
        raise FlowerError("flwr run ended with code 1")

    outcome = asyncio.run(
        improvement.improve(connection, settings_of(tmp_path), KEY, lambda: NOW_S, flower, asyncio.Lock())
    )
    assert outcome["version"] == 2


def test_a_stopped_server_decides_at_its_next_start_what_was_collected_and_gives_up_what_was_not(
    tmp_path: Path,
) -> None:
    connection = new_store(tmp_path)

    async def stopped(*, collected: bool) -> None:
        begun = asyncio.Event()

        async def flower(options: Mapping[str, str | int | float]) -> None:
            if collected:
                keep(connection, int(options["round"]), COLLECTED)
            begun.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(
            improvement.improve(connection, settings_of(tmp_path), KEY, lambda: NOW_S, flower, asyncio.Lock())
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped(collected=False))
    assert not improvement.is_open(connection)
    assert resumed(connection, tmp_path) is None
    asyncio.run(stopped(collected=True))
    outcome = resumed(connection, tmp_path)
    assert outcome is not None
    assert outcome["version"] == 2
    states = connection.execute("SELECT state, reason FROM rounds ORDER BY id").fetchall()
    assert [tuple(row) for row in states] == [("failed", "the server stopped"), ("released", "")]


def test_a_run_that_outlived_its_round_changes_nothing(tmp_path: Path) -> None:
    connection = new_store(tmp_path)

    async def nothing(_options: Mapping[str, str | int | float]) -> None:
        return

    with pytest.raises(RoundError, match="without collecting"):
        asyncio.run(improvement.improve(connection, settings_of(tmp_path), KEY, lambda: NOW_S, nothing, asyncio.Lock()))
    with pytest.raises(store.StoreError, match="round 1 is not waiting"):
        keep(connection, 1, COLLECTED)
    assert connection.execute("SELECT count(*) FROM site_sums").fetchone()[0] == 0


def test_two_runs_at_once_are_refused_across_processes(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    gate_in, gate_out = os.pipe()
    child = os.fork()
    if child == 0:
        with lock.hold(tmp_path / LOCK_FILE, 0.0):
            os.write(gate_out, b".")
            signal.pause()
    try:
        assert os.read(gate_in, 1) == b"."

        run = SimpleNamespace(run_config={"state-dir": str(tmp_path), "round": 1, "wait-s": 0.0})
        with pytest.raises(lock.LockedError, match=r"round\.lock is held by another process"):
            main(object(), run)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with lock.hold(tmp_path / LOCK_FILE, 0.0):
        assert lock.is_held(tmp_path / LOCK_FILE)
    assert not lock.is_held(tmp_path / LOCK_FILE)


def test_the_image_under_test_is_not_the_one_it_starts_from(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    hold_round(tmp_path)
    assert releases.find(connection, "latest").image.pack() != random_image().pack()


def test_the_history_tells_figures_refusals_and_when_the_next_round_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.cli.rounds.console", Console(width=200))
    connection = new_store(tmp_path)
    hold_round(tmp_path)
    config = tmp_path / "server.toml"
    config.write_text(f'state_dir = "{tmp_path}"\nkey_file = "{tmp_path}/key"\n[rounds]\nevery_hours = 6\n')
    store.set_meta(connection, "rounds_due_s", "1750003600")
    store.set_meta(connection, "rounds_failures", "2")
    store.set_meta(connection, "rounds_wait_for", "failed 2 times in a row; the pause before the next try")
    answers = {
        name: CliRunner().invoke(cli, [*name.split(), "--config", str(config)])
        for name in ("rounds", "rounds --json", "status --json")
    }
    assert {name: answer.exit_code for name, answer in answers.items()} == dict.fromkeys(answers, 0)
    text = answers["rounds"].stdout
    assert "next round due 2025-06-15 16:06 UTC; waits for failed 2 times in a row" in text
    assert "round 1, 9 silent" in text
    assert "release 2" in text
    schedule = json.loads(answers["status --json"].stdout)["schedule"]
    assert (schedule["next_due_s"], schedule["failures"]) == (1_750_003_600, 2)
    (entry,) = json.loads(answers["rounds --json"].stdout)["rounds"]
    assert (entry["state"], entry["accepted"], entry["silent"], entry["contributors"]) == ("released", 2, 1, 8)
    assert [reply["verdict"] for reply in entry["replies"]] == ["accepted", "accepted", "silent"]
